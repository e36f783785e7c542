"""Networks that are trained in the background while labels are followed."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from svetlana_jupyter.core import allowed_cues
from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.learn import preset_search
from svetlana_jupyter.learn.training import _NetworkTraining
from svetlana_jupyter.project import background_training, live
from svetlana_jupyter.project.background_training import BackgroundTraining
from svetlana_jupyter.project.jobs import JobRunner, Progress
from svetlana_jupyter.project.live_results import live_results
from svetlana_jupyter.project.run_scoring import NOT_SCORED, RunScored
from tests.project.test_live import label_some, wait_until
from tests.project.test_live_replacement import store_held_out

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
    reason = "Run 0001 replaced the live classifier, because it predicts 24 held-out labels better"
    assert followed.runs.current_reason.startswith(reason)
    assert followed.predictions()["predicted"].notna().all()
    assert followed.job is None


def test_labels_given_after_a_replacement_train_the_next_network(followed: Project, monkeypatch) -> None:
    monkeypatch.setattr(background_training, "MIN_NEW_LABELS", 4)
    show_good_labels(followed, 0.5)
    label_some(followed, 1, 24)
    wait_until(lambda: followed.current_run == "0001")
    store_held_out(followed.runs["0001"], 0.5)
    for label in range(1, 13):
        followed.annotate("P2_A1", label, "bright" if label % 2 == 0 else "dim")
    wait_until(lambda: followed.current_run == "0002")
    assert "Run 0002 replaced run 0001, because it predicts 24 held-out labels better" in followed.runs.current_reason
    assert followed.predictions()["predicted"].notna().all()


def test_a_worse_network_is_kept_as_a_run_and_the_live_classifier_stays(followed: Project) -> None:
    show_good_labels(followed, 1.0)
    label_some(followed, 1, 24)
    wait_until(lambda: len(followed.runs) == 1 and not followed.runs[0].missing_scores)
    assert followed.current_run == "live"
    assert not followed.runs.current_reason


def test_training_waits_until_labels_have_grown_by_half_and_by_twenty(followed: Project, monkeypatch) -> None:
    submitted = []
    monkeypatch.setattr(followed._jobs.lane, "submit", lambda name, *_: submitted.append(name))
    training = followed._background_training
    for labels, starts in ((19, False), (20, True), (39, False), (40, True), (59, False), (60, True), (89, False)):
        submitted.clear()
        training._steps = None
        training.consider(labels)
        assert bool(submitted) == starts, labels


def test_a_switch_ends_the_training_and_starts_none(followed: Project) -> None:
    followed.live.trains = False
    label_some(followed, 1, 24)
    wait_until(lambda: followed.live.state.labels == 24 and followed.live.state.stage == "average")
    time.sleep(0.3)
    assert followed._background_training._steps is None
    assert not followed.runs


def test_a_script_that_updates_trains_nothing(project: Project) -> None:
    label_some(project, 1, 24)
    project.live.update()
    assert project._background_training._steps is None
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


def test_a_training_that_was_cancelled_during_a_hold_does_not_go_on_with_its_labels(monkeypatch) -> None:
    jobs, handled, begun = JobRunner(*[lambda argument: None] * 3), [], []

    def train(task, stop):
        begun.append(task.labels)
        for number in range(3):
            if task.labels == 20 and number == 1:
                jobs.lane.begin_hold()
            yield Progress(number, 3, "training")
        yield RunScored(task.labels, is_provisional=True)

    labels = [20]
    task = lambda: SimpleNamespace(labels=labels[0], classes=ClassScheme())  # noqa: E731
    monkeypatch.setattr(background_training, "train_run", train)
    training = BackgroundTraining(jobs, [], task, handled.append, lambda state: None, pytest.fail)
    training.consider(20)
    wait_until(lambda: bool(jobs.lane._holds))
    training.cancel()
    labels[0] = 40
    training.consider(40)
    jobs.lane.end_hold()
    assert jobs.lane.wait(10)
    assert begun == [20, 40]
    assert [event.run for event in handled] == [40]


def test_an_interrupted_comparison_of_presets_continues_after_its_finished_trainings(followed, monkeypatch) -> None:
    monkeypatch.setattr(allowed_cues, "CANDIDATE_PRESETS", ("forest", "default", "plain"))
    monkeypatch.setattr(preset_search, "GAIN_PER_SECOND", -1.0)
    followed.settings = followed.settings.changed(preset="auto", epochs=2)
    trained, held = [], []
    fit = preset_search.fit

    def counted(samples, *args):
        trained.append(samples.settings.preset)
        for number, event in enumerate(fit(samples, *args)):
            if samples.settings.preset != "forest" and number == 1 and len(held) < 3:
                followed._jobs.lane.begin_hold()
                held.append(samples.settings.preset)
            yield event

    monkeypatch.setattr(preset_search, "fit", counted)
    label_some(followed, 1, 24)
    for number in range(3):
        wait_until(lambda number=number: len(held) > number)
        followed._jobs.lane.end_hold()
    wait_until(lambda: len(followed.runs) == 1 and followed.runs[0].note != NOT_SCORED)
    assert trained == ["forest"] * 2 + ["default"] * 2 + ["plain"] * 2
    assert followed.runs[0].settings["preset"] != "forest", "no forest is stored while the live classifier is shown"


@pytest.mark.parametrize("edit", ["merge", "split", "rename", "add", "mask"])
def test_a_training_starts_again_after_an_edit_of_its_labels(followed: Project, monkeypatch, edit: str) -> None:
    followed.classes.add("odd")
    for label in (1, 3, 5):
        followed.annotate("P2_A1", label, "odd")
    if edit == "split":
        followed.classes.merge("odd", into="dim")
    begun, ended = [], []

    def train(task, stop):
        begun.append((task.classes.names, sorted(task.labels.unique())))
        for number in range(3):
            if len(begun) == 1 and number == 1:
                followed._jobs.lane.begin_hold()
            yield Progress(number, 3, "training")
        ended.append(begun[-1])

    monkeypatch.setattr(background_training, "train_run", train)
    label_some(followed, 1, 24)
    wait_until(lambda: bool(begun))
    match edit:
        case "merge":
            followed.classes.merge("odd", into="dim")
        case "split":
            followed.classes.split("odd")
        case "rename":
            followed.classes.rename("odd", "round")
        case "add":
            followed.classes.add("round")
        case "mask":
            followed.replace_mask("P2_A1", np.asarray(followed.pair("P2_A1").mask)[:, ::-1].copy())
    followed._jobs.lane.end_hold()
    wait_until(lambda: bool(ended))
    names = followed.classes.names[:3]
    assert ended == [(names, [1, 2, 3] if len(names) == 3 else [1, 2])]
    assert len(begun) == (1 if edit == "add" else 2)


def test_an_update_during_a_merge_shows_nothing_of_the_vanished_class(followed: Project, monkeypatch) -> None:
    followed.live.trains = False
    followed.classes.add("odd")
    for label in (1, 3, 5):
        followed.annotate("P2_A1", label, "odd")
    label_some(followed, 1, 23)
    wait_until(lambda: followed.live.state.labels == 26 and followed.live.state.stage == "average")
    assert set(followed.live.state.counts) == {1, 2, 3}
    computed, merged, states = threading.Event(), threading.Event(), []

    def paused(data, stop):
        for number, result in enumerate(live_results(data, stop)):
            if len(data.labels) == 27 and not number:
                computed.set()
                merged.wait(10)
            yield result

    monkeypatch.setattr(live, "live_results", paused)
    followed.annotate("P1_A2", 12, "bright")
    assert computed.wait(10)
    followed.classes.merge("odd", into="dim")
    followed.observe(lambda change: states.append(change["new"]), "live_state")
    table = followed.predictions()
    assert "p_odd" not in table
    assert set(table["predicted"]) <= {"dim", "bright"}
    merged.set()
    wait_until(lambda: followed.live.state.stage == "average" and bool(states))
    assert all(set(state.counts) == {1, 2} for state in states)
    assert set(followed.predictions()["predicted"]) == {"dim", "bright"}


def test_a_training_that_fails_is_reported(followed: Project, monkeypatch) -> None:
    def fail(project: Project) -> None:
        raise ValueError("no memory")

    monkeypatch.setattr(background_training, "train_run", lambda task, stop: map(fail, [followed]))
    label_some(followed, 1, 24)
    wait_until(lambda: followed.trouble == "No network was trained in the background: no memory")
    assert not followed.runs
