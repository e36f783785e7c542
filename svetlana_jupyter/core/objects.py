"""Object table of a mask, computed in one pass over its blocks.

The table holds the label, size, centroid, bounding box and border contact of each object.

A block is divided into runs (neighboring pixels of one row with the same label). Every quantity is a sum, a minimum or
a maximum over runs, so that all results for a label can be merged, both within a block and across blocks. This takes a
third of the time of `skimage.measure.regionprops`, and the mask may be larger than memory. Connected pieces are counted
in the same pass (`core.pieces`).
"""

from __future__ import annotations

import itertools
import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd

from svetlana_jupyter.core.io.chunks import MIN_BLOCK_SHAPE, ArrayRegion, compute_array, read_regions
from svetlana_jupyter.core.io.mask_checks import NO_OBJECTS_MESSAGE, check_not_negative, raise_binary_mask
from svetlana_jupyter.core.pieces import BlockPieces, BlockPlace, PieceJoiner, Runs, find_block_pieces
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from xarray import DataArray

SLAB_PIXELS = 1 << 20  # rows are processed in slabs of this size, which fit into the processor's cache
MAX_PENDING_SIZE = 1 << 19  # tables of blocks are merged when they hold this many values and their size has doubled

NONFINITE_PIXELS = (
    "they contain NaN or infinite pixels. Replace these, for example with numpy.nan_to_num(image), and add the image "
    "again"
)

Integers = npt.NDArray[np.int64]
Table = TypeVar("Table", npt.NDArray[np.int64], pd.DataFrame)


def centroid_columns(ndim: int) -> list[str]:
    """Return the names of the centroid columns, ``([z,] y, x)``."""
    return list("zyx"[-ndim:])


def bbox_columns(ndim: int) -> list[str]:
    """Return the names of the columns of the half-open bounding box.

    The names are ``([z0,] y0, x0, [z1,] y1, x1)``.
    """
    return [f"{axis}{end}" for end in "01" for axis in centroid_columns(ndim)]


def find_nonfinite_objects(image: DataArray, mask: DataArray, objects: pd.DataFrame) -> list[int]:
    """Return the labels of objects with NaN or infinite pixels in any channel.

    Values that do not fit into float32 are infinite. Integer images contain none and are not read. Outside the objects,
    such pixels are allowed and count as 0. They are common there, for example along the border of a registered image.

    Parameters
    ----------
    image : DataArray of shape (C, [Z,] Y, X)
    mask : DataArray of shape ([Z,] Y, X), integer
    objects : DataFrame
        Rows of the object table.
    """
    if not np.issubdtype(image.dtype, np.inexact):
        return []
    corners = objects[bbox_columns(mask.ndim)].to_numpy(np.int64)
    owners, regions = list[int](), list[ArrayRegion]()
    for label, row in zip(objects.index.tolist(), corners.tolist()):
        # A large object is read in pieces.
        spans = zip(row[: mask.ndim], row[mask.ndim :], MIN_BLOCK_SHAPE[mask.ndim])
        cuts = ([(start, min(start + side, high)) for start in range(low, high, side)] for low, high, side in spans)
        for piece in itertools.product(*cuts):
            owners.append(label)
            regions.append(ArrayRegion(tuple(low for low, _ in piece), tuple(high for _, high in piece)))
    invalid = dict[int, None]()
    for label, pixels, labels in zip(owners, read_regions(image, regions), read_regions(mask, regions), strict=True):
        with np.errstate(over="ignore"):
            values = pixels[:, labels == label].astype(np.float32)
        if not np.isfinite(values).all():
            invalid[label] = None
    return list(invalid)


