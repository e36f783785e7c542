"""That augmentation destroys the classes is said when it does, with how sure that is, and not otherwise."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from svetlana_jupyter.core.destroyed import PairedComparison, compare, destroyed, permutation_p_value
from svetlana_jupyter.core.settings import AugmentSettings

FREE = AugmentSettings(rotation="free")


def table(truth, predicted) -> pd.DataFrame:
    objects = np.arange(1, len(truth) + 1)
    return pd.DataFrame({"image": "a", "object": objects, "truth": truth, "predicted": predicted})


def guesses(seed: int, truth: np.ndarray, accuracy: float) -> np.ndarray:
    """Return predictions that are right with so much probability, else the other of two classes."""
    right = np.random.default_rng(seed).random(len(truth)) < accuracy
    return np.where(right, truth, 3 - truth)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (5, 0), (7, 2), (3, 3), (1, 9)])
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
