"""Long-running work: a generator of events, run inline in a script or on a daemon thread in a notebook.

The thread only computes. Every event is posted to the event loop on which the project was made, or handled at once if
there is no running loop. To stop, the generator is told to finish with what it has.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from tqdm.auto import tqdm

from svetlana_jupyter.errors import ProjectError

JobKind = Literal["training", "prediction", "sweep", "measurement", "export"]
Stop = Callable[[], bool]
MIN_RATE_SECONDS = 0.5  # before a rate is shown
Work = Callable[[Stop], Iterator[object]]  # from a function that tells whether to stop to a generator of events


@dataclass(frozen=True)
class Progress:
    """Progress of a job: ``done`` of ``total`` steps, and what it is doing.

    With a ``unit`` of the steps, for example "objects", the rate is shown too.
    """

    done: float
    total: float
    text: str
    unit: str = ""


@dataclass(frozen=True)
class JobState:
    """State of the running job, as panels show it; ``seconds_left`` is None until it can be estimated."""

    kind: JobKind
    done: float = 0
    total: float = 1
    text: str = ""
    seconds_left: float | None = None
    stopping: bool = False

    @property
    def with_article(self) -> str:
        """The kind of the job with its indefinite article."""
        return f"{'an' if self.kind == 'export' else 'a'} {self.kind}"


def thread_count(kind: Literal["script", "panel"]) -> int:
    """Return the number of threads of a job: all for a script; a panel leaves one to the notebook.

    ``OMP_NUM_THREADS`` limits them, as it does for torch.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    available = min(int(limit), cores) if limit.isdigit() and int(limit) else cores
    return available if kind == "script" else max(1, available - 1)


class OwnerThread:
    """Thread and event loop that made the project; its state changes nowhere else."""

    def __init__(self) -> None:
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def post(self, call: Callable[[], None]) -> None:
        """Schedule ``call`` on the event loop, or call it at once if no loop is running."""
        if self._loop is None or not self._loop.is_running():
            call()
        else:
            self._loop.call_soon_threadsafe(call)


class Job:
    """Work on a daemon thread.

    Parameters
    ----------
    kind : str
    work : Work
    owner : OwnerThread
    handle : callable
        Called on the owner thread with each event.
    finished : callable
        Called on the owner thread at the end, with the exception that ended the work, or None.
    """

    def __init__(
        self,
        kind: JobKind,
        work: Work,
        owner: OwnerThread,
        handle: Callable[[object], None],
        finished: Callable[[Exception | None], None],
    ) -> None:
        self.kind = kind
        self._stop = threading.Event()
        self._work, self._owner, self._handle, self._finished = work, owner, handle, finished
        self._thread = threading.Thread(target=self._run, name=f"svetlana {kind}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the work to finish with what it has, without waiting for it."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, at most ``timeout`` seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        trouble: Exception | None = None
        try:
            for event in self._work(self._stop.is_set):
                self._owner.post(lambda event=event: self._handle(event))  # type: ignore[misc]
        except Exception as error:  # reported on the owner thread
            trouble = error
        self._owner.post(lambda: self._finished(trouble))


class TimeEstimator:
    """Estimates the time left and the rate of a job from its progress.

    The first progress of each stage only starts the clock, so that earlier work (opening files, the first import of
    torch, finished parts) does not bias the estimate. A stage begins if progress falls back or the unit changes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None
        self._last = 0.0, ""

    def with_progress(self, state: JobState, progress: Progress) -> JobState:
        """Return the state after some progress, with the seconds left if they can be estimated."""
        now = self._clock()
        if self._first is None or progress.done < self._last[0] or progress.unit != self._last[1]:
            self._first = now, progress.done
        self._last = progress.done, progress.unit
        seconds, steps = now - self._first[0], progress.done - self._first[1]
        left = seconds / steps * (progress.total - progress.done) if steps > 0 else None
        text, rate = progress.text, steps / seconds if seconds > MIN_RATE_SECONDS else 0
        if progress.unit and rate >= 1:
            text += f", {rate:,.0f} {progress.unit} per second"
        return replace(state, done=progress.done, total=progress.total, text=text, seconds_left=left)


class JobRunner:
    """Runner of one job at a time.

    Parameters
    ----------
    handle : callable
        Called with every event of a job but its progress, on the thread that made the runner.
    show : callable
        Called with the state of the job whenever it changes; None when it has ended.
    report : callable
        Called with the problem that ended a job, and with "" when a job starts.

    Attributes
    ----------
    state : JobState or None
    """

    def __init__(
        self, handle: Callable[[object], None], show: Callable[[JobState | None], None], report: Callable[[str], None]
    ) -> None:
        self._handle_event, self._show, self._report = handle, show, report
        self.state: JobState | None = None
        self._owner = OwnerThread()
        self._estimator = TimeEstimator()
        self._thread: Job | None = None
        self._claiming = threading.Lock()

    def start(self, kind: JobKind, work: Work) -> None:
        """Start the work on a thread, without waiting for it."""
        self._claim(kind)
        self._thread = Job(kind, work, self._owner, self._handle, self._finish)
        self._thread.start()

    def run(self, kind: JobKind, work: Work) -> None:
        """Do the work on this thread with a progress bar; exceptions and Ctrl-C are raised."""
        self._claim(kind)
        events = work(lambda: False)
        try:
            with tqdm(total=100, desc=kind, bar_format="{desc} {percentage:3.0f}% |{bar:30}| {remaining} left") as bar:
                for event in events:
                    self._handle(event)
                    if isinstance(event, Progress):
                        bar.set_description_str(self.state.text if self.state else "", refresh=False)
                        bar.update(100 * event.done / max(event.total, 1) - bar.n)
                bar.set_description_str(f"{kind} done", refresh=False)
                bar.update(100 - bar.n)
        finally:
            if isinstance(events, Generator):  # ends its threads now, not when the exception is garbage-collected
                events.close()
            self._finish(None)

    def stop(self) -> None:
        """Ask the background job to finish with what it has, without waiting for it."""
        if self._thread is not None and self.state is not None:
            self._thread.stop()
            self._set(replace(self.state, stopping=True))

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended; events posted to a running loop are handled later."""
        if self._thread is not None:
            self._thread.join(timeout)

    def check_idle(self) -> None:
        """Raise a `ProjectError` if a job is reading the project."""
        if self.state is not None:
            raise ProjectError(
                f"{self.state.with_article.capitalize()} is reading these objects. Wait for it, or call project.stop()."
            )

    def _set(self, state: JobState | None) -> None:
        self.state = state
        self._show(state)

    def _claim(self, kind: JobKind) -> None:
        with self._claiming:
            if self.state is not None:
                raise ProjectError(
                    f"{self.state.with_article.capitalize()} is running. Wait for it, or call project.stop()."
                )
            self._report("")
            self._estimator = TimeEstimator()
            self._set(JobState(kind))

    def _handle(self, event: object) -> None:
        if isinstance(event, Progress):
            if self.state is not None:
                self._set(self._estimator.with_progress(self.state, event))
        else:
            self._handle_event(event)

    def _finish(self, trouble: Exception | None) -> None:
        kind = self.state.kind if self.state is not None else "job"
        self._set(None)
        if trouble is not None:
            self._report(f"The {kind} stopped: {trouble}")
