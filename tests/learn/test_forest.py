"""The forest kept as arrays predicts exactly what scikit-learn's does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from svetlana_jupyter.core.features.catalog import columns
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn import forest as forests
from svetlana_jupyter.learn.classifier import load_classifier
from svetlana_jupyter.learn.dataset import TrainingData, collect_training_data
from svetlana_jupyter.learn.forest import fit_forest
from svetlana_jupyter.learn.specification import SPEC_FILE
from svetlana_jupyter.learn.training import fit


def samples(count: int, classes: int, **values) -> TrainingData:
    rng = np.random.default_rng(count)
    targets = rng.integers(1, classes + 1, count) * 10
    inputs = rng.normal(size=(count, 12)).astype(np.float32)
    inputs[:, 0] += targets / 10
    nowhere = np.full(count, "")
    return TrainingData(
        inputs=inputs,
        targets=targets,
        groups=nowhere,
        images=nowhere,
        objects=np.arange(count),
        names={},
        ndim=2,
        channels=("grey",),
        settings=TrainingSettings(architecture="forest", **values),
    )


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(
    ("weights", "in_sklearn"),
    [("none", None), ("balanced", "balanced"), ("softened", "balanced"), ({10: 3.0}, {10: 3.0})],
)
def test_probabilities_equal_those_of_scikit_learn_exactly(classes, weights, in_sklearn, monkeypatch):
    monkeypatch.setattr(forests, "ROWS_PER_CHUNK", 64)  # so that many rows are followed in parts
    monkeypatch.setattr(forests, "TREES_PER_STEP", 16)
    known = samples(150, classes, class_weights=weights, seed=3, trees=40)
    forest = fit_forest(known)
    reference = RandomForestClassifier(40, class_weight=in_sklearn, random_state=3).fit(known.inputs, known.targets)
    unknown = samples(200, classes).inputs
    assert forest.classes == tuple(reference.classes_)
    np.testing.assert_array_equal(forest.trees.probabilities(unknown), reference.predict_proba(unknown))
    np.testing.assert_allclose(forest.classify(unknown), reference.predict_proba(unknown), rtol=1e-6)


def test_a_stop_keeps_the_trees_that_there_are(monkeypatch):
    monkeypatch.setattr(forests, "TREES_PER_STEP", 16)
    known = samples(150, 3, trees=40)
    asked = iter([False, True])
    events = list(fit(known, lambda: next(asked)))
    whole = fit_forest(known)
    assert events[-1].stopped
    assert len(events[-1].classifier.trees.roots) == 32
    assert np.array_equal(events[-1].classifier.trees.threshold, whole.trees.threshold[: whole.trees.roots[32]])
    assert not list(fit(known))[-1].stopped


def test_no_objects_give_no_rows():
    assert fit_forest(samples(30, 3, trees=5)).classify(np.zeros((0, 12), np.float32)).shape == (0, 3)


def test_a_forest_measures_what_its_settings_say_before_and_after_it_was_saved(discs, tmp_path):
    settings = TrainingSettings(architecture="forest", trees=20, measurements={"groups": ["texture"], "ring": 3})
    forest = fit_forest(collect_training_data([discs], settings))
    forest.save(tmp_path)
    loaded = load_classifier(tmp_path)
    assert loaded.specification.features == tuple(column.key for column in columns(2, 1, ["texture"]))
    (_, before), (_, after) = (next(one.cut(*discs[:2])) for one in (forest, loaded))
    np.testing.assert_array_equal(before, after)
    assert before.shape[1] == len(loaded.specification.features)
    np.testing.assert_array_equal(forest.classify(before), loaded.classify(after))


def test_a_forest_of_other_measurements_is_refused_in_a_sentence(discs, tmp_path):
    fit_forest(collect_training_data([discs], TrainingSettings(architecture="forest", trees=5))).save(tmp_path)
    file = tmp_path / SPEC_FILE
    known = json.loads(file.read_text("utf-8"))
    for change in ({"features": known["features"][1:]}, {"features_version": 0}):
        file.write_text(json.dumps(known | change), "utf-8")
        with pytest.raises(ClassifierError, match=r"features of another version.*Train it again"):
            load_classifier(tmp_path)
