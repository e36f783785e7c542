"""Long-running jobs, such as training and prediction, as generators of events.

A call from a script runs the job on the calling thread; a background job runs on a daemon thread. That thread only
computes: every event is posted to the event loop on which the project was created, or handled at once if that loop is
not running. To stop a job, the generator is asked to finish with its results so far.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from tqdm.auto import tqdm

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.typing_pause import TypingPause

JobKind = Literal["training", "scoring", "prediction", "sweep", "measurement", "live update", "export"]
Stop = Callable[[], bool]
MAX_GROWTH = 1.2  # of the time left that is shown, relative to the shortest one so far
MIN_RATE_SECONDS = 0.5  # time before a rate is shown
REPORT_SECONDS = 0.25  # between two reports of progress in the background
LaneWork = Callable[[Stop], Iterator[None]]
Work = Callable[[Stop], Iterator[object]]  # its argument is a function that returns whether to stop; yields events


@dataclass(frozen=True)
class Progress:
    """Progress of a job: ``done`` of ``total`` steps, with a description ``text``.

    If a ``unit`` of the steps is given, for example "objects", the rate is shown too.

    Attributes
    ----------
    later : float or None
        Work of all later stages, in steps of this stage; None if it is not known, so that no time left is estimated.
    at_most : bool
        Whether ``later`` contains stages that may turn out to be unnecessary.
    """

    done: float
    total: float
    text: str
    unit: str = ""
    later: float | None = 0.0
    at_most: bool = False


@dataclass(frozen=True)
class JobState:
    """State of the running job, as panels show it.

    ``seconds_left`` is None until it can be estimated. The job may take less time if ``at_most`` is True.
    """

    kind: JobKind
    done: float = 0
    total: float = 1
    text: str = ""
    seconds_left: float | None = None
    at_most: bool = False
    stopping: bool = False

    @property
    def with_article(self) -> str:
        """The kind of the job with its indefinite article."""
        return f"{'an' if self.kind == 'export' else 'a'} {self.kind}"

    @property
    def message(self) -> str:
        """The description with the time left, if it is known."""
        if self.stopping:
            return "Stopping …"
        if self.seconds_left is None:
            return self.text
        return f"{self.text} · {'up to ' if self.at_most else ''}{format_duration(self.seconds_left)} left"


def format_duration(seconds: float) -> str:
    """Return a duration in words, rounded.

    >>> format_duration(7.6), format_duration(200), format_duration(5400)
    ('8 s', '3 min', '1 h 30 min')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def thread_count(kind: Literal["script", "panel"]) -> int:
    """Return the number of threads of a job.

    A job in a script uses all cores; a job started from a panel leaves one core to the notebook. The environment
    variable ``OMP_NUM_THREADS`` limits the number, as it does for torch.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    available = min(int(limit), cores) if limit.isdigit() and int(limit) else cores
    return available if kind == "script" else max(1, available - 1)


class TimeEstimator:
    """Estimator of the time left and the rate of a job, from its progress.

    The first progress event of each stage only starts the clock, so that earlier work (opening files, the first import
    of torch, parts finished earlier) does not bias the estimate. A new stage begins if ``done`` decreases, the unit
    changes, or the total changes before anything is done. Until its rate is known, the time left at the end of the
    previous stage, which included later stages, is counted down.

    The time left never exceeds the shortest one that was shown by more than 20 %: if work becomes slower, it stands
    still. It starts anew with a stage that the previous stage did not announce, and once it has run out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None
        self._before = Progress(0, 0, "")
        self._shown: tuple[float, float, bool] | None = None  # time of the event, seconds left, at most
        self._shortest = math.inf

    def with_progress(self, state: JobState, progress: Progress) -> JobState:
        """Return the state after a progress event, with the seconds left if known."""
        now = self._clock()
        before = self._before
        is_other_total = progress.total != before.total and not before.done
        if self._first is None or progress.done < before.done or progress.unit != before.unit or is_other_total:
            self._first = now, progress.done
            if before.done and before.later == 0:
                self._shown, self._shortest = None, math.inf
        self._before = progress
        seconds, steps = now - self._first[0], progress.done - self._first[1]
        rate = steps / seconds if seconds > MIN_RATE_SECONDS else 0.0
        self._shown = self._estimate(now, progress, rate)
        text = progress.text
        if progress.unit and rate >= 1:
            text += f", {rate:,.0f} {progress.unit} per second"
        _, left, at_most = self._shown or (now, None, False)
        return replace(state, done=progress.done, total=progress.total, text=text, seconds_left=left, at_most=at_most)

    def _estimate(self, now: float, progress: Progress, rate: float) -> tuple[float, float, bool] | None:
        """Return time, seconds left and whether they are a bound; None if unknown."""
        if progress.later is None or not rate:
            if self._shown is None:
                return None
            before, shown, at_most = self._shown
            left = shown - (now - before)
            is_decided = at_most and not progress.at_most  # so the bound no longer holds
            self._shortest = min(self._shortest, left) if left > 0 else math.inf
            return (now, left, at_most) if left > 0 and not is_decided else None
        left, longest = (progress.total - progress.done + progress.later) / rate, MAX_GROWTH * self._shortest
        self._shortest = min(self._shortest, left)
        return (now, left, progress.at_most) if left <= longest else (now, longest, False)


