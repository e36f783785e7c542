"""Widening and narrowing the masks of objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def widened(own: NDArray[np.bool_], reach: Sequence[float]) -> NDArray[np.bool_]:
    """Widen each mask of (n, [z,] y, x) by a ball of ``reach`` pixels along each axis.

    Squared distances, in units of the ball, are brought together axis by axis: many times faster than a distance
    transform for the few pixels that are usual.
    """
    distance = np.where(own, np.float32(0), np.float32(2))
    for axis, radius in enumerate(reach, start=1):
        before = distance
        distance = before.copy()
        for step in range(1, math.floor(radius + 1e-6) + 1):
            farther = before + np.float32((step / radius) ** 2)
            ahead, behind = (
                tuple(part if other == axis else slice(None) for other in range(own.ndim))
                for part in (slice(step, None), slice(None, -step))
            )
            np.minimum(distance[ahead], farther[behind], out=distance[ahead])
            np.minimum(distance[behind], farther[ahead], out=distance[behind])
    return distance <= 1 + 1e-5


def shrunk(own: NDArray[np.bool_], reach: Sequence[float]) -> NDArray[np.bool_]:
    """Narrow each mask by as much as `widened` widens it; one that nothing would be left of stays as it is."""
    inner = ~widened(~own, reach)
    gone = ~inner.any(axis=tuple(range(1, own.ndim)))
    inner[gone] = own[gone]
    return inner
