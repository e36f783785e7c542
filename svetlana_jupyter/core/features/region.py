"""Some objects cut out side by side, and sums over the pixels of each.

Everything that is measured is computed on such a stack: an object sees its own pixels and nothing else, so its
neighbours, the blocks of a file and the other objects of the stack cannot change a number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Stack = NDArray[np.float32]
Offset = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Region:
    """Which pixels belong to each of n objects, every object in a box of its own; boxes are of one shape.

    Parameters
    ----------
    own : bool of shape (n, [z,] y, x)
    step : tuple of float
        Length of a pixel along ``([z,] y, x)``; the shortest one is 1 unless the image was read in steps.
    """

    own: NDArray[np.bool_]
    step: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.own)

    @property
    def ndim(self) -> int:
        return len(self.step)

    @property
    def box(self) -> tuple[int, ...]:
        return self.own.shape[1:]

    @cached_property
    def at(self) -> NDArray[np.int64]:
        """Flat positions in the stack of all pixels that belong to an object, those of one after those of another."""
        return np.flatnonzero(self.own)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Pixels of each object, (n,)."""
        counts: NDArray[np.int64] = np.count_nonzero(self.own.reshape(len(self), -1), axis=1)
        return counts

    @cached_property
    def size(self) -> Floats:
        """Area or volume of each object, (n,)."""
        return self.counts.astype(np.float64) * math.prod(self.step)

    @cached_property
    def diameter(self) -> Floats:
        """Diameter of the disc or ball of the same size as each object, (n,)."""
        unit_ball = math.pi ** (self.ndim / 2) / math.gamma(self.ndim / 2 + 1)
        diameter: Floats = 2 * (self.size / unit_ball) ** (1 / self.ndim)
        return diameter

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """Number of the object that each pixel of ``at`` belongs to."""
        return np.repeat(np.arange(len(self)), self.counts)

    @cached_property
    def radius(self) -> Floats:
        """Distance of every pixel of ``at`` from the centroid of its object."""
        return np.sqrt(sum(offset**2 for offset in self.offsets))

    @cached_property
    def offsets(self) -> list[Floats]:
        """Distances of every pixel of ``at`` from the centroid along each axis."""
        places = np.unravel_index(self.at, self.own.shape)[1:]
        return [
            self.subtract_mean(place.astype(np.float64) * step) for place, step in zip(places, self.step, strict=True)
        ]

    @cached_property
    def rim(self) -> NDArray[np.bool_]:
        """Which pixels of ``at`` have a face that another object, the background or the image's border touches."""
        return ~self.inner(range(self.ndim)).reshape(-1)[self.at]

    def of(self, stack: NDArray[Any]) -> Floats:
        """Return the values of a stack (n, *box) at the pixels of ``at``."""
        return stack.reshape(-1)[self.at].astype(np.float64)

    def total(self, values: Floats) -> Floats:
        """Return the sum over each object of values at ``at``."""
        sums, some = np.zeros(len(self)), self.counts > 0
        if len(values):
            sums[some] = np.add.reduceat(values, self.starts[some])
        return sums

    def mean(self, values: Floats) -> Floats:
        """Return the mean over each object, NaN where it has no pixels."""
        return over(self.total(values), self.counts)

    def subtract_mean(self, values: Floats) -> Floats:
        return values - self.mean(values)[self.owner]

    def largest(self, values: Floats) -> Floats:
        """Return the largest value in each object, NaN where it has no pixels."""
        found, some = np.full(len(self), np.nan), self.counts > 0
        if len(values):
            found[some] = np.maximum.reduceat(values, self.starts[some])
        return found

    def inner(self, axes: Any) -> NDArray[np.bool_]:
        """Return which pixels of the stack are an object's own together with both neighbours along some axes."""
        inner = self.own.copy()
        for axis in axes:
            offset = tuple(int(other == axis) for other in range(self.ndim))
            for there, here in (pairs(offset), pairs(offset)[::-1]):
                together = np.zeros_like(inner)
                together[there] = self.own[here]
                inner &= together
        return inner


def pairs(offset: Offset) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return two parts of a stack, an offset apart: where the first holds a pixel, the second holds its partner."""
    first = (slice(None), *(slice(max(-step, 0), -step if step > 0 else None) for step in offset))
    second = (slice(None), *(slice(max(step, 0), step if step < 0 else None) for step in offset))
    return first, second


def over(value: Any, by: Any) -> Floats:
    """Return ``value / by``, NaN where that is undefined."""
    by = np.asarray(by, float)
    small = np.abs(by) < 1e-12
    return np.where(small, np.nan, value / np.where(small, 1.0, by))
