"""Finding the preset: candidates tried by grouped cross-validation, most of them for a few steps, a few to the end.

All candidates hold out the same objects in the same folds. A short training of each tells which few are worth a whole
one; forests, which are quick, are trained whole at once. The best at the end is chosen by
`core.stats.model_selection`, and so is the
score that is reported: that of choosing, not that of the one that was chosen.

How long a search for a preset trains, decided before it starts: the clock then cannot change what it finds.

Several independent trainings at once, each on one core: many small networks train faster side by side than in turn.

What each of them gives does not depend on how many there are, nor on the order in which they end.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.core.stats.model_selection import merit, nested_selection, ranked
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.cross_validation import held_out_table, predicted_probabilities
from svetlana_jupyter.learn.dataset import TrainingData
from svetlana_jupyter.learn.device import choose_device
from svetlana_jupyter.learn.networks import ARCHITECTURES, BACKWARD_FACTOR
from svetlana_jupyter.learn.splits import Folds, split_folds
from svetlana_jupyter.learn.training import Epoch, FitResult, fit, never_stop

# Seconds of one core that search, final training and outer score may take together. An idle one (AMD EPYC) takes about
# 0.6 of them, so two take about a third.
BUDGET_SECONDS = {2: 50.0, 3: 340.0}
EXPENSIVE_FACTOR = 2  # times as much as others cost, from which on a network must leave time for them
N_FINALISTS = {2: 3, 3: 2}  # networks that are trained to the end in every fold
FIRST_ROUND_SHARE = 1 / 6  # of the steps, after which the others are left behind...
MIN_FIRST_STEPS = {2: 40, 3: 20}  # ...but not before so many
FEWEST = {2: 60, 3: 40}


@dataclass(frozen=True)
class SearchPlan:
    """What a search will do.

    Attributes
    ----------
    first, epochs : int
        Epochs after which all but ``finalists`` networks are left behind, and of those that are not.
    finalists : int
        With as many candidates as finalists or fewer, none is left behind.
    seconds : float
        What it may take on one core.
    """

    first_round_epochs: int
    epochs: int
    finalists: int
    seconds: float


def plan_search(
    networks: Sequence[TrainingSettings], n: int, channels: int, parts: int, keep_epochs: bool
) -> SearchPlan:
    """Plan a search.

    Parameters
    ----------
    networks : sequence of TrainingSettings
        Candidates, with concrete patches.
    n : int
        Number of annotated objects.
    channels : int
        Of the image.
    parts : int
        Folds of the cross-validation.
    fixed : bool
        Whether the number of epochs was asked for, and must be kept.
    """
    ndim = len(networks[0].patches.sampling)  # type: ignore[arg-type]  # concrete, so a tuple
    epoch = [epoch_seconds(settings, n, channels) for settings in networks]
    look = [n * _patch_seconds(settings, channels) * settings.views / BACKWARD_FACTOR for settings in networks]
    finalists = min(N_FINALISTS[ndim], len(networks))

    def seconds(first: int, epochs: int) -> float:
        found = parts * epochs * _dearest(epoch, finalists) + _dearest(look, finalists) + epochs * max(epoch)
        if len(networks) > finalists:
            found += parts * first * sum(epoch) + sum(look)
        return found

    steps = _steps(networks[0], n)

    def first_of(epochs: int) -> int:
        return min(epochs, max(math.ceil(MIN_FIRST_STEPS[ndim] / steps), round(epochs * FIRST_ROUND_SHARE)))

    wanted = networks[0].epochs
    epochs, least = wanted, min(wanted, math.ceil(FEWEST[ndim] / steps))
    while not keep_epochs and epochs > least and seconds(first_of(epochs), epochs) > BUDGET_SECONDS[ndim]:
        epochs -= 1
    first = first_of(epochs)
    if first == epochs:  # so short that none need be left behind
        finalists = len(networks)
    return SearchPlan(first, epochs, finalists, seconds(first, epochs))


def affordable_candidates(candidates: Mapping[str, TrainingSettings], n: int, channels: int) -> list[str]:
    """Return the names of candidates that a search has time for.

    A network that costs much more than the first one must leave time for others: it trains in every fold and at last.

    Parameters
    ----------
    candidates : mapping of name to TrainingSettings
        With concrete patches. Forests are quick.
    n, channels : int
        As for `plan`.
    """
    first = epoch_seconds(next(iter(candidates.values())), n, channels)

    def leaves_time(settings: TrainingSettings) -> bool:
        assert isinstance(settings.patches.sampling, tuple)
        one = epoch_seconds(settings, n, channels)
        return (
            one <= EXPENSIVE_FACTOR * first
            or (settings.folds + 1) * settings.epochs * one <= BUDGET_SECONDS[len(settings.patches.sampling)]
        )

    return [name for name, one in candidates.items() if one.architecture == "forest" or leaves_time(one)]


def epoch_seconds(settings: TrainingSettings, n: int, channels: int) -> float:
    """Return what one epoch of the small network takes on one core."""
    return _steps(settings, n) * step_seconds(settings, channels)


def step_seconds(settings: TrainingSettings, channels: int) -> float:
    """Return the time of one training step on one core, estimated for the architecture."""
    estimate = ARCHITECTURES[settings.architecture].step_seconds
    assert estimate is not None
    return estimate(settings, channels)


def _steps(settings: TrainingSettings, n: int) -> int:
    return settings.steps or math.ceil(n / settings.batch_size)


def _patch_seconds(settings: TrainingSettings, channels: int) -> float:
    return step_seconds(settings, channels) / settings.batch_size


def _dearest(costs: Sequence[float], count: int) -> float:
    """Return what those that cost most cost together."""
    return sum(sorted(costs)[-count:])


Result = TypeVar("Result")
Stop = Callable[[], bool]

POLL_SECONDS = 0.05  # seconds between two looks at whether to stop
HEARTBEAT_SECONDS = 1.0  # seconds without news, after which there is a beat


def run_in_threads(
    tasks: Sequence[Callable[[Stop], Result]], workers: int, stop: Stop
) -> Iterator[tuple[int, Result] | None]:
    """Run tasks and yield the number and the result of each as soon as it ends, and None about once a second.

    Parameters
    ----------
    tasks : sequence of callables
        Each is given a function that tells whether to stop, and should return soon once it does.
    workers : int
        How many run at a time.
    stop : callable
        Once it returns True, nothing more is yielded; so it is when this generator is closed or a task raises.
    """
    closing = threading.Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="svetlana crew") as pool:
        running = {pool.submit(task, lambda: closing.is_set() or stop()): number for number, task in enumerate(tasks)}
        last = time.monotonic()
        try:
            while running and not stop():
                done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=running.__getitem__):
                    yield running.pop(future), future.result()
                    last = time.monotonic()
                if time.monotonic() - last >= HEARTBEAT_SECONDS:
                    yield None
                    last = time.monotonic()
        finally:
            closing.set()
            pool.shutdown(wait=True, cancel_futures=True)


MAX_SEARCH_OBJECTS = 1000  # objects that presets are tried on; more would tell hardly more

Floats = NDArray[np.float64]
# Beginning a network draws its weights from the one global generator of torch.
_beginning = threading.Lock()


@dataclass(frozen=True)
class SearchProgress:
    """Progress, in what trainings are expected to cost, and what is being tried."""

    done: int
    total: int
    text: str


@dataclass(frozen=True)
class CandidateResult:
    """One candidate as far as it was trained.

    Attributes
    ----------
    preset : str
    settings : TrainingSettings
        With the epochs that it was trained for.
    table : DataFrame
        What it predicted of objects held out, as `learn.cross_validation.held_out_table` gives it.
    merit : float
        By which it was chosen, or left behind (`core.stats.model_selection.merit`).
    finalist : bool
        Whether it was trained to the end.
    seconds : float
        Of one core.
    """

    preset: str
    settings: TrainingSettings
    table: pd.DataFrame
    merit: float
    is_finalist: bool
    seconds: float


@dataclass(frozen=True)
class SearchResult:
    """The end of a search.

    Attributes
    ----------
    preset : str
    settings : TrainingSettings
        Of the preset that was chosen, with the epochs it is to be trained for.
    nested_table : DataFrame
        What was predicted of each fold by the candidate that the others chose.
    chosen_table : DataFrame
        What the chosen one predicted; its score is too good.
    candidates : tuple of CandidateResult
        The chosen one first, then as they were ranked.
    kept_whole : str
        What was never divided between two folds, as `learn.splits.Folds` says it.
    """

    preset: str
    settings: TrainingSettings
    nested_table: pd.DataFrame
    chosen_table: pd.DataFrame
    candidates: tuple[CandidateResult, ...]
    kept_whole: str


def search(
    candidates: Mapping[str, TrainingData], keep_epochs: bool = False, workers: int = 1, stop: Stop = never_stop
) -> Iterator[SearchProgress | SearchResult]:
    """Find the best of several presets.

    Parameters
    ----------
    candidates : mapping of name to Samples
        The same objects in the same order, each with the settings and inputs of one preset; of equally good ones the
        first is taken. At least five objects of each class (`learn.cross_validation.reason_for_no_score`).
    fixed : bool
        Whether the candidates' number of epochs is to be kept; by default there are as many as time allows.
    workers : int
        Trainings at a time, on a core each; what is found does not depend on it.
    stop : callable
        Asked before every batch; once it returns True, the search ends without a result.
    """
    first = next(iter(candidates.values()))
    chosen = subsample_objects(first.targets, first.settings.seed)
    found = _Search({name: samples.subset(chosen) for name, samples in candidates.items()}, keep_epochs)
    if choose_device(first.settings.device, first.ndim).type != "cpu":
        workers = 1
    state = torch.get_rng_state()
    try:
        yield from found.run(workers, stop)
    finally:
        torch.set_rng_state(state)


@dataclass
class _Training:
    """One candidate that holds out one part; ``epochs`` are those that it has come to."""

    name: str
    part: NDArray[np.int64]
    epochs: int = 0


class _Search:
    """One search: the folds, the plan, and what is known of each candidate so far."""

    def __init__(self, candidates: Mapping[str, TrainingData], keep_epochs: bool) -> None:
        self.candidates = candidates
        self.first = next(iter(candidates.values()))
        settings = self.first.settings
        self.folds: Folds = split_folds(self.first, settings.folds)
        self.truth = np.searchsorted(self.first.classes, self.first.targets)
        self.fold = np.zeros(len(self.first), np.int64)
        for number, part in enumerate(self.folds.parts, start=1):
            self.fold[part] = number
        self.networks = [name for name, samples in candidates.items() if samples.settings.architecture != "forest"]
        several = [candidates[name].settings for name in self.networks]
        channels = len(self.first.channels)
        self.plan: SearchPlan = plan_search(several, len(self.first), channels, len(self.folds.parts), keep_epochs)
        self.known: dict[str, Floats] = {}
        self.epochs: dict[str, int] = {}
        self.seconds = dict.fromkeys(candidates, 0.0)
        self.costs = dict.fromkeys(candidates, 0)  # milliseconds an epoch; forests are quick
        for name, one in zip(self.networks, several, strict=True):
            self.costs[name] = max(1, round(1000 * epoch_seconds(one, len(self.first), channels)))
        self.done = 0
        dearest = sorted(self.networks, key=self.costs.__getitem__)[-self.plan.finalists :]
        self.total = self._cost(dearest, self.plan.epochs)
        if len(self.networks) > self.plan.finalists:
            self.total += self._cost(self.networks, self.plan.first_round_epochs)

    def run(self, workers: int, stop: Stop) -> Iterator[SearchProgress | SearchResult]:
        """Yield progress, and at the end what was found; nothing more once ``stop`` says so."""
        forests = [name for name in self.candidates if name not in self.networks]
        finalists, behind = self.networks, False
        if len(self.networks) > self.plan.finalists:
            yield from self._train([*self.networks, *forests], self.plan.first_round_epochs, "trying", workers, stop)
            if stop():
                return
            short = {name: self.known[name] for name in self.networks}
            finalists, behind = ranked(self.truth, short)[: self.plan.finalists], True
            self.total = self.done + self._cost(finalists, self.plan.epochs)
        last = [name for name in self.networks if name in finalists]
        yield from self._train([*last, *([] if behind else forests)], self.plan.epochs, "comparing", workers, stop)
        if stop():
            return
        yield self._found([name for name in self.candidates if name in finalists or name in forests])

    def _train(self, names: list[str], epochs: int, what: str, workers: int, stop: Stop) -> Iterator[SearchProgress]:
        """Train each candidate in each fold and keep what it predicts of the objects held out."""
        jobs = [_Training(name, part) for part in self.folds.parts for name in names]
        tasks = [partial(self._held_out, job, epochs) for job in jobs]
        gathered = {name: np.zeros((len(self.truth), len(self.first.classes))) for name in names}
        ended, before = 0, self.done
        for result in run_in_threads(tasks, workers, stop):
            if result is not None:
                number, (probabilities, seconds) = result
                job, ended = jobs[number], ended + 1
                gathered[job.name][job.part] = probabilities
                self.seconds[job.name] += seconds
                job.epochs = epochs  # if it diverged, it had fewer
            self.done = before + sum(job.epochs * self.costs[job.name] for job in jobs)
            yield SearchProgress(
                self.done, self.total, f"{what} {len(names)} presets: {ended} of {len(jobs)} trainings"
            )
        if not stop():
            self.known |= gathered
            self.epochs |= dict.fromkeys(names, epochs)

    def _cost(self, names: Iterable[str], epochs: int) -> int:
        """Return what training these candidates in every fold is expected to cost."""
        return len(self.folds.parts) * epochs * sum(self.costs[name] for name in names)

    def _held_out(self, job: _Training, epochs: int, stop: Stop) -> tuple[Floats, float]:
        """Return what a candidate that trains on all but one part predicts of that part, and the time it took."""
        began, samples, part = time.thread_time(), self.candidates[job.name], job.part
        settings = samples.settings.changed(epochs=epochs, held_out=0.0, threads=1)
        training = replace(samples, settings=settings).subset(np.setdiff1d(np.arange(len(samples)), part))
        uniform = np.full((len(part), len(samples.classes)), 1 / len(samples.classes))
        try:
            with _beginning:
                events = fit(training, stop)
            for last in events:  # the last is what came of it
                if isinstance(last, Epoch):
                    job.epochs = max(job.epochs, last.epoch)
        except ClassifierError:  # it diverged before it learned anything
            return uniform, time.thread_time() - began
        assert isinstance(last, FitResult)
        if stop():
            return uniform, 0.0
        found = predicted_probabilities(last.classifier, samples.subset(part), samples.classes)
        return found.astype(np.float64), time.thread_time() - began

    def _found(self, finalists: list[str]) -> SearchResult:
        known = {name: self.known[name] for name in finalists}
        order = ranked(self.truth, known)
        outer, _ = nested_selection(self.truth, self.fold, known)
        behind = ranked(self.truth, {name: p for name, p in self.known.items() if name not in finalists})
        tried = tuple(self._tried(name, name in finalists) for name in [*order, *behind])
        return SearchResult(
            preset=order[0],
            settings=tried[0].settings,
            nested_table=self._table(self.first, outer),
            chosen_table=tried[0].table,
            candidates=tried,
            kept_whole=self.folds.kept_whole,
        )

    def _tried(self, name: str, is_finalist: bool) -> CandidateResult:
        samples = self.candidates[name]
        network = name in self.networks
        return CandidateResult(
            preset=name,
            settings=samples.settings.changed(epochs=self.epochs[name]) if network else samples.settings,
            table=self._table(samples, self.known[name]),
            merit=merit(self.truth, self.known[name]),
            is_finalist=is_finalist,
            seconds=self.seconds[name],
        )

    def _table(self, samples: TrainingData, probabilities: Floats) -> pd.DataFrame:
        return held_out_table(samples, self.fold, probabilities.astype(np.float32))


def subsample_objects(targets: NDArray[np.int64], seed: int, most: int | None = None) -> NDArray[np.int64]:
    """Return which objects presets are tried on: all, or as many of each class as its share allows.

    Parameters
    ----------
    targets : int64 of shape (n,)
        Class ids.
    seed : int
    most : int, optional
        About so many are chosen, `MAX_SEARCH_OBJECTS` by default; at least 20 of each class, if it has them.

    Returns
    -------
    int64 of shape (m,)
        Ascending positions.
    """
    most = MAX_SEARCH_OBJECTS if most is None else most
    if len(targets) <= most:
        return np.arange(len(targets))
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(members)[: max(20, round(most * len(members) / len(targets)))]
        for members in (np.flatnonzero(targets == id) for id in np.unique(targets))
    ]
    return np.sort(np.concatenate(chosen))
