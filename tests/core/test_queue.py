"""Queues: every object once, in an order that a seed decides."""

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


def test_every_object_comes_exactly_once() -> None:
    order = [candidate.id for candidate in random_order(OBJECTS, seed=3)]
    assert sorted(order) == [("a", 1), ("a", 2), ("a", 5), ("b", 9)]


def test_the_seed_decides_the_order() -> None:
    assert list(random_order(OBJECTS, seed=1)) == list(random_order(OBJECTS, seed=1))
    assert len({tuple(random_order(OBJECTS, seed)) for seed in range(20)}) > 5


def test_objects_of_large_and_of_small_images_come_first_equally_often() -> None:
    first = [next(random_order(OBJECTS, seed)).id for seed in range(2000)]
    counts = pd.Series(first).value_counts()
    assert len(counts) == 4
    assert chisquare(counts).pvalue > 0.001


def test_the_least_certain_comes_first_and_what_was_not_predicted_never() -> None:
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["image", "object"])
    order = list(uncertainty_order(pd.DataFrame({"probability": [0.9, np.nan, 0.51]}, index=index)))
    assert [candidate.id for candidate in order] == [("b", 1), ("a", 1)]
    assert "51%" in order[0].reason


places = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@given(places, st.data())
def test_the_nearest_comes_first_and_every_other_object_once(centers, data) -> None:
    table = pd.DataFrame(centers, pd.RangeIndex(5, 5 + len(centers)), ["y", "x"], dtype=float)
    start = data.draw(st.sampled_from(list(table.index)))
    order = list(distance_order("a", table, start))
    assert sorted(candidate.label for candidate in order) == sorted(set(table.index) - {start})
    distances = [np.hypot(*(table.loc[candidate.label] - table.loc[start])) for candidate in order]
    assert distances == sorted(distances)


def test_planes_that_lie_far_apart_are_far_apart_where_the_spacing_is_known() -> None:
    table = pd.DataFrame({"z": [0.0, 1.0, 0.0], "y": [0.0, 0.0, 3.0], "x": [0.0, 0.0, 0.0]}, pd.Index([1, 2, 3]))
    assert [candidate.label for candidate in distance_order("a", table, 1)] == [2, 3]
    order = list(distance_order("a", table, 1, spacing=(5, 1, 1)))
    assert [candidate.label for candidate in order] == [3, 2]
    assert order[0].reason == "3 µm from object 1"


def test_near_an_object_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(InputError, match="'a' has no object 9"):
        next(distance_order("a", pd.DataFrame({"y": [1.0], "x": [1.0]}, pd.Index([1])), 9))


def test_one_image_after_the_other_and_no_image_before_its_turn() -> None:
    asked = []

    def objects():
        for name, labels in OBJECTS.items():
            asked.append(name)
            yield name, labels

    order = image_order(objects())
    assert next(order).id == ("a", 1)
    assert asked == ["a"]
    assert [candidate.id for candidate in order] == [("a", 2), ("a", 5), ("b", 9)]
