"""The training job: patches, network, cross-validation, and the forest beside it, kept as one run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.core.classes import Classes
from svetlana_jupyter.core.destroyed import FAR, destroyed
from svetlana_jupyter.core.may_use import restricted
from svetlana_jupyter.core.pairing import ImagePair
from svetlana_jupyter.core.settings import AugmentSettings, TrainingSettings
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.runs import Run, writing_run
from svetlana_jupyter.project.start import Beginning

if TYPE_CHECKING:
    from svetlana_jupyter.learn.events import Epoch, Fitted
    from svetlana_jupyter.learn.familiar import Familiar
    from svetlana_jupyter.learn.samples import Gathering, Samples
    from svetlana_jupyter.learn.validate import Validation


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
    gestures : Series of str
        The gesture that named each of these objects among others, "" where it named it alone.
    classes : Classes
    settings : TrainingSettings
    folder : Path
        Where runs are kept.
    begins : Beginning, optional
        What a network begins with, beside what the settings say.
    """

    pairs: Mapping[str, ImagePair]
    objects: Callable[[str], pd.DataFrame]
    labels: pd.Series[int]
    gestures: pd.Series[str]
    classes: Classes
    settings: TrainingSettings
    folder: Path
    begins: Beginning | None = None

    def gather(self, settings: TrainingSettings) -> Iterator[Gathering | Samples]:
        """Cut or measure the annotated objects."""
        from svetlana_jupyter.learn.samples import Samples, gather

        parts = []
        for name, pair in self.pairs.items():
            if name in self.labels.index.get_level_values("image"):
                objects = self.objects(name)
                labels = self.labels.xs(name, level="image")
                parts.append((pair, objects, labels[labels.index.isin(objects.index)]))
        for event in gather(parts, settings, dict(zip(self.classes.ids, self.classes.names))):
            yield self._complete(event, settings) if isinstance(event, Samples) else event

    def _complete(self, samples: Samples, settings: TrainingSettings) -> Samples:
        """Add what is known of the samples beside their pixels, and for a network what it begins with."""
        from svetlana_jupyter.learn.start import Start

        samples = samples.with_gestures(self.gestures)
        if self.begins is None or settings.architecture == "forest":
            return samples
        return replace(samples, start=Start(self.begins.network, self.begins.weights))

    def samples(self, settings: TrainingSettings) -> Samples:
        """Return what `gather` ends with."""
        *_, samples = self.gather(settings)
        return samples  # type: ignore[return-value]

    def measured(self, stop: Stop) -> Samples | None:
        """Measure the annotated objects for a forest; None once it is to stop."""
        from svetlana_jupyter.learn.samples import Samples

        for event in self.gather(self.settings.changed(architecture="forest")):
            if stop():
                break
            if isinstance(event, Samples):
                return event
        return None


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


@dataclass(frozen=True)
class Abandoned:
    """It was stopped before there was anything to keep."""


@dataclass(frozen=True)
class Scored:
    """A run whose score is known by now, or why there is none."""

    run: Run


def train_run(task: TrainingTask, stop: Stop) -> Iterator[Progress | LiveCurve | Run | Scored | Abandoned]:
    """Train and keep the run, then score it: it can be used before its score is known.

    A stop keeps the best network so far, and leaves out what is not scored yet.
    """
    yield Progress(0, 1, "starting")  # the first import of torch takes a second or two
    from svetlana_jupyter.learn.events import Batch, Epoch, Fitted, Note
    from svetlana_jupyter.learn.familiar import learn_familiar
    from svetlana_jupyter.learn.fit import fit
    from svetlana_jupyter.learn.samples import Gathering

    samples: Samples | None = None
    for gathered in task.gather(task.settings):
        if isinstance(gathered, Gathering):
            yield Progress(gathered.done, gathered.total, "cutting patches")
        else:
            samples = gathered
        if stop():
            yield Abandoned()
            return
    assert samples is not None
    began, curve, fitted = time.monotonic(), LiveCurve(), None
    for event in fit(samples, stop):
        if isinstance(event, Batch):
            yield Progress(event.epoch - 1 + event.batch / event.batches, event.epochs, "training")
        elif isinstance(event, Epoch):
            curve = curve.grown(event)
            yield curve
        elif isinstance(event, Note):
            yield Progress(len(curve.epochs), task.settings.epochs, event.text)
        else:
            fitted = event
    assert isinstance(fitted, Fitted)
    seconds = time.monotonic() - began
    familiar = None if stop() else learn_familiar(samples)  # without it, no image is told to look unlike
    with writing_run(task.folder) as (folder, finish):
        fitted.classifier.save(folder)
        if familiar is not None:
            familiar.save(folder)
        run = finish(_describe(task, fitted, familiar, seconds))
    yield run
    yield from _score(task, samples, run, stop)


