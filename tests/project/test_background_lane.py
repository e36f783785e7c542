"""Low-priority work beside the jobs that the user starts."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from svetlana_jupyter.project.jobs import BackgroundLane, JobRunner, JobSlot, Stop
from svetlana_jupyter.project.typing_pause import TypingPause

if TYPE_CHECKING:
    from collections.abc import Iterator


def counting(seen: list[int], started: threading.Event, until: threading.Event | None = None):
    """Return work that continues where it was, and waits for an event before each step."""

    def work(stop: Stop) -> Iterator[None]:
        started.set()
        while len(seen) < 3:
            if until is not None and not until.wait(0.01):
                yield
                continue
            seen.append(len(seen))
            yield

    return work


def fail(error: BaseException) -> None:
    pytest.fail(str(error))


def test_the_lane_does_its_work_and_ends_its_thread():
    lane, seen = BackgroundLane(), []
    before = threading.active_count()
    lane.submit("count", counting(seen, threading.Event()), fail)
    assert lane.wait(5)
    assert seen == [0, 1, 2]
    assert threading.active_count() == before


def test_a_job_interrupts_the_lane_and_its_work_continues_afterwards():
    slot, seen, started, go = JobSlot(), [], threading.Event(), threading.Event()
    runner = JobRunner(lambda event: None, lambda state: None, lambda text: None, slot)
    slot.lane.submit("count", counting(seen, started, go), fail)
    assert started.wait(5)
    during = []

    def job(stop: Stop) -> Iterator[object]:
        go.set()
        during.append(len(seen))
        yield
        during.append(len(seen))

    runner.run("export", job)
    assert slot.lane.wait(5)
    assert seen == [0, 1, 2]
    assert during[0] == 0
    assert during[1] <= 1


def test_work_of_the_same_name_is_replaced():
    lane, first, second, started = BackgroundLane(), [], [], threading.Event()
    lane.submit("count", counting(first, started, threading.Event()), fail)  # would wait for ever
    assert started.wait(5)
    lane.submit("count", counting(second, threading.Event()), fail)
    assert lane.wait(5)
    assert (first, second) == ([], [0, 1, 2])


def test_cancelled_work_ends():
    lane, seen, started = BackgroundLane(), [], threading.Event()
    lane.submit("count", counting(seen, started, threading.Event()), fail)
    assert started.wait(5)
    lane.cancel("count")
    assert lane.wait(5)
    assert seen == []


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_an_exception_is_reported_and_other_work_is_done(kind):
    lane, seen, errors = BackgroundLane(), [], []

    def broken(stop: Stop) -> Iterator[None]:
        yield
        raise kind("no disk")

    lane.begin_hold()
    lane.submit("broken", broken, errors.append)
    lane.submit("count", counting(seen, threading.Event()), fail)
    lane.end_hold()
    assert lane.wait(5)
    assert seen == [0, 1, 2]
    assert [str(error) for error in errors] == ["no disk"]


def test_work_pauses_after_a_key_and_continues():
    lane, seen = BackgroundLane(), []
    lane.typing = TypingPause(pause=0.3, longest=10)
    lane.typing.key_pressed()
    lane.submit("count", counting(seen, threading.Event()), fail)
    time.sleep(0.1)
    assert len(seen) <= 1  # the pause is at its first event
    assert lane.wait(5)
    assert seen == [0, 1, 2]


def test_a_pause_ends_although_keys_are_typed():
    pause = TypingPause(pause=60, longest=0.1)
    pause.key_pressed()
    began = time.monotonic()
    assert not pause.wait(lambda: False)
    assert 0.1 <= time.monotonic() - began < 5


def test_a_pause_ends_at_once_when_work_is_to_stop():
    pause = TypingPause(pause=60, longest=60)
    pause.key_pressed()
    assert pause.wait(lambda: True)
