"""Preset search: model selection among presets by grouped cross-validation.

All candidate presets are trained on the same folds. In a short first round, all networks are trained for a few epochs.
After it, only the best networks, the finalists, are trained to the end (successive halving). Forests are fast and are
trained completely in the first round. `core.stats.model_selection` selects the best preset. The reported score is the
nested cross-validation score, because the cross-validation score of the selected preset is too optimistic.

The numbers of epochs are planned before the search starts and do not depend on measured times, so that the result is
reproducible. Trainings run in parallel threads, one core each. The result depends neither on the number of threads nor
on the order in which the trainings end.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from svetlana_jupyter.core.stats.model_selection import brier_skill, nested_selection, rank_candidates
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.cross_validation import held_out_table, predicted_probabilities, scored_objects
from svetlana_jupyter.learn.dataset import WorkProgress
from svetlana_jupyter.learn.device import choose_device
from svetlana_jupyter.learn.networks import BACKWARD_FACTOR, step_seconds
from svetlana_jupyter.learn.splits import Folds, split_folds
from svetlana_jupyter.learn.training import Epoch, FitResult, fit, never_stop

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.core.settings import TrainingSettings
    from svetlana_jupyter.learn.dataset import TrainingData

Result = TypeVar("Result")
Stop = Callable[[], bool]
Floats = NDArray[np.float64]

# Time budget on one core for search, final training and nested score together, by number of dimensions. An idle core
# (AMD EPYC) needs about 60 % of this time, so two cores need about a third.
BUDGET_SECONDS = {2: 50.0, 3: 340.0}
EXPENSIVE_FACTOR = 2  # networks that take longer than this multiple of the first network must fit into the budget
N_FINALISTS = {2: 3, 3: 2}  # networks that are trained to the end in every fold
FIRST_ROUND_SHARE = 1 / 6  # length of the first round as a fraction of all epochs
MIN_FIRST_STEPS = {2: 40, 3: 20}  # minimum number of training steps in the first round
MIN_STEPS = {2: 60, 3: 40}  # minimum number of training steps of the finalists, even if the budget is exceeded
MAX_SEARCH_OBJECTS = 1000  # objects of a search; more would hardly change its result
MIN_OBJECTS_PER_CLASS = 20  # minimum number of objects of a search per class, if the class has as many
POLL_SECONDS = 0.05  # time between two checks for a stop
HEARTBEAT_SECONDS = 1.0  # time without a result after which progress is reported

# Initial weights are drawn from the global generator of torch, which all threads share.
_init_lock = threading.Lock()


@dataclass(frozen=True)
class CandidateResult:
    """Cross-validation result of one candidate preset.

    Attributes
    ----------
    preset : str
    settings : TrainingSettings
        Settings of the preset; ``epochs`` is the number of epochs trained.
    table : DataFrame
        Held-out predictions; see `learn.cross_validation.held_out_table`.
    merit : float
        Ranking criterion (`core.stats.model_selection.brier_skill`).
    is_finalist : bool
        True if it was trained to the end.
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
    """

    nested_table: pd.DataFrame
    candidates: tuple[CandidateResult, ...]
    kept_whole: str


def search(
    candidates: Mapping[str, TrainingData], keep_epochs: bool = False, workers: int = 1, stop: Stop = never_stop
) -> Iterator[WorkProgress | SearchResult | SearchStopped]:
    """Select the best of several presets by grouped cross-validation.

    Parameters
    ----------
    candidates : mapping of name to TrainingData
        Data of each preset: the same objects in the same order, with the settings and inputs of the preset. Two classes
        need at least five objects; classes with fewer are not scored (`learn.cross_validation.scored_objects`). Of
        equally good presets, the first is selected.
    keep_epochs : bool
        True to keep each candidate's number of epochs; by default it is reduced to fit the budget.
    workers : int
        Number of parallel trainings; the result does not depend on it.
    stop : callable
        Called before every batch; once it returns True, the search ends with a `SearchStopped`, or without a result
        if nothing was trained yet.
    """
    first = next(iter(candidates.values()))
    chosen = subsample_objects(first.targets, first.settings.seed)
    run = _Search({name: samples.subset(chosen) for name, samples in candidates.items()}, keep_epochs)
    if choose_device(first.settings.device, first.ndim).type != "cpu":
        workers = 1
    state = torch.get_rng_state()
    try:
        yield from run.run(workers, stop)
    finally:
        torch.set_rng_state(state)


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


@dataclass(frozen=True)
class SearchPlan:
    """Plan of a search: epochs of its two rounds, and number of finalists.

    Attributes
    ----------
    first_round_epochs, epochs : int
        Number of epochs in the first round, and number of epochs of the finalists.
    finalists : int
        Number of networks trained to the end. If there are not more networks, there is no first round.
    seconds : float
        Expected time on one core.
    """

    first_round_epochs: int
    epochs: int
    finalists: int
    seconds: float


def plan_search(
    networks: Sequence[TrainingSettings], n: int, channels: int, parts: int, keep_epochs: bool
) -> SearchPlan:
    """Plan the two rounds of a search within the time budget.

    Parameters
    ----------
    networks : sequence of TrainingSettings
        Settings of the candidates that are networks. Their automatic patch settings must be resolved.
    n : int
        Number of annotated objects.
    channels : int
        Number of image channels.
    parts : int
        Number of folds of the cross-validation.
    keep_epochs : bool
        True to keep the number of epochs of the settings, even if the budget is exceeded.
    """
    ndim = len(networks[0].patches.shape)
    training = [epoch_seconds(settings, n, channels) for settings in networks]
    prediction = [
        n * step_seconds(settings, channels) / settings.batch_size * settings.views / BACKWARD_FACTOR
        for settings in networks
    ]
    finalists = min(N_FINALISTS[ndim], len(networks))
    steps, wanted = _steps_per_epoch(networks[0], n), networks[0].epochs

    def seconds(first: int, epochs: int) -> float:
        costs = parts * epochs * _most_expensive(training, finalists) + _most_expensive(prediction, finalists)
        costs += epochs * max(training)  # final training on all objects
        if len(networks) > finalists:
            costs += parts * first * sum(training) + sum(prediction)
        return costs

    def first_round(epochs: int) -> int:
        return min(epochs, max(math.ceil(MIN_FIRST_STEPS[ndim] / steps), round(epochs * FIRST_ROUND_SHARE)))

    epochs, least = wanted, min(wanted, math.ceil(MIN_STEPS[ndim] / steps))
    while not keep_epochs and epochs > least and seconds(first_round(epochs), epochs) > BUDGET_SECONDS[ndim]:
        epochs -= 1
    first = first_round(epochs)
    if first == epochs:  # the first round would be the whole training, so no network is dropped
        finalists = len(networks)
    return SearchPlan(first, epochs, finalists, seconds(first, epochs))


def affordable_candidates(candidates: Mapping[str, TrainingSettings], n: int, channels: int) -> list[str]:
    """Return the names of the candidates that fit the time budget.

    Forests and networks up to twice as expensive as the first candidate are always included. A more expensive network
    is included only if its trainings in all folds and its final training fit the budget.

    Parameters
    ----------
    candidates : mapping of name to TrainingSettings
        Their automatic patch settings must be resolved.
    n, channels : int
        Number of annotated objects, and number of image channels.
    """
    limit = EXPENSIVE_FACTOR * epoch_seconds(next(iter(candidates.values())), n, channels)

    def is_affordable(settings: TrainingSettings) -> bool:
        if settings.architecture == "forest":
            return True
        seconds, budget = epoch_seconds(settings, n, channels), BUDGET_SECONDS[len(settings.patches.shape)]
        return seconds <= limit or (settings.folds + 1) * settings.epochs * seconds <= budget

    return [name for name, settings in candidates.items() if is_affordable(settings)]


def epoch_seconds(settings: TrainingSettings, n: int, channels: int) -> float:
    """Estimate the duration of one epoch on one core."""
    return _steps_per_epoch(settings, n) * step_seconds(settings, channels)


def _steps_per_epoch(settings: TrainingSettings, n: int) -> int:
    return settings.steps or math.ceil(n / settings.batch_size)


def _most_expensive(costs: Sequence[float], count: int) -> float:
    """Return the sum of the ``count`` largest costs."""
    return sum(sorted(costs)[-count:])


def run_in_threads(
    tasks: Sequence[Callable[[Stop], Result]], workers: int, stop: Stop
) -> Iterator[tuple[int, Result] | None]:
    """Run tasks in threads; yield the number and result of each task when it ends.

    While no task ends, None is yielded about once per second.

    Parameters
    ----------
    tasks : sequence of callables
        Each task is called with a ``stop`` function. Once that function returns True, the task should return soon.
    workers : int
        Number of tasks that run at the same time.
    stop : callable
        Once it returns True, all tasks are stopped and nothing more is yielded. Tasks are also stopped if this
        generator is closed or a task raises an exception.
    """
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

    ``part`` contains the positions of the held-out objects, and ``epochs`` is the number of finished epochs.
    """

    name: str
    part: NDArray[np.int64]
    epochs: int = 0


