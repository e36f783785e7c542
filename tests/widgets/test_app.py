"""App: tabs over one project, the line of truth above them, and the form that opens a project."""

from __future__ import annotations

import pandas as pd
import pytest

from svetlana_jupyter.core.stats.metrics import Estimate
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.jobs import JobState
from svetlana_jupyter.project.live import LiveState
from svetlana_jupyter.project.run_store import LIVE
from svetlana_jupyter.widgets.app import App
from svetlana_jupyter.widgets.training_results import RunScores
from svetlana_jupyter.widgets.truth_line import detailed, line_html, live_parts, score_html


def open_tab(app, title):
    """Open a tab as a click does, and return its panel."""
    app.tab.selected_index = app.tab.titles.index(title)
    return app.panels[title]


def test_all_panels_share_one_project(project):
    app = App(project)
    label, train = open_tab(app, "Label"), open_tab(app, "Train")
    for title in app.tab.titles:
        assert open_tab(app, title).project is project
    project.annotate("left", 1, "bright")
    assert "only bright has some" in train.readiness.value
    assert "<span>1</span>" in label.class_buttons.row(1).children[3].value


def test_a_panel_is_created_when_its_tab_is_first_opened(project):
    app = App(project)
    assert list(app.panels) == ["Label"]
    open_tab(app, "Results")
    assert list(app.panels) == ["Label", "Results"]


def test_a_panel_that_fails_shows_the_error_and_is_created_later(project, monkeypatch):
    def broken(self):
        raise ProjectError("The runs cannot be read. Remove that folder.")

    app = App(project)
    with monkeypatch.context() as fault:
        fault.setattr(RunScores, "show", broken)
        app.tab.selected_index = train = app.tab.titles.index("Train")
    assert "Remove that folder" in app.tab.children[train].children[1].text
    open_tab(app, "Label")
    assert open_tab(app, "Train").project is project


def test_a_project_without_images_opens_the_images_tab(empty, project):
    assert list(App(empty).panels) == ["Images"]
    assert list(App(project).panels) == ["Label"]


def test_another_project_can_be_opened_unless_a_job_runs(project, tmp_path):
    project.annotate("left", 1, "bright")
    app = App(project)
    app.save.click()
    assert (tmp_path / "squares.svetlana.zip").exists()
    assert "squares.svetlana.zip" in app.status.text
    project.job = JobState("training")
    app.other.click()
    assert app.project is project
    assert "A training is running" in app.status.text
    project.job = None
    app.other.click()
    form = app.children[0]
    form.folder.value = str(tmp_path / "squares.svetlana.zip")
    form.open_button.click()
    assert "exists already" in form.status.text
    project.path.rename(tmp_path / "away")
    form.open_button.click()
    assert app.project is not project
    assert app.project.annotations.label_of("left", 1).action == "label"
    assert app.panels["Label"].project is app.project


def test_the_selection_of_all_views_is_read_and_set_from_a_cell(project):
    app = App(project)
    viewer = app.panels["Label"].viewer
    viewer.show("left", 3)
    assert app.selected.equals(pd.MultiIndex.from_tuples([("left", 3)], names=["image", "object"]))
    app.selected = project.labels().index.append(pd.MultiIndex.from_tuples([("right", 7), ("right", 8)]))
    assert viewer.model.image == "right"
    assert viewer.model.selection == (7, 8)
    app.selected = []
    assert viewer.model.selection == ()
    assert app.selected.empty
    with pytest.raises(InputError, match=r"left has no object 99"):
        app.selected = [("left", 99)]
    with pytest.raises(ProjectError, match="No project is open"):
        _ = App().selected


def test_the_line_of_truth_states_classifier_labels_score_and_change(project):
    app = App(project)
    assert "Label objects of two classes" in app.truth.text.value
    for label in range(1, 5):
        project.annotate("left", label, "bright" if label % 2 else "dark")
    project.live.update()
    text = app.truth.text.value
    assert "Live" in text
    assert "<b>4 labels</b>" in text
    assert "Not enough labels for a score" in text


