"""Thumbnails, orthogonal views and gallery pages."""

from __future__ import annotations

import itertools
from collections import Counter

import dask.array as da
import numpy as np
import pytest
import tifffile
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from xarray import DataArray

from svetlana_jupyter.core.display.channels import ChannelDisplay, DisplaySettings
from svetlana_jupyter.core.display.thumbnails import (
    SIDES,
    GridLayout,
    Thumbnail,
    ThumbnailSampling,
    draw_thumbnail_grid,
    take_orthoviews,
    take_thumbnails,
)
from svetlana_jupyter.core.io.image_pair import ImagePair, open_pair
from svetlana_jupyter.core.objects import index_objects
from tests.core.display.test_tiles import counted_lazy

GRAY = DisplaySettings((ChannelDisplay("gray", "#ffffff", (0, 255)),))
GRID = GridLayout((200, 240), columns=3)
GRIDS = st.builds(
    GridLayout, st.tuples(st.integers(120, 900), st.integers(200, 1200)), st.integers(1, 15), st.integers(0, 9)
)


def thumbnail(value, side=20, own=None, inside=None):
    inside = inside or (slice(0, side), slice(0, side))
    values = np.zeros((1, side, side), np.uint8)
    values[0][inside] = value
    return Thumbnail(values, np.zeros((side, side), bool) if own is None else own, inside)


def gray(*thumbnails):
    return [(first, GRAY) for first in thumbnails]


def cell(pixels, grid, number, dpr=1.0):
    top, left = (round(at * dpr) for at in grid.corner(number))
    side = round(grid.side * dpr)
    return pixels[top : top + side, left : left + side]


@given(GRIDS)
def test_cells_fit_on_the_screen_without_touching(grid):
    corners = [grid.corner(number) for number in range(grid.columns)]
    assert corners[0][1] >= grid.gap
    assert all(b[1] - a[1] == grid.side + grid.gap for a, b in itertools.pairwise(corners))
    assert corners[-1][1] + grid.side + grid.gap <= grid.size[1]
    bottom = grid.corner(grid.count - 1)[0] + grid.side + grid.line
    assert bottom <= grid.size[0] or grid.rows == 1


@given(GRIDS, st.data())
def test_every_point_of_a_thumbnail_belongs_to_its_cell(grid, data):
    number = data.draw(st.integers(0, grid.count - 1))
    top, left = grid.corner(number)
    down, right = (data.draw(st.floats(0, grid.side, exclude_max=True)) for _ in "yx")
    assert grid.cell_at(top + down, left + right) == number


def test_points_outside_all_cells_belong_to_none():
    assert GRID.cell_at(-5, 20) == GRID.cell_at(20, -5) == GRID.cell_at(20, 239.9) == GRID.cell_at(199, 20) == -1


@pytest.mark.parametrize("dpr", [1.0, 1.5, 2.0])
def test_each_thumbnail_fills_its_cell_in_device_pixels(dpr):
    pixels, boxes = draw_thumbnail_grid(gray(thumbnail(10), thumbnail(90), thumbnail(50)), GRID, dpr)
    assert pixels.shape == (round(200 * dpr), round(240 * dpr), 3)
    for number, value in enumerate((10, 90, 50)):
        assert (cell(pixels, GRID, number, dpr) == value).all()
    side = round(GRID.side * dpr)
    assert boxes.tolist() == [[*(round(at * dpr) for at in GRID.corner(number)), side, side] for number in range(3)]


def test_only_the_part_of_a_thumbnail_on_the_image_is_shown_without_a_blurred_border():
    partly_outside = thumbnail(250, inside=(slice(10, 20), slice(0, 20)))
    pixels, boxes = draw_thumbnail_grid(gray(partly_outside), GRID, outlines=False)
    top, left = GRID.corner(0)
    upper = round(GRID.side / 2)
    assert boxes.tolist() == [[top + upper, left, GRID.side - upper, GRID.side]]
    assert (cell(pixels, GRID, 0)[upper:] == 250).all()


