"""Size and shape of objects: moments, Crofton boundary length, convex hull."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.spatial import ConvexHull, QhullError, SphericalVoronoi

from svetlana_jupyter.core.features.region import Floats, ObjectStack, Offset, safe_divide, shifted_views

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHORD = 3  # rows compared on each side to decide whether the end of a row can be a corner of the hull
EXACT, JOGGLED = 1e-7, 1e-3  # tolerances of the hull in pixels: for rounding errors, and for input joggled by Qhull


def shape_features(region: ObjectStack) -> dict[str, Floats]:
    """Return the measurements of the group "shape", each of shape (n,)."""
    ndim, size, radius = region.ndim, region.size, region.radius
    axes = axis_lengths(region)
    boundary = boundary_length(region)
    mean_radius = region.mean(radius)
    max_radius = region.largest(radius) + math.prod(region.step) ** (1 / ndim) / 2
    radius_variance = np.maximum(region.mean(radius**2) - mean_radius**2, 0)
    features = {
        "area" if ndim == 2 else "volume": size,
        "equivalent_diameter": region.diameter,
        "axis_major": axes[:, 0],
        "axis_minor": axes[:, -1],
        "elongation": 1 - axes[:, -1] / axes[:, 0],
        "solidity": region.counts / convex_hull_sizes(region.own),
        "radius_max": max_radius,
        "radius_variation": safe_divide(np.sqrt(radius_variance), mean_radius),
        "roundness": (region.diameter / (2 * max_radius)) ** ndim,
    }
    if ndim == 2:
        features["eccentricity"] = np.sqrt(1 - (axes[:, 1] / axes[:, 0]) ** 2)
        features |= {"perimeter": boundary, "form_factor": 4 * math.pi * size / boundary**2}
    else:
        features |= {"axis_middle": axes[:, 1], "flatness": 1 - axes[:, 2] / axes[:, 1]}
        features |= {"surface": boundary, "sphericity": math.pi ** (1 / 3) * (6 * size) ** (2 / 3) / boundary}
    return features


def covariance(region: ObjectStack) -> Floats:
    """Return the second central moments (n, ndim, ndim) of objects.

    Pixels count as solid boxes, so that an object that is one pixel thick has a shortest axis above 0.
    """
    rows = [[region.mean(a * b) for b in region.offsets] for a in region.offsets]
    return np.array(rows).transpose(2, 0, 1) + np.diag(np.square(region.step)) / 12


def axis_lengths(region: ObjectStack) -> Floats:
    """Return the axis lengths (n, ndim) of the ellipses fitted to the objects.

    An ellipse (in 3D, an ellipsoid) has the second moments of its object. Lengths are full axes, the longest first.
    """
    moments = np.linalg.eigvalsh(covariance(region))[:, ::-1]
    return np.asarray(2 * np.sqrt((region.ndim + 2) * moments))


def boundary_length(region: ObjectStack) -> Floats:
    """Return the outline length or surface area of each object by Crofton's formula.

    The outline of a mask is a staircase, whose length depends on the orientation of the object. The number of times
    that lines in evenly spread directions cross the boundary hardly depends on the orientation (Lehmann and Legland,
    "Efficient N-Dimensional surface estimation using Crofton formula and run-length encoding", Insight Journal, 2012).
    """
    total = np.zeros(len(region))
    for direction, weight in zip(directions(region.ndim), _crofton_weights(region.step), strict=True):
        first, second = shifted_views(direction)
        pairs = np.count_nonzero((region.own[first] & region.own[second]).reshape(len(region), -1), axis=1)
        total += weight * 2 * (region.counts - pairs)
    return total


@lru_cache
def directions(ndim: int) -> tuple[Offset, ...]:
    """Return the offsets to 4 (2D) or 13 (3D) neighbors, without opposite offsets."""
    neighbors = itertools.product((-1, 0, 1), repeat=ndim)
    return tuple(offset for offset in neighbors if offset > (0,) * ndim)


@lru_cache
def _crofton_weights(step: tuple[float, ...]) -> tuple[float, ...]:
    """Return the boundary length that one crossing represents, by direction.

    This length is proportional to the share of all directions that are nearest to this direction, and to the distance
    between parallel lines.
    """
    offsets = np.array(directions(len(step))) * np.array(step)
    lengths = np.linalg.norm(offsets, axis=1)
    unit = offsets / lengths[:, None]
    if len(step) == 2:
        angles = np.arctan2(unit[:, 0], unit[:, 1])
        gaps = (angles[:, None] - angles) % math.pi + math.pi * np.eye(len(angles))  # to every other direction
        shares, constant = (gaps.min(axis=0) + gaps.min(axis=1)) / (2 * math.pi), math.pi / 2
    else:
        areas = SphericalVoronoi(np.concatenate([unit, -unit])).calculate_areas()[: len(unit)]
        shares, constant = 2 * areas / (4 * math.pi), 2.0
    return tuple((constant * shares * math.prod(step) / lengths).tolist())


def convex_hull_sizes(own: NDArray[np.bool_]) -> Floats:
    """Return the number of pixels in the convex hull of each object, NaN if empty.

    The hull is that of the pixel centers, and a pixel is in the hull if its center is. So a disk or ball of any size
    fills its hull. A hull of pixel corners would have gaps along the staircase outline of a small disk or ball.
    """
    sizes = np.full(len(own), np.nan)
    nonempty = own.any(axis=-1)
    low = np.where(nonempty, own.argmax(axis=-1), np.inf)
    high = np.where(nonempty, own.shape[-1] - 1 - own[..., ::-1].argmax(axis=-1), -np.inf)
    low_corner, high_corner = _possible_corners(low), _possible_corners(-high)
    for number in np.flatnonzero(nonempty.reshape(len(own), -1).any(axis=1)):
        ends = ((low[number], low_corner[number]), (high[number], high_corner[number]))
        corners = np.concatenate([np.column_stack([*np.nonzero(at), end[at]]) for end, at in ends]).astype(np.int32)
        sizes[number] = _count_in_polygon(corners) if corners.shape[1] == 2 else _count_in_polyhedron(corners)
    return sizes


def _possible_corners(ends: Floats) -> NDArray[np.bool_]:
    """Return which row ends may be corners of the convex hull.

    A row end on or behind the line between two other row ends is not a corner. The hull of the remaining row ends is
    computed many times faster.
    """
    padded = np.pad(ends, [(0, 0)] + [(CHORD, CHORD)] * (ends.ndim - 1), constant_values=np.inf)

    def shifted(length: int, offset: Offset) -> Floats:
        starts = [CHORD + length * part for part in offset]
        return padded[(slice(None), *(slice(start, start + side) for start, side in zip(starts, ends.shape[1:])))]

    possible = np.isfinite(ends)
    for offset in directions(ends.ndim - 1):
        for length in range(1, CHORD + 1):
            possible &= ends < (shifted(length, offset) + shifted(-length, offset)) / 2
    return possible


def _count_in_polygon(corners: NDArray[np.int32]) -> float:
    """Count the integer points in the convex hull of integer points (Pick's theorem)."""
    hull = cv2.convexHull(corners)[:, 0]
    on_edges = np.gcd.reduce(np.abs(hull - np.roll(hull, 1, axis=0)), axis=1).sum()
    return float(cv2.contourArea(hull) + on_edges / 2 + 1)


def _count_in_polyhedron(corners: NDArray[np.int32]) -> float:
    """Count the integer points in the convex hull of integer points, row by row."""
    corners = corners - corners.min(axis=0)
    sides = corners.max(axis=0) + 1
    if (sides == 1).any():
        return _count_in_polygon(np.delete(corners, int(np.argmin(sides)), axis=1))
    try:
        hull, tolerance = ConvexHull(corners), EXACT
    except QhullError:  # all points lie in an oblique plane or line
        hull, tolerance = ConvexHull(corners, qhull_options="QJ"), JOGGLED
    # Keep one equation per facet: Qhull repeats the equation for each triangle of a facet.
    facets = hull.equations[np.unique(hull.equations.round(9), axis=0, return_index=True)[1]]
    rows = np.stack(np.meshgrid(*map(np.arange, sides[:2]), [1], indexing="ij"), axis=-1).reshape(-1, 3)

    def crossings(chosen: NDArray[np.bool_]) -> Floats:  # of each row with each chosen facet
        met: Floats = -(rows @ (facets[chosen][:, [0, 1, 3]] / facets[chosen, 2, None]).T)
        return met

    parallel, upper = np.abs(facets[:, 2]) < 1e-12, facets[:, 2] > 0
    outside = (rows @ facets[parallel][:, [0, 1, 3]].T > tolerance).any(axis=1)
    first, last = crossings(~parallel & ~upper).max(axis=1), crossings(~parallel & upper).min(axis=1)
    counts = np.floor(last + tolerance) - np.ceil(first - tolerance) + 1
    return float(np.where(outside, 0, np.maximum(counts, 0)).sum())
