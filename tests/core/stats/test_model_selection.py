"""Model selection, its nested score and the augmentation warning."""

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
from svetlana_jupyter.core.stats import model_selection
from svetlana_jupyter.core.stats.model_selection import (
    PairedComparison,
    _calibrated_distances,
    augmentation_warning,
    brier_skill,
    compare_paired,
    may_gain,
    nested_selection,
    permutation_p_value,
    possible_gain,
    rank_candidates,
    select_candidate,
)


def probabilities(truth: np.ndarray, right: np.ndarray, share: float = 0.9) -> np.ndarray:
    """Return the probability ``share`` for the true class where ``right``, otherwise for the other class."""
    p = np.where(right, share, 1 - share)
    return np.where(np.arange(2) == truth[:, None], p[:, None], 1 - p[:, None])


def test_brier_skill_is_the_brier_score_after_the_best_temperature():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 50)  # balanced, so that means over objects and classes agree
    logits = rng.normal(0, 3, (100, 2))
    logits[np.arange(100), truth] += 2

    def loss(log: float) -> float:
        p = softmax(logits / np.exp(log), axis=1)
        return float(-np.log(p[np.arange(100), truth]).mean() + log**2 / 200)

    best = minimize_scalar(loss, bounds=(-2, 2), method="bounded").x
    p = softmax(logits / np.exp(best), axis=1)
    assert brier_skill(truth, softmax(logits, axis=1)) == pytest.approx(1 - brier_score_loss(truth, p[:, 1]), abs=2e-3)


def test_the_confidence_of_a_classifier_does_not_decide():
    truth = np.arange(40) % 2
    right = np.arange(40) % 10 > 0
    assert brier_skill(truth, probabilities(truth, right, 0.99)) == pytest.approx(
        brier_skill(truth, probabilities(truth, right, 0.7)), abs=0.02
    )
    better = np.arange(40) % 20 > 0
    assert rank_candidates(
        truth, {"bold": probabilities(truth, right, 0.999), "shy": probabilities(truth, better, 0.6)}
    ) == ["shy", "bold"]


def test_a_rare_class_counts_both_as_objects_and_as_a_class():
    truth = np.r_[np.zeros(90, int), np.ones(10, int)]
    never, sometimes = truth == 0, (truth == 1) | (np.arange(100) >= 10)
    assert never.sum() == sometimes.sum()
    assert (
        rank_candidates(truth, {"never": probabilities(truth, never), "sometimes": probabilities(truth, sometimes)})[0]
        == "sometimes"
    )


def test_equal_candidates_keep_their_order_and_zero_probabilities_are_allowed():
    truth = np.arange(20) % 2
    perfect = np.eye(2)[truth]
    assert rank_candidates(truth, {"b": perfect, "a": perfect.copy(), "c": 1 - perfect}) == ["b", "a", "c"]
    assert 0 <= brier_skill(truth, 1 - perfect) < 0.6 < brier_skill(truth, perfect) <= 1


def test_a_fold_is_predicted_by_the_candidate_that_the_other_folds_select():
    truth, folds = np.arange(40) % 2, np.repeat([1, 2, 3, 4], 10)
    one, other = probabilities(truth, folds != 1), probabilities(truth, folds == 1)
    predicted = nested_selection(truth, folds, {"one": one, "other": other})
    np.testing.assert_array_equal(predicted, one)
    lucky = probabilities(truth, folds == 2)  # the best in its own fold only
    predicted = nested_selection(truth, folds, {"lucky": lucky, "one": one})
    np.testing.assert_array_equal(predicted[folds == 2], one[folds == 2])


def test_the_nested_score_is_unbiased_unlike_that_of_the_selected_candidate():
    """Compare both scores with the true score for seven equally good classifiers of 45 objects, 150 times."""
    rng = np.random.default_rng(0)
    accuracy, folds, missed = 0.8, np.arange(45) % 4, []
    for _ in range(150):
        truth = rng.integers(0, 2, 45)
        margins = norm.ppf(accuracy) + np.sqrt(0.6) * rng.normal(size=(45, 1)) + np.sqrt(0.4) * rng.normal(size=(45, 7))
        shares = 1 / (1 + np.exp(-2 * margins))
        known = {
            str(n): np.where(np.arange(2) == truth[:, None], p[:, None], 1 - p[:, None]) for n, p in enumerate(shares.T)
        }
        outer = nested_selection(truth, folds, known)
        tables = (outer, known[rank_candidates(truth, known)[0]])
        missed.append([(p.argmax(1) == truth).mean() - accuracy for p in tables])
    bias, noise = np.mean(missed, axis=0), np.std(missed, axis=0) / np.sqrt(len(missed))
    assert abs(bias[0]) < 3 * noise[0]
    assert bias[1] > 5 * noise[1]
    assert bias[1] > 0.03


