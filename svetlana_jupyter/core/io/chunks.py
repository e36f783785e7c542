"""Chunk-wise reading of images and masks.

A chunk (or block, in dask) is the unit in which an array is decoded. A processing block consists of whole chunks, and a
part consists of a few processing blocks. Objects are visited block by block, so that a chunk under many objects is read
from disk once. If several regions share a chunk, `ChunkCache` keeps the decoded chunk until the last of these regions
has been read.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import dask
import dask.array as da
import numpy as np
from dask.array.optimization import optimize
from dask.core import flatten
from dask.optimization import cull
from numpy.typing import NDArray

from svetlana_jupyter.errors import DamagedError

if TYPE_CHECKING:
    from xarray import DataArray

    from svetlana_jupyter.core.io.image_pair import ImagePair

# Minimum shape of a processing block: a few large reads cost far less than many small ones.
MIN_BLOCK_SHAPE = {2: (1024, 1024), 3: (64, 256, 256)}
MAX_PIXELS_PER_PART = 64 * 2**20  # in the blocks of a part
CACHE_BYTES = 512 * 2**20  # limit of the decoded chunks that a `ChunkCache` keeps

BlockNumber: TypeAlias = tuple[int, ...]  # position of a chunk among the chunks of its array, along each axis
ArrayKind = Literal["image", "mask"]
BlockKey: TypeAlias = tuple[ArrayKind, BlockNumber]
BlockPixels: TypeAlias = NDArray[Any] | DamagedError  # the error stands for a block that cannot be read
FetchBlock: TypeAlias = Callable[[BlockKey], BlockPixels]
Key = TypeVar("Key", bound=Hashable)
Chunk = TypeVar("Chunk", NDArray[Any], BlockPixels)


@dataclass(frozen=True)
class ArrayRegion:
    """Region of the last axes of an array.

    The region consists of every ``stride``-th pixel of the range ``[low, high)``, which lies inside the array.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    stride: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of pixels along each axis."""
        return tuple(-(-(high - low) // self.stride) for low, high in zip(self.low, self.high, strict=True))

    @property
    def index(self) -> tuple[Any, ...]:
        """Index that selects the region from its array."""
        return index_last_axes(slice(low, high, self.stride) for low, high in zip(self.low, self.high, strict=True))


def index_last_axes(slices: Iterable[slice]) -> tuple[Any, ...]:
    """Return the index that applies slices to the last axes of an array."""
    return (..., *slices)


def processing_block_shape(image: DataArray, mask: DataArray) -> tuple[int, ...]:
    """Return the shape ``([z,] y, x)`` of the blocks in which to process objects.

    A block consists of whole chunks of the image. Along each axis, it is at least as long as a chunk of the mask and as
    `MIN_BLOCK_SHAPE`.
    """
    shape = []
    for dim, shortest in zip(mask.dims, MIN_BLOCK_SHAPE[mask.ndim], strict=True):
        chunk = _longest_chunk(image, str(dim))
        shape.append(chunk * -(-max(shortest, _longest_chunk(mask, str(dim))) // chunk))
    return tuple(shape)


def _longest_chunk(array: DataArray, dim: str) -> int:
    return int(max(1, *array.chunksizes.get(dim, (array.sizes[dim],))))


def group_by_block(points: NDArray[Any], block_shape: tuple[int, ...]) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers of the points (n, ndim) in each block, block by block."""
    if not len(points):
        return
    order = block_order(points, block_shape)
    changes = np.diff(np.floor_divide(points[order], block_shape), axis=0).any(axis=1)
    yield from np.split(order, np.flatnonzero(changes) + 1)


