"""Gallery contents, pages and selections, and the objects inside a box or lasso."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import points_in_poly
from xarray import DataArray

from svetlana_jupyter.core.display.selection import (
    GalleryQuery,
    Pagination,
    Selection,
    build_gallery_table,
    filter_and_sort,
    objects_in_polygon,
    points_in_polygon,
    rectangle_corners,
)
from svetlana_jupyter.core.objects import index_objects

NOTHING_PREDICTED = pd.DataFrame({"predicted": [], "probability": []})
CELLS = st.integers(0, 59)
SELECTIONS = st.builds(
    lambda chosen, anchor: Selection(frozenset(chosen), anchor, anchor), st.sets(CELLS), st.integers(-1, 59)
)


def index(labels, size=10, **columns):
    table = pd.DataFrame({"size": size, "y": 0.0, "x": np.arange(len(labels), dtype=float)}, index=labels)
    table = table.assign(y0=0, y1=9, x0=0, x1=9)
    return table.rename_axis("object").assign(**columns)


def labels(*annotations):
    columns = ["image", "object", "action", "class_id"]
    return pd.DataFrame(annotations, columns=columns).set_index(["image", "object"])


@pytest.fixture
def table():
    """Return a table: in "a", 1 agrees with its prediction, 2 differs, 3 is flagged, 4 skipped; "b" is unlabeled."""
    objects = {"a": index([1, 2, 3, 4], size=[40, 30, 20, 10]), "b": index([1, 7], size=[35, 5])}
    predicted = pd.DataFrame({"predicted": [1, 1, 2, 2], "probability": [0.9, 0.6, 0.8, 0.7]}, index=[1, 2, 3, 4])
    annotations = [
        ("a", 1, "label", 1),
        ("a", 2, "label", 2),
        ("a", 3, "bad_segmentation", 0),
        ("a", 4, "skip", 0),
        ("b", 99, "label", 1),
    ]
    return build_gallery_table(
        objects, {"a": predicted, "b": NOTHING_PREDICTED}, labels(*annotations, ("gone", 5, "label", 1))
    )


def ids(table, **query):
    rows = table.iloc[filter_and_sort(table, GalleryQuery(**query))]
    return [f"{image}{label}" for image, label in zip(rows["image"], rows["object"])]


def test_the_gallery_table_has_one_row_per_object_with_label_and_prediction(table):
    assert list(table["action"]) == ["label", "label", "bad_segmentation", "", "", ""]
    assert list(table["class_id"]) == [1, 2, 0, 0, 0, 0]
    assert list(table["predicted"]) == [1, 1, 2, 2, 0, 0]
    assert np.isnan(table["probability"]).sum() == 2


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "unlabeled"}, ["a4", "b1", "b7"]),
        ({"status": "annotated"}, ["a1", "a2", "a3"]),
        ({"status": "corrected"}, ["a2"]),
        ({"class_id": 2}, ["a2", "a4"]),
        ({"images": ("b",)}, ["b1", "b7"]),
        ({"images": ("b",), "class_id": 1}, []),
    ],
)
def test_a_gallery_is_filtered(table, query, expected):
    assert ids(table, order="position", **query) == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("uncertain", ["a2", "a4", "a3", "a1", "b1", "b7"]),
        ("certain", ["a1", "a3", "a4", "a2", "b1", "b7"]),
        ("largest", ["a1", "b1", "a2", "a3", "a4", "b7"]),
        ("smallest", ["b7", "a4", "a3", "a2", "b1", "a1"]),
        ("class", ["a1", "a4", "a2", "a3", "b1", "b7"]),
    ],
)
def test_a_gallery_is_sorted(table, order, expected):
    assert ids(table, order=order) == expected


def test_sorting_by_position_reads_objects_in_bands():
    table = build_gallery_table(
        {"a": index([1, 2, 3], y=[30.0, 12.0, 8.0], x=[5.0, 50.0, 90.0])}, {"a": NOTHING_PREDICTED}, labels()
    )
    assert ids(table, order="position") == ["a2", "a3", "a1"]


def test_sorting_by_position_goes_plane_by_plane():
    table = build_gallery_table({"a": index([1, 2], z=[4.0, 1.0])}, {"a": NOTHING_PREDICTED}, labels())
    assert ids(table, order="position") == ["a2", "a1"]


def test_the_random_order_depends_on_the_seed_but_not_on_the_filter(table):
    assert ids(table, seed=3) == ids(table, seed=3)
    assert len({tuple(ids(table, seed=seed)) for seed in range(20)}) > 10
    everything = ids(table, seed=3)
    assert ids(table, seed=3, status="unlabeled") == [
        class_id for class_id in everything if class_id in ("a4", "b1", "b7")
    ]


def test_a_gallery_without_images_is_empty():
    assert filter_and_sort(build_gallery_table({}, {}, labels()), GalleryQuery()).tolist() == []


@given(st.integers(0, 500), st.integers(1, 70))
def test_pages_contain_every_position_once_in_order(total, size):
    pages = Pagination(total, size)
    assert [place for page in range(pages.count) for place in pages.places(page)] == list(range(total))
    assert all(pages.page_containing(place) == page for page in range(pages.count) for place in pages.places(page))
    assert pages.nearest(-5) == 0
    assert pages.nearest(10**6) == pages.count - 1


@given(SELECTIONS, CELLS)
def test_toggling_twice_changes_nothing(selection, cell):
    assert selection.with_toggled(cell).with_toggled(cell).chosen == selection.chosen


@given(SELECTIONS, st.integers(60, 80))
def test_inverting_gives_the_complement_and_twice_changes_nothing(selection, count):
    inverse = selection.inverted(count)
    assert not inverse.chosen & selection.chosen
    assert inverse.chosen | selection.chosen == set(range(count))
    assert inverse.inverted(count).chosen == selection.chosen


@given(SELECTIONS, CELLS, CELLS)
def test_a_range_includes_both_ends_from_either_side(selection, first, last):
    chosen = selection.only(first).with_range(last).chosen
    assert chosen == set(range(min(first, last), max(first, last) + 1))
    assert chosen == selection.only(last).with_range(first).chosen


@given(SELECTIONS, CELLS, CELLS)
def test_extending_a_range_keeps_its_anchor(selection, intermediate, last):
    assert selection.with_range(intermediate).with_range(last) == selection.with_range(last) or selection.anchor < 0
    assert selection.with_range(last).with_range(last) == selection.with_range(last)
    assert selection.with_range(last, keep=True).chosen == selection.with_range(last).chosen | selection.chosen


@given(SELECTIONS, st.integers(0, 60))
def test_a_selection_is_restricted_to_a_shorter_page(selection, count):
    left = selection.within(count)
    assert left.chosen == {cell for cell in selection.chosen if cell < count}
    assert left.anchor < count
    assert left.cursor < count


# Corners are integers and points lie between them, so that no point lies on a side by rounding.
corner = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda c: (float(c[0]), float(c[1])))
lines = st.lists(corner, min_size=3, max_size=12)
point_lists = st.lists(st.tuples(st.integers(-2, 42), st.integers(-2, 42)), min_size=1, max_size=30).map(
    lambda points: np.array(points) + np.array([0.37, 0.41])
)


def star(angles, radii):
    """Return a simple polygon that encloses (20, 20)."""
    angles = np.sort(angles)
    return [(20 + r * np.sin(a), 20 + r * np.cos(a)) for a, r in zip(angles, radii)]


stars = st.lists(
    st.tuples(st.floats(0, 6.28), st.floats(2, 19)), min_size=3, max_size=15, unique_by=lambda c: round(c[0], 2)
).map(lambda points: star(*np.array(points).T))


@given(point_lists, corner, corner)
def test_points_in_a_box_lie_between_its_sides(points, one, other):
    low, high = np.minimum(one, other), np.maximum(one, other)
    expected = ((points > low) & (points < high)).all(axis=1)
    np.testing.assert_array_equal(points_in_polygon(points, rectangle_corners(one, other)), expected)


@given(point_lists, stars)
def test_points_in_a_simple_polygon_agree_with_scikit_image(points, line):
    np.testing.assert_array_equal(points_in_polygon(points, line), points_in_poly(points, line))


@given(point_lists, lines, st.integers(0, 11))
def test_first_corner_and_direction_of_a_polygon_do_not_matter(points, line, first):
    expected = points_in_polygon(points, line)
    np.testing.assert_array_equal(points_in_polygon(points, line[first:] + line[:first]), expected)
    np.testing.assert_array_equal(points_in_polygon(points, line[::-1]), expected)


@given(point_lists, lines)
def test_winding_twice_changes_nothing(points, line):
    np.testing.assert_array_equal(points_in_polygon(points, line + line), points_in_polygon(points, line))


@given(point_lists, lines, corner)
def test_the_inside_moves_with_the_polygon(points, line, by):
    shifted = [(y + by[0], x + by[1]) for y, x in line]
    np.testing.assert_array_equal(points_in_polygon(points + by, shifted), points_in_polygon(points, line))


@given(st.permutations(range(12)), lines)
def test_the_order_of_the_points_does_not_matter(order, line):
    points = np.random.default_rng(0).uniform(0, 40, (12, 2))
    np.testing.assert_array_equal(points_in_polygon(points[order], line), points_in_polygon(points, line)[order])


@given(point_lists, st.integers(1, 39))
def test_adjacent_boxes_divide_the_points_between_them(points, cut):
    upper, lower = rectangle_corners((-9, -9), (cut, 99)), rectangle_corners((cut, -9), (99, 99))
    assert (points_in_polygon(points, upper) ^ points_in_polygon(points, lower)).all()


@pytest.mark.parametrize("line", [[], [(3.0, 3.0)], [(0.0, 0.0), (9.0, 9.0)]])
def test_a_polygon_without_an_area_contains_nothing(line):
    assert not points_in_polygon([(3.0, 3.0), (4.0, 5.0)], line).any()


def test_no_points_give_an_empty_result():
    assert points_in_polygon(np.empty((0, 2)), rectangle_corners((0, 0), (4, 4))).tolist() == []


def test_the_center_of_the_first_pixel_is_half_a_pixel_from_the_corner():
    objects = index_objects(DataArray([[3, 0, 8]], dims=("y", "x")))
    assert objects_in_polygon(objects, rectangle_corners((0.4, 0.4), (0.6, 0.6))).tolist() == [3]
    assert objects_in_polygon(objects, rectangle_corners((0, 1), (1, 3))).tolist() == [8]
    assert objects_in_polygon(objects, rectangle_corners((0, 0), (1, 3))).tolist() == [3, 8]


@pytest.fixture
def volume():
    """Return objects: 1 fills planes 0 to 2, 2 plane 3, and 3 planes 2 to 5."""
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
def test_objects_of_a_volume_are_selected_by_plane_by_range_or_all(volume, planes, expected):
    assert objects_in_polygon(volume, rectangle_corners((0, 0), (4, 12)), planes).tolist() == expected
    assert objects_in_polygon(volume, rectangle_corners((0, 0), (4, 8)), planes).tolist() == [
        o for o in expected if o < 3
    ]


@given(st.integers(0, 6))
def test_every_object_of_a_volume_is_in_exactly_one_of_two_adjacent_ranges(cut):
    mask = np.repeat(np.arange(1, 7, dtype=np.uint8), 2)[:, None, None] * np.ones((1, 3, 3), np.uint8)
    objects = index_objects(DataArray(mask, dims=("z", "y", "x")))
    everywhere = rectangle_corners((0, 0), (3, 3))
    below, above = (
        objects_in_polygon(objects, everywhere, points).tolist() for points in (range(0, cut), range(cut, 12))
    )
    assert sorted(below + above) == [1, 2, 3, 4, 5, 6]


def test_planes_are_ignored_in_2d():
    objects = index_objects(DataArray([[3, 0, 8]], dims=("y", "x")))
    assert objects_in_polygon(objects, rectangle_corners((0, 0), (1, 3)), planes=0).tolist() == [3, 8]
