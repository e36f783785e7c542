"""Array-based random forest compared with scikit-learn."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from svetlana_jupyter.core.features.catalog import columns
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn import forest as forests
from svetlana_jupyter.learn.classifier import load_classifier
from svetlana_jupyter.learn.dataset import TrainingData
from svetlana_jupyter.learn.forest import ForestClassifier, fit_forest
from svetlana_jupyter.learn.specification import SPEC_FILE
from svetlana_jupyter.learn.training import fit
from tests.learn.calls import collect_training_data, cut


def samples(count: int, classes: int, **values) -> TrainingData:
    rng = np.random.default_rng(count)
    targets = rng.integers(1, classes + 1, count) * 10
    inputs = rng.normal(size=(count, 12)).astype(np.float32)
    inputs[:, 0] += targets / 10
    no_names = np.full(count, "")
    return TrainingData(
        inputs=inputs,
        targets=targets,
        groups=no_names,
        images=no_names,
        objects=np.arange(count),
        names={},
        ndim=2,
        channels=("gray",),
        settings=TrainingSettings(architecture="forest", **values),
        edit_groups=no_names,
    )


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(
    ("weights", "in_sklearn"),
    [("none", None), ("balanced", "balanced"), ("softened", "balanced"), ({10: 3.0}, {10: 3.0})],
)
def test_probabilities_equal_those_of_scikit_learn_exactly(classes, weights, in_sklearn, monkeypatch):
    monkeypatch.setattr(forests, "ROWS_PER_CHUNK", 64)  # so that many rows are predicted in parts
    monkeypatch.setattr(forests, "TREES_PER_STEP", 16)
    training_data = samples(150, classes, class_weights=weights, seed=3, trees=40)
    forest = fit_forest(training_data)
    reference = RandomForestClassifier(40, class_weight=in_sklearn, random_state=3).fit(
        training_data.inputs, training_data.targets
    )
    new_inputs = samples(200, classes).inputs
    assert forest.classes == tuple(reference.classes_)
    np.testing.assert_array_equal(forest.trees.probabilities(new_inputs), reference.predict_proba(new_inputs))
    np.testing.assert_allclose(forest.classify(new_inputs), reference.predict_proba(new_inputs), rtol=1e-6)


def test_a_stopped_forest_keeps_its_finished_trees(monkeypatch):
    monkeypatch.setattr(forests, "TREES_PER_STEP", 16)
    training_data = samples(150, 3, trees=40)
    stop_answers = iter([False, True])
    events = list(fit(training_data, lambda: next(stop_answers)))
    whole = fit_forest(training_data)
    assert events[-1].stopped
    assert len(events[-1].classifier.trees.roots) == 32
    assert np.array_equal(events[-1].classifier.trees.threshold, whole.trees.threshold[: whole.trees.roots[32]])
    assert not list(fit(training_data))[-1].stopped


def test_no_objects_give_no_rows():
    assert fit_forest(samples(30, 3, trees=5)).classify(np.zeros((0, 12), np.float32)).shape == (0, 3)


def test_a_forest_measures_the_same_features_before_and_after_saving(discs, tmp_path):
    settings = TrainingSettings(architecture="forest", trees=20, measurements={"groups": ["texture"], "ring": 3})
    forest = fit_forest(collect_training_data([discs], settings))
    forest.save(tmp_path)
    loaded = load_classifier(tmp_path)
    assert loaded.specification.features == tuple(column.key for column in columns(2, 1, ["texture"]))
    (_, before), (_, after) = (next(cut(classifier, *discs[:2])) for classifier in (forest, loaded))
    np.testing.assert_array_equal(before, after)
    assert before.shape[1] == len(loaded.specification.features)
    np.testing.assert_array_equal(forest.classify(before), loaded.classify(after))


def test_a_forest_of_unknown_measurements_is_refused(discs, tmp_path):
    fit_forest(collect_training_data([discs], TrainingSettings(architecture="forest", trees=5))).save(tmp_path)
    file = tmp_path / SPEC_FILE
    description = json.loads(file.read_text("utf-8"))
    for change in ({"features": description["features"][1:]}, {"features_version": 0}):
        file.write_text(json.dumps(description | change), "utf-8")
        with pytest.raises(ClassifierError, match=r"features of another version.*Train it again"):
            load_classifier(tmp_path)


@pytest.mark.parametrize(
    ("name", "place", "value", "reason"),
    [
        ("left", 0, 0, "does not follow it"),
        ("right", 0, 10**6, "does not follow it"),
        ("feature", 0, 10**6, "compares no feature"),
        ("threshold", 0, np.nan, "compares no feature"),
        ("roots", 0, -1, "roots or probabilities"),
        ("value", 0, np.inf, "roots or probabilities"),
    ],
)
def test_trees_with_cycles_or_impossible_nodes_are_refused(monkeypatch, name, place, value, reason):
    forest = fit_forest(samples(60, 2, trees=3))
    keys = tuple(f"feature {number}" for number in range(12))
    monkeypatch.setattr(forests, "_current_features", lambda specification: (keys, specification.features_version))
    forest.specification = replace(forest.specification, features=keys)
    tensors = {key: array.copy() for key, array in forest.tensors().items()}
    assert ForestClassifier.from_tensors(forest.specification, tensors)
    tensors[name][place] = value
    with pytest.raises(ClassifierError, match=reason):
        ForestClassifier.from_tensors(forest.specification, tensors)
