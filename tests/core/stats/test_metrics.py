"""Scores, confidence intervals and class counts compared with scikit-learn, closed forms and naive loops."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from svetlana_jupyter.core.stats.metrics import PredictedObjects, Proportion, count_classes, score, share_interval

NAMES = {1: "a", 2: "b", 3: "c"}


def simulate_predictions(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 4, n)
    predicted = np.where(rng.random(n) < 0.7, truth, rng.integers(1, 4, n))
    return truth, predicted, np.char.add("well ", rng.integers(0, 12, n).astype(str))


@pytest.mark.parametrize("weighted", [False, True])
def test_scores_equal_those_of_scikit_learn(weighted: bool) -> None:
    truth, predicted, groups = simulate_predictions()
    weights = np.random.default_rng(1).uniform(0.5, 3, len(truth)) if weighted else None
    keywords = {"sample_weight": weights}
    result = score(truth, predicted, NAMES, groups, weights)
    assert (result.confusion.to_numpy() == confusion_matrix(truth, predicted)).all()
    assert result.accuracy.value == pytest.approx(np.average(truth == predicted, weights=weights))
    assert result.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(truth, predicted, **keywords))
    assert result.macro_f1.value == pytest.approx(f1_score(truth, predicted, average="macro", **keywords))
    for name, function in (("recall", recall_score), ("precision", precision_score), ("f1", f1_score)):
        np.testing.assert_allclose(result.per_class[name], function(truth, predicted, average=None, **keywords))
    assert result.per_class["n"].tolist() == [int((truth == class_id).sum()) for class_id in NAMES]


def test_every_group_has_a_row_with_its_own_scores() -> None:
    truth, predicted, groups = simulate_predictions()
    table = score(truth, predicted, NAMES, groups).by_group
    for name in np.unique(groups):
        in_group = groups == name
        row = table.loc[name]
        assert row["n"] == in_group.sum()
        assert row["accuracy"] == pytest.approx((truth == predicted)[in_group].mean())
        assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth[in_group], predicted[in_group]))
        assert row["low"] <= row["accuracy"] <= row["high"]


def test_a_class_that_does_not_occur_is_not_part_of_the_balanced_accuracy() -> None:
    result = score([1, 1, 2, 2], [1, 2, 2, 2], {1: "a", 2: "b", 9: "never"})
    assert result.balanced_accuracy.value == 0.75
    assert math.isnan(result.per_class.loc["never", "recall"])
    assert math.isnan(result.per_class.loc["never", "precision_low"])


def test_scores_without_objects_are_nan() -> None:
    result = score([], [], NAMES)
    assert str(result.accuracy) == "none"
    assert math.isnan(result.macro_f1.low)
    assert result.by_group.empty


def test_without_groups_the_interval_of_the_accuracy_is_that_of_wilson() -> None:
    truth, predicted, _ = simulate_predictions()
    scores = score(truth, predicted, NAMES).accuracy
    wilson = binomtest(int((truth == predicted).sum()), 200).proportion_ci(method="wilson")
    assert (scores.low, scores.high) == pytest.approx((wilson.low, wilson.high), abs=0.003), (
        "up to the bootstrap's noise"
    )


def test_the_bootstrap_draws_whole_groups() -> None:
    """Compare with a naive loop that samples groups with replacement and pools their objects."""
    truth, predicted, groups = simulate_predictions()
    names, rng = np.unique(groups), np.random.default_rng(5)
    accuracies = []
    for _ in range(2000):
        chosen = np.concatenate([np.flatnonzero(groups == name) for name in rng.choice(names, len(names))])
        accuracies.append((truth == predicted)[chosen].mean())
    deviation, value = np.std(accuracies), np.mean(truth == predicted)
    expected = share_interval(value, deviation, 200, len(names))
    scores = score(truth, predicted, NAMES, groups).accuracy
    assert (scores.low, scores.high) == pytest.approx(expected, abs=0.004)


def test_differing_groups_widen_the_interval() -> None:
    groups = np.repeat(np.arange(10), 20)
    truth = np.ones(200, int)
    apart = np.where(groups % 2 == 0, 1, np.where(np.arange(200) % 2 == 0, 1, 2))  # wells with 100 % and with 50 %
    similar = np.tile([1, 1, 1, 2], 50)
    widths = [score(truth, predicted, NAMES, groups).accuracy for predicted in (apart, similar)]
    assert widths[0].value == widths[1].value == 0.75
    assert widths[0].high - widths[0].low > 1.8 * (widths[1].high - widths[1].low)


def test_groups_without_errors_count_as_correlated_objects() -> None:
    """12 groups of 20 are as many as 240 / (1 + 0.05 * 19) independent objects, with Student's t of 11."""
    size = 240 / 1.95
    square = norm.ppf(0.975) ** 2
    square += (t.ppf(0.975, 11) ** 2 - square) * (1 - 12 / 240)
    assert share_interval(1.0, 0.0, 240, 12) == pytest.approx((size / (size + square), 1))


def test_intervals_without_errors_have_a_width() -> None:
    scores = score([1] * 30 + [2] * 30, [1] * 30 + [2] * 30, NAMES, np.tile(np.arange(6), 10))
    normal, student = norm.ppf(0.975) ** 2, t.ppf(0.975, 5) ** 2
    square = [normal + (student - normal) * (1 - 6 / n) for n in (60, 30)]
    size = [n / (1 + 0.05 * (n / 6 - 1)) for n in (60, 30)]
    assert scores.accuracy.value == scores.accuracy.high == 1
    assert scores.accuracy.low == pytest.approx(size[0] / (size[0] + square[0]))
    assert scores.balanced_accuracy.low == pytest.approx(scores.accuracy.low), (
        "two classes of thirty have the same effective size"
    )
    assert scores.per_class.loc["a", "recall_low"] == pytest.approx(size[1] / (size[1] + square[1]))


