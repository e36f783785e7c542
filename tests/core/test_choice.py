"""A choice among classifiers takes the best, and the score of choosing is that of the choice on new objects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import norm
from sklearn.metrics import brier_score_loss

from svetlana_jupyter.core import choice
from svetlana_jupyter.core.choice import merit, nested_selection, ranked


def sure(truth: np.ndarray, right: np.ndarray, share: float = 0.9) -> np.ndarray:
    """Return probabilities that name the true class where ``right``."""
    p = np.where(right, share, 1 - share)
    return np.where(np.arange(2) == truth[:, None], p[:, None], 1 - p[:, None])


def test_merit_is_the_brier_score_after_the_best_temperature():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 50)  # as many of each class: means over objects and over classes are the same
    logits = rng.normal(0, 3, (100, 2))
    logits[np.arange(100), truth] += 2

    def loss(log: float) -> float:
        p = softmax(logits / np.exp(log), axis=1)
        return float(-np.log(p[np.arange(100), truth]).mean() + log**2 / 200)

    best = minimize_scalar(loss, bounds=(-2, 2), method="bounded").x
    p = softmax(logits / np.exp(best), axis=1)
    assert merit(truth, softmax(logits, axis=1)) == pytest.approx(1 - brier_score_loss(truth, p[:, 1]), abs=2e-3)


def test_how_sure_a_classifier_is_does_not_decide():
    truth = np.arange(40) % 2
    right = np.arange(40) % 10 > 0
    assert merit(truth, sure(truth, right, 0.99)) == pytest.approx(merit(truth, sure(truth, right, 0.7)), abs=0.02)
    better = np.arange(40) % 20 > 0
    assert ranked(truth, {"bold": sure(truth, right, 0.999), "shy": sure(truth, better, 0.6)}) == ["shy", "bold"]


def test_a_rare_class_counts_as_much_as_its_objects_and_as_a_class():
    truth = np.r_[np.zeros(90, int), np.ones(10, int)]
    never, sometimes = truth == 0, (truth == 1) | (np.arange(100) >= 10)
    assert never.sum() == sometimes.sum()
    assert ranked(truth, {"never": sure(truth, never), "sometimes": sure(truth, sometimes)})[0] == "sometimes"


def test_of_equally_good_ones_the_first_is_taken_and_probabilities_of_zero_are_no_trouble():
    truth = np.arange(20) % 2
    perfect = np.eye(2)[truth]
    assert ranked(truth, {"b": perfect, "a": perfect.copy(), "c": 1 - perfect}) == ["b", "a", "c"]
    assert 0 <= merit(truth, 1 - perfect) < 0.6 < merit(truth, perfect) <= 1


def test_a_fold_is_predicted_by_the_candidate_that_the_others_choose():
    truth, folds = np.arange(40) % 2, np.repeat([1, 2, 3, 4], 10)
    one, other = sure(truth, folds != 1), sure(truth, folds == 1)
    predicted, names = nested_selection(truth, folds, {"one": one, "other": other})
    assert names == ["one", "one", "one", "one"]
    np.testing.assert_array_equal(predicted, one)
    lucky = sure(truth, folds == 2)  # it is the best by its own fold alone
    assert nested_selection(truth, folds, {"lucky": lucky, "one": one})[1][1] == "one"


def test_the_score_of_choosing_is_unbiased_where_that_of_the_chosen_one_is_not():
    """Seven equally good classifiers, 45 objects, 150 times: by how much each score misses the truth."""
    rng = np.random.default_rng(0)
    accuracy, folds, missed = 0.8, np.arange(45) % 4, []
    for _ in range(150):
        truth = rng.integers(0, 2, 45)
        margins = norm.ppf(accuracy) + np.sqrt(0.6) * rng.normal(size=(45, 1)) + np.sqrt(0.4) * rng.normal(size=(45, 7))
        shares = 1 / (1 + np.exp(-2 * margins))
        known = {
            str(n): np.where(np.arange(2) == truth[:, None], p[:, None], 1 - p[:, None]) for n, p in enumerate(shares.T)
        }
        outer, _ = nested_selection(truth, folds, known)
        tables = (outer, known[ranked(truth, known)[0]])
        missed.append([(p.argmax(1) == truth).mean() - accuracy for p in tables])
    bias, noise = np.mean(missed, axis=0), np.std(missed, axis=0) / np.sqrt(len(missed))
    assert abs(bias[0]) < 3 * noise[0]
    assert bias[1] > 5 * noise[1] and bias[1] > 0.03


def test_temperatures_reach_far_enough_to_both_sides():
    assert choice.TEMPERATURES.min() < 0.2 and choice.TEMPERATURES.max() > 5
    assert 1.0 in choice.TEMPERATURES
