"""Training as a generator of frozen events: batches, epochs, and at the end the classifier.

What a training reports while it runs; each event is frozen.

The best state that a network was in while it trained.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from svetlana_jupyter.core.settings import USER_ARCHITECTURE
from svetlana_jupyter.errors import ClassifierError, InputError
from svetlana_jupyter.learn.augmentation import Augmenter, center_crop
from svetlana_jupyter.learn.build import init_network
from svetlana_jupyter.learn.classifier import Classifier, NetworkClassifier
from svetlana_jupyter.learn.dataset import TrainingData, make_classifier_spec
from svetlana_jupyter.learn.device import (
    autocast_context,
    choose_device,
    is_out_of_memory,
    limit_threads,
    mixed_precision,
    seeded_computation,
    storage_device,
)
from svetlana_jupyter.learn.forest import fit_forest
from svetlana_jupyter.learn.networks import MEMORY_FORMATS
from svetlana_jupyter.learn.optim import build_loss, build_optimizer, build_schedule, freeze_body, update_batch_norm
from svetlana_jupyter.learn.sampler import BalancedBatchSampler, resolve_class_weights
from svetlana_jupyter.learn.splits import validation_mask


@dataclass(frozen=True)
class Batch:
    """One step of the optimiser; ``epoch`` and ``batch`` count from 1."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float


@dataclass(frozen=True)
class Epoch:
    """One epoch; ``score`` is the balanced accuracy on what is held out, None where nothing is."""

    epoch: int
    epochs: int
    loss: float
    score: float | None
    seconds: float


@dataclass(frozen=True)
class TrainingNote:
    """Something the user should know, in a sentence; the training goes on, or ends with what it has."""

    text: str


@dataclass(frozen=True)
class FitResult:
    """The end of a training, or what there was when it was stopped.

    Parameters
    ----------
    classifier : Classifier
    history : tuple of Epoch
    score : float or None
        Balanced accuracy on the objects held out; None where all trained.
    n : int
        Number of objects trained on.
    stopped : bool
        Whether it was stopped before its last epoch.
    notes : tuple of str
        The texts of all notes.
    """

    classifier: Classifier
    history: tuple[Epoch, ...]
    score: float | None
    n: int
    stopped: bool
    notes: tuple[str, ...] = ()


Event = Batch | Epoch | TrainingNote | FitResult


