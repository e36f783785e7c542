"""Which objects are on which page of a gallery, and selections, whose laws hold for every sequence of clicks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svetlana_jupyter.core.gallery import Pagination, Selection, Wanted, arrange, gather

NOTHING_PREDICTED = pd.DataFrame({"predicted": [], "probability": []})
CELLS = st.integers(0, 59)
SELECTIONS = st.builds(
    lambda chosen, anchor: Selection(frozenset(chosen), anchor, anchor), st.sets(CELLS), st.integers(-1, 59)
)


def index(labels, size=10, **columns):
    table = pd.DataFrame({"size": size, "y": 0.0, "x": np.arange(len(labels), dtype=float)}, index=labels)
    table = table.assign(y0=0, y1=9, x0=0, x1=9)
    return table.rename_axis("object").assign(**columns)


def labels(*said):
    columns = ["image", "object", "action", "class_id"]
    return pd.DataFrame(said, columns=columns).set_index(["image", "object"])


@pytest.fixture
def table():
    """In "a" 1 is annotated as predicted, 2 otherwise, 3 is set aside, 4 is skipped; nothing is known of "b"."""
    objects = {"a": index([1, 2, 3, 4], size=[40, 30, 20, 10]), "b": index([1, 7], size=[35, 5])}
    predicted = pd.DataFrame({"predicted": [1, 1, 2, 2], "probability": [0.9, 0.6, 0.8, 0.7]}, index=[1, 2, 3, 4])
    said = [("a", 1, "label", 1), ("a", 2, "label", 2), ("a", 3, "bad", 0), ("a", 4, "skip", 0), ("b", 99, "label", 1)]
    return gather(objects, {"a": predicted, "b": NOTHING_PREDICTED}, labels(*said, ("gone", 5, "label", 1)))


def ids(table, **wanted):
    rows = table.iloc[arrange(table, Wanted(**wanted))]
    return [f"{image}{object}" for image, object in zip(rows["image"], rows["object"])]


def test_every_object_has_one_row_with_what_is_known_of_it(table):
    assert list(table["action"]) == ["label", "label", "bad", "", "", ""]
    assert list(table["class_id"]) == [1, 2, 0, 0, 0, 0]
    assert list(table["predicted"]) == [1, 1, 2, 2, 0, 0]
    assert np.isnan(table["probability"]).sum() == 2


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"which": "unlabelled"}, ["a4", "b1", "b7"]),
        ({"which": "annotated"}, ["a1", "a2", "a3"]),
        ({"which": "corrected"}, ["a2"]),
        ({"class_id": 2}, ["a2", "a4"]),
        ({"images": ("b",)}, ["b1", "b7"]),
        ({"images": ("b",), "class_id": 1}, []),
    ],
)
def test_a_gallery_shows_what_is_wanted(table, wanted, expected):
    assert ids(table, order="position", **wanted) == expected


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


def test_objects_in_the_order_of_position_come_in_bands():
    table = gather(
        {"a": index([1, 2, 3], y=[30.0, 12.0, 8.0], x=[5.0, 50.0, 90.0])}, {"a": NOTHING_PREDICTED}, labels()
    )
    assert ids(table, order="position") == ["a2", "a3", "a1"]


def test_planes_of_a_volume_come_one_after_the_other():
    table = gather({"a": index([1, 2], z=[4.0, 1.0])}, {"a": NOTHING_PREDICTED}, labels())
    assert ids(table, order="position") == ["a2", "a1"]


def test_the_random_order_is_that_of_its_seed_and_the_same_under_any_filter(table):
    assert ids(table, seed=3) == ids(table, seed=3)
    assert len({tuple(ids(table, seed=seed)) for seed in range(20)}) > 10
    everything = ids(table, seed=3)
    assert ids(table, seed=3, which="unlabelled") == [id for id in everything if id in ("a4", "b1", "b7")]


def test_a_gallery_without_images_is_empty():
    assert arrange(gather({}, {}, labels()), Wanted()).tolist() == []


@given(st.integers(0, 500), st.integers(1, 70))
def test_pages_hold_every_place_once_in_order(total, size):
    pages = Pagination(total, size)
    assert [place for page in range(pages.count) for place in pages.places(page)] == list(range(total))
    assert all(pages.page_containing(place) == page for page in range(pages.count) for place in pages.places(page))
    assert pages.nearest(-5) == 0 and pages.nearest(10**6) == pages.count - 1


@given(SELECTIONS, CELLS)
def test_toggling_twice_changes_nothing(selection, cell):
    assert selection.with_toggled(cell).with_toggled(cell).chosen == selection.chosen


@given(SELECTIONS, st.integers(60, 80))
def test_inverting_twice_changes_nothing_and_once_leaves_nothing_in_common(selection, count):
    inverse = selection.inverted(count)
    assert not inverse.chosen & selection.chosen
    assert inverse.chosen | selection.chosen == set(range(count))
    assert inverse.inverted(count).chosen == selection.chosen


@given(SELECTIONS, CELLS, CELLS)
def test_a_range_holds_both_ends_and_all_between_from_either_side(selection, first, last):
    chosen = selection.only(first).with_range(last).chosen
    assert chosen == set(range(min(first, last), max(first, last) + 1))
    assert chosen == selection.only(last).with_range(first).chosen


@given(SELECTIONS, CELLS, CELLS)
def test_the_last_end_of_a_range_counts_and_its_beginning_stays(selection, passed, last):
    assert selection.with_range(passed).with_range(last) == selection.with_range(last) or selection.anchor < 0
    assert selection.with_range(last).with_range(last) == selection.with_range(last)
    assert selection.with_range(last, keep=True).chosen == selection.with_range(last).chosen | selection.chosen


@given(SELECTIONS, st.integers(0, 60))
def test_what_is_left_on_a_shorter_page_lies_on_it(selection, count):
    left = selection.within(count)
    assert left.chosen == {cell for cell in selection.chosen if cell < count}
    assert left.anchor < count and left.cursor < count
