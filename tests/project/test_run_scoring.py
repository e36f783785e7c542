"""Scores that are computed after a training: in the background, when they are needed, and after a restart."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from svetlana_jupyter.core.stats.calibration import Calibration
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn import cross_validation
from svetlana_jupyter.learn.cross_validation import cross_validate
from svetlana_jupyter.project import runs as stored_runs
from svetlana_jupyter.project.jobs import panel_call
from svetlana_jupyter.project.run_scoring import BEING_SCORED, NOT_SCORED, Scoring
from svetlana_jupyter.project.runs import LABELS_FILE, NETWORK
from tests.learn.networks import Plain
from tests.project.conftest import reopen, squares

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.runs import Run


@pytest.fixture
def annotated(project: Project) -> Project:
    """Project with 24 annotated objects, settings that train quickly, and no work in the background."""
    for name in ("P1_A1", "P1_A2"):
        project.annotate(name, range(1, 13, 2), "dim")
        project.annotate(name, range(2, 13, 2), "bright")
    project.settings = project.settings.changed(epochs=3, width=4, depth=2, threads=1, folds=2, trees=100)
    project._jobs.lane.begin_hold()
    return project


@pytest.fixture
def trained_folds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The architectures of all trainings within cross-validations."""
    seen: list[str] = []
    fit = cross_validation.fit

    def recorded(samples, *args):
        seen.append(samples.settings.architecture)
        return fit(samples, *args)

    monkeypatch.setattr(cross_validation, "fit", recorded)
    return seen


def expected_tables(project: Project) -> dict[str, pd.DataFrame]:
    """Cross-validate as a training that waited for its score."""
    task = project._task(None, {}, 1)
    *_, network = cross_validate(task.samples(task.settings))
    *_, samples = task.forest_data()
    *_, forest = cross_validate(samples)
    return {"network": network.table, "forest": forest.table}


def assert_scored(run: Run, expected: dict[str, pd.DataFrame]) -> None:
    assert run.missing_scores == []
    for name, table in expected.items():
        pd.testing.assert_frame_equal(run.held_out(name)[table.columns], table)


def wait_for_lane(project: Project) -> None:
    project._jobs.lane.end_hold()
    assert project._jobs.lane.wait(60)


def test_a_run_can_be_used_before_it_is_scored(annotated: Project) -> None:
    run = annotated.train()
    assert run.held_out() is None
    annotated.predict()
    assert annotated.predictions()["predicted"].notna().all()
    assert annotated.runs.current.missing_scores == ["network", "augmentation", "forest"]
    assert annotated.runs.compare()["source"].tolist() == ["being scored"]
    with panel_call():
        report = annotated.evaluate()
    assert report.text == BEING_SCORED
    assert report.network is None


def test_an_evaluation_gives_the_score_of_a_training_that_waited_for_it(annotated: Project) -> None:
    expected = expected_tables(annotated)
    run, shown = annotated.train(), []
    annotated.observe(lambda change: shown.append(change["new"]), "job")
    report = annotated.evaluate()
    assert_scored(annotated.runs[run.name], expected)
    right = (expected["network"]["predicted"] == expected["network"]["truth"]).mean()
    assert report.network.accuracy.value == right
    assert report.forest is not None
    assert {state.kind for state in shown if state} == {"scoring"}
    assert annotated.status == report.text
    shown.clear()
    annotated.evaluate()
    assert shown == [], "nothing is computed twice"


def test_the_background_computes_the_same_scores(annotated: Project) -> None:
    expected, states = expected_tables(annotated), []
    annotated.observe(lambda change: states.append(change["new"]), "scoring")
    run = annotated.train()
    wait_for_lane(annotated)
    assert_scored(annotated.runs[run.name], expected)
    assert annotated.status.startswith("Accuracy ")
    assert any("of 2 folds" in state.text for state in states if state)
    assert annotated.scoring is None


def test_a_computation_that_is_interrupted_at_every_step_trains_each_fold_once(annotated, trained_folds) -> None:
    run, expected = annotated.train(), expected_tables(annotated)
    trained_folds.clear()
    scoring: Scoring = annotated._shared.scorings[run.name]
    while scoring.run.missing_scores:
        next(scoring.events(lambda: False), None)  # the generator is dropped
        scoring.news = None
    assert_scored(scoring.run, expected)
    assert trained_folds == 2 * ["small_cnn"] + 2 * ["forest"]


