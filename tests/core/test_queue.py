"""Review queues: completeness and order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from svetlana_jupyter.core.queue import distance_order, image_order, random_order, uncertainty_order
from svetlana_jupyter.errors import InputError

OBJECTS = {"a": [1, 2, 5], "empty": [], "b": [9]}


def test_every_object_is_queued_exactly_once() -> None:
    order = [candidate.id for candidate in random_order(OBJECTS, seed=3)]
    assert sorted(order) == [("a", 1), ("a", 2), ("a", 5), ("b", 9)]


def test_the_seed_determines_the_order() -> None:
    assert list(random_order(OBJECTS, seed=1)) == list(random_order(OBJECTS, seed=1))
    assert len({tuple(random_order(OBJECTS, seed)) for seed in range(20)}) > 5


def test_large_and_small_images_come_first_equally_often() -> None:
    first = [next(random_order(OBJECTS, seed)).id for seed in range(2000)]
    counts = pd.Series(first).value_counts()
    assert len(counts) == 4
    assert chisquare(counts).pvalue > 0.001


def test_the_least_certain_object_comes_first_and_unpredicted_objects_are_left_out() -> None:
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["image", "object"])
    order = list(uncertainty_order(pd.DataFrame({"probability": [0.9, np.nan, 0.51]}, index=index)))
    assert [candidate.id for candidate in order] == [("b", 1), ("a", 1)]
    assert "51%" in order[0].reason


point_lists = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@given(point_lists, st.data())
def test_the_nearest_object_comes_first_and_every_other_object_once(centers, data) -> None:
    table = pd.DataFrame(centers, pd.RangeIndex(5, 5 + len(centers)), ["y", "x"], dtype=float)
    start = data.draw(st.sampled_from(list(table.index)))
    order = list(distance_order("a", table, start))
    assert sorted(candidate.label for candidate in order) == sorted(set(table.index) - {start})
    distances = [np.hypot(*(table.loc[candidate.label] - table.loc[start])) for candidate in order]
    assert distances == sorted(distances)


def test_distances_account_for_anisotropic_spacing() -> None:
    table = pd.DataFrame({"z": [0.0, 1.0, 0.0], "y": [0.0, 0.0, 3.0], "x": [0.0, 0.0, 0.0]}, pd.Index([1, 2, 3]))
    assert [candidate.label for candidate in distance_order("a", table, 1)] == [2, 3]
    order = list(distance_order("a", table, 1, spacing=(5, 1, 1)))
    assert [candidate.label for candidate in order] == [3, 2]
    assert order[0].reason == "3 µm from object 1"


def test_sorting_by_distance_to_a_missing_object_is_refused() -> None:
    with pytest.raises(InputError, match="'a' has no object 9"):
        next(distance_order("a", pd.DataFrame({"y": [1.0], "x": [1.0]}, pd.Index([1])), 9))


def test_images_are_visited_one_after_the_other_and_opened_on_demand() -> None:
    opened = []

    def objects():
        for name, labels in OBJECTS.items():
            opened.append(name)
            yield name, labels

    order = image_order(objects())
    assert next(order).id == ("a", 1)
    assert opened == ["a"]
    assert [candidate.id for candidate in order] == [("a", 2), ("a", 5), ("b", 9)]
