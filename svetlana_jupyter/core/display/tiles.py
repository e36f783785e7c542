"""Reading of lazy images for the screen: the visible region only, from the level that fits, and kept.

Contract: what is read and kept is bounded, never by the image. An image without a pyramid gets its levels on the fly:
its blocks must be decoded whole, so somewhat more is kept of them than the screen can show at the moment, and coarser
views are taken from that.

What was read for the screen and is kept: tiles of decoded pixels, the latest used, within a bound of memory.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray import DataArray

from svetlana_jupyter.core.display.viewport import PixelBox
from svetlana_jupyter.core.io.pyramid import PyramidLevel, pyramid

MEMORY_MB = 256


class TileCache:
    """Tiles by key; those not used for longest are dropped when they take more than the bound.

    Tiles are stored by background threads and read by the one that draws.

    Parameters
    ----------
    limit_mb : float
        In megabytes (10**6 bytes).
    """

    def __init__(self, limit_mb: float = MEMORY_MB) -> None:
        self._tiles: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._limit = limit_mb
        self.bytes = 0

    @property
    def limit_mb(self) -> float:
        """The bound; lowering it drops tiles at once."""
        return self._limit

    @limit_mb.setter
    def limit_mb(self, limit_mb: float) -> None:
        with self._lock:
            self._limit = limit_mb
            self._shrink()

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._tiles

    def get(self, key: Hashable) -> NDArray[Any] | None:
        """Return a tile, which from now on is the last used; None if it is not kept."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def keep(self, key: Hashable, tile: NDArray[Any]) -> None:
        """Keep a tile, which must own its pixels."""
        with self._lock:
            known = self._tiles.pop(key, None)
            self.bytes += tile.nbytes - (known.nbytes if known is not None else 0)
            self._tiles[key] = tile
            self._shrink()

    def _shrink(self) -> None:
        while self.bytes > self._limit * 10**6 and self._tiles:
            _, dropped = self._tiles.popitem(last=False)
            self.bytes -= dropped.nbytes


_TILE = 256  # values a side
_PIECE = 4096  # pixels a side of what is decoded at once in the background
_OVERVIEW = 4  # a whole plane is kept as finely as fits into this part of the memory
_SLOW = 1 << 22  # values: decoding more takes long enough that a coarse view is welcome meanwhile


@dataclass(frozen=True)
class TileGroup:
    """Neighbouring tiles of one plane that are not there yet, and are decoded together.

    Attributes
    ----------
    reader : Reader
    plane : int
    stride : int
        Of the values that are kept.
    y0, x0, y1, x1 : int
        Half-open, counted in tiles.
    """

    reader: TileReader
    plane: int
    stride: int
    y0: int
    x0: int
    y1: int
    x1: int

    def load(self) -> None:
        """Read and keep the tiles; may be called on any thread."""
        self.reader.load(self)


@dataclass(frozen=True, eq=False)
class PlaneRegion:
    """Pixels of one plane, every ``stride``-th in each direction.

    Attributes
    ----------
    values : array of shape (C, h, w) for an image, (h, w) for a mask
        Each is the first pixel of a cell of ``stride`` x ``stride`` pixels and stands for it.
    box : Box
        The image pixels that the cells cover; the last ones may be cut off by the image's border.
    stride : int
    missing : tuple of Piece
        What is not read yet: coarser values stand there, or zeros.
    """

    values: NDArray[Any]
    box: PixelBox
    stride: int
    missing: tuple[TileGroup, ...] = ()

    @cached_property
    def objects(self) -> NDArray[np.int64]:
        """The labels in a region of a mask, ascending, shape (n,); the background is not among them."""
        return self._numbered[0]

    @cached_property
    def index(self) -> NDArray[np.int32]:
        """For each pixel of a mask, shape (h, w): 0 on the background, else 1 + the position in ``objects``."""
        return self._numbered[1]

    @cached_property
    def _numbered(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        # Labels hardly change along a row, so only the first pixel of each run is sorted: 20 times less work.
        flat = self.values.ravel()
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]])) if flat.size else np.empty(0, np.intp)
        labels, number = np.unique(flat[starts], return_inverse=True)
        background = int(np.searchsorted(labels, 0))
        if background < len(labels) and labels[background] == 0:
            labels = np.delete(labels, background)
            number = np.where(number == background, 0, number + (number < background))
        else:
            number = number + 1
        index = np.repeat(number.astype(np.int32), np.diff(np.append(starts, flat.size)))
        return labels.astype(np.int64), index.reshape(self.values.shape)


