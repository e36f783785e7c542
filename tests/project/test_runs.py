"""Runs of a project: a sequence with a current run."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.run_store import RunStore
from svetlana_jupyter.project.runs import Run, new_run
from svetlana_jupyter.project.storage import Notify, ProjectFolder

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project


def finished_run(folder: ProjectFolder) -> Run:
    with new_run(folder.runs_folder) as (_, finish):
        return finish(Run("", "2026-01-01T00:00:00+00:00", {}, {1: "dim"}, {"dim": 2}, "", [], 1.0, False, "no score"))


@pytest.fixture
def folder(tmp_path: Path) -> ProjectFolder:
    return ProjectFolder(tmp_path / "cells.svetlana")


def test_without_a_run_the_error_says_what_to_do(folder: ProjectFolder) -> None:
    runs = RunStore(folder, Notify())
    assert not runs
    assert runs.current_name == ""
    with pytest.raises(ProjectError, match="then train"):
        _ = runs.current


def test_runs_are_found_by_position_and_by_name(folder: ProjectFolder) -> None:
    first, second = finished_run(folder), finished_run(folder)
    runs = RunStore(folder, Notify())
    assert list(runs) == [first, second] == runs[:]
    assert runs[-1] == second == runs["0002"]
    assert "0001" in runs
    assert first in runs
    assert "0003" not in runs
    with pytest.raises(InputError, match="Choose one of the runs 0001, 0002"):
        runs["0003"]


@pytest.mark.parametrize("others", [0, 1])
def test_a_shown_run_whose_folder_is_deleted_gives_way_to_the_newest_other_run(folder: ProjectFolder, others) -> None:
    for _ in range(others + 1):
        deleted = finished_run(folder)
    shown, said = [], []
    runs = RunStore(folder, Notify(status=said.append), shown.append)
    runs.choose(deleted.name)
    shutil.rmtree(deleted.path)
    runs.reload()
    newest = "0001" if others else ""
    assert (runs.current_name, shown[-1]) == (newest, newest)
    assert said == [f"The folder of run {deleted.name} is gone, so it is no longer shown."]
    assert RunStore(folder, Notify()).current_name == newest


def test_a_run_prints_a_summary_instead_of_all_settings(project: Project) -> None:
    project.annotate("P1_A1", range(2, 13, 2), "bright")
    project.annotate("P1_A1", range(1, 13, 2), "dim")
    run = project.train(preset="default", epochs=1)
    lines = str(run).splitlines()
    assert lines[0].startswith("Run 0001: default, small_cnn, trained in ")
    assert lines[1] == "12 labels: dim 6, bright 6"
    assert lines[2:] == [run.note, "Scores: project.evaluate('0001')"]
    assert repr(run) == str(run)


def test_the_chosen_run_stays_current_until_it_is_removed(folder: ProjectFolder) -> None:
    finished_run(folder), finished_run(folder)
    shown: list[str] = []
    runs = RunStore(folder, Notify(), show=shown.append)
    assert runs.current.name == "0002", "the latest one"
    runs.choose("0001")
    assert RunStore(folder, Notify()).current.name == "0001"
    runs.choose("0002", keep=False)
    assert runs.current.name == "0002"
    assert RunStore(folder, Notify()).current.name == "0001"
    assert shown == ["0001", "0002"]


def test_a_read_only_project_can_choose_another_run(folder: ProjectFolder) -> None:
    finished_run(folder), finished_run(folder)
    runs, before = RunStore(folder, Notify()), folder.document_file.read_bytes()
    folder.writable = False
    runs.choose("0001")
    assert runs.current.name == "0001"
    assert folder.document_file.read_bytes() == before


def test_a_new_run_is_reported(folder: ProjectFolder) -> None:
    changed: list[str] = []
    runs = RunStore(folder, Notify(changed=changed.append))
    run = finished_run(folder)
    runs.add(run)
    assert list(runs) == [run]
    assert changed == ["runs"]