class _Search:
    """State of a search: folds, plan, and the results of each candidate so far."""

    def __init__(self, candidates: Mapping[str, TrainingData], keep_epochs: bool) -> None:
        self.candidates = candidates
        self.first = next(iter(candidates.values()))
        scored = scored_objects(self.first.targets)
        self.scored = scored if len(scored) else np.arange(len(self.first))
        self.folds: Folds = split_folds(self.first.subset(self.scored), self.first.settings.folds)
        self.truth = np.searchsorted(self.first.classes, self.first.targets[self.scored])
        self.fold = np.zeros(len(self.scored), np.int64)
        for number, part in enumerate(self.folds.parts, start=1):
            self.fold[part] = number
        networks = {name: one.settings for name, one in candidates.items() if one.settings.architecture != "forest"}
        self.networks, self.forests = [*networks], [name for name in candidates if name not in networks]
        n, channels = len(self.first), len(self.first.channels)
        self.plan = plan_search([*networks.values()], n, channels, len(self.folds.parts), keep_epochs)
        self.probabilities: dict[str, Floats] = {}
        self.fitted: dict[str, FitResult] = {}  # the classifier of each candidate that was trained longest
        self.compared: dict[str, list[tuple[NDArray[np.int64], Floats]]] = {}  # held-out parts and their probabilities
        self.seconds = dict.fromkeys(candidates, 0.0)
        # Cost of one epoch in milliseconds; 0 for forests.
        costs = {name: max(1, round(1000 * epoch_seconds(each, n, channels))) for name, each in networks.items()}
        self.costs = dict.fromkeys(candidates, 0) | costs
        self.done = 0
        # The final training runs on all cores, as many as there are parallel trainings in a search.
        self.later = self.plan.epochs * max(costs.values())
        expensive = sorted(self.networks, key=self.costs.__getitem__)[-self.plan.finalists :]
        self.total = self._cost(expensive, self.plan.epochs)
        if len(self.networks) > self.plan.finalists:
            self.total += self._cost(self.networks, self.plan.first_round_epochs)

    def run(self, workers: int, stop: Stop) -> Iterator[WorkProgress | SearchResult | SearchStopped]:
        """Yield progress and then the result."""
        yield from self._run(workers, stop)
        if stop() and (best := self._best_so_far()) is not None:
            yield best

    def _run(self, workers: int, stop: Stop) -> Iterator[WorkProgress | SearchResult]:
        finalists, forests = self.networks, self.forests
        if len(self.networks) > self.plan.finalists:
            names = [*self.networks, *self.forests]
            yield from self._train(names, self.plan.first_round_epochs, "trying", workers, stop)
            if stop():
                return
            ranked = rank_candidates(self.truth, {name: self.probabilities[name] for name in self.networks})
            finalists, forests = sorted(ranked[: self.plan.finalists], key=self.networks.index), []
            self.total = self.done + self._cost(finalists, self.plan.epochs)
            self.later = self.plan.epochs * max(self.costs[name] for name in finalists)
        yield from self._train([*finalists, *forests], self.plan.epochs, "comparing", workers, stop)
        if not stop():
            yield self._result([name for name in self.candidates if name in (*finalists, *self.forests)])

    def _train(self, names: list[str], epochs: int, verb: str, workers: int, stop: Stop) -> Iterator[WorkProgress]:
        """Train each candidate in each fold and store its held-out probabilities."""
        trainings = [_FoldTraining(name, self.scored[part]) for part in self.folds.parts for name in names]
        tasks = [partial(self._predict_part, training, epochs) for training in trainings]
        collected = {name: np.zeros((len(self.first), len(self.first.classes))) for name in names}
        ended, before, self.compared = 0, self.done, {}
        for result in run_in_threads(tasks, workers, stop):
            if result is not None:
                training, ended = trainings[result[0]], ended + 1
                collected[training.name][training.part], seconds = result[1]
                self.compared.setdefault(training.name, []).append((training.part, result[1][0]))
                self.seconds[training.name] += seconds
                training.epochs = epochs  # also if the training ended earlier because it diverged
            self.done = before + sum(training.epochs * self.costs[training.name] for training in trainings)
            text = f"{verb} {len(names)} presets: {ended} of {len(trainings)} trainings"
            yield WorkProgress(self.done, self.total, text, self.later)
        if not stop():
            self.probabilities |= {name: p[self.scored] for name, p in collected.items()}

    def _best_so_far(self) -> SearchStopped | None:
        """Return the best of the candidates that were trained so far."""
        merits, codes = {}, np.searchsorted(self.first.classes, self.first.targets)
        for name in self.fitted:
            parts = self.compared.get(name, [])
            truth, predicted = [codes[part] for part, _ in parts], [values for _, values in parts]
            merits[name] = brier_skill(np.concatenate(truth), np.concatenate(predicted)) if parts else -math.inf
        if not merits:
            return None
        best = max(merits, key=merits.__getitem__)  # without a comparison, the first that was trained
        fitted, finished = self.fitted[best], len(self.compared.get(best, []))
        settings = self.candidates[best].settings
        return SearchStopped(best, settings, replace(fitted, stopped=True), finished)

    def _cost(self, names: Iterable[str], epochs: int) -> int:
        """Return the expected cost in milliseconds of training candidates in every fold."""
        return len(self.folds.parts) * epochs * sum(self.costs[name] for name in names)

    def _predict_part(self, training: _FoldTraining, epochs: int, stop: Stop) -> tuple[Floats, float]:
        """Train on all folds but one; return held-out probabilities and seconds used."""
        started, samples, part = time.thread_time(), self.candidates[training.name], training.part
        settings = samples.settings.changed(epochs=epochs, held_out=0.0, threads=1)
        rest = replace(samples, settings=settings).subset(np.setdiff1d(np.arange(len(samples)), part))
        uniform = np.full((len(part), len(samples.classes)), 1 / len(samples.classes))
        try:
            with _init_lock:
                events = fit(rest, stop)
            for last in events:
                if isinstance(last, Epoch):
                    training.epochs = max(training.epochs, last.epoch)
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

    def _result(self, finalists: list[str]) -> SearchResult:
        final = {name: self.probabilities[name] for name in finalists}
        dropped = {name: p for name, p in self.probabilities.items() if name not in finalists}
        nested = nested_selection(self.truth, self.fold, final)
        order = [*rank_candidates(self.truth, final), *rank_candidates(self.truth, dropped)]
        results = tuple(self._candidate_result(name, name in finalists) for name in order)
        return SearchResult(self._table(self.first, nested), results, self.folds.kept_whole)

    def _candidate_result(self, name: str, is_finalist: bool) -> CandidateResult:
        samples, probabilities = self.candidates[name], self.probabilities[name]
        settings, epochs = samples.settings, self.plan.epochs if is_finalist else self.plan.first_round_epochs
        settings = settings.changed(epochs=epochs) if name in self.networks else settings
        table, merit = self._table(samples, probabilities), brier_skill(self.truth, probabilities)
        return CandidateResult(name, settings, table, merit, is_finalist, self.seconds[name])

    def _table(self, samples: TrainingData, probabilities: Floats) -> pd.DataFrame:
        scored = samples.subset(self.scored)
        return held_out_table(scored, self.fold, probabilities.astype(np.float32), samples.classes)
