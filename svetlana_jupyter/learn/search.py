"""Finding the recipe: candidates tried by grouped cross-validation, most of them for a few steps, a few to the end.

All candidates hold out the same objects in the same folds. A short training of each tells which few are worth a whole
one; forests, which are quick, are trained whole at once. The best at the end is chosen by `core.choice`, and so is the
score that is reported: that of choosing, not that of the one that was chosen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from svetlana_jupyter.core.choice import merit, nested_selection, ranked
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.crew import Stop, run_in_threads
from svetlana_jupyter.learn.device import choose_device
from svetlana_jupyter.learn.events import Epoch, FitResult
from svetlana_jupyter.learn.fit import fit, never
from svetlana_jupyter.learn.plan import SearchPlan, epoch_seconds, plan
from svetlana_jupyter.learn.samples import TrainingData
from svetlana_jupyter.learn.split import Folds, folds
from svetlana_jupyter.learn.validate import held_out_table, predicted_probabilities

MOST = 1000  # objects that recipes are tried on; more would tell hardly more

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
    recipe : str
    settings : TrainingSettings
        With the epochs that it was trained for.
    table : DataFrame
        What it predicted of objects held out, as `learn.validate.held_out_table` gives it.
    merit : float
        By which it was chosen, or left behind (`core.choice.merit`).
    finalist : bool
        Whether it was trained to the end.
    seconds : float
        Of one core.
    """

    recipe: str
    settings: TrainingSettings
    table: pd.DataFrame
    merit: float
    is_finalist: bool
    seconds: float


@dataclass(frozen=True)
class Found:
    """The end of a search.

    Attributes
    ----------
    recipe : str
    settings : TrainingSettings
        Of the recipe that was chosen, with the epochs it is to be trained for.
    outer : DataFrame
        What was predicted of each fold by the candidate that the others chose.
    own : DataFrame
        What the chosen one predicted; its score is too good.
    tried : tuple of Tried
        The chosen one first, then as they were ranked.
    apart : str
        What was never divided between two folds, as `learn.split.Folds` says it.
    """

    recipe: str
    settings: TrainingSettings
    outer: pd.DataFrame
    own: pd.DataFrame
    tried: tuple[CandidateResult, ...]
    apart: str


def search(
    candidates: Mapping[str, TrainingData], keep_epochs: bool = False, workers: int = 1, stop: Stop = never
) -> Iterator[SearchProgress | Found]:
    """Find the best of several recipes.

    Parameters
    ----------
    candidates : mapping of name to Samples
        The same objects in the same order, each with the settings and inputs of one recipe; of equally good ones the
        first is taken. At least five objects of each class (`learn.validate.reason_for_no_score`).
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
        self.folds: Folds = folds(self.first, settings.folds)
        self.truth = np.searchsorted(self.first.classes, self.first.targets)
        self.fold = np.zeros(len(self.first), np.int64)
        for number, part in enumerate(self.folds.parts, start=1):
            self.fold[part] = number
        self.networks = [name for name, samples in candidates.items() if samples.settings.architecture != "forest"]
        several = [candidates[name].settings for name in self.networks]
        channels = len(self.first.channels)
        self.plan: SearchPlan = plan(several, len(self.first), channels, len(self.folds.parts), keep_epochs)
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
            self.total += self._cost(self.networks, self.plan.first)

    def run(self, workers: int, stop: Stop) -> Iterator[SearchProgress | Found]:
        """Yield progress, and at the end what was found; nothing more once ``stop`` says so."""
        forests = [name for name in self.candidates if name not in self.networks]
        finalists, behind = self.networks, False
        if len(self.networks) > self.plan.finalists:
            yield from self._train([*self.networks, *forests], self.plan.first, "trying", workers, stop)
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
                self.done, self.total, f"{what} {len(names)} recipes: {ended} of {len(jobs)} trainings"
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

    def _found(self, finalists: list[str]) -> Found:
        known = {name: self.known[name] for name in finalists}
        order = ranked(self.truth, known)
        outer, _ = nested_selection(self.truth, self.fold, known)
        behind = ranked(self.truth, {name: p for name, p in self.known.items() if name not in finalists})
        tried = tuple(self._tried(name, name in finalists) for name in [*order, *behind])
        return Found(
            recipe=order[0],
            settings=tried[0].settings,
            outer=self._table(self.first, outer),
            own=tried[0].table,
            tried=tried,
            apart=self.folds.apart,
        )

    def _tried(self, name: str, is_finalist: bool) -> CandidateResult:
        samples = self.candidates[name]
        network = name in self.networks
        return CandidateResult(
            recipe=name,
            settings=samples.settings.changed(epochs=self.epochs[name]) if network else samples.settings,
            table=self._table(samples, self.known[name]),
            merit=merit(self.truth, self.known[name]),
            is_finalist=is_finalist,
            seconds=self.seconds[name],
        )

    def _table(self, samples: TrainingData, probabilities: Floats) -> pd.DataFrame:
        return held_out_table(samples, self.fold, probabilities.astype(np.float32))


def subsample_objects(targets: NDArray[np.int64], seed: int, most: int | None = None) -> NDArray[np.int64]:
    """Return which objects recipes are tried on: all, or as many of each class as its share allows.

    Parameters
    ----------
    targets : int64 of shape (n,)
        Class ids.
    seed : int
    most : int, optional
        About so many are chosen, `MOST` by default; at least 20 of each class, if it has them.

    Returns
    -------
    int64 of shape (m,)
        Ascending positions.
    """
    most = MOST if most is None else most
    if len(targets) <= most:
        return np.arange(len(targets))
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(members)[: max(20, round(most * len(members) / len(targets)))]
        for members in (np.flatnonzero(targets == id) for id in np.unique(targets))
    ]
    return np.sort(np.concatenate(chosen))