def test_the_possible_gain_is_the_loss_and_its_standard_error_over_units():
    truth, units = np.repeat([0, 1], 20), np.tile(np.arange(8), 5)
    rng = np.random.default_rng(0)
    p = probabilities(truth, rng.random(40) < 0.8)
    p = 0.7 * p + 0.3 * rng.dirichlet([1, 1], 40)
    loss = 1 - brier_skill(truth, p)
    resampled = []
    for _ in range(4000):  # a cluster bootstrap of the same calibrated probabilities
        counts = np.bincount(rng.integers(0, 8, 8), minlength=8)[units]
        resampled.append((counts * _calibrated_distances(truth, p)[0]).sum() / counts.sum())
    assert possible_gain(truth, p, units) == pytest.approx(loss + np.std(resampled) * np.sqrt(8 / 7), rel=0.05)
    assert possible_gain(truth, np.eye(2)[truth], units) < 0.001


def test_an_early_end_of_the_search_leaves_the_nested_score_unbiased():
    """Simulate a fast candidate and, if its loss is high, a better one, each with a constant true accuracy."""
    rng = np.random.default_rng(0)
    truth, folds = np.arange(40) % 2, np.arange(40) // 10
    errors, naive, ends = [], [], 0
    for _ in range(400):
        accuracies = {"fast": rng.uniform(0.85, 1), "slow": 0.95}
        candidates = {name: probabilities(truth, rng.random(40) < right) for name, right in accuracies.items()}
        if not may_gain(truth, folds, np.arange(40), {"fast": candidates["fast"]}, 0.06):
            del candidates["slow"]
            ends += 1
        chosen = rank_candidates(truth, candidates)[0]
        for found, p in ((errors, nested_selection(truth, folds, candidates)), (naive, candidates[chosen])):
            found.append((p.argmax(axis=1) == truth).mean() - accuracies[chosen])
    assert 50 < ends < 350
    assert abs(np.mean(errors)) < 2.5 * np.std(errors) / 20
    assert np.mean(naive) > 2.5 * np.std(naive) / 20, "the score of the selected candidate is biased"


@pytest.mark.parametrize("fold", range(4))
def test_a_search_goes_on_if_it_would_without_any_one_fold(fold):
    truth, folds = np.arange(40) % 2, np.arange(40) // 10
    right = np.ones(40, bool)
    right[folds != fold] = np.arange(30) % 10 > 0
    candidates = {"fast": probabilities(truth, right)}
    everything = possible_gain(truth, candidates["fast"], np.arange(40))
    others = possible_gain(truth[folds != fold], candidates["fast"][folds != fold], np.arange(30))
    assert everything < others
    assert may_gain(truth, folds, np.arange(40), candidates, (everything + others) / 2)
    assert not may_gain(truth, folds, np.arange(40), candidates, others + 0.001)


def test_temperatures_reach_far_enough_to_either_side():
    assert model_selection.TEMPERATURES.min() < 0.2
    assert model_selection.TEMPERATURES.max() > 5
    assert 1.0 in model_selection.TEMPERATURES


FREE = AugmentSettings(rotation="free")


def table(truth, predicted) -> pd.DataFrame:
    objects = np.arange(1, len(truth) + 1)
    return pd.DataFrame({"image": "a", "object": objects, "truth": truth, "predicted": predicted})


def simulate_predictions(seed: int, truth: np.ndarray, accuracy: float) -> np.ndarray:
    """Return predictions of two classes with this expected accuracy."""
    right = np.random.default_rng(seed).random(len(truth)) < accuracy
    return np.where(right, truth, 3 - truth)


@pytest.mark.parametrize(("only_first_correct", "only_second_correct"), [(0, 0), (5, 0), (7, 2), (3, 3), (1, 9)])
def test_mcnemars_test_counts_all_outcomes_of_coin_tosses(only_first_correct, only_second_correct):
    tosses = list(itertools.product((0, 1), repeat=only_first_correct + only_second_correct))
    middle = (only_first_correct + only_second_correct) / 2
    extreme = [sum(toss) for toss in tosses if abs(sum(toss) - middle) >= abs(only_first_correct - middle)]
    truth = np.ones(only_first_correct + only_second_correct + 1, int)
    first, second = truth.copy(), truth.copy()
    first[:only_second_correct] = second[only_second_correct:-1] = 2
    comparison = compare_paired(table(truth, first), table(truth, second))
    assert comparison.p == pytest.approx(len(extreme) / len(tosses))


def test_only_common_objects_are_compared_in_any_order():
    first = table([1, 1, 2, 2, 1], [1, 2, 2, 2, 1])
    second = table([1, 1, 2, 2], [2, 2, 2, 1]).iloc[::-1]
    assert compare_paired(first, second) == PairedComparison(n=4, first=3, second=1, p=0.5)


def test_a_much_better_training_without_augmentation_is_reported():
    truth = np.tile([1, 2], 25)
    warning = augmentation_warning(FREE, table(truth, simulate_predictions(0, truth, 0.5)), table(truth, truth))
    assert warning.startswith(
        "Augmentation destroys the classes: without it 50 of 50 held-out objects are correct, with it "
    )
    assert "(p < 0.001)" in warning
    assert "rotation, mirroring, brightness and noise" in warning


def test_a_large_but_insignificant_difference_is_not_reported():
    truth = np.tile([1, 2], 10)
    nearly = truth.copy()
    nearly[:3] = 3 - nearly[:3]
    assert augmentation_warning(FREE, table(truth, nearly), table(truth, truth)) == ""


