"""Networks that are trained in the background while labels are followed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from svetlana_jupyter.learn.training import _NetworkTraining
from svetlana_jupyter.project import background_training
from tests.project.test_live import label_some, wait_until

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project


@pytest.fixture
def followed(project: Project) -> Project:
    """Project with settings that train quickly, whose live predictions follow the labels."""
    project.settings = project.settings.changed(epochs=4, width=4, depth=2, folds=2, trees=10)
    project.live.start()
    yield project
    project.live.stop()


def show_good_labels(project: Project, probability: float) -> None:
    """Let the held-out predictions of the live classifier have this probability for the true class."""
    original = project.live._apply

    def apply(result) -> None:
        if result.held_out is not None:
            truth = np.eye(2)[result.held_out["truth"] - 1]
            result.held_out[["p_1", "p_2"]] = truth * probability + (1 - truth) * (1 - probability)
        original(result)

    project.live._apply = apply


def test_a_better_network_replaces_the_live_classifier_and_says_why(followed: Project) -> None:
    show_good_labels(followed, 0.5)
    label_some(followed, 1, 24)
    wait_until(lambda: followed.current_run == "0001")
    run = followed.runs["0001"]
    assert run.has_network
    assert run.settings["threads"] == 1
    name, reason = followed.live.replaced
    assert name == "0001"
    assert reason.startswith("Run 0001 replaced the live classifier, because it predicts 24 held-out labels better")
    assert followed.predictions()["predicted"].notna().all()
    assert followed.job is None


def test_a_worse_network_is_kept_as_a_run_and_the_live_classifier_stays(followed: Project) -> None:
    show_good_labels(followed, 1.0)
    label_some(followed, 1, 24)
    wait_until(lambda: len(followed.runs) == 1 and not followed.runs[0].missing_scores)
    assert followed.current_run == "live"
    assert followed.live.replaced == ("", "")


def test_training_waits_until_labels_have_grown_by_half_and_by_twenty(followed: Project, monkeypatch) -> None:
    submitted = []
    monkeypatch.setattr(followed._jobs.lane, "submit", lambda name, *_: submitted.append(name))
    training = followed._background_training
    for labels, starts in ((19, False), (20, True), (39, False), (40, True), (59, False), (60, True), (89, False)):
        submitted.clear()
        training._is_wanted = False
        training.consider(labels)
        assert bool(submitted) == starts, labels


def test_a_switch_ends_the_training_and_starts_none(followed: Project) -> None:
    followed.live.trains = False
    label_some(followed, 1, 24)
    wait_until(lambda: followed.live.state.labels == 24 and followed.live.state.stage == "average")
    time.sleep(0.3)
    assert not followed._background_training._is_wanted
    assert not followed.runs


def test_a_script_that_updates_trains_nothing(project: Project) -> None:
    label_some(project, 1, 24)
    project.live.update()
    assert not project._background_training._is_wanted
    assert not project.runs


def test_a_hold_stops_the_training_which_continues_with_the_same_weights(followed: Project, monkeypatch) -> None:
    steps, held = [], []
    step = _NetworkTraining._step

    def counted(training, *args) -> float:
        steps.append(1)
        if len(steps) == 5 and not held:
            held.append(1)
            followed._jobs.lane.begin_hold()
        return step(training, *args)

    monkeypatch.setattr(_NetworkTraining, "_step", counted)
    label_some(followed, 1, 24)
    wait_until(lambda: bool(held))
    time.sleep(0.5)
    assert len(steps) <= 6, "the training is interrupted at the next step"
    followed._jobs.lane.end_hold()
    wait_until(lambda: len(followed.runs) == 1)
    followed.live.stop()
    again = followed.train(followed.runs[0].settings)
    weights = [(run.path / "weights.safetensors").read_bytes() for run in (followed.runs[0], again)]
    assert weights[0] == weights[1]


def test_a_training_that_fails_is_reported(followed: Project, monkeypatch) -> None:
    def fail(project: Project) -> None:
        raise ValueError("no memory")

    monkeypatch.setattr(background_training, "train_run", lambda task, stop: map(fail, [followed]))
    label_some(followed, 1, 24)
    wait_until(lambda: followed.trouble == "No network was trained in the background: no memory")
    assert not followed.runs
