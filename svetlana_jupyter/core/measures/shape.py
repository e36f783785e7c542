"""Size and form of objects, from their masks alone."""

from __future__ import annotations

import math

import numpy as np

from svetlana_jupyter.core.measures.contour import boundary_length
from svetlana_jupyter.core.measures.hull import convex_hull_sizes
from svetlana_jupyter.core.measures.region import Floats, Region, over


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
