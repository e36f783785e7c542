"""Visiting objects block by block, so that what lies under many objects is read from disk once.

Reading many windows of one lazy array, each of its chunks once.

Pixels decoded block by block: each block once, kept until the last part of the work that needs it is done.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import dask
import dask.array as da
import numpy as np
from dask.optimization import cull
from numpy.typing import NDArray
from xarray import DataArray

from svetlana_jupyter.errors import DamagedError

if TYPE_CHECKING:
    from svetlana_jupyter.core.io.image_pair import ImagePair

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


KEPT_BYTES = 512 * 2**20  # of decoded chunks that a later window needs; beyond this the one needed last is read again

Chunk = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """A part of the last axes of an array: every ``stride``-th pixel of ``[low, high)``, which lies inside."""

    low: tuple[int, ...]
    high: tuple[int, ...]
    stride: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(-(-(high - low) // self.stride) for low, high in zip(self.low, self.high, strict=True))


def read_regions(array: DataArray, windows: Sequence[Window]) -> Iterator[NDArray[Any]]:
    """Read windows one after the other.

    A chunk that several windows share is decoded once and kept until the last of them, as long as what is kept stays
    within `KEPT_BYTES`.

    Parameters
    ----------
    array : DataArray of shape (..., [Z,] Y, X)
        Backed by dask or NumPy; the leading axes are read whole.
    windows : sequence of Window

    Yields
    ------
    array of shape (..., *window.shape)
    """
    if not isinstance(array.data, da.Array):
        for window in windows:
            yield np.asarray(array.data[index_last_axes(map(slice, window.low, window.high, _strides(window)))])
        return
    chunks = _Chunks(array.data, [blocks_overlapping(array.data, window) for window in windows])
    for number, window in enumerate(windows):
        leading = array.shape[: array.ndim - len(window.low)]
        pixels = np.empty((*leading, *window.shape), array.dtype)
        for chunk in chunks.needed[number]:
            into, out_of = chunks.overlap(chunk, window)
            pixels[into] = chunks.decoded(chunk, number)[out_of]
            chunks.release(chunk, number)
        yield pixels


class _Chunks:
    """Decoded chunks of an array, and when each is needed.

    ``needed[i]`` are the chunks under window i.
    """

    def __init__(self, data: da.Array, needed: list[list[Chunk]]) -> None:
        self.needed = needed
        self._data = data
        self._edges = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in data.chunks]
        self._uses: dict[Chunk, list[int]] = {}
        for number, chunks in enumerate(needed):
            for chunk in chunks:
                self._uses.setdefault(chunk, []).append(number)
        self._kept: dict[Chunk, NDArray[Any]] = {}

    def decoded(self, chunk: Chunk, number: int) -> NDArray[Any]:
        if chunk not in self._kept:
            pixels = np.asarray(self._data.blocks[chunk].compute(scheduler="synchronous"))
            while self._kept and sum(kept.nbytes for kept in self._kept.values()) + pixels.nbytes > KEPT_BYTES:
                del self._kept[max(self._kept, key=lambda kept: self._next_use(kept, number))]
            self._kept[chunk] = pixels
        return self._kept[chunk]

    def release(self, chunk: Chunk, number: int) -> None:
        """Drop a chunk that no window after this one needs."""
        if self._uses[chunk][-1] <= number:
            del self._kept[chunk]

    def overlap(self, chunk: Chunk, window: Window) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return where the pixels of a chunk go in a window, and which of the chunk those are."""
        leading = len(chunk) - len(window.low)
        into = [slice(edge[part], edge[part + 1]) for part, edge in zip(chunk[:leading], self._edges)]
        out_of = [slice(None)] * leading
        for part, edge, low, high in zip(chunk[leading:], self._edges[leading:], window.low, window.high, strict=True):
            start, stop = max(edge[part], low), min(edge[part + 1], high)
            first, last = -(-(start - low) // window.stride), -(-(stop - low) // window.stride)
            into.append(slice(first, last))
            begin = low + first * window.stride - edge[part]
            out_of.append(
                slice(begin, begin + max(0, last - first - 1) * window.stride + (last > first), window.stride)
            )
        return tuple(into), tuple(out_of)

    def _next_use(self, chunk: Chunk, number: int) -> int:
        return next(use for use in self._uses[chunk] if use >= number)


def blocks_overlapping(data: da.Array, window: Window) -> list[Chunk]:
    """Return the numbers of the blocks of an array that lie under a window of its last axes."""
    spans = [range(count) for count in data.numblocks[: data.ndim - len(window.low)]]
    for sizes, low, high in zip(data.chunks[-len(window.low) :], window.low, window.high, strict=True):
        ends = np.cumsum(sizes)
        spans.append(range(int(np.searchsorted(ends, low, "right")), int(np.searchsorted(ends, high, "left")) + 1))
    return list(itertools.product(*spans))


def _strides(window: Window) -> tuple[int, ...]:
    return (window.stride,) * len(window.low)


KEPT_BYTES_DECODED = (
    384 * 2**20
)  # of decoded blocks of an image and its mask; beyond this the one needed last is read again

Kind = Literal["image", "mask"]
Block = tuple[Kind, tuple[int, ...]]  # of the image or of the mask, and its number along each axis
Pixels = NDArray[Any] | DamagedError  # of a block, or why it has none
FetchBlock = Callable[[Block], Pixels]


class BlockDecoder:
    """Reads single blocks of an image and of its mask, on the thread that asks.

    Their graphs are optimised once; dask would do so again for each block, which takes longer than many a block.
    """

    def __init__(self, pair: ImagePair) -> None:
        self._arrays = {}
        for kind in ("image", "mask"):
            (array,) = dask.optimize(getattr(pair, kind).data)
            self._arrays[kind] = array.name, dict(array.__dask_graph__())

    def __call__(self, block: Block) -> Pixels:
        kind, number = block
        name, graph = self._arrays[kind]
        key = (name, *number)
        needed, _ = cull(graph, [key])
        try:
            (pixels,) = dask.get(needed, [key])
        except DamagedError as error:
            return error
        return np.asarray(pixels)


def list_needed_blocks(pair: ImagePair, windows: Sequence[Window]) -> list[Block]:
    """Return the blocks of image and mask under some windows, in the order in which they are first needed."""
    found: dict[Block, None] = {}
    for window in windows:
        found |= {("image", number): None for number in blocks_overlapping(pair.image.data, window)}
        found |= {("mask", number): None for number in blocks_overlapping(pair.mask.data, window)}
    return list(found)


def through(pair: ImagePair, fetch: FetchBlock) -> ImagePair:
    """Return an image whose pixels, and those of its mask, come from ``fetch``; all else is the same.

    Reading a block that has no pixels raises what `fetch` gave instead.
    """
    return replace(pair, image=_lazy(pair.image, "image", fetch), mask=_lazy(pair.mask, "mask", fetch))


class Shelf:
    """The decoded blocks of an image and its mask.

    Parameters
    ----------
    pair : ImagePair
    needs : sequence of sequence of Block
        For each part of the work, in the order in which they are done, the blocks that it may read.

    Attributes
    ----------
    pair : ImagePair
        The same image, read through the shelf.
    """

    def __init__(self, pair: ImagePair, needs: Sequence[Sequence[Block]]) -> None:
        self._decode = BlockDecoder(pair)
        self._needs = needs
        self._uses: dict[Block, list[int]] = {}
        for number, blocks in enumerate(needs):
            for block in blocks:
                self._uses.setdefault(block, []).append(number)
        self._now = 0
        self._kept: dict[Block, Pixels] = {}
        self.pair = through(pair, self.fetch)

    def fetch(self, block: Block) -> Pixels:
        if block not in self._kept:
            pixels = self._decode(block)
            while self._kept and sum(map(_size, self._kept.values())) + _size(pixels) > KEPT_BYTES_DECODED:
                del self._kept[max(self._kept, key=self._next_use)]
            self._kept[block] = pixels
        return self._kept[block]

    def finish(self, number: int) -> None:
        """Drop what no part behind this one needs."""
        self._now = number + 1
        for block in [block for block in self._kept if self._next_use(block) >= len(self._needs)]:
            del self._kept[block]

    def _next_use(self, block: Block) -> int:
        return next((use for use in self._uses.get(block, ()) if use >= self._now), len(self._needs))


@dataclass(frozen=True, eq=False)
class _Fetched:
    """What dask reads from: parts of single blocks of ``array``."""

    array: da.Array
    kind: Kind
    fetch: FetchBlock

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    @property
    def ndim(self) -> int:
        return int(self.array.ndim)

    def __getitem__(self, part: tuple[slice, ...]) -> NDArray[Any]:
        number, inner = [], []
        for along, sizes in zip(part, self.array.chunks, strict=True):
            ends = np.cumsum(sizes)
            position = int(np.searchsorted(ends, along.start, "right"))
            begin = int(ends[position]) - sizes[position]
            number.append(position)
            inner.append(slice(along.start - begin, along.stop - begin, along.step))
        pixels = self.fetch((self.kind, tuple(number)))
        if isinstance(pixels, DamagedError):
            raise pixels
        return pixels[tuple(inner)]


def _lazy(array: DataArray, kind: Kind, fetch: FetchBlock) -> DataArray:
    data = array.data
    source = _Fetched(data, kind, fetch)
    # The same name: what is known of the array by its name holds for this one too.
    meta = np.empty((0,) * data.ndim, data.dtype)
    return array.copy(data=da.from_array(source, chunks=data.chunks, name=data.name, meta=meta))


def _size(pixels: Pixels) -> int:
    return 0 if isinstance(pixels, DamagedError) else pixels.nbytes