def test_the_line_of_truth_gives_the_interval_and_its_source():
    score = Estimate(0.91, 0.84, 0.953, 24)
    state = LiveState(labels=24, stage="average", changed=14, score=score, score_text="16 labels drawn at random")
    labels, balanced, changed = live_parts(state)
    assert labels == "<b>24 labels</b>"
    assert "<b>91 %</b>" in balanced
    assert "(84–95 %, 16 labels drawn at random)" in balanced
    assert changed == "last label changed <b>14</b> objects"
    unsure = LiveState(labels=3, stage="average", score_text="Not enough <labels>", provisional=True, features_total=9)
    assert "Not enough &lt;labels&gt;" in live_parts(unsure)[1]
    assert live_parts(unsure)[2] == detailed("provisional: features of 0 of 9 objects")


def test_narrow_pages_show_no_explanations_in_the_line_of_truth():
    hidden = '<span class="sv-detail">'
    reason = "Run 0001 replaced the live classifier, because 1 < 2. Call project.train()."
    assert f"classifier{hidden}, because 1 &lt; 2. Press Train.</span>" in detailed(reason)
    assert f"a score{hidden}: it needs" in score_html(None, "Not enough labels for a score: it needs 5 of each")
    assert hidden not in detailed("no score yet")


def test_the_line_of_truth_names_a_stored_run_and_its_score(trained):
    trained.evaluate()  # which waits for the score
    app = App(trained)
    assert "Run 0001" in app.truth.text.value
    assert "<b>12 labels</b>" in app.truth.text.value
    assert "balanced accuracy" in app.truth.text.value


def test_a_button_keeps_the_live_predictions_as_a_run(project):
    app = App(project)
    keep = app.truth.keep
    assert keep.layout.display == "none"
    for label in range(1, 5):
        project.annotate("left", label, "bright" if label % 2 else "dark")
    project.live.update()
    assert (keep.layout.display, keep.disabled, keep.description) == ("", False, "Keep as run")
    keep.click()
    project._jobs.wait(60)
    assert [run.settings["preset"] for run in project.runs] == ["live"]
    assert project.status == app.status.text == "Kept the live predictions as run 0001."
    project.status = "Predicted 2 images."
    assert app.status.text == "Kept the live predictions as run 0001."
    project.runs.choose("0001")
    assert keep.layout.display == "none"
    project.runs.choose("live")
    project.job = JobState("training")
    assert keep.disabled


def test_the_progress_of_a_job_is_shown_above_every_tab(project):
    app = App(project)
    assert app.truth.job.layout.visibility == "hidden"
    project.job = JobState("training", done=3, total=4, text="fold 3 of 4")
    assert app.truth.job.layout.visibility == "visible"
    assert app.truth.job.bar.value == 0.75
    project.job = None
    assert app.truth.job.layout.visibility == "hidden"


def test_show_live_returns_from_a_stored_run_to_the_live_predictions(trained):
    app = App(trained)
    assert app.truth.back.layout.display == "none", "there are no live predictions yet"
    trained.live.update()
    assert trained.current_run == "0001", "the stored run is not replaced without a comparison"
    assert app.truth.back.layout.display == ""
    app.truth.back.click()
    assert trained.current_run == LIVE
    assert "Live" in app.truth.text.value
    assert app.truth.back.layout.display == "none"
    trained.runs.choose("0001")
    assert "Run 0001" in app.truth.text.value


def test_the_line_of_truth_says_why_a_run_replaced_another_one(trained):
    app = App(trained)
    trained.live.update()
    trained.runs.choose(LIVE)
    trained.runs.choose("0001", reason="Run 0001 replaced the live classifier, because 1 < 2.")
    assert "Run 0001 replaced the live classifier, because 1 &lt; 2." in app.truth.text.value
    trained.runs.choose(LIVE, reason="The live classifier replaced run 0001.")
    assert "The live classifier replaced run 0001." in app.truth.text.value
    assert "Live" in app.truth.text.value
    trained.runs.choose("0001")
    assert "replaced" not in app.truth.text.value, "the user has chosen it"


def test_the_line_of_truth_has_its_whole_text_as_a_tooltip():
    tooltip = line_html("Live", ["<b>24 labels</b>", score_html(None, 'needs 5 of "a & b"')])
    assert 'title="24 labels · needs 5 of &quot;a &amp; b&quot;"' in tooltip


def test_the_app_says_whether_labels_are_saved(project):
    app = App(project)
    project.annotate("left", 1, "bright")
    assert "✓ Saved" in app.saved.value
    assert str(project.annotations.file.file) in app.saved.value
    project.annotations.file.close()
    project.trouble = "Another kernel annotates."
    assert "Read-only" in app.saved.value
