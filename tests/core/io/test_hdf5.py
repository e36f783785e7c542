"""HDF5 files written by ilastik and ImageJ."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from svetlana_jupyter.core.io.images import open_image, open_mask, spacing_of
from svetlana_jupyter.errors import InputError

RNG = np.random.default_rng(5)


def axistags(axes):
    return json.dumps({"axes": [{"key": axis, "typeFlags": 2, "resolution": 0, "description": ""} for axis in axes]})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "exported.h5"


def test_the_only_dataset_of_an_ilastik_file_is_opened_with_its_axes(path):
    pixels = RNG.integers(0, 9, (1, 5, 60, 70, 2), np.uint16)
    with h5py.File(path, "w") as file:
        file.create_dataset("exported_data", data=pixels, chunks=(1, 5, 20, 20, 2), compression="gzip")
        file["exported_data"].attrs["axistags"] = axistags("tzyxc")
        file["note"] = 3.0

    image = open_image(path)

    assert image.dims == ("c", "z", "y", "x")
    np.testing.assert_array_equal(image, np.moveaxis(pixels[0], -1, 0))
    np.testing.assert_array_equal(image[1, 2:4, 5:50, 33], pixels[0, 2:4, 5:50, 33, 1])


def test_a_mask_loses_its_single_channel(path):
    with h5py.File(path, "w") as file:
        file["labels"] = np.ones((6, 7, 1), np.uint32)
        file["labels"].attrs["axistags"] = axistags("yxc")

    assert open_mask(path).dims == ("y", "x")


def test_a_file_with_several_datasets_requires_the_name_of_one(path):
    with h5py.File(path, "w") as file:
        file["raw"], file["seg/nuclei"] = np.zeros((6, 7)), np.ones((6, 7), int)

    with pytest.raises(InputError, match=r"several images: raw, seg/nuclei\. Name one .*exported\.h5/raw'"):
        open_image(path)
    assert open_mask(path / "seg/nuclei").sum() == 42
    with pytest.raises(InputError, match=r"no dataset 'seg/cells'\. Name one of its images: raw, seg/nuclei"):
        open_mask(path / "seg/cells")


def test_element_size_sets_the_spacing(path):
    with h5py.File(path, "w") as file:
        file["raw"] = np.zeros((3, 6, 7))
        file["raw"].attrs["element_size_um"] = [2.0, 0.5, 0.25]

    assert spacing_of(open_image(path, axes="zyx")) == (2.0, 0.5, 0.25)


def test_files_without_an_image_and_files_that_are_not_hdf5_are_refused(path):
    with h5py.File(path, "w") as file:
        file["table"] = np.zeros(3)
    with pytest.raises(InputError, match="no dataset of two or more dimensions"):
        open_image(path)

    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"exported\.h5 cannot be read as HDF5"):
        open_image(path)


def test_a_missing_file_of_a_virtual_dataset_is_refused(path):
    layout = h5py.VirtualLayout((2, 6, 7), np.uint8)
    for i in range(2):
        with h5py.File(path.with_name(f"part{i}.h5"), "w") as file:
            file["raw"] = np.full((6, 7), i + 1, np.uint8)
        layout[i] = h5py.VirtualSource(f"part{i}.h5", "raw", (6, 7))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("raw", layout)
    assert open_image(path, axes="cyx")[:, 0, 0].values.tolist() == [1, 2]

    path.with_name("part1.h5").unlink()

    with pytest.raises(InputError, match=r"A part of .*exported\.h5/raw is in part1\.h5, which is missing"):
        open_image(path, axes="cyx")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [([2.0, 0.0, 0.25], r"along y \(0 'um'\) is not used"), ([0.5], "must have the sizes along z")],
)
def test_an_element_size_that_is_not_used_is_reported(path, sizes, message):
    with h5py.File(path, "w") as file:
        file["raw"] = np.zeros((3, 6, 7))
        file["raw"].attrs["element_size_um"] = sizes

    with pytest.warns(UserWarning, match=message):
        assert spacing_of(open_image(path, axes="zyx")) is None


def test_four_channels_are_kept(path):
    pixels = RNG.integers(0, 256, (20, 30, 4), np.uint8)
    with h5py.File(path, "w") as file:
        file["raw"] = pixels

    np.testing.assert_array_equal(open_image(path), np.moveaxis(pixels, -1, 0))