class BestWeights:
    """Keeps the weights of the best epoch: by the score on what is held out where it is known, else by the loss.

    Attributes
    ----------
    epoch : int
        The best one, the later of equals; 0 before any.
    improved : int
        The last that was truly better than all before.
    score : float or None
        Of the best.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._rank: tuple[bool, float] | None = None
        self._state: dict[str, Tensor] = {}
        self.epoch, self.last_improvement = 0, 0
        self.score: float | None = None

    def update(self, epoch: int, loss: float, score: float | None) -> None:
        """Keep the weights as they are now if they are as good as the best; a score beats any loss."""
        rank = (score is not None, -loss if score is None else score)
        if self._rank is None or rank > self._rank:
            self.last_improvement = epoch
        if self._rank is None or rank >= self._rank:
            self._rank, self.epoch, self.score = rank, epoch, score
            self._state = copy.deepcopy(self._network.state_dict())

    def restore(self) -> None:
        """Give the network the best weights again."""
        self._network.load_state_dict(self._state)


def has_finite_weights(network: nn.Module) -> bool:
    """Tell whether every weight is a number."""
    return all(bool(torch.isfinite(weights).all()) for weights in network.parameters())


EVALUATION_BATCH = 64
MAX_BATCH_NORM_PATCHES = 256  # training patches that averages are taken from: more would change nothing but the time
MAX_EVALUATION_SHARE = 0.1  # share of the time that scoring what is held out may take
MAX_AUGMENTED_VALUES = (
    2**20
)  # numbers varied at once, in as many small batches: one at a time they take half as long again
DIVERGENCE_FACTOR = 10.0  # times the loss of guessing: what is worse has left the ground
GUESSING_LOSS_FACTOR, CHANCE_MARGIN = (
    0.9,
    0.1,
)  # times the loss of guessing, and above its accuracy: what is no better has learned nothing


def never_stop() -> bool:
    """Never stop."""
    return False


def fit(
    samples: TrainingData, stop: Callable[[], bool] = never_stop, network: nn.Module | None = None
) -> Iterator[Event]:
    """Train the classifier that the samples' settings describe.

    Parameters
    ----------
    samples : Samples
        From `learn.dataset.collect_training_data`, which also holds the settings.
    stop : callable
        Asked before every batch; once it returns True, training ends with the best classifier so far. Closing the
        generator ends it without one.
    network : Module, optional
        One of the user's own instead of the architecture of the settings: logits (n, classes) of patches
        (n, channels, [z,] y, x). A copy is trained.

    Returns
    -------
    iterator of Batch, Epoch, Note and, last, Fitted
        The same samples, settings, seed and torch threads on the same machine give the same weights. Where memory runs
        out, training begins again with half the batch size, once. Where it diverges, it ends with the best so far.

    Raises
    ------
    InputError
        At once, if fewer than two classes have samples, or the network cannot be built, or not begin with the weights
        that the settings name.
    SettingsError
        At once, if a setting does not fit the samples.
    ClassifierError
        While training, if it diverged before anything was learned, or memory ran out again.
    """
    if network is not None:
        samples = replace(samples, initial=replace(samples.initial, network=network))
    if samples.initial.network is not None:
        samples = replace(samples, settings=samples.settings.changed(architecture=USER_ARCHITECTURE))
    if len(samples.classes) < 2:
        raise InputError(
            "training needs objects of at least 2 classes, but only one class has any. Annotate another class."
        )
    resolve_class_weights(samples.targets, samples.settings, samples.names)
    if samples.settings.architecture == "forest":
        return _fit_forest(samples, stop)
    return _fit_network(samples, _NetworkTraining(samples), stop)


def _fit_forest(samples: TrainingData, stop: Callable[[], bool]) -> Iterator[Event]:
    began = time.monotonic()
    forest = fit_forest(samples, stop)
    epoch = Epoch(1, 1, 0.0, None, time.monotonic() - began)
    yield epoch
    yield FitResult(forest, (epoch,), None, len(samples), stopped=len(forest.trees.roots) < samples.settings.trees)


def _fit_network(samples: TrainingData, training: _NetworkTraining, stop: Callable[[], bool]) -> Iterator[Event]:
    """Train, and where memory runs out begin again with half the batch size, once."""
    size = samples.settings.batch_size
    try:
        yield from training.run(stop)
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        trouble = error.with_traceback(None)  # which would keep alive what filled the memory
    del training
    half = max(2, size // 2)
    note = f"Memory ran out with batches of {size} patches; training began again with batches of {half}."
    try:
        smaller = replace(samples, settings=samples.settings.changed(batch_size=half))
        yield from _NetworkTraining(smaller, (note,)).run(stop)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ClassifierError(
            f"memory ran out with batches of {size} patches, and again with {half}: {trouble}. Give patches a smaller "
            'sampling, take a smaller network, or train with device="cpu".'
        ) from error


class _NetworkTraining:
    """One training of a network: what its steps share, and the steps."""

    def __init__(self, samples: TrainingData, notes: tuple[str, ...] = ()) -> None:
        settings = samples.settings
        if settings.threads:
            limit_threads(settings.threads)
        assert isinstance(settings.patches.sampling, tuple)
        self.samples, self.settings = samples, settings
        self.shape: tuple[int, ...] = settings.patches.sampling
        self.device = choose_device(settings.device, samples.ndim)
        inputs = torch.from_numpy(samples.inputs)
        self.patches = inputs.to(storage_device(self.device, samples.inputs.nbytes))
        self.targets = torch.from_numpy(np.searchsorted(samples.classes, samples.targets))
        out = validation_mask(samples)
        self.training, self.testing = np.flatnonzero(~out), np.flatnonzero(out)
        self.sampler = BalancedBatchSampler(samples.targets[self.training], settings, samples.names)
        self.generator = torch.Generator().manual_seed(settings.seed)
        seen = center_crop(inputs[self.training], self.shape)
        self.network, told = init_network(samples, seen, self.sampler.smallest_batch)
        self.network.to(self.device)
        self.notes = [*notes, *told]
        self.loss = build_loss(settings)
        if settings.body == "frozen":
            freeze_body(self.network)
        self.optimizer = build_optimizer(self.network, settings)
        self.schedule = build_schedule(self.optimizer, settings, self.sampler.steps)
        self.mixed = mixed_precision(settings.precision, self.device)
        # Gradients of 16 bits with a short exponent vanish unless they are scaled up.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.mixed is torch.float16)
        standardize = self.network.standardize
        self.augment = Augmenter(settings, standardize.mean, standardize.deviation)
        # Of these weights: whether the averages are theirs, and their score.
        self.batch_norm_is_current = False
        self.score: float | None = None
        if settings.body == "frozen":
            self._settle()

    def run(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """Yield batches and epochs until the last, or until ``stop`` says so, then what came of it."""
        settings, history, best = self.settings, list[Epoch](), BestWeights(self.network)
        yield from map(TrainingNote, self.notes)
        worst, astray, ended = math.inf, 0, "stopped" if stop() else ""
        while not ended and len(history) < settings.epochs:
            began, epoch, losses = time.monotonic(), len(history) + 1, list[float]()
            for batch, (chosen, patches) in enumerate(self._varied(self.sampler.epoch()), start=1):
                losses.append(self._step(chosen, patches))
                if not math.isfinite(losses[-1]):
                    break
                yield Batch(epoch, settings.epochs, batch, self.sampler.steps, losses[-1])
                if stop():
                    ended = "stopped"
                    break
            loss = math.fsum(losses) / len(losses)
            if not (math.isfinite(loss) and has_finite_weights(self.network)):
                ended = "diverged"
                break
            worst = min(worst, DIVERGENCE_FACTOR * max(losses[0], self._loss_of_guessing()))
            astray = astray + 1 if loss > worst else 0
            if self._is_due(epoch) and not (ended and history):
                self._measure()
            history.append(Epoch(epoch, settings.epochs, loss, self.score, time.monotonic() - began))
            yield history[-1]
            if not astray:
                best.update(epoch, loss, self.score)
            if ended:
                break
            if astray == 2 or (astray and epoch == settings.epochs):  # one epoch alone may come back
                ended = "diverged"
            elif settings.patience and epoch - best.last_improvement >= settings.patience:
                ended = "patience"
        yield from self._end(ended, history, best)

    def _end(self, ended: str, history: list[Epoch], best: BestWeights) -> Iterator[Event]:
        """Say how training ended, where that was not as planned, and yield the classifier."""
        note = self._how_it_ended(ended, history, best)
        if note:
            self.notes.append(note)
            yield TrainingNote(note)
        # Stopped without a score, what was learned last is what was learned most.
        if ended and (best.score is not None or (ended != "stopped" and history)):
            best.restore()
            self.batch_norm_is_current, self.score = best.score is not None, best.score
        self._measure()
        yield FitResult(
            classifier=self._classifier(history),
            history=tuple(history),
            score=self.score,
            n=len(self.training),
            stopped=ended == "stopped",
            notes=tuple(self.notes),
        )

    def _how_it_ended(self, ended: str, history: list[Epoch], best: BestWeights) -> str:
        """Return a sentence, "" where it was as planned; an error where it diverged before anything was learned."""
        settings, done = self.settings, len(history)
        if ended == "patience":
            return (
                f"Nothing improved for {settings.patience} epochs: ended after {done} of {settings.epochs} with the "
                f"network of epoch {best.epoch}."
            )
        if not ended and self._is_guessing(history[-1].loss):
            return (
                "Nothing was learned: even of the objects it trained on, the network tells no more than by guessing. "
                "Either nothing that may count tells the classes apart, or it needs another learning_rate than "
                f"{settings.learning_rate:g}, mostly a lower one, or more epochs than {settings.epochs}."
            )
        if ended != "diverged":
            return ""
        advice = f"Give a learning_rate below {settings.learning_rate:g}, or normalise the patches."
        what = f"training diverged after {done} epochs: its loss is far above that of guessing, or no number."
        if not best.epoch:
            raise ClassifierError(f"{what} {advice}")
        return f"{what.capitalize()} The network of epoch {best.epoch} is kept. {advice}"

    def _varied(self, batches: list[NDArray[np.int64]]) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield the samples of each batch and their patches, varied: those of several small batches at once."""
        together = max(1, MAX_AUGMENTED_VALUES // (self.settings.batch_size * self.patches[0].numel()))
        if self.augment.pipeline is not None:
            together = 1  # it goes patch by patch, so that a stop would wait for all
        for first in range(0, len(batches), together):
            some = [self.training[chosen] for chosen in batches[first : first + together]]
            patches = self._on_device(self.augment(self._some(np.concatenate(some)), self.generator))
            yield from zip(some, torch.split(patches, [len(chosen) for chosen in some]), strict=True)

    def _step(self, chosen: NDArray[np.int64], patches: Tensor) -> float:
        """Take one step of the optimiser on varied patches of these samples and return the loss."""
        self.batch_norm_is_current, self.score = False, None
        if not self.network.training:
            self.network.train()
        if self.settings.body == "frozen":
            self.network.eval()
            self.network.last_layer.train()
        seed = int(torch.randint(2**31, (), generator=self.generator))
        with seeded_computation(self.device, seed if self.network.is_stochastic else None):
            with autocast_context(self.device, self.mixed):
                logits = self.network(patches)
            loss = self.loss(logits, self.targets[chosen].to(self.device))
            self.network.zero_grad()
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        return loss.item()

    def _loss_of_guessing(self) -> float:
        """Return the loss of giving every class the same probability."""
        return self.loss(torch.zeros(1, len(self.samples.classes)), torch.zeros(1, dtype=torch.int64)).item()

    def _is_guessing(self, loss: float) -> bool:
        """Tell whether the network knows the classes no better than by guessing, of what it learned from."""
        if loss < GUESSING_LOSS_FACTOR * self._loss_of_guessing():
            return False
        self._settle()
        return self._balanced_accuracy(self._some_seen()) < 1 / len(self.samples.classes) + CHANCE_MARGIN

    def _is_due(self, epoch: int) -> bool:
        """Tell whether to score this epoch: never so often that it takes much of the time, and the last one."""
        if not len(self.testing):
            return False
        forward = min(len(self.training), MAX_BATCH_NORM_PATCHES) + len(self.testing)
        step = 3 * self.sampler.steps * self.settings.batch_size  # backward costs about twice as much as forward
        every = math.ceil(forward / (MAX_EVALUATION_SHARE * step))
        return epoch % every == 0 or epoch == self.settings.epochs

    def _measure(self) -> None:
        """Bring averages, and the score where something is held out, up to the weights as they are."""
        self._settle()
        if self.score is None and len(self.testing):
            self.score = self._balanced_accuracy(self.testing)

    def _settle(self) -> None:
        """Recompute the running averages of batch normalisation, which lag behind after a few steps."""
        if not self.batch_norm_is_current:
            update_batch_norm(self.network, (self._plain(part) for part in self._in_batches(self._some_seen())))
            self.batch_norm_is_current = True

    def _some_seen(self) -> NDArray[np.int64]:
        """Return some of the samples that it learns from, spread evenly."""
        places = (
            np.linspace(0, len(self.training) - 1, min(len(self.training), MAX_BATCH_NORM_PATCHES)).round().astype(int)
        )
        chosen: NDArray[np.int64] = self.training[places]
        return chosen

    @torch.inference_mode()
    def _balanced_accuracy(self, chosen: NDArray[np.int64]) -> float:
        """Return the mean over classes of the share of these samples that is right."""
        self.network.eval()
        guesses = torch.cat([self.network(self._plain(part)).argmax(1).cpu() for part in self._in_batches(chosen)])
        truth, right = self.targets[chosen].numpy(), (guesses == self.targets[chosen]).numpy()
        return float(np.mean([right[truth == position].mean() for position in np.unique(truth)]))

    def _in_batches(self, chosen: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        size = min(EVALUATION_BATCH, 4 * self.settings.batch_size)  # smaller where memory is short
        return np.array_split(chosen, math.ceil(len(chosen) / size))

    def _plain(self, chosen: NDArray[np.int64]) -> Tensor:
        return self._on_device(center_crop(self._some(chosen), self.shape))

    def _some(self, chosen: NDArray[np.int64]) -> Tensor:
        return self.patches.index_select(0, torch.from_numpy(chosen).to(self.patches.device))

    def _on_device(self, patches: Tensor) -> Tensor:
        return patches.to(self.device, memory_format=MEMORY_FORMATS[self.samples.ndim])

    def _classifier(self, history: list[Epoch]) -> NetworkClassifier:
        entries = tuple({"epoch": e.epoch, "loss": e.loss, "score": e.score} for e in history)
        return NetworkClassifier(make_classifier_spec(self.samples, entries), self.network)
