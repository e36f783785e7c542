"""Cross-validation keeps groups together, gives an interval, and says when there is too little to score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.samples import gather_samples
from svetlana_jupyter.learn.split import folds, held_out
from svetlana_jupyter.learn.validate import Fold, Validation, cross_validate

QUICK = TrainingSettings(epochs=4, steps=4, depth=2, width=4, trees=20, patches={"sampling": 12})


@pytest.mark.parametrize("changes", [{}, {"architecture": "forest"}, {"augmentation": {"rotation": "free"}}])
def test_the_score_of_an_easy_set_is_near_one_and_inside_its_interval(discs, changes):
    *steps, result = cross_validate(gather_samples([discs], QUICK.changed(**changes)))
    assert steps == [Fold(done, 5) for done in range(1, 6)]
    assert isinstance(result, Validation)
    assert result.accuracy >= 0.9 and result.balanced >= 0.9
    assert result.low < result.accuracy <= result.high <= 1
    assert result.n == len(result.table) == 49
    assert (result.table["truth"] == result.table["predicted"]).mean() == result.accuracy
    assert "whole groups" in result.says


def test_labels_that_mean_nothing_score_near_chance(discs):
    samples = gather_samples([discs], QUICK.changed(architecture="forest"))
    shuffled = replace(samples, targets=np.random.default_rng(0).permutation(samples.targets))
    *_, result = cross_validate(shuffled)
    assert 0.2 < result.accuracy < 0.8


def test_too_few_of_a_class_give_a_sentence_instead_of_a_number(discs):
    found, objects, classes = discs
    few = classes.groupby(classes).head(4)
    samples = gather_samples([(found, objects, few)], QUICK, names={4: "dark", 7: "bright"})
    (result,) = cross_validate(samples)
    assert (result.accuracy, result.low, result.high, result.balanced) == (None,) * 4
    assert "at least 5 annotated objects of each class, but dark has 4, bright has 4" in result.says


def test_groups_are_never_split_where_there_are_enough(discs):
    samples = gather_samples([discs], QUICK)
    parts, grouped = folds(samples, 5)
    assert grouped
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(samples)))
    for part in parts:
        rest = np.setdiff1d(np.arange(len(samples)), part)
        assert not set(samples.groups[part]) & set(samples.groups[rest])


def test_one_group_is_split_by_objects_and_the_result_says_so(discs):
    samples = gather_samples([discs], QUICK.changed(architecture="forest"))
    *_, result = cross_validate(replace(samples, groups=np.full(len(samples), "all")))
    assert "single objects" in result.says


def test_nothing_is_held_out_where_a_class_would_be_missing_from_training(discs):
    samples = gather_samples([discs], QUICK.changed(held_out_from=20))
    out = held_out(samples)
    assert 0 < out.sum() < len(samples) / 2
    alone = np.where(np.arange(len(samples)) == np.flatnonzero(out)[0], 99, samples.targets)
    assert set(samples.targets[~held_out(replace(samples, targets=alone))]) == {4, 7}


def test_a_stopped_cross_validation_gives_no_number(discs):
    *_, result = cross_validate(gather_samples([discs], QUICK), stop=lambda: True)
    assert result.accuracy is None
    assert "Stopped" in result.says
