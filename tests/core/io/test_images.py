"""Opening of images: dimensions, coordinates, channels and errors for every source."""

from __future__ import annotations

import os
import shutil

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xarray import DataArray
from xarray.testing import assert_identical

from svetlana_jupyter.core.io.images import fingerprint, is_rgb, open_image, open_mask, spacing_of, with_channel_axis
from svetlana_jupyter.errors import InputError

RNG = np.random.default_rng(5)


def fail(block):
    raise AssertionError("was computed")


def test_opening_an_array_computes_nothing():
    lazy = da.zeros((3, 90, 80), chunks=30, dtype=int).map_blocks(fail, dtype=int, meta=np.empty((0, 0, 0), int))

    assert open_image(lazy, axes="zyx").shape == (3, 90, 80)
    assert open_mask(lazy).dims == ("z", "y", "x")


@settings(deadline=None)
@given(st.permutations("czyx"), st.integers(2, 4))
def test_any_order_of_the_axes_becomes_czyx(order, ndim):
    axes = "".join(order) if ndim == 4 else "".join(axis for axis in order if axis in "cyx"[3 - ndim :])
    sizes = {"c": 2, "z": 3, "y": 6, "x": 5}
    pixels = np.arange(np.prod([sizes[axis] for axis in axes])).reshape([sizes[axis] for axis in axes])

    image = open_image(pixels, axes=axes)

    assert image.dims == tuple(axis for axis in "czyx" if axis in axes)
    np.testing.assert_array_equal(image.transpose(*axes), pixels)


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 20), st.integers(2, 20))
def test_spacing_is_read_back_from_the_coordinates_of_any_crop(rows, columns, start, length):
    image = open_image(np.zeros((40, 40)), spacing=(rows, columns))[start : start + length, start : start + length]

    assert spacing_of(image) == pytest.approx((rows, columns), rel=1e-6)
    assert image.y.attrs["units"] == "micrometer"


def test_a_single_number_is_the_spacing_of_all_axes_and_of_single_pixels():
    assert spacing_of(open_image(np.zeros((1, 40)), spacing=0.325)) == (0.325, 0.325)


def test_given_spacing_is_kept_exactly():
    assert spacing_of(open_image(np.zeros((400, 400)), spacing=0.1)) == (0.1, 0.1)


def test_without_spacing_there_are_no_coordinates():
    image = open_image(np.zeros((4, 5)))

    assert spacing_of(image) is None
    assert not {"y", "x"} & set(image.coords)


def test_opening_an_opened_image_returns_it_unchanged():
    image = open_image(np.zeros((2, 3, 8, 9)), axes="czyx", spacing=(2, 0.5, 0.25), channels=["a", "b"])

    assert_identical(open_image(image), image)


def test_dims_and_units_of_a_dataarray_are_used():
    array = DataArray(
        np.zeros((8, 9, 2)),
        dims=("Y", "X", "channel"),
        coords={"Y": ("Y", np.arange(8) * 500.0, {"units": "nm"}), "X": ("X", np.arange(9) * 250.0, {"units": "nm"})},
    )

    image = open_image(array)

    assert image.dims == ("c", "y", "x")
    assert spacing_of(image) == (0.5, 0.25)


def test_pixel_indices_and_uneven_coordinates_give_no_spacing():
    counted = DataArray(np.zeros((3, 4)), dims=("y", "x"), coords={"y": range(3), "x": range(4)})
    uneven = DataArray(np.zeros((1, 3)), dims=("y", "x"), coords={"x": ("x", [0.0, 1.0, 3.0], {"units": "um"})})

    assert spacing_of(open_image(counted)) is None
    assert spacing_of(open_image(uneven)) is None


def test_color_is_recognized_in_a_uint8_array():
    pixels = RNG.integers(0, 256, (30, 40, 3), np.uint8)

    image = open_image(pixels)

    assert is_rgb(image)
    assert image.c.values.tolist() == ["red", "green", "blue"]
    np.testing.assert_array_equal(image, np.moveaxis(pixels, -1, 0))
    assert not is_rgb(image[:2])
    assert not is_rgb(image[0])


def test_a_fourth_channel_of_an_array_is_kept_unless_the_user_states_color_samples():
    pixels = RNG.integers(0, 256, (30, 40, 4), np.uint8)

    np.testing.assert_array_equal(open_image(pixels), np.moveaxis(pixels, -1, 0))
    np.testing.assert_array_equal(open_image(pixels, axes="yxs"), np.moveaxis(pixels[..., :3], -1, 0))