def test_each_thumbnail_has_its_own_contrast():
    narrow = DisplaySettings((ChannelDisplay("gray", "#ffffff", (0, 100)),))
    pixels, _ = draw_thumbnail_grid([(thumbnail(60), GRAY), (thumbnail(60), narrow)], GRID)
    assert cell(pixels, GRID, 0)[5, 5, 0] == 60
    assert cell(pixels, GRID, 1)[5, 5, 0] == 153


def test_the_outline_lies_only_on_the_border_of_the_object():
    own = np.zeros((20, 20), bool)
    own[5:15, 5:15] = True
    plain, _ = draw_thumbnail_grid(gray(thumbnail(30, own=own)), GRID, outlines=False)
    drawn, _ = draw_thumbnail_grid(gray(thumbnail(30, own=own)), GRID)
    changed = (cell(drawn, GRID, 0) != cell(plain, GRID, 0)).any(axis=2)
    rows = np.flatnonzero(changed.any(axis=1))
    quarter = GRID.side / 4
    assert (rows[0], rows[-1]) == (pytest.approx(quarter, abs=1.5), pytest.approx(3 * quarter, abs=1.5))
    assert not changed[GRID.side // 2 - 3 : GRID.side // 2 + 3, GRID.side // 2 - 3 : GRID.side // 2 + 3].any()
    assert (cell(drawn, GRID, 0)[changed] > 30).all(), "the line is bright on a dark thumbnail"


def test_a_missing_thumbnail_leaves_its_cell_empty():
    pixels, boxes = draw_thumbnail_grid([None, (thumbnail(50), GRAY)], GRID)
    assert boxes[:, :2].tolist() == [list(GRID.corner(1))]
    assert (cell(pixels, GRID, 1) == 50).all()


def test_a_page_without_objects_is_empty():
    assert draw_thumbnail_grid([], GRID)[1].shape == (0, 4)


SHAPE = (80, 90, 100)


def volume(low, high, shape=SHAPE):
    """Return a volume of distinct voxels, its mask, and the table row of the first object."""
    mask = np.zeros(shape, np.uint16)
    mask[tuple(map(slice, low, high))] = 7
    image = np.arange(1, mask.size + 1).reshape(1, *shape)
    labels = xr.DataArray(mask, dims=("z", "y", "x"))
    return xr.DataArray(image, dims=("c", "z", "y", "x")), labels, index_objects(labels).loc[7]


def test_orthoviews_go_through_the_centroid_of_the_object():
    image, mask, row = volume((38, 40, 50), (43, 49, 61))
    sections = take_orthoviews(image, mask, 7, row, None)
    assert tuple(sections) == SIDES
    z, y, x = 40, 44, 55
    values = image.values[0]
    for side, voxel in (("xy", values[z, y, x]), ("xz", values[z, y, x]), ("zy", values[z, y, x])):
        rows, columns = sections[side].own.shape
        assert sections[side].values[0, rows // 2, columns // 2] == voxel
        assert sections[side].own[rows // 2, columns // 2]
    assert [int(sections[side].own.sum()) for side in ("xy", "xz", "zy")] == [9 * 11, 5 * 11, 9 * 5]
    assert sections["xz"].values[0, 0].max() < sections["xz"].values[0, -1].min(), "planes go downwards"
    assert sections["zy"].values[0, :, 0].max() < sections["zy"].values[0, :, -1].min(), "planes go to the right"


def test_a_projection_shows_the_brightest_voxel_and_the_whole_object():
    image, mask, row = volume((5, 40, 50), (9, 49, 61))
    image[0, 25, 44, 55] = 10**9
    section = take_orthoviews(image, mask, 7, row, None)["maximum"]
    rows, columns = section.own.shape
    assert section.values[0, rows // 2, columns // 2] == 10**9
    assert section.own.sum() == 9 * 11


def test_orthoviews_are_empty_beyond_the_volume():
    image, mask, row = volume((0, 0, 0), (3, 9, 11))
    for section in take_orthoviews(image, mask, 7, row, None).values():
        assert section.own.any()
    assert take_orthoviews(image, mask, 7, row, None)["xy"].values[0, 0].max() == 0


@pytest.mark.parametrize("spacing", [(2.0, 0.5, 0.5), (1.0, 1.0, 1.0), (0.5, 1.0, 1.0)])
def test_orthoviews_respect_the_distance_between_planes(spacing):
    image, mask, row = volume((15, 40, 50), (20, 49, 61))
    sections = take_orthoviews(image, mask, 7, row, spacing)
    for section in sections.values():
        assert section.size[0] == pytest.approx(section.size[1], rel=0.15)
    planes, columns = sections["xz"].own.shape
    assert columns / planes == pytest.approx(spacing[0] / spacing[2], rel=0.2)


def test_only_the_neighborhood_of_the_object_is_read_from_a_huge_volume():
    lazy, computed = counted_lazy(np.zeros((1, 64, 512, 512), np.uint8), (1, 16, 64, 64), ("c", "z", "y", "x"))
    _, mask, row = volume((30, 200, 200), (34, 220, 220), (64, 512, 512))
    take_orthoviews(lazy, mask, 7, row, None)
    assert sum(computed) <= 4 * 3 * 3 * 16 * 64 * 64


def test_a_large_object_is_subsampled():
    image, mask, row = volume((2, 5, 5), (38, 85, 95), SHAPE)
    wide = row.copy()
    wide["x1"] = 900
    sections = take_orthoviews(image, mask, 7, wide, None)
    assert max(sections["xy"].own.shape) <= 130
    assert sections["xy"].own.any()


DIMS = {2: ("y", "x"), 3: ("z", "y", "x")}


def lazy(pixels, chunks, dims):
    return DataArray(da.from_array(pixels, chunks=chunks, name=False), dims=dims)


def plane(image, mask):
    return ImagePair("a", lazy(image, 8, ("c", "y", "x")), lazy(mask, 8, DIMS[2]))


def scattered_boxes(shape, count, seed):
    """Return a mask of small boxes, some at the border."""
    random = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint16)
    for label in range(1, count + 1):
        corner = [int(random.integers(0, side - 2)) for side in shape]
        mask[tuple(slice(start, start + int(random.integers(1, 6))) for start in corner)] = label
    return mask


def naive_thumbnail(image, mask, row, label, sampling):
    """Return a thumbnail computed sample by sample."""
    reach = (sampling.count - 1) / 2 * sampling.step
    rows, columns = (
        np.floor(row[axis] - reach + 0.5).astype(int) + sampling.step * np.arange(sampling.count) for axis in "yx"
    )
    planes = [round(row["z"])] if sampling.depth == "plane" else range(int(row["z0"]), int(row["z1"]))
    values = np.zeros((image.shape[0], sampling.count, sampling.count), image.dtype)
    own = np.zeros((sampling.count, sampling.count), bool)
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            if 0 <= y < image.shape[-2] and 0 <= x < image.shape[-1]:
                values[:, i, j] = image[:, planes, y, x].max(axis=1)
                own[i, j] = (mask[planes, y, x] == label).any()
    return values, own


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 7), st.integers(5, 40), st.integers(5, 40)),
    st.integers(1, 3),
    st.integers(1, 12),
    st.sampled_from(["plane", "maximum"]),
)
def test_thumbnails_do_not_depend_on_chunks(seed, chunks, step, count, depth):
    mask = scattered_boxes((12, 37, 41), 8, seed)
    image = np.random.default_rng(seed).integers(0, 1000, (2, *mask.shape), np.uint16)
    objects = index_objects(DataArray(mask, dims=DIMS[3]))
    sampling = ThumbnailSampling(step, count, depth)
    lazy_image = lazy(image, (1, *chunks), ("c", *DIMS[3]))
    thumbnails = take_thumbnails(ImagePair("a", lazy_image, lazy(mask, chunks, DIMS[3])), objects, sampling)
    for thumbnail, (label, row) in zip(thumbnails, objects.iterrows(), strict=True):
        values, own = naive_thumbnail(image, mask, row, label, sampling)
        np.testing.assert_array_equal(thumbnail.values, values)
        np.testing.assert_array_equal(thumbnail.own, own)


