"""Size and form of objects, from their masks alone.

Convex hulls of objects, as the number of pixels in them.

The hull is that of the pixels' centres, and a pixel is in it where its centre is. So a disc or a ball of whatever size
fills its hull; were pixels taken for little bricks, the staircase of a small one would leave gaps.

Length of the outline, or area of the surface, by Crofton's formula: count how often straight lines cross it.

The outline of a mask is a staircase, whose length says little; the number of times that lines of evenly spread
directions enter and leave the object hardly depends on how it is turned. (Lehmann and Legland, "Efficient
N-Dimensional surface estimation using Crofton formula and run-length encoding", Insight Journal, 2012.)
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError, SphericalVoronoi

from svetlana_jupyter.core.features.region import Floats, Offset, Region, over, pairs


def boundary_length(region: Region) -> Floats:
    """Return the length of each object's outline (2D), or the area of its surface (3D)."""
    total = np.zeros(len(region))
    for direction, weight in zip(directions(region.ndim), _weights(region.step), strict=True):
        first, second = pairs(direction)
        inside = np.count_nonzero((region.own[first] & region.own[second]).reshape(len(region), -1), axis=1)
        total += weight * 2 * (region.counts - inside)
    return total


@lru_cache
def directions(ndim: int) -> tuple[Offset, ...]:
    """Return the offsets to half of a pixel's neighbours: 4 in 2D, 13 in 3D, none the opposite of another."""
    around = itertools.product((-1, 0, 1), repeat=ndim)
    return tuple(offset for offset in around if offset > (0,) * ndim)


@lru_cache
def _weights(step: tuple[float, ...]) -> tuple[float, ...]:
    """Return how much boundary one crossing stands for, by direction.

    That is the share of all directions to which this one is nearest, times the density of parallel lines.
    """
    offsets = np.array(directions(len(step))) * np.array(step)
    lengths = np.linalg.norm(offsets, axis=1)
    unit = offsets / lengths[:, None]
    if len(step) == 2:
        angles = np.sort(np.arctan2(unit[:, 0], unit[:, 1]) % math.pi)
        gaps = np.diff(angles, append=angles[0] + math.pi)
        order = np.argsort(np.argsort(np.arctan2(unit[:, 0], unit[:, 1]) % math.pi))
        shares = ((gaps + np.roll(gaps, 1)) / (2 * math.pi))[order]
        constant = math.pi / 2
    else:
        both = np.concatenate([unit, -unit])
        shares = 2 * SphericalVoronoi(both).calculate_areas()[: len(unit)] / (4 * math.pi)
        constant = 2.0
    return tuple((constant * shares * math.prod(step) / lengths).tolist())


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


def shape(region: Region) -> dict[str, Floats]:
    """Return the group "shape" of the table, each of shape (n,)."""
    ndim = region.ndim
    size = region.size
    axes = axis_lengths(region)
    edge = boundary_length(region)
    radius = region.radius
    spread = region.mean(radius)
    farthest = region.largest(radius) + math.prod(region.step) ** (1 / ndim) / 2
    found = {
        "area" if ndim == 2 else "volume": size,
        "equivalent_diameter": region.diameter,
        "axis_major": axes[:, 0],
        "axis_minor": axes[:, -1],
        "elongation": 1 - axes[:, -1] / axes[:, 0],
        "solidity": region.counts / convex_hull_sizes(region.own),
        "radius_max": farthest,
        "radius_variation": over(np.sqrt(np.maximum(region.mean(radius**2) - spread**2, 0)), spread),
        "roundness": (region.diameter / (2 * farthest)) ** ndim,
    }
    if ndim == 2:
        found["eccentricity"] = np.sqrt(1 - (axes[:, 1] / axes[:, 0]) ** 2)
        found |= {"perimeter": edge, "form_factor": 4 * math.pi * size / edge**2}
    else:
        found |= {"axis_middle": axes[:, 1], "flatness": 1 - axes[:, 2] / axes[:, 1]}
        found |= {"surface": edge, "sphericity": math.pi ** (1 / 3) * (6 * size) ** (2 / 3) / edge}
    return found


def covariance(region: Region) -> Floats:
    """Return the second moments (n, ndim, ndim) of objects whose pixels are little bricks, not points.

    So a flat object has a thickness, and a single pixel the axes of a brick.
    """
    rows = [[region.mean(a * b) for b in region.offsets] for a in region.offsets]
    return np.array(rows).transpose(2, 0, 1) + np.diag(np.square(region.step)) / 12


def axis_lengths(region: Region) -> Floats:
    """Return the full axes (n, ndim), longest first, of the ellipses or ellipsoids with the objects' moments."""
    moments = np.linalg.eigvalsh(covariance(region))[:, ::-1]
    lengths: Floats = 2 * np.sqrt((region.ndim + 2) * moments)
    return lengths