def test_four_channels_that_are_not_rgba_are_kept():
    image = open_image(np.zeros((30, 40, 4), np.uint16), axes="yxc")

    assert image.c.values.tolist() == ["channel 1", "channel 2", "channel 3", "channel 4"]


def test_a_gray_image_gets_a_channel_axis():
    gray = open_image(np.zeros((30, 40)), spacing=0.5)

    assert with_channel_axis(gray).dims == ("c", "y", "x")
    assert with_channel_axis(gray).c.values.tolist() == ["gray"]
    assert spacing_of(with_channel_axis(gray)) == (0.5, 0.5)
    assert open_image(np.zeros((30, 40)), channels=["dna"]).c.values.tolist() == ["dna"]


def test_several_sources_are_stacked_as_channels():
    planes = [RNG.random((6, 7)), RNG.random((6, 7))]

    image = open_image(planes, channels=["dna", "actin"], spacing=0.5)

    assert image.c.values.tolist() == ["dna", "actin"]
    assert spacing_of(image) == (0.5, 0.5)
    np.testing.assert_array_equal(image, planes)


def test_sources_of_different_shape_are_not_stacked():
    with pytest.raises(
        InputError, match=r"The image has shape \(1, 6, 8\) cyx, but stacked files must have one channel each"
    ):
        open_image([np.zeros((6, 7)), np.zeros((6, 8))])


def test_a_volume_of_one_plane_becomes_2d():
    assert open_image(np.zeros((1, 6, 7)), axes="zyx").dims == ("y", "x")
    assert open_mask(np.zeros((1, 6, 7), int)).dims == ("y", "x")


def test_the_shape_of_the_mask_determines_the_dimensions():
    assert open_image(np.zeros((6, 8, 9)), mask_shape=(6, 8, 9)).dims == ("z", "y", "x")
    assert open_image(np.zeros((6, 8, 9)), mask_shape=(8, 9)).dims == ("c", "y", "x")
    assert open_image(np.zeros((8, 9, 6)), mask_shape=(8, 9)).shape == (6, 8, 9)
    assert open_image(np.zeros((4, 6, 8, 9)), mask_shape=(4, 8, 9)).shape == (6, 4, 8, 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": np.zeros((5, 8, 9))}, r'does not state what its dimensions are\. Name them: `axes="zyx"`'),
        ({"source": np.zeros((4, 4, 5, 8, 9))}, "has 5 dimensions"),
        ({"source": np.zeros((8, 9)), "axes": "zyx"}, "names 3 dimensions, but the image has 2"),
        ({"source": np.zeros((8, 9)), "axes": "zx"}, "must name each dimension of the image once, including y and x"),
        ({"source": np.zeros((8, 9, 2)), "axes": "yxq"}, '`axes="yxq"` must name'),
        ({"source": np.zeros((8, 9, 2)), "axes": "yxx"}, '`axes="yxx"` must name'),
        ({"source": np.zeros((7, 8, 9)), "axes": "tyx"}, "series of 7 time points"),
        ({"source": np.zeros((8, 9), complex)}, "must contain real numbers, got complex128"),
        ({"source": np.zeros((8, 9), object)}, "of the data type object holds no numbers"),
        ({"source": np.zeros((8, 9)), "spacing": (1, 1, 1)}, r"2 positive numbers in micrometers, \(y, x\)"),
        ({"source": np.zeros((8, 9)), "spacing": -1}, "positive numbers"),
        ({"source": np.zeros((2, 8, 9)), "axes": "cyx", "channels": ["a"]}, "has 2 channels, but the given names are"),
        ({"source": np.zeros((2, 8, 9)), "axes": "cyx", "channels": ["a", "a"]}, "Pass 2 different names"),
        ({"source": [np.zeros((8, 9))], "channels": ["a", "b"]}, "Got 2 channel names for 1 files"),
        ({"source": []}, "Expected one source per channel, got none"),
        ({"source": np.zeros((0, 9))}, "expected rows and columns"),
        ({"source": np.zeros(9)}, "expected rows and columns"),
        ({"source": 3}, "Expected a path, a NumPy or dask array or a DataArray, got int"),
        ({"source": "nowhere.tif"}, r"nowhere.tif does not exist\. .*relative paths start at"),
        ({"source": "nowhere.h5/raw"}, "nowhere.h5 does not exist"),
    ],
)
def test_invalid_images_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        open_image(**arguments)


