"""Samples, and the placement of objects in generated images.

A sample consists of an image, its mask and the true class of each object.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.random import Generator

Shape = tuple[int, ...]
Field = NDArray[np.float64]
Point = NDArray[np.float64]  # ([z,] y, x), pixels


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
        Class names.
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
    """Sample with Zarr arrays on disk, for images that are too large for memory.

    Attributes
    ----------
    image, mask : Path
        Zarr arrays, whose metadata contain the dimension names.
    classes : ndarray of int, shape (n,)
        See `Sample`.
    names : tuple of str
        Class names.
    """

    image: Path
    mask: Path
    classes: NDArray[np.int64]
    names: tuple[str, ...]


def draw_labels(mask: NDArray[Any], count: int, seed: int) -> list[int]:
    """Draw labels of a mask uniformly without replacement."""
    labels = np.unique(mask[mask > 0])
    return [int(label) for label in np.random.default_rng(seed).permutation(labels)[:count]]


def tile_sample(sample: Sample, folder: Path, rows: int, columns: int) -> StoredSample:
    """Repeat a sample along rows and columns, with new labels for every copy.

    Parameters
    ----------
    sample : Sample
        Sample of shape ([Z,] Y, X).
    folder : Path
        Existing folder for ``image.zarr`` and ``mask.zarr``, of shape ([Z,] rows * Y, columns * X), one tile per chunk.
    rows, columns : int
        Number of tiles.
    """
    count = len(sample.classes)
    *planes, height, width = sample.mask.shape
    shape = (*planes, rows * height, columns * width)
    tiles, dtype = rows * columns, sample.image.dtype
    image, mask = create_arrays(folder, shape, sample.mask.shape, dtype, count * tiles)
    for tile, (row, column) in enumerate(itertools.product(range(rows), range(columns))):
        part = (..., slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
        image[part] = sample.image
        mask[part] = np.where(sample.mask > 0, sample.mask.astype(np.int64) + tile * count, 0)
    return StoredSample(folder / "image.zarr", folder / "mask.zarr", np.tile(sample.classes, tiles), sample.names)


def create_arrays(
    folder: Path, shape: Shape, chunks: Shape, dtype: Any, count: int, channels: Shape = ()
) -> tuple[zarr.Array, zarr.Array]:
    """Create the empty Zarr arrays ``image.zarr`` and ``mask.zarr`` in a folder.

    The image has shape ``(*channels, *shape)``; the mask has shape ``shape`` and the smallest unsigned integer type, of
    at least 16 bits, that fits ``count`` labels.
    """
    axes = "zyx"[-len(shape) :]
    return (
        _create(folder / "image.zarr", (*channels, *shape), (*channels, *chunks), dtype, "c" * len(channels) + axes),
        _create(folder / "mask.zarr", shape, chunks, np.min_scalar_type(count + 256), axes),
    )


def _create(path: Path, shape: Shape, chunks: Shape, dtype: Any, axes: str) -> zarr.Array:
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
        Radii in pixels, in the order in which the objects are placed.
    shape : tuple of int
        Shape of the image; objects lie completely within it.
    gap, distance_factor : float
        Two centers are at least ``distance_factor * (sum of radii) + gap`` pixels apart.
    max_tries : int
        Number of positions to try before an object is left out.
    allowed : callable
        ``allowed(index, point)`` returns whether the center of an object may lie at a position.

    Returns
    -------
    ndarray of shape (n, dimensions)
        Centers in pixels; NaN for objects that were left out.
    """
    cell = 2 * radii.max() + gap  # side of a grid cell: only objects in adjacent cells can be too close
    by_cell: dict[tuple[int, ...], list[int]] = {}
    centers = np.full((len(radii), len(shape)), np.nan)
    steps = list(itertools.product((-1, 0, 1), repeat=len(shape)))
    for index, radius in enumerate(radii):
        for _ in range(max_tries):
            point = rng.uniform(radius, np.array(shape) - radius)
            if not allowed(index, point):
                continue
            own_cell = tuple((point // cell).astype(int).tolist())
            near = [other for step in steps for other in by_cell.get(tuple(map(sum, zip(own_cell, step))), ())]
            distances = np.sqrt(((centers[near] - point) ** 2).sum(1))
            if (distances >= distance_factor * (radii[near] + radius) + gap).all():
                centers[index] = point
                by_cell.setdefault(own_cell, []).append(index)
                break
    return centers


def crop_around(center: Point, half: float, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[Field, ...]]:
    """Return the slices of a crop around a center, and the offsets of its pixels.

    The crop is clipped to the image. The offsets from the center are one array per axis; together, these arrays
    broadcast to the shape of the crop.
    """
    starts = [max(0, int(np.floor(position - half))) for position in center]
    stops = [min(side, int(np.ceil(position + half)) + 1) for position, side in zip(center, shape)]
    offsets = np.ix_(*[np.arange(start, stop) - middle for start, stop, middle in zip(starts, stops, center)])
    return tuple(map(slice, starts, stops)), offsets
