"""Thumbnails: the pixels around each object, whatever the blocks, and each block once."""

from __future__ import annotations

from collections import Counter

import dask.array as da
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from xarray import DataArray

from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.pairing import ImagePair, pair
from svetlana_jupyter.core.thumbnails import Cut, take_thumbnails

DIMS = {2: ("y", "x"), 3: ("z", "y", "x")}


def lazy(pixels, chunks, dims):
    return DataArray(da.from_array(pixels, chunks=chunks, name=False), dims=dims)


def plane(image, mask):
    return ImagePair("a", lazy(image, 8, ("c", "y", "x")), lazy(mask, 8, DIMS[2]))


def scattered(shape, count, seed):
    """A mask of small boxes, some of them at the border."""
    random = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint16)
    for label in range(1, count + 1):
        corner = [int(random.integers(0, side - 2)) for side in shape]
        mask[tuple(slice(start, start + int(random.integers(1, 6))) for start in corner)] = label
    return mask


def expected(image, mask, row, label, cut):
    """One thumbnail, sample by sample."""
    reach = (cut.count - 1) / 2 * cut.step
    rows, columns = (np.floor(row[axis] - reach + 0.5).astype(int) + cut.step * np.arange(cut.count) for axis in "yx")
    planes = [round(row["z"])] if cut.depth == "plane" else range(int(row["z0"]), int(row["z1"]))
    values = np.zeros((image.shape[0], cut.count, cut.count), image.dtype)
    own = np.zeros((cut.count, cut.count), bool)
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
def test_a_thumbnail_shows_the_samples_around_its_object_whatever_the_blocks(seed, chunks, step, count, depth):
    mask = scattered((12, 37, 41), 8, seed)
    image = np.random.default_rng(seed).integers(0, 1000, (2, *mask.shape), np.uint16)
    objects = index_objects(DataArray(mask, dims=DIMS[3]))
    cut = Cut(step, count, depth)
    lazy_image = lazy(image, (1, *chunks), ("c", *DIMS[3]))
    found = take_thumbnails(ImagePair("a", lazy_image, lazy(mask, chunks, DIMS[3])), objects, cut)
    for thumbnail, (label, row) in zip(found, objects.iterrows(), strict=True):
        values, own = expected(image, mask, row, label, cut)
        np.testing.assert_array_equal(thumbnail.values, values)
        np.testing.assert_array_equal(thumbnail.own, own)


def test_a_plane_is_its_own_volume():
    mask = scattered((40, 50), 6, seed=1)
    image = np.random.default_rng(1).normal(size=(1, 40, 50)).astype(np.float32)
    objects = index_objects(DataArray(mask, dims=DIMS[2]))
    found = take_thumbnails(plane(image, mask), objects, Cut(1, 9))
    for thumbnail, (label, row) in zip(found, objects.iterrows(), strict=True):
        values, own = expected(image[:, None], mask[None], row.to_dict() | {"z": 0}, label, Cut(1, 9))
        np.testing.assert_array_equal(thumbnail.values, values)
        np.testing.assert_array_equal(thumbnail.own, own)


def test_a_file_that_is_asked_directly_gives_the_same(tmp_path):
    mask = scattered((90, 100), 30, seed=4)
    image = np.random.default_rng(4).integers(0, 255, (90, 100, 3), np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="rgb", tile=(32, 32))
    tifffile.imwrite(tmp_path / "mask.tif", mask, tile=(32, 32))
    stored = pair("a", tmp_path / "image.tif", tmp_path / "mask.tif")
    assert stored.levels and stored.mask_levels
    objects = index_objects(stored.mask)
    direct = take_thumbnails(stored, objects, Cut(2, 13))
    for one, other in zip(direct, take_thumbnails(plane(image.transpose(2, 0, 1), mask), objects, Cut(2, 13))):
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.own, other.own)


def test_what_lies_beyond_the_image_is_said():
    mask = np.zeros((30, 30), np.uint8)
    mask[:3, 14:17] = 5
    objects = index_objects(DataArray(mask, dims=DIMS[2]))
    (found,) = take_thumbnails(plane(np.full((1, 30, 30), -7.0), mask), objects, Cut(1, 11))
    assert found.inside == (slice(4, 11), slice(0, 11))
    assert (found.values[0, :4] == 0).all() and (found.values[0, 4:] == -7).all()


@pytest.mark.parametrize("depth", ["plane", "maximum"])
def test_each_block_is_read_once_for_a_whole_page(depth):
    mask = scattered((12, 60, 60), 40, seed=3)
    reads = Counter()

    def counted(block, block_info=None, name=None):
        reads[name, tuple(block_info[0]["chunk-location"])] += 1
        return block

    def watched(pixels, chunks, dims, name):
        blocks = da.from_array(pixels, chunks=chunks, name=False)
        return DataArray(blocks.map_blocks(counted, name=name, dtype=pixels.dtype, meta=pixels[:0]), dims=dims)

    image = watched(mask[None].astype(np.uint8), (1, 4, 20, 20), ("c", *DIMS[3]), "image")
    objects = index_objects(DataArray(mask, dims=DIMS[3]))
    take_thumbnails(ImagePair("a", image, watched(mask, (4, 20, 20), DIMS[3], "mask")), objects, Cut(1, 15, depth))
    assert reads and set(reads.values()) == {1}


def test_booleans_and_missing_values_can_be_shown():
    mask = np.zeros((20, 20), np.uint8)
    mask[8:12, 8:12] = 1
    objects = index_objects(DataArray(mask, dims=DIMS[2]))
    (flags,) = take_thumbnails(plane((mask > 0)[None], mask), objects, Cut(1, 8))
    assert flags.values.dtype == np.uint8 and flags.values.max() == 1
    (found,) = take_thumbnails(plane(np.full((1, 20, 20), np.nan), mask), objects, Cut(1, 8))
    assert np.isfinite(found.values).all()


def test_no_object_makes_no_thumbnail():
    mask = scattered((20, 20), 2, seed=0)
    objects = index_objects(DataArray(mask, dims=DIMS[2])).iloc[:0]
    assert take_thumbnails(plane(mask[None], mask), objects, Cut(1, 8)) == []
