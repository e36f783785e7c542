"""Results panel: counts, fractions, evaluation and table, each as the project computes it."""

from __future__ import annotations

import pytest

from svetlana_jupyter.widgets.results_panel import ResultsPanel


@pytest.fixture
def panel(trained):
    return ResultsPanel(trained)


def test_counts_are_those_of_the_table(panel, trained):
    counts = trained.predictions()["class"].value_counts()
    assert all(f">{count}</td>" in panel.counts.value for count in counts)
    before = panel.counts.value
    trained.annotate("right", 1, "dark")
    assert panel.counts.value != before


def test_sections_show_what_the_project_returns(panel, trained):
    assert panel.evaluation.value == ""
    panel.sections.selected_index = 1
    assert trained.evaluate()._repr_html_() in panel.evaluation.value
    assert "data:image/png" in panel.evaluation.value
    panel.sections.selected_index = 2
    assert "48 rows" in panel.objects.value
    assert panel.objects.value.count("<tr>") == 13


def test_fractions_are_estimated_for_the_chosen_groups(panel, trained):
    assert panel.by.options == ("image",)
    panel.estimate.click()
    assert "data:image/png" in panel.fractions.value
    assert all(name in panel.fractions.value for name in trained.counts(by=["image"]).columns)


def test_only_a_stored_run_predicts_on_request(project):
    panel = ResultsPanel(project)
    assert panel.predict.disabled
    for label in range(1, 5):
        project.annotate("left", label, "bright" if label % 2 else "dark")
    project.live.update()
    assert project.current_run == "live"
    assert panel.predict.disabled
    assert "bright" in panel.counts.value


def test_the_open_evaluation_follows_the_score(annotated):
    annotated.settings = annotated.settings.changed(preset="default", epochs=2, width=4, depth=2, folds=2, trees=10)
    annotated._jobs.lane.begin_hold()
    panel = ResultsPanel(annotated)
    annotated.train(predict=True)
    panel.sections.selected_index = 1
    assert "is being scored" in panel.evaluation.value
    annotated.evaluate()
    assert annotated.evaluate()._repr_html_() in panel.evaluation.value
    assert "data:image/png" in panel.evaluation.value
