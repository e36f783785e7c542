"""A choice among classifiers takes the best, and the score of choosing is that of the choice on new objects.

That augmentation destroys the classes is said when it does, with how sure that is, and not otherwise.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import norm
from sklearn.metrics import brier_score_loss

from svetlana_jupyter.core.settings import AugmentSettings
from svetlana_jupyter.core.stats import model_selection as choice
from svetlana_jupyter.core.stats.model_selection import (
    PairedComparison,
    compare,
    destroyed,
    merit,
    nested_selection,
    permutation_p_value,
    ranked,
)


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


FREE = AugmentSettings(rotation="free")


def table(truth, predicted) -> pd.DataFrame:
    objects = np.arange(1, len(truth) + 1)
    return pd.DataFrame({"image": "a", "object": objects, "truth": truth, "predicted": predicted})


def guesses(seed: int, truth: np.ndarray, accuracy: float) -> np.ndarray:
    """Return predictions that are right with so much probability, else the other of two classes."""
    right = np.random.default_rng(seed).random(len(truth)) < accuracy
    return np.where(right, truth, 3 - truth)


@pytest.mark.parametrize(("only_first_correct", "only_second_correct"), [(0, 0), (5, 0), (7, 2), (3, 3), (1, 9)])
def test_the_test_of_mcnemar_counts_all_ways_to_toss_a_coin(only_first_correct, only_second_correct):
    tosses = list(itertools.product((0, 1), repeat=only_first_correct + only_second_correct))
    middle = (only_first_correct + only_second_correct) / 2
    extreme = [sum(toss) for toss in tosses if abs(sum(toss) - middle) >= abs(only_first_correct - middle)]
    assert PairedComparison(100, 50, 50, only_first_correct, only_second_correct).p == pytest.approx(
        len(extreme) / len(tosses)
    )


def test_only_objects_that_both_have_are_compared_whatever_their_order():
    first = table([1, 1, 2, 2, 1], [1, 2, 2, 2, 1])
    second = table([1, 1, 2, 2], [2, 2, 2, 1]).iloc[::-1]
    assert compare(first, second) == PairedComparison(
        n=4, first=3, second=1, only_first_correct=2, only_second_correct=0
    )


def test_a_training_that_is_far_better_without_augmentation_is_said_with_counts_and_certainty():
    truth = np.tile([1, 2], 25)
    said = destroyed(FREE, table(truth, guesses(0, truth, 0.5)), table(truth, truth))
    assert said.startswith(
        "Augmentation destroys the classes: without it 50 of 50 held-out objects are right, with it "
    )
    assert "(p < 0.001)" in said
    assert "how objects are turned, how they are mirrored, brightness and noise" in said


def test_a_large_difference_that_chance_may_have_made_is_not_said():
    truth = np.tile([1, 2], 10)
    nearly = truth.copy()
    nearly[:3] = 3 - nearly[:3]
    assert destroyed(FREE, table(truth, nearly), table(truth, truth)) == ""


def test_a_certain_but_small_difference_is_not_said():
    truth = np.tile([1, 2], 500)
    nearly = truth.copy()
    nearly[:40] = 3 - nearly[:40]
    assert compare(table(truth, truth), table(truth, nearly)).p < 1e-6
    assert destroyed(FREE, table(truth, nearly), table(truth, truth)) == ""


def test_a_score_at_chance_asks_to_try_without_and_says_when_that_does_not_help():
    truth = np.tile([1, 2], 25)
    lost = table(truth, guesses(1, truth, 0.5))
    assert "cannot be told from guessing. Augmentation may destroy" in destroyed(FREE, lost)
    assert "neither can it without augmentation" in destroyed(FREE, lost, table(truth, guesses(2, truth, 0.5)))
    assert destroyed(AugmentSettings.none(), lost) == ""
    assert destroyed(FREE, lost.iloc[:0]) == ""


def test_the_majority_alone_is_guessing_however_high_its_accuracy():
    truth = np.repeat([1, 2], [90, 10])
    assert "90 of 100 right, cannot be told from guessing" in destroyed(FREE, table(truth, np.ones(100, int)))
    assert permutation_p_value(truth, np.ones(100, int)) == 1.0


def test_alarms_are_as_rare_as_they_claim_to_be():
    truth = np.tile([1, 2], 30)
    false = [
        "destroys"
        in destroyed(FREE, table(truth, guesses(seed, truth, 0.8)), table(truth, guesses(-seed % 997, truth, 0.8)))
        for seed in range(1, 120)
    ]
    assert np.mean(false) <= 0.02
    chances = [permutation_p_value(truth, guesses(seed, truth, 0.5)) for seed in range(120)]
    assert 0.0 < np.mean(np.array(chances) <= 0.05) <= 0.12


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"flips": True}, "varies how they are mirrored;"),
        ({"scale": 0.2, "blur": 1.0}, "their size and sharpness"),
        ({"flips": True, "share": 0.0, "color": 0.1}, "varies color;"),
        ({"pipeline": {"transform": {"__class_fullname__": "Blur"}}}, "what the Albumentations pipeline does"),
    ],
)
def test_what_is_varied_is_named(values, words):
    truth = np.tile([1, 2], 25)
    augmentation = AugmentSettings(**{**AugmentSettings.none().model_dump(), **values})
    assert words in destroyed(augmentation, table(truth, guesses(0, truth, 0.5)), table(truth, truth))
