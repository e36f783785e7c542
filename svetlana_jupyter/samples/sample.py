"""Samples (image, mask and true classes), and the placement of objects in generated images."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.random import Generator
from numpy.typing import NDArray

from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

Field = NDArray[np.float64]
Point = NDArray[np.float64]  # ([z,] y, x), pixels
Points = NDArray[np.int64]  # (n, dimensions), pixels
ObjectShape = Callable[[Generator, Point], Points]  # draws the pixels of an object around a center
ObjectTexture = Callable[[Generator, Points, int], Field]  # draws the values of these pixels for a class


@dataclass(frozen=True, eq=False)
class Sample:
    """Small sample in memory.

    Attributes
    ----------
    image : ndarray of shape ([Z,] Y, X)
    mask : ndarray of uint16, same shape
        Labels from 1 without gaps; 0 is background.
    classes : ndarray of int, shape (n,)
        ``classes[label - 1]`` is the class of an object, an index into ``names``.
    names : tuple of str
    """

    image: NDArray[Any]
    mask: NDArray[np.uint16]
    classes: NDArray[np.int64]
    names: tuple[str, ...]

    def class_names(self) -> dict[int, str]:
        """Return the class name of every label."""
        return {label: self.names[number] for label, number in enumerate(self.classes, 1)}


@dataclass(frozen=True, eq=False)
class StoredSample:
    """Sample too large for memory: like `Sample`, with Zarr arrays on disk.

    Attributes
    ----------
    image, mask : Path
        Zarr arrays; their dimension names are in their metadata.
    classes : ndarray of int, shape (n,)
    names : tuple of str
    """

    image: Path
    mask: Path
    classes: NDArray[np.int64]
    names: tuple[str, ...]


def draw_labels(mask: NDArray[Any], count: int, seed: int) -> list[int]:
    """Draw labels of a mask uniformly without replacement, for example to annotate them."""
    labels = np.unique(mask[mask > 0])
    return [int(label) for label in np.random.default_rng(seed).permutation(labels)[:count]]


def tile_sample(sample: Sample, folder: Path, rows: int, columns: int) -> StoredSample:
    """Repeat a sample along rows and columns; every copy of an object gets its own label.

    Parameters
    ----------
    sample : Sample
        Of shape ([Z,] Y, X).
    folder : Path
        Existing folder for ``image.zarr`` and ``mask.zarr``, of shape ([Z,] rows * Y, columns * X), one tile per chunk.
    rows, columns : int
        Number of tiles.
    """
    count = len(sample.classes)
    *planes, height, width = sample.mask.shape
    shape = (*planes, rows * height, columns * width)
    label_type = label_dtype(rows * columns * count)
    axes = "zyx"[-len(shape) :]
    image = create_zarr(folder / "image.zarr", shape, sample.mask.shape, sample.image.dtype, axes)
    mask = create_zarr(folder / "mask.zarr", shape, sample.mask.shape, label_type, axes)
    for tile, (row, column) in enumerate(itertools.product(range(rows), range(columns))):
        part = (..., slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
        image[part] = sample.image
        mask[part] = np.where(sample.mask > 0, sample.mask.astype(label_type) + label_type.type(tile * count), 0)
    classes = np.tile(sample.classes, rows * columns)
    return StoredSample(folder / "image.zarr", folder / "mask.zarr", classes, sample.names)


def label_dtype(count: int) -> np.dtype[Any]:
    """Return the smallest unsigned integer type for this many labels, with at least 16 bits."""
    return np.min_scalar_type(count + 256)


def create_zarr(path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any, axes: str) -> zarr.Array:
    """Create a Zarr array with one dimension name per letter of ``axes``."""
    return zarr.create_array(path, shape=shape, chunks=chunks, dtype=dtype, dimension_names=tuple(axes))


def place_objects(
    rng: Generator,
    radii: NDArray[np.float64],
    shape: tuple[int, ...],
    *,
    gap: float = 4,
    distance_factor: float = 1,
    max_tries: int = 40,
    allowed: Callable[[int, Point], bool] = lambda index, point: True,
) -> NDArray[np.float64]:
    """Place objects in an image one after another, each at a random free position.

    Parameters
    ----------
    rng : Generator
    radii : ndarray of shape (n,)
        In pixels, in the order in which the objects are placed.
    shape : tuple of int
        Shape of the image; objects lie completely within it.
    gap, distance_factor : float
        Two centers are at least ``distance_factor * (sum of radii) + gap`` pixels apart.
    max_tries : int
        Positions to try before an object is left out.
    allowed : callable
        ``allowed(index, point)``: whether an object may lie at a position.

    Returns
    -------
    ndarray of shape (n, dimensions)
        Centers in pixels; NaN for objects that were left out.
    """
    cell = 2 * radii.max() + gap  # so that only objects in adjacent cells can be too close
    by_cell: dict[tuple[int, ...], list[int]] = {}
    centers = np.full((len(radii), len(shape)), np.nan)
    steps = list(itertools.product((-1, 0, 1), repeat=len(shape)))
    for index, radius in enumerate(radii):
        for _ in range(max_tries):
            point = rng.uniform(radius, np.array(shape) - radius)
            if not allowed(index, point):
                continue
            own_cell = tuple(int(position) for position in point // cell)
            near = [other for step in steps for other in by_cell.get(tuple(map(sum, zip(own_cell, step))), ())]
            distances = np.sqrt(((centers[near] - point) ** 2).sum(1))
            if (distances >= distance_factor * (radii[near] + radius) + gap).all():
                centers[index] = point
                by_cell.setdefault(own_cell, []).append(index)
                break
    return centers


def crop_around(center: Point, half: float, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[Field, ...]]:
    """Return the slices of a crop around a center, clipped to the image, and the offsets of its pixels.

    There is one array of offsets from the center per axis; together they broadcast to the shape of the crop.
    """
    starts = [max(0, int(np.floor(position - half))) for position in center]
    stops = [min(side, int(np.ceil(position + half)) + 1) for position, side in zip(center, shape)]
    offsets = np.ix_(*[np.arange(start, stop) - middle for start, stop, middle in zip(starts, stops, center)])
    return tuple(map(slice, starts, stops)), offsets


def paint_on_lattice(
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


def cube_points(center: Point, half: int) -> Points:
    """Return all pixels of a cube around a center, in row-major order."""
    axes = [np.arange(start, start + 2 * half + 1) for start in np.floor(center - half).astype(int)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(center))


def draw_foci(rng: Generator, points: Points, mean: float, count: int, height: float, spread: float) -> Field:
    """Return the values of pixels with ``count`` Gaussian foci at random pixels, shifted to the given mean."""
    values = np.full(len(points), float(mean))
    if count:
        for focus in points[rng.integers(0, len(points), count)]:
            values += height * np.exp(-((points - focus) ** 2).sum(1) / spread)
        values += mean - values.mean()
    return values
