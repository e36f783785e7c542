"""The training job: patches, network, cross-validation, and the forest beside it, kept as one run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
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
    from svetlana_jupyter.learn.samples import Gathering, Samples
    from svetlana_jupyter.learn.validate import Validation

FOLDS = 4  # more cost time, fewer train on too little


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

    def gather(self, settings: TrainingSettings) -> Iterator[Gathering | Samples]:
        """Cut or measure the annotated objects."""
        from svetlana_jupyter.learn.samples import gather

        parts = []
        for name, pair in self.pairs.items():
            if name in self.labels.index.get_level_values("image"):
                objects = self.objects(name)
                labels = self.labels.xs(name, level="image")
                parts.append((pair, objects, labels[labels.index.isin(objects.index)]))
        return gather(parts, settings, dict(zip(self.classes.ids, self.classes.names)))

    def measured(self) -> Samples:
        """Measure the annotated objects for a forest."""
        *_, samples = self.gather(self.settings.changed(architecture="forest"))
        return samples  # type: ignore[return-value]


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
        return (
            f"At least 2 classes need examples; only {known[0]} has some."
            if known
            else ("At least 2 classes need examples; nothing is annotated yet.")
        )
    return ""


def train_run(task: TrainingTask, stop: Stop) -> Iterator[Progress | LiveCurve | Run]:
    """Train, validate, and keep the run; a stop keeps the best network so far and leaves the validation out."""
    yield Progress(0, 1, "starting")  # the first import of torch takes a second or two
    from svetlana_jupyter.learn.events import Batch, Epoch, Fitted
    from svetlana_jupyter.learn.fit import fit
    from svetlana_jupyter.learn.samples import Gathering

    samples: Samples | None = None
    for gathered in task.gather(task.settings):
        if isinstance(gathered, Gathering):
            yield Progress(gathered.done, gathered.total, "cutting patches")
        else:
            samples = gathered
    assert samples is not None
    began, curve, fitted = time.monotonic(), LiveCurve(), None
    trainings = 1 + FOLDS
    for event in fit(samples, stop):
        if isinstance(event, Batch):
            yield Progress((event.epoch - 1 + event.batch / event.batches) / event.epochs, trainings, "training")
        elif isinstance(event, Epoch):
            curve = curve.grown(event)
            yield curve
        else:
            fitted = event
    assert isinstance(fitted, Fitted)
    seconds = time.monotonic() - began
    own = yield from _validated(samples, 1, trainings, stop)
    if task.settings.architecture == "forest":
        forest = own
    else:
        measured = task.measured()
        forest = yield from _validated(measured, trainings, trainings, stop)
    with writing_run(task.folder) as (folder, finish):
        fitted.classifier.save(folder)
        for name, validation in (("network", own), ("forest", forest)):
            if validation.accuracy is not None:
                validation.table.to_parquet(folder / f"held_out_{name}.parquet")
        yield finish(_describe(task, fitted, own.says, seconds))


def _validated(samples: Samples, before: int, total: int, stop: Stop) -> Generator[Progress, None, Validation]:
    """Cross-validate, reporting progress behind ``before`` trainings of ``total``."""
    from svetlana_jupyter.learn.validate import Fold, Validation, cross_validate

    result: Validation | None = None
    for event in cross_validate(samples, FOLDS, stop):
        if isinstance(event, Fold):
            yield Progress(min(before + event.done, total), total, "scoring on held-out annotations")
        else:
            result = event
    assert isinstance(result, Validation)
    return result


def _describe(task: TrainingTask, fitted: Fitted, note: str, seconds: float) -> Run:
    names = dict(zip(task.classes.ids, task.classes.names))
    counts = task.labels.value_counts()
    history = [{"epoch": e.epoch, "loss": e.loss, "score": e.score} for e in fitted.history]
    return Run(
        name="",
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=fitted.classifier.specification.settings.model_dump(mode="json"),
        classes={id: names[id] for id in fitted.classifier.classes},
        labels={names[id]: int(counts[id]) for id in fitted.classifier.classes},
        annotations=_digest(task.labels),
        history=history,
        seconds=seconds,
        stopped=fitted.stopped,
        note=note,
    )


def _digest(labels: pd.Series[int]) -> str:
    """Return the same short text for the same labels, in whatever order they were given."""
    images, objects = (labels.index.get_level_values(level) for level in ("image", "object"))
    rows = sorted(zip(images, objects.tolist(), labels.tolist()))
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
