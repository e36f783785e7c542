"""Which objects a box or a lasso holds: those whose centroid lies inside.

A lasso closes itself, may cross itself and may go round twice: inside is every point that the line winds round, so that
a careless loop leaves no hole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Point = tuple[float, float]
PlaneSelection = range | int | None


def rectangle_corners(one: Point, other: Point) -> tuple[Point, ...]:
    """Return the corners of the box between two opposite ones."""
    return one, (one[0], other[1]), other, (other[0], one[1])


def inside(points: ArrayLike, corners: Sequence[Point]) -> NDArray[np.bool_]:
    """Return which points a closed line winds round.

    Parameters
    ----------
    points : array of shape (n, 2)
        As (y, x).
    corners : sequence of (y, x)
        The line goes from each to the next, and from the last to the first.

    Returns
    -------
    array of bool, shape (n,)

    Examples
    --------
    >>> inside([(1, 1), (1, 5)], rectangle_corners((0, 0), (4, 4))).tolist()
    [True, False]
    """
    place = np.asarray(points, float).reshape(-1, 2)
    order = np.argsort(place[:, 0], kind="stable")
    y, x = place[order].T
    line = np.asarray(corners, float).reshape(-1, 2)
    starts, ends = line, np.roll(line, -1, axis=0)
    # A side is met by the points between its ends in y; counted at its lower end alone, a corner is not met twice.
    met = np.searchsorted(y, np.stack([starts[:, 0], ends[:, 0]]))
    turns = np.zeros(len(y), np.int64)
    for (y0, x0), (y1, x1), first, last in zip(starts, ends, *met):
        if first != last:
            low, high = min(first, last), max(first, last)
            crossing = x0 + (y[low:high] - y0) * ((x1 - x0) / (y1 - y0))
            turns[low:high] += np.where(x[low:high] < crossing, np.sign(last - first), 0)
    found = np.empty(len(y), bool)
    found[order] = turns != 0
    return found


def objects_in_polygon(
    objects: pd.DataFrame, corners: Sequence[Point], planes: PlaneSelection = None
) -> NDArray[np.int64]:
    """Return the objects whose centroid lies inside a closed line.

    Parameters
    ----------
    objects : DataFrame
        The object index, as `core.objects.index_objects` makes it.
    corners : sequence of (y, x)
        Points of the image plane, in which the middle of the first pixel is at (0.5, 0.5).
    planes : int, range or None
        Of a volume: those that one plane cuts, since that is what a person sees there; those whose centroid lies in a
        range of planes, so that ranges side by side share no object; or all.

    Returns
    -------
    array of int64, shape (n,)
        Ascending.
    """
    near = np.ones(len(objects), bool)
    if isinstance(planes, int) and "z" in objects:
        near = ((objects["z0"] <= planes) & (planes < objects["z1"])).to_numpy()
    elif isinstance(planes, range) and "z" in objects:
        near = ((objects["z"] + 0.5 >= planes.start) & (objects["z"] + 0.5 < planes.stop)).to_numpy()
    some = objects[near]
    within = inside(some[["y", "x"]].to_numpy(float) + 0.5, corners)
    return np.sort(some.index.to_numpy(np.int64)[within])
