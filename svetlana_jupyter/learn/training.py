"""Training of classifiers, as a generator of events.

The events are immutable objects that describe batches, epochs, notes to the user, and at the end the result.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from svetlana_jupyter.core.settings import FOREST, USER_ARCHITECTURE
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.augmentation import Augmenter, center_crop
from svetlana_jupyter.learn.build import init_network
from svetlana_jupyter.learn.classifier import Classifier, NetworkClassifier
from svetlana_jupyter.learn.dataset import TrainingData, check_several_classes, make_classifier_spec
from svetlana_jupyter.learn.device import (
    autocast_context,
    choose_device,
    compute_dtype,
    is_out_of_memory,
    seeded_computation,
    storage_device,
)
from svetlana_jupyter.learn.forest import ForestClassifier, grow_forest
from svetlana_jupyter.learn.live_classifier import fit_live_classifier
from svetlana_jupyter.learn.networks import MEMORY_FORMATS
from svetlana_jupyter.learn.optim import build_loss, build_optimizer, build_schedule, freeze_body, update_batch_norm
from svetlana_jupyter.learn.sampler import BalancedBatchSampler, resolve_class_weights
from svetlana_jupyter.learn.splits import validation_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

EVALUATION_BATCH = 64
SMALLEST_BATCH = 2  # batch normalization needs two patches
MAX_BATCH_NORM_PATCHES = 256  # training patches for batch normalization statistics; more would not improve them
MAX_EVALUATION_SHARE = 0.1  # fraction of the training time that validation may take
# Maximum number of pixel values augmented at a time. Small batches are augmented together up to this size, because
# augmenting them one by one takes 1.5 times as long.
MAX_AUGMENTED_VALUES = 2**20
DIVERGENCE_FACTOR = 10.0  # training has diverged if the loss exceeds this multiple of the loss of random guessing
# A network has learned nothing if its loss is above this multiple of the loss of random guessing, and its balanced
# accuracy is less than this margin above chance.
GUESSING_LOSS_FACTOR, CHANCE_MARGIN = 0.9, 0.1


@dataclass(frozen=True)
class Batch:
    """Event after one optimizer step; ``epoch`` and ``batch`` count from 1."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float


@dataclass(frozen=True)
class Epoch:
    """Event after one epoch; ``score`` is the validation balanced accuracy or None."""

    epoch: int
    epochs: int
    loss: float
    score: float | None
    seconds: float


@dataclass(frozen=True)
class TrainingNote:
    """Message to the user about a training run, such as a retry after memory ran out."""

    text: str


@dataclass(frozen=True)
class FitResult:
    """Result of a complete or stopped training.

    Parameters
    ----------
    classifier : Classifier
    history : tuple of Epoch
    score : float or None
        Balanced accuracy on the validation objects; None if there are no validation objects.
    n : int
        Number of training objects.
    stopped : bool
        True if training was stopped before its last epoch.
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
    """Checkpoint of the best epoch by validation score, or else by training loss.

    Attributes
    ----------
    epoch : int
        Number of the best epoch (the last of equally good epochs); 0 before the first epoch.
    last_improvement : int
        Number of the last epoch that was better than all earlier epochs.
    score : float or None
        Validation score of the best epoch; None without validation.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._rank = (False, -math.inf)
        self._state: dict[str, Tensor] = {}
        self.epoch, self.last_improvement = 0, 0
        self.score: float | None = None

    def update(self, epoch: int, loss: float, score: float | None) -> None:
        """Store the current weights if they are at least as good as the best so far.

        An epoch with a validation score ranks above any epoch with only a loss.
        """
        rank = (score is not None, -loss if score is None else score)
        if rank > self._rank:
            self.last_improvement = epoch
        if rank >= self._rank:
            self._rank, self.epoch, self.score = rank, epoch, score
            self._state = copy.deepcopy(self._network.state_dict())

    def restore(self) -> None:
        """Load the best weights into the network."""
        self._network.load_state_dict(self._state)


def has_finite_weights(network: nn.Module) -> bool:
    """Check whether all weights are finite."""
    return all(bool(torch.isfinite(weights).all()) for weights in network.parameters())


def never_stop() -> bool:
    """Return False, so that training is not stopped; the default of ``stop``."""
    return False