def test_an_unknown_format_is_refused_with_the_supported_formats(tmp_path):
    (tmp_path / "scan.czi").touch()

    with pytest.raises(InputError, match=r"scan\.czi is of an unknown format\. Supported are TIFF, PNG.*bioio"):
        open_image(tmp_path / "scan.czi")


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (
            np.array([[0, 0.97], [0.5, 0.25]], np.float32),
            r"got float32 in the mask with values up to 0\.97\. This looks like a probability map: threshold and label",
        ),
        (np.array([[0.0, 3.0]]), r"with values up to 3\. If these are labels, save them as integers"),
        (np.array([[np.nan, 3.0]]), "values up to 3.*probability map"),
        (np.array([[True, False]]), r"got booleans in the mask.*`skimage\.measure\.label\(mask\)`"),
        (np.array([[1j, 0]]), "Mask must contain integers, got complex128"),
        (np.ones((8, 9, 9, 9), int), "has 4 dimensions"),
    ],
)
def test_invalid_masks_are_refused(pixels, message):
    with pytest.raises(InputError, match=message):
        open_mask(pixels)


def test_a_mask_with_channels_is_refused():
    with pytest.raises(InputError, match=r"has 3 channels \(axes yxc"):
        open_mask(np.ones((8, 9, 3), int), axes="yxc")


def test_a_npy_file_is_read_in_part(tmp_path):
    pixels = np.asfortranarray(RNG.integers(0, 9, (30, 40)))
    np.save(tmp_path / "mask.npy", pixels)

    mask = open_mask(str(tmp_path / "mask.npy"))

    np.testing.assert_array_equal(mask, pixels)
    np.testing.assert_array_equal(mask[3:5, ::7], pixels[3:5, ::7])


@pytest.mark.parametrize("wrap", [np.asarray, da.from_array, lambda pixels: DataArray(pixels, dims=("y", "x"))])
def test_values_of_the_other_byte_order_are_converted(wrap):
    image = open_image(wrap(np.arange(12, dtype=np.dtype(np.uint16).newbyteorder()).reshape(3, 4)))

    assert image.dtype.isnative
    assert image.values.dtype.isnative
    np.testing.assert_array_equal(image, np.arange(12).reshape(3, 4))


def test_a_npy_file_of_python_objects_is_refused(tmp_path):
    np.save(tmp_path / "mask.npy", np.array([{}, {}]), allow_pickle=True)

    with pytest.raises(InputError, match=r"mask\.npy holds pickled objects"):
        open_mask(tmp_path / "mask.npy")


def test_the_fingerprint_of_a_file_depends_on_its_content_and_name(tmp_path):
    path = tmp_path / "mask.npy"
    np.save(path, np.ones((9, 9), int))
    before = fingerprint(path)

    os.utime(path, (1, 1))
    (tmp_path / "copy").mkdir()
    shutil.copy(path, tmp_path / "copy" / path.name)
    assert fingerprint(path) == fingerprint(tmp_path / "copy" / path.name) == before

    np.save(path, np.full((9, 9), 2))
    assert fingerprint(path) != before


def test_the_fingerprint_of_a_folder_changes_with_any_file_in_it(tmp_path):
    (tmp_path / "a.zarr" / "c").mkdir(parents=True)
    (tmp_path / "a.zarr" / "c" / "0").write_bytes(b"1")
    before = fingerprint(tmp_path / "a.zarr")

    (tmp_path / "a.zarr" / "c" / "0").write_bytes(b"2")

    assert fingerprint(tmp_path / "a.zarr") != before


def test_the_fingerprint_of_a_large_file_is_taken_without_reading_it(tmp_path):
    with (tmp_path / "large.npy").open("wb") as file:
        file.truncate(1 << 40)

    before = fingerprint(tmp_path / "large.npy")
    os.utime(tmp_path / "large.npy", (1, 1))

    assert fingerprint(tmp_path / "large.npy") != before


def test_the_fingerprint_of_a_lazy_array_computes_nothing():
    lazy = da.zeros((9, 9), dtype=int).map_blocks(fail, dtype=int, meta=np.empty((0, 0), int))

    assert fingerprint(lazy) == fingerprint(DataArray(lazy)) != fingerprint(lazy + 1)


def test_the_fingerprint_of_several_files_depends_on_their_order():
    first, second = np.zeros(3), np.ones(3)

    assert fingerprint([first, second]) != fingerprint([second, first])
