"""The training job: patches, network, cross-validation, and the forest beside it, kept as one run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
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
from svetlana_jupyter.project.searching import Choice, choose
from svetlana_jupyter.project.start import Beginning
from svetlana_jupyter.project.tried import write_tried

if TYPE_CHECKING:
    from svetlana_jupyter.learn.events import Epoch, Fitted
    from svetlana_jupyter.learn.familiar import Familiar
    from svetlana_jupyter.learn.samples import Gathering, Part, Samples
    from svetlana_jupyter.learn.search import Found
    from svetlana_jupyter.learn.validate import Validation


@dataclass(frozen=True)
class LiveCurve:
    """The curve of a training so far, one value an epoch; a score is None where nothing is held out.

    ``total`` is the number of epochs planned, 0 before the first one is known.
    """

    epochs: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    scores: tuple[float | None, ...] = ()
    total: int = 0

    def grown(self, epoch: Epoch) -> LiveCurve:
        scores = (*self.scores, epoch.score)
        return LiveCurve((*self.epochs, epoch.epoch), (*self.losses, epoch.loss), scores, epoch.epochs)


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
    search : bool
        Look for the best recipe anew, where the settings leave it open.
    runs : tuple of Run
        Those of the project, in which the recipe may have been found before.
    says : str
        Which annotations are left out; "" where none is.
    workers : int
        Trainings at a time while recipes are tried, on a core each; what is found does not depend on it.
    """

    pairs: Mapping[str, ImagePair]
    objects: Callable[[str], pd.DataFrame]
    labels: pd.Series[int]
    gestures: pd.Series[str]
    classes: Classes
    settings: TrainingSettings
    folder: Path
    begins: Beginning | None = None
    search: bool = False
    runs: tuple[Run, ...] = ()
    says: str = ""
    workers: int = 1

    def parts(self) -> list[Part]:
        """Return each annotated image with all its objects, and the classes of those that are annotated."""
        parts = []
        for name, pair in self.pairs.items():
            if name in self.labels.index.get_level_values("image"):
                objects = self.objects(name)
                labels = self.labels.xs(name, level="image")
                parts.append((pair, objects, labels[labels.index.isin(objects.index)]))
        return parts

    def gather(self, settings: TrainingSettings) -> Iterator[Gathering | Samples]:
        """Cut or measure the annotated objects."""
        for event in self.gather_each([settings], self.parts()):
            yield event[0] if isinstance(event, list) else event

    def gather_each(
        self, several: Sequence[TrainingSettings], parts: Sequence[Part]
    ) -> Iterator[Gathering | list[Samples]]:
        """Cut or measure objects for several trainings at once."""
        from svetlana_jupyter.learn.samples import gather_each

        for event in gather_each(parts, several, dict(zip(self.classes.ids, self.classes.names))):
            yield [self._complete(samples) for samples in event] if isinstance(event, list) else event

    def _complete(self, samples: Samples) -> Samples:
        """Add what is known of the samples beside their pixels, and for a network what it begins with."""
        from svetlana_jupyter.learn.start import Start

        samples = samples.with_gestures(self.gestures)
        if self.begins is None or samples.settings.architecture == "forest":
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


def readiness(has_images: bool, counts: pd.Series[int], says: str = "") -> str:
    """Return what is missing before a training can start, as a sentence; "" when nothing is.

    Parameters
    ----------
    counts : Series of int
        Annotations of each class, by name.
    says : str
        Which others are left out.
    """
    if not has_images:
        return "There are no images yet: add some, then annotate."
    if len(counts) < 2:
        return "Two classes are needed: add them, then annotate some objects of each."
    known = [str(name) for name in counts.index[counts > 0]]
    if len(known) < 2:
        some = f"only {known[0]} has some" if known else "none has any" if says else "nothing is annotated yet"
        return f"At least 2 classes need examples; {some}. {says}".strip()
    return ""


@dataclass(frozen=True)
class Abandoned:
    """It was stopped before there was anything to keep."""


@dataclass(frozen=True)
class Scored:
    """A run whose score is known by now, or why there is none."""

    run: Run


