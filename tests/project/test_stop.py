"""Stop in every stage of training: it ends at once and keeps finished results."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project


@pytest.fixture
def annotated(project: Project) -> Project:
    for name in ("P1_A1", "P1_A2"):
        project.annotate(name, [1, 3, 5, 7], "dim")
        project.annotate(name, [2, 4, 6, 8], "bright")
    project.settings = project.settings.changed(epochs=3, width=4, depth=2, threads=1, folds=2, trees=100)
    return project


def stop_in(project: Project, stage: str) -> None:
    """Train, and stop as soon as the given stage begins."""
    begun = threading.Event()

    def follow(change: dict) -> None:
        if change["new"] and change["new"].text.split(": ")[-1].startswith(stage) and not begun.is_set():
            begun.set()
            project.stop()  # on the thread of the job, so that it cannot continue meanwhile

    project.observe(follow, "job")
    project.background.train()
    project._jobs.wait(60)
    project.unobserve(follow, "job")
    assert begun.is_set()
    assert project.job is None
    assert project.trouble == ""


@pytest.mark.parametrize("stage", ["starting", "cutting patches"])
def test_a_stop_before_there_is_a_network_keeps_nothing_and_says_so(annotated: Project, stage: str) -> None:
    stop_in(annotated, stage)
    assert annotated.status == "Stopped before anything was trained."
    assert not annotated.runs
    assert not list(annotated._folder.runs_folder.glob("*"))
    assert annotated.train().name == "0001"


def test_a_stopped_training_keeps_the_network_without_a_score(annotated: Project) -> None:
    stop_in(annotated, "training")
    assert annotated.current_run == "0001"
    assert annotated.runs.current.stopped
    report = annotated.evaluate()
    assert report.source == "no estimate yet"
    assert "Stopped before the score" in report.text
    annotated.predict(["P1_A1"])
