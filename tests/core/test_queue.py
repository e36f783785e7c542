"""Queues: every object once, in an order that a seed decides."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import chisquare

from svetlana_jupyter.core.queue import least_certain, random_order

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
    assert len(counts) == 4 and chisquare(counts).pvalue > 0.001


def test_the_least_certain_comes_first_and_what_was_not_predicted_never() -> None:
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["image", "object"])
    order = list(least_certain(pd.DataFrame({"probability": [0.9, np.nan, 0.51]}, index=index)))
    assert [candidate.id for candidate in order] == [("b", 1), ("a", 1)] and "51%" in order[0].reason
