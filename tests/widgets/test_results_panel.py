"""Results panel: counts, fractions, evaluation and table, each as the project computes it."""

from __future__ import annotations

import asyncio
import threading

import pandas as pd
import pytest

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.jobs import JobState
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.run_store import LIVE
from svetlana_jupyter.widgets.call_names import name_controls
from svetlana_jupyter.widgets.results_panel import ResultsPanel, fractions_html
from tests.widgets.test_object_indexing import until


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
    assert name_controls(trained.evaluate()._repr_html_()) in panel.evaluation.value
    assert "data:image/png" in panel.evaluation.value
    panel.sections.selected_index = 2
    assert "48 rows" in panel.objects.value
    assert panel.objects.value.count("<tr>") == 13


def test_fractions_are_estimated_for_the_chosen_groups(panel, trained):
    assert panel.by.options == ("image",)
    panel.estimate.click()
    assert "data:image/png" in panel.fractions.value
    assert [name for name in trained.counts(by=["image"]).columns if name not in panel.fractions.value] == [], (
        panel.status.text
    )


def test_fractions_follow_the_chosen_run(panel, trained, monkeypatch):
    def counts(project, by):
        return original(project, by).assign(note=f"run of {project.current_run}")

    original = Project.counts
    monkeypatch.setattr(Project, "counts", counts)
    trained.live.update()
    stored = trained.current_run
    panel.sections.selected_index = 0
    panel.estimate.click()
    assert f"run of {stored}" in panel.fractions.value
    trained.runs.choose(LIVE)
    assert "run of live" in panel.fractions.value
    trained.annotate("right", 1, "dark")
    assert "Press Estimate" in panel.outdated.value
    panel.estimate.click()
    assert panel.outdated.value == ""
    trained.runs.choose(stored)
    assert f"run of {stored}" in panel.fractions.value
    assert panel.outdated.value == ""


def test_fractions_are_whole_objects_and_percentages():
    table = pd.DataFrame(
        {"class": ["dark"], "total": 2040, "estimate": 1620.4, "fraction": 0.79431, "low": None, "note": ""}
    )
    html = fractions_html(table.astype({"low": float}))
    assert "2,040" in html
    assert "1,620<" in html
    assert "79.4 %" in html
    assert "–</" in html
    assert "nan" not in html
    assert ">note<" not in html


def test_notes_of_the_fractions_are_footnotes():
    notes = ["No interval.", "", "Few <labels>.", "No interval."]
    html = fractions_html(pd.DataFrame({"class": list("abcd"), "note": notes}))
    assert html.count("No interval.") == html.count("Few &lt;labels&gt;.") == 1
    assert [row.count("</td>") for row in html.split("<tr>")[2:]] == [2] * 4
    assert html.count('<td class="sv-number">1</td>') == 2


def test_export_says_why_it_waits(panel, trained):
    form = panel.export_form
    assert (form.export.disabled, "ended" in form.waiting.value) == (False, False)
    trained.job = JobState("training")
    assert form.export.disabled
    assert "Available when the training has ended." in form.waiting.value
    trained.job = None
    assert "ended" not in form.waiting.value


def test_the_files_of_an_export_are_named_once(panel, trained, finish, tmp_path):
    before, panel.export_form.folder.value = panel.status.text, str(tmp_path / "results")
    panel.export_form.export.click()
    finish(trained)
    assert panel.export_form.result.text == trained.last_export.text
    assert panel.status.text == before


def test_only_a_stored_run_predicts_on_request(project):
    panel = ResultsPanel(project)
    assert panel.predict.disabled
    for label in range(1, 5):
        project.annotate("left", label, "bright" if label % 2 else "dark")
    project.live.update()
    assert project.current_run == "live"
    assert panel.predict.disabled
    assert "bright" in panel.counts.value


def test_the_evaluation_is_computed_in_the_background(trained, monkeypatch):
    threads, original = [], Project.evaluate

    def evaluate(project, run=None):
        threads.append(threading.current_thread())
        return original(project, run)

    monkeypatch.setattr(Project, "evaluate", evaluate)

    async def open_section():
        panel = ResultsPanel(trained)
        panel.sections.selected_index = 1
        assert panel.evaluation.value == ""
        await until(lambda: "data:image/png" in panel.evaluation.value)

    asyncio.run(open_section())
    assert threads
    assert threading.main_thread() not in threads


def test_an_evaluation_that_fails_replaces_the_old_report_by_the_reason(panel, trained, monkeypatch):
    panel.sections.selected_index = 1
    assert "data:image/png" in panel.evaluation.value

    def fail(*arguments):
        raise ProjectError("The mask has changed.")

    monkeypatch.setattr(Project, "evaluate", fail)
    panel.show_evaluation()
    assert "data:image/png" not in panel.evaluation.value
    assert "The mask has changed." in panel.evaluation.value


def test_the_open_evaluation_follows_the_score(annotated):
    annotated.settings = annotated.settings.changed(preset="default", epochs=2, width=4, depth=2, folds=2, trees=10)
    annotated._jobs.lane.begin_hold()
    panel = ResultsPanel(annotated)
    annotated.train(predict=True)
    panel.sections.selected_index = 1
    assert "is being scored" in panel.evaluation.value
    annotated.evaluate()
    assert name_controls(annotated.evaluate()._repr_html_()) in panel.evaluation.value
    assert "data:image/png" in panel.evaluation.value
