"""Training as a generator of frozen events: batches, epochs, and at the end the classifier."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, StepLR
from torch.optim.swa_utils import update_bn

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ClassifierError, InputError, SettingsError
from svetlana_jupyter.learn.architectures import LAYOUTS, SmallCNN, build_network
from svetlana_jupyter.learn.augment import Augmenter, center_crop
from svetlana_jupyter.learn.draws import Draws
from svetlana_jupyter.learn.events import Batch, Epoch, Event, Fitted
from svetlana_jupyter.learn.forest import fit_forest
from svetlana_jupyter.learn.network import Network, choose_device, limit_threads
from svetlana_jupyter.learn.samples import Samples, specify
from svetlana_jupyter.learn.split import held_out

EVALUATION_BATCH = 64


def never() -> bool:
    """Never stop."""
    return False


def fit(samples: Samples, stop: Callable[[], bool] = never) -> Iterator[Event]:
    """Train the classifier that the samples' settings describe.

    Parameters
    ----------
    samples : Samples
        From `learn.samples.gather_samples`, which also holds the settings.
    stop : callable
        Asked before every batch; once it returns True, training ends with the best classifier so far. Closing the
        generator ends it without one.

    Returns
    -------
    iterator of Batch, Epoch and, last, Fitted
        The same samples, settings, seed and torch threads on the same machine give the same weights.

    Raises
    ------
    InputError
        At once, if fewer than two classes have samples.
    SettingsError
        At once, if a class weight names no class, or the augmentation pipeline cannot be built.
    ClassifierError
        While training, if the loss is no longer a number.
    """
    if len(samples.classes) < 2:
        raise InputError(
            "training needs objects of at least 2 classes, but only one class has any. Annotate another class."
        )
    settings = samples.settings
    if isinstance(settings.class_weights, dict):
        unknown = sorted(set(settings.class_weights) - set(samples.classes))
        if unknown:
            raise SettingsError(
                f"class_weights names the class id {unknown[0]}, but the classes are {samples.classes}."
            )
    if settings.architecture == "forest":
        return _fit_forest(samples)
    return _Training(samples).run(stop)


def _fit_forest(samples: Samples) -> Iterator[Event]:
    began = time.monotonic()
    forest = fit_forest(samples)
    epoch = Epoch(1, 1, 0.0, None, time.monotonic() - began)
    yield epoch
    yield Fitted(forest, (epoch,), None, len(samples), stopped=False)


class _Training:
    """One training of a network: what its steps share, and the steps."""

    def __init__(self, samples: Samples) -> None:
        settings = samples.settings
        if settings.threads:
            limit_threads(settings.threads)
        assert isinstance(settings.patches.sampling, tuple)
        self.samples, self.settings = samples, settings
        self.shape: tuple[int, ...] = settings.patches.sampling
        self.device = choose_device(settings.device)
        self.patches = torch.from_numpy(samples.inputs)
        targets = np.searchsorted(samples.classes, samples.targets)
        self.targets = torch.from_numpy(targets)
        out = held_out(samples)
        self.training, self.testing = np.flatnonzero(~out), np.flatnonzero(out)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.network = self._build()
        self.draws = Draws(targets[self.training], samples.classes, settings)
        self.optimizer, self.schedule = _optimizer(self.network, settings, self.draws.steps)
        standardize = self.network.standardize
        self.augment = Augmenter(settings, standardize.mean, standardize.deviation)

    def run(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """Yield batches and epochs until the last, or until ``stop`` says so, then what came of it."""
        settings, history = self.settings, list[Epoch]()
        best: tuple[float, dict[str, Tensor]] | None = None
        stopped = stop()
        while not stopped and len(history) < settings.epochs:
            began, epoch, losses = time.monotonic(), len(history) + 1, list[float]()
            for batch, chosen in enumerate(self.draws.epoch(), start=1):
                losses.append(self._step(self.training[chosen]))
                if not math.isfinite(losses[-1]):
                    raise ClassifierError(
                        f"training diverged: the loss is no longer a number in epoch {epoch}. "
                        f"Give a learning_rate below {settings.learning_rate:g}, or normalise the patches."
                    )
                yield Batch(epoch, settings.epochs, batch, self.draws.steps, losses[-1])
                stopped = stop()
                if stopped:
                    break
            score = None
            if len(self.testing) and not (stopped and history):
                self._settle()
                score = self._score()
                if best is None or score >= best[0]:
                    best = score, copy.deepcopy(self.network.state_dict())
            history.append(
                Epoch(epoch, settings.epochs, math.fsum(losses) / len(losses), score, time.monotonic() - began)
            )
            yield history[-1]
        if stopped and best is not None:
            self.network.load_state_dict(best[1])
        else:
            self._settle()
        score = (best[0] if stopped and best else self._score()) if len(self.testing) else None
        yield Fitted(self._classifier(history), tuple(history), score, len(self.training), stopped)

    def _build(self) -> SmallCNN:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            network = build_network(self.settings, self.samples.ndim, self.patches.shape[1], len(self.samples.classes))
        network.standardize.measure(center_crop(self.patches[self.training], self.shape))
        return network.to(self.device)

    def _step(self, chosen: NDArray[np.int64]) -> float:
        """Take one step of the optimiser on these samples and return the loss."""
        self.network.train()
        patches = self.augment(self.patches[chosen], self.generator)
        logits = self.network(self._on_device(patches))
        loss = _loss(logits, self.targets[chosen].to(self.device), self.settings.loss)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def _settle(self) -> None:
        """Recompute the running averages of batch normalisation, which lag behind after a few steps."""
        update_bn((self._plain(some) for some in _in_batches(self.training)), self.network)

    @torch.inference_mode()
    def _score(self) -> float:
        """Return the balanced accuracy on what is held out."""
        self.network.eval()
        guesses = torch.cat([self.network(self._plain(some)).argmax(1).cpu() for some in _in_batches(self.testing)])
        truth = self.targets[self.testing]
        return float(
            np.mean(
                [
                    (guesses[truth == k] == k).float().mean()
                    for k in range(len(self.samples.classes))
                    if (truth == k).any()
                ]
            )
        )

    def _plain(self, chosen: NDArray[np.int64]) -> Tensor:
        return self._on_device(center_crop(self.patches[chosen], self.shape))

    def _on_device(self, patches: Tensor) -> Tensor:
        return patches.to(self.device, memory_format=LAYOUTS[self.samples.ndim])

    def _classifier(self, history: list[Epoch]) -> Network:
        samples = self.samples
        entries = tuple({"epoch": e.epoch, "loss": e.loss, "score": e.score} for e in history)
        return Network(specify(samples, entries), self.network)


def _in_batches(chosen: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.array_split(chosen, math.ceil(len(chosen) / EVALUATION_BATCH))


def _loss(logits: Tensor, truth: Tensor, name: str) -> Tensor:
    if name == "cross_entropy":
        return functional.cross_entropy(logits, truth)
    wanted = functional.one_hot(truth, logits.shape[1]).float()
    if name == "binary_cross_entropy":
        return functional.binary_cross_entropy_with_logits(logits, wanted)
    compare = {"l1": functional.l1_loss, "smooth_l1": functional.smooth_l1_loss, "mse": functional.mse_loss}[name]
    return compare(logits.softmax(dim=1), wanted)


def _optimizer(network: SmallCNN, settings: TrainingSettings, steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[settings.optimizer]
    optimizer = kind(
        network.parameters(), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
    schedules: dict[str, Callable[[], LRScheduler]] = {
        "one_cycle": lambda: OneCycleLR(
            # one step more than there are, because the schedule is stepped once after the last
            optimizer,
            settings.learning_rate,
            total_steps=settings.epochs * steps + 1,
            cycle_momentum=False,
        ),
        "step": lambda: StepLR(optimizer, step_size=100 * steps, gamma=0.1),
        "constant": lambda: LambdaLR(optimizer, lambda step: 1.0),
    }
    return optimizer, schedules[settings.schedule]()
