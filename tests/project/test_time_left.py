"""Time left of a training, on a clock that advances with the training steps: it covers all later stages."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from svetlana_jupyter.core import allowed_cues
from svetlana_jupyter.learn.networks import step_seconds
from svetlana_jupyter.learn.training import _NetworkTraining
from svetlana_jupyter.project import jobs
from svetlana_jupyter.project.jobs import MAX_GROWTH, JobState, TimeEstimator
from tests.project.conftest import CLASSES

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

SLOWNESS = 50  # of the simulated machine, relative to the expected duration of a training step
TRUST = 0.25  # error of the time left


def simulate(
    project: Project, monkeypatch: pytest.MonkeyPatch, scores: bool = False, **settings
) -> list[tuple[float, JobState]]:
    """Simulate a training, or its scoring, whose steps only advance the clock; return time and state of each event."""
    now, shown = [0.0], list[tuple[float, JobState]]()

    def step(training: _NetworkTraining, *_) -> float:
        now[0] += SLOWNESS * step_seconds(training.settings, len(training.samples.channels))
        return 0.5

    monkeypatch.setattr(_NetworkTraining, "_step", step)
    monkeypatch.setattr(jobs, "TimeEstimator", partial(TimeEstimator, lambda: now[0]))
    project.observe(lambda change: shown.append((now[0], change["new"])) if change["new"] else None, "job")
    for image in ("P1_A1", "P1_A2", "P2_A1"):
        for position, name in enumerate(CLASSES, start=1):
            project.annotate(image, list(range(position, 13, 2)), name)
    project._jobs.lane.begin_hold()
    project.train(**{"width": 4, "depth": 2, "threads": 1, "trees": 10} | settings)
    if scores:
        shown.clear()
        project.evaluate()
    shown.append((now[0], JobState("training")))
    return shown


def check_growth(shown: list[tuple[float, JobState]]) -> None:
    known = [state.seconds_left for _, state in shown if state.seconds_left is not None]
    for position, seconds in enumerate(known[1:], start=1):
        assert seconds <= MAX_GROWTH * min(known[:position]) + 1e-6


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 10}, {"epochs": 10, "steps": None, "batch_size": 8, "held_out_from": 20}],
    ids=["fixed steps", "steps by samples, validation split"],
)
@pytest.mark.parametrize(("scores", "text"), [(False, "training"), (True, "scoring on held-out annotations")])
def test_the_time_left_of_a_training_and_of_its_scoring(project, monkeypatch, settings, scores, text) -> None:
    shown = simulate(project, monkeypatch, scores, augmentation={"brightness": 0, "noise": 0}, **settings)
    end = shown[-1][0]
    check_growth(shown)
    timed = [(end - time, state) for time, state in shown if state.text == text]
    assert len(timed) > 20, "every batch"
    for left, state in timed[len(timed) // 4 :]:
        assert state.seconds_left is not None
        assert state.seconds_left >= (1 - TRUST) * left
        assert state.at_most or state.seconds_left <= (1 + TRUST) * left


def test_the_time_left_of_a_preset_search_covers_the_final_training(project, monkeypatch) -> None:
    monkeypatch.setattr(allowed_cues, "CANDIDATE_PRESETS", ("default", "oriented", "plain", "object"))  # no forest
    project.settings = project.settings.changed(preset="auto")
    shown = simulate(project, monkeypatch, epochs=12, folds=2)
    end = shown[-1][0]
    check_growth(shown)
    searching = [(end - time, state) for time, state in shown if "comparing" in state.text and state.seconds_left]
    assert len(searching) > 4
    for left, state in searching:
        assert state.at_most, "the preset is not known yet"
        assert (1 - TRUST) * left <= state.seconds_left <= left + TRUST * end
    training = [(end - time, state.seconds_left) for time, state in shown if state.text == "training"]
    for left, seconds in training[len(training) // 4 :]:
        assert seconds == pytest.approx(left, rel=TRUST)


def test_a_possible_repetition_without_augmentation_makes_the_time_left_an_upper_bound(project, monkeypatch) -> None:
    shown = simulate(project, monkeypatch, scores=True, epochs=20)
    text = "scoring on held-out annotations"
    scoring = [(time, state) for time, state in shown if state.text == text and state.seconds_left is not None]
    assert all(" · up to " in state.message for _, state in scoring)
    assert all(state.seconds_left >= shown[-1][0] - time for time, state in scoring[len(scoring) // 4 :])
