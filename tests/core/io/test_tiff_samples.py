"""Samples of TIFF pixels: channels, alpha, palettes, inks and inverted values, in every layout."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import tifffile
from PIL import Image

from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.io.images import OpenOptions, open_image, open_image_levels, open_mask
from svetlana_jupyter.errors import InputError

RNG = np.random.default_rng(8)
FIVE = RNG.integers(0, 256, (40, 56, 5), np.uint8)
GRAY, DEEP = FIVE[..., 0], RNG.integers(0, 2**16, (40, 56), np.uint16)
LABELS = np.kron(np.arange(1, 36).reshape(5, 7), np.ones((8, 8), int)).astype(np.uint8)
PALETTE = RNG.integers(0, 256, (3, 256)).astype(np.uint16) * 257
DEEP_PALETTE = RNG.integers(0, 2**16, (3, 2**16)).astype(np.uint16)
LAYOUTS = pytest.mark.parametrize(
    "layout",
    [{}, {"compression": "zlib", "tile": (16, 16)}, {"compression": "zlib", "rowsperstrip": 8}, {"byteorder": ">"}],
    ids=["bare", "tiles", "strips", "the other byte order"],
)


@LAYOUTS
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(
    ("photometric", "samples", "extra", "kept", "names"),
    [
        ("minisblack", 2, ["unspecified"], [0, 1], ["channel 1", "channel 2"]),
        ("minisblack", 4, None, [0, 1, 2, 3], ["channel 1", "channel 2", "channel 3", "channel 4"]),
        ("minisblack", 2, ["unassalpha"], [0], None),
        ("minisblack", 3, ["assocalpha", "unspecified"], [0, 2], ["channel 1", "channel 2"]),
        ("rgb", 4, ["unassalpha"], [0, 1, 2], ["red", "green", "blue"]),
        ("rgb", 4, ["assocalpha"], [0, 1, 2], ["red", "green", "blue"]),
        ("rgb", 4, ["unspecified"], [0, 1, 2, 3], ["red", "green", "blue", "channel 4"]),
        ("rgb", 5, ["unassalpha", "unspecified"], [0, 1, 2, 4], ["red", "green", "blue", "channel 4"]),
    ],
)
def test_only_stated_alpha_is_dropped(tmp_path, layout, planar, photometric, samples, extra, kept, names):
    pixels = FIVE[..., :samples]
    stored = np.moveaxis(pixels, -1, 0).copy() if planar else pixels
    options = {"photometric": photometric, "planarconfig": "separate" if planar else "contig", "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", stored, extrasamples=extra, **options, **layout)

    image, levels = open_image_levels(tmp_path / "a.tif", OpenOptions())

    expected = np.moveaxis(pixels[..., kept], -1, 0)
    np.testing.assert_array_equal(image, expected if names else expected[0])
    assert ("c" in image.coords and image.c.values.tolist()) == (names or False)
    part = levels[0].read(slice(3, 30), slice(7, 50))
    np.testing.assert_array_equal(part, (expected if names else expected[0])[..., 3:30, 7:50])


def test_four_channels_reach_the_pair(tmp_path):
    np.save(tmp_path / "a.npy", FIVE[..., :4])

    for source in (tmp_path / "a.npy", FIVE[..., :4]):
        assert len(open_pair("a", source, LABELS).channels) == 4


@LAYOUTS
@pytest.mark.parametrize("planar", [False, True])
def test_inks_are_converted_as_pillow_does(tmp_path, layout, planar):
    inks = FIVE[..., :4]
    stored = np.moveaxis(inks, -1, 0).copy() if planar else inks
    config = "separate" if planar else "contig"
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="separated", planarconfig=config, **layout)

    with pytest.warns(UserWarning, match="inks"):
        image = open_image(tmp_path / "a.tif")

    assert image.c.values.tolist() == ["red", "green", "blue"]
    expected = np.moveaxis(np.asarray(Image.fromarray(inks, "CMYK").convert("RGB")), -1, 0)
    np.testing.assert_allclose(image.astype(int), expected.astype(int), atol=1)  # Pillow rounds differently


@LAYOUTS
@pytest.mark.parametrize(("pixels", "palette"), [(GRAY, PALETTE >> 8), (DEEP, DEEP_PALETTE)], ids=["8 bits", "16 bits"])
def test_a_palette_gives_colors_in_an_image_and_labels_in_a_mask(tmp_path, layout, pixels, palette):
    stored = palette if palette.max() > 255 else palette * 257
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="palette", colormap=stored, **layout)

    image, levels = open_image_levels(tmp_path / "a.tif", OpenOptions())

    assert image.dtype == pixels.dtype
    np.testing.assert_array_equal(image, palette[:, pixels])
    np.testing.assert_array_equal(levels[0].read(slice(3, 30), slice(7, 50)), palette[:, pixels[3:30, 7:50]])
    np.testing.assert_array_equal(open_mask(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True, "photometric": "palette"}])
def test_the_lookup_table_of_a_microscope_format_does_not_change_values(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", GRAY, colormap=PALETTE, **options)

    with pytest.warns(UserWarning, match="lookup table of colors, which is not used"):
        np.testing.assert_array_equal(open_image(tmp_path / "a.tif"), GRAY)


@LAYOUTS
@pytest.mark.parametrize("pixels", [GRAY, DEEP], ids=["8 bits", "16 bits"])
def test_values_whose_zero_is_white_are_inverted_in_images_but_not_in_masks(tmp_path, layout, pixels):
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite", **layout)

    with pytest.warns(UserWarning, match="0 is white; the values are inverted"):
        np.testing.assert_array_equal(open_image(tmp_path / "a.tif"), np.iinfo(pixels.dtype).max - pixels)
    np.testing.assert_array_equal(open_mask(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize("compression", [None, "group4"])
def test_one_bit_per_pixel_is_bright_where_the_picture_is(tmp_path, compression):
    Image.fromarray(GRAY > 128).save(tmp_path / "a.tif", compression=compression)

    image, _ = open_image_levels(tmp_path / "a.tif", OpenOptions())

    np.testing.assert_array_equal(image, GRAY > 128)


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (FIVE[..., :3], {"photometric": "cielab"}, "colors as CIELAB, which is not supported. Save it as RGB"),
        (FIVE[..., :3], {"photometric": "ycbcr"}, "colors as YCBCR"),
        (GRAY, {"photometric": "cfa"}, "colors as CFA"),
        (GRAY.astype(np.float32), {"photometric": "miniswhite"}, "0 is white, which has no certain meaning"),
        (GRAY.astype(np.int16), {"photometric": "miniswhite"}, "1 samples of type int16"),
    ],
)
def test_other_colors_are_refused(tmp_path, pixels, options, message):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)

    with pytest.raises(InputError, match=message):
        open_image(tmp_path / "a.tif")


def test_jpeg_compressed_colors_are_rgb(tmp_path):
    color = np.full((40, 56, 3), (200, 60, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", color, photometric="rgb", compression="jpeg")

    np.testing.assert_allclose(open_image(tmp_path / "a.tif").mean(["y", "x"]), [200, 60, 30], atol=3)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.float32, np.float64])
def test_signed_values_and_nan_are_kept(tmp_path, dtype):
    pixels = (DEEP.astype(int) - 30_000).astype(dtype)
    if np.issubdtype(dtype, np.floating):
        pixels[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=">")

    np.testing.assert_array_equal(open_image(tmp_path / "a.tif"), pixels)


def test_a_display_orientation_is_reported(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GRAY, extratags=[(274, 3, 1, 6, True)])

    with pytest.warns(UserWarning, match=r"rotated or mirrored \(orientation 6\); it is read as stored"):
        np.testing.assert_array_equal(open_image(tmp_path / "a.tif"), GRAY)


def test_channels_of_color_samples_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([FIVE[..., :3]] * 2), imagej=True, photometric="rgb")

    with pytest.raises(InputError, match=r"a\.tif has 2 channels of 3 color samples each \(axes cyxs"):
        open_image(tmp_path / "a.tif")


def test_a_missing_file_of_a_multi_file_ome_tiff_is_refused(tmp_path, caplog):
    caplog.set_level(logging.CRITICAL, "tifffile")
    planes = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1"><UUID FileName="f{i}.ome.tif">urn:uuid:{i}</UUID></TiffData>'
        for i in range(2)
    )
    for i in range(2):
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{i}">'
            '<Image ID="Image:0"><Pixels DimensionOrder="XYCZT" ID="P:0" SizeC="2" SizeT="1" SizeX="56" SizeY="40" '
            f'SizeZ="1" Type="uint16"><Channel ID="C:0"/><Channel ID="C:1"/>{planes}</Pixels></Image></OME>'
        )
        tifffile.imwrite(tmp_path / f"f{i}.ome.tif", DEEP + i, description=xml, metadata=None)
    np.testing.assert_array_equal(open_image(tmp_path / "f0.ome.tif"), np.stack([DEEP, DEEP + 1]))

    (tmp_path / "f1.ome.tif").unlink()

    with pytest.raises(InputError, match=r"1 of 2 planes of .*f0\.ome\.tif are missing.*Copy all files"):
        open_image(tmp_path / "f0.ome.tif")


def test_metadata_in_another_file_are_reported(tmp_path):
    xml = '<?xml version="1.0"?><OME><BinaryOnly MetadataFile="x.companion.ome" UUID="urn:uuid:9"/></OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", DEEP, description=xml, metadata=None)

    with pytest.warns(UserWarning, match="OME metadata of this image are in another file"):
        np.testing.assert_array_equal(open_image(tmp_path / "a.ome.tif"), DEEP)


def test_one_plane_of_a_colored_volume_is_read_without_alpha(tmp_path):
    planes = np.stack([FIVE[..., :4], FIVE[..., 1:]])
    options = {
        "photometric": "rgb",
        "extrasamples": ["unassalpha"],
        "compression": "zlib",
        "metadata": {"axes": "ZYXS"},
    }
    tifffile.imwrite(tmp_path / "a.tif", planes, **options)

    image, levels = open_image_levels(tmp_path / "a.tif", OpenOptions())

    assert image.dims == ("c", "z", "y", "x")
    part = levels[0].read(slice(3, 30), slice(7, 50), 1)
    np.testing.assert_array_equal(part, np.moveaxis(planes[1, 3:30, 7:50, :3], -1, 0))
    np.testing.assert_array_equal(image[1, 1], planes[1, ..., 1])
