"""Stripes, faint foci, and bright foci in 3D: two classes of equal brightness that only texture tells apart.

The arrays of a seed never change: other tools were timed on these, knowing the classes of some drawn labels:

=== =============================================================== ============= =========== =====
set call                                                            labels known  drawn with  patch
=== =============================================================== ============= =========== =====
a   ``stripes(seed=1, size=1024, count=500, step=42)``              45            seed 2      44
b   ``stripes(seed=2, size=4000, count=5000, step=54)``             none          -           44
c   ``bright_foci_3d(seed=3, shape=(128, 256, 256), count=400)``    60            seed 4      45
d   ``faint_foci(seed=4, size=1024, count=500, step=42)``           45            seed 5      44
=== =============================================================== ============= =========== =====
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from svetlana_jupyter.core.samples.sample import Sample
from svetlana_jupyter.errors import InputError

Points = NDArray[np.int64]  # (n, dimensions), pixels
Cut = Callable[[Generator, NDArray[np.float64]], Points]
Texture = Callable[[Generator, Points, int], NDArray[np.float64]]


def stripes(seed: int, size: int = 256, count: int = 25, step: int = 42) -> Sample:
    """Make striped discs; the classes differ in the direction of the stripes alone.

    Parameters
    ----------
    seed : int
    size : int
        Side of the square image, in pixels.
    count : int
        Number of objects.
    step : int
        Distance between the places where objects may stand, in pixels.

    Raises
    ------
    InputError
        If the image has too few places for the objects.
    """
    return _discs(seed, size, count, step, _stripes, ("horizontal", "vertical"))


def faint_foci(seed: int, size: int = 256, count: int = 25, step: int = 42) -> Sample:
    """Make discs of varying brightness; one class has three faint foci, at equal mean. Parameters as in `stripes`."""
    return _discs(seed, size, count, step, _faint_foci, ("plain", "foci"))


def bright_foci_3d(seed: int, shape: tuple[int, int, int] = (48, 96, 96), count: int = 16) -> Sample:
    """Make ellipsoids in a volume; one class has four bright foci, at equal mean.

    Parameters
    ----------
    seed : int
    shape : tuple of int
        Planes, rows and columns of the volume.
    count : int
        Number of objects.

    Raises
    ------
    InputError
        If the volume has too few places for the objects.
    """
    rng = np.random.default_rng(seed)
    return _fill(rng, (600, 60), shape, count, (23, 1.5, 12), _ellipsoid, _bright_foci, ("plain", "foci"))


def draw_labels(mask: NDArray[Any], count: int, seed: int) -> list[int]:
    """Draw labels of a mask uniformly and without replacement, as those a person has annotated."""
    labels = np.unique(mask[mask > 0])
    return [int(label) for label in np.random.default_rng(seed).permutation(labels)[:count]]


def _discs(seed: int, size: int, count: int, step: int, texture: Texture, names: tuple[str, str]) -> Sample:
    return _fill(np.random.default_rng(seed), (1000, 60), (size, size), count, (step, 3, 22), _disc, texture, names)


def _fill(
    rng: Generator,
    background: tuple[float, float],
    shape: tuple[int, ...],
    count: int,
    lattice: tuple[int, float, int],
    cut: Cut,
    texture: Texture,
    names: tuple[str, str],
) -> Sample:
    """Paint objects over normal noise. The order of the random draws is part of what a seed means."""
    image = rng.normal(*background, shape).astype(np.float32)
    mask = np.zeros(shape, np.uint16)
    classes = rng.integers(0, 2, count)
    centers = _lattice_centers(rng, shape, count, *lattice)
    for label, (center, number) in enumerate(zip(centers, classes), 1):
        points = cut(rng, center)
        points = points[((points >= 0) & (points < shape)).all(1)]
        points = points[mask[tuple(points.T)] == 0]
        mask[tuple(points.T)] = label
        image[tuple(points.T)] = texture(rng, points, number)
    return Sample(np.clip(image, 0, 65535).astype(np.uint16), mask, classes, names)


def _lattice_centers(
    rng: Generator, shape: tuple[int, ...], count: int, step: int, jitter: float, margin: int
) -> NDArray[np.float64]:
    axes = [np.arange(margin, side - margin, step) for side in shape]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)).astype(float)
    if len(places) < count:
        raise InputError(
            f"an image of shape {shape} has {len(places)} places for objects, {count} were asked: make it larger"
        )
    return places[rng.permutation(len(places))[:count]] + rng.uniform(-jitter, jitter, (count, len(shape)))


def _cube(center: NDArray[np.float64], half: int) -> Points:
    """All pixels of a cube round a centre, in row-major order."""
    axes = [np.arange(start, start + 2 * half + 1) for start in np.floor(center - half).astype(int)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(center))


def _disc(rng: Generator, center: NDArray[np.float64]) -> Points:
    radius = rng.uniform(10, 16)
    points = _cube(center, 18)
    inside: NDArray[np.bool_] = ((points - center) ** 2).sum(1) <= radius * radius
    return points[inside]


def _ellipsoid(rng: Generator, center: NDArray[np.float64]) -> Points:
    half_axes = rng.uniform(7, 10, 3)
    points = _cube(center, 12)
    inside: NDArray[np.bool_] = (((points - center) / half_axes) ** 2).sum(1) <= 1
    return points[inside]


def _stripes(rng: Generator, points: Points, number: int) -> NDArray[np.float64]:
    wave = np.sin(2 * np.pi * points[:, number] / 6 + rng.uniform(0, 6.28))
    return 2500 + 500 * wave + rng.normal(0, 250, len(points))


def _faint_foci(rng: Generator, points: Points, number: int) -> NDArray[np.float64]:
    level = _foci(rng, points, 2500, 3 * number, height=450, spread=8)
    return level * rng.uniform(0.8, 1.2) + rng.normal(0, 250, len(points))


def _bright_foci(rng: Generator, points: Points, number: int) -> NDArray[np.float64]:
    level = _foci(rng, points, 2000, 4 * number, height=1500, spread=6)
    return level + rng.normal(0, 150, len(points))


def _foci(rng: Generator, points: Points, mean: float, count: int, height: float, spread: float) -> NDArray[np.float64]:
    level = np.full(len(points), float(mean))
    if count:
        for spot in points[rng.integers(0, len(points), count)]:
            level += height * np.exp(-((points - spot) ** 2).sum(1) / spread)
        level += mean - level.mean()
    return level