def fit(
    samples: TrainingData, stop: Callable[[], bool] = never_stop, network: nn.Module | None = None
) -> Iterator[Event]:
    """Train the classifier that the settings describe.

    Parameters
    ----------
    samples : TrainingData
        Samples and settings from `learn.dataset.collect_for_each`.
    stop : callable
        Called before every batch; once it returns True, training ends with the best classifier so far. Closing the
        generator ends training without a result.
    network : Module, optional
        The user's own module, which replaces the architecture of the settings. It maps patches (n, channels, [z,] y, x)
        to logits (n, classes). A copy of it is trained.

    Returns
    -------
    iterator of Batch, Epoch, TrainingNote and, last, FitResult
        The same samples, settings, seed and number of torch threads on the same machine give the same weights. If
        memory runs out, training is restarted once with half the batch size. If training diverges, it ends with the
        best weights so far.

    Raises
    ------
    InputError
        Before training: if fewer than two classes have samples, if the network cannot be built, or if the initial
        weights do not fit the network.
    SettingsError
        Before training: if a setting does not fit the samples.
    ClassifierError
        During training: if it diverges before the network has learned anything, or if memory runs out twice.
    """
    if network is not None:
        samples = replace(samples, network=network)
    if samples.network is not None:
        samples = replace(samples, settings=samples.settings.changed(architecture=USER_ARCHITECTURE))
    check_several_classes(samples.targets)
    resolve_class_weights(samples.targets, samples.settings, samples.names)
    if samples.settings.architecture == FOREST:
        return _fit_forest(samples, stop)
    if not samples.settings.has_network:
        return _fit_live_classifier(samples)
    return _fit_network(samples, _NetworkTraining(samples), stop)


def _fit_forest(samples: TrainingData, stop: Callable[[], bool]) -> Iterator[Event]:
    started, trees = time.monotonic(), samples.settings.trees
    for forest in grow_forest(samples, stop):
        if isinstance(forest, int):
            yield Batch(1, 1, forest, trees, 0.0)
    assert isinstance(forest, ForestClassifier)
    epoch = Epoch(1, 1, 0.0, None, time.monotonic() - started)
    yield epoch
    yield FitResult(forest, (epoch,), None, len(samples), stopped=len(forest.trees.roots) < trees)


def _fit_live_classifier(samples: TrainingData) -> Iterator[Event]:
    started = time.monotonic()
    classifier = fit_live_classifier(samples)
    epoch = Epoch(1, 1, 0.0, None, time.monotonic() - started)
    yield epoch
    yield FitResult(classifier, (epoch,), None, len(samples), stopped=False)


