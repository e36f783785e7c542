"""Repaired masks compared with scikit-image."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from skimage.measure import label
from xarray import DataArray

from svetlana_jupyter.core.mask_repair import repair_mask
from svetlana_jupyter.errors import InputError


def repaired(pixels, repair, folder, chunks=-1):
    dims = ("z", "y", "x")[-pixels.ndim :]
    mask = DataArray(da.from_array(pixels, chunks), dims=dims)
    return repair_mask(mask, repair, folder / "mask.zarr")[0].to_numpy()


@pytest.mark.parametrize("repair", ["components", "foreground"])
@pytest.mark.parametrize(("shape", "chunks"), [((17, 23), (5, 7)), ((6, 7, 8), (1, 4, 3)), ((9, 9), (9, 9))])
def test_pieces_are_numbered_across_the_seams_of_blocks(repair, shape, chunks, tmp_path):
    pixels = np.random.default_rng(3).choice([0, 0, 0, 1, 2], shape)
    numbered = repaired(pixels, repair, tmp_path, chunks)
    expected = label(pixels if repair == "components" else pixels > 0, connectivity=len(shape))

    assert numbered.max() == expected.max()
    assert len({*zip(numbered.flat, expected.flat)}) == expected.max() + 1  # one number for each of the other


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
def test_numbers_read_as_signed_become_unsigned(dtype, tmp_path):
    pixels = np.array([[0, 1, 40_000], [65_535, 5, 32_768]], np.uint16)

    np.testing.assert_array_equal(repaired(pixels.view(np.int16).astype(dtype), "unsigned", tmp_path), pixels)


def test_the_background_of_a_mask_of_classes_without_0_is_left_out(tmp_path):
    pixels = np.array([[2, 1, 2, 2, 1], [2, 2, 2, 2, 2], [3, 3, 2, 2, 3]])

    assert repaired(pixels, "components", tmp_path).tolist() == [[0, 1, 0, 0, 2], [0, 0, 0, 0, 0], [3, 3, 0, 0, 4]]


def test_an_unknown_repair_is_refused_with_the_choices(tmp_path):
    with pytest.raises(InputError, match=r"Unknown repair 'label'.* 'components', 'foreground', 'unsigned'"):
        repaired(np.ones((2, 2), int), "label", tmp_path)
