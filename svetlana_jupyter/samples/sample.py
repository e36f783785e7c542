"""What a sample is: an image, its mask and the true class of every object.

Where the objects of a made-up image lie: scattered without touching, and the window round each of them.

A sample repeated side by side until it is as large as wanted, written tile by tile.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.random import Generator
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Sample:
    """Arrays of a small sample.

    Attributes
    ----------
    image : ndarray of shape ([Z,] Y, X)
    mask : ndarray of uint16, same shape
        Objects are numbered from 1 without gaps, 0 is background.
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
    """A sample too large for memory: like `Sample`, with Zarr arrays on disk.

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


def tile_sample(sample: Sample, folder: Path, rows: int, columns: int) -> StoredSample:
    """Repeat a sample along rows and columns; every copy of an object gets a label of its own.

    Parameters
    ----------
    sample : Sample
        Of shape ([Z,] Y, X).
    folder : Path
        Gets ``image.zarr`` and ``mask.zarr``, of shape ([Z,] rows * Y, columns * X) and one tile a chunk. Must exist.
    rows, columns : int
        Number of tiles.
    """
    count = len(sample.classes)
    *planes, height, width = sample.mask.shape
    shape = (*planes, rows * height, columns * width)
    axes = ("z", "y", "x")[-len(shape) :]
    labels = np.min_scalar_type(rows * columns * count + 256)  # 16 bits at least

    def create(name: str, dtype: np.dtype) -> zarr.Array:
        return zarr.create_array(
            folder / f"{name}.zarr", shape=shape, chunks=sample.mask.shape, dtype=dtype, dimension_names=axes
        )

    image, mask = create("image", sample.image.dtype), create("mask", labels)
    for tile, (row, column) in enumerate(itertools.product(range(rows), range(columns))):
        there = (..., slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
        image[there] = sample.image
        mask[there] = np.where(sample.mask > 0, sample.mask.astype(labels) + labels.type(tile * count), 0)
    classes = np.tile(sample.classes, rows * columns)
    return StoredSample(folder / "image.zarr", folder / "mask.zarr", classes, sample.names)
