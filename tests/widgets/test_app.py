"""Tests of the app: tabs over one project, and the form that opens one."""

from __future__ import annotations

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.jobs import JobState
from svetlana_jupyter.widgets.app import App
from svetlana_jupyter.widgets.training_results import RunScores


def open_tab(app, title):
    """Open a tab as a click does, and return its panel."""
    app.tab.selected_index = app.tab.titles.index(title)
    return app.panels[title]


def test_all_panels_share_one_project(project):
    app = App(project)
    annotate, train = open_tab(app, "Annotate"), open_tab(app, "Train")
    for title in app.tab.titles:
        assert open_tab(app, title).project is project
    project.annotate("left", 1, "bright")
    assert "only bright has some" in train.readiness.value
    assert "1 annotated" in annotate.progress_text.value


def test_a_panel_is_created_when_its_tab_is_first_opened(project):
    app = App(project)
    assert list(app.panels) == ["Annotate"]
    open_tab(app, "Predict and review")
    assert list(app.panels) == ["Annotate", "Predict and review"]


def test_a_panel_that_fails_shows_the_error_and_is_created_later(project, monkeypatch):
    def broken(self):
        raise ProjectError("The runs cannot be read. Remove that folder.")

    app = App(project)
    with monkeypatch.context() as fault:
        fault.setattr(RunScores, "show", broken)
        app.tab.selected_index = train = app.tab.titles.index("Train")
    assert "Remove that folder" in app.tab.children[train].children[1].text
    open_tab(app, "Annotate")
    assert open_tab(app, "Train").project is project


def test_a_project_without_images_opens_the_images_tab(empty, project):
    assert list(App(empty).panels) == ["Images"]
    assert list(App(project).panels) == ["Annotate"]


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
    assert app.panels["Annotate"].project is app.project
