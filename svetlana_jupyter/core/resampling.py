"""Bringing windows of an image to the pixels of a patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", np.float32, np.bool_)
Floats = NDArray[np.float32]


def resampled(
    pixels: Floats,
    steps: Sequence[float],
    shape: Sequence[int],
    box: Sequence[slice] | None = None,
    window: Sequence[int] | None = None,
    wide: float = 1.0,
) -> Floats:
    """Resample the last axes by triangles as wide as the steps: linear when enlarging, averaging when reducing.

    From the last axis to the first, each with all axes behind it as one, so that nothing is transposed. Pixels may be
    those of a ``box`` in a ``window``, which are zero beside it. The triangles are ``wide`` times as wide as that.
    """
    first = pixels.ndim - len(shape)
    window = window or pixels.shape[first:]
    for axis in range(pixels.ndim - 1, first - 1, -1):
        step, count, side = steps[axis - first], shape[axis - first], window[axis - first]
        if step == wide == 1.0 and box is None:
            continue
        at = (np.arange(count) - (count - 1) / 2) * step
        here = np.arange(side) - (side - 1) / 2
        weights = np.maximum(0.0, 1.0 - np.abs(here - at[:, None]) / (wide * max(1.0, step)))
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        if box is not None:
            weights = np.ascontiguousarray(weights[:, box[axis - first]])
        before, behind = pixels.shape[:axis], pixels.shape[axis + 1 :]
        if behind:
            rows = pixels.reshape(math.prod(before), pixels.shape[axis], math.prod(behind))
            pixels = (weights @ rows).reshape(*before, count, *behind)
        else:
            pixels = (pixels.reshape(math.prod(before), pixels.shape[axis]) @ weights.T).reshape(*before, count)
    return pixels


def nearest(values: NDArray[Scalar], axis: int, step: float, count: int) -> NDArray[Scalar]:
    """Resample one axis by taking the nearest pixel."""
    taken: NDArray[Scalar] = np.take(values, _places(step, count, values.shape[axis]), axis=axis)
    return taken


def picked(values: NDArray[Scalar], steps: Sequence[float], shape: Sequence[int]) -> NDArray[Scalar]:
    """Resample the last axes by taking the nearest pixel."""
    sides = values.shape[values.ndim - len(shape) :]
    places: Any = np.ix_(*(_places(*axis) for axis in zip(steps, shape, sides, strict=True)))
    taken: NDArray[Scalar] = values[(..., *places)]
    return taken


def _places(step: float, count: int, side: int) -> NDArray[np.int64]:
    at = (np.arange(count) - (count - 1) / 2) * step + (side - 1) / 2
    whole: NDArray[np.int64] = np.floor(at + 0.5).astype(np.int64)
    return whole
