"""Widening and narrowing the masks of objects."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LIMIT = 1 + 1e-5  # of squared distances
MAX_JOINED_ROWS = 400  # that are brought together one by one


def widened(own: NDArray[np.bool_], reach: Sequence[float]) -> NDArray[np.bool_]:
    """Widen each mask of (n, [z,] y, x) by a ball of ``reach`` pixels along each axis.

    Masks widened along rows are brought together from all neighbouring rows and planes: many times faster than a
    distance transform for the few pixels that are usual. Where these are many, squared distances in units of the ball
    are brought together axis by axis instead.
    """
    steps = [math.floor(radius + 1e-6) for radius in reach]
    if not any(steps):
        return own.copy()
    part = (slice(None), *joint_bbox(own, steps))
    result = np.zeros_like(own)
    result[part] = _widened(np.ascontiguousarray(own[part]), reach, steps)
    return result


def joint_bbox(own: NDArray[np.bool_], more: Sequence[int]) -> tuple[slice, ...]:
    """Return the box that holds all masks of (n, [z,] y, x), and so many pixels more on either side of each axis."""
    seen, box = np.asarray(own.any(axis=0)), []
    for axis, step in enumerate(more):
        places = np.flatnonzero(seen.any(axis=tuple(other for other in range(seen.ndim) if other != axis)))
        box.append(slice(max(int(places[0]) - step, 0), int(places[-1]) + step + 1) if len(places) else slice(0, 0))
    return tuple(box)


def _widened(own: NDArray[np.bool_], reach: Sequence[float], steps: Sequence[int]) -> NDArray[np.bool_]:
    rows = math.prod(2 * step + 1 for step in steps[:-1])
    if rows > MAX_JOINED_ROWS:
        return _near(own, reach)
    wider = [own]
    for step in range(1, steps[-1] + 1):
        wider.append(_joined(wider[-1].copy(), own, (0,) * (own.ndim - 2) + (step,), ahead_and_behind=True))
    result = np.zeros_like(own)
    for offset in itertools.product(*(range(-step, step + 1) for step in steps[:-1])):
        left = LIMIT - sum((step / radius) ** 2 for step, radius in zip(offset, reach) if step)
        if left >= 0:
            _joined(result, wider[math.floor(reach[-1] * math.sqrt(left) + 1e-9)], (*offset, 0))
    return result


def _joined(
    result: NDArray[np.bool_], mask: NDArray[np.bool_], offset: Sequence[int], ahead_and_behind: bool = False
) -> NDArray[np.bool_]:
    """Add to ``result`` a mask that is shifted along all axes but the first, and shifted back where that is asked."""
    to = tuple(slice(max(step, 0), min(step, 0) or None) for step in offset)
    since = tuple(slice(max(-step, 0), min(-step, 0) or None) for step in offset)
    for into, out_of in [(to, since), (since, to)] if ahead_and_behind else [(to, since)]:
        into, out_of = (slice(None), *into), (slice(None), *out_of)
        np.logical_or(result[into], mask[out_of], out=result[into])
    return result


def _near(own: NDArray[np.bool_], reach: Sequence[float]) -> NDArray[np.bool_]:
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
    return distance <= np.float32(LIMIT)


def erode_masks(own: NDArray[np.bool_], reach: Sequence[float]) -> NDArray[np.bool_]:
    """Narrow each mask by as much as `widened` widens it; one that nothing would be left of stays as it is."""
    if max(reach) < 1:
        return own
    inner = ~widened(~own, reach)
    gone = ~inner.any(axis=tuple(range(1, own.ndim)))
    inner[gone] = own[gone]
    return inner
