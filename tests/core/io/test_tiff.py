"""TIFF files: opening from headers, partial reads and errors."""

from __future__ import annotations

import pickle

import numpy as np
import psutil
import pytest
import tifffile

from svetlana_jupyter.core.io.images import is_rgb, open_image, open_mask, spacing_of
from svetlana_jupyter.errors import InputError

RNG = np.random.default_rng(5)
PLANE = RNG.integers(0, 2**16, (90, 70), np.uint16)
VOLUME = RNG.integers(0, 2**16, (5, 90, 70), np.uint16)
COLOR = RNG.integers(0, 256, (90, 70, 3), np.uint8)

LAYOUTS = {
    "bare": {},
    "bare, the other byte order": {"byteorder": ">"},
    "strips": {"compression": "zlib", "rowsperstrip": 8},
    "one strip": {"compression": "lzw", "rowsperstrip": 90},
    "tiles": {"compression": "zlib", "tile": (32, 16), "predictor": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pixels", [PLANE, VOLUME], ids=["plane", "volume"])
def test_every_layout_gives_the_same_pixels_whole_and_in_part(tmp_path, layout, pixels):
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", **LAYOUTS[layout])

    mask = open_mask(path)

    assert mask.dims == ("z", "y", "x")[-pixels.ndim :]
    assert mask.dtype == np.uint16
    assert mask.dtype.isnative
    np.testing.assert_array_equal(mask, pixels)
    np.testing.assert_array_equal(mask[..., 13:60, 21:22], pixels[..., 13:60, 21:22])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_file_stays_open_and_blocks_can_be_pickled(tmp_path, layout):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, PLANE, **LAYOUTS[layout])

    image = open_image(path)
    total = int(image.sum())
    copy = pickle.loads(pickle.dumps(image))

    assert str(path) not in [file.path for file in psutil.Process().open_files()]
    assert int(copy.sum()) == total == PLANE.sum(dtype=np.int64)


@pytest.mark.parametrize(
    "layout",
    [{}, {"planarconfig": "separate"}, {"compression": "zlib", "tile": (32, 32)}],
    ids=["bare", "planar", "tiles"],
)
def test_an_rgb_image_has_three_named_channels(tmp_path, layout):
    path = tmp_path / "image.tif"
    pixels = np.moveaxis(COLOR, -1, 0) if "planarconfig" in layout else COLOR
    tifffile.imwrite(path, pixels, photometric="rgb", **layout)

    image = open_image(path)

    assert image.dims == ("c", "y", "x")
    assert is_rgb(image)
    np.testing.assert_array_equal(image, np.moveaxis(COLOR, -1, 0))


def test_imagej_axes_and_spacing_are_read(tmp_path):
    path = tmp_path / "image.tif"
    pixels = RNG.integers(0, 2**16, (5, 2, 90, 70), np.uint16)
    tifffile.imwrite(
        path,
        pixels,
        imagej=True,
        resolution=(1 / 0.25, 1 / 0.5),
        metadata={"axes": "ZCYX", "spacing": 2.0, "unit": "um"},
    )

    image = open_image(path)

    assert image.dims == ("c", "z", "y", "x")
    assert spacing_of(image) == pytest.approx((2.0, 0.5, 0.25))
    np.testing.assert_array_equal(image, np.moveaxis(pixels, 1, 0))


def test_ome_axes_spacing_and_channel_names_are_read_and_a_single_time_point_is_dropped(tmp_path):
    path = tmp_path / "image.ome.tif"
    pixels = RNG.integers(0, 2**16, (1, 2, 5, 90, 70), np.uint16)
    tifffile.imwrite(
        path,
        pixels,
        metadata={
            "axes": "TCZYX",
            "PhysicalSizeX": 250,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 0.5,
            "PhysicalSizeYUnit": "µm",
            "PhysicalSizeZ": 2,
            "PhysicalSizeZUnit": "µm",
            "Channel": {"Name": ["DAPI", "actin"]},
        },
    )

    image = open_image(path)

    assert image.dims == ("c", "z", "y", "x")
    assert image.c.values.tolist() == ["DAPI", "actin"]
    assert spacing_of(image) == pytest.approx((2.0, 0.5, 0.25))
    np.testing.assert_array_equal(image, pixels[0])


def test_a_pyramid_opens_at_full_resolution(tmp_path):
    path = tmp_path / "image.ome.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PLANE, subifds=1, tile=(32, 32), compression="zlib", metadata={"axes": "YX"})
        tiff.write(PLANE[::2, ::2], subfiletype=1, tile=(32, 32), compression="zlib")

    np.testing.assert_array_equal(open_image(path), PLANE)


def test_a_large_image_is_opened_without_reading_it(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.memmap(path, shape=(40_000, 40_000), dtype=np.uint16).flush()  # a sparse file: 3 GB without disk usage
    before = psutil.Process().memory_info().rss

    image = open_image(path)
    corner = image[-3:, -3:].values

    assert corner.shape == (3, 3)
    assert image.data.npartitions > 100
    assert psutil.Process().memory_info().rss - before < 300e6


def test_planes_without_axes_metadata_require_axes(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, VOLUME, photometric="minisblack", metadata=None)

    with pytest.raises(InputError, match=r'image.tif has shape \(5, 90, 70\).*`axes="zyx"` or `axes="cyx"`'):
        open_image(path)
    assert open_image(path, axes="zyx").dims == ("z", "y", "x")
    assert open_image(path, axes="cyx").dims == ("c", "y", "x")


def test_a_time_series_is_refused_with_both_alternatives(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, VOLUME, imagej=True, metadata={"axes": "TYX"})

    with pytest.raises(InputError, match=r'series of 5 time points.*`axes="zyx"`'):
        open_image(path)
    assert open_image(path, axes="zyx").dims == ("z", "y", "x")


def test_several_images_in_one_file_are_refused(tmp_path):
    path = tmp_path / "image.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(PLANE, metadata={"axes": "YX"})
        tiff.write(PLANE, metadata={"axes": "YX"})

    with pytest.raises(InputError, match=r"holds 2 images, expected one: .*series=0\) \('Image0', shape \(90, 70\)\)"):
        open_image(path)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.98])
def test_a_truncated_file_is_refused_when_opened(tmp_path, layout, fraction):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.repeat(PLANE, 20, axis=0), **LAYOUTS[layout])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])

    with pytest.raises(InputError, match=r"image\.tif (is truncated|cannot be read|is a TIFF without)"):
        open_image(path)


def test_a_file_that_is_not_an_image_is_refused(tmp_path):
    path = tmp_path / "image.tif"
    path.write_text("well,count\nA1,7\n")

    with pytest.raises(InputError, match=r"image\.tif cannot be read as TIFF"):
        open_image(path)


def test_input_files_are_never_modified(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, PLANE)
    path.chmod(0o444)
    before = path.read_bytes()

    block = open_image(path).compute()
    block[:] = 0

    assert path.read_bytes() == before