def test_a_2d_image_equals_a_volume_of_one_plane():
    mask = scattered_boxes((40, 50), 6, seed=1)
    image = np.random.default_rng(1).normal(size=(1, 40, 50)).astype(np.float32)
    objects = index_objects(DataArray(mask, dims=DIMS[2]))
    thumbnails = take_thumbnails(plane(image, mask), objects, ThumbnailSampling(1, 9))
    for thumbnail, (label, row) in zip(thumbnails, objects.iterrows(), strict=True):
        values, own = naive_thumbnail(
            image[:, None], mask[None], row.to_dict() | {"z": 0}, label, ThumbnailSampling(1, 9)
        )
        np.testing.assert_array_equal(thumbnail.values, values)
        np.testing.assert_array_equal(thumbnail.own, own)


def test_reading_the_file_directly_gives_the_same_thumbnails(tmp_path):
    mask = scattered_boxes((90, 100), 30, seed=4)
    image = np.random.default_rng(4).integers(0, 255, (90, 100, 3), np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="rgb", tile=(32, 32))
    tifffile.imwrite(tmp_path / "mask.tif", mask, tile=(32, 32))
    stored = open_pair("a", tmp_path / "image.tif", tmp_path / "mask.tif")
    assert stored.levels
    assert stored.mask_levels
    objects = index_objects(stored.mask)
    direct = take_thumbnails(stored, objects, ThumbnailSampling(2, 13))
    for first, second in zip(
        direct, take_thumbnails(plane(image.transpose(2, 0, 1), mask), objects, ThumbnailSampling(2, 13))
    ):
        np.testing.assert_array_equal(first.values, second.values)
        np.testing.assert_array_equal(first.own, second.own)


