"""Preset search: model selection among presets by grouped cross-validation.

All candidate presets are compared on the same folds. Classifiers on measurements are fast, so they are trained first.
Networks follow only while they can gain enough: the loss of the best candidate so far is the most that a better one can
gain, and it must be worth the time of further trainings. In a first round, all networks are trained for a few epochs
on some of the folds. After it, the best networks, the finalists, are trained in every fold, one after the other,
until what is left to gain is not worth the time of the next one. `core.stats.model_selection` selects the best preset;
a network only if it is better by more than the standard error of the difference.

The reported score is the nested cross-validation score, because the cross-validation score of the selected preset is
too optimistic. The search ends early only if it would end without any single fold, too. So nested cross-validation
covers the end of the search: for every fold, the presets of a search that does not use the fold were trained.

Epochs and expected times are planned before the search starts and do not depend on measured times, so that the result
is reproducible. Trainings run in parallel threads, one core each; a single worker trains in the calling thread, so that
a search that is not asked for more events does nothing. The result depends neither on the number of threads nor on the
order in which the trainings end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from svetlana_jupyter.core.stats.model_selection import (
    brier_skill,
    may_gain,
    nested_selection,
    rank_candidates,
    select_candidate,
)
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.cross_validation import held_out_table, predicted_probabilities, scored_objects
from svetlana_jupyter.learn.dataset import WorkProgress
from svetlana_jupyter.learn.device import choose_device
from svetlana_jupyter.learn.search_plan import SearchPlan, epoch_seconds, plan_search
from svetlana_jupyter.learn.splits import Folds, split_folds
from svetlana_jupyter.learn.training import Batch, FitResult, fit, never_stop

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.core.settings import TrainingSettings
    from svetlana_jupyter.learn.dataset import TrainingData

Result = TypeVar("Result")
Stop = Callable[[], bool]
Task = Callable[[Stop], Generator[None, None, Result]]
Floats = NDArray[np.float64]

# Gain in Brier skill that a second of one core must be able to bring: 0.01 for half a minute. Most classifiers without
# errors on held-out objects can gain less than the 0.01 to 0.02 that networks cost in 2D; in 3D they cost 0.1.
GAIN_PER_SECOND = 0.0003
MAX_SEARCH_OBJECTS = 1000  # objects of a search; more would hardly change its result
MIN_OBJECTS_PER_CLASS = 20  # minimum number of objects of a search per class, if the class has as many
MEASURING, CUTTING = "measuring objects", "cutting patches"
POLL_SECONDS = 0.05  # time between two checks for a stop
HEARTBEAT_SECONDS = 1.0  # time without a result after which progress is reported


@dataclass(frozen=True)
class CandidateResult:
    """Cross-validation result of one candidate preset.

    Attributes
    ----------
    preset : str
    settings : TrainingSettings
        Settings of the preset; ``epochs`` is the number of epochs trained.
    table : DataFrame
        Held-out predictions; see `learn.cross_validation.held_out_table`. After the first round, of some folds only.
    merit : float
        Ranking criterion (`core.stats.model_selection.brier_skill`).
    is_finalist : bool
        True if it was trained to the end in every fold.
    seconds : float
        Time of all trainings and predictions on one core.
    """

    preset: str
    settings: TrainingSettings
    table: pd.DataFrame
    merit: float
    is_finalist: bool
    seconds: float


@dataclass(frozen=True)
class SearchResult:
    """Result of a preset search.

    Attributes
    ----------
    nested_table : DataFrame
        Predictions of nested cross-validation: each fold is predicted by the candidate that is best on the other folds.
    candidates : tuple of CandidateResult
        The selected candidate first, then the other candidates by rank.
    kept_whole : str
        Units that were never divided between two folds; see `learn.splits.Folds`.
    untried : tuple of str
        Candidates that were not trained, because they could not gain enough for the time of their training.
    fitted : FitResult or None
        Classifier of the selected candidate, trained on all folds but one; None if its trainings diverged.
    """

    nested_table: pd.DataFrame
    candidates: tuple[CandidateResult, ...]
    kept_whole: str
    untried: tuple[str, ...] = ()
    fitted: FitResult | None = None


Collect = Callable[[Sequence[str]], Iterable["WorkProgress | Mapping[str, TrainingData]"]]


def search(
    candidates: Mapping[str, TrainingSettings],
    collect: Collect,
    keep_epochs: bool = False,
    workers: int = 1,
    stop: Stop = never_stop,
) -> Iterator[WorkProgress | SearchResult | SearchStopped]:
    """Select the best of several presets by grouped cross-validation.

    Parameters
    ----------
    candidates : mapping of name to TrainingSettings
        Settings of each preset, whose automatic patch settings are resolved. Of equally good presets, the first is
        selected.
    collect : callable
        Yields progress and finally the data of the named candidates: the same objects in the same order for each. It is
        called when the candidates are needed, so that no patches are cut if no network is trained. Two classes need at
        least five objects; classes with fewer are not scored (`learn.cross_validation.scored_objects`).
    keep_epochs : bool
        True to keep each candidate's number of epochs; by default it is reduced to fit the budget.
    workers : int
        Number of parallel trainings; the result does not depend on it.
    stop : callable
        Called before every batch; once it returns True, the search ends with a `SearchStopped`, or without a result
        if nothing was trained yet.
    """
    first = next(iter(candidates.values()))
    if choose_device(first.device, len(first.patches.shape)).type != "cpu":
        workers = 1
    threads = torch.get_num_threads()
    try:
        yield from _Search(candidates, collect, keep_epochs, workers, stop).run()
    finally:
        torch.set_num_threads(threads)  # a single worker has trained with one, in this thread


def subsample_objects(targets: NDArray[np.int64], seed: int, max_objects: int | None = None) -> NDArray[np.int64]:
    """Return the positions of all objects, or of a stratified random sample.

    Parameters
    ----------
    targets : int64 of shape (n,)
        Class ids.
    seed : int
    max_objects : int, optional
        Approximate size of the sample, `MAX_SEARCH_OBJECTS` by default. The sample contains at least 20 objects of each
        class, or all if the class has fewer.

    Returns
    -------
    int64 of shape (m,)
        Positions in ascending order.
    """
    max_objects = MAX_SEARCH_OBJECTS if max_objects is None else max_objects
    if len(targets) <= max_objects:
        return np.arange(len(targets))
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(members)[: max(MIN_OBJECTS_PER_CLASS, round(max_objects * len(members) / len(targets)))]
        for members in (np.flatnonzero(targets == class_id) for class_id in np.unique(targets))
    ]
    return np.sort(np.concatenate(chosen))


@dataclass(frozen=True)
class SearchStopped:
    """Best candidate of a search that was stopped.

    Attributes
    ----------
    preset : str
    settings : TrainingSettings
    fitted : FitResult
        The best classifier so far of this candidate, trained on part of the objects.
    finished : int
        Number of trainings of this candidate that were compared on held-out objects; 0 if none was.
    """

    preset: str
    settings: TrainingSettings
    fitted: FitResult
    finished: int


def run_tasks(tasks: Sequence[Task[Result]], workers: int, stop: Stop) -> Iterator[tuple[int, Result] | None]:
    """Run tasks; yield the number and result of each task when it ends.

    A single worker runs in the calling thread and yields None at each step of a task. Several workers are threads; None
    is yielded about once per second while no task ends.

    Parameters
    ----------
    tasks : sequence of callables
        Each task is called with a ``stop`` function, and yields at its steps until that function returns True. Then the
        task should return soon.
    workers : int
        Number of tasks that run at the same time.
    stop : callable
        Once it returns True, all tasks are stopped and nothing more is yielded. Tasks are also stopped if this
        generator is closed or a task raises an exception.
    """
    if workers > 1:
        yield from _run_in_threads([partial(_exhaust, task) for task in tasks], workers, stop)
        return
    for number, task in enumerate(tasks):
        result = yield from task(stop)
        if stop():
            return
        yield number, result


def _exhaust(task: Task[Result], stop: Stop) -> Result:
    """Run a task to its end, and return its result."""
    steps = task(stop)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def _run_in_threads(
    tasks: Sequence[Callable[[Stop], Result]], workers: int, stop: Stop
) -> Iterator[tuple[int, Result] | None]:
    """Run tasks in threads, as `run_tasks` describes."""
    closing = threading.Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="preset search") as pool:
        running = {pool.submit(task, lambda: closing.is_set() or stop()): number for number, task in enumerate(tasks)}
        last = time.monotonic()
        try:
            while running and not stop():
                done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                if done:  # one at a time: nothing is yielded after a stop
                    future = min(done, key=running.__getitem__)
                    yield running.pop(future), future.result()
                    last = time.monotonic()
                if time.monotonic() - last >= HEARTBEAT_SECONDS:
                    yield None
                    last = time.monotonic()
        finally:
            closing.set()
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _FoldTraining:
    """Training of one candidate preset on all folds but one.

    ``part`` contains the positions of the held-out objects, and ``epochs`` is the number of epochs so far.
    """

    name: str
    part: NDArray[np.int64]
    epochs: float = 0.0


class _Search:
    """State of a search: folds, plan, and the results of each candidate so far."""

    def __init__(
        self, settings: Mapping[str, TrainingSettings], collect: Collect, keep_epochs: bool, workers: int, stop: Stop
    ) -> None:
        self.settings, self.collect, self.keep_epochs = settings, collect, keep_epochs
        self.workers, self.stop = workers, stop
        self.networks = [name for name, one in settings.items() if one.has_network]
        self.measured = [name for name in settings if name not in self.networks]
        self.samples: dict[str, TrainingData] = {}
        self.plan: SearchPlan | None = None  # None without networks
        self.complete: dict[str, Floats] = {}  # probabilities of the candidates that were trained in every fold
        self.first_round: dict[str, Floats] = {}  # probabilities of the networks after the first round
        self.fitted: dict[str, FitResult] = {}  # the classifier of each candidate that was trained longest
        self.held_out: dict[str, int] = dict.fromkeys(settings, 0)  # finished trainings of each candidate
        self.seconds = dict.fromkeys(settings, 0.0)
        self.done, self.total = 0.0, 0.0  # expected seconds
        self.later: float | None = 0.0

    def run(self) -> Iterator[WorkProgress | SearchResult | SearchStopped]:
        """Yield progress and then the result."""
        for part in (self._compare_measured(), self._compare_networks()):
            yield from part
            if self.stop():
                yield from filter(None, [self._best_so_far()])
                return
        yield self._result()

    def _compare_measured(self) -> Iterator[WorkProgress]:
        yield from self._collect(*((self.measured, MEASURING) if self.measured else (self.networks, CUTTING)))
        if self.samples and not self.stop():
            self._split_and_plan()
            yield from self._train(self.measured, self._all_parts, self.complete, 1)

    def _compare_networks(self) -> Iterator[WorkProgress]:
        """Train networks in a first round, then finalists while they can gain enough."""
        plan = self.plan
        if plan is None or not self._is_worth(plan.entry_seconds):
            return
        yield from self._collect(self.networks, CUTTING)
        # The final training runs on all cores, as many as there are parallel trainings in a search.
        self.later = max(map(plan.final_seconds, plan.expensive()))
        self.done, self.total = 0.0, plan.seconds - self.later
        finalists = self.networks
        if plan.has_first_round and not self.stop():
            parts = self._all_parts[: plan.first_round_parts]
            yield from self._train(self.networks, parts, self.first_round, plan.first_round_epochs)
            if not self.stop():
                seen = np.isin(self.fold, np.arange(len(parts)) + 1)
                results = {name: self.first_round[name][seen] for name in self.networks}
                finalists = rank_candidates(self.truth[seen], results)[: plan.finalists]
        self.later = max(map(plan.final_seconds, finalists))
        for number, name in enumerate(finalists):
            if self.stop() or not self._is_worth(plan.finalist_seconds(name) + plan.final_seconds(name)):
                return
            self.total = self.done + sum(map(plan.finalist_seconds, finalists[number:]))
            yield from self._train([name], self._all_parts, self.complete, plan.epochs)

    def _collect(self, names: Sequence[str], text: str) -> Iterator[WorkProgress]:
        """Collect the data of candidates that have none yet."""
        missing = [name for name in names if name not in self.samples]
        for event in self.collect(missing) if missing else ():
            if isinstance(event, WorkProgress):
                yield replace(event, text=text, later=None)
            else:
                self.samples |= event
            if self.stop():
                return

    def _split_and_plan(self) -> None:
        self.first = next(iter(self.samples.values()))
        scored = scored_objects(self.first.targets)
        self.scored = scored if len(scored) else np.arange(len(self.first))
        self.folds: Folds = split_folds(self.first.subset(self.scored), self.first.settings.folds)
        self.truth = np.searchsorted(self.first.classes, self.first.targets[self.scored])
        self.groups, self.fold = self.first.groups[self.scored], np.zeros(len(self.scored), np.int64)
        for number, part in enumerate(self.folds.parts, start=1):
            self.fold[part] = number
        self._all_parts = [self.scored[part] for part in self.folds.parts]
        n, channels, count = len(self.first), len(self.first.channels), len(self.folds.parts)
        self.total = count * sum(epoch_seconds(self.settings[name], n, channels) for name in self.measured)
        if self.networks:
            networks = {name: self.settings[name] for name in self.networks}
            self.plan = plan_search(networks, n, channels, count, self.keep_epochs)
            self.later = None  # measurements and networks differ in speed

    def _is_worth(self, seconds: float) -> bool:
        """Return whether further trainings may gain enough for their expected time."""
        least, complete = GAIN_PER_SECOND * seconds, self._in_order(self.complete)
        return not complete or may_gain(self.truth, self.fold, self.groups, complete, least)

    def _train(
        self, names: Sequence[str], parts: Sequence[NDArray[np.int64]], results: dict[str, Floats], epochs: int
    ) -> Iterator[WorkProgress]:
        """Train candidates in folds; store held-out probabilities in ``results``."""
        trainings = [_FoldTraining(name, part) for part in parts for name in names]
        tasks = [partial(self._predict_part, training, epochs) for training in trainings]
        collected = {name: np.zeros((len(self.first), len(self.first.classes))) for name in names}
        counted = {name: self._seconds_of(name, len(parts), epochs) for name in names}
        ended, before, best = 0, self.done, self._best_complete()
        suffix = f", best so far: {best}" if best else ""
        for result in run_tasks(tasks, self.workers, self.stop):
            if result is not None:
                training, ended = trainings[result[0]], ended + 1
                collected[training.name][training.part], seconds = result[1]
                self.held_out[training.name] += 1
                self.seconds[training.name] += seconds
                training.epochs = epochs  # also if the training ended earlier because it diverged
            shares = sum(training.epochs * counted[training.name] for training in trainings)
            self.done = before + shares / (len(parts) * epochs)
            what = f"preset {names[0]}" if len(names) == 1 else f"{len(names)} presets"
            text = f"comparing {what}{suffix}: {ended} of {len(trainings)} trainings"
            yield WorkProgress(self.done, self.total, text, self.later)
        if not self.stop():
            results |= {name: p[self.scored] for name, p in collected.items()}

    def _seconds_of(self, name: str, parts: int, epochs: int) -> float:
        """Return the expected time of training a candidate in some folds."""
        if name in self.measured or self.plan is None:
            return parts * epoch_seconds(self.settings[name], len(self.first), len(self.first.channels))
        is_finalist = epochs == self.plan.epochs
        return self.plan.finalist_seconds(name) if is_finalist else self.plan.first_round_seconds_of(name)

    def _best_complete(self) -> str:
        """Return the best candidate that was trained in every fold, or ""."""
        return self._select(self._in_order(self.complete)) if self.complete else ""

    def _select(self, complete: Mapping[str, Floats]) -> str:
        return select_candidate(self.truth, complete, self.groups, self.measured)

    def _best_so_far(self) -> SearchStopped | None:
        """Return the best candidate so far; None if nothing was trained.

        It is the best of those that were trained in every fold, or else the one with the most finished trainings.
        """
        name = self._best_complete() or max(self.fitted, key=self.held_out.__getitem__, default="")
        if not name:
            return None
        fitted = self.fitted[name]
        if name in self.measured:  # which takes less than a second for all objects
            *_, event = fit(self.samples[name])
            assert isinstance(event, FitResult)
            fitted = event
        fitted = replace(fitted, stopped=True)
        return SearchStopped(name, self.settings[name], fitted, self.held_out[name])

    def _predict_part(
        self, training: _FoldTraining, epochs: int, stop: Stop
    ) -> Generator[None, None, tuple[Floats, float]]:
        """Train on all folds but one; return held-out probabilities and seconds used."""
        started, samples, part = time.thread_time(), self.samples[training.name], training.part
        settings = samples.settings.changed(epochs=epochs, held_out=0.0, threads=1)
        rest = replace(samples, settings=settings).subset(np.setdiff1d(np.arange(len(samples)), part))
        uniform = np.full((len(part), len(samples.classes)), 1 / len(samples.classes))
        try:
            for last in fit(rest, stop):
                if isinstance(last, Batch):
                    training.epochs = max(training.epochs, last.epoch - 1 + last.batch / last.batches)
                if not stop():
                    yield
        except ClassifierError:  # the training diverged before the network learned anything
            return uniform, time.thread_time() - started
        assert isinstance(last, FitResult)
        before = self.fitted.get(training.name)
        if last.history and (before is None or len(last.history) >= len(before.history)):
            self.fitted[training.name] = last
        if stop():
            return uniform, 0.0
        probabilities = predicted_probabilities(last.classifier, samples.subset(part), samples.classes)
        return probabilities.astype(np.float64), time.thread_time() - started

    def _result(self) -> SearchResult:
        complete = self._in_order(self.complete)
        nested = nested_selection(self.truth, self.fold, complete, self.groups, self.measured)
        chosen = self._select(complete)
        finalists = sorted(rank_candidates(self.truth, complete), key=chosen.__ne__)  # the others stay by rank
        dropped = {name: p for name, p in self.first_round.items() if name not in self.complete}
        seen = np.isin(self.fold, np.arange(self.plan.first_round_parts if self.plan else 0) + 1)
        ranked = rank_candidates(self.truth[seen], {name: p[seen] for name, p in dropped.items()})
        everything = np.ones(len(self.truth), bool)
        results = [self._candidate_result(name, self.complete[name], everything, True) for name in finalists]
        results += [self._candidate_result(name, dropped[name], seen, False) for name in ranked]
        table = self._table(self.first, nested, everything)
        fitted = self.fitted.get(finalists[0])
        return SearchResult(table, tuple(results), self.folds.kept_whole, self._untried(), fitted)

    def _untried(self) -> tuple[str, ...]:
        """Return the candidates that were not worth the time of their training."""
        return tuple(name for name in self.settings if not self.held_out[name])

    def _in_order(self, results: Mapping[str, Floats]) -> dict[str, Floats]:
        """Return results in the order of the candidates, which decides ties."""
        return {name: results[name] for name in self.settings if name in results}

    def _candidate_result(
        self, name: str, probabilities: Floats, seen: NDArray[np.bool_], is_finalist: bool
    ) -> CandidateResult:
        samples = self.samples[name]
        settings = samples.settings
        if name in self.networks:
            assert self.plan is not None
            settings = settings.changed(epochs=self.plan.epochs if is_finalist else self.plan.first_round_epochs)
        table, merit = self._table(samples, probabilities, seen), brier_skill(self.truth[seen], probabilities[seen])
        return CandidateResult(name, settings, table, merit, is_finalist, self.seconds[name])

    def _table(self, samples: TrainingData, probabilities: Floats, seen: NDArray[np.bool_]) -> pd.DataFrame:
        scored = samples.subset(self.scored[seen])
        return held_out_table(scored, self.fold[seen], probabilities[seen].astype(np.float32), samples.classes)
