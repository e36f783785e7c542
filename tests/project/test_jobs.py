"""Jobs: only one runs at a time, and its state and errors are reported to the owner."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
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


def test_a_stop_at_the_end_of_a_job_leaves_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, may_end = Owner(), threading.Event()

    def work(stop: Stop) -> Iterator[object]:
        may_end.wait(30)
        yield "result"

    def replace_while_the_job_ends(state: JobState, **changes: object) -> JobState:
        may_end.set()
        owner.runner.wait(0.1)  # the job cannot end while it is being stopped
        return replace(state, **changes)

    monkeypatch.setattr("svetlana_jupyter.project.jobs.replace", replace_while_the_job_ends)
    owner.runner.start("training", work)
    owner.runner.stop()
    owner.runner.wait(30)
    assert owner.states[-2].stopping
    assert owner.states[-1] is owner.runner.state is None
    owner.runner.stop()
    assert owner.runner.state is None


def test_a_job_whose_event_loop_has_ended_does_not_block_the_next_one() -> None:
    may_end = threading.Event()

    def work(stop: Stop) -> Iterator[object]:
        yield "begun"
        may_end.wait(30)

    async def begin() -> Owner:
        owner = Owner()
        owner.runner.start("training", work)
        may_end.set()
        owner.runner.wait(30)  # its end waits in the event loop, which runs no more
        asyncio.get_running_loop().stop()
        return owner

    loop = asyncio.new_event_loop()
    task = loop.create_task(begin())
    loop.run_forever()
    loop.close()
    owner = task.result()
    owner.runner.run("export", steps)
    assert owner.runner.state is None


def test_a_job_that_cannot_begin_leaves_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Iterator[object]:
        raise RuntimeError("can't start new thread")

    owner = Owner()
    with pytest.raises(RuntimeError):
        owner.runner.run("training", fail)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", fail)
        owner.runner.start("export", steps)
    assert owner.problems[-1] == "The export stopped: can't start new thread"
    owner.runner.run("training", steps)
    assert owner.events == ["result"]


def follow(*events: tuple[float, Progress]) -> list[float | None]:
    """Return the seconds left after each event ``(time, progress)``."""
    return [state.seconds_left for state in follow_states(*events)]


def follow_states(*events: tuple[float, Progress]) -> list[JobState]:
    times = iter([time for time, _ in events])
    estimator, state = TimeEstimator(lambda: next(times)), JobState("training")
    return [state := estimator.with_progress(state, progress) for _, progress in events]


def test_each_stage_is_timed_on_its_own() -> None:
    first = [(0.0, Progress(0, 10, "first")), (1.0, Progress(5, 10, "first"))]
    second = [(100.0, Progress(1, 10, "second")), (101.0, Progress(2, 10, "second"))]
    assert follow(*first, *second) == pytest.approx([None, 1.0, None, 8.0])


def test_the_time_left_includes_later_stages_and_is_counted_down_until_the_next_rate() -> None:
    first = [(0.0, Progress(0, 10, "training", later=20)), (10.0, Progress(10, 10, "training", later=20))]
    second = [(11.0, Progress(0, 1, "scoring")), (14.0, Progress(1, 4, "scoring")), (19.0, Progress(2, 4, "scoring"))]
    assert follow(*first, *second) == pytest.approx([None, 20.0, 19.0, 16.0, 10.0])


def test_an_upper_bound_ends_once_it_is_decided_what_remains() -> None:
    first = [(0.0, Progress(0, 10, "scoring", later=20, at_most=True))]
    first.append((10.0, Progress(10, 10, "scoring", later=20, at_most=True)))
    assert follow(*first, (11.0, Progress(0, 30, "measuring objects", later=None))) == [None, 20.0, None]


def test_a_stage_before_unknown_work_shows_no_time_left() -> None:
    cutting = [(float(done), Progress(done, 10, "cutting patches", later=None)) for done in range(11)]
    search = [(10.0, Progress(0, 10, "comparing presets")), (20.0, Progress(1, 10, "comparing presets"))]
    assert follow(*cutting, *search) == [*[None] * 12, 90.0]


def test_the_time_left_of_work_that_becomes_slower_stands_still_until_it_is_true() -> None:
    events, now = [], 0.0
    for done in range(121):  # of three presets, the second of which is slow
        total = 140 if done < 60 else 120
        events.append((now, Progress(done, total, "comparing presets", later=20, at_most=True)))
        now += 3.0 if 40 <= done < 80 else 1.0
    events.extend((now + 2 * done, Progress(done, 20, "training")) for done in range(21))
    first, *states = follow_states(*events)
    assert first.seconds_left is None
    left = [state.seconds_left for state in states if state.seconds_left is not None]
    for position, seconds in enumerate(left[1:], start=1):
        assert seconds <= 1.2 * min(left[:position]) + 1e-9
    held = [state for state in states[40:] if state.seconds_left == left[50]]
    assert len(held) > 10
    assert not any(state.at_most for state in held), "it is no upper bound"
    assert left[-2] == pytest.approx(2.0), "it is true again"


def test_a_stage_that_was_not_announced_has_its_own_time_left() -> None:
    training = [(float(done), Progress(done, 10, "training")) for done in range(10)]
    predicting = [(9.5, Progress(0, 100, "predicting")), (11.5, Progress(1, 100, "predicting"))]
    assert follow(*training, *predicting)[-3:] == [1.0, None, 198.0]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (JobState("training", text="training"), "training"),
        (JobState("training", text="training", seconds_left=200), "training · 3 min left"),
        (JobState("training", text="training", seconds_left=9, at_most=True), "training · up to 9 s left"),
        (JobState("training", text="training", seconds_left=9, stopping=True), "Stopping …"),
    ],
)
def test_the_time_left_is_shown_once_it_is_known(state: JobState, message: str) -> None:
    assert state.message == message
