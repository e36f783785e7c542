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

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.destroyed import MIN_ACCURACY_LOSS, destroyed
from svetlana_jupyter.core.may_use import restrict_to_allowed_cues
from svetlana_jupyter.core.pairing import ImagePair
from svetlana_jupyter.core.settings import AugmentSettings, TrainingSettings
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.runs import Run, new_run
from svetlana_jupyter.project.searching import PresetChoice, choose
from svetlana_jupyter.project.start import TrainingSetup
from svetlana_jupyter.project.tried import write_search_record

if TYPE_CHECKING:
    from svetlana_jupyter.learn.events import Epoch, FitResult
    from svetlana_jupyter.learn.familiar import ReferenceDistribution
    from svetlana_jupyter.learn.samples import CollectionProgress, Part, TrainingData
    from svetlana_jupyter.learn.search import Found
    from svetlana_jupyter.learn.validate import CrossValidationResult


@dataclass(frozen=True)
class LearningCurve:
    """The curve of a training so far, one value an epoch; a score is None where nothing is held out.

    ``total`` is the number of epochs planned, 0 before the first one is known.
    """

    epochs: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    scores: tuple[float | None, ...] = ()
    total: int = 0

    def grown(self, epoch: Epoch) -> LearningCurve:
        scores = (*self.scores, epoch.score)
        return LearningCurve((*self.epochs, epoch.epoch), (*self.losses, epoch.loss), scores, epoch.epochs)


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
    classes: ClassScheme
    settings: TrainingSettings
    folder: Path
    begins: TrainingSetup | None = None
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

    def gather(self, settings: TrainingSettings) -> Iterator[CollectionProgress | TrainingData]:
        """Cut or measure the annotated objects."""
        for event in self.collect_for_each([settings], self.parts()):
            yield event[0] if isinstance(event, list) else event

    def collect_for_each(
        self, several: Sequence[TrainingSettings], parts: Sequence[Part]
    ) -> Iterator[CollectionProgress | list[TrainingData]]:
        """Cut or measure objects for several trainings at once."""
        from svetlana_jupyter.learn.samples import collect_for_each

        for event in collect_for_each(parts, several, dict(zip(self.classes.ids, self.classes.names))):
            yield [self._complete(samples) for samples in event] if isinstance(event, list) else event

    def _complete(self, samples: TrainingData) -> TrainingData:
        """Add what is known of the samples beside their pixels, and for a network what it begins with."""
        from svetlana_jupyter.learn.start import InitialWeights

        samples = samples.with_gestures(self.gestures)
        if self.begins is None or samples.settings.architecture == "forest":
            return samples
        return replace(samples, start=InitialWeights(self.begins.network, self.begins.weights))

    def samples(self, settings: TrainingSettings) -> TrainingData:
        """Return what `gather` ends with."""
        *_, samples = self.gather(settings)
        return samples  # type: ignore[return-value]

    def measured(self, stop: Stop) -> TrainingData | None:
        """Measure the annotated objects for a forest; None once it is to stop."""
        from svetlana_jupyter.learn.samples import TrainingData

        for event in self.gather(self.settings.changed(architecture="forest")):
            if stop():
                break
            if isinstance(event, TrainingData):
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
class TrainingAbandoned:
    """It was stopped before there was anything to keep."""


@dataclass(frozen=True)
class RunScored:
    """A run whose score is known by now, or why there is none."""

    run: Run


