"""Object table of a mask: label, size, centroid, bounding box and border contact, in one pass over its blocks.

A block is divided into runs (neighboring pixels of one row with the same label). Every quantity is a sum, a minimum or
a maximum, so that a run is a table row already, and rows of the same label only need to be merged: within a block and
across blocks alike. This takes a third of the time of `skimage.measure.regionprops`, and works block by block.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd

from svetlana_jupyter.core.io.mask_checks import NO_OBJECTS_MESSAGE, check_not_negative, raise_binary_mask
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xarray import DataArray

SLAB_PIXELS = 1 << 20  # rows are processed in slabs of this size, which fit into the processor's cache
MAX_PENDING_ROWS = 1 << 16  # block tables are merged after so many rows, or as many as were merged before

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tally:
    """Additive statistics, one column per object (or run of one).

    ``labels`` has shape (n,). ``sums`` has shape (1 + ndim, n): voxels, then the sum of each coordinate. ``low`` and
    ``high`` have shape (ndim, n): the half-open bounding box.
    """

    labels: Integers
    sums: Integers
    low: Integers
    high: Integers


def centroid_columns(ndim: int) -> list[str]:
    """Return the names of the centroid columns, ``([z,] y, x)``."""
    return list("zyx"[-ndim:])


def bbox_columns(ndim: int) -> list[str]:
    """Return the names of the half-open bounding box columns, ``([z0,] y0, x0, [z1,] y1, x1)``."""
    return [f"{axis}{end}" for end in "01" for axis in centroid_columns(ndim)]


def index_objects(mask: DataArray, progress: Callable[[int, int], None] | None = None) -> pd.DataFrame:
    """Return the table of all objects of a mask, reading each chunk once.

    Parameters
    ----------
    mask : DataArray of shape ([Z,] Y, X), integer
        0 is background; positive integers, possibly with gaps, are objects. It may be larger than memory: only a few
        chunks and the table are in memory.
    progress : callable, optional
        Called as ``progress(done, total)``, in blocks, on the calling thread.

    Returns
    -------
    DataFrame
        Index ``object`` (the labels, ascending); columns ``size`` (voxels), the centroid ``[z,] y, x`` (pixels, float),
        the half-open bounding box ``[z0,] y0, x0, [z1,] y1, x1`` (pixels) and ``on_border`` (whether the box touches
        the end of an axis longer than one pixel).

    Raises
    ------
    InputError
        If the mask contains no object, negative labels, labels beyond 64-bit signed integers, or only the label 255.

    Examples
    --------
    >>> from xarray import DataArray
    >>> mask = DataArray([[0, 7, 7], [0, 7, 0]], dims=("y", "x"))
    >>> index_objects(mask)[["size", "y0", "x0", "y1", "x1"]].to_dict("index")
    {7: {'size': 3, 'y0': 0, 'x0': 1, 'y1': 2, 'x1': 3}}
    """
    waiting: list[Tally] = []
    rows = merged = 0
    for done, total, tally in _block_tallies(da.asarray(mask.data)):
        waiting.append(tally)
        rows += tally.labels.size
        if rows >= max(MAX_PENDING_ROWS, 2 * merged):
            waiting = [_merge(waiting)]
            rows = merged = waiting[0].labels.size
        if progress is not None:
            progress(done, total)
    table = _frame(_merge(waiting), mask.shape)
    if table.empty:
        raise InputError(NO_OBJECTS_MESSAGE)
    if table.index.tolist() == [255]:
        raise_binary_mask(255, "alone")
    return table


def _block_tallies(mask: da.Array) -> Iterator[tuple[int, int, Tally]]:
    """Tally blocks, one at a time per thread; tallies wait for the caller, not blocks."""
    threads = os.cpu_count() or 1
    edges = [np.concatenate([[0], np.cumsum(sizes)]).tolist() for sizes in mask.chunks]
    blocks = itertools.product(*(range(len(sizes)) for sizes in mask.chunks))
    total = mask.npartitions

    def tally(block: tuple[int, ...]) -> Tally:
        start = [edge[i] for edge, i in zip(edges, block)]
        return tally_block(mask.blocks[block].compute(scheduler="synchronous"), start)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="index")
    try:
        running: set[Future[Tally]] = {pool.submit(tally, block) for block in itertools.islice(blocks, 2 * threads)}
        done = 0
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(tally, block) for block in itertools.islice(blocks, len(finished))}
            for future in finished:
                done += 1
                yield done, total, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def tally_block(pixels: npt.NDArray[np.integer], start: list[int]) -> Tally:
    """Tally the objects of one block whose first pixel lies at ``start`` in the mask."""
    check_not_negative(pixels)
    lines = pixels.reshape(-1, pixels.shape[-1])
    step = max(1, SLAB_PIXELS // max(1, pixels.shape[-1]))
    return _merge([_tally_lines(lines, first, step, pixels.shape, start) for first in range(0, len(lines), step)])


def _tally_lines(
    lines: npt.NDArray[np.integer], first: int, step: int, shape: tuple[int, ...], start: list[int]
) -> Tally:
    slab = lines[first : first + step]
    edge = np.empty(slab.shape, bool)
    edge[:, 0] = True
    np.not_equal(slab[:, 1:], slab[:, :-1], out=edge[:, 1:])
    begin = np.flatnonzero(edge)
    values = slab.reshape(-1)[begin]
    length = np.diff(begin, append=slab.size)
    inside = np.flatnonzero(values)
    begin, values, length = begin[inside], values[inside], length[inside]
    if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
        raise InputError(f"Label {values.max()} is not below 2**63. Relabel the mask first.")

    line, column = np.divmod(begin, slab.shape[1])
    places = [*np.unravel_index(line + first, shape[:-1]), column]
    low = np.stack([np.asarray(at, np.int64) + offset for at, offset in zip(places, start)])
    high = low + 1
    high[-1] = low[-1] + length
    sums = np.concatenate([length[None], low * length])
    sums[-1] += length * (length - 1) // 2
    return _merge([Tally(values.astype(np.int64), sums, low, high)])


def _merge(tallies: list[Tally]) -> Tally:
    """Merge columns of the same label: add sums, join bounding boxes."""
    labels = np.concatenate([tally.labels for tally in tallies])
    order = np.argsort(labels)
    labels = labels[order]
    heads = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]])[: labels.size])

    def reduce(ufunc: np.ufunc, name: str) -> Integers:
        columns = np.concatenate([getattr(tally, name) for tally in tallies], axis=1)
        if not heads.size:
            return columns
        return np.stack([ufunc.reduceat(row[order], heads) for row in columns])

    return Tally(labels[heads], reduce(np.add, "sums"), reduce(np.minimum, "low"), reduce(np.maximum, "high"))


def _frame(tally: Tally, shape: tuple[int, ...]) -> pd.DataFrame:
    ndim = len(shape)
    size = tally.sums[0]
    ends = np.array(shape)[:, None]
    touches = ((tally.low == 0) | (tally.high == ends)) & (ends > 1)
    columns = {"size": size}
    columns |= dict(zip(centroid_columns(ndim), tally.sums[1:] / size))
    columns |= dict(zip(bbox_columns(ndim), [*tally.low, *tally.high]))
    columns |= {"on_border": touches.any(axis=0)}
    return pd.DataFrame(columns, index=pd.Index(tally.labels, name="object"))
