"""The pixels some way from each pixel of an object, for all objects of a stack at once."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.measures.contour import directions
from svetlana_jupyter.core.measures.region import Offset, Region
from svetlana_jupyter.core.measures.table import PARTS, PIXEL_DISTANCES


class PaddedStack:
    """A stack with a margin behind each axis, so that a step from an object's pixel never ends in another object.

    Parameters
    ----------
    region : Region
    reach : tuple of int
        How many pixels a step may be long along each axis.

    Attributes
    ----------
    at : int array of shape (m,)
        Flat positions of the objects' pixels in the widened stack; those of one object after those of another.
    own : bool array
        Which pixels of the flat widened stack belong to an object.
    """

    def __init__(self, region: Region, reach: tuple[int, ...]) -> None:
        self.region = region
        box = tuple(side + margin for side, margin in zip(region.box, reach, strict=True))
        self._strides = tuple(math.prod(box[axis + 1 :]) for axis in range(region.ndim))
        # Steps may lead behind the last object, never before the first: the first part of an offset is positive.
        self.own = np.zeros(len(region) * math.prod(box) + self.flat(reach), bool)
        stack = self.own[: len(region) * math.prod(box)].reshape(len(region), *box)
        stack[(slice(None), *map(slice, region.box))] = region.own
        self.at = np.flatnonzero(self.own)

    @classmethod
    def of(cls, region: Region) -> Self:
        """Prepare for all the distances that a texture is measured at."""
        longest = max(*PIXEL_DISTANCES, float(region.diameter.max()) / min(PARTS))
        return cls(region, tuple(math.floor(longest / step) + 1 for step in region.step))

    def spread(self, values: NDArray[Any], outside: float) -> NDArray[Any]:
        """Return values at ``region.at`` as a flat widened stack."""
        stack = np.full(len(self.own), outside, values.dtype)
        stack[self.at] = values
        return stack

    def shifts(self, distance: float) -> NDArray[np.int64]:
        """Return how far steps of a length, in all directions, lead in the flat stack."""
        return np.array([self.flat(offset) for offset in offsets(self.region.step, distance)], np.int64)

    def flat(self, offset: Offset) -> int:
        """Return how far a step leads in the flat stack."""
        return sum(part * stride for part, stride in zip(offset, self._strides, strict=True))


@lru_cache(maxsize=256)
def offsets(step: tuple[float, ...], distance: float) -> tuple[Offset, ...]:
    """Return the offsets of about this length in all directions; longer pixels are stepped over less often."""
    found: dict[Offset, None] = {}
    for direction in directions(len(step)):
        unit = np.array(direction) / np.linalg.norm(direction)
        offset = tuple(int(part) for part in np.rint(distance * unit / np.array(step)))
        if offset > (0,) * len(step):
            found[offset] = None
    return tuple(found)
