"""The training job: patches, network, cross-validation, and the forest beside it, kept as one run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.core.classes import Classes
from svetlana_jupyter.core.pairing import ImagePair
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.runs import Run, writing_run

if TYPE_CHECKING:
    from svetlana_jupyter.learn.events import Epoch, Fitted
    from svetlana_jupyter.learn.samples import Samples


@dataclass(frozen=True)
class LiveCurve:
    """The curve of a training so far, one value an epoch; a score is None where nothing is held out."""

    epochs: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    scores: tuple[float | None, ...] = ()

    def grown(self, epoch: Epoch) -> LiveCurve:
        return LiveCurve((*self.epochs, epoch.epoch), (*self.losses, epoch.loss), (*self.scores, epoch.score))


@dataclass(frozen=True)
class TrainingTask:
    """All that a training reads, taken when it starts: annotating may go on meanwhile.

    Attributes
    ----------
    pairs : mapping of image name to ImagePair
    objects : callable
        Returns the object index of an image.
    labels : Series of int
        Class ids, indexed by ``(image, object)``.
    classes : Classes
    settings : TrainingSettings
    folder : Path
        Where runs are kept.
    """

    pairs: Mapping[str, ImagePair]
    objects: Callable[[str], pd.DataFrame]
    labels: pd.Series[int]
    classes: Classes
    settings: TrainingSettings
    folder: Path


def readiness(has_images: bool, counts: pd.Series[int]) -> str:
    """Return what is missing before a training can start, as a sentence; "" when nothing is.

    Parameters
    ----------
    counts : Series of int
        Annotations of each class, by name.
    """
    if not has_images:
        return "There are no images yet: add some, then annotate."
    if len(counts) < 2:
        return "Two classes are needed: add them, then annotate some objects of each."
    known = [str(name) for name in counts.index[counts > 0]]
    if len(known) < 2:
        return f"At least 2 classes need examples; only {known[0]} has some." if known else (
            "At least 2 classes need examples; nothing is annotated yet."
        )
    return ""


def train_run(task: TrainingTask, stop: Stop) -> Iterator[Progress | LiveCurve | Run]:
    """Train, validate, and keep the run; a stop keeps the best network so far and skips what is left to validate."""
    yield Progress(0, 1, "starting")
    from svetlana_jupyter.learn.classifier import versions
    from svetlana_jupyter.learn.events import Batch, Epoch, Fitted
    from svetlana_jupyter.learn.fit import fit
    from svetlana_jupyter.learn.samples import Gathering

    ...
