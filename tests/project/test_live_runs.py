"""Runs of live classifiers: trained, kept, and predicted again."""

from __future__ import annotations

import numpy as np
import pytest

from svetlana_jupyter.core.features.feature_sources import PatchSource
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.project.project import Project
from tests.project.test_live import label_some
from tests.project.test_object_features import corners


def stored_probabilities(project: Project, run: str) -> np.ndarray:
    """Return the uncalibrated probabilities that a run has stored for all images."""
    tables = [project.runs[run].read_predictions(name) for name in project.images]
    return np.concatenate([table[["p_1", "p_2"]].to_numpy() for table in tables])


def live_probabilities(project: Project) -> np.ndarray:
    return np.concatenate([project.probabilities(name, "live")[["p_1", "p_2"]].to_numpy() for name in project.images])


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_trained_live_classifier_predicts_as_the_live_run(project, is_cached, monkeypatch):
    label_some(project)
    project.live.update()
    run = project.train(preset="live")
    assert (run.settings["preset"], run.settings["architecture"]) == ("live", "live")
    assert project.current_run == "live"  # which follows further labels
    assert f"run {run.name} is the same classifier" in project.status
    computed = []
    original = PatchSource.compute
    monkeypatch.setattr(PatchSource, "compute", lambda self, *args: computed.append(1) or original(self, *args))
    if not is_cached:
        monkeypatch.setattr(project.features, "cached", lambda sources: sources)
    project.predict(run=run.name, resume=False)
    assert bool(computed) != is_cached
    np.testing.assert_allclose(stored_probabilities(project, run.name), live_probabilities(project), atol=1e-6)


def test_a_live_classifier_is_trained_where_no_features_are_cached(project):
    label_some(project)
    run = project.train(preset="live", predict=True)
    table = project.predictions()
    assert (table["predicted"] == np.where(table.index.get_level_values(1) % 2 == 0, "bright", "dim")).all()
    assert run.held_out() is not None
    assert run.held_out("forest") is not None
    assert not (project.path / "features").exists()  # nothing was cached for the live run


def test_a_run_with_an_encoder_needs_it_to_predict_and_names_it(project):
    project.features.add("quarters", corners, size=16)
    label_some(project)
    project.live.update()
    run = project.train(preset="live")
    project.predict(["P1_A1"], run=run.name)
    project.annotations.file.close()
    reopened = Project(project.path, annotator="ann")
    with pytest.raises(ClassifierError, match="'encoder quarters'"):
        reopened.predict(["P2_A1"], run=run.name)
    reopened.features.add("quarters", corners, size=16)
    reopened.predict(["P2_A1"], run=run.name)
    np.testing.assert_array_equal(reopened.probabilities("P2_A1", run.name).index, range(1, 13))