def stride_for(device_scale: float) -> int:
    """Return the largest power of two that still leaves at least one value a device pixel.

    >>> [stride_for(scale) for scale in (3.0, 1.0, 0.4, 0.25, 0.01)]
    [1, 1, 2, 4, 64]
    """
    return 1 << max(0, math.floor(math.log2(1 / device_scale)))


class TileReader:
    """Reads regions of one image or mask and keeps what may be shown again.

    Parameters
    ----------
    array : DataArray of shape ((C), (Z), Y, X)
        Lazy is fine.
    levels : sequence of Level, optional
        The resolutions that can be read, the finest first.
    cache : TileCache, optional
        Shared among the images of a viewer.
    """

    def __init__(self, array: DataArray, levels: Sequence[PyramidLevel] = (), cache: TileCache | None = None) -> None:
        self.array = array
        self.shape: tuple[int, int] = (array.sizes["y"], array.sizes["x"])
        self.channels: int | None = array.sizes.get("c")
        self._levels = pyramid(levels or (PyramidLevel.from_array(array),))
        self._depth = array.sizes.get("z", 1)
        self._cache = TileCache() if cache is None else cache

    def read(self, box: PixelBox, stride: int = 1, plane: int = 0, allow_missing: bool = False) -> PlaneRegion:
        """Return the region of ``box``, widened to whole cells.

        Parameters
        ----------
        box : Box
        stride : int
            The largest that will do, a power of two.
        plane : int
        quick : bool
            What would take long to read may be missing: coarser values stand there if some are kept, else zeros.
        """
        kept = self._kept_stride(stride)
        step = 1 << int(math.log2(stride // kept))
        missing = self._missing(box, kept, plane)
        found: dict[tuple[int, int], NDArray[Any]] = {}
        if not (allow_missing and self._is_slow(missing)):
            for piece in missing:
                found |= self.load(piece)
            missing = ()
        return self._assembled(box, kept, step, plane, found, missing)

    def factor(self, stride: int) -> int:
        """Return how many rows and columns a pixel stands for in the level that serves this stride."""
        return self._level(stride)[0]

    def is_fast(self, box: PixelBox, stride: int = 1, plane: int = 0) -> bool:
        """Whether `read` with these arguments would take no long time."""
        return not self._is_slow(self.missing(box, stride, plane))

    def missing(self, box: PixelBox, stride: int = 1, plane: int = 0) -> tuple[TileGroup, ...]:
        """Return what `read` would have to decode."""
        return self._missing(box, self._kept_stride(stride), plane)

    def load(self, piece: TileGroup) -> dict[tuple[int, int], NDArray[Any]]:
        """Read the tiles of a piece, keep them, and return them by row and column of the grid of tiles."""
        side = _TILE * piece.stride
        box = self._within(PixelBox(piece.y0 * side, piece.x0 * side, piece.y1 * side, piece.x1 * side))
        values = self._compute(box, piece.stride, piece.plane)
        tiles = {}
        for y in range(piece.y0, piece.y1):
            for x in range(piece.x0, piece.x1):
                top, left = (y - piece.y0) * _TILE, (x - piece.x0) * _TILE
                tile = values[..., top : top + _TILE, left : left + _TILE].copy()
                tiles[y, x] = tile
                self._cache.keep((self, piece.plane, piece.stride, y, x), tile)
        return tiles

    def _kept_stride(self, stride: int) -> int:
        """Return the stride of the tiles that values of this stride are taken from."""
        kept = self._level(stride)[0]
        item = self.array.dtype.itemsize * (self.channels or 1)
        most = self._cache.limit_mb * 10**6 / _OVERVIEW / item
        while kept * 2 <= stride and self.shape[0] * self.shape[1] / kept**2 > most:
            kept *= 2
        return kept

    def _level(self, stride: int) -> tuple[int, PyramidLevel]:
        """Return the coarsest level that is fine enough, and its factor."""
        return max((entry for entry in self._levels if entry[0] <= stride), key=lambda entry: entry[0])

    def _missing(self, box: PixelBox, kept: int, plane: int) -> tuple[TileGroup, ...]:
        """Return the pieces that hold the tiles under a box that are not kept."""
        group = max(1, _PIECE // (_TILE * kept))
        pieces: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        for y, x in _tiles(box, kept):
            if (self, plane, kept, y, x) not in self._cache:
                y0, x0, y1, x1 = pieces.get((y // group, x // group), (y, x, y + 1, x + 1))
                pieces[y // group, x // group] = min(y0, y), min(x0, x), max(y1, y + 1), max(x1, x + 1)
        return tuple(TileGroup(self, plane, kept, *extent) for extent in pieces.values())

    def _is_slow(self, pieces: Sequence[TileGroup]) -> bool:
        """Whether there is much to decode."""
        tiles = sum((piece.y1 - piece.y0) * (piece.x1 - piece.x0) for piece in pieces)
        side = _TILE * pieces[0].stride // self._level(pieces[0].stride)[0] if pieces else 0
        least = min(side**2, self.shape[0] * self.shape[1])  # of an image that is smaller than a tile
        return tiles * least * (self.channels or 1) > _SLOW

    def _assembled(
        self,
        box: PixelBox,
        kept: int,
        step: int,
        plane: int,
        found: dict[tuple[int, int], NDArray[Any]],
        missing: tuple[TileGroup, ...],
    ) -> PlaneRegion:
        stride = kept * step
        whole = self._within(_snapped(box, stride))
        leading = () if self.channels is None else (self.channels,)
        values = np.zeros((*leading, -(-whole.height // stride), -(-whole.width // stride)), self.array.dtype)
        for y, x in _tiles(whole, kept):
            tile = found.get((y, x))
            if tile is None:
                tile = self._cache.get((self, plane, kept, y, x))
            if tile is None:
                tile = self._coarser(kept, plane, y, x)
            if tile is not None:
                _lay(tile, y * _TILE // step - whole.y0 // stride, x * _TILE // step - whole.x0 // stride, step, values)
        return PlaneRegion(values, whole, stride, missing)

    def _coarser(self, kept: int, plane: int, y: int, x: int) -> NDArray[Any] | None:
        """Return a tile made of kept values of a larger stride, None if there are none."""
        factor = 2
        while kept * factor * _TILE < 2 * max(self.shape):
            coarse = self._cache.get((self, plane, kept * factor, y // factor, x // factor))
            if coarse is not None and factor <= _TILE:
                side = _TILE // factor
                top, left = y % factor * side, x % factor * side
                part = coarse[..., top : top + side, left : left + side]
                return part.repeat(factor, axis=-2).repeat(factor, axis=-1)
            factor *= 2
        return None

    def _compute(self, box: PixelBox, stride: int, plane: int) -> NDArray[Any]:
        factor, level = self._level(stride)
        step = stride // factor
        rows = slice(box.y0 // factor, -(-box.y1 // factor), step)
        columns = slice(box.x0 // factor, -(-box.x1 // factor), step)
        depth = level.sizes.get("z", 1)
        values = level.read(rows, columns, min(plane * depth // self._depth, depth - 1))
        if self.channels is not None and values.ndim == 2:
            values = values[None]
        # A level may have been rounded down by its writer: its last pixels then stand for what lies beyond, too.
        short = -(-box.height // stride) - values.shape[-2], -(-box.width // stride) - values.shape[-1]
        if max(short) > 0:
            around = [(0, 0)] * (values.ndim - 2) + [(0, max(0, n)) for n in short]
            values = np.pad(values, around, "edge" if values.size else "empty")
        return values

    def _within(self, box: PixelBox) -> PixelBox:
        return PixelBox(box.y0, box.x0, min(box.y1, self.shape[0]), min(box.x1, self.shape[1]))


def _tiles(box: PixelBox, kept: int) -> Iterator[tuple[int, int]]:
    """Yield row and column of every tile under a box."""
    side = _TILE * kept
    for y in range(box.y0 // side, -(-box.y1 // side)):
        for x in range(box.x0 // side, -(-box.x1 // side)):
            yield y, x


def _lay(tile: NDArray[Any], top: int, left: int, step: int, values: NDArray[Any]) -> None:
    """Copy every ``step``-th value of a tile to where it belongs, as far as that is inside."""
    thin = tile[..., max(0, -top) * step :: step, max(0, -left) * step :: step]
    target = values[..., max(0, top) :, max(0, left) :]
    rows, columns = min(thin.shape[-2], target.shape[-2]), min(thin.shape[-1], target.shape[-1])
    target[..., :rows, :columns] = thin[..., :rows, :columns]


def _snapped(box: PixelBox, stride: int) -> PixelBox:
    """Widen a box to whole cells."""
    return PixelBox(
        box.y0 // stride * stride,
        box.x0 // stride * stride,
        -(-box.y1 // stride) * stride,
        -(-box.x1 // stride) * stride,
    )
