"""Outlines are valid polygons and enclose the mask pixel for pixel, by the judgement of GEOS."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from xarray import DataArray

from svetlana_jupyter.core.blocks import SIDES
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.outlines import iter_object_outlines, polygons


def geometry(found):
    return shapely.MultiPolygon([(outer[:, ::-1], [hole[:, ::-1] for hole in holes]) for outer, *holes in found])


def filled(shape, outlines):
    """Fill outlines as GEOS does: a pixel belongs to those that its middle lies in."""
    mask = np.zeros(shape, np.int64)
    y, x = np.indices(shape[-2:]) + 0.5
    for outline in outlines:
        plane = mask[outline.plane] if mask.ndim == 3 else mask
        inside = shapely.contains_xy(geometry(outline.polygons), x, y)
        assert not plane[inside].any()
        plane[inside] = outline.object
    return mask


@settings(deadline=None, max_examples=300)
@given(arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 8)), fill=st.booleans()))
def test_any_mask_is_enclosed_exactly_by_valid_polygons(own):
    found = polygons(own)
    shape = geometry(found)
    y, x = np.indices(own.shape) + 0.5
    assert shape.is_valid, shapely.is_valid_reason(shape)
    np.testing.assert_array_equal(shapely.contains_xy(shape, x, y), own)
    assert shape.area == own.sum()
    assert all(part.exterior.is_ccw for part in shape.geoms)
    assert not any(hole.is_ccw for part in shape.geoms for hole in part.interiors)
    for ring in (ring for polygon in found for ring in polygon):
        sides = np.diff(ring, axis=0) != 0
        assert (sides.sum(axis=1) == 1).all() and (sides[1:] != sides[:-1]).all(), "only corners, all of them needed"


def test_a_ring_that_touches_itself_becomes_a_hole_and_an_island_a_part():
    ring = np.ones((7, 7), bool)
    ring[1:6, 1:6] = ring[6, 6] = False
    ring[5, 5] = ring[3, 3] = True
    found = polygons(ring)
    assert [len(polygon) for polygon in found] == [2, 1]
    assert geometry(found).is_valid and geometry(found).area == ring.sum()


@pytest.mark.parametrize("chunks", [-1, 7, (2, 16, 30)])
def test_objects_of_every_size_come_from_their_own_boxes_whatever_the_chunks(chunks):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 4, (3, 40, 50)).astype(np.uint64) * 2**33  # three objects that lie everywhere
    pixels[:, 20:30, 20:40] = 7
    mask = DataArray(da.from_array(pixels, chunks=chunks), dims=("z", "y", "x"))
    np.testing.assert_array_equal(filled(pixels.shape, iter_object_outlines(mask, index_objects(mask))), pixels)


def test_an_object_wider_than_a_block_is_read_alone(monkeypatch):
    monkeypatch.setitem(SIDES, 2, (8, 8))
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 30] = 9
    pixels[::4, ::4] = np.arange(1, 257).reshape(16, 16) % 8 + 1
    for number, corner in enumerate(np.argwhere(pixels[:, :28] > 0), 10):
        pixels[tuple(corner)] = number
    mask = DataArray(da.from_array(pixels, chunks=8), dims=("y", "x"))
    np.testing.assert_array_equal(filled(pixels.shape, iter_object_outlines(mask, index_objects(mask))), pixels)