def index_objects(mask: DataArray, progress: Callable[[int, int], None] | None = None) -> pd.DataFrame:
    """Return the table of all objects of a mask, reading each chunk once.

    Parameters
    ----------
    mask : DataArray of shape ([Z,] Y, X), integer
        0 is background; positive integers, possibly with gaps, are objects. The mask may be larger than memory: only a
        few chunks and the table are in memory.
    progress : callable, optional
        Called as ``progress(done, total)``, with numbers of blocks, on the calling thread.

    Returns
    -------
    DataFrame
        Index ``object`` (the labels, ascending); columns ``size`` (voxels), the centroid ``[z,] y, x`` (pixels, float),
        the half-open bounding box ``[z0,] y0, x0, [z1,] y1, x1`` (pixels), ``on_border`` (whether the bounding box
        touches the border of the mask, not counting axes of a single pixel) and ``pieces`` (number of connected pieces;
        pixels that touch diagonally are connected). ``attrs["specks"]`` is the number of tiny pieces among them
        (`core.pieces.SPECK_PIXELS`).

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
    table = tabulate_objects(mask, progress)
    if table.index.tolist() == [255]:
        raise_binary_mask(255)
    return for_threads(table)


def for_threads(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose rows several threads may look up at the same time.

    The index builds its hash table at the first lookup, and fails if two threads build it at once.
    """
    table.index.get_indexer(table.index[:1])
    return table


def tabulate_objects(mask: DataArray, progress: Callable[[int, int], None] | None = None) -> pd.DataFrame:
    """Return the table of `index_objects`, also of a binary mask."""
    pixels = da.asarray(mask.data)
    # Blocks are read along their shortest side first, so that few seams wait for the next block.
    joiner = PieceJoiner(sorted(range(mask.ndim), key=lambda axis: -max(pixels.chunks[axis])), mask.shape)
    tally = merge_in_batches(_block_tallies(pixels, joiner, progress), _merge)
    table = _frame(tally, joiner, mask.shape)
    if table.empty:
        raise InputError(NO_OBJECTS_MESSAGE)
    return table


