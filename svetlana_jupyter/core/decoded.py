"""Pixels decoded block by block: each block once, kept until the last part of the work that needs it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import dask
import dask.array as da
import numpy as np
from dask.optimization import cull
from numpy.typing import NDArray
from xarray import DataArray

from svetlana_jupyter.core.windows import Window, blocks_overlapping
from svetlana_jupyter.errors import DamagedError

if TYPE_CHECKING:
    from svetlana_jupyter.core.pairing import ImagePair

KEPT_BYTES = 384 * 2**20  # of decoded blocks of an image and its mask; beyond this the one needed last is read again

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
            while self._kept and sum(map(_size, self._kept.values())) + _size(pixels) > KEPT_BYTES:
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
