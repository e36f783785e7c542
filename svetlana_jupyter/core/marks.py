"""How objects are marked on the screen: a few styles, and which of them each object has."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from svetlana_jupyter.core.annotations import Label
from svetlana_jupyter.core.classes import ClassScheme

# One byte a pixel addresses the colour table: 0 is transparent, each style takes a fill and a line.
MAX_STYLES = 127


@dataclass(frozen=True)
class ObjectStyle:
    """The look of an object.

    Attributes
    ----------
    color : str
        ``"#rrggbb"``; empty for the neutral ink, dark on bright images and bright on dark ones.
    bold : bool
        A thick outline: a person said so. A thin one: nobody did, or a classifier.
    fill : float
        How strongly the inside is tinted, 0 to 1, relative to the overlay's opacity.
    """

    color: str = ""
    bold: bool = False
    fill: float = 0.0


PLAIN = ObjectStyle()
EXCLUDED_STYLE = ObjectStyle(bold=True)


@dataclass(frozen=True, eq=False)
class ObjectStyles:
    """The style of every object of one image.

    Later layers win: predictions first, then what ``said`` knows. It is asked for the objects that are seen, however
    many the image has.

    Attributes
    ----------
    key : hashable
        Equal for equal marks, so that nothing is painted twice; for example version numbers.
    styles : tuple of Style
        The first is that of every object that no layer names.
    said : callable, optional
        Takes objects, shape (n,), and returns the position in ``styles`` of those that it knows, and perhaps of
        others. It may change its mind: then these marks are `with_key`.
    """

    key: Hashable = None
    styles: tuple[ObjectStyle, ...] = (PLAIN,)
    said: Callable[[NDArray[np.int64]], Mapping[int, int]] | None = None
    _layers: tuple[tuple[NDArray[np.int64], NDArray[np.uint8]], ...] = field(default=())

    def adding(self, objects: ArrayLike, styles: ArrayLike) -> ObjectStyles:
        """Return marks that give ``objects``, shape (n,), the styles at these positions, shape (n,)."""
        return replace(self, _layers=(*self._layers, _sorted(objects, styles)))

    def with_key(self, key: Hashable) -> ObjectStyles:
        """Return the same marks with another key: ``said`` has changed."""
        return replace(self, key=key)

    def of(self, objects: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the position in ``styles`` of each object; the cost follows ``objects``, not the image."""
        layers = self._layers
        if self.said is not None:
            said = self.said(objects)
            layers = (*layers, _sorted(list(said), list(said.values())))
        found = np.zeros(len(objects), np.uint8)
        for labels, styles in layers:
            if len(labels):
                at = np.minimum(np.searchsorted(labels, objects), len(labels) - 1)
                found = np.where(labels[at] == objects, styles[at], found)
        return found


def class_styles(
    classes: ClassScheme,
    labels_of: Callable[[NDArray[np.int64]], Mapping[int, Label]],
    predicted: pd.Series | None = None,
    key: Hashable = None,
) -> ObjectStyles:
    """Return marks in the colours of the classes: bold and full for annotations, thin and pale for predictions.

    Parameters
    ----------
    classes : Classes
    labels_of : callable
        Takes objects, shape (n,), and returns what is annotated of them, and perhaps of others.
    predicted : Series, optional
        Class id by object.
    key : hashable
        Equal for equal arguments and annotations.
    """
    colors = list(dict.fromkeys(info.color for info in classes))[: (MAX_STYLES - 2) // 2]
    styles = [PLAIN, EXCLUDED_STYLE]
    styles += [
        style for color in colors for style in (ObjectStyle(color, bold=True, fill=1.0), ObjectStyle(color, fill=0.5))
    ]
    position = {info.id: 2 + 2 * colors.index(info.color) for info in classes if info.color in colors}

    def said(objects: NDArray[np.int64]) -> dict[int, int]:
        return {
            object: position.get(label.class_id, 1) if label.action == "label" else 1
            for object, label in labels_of(objects).items()
            if label.action in ("label", "ambiguous", "bad")
        }

    marks = ObjectStyles(key, tuple(styles), said)
    if predicted is not None:
        marks = marks.adding(predicted.index, predicted.map({i: p + 1 for i, p in position.items()}).fillna(0))
    return marks


def _sorted(objects: ArrayLike, styles: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    labels = np.asarray(objects, np.int64)
    order = np.argsort(labels, kind="stable")
    return labels[order], np.asarray(styles, np.uint8)[order]
