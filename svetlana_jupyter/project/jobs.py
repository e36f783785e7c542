"""Work that takes a while: a generator of events, run inline in a script or on a daemon thread in a notebook.

The thread only computes. Every event is handled by the project's owner: posted to the event loop that made the project,
or handled at once where there is no loop. Stopping means that the generator is told so and finishes with what it has.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["training", "prediction"]
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Progress:
    """How far a job is: ``done`` of ``total`` steps, and what it is doing."""

    done: float
    total: float
    text: str


@dataclass(frozen=True)
class JobState:
    """What a panel shows of the running job; ``seconds_left`` is None until it can be told."""

    kind: Kind
    done: float = 0
    total: float = 1
    text: str = ""
    seconds_left: float | None = None
    stopping: bool = False


class Owner:
    """The thread and loop that made the project, the only place where its state changes."""

    def __init__(self) -> None:
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def post(self, call: Callable[[], None]) -> None:
        """Have the owner run ``call`` soon, or run it at once where there is no running loop."""
        if self._loop is None or not self._loop.is_running():
            call()
        else:
            self._loop.call_soon_threadsafe(call)


class Job:
    """One piece of work on a daemon thread.

    Parameters
    ----------
    kind : str
    work : callable
        Given a function that tells whether to stop, returns the generator of events.
    owner : Owner
    handle : callable
        Called by the owner with each event.
    finished : callable
        Called by the owner once, with the exception that ended the work, or None.
    """

    def __init__(
        self,
        kind: Kind,
        work: Callable[[Stop], Iterator[object]],
        owner: Owner,
        handle: Callable[[object], None],
        finished: Callable[[Exception | None], None],
    ) -> None:
        self.kind = kind
        self._stop = threading.Event()
        self._work, self._owner, self._handle, self._finished = work, owner, handle, finished
        self._thread = threading.Thread(target=self._run, name=f"svetlana {kind}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the work to finish with what it has; returns at once."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        trouble: Exception | None = None
        try:
            for event in self._work(self._stop.is_set):
                self._owner.post(lambda event=event: self._handle(event))  # type: ignore[misc]
        except Exception as error:  # shown by the owner, never lost
            trouble = error
        self._owner.post(lambda: self._finished(trouble))


class Pace:
    """Estimates the time left of a job from its progress.

    The first progress only starts the clock, so that what comes before it (opening files, the first import of torch)
    does not spoil the estimate.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None

    def follow(self, state: JobState, progress: Progress) -> JobState:
        """Return ``state`` brought up to ``progress``, with the seconds left where they can be told."""
        now = self._clock()
        if self._first is None or progress.done < self._first[1]:
            self._first = now, progress.done
        start, before = self._first
        advanced = progress.done - before
        left = (now - start) / advanced * (progress.total - progress.done) if advanced > 0 else None
        return replace(state, done=progress.done, total=progress.total, text=progress.text, seconds_left=left)
