"""TIFF files with several images: thumbnails, overviews, smaller copies, and pages of unequal shape."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.io.images import OpenOptions, open_image, open_image_levels, spacing_of
from svetlana_jupyter.errors import InputError

RNG = np.random.default_rng(8)
PLANE = RNG.integers(0, 2**16, (40, 60), np.uint16)
MASK = np.kron(np.arange(6, dtype=np.uint16).reshape(2, 3), np.ones((20, 20), np.uint16))
SLIDE = RNG.integers(0, 256, (512, 640, 3), np.uint8)


def write_pages(path, *pages):
    """Write pages, each a pair of pixels and options, without metadata about their relation."""
    with tifffile.TiffWriter(path) as tiff:
        for pixels, options in pages:
            tiff.write(pixels, metadata=None, **options)
    return path


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}])
def test_a_thumbnail_before_the_image_is_skipped(tmp_path, options):
    path = write_pages(
        tmp_path / "a.tif", (PLANE[::4, ::4], {"subfiletype": 1, "subifds": 1}), (PLANE, {"subfiletype": 0, **options})
    )

    np.testing.assert_array_equal(open_image(path), PLANE)


def test_an_overview_before_the_image_is_skipped_with_its_pixel_size(tmp_path):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for name, pixels, size in (("overview", PLANE[::4, ::4].copy(), 4.0), ("image", PLANE, 1.0)):
            tiff.write(pixels, metadata={"axes": "YX", "Name": name, "PhysicalSizeX": size, "PhysicalSizeY": size})

    with pytest.warns(UserWarning, match=r"It holds 2 images, .*'overview', shape \(10, 15\).*the largest is opened"):
        image = open_image(path)

    np.testing.assert_array_equal(image, PLANE)
    assert spacing_of(image) == (1.0, 1.0)
    assert open_pair("a", path, MASK).notes == ()


def test_a_smaller_page_is_a_copy_only_if_the_file_states_it(tmp_path):
    tiles = {"tile": (16, 16)}
    other = write_pages(tmp_path / "a.tif", (PLANE, tiles), (PLANE[20:, 30:], tiles))
    copy = write_pages(tmp_path / "b.tif", (PLANE, tiles), (PLANE[::2, ::2], {**tiles, "subfiletype": 1}))

    with pytest.warns(UserWarning, match="holds 2 images"):
        open_image(other)
    assert len(open_image_levels(other, OpenOptions(mask_shape=(40, 60)))[1]) == 1
    np.testing.assert_array_equal(open_image(other, mask_shape=(20, 30)), PLANE[20:, 30:])
    assert len(open_image_levels(copy, OpenOptions())[1]) == 2


def test_pages_of_unequal_shape_are_refused_unless_the_mask_fits_one(tmp_path, monkeypatch):
    path = write_pages(tmp_path / "a.tif", (PLANE[:30], {}), (PLANE, {}), (PLANE[:, :50], {}))

    with pytest.raises(
        InputError, match=r"holds 3 images, expected one: tifffile\.imread\('a\.tif', series=0\)"
    ) as error:
        open_image(path)
    monkeypatch.chdir(tmp_path)
    exec("import tifffile\n" + str(error.value).split("`")[1])
    np.testing.assert_array_equal(open_image("image.tif"), PLANE[:30])
    np.testing.assert_array_equal(open_pair("a", path, MASK).image[0], PLANE)
    with pytest.raises(InputError, match="holds 3 images"):
        open_pair("a", path, MASK[:20])


def test_one_odd_page_among_many_is_detected(tmp_path):
    path = write_pages(tmp_path / "a.tif", *[(PLANE if i != 4 else PLANE[:20], {}) for i in range(9)])

    with pytest.raises(InputError, match=r"planes of .* differ in shape: \(40, 60\), \(20, 60\)"):
        open_image(path, axes="zyx")


def test_label_and_macro_of_a_slide_scanner_are_skipped(tmp_path):
    aperio = {"description": "Aperio Image Library v11\n|AppMag = 20|MPP = 0.4990", "photometric": "rgb"}
    tiles = {"tile": (64, 64), "photometric": "rgb"}
    path = write_pages(
        tmp_path / "a.tif",
        (SLIDE, {**tiles, **aperio}),
        (SLIDE[::8, ::8], {"photometric": "rgb"}),
        (SLIDE[::4, ::4], tiles),
        (SLIDE[:100, :90], {"photometric": "rgb", "subfiletype": 1}),
        (SLIDE[:90, :200], {"photometric": "rgb", "subfiletype": 9}),
    )

    image, levels = open_image_levels(path, OpenOptions())

    np.testing.assert_array_equal(image, np.moveaxis(SLIDE, -1, 0))
    assert [level.sizes["y"] for level in levels] == [512, 128]
    assert spacing_of(image) == (0.499, 0.499)


def test_a_time_series_of_volumes_is_refused_without_axes_that_cannot_be_passed(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((3, 4, 2, 40, 60), np.uint16), imagej=True, metadata={"axes": "TZCYX"}
    )

    with pytest.raises(InputError, match="series of 3 time points") as error:
        open_image(tmp_path / "a.tif")
    assert "axes=" not in str(error.value)


@pytest.mark.parametrize("shape", [(1, 40, 60), (40, 60, 1), (1, 40, 60, 1), (1, 1, 40, 60, 1)])
def test_dimensions_of_length_one_need_no_names(tmp_path, shape):
    tifffile.imwrite(tmp_path / "m.tif", MASK.reshape(shape), photometric="minisblack", metadata=None)

    for mask in (tmp_path / "m.tif", MASK.reshape(shape)):
        pair = open_pair("a", PLANE.reshape(shape), mask)
        np.testing.assert_array_equal(pair.mask, MASK)
        np.testing.assert_array_equal(pair.image[0], PLANE)
