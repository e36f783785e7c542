"""Resolution levels of image files: detection, validation and partial reads."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr

from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.io.images import OpenOptions, open_image_levels, open_mask_levels
from svetlana_jupyter.core.io.pyramid import PyramidLevel, downsampling_factor, pyramid
from tests.core.io.test_ome_zarr import write_ome_zarr

RNG = np.random.default_rng(3)
PART = slice(11, 40), slice(5, 31)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("names", "shape"), [("tczyx", (1, 2, 5, 60, 70)), ("yx", (60, 70)), ("zcyx", (5, 2, 60, 70))])
def test_the_levels_of_an_ome_zarr_image_are_read_like_the_image(tmp_path, version, names, shape):
    pixels = RNG.integers(0, 2**16, shape, np.uint16)
    write_ome_zarr(tmp_path / "image.zarr", version, pixels, names)

    image, levels = open_image_levels(tmp_path / "image.zarr", OpenOptions())

    assert [factor for factor, _ in pyramid(levels)] == [1, 2]
    plane = {"z": 3} if "z" in names else {}
    for factor, level in pyramid(levels):
        expected = image.isel(plane)[..., ::factor, ::factor][..., PART[0], PART[1]]
        np.testing.assert_array_equal(level.read(*PART, plane=3), expected)


def test_a_missing_level_named_in_the_metadata_is_skipped(tmp_path):
    group = write_ome_zarr(tmp_path / "image.zarr", "0.5")
    del group["1"]

    assert len(open_image_levels(tmp_path / "image.zarr", OpenOptions())[1]) == 1


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (RNG.integers(0, 2**16, (200, 300), np.uint16), {"photometric": "minisblack"}),
        (RNG.integers(0, 256, (200, 300, 3), np.uint8), {"photometric": "rgb"}),
        (RNG.integers(0, 256, (200, 300, 4), np.uint8), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    ],
    ids=["grey", "colour", "colour with transparency"],
)
@pytest.mark.parametrize("ome", [True, False], ids=["OME-TIFF", "SubIFDs alone"])
def test_the_levels_of_a_tiled_tiff_are_its_subresolutions(tmp_path, pixels, options, ome):
    path = tmp_path / ("image.ome.tif" if ome else "image.tif")
    layout = {"tile": (64, 64), "compression": "zlib", **options}
    with tifffile.TiffWriter(path, ome=ome) as tiff:
        tiff.write(pixels, subifds=2, **layout)
        for step in (2, 4):
            tiff.write(pixels[::step, ::step], subfiletype=1, **layout)

    image, levels = open_image_levels(path, OpenOptions())

    assert [factor for factor, _ in pyramid(levels)] == [1, 2, 4]
    for factor, level in pyramid(levels):
        np.testing.assert_array_equal(level.read(*PART), image[..., ::factor, ::factor][..., PART[0], PART[1]])


def test_an_untiled_file_has_a_single_level(tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", np.arange(600, dtype=">u2").reshape(20, 30))

    mask, levels = open_mask_levels(tmp_path / "mask.tif")

    assert len(levels) == 1
    np.testing.assert_array_equal(levels[0].read(slice(3, 9), slice(0, 30, 4)), mask[3:9, ::4])
    assert levels[0].read(slice(1), slice(1)).dtype.isnative


def test_an_image_pair_has_the_levels_of_image_and_mask(tmp_path):
    write_ome_zarr(tmp_path / "image.zarr", "0.5", RNG.integers(0, 9, (2, 60, 70), np.uint16), "cyx")
    labels = zarr.create_group(tmp_path / "image.zarr" / "labels", attributes={"ome": {"labels": ["cells"]}})
    write_ome_zarr(tmp_path / "image.zarr" / "labels" / "cells", "0.5", RNG.integers(0, 9, (60, 70), np.uint16), "yx")

    opened = open_pair("a", tmp_path / "image.zarr", tmp_path / "image.zarr")

    assert labels
    assert len(opened.levels) == len(opened.mask_levels) == 2
    assert opened.levels[1].read(slice(None), slice(None)).shape == (2, 30, 35)


@pytest.mark.parametrize(
    ("shape", "factor"), [((500, 400), 2), ((501, 400), 2), ((100, 80), 10), ((700, 500), 0), ((500, 200), 0)]
)
def test_a_level_of_uneven_reduction_is_not_used(shape, factor):
    fine, coarse = (
        PyramidLevel.from_array(xr.DataArray(np.zeros(n, np.uint8), dims=("y", "x"))) for n in ((1001, 800), shape)
    )
    assert downsampling_factor(fine, coarse) == factor
    assert len(pyramid([fine, coarse])) == (2 if factor else 1)
