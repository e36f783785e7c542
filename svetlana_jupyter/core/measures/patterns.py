"""Local binary patterns: which of its eight neighbours in a plane are at least as bright as a pixel.

Uniform and rotation invariant (Ojala, Pietikäinen and Mäenpää, 2002): a pattern with at most two changes between
brighter and darker round the circle counts by its number of brighter neighbours, all others as one.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.measures.brightness import Channel
from svetlana_jupyter.core.measures.region import Floats, Region, over
from svetlana_jupyter.core.measures.table import LBP_KINDS

NEIGHBORS = 8
EQUAL = 1e-4  # deviations by which a neighbour may be darker and still counts as equal: rounding decides nothing
_CIRCLE = tuple((math.sin(turn * math.pi / 4), math.cos(turn * math.pi / 4)) for turn in range(NEIGHBORS))


def patterns(channel: Channel) -> dict[str, Floats]:
    """Return the share of each kind of pattern among the pixels whose neighbours are the object's own too."""
    region = channel.region
    counts = np.zeros((len(region), LBP_KINDS))
    for axes in planes(region.step):
        inside = np.flatnonzero(_surrounded(region, axes))
        kinds = _kinds(channel.standardized_stack, inside, axes)
        owner = inside // math.prod(region.box)
        counts += np.bincount(owner * LBP_KINDS + kinds, minlength=counts.size).reshape(counts.shape)
    shares = over(counts, counts.sum(axis=1, keepdims=True))
    return {f"lbp_{kind}": shares[:, kind] for kind in range(LBP_KINDS)}


def planes(step: tuple[float, ...]) -> list[tuple[int, int]]:
    """Return the pairs of axes to look along: those of rows and columns, and of any other axes of equal step."""
    last = (len(step) - 2, len(step) - 1)
    every = itertools.combinations(range(len(step)), 2)
    return [axes for axes in every if axes == last or math.isclose(step[axes[0]], step[axes[1]], rel_tol=0.05)]


def _surrounded(region: Region, axes: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels of the stack have all eight neighbours in their own object."""
    inside = region.own.copy()
    for axis in axes:
        narrower = np.zeros_like(inside)
        before, here, after = (
            tuple(part if other == axis + 1 else slice(None) for other in range(inside.ndim))
            for part in (slice(None, -2), slice(1, -1), slice(2, None))
        )
        narrower[here] = inside[before] & inside[here] & inside[after]
        inside = narrower
    return inside


def _kinds(stack: NDArray[np.float32], inside: NDArray[np.int64], axes: tuple[int, int]) -> NDArray[np.int64]:
    flat = stack.reshape(-1)
    strides = [stack.strides[axis + 1] // stack.itemsize for axis in axes]
    center = flat[inside]
    value = {
        (row, column): flat[inside + row * strides[0] + column * strides[1]]
        for row, column in itertools.product((-1, 0, 1), repeat=2)
        if row or column
    }
    brighter = []
    for down, right in _CIRCLE:
        row, column = round(down), round(right)
        neighbor = value[row, column]
        if row and column:  # between pixels, so that all eight lie on a circle
            part = abs(down)
            neighbor = (
                part * part * neighbor
                + part * (1 - part) * (value[row, 0] + value[0, column])
                + (1 - part) ** 2 * center
            )
        brighter.append(neighbor >= center - EQUAL)
    ring = np.array(brighter, np.int8)
    changes = np.count_nonzero(ring != np.roll(ring, 1, axis=0), axis=0)
    return np.where(changes <= 2, ring.sum(axis=0, dtype=np.int64), LBP_KINDS - 1)
