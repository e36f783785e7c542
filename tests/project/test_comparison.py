"""Runs side by side, and what each run keeps of how it was made."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from importlib.metadata import version

import pandas as pd
import pytest

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.project.project import Project
from tests.project.conftest import CLASSES
from tests.project.test_evaluation import held_out, run_of


def test_the_latest_run_comes_first_with_its_score(project: Project) -> None:
    run_of(project, {"network": held_out(), "forest": held_out()})
    run_of(project, {}, note="Not known yet: it was not scored.")
    table = project.compare_runs()
    assert list(table.index) == ["0002", "0001"] and table["current"].tolist() == [True, False]
    row, known = table.loc["0001"], project.evaluate("0001")
    assert row["source"] == "cross-validation" and row["labels"] == 120 and row["may_use"] == "everything"
    assert (row["accuracy"], row["low"], row["high"]) == (
        known.network.accuracy.value,
        known.network.accuracy.low,
        known.network.accuracy.high,
    )
    assert row["forest"] == known.forest.accuracy.value and row["balanced"] == known.network.balanced_accuracy.value
    assert pd.isna(table.loc["0002", "accuracy"]) and table.loc["0002", "source"] == "not known yet"
    assert str(table["finished"].dt.tz) == "UTC"


@pytest.mark.parametrize(("may_use", "said"), [(["size", "brightness"], "brightness, size"), ([], "nothing but shape")])
def test_what_a_run_may_use_is_said_in_words(project: Project, may_use: list[str], said: str) -> None:
    run = run_of(project, {})
    settings = TrainingSettings(may_use=may_use).model_dump(mode="json")
    project._runs[run.name] = replace(run, settings=settings)
    assert project.compare_runs()["may_use"].tolist() == [said]


def test_a_project_without_runs_has_an_empty_table(project: Project) -> None:
    assert project.compare_runs().empty and "accuracy" in project.compare_runs()


@pytest.mark.parametrize("architecture", ["small_cnn", "forest"])
def test_a_run_keeps_all_that_decided_it(project: Project, architecture: str) -> None:
    project.annotate_each({("P1_A1", n): CLASSES[1 - n % 2] for n in range(1, 9)})
    changes = {"architecture": architecture, "epochs": 2, "steps": 2, "width": 2, "trees": 5, "seed": 11, "threads": 1}
    run = project.train(**changes)
    assert {name: run.settings[name] for name in changes} == changes
    assert run.settings["patches"]["size"] != "auto", "the patches are those that were cut"
    assert run.versions["python"] == platform.python_version()
    assert {name: run.versions[name] for name in ("torch", "numpy", "scikit-learn")} == {
        name: version(name) for name in ("torch", "numpy", "scikit-learn")
    }
    assert run.labels == {"dim": 4, "bright": 4} and len(run.annotations) == 16
    assert [set(entry) for entry in run.history] == [{"epoch", "loss", "score"}] * (
        1 if architecture == "forest" else 2
    )
    kept = json.loads((run.path / "run.json").read_text())
    assert {"settings", "classes", "labels", "annotations", "history", "seconds", "calibration"} <= set(kept)