def test_groups_of_one_object_give_the_interval_of_single_objects() -> None:
    truth, predicted, _ = simulate_predictions(40)
    alone = score(truth, predicted, NAMES, np.arange(40)).accuracy
    assert (alone.low, alone.high) == pytest.approx(
        binomtest(int((truth == predicted).sum()), 40).proportion_ci(method="wilson"), abs=0.01
    )


def test_a_class_in_one_group_has_the_interval_of_single_objects() -> None:
    truth = np.array([1] * 40 + [2] * 10)
    predicted = np.array([1] * 36 + [2] * 4 + [2] * 8 + [1] * 2)
    groups = np.array(["A", "B"] * 20 + ["A"] * 10)
    row = score(truth, predicted, NAMES, groups).per_class.loc["b"]
    wilson = binomtest(8, 10).proportion_ci(method="wilson")
    assert row["groups"] == 1
    assert (row["recall_low"], row["recall_high"]) == pytest.approx((wilson.low, wilson.high))


def test_unequal_weights_reduce_the_effective_sample_size() -> None:
    weights = np.where(np.arange(100) < 10, 10.0, 1.0)
    scores = score(np.ones(100, int), np.ones(100, int), NAMES, weights=weights).accuracy
    effective = weights.sum() ** 2 / (weights**2).sum()
    assert scores.low == pytest.approx(effective / (effective + 1.959964**2), abs=1e-6)
    assert scores.n == 100


def test_the_bootstrap_draws_as_many_objects_as_there_are() -> None:
    classes = np.repeat([1, 2, 3], [2, 3, 5])
    confusions = PredictedObjects((classes, classes), [1, 2, 3], None, None).bootstrap_confusions()
    sums = np.diagonal(confusions, axis1=1, axis2=2)
    assert set(confusions.sum(axis=(1, 2))) == {10}
    assert (sums.sum(axis=1) == 10).all()
    np.testing.assert_allclose(sums.mean(axis=0), [2, 3, 5], atol=0.1)
    np.testing.assert_allclose(sums.var(axis=0), 10 * np.array([0.2 * 0.8, 0.3 * 0.7, 0.25]), rtol=0.1)


shares = st.floats(0, 1, allow_subnormal=False)


@given(shares, st.floats(0, 0.5, allow_subnormal=False), st.floats(1, 1e5), st.integers(1, 50))
def test_an_interval_contains_its_value_and_stays_between_0_and_1(value, deviation, n, groups) -> None:
    low, high = share_interval(value, deviation, n, groups)
    assert 0 <= low <= value <= high <= 1


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 4)), min_size=1, max_size=40))
def test_scores_do_not_depend_on_the_order_of_the_objects(rows) -> None:
    tables = []
    for subset in (rows, rows[::-1]):
        truth, predicted, groups = zip(*subset)
        tables.append(score(truth, predicted, NAMES, groups))
    pd.testing.assert_frame_equal(tables[0].per_class, tables[1].per_class)
    assert str(tables[0].accuracy) == str(tables[1].accuracy)


def test_the_interval_of_two_groups_has_a_closed_form() -> None:
    """The variance of two groups with 50 % and 100 % equals that of three independent objects."""
    deviation = np.sqrt(0.25**2 / 2)  # of the bootstrap, which divides by the number of groups
    square = norm.ppf(0.975) ** 2
    square += (t.ppf(0.975, 1) ** 2 - square) * (1 - 2 / 40)
    center = (3 * 0.75 + square / 2) / (3 + square)
    half = np.sqrt(square * (3 * 0.75 * 0.25 + square / 4)) / (3 + square)
    assert share_interval(0.75, deviation, 40, 2) == pytest.approx((center - half, center + half))


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 5), (5, 5), (37, 100)])
def test_the_interval_of_a_proportion_is_that_of_wilson(k: int, n: int) -> None:
    z = 1.959963984540054
    center, half = (k + z * z / 2) / (n + z * z), z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    assert Proportion(k, n).interval == pytest.approx((center - half, center + half), abs=1e-9)


def test_a_proportion_of_no_objects_is_nan() -> None:
    assert math.isnan(Proportion(0, 0).value)
    assert str(Proportion(0, 0)) == "none"


def test_every_class_is_counted_in_every_group_and_unclassified_objects_are_excluded() -> None:
    table = pd.DataFrame({"well": ["A", "A", "A", "B"], "class": ["x", "x", None, "y"]})
    counts = count_classes(table, ["x", "y"], ["well"]).set_index(["well", "class"])
    assert counts["count"].to_dict() == {("A", "x"): 2, ("A", "y"): 0, ("B", "x"): 0, ("B", "y"): 1}
    assert counts.loc[("A", "x"), "total"] == 2
    assert counts.loc[("A", "x"), "left_out"] == 1


def test_without_groups_all_objects_are_counted_together() -> None:
    counts = count_classes(pd.DataFrame({"class": ["x", "y", "x"]}), ["x", "y"])
    assert list(counts["count"]) == [2, 1]
    assert counts.columns[0] == "class"
