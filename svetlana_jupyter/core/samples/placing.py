"""Where the objects of a made-up image lie: scattered without touching, and the window round each of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Point = NDArray[np.float64]  # ([z,] y, x), pixels


def scatter(
    rng: Generator,
    radii: NDArray[np.float64],
    shape: tuple[int, ...],
    *,
    gap: float = 4,
    distance_factor: float = 1,
    max_tries: int = 40,
    allowed: Callable[[int, Point], bool] = lambda index, point: True,
) -> NDArray[np.float64]:
    """Throw objects into an image one after another, each at a place that is still free.

    Parameters
    ----------
    rng : Generator
    radii : ndarray of shape (n,)
        In pixels, in the order in which the objects are thrown.
    shape : tuple of int
        Shape of the image; objects lie whole within it.
    gap, closeness : float
        Two centres are at least ``closeness * (sum of radii) + gap`` pixels apart.
    tries : int
        How often an object is thrown before it is left out.
    allowed : callable
        ``allowed(index, point)``: whether an object may lie there.

    Returns
    -------
    ndarray of shape (n, dimensions)
        Centres in pixels; NaN for what found no place.
    """
    cell = 2 * radii.max() + gap  # so that only objects of neighbouring cells can be too close
    thrown: dict[tuple[int, ...], list[int]] = {}
    centers = np.full((len(radii), len(shape)), np.nan)
    steps = list(itertools.product((-1, 0, 1), repeat=len(shape)))
    for index, radius in enumerate(radii):
        for _ in range(max_tries):
            point = rng.uniform(radius, np.array(shape) - radius)
            if not allowed(index, point):
                continue
            here = tuple(int(place) for place in point // cell)
            near = [other for step in steps for other in thrown.get(tuple(map(sum, zip(here, step))), ())]
            apart = np.sqrt(((centers[near] - point) ** 2).sum(1))
            if (apart >= distance_factor * (radii[near] + radius) + gap).all():
                centers[index] = point
                thrown.setdefault(here, []).append(index)
                break
    return centers


def window(
    center: Point, half: float, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[NDArray[np.float64], ...]]:
    """Return the slices of the window round a centre within an image, and the offsets of its pixels from the centre.

    There is one array of offsets an axis; together they broadcast to the shape of the window.
    """
    starts = [max(0, int(np.floor(place - half))) for place in center]
    stops = [min(side, int(np.ceil(place + half)) + 1) for place, side in zip(center, shape)]
    offsets = np.ix_(*[np.arange(start, stop) - place for start, stop, place in zip(starts, stops, center)])
    return tuple(map(slice, starts, stops)), offsets