def object_difference(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """Return how the objects of two masks differ; "" if they are the same.

    Parameters
    ----------
    before, after : DataFrame
        Tables of `index_objects`; sizes, centroids and bounding boxes are compared.

    Examples
    --------
    >>> from xarray import DataArray
    >>> before, after = (index_objects(DataArray([[0, a, a], [0, b, 0]], dims=("y", "x"))) for a, b in [(1, 2), (2, 1)])
    >>> object_difference(before, after)
    'it differs in 2 of 2 objects, for example object 1 (2 pixels before, 1 now)'
    """
    gone, new = before.index.difference(after.index), after.index.difference(before.index)
    if len(gone) or len(new):
        example = f"object {gone[0]} is gone" if len(gone) else f"object {new[0]} is new"
        return f"it had {len(before):,} objects and now has {len(after):,}, and {example}"
    ndim = sum(column in before for column in "zyx")
    columns = ["size", *centroid_columns(ndim), *bbox_columns(ndim)]
    old, now = before[columns].to_numpy(np.float64), after.loc[before.index, columns].to_numpy(np.float64)
    differs = ~np.isclose(old, now, rtol=0, atol=1e-6).all(axis=1)
    if not differs.any():
        return ""
    row = int(differs.argmax())
    sizes = [f"{one[row, 0]:.0f} pixels" for one in (old, now)]
    centers = [f"center {tuple(one[row, 1 : 1 + ndim].round(1).tolist())}" for one in (old, now)]
    values = sizes if sizes[0] != sizes[1] else centers
    return (
        f"it differs in {differs.sum():,} of {len(before):,} objects, for example object {before.index[row]} "
        f"({values[0]} before, {values[1].removesuffix(' pixels')} now)"
    )


def merge_in_batches(tables: Iterable[Table], merge: Callable[[list[Table]], Table]) -> Table:
    """Merge tables as they arrive, each time their total size has doubled.

    This limits the memory to little more than the size of the result.
    """
    waiting: list[Table] = []
    size = merged = 0
    for table in tables:
        waiting.append(table)
        size += table.size
        if size >= max(MAX_PENDING_SIZE, 2 * merged):
            waiting = [merge(waiting)]
            size = merged = waiting[0].size
    return merge(waiting)


def _block_tallies(
    mask: da.Array, joiner: PieceJoiner, progress: Callable[[int, int], None] | None
) -> Iterator[Integers]:
    """Yield the result of `tally_block` for each block, computed by several threads."""
    threads = os.cpu_count() or 1
    edges = [[0, *np.cumsum(sizes).tolist()] for sizes in mask.chunks]

    def tally(block: tuple[int, ...]) -> tuple[Integers, BlockPieces]:
        start = [edge[i] for edge, i in zip(edges, block)]
        return tally_block(compute_array(mask.blocks[block]), start, mask.shape)

    pool, blocks = ThreadPoolExecutor(threads, thread_name_prefix="index"), joiner.ordered_blocks(mask.numblocks)
    try:
        running = deque((block, pool.submit(tally, block)) for block in itertools.islice(blocks, 2 * threads))
        for done in itertools.count(1):
            if not running:
                return
            block, future = running.popleft()
            columns, pieces = future.result()
            running.extend((block, pool.submit(tally, block)) for block in itertools.islice(blocks, 1))
            if progress is not None:
                progress(done, mask.npartitions)
            joiner.add(block, pieces)
            yield columns
    finally:
        pool.shutdown(cancel_futures=True)


def tally_block(
    pixels: npt.NDArray[np.integer], start: Sequence[int], mask_shape: Sequence[int]
) -> tuple[Integers, BlockPieces]:
    """Count pixels and pieces of the objects of a block; sum their coordinates.

    Parameters
    ----------
    pixels : integer array
        Block of a mask.
    start : sequence of int
        Position of the block's first pixel in the mask.
    mask_shape : sequence of int
        Shape of the mask.

    Returns
    -------
    columns : int64 array of shape (3 + 3 * ndim, n)
        One column per object: label, number of pixels, number of pieces that do not reach another block, sum of each
        coordinate, and the half-open bounding box (all lower bounds, then all upper bounds).
    pieces : BlockPieces
    """
    check_not_negative(pixels)
    place = BlockPlace(tuple(start), pixels.shape, tuple(mask_shape))
    width = pixels.shape[-1]
    step = max(1, SLAB_PIXELS // max(1, width))
    slabs = [_tally_lines(pixels, first, step, place) for first in range(0, pixels.size // max(1, width), step)]
    tallies, nodes, parts = zip(*slabs)
    columns = tallies[0] if len(slabs) == 1 else _merge(list(tallies))
    runs = Runs(*(np.concatenate(values) if len(slabs) > 1 else values[0] for values in zip(*parts)))
    is_single = _is_single(list(nodes)) if math.prod(pixels.shape[:-2]) > 1 else columns[2] == 1
    pieces = find_block_pieces(runs, columns[0], is_single, place)
    columns[2] = pieces.closed
    return columns, pieces


def _tally_lines(
    pixels: npt.NDArray[np.integer], first: int, count: int, place: BlockPlace
) -> tuple[Integers, Integers, tuple[Integers, ...]]:
    """Tally some rows of a block.

    Returns
    -------
    columns : int64 array
        As for `tally_block`, but the third row counts the runs without a neighbor in the row above.
    nodes : int64 array of shape (4, n)
        In a block of several planes, one column per object and plane: label, plane, number of runs without a neighbor
        in the row above, and whether a pixel has the same label in the plane before.
    runs : tuple of int64 arrays
        The fields of `Runs`.
    """
    height, width = pixels.shape[-2:]
    flat = pixels.reshape(-1)
    slab = flat[first * width : (first + count) * width].reshape(-1, width)
    edge = np.ones(slab.shape, bool)
    np.not_equal(slab[:, 1:], slab[:, :-1], out=edge[:, 1:])
    begin = np.flatnonzero(edge)
    values, length = slab.reshape(-1)[begin], np.diff(begin, append=slab.size)
    inside = np.flatnonzero(values)
    begin, values, length = begin[inside] + first * width, values[inside], length[inside]
    if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
        raise InputError(f"Label {values.max()} is not below 2**63. Relabel the mask first.")

    places = np.unravel_index(begin, pixels.shape)
    middle, labels = begin + length // 2, values.astype(np.int64)
    starts = (flat[middle - width] != values) | (places[-2] == 0)
    low = [at + offset for at, offset in zip(places, place.start)]
    sums = [*(at * length for at in low[:-1]), low[-1] * length + length * (length - 1) // 2]
    high = [*(at + 1 for at in low[:-1]), low[-1] + length]
    order = _order(labels, places[0] if pixels.ndim == 3 else None)
    columns = np.take(np.stack([labels, length, starts, *sums, *low, *high]), order, axis=1)
    nodes = columns[:0]
    if pixels.ndim == 3 and len(pixels) > 1:
        linked = (flat[middle - height * width] == values) & (places[0] > 0)
        nodes = _reduce_nodes(columns[0], columns[6], columns[2], linked[order])
    columns = _reduce(columns)
    return columns, nodes, (begin, begin + length, labels, np.zeros_like(labels))


def _is_single(nodes: list[Integers]) -> npt.NDArray[np.bool_]:
    """Return whether each object of a block of planes is known to be a single piece.

    It is if it has a single start in each of its planes, and touches itself in the plane before in all but one of them.
    """
    labels, _, starts, linked = nodes[0] if len(nodes) == 1 else _merge_nodes(nodes)
    heads = np.flatnonzero(np.diff(labels, prepend=0))
    if not heads.size:
        return np.ones(0, bool)
    counts, links, most = (
        ufunc.reduceat(values, heads) for ufunc, values in ((np.add, starts), (np.add, linked), (np.maximum, starts))
    )
    single: npt.NDArray[np.bool_] = (counts == links + 1) & (most == 1)
    return single


def _order(labels: Integers, planes: Integers | None = None) -> Integers:
    """Return the order that sorts by label, and on request by plane."""
    if planes is None:
        return np.argsort(labels)
    count = int(planes.max(initial=0)) + 1
    if labels.max(initial=0) < np.iinfo(np.int64).max // count:
        return np.argsort(labels * count + planes)  # faster than sorting by two keys
    return np.lexsort((planes, labels))


def _merge_nodes(nodes: list[Integers]) -> Integers:
    """Merge columns of the same label and plane (`_tally_lines`)."""
    columns = np.concatenate(nodes, axis=1)
    return _reduce_nodes(*np.take(columns, np.lexsort(columns[1::-1]), axis=1))


def _reduce_nodes(labels: Integers, planes: Integers, starts: Integers, linked: npt.NDArray[np.generic]) -> Integers:
    is_head = np.ones(len(labels), bool)
    is_head[1:] = (labels[1:] != labels[:-1]) | (planes[1:] != planes[:-1])
    heads = np.flatnonzero(is_head)
    if not heads.size:
        return np.empty((4, 0), np.int64)
    return np.stack([labels[heads], planes[heads], np.add.reduceat(starts, heads), np.maximum.reduceat(linked, heads)])


def _merge(tallies: list[Integers]) -> Integers:
    """Merge columns of the same label."""
    columns = np.concatenate(tallies, axis=1)
    return _reduce(np.take(columns, _order(columns[0]), axis=1))


def _reduce(columns: Integers) -> Integers:
    """Merge sorted columns of the same label: add sums and join bounding boxes."""
    heads, ndim = np.flatnonzero(np.diff(columns[0], prepend=0)), len(columns) // 3 - 1
    if not heads.size:
        return columns
    parts = np.split(columns, [1, 3 + ndim, 3 + 2 * ndim])
    ufuncs = (np.maximum, np.add, np.minimum, np.maximum)
    return np.concatenate([ufunc.reduceat(part, heads, axis=1) for ufunc, part in zip(ufuncs, parts)])


def _frame(tally: Integers, joiner: PieceJoiner, shape: tuple[int, ...]) -> pd.DataFrame:
    ndim, ends = len(shape), np.array(shape)[:, None]
    (labels, size, pieces), sums, low, high = np.split(tally, [3, 3 + ndim, 3 + 2 * ndim])
    np.add.at(pieces, np.searchsorted(labels, joiner.labels()), 1)
    columns = {"size": size, **dict(zip(centroid_columns(ndim), sums / size))}
    columns |= dict(zip(bbox_columns(ndim), [*low, *high]))
    columns["on_border"] = (((low == 0) | (high == ends)) & (ends > 1)).any(axis=0)
    columns["pieces"] = pieces
    table = pd.DataFrame(columns, index=pd.Index(labels, name="object"))
    table.attrs["specks"] = joiner.specks
    return table
