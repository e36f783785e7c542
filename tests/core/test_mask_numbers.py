"""Masks whose numbers do not name objects, and others with split objects."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from skimage.transform import resize
from xarray import DataArray

from svetlana_jupyter.core.mask_numbers import find_numbering_problem
from svetlana_jupyter.core.objects import index_objects


def disks(rows=4, columns=5, radius=6, step=22):
    """Return a mask of numbered disks."""
    y, x = np.mgrid[: rows * step, : columns * step]
    number = (y // step) * columns + x // step + 1
    inside = (y % step - step // 2) ** 2 + (x % step - step // 2) ** 2 <= radius**2
    return np.where(inside, number, 0)


def squares(count, side=6):
    """Return a mask of numbered squares."""
    across = int(np.ceil(np.sqrt(count)))
    numbers = np.arange(1, across**2 + 1).reshape(across, across)
    return np.kron(np.where(numbers <= count, numbers, 0), np.pad(np.ones((side, side), int), 1))


def problem(mask, suffix=""):
    mask = np.asarray(mask).astype(np.int64)
    return find_numbering_problem(index_objects(DataArray(mask, dims=("y", "x"))), mask.size, suffix)


def interpolated(mask, order=1):
    shape = [2 * side + 7 for side in mask.shape]
    return np.round(resize(mask.astype(float), shape, order=order, preserve_range=True)).clip(0)


def as_jpeg(mask):
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file))


DISKS = disks()
RINGS = np.where(disks(3, 3, 9) > 0, 128, 0) + np.where(disks(3, 3, 4) > 0, 127, 0)


@pytest.mark.parametrize(
    ("mask", "cause", "repair"),
    [
        (DISKS % 3 + 1 - (DISKS == 0), "classes", "components"),
        (np.where(DISKS > 0, 255, 128), "classes", "components"),
        (RINGS, "classes", "components"),
        (squares(400).astype(np.uint8), "started again from 0 after 255", "components"),
        (squares(259).astype(np.uint8), "started again from 0 after 255", "components"),
        (squares(400).clip(0, 255), "above 255 were probably cut off", "components"),
        (np.concatenate([DISKS, DISKS], axis=1), "Tiles", "components"),
        (np.concatenate([DISKS, np.where(DISKS > 5, 0, DISKS)]), "Tiles", "components"),
        (interpolated(DISKS), "Interpolation", "foreground"),
        (interpolated(squares(100, 9), 3), "Interpolation", "foreground"),
        (as_jpeg(DISKS), "JPEG", "foreground"),
    ],
)
def test_numbers_that_do_not_name_objects_are_recognized_by_their_cause(mask, cause, repair):
    found = problem(mask)

    assert cause in found.text
    assert found.repair == repair


def test_numbers_that_started_again_at_16_bits_are_recognized():
    found = problem(squares(65_600, 1).astype(np.uint16))

    assert "after 65,535" in found.text
    assert "64 of 65,535 numbers" in found.text


def test_a_jpeg_file_cannot_be_repaired():
    found = problem(as_jpeg(DISKS), ".JPG")

    assert "JPEG file" in found.text
    assert found.repair is None


def test_the_class_that_fills_a_mask_without_0_is_named_as_background():
    assert "No pixel is 0; number 2, which covers 77 % of the image" in problem(np.where(DISKS > 0, 1, 2)).text
    assert "background" not in problem(DISKS % 3 + 1 - (DISKS == 0)).text


def pairs_of_nuclei(rows=12, columns=12):
    """Return a mask in which neighboring disks of one row are two nuclei of one cell."""
    numbers = disks(rows, columns, 5, 13)
    return np.where(numbers > 0, (numbers + 1) // 2, 0)


def cut_by_a_fold():
    mask = disks(12, 12, 6, 14)
    return np.concatenate([mask[:, :77], np.zeros((len(mask), 20), int), mask[:, 77:]], axis=1)


def with_stray_pixels():
    mask = squares(400)
    mask[::30, 0] = [7, 77, 177, 277, 377, 20]
    return mask


@pytest.mark.parametrize(
    "mask", [DISKS, squares(255), squares(400), pairs_of_nuclei(), cut_by_a_fold(), with_stray_pixels()]
)
def test_objects_and_a_few_that_are_split_give_no_alarm(mask):
    assert problem(mask) is None
