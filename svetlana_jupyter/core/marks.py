"""How objects are marked on the screen: a few styles, and which of them each object has."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from svetlana_jupyter.core.classes import Classes

# One byte a pixel addresses the colour table: 0 is transparent, each style takes a fill and a line.
MOST_STYLES = 127


@dataclass(frozen=True)
class Style:
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


PLAIN = Style()
SET_ASIDE = Style(bold=True)


@dataclass(frozen=True, eq=False)
class Marks:
    """The style of every object of one image.

    Later layers win: predictions first, then annotations.

    Attributes
    ----------
    key : hashable
        Equal for equal marks, so that nothing is painted twice; for example version numbers.
    styles : tuple of Style
        The first is that of every object that no layer names.
    """

    key: Hashable = None
    styles: tuple[Style, ...] = (PLAIN,)
    _layers: tuple[tuple[NDArray[np.int64], NDArray[np.uint8]], ...] = field(default=())

    def adding(self, objects: ArrayLike, styles: ArrayLike) -> Marks:
        """Return marks that give ``objects``, shape (n,), the styles at these positions, shape (n,)."""
        labels = np.asarray(objects, np.int64)
        order = np.argsort(labels, kind="stable")
        layer = (labels[order], np.asarray(styles, np.uint8)[order])
        return Marks(self.key, self.styles, (*self._layers, layer)) if len(labels) else self

    def of(self, objects: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the position in ``styles`` of each object; the cost follows ``objects``, not the image."""
        found = np.zeros(len(objects), np.uint8)
        for labels, styles in self._layers:
            at = np.minimum(np.searchsorted(labels, objects), len(labels) - 1)
            found = np.where(labels[at] == objects, styles[at], found)
        return found


def class_marks(
    classes: Classes, labels: pd.DataFrame, predicted: pd.Series | None = None, key: Hashable = None
) -> Marks:
    """Return marks in the colours of the classes: bold and full for annotations, thin and pale for predictions.

    Parameters
    ----------
    classes : Classes
    labels : DataFrame
        Indexed by object: ``action`` and ``class_id``, as annotated.
    predicted : Series, optional
        Class id by object.
    key : hashable
        Equal for equal arguments.
    """
    colors = list(dict.fromkeys(info.color for info in classes))[: (MOST_STYLES - 2) // 2]
    styles = [PLAIN, SET_ASIDE]
    styles += [style for color in colors for style in (Style(color, bold=True, fill=1.0), Style(color, fill=0.5))]
    position = {info.id: 2 + 2 * colors.index(info.color) for info in classes if info.color in colors}
    marks = Marks(key, tuple(styles))
    if predicted is not None:
        marks = marks.adding(predicted.index, predicted.map({i: p + 1 for i, p in position.items()}).fillna(0))
    labels = labels[labels["action"] != "skip"]
    said = labels["class_id"].map(position).fillna(1).where(labels["action"] == "label", 1)
    return marks.adding(labels.index, said)
