"""Tile reading for the screen: the visible region only, from the pyramid level that fits, cached in memory.

What is read and cached is bounded, whatever the size of the image. An image without a pyramid gets coarse levels on
the fly: its blocks must be decoded whole anyway, so somewhat more of them is cached than the screen can show, and
coarser views are taken from the cache.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from zict import LRU

from svetlana_jupyter.core.display.viewport import PixelBox
from svetlana_jupyter.core.io.pyramid import PyramidLevel, pyramid

if TYPE_CHECKING:
    from xarray import DataArray

MEMORY_MB = 256

_TILE = 256  # values per side
_GROUP = 4096  # pixels per side of what is decoded at once in the background
_OVERVIEW = 4  # a whole plane is cached at the finest resolution that fits into this fraction of the memory
_SLOW = 1 << 22  # values; decoding more takes so long that a coarse view is welcome meanwhile

TileCache = LRU[Hashable, NDArray[Any]]


def tile_cache(limit_mb: float = MEMORY_MB) -> TileCache:
    """Return a cache of decoded tiles that drops the least recently used beyond ``limit_mb`` megabytes (10**6 bytes).

    It is thread-safe: background threads store tiles while the screen reads them. A lookup takes about
    2 µs, of the 0.23 ms in which 900 x 1200 cached pixels are read.
    """
    return LRU(limit_mb * 10**6, {}, weight=lambda _, tile: tile.nbytes)


def limit_cache(cache: TileCache, limit_mb: float) -> None:
    """Change the memory limit of a tile cache; a lower limit drops tiles at once."""
    cache.n = limit_mb * 10**6
    cache.evict_until_below_target()


@dataclass(frozen=True)
class TileGroup:
    """Neighboring tiles of one plane that are not cached yet, and are decoded together.

    Attributes
    ----------
    reader : TileReader
    plane : int
    stride : int
        Stride of the cached values.
    y0, x0, y1, x1 : int
        Half-open range, counted in tiles.
    """

    reader: TileReader
    plane: int
    stride: int
    y0: int
    x0: int
    y1: int
    x1: int

    def load(self) -> None:
        """Read and cache the tiles, on any thread."""
        self.reader.load(self)


@dataclass(frozen=True, eq=False)
class PlaneRegion:
    """Pixels of one plane, every ``stride``-th in each direction.

    Attributes
    ----------
    values : array of shape (C, h, w) for an image, (h, w) for a mask
        Each is the first pixel of a cell of ``stride`` x ``stride`` pixels and represents it.
    box : PixelBox
        Image pixels that the cells cover; the last cells may be cut off by the image border.
    stride : int
    missing : tuple of TileGroup
        Tiles not read yet: coarser values stand in for them, or zeros.
    """

    values: NDArray[Any]
    box: PixelBox
    stride: int
    missing: tuple[TileGroup, ...] = ()

    @property
    def objects(self) -> NDArray[np.int64]:
        """Labels in a region of a mask, ascending, shape (n,); without the background."""
        return self._numbered[0]

    @property
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
    """Return the largest power of two that leaves at least one value per device pixel.

    >>> [stride_for(scale) for scale in (3.0, 1.0, 0.4, 0.25, 0.01)]
    [1, 1, 2, 4, 64]
    """
    return 1 << max(0, math.floor(math.log2(1 / device_scale)))


class TileReader:
    """Reader of regions of one image or mask that caches what may be shown again.

    Parameters
    ----------
    array : DataArray of shape ([C,] [Z,] Y, X)
        May be lazy.
    levels : sequence of PyramidLevel, optional
        Available resolutions, the finest first.
    cache : TileCache, optional
        Shared among the images of a viewer.
    """

    def __init__(self, array: DataArray, levels: Sequence[PyramidLevel] = (), cache: TileCache | None = None) -> None:
        self.array = array
        self.shape: tuple[int, int] = (array.sizes["y"], array.sizes["x"])
        self.channels: int | None = array.sizes.get("c")
        self._levels = pyramid(levels or (PyramidLevel.from_array(array),))
        self._depth = array.sizes.get("z", 1)
        self._cache = tile_cache() if cache is None else cache

    def read(self, box: PixelBox, stride: int = 1, plane: int = 0, allow_missing: bool = False) -> PlaneRegion:
        """Return the region of ``box``, widened to whole cells.

        Parameters
        ----------
        box : PixelBox
        stride : int
            Coarsest stride that is fine enough, a power of two.
        plane : int
        allow_missing : bool
            Do not read tiles that take long: use coarser cached values instead, else zeros.
        """
        cached_stride = self._cached_stride(stride)
        step = 1 << int(math.log2(stride // cached_stride))
        missing = self._missing(box, cached_stride, plane)
        loaded: dict[tuple[int, int], NDArray[Any]] = {}
        if not (allow_missing and self._is_slow(missing)):
            for group in missing:
                loaded |= self.load(group)
            missing = ()

        whole = self._clip(_snap(box, cached_stride * step))
        height, width = (-(-side // (cached_stride * step)) for side in (whole.height, whole.width))
        values = np.zeros((*(() if self.channels is None else (self.channels,)), height, width), self.array.dtype)
        top, left = whole.y0 // (cached_stride * step), whole.x0 // (cached_stride * step)
        for y, x in _tiles_under(whole, cached_stride):
            # Tiles just loaded are used directly: a small cache may have dropped them again.
            tile = loaded.get((y, x))
            if tile is None:
                tile = self._cache.get((self, plane, cached_stride, y, x))
            if tile is None:
                tile = self._coarser_tile(cached_stride, plane, y, x)
            if tile is not None:
                _paste(tile, y * _TILE // step - top, x * _TILE // step - left, step, values)
        return PlaneRegion(values, whole, cached_stride * step, missing)

    def factor(self, stride: int) -> int:
        """Return the downsampling factor of the pyramid level that serves this stride."""
        return self._level(stride)[0]

    def is_fast(self, box: PixelBox, stride: int = 1, plane: int = 0) -> bool:
        """Return whether `read` with these arguments is fast."""
        return not self._is_slow(self.missing(box, stride, plane))

    def missing(self, box: PixelBox, stride: int = 1, plane: int = 0) -> tuple[TileGroup, ...]:
        """Return the tiles that `read` would have to decode."""
        return self._missing(box, self._cached_stride(stride), plane)

    def load(self, group: TileGroup) -> dict[tuple[int, int], NDArray[Any]]:
        """Read and cache the tiles of a group, and return them by row and column in the grid of tiles."""
        side = _TILE * group.stride
        box = self._clip(PixelBox(group.y0 * side, group.x0 * side, group.y1 * side, group.x1 * side))
        values = self._decode(box, group.stride, group.plane)
        tiles = {}
        for y in range(group.y0, group.y1):
            for x in range(group.x0, group.x1):
                top, left = (y - group.y0) * _TILE, (x - group.x0) * _TILE
                # A copy, since a view would keep the whole group in memory.
                tile = values[..., top : top + _TILE, left : left + _TILE].copy()
                tiles[y, x] = tile
                self._cache[self, group.plane, group.stride, y, x] = tile
        return tiles

    def _cached_stride(self, stride: int) -> int:
        """Return the stride of the cached tiles from which values of this stride are taken."""
        cached = self.factor(stride)
        item = self.array.dtype.itemsize * (self.channels or 1)
        max_values = self._cache.n / _OVERVIEW / item
        while cached * 2 <= stride and self.shape[0] * self.shape[1] / cached**2 > max_values:
            cached *= 2
        return cached

    def _level(self, stride: int) -> tuple[int, PyramidLevel]:
        """Return the coarsest level that is fine enough, and its factor."""
        return max((entry for entry in self._levels if entry[0] <= stride), key=lambda entry: entry[0])

    def _missing(self, box: PixelBox, cached_stride: int, plane: int) -> tuple[TileGroup, ...]:
        """Return the tiles under a box that are not cached, in groups."""
        per_group = max(1, _GROUP // (_TILE * cached_stride))
        groups: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        for y, x in _tiles_under(box, cached_stride):
            if (self, plane, cached_stride, y, x) not in self._cache:
                at = y // per_group, x // per_group
                y0, x0, y1, x1 = groups.get(at, (y, x, y + 1, x + 1))
                groups[at] = min(y0, y), min(x0, x), max(y1, y + 1), max(x1, x + 1)
        return tuple(TileGroup(self, plane, cached_stride, *extent) for extent in groups.values())

    def _is_slow(self, groups: Sequence[TileGroup]) -> bool:
        """Return whether decoding these tiles takes noticeably long."""
        tiles = sum((group.y1 - group.y0) * (group.x1 - group.x0) for group in groups)
        side = _TILE * groups[0].stride // self.factor(groups[0].stride) if groups else 0
        tile_values = min(side**2, self.shape[0] * self.shape[1])  # the image may be smaller than a tile
        return tiles * tile_values * (self.channels or 1) > _SLOW

    def _coarser_tile(self, stride: int, plane: int, y: int, x: int) -> NDArray[Any] | None:
        """Return a tile enlarged from cached values of a larger stride, None if there are none."""
        factor = 2
        while stride * factor * _TILE < 2 * max(self.shape):
            coarse = self._cache.get((self, plane, stride * factor, y // factor, x // factor))
            if coarse is not None and factor <= _TILE:
                side = _TILE // factor
                top, left = y % factor * side, x % factor * side
                part = coarse[..., top : top + side, left : left + side]
                return part.repeat(factor, axis=-2).repeat(factor, axis=-1)
            factor *= 2
        return None

    def _decode(self, box: PixelBox, stride: int, plane: int) -> NDArray[Any]:
        factor, level = self._level(stride)
        step = stride // factor
        rows = slice(box.y0 // factor, -(-box.y1 // factor), step)
        columns = slice(box.x0 // factor, -(-box.x1 // factor), step)
        depth = level.sizes.get("z", 1)
        values = level.read(rows, columns, min(plane * depth // self._depth, depth - 1))
        if self.channels is not None and values.ndim == 2:
            values = values[None]
        # A writer may have rounded the size of a level down: its last pixels then represent those beyond, too.
        short = -(-box.height // stride) - values.shape[-2], -(-box.width // stride) - values.shape[-1]
        if max(short) > 0:
            padding = [(0, 0)] * (values.ndim - 2) + [(0, max(0, n)) for n in short]
            values = np.pad(values, padding, "edge" if values.size else "empty")
        return values

    def _clip(self, box: PixelBox) -> PixelBox:
        return PixelBox(box.y0, box.x0, min(box.y1, self.shape[0]), min(box.x1, self.shape[1]))


def _tiles_under(box: PixelBox, stride: int) -> Iterator[tuple[int, int]]:
    """Yield row and column of every tile under a box."""
    side = _TILE * stride
    for y in range(box.y0 // side, -(-box.y1 // side)):
        for x in range(box.x0 // side, -(-box.x1 // side)):
            yield y, x


def _paste(tile: NDArray[Any], top: int, left: int, step: int, values: NDArray[Any]) -> None:
    """Copy every ``step``-th value of a tile to its position in ``values``, clipped to its shape."""
    thin = tile[..., max(0, -top) * step :: step, max(0, -left) * step :: step]
    target = values[..., max(0, top) :, max(0, left) :]
    rows, columns = min(thin.shape[-2], target.shape[-2]), min(thin.shape[-1], target.shape[-1])
    target[..., :rows, :columns] = thin[..., :rows, :columns]


def _snap(box: PixelBox, stride: int) -> PixelBox:
    """Widen a box to whole cells."""
    low_y, low_x = (start // stride * stride for start in (box.y0, box.x0))
    high_y, high_x = (-(-stop // stride) * stride for stop in (box.y1, box.x1))
    return PixelBox(low_y, low_x, high_y, high_x)