def block_order(points: NDArray[Any], block_shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the row numbers of ``points`` (n, ndim), sorted by block."""
    return np.lexsort(np.floor_divide(points, block_shape).T[::-1])


def group_blocks_into_parts(
    points: NDArray[Any], block_shape: tuple[int, ...], min_points: int, max_pixels: int = MAX_PIXELS_PER_PART
) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers of the points (n, ndim) in each part, part by part.

    A part consists of consecutive blocks with points. It ends with the block in which it reaches ``min_points`` points
    or ``max_pixels`` pixels.
    """
    max_blocks = max(1, max_pixels // math.prod(block_shape))
    blocks: list[NDArray[np.int64]] = []
    for block in group_by_block(points, block_shape):
        blocks.append(block)
        if sum(map(len, blocks)) >= min_points or len(blocks) >= max_blocks:
            yield np.concatenate(blocks)
            blocks = []
    if blocks:
        yield np.concatenate(blocks)


def readable_range(
    start: NDArray[np.int64], stop: NDArray[np.int64], shape: NDArray[np.int64], padding: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the range [low, high) that `read_padded` reads for [start, stop)."""
    before, after = np.maximum(-start, 0), np.maximum(stop - shape, 0)
    low, high = np.clip(start, 0, shape - 1), np.clip(stop, 1, shape)
    if padding == "reflect":
        low = np.where(after > 0, np.minimum(low, np.maximum(shape - 1 - after, 0)), low)
        high = np.where(before > 0, np.maximum(high, np.minimum(before + 1, shape)), high)
    return low, high


def read_padded(array: DataArray, start: NDArray[np.int64], stop: NDArray[np.int64], padding: str) -> NDArray[Any]:
    """Read a region of the last axes that may extend beyond the array.

    Parameters
    ----------
    array : DataArray of shape (..., [Z,] Y, X)
    start, stop : integer arrays of length ndim
    padding : "reflect" or "zeros"
        Values of the pixels beyond the border. For "reflect", at least as many pixels next to the border are read as
        are added beyond the border, so that the result equals that of reflecting the whole array.
    """
    shape = np.array(array.shape[-len(start) :])
    before, after = np.maximum(-start, 0), np.maximum(stop - shape, 0)
    low, high = readable_range(start, stop, shape, padding)
    pixels = array.data[index_last_axes(map(slice, low, high))]
    pixels = compute_array(pixels) if isinstance(pixels, da.Array) else np.asarray(pixels)
    if before.any() or after.any():
        widths = [(0, 0)] * (pixels.ndim - len(start)) + list(zip(before, after, strict=True))
        pixels = np.pad(pixels, widths, mode="reflect" if padding == "reflect" else "constant")
    first = start - (low - before)
    region: NDArray[Any] = pixels[index_last_axes(map(slice, first, first + stop - start))]
    return region


def compute_array(array: da.Array) -> NDArray[Any]:
    """Compute a dask array on the calling thread.

    `da.Array.compute` returns the same pixels, but takes about 2 ms longer per call, which is as long as the rest of
    the work for a small region.
    """
    keys = array.__dask_keys__()
    graph = optimize(array.__dask_graph__(), list(flatten(keys)))
    finalize, arguments = array.__dask_postcompute__()
    return np.asarray(finalize(dask.get(graph, keys), *arguments))


class ChunkCache(Generic[Key, Chunk]):
    """Cache that keeps each decoded chunk until the last step that needs it.

    If the chunks exceed `CACHE_BYTES`, the chunk whose next use is furthest away is dropped (Belady's algorithm). This
    is possible because the order of the steps is known. A least-recently-used cache, such as `zict.LRU`, would drop the
    very chunks that one row of blocks shares with the next row: in an image 40 blocks wide, with room for 100 blocks
    and with objects that extend into neighboring blocks, it would decode each chunk 2.7 times instead of once.

    Parameters
    ----------
    decode : callable
        Function that returns the pixels of a chunk.
    needs : sequence of sequence of hashable
        The chunks that each step may read, in the order of the steps.
    """

    def __init__(self, decode: Callable[[Key], Chunk], needs: Sequence[Sequence[Key]]) -> None:
        self._decode: Callable[[Key], Chunk] = decode
        self._needs = needs
        self._uses: dict[Key, list[int]] = {}
        for step, keys in enumerate(needs):
            for key in keys:
                self._uses.setdefault(key, []).append(step)
        self._chunks: dict[Key, Chunk] = {}
        self._step = 0
        self.nbytes = 0

    def fetch(self, key: Key) -> Chunk:
        """Return a chunk from the cache, or decode it."""
        if key in self._chunks:
            return self._chunks[key]
        chunk = self._decode(key)
        if self._next_use(key) < len(self._needs):
            while self._chunks and self.nbytes + _nbytes(chunk) > CACHE_BYTES:
                self._drop(max(self._chunks, key=self._next_use))
            self._chunks[key] = chunk
            self.nbytes += _nbytes(chunk)
        return chunk

    def release(self, step: int) -> None:
        """Drop the chunks that no step after ``step`` needs."""
        self._step = step + 1
        for key in self._needs[step]:
            if key in self._chunks and self._next_use(key) == len(self._needs):
                self._drop(key)

    def _drop(self, key: Key) -> None:
        self.nbytes -= _nbytes(self._chunks.pop(key))

    def _next_use(self, key: Key) -> int:
        uses = self._uses.get(key, [])
        following = bisect_left(uses, self._step)
        return uses[following] if following < len(uses) else len(self._needs)


def _nbytes(chunk: BlockPixels) -> int:
    return 0 if isinstance(chunk, DamagedError) else chunk.nbytes


def read_regions(array: DataArray, regions: Sequence[ArrayRegion]) -> Iterator[NDArray[Any]]:
    """Read regions one after the other.

    A chunk that several regions share is decoded once, as long as `ChunkCache` has room for it.

    Parameters
    ----------
    array : DataArray of shape (..., [Z,] Y, X)
        Backed by dask or NumPy; the leading axes are read whole.
    regions : sequence of ArrayRegion

    Yields
    ------
    array of shape (..., *region.shape)
    """
    data = array.data
    if not isinstance(data, da.Array):
        yield from (np.asarray(data[region.index]) for region in regions)
        return
    numbers = [blocks_overlapping(data, region) for region in regions]
    # Each chunk of each region is a separate step, so that a large region does not keep all of its chunks in memory.
    cache = ChunkCache(_BlockReader(data), [(number,) for region in numbers for number in region])
    steps = itertools.count()
    edges = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in data.chunks]
    for region, overlapping in zip(regions, numbers, strict=True):
        pixels = np.empty((*data.shape[: data.ndim - len(region.low)], *region.shape), data.dtype)
        for number in overlapping:
            target, source = _overlap(edges, number, region)
            pixels[target] = cache.fetch(number)[source]
            cache.release(next(steps))
        yield pixels


def _overlap(
    edges: Sequence[NDArray[np.int64]], number: BlockNumber, region: ArrayRegion
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the overlap of a chunk with a region, as slices of region and chunk."""
    leading = len(number) - len(region.low)
    target = [slice(edge[i], edge[i + 1]) for i, edge in zip(number[:leading], edges)]
    source = [slice(None)] * leading
    for i, edge, low, high in zip(number[leading:], edges[leading:], region.low, region.high, strict=True):
        start, stop = max(edge[i], low), min(edge[i + 1], high)
        first, last = -(-(start - low) // region.stride), -(-(stop - low) // region.stride)
        target.append(slice(first, last))
        begin = low + first * region.stride - edge[i]
        count = max(0, last - first - 1) * region.stride + (last > first)
        source.append(slice(begin, begin + count, region.stride))
    return tuple(target), tuple(source)


def blocks_overlapping(data: da.Array, region: ArrayRegion) -> list[BlockNumber]:
    """Return the numbers of the blocks that overlap a region of the last axes."""
    spans = [range(count) for count in data.numblocks[: data.ndim - len(region.low)]]
    for sizes, low, high in zip(data.chunks[-len(region.low) :], region.low, region.high, strict=True):
        ends = np.cumsum(sizes)
        spans.append(range(int(np.searchsorted(ends, low, "right")), int(np.searchsorted(ends, high, "left")) + 1))
    return list(itertools.product(*spans))


def list_needed_blocks(pair: ImagePair, regions: Sequence[ArrayRegion]) -> list[BlockKey]:
    """Return the blocks of image and mask that overlap regions, in order of use."""
    needed: dict[BlockKey, None] = {}
    for region in regions:
        needed |= {("image", number): None for number in blocks_overlapping(pair.image.data, region)}
        needed |= {("mask", number): None for number in blocks_overlapping(pair.mask.data, region)}
    return list(needed)


class _BlockReader:
    """Reader of single blocks of a dask array on the calling thread.

    The task graph is optimized once. `da.Array.compute` would optimize it again for each block, which may take longer
    than reading the block.
    """

    def __init__(self, data: da.Array) -> None:
        (array,) = dask.optimize(data)
        self._name, self._graph = array.name, dict(array.__dask_graph__())

    def __call__(self, number: BlockNumber) -> NDArray[Any]:
        key = (self._name, *number)
        needed, _ = cull(self._graph, [key])
        (pixels,) = dask.get(needed, [key])
        return np.asarray(pixels)


class BlockDecoder:
    """Reader of single blocks of an image and its mask on the calling thread.

    For a damaged block, the decoder returns the error instead of raising it.
    """

    def __init__(self, pair: ImagePair) -> None:
        self._readers = {"image": _BlockReader(pair.image.data), "mask": _BlockReader(pair.mask.data)}

    def __call__(self, block: BlockKey) -> BlockPixels:
        """Return the pixels of a block, or the error that reading it raised."""
        kind, number = block
        try:
            return self._readers[kind](number)
        except DamagedError as error:
            return error


def with_fetched_blocks(pair: ImagePair, fetch: FetchBlock) -> ImagePair:
    """Return an image pair that reads its pixels with ``fetch``.

    Reading a block for which ``fetch`` returns an error raises that error.
    """
    return replace(pair, image=_fetched(pair.image, "image", fetch), mask=_fetched(pair.mask, "mask", fetch))


def _fetched(array: DataArray, kind: ArrayKind, fetch: FetchBlock) -> DataArray:
    def read(block_id: BlockNumber) -> NDArray[Any]:
        pixels = fetch((kind, block_id))
        if isinstance(pixels, DamagedError):
            raise pixels
        return pixels

    data = array.data
    # The array keeps its name, so that statistics that were cached under this name stay valid.
    meta = np.empty((0,) * data.ndim, data.dtype)
    return array.copy(data=da.map_blocks(read, name=data.name, chunks=data.chunks, dtype=data.dtype, meta=meta))