def test_a_job_interrupts_the_background_which_continues_afterwards(annotated, trained_folds, monkeypatch) -> None:
    expected, begun = expected_tables(annotated), []
    trained_folds.clear()
    annotated.train(epochs=60)
    lane = annotated._jobs.lane

    def predict_once(change) -> None:
        if change["new"] and not begun:
            begun.append(threads_of_lane_end())

    def threads_of_lane_end() -> str:
        lane.begin_hold()  # as a job does
        return annotated.scoring.text if annotated.scoring else ""

    annotated.observe(predict_once, "scoring")
    lane.end_hold()
    deadline = time.monotonic() + 60
    while not begun:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    annotated.predict()
    assert annotated.runs.current.missing_scores, "it is not over"
    wait_for_lane(annotated)
    assert annotated.runs.current.missing_scores == []
    assert trained_folds == 2 * ["small_cnn"] + 2 * ["forest"]
    pd.testing.assert_frame_equal(
        annotated.runs.current.held_out("forest")[expected["forest"].columns], expected["forest"]
    )


def test_a_restarted_project_computes_the_same_scores(annotated: Project) -> None:
    expected, run = expected_tables(annotated), annotated.train()
    annotated.annotate("P2_A1", [1, 3], "dim")  # later labels are not the ones of the run
    annotated.annotate("P1_A1", 1, "bright")
    annotated._shared.scorings.clear()
    reopened = reopen(annotated)
    assert reopened.runs.score(run).text == NOT_SCORED
    assert reopened.evaluate().network is not None
    assert_scored(reopened.runs[run.name], expected)


def test_a_restart_after_the_first_score_computes_the_others(annotated: Project, trained_folds) -> None:
    expected, run = expected_tables(annotated), annotated.train()
    annotated.counts()
    assert NETWORK not in annotated.runs[run.name].missing_scores
    assert annotated.runs[run.name].missing_scores
    annotated._shared.scorings.clear()
    trained_folds.clear()
    annotated.evaluate()
    assert_scored(annotated.runs[run.name], expected)
    assert "forest" in trained_folds


@pytest.mark.parametrize("why", ["no labels", "another mask", "a network object"])
def test_a_run_that_cannot_be_scored_says_why(annotated: Project, why: str) -> None:
    run = annotated.train(network=Plain(3, 2)) if why == "a network object" else annotated.train()
    annotated._shared.scorings.clear()
    annotated.runs.networks.clear()
    if why == "no labels":
        (run.path / LABELS_FILE).unlink()
    if why == "another mask":
        annotated.replace_mask("P1_A1", squares()[1].astype(np.int32) + 100)
    report = annotated.evaluate()
    reason = {
        "no labels": "its labels were not stored",
        "another mask": "the mask of image 'P1_A1' was replaced after the training",
        "a network object": "its network was passed as an object",
    }[why]
    assert reason in report.text
    assert reason in annotated.trouble
    assert report.network is None


def test_a_forest_for_comparison_is_not_measured_on_another_mask(annotated: Project) -> None:
    annotated.train()
    annotated.replace_mask("P1_A1", squares()[1].astype(np.int32) + 100)
    report = annotated.evaluate()
    assert report.network is not None, "the patches were cut before"
    assert report.forest is None
    assert "No forest was trained for comparison: the mask of image 'P1_A1' was replaced" in report.text


def test_a_stop_keeps_the_folds_and_an_evaluation_continues(annotated: Project, trained_folds) -> None:
    run = annotated.train()
    scoring: Scoring = annotated._shared.scorings[run.name]
    for event in scoring.events(lambda: False):
        if event.done > 1:  # the first fold is over
            break
    annotated.stop()
    with panel_call():
        assert annotated.evaluate().text == NOT_SCORED
    assert annotated.evaluate().network is not None
    assert trained_folds == 2 * ["small_cnn"] + 2 * ["forest"]