def _score(task: TrainingTask, samples: Samples, run: Run, stop: Stop) -> Iterator[Progress | Scored]:
    """Cross-validate the run's own settings, and the forest on the same annotations."""
    from svetlana_jupyter.learn.validate import STOPPED

    if stop():
        yield Scored(run.with_score(STOPPED, {}))
        return
    own = yield from _validated(samples, "scoring on held-out annotations", stop)
    warning = yield from _warned(samples, own, stop)
    tables = {"network": own, "forest": own}
    compared = task.settings.architecture != "forest" and not stop()
    if compared and (measured := task.measured(stop)) is not None:
        tables["forest"] = yield from _validated(measured, "scoring a forest beside it", stop)
    known = {name: result.table for name, result in tables.items() if result.accuracy is not None}
    says = own.says
    if own.accuracy is not None and task.begins is not None and task.begins.run:
        says += f" It began with run {task.begins.run}, which may know some of them: the score may be too good."
    if warning:
        says += f" {warning}"
    yield Scored(run.with_score(says, known))


def _warned(samples: Samples, own: Validation, stop: Stop) -> Generator[Progress, None, str]:
    """Say whether augmentation destroys the classes; where that may be, the same is scored without it.

    What may not count stays varied.
    """
    settings = samples.settings
    plain = restricted(settings.changed(augmentation=AugmentSettings.none()))
    if own.accuracy is None or own.accuracy > 1 - FAR or settings.architecture == "forest":
        return ""
    if not settings.augmentation.varies or plain.augmentation == settings.augmentation:
        return ""
    without = yield from _validated(replace(samples, settings=plain), "scoring without augmentation", stop)
    return destroyed(settings.augmentation, own.table, without.table) if without.accuracy is not None else ""


def _validated(samples: Samples, text: str, stop: Stop) -> Generator[Progress, None, Validation]:
    from svetlana_jupyter.learn.validate import Fold, Validation, cross_validate

    yield Progress(0, 1, text)
    result: Validation | None = None
    for event in cross_validate(samples, stop=stop):
        if isinstance(event, Fold):
            yield Progress(event.done, event.total, text)
        else:
            result = event
    assert isinstance(result, Validation)
    return result


def _describe(task: TrainingTask, fitted: Fitted, familiar: Familiar | None, seconds: float) -> Run:
    names = dict(zip(task.classes.ids, task.classes.names))
    counts = task.labels.value_counts()
    history = [{"epoch": e.epoch, "loss": e.loss, "score": e.score} for e in fitted.history]
    return Run(
        name="",
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=fitted.classifier.specification.settings.model_dump(mode="json"),
        classes={id: names[id] for id in fitted.classifier.classes},
        labels={names[id]: int(counts[id]) for id in fitted.classifier.classes},
        annotations=digest(task.labels),
        history=history,
        seconds=seconds,
        stopped=fitted.stopped,
        note="Not known yet: it was not scored.",
        remarks=list(fitted.notes),
        left_out=familiar.left_out if familiar is not None else None,
    )


def digest(labels: pd.Series[int]) -> str:
    """Return the same short text for the same labels, in whatever order they were given."""
    images, objects = (labels.index.get_level_values(level) for level in ("image", "object"))
    rows = sorted(zip(images, objects.tolist(), labels.tolist()))
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
