"""Cross-validation: grouped folds, confidence interval and reasons for a missing score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.cross_validation import CrossValidationResult, cross_validate
from svetlana_jupyter.learn.dataset import WorkProgress
from svetlana_jupyter.learn.training import fit
from tests.learn.calls import collect_training_data

QUICK = TrainingSettings(epochs=4, steps=4, depth=2, width=4, trees=20, patches={"sampling": 12})


@pytest.mark.parametrize("changes", [{}, {"architecture": "forest"}, {"augmentation": {"rotation": "free"}}])
def test_the_score_of_an_easy_dataset_is_near_one_and_inside_its_interval(discs, changes):
    *steps, result = cross_validate(collect_training_data([discs], QUICK.changed(**changes)))
    batches = 1 if changes.get("architecture") == "forest" else QUICK.epochs * QUICK.steps
    assert steps == [WorkProgress(done / batches, 4) for done in range(1, 4 * batches + 1)]
    assert isinstance(result, CrossValidationResult)
    accuracy, table = result.accuracy, result.table
    assert 0.9 <= accuracy.value <= accuracy.high <= 1
    assert accuracy.low < accuracy.value
    assert accuracy.n == len(table) == 49
    correct = table["truth"] == table["predicted"]
    assert correct.mean() == accuracy.value
    assert correct.groupby(table["truth"]).mean().mean() >= 0.9
    np.testing.assert_allclose(table[["p_4", "p_7"]].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(np.where(table["p_4"] > table["p_7"], 4, 7), table["predicted"])
    assert set(table["fold"]) == {1, 2, 3, 4}
    assert "whole groups" in result.message


def test_random_labels_score_near_chance(discs):
    samples = collect_training_data([discs], QUICK.changed(architecture="forest"))
    shuffled = replace(samples, targets=np.random.default_rng(0).permutation(samples.targets))
    *_, result = cross_validate(shuffled)
    assert 0.2 < result.accuracy.value < 0.8


def test_a_class_with_too_few_objects_gives_a_reason_instead_of_a_score(discs):
    pair, objects, classes = discs
    few_classes = classes.groupby(classes).head(4)
    samples = collect_training_data([(pair, objects, few_classes)], QUICK, names={4: "dark", 7: "bright"})
    (result,) = cross_validate(samples)
    assert result.accuracy is None
    assert result.table.empty
    assert "at least 5 annotated objects of two classes, but dark has 4, bright has 4" in result.message


@pytest.mark.parametrize("architecture", ["small_cnn", "forest", "live"])
def test_a_scarce_class_is_used_for_training_but_left_out_of_the_score(discs, architecture):
    pair, objects, classes = discs
    rare = classes.index[:4]
    classes = classes.copy()
    classes[rare] = 9
    settings = QUICK.changed(architecture=architecture)
    samples = collect_training_data([(pair, objects, classes)], settings, names={4: "dark", 7: "bright", 9: "torn"})
    *_, result = cross_validate(samples)
    assert result.accuracy.n == len(result.table) == 45
    assert set(result.table["truth"]) == {4, 7}
    assert not set(result.table["object"]) & set(rare)
    np.testing.assert_allclose(result.table[["p_4", "p_7", "p_9"]].sum(axis=1), 1, atol=1e-5)
    assert (result.table["p_9"] > 0).any(), "every fold was trained with the rare class"
    assert result.accuracy.value > 0.7
    assert result.message.endswith("Left out of the score, which needs 5 annotated objects of a class: torn has 4.")


def test_a_single_group_is_split_by_objects_and_reported(discs):
    samples = collect_training_data([discs], QUICK.changed(architecture="forest"))
    *_, result = cross_validate(replace(samples, groups=np.full(len(samples), "all")))
    assert "single objects" in result.message


def test_a_stopped_cross_validation_has_no_score(discs):
    *_, result = cross_validate(collect_training_data([discs], QUICK), stop=lambda: True)
    assert result.accuracy is None
    assert "Stopped" in result.message


def test_the_settings_determine_the_number_of_folds(discs):
    samples = collect_training_data([discs], QUICK.changed(architecture="forest", folds=3))
    *steps, result = cross_validate(samples)
    assert steps == [WorkProgress(1, 3), WorkProgress(2, 3), WorkProgress(3, 3)]
    assert result.table["fold"].nunique() == 3


def test_objects_are_predicted_by_a_classifier_trained_on_the_other_folds(discs):
    samples = collect_training_data([discs], QUICK.changed(architecture="forest"))
    *_, result = cross_validate(samples)
    in_fold = (result.table["fold"] == 2).to_numpy()
    *_, fitted = fit(samples.subset(~in_fold))
    np.testing.assert_array_equal(
        fitted.classifier.classify(samples.inputs[in_fold]), result.table.loc[in_fold, ["p_4", "p_7"]]
    )
