"""Training in the background while live predictions follow the labels.

A training is what Train does, with one thread and low priority. It replaces the live classifier only if its held-out
predictions are better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from svetlana_jupyter.project.jobs import JobState, Progress
from svetlana_jupyter.project.run_scoring import RunScored, Scoring
from svetlana_jupyter.project.runs import NETWORK, Run
from svetlana_jupyter.project.training_job import COMPARING, FirstRun, LearningCurve, RunUnsaved, train_run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from svetlana_jupyter.project.jobs import JobRunner, Stop
    from svetlana_jupyter.project.run_store import RunStore
    from svetlana_jupyter.project.training_task import TrainingTask

LANE_NAME = "training"
MIN_NEW_LABELS = 20
GROWTH = 1.5  # of the number of labels since the last training


@dataclass(frozen=True)
class RunAdded:
    """Event with a run that was trained in the background."""

    run: Run


class BackgroundTraining:
    """Training of runs that may replace the live classifier.

    Parameters
    ----------
    jobs : JobRunner
    runs : RunStore
    make_task : callable
        Returns the inputs of a training on all labels; called on the background thread.
    replace_live : callable
        Yields the events of predicting a run that is better than the live classifier.
    handle : callable
        Called with each event on the thread that created the project.
    show : callable
        Called on that thread with the state of the training; None if there is none.
    report : callable
        Called on that thread with a problem.
    """

    def __init__(
        self,
        jobs: JobRunner,
        runs: RunStore,
        make_task: Callable[[], TrainingTask],
        replace_live: Callable[[Run, Stop], Iterator[object]],
        handle: Callable[[object], None],
        show: Callable[[JobState | None], None],
        report: Callable[[str], None],
    ) -> None:
        self._jobs, self._runs, self._make_task, self._replace_live = jobs, runs, make_task, replace_live
        self._handle, self._show, self._report = handle, show, report
        self._tried, self._is_wanted, self._is_new = 0, False, False
        self._events: Generator[object, None, None] | None = None
        self._unfinished: RunScored | None = None
        self._text = ""

    def consider(self, labels: int) -> None:
        """Start a training if the number of labels has grown enough since the last one.

        It must have grown by half, and by at least 20.
        """
        trained = (sum(run.labels.values()) for run in self._runs if run.has_network)
        last = max(self._tried, *trained, 0)
        if not self._is_wanted and labels >= max(GROWTH * last, last + MIN_NEW_LABELS):
            self._tried, self._is_wanted, self._is_new = labels, True, True
            self._jobs.lane.submit(LANE_NAME, self._work, self._fail)

    def cancel(self) -> None:
        """End the training in the background without a result."""
        if self._is_wanted:
            self._is_wanted = False
            self._show(None)
        self._jobs.lane.cancel(LANE_NAME)

    def _work(self, stop: Stop) -> Iterator[None]:
        """Continue the training.

        A comparison of presets starts again, since its threads end with an interruption.
        """
        if self._is_new and self._events is not None:  # of a training that was cancelled while the lane was held
            self._events.close()
            self._events = None
        self._unfinished = None if self._is_new else self._unfinished
        self._is_new = False
        try:
            while self._is_wanted:
                if self._unfinished is not None:
                    yield from self._announce(self._unfinished, stop)
                if stop():
                    return
                if self._events is None:
                    self._events = self._train()
                event = next(self._events, None)
                if event is None:
                    self._is_wanted, self._events = False, None
                    self._jobs.post(self._show, None)
                elif isinstance(event, RunScored) and not event.is_provisional:
                    self._unfinished = event
                elif isinstance(event, Progress):
                    self._text = event.text
                    self._jobs.post(self._show_wanted, JobState("training", event.done, event.total, event.text))
                else:
                    self._jobs.post(self._handle, event)
                yield
        finally:
            if self._events is not None and (not self._is_wanted or self._text.startswith(COMPARING)):
                self._events.close()
                self._events = None

    def _announce(self, scored: RunScored, stop: Stop) -> Iterator[None]:
        """Show a score, after the predictions of a run that replaces the live classifier."""
        for event in self._replace_live(scored.run, stop):
            self._jobs.post(self._handle, event)
            yield
        if not stop():
            self._unfinished = None
            self._jobs.post(self._handle, scored)

    def _train(self) -> Generator[object, None, None]:
        """Yield the events of a training that concern the project."""
        for event in train_run(self._make_task(), lambda: False):
            match event:
                case FirstRun(run) | (Run() as run):
                    yield RunAdded(run)
                case Scoring():
                    event.may_replace_live = NETWORK in event.run.missing_scores
                    yield event
                case RunScored() | Progress():
                    yield event
                case RunUnsaved() | LearningCurve() | _:
                    pass

    def _show_wanted(self, state: JobState) -> None:
        """Show the state of the training, unless it was cancelled before."""
        if self._is_wanted:
            self._show(state)

    def _fail(self, error: Exception) -> None:
        self._is_wanted, self._events = False, None
        self._jobs.post(self._show, None)
        self._jobs.post(self._report, f"No network was trained in the background: {error}")
