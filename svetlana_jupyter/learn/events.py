"""What a training reports while it runs; each event is frozen."""

from __future__ import annotations

from dataclasses import dataclass

from svetlana_jupyter.learn.classifier import Classifier


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
