"""Training in the background while live predictions follow the labels.

A training is what Train does, with one thread and low priority. Its run replaces the shown one only if its held-out
predictions are better.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from svetlana_jupyter.project.jobs import LaneProgress, Progress
from svetlana_jupyter.project.run_scoring import RunScored, Scoring
from svetlana_jupyter.project.runs import Run
from svetlana_jupyter.project.training_job import train_run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.project.jobs import JobRunner, JobState, Stop
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
    """Training of runs that may replace the shown one.

    An interrupted training continues where it was, because it is a generator that is kept.

    Parameters
    ----------
    jobs : JobRunner
    runs : RunStore
    make_task : callable
        Returns the inputs of a training on all labels; called on the background thread.
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
        handle: Callable[[object], None],
        show: Callable[[JobState | None], None],
        report: Callable[[str], None],
    ) -> None:
        self._jobs, self._runs, self._make_task = jobs, runs, make_task
        self._handle, self._show, self._report = handle, show, report
        self._progress = LaneProgress(jobs, "training", self._show_wanted)
        self._tried = 0
        self._steps: Generator[None, None, None] | None = None  # of the training that is wanted
        self._classes: dict[int, str] = {}

    def consider(self, labels: int) -> None:
        """Start a training if the number of labels has grown enough since the last one.

        It must have grown by half, and by at least 20.
        """
        trained = (sum(run.labels.values()) for run in self._runs if run.has_network)
        last = max(self._tried, *trained, 0)
        if self._steps is None and labels >= max(GROWTH * last, last + MIN_NEW_LABELS):
            self._tried, self._steps = labels, self._train()
            self._jobs.lane.submit(LANE_NAME, partial(self._work, self._steps), partial(self._fail, self._steps))

    def cancel(self) -> None:
        """End the training in the background without a result."""
        if self._steps is not None:
            self._steps = None
            self._show(None)
        self._jobs.lane.cancel(LANE_NAME)

    def restart(self) -> None:
        """Cancel a training with outdated labels; `consider` starts it again."""
        if self._steps is not None:
            self.cancel()
            self._tried = 0

    def follow_classes(self, scheme: ClassScheme) -> None:
        """Restart a training whose classes were renamed or merged."""
        if not self._classes.items() <= _class_names(scheme).items():
            self.restart()

    def _work(self, steps: Iterator[None], stop: Stop) -> Iterator[None]:
        """Continue a training up to its end or its cancellation."""
        for _ in steps:
            if self._steps is not steps:
                return
            yield
        self._end(steps)

    def _train(self) -> Generator[None, None, None]:
        """Train, and post the events that concern the project."""
        task = self._make_task()
        self._classes = _class_names(task.classes)
        last: Scoring | None = None
        for event in train_run(task, lambda: False):
            match event:
                case Progress():
                    self._progress.report(event)
                case Run() as run:
                    self._jobs.post(self._handle, RunAdded(run))
                case RunScored(run, is_provisional=False):
                    last = Scoring(run, task, news=event)
                case RunScored():
                    self._jobs.post(self._handle, event)
                case Scoring():  # of what a comparison of presets has not scored
                    event.news = None if last is None else last.news
                    last = event
            yield
        if last is not None:
            last.may_replace = True
            self._jobs.post(self._handle, last)

    def _end(self, steps: Iterator[None]) -> None:
        if self._steps is steps:
            self._steps = None
            self._jobs.post(self._show, None)

    def _show_wanted(self, state: JobState) -> None:
        """Show the state of the training, unless it was cancelled before."""
        if self._steps is not None:
            self._show(state)

    def _fail(self, steps: Iterator[None], error: BaseException) -> None:
        self._end(steps)
        self._jobs.post(self._report, f"No network was trained in the background: {error}")


def _class_names(scheme: ClassScheme) -> dict[int, str]:
    """Return the name as which each class counts, by its id."""
    return {info.id: scheme.by_id(info.id).name for info in scheme.infos}
