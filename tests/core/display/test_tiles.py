"""Tile reading: exact pixels, minimal reads and caching."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from svetlana_jupyter.core.display.tiles import TileReader, limit_cache, number_objects, stride_for, tile_cache
from svetlana_jupyter.core.display.viewport import PixelBox
from svetlana_jupyter.core.io.pyramid import PyramidLevel


def counted_lazy(values, chunks, dims):
    """Return a lazy array and a list of the number of pixels of each computed block."""
    computed = []

    def block(part):
        computed.append(part.size)
        return part

    lazy = da.from_array(values, chunks=chunks, name=False).map_blocks(block, meta=np.empty((0,) * values.ndim))
    return xr.DataArray(lazy, dims=dims), computed


@given(st.data())
def test_values_of_a_region_lie_in_their_cells_and_cover_the_requested_box(data):
    shape = data.draw(st.tuples(st.integers(1, 400), st.integers(1, 400)))
    stride = data.draw(st.sampled_from([1, 2, 4, 8]))
    y0, x0 = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    box = PixelBox(y0, x0, data.draw(st.integers(y0 + 1, shape[0])), data.draw(st.integers(x0 + 1, shape[1])))
    pixels = xr.DataArray(np.arange(shape[0] * shape[1]).reshape(shape), dims=("y", "x"))
    region = TileReader(pixels).read(box, stride)
    row, column = np.divmod(region.values, shape[1])
    rows, columns = region.values.shape
    assert (row // stride == region.box.y0 // stride + np.arange(rows)[:, None]).all()
    assert (column // stride == region.box.x0 // stride + np.arange(columns)).all()
    assert region.box.y0 <= box.y0
    assert region.box.y1 > box.y1 - stride
    assert region.box.x0 <= box.x0
    assert region.box.x1 > box.x1 - stride


def test_zoomed_out_the_first_pixel_represents_its_cell_with_and_without_cache():
    pixels = xr.DataArray(np.arange(16 * 16).reshape(16, 16), dims=("y", "x"))
    fresh, cached = TileReader(pixels), TileReader(pixels)
    cached.read(PixelBox(0, 0, 16, 16))
    for reader in (fresh, cached):
        np.testing.assert_array_equal(reader.read(PixelBox(0, 0, 16, 16), stride=4).values, pixels.values[::4, ::4])


def test_only_the_chunks_under_the_screen_are_read():
    image, computed = counted_lazy(np.zeros((1, 4096, 4096), np.uint8), (1, 256, 256), ("c", "y", "x"))
    TileReader(image).read(PixelBox(1000, 1000, 1200, 1300))
    assert sum(computed) <= 9 * 256 * 256


def test_only_the_displayed_plane_is_read():
    mask, computed = counted_lazy(np.zeros((20, 64, 64), np.uint8), (1, 64, 64), ("z", "y", "x"))
    region = TileReader(mask).read(PixelBox(0, 0, 64, 64), plane=3)
    assert region.values.shape == (64, 64)
    assert sum(computed) == 64 * 64


def test_cached_tiles_are_not_read_again():
    image, computed = counted_lazy(np.zeros((1, 1024, 1024), np.uint8), (1, 256, 256), ("c", "y", "x"))
    reader = TileReader(image)
    reader.read(PixelBox(300, 300, 500, 500))
    before = sum(computed)
    assert reader.read(PixelBox(310, 290, 490, 511)).box == PixelBox(310, 290, 490, 511)
    assert sum(computed) == before


def test_zoomed_out_the_number_of_values_fits_the_screen():
    image, _ = counted_lazy(np.zeros((1, 4096, 4096), np.uint8), (1, 1024, 1024), ("c", "y", "x"))
    region = TileReader(image).read(PixelBox(0, 0, 4096, 4096), stride_for(0.1))
    assert region.values.shape == (1, 512, 512)


def test_zooming_out_and_in_again_reads_nothing_twice():
    image, computed = counted_lazy(np.zeros((1, 4096, 4096), np.uint8), (1, 1024, 1024), ("c", "y", "x"))
    reader = TileReader(image)
    reader.read(PixelBox(0, 0, 4096, 4096), 16)
    before = sum(computed)
    for stride in (8, 4, 2, 32):
        reader.read(PixelBox(0, 0, 4096, 4096), stride)
    assert sum(computed) == before


def test_missing_tiles_are_replaced_by_coarser_values_or_zeros():
    values = np.broadcast_to(np.arange(20_000, dtype=np.uint16), (20_000, 20_000))
    reader = TileReader(xr.DataArray(values, dims=("y", "x")), cache=tile_cache(400))
    large = PixelBox(9000, 9000, 14_000, 14_000)
    empty = reader.read(large, 2, allow_missing=True)
    assert empty.missing
    assert not empty.values.any()
    reader.read(PixelBox(0, 0, 20_000, 20_000), 16)
    coarse = reader.read(large, 2, allow_missing=True)
    assert coarse.missing == empty.missing
    assert (coarse.values[0] == (coarse.box.x0 + 2 * np.arange(coarse.values.shape[1])) // 4 * 4).all()
    assert not reader.read(PixelBox(9000, 9000, 9500, 9500), 1, allow_missing=True).missing
    right = reader.read(large, 2)
    assert not right.missing
    assert (right.values[0] == right.box.x0 + 2 * np.arange(right.values.shape[1])).all()


def test_the_cache_stays_within_its_limit_and_does_not_change_the_values():
    values = np.random.default_rng(0).integers(0, 200, (1, 3000, 4000), np.uint8)
    cache = tile_cache(1.5)
    reader = TileReader(xr.DataArray(values, dims=("c", "y", "x")), cache=cache)
    for box, stride in (
        (PixelBox(0, 0, 3000, 4000), 8),
        (PixelBox(0, 0, 2000, 2000), 1),
        (PixelBox(100, 200, 2900, 3800), 4),
    ):
        region = reader.read(box, stride)
        part = values[:, region.box.y0 : region.box.y1 : stride, region.box.x0 : region.box.x1 : stride]
        np.testing.assert_array_equal(region.values, part)
        assert cache.total_weight <= 1.5e6
    limit_cache(cache, 0.1)
    assert cache.total_weight <= 0.1e6


@pytest.mark.parametrize("factors", [(1, 2, 4), (1, 4, 16), (1, 3)])
def test_a_region_is_read_from_the_coarsest_sufficient_level(factors):
    values = np.random.default_rng(0).integers(0, 200, (5, 700, 900), np.uint8)
    arrays_ = [xr.DataArray(values[:, ::f, ::f], dims=("z", "y", "x")) for f in factors]
    image = arrays_[0].expand_dims("c")
    reader = TileReader(image, [PyramidLevel.from_array(array) for array in arrays_])
    for stride in (1, 2, 4, 8):
        used = max(f for f in factors if f <= stride)
        region = reader.read(PixelBox(100, 200, 600, 800), stride, plane=3)
        assert used <= region.stride <= stride
        part = values[3, region.box.y0 : region.box.y1 : region.stride, region.box.x0 : region.box.x1 : region.stride]
        np.testing.assert_array_equal(region.values[0], part)
    read = [level.source for _, level in reader._levels]
    assert [part.shape for part in read] == [array.shape for array in arrays_]


@given(st.integers(40, 90), st.integers(40, 90), st.sampled_from([np.floor, np.ceil, np.round]))
def test_a_level_of_rounded_size_covers_the_whole_image(height, width, rounded):
    levels = [np.full((height, width), 7, np.uint8)]
    for _ in range(3):
        levels.append(np.full([int(rounded(side / 2)) for side in levels[-1].shape], 7, np.uint8))
    arrays_ = [xr.DataArray(level, dims=("y", "x")) for level in levels]
    reader = TileReader(arrays_[0], [PyramidLevel.from_array(array) for array in arrays_])
    for stride in (2, 4, 8):
        region = reader.read(PixelBox(0, 0, height, width), stride)
        assert region.values.shape == (-(-height // stride), -(-width // stride))
        assert (region.values == 7).all()


def test_a_level_with_fewer_planes_is_read_at_the_same_depth():
    fine = xr.DataArray(np.arange(8)[:, None, None] * np.ones((1, 40, 40), int), dims=("z", "y", "x"))
    coarse = fine[::2, ::2, ::2]
    reader = TileReader(fine, [PyramidLevel.from_array(fine), PyramidLevel.from_array(coarse)])
    assert [reader.read(PixelBox(0, 0, 40, 40), 2, plane).values[0, 0] for plane in range(8)] == [
        0,
        0,
        2,
        2,
        4,
        4,
        6,
        6,
    ]


@pytest.mark.parametrize(("scale", "stride"), [(8.0, 1), (1.0, 1), (0.51, 1), (0.5, 2), (0.26, 2), (0.25, 4)])
def test_the_stride_leaves_at_least_one_value_per_device_pixel(scale, stride):
    assert stride_for(scale) == stride
    assert scale * stride <= 1 or stride == 1


@given(
    arrays(np.int64, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([-5, 0, 3, 7, 2**40]))
)
def test_objects_are_numbered_in_ascending_order(labels):
    objects, index = number_objects(labels)
    np.testing.assert_array_equal(objects, np.setdiff1d(labels, [0]))
    np.testing.assert_array_equal(np.concatenate([[0], objects])[index], labels)