def _fit_network(samples: TrainingData, training: _NetworkTraining, stop: Callable[[], bool]) -> Iterator[Event]:
    """Train a network; if memory runs out, restart once with half the batch size."""
    size = samples.settings.batch_size
    try:
        yield from training.run(stop)
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        first_error = error.with_traceback(None)  # a traceback would keep the tensors in memory
    del training
    advice = 'Give patches a smaller sampling, choose a smaller network, or train with device="cpu".'
    if size <= SMALLEST_BATCH:
        raise ClassifierError(f"Memory ran out with batches of {size} patches: {first_error}. {advice}")
    half = max(SMALLEST_BATCH, size // 2)
    note = f"Memory ran out with batches of {size} patches; training started again with batches of {half}."
    try:
        smaller = replace(samples, settings=samples.settings.changed(batch_size=half))
        yield from _NetworkTraining(smaller, (note,)).run(stop)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ClassifierError(
            f"Memory ran out with batches of {size} patches, and again with {half}: {first_error}. {advice}"
        ) from error


class _NetworkTraining:
    """Training of one network: the shared state and the steps."""

    def __init__(self, samples: TrainingData, notes: tuple[str, ...] = ()) -> None:
        settings = samples.settings
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.samples, self.settings, self.shape = samples, settings, settings.patches.shape
        self.device = choose_device(settings.device, samples.ndim)
        inputs = torch.from_numpy(samples.inputs)
        self.patches = inputs.to(storage_device(self.device, samples.inputs.nbytes))
        self.targets = torch.from_numpy(np.searchsorted(samples.classes, samples.targets))
        validation = validation_mask(samples)
        self.training, self.testing = np.flatnonzero(~validation), np.flatnonzero(validation)
        self.sampler = BalancedBatchSampler(samples.targets[self.training], settings, samples.names)
        self.generator = torch.Generator().manual_seed(settings.seed)
        cropped = center_crop(inputs[self.training], self.shape)
        self.network, weight_notes = init_network(samples, cropped, self.sampler.smallest_batch)
        self.network.to(self.device)
        self.notes = [*notes, *weight_notes]
        self.loss = build_loss(settings)
        if settings.body == "frozen":
            freeze_body(self.network)
        self.optimizer = build_optimizer(self.network, settings)
        self.schedule = build_schedule(self.optimizer, settings, self.sampler.steps)
        self.dtype = compute_dtype(settings.precision, self.device)
        # Small gradients underflow to zero in float16 unless they are scaled up.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        standardize = self.network.standardize
        self.augment = Augmenter(settings, standardize.mean, standardize.deviation)
        # The next two attributes refer to the current weights.
        self.batch_norm_is_current = False
        self.score: float | None = None
        if settings.body == "frozen":
            self._update_batch_norm()

    def run(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """Yield batches and epochs until training ends or is stopped, then the result."""
        settings, history, best = self.settings, list[Epoch](), BestWeights(self.network)
        yield from map(TrainingNote, self.notes)
        max_loss, bad_epochs, end_reason = math.inf, 0, "stopped" if stop() else ""
        while not end_reason and len(history) < settings.epochs:
            started, epoch, losses = time.monotonic(), len(history) + 1, list[float]()
            for batch, (chosen, patches) in enumerate(self._augmented_batches(self.sampler.epoch()), start=1):
                losses.append(self._step(chosen, patches))
                if not math.isfinite(losses[-1]):
                    break
                yield Batch(epoch, settings.epochs, batch, self.sampler.steps, losses[-1])
                if stop():
                    end_reason = "stopped"
                    break
            loss = math.fsum(losses) / len(losses)
            if not (math.isfinite(loss) and has_finite_weights(self.network)):
                end_reason = "diverged"
                break
            max_loss = min(max_loss, DIVERGENCE_FACTOR * max(losses[0], self._guessing_loss()))
            bad_epochs = bad_epochs + 1 if loss > max_loss else 0
            if self._is_validation_due(epoch) and not (end_reason and history):
                self._evaluate()
            history.append(Epoch(epoch, settings.epochs, loss, self.score, time.monotonic() - started))
            yield history[-1]
            if not bad_epochs:
                best.update(epoch, loss, self.score)
            if end_reason:
                break
            if bad_epochs == 2 or (bad_epochs and epoch == settings.epochs):  # one bad epoch may be temporary
                end_reason = "diverged"
            elif settings.patience and epoch - best.last_improvement >= settings.patience:
                end_reason = "patience"
        yield from self._finish(end_reason, history, best)

    def _finish(self, end_reason: str, history: list[Epoch], best: BestWeights) -> Iterator[Event]:
        """Yield a note if training did not end as planned, and the result."""
        note = self._end_note(end_reason, history, best)
        if note:
            self.notes.append(note)
            yield TrainingNote(note)
        # After a stop without a score, the last weights are kept, because they were trained longest.
        if end_reason and (best.score is not None or (end_reason != "stopped" and history)):
            best.restore()
            self.batch_norm_is_current, self.score = best.score is not None, best.score
        self._evaluate()
        entries = tuple({"epoch": e.epoch, "loss": e.loss, "score": e.score} for e in history)
        classifier = NetworkClassifier(make_classifier_spec(self.samples, entries), self.network)
        stopped, n = end_reason == "stopped", len(self.training)
        yield FitResult(classifier, tuple(history), self.score, n, stopped, tuple(self.notes))

    def _end_note(self, end_reason: str, history: list[Epoch], best: BestWeights) -> str:
        """Return a note if training ended early or learned nothing, "" otherwise.

        Raise a `ClassifierError` if training diverged before the network learned anything.
        """
        settings, done = self.settings, len(history)
        if end_reason == "patience":
            return (
                f"No improvement for {settings.patience} epochs: training ended after {done} of {settings.epochs} "
                f"epochs with the network of epoch {best.epoch}."
            )
        if not end_reason and self._is_guessing(history[-1].loss):
            return (
                "Nothing was learned: the network does no better than chance even on its training objects. "
                "Allow more cues (may_use) if the allowed cues do not distinguish the classes. Otherwise set a "
                f"learning_rate other than {settings.learning_rate:g}, usually lower, or more epochs than "
                f"{settings.epochs}."
            )
        if end_reason != "diverged":
            return ""
        advice = f"Set a learning_rate below {settings.learning_rate:g}, or normalize the patches."
        problem = f"Training diverged after {done} epochs: the loss is not finite or far above that of random guessing."
        if not best.epoch:
            raise ClassifierError(f"{problem} {advice}")
        return f"{problem} The network of epoch {best.epoch} is kept. {advice}"

    def _augmented_batches(self, batches: list[NDArray[np.int64]]) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield samples and patches of each batch; augment small batches together."""
        together = max(1, MAX_AUGMENTED_VALUES // (self.settings.batch_size * self.patches[0].numel()))
        if self.augment.pipeline is not None:
            together = 1  # a pipeline works patch by patch, and a stop would have to wait for all these batches
        for first in range(0, len(batches), together):
            some = [self.training[chosen] for chosen in batches[first : first + together]]
            patches = self._to_device(self.augment(self._select(np.concatenate(some)), self.generator))
            yield from zip(some, torch.split(patches, [len(chosen) for chosen in some]), strict=True)

    def _step(self, chosen: NDArray[np.int64], patches: Tensor) -> float:
        """Run one step of the optimizer on augmented patches; return the loss."""
        self.batch_norm_is_current, self.score = False, None
        if not self.network.training:
            self.network.train()
        if self.settings.body == "frozen":
            self.network.eval()
            self.network.last_layer.train()
        seed = int(torch.randint(2**31, (), generator=self.generator))
        with seeded_computation(self.device, seed if self.network.is_stochastic else None):
            with autocast_context(self.device, self.dtype):
                logits = self.network(patches)
            loss = self.loss(logits, self.targets[chosen].to(self.device))
            self.network.zero_grad()
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        return loss.item()

    def _guessing_loss(self) -> float:
        """Return the loss of random guessing: equal probabilities for all classes."""
        return self.loss(torch.zeros(1, len(self.samples.classes)), torch.zeros(1, dtype=torch.int64)).item()

    def _is_guessing(self, loss: float) -> bool:
        """Check whether the network does no better than chance on training objects."""
        if loss < GUESSING_LOSS_FACTOR * self._guessing_loss():
            return False
        self._update_batch_norm()
        return self._balanced_accuracy(self._training_subset()) < 1 / len(self.samples.classes) + CHANCE_MARGIN

    def _is_validation_due(self, epoch: int) -> bool:
        """Check whether to compute the validation score after this epoch.

        The score is computed after the last epoch, and at intervals that limit the time for validation.
        """
        if not len(self.testing):
            return False
        forward = min(len(self.training), MAX_BATCH_NORM_PATCHES) + len(self.testing)
        step = 3 * self.sampler.steps * self.settings.batch_size  # backward costs about twice as much as forward
        interval = math.ceil(forward / (MAX_EVALUATION_SHARE * step))
        return epoch % interval == 0 or epoch == self.settings.epochs

    def _evaluate(self) -> None:
        """Update batch normalization and, if there are validation objects, the score."""
        self._update_batch_norm()
        if self.score is None and len(self.testing):
            self.score = self._balanced_accuracy(self.testing)

    def _update_batch_norm(self) -> None:
        if not self.batch_norm_is_current:
            update_batch_norm(self.network, self._center_patches(self._training_subset()))
            self.batch_norm_is_current = True

    def _training_subset(self) -> NDArray[np.int64]:
        """Return up to `MAX_BATCH_NORM_PATCHES` evenly spaced training samples."""
        count = min(len(self.training), MAX_BATCH_NORM_PATCHES)
        chosen: NDArray[np.int64] = self.training[np.linspace(0, len(self.training) - 1, count).round().astype(int)]
        return chosen

    @torch.inference_mode()
    def _balanced_accuracy(self, chosen: NDArray[np.int64]) -> float:
        self.network.eval()
        predicted = torch.cat([self.network(patches).argmax(1).cpu() for patches in self._center_patches(chosen)])
        truth, right = self.targets[chosen].numpy(), (predicted == self.targets[chosen]).numpy()
        return float(np.mean([right[truth == position].mean() for position in np.unique(truth)]))

    def _center_patches(self, chosen: NDArray[np.int64]) -> Iterator[Tensor]:
        """Yield batches of patches without margin and augmentation."""
        size = min(EVALUATION_BATCH, 4 * self.settings.batch_size)  # smaller after a restart with smaller batches
        for batch in np.array_split(chosen, math.ceil(len(chosen) / size)):
            yield self._to_device(center_crop(self._select(batch), self.shape))

    def _select(self, chosen: NDArray[np.int64]) -> Tensor:
        return self.patches.index_select(0, torch.from_numpy(chosen).to(self.patches.device))

    def _to_device(self, patches: Tensor) -> Tensor:
        return patches.to(self.device, memory_format=MEMORY_FORMATS[self.samples.ndim])
