"""Generated disks and ellipsoids on a jittered lattice.

Their classes differ in stripes or in foci.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from svetlana_jupyter.errors import InputError
from svetlana_jupyter.samples.sample import Field, Point, Sample

Points = NDArray[np.int64]  # (n, dimensions), pixels
ObjectShape = Callable[[Generator, Point], Points]  # draws the pixels of an object around a center
ObjectTexture = Callable[[Generator, Points, int], Field]  # draws the values of these pixels for a class


def stripes(seed: int, size: int = 256, count: int = 25, step: int = 42) -> Sample:
    """Generate striped disks whose classes differ in the direction of the stripes.

    Parameters
    ----------
    seed : int
    size : int
        Side of the square image, in pixels.
    count : int
        Number of objects.
    step : int
        Distance between the possible positions of objects, in pixels.

    Raises
    ------
    InputError
        If the image has no room for the objects.
    """
    return _lattice_of_disks(seed, size, count, step, _stripes, ("horizontal", "vertical"))


def faint_foci(seed: int, size: int = 256, count: int = 25, step: int = 42) -> Sample:
    """Generate disks of varying brightness, one class of them with faint foci.

    There are three foci per object; the mean of both classes is equal.

    Parameters as in `stripes`.
    """
    return _lattice_of_disks(seed, size, count, step, _faint_foci, ("plain", "foci"))


def bright_foci_3d(seed: int, shape: tuple[int, int, int] = (48, 96, 96), count: int = 16) -> Sample:
    """Generate ellipsoids in a volume; one class has four bright foci, at equal mean.

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
        If the volume has no room for the objects.
    """
    rng = np.random.default_rng(seed)
    return _paint_on_lattice(rng, (600, 60), shape, count, (23, 1.5, 12), _ellipsoid, _bright_foci, ("plain", "foci"))


def _lattice_of_disks(
    seed: int, size: int, count: int, step: int, texture: ObjectTexture, names: tuple[str, str]
) -> Sample:
    rng = np.random.default_rng(seed)
    return _paint_on_lattice(rng, (1000, 60), (size, size), count, (step, 3, 22), _disk, texture, names)


def _disk(rng: Generator, center: Point) -> Points:
    radius = rng.uniform(10, 16)
    points = _cube_points(center, 18)
    inside: NDArray[np.bool_] = ((points - center) ** 2).sum(1) <= radius * radius
    return points[inside]


def _stripes(rng: Generator, points: Points, number: int) -> Field:
    wave = np.sin(2 * np.pi * points[:, number] / 6 + rng.uniform(0, 6.28))
    return 2500 + 500 * wave + rng.normal(0, 250, len(points))


def _faint_foci(rng: Generator, points: Points, number: int) -> Field:
    level = _draw_foci(rng, points, 2500, 3 * number, height=450, spread=8)
    return level * rng.uniform(0.8, 1.2) + rng.normal(0, 250, len(points))


def _ellipsoid(rng: Generator, center: Point) -> Points:
    half_axes = rng.uniform(7, 10, 3)
    points = _cube_points(center, 12)
    inside: NDArray[np.bool_] = (((points - center) / half_axes) ** 2).sum(1) <= 1
    return points[inside]


def _bright_foci(rng: Generator, points: Points, number: int) -> Field:
    level = _draw_foci(rng, points, 2000, 4 * number, height=1500, spread=6)
    return level + rng.normal(0, 150, len(points))


def _paint_on_lattice(
    rng: Generator,
    background: tuple[float, float],
    shape: tuple[int, ...],
    count: int,
    lattice: tuple[int, float, int],
    draw_shape: ObjectShape,
    draw_texture: ObjectTexture,
    names: tuple[str, str],
) -> Sample:
    """Paint objects of two classes on a jittered lattice over normal noise.

    The order of the random draws defines the arrays of a seed.

    Parameters
    ----------
    rng : Generator
    background : tuple of float
        Mean and standard deviation of the noise.
    shape : tuple of int
        Shape of the image.
    count : int
        Number of objects.
    lattice : (int, float, int)
        Distance between lattice points, jitter, and margin, in pixels.
    draw_shape, draw_texture : callable
    names : tuple of str
        Class names.

    Raises
    ------
    InputError
        If the lattice has too few points for the objects.
    """
    image = rng.normal(*background, shape).astype(np.float32)
    mask = np.zeros(shape, np.uint16)
    classes = rng.integers(0, 2, count)
    for label, (center, number) in enumerate(zip(_lattice_centers(rng, shape, count, *lattice), classes), 1):
        points = draw_shape(rng, center)
        points = points[((points >= 0) & (points < shape)).all(1)]
        points = points[mask[tuple(points.T)] == 0]
        mask[tuple(points.T)] = label
        image[tuple(points.T)] = draw_texture(rng, points, number)
    return Sample(np.clip(image, 0, 65535).astype(np.uint16), mask, classes, names)


def _lattice_centers(
    rng: Generator, shape: tuple[int, ...], count: int, step: int, jitter: float, margin: int
) -> NDArray[np.float64]:
    axes = [np.arange(margin, side - margin, step) for side in shape]
    centers = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)).astype(float)
    if len(centers) < count:
        raise InputError(
            f"An image of shape {shape} has room for {len(centers)} objects, but {count} were requested. "
            f"Make it larger, or pass count={len(centers)}."
        )
    return centers[rng.permutation(len(centers))[:count]] + rng.uniform(-jitter, jitter, (count, len(shape)))


def _cube_points(center: Point, half: int) -> Points:
    """Return all pixels of a cube around a center, in row-major order."""
    axes = [np.arange(start, start + 2 * half + 1) for start in np.floor(center - half).astype(int)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(center))


def _draw_foci(rng: Generator, points: Points, mean: float, count: int, height: float, spread: float) -> Field:
    """Return the values of pixels with Gaussian foci at random pixels.

    There are ``count`` foci; the values are shifted to the given mean.
    """
    values = np.full(len(points), float(mean))
    if count:
        for focus in points[rng.integers(0, len(points), count)]:
            values += height * np.exp(-((points - focus) ** 2).sum(1) / spread)
        values += mean - values.mean()
    return values
