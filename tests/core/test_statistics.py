"""Counts, fractions and scores, against scikit-learn, a closed form and a naive loop."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_score, recall_score

from svetlana_jupyter.core.statistics import Proportion, count_classes, score


def test_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(1, 4, 200), rng.integers(1, 4, 200)
    result = score(truth, predicted, {1: "a", 2: "b", 3: "c"})
    assert (result.confusion.to_numpy() == confusion_matrix(truth, predicted)).all()
    assert result.accuracy.value == pytest.approx(np.mean(truth == predicted))
    assert result.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, predicted))
    np.testing.assert_allclose(result.per_class["recall"], recall_score(truth, predicted, average=None))
    np.testing.assert_allclose(result.per_class["precision"], precision_score(truth, predicted, average=None))


def test_a_class_that_does_not_occur_does_not_spoil_the_balanced_accuracy() -> None:
    result = score([1, 1, 2, 2], [1, 2, 2, 2], {1: "a", 2: "b", 9: "never"})
    assert result.balanced_accuracy == 0.75 and math.isnan(result.per_class.loc["never", "recall"])


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