def test_the_part_of_a_thumbnail_inside_the_image_is_returned():
    mask = np.zeros((30, 30), np.uint8)
    mask[:3, 14:17] = 5
    objects = index_objects(DataArray(mask, dims=DIMS[2]))
    (thumbnail_,) = take_thumbnails(plane(np.full((1, 30, 30), -7.0), mask), objects, ThumbnailSampling(1, 11))
    assert thumbnail_.inside == (slice(4, 11), slice(0, 11))
    assert (thumbnail_.values[0, :4] == 0).all()
    assert (thumbnail_.values[0, 4:] == -7).all()


@pytest.mark.parametrize("depth", ["plane", "maximum"])
def test_each_block_is_read_once_for_a_whole_page(depth):
    mask = scattered_boxes((12, 60, 60), 40, seed=3)
    reads = Counter()

    def count_read(block, block_info=None, name=None):
        reads[name, tuple(block_info[0]["chunk-location"])] += 1
        return block

    def watched_lazy(pixels, chunks, dims, name):
        blocks = da.from_array(pixels, chunks=chunks, name=False)
        return DataArray(blocks.map_blocks(count_read, name=name, dtype=pixels.dtype, meta=pixels[:0]), dims=dims)

    image = watched_lazy(mask[None].astype(np.uint8), (1, 4, 20, 20), ("c", *DIMS[3]), "image")
    objects = index_objects(DataArray(mask, dims=DIMS[3]))
    take_thumbnails(
        ImagePair("a", image, watched_lazy(mask, (4, 20, 20), DIMS[3], "mask")),
        objects,
        ThumbnailSampling(1, 15, depth),
    )
    assert reads
    assert set(reads.values()) == {1}


def test_booleans_and_nan_can_be_displayed():
    mask = np.zeros((20, 20), np.uint8)
    mask[8:12, 8:12] = 1
    objects = index_objects(DataArray(mask, dims=DIMS[2]))
    (flags,) = take_thumbnails(plane((mask > 0)[None], mask), objects, ThumbnailSampling(1, 8))
    assert flags.values.dtype == np.uint8
    assert flags.values.max() == 1
    (thumbnail_,) = take_thumbnails(plane(np.full((1, 20, 20), np.nan), mask), objects, ThumbnailSampling(1, 8))
    assert np.isfinite(thumbnail_.values).all()


def test_no_objects_give_no_thumbnails():
    mask = scattered_boxes((20, 20), 2, seed=0)
    objects = index_objects(DataArray(mask, dims=DIMS[2])).iloc[:0]
    assert take_thumbnails(plane(mask[None], mask), objects, ThumbnailSampling(1, 8)) == []
