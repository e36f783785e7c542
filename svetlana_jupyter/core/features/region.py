"""Stacks of objects, and reductions over the pixels of each object.

All measurements are computed on such stacks. A stack contains only the pixels of the objects themselves, so that the
neighbors of an object, the blocks of a file and the other objects of the stack cannot change a measurement.
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
class ObjectStack:
    """Masks of n objects, cropped from the image to the same shape.

    Parameters
    ----------
    own : bool of shape (n, [z,] y, x)
    step : tuple of float
        Lengths of a pixel along ``([z,] y, x)``; the shortest is 1 unless the image was subsampled.
    """

    own: NDArray[np.bool_]
    step: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.own)

    @property
    def ndim(self) -> int:
        """Number of dimensions, 2 or 3."""
        return len(self.step)

    @property
    def box(self) -> tuple[int, ...]:
        """Shape of one crop, ([z,] y, x)."""
        return self.own.shape[1:]

    @cached_property
    def at(self) -> NDArray[np.int64]:
        """Flat positions in the stack of all object pixels, object by object."""
        return np.flatnonzero(self.own)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Pixels per object, (n,)."""
        return np.asarray(np.count_nonzero(self.own.reshape(len(self), -1), axis=1), np.int64)

    @cached_property
    def size(self) -> Floats:
        """Area or volume of each object, (n,)."""
        return self.counts.astype(np.float64) * math.prod(self.step)

    @cached_property
    def diameter(self) -> Floats:
        """Diameter of the disk or ball of the same size as each object, (n,)."""
        unit_ball = math.pi ** (self.ndim / 2) / math.gamma(self.ndim / 2 + 1)
        return np.asarray(2 * (self.size / unit_ball) ** (1 / self.ndim))

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Position in ``at`` of the first pixel of each object, (n,)."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """Index in the stack of the object to which each pixel of ``at`` belongs."""
        return np.repeat(np.arange(len(self)), self.counts)

    @cached_property
    def radius(self) -> Floats:
        """Distance of each pixel of ``at`` from the centroid of its object."""
        return np.sqrt(sum(offset**2 for offset in self.offsets))

    @cached_property
    def positions(self) -> list[Floats]:
        """Position of each pixel of ``at`` in its crop, along each axis."""
        return [axis.astype(np.float64) for axis in np.unravel_index(self.at, self.own.shape)[1:]]

    @cached_property
    def offsets(self) -> list[Floats]:
        """Distances of each pixel of ``at`` from the centroid along each axis."""
        return [self.subtract_mean(position * step) for position, step in zip(self.positions, self.step)]

    @cached_property
    def rim(self) -> NDArray[np.bool_]:
        """Whether each pixel of ``at`` is at the border of its object.

        A border pixel shares a face with another object, the background or the image border.
        """
        return ~self.inner.reshape(-1)[self.at]

    @cached_property
    def inner(self) -> NDArray[np.bool_]:
        """Mask of the pixels whose neighbors along each axis belong to the same object."""
        return np.asarray(np.all([inner_along(self.own, axis) for axis in range(self.ndim)], axis=0))

    def of(self, stack: NDArray[Any]) -> Floats:
        """Return the values of a stack (n, ...) at the pixel positions ``at``."""
        return stack.reshape(-1)[self.at].astype(np.float64)

    def total(self, values: Floats) -> Floats:
        """Return the sum over each object of values at the pixels ``at``."""
        return self._reduce(np.add, values, 0.0)

    def mean(self, values: Floats) -> Floats:
        """Return the mean over each object of values at ``at``; NaN without pixels."""
        return safe_divide(self.total(values), self.counts)

    def subtract_mean(self, values: Floats) -> Floats:
        """Return values at the pixels ``at``, minus the mean of their object."""
        return values - self.mean(values)[self.owner]

    def largest(self, values: Floats) -> Floats:
        """Return the maximum over each object of values at ``at``; NaN without pixels."""
        return self._reduce(np.maximum, values, np.nan)

    def _reduce(self, ufunc: np.ufunc, values: Floats, empty: float) -> Floats:
        reduced, nonempty = np.full(len(self), empty), self.counts > 0
        if len(values):
            reduced[nonempty] = ufunc.reduceat(values, self.starts[nonempty])
        return reduced


def inner_along(stack: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Return the mask pixels whose two neighbors along an axis are in the mask, too."""
    inner = np.zeros_like(stack)
    lines, inner_lines = np.moveaxis(stack, axis + 1, -1), np.moveaxis(inner, axis + 1, -1)
    inner_lines[..., 1:-1] = lines[..., :-2] & lines[..., 1:-1] & lines[..., 2:]
    return inner


def shifted_views(offset: Offset) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the slices of a stack that pair each pixel with the pixel at an offset."""
    first = (slice(None), *(slice(max(-step, 0), -step if step > 0 else None) for step in offset))
    second = (slice(None), *(slice(max(step, 0), step if step < 0 else None) for step in offset))
    return first, second


def safe_divide(value: Any, by: Any) -> Floats:
    """Return ``value / by``, NaN where ``by`` is 0."""
    by = np.asarray(by, float)
    small = np.abs(by) < 1e-12
    return np.where(small, np.nan, value / np.where(small, 1.0, by))