def train_run(task: TrainingTask, stop: Stop) -> Iterator[Progress | LiveCurve | Run | Scored | Abandoned]:
    """Settle the recipe, train and keep the run, then score it: it can be used before its score is known.

    A stop before training leaves nothing. One while training keeps the best network so far, and leaves out what is not
    scored yet.
    """
    yield Progress(0, 1, "starting")  # the first import of torch takes a second or two
    from svetlana_jupyter.learn.events import Batch, Epoch, Fitted, Note
    from svetlana_jupyter.learn.familiar import learn_familiar
    from svetlana_jupyter.learn.fit import fit
    from svetlana_jupyter.learn.samples import Gathering

    began = time.monotonic()
    choice = yield from choose(task, stop)
    if choice is None or stop():
        yield Abandoned()
        return
    task = replace(task, settings=choice.settings)
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
    curve, fitted = LiveCurve(), None
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
        if choice.tried is not None:
            write_tried(folder, choice.tried)
        run = finish(_describe(task, choice, fitted, familiar, seconds))
    yield run
    if choice.found is not None and not run.stopped:
        yield from _score_of_choosing(samples, choice.found, run, stop)
    else:
        yield from _score(task, samples, choice, run, stop)


def _score_of_choosing(samples: Samples, found: Found, run: Run, stop: Stop) -> Iterator[Progress | Scored]:
    """Score each part of the annotations with the recipe that the others choose, which the search knows already."""
    from svetlana_jupyter.learn.validate import source_of

    forest = next((one.table for one in found.tried if one.settings.architecture == "forest"), None)
    plain = next((one for one in found.tried if one.settings.augmentation == _plain(samples.settings)), None)
    warning = yield from _warned(samples, found.outer, stop, plain.table if plain is not None else None)
    known = {"network": found.outer} | ({"forest": forest} if forest is not None else {})
    says = (
        f"{source_of(len(found.outer), found.apart)}; what is scored of each part is the recipe that the others choose."
    )
    yield Scored(run.with_score(says, known, warning))


def _score(task: TrainingTask, samples: Samples, choice: Choice, run: Run, stop: Stop) -> Iterator[Progress | Scored]:
    """Cross-validate the run's own settings, and the forest on the same annotations."""
    from svetlana_jupyter.learn.validate import STOPPED

    if stop():
        yield Scored(run.with_score(STOPPED, {}))
        return
    own = yield from _validated(samples, "scoring on held-out annotations", stop)
    warning = (yield from _warned(samples, own.table, stop)) if own.accuracy is not None else ""
    tables = {"network": own, "forest": own}
    compared = task.settings.architecture != "forest" and not stop()
    if compared and (measured := task.measured(stop)) is not None:
        tables["forest"] = yield from _validated(measured, "scoring a forest beside it", stop)
    known = {name: result.table for name, result in tables.items() if result.accuracy is not None}
    says = own.says
    if own.accuracy is not None and task.begins is not None and task.begins.run:
        says += f" It began with run {task.begins.run}, which may know some of them: the score may be too good."
    elif own.accuracy is not None and choice.run:
        says += f" Some of them chose the recipe in run {choice.run}: the score may be a little too good."
    yield Scored(run.with_score(says, known, warning))


def _warned(
    samples: Samples, own: pd.DataFrame, stop: Stop, plain: pd.DataFrame | None = None
) -> Generator[Progress, None, str]:
    """Say whether augmentation destroys the classes; where that may be, the same is scored without it.

    What may not count stays varied. ``plain`` is what was predicted without augmentation, where that is known already.
    """
    settings = samples.settings
    if (own["predicted"] == own["truth"]).mean() > 1 - FAR or settings.architecture == "forest":
        return ""
    if not settings.augmentation.varies or _plain(settings) == settings.augmentation:
        return ""
    if plain is None:
        unvaried = replace(samples, settings=settings.changed(augmentation=_plain(settings)))
        without = yield from _validated(unvaried, "scoring without augmentation", stop)
        if without.accuracy is None:
            return ""
        plain = without.table
    return destroyed(settings.augmentation, own, plain)


def _plain(settings: TrainingSettings) -> AugmentSettings:
    """Return the least augmentation that keeps out what may not count."""
    return restricted(settings.changed(augmentation=AugmentSettings.none())).augmentation


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


def _describe(task: TrainingTask, choice: Choice, fitted: Fitted, familiar: Familiar | None, seconds: float) -> Run:
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
        remarks=[*filter(None, [task.says]), *fitted.notes],
        left_out=familiar.left_out if familiar is not None else None,
        choice=choice.says,
    )


def digest(labels: pd.Series[int]) -> str:
    """Return the same short text for the same labels, in whatever order they were given."""
    images, objects = (labels.index.get_level_values(level) for level in ("image", "object"))
    rows = sorted(zip(images, objects.tolist(), labels.tolist()))
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
