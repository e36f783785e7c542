"""Convex hulls of objects, as the number of pixels in them.

The hull is that of the pixels' centres, and a pixel is in it where its centre is. So a disc or a ball of whatever size
fills its hull; were pixels taken for little bricks, the staircase of a small one would leave gaps.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from svetlana_jupyter.core.measures.contour import directions
from svetlana_jupyter.core.measures.region import Floats, Offset

CHORD = 3  # how far apart those rows are that decide whether one between them can hold a corner of the hull
EXACT, ROUGH = 1e-7, 1e-3  # by how much of a pixel a centre may lie outside: rounding alone, and for joggled corners


def convex_hull_sizes(own: NDArray[np.bool_]) -> Floats:
    """Return how many pixels the convex hull of each object of a stack (n, [z,] y, x) holds; NaN of one without any."""
    found = np.full(len(own), np.nan)
    some = own.any(axis=-1)
    low = np.where(some, own.argmax(axis=-1), np.inf)
    high = np.where(some, own.shape[-1] - 1 - own[..., ::-1].argmax(axis=-1), -np.inf)
    at_low, at_high = _may_be_corners(low), _may_be_corners(-high)
    for number in np.flatnonzero(some.reshape(len(own), -1).any(axis=1)):
        sides = ((low[number], at_low[number]), (high[number], at_high[number]))
        corners = np.concatenate([np.column_stack([*np.nonzero(at), ends[at]]) for ends, at in sides]).astype(np.int32)
        found[number] = _in_polygon(corners) if corners.shape[1] == 2 else _in_polyhedron(corners)
    return found


def _may_be_corners(ends: Floats) -> NDArray[np.bool_]:
    """Return which first ends of rows may be corners of the hull: none on or behind a line between two others.

    The hull is found many times faster without the rest.
    """
    wide = np.pad(ends, [(0, 0)] + [(CHORD, CHORD)] * (ends.ndim - 1), constant_values=np.inf)

    def moved(length: int, offset: Offset) -> Floats:
        starts = [CHORD + length * part for part in offset]
        return wide[(slice(None), *(slice(start, start + side) for start, side in zip(starts, ends.shape[1:])))]

    kept = np.isfinite(ends)
    for offset in directions(ends.ndim - 1):
        for length in range(1, CHORD + 1):
            kept &= ends < (moved(length, offset) + moved(-length, offset)) / 2
    return kept


def _in_polygon(corners: NDArray[np.int32]) -> float:
    """Count the points of whole numbers in the hull of some, by Pick's theorem."""
    hull = cv2.convexHull(corners)[:, 0]
    on_edges = np.gcd.reduce(np.abs(hull - np.roll(hull, 1, axis=0)), axis=1).sum()
    return float(cv2.contourArea(hull) + on_edges / 2 + 1)


def _in_polyhedron(corners: NDArray[np.int32]) -> float:
    """Count the points of whole numbers in the hull of some, row after row."""
    low = corners.min(axis=0)
    corners = corners - low
    planes, rows, columns = corners.max(axis=0) + 1
    for axis, side in enumerate((planes, rows, columns)):
        if side == 1:
            return _in_polygon(np.delete(corners, axis, axis=1))
    try:
        hull, beyond = ConvexHull(corners), EXACT
    except QhullError:  # they lie in one plane, or on one line
        hull, beyond = ConvexHull(corners, qhull_options="QJ"), ROUGH
    sides = hull.equations[np.unique(hull.equations.round(9), axis=0, return_index=True)[1]]  # not one a triangle
    places = np.stack(np.meshgrid(np.arange(planes), np.arange(rows), [1], indexing="ij"), axis=-1).reshape(-1, 3)

    def bounds(some: NDArray[np.bool_]) -> Floats:  # where each row meets each of these sides
        met: Floats = -(places @ (sides[some][:, [0, 1, 3]] / sides[some, 2, None]).T)
        return met

    along, toward = np.abs(sides[:, 2]) < 1e-12, sides[:, 2] > 0
    outside = (places @ sides[along][:, [0, 1, 3]].T > beyond).any(axis=1)
    first, last = bounds(~along & ~toward).max(axis=1), bounds(~along & toward).min(axis=1)
    counts = np.floor(last + beyond) - np.ceil(first - beyond) + 1
    return float(np.where(outside, 0, np.maximum(counts, 0)).sum())
