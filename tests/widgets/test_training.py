"""The training panel: settings, a training on a thread, scores and runs."""

from __future__ import annotations

import json

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.widgets.training import TrainingPanel


def test_what_is_missing_is_said_and_train_waits_for_it(project):
    panel = TrainingPanel(project)
    assert panel.train.disabled
    assert project.readiness() in panel.readiness.value
    project.annotate("left", 1, "bright")
    assert "only bright has some" in panel.readiness.value
    project.annotate("left", 2, "dark")
    assert not panel.train.disabled
    assert project.readiness() == ""


def test_the_fields_change_the_settings_of_the_project(project):
    panel = TrainingPanel(project)
    panel.epochs.value = 7
    panel.seed.value = 3
    assert (project.settings.epochs, project.settings.seed) == (7, 3)
    assert json.loads(panel.json.value)["epochs"] == 7


def test_the_json_changes_the_settings_as_soon_as_it_is_valid(project):
    panel = TrainingPanel(project)
    changed = json.loads(panel.json.value) | {"epochs": 11, "width": 8}
    panel.json.value = json.dumps(changed)
    assert (project.settings.width, panel.epochs.value) == (8, 11)
    assert "valid" in panel.json_says.value


def test_a_wrong_setting_is_named_below_the_json_and_changes_nothing(project):
    panel = TrainingPanel(project)
    panel.json.value = json.dumps(json.loads(panel.json.value) | {"epocs": 11})
    assert "did you mean &#x27;epochs&#x27;?" in panel.json_says.value
    panel.json.value = "{"
    assert "valid JSON" in panel.json_says.value
    assert project.settings == TrainingSettings()


def test_train_runs_on_a_thread_and_ends_with_curve_scores_and_a_run(annotated, finish):
    annotated.settings = annotated.settings.changed(epochs=3, trees=20)
    panel = TrainingPanel(annotated)
    panel.train.click()
    assert panel.train.disabled
    finish(annotated)
    assert panel.status.text == annotated.status != ""
    assert annotated.trouble == ""
    assert "polyline" in panel.curves.value
    assert "Random forest" in panel.scores.value
    assert str(annotated.evaluate().network.accuracy) in panel.scores.value
    assert not panel.train.disabled
    assert panel.runs.button("0001").icon == "dot-circle-o"
    assert panel.job.layout.visibility == "hidden"


def test_another_run_is_put_to_use_by_its_button(trained):
    trained.train(epochs=2, trees=20)
    panel = TrainingPanel(trained)
    assert trained.current_run == "0002"
    panel.runs.button("0001").click()
    assert trained.current_run == "0001"
    assert panel.runs.button("0001").icon == "dot-circle-o"
    assert panel.runs.button("0002").icon == "circle-o"


def test_a_training_that_cannot_start_says_why(project):
    panel = TrainingPanel(project)
    panel.train.disabled = False  # a click that was on its way already
    panel.train.click()
    assert panel.status.text == project.readiness()
    assert project.job is None


def test_a_second_panel_and_a_script_see_the_same_run(annotated):
    panel, other = TrainingPanel(annotated), TrainingPanel(annotated)
    annotated.train(epochs=2, trees=20)
    assert panel.scores.value == other.scores.value
    assert panel.runs.button("0001").icon == "dot-circle-o"