def train_run(
    task: TrainingTask, stop: Stop
) -> Iterator[Progress | LearningCurve | Run | RunScored | TrainingAbandoned]:
    """Settle the recipe, train and keep the run, then score it: it can be used before its score is known.

    A stop before training leaves nothing. One while training keeps the best network so far, and leaves out what is not
    scored yet.
    """
    yield Progress(0, 1, "starting")  # the first import of torch takes a second or two
    from svetlana_jupyter.learn.events import Batch, Epoch, FitResult, TrainingNote
    from svetlana_jupyter.learn.familiar import fit_reference
    from svetlana_jupyter.learn.fit import fit
    from svetlana_jupyter.learn.samples import CollectionProgress

    began = time.monotonic()
    choice = yield from choose(task, stop)
    if choice is None or stop():
        yield TrainingAbandoned()
        return
    task = replace(task, settings=choice.settings)
    samples: TrainingData | None = None
    for gathered in task.gather(task.settings):
        if isinstance(gathered, CollectionProgress):
            yield Progress(gathered.done, gathered.total, "cutting patches")
        else:
            samples = gathered
        if stop():
            yield TrainingAbandoned()
            return
    assert samples is not None
    curve, fitted = LearningCurve(), None
    for event in fit(samples, stop):
        if isinstance(event, Batch):
            yield Progress(event.epoch - 1 + event.batch / event.batches, event.epochs, "training")
        elif isinstance(event, Epoch):
            curve = curve.grown(event)
            yield curve
        elif isinstance(event, TrainingNote):
            yield Progress(len(curve.epochs), task.settings.epochs, event.text)
        else:
            fitted = event
    assert isinstance(fitted, FitResult)
    seconds = time.monotonic() - began
    reference = None if stop() else fit_reference(samples)  # without it, no image is told to look unlike
    with new_run(task.folder) as (folder, finish):
        fitted.classifier.save(folder)
        if reference is not None:
            reference.save(folder)
        if choice.tried is not None:
            write_search_record(folder, choice.tried)
        run = finish(_describe(task, choice, fitted, reference, seconds))
    yield run
    if choice.found is not None and not run.stopped:
        yield from _score_of_choosing(samples, choice.found, run, stop)
    else:
        yield from _score(task, samples, choice, run, stop)


def _score_of_choosing(samples: TrainingData, found: Found, run: Run, stop: Stop) -> Iterator[Progress | RunScored]:
    """Score each part of the annotations with the recipe that the others choose, which the search knows already."""
    from svetlana_jupyter.learn.validate import describe_score_source

    forest = next((one.table for one in found.tried if one.settings.architecture == "forest"), None)
    plain = next((one for one in found.tried if one.settings.augmentation == _plain(samples.settings)), None)
    warning = yield from _warned(samples, found.outer, stop, plain.table if plain is not None else None)
    known = {"network": found.outer} | ({"forest": forest} if forest is not None else {})
    says = f"{describe_score_source(len(found.outer), found.apart)}; what is scored of each part is the recipe that the others choose."
    yield RunScored(run.with_score(says, known, warning))


def _score(
    task: TrainingTask, samples: TrainingData, choice: PresetChoice, run: Run, stop: Stop
) -> Iterator[Progress | RunScored]:
    """Cross-validate the run's own settings, and the forest on the same annotations."""
    from svetlana_jupyter.learn.validate import STOPPED

    if stop():
        yield RunScored(run.with_score(STOPPED, {}))
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
    yield RunScored(run.with_score(says, known, warning))


def _warned(
    samples: TrainingData, own: pd.DataFrame, stop: Stop, plain: pd.DataFrame | None = None
) -> Generator[Progress, None, str]:
    """Say whether augmentation destroys the classes; where that may be, the same is scored without it.

    What may not count stays varied. ``plain`` is what was predicted without augmentation, where that is known already.
    """
    settings = samples.settings
    if (own["predicted"] == own["truth"]).mean() > 1 - MIN_ACCURACY_LOSS or settings.architecture == "forest":
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
    return restrict_to_allowed_cues(settings.changed(augmentation=AugmentSettings.none())).augmentation


def _validated(samples: TrainingData, text: str, stop: Stop) -> Generator[Progress, None, CrossValidationResult]:
    from svetlana_jupyter.learn.validate import CrossValidationResult, FoldProgress, cross_validate

    yield Progress(0, 1, text)
    result: CrossValidationResult | None = None
    for event in cross_validate(samples, stop=stop):
        if isinstance(event, FoldProgress):
            yield Progress(event.done, event.total, text)
        else:
            result = event
    assert isinstance(result, CrossValidationResult)
    return result


def _describe(
    task: TrainingTask, choice: PresetChoice, fitted: FitResult, reference: ReferenceDistribution | None, seconds: float
) -> Run:
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
        left_out=reference.left_out if reference is not None else None,
        choice=choice.says,
    )


def digest(labels: pd.Series[int]) -> str:
    """Return the same short text for the same labels, in whatever order they were given."""
    images, objects = (labels.index.get_level_values(level) for level in ("image", "object"))
    rows = sorted(zip(images, objects.tolist(), labels.tolist()))
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
