"""Cuts through an object of a volume: the right voxels, in the right shape, from few of the volume's."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.sections import SIDES, take_orthoviews
from tests.core.test_regions import counted

SHAPE = (80, 90, 100)


def volume(low, high, shape=SHAPE):
    """A volume whose voxels are all different, one object in it, and the object's row."""
    mask = np.zeros(shape, np.uint16)
    mask[tuple(map(slice, low, high))] = 7
    image = np.arange(1, mask.size + 1).reshape(1, *shape)
    labels = xr.DataArray(mask, dims=("z", "y", "x"))
    return xr.DataArray(image, dims=("c", "z", "y", "x")), labels, index_objects(labels).loc[7]


def test_the_cuts_go_through_the_middle_of_the_object():
    image, mask, row = volume((38, 40, 50), (43, 49, 61))
    sections = take_orthoviews(image, mask, 7, row, None)
    assert tuple(sections) == SIDES
    z, y, x = 40, 44, 55
    values = image.values[0]
    for side, voxel in (("xy", values[z, y, x]), ("xz", values[z, y, x]), ("zy", values[z, y, x])):
        rows, columns = sections[side].own.shape
        assert sections[side].values[0, rows // 2, columns // 2] == voxel
        assert sections[side].own[rows // 2, columns // 2]
    assert [int(sections[side].own.sum()) for side in ("xy", "xz", "zy")] == [9 * 11, 5 * 11, 9 * 5]
    assert sections["xz"].values[0, 0].max() < sections["xz"].values[0, -1].min(), "planes go downwards"
    assert sections["zy"].values[0, :, 0].max() < sections["zy"].values[0, :, -1].min(), "planes go to the right"


def test_a_projection_shows_the_brightest_voxel_and_the_whole_object():
    image, mask, row = volume((5, 40, 50), (9, 49, 61))
    image[0, 25, 44, 55] = 10**9
    section = take_orthoviews(image, mask, 7, row, None)["maximum"]
    rows, columns = section.own.shape
    assert section.values[0, rows // 2, columns // 2] == 10**9
    assert section.own.sum() == 9 * 11


def test_beyond_the_volume_there_is_nothing():
    image, mask, row = volume((0, 0, 0), (3, 9, 11))
    for section in take_orthoviews(image, mask, 7, row, None).values():
        assert section.own.any()
    assert take_orthoviews(image, mask, 7, row, None)["xy"].values[0, 0].max() == 0


@pytest.mark.parametrize("spacing", [(2.0, 0.5, 0.5), (1.0, 1.0, 1.0), (0.5, 1.0, 1.0)])
def test_planes_that_lie_further_apart_are_drawn_so(spacing):
    image, mask, row = volume((15, 40, 50), (20, 49, 61))
    sections = take_orthoviews(image, mask, 7, row, spacing)
    for section in sections.values():
        assert section.size[0] == pytest.approx(section.size[1], rel=0.15)
    planes, columns = sections["xz"].own.shape
    assert columns / planes == pytest.approx(spacing[0] / spacing[2], rel=0.2)


def test_of_a_huge_volume_no_more_is_read_than_lies_around_the_object():
    lazy, computed = counted(np.zeros((1, 64, 512, 512), np.uint8), (1, 16, 64, 64), ("c", "z", "y", "x"))
    _, mask, row = volume((30, 200, 200), (34, 220, 220), (64, 512, 512))
    take_orthoviews(lazy, mask, 7, row, None)
    assert sum(computed) <= 4 * 3 * 3 * 16 * 64 * 64


def test_a_large_object_is_thinned():
    image, mask, row = volume((2, 5, 5), (38, 85, 95), SHAPE)
    wide = row.copy()
    wide["x1"] = 900
    sections = take_orthoviews(image, mask, 7, wide, None)
    assert max(sections["xy"].own.shape) <= 130
    assert sections["xy"].own.any()