class _Caller(threading.local):
    is_panel = False


_caller = _Caller()


@contextmanager
def panel_call() -> Iterator[None]:
    """Mark calls of a panel, which shows what is known without a missing score."""
    before = _caller.is_panel
    _caller.is_panel = True
    try:
        yield
    finally:
        _caller.is_panel = before


def is_panel_call() -> bool:
    """Return whether this thread calls for a panel."""
    return _caller.is_panel


class BackgroundLane:
    """Low-priority thread for background work, such as computing features.

    Work is done one after the other. A `hold` interrupts it at its next event; interrupted work starts again after the
    hold and has to continue where it was. While keys are typed, work pauses at its events. The thread ends when there
    is nothing to do.

    Attributes
    ----------
    typing : TypingPause
    """

    def __init__(self) -> None:
        self.typing = TypingPause()
        self._tasks: dict[str, tuple[LaneWork, Callable[[BaseException], None]]] = {}
        self._condition = threading.Condition()
        self._interrupt = threading.Event()
        self._holds = 0
        self._thread: threading.Thread | None = None
        _lanes.add(self)

    def submit(self, name: str, work: LaneWork, fail: Callable[[BaseException], None]) -> None:
        """Do some work later; it replaces work of the same name, which is interrupted.

        Parameters
        ----------
        name : str
        work : callable
            Called with a function that returns whether to stop, and again after an interruption; yields whenever it can
            be interrupted.
        fail : callable
            Called on the background thread with the exception that ended the work.
        """
        with self._condition:
            self._tasks[name] = work, fail
            self._interrupt.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="svetlana background", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def cancel(self, name: str) -> None:
        """Interrupt and forget work, without waiting for it to end."""
        with self._condition:
            if self._tasks.pop(name, None) is not None:
                self._interrupt.set()
                self._condition.notify_all()

    def clear(self) -> None:
        """Interrupt and forget all work, without waiting for it to end."""
        with self._condition:
            self._tasks.clear()
            self._interrupt.set()
            self._condition.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is nothing to do; return False after ``timeout`` seconds."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return self._thread is None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lane during a block."""
        self.begin_hold()
        try:
            yield
        finally:
            self.end_hold()

    def begin_hold(self) -> None:
        """Interrupt the work at once, and start none before `end_hold`."""
        with self._condition:
            self._holds += 1
            self._interrupt.set()

    def end_hold(self) -> None:
        """End a hold; work continues after the last one."""
        with self._condition:
            self._holds -= 1
            self._condition.notify_all()

    def _run(self) -> None:
        while (task := self._next_task()) is not None:
            name, (work, fail) = task
            try:
                ended = self._exhaust(work(self._interrupt.is_set))
            except BaseException as error:  # other work must find the thread alive, even if the user's code exits
                ended = True
                fail(error)
            with self._condition:
                if ended and self._tasks.get(name) == (work, fail):
                    del self._tasks[name]

    def _exhaust(self, events: Iterator[None]) -> bool:
        """Do work up to its end or an interruption; return whether it ended."""
        try:
            for _ in events:
                if self.typing.wait(self._interrupt.is_set):
                    return False
            return not self._interrupt.is_set()  # work that was asked to stop may have ended early
        finally:
            if isinstance(events, Generator):
                events.close()

    def _next_task(self) -> tuple[str, tuple[LaneWork, Callable[[BaseException], None]]] | None:
        """Return the oldest work after all holds have ended; None if there is none."""
        with self._condition:
            self._condition.wait_for(lambda: not (self._holds and self._tasks))
            self._interrupt.clear()
            if not self._tasks:
                self._thread = None
                return None
            return next(iter(self._tasks.items()))


