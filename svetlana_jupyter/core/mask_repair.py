"""Repair of masks whose numbers do not name objects.

The pieces of a mask are numbered block by block in a new Zarr array; the mask may be larger than memory.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import zarr
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label
from xarray import DataArray

from svetlana_jupyter.core.io.chunks import compute_array
from svetlana_jupyter.core.mask_numbers import REPAIRS, probable_background
from svetlana_jupyter.core.objects import tabulate_objects
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Block = tuple[slice, ...]


def repair_mask(mask: DataArray, repair: str, file: Path) -> tuple[DataArray, str]:
    """Write a repaired copy of a mask, and return it.

    Parameters
    ----------
    mask : DataArray of shape ([Z,] Y, X), integer
    repair : {"components", "foreground", "unsigned"}
        "components": connected pixels with the same number become one object. "foreground": connected pixels become one
        object, whatever their numbers. "unsigned": negative numbers are read as unsigned numbers with the same bits.
        Pixels that touch diagonally are connected.
    file : Path
        The Zarr array to write.

    Returns
    -------
    mask : DataArray
    note : str
        A sentence about the background if it is probably not 0 (`core.mask_numbers.probable_background`).

    Raises
    ------
    InputError
        If the repair is unknown.

    Examples
    --------
    >>> import tempfile
    >>> mask = DataArray([[2, 2, 1, 1], [2, 2, 2, 2], [2, 1, 1, 2]], dims=("y", "x"))
    >>> repaired, note = repair_mask(mask, "components", tempfile.mkdtemp() + "/mask.zarr")
    >>> repaired.values.tolist(), note
    ([[0, 0, 1, 1], [0, 0, 0, 0], [0, 2, 2, 0]], 'Number 2 was taken as the background.')
    """
    if repair not in REPAIRS:
        raise InputError(f"Unknown repair {repair!r}. Choose among {', '.join(map(repr, REPAIRS))}.")
    background = probable_background(tabulate_objects(mask), mask.size) if repair != "unsigned" else 0
    pixels = da.asarray(mask.data)
    sides = tuple(max(sizes) for sizes in pixels.chunks)
    dtype = _unsigned_dtype(pixels) if repair == "unsigned" else np.dtype(np.uint32)
    stored = zarr.create_array(file, shape=pixels.shape, chunks=sides, dtype=dtype)

    def read(block: Block) -> NDArray[Any]:
        part = compute_array(pixels[block])
        if repair == "unsigned":
            return part.astype(dtype)  # wraps around, as the bits stay the same
        part = np.where(part == background, 0, part)
        return (part != 0).astype(np.uint8) if repair == "foreground" else part

    blocks = [*_blocks(pixels.shape, sides)]
    if repair == "unsigned":
        for block in blocks:
            stored[block] = read(block)
    else:
        _number_pieces(read, stored, blocks)
    note = f"Number {background} was taken as the background." if background else ""
    return DataArray(da.from_zarr(stored), mask.coords, mask.dims, mask.name, mask.attrs), note


def _unsigned_dtype(pixels: da.Array) -> np.dtype[Any]:
    """Return the type of the numbers before they were read as signed."""
    if pixels.dtype.kind == "u":
        dtype: np.dtype[Any] = pixels.dtype
        return dtype
    low, high = (int(bound) for bound in da.compute(pixels.min(), pixels.max()))
    sizes = [size for size in (1, 2, 4, 8) if size >= min(2, pixels.dtype.itemsize)]  # 16 bits may be stored in more
    return np.dtype(f"u{next(size for size in sizes if -low <= 2 ** (8 * size - 1) > high)}")


def _number_pieces(read: Callable[[Block], NDArray[Any]], stored: zarr.Array, blocks: list[Block]) -> None:
    """Give numbers from 1 to the connected pieces of equal pixels."""
    total = 0
    for block in blocks:
        numbered, count = label(read(block), connectivity=stored.ndim, return_num=True)
        if total + count >= np.iinfo(stored.dtype).max:
            raise InputError(f"The mask has more than {total:,} pieces. Check that it is a segmentation.")
        stored[block] = np.where(numbered > 0, numbered + total, 0)
        total += count
    pairs = np.unique(np.concatenate([np.empty((0, 2), np.int64), *_touching(read, stored)]), axis=0)
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(total + 1, total + 1))
    _, piece = connected_components(graph, directed=False)
    _, first, numbers = np.unique(piece, return_index=True, return_inverse=True)
    numbers = np.argsort(np.argsort(first))[numbers]  # in the order of the mask; 0 stays background
    for block in blocks:
        stored[block] = numbers[stored[block]]


def _touching(read: Callable[[Block], NDArray[Any]], stored: zarr.Array) -> Iterator[NDArray[np.int64]]:
    """Yield the pairs of numbers whose pieces touch across the seams of blocks."""
    for axis, side in enumerate(stored.chunks):
        for seam in range(side, stored.shape[axis], side):
            here = tuple(slice(seam - 1, seam + 1) if a == axis else slice(None) for a in range(stored.ndim))
            values, numbers = (np.moveaxis(part, axis, 0) for part in (read(here), np.asarray(stored[here])))
            shifts = [
                [(slice(None), slice(None)), (slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))]
            ]
            for pair in itertools.product(*shifts * (stored.ndim - 1)):
                before, after = (0, *(first for first, _ in pair)), (1, *(second for _, second in pair))
                same = (values[before] == values[after]) & (values[before] != 0)
                if same.any():
                    yield np.unique(np.stack([numbers[before][same], numbers[after][same]], 1).astype(np.int64), axis=0)


def _blocks(shape: tuple[int, ...], sides: tuple[int, ...]) -> Iterator[Block]:
    """Yield the blocks of an array as slices."""
    starts = [range(0, length, side) for length, side in zip(shape, sides)]
    for corner in itertools.product(*starts):
        yield tuple(slice(low, min(low + side, length)) for low, side, length in zip(corner, sides, shape))
