"""The whole in tabs, and the form that opens a project."""

from __future__ import annotations

from svetlana_jupyter.widgets.app import App


def test_four_panels_share_one_project(project):
    app = App(project)
    for position in range(4):
        app.tab.selected_index = position
    annotate, gallery, train, predict = app.panels.values()
    assert all(panel.project is project for panel in (annotate, gallery, train, predict))
    project.annotate("left", 1, "bright")
    assert "only bright has some" in train.readiness.value
    assert "1 annotated" in annotate.tally.value


def test_a_panel_is_made_when_its_tab_is_first_opened(project):
    app = App(project)
    assert list(app.panels) == ["Annotate"]
    app.tab.selected_index = 3
    assert list(app.panels) == ["Annotate", "Predict and review"]


def test_a_panel_that_cannot_be_made_says_why_and_is_made_once_it_can(project):
    file = project.path / "training.json"
    good = file.read_text()
    file.write_text("{")
    app = App(project)
    app.tab.selected_index = 2
    assert "valid JSON" in app.tab.children[2].children[1].text
    file.write_text(good)
    app.tab.selected_index = 0
    app.tab.selected_index = 2
    assert "Train" in app.panels
