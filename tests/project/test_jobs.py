"""Jobs: only one runs at a time, and its state and errors are reported to the owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.jobs import JobRunner, JobState, Progress, Stop, TimeEstimator

if TYPE_CHECKING:
    from collections.abc import Iterator


class Owner:
    """Owner that records everything a runner reports."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.states: list[JobState | None] = []
        self.problems: list[str] = []
        self.runner = JobRunner(self.events.append, self.states.append, self.problems.append)


def steps(stop: Stop) -> Iterator[object]:
    for number in range(3):
        yield Progress(number, 3, f"step {number}")
        if stop():
            return
    yield "result"


def test_progress_updates_the_state_and_other_events_are_handled() -> None:
    owner = Owner()
    owner.runner.run("training", steps)
    assert owner.events == ["result"]
    assert [state.text for state in owner.states if state] == ["", "step 0", "step 1", "step 2"]
    assert owner.states[-1] is None
    assert owner.runner.state is None


def test_a_background_job_reports_its_error() -> None:
    owner = Owner()

    def fail(stop: Stop) -> Iterator[object]:
        yield "begun"
        raise ProjectError("The disk is full. Free disk space.")

    owner.runner.start("export", fail)
    owner.runner.wait(10)
    assert owner.events == ["begun"]
    assert owner.states[-1] is None
    assert owner.problems == ["", "The export stopped: The disk is full. Free disk space."]


def test_only_one_job_runs_at_a_time() -> None:
    owner = Owner()

    def nested(stop: Stop) -> Iterator[object]:
        with pytest.raises(ProjectError, match="A training is running"):
            owner.runner.start("export", steps)
        with pytest.raises(ProjectError, match="A training is reading these objects"):
            owner.runner.check_idle()
        yield "done"

    owner.runner.run("training", nested)
    assert owner.events == ["done"]
    owner.runner.check_idle()


def test_each_stage_is_timed_on_its_own() -> None:
    times = iter([0.0, 1.0, 100.0, 101.0])
    estimator, state = TimeEstimator(lambda: next(times)), JobState("training")
    for done in (0, 5):
        state = estimator.with_progress(state, Progress(done, 10, "first"))
    assert state.seconds_left == pytest.approx(1.0)
    for done in (1, 2):
        state = estimator.with_progress(state, Progress(done, 10, "second"))
    assert state.seconds_left == pytest.approx(8.0)
