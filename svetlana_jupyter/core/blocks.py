"""Visiting objects block by block, so that what lies under many objects is read from disk once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray import DataArray

# Small chunks are read in groups at least this wide: fewer, larger reads cost far less than many small ones.
SIDES = {2: (1024, 1024), 3: (64, 256, 256)}
MAX_PIXELS_PER_PART = 64 * 2**20  # under the objects of a part


def processing_block_shape(image: DataArray, mask: DataArray) -> tuple[int, ...]:
    """Return the sides ``([z,] y, x)`` of the blocks to work in: whole chunks of the image, and not too small."""
    sides = []
    for dim, least in zip(mask.dims, SIDES[mask.ndim], strict=True):
        chunk = _longest_chunk(image, dim)
        sides.append(chunk * -(-max(least, _longest_chunk(mask, dim)) // chunk))
    return tuple(sides)


def group_by_block(points: NDArray[Any], sides: tuple[int, ...]) -> Iterator[NDArray[np.int64]]:
    """Yield, block after block, the positions in ``points`` (n, ndim) that lie in that block."""
    if not len(points):
        return
    keys = np.floor_divide(points, sides).astype(np.int64)
    order = np.lexsort(keys.T[::-1])
    changes = np.flatnonzero((np.diff(keys[order], axis=0) != 0).any(axis=1)) + 1
    yield from np.split(order, changes)


def group_blocks_into_parts(
    points: NDArray[Any], sides: tuple[int, ...], least: int, max_pixels: int = MAX_PIXELS_PER_PART
) -> Iterator[NDArray[np.int64]]:
    """Yield, part after part, the positions in ``points`` (n, ndim) that lie in a few consecutive blocks.

    A part ends with the block in which it reaches ``least`` points or ``max_pixels`` pixels.
    """
    most = max(1, max_pixels // math.prod(sides))
    members: list[NDArray[np.int64]] = []
    count = 0
    for block in group_by_block(points, sides):
        members.append(block)
        count += len(block)
        if count >= least or len(members) >= most:
            yield np.concatenate(members)
            members, count = [], 0
    if members:
        yield np.concatenate(members)


def inside(
    start: NDArray[np.int64], stop: NDArray[np.int64], shape: NDArray[np.int64], padding: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pixels ``[low, high)`` of an array that `read` needs for a window ``[start, stop)``."""
    before, after = np.maximum(-start, 0), np.maximum(stop - shape, 0)
    low, high = np.clip(start, 0, shape - 1), np.clip(stop, 1, shape)
    if padding == "reflect":
        low = np.where(after > 0, np.minimum(low, np.maximum(shape - 1 - after, 0)), low)
        high = np.where(before > 0, np.maximum(high, np.minimum(before + 1, shape)), high)
    return low, high


def read(array: DataArray, start: NDArray[np.int64], stop: NDArray[np.int64], padding: str) -> NDArray[Any]:
    """Read the window ``[start, stop)`` of the last axes, which may reach beyond the array.

    Parameters
    ----------
    array : DataArray of shape (..., [Z,] Y, X)
    start, stop : integer arrays of length ndim
    padding : "reflect" or "zeros"
        What stands beyond the border. Reflection of a part equals that of the whole as long as the part holds as
        many pixels behind the border as it is to be padded by.
    """
    shape = np.array(array.shape[-len(start) :])
    before, after = np.maximum(-start, 0), np.maximum(stop - shape, 0)
    low, high = inside(start, stop, shape, padding)
    pixels = array.data[index_last_axes(map(slice, low, high))]
    if hasattr(pixels, "compute"):
        pixels = pixels.compute(scheduler="synchronous")
    pixels = np.asarray(pixels)
    if before.any() or after.any():
        beyond = [(0, 0)] * (pixels.ndim - len(start)) + list(zip(before, after, strict=True))
        pixels = np.pad(pixels, beyond, mode="reflect" if padding == "reflect" else "constant")
    first = start - (low - before)
    inner: NDArray[Any] = pixels[index_last_axes(map(slice, first, first + stop - start))]
    return inner


def index_last_axes(window: Iterable[slice]) -> tuple[Any, ...]:
    """Return the index that applies a window to the last axes of an array."""
    return (..., *window)


def _longest_chunk(array: DataArray, dim: Any) -> int:
    chunks = array.chunksizes.get(dim)
    return max(1, *chunks) if chunks else max(1, int(array.sizes[dim]))
