"""How the objects of one mask follow those of the mask before it, and which annotation a new object takes over.

A mask that replaces another is linked to it once (`core.matching`); the links are kept, the log is not touched. So
undo reaches behind the replacement, and what other people said, or say later, is carried over by the same links.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd

LINK_COLUMNS = ["old", "new", "pixels"]


class LabelMapping:
    """The links from one mask to the next.

    Parameters
    ----------
    links : DataFrame
        Columns ``old`` and ``new`` (object numbers) and ``pixels`` (how many they share), as `core.matching.link`
        gives them.

    >>> step = LabelMapping(pd.DataFrame([(7, 12, 90), (8, 12, 30), (8, 13, 40)], columns=LINK_COLUMNS))
    >>> step.successors(8), step.predecessors(12)
    ([12, 13], [(7, 90), (8, 30)])
    """

    def __init__(self, links: pd.DataFrame) -> None:
        self.links = links[LINK_COLUMNS].astype(np.int64)

    def successors(self, old: int) -> list[int]:
        """Return the objects of the new mask that an object of the old one became."""
        return self._successors.get(old, [])

    def predecessors(self, new: int) -> list[tuple[int, int]]:
        """Return the objects of the old mask that became an object of the new one, each with the pixels shared."""
        return self._predecessors.get(new, [])

    @cached_property
    def _successors(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for old, new in zip(self.links["old"].tolist(), self.links["new"].tolist()):
            found.setdefault(old, []).append(new)
        return found

    @cached_property
    def _predecessors(self) -> dict[int, list[tuple[int, int]]]:
        found: dict[int, list[tuple[int, int]]] = {}
        for old, new, pixels in self.links.to_numpy().tolist():
            found.setdefault(new, []).append((old, pixels))
        return found


def follow(object: int, steps: Sequence[LabelMapping]) -> set[int]:
    """Return what an object became over several masks."""
    numbers = {object}
    for step in steps:
        numbers = {new for old in numbers for new in step.successors(old)}
    return numbers
