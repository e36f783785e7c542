"""The whole in tabs, and the form that opens a project."""

from __future__ import annotations

from svetlana_jupyter.widgets.app import App


def test_three_panels_share_one_project(project):
    app = App(project)
    for position in range(3):
        app.tab.selected_index = position
    annotate, train, predict = app.panels.values()
    assert annotate.project is train.project is predict.project is project
    project.annotate("left", 1, "bright")
    assert "only bright has some" in train.readiness.value
    assert "1 annotated" in annotate.tally.value


def test_a_panel_is_made_when_its_tab_is_first_opened(project):
    app = App(project)
    assert list(app.panels) == ["Annotate"]
    app.tab.selected_index = 2
    assert list(app.panels) == ["Annotate", "Predict and review"]


def test_a_panel_that_cannot_be_made_says_why_and_is_made_once_it_can(project):
    file = project.path / "training.json"
    good = file.read_text()
    file.write_text("{")
    app = App(project)
    app.tab.selected_index = 1
    assert "valid JSON" in app.tab.children[1].children[1].text
    file.write_text(good)
    app.tab.selected_index = 0
    app.tab.selected_index = 1
    assert "Train" in app.panels
