"""Counts and fractions, against a closed form."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from svetlana_jupyter.core.statistics import Proportion, count_classes


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 5), (5, 5), (37, 100)])
def test_the_interval_is_wilsons(k: int, n: int) -> None:
    z = 1.959963984540054
    center, half = (k + z * z / 2) / (n + z * z), z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    assert Proportion(k, n).interval == pytest.approx((center - half, center + half), abs=1e-9)


def test_nothing_of_nothing_is_no_number() -> None:
    assert math.isnan(Proportion(0, 0).value) and str(Proportion(0, 0)) == "none"


def test_every_class_is_counted_in_every_group_and_what_has_none_is_left_out() -> None:
    table = pd.DataFrame({"well": ["A", "A", "A", "B"], "class": ["x", "x", None, "y"]})
    counts = count_classes(table, ["x", "y"], ["well"]).set_index(["well", "class"])
    assert counts["count"].to_dict() == {("A", "x"): 2, ("A", "y"): 0, ("B", "x"): 0, ("B", "y"): 1}
    assert counts.loc[("A", "x"), "total"] == 2 and counts.loc[("A", "x"), "left_out"] == 1
    assert counts.loc[("A", "x"), "fraction"] == 1.0 and counts.loc[("A", "x"), "low"] < 1.0


def test_without_groups_all_objects_are_counted_together() -> None:
    counts = count_classes(pd.DataFrame({"class": ["x", "y", "x"]}), ["x", "y"])
    assert list(counts["count"]) == [2, 1] and counts.columns[0] == "class"
