"""Warnings about images whose results may be wrong.

A warning is a sentence about one image, for example that the numbers in its mask do not name objects. It is computed
from what is in memory whenever it is needed, so that it disappears as soon as its cause is gone. All tables, panels and
exports take their warnings from here.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

from svetlana_jupyter.errors import ResultWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pandas as pd

    from svetlana_jupyter.core.mask_numbers import NumberingProblem

MAX_IMAGES_NAMED = 3


class ImageWarnings:
    """Warnings about the images of a project.

    Parameters
    ----------
    *sources : callable
        Each returns a warning about an image by its name, or "". A source must be fast and must not raise an error,
        since panels ask it whenever they draw.
    """

    def __init__(self, *sources: Callable[[str], str]) -> None:
        self._sources = list(sources)
        self._shown: set[tuple[str, str]] = set()

    def add_source(self, source: Callable[[str], str]) -> None:
        """Add a callable that returns a warning about an image by its name, or ""."""
        self._sources.append(source)

    def of_image(self, name: str) -> str:
        """Return the warnings about an image as sentences; "" if there are none."""
        return " ".join(filter(None, (source(name) for source in self._sources)))

    def of_images(self, names: Iterable[str]) -> dict[str, str]:
        """Return the warnings about the given images by name, where there are any."""
        return {name: text for name in names if (text := self.of_image(name))}

    def attach(self, table: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
        """Store the warnings in ``table.attrs["warning"]``, and issue them once.

        Parameters
        ----------
        table : DataFrame
            Changed in place; without warnings, it has no such attribute.
        names : iterable of str
            Images that the table is about.
        """
        found = self.of_images(names)
        table.attrs.pop("warning", None)
        if found:
            table.attrs["warning"] = summarize(found)
        self.issue(found)
        return table

    def issue(self, found: Mapping[str, str]) -> None:
        """Issue new warnings through the `warnings` module of Python."""
        if new := {name: text for name, text in found.items() if (name, text) not in self._shown}:
            self._shown.update(new.items())
            warnings.warn(summarize(new), ResultWarning, stacklevel=_stack_level())


def _stack_level() -> int:
    """Return the stack level of the first frame outside this package."""
    package, level, frame = __name__.split(".")[0], 0, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level + 1


def describe_numbering(name: str, problem: NumberingProblem | None) -> str:
    """Return the warning about a mask whose numbers do not name objects."""
    if problem is None:
        return ""
    unit = "connected area" if problem.repair == "foreground" else "piece"
    call = f"`project.replace_mask({name!r}, repair={problem.repair!r})`"
    replace = f"Replace it with `project.replace_mask({name!r}, 'mask.tif')`"
    advice = f"Give each {unit} its own number with {call}" if problem.repair else replace
    return f"{problem.text} {advice}, or accept it with `project.images.accept_warning({name!r})`."


def describe_channels(name: str, stored: Sequence[str], found: Sequence[str]) -> str:
    """Return the warning about an image with more channels than when it was added."""
    if len(found) <= len(stored):
        return ""
    return (
        f"It has {len(found)} channels, but had {len(stored)} ({', '.join(stored)}) when it was added; the others are "
        f"named {', '.join(found[len(stored) :])}. Train again to use all channels, and accept them with "
        f"`project.images.accept_warning({name!r})`."
    )


def summarize(found: Mapping[str, str]) -> str:
    """Return the warnings about several images as one text.

    >>> summarize({"a": "Too dark.", "b": "Too bright."})
    'a: Too dark. b: Too bright.'
    """
    named = [f"{name}: {text}" for name, text in list(found.items())[:MAX_IMAGES_NAMED]]
    more = len(found) - len(named)
    return " ".join([*named, f"{more:,} more images have a warning: project.images.warnings"] if more else named)
