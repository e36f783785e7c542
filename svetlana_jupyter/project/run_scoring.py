"""Score of a run: cross-validation, check of the augmentation, forest.

A run can be used before it is scored. Its score is computed in the background, where every job interrupts it, or at
once when it is needed. An interrupted computation continues where it was, even within the training of a fold, because
it is a generator that is kept.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from svetlana_jupyter.core.settings import FOREST
from svetlana_jupyter.core.stats.model_selection import augmentation_warning
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.jobs import LaneProgress, Progress
from svetlana_jupyter.project.runs import AUGMENTATION, COMPARISON, NETWORK, uncalibrated_column
from svetlana_jupyter.project.scoring_plan import is_check_needed, least_augmentation, planned_scoring

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from svetlana_jupyter.learn.cross_validation import CrossValidationResult
    from svetlana_jupyter.learn.dataset import TrainingData
    from svetlana_jupyter.project.jobs import JobRunner, JobState, Stop
    from svetlana_jupyter.project.run_store import RunStore
    from svetlana_jupyter.project.runs import Run
    from svetlana_jupyter.project.training_task import TrainingTask

NOT_SCORED = "No accuracy estimate yet: the run was not scored."
BEING_SCORED = "No accuracy estimate yet: the run is being scored."
CUTTING, MEASURING, CHECKING_MASKS = "cutting patches", "measuring objects", "checking masks"
LANE_NAME = "scores"
KEPT = 2  # runs whose training data are kept until they are scored


@dataclass(frozen=True)
class RunScored:
    """Event with a run and its score, or the reason why it has none.

    ``is_provisional`` tells that the same training stores a better run.
    """

    run: Run
    is_provisional: bool = False


class Scoring:
    """Computation of the missing scores of a run, which can be interrupted.

    Parameters
    ----------
    run : Run
    task : TrainingTask
        The inputs of the training, with the settings of the run.
    samples : TrainingData, optional
        Data of the training; by default they are collected again.
    held_out : DataFrame, optional
        Held-out predictions before calibration, if the run has them.
    news : RunScored, optional
        A score that is not announced yet.

    Attributes
    ----------
    run : Run
        The run with the scores so far.
    news : RunScored or None
        A new score, until it is announced.
    may_replace : bool
        Whether the run replaces the shown one if its score is better.
    """

    def __init__(
        self,
        run: Run,
        task: TrainingTask,
        samples: TrainingData | None = None,
        held_out: pd.DataFrame | None = None,
        news: RunScored | None = None,
    ) -> None:
        self.run, self.news, self.may_replace = run, news, False
        self._task, self._samples, self._own = task, samples, held_out
        self._events: Iterator[Progress | RunScored] | None = None
        self._lock = threading.Lock()

    def events(self, stop: Stop) -> Iterator[Progress]:
        """Continue until there is news, nothing is missing, or ``stop`` returns True."""
        import torch

        if self._task.settings.threads:
            torch.set_num_threads(self._task.settings.threads)  # of the calling thread
        while not stop():
            with self._lock:
                if self.news is not None or not self.run.missing_scores:
                    return
                event = self._next()
            if event is not None:
                yield event

    def release(self) -> None:
        """Give back the memory of the training data, unless they are in use."""
        if self._lock.acquire(blocking=False):
            self._samples = self._events = None
            self._lock.release()

    def _next(self) -> Progress | None:
        """Do one step; the score is kept in `news`."""
        if self._events is None:
            self._events = self._steps()
        try:
            event = next(self._events)
        except BaseException:  # a generator that raised an exception cannot continue
            self._events = None
            raise
        if isinstance(event, RunScored):
            self.run, self.news = event.run, event
            return None
        return event

    def _steps(self) -> Iterator[Progress | RunScored]:
        if {NETWORK, AUGMENTATION} & set(self.run.missing_scores):
            samples = self._samples
            if samples is None:
                samples = yield from self._collect(self._task.collect_with_progress(self._task.settings), CUTTING)
            self._samples = samples
            if NETWORK in self.run.missing_scores:
                yield from self._score_network(samples)
            if AUGMENTATION in self.run.missing_scores:
                own = self._own if self._own is not None else _without_calibration(self.run.held_out())
                warning = yield from check_augmentation(samples, own)
                yield self._scored({}, [COMPARISON], warning=warning)
        if COMPARISON in self.run.missing_scores:
            yield from self._score_forest()

    def _score_network(self, samples: TrainingData) -> Iterator[Progress | RunScored]:
        work = planned_scoring(samples)
        text = "scoring on held-out annotations"
        own = yield from validate(samples, text, work.check + work.forest, work.check)
        if own.accuracy is None:
            yield self._scored({}, [], own.message)
            return
        self._own, is_forest = own.table, samples.settings.architecture == FOREST
        tables = {"network": own.table} | ({"forest": own.table} if is_forest else {})
        missing = [] if is_forest else [AUGMENTATION, COMPARISON]
        yield self._scored(tables, missing, f"{own.message} {self.run.caveat}".rstrip())

    def _score_forest(self) -> Iterator[Progress | RunScored]:
        """Cross-validate a forest on the same annotations, if their masks are the same."""
        try:
            measured = yield from self._collect(self._task.forest_data(), MEASURING)
        except ProjectError as error:
            yield self._scored({}, [], f"{self.run.note} No forest was trained for comparison: {error}")
            return
        result = yield from validate(measured, "scoring a forest for comparison")
        yield self._scored({} if result.accuracy is None else {"forest": result.table}, [])

    def _collect(self, events: Iterable[Any], text: str) -> Generator[Progress, None, TrainingData]:
        """Read the data of the run; raise a `ProjectError` if a mask has changed."""
        yield Progress(0, 1, CHECKING_MASKS, later=None)
        self._task.check_masks()
        samples: TrainingData = yield from forward(events, text, later=None)
        self._task.check_masks()
        return samples

    def _scored(
        self,
        held_out: Mapping[str, pd.DataFrame],
        missing: Collection[str],
        note: str | None = None,
        warning: str | None = None,
    ) -> RunScored:
        """Write a score, and the scores that are still missing."""
        note = self.run.note if note is None else note
        still = [name for name in self.run.missing_scores if name in missing]
        return save_score(self.run, note, held_out, self.run.warning if warning is None else warning, still)


def save_score(
    run: Run, note: str, held_out: Mapping[str, pd.DataFrame], warning: str = "", missing: Sequence[str] = ()
) -> RunScored:
    """Write the score of a run (`Run.with_score`); raise a `ProjectError` on failure."""
    try:
        return RunScored(run.with_score(note, held_out, warning, missing))
    except OSError as error:
        raise ProjectError(
            f"Run {run.name} is saved, but its score could not be written ({error.strerror or error}). Free disk "
            "space, then call project.evaluate() to score it."
        ) from error


def _without_calibration(table: pd.DataFrame | None) -> pd.DataFrame:
    """Return held-out predictions as before calibration."""
    if table is None:
        raise ProjectError("its held-out predictions cannot be read")
    raw = table.filter(regex="^raw_")
    restored = table.drop(columns=raw.columns)
    for name in map(str, table):
        if name.startswith("p_"):
            restored[name] = raw[uncalibrated_column(name)]
    return restored


def check_augmentation(
    samples: TrainingData, own: pd.DataFrame, plain: pd.DataFrame | None = None
) -> Generator[Progress, None, str]:
    """Return a warning if augmentation destroys the differences between classes.

    The warning is "" otherwise. Cross-validation is repeated with the least augmentation if the score leaves room for
    improvement. ``plain`` contains the held-out predictions with the least augmentation, if they exist already.
    """
    settings = samples.settings
    if not is_check_needed(settings, own):
        return ""
    if plain is None:
        plain_samples = replace(samples, settings=settings.changed(augmentation=least_augmentation(settings)))
        result = yield from validate(plain_samples, "scoring without augmentation")
        if result.accuracy is None:
            return ""
        plain = result.table
    return augmentation_warning(settings.augmentation, own, plain)


def validate(
    samples: TrainingData, text: str, later: float = 0.0, at_most: bool = False
) -> Generator[Progress, None, CrossValidationResult]:
    """Cross-validate with progress, and return the result."""
    from svetlana_jupyter.learn.cross_validation import cross_validate

    yield Progress(0, 1, text, at_most=at_most)
    result: CrossValidationResult = yield from forward(cross_validate(samples), text, later=later, at_most=at_most)
    return result


def forward(
    events: Iterable[Any],
    text: str,
    stop: Stop = lambda: False,
    later: float | None = 0.0,
    at_most: bool = False,
    factor: float = 1.0,
) -> Generator[Progress, None, Any]:
    """Yield the progress of a computation, and return its result; None if stopped.

    The work of later stages is ``factor`` times the work that the computation expects after it, plus ``later`` times
    its own; None if it is not known.
    """
    from svetlana_jupyter.learn.dataset import WorkProgress

    result = None
    for event in events:
        if isinstance(event, WorkProgress):
            work = None if later is None or event.later is None else factor * event.later + later * event.total
            yield Progress(event.done, event.total, event.text or text, later=work, at_most=at_most)
        else:
            result = event
        if stop():
            return None
    return result


class RunScorings:
    """Runs whose scores are missing; they are computed in the background or at once.

    Parameters
    ----------
    jobs : JobRunner
    runs : RunStore
    pending : dict of str to Scoring
        Shared by all `Project` objects of a folder; the last one is computed first.
    recreate : callable
        Returns the scoring of a run from what is stored, or raises a `ProjectError`.
    predict_better : callable
        Yields the events of predicting all images with a run that is better than the shown one.
    handle : callable
        Called with each `RunScored` on the thread that created the project.
    show : callable
        Called on that thread with the state of the computation in the background; None if there is none.
    report : callable
        Called on that thread with a problem.

    Attributes
    ----------
    problems : dict of str to str
        Why runs could not be scored.
    """

    def __init__(
        self,
        jobs: JobRunner,
        runs: RunStore,
        pending: dict[str, Scoring],
        recreate: Callable[[Run], Scoring],
        predict_better: Callable[[Run, Stop], Iterator[object]],
        handle: Callable[[object], None],
        show: Callable[[JobState | None], None],
        report: Callable[[str], None],
    ) -> None:
        self._jobs, self._runs, self._pending, self._recreate = jobs, runs, pending, recreate
        self._predict_better, self._handle, self._show, self._report = predict_better, handle, show, report
        self._progress = LaneProgress(jobs, "scoring", show)
        self._is_paused = False
        self.problems: dict[str, str] = {}

    def add(self, scoring: Scoring) -> None:
        """Compute the scores of a run in the background, before those of earlier runs."""
        self._pending[scoring.run.name] = scoring
        for older in list(self._pending.values())[:-KEPT]:
            older.release()
        self._submit()

    def start(self, run: Run, may_replace: bool = False) -> None:
        """Compute the missing scores of a run, which may replace the shown one."""
        if run.missing_scores:
            scoring = self._pending.get(run.name) or self._recreate(run)
            scoring.may_replace |= may_replace
            self._pending.pop(run.name, None)  # so that it becomes the last
            self.add(scoring)

    def pause(self) -> None:
        """Compute nothing in the background until the next call of `add` or `start`."""
        self._is_paused = True
        self._jobs.lane.cancel(LANE_NAME)
        self._show(None)

    def is_awaited(self, run: Run) -> bool:
        """Return whether missing scores of a run are computed in the background."""
        return bool(run.missing_scores) and run.name in self._pending and not self._is_paused

    def candidates(self) -> list[Run]:
        """Return the runs that may replace the shown one."""
        return [scoring.run for scoring in list(self._pending.values()) if scoring.may_replace]

    def finish(self, name: str, needed: Collection[str]) -> None:
        """Compute missing scores now, as a job with a progress bar.

        A problem is kept in `problems`.

        Parameters
        ----------
        name : str
            Name of a run.
        needed : collection of str
            The scores to wait for; others are computed in the background afterwards.
        """
        run = self._runs.get(name)
        if not set(needed) & set(run.missing_scores):
            return
        stored = self._runs.read(name)
        scoring = self._pending.get(name)
        if scoring is None or not scoring.may_replace:  # otherwise its images may have to be predicted first
            if len(stored.missing_scores) < len(run.missing_scores):  # the event of the background still waits
                self._handle(RunScored(stored))
            if not set(needed) & set(stored.missing_scores):
                return
        try:
            scoring = scoring or self._recreate(stored)
            self._pending[name] = scoring

            def work(stop: Stop) -> Iterator[object]:
                for event in self._events(scoring, stop):
                    yield event
                    if scoring.news is None and not set(needed) & set(scoring.run.missing_scores):
                        return

            self._jobs.run("scoring", work)
        except Exception as error:
            self._fail(name, error)
            return
        if scoring.run.missing_scores and not self._is_paused:
            self._submit()

    def work(self, name: str, stop: Stop, needed: Collection[str]) -> Iterator[object]:
        """Yield the events of computing missing scores as part of another job."""
        scoring = self._pending.get(name)
        if scoring is not None:
            for event in self._events(scoring, stop):
                yield event
                if scoring.news is None and not set(needed) & set(scoring.run.missing_scores):
                    return

    def _submit(self) -> None:
        self._is_paused = False
        self._jobs.lane.submit(LANE_NAME, self._work, lambda error: self._jobs.post(self._report, str(error)))

    def _work(self, stop: Stop) -> Iterator[None]:
        while not stop() and self._pending:
            name, scoring = list(self._pending.items())[-1]
            try:
                for event in self._events(scoring, stop):
                    if isinstance(event, Progress):
                        self._progress.report(replace(event, text=describe(event)))
                    else:
                        self._jobs.post(self._handle, event)
                    yield
            except Exception as error:  # the other runs are still to be scored
                self._jobs.post(partial(self._fail, name), error)
                self._pending.pop(name, None)
        if not self._pending:
            self._jobs.post(self._show, None)

    def _events(self, scoring: Scoring, stop: Stop) -> Iterator[object]:
        """Yield progress and scores, each after what has to be ready before it is shown."""
        while True:
            yield from scoring.events(stop)
            news = scoring.news
            if news is None:
                if not scoring.run.missing_scores:
                    self._pending.pop(scoring.run.name, None)
                return
            if scoring.may_replace:
                yield from self._predict_better(news.run, stop)
                if stop():
                    return
                scoring.may_replace = False
            scoring.news = None
            self.problems.pop(news.run.name, None)
            if not news.run.missing_scores:
                self._pending.pop(news.run.name, None)
            yield news

    def _fail(self, name: str, error: Exception) -> None:
        self._pending.pop(name, None)
        self.problems[name] = str(error)
        self._report(f"Run {name} was not scored: {error}")


def describe(event: Progress) -> str:
    """Return the text of progress, with the folds of a cross-validation."""
    has_folds = event.text.startswith("scoring") and event.total > 1
    return f"{event.text}: {int(event.done)} of {event.total:.0f} folds" if has_folds else event.text
