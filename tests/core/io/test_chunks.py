"""Reading regions of lazy arrays: pixels and number of chunk reads."""

from __future__ import annotations

from collections import Counter

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xarray import DataArray

from svetlana_jupyter.core.io import chunks
from svetlana_jupyter.core.io.chunks import ArrayRegion, read_regions


class CountingArray:
    """Array that counts the reads of each part."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels, self.shape, self.dtype, self.ndim = pixels, pixels.shape, pixels.dtype, pixels.ndim
        self.reads: Counter[str] = Counter()

    def __getitem__(self, part):
        self.reads[str(part)] += 1
        return self.pixels[part]

    def to_lazy(self, chunks: tuple[int, ...], dims: str = "cyx") -> DataArray:
        meta = np.empty((0,) * self.ndim, self.dtype)
        return DataArray(da.from_array(self, chunks=chunks, name=False, meta=meta), dims=list(dims)[-self.ndim :])


def strided_slices(region: ArrayRegion) -> tuple[slice, ...]:
    return (..., *(slice(a, b, region.stride) for a, b in zip(region.low, region.high)))


@settings(max_examples=30)
@given(st.data())
def test_a_region_holds_its_pixels(data):
    pixels = np.arange(2 * 17 * 23).reshape(2, 17, 23)
    chunk_shape = (1, data.draw(st.integers(1, 17)), data.draw(st.integers(1, 23)))
    requested = []
    for _ in range(data.draw(st.integers(1, 4))):
        low = tuple(data.draw(st.integers(0, side - 1)) for side in (17, 23))
        high = tuple(data.draw(st.integers(start + 1, side)) for start, side in zip(low, (17, 23)))
        requested.append(ArrayRegion(low, high, data.draw(st.integers(1, 5))))
    for array in (DataArray(pixels), CountingArray(pixels).to_lazy(chunk_shape)):
        for region, result in zip(requested, read_regions(array, requested), strict=True):
            np.testing.assert_array_equal(result, pixels[strided_slices(region)])
            assert result.shape == (2, *region.shape)


REGIONS = [
    ArrayRegion((0, 0), (12, 12)),
    ArrayRegion((8, 0), (20, 20), 3),
    ArrayRegion((0, 8), (12, 20)),
    ArrayRegion((15, 15), (16, 16)),
]


def test_every_chunk_is_decoded_once_however_many_regions_share_it():
    source = CountingArray(np.arange(400).reshape(1, 20, 20))
    assert len(list(read_regions(source.to_lazy((1, 5, 5)), REGIONS))) == 4
    assert len(source.reads) == 16
    assert set(source.reads.values()) == {1}


@pytest.fixture
def cache_size(monkeypatch):
    """Record the size of the cache in bytes after each use of a chunk."""
    sizes = []
    release = chunks.ChunkCache.release
    monkeypatch.setattr(
        chunks.ChunkCache, "release", lambda self, step: (sizes.append(self.nbytes), release(self, step))
    )
    return sizes


def test_the_cache_stays_within_its_size_limit(monkeypatch, cache_size):
    source = CountingArray(np.arange(400).reshape(1, 20, 20))
    monkeypatch.setattr(chunks, "CACHE_BYTES", 3 * 25 * 8)
    for region, pixels in zip(REGIONS, read_regions(source.to_lazy((1, 5, 5)), REGIONS), strict=True):
        np.testing.assert_array_equal(pixels, source.pixels[strided_slices(region)])
    assert max(cache_size) == chunks.CACHE_BYTES
    assert max(source.reads.values()) > 1


@pytest.mark.parametrize("stride", [1, 7])
def test_a_large_region_keeps_one_chunk_at_a_time(stride, cache_size):
    source = CountingArray(np.arange(400).reshape(1, 20, 20))
    next(read_regions(source.to_lazy((1, 5, 5)), [ArrayRegion((0, 0), (20, 20), stride)]))
    assert max(cache_size) <= 25 * 8


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 9), unique=True), max_size=12), st.integers(1, 5))
def test_a_cache_returns_what_it_decodes_and_ends_empty(needs, room):
    decoded = Counter()

    def decode(key):
        decoded[key] += 1
        return np.full(4, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CACHE_BYTES", room * 32)
        cache = chunks.ChunkCache(decode, needs)
        for step, keys in enumerate(needs):
            for key in keys:
                assert cache.fetch(key)[0] == key
                assert cache.nbytes <= room * 32
            cache.release(step)
    assert cache.nbytes == 0
    if len(decoded) <= room:
        assert set(decoded.values()) <= {1}


def test_the_cache_drops_the_chunk_that_is_needed_last(monkeypatch):
    monkeypatch.setattr(chunks, "CACHE_BYTES", 2 * 8)
    decoded = []
    cache = chunks.ChunkCache(lambda key: (decoded.append(key), np.zeros(1))[1], ["a", "b", "c", "a", "b"])
    for step, key in enumerate("abcab"):
        cache.fetch(key)
        cache.release(step)
    assert decoded == ["a", "b", "c", "b"]
