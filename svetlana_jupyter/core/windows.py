"""Reading many windows of one lazy array, each of its chunks once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from xarray import DataArray

from svetlana_jupyter.core.blocks import index_last_axes

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
