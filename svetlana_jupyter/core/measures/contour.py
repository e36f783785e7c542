"""Length of the outline, or area of the surface, by Crofton's formula: count how often straight lines cross it.

The outline of a mask is a staircase, whose length says little; the number of times that lines of evenly spread
directions enter and leave the object hardly depends on how it is turned. (Lehmann and Legland, "Efficient
N-Dimensional surface estimation using Crofton formula and run-length encoding", Insight Journal, 2012.)
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
from scipy.spatial import SphericalVoronoi

from svetlana_jupyter.core.measures.region import Floats, Offset, Region, pairs


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
