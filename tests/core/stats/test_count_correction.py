"""Corrected counts compared with closed forms, least squares and simulated counts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from svetlana_jupyter.core.stats.count_correction import ConfusionRates, estimate_confusion_rates, solve_counts

RATES = np.array([[0.9, 0.1], [0.25, 0.75]])
THREE = np.array([[0.8, 0.15, 0.05], [0.1, 0.85, 0.05], [0.1, 0.2, 0.7]])


def exactly(rates: np.ndarray) -> ConfusionRates:
    return ConfusionRates(rates, rates[None], np.ones(len(rates), bool))


def simulate_predictions(rng: np.random.Generator, rates: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return random predictions with the confusion rates of each true class."""
    return (rng.random(len(truth))[:, None] > np.cumsum(rates, axis=1)[truth]).sum(axis=1)


@pytest.mark.parametrize("first", [20, 55, 80])
def test_two_classes_are_corrected_as_by_rogan_and_gladen(first: int) -> None:
    sensitivity, specificity = RATES[0, 0], RATES[1, 1]
    expected = 100 * ((first / 100 + specificity - 1) / (sensitivity + specificity - 1))
    value, _, _ = solve_counts(exactly(RATES), [first, 100 - first])
    assert value == pytest.approx(np.clip([expected, 100 - expected], 0, 100))


@pytest.mark.parametrize("predicted", [[30, 50, 20], [5, 90, 5], [100, 0, 0], [0, 0, 7]])
def test_several_classes_are_corrected_by_constrained_least_squares(predicted: list[int]) -> None:
    """Compare with NumPy where its solution is feasible, otherwise with random feasible solutions."""
    value, _, _ = solve_counts(exactly(THREE), predicted)
    solved = np.linalg.solve(THREE.T, predicted)
    assert value.sum() == pytest.approx(sum(predicted))
    assert (value >= 0).all()
    if (solved >= 0).all():
        assert value == pytest.approx(solved)
        assert value == pytest.approx(nnls(THREE.T, np.array(predicted, float))[0])
    else:
        alternatives = np.random.default_rng(0).dirichlet(np.ones(3), 5000) * sum(predicted)
        assert np.linalg.norm(value - solved) <= np.linalg.norm(alternatives - solved, axis=1).min()


def test_weighted_rates_equal_those_of_a_loop() -> None:
    rng = np.random.default_rng(1)
    truth, predicted, weights = rng.integers(0, 3, 60), rng.integers(0, 3, 60), rng.uniform(1, 9, 60)
    expected = np.zeros((3, 3))
    for t, p, w in zip(truth, predicted, weights):
        expected[t, p] += w
    rates = estimate_confusion_rates(truth + 4, predicted + 4, [4, 5, 6], weights=weights)
    assert rates.rates == pytest.approx(expected / expected.sum(axis=1, keepdims=True))
    assert rates.is_observed.all()
    assert rates.bootstrap_rates.sum(axis=2) == pytest.approx(1)
    assert rates.bootstrap_rates.std(axis=0).min() > 0


def test_a_class_without_objects_counts_as_recognized() -> None:
    rates = estimate_confusion_rates([1, 1, 2, 2], [1, 2, 2, 2], [1, 2, 3])
    assert rates.is_observed.tolist() == [True, True, False]
    assert rates.rates[2].tolist() == [0, 0, 1]


def test_classes_that_are_predicted_alike_cannot_be_corrected() -> None:
    assert not estimate_confusion_rates([1, 1, 2, 2], [1, 2, 1, 2], [1, 2]).is_invertible
    assert exactly(RATES).is_invertible


@pytest.mark.parametrize(("rates", "shares"), [(RATES, [0.15, 0.85]), (THREE, [0.1, 0.3, 0.6])])
def test_corrected_counts_are_unbiased_with_covering_intervals_unlike_raw_ones(rates, shares) -> None:
    """Use class proportions that differ from the test set, so that its precision does not suffice."""
    rng, n, k, draws = np.random.default_rng(7), 600, len(rates), 200
    errors, raw, inside = np.zeros((draws, k)), np.zeros((draws, k)), np.zeros((draws, k))
    for i in range(draws):
        sampled_truth = rng.integers(0, k, 240)
        estimated = estimate_confusion_rates(
            sampled_truth, simulate_predictions(rng, rates, sampled_truth), list(range(k)), seed=i
        )
        truth = rng.choice(k, n, p=shares)
        true = np.bincount(truth, minlength=k)
        predicted = np.bincount(simulate_predictions(rng, rates, truth), minlength=k)
        value, low, high = solve_counts(estimated, predicted, seed=i)
        errors[i], raw[i], inside[i] = value - true, predicted - true, (low <= true) & (true <= high)
    noise = errors.std(axis=0) / np.sqrt(draws)
    assert (abs(errors.mean(axis=0)) < 3.5 * noise).all()
    assert (abs(raw.mean(axis=0)) > 20 * raw.std(axis=0) / np.sqrt(draws)).any()
    assert (inside.mean(axis=0) >= 0.9).all()
    assert (inside.mean(axis=0) <= 0.99).all()


def test_an_unobserved_confusion_is_not_ruled_out() -> None:
    rates = estimate_confusion_rates([0] * 30 + [1] * 30, [0] * 30 + [1] * 30, [0, 1])
    value, low, high = solve_counts(rates, [100, 900])
    assert value.tolist() == [100, 900]
    assert low[0] < 60, "up to a tenth of the others may be taken for it"
    assert high[0] >= 100


def test_differing_groups_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    truth = np.tile([0, 1], 100)
    group = np.repeat(np.arange(8), 25)
    wrong = rng.random(200) < np.where(group < 2, 0.6, 0.02)
    predicted = np.where(wrong, 1 - truth, truth)
    widths = []
    for groups in (None, group):
        _, low, high = solve_counts(estimate_confusion_rates(truth, predicted, [0, 1], groups), [3000, 7000])
        widths.append(high[0] - low[0])
    assert widths[1] > 1.4 * widths[0]


def test_no_predictions_give_zero_counts() -> None:
    assert [part.tolist() for part in solve_counts(exactly(RATES), [0, 0])] == [[0, 0]] * 3
