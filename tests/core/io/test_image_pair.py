"""Validation of image pairs: metadata and error messages."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import tifffile

from svetlana_jupyter.core.io.image_pair import ImagePair, open_pair
from svetlana_jupyter.errors import InputError

MASK = np.kron(np.arange(6, dtype=np.uint16).reshape(2, 3), np.ones((10, 10), np.uint16))


def test_a_pair_has_channels_names_spacing_and_groups():
    opened = open_pair("P1_B2", np.zeros((20, 30)), MASK, spacing=(0.5, 0.25), groups={"plate": "P1"})

    assert isinstance(opened, ImagePair)
    assert opened.name == "P1_B2"
    assert opened.ndim == 2
    assert opened.image.dims == ("c", "y", "x")
    assert opened.channels == ("gray",)
    assert opened.spacing == (0.5, 0.25)
    assert opened.groups == {"plate": "P1"}


def test_an_image_without_axes_takes_them_from_its_mask(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 9, (2, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", pixels, photometric="minisblack", metadata=None)

    assert open_pair("a", tmp_path / "image.tif", MASK).image.dims == ("c", "y", "x")
    assert open_pair("a", tmp_path / "image.tif", np.stack([MASK, MASK])).image.dims == ("c", "z", "y", "x")


def test_the_spacing_of_the_mask_applies_to_an_image_without_spacing(tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", MASK, imagej=True, resolution=(4, 2), metadata={"unit": "um"})

    assert open_pair("a", np.zeros((20, 30)), tmp_path / "mask.tif").spacing == pytest.approx((0.5, 0.25))


def test_a_single_plane_of_a_volume_matches_a_2d_mask():
    assert open_pair("a", np.zeros((1, 20, 30)), MASK).ndim == 2
    assert open_pair("a", np.zeros((20, 30)), MASK[None]).ndim == 2


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros((20, 31)), MASK, r"^well 3: .*same shape, got \(20, 31\) yx for the image and \(20, 30\) yx"),
        (np.zeros((30, 20)), MASK, "One of them is transposed"),
        (np.zeros((20, 30)), MASK / 5, "^well 3: Mask must contain integers"),
        (np.zeros((20, 30)), MASK * 0, "^well 3: The mask has no object"),
        (np.zeros((20, 30)), MASK.astype(int) - 1, "positive integers for objects, got -1"),
        (
            np.zeros((20, 30)),
            np.where(MASK == 1, 255, 0).astype(np.uint8),
            r"its only label is 255.*measure\.label\(mask > 0\)",
        ),
        (np.zeros((20, 30)), np.where(np.isin(MASK, [3, 5]), 255, 0), "its only label is 255"),
        (np.zeros((20, 30)), np.where(np.isin(MASK, [3, 5]), 1, 0), "its only label is 1"),
        (np.zeros((20, 30)), MASK > 0, "boolean"),
    ],
)
def test_mismatched_pairs_are_refused_with_the_name_of_the_image(image, mask, message):
    with pytest.raises(InputError, match=message):
        open_pair("well 3", image, mask)


def test_planes_that_may_be_channels_are_refused_with_a_suggestion(tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", np.zeros((4, 20, 30), np.uint16), imagej=True, metadata={"axes": "ZYX"})

    with pytest.raises(InputError, match='If the planes are channels, pass `axes="cyx"`'):
        open_pair("a", tmp_path / "image.tif", MASK)
    assert len(open_pair("a", tmp_path / "image.tif", MASK, axes="cyx").channels) == 4


def test_channels_that_may_be_planes_are_refused_with_a_suggestion(tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", np.zeros((4, 20, 30), np.uint16), imagej=True, metadata={"axes": "CYX"})

    with pytest.raises(InputError, match='If the channels are planes, pass `axes="zyx"`'):
        open_pair("a", tmp_path / "image.tif", np.stack([MASK] * 4))


def test_a_mask_with_a_time_axis_is_read_as_a_volume(tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", np.stack([MASK] * 4), imagej=True, metadata={"axes": "TYX"})

    assert open_pair("a", np.zeros((4, 20, 30)), tmp_path / "mask.tif").ndim == 3


@pytest.mark.parametrize("number", [1, 7])
def test_a_mask_may_contain_a_single_object(number):
    assert open_pair("a", np.zeros((20, 30)), np.where(MASK == 4, number, 0)).mask.max() == number


def test_label_255_among_other_labels_is_an_object():
    assert open_pair("a", np.zeros((20, 30)), np.where(MASK == 4, 255, MASK)).mask.max() == 255


def test_few_blocks_of_a_large_mask_are_read():
    reads = []

    def numbered(block, block_info=None):
        if block_info:
            reads.append(block_info[None]["chunk-location"])
        return np.arange(100).reshape(10, 10)

    mask = da.zeros((500, 500), chunks=10, dtype=int).map_blocks(numbered, dtype=int, meta=np.empty((0, 0), int))
    open_pair("a", da.zeros((500, 500)), mask)

    assert len(reads) == 1


def test_the_search_for_objects_ends_at_the_first_object():
    mask = np.zeros((60, 60), np.uint8)
    mask[0, 0], mask[59, 59] = 1, 2

    assert open_pair("a", np.zeros((60, 60)), da.from_array(mask, chunks=10)).mask.shape == (60, 60)
