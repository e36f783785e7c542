"""Class-balanced batch sampler."""

from __future__ import annotations

import numpy as np
import pytest

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.sampler import BalancedBatchSampler

TARGETS = np.repeat([3, 5, 8], [64, 16, 4])


def counts(epochs: int = 200, **values) -> np.ndarray:
    sampler = BalancedBatchSampler(TARGETS, TrainingSettings(**values))
    sampled = np.concatenate([batch for _ in range(epochs) for batch in sampler.epoch()])
    return np.bincount(sampled, minlength=len(TARGETS))


@pytest.mark.parametrize(
    ("weights", "shares"),
    [("none", [64, 16, 4]), ("softened", [8, 4, 2]), ("balanced", [1, 1, 1]), ({8: 4.0, 3: 0.5}, [32, 16, 16])],
)
def test_classes_are_sampled_in_proportion_to_their_weights(weights, shares):
    sampled = counts(class_weights=weights, steps=7, batch_size=11)
    by_class = np.bincount(TARGETS, weights=sampled)[[3, 5, 8]]
    np.testing.assert_allclose(by_class / by_class.sum(), np.array(shares) / sum(shares), atol=0.003)


def test_samples_of_a_class_are_sampled_equally_often():
    sampled = counts(class_weights="balanced", steps=7, batch_size=11)
    for class_id in (3, 5, 8):
        assert np.ptp(sampled[class_id == TARGETS]) <= 1


def test_without_steps_an_epoch_is_one_pass_over_the_samples():
    sampler = BalancedBatchSampler(TARGETS, TrainingSettings(class_weights="none", steps=None, batch_size=16))
    batches = sampler.epoch()
    assert len(batches) == sampler.steps == 6
    assert sum(map(len, batches)) == len(TARGETS)
    assert max(map(len, batches)) <= 16


def test_the_same_seed_gives_the_same_batches():
    first, second = (BalancedBatchSampler(TARGETS, TrainingSettings(seed=4)) for _ in range(2))
    for batch, other in zip(first.epoch() + first.epoch(), second.epoch() + second.epoch(), strict=True):
        np.testing.assert_array_equal(batch, other)
