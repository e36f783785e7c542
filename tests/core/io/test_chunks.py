"""Windows hold what they should, and every chunk is decoded once."""

from __future__ import annotations

from collections import Counter

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xarray import DataArray

from svetlana_jupyter.core.io import chunks as windows
from svetlana_jupyter.core.io.chunks import Window, read_regions


class Counting:
    """Pixels that count how often each part of them is read."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels, self.shape, self.dtype, self.ndim = pixels, pixels.shape, pixels.dtype, pixels.ndim
        self.reads: Counter[str] = Counter()

    def __getitem__(self, part):
        self.reads[str(part)] += 1
        return self.pixels[part]

    def lazily(self, chunks: tuple[int, ...]) -> DataArray:
        meta = np.empty((0,) * self.ndim, self.dtype)
        return DataArray(da.from_array(self, chunks=chunks, name=False, meta=meta), dims=["c", "y", "x"][-self.ndim :])


def steps(window: Window) -> tuple[slice, ...]:
    return (..., *(slice(a, b, window.stride) for a, b in zip(window.low, window.high)))


@given(st.data())
def test_a_window_holds_the_pixels_of_its_part(data):
    pixels = np.arange(2 * 17 * 23).reshape(2, 17, 23)
    chunks = (1, data.draw(st.integers(1, 17)), data.draw(st.integers(1, 23)))
    wanted = []
    for _ in range(data.draw(st.integers(1, 4))):
        low = tuple(data.draw(st.integers(0, side - 1)) for side in (17, 23))
        high = tuple(data.draw(st.integers(start + 1, side)) for start, side in zip(low, (17, 23)))
        wanted.append(Window(low, high, data.draw(st.integers(1, 5))))
    for array in (DataArray(pixels), Counting(pixels).lazily(chunks)):
        for window, found in zip(wanted, read_regions(array, wanted), strict=True):
            np.testing.assert_array_equal(found, pixels[steps(window)])
            assert found.shape == (2, *window.shape)


WANTED = [Window((0, 0), (12, 12)), Window((8, 0), (20, 20), 3), Window((0, 8), (12, 20)), Window((15, 15), (16, 16))]


def test_every_chunk_is_decoded_once_however_many_windows_share_it():
    source = Counting(np.arange(400).reshape(1, 20, 20))
    assert len(list(read_regions(source.lazily((1, 5, 5)), WANTED))) == 4
    assert len(source.reads) == 16 and set(source.reads.values()) == {1}


def test_what_is_kept_stays_within_its_bound(monkeypatch):
    source = Counting(np.arange(400).reshape(1, 20, 20))
    monkeypatch.setattr(windows, "KEPT_BYTES", 3 * 25 * 8)
    kept = []
    release = windows._Chunks.release
    monkeypatch.setattr(
        windows._Chunks, "release", lambda self, *a: (kept.append(len(self._kept)), release(self, *a))[1]
    )
    for window, found in zip(WANTED, read_regions(source.lazily((1, 5, 5)), WANTED), strict=True):
        np.testing.assert_array_equal(found, source.pixels[steps(window)])
    assert max(kept) <= 3 and max(source.reads.values()) > 1


@pytest.mark.parametrize("stride", [1, 7])
def test_a_large_window_keeps_one_chunk_at_a_time(stride, monkeypatch):
    source = Counting(np.arange(400).reshape(1, 20, 20))
    kept = []
    release = windows._Chunks.release
    monkeypatch.setattr(
        windows._Chunks, "release", lambda self, *a: (kept.append(len(self._kept)), release(self, *a))[1]
    )
    next(read_regions(source.lazily((1, 5, 5)), [Window((0, 0), (20, 20), stride)]))
    assert set(kept) == {1}
