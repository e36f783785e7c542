"""Tasks run side by side, and stop when they are told to or one of them fails."""

from __future__ import annotations

import threading

import pytest

from svetlana_jupyter.learn import crew
from svetlana_jupyter.learn.crew import run_in_threads
from svetlana_jupyter.learn.fit import never


@pytest.fixture(autouse=True)
def _without_beats(monkeypatch) -> None:
    monkeypatch.setattr(crew, "HEARTBEAT_SECONDS", 1e9)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_gives_its_result_under_its_number(workers):
    tasks = [lambda stop, number=number: number**2 for number in range(7)]
    assert dict(run_in_threads(tasks, workers, never)) == {number: number**2 for number in range(7)}
    assert list(run_in_threads([], workers, never)) == []


def test_two_workers_run_at_the_same_time():
    both = threading.Barrier(2, timeout=60)
    assert len(list(run_in_threads([lambda stop: both.wait()] * 2, 2, never))) == 2


def until_told(started: threading.Event, ended: threading.Event):
    def task(stop) -> None:
        started.set()
        while not stop():
            pass
        ended.set()

    return task


def test_stopping_tells_those_that_run_and_starts_no_others():
    started, ended, ran = threading.Event(), threading.Event(), []
    tasks = [until_told(started, ended), lambda stop: ran.append(True)]
    assert list(run_in_threads(tasks, 1, started.is_set)) == []
    assert ended.is_set() and not ran


def test_an_error_ends_the_others_and_is_raised():
    started, ended = threading.Event(), threading.Event()

    def fails(stop) -> None:
        started.wait(60)
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        list(run_in_threads([until_told(started, ended), fails], 2, never))
    assert ended.is_set()


def test_closing_ends_those_that_run():
    started, ended = threading.Event(), threading.Event()
    running = run_in_threads([lambda stop: 1, until_told(started, ended)], 2, never)
    assert next(running) == (0, 1)
    running.close()
    assert not started.is_set() or ended.is_set()


def test_beats_tell_that_time_goes_by_while_nothing_ends(monkeypatch):
    monkeypatch.setattr(crew, "HEARTBEAT_SECONDS", 0.0)
    beaten = threading.Event()
    running = run_in_threads([lambda stop: beaten.wait(60)], 1, never)
    assert next(running) is None
    beaten.set()
    assert [result for result in running if result is not None] == [(0, True)]
