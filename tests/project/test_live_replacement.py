"""Replacement of the live classifier by a trained run, which never leaves objects without predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from svetlana_jupyter.core import allowed_cues
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.learn import preset_search
from svetlana_jupyter.learn.preset_search import SearchResult
from svetlana_jupyter.project import project as project_module
from svetlana_jupyter.project.jobs import JobState
from svetlana_jupyter.project.run_scoring import RunScored
from tests.project.test_live import label_some

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project


@pytest.fixture
def poor(project: Project) -> Project:
    """Project whose live classifier knows nothing of held-out labels, and without work in the background."""
    project.settings = project.settings.changed(epochs=3, width=4, depth=2, folds=2, trees=10)
    label_some(project)
    project.live.update()
    show_held_out(project, 0.5)
    project._jobs.lane.begin_hold()
    return project


def show_held_out(project: Project, probability: float) -> None:
    """Let the live classifier predict the true class of every held-out label with this probability."""
    held_out = project.live.result.held_out
    truth = np.eye(2)[held_out["truth"] - 1]
    held_out[["p_1", "p_2"]] = truth * probability + (1 - truth) * (1 - probability)


def shown_runs(project: Project) -> list[tuple[str, bool]]:
    """Return a list of the runs that are shown from now on, and whether they predict every object."""
    shown: list[tuple[str, bool]] = []

    def note(change) -> None:
        shown.append((change["new"], bool(project.predictions()["predicted"].notna().all())))

    project.observe(note, "current_run")
    return shown


def select_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a comparison of presets store a forest first, and then select a network."""
    monkeypatch.setattr(allowed_cues, "CANDIDATE_PRESETS", ("forest", "default"))
    search = preset_search.search

    def select(*args, **options):
        for event in search(*args, **options):
            if isinstance(event, SearchResult):
                best = replace(event.candidates[0], preset="default")
                event = replace(event, candidates=type(event.candidates)([best, *event.candidates]))
            yield event

    monkeypatch.setattr(preset_search, "search", select)


@pytest.mark.parametrize("how", ["script", "panel", "predict"])
def test_a_comparison_of_presets_shows_its_last_run_once_that_is_predicted(poor, monkeypatch, how) -> None:
    select_the_network(monkeypatch)
    poor.settings = poor.settings.changed(preset="auto")
    shown, statuses = shown_runs(poor), []
    poor.observe(lambda change: statuses.append(change["new"]), "status")
    if how == "panel":
        poor.background.train()
        poor._jobs.wait(120)
    else:
        assert poor.train(predict=how == "predict").name == "0002"
    assert not poor.trouble
    assert [run.settings["preset"] for run in poor.runs] == ["forest", "default"]
    assert shown == [("0002", True)]
    name, reason = poor.live.replaced
    assert name == "0002"
    assert reason.startswith("Run 0002 replaced the live classifier, because it predicts 24 held-out labels better")
    assert any("live classifier stays until a score shows" in status for status in statuses)


def test_a_score_in_the_background_is_shown_to_a_script_once_the_images_are_predicted(poor) -> None:
    run = poor.train()
    assert list(poor._scorings._pending[run.name].events(lambda: False))  # scored and stored, but not yet predicted
    assert poor.predictions()["predicted"].notna().all()
    assert poor.current_run == run.name


def test_a_run_that_becomes_better_after_its_score_is_not_shown_without_predictions(poor) -> None:
    show_held_out(poor, 1.0)
    run = poor.train()
    scoring = poor._scorings._pending[run.name]
    events = poor._scorings._events(scoring, lambda: False)
    scored = next(event for event in events if isinstance(event, RunScored))
    show_held_out(poor, 0.5)
    poor._handle(scored)
    assert poor.current_run == "live"
    assert f"Choose run {run.name} to see its predictions." in poor.status


@pytest.mark.parametrize("why", ["stopped", "failed"])
def test_the_live_classifier_stays_if_a_better_run_could_not_predict_every_image(poor, monkeypatch, why) -> None:
    run = poor.train()

    def predict_nothing(task, stop):
        if why == "failed":
            raise InputError("P2_A1 could not be read.")
        poor.stop()
        yield from ()

    monkeypatch.setattr(project_module, "predict_images", predict_nothing)
    poor.evaluate(run.name)
    if why == "failed":
        assert poor.status.endswith("The live classifier stays. P2_A1 could not be read.")
    assert poor.current_run == "live"
    assert poor.predictions()["predicted"].notna().all()


def test_a_cancelled_training_in_the_background_shows_no_progress(poor) -> None:
    training = poor._background_training
    training._is_wanted = True
    training._show_wanted(JobState("training", text="comparing preset plain"))
    assert poor.scoring is not None
    training.cancel()
    assert poor.scoring is None
    training._show_wanted(JobState("training", text="comparing preset plain"))  # its event was on the way
    assert poor.scoring is None