_lanes: weakref.WeakSet[BackgroundLane] = weakref.WeakSet()


@atexit.register
def end_lanes(timeout: float = 5.0) -> None:
    """End all background work, since no thread may compute at the end of Python."""
    for lane in list(_lanes):
        lane.clear()
    for lane in list(_lanes):
        lane.wait(timeout)


class JobSlot:
    """Place for one job at a time, and the runners that share it.

    Attributes
    ----------
    lane : BackgroundLane
        Low-priority work, which is interrupted while a job runs.
    """

    def __init__(self) -> None:
        self.runners: weakref.WeakSet[JobRunner] = weakref.WeakSet()
        self.owner: JobRunner | None = None
        self.lane = BackgroundLane()
        self.lock = threading.RLock()  # held while the state of the job changes


class JobRunner:
    """Background job runner, limited to one job at a time.

    Parameters
    ----------
    handle : callable
        Called with every event of a job except `Progress`, on the thread that created the runner.
    show : callable
        Called with the state of the job whenever it changes, and with None when the job has ended.
    report : callable
        Called with the problem that ended a job, and with "" when a job starts.
    slot : JobSlot, optional
        Shared by the runners of all `Project` objects of one folder, which run one job at a time and show its state.

    Attributes
    ----------
    state : JobState or None
    lane : BackgroundLane
        Low-priority work, which is interrupted while a job runs.
    """

    def __init__(
        self,
        handle: Callable[[object], None],
        show: Callable[[JobState | None], None],
        report: Callable[[str], None],
        slot: JobSlot | None = None,
    ) -> None:
        self._handle_event, self._show, self._report = handle, show, report
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._estimator = TimeEstimator()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._slot = slot or JobSlot()
        self.lane = self._slot.lane
        self.state: JobState | None = self._slot.owner.state if self._slot.owner is not None else None
        self._slot.runners.add(self)

    def start(self, kind: JobKind, work: Work) -> None:
        """Start a job on a background thread, without waiting for it."""
        with self._slot.lock:
            self._claim(kind)
            arguments = work, self._stopping.is_set
            self._thread = threading.Thread(target=self._work, args=arguments, name=f"svetlana {kind}", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:  # the system allows no more threads
                self._finish(error)

    def run(self, kind: JobKind, work: Work) -> None:
        """Run a job on this thread with a progress bar; raise its exceptions."""
        self._claim(kind)
        events: Iterator[object] = iter(())
        try:
            events = work(self._stopping.is_set)
            with tqdm(total=100, desc=kind, bar_format="{desc} {percentage:3.0f}% |{bar:30}|") as bar:
                for event in events:
                    self._handle(event)
                    if isinstance(event, Progress):
                        bar.set_description_str(self.state.message if self.state else "", refresh=False)
                        bar.update(100 * event.done / max(event.total, 1) - bar.n)
                bar.set_description_str(f"{kind} done", refresh=False)
                bar.update(100 - bar.n)
        finally:
            if isinstance(events, Generator):  # ends its threads now, not at garbage collection of the exception
                events.close()
            self._finish(None)

    def stop(self) -> None:
        """Ask the running job to stop and keep its results, without waiting for it."""
        with self._slot.lock:  # the job may end at this moment
            if self._slot.owner is not None and self.state is not None:
                self._slot.owner._stopping.set()
                self._set(replace(self.state, stopping=True))

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the background thread has ended, at most ``timeout`` seconds.

        Events posted to a running event loop are handled later.
        """
        if self._thread is not None:
            self._thread.join(timeout)

    def check_idle(self, activity: str = "reading these objects") -> None:
        """Raise a `ProjectError` that describes the ``activity`` if a job is running."""
        owner = self._slot.owner
        if owner is not None and owner._has_ended():
            owner._finish(None)
        if self.state is not None:
            job = self.state.with_article.capitalize()
            raise ProjectError(f"{job} is {activity}. Wait for it, or call project.stop().")

    def _claim(self, kind: JobKind) -> None:
        with self._slot.lock:
            self.check_idle("running")
            self._report("")
            self._estimator, self._stopping, self._thread = TimeEstimator(), threading.Event(), None
            self._slot.owner = self
            self._slot.lane.begin_hold()
            self._set(JobState(kind))

    def _has_ended(self) -> bool:
        """Return whether the job has ended after its event loop did."""
        loop_runs = self._loop is not None and self._loop.is_running()
        return self._thread is not None and not self._thread.is_alive() and not loop_runs

    def _work(self, work: Work, stop: Stop) -> None:
        trouble: BaseException | None = None
        try:
            for event in work(stop):
                self.post(self._handle, event)
        except BaseException as error:  # reported on the thread that created the project
            trouble = error
        self.post(self._finish, trouble)

    def post(self, call: Callable[[Any], None], argument: object) -> None:
        """Call a function on the project's event loop, or at once if it is not running."""
        if self._loop is not None and self._loop.is_running():
            with suppress(RuntimeError):  # the loop was closed in the meantime
                self._loop.call_soon_threadsafe(call, argument)
                return
        call(argument)

    def _handle(self, event: object) -> None:
        if not isinstance(event, Progress):
            self._handle_event(event)
            return
        with self._slot.lock:
            if self.state is not None and self._slot.owner is self:
                self._set(self._estimator.with_progress(self.state, event))

    def _finish(self, trouble: BaseException | None) -> None:
        with self._slot.lock:
            kind = self.state.kind if self.state is not None else "job"
            if self._slot.owner is self:
                self._slot.owner = None
                self._slot.lane.end_hold()
                self._set(None)
        if trouble is not None:
            self._report(f"The {kind} stopped: {trouble}")

    def _set(self, state: JobState | None) -> None:
        for runner in list(self._slot.runners):
            runner.state = state
            runner._show(state)


class LaneProgress:
    """Progress of background work, which is shown a few times per second.

    Parameters
    ----------
    jobs : JobRunner
    kind : str
        Kind of the `JobState`.
    show : callable
        Called with the state on the thread that created the project.
    """

    def __init__(self, jobs: JobRunner, kind: JobKind, show: Callable[[JobState], None]) -> None:
        self._jobs, self._kind, self._show = jobs, kind, show
        self._last = 0.0, ""

    def report(self, event: Progress) -> None:
        """Show progress if its text is new, or if some time has passed."""
        now = time.monotonic()
        if now - self._last[0] > REPORT_SECONDS or event.text != self._last[1]:
            self._last = now, event.text
            self._jobs.post(self._show, JobState(self._kind, event.done, event.total, event.text))
