"""Sweep over settings: each result is stored at once, a sweep resumes, and gives the table of the paper."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from svetlana_jupyter.errors import ProjectError, SettingsError
from svetlana_jupyter.project import sweep as sweep_module
from svetlana_jupyter.project.jobs import Progress
from svetlana_jupyter.project.sweep import read_rows, sweep, sweep_points, sweep_table
from tests.project.conftest import CLASSES

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

FAST = {"epochs": 2, "steps": 2, "threads": 1, "folds": 2, "sampling": 8}


@pytest.fixture
def annotated(project: Project) -> Project:
    project.annotations.annotate_each({("P1_A1", n): CLASSES[1 - n % 2] for n in range(1, 13)})
    return project


def test_the_table_has_one_row_per_combination(annotated: Project) -> None:
    table = annotated.sweep(depth=[1, 2], width=[2, 4], **FAST)
    assert set(zip(table["depth"], table["width"])) == {(1, 2), (1, 4), (2, 2), (2, 4)}
    assert " ".join(table) == "depth width acc. dim acc. bright avg acc. accuracy low high parameters seconds"
    assert table["avg acc."].is_monotonic_decreasing
    assert (table["avg acc."] == (table["acc. dim"] + table["acc. bright"]) / 2).all()
    sizes = table.set_index(["depth", "width"])["parameters"]
    # Two channels of the image ("both") and the mask; convolution and bias, scale and shift, then the linear layer.
    assert sizes[1, 2] == (3 * 9 + 1) * 2 + 2 * 2 + (2 + 1) * 2
    assert (table["seconds"] > 0).all()
    assert annotated.job is None
    assert not annotated.runs


def test_a_stored_result_is_not_computed_again(annotated: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    first = annotated.sweep(width=[2, 4], **FAST)
    computed = []
    measured = sweep_module._score_point
    monkeypatch.setattr(sweep_module, "_score_point", lambda *given: computed.append(given[1]) or measured(*given))
    assert annotated.sweep(width=[2, 4], **FAST).equals(first)
    assert computed == []
    assert len(annotated.sweep(width=[2, 4, 6], **FAST)) == 3
    assert computed == ["width 6"]
    annotated.annotate("P1_A2", 1, "dim")
    annotated.sweep(width=[2], **FAST)
    assert computed == ["width 6", "width 2"], "other annotations give another cell"


def test_an_interruption_keeps_finished_results(annotated: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = sweep_module._score_point

    def interrupted(samples, text, place, stop):
        if text == "width 4":
            raise KeyboardInterrupt
        return measured(samples, text, place, stop)

    monkeypatch.setattr(sweep_module, "_score_point", interrupted)
    with pytest.raises(KeyboardInterrupt):
        annotated.sweep(width=[2, 4], **FAST)
    assert annotated.job is None
    assert len(read_rows(annotated.path / "sweep.jsonl")) == 1
    monkeypatch.setattr(sweep_module, "_score_point", measured)
    assert len(annotated.sweep(width=[2, 4], **FAST)) == 2


def test_a_torn_last_line_loses_only_its_result(annotated: Project) -> None:
    annotated.sweep(width=[2, 4], **FAST)
    file = annotated.path / "sweep.jsonl"
    content = file.read_text()
    file.write_text(content[:-40])
    assert len(read_rows(file)) == 1
    annotated.sweep(width=[2, 4], **FAST)
    lines = file.read_text().splitlines()
    assert len(read_rows(file)) == 2
    assert json.loads(lines[0])
    assert json.loads(lines[-1])


def test_a_stop_omits_the_unfinished_result(annotated: Project) -> None:
    task = annotated._task(None, {}, 1)
    wanted = sweep_points(task, {"width": [2, 4], "epochs": 1, "steps": 1, "patches": {"sampling": 8}})
    file, seen = annotated.path / "sweep.jsonl", list[Progress]()
    for progress in sweep(task, wanted, file, stop=lambda: len(read_rows(file)) == 1):
        seen.append(progress)
    assert len(sweep_table(wanted, file)) == 1
    assert all(0 <= p.done <= p.total == 2 for p in seen)


def test_patches_are_cut_once_for_combinations_that_share_them(
    annotated: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = annotated._task(None, {}, 1)
    cut = []
    collect_with_progress = type(task).collect_with_progress
    monkeypatch.setattr(
        type(task),
        "collect_with_progress",
        lambda self, settings: cut.append(settings) or collect_with_progress(self, settings),
    )
    quick = {"epochs": 1, "steps": 1, "folds": 2}
    wanted = sweep_points(task, {"width": [2, 4], "patches": [{"sampling": 8}, {"sampling": 12}], **quick})
    list(sweep(task, wanted, annotated.path / "sweep.jsonl", stop=lambda: False))
    assert len(cut) == 4, "the innermost list varies the patches"
    wanted = sweep_points(task, {"patches": [{"sampling": 8}, {"sampling": 12}], "width": [6, 8], **quick})
    list(sweep(task, wanted, annotated.path / "sweep.jsonl", stop=lambda: False))
    assert len(cut) == 6


def test_the_default_sweep_is_that_of_the_paper(annotated: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    requested = []
    monkeypatch.setattr(
        "svetlana_jupyter.project.project.sweep_points", lambda task, values: requested.append(values) or []
    )
    annotated.sweep(epochs=3)
    assert requested == [{"depth": [2, 3], "width": [2, 4, 8, 16, 32, 64], "epochs": 3}]


def test_invalid_sweeps_are_refused_before_any_work(annotated: Project, project: Project) -> None:
    with pytest.raises(SettingsError, match="Did you mean 'width'"):
        annotated.sweep(widht=[2, 4])
    with pytest.raises(SettingsError):
        annotated.sweep(depth=[2, 99])
    for label in range(1, 13, 2):
        project.erase("P1_A1", label)
    project.annotate("P1_A1", 1, "dim")
    with pytest.raises(ProjectError, match="at least 5 annotated objects of two classes"):
        project.sweep(width=[2], **FAST)
    assert not (project.path / "sweep.jsonl").exists()
