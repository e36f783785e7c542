"""Boxes and lassos: what lies inside, and which objects of a volume that means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import points_in_poly
from xarray import DataArray

from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.region_selection import inside, objects_in_polygon, rectangle_corners

# Corners on whole numbers, points between them: no point lies on a line by accident of rounding.
corner = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda c: (float(c[0]), float(c[1])))
lines = st.lists(corner, min_size=3, max_size=12)
places = st.lists(st.tuples(st.integers(-2, 42), st.integers(-2, 42)), min_size=1, max_size=30).map(
    lambda some: np.array(some) + np.array([0.37, 0.41])
)


def star(angles, radii):
    """A line round (20, 20) that goes round once and never crosses itself."""
    angles = np.sort(angles)
    return [(20 + r * np.sin(a), 20 + r * np.cos(a)) for a, r in zip(angles, radii)]


stars = st.lists(
    st.tuples(st.floats(0, 6.28), st.floats(2, 19)), min_size=3, max_size=15, unique_by=lambda c: round(c[0], 2)
).map(lambda some: star(*np.array(some).T))


@given(places, corner, corner)
def test_inside_a_box_is_between_its_sides(points, one, other):
    low, high = np.minimum(one, other), np.maximum(one, other)
    expected = ((points > low) & (points < high)).all(axis=1)
    np.testing.assert_array_equal(inside(points, rectangle_corners(one, other)), expected)


@given(places, stars)
def test_inside_a_line_that_does_not_cross_itself_is_what_scikit_image_says(points, line):
    np.testing.assert_array_equal(inside(points, line), points_in_poly(points, line))


@given(places, lines, st.integers(0, 11))
def test_neither_the_first_corner_nor_the_direction_matters(points, line, first):
    expected = inside(points, line)
    np.testing.assert_array_equal(inside(points, line[first:] + line[:first]), expected)
    np.testing.assert_array_equal(inside(points, line[::-1]), expected)


@given(places, lines)
def test_going_round_twice_changes_nothing(points, line):
    np.testing.assert_array_equal(inside(points, line + line), inside(points, line))


@given(places, lines, corner)
def test_the_inside_moves_with_the_line(points, line, by):
    moved = [(y + by[0], x + by[1]) for y, x in line]
    np.testing.assert_array_equal(inside(points + by, moved), inside(points, line))


@given(st.permutations(range(12)), lines)
def test_each_point_is_judged_for_itself(order, line):
    points = np.random.default_rng(0).uniform(0, 40, (12, 2))
    np.testing.assert_array_equal(inside(points[order], line), inside(points, line)[order])


@given(places, st.integers(1, 39))
def test_boxes_side_by_side_share_the_points_between_them(points, cut):
    upper, lower = rectangle_corners((-9, -9), (cut, 99)), rectangle_corners((cut, -9), (99, 99))
    assert (inside(points, upper) ^ inside(points, lower)).all()


@pytest.mark.parametrize("line", [[], [(3.0, 3.0)], [(0.0, 0.0), (9.0, 9.0)]])
def test_a_line_without_an_inside_holds_nothing(line):
    assert not inside([(3.0, 3.0), (4.0, 5.0)], line).any()


def test_no_points_are_no_answer():
    assert inside(np.empty((0, 2)), rectangle_corners((0, 0), (4, 4))).tolist() == []


def test_the_middle_of_the_first_pixel_is_half_a_pixel_from_the_corner():
    objects = index_objects(DataArray([[3, 0, 8]], dims=("y", "x")))
    assert objects_in_polygon(objects, rectangle_corners((0.4, 0.4), (0.6, 0.6))).tolist() == [3]
    assert objects_in_polygon(objects, rectangle_corners((0, 1), (1, 3))).tolist() == [8]
    assert objects_in_polygon(objects, rectangle_corners((0, 0), (1, 3))).tolist() == [3, 8]


@pytest.fixture
def volume():
    """Object 1 fills planes 0 to 2, object 2 plane 3, object 3 planes 2 to 5."""
    mask = np.zeros((6, 4, 12), np.uint8)
    mask[0:3, 1:3, 1:3], mask[3, 1:3, 5:7], mask[2:6, 1:3, 9:11] = 1, 2, 3
    return index_objects(DataArray(mask, dims=("z", "y", "x")))


@pytest.mark.parametrize(
    ("planes", "expected"),
    [
        (None, [1, 2, 3]),
        (2, [1, 3]),
        (3, [2, 3]),
        (5, [3]),
        (range(0, 3), [1]),
        (range(3, 6), [2, 3]),
        (range(3, 4), [2]),
        (range(0, 6), [1, 2, 3]),
        (range(5, 6), []),
    ],
)
def test_of_a_volume_what_a_plane_cuts_what_a_range_holds_or_all(volume, planes, expected):
    assert objects_in_polygon(volume, rectangle_corners((0, 0), (4, 12)), planes).tolist() == expected
    assert objects_in_polygon(volume, rectangle_corners((0, 0), (4, 8)), planes).tolist() == [
        o for o in expected if o < 3
    ]


@given(st.integers(0, 6))
def test_every_object_of_a_volume_is_in_one_of_two_ranges(cut):
    mask = np.repeat(np.arange(1, 7, dtype=np.uint8), 2)[:, None, None] * np.ones((1, 3, 3), np.uint8)
    objects = index_objects(DataArray(mask, dims=("z", "y", "x")))
    everywhere = rectangle_corners((0, 0), (3, 3))
    below, above = (objects_in_polygon(objects, everywhere, some).tolist() for some in (range(0, cut), range(cut, 12)))
    assert sorted(below + above) == [1, 2, 3, 4, 5, 6]


def test_an_image_has_no_planes_to_choose():
    objects = index_objects(DataArray([[3, 0, 8]], dims=("y", "x")))
    assert objects_in_polygon(objects, rectangle_corners((0, 0), (1, 3)), planes=0).tolist() == [3, 8]