def test_a_significant_but_small_difference_is_not_reported():
    truth = np.tile([1, 2], 500)
    nearly = truth.copy()
    nearly[:40] = 3 - nearly[:40]
    assert compare_paired(table(truth, truth), table(truth, nearly)).p < 1e-6
    assert augmentation_warning(FREE, table(truth, nearly), table(truth, truth)) == ""


def test_a_score_at_chance_suggests_training_without_augmentation():
    truth = np.tile([1, 2], 25)
    lost = table(truth, simulate_predictions(1, truth, 0.5))
    assert "is no better than chance. Augmentation may destroy" in augmentation_warning(FREE, lost)
    assert "nor is it without augmentation" in augmentation_warning(
        FREE, lost, table(truth, simulate_predictions(2, truth, 0.5))
    )
    assert augmentation_warning(AugmentSettings.none(), lost) == ""
    assert augmentation_warning(FREE, lost.iloc[:0]) == ""


def test_predicting_the_majority_only_is_no_better_than_chance():
    truth = np.repeat([1, 2], [90, 10])
    assert "90 of 100 held-out objects correct, is no better than chance" in augmentation_warning(
        FREE, table(truth, np.ones(100, int))
    )
    assert permutation_p_value(truth, np.ones(100, int)) == 1.0


def test_false_alarms_are_rare():
    truth = np.tile([1, 2], 30)
    false = [
        "destroys"
        in augmentation_warning(
            FREE,
            table(truth, simulate_predictions(seed, truth, 0.8)),
            table(truth, simulate_predictions(-seed % 997, truth, 0.8)),
        )
        for seed in range(1, 120)
    ]
    assert np.mean(false) <= 0.02
    p_values = [permutation_p_value(truth, simulate_predictions(seed, truth, 0.5)) for seed in range(120)]
    assert 0.0 < np.mean(np.array(p_values) <= 0.05) <= 0.12


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"flips": True}, "varies mirroring;"),
        ({"scale": 0.2, "blur": 1.0}, "size and sharpness"),
        ({"flips": True, "share": 0.0, "color": 0.1}, "varies color;"),
        ({"pipeline": {"transform": {"__class_fullname__": "Blur"}}}, "the effect of the Albumentations pipeline"),
    ],
)
def test_varied_properties_are_named(values, expected):
    truth = np.tile([1, 2], 25)
    augmentation = AugmentSettings(**{**AugmentSettings.none().model_dump(), **values})
    assert expected in augmentation_warning(
        augmentation, table(truth, simulate_predictions(0, truth, 0.5)), table(truth, truth)
    )


@pytest.mark.parametrize("name", sorted(AugmentSettings.model_fields.keys() - {"axes", "share"}))
def test_every_augmentation_has_a_name_for_the_warning(name):
    others = {"flips": True, "rotation": "free", "pipeline": {"transform": {"__class_fullname__": "Blur"}}}
    assert AugmentSettings.none().varied_properties == []
    assert len(AugmentSettings.none().changed(**{name: others.get(name, 0.1)}).varied_properties) == 1


def test_a_network_is_selected_only_if_it_is_better_by_more_than_the_standard_error():
    truth, numbers = np.arange(40) % 2, np.arange(40)
    forest = probabilities(truth, numbers >= 6)
    slightly, clearly = probabilities(truth, (numbers < 6) | (numbers >= 11)), probabilities(truth, numbers >= 0)
    for network, expected in ((slightly, "forest"), (clearly, "network")):
        candidates = {"network": network, "forest": forest}
        assert rank_candidates(truth, candidates)[0] == "network"
        assert select_candidate(truth, candidates, numbers, ["forest"]) == expected
        assert select_candidate(truth, candidates, numbers) == "network", "no candidate is preferred"
    weaker = {"forest": forest, "live": slightly, "network": probabilities(truth, numbers >= 12)}
    assert select_candidate(truth, weaker, numbers, ["forest", "live"]) == "live"


def test_objects_of_one_image_count_as_one_unit_of_a_selection():
    truth, numbers = np.arange(40) % 2, np.arange(40)
    candidates = {"network": probabilities(truth, numbers < 39), "forest": probabilities(truth, numbers >= 6)}
    assert select_candidate(truth, candidates, numbers, ["forest"]) == "network"
    assert select_candidate(truth, candidates, numbers // 8, ["forest"]) == "forest", "most errors are in one image"
    assert select_candidate(truth, candidates, numbers // 20, ["forest"]) == "network", "two images are too few units"


def test_a_preferred_candidate_is_also_preferred_within_each_fold():
    truth, numbers = np.arange(40) % 2, np.arange(40)
    candidates = {
        "network": probabilities(truth, numbers % 20 > 0, 0.95),
        "forest": probabilities(truth, numbers % 20 > 0, 0.9),
    }
    candidates["network"][3] = candidates["forest"][3][::-1]
    folds = numbers % 4
    preferred = nested_selection(truth, folds, candidates, numbers, ["forest"])
    np.testing.assert_array_equal(preferred, candidates["forest"])