def test_predictions_wait_for_the_score_that_calibrates_them(large: Project, monkeypatch) -> None:
    large.settings = large.settings.changed(epochs=2, width=4, depth=2, threads=1, folds=2, trees=10)
    monkeypatch.setattr(stored_runs, "calibrate", lambda table: (Calibration(3.0), table))
    large._jobs.lane.begin_hold()
    for name in large.images:
        large.annotate(name, range(1, 9, 2), "dim")
        large.annotate(name, range(2, 9, 2), "bright")
    large.train(predict=True)
    with panel_call():
        shown = large.predictions()["probability"]
    table = large.predictions()["probability"]
    assert large.runs.current.calibration == Calibration(3.0)
    assert (table < shown).all(), "the panel shows them before the calibration"
    large.evaluate()
    pd.testing.assert_series_equal(large.predictions()["probability"], table)


def test_few_labels_calibrate_nothing_so_predictions_do_not_wait(annotated: Project) -> None:
    annotated.train(predict=True)
    annotated.predictions()
    assert NETWORK in annotated.runs.current.missing_scores


def test_earlier_runs_are_scored_after_the_last(annotated: Project) -> None:
    names, order = [annotated.train(seed=seed).name for seed in range(4)], []
    annotated.observe(
        lambda _: order.extend(run.name for run in annotated.runs if not run.missing_scores and run.name not in order),
        "runs_version",
    )
    wait_for_lane(annotated)
    assert order == names[::-1]


def test_a_failed_score_is_reported_and_other_runs_are_scored(annotated: Project, monkeypatch) -> None:
    first, second = annotated.train(), annotated.train(seed=1)
    fit = cross_validation.fit

    def diverge(samples, *args):
        if samples.settings.seed == 1:
            raise ClassifierError("Training diverged.")
        return fit(samples, *args)

    monkeypatch.setattr(cross_validation, "fit", diverge)
    wait_for_lane(annotated)
    assert annotated.trouble == f"Run {second.name} was not scored: Training diverged."
    assert annotated.runs.score(annotated.runs[second.name]).text == f"{NOT_SCORED} Training diverged."
    assert annotated.runs[first.name].missing_scores == []
    monkeypatch.setattr(cross_validation, "fit", fit)
    assert annotated.evaluate(second.name).network is not None
    assert "diverged" not in annotated.evaluate(second.name).text


def test_exports_and_counts_have_the_intervals_of_a_scored_run(annotated: Project, tmp_path: Path) -> None:
    for name in ("P1_A1", "P1_A2"):
        annotated.annotate(name, range(1, 13, 2), "dim", source="random")
        annotated.annotate(name, range(2, 13, 2), "bright", source="random")
    annotated.train(predict=True)
    annotated.export(tmp_path / "results")
    counts = pd.read_csv(tmp_path / "results/counts.csv").set_index("image")
    assert counts.loc["P2_A1", "low"].notna().all(), "the image without labels"
    np.testing.assert_allclose(annotated.counts(by="image")["low"], counts["low"])


def test_counts_of_a_panel_say_that_the_score_is_missing(annotated: Project) -> None:
    for name in ("P1_A1", "P1_A2"):
        annotated.annotate(name, range(1, 13, 2), "dim", source="random")
        annotated.annotate(name, range(2, 13, 2), "bright", source="random")
    annotated.train(predict=True)
    with panel_call():
        counts = annotated.counts()
    assert counts["low"].isna().all()
    assert counts["note"].str.contains("The run has them once it is scored").all()
    assert not annotated.counts()["note"].str.contains("once it is scored").any()


def test_background_export_scores_the_run_first(annotated: Project, tmp_path: Path) -> None:
    annotated.annotate("P1_A1", [1, 3], "dim")
    annotated.train(predict=True)
    annotated.background.export(tmp_path / "results")
    annotated._jobs.wait(60)
    assert annotated.trouble == ""
    assert annotated.last_export.files
    assert NETWORK not in annotated.runs.current.missing_scores


def test_a_late_event_does_not_take_a_score_back(annotated: Project) -> None:
    run = annotated.train()
    annotated.evaluate()
    scored = annotated.runs[run.name]
    annotated._show_score(replace(scored, missing_scores=["forest"], note="late"))
    assert annotated.runs[run.name] == scored
