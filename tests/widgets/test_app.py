"""The whole in tabs, and the form that opens a project."""

from __future__ import annotations

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.jobs import JobState
from svetlana_jupyter.widgets.app import App
from svetlana_jupyter.widgets.run_views import RunScores


def opened(app, title):
    """Open a tab as a click does, and return its panel."""
    app.tab.selected_index = app.tab.titles.index(title)
    return app.panels[title]


def test_all_panels_share_one_project(project):
    app = App(project)
    annotate, train = opened(app, "Annotate"), opened(app, "Train")
    for title in app.tab.titles:
        assert opened(app, title).project is project
    project.annotate("left", 1, "bright")
    assert "only bright has some" in train.readiness.value
    assert "1 annotated" in annotate.tally.value


def test_a_panel_is_made_when_its_tab_is_first_opened(project):
    app = App(project)
    assert list(app.panels) == ["Annotate"]
    opened(app, "Predict and review")
    assert list(app.panels) == ["Annotate", "Predict and review"]


def test_a_panel_that_cannot_be_made_says_why_and_is_made_once_it_can(project, monkeypatch):
    def broken(self):
        raise ProjectError("the runs cannot be read; remove that folder.")

    app = App(project)
    with monkeypatch.context() as fault:
        fault.setattr(RunScores, "show", broken)
        app.tab.selected_index = train = app.tab.titles.index("Train")
    assert "remove that folder" in app.tab.children[train].children[1].text
    opened(app, "Annotate")
    assert opened(app, "Train").project is project


def test_a_project_without_images_begins_with_them(empty, project):
    assert list(App(empty).panels) == ["Images"]
    assert list(App(project).panels) == ["Annotate"]


def test_another_project_is_opened_from_the_app_but_not_under_a_running_job(project, tmp_path):
    project.annotate("left", 1, "bright")
    app = App(project)
    app.save.click()
    assert (tmp_path / "squares.svetlana.zip").exists() and "squares.svetlana.zip" in app.status.text
    project.job = JobState("training")
    app.other.click()
    assert app.project is project and "A training is running" in app.status.text
    project.job = None
    app.other.click()
    form = app.children[0]
    form.folder.value = str(tmp_path / "squares.svetlana.zip")
    form.begin.click()
    assert "is there already" in form.status.text
    project.path.rename(tmp_path / "away")
    form.begin.click()
    assert app.project is not project and app.project.annotations.label_of("left", 1).action == "label"
    assert app.panels["Annotate"].project is app.project
