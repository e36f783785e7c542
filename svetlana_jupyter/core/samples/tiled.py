"""A sample repeated side by side until it is as large as wanted, written tile by tile."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import zarr

from svetlana_jupyter.core.samples.sample import Sample, StoredSample


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
