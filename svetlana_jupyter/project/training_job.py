"""The training job: model selection, training, cross-validation and a forest for comparison, stored as one run.

A project may come from a stranger, so opening it and pressing Train must not import code or read files outside it.
Names in ``training.json`` are therefore resolved only to runs of the project and to modules already imported; a call
of the user may name any code and file.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from svetlana_jupyter.core.allowed_cues import SMALL_CNN, candidate_presets, restrict_to_allowed_cues
from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.settings import (
    AUTO_PRESET,
    DEFAULT_PRESET,
    USER_ARCHITECTURE,
    AugmentSettings,
    TrainingSettings,
)
from svetlana_jupyter.core.stats.metrics import exclusion_reasons
from svetlana_jupyter.core.stats.model_selection import MIN_ACCURACY_LOSS, augmentation_warning
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.runs import Run, last_search, new_run, search_record, write_search_record

if TYPE_CHECKING:
    from torch.nn import Module

    from svetlana_jupyter.learn.cross_validation import CrossValidationResult
    from svetlana_jupyter.learn.dataset import AnnotatedImage, CollectionProgress, TrainingData
    from svetlana_jupyter.learn.novelty import ReferenceDistribution
    from svetlana_jupyter.learn.preset_search import SearchResult
    from svetlana_jupyter.learn.training import Epoch, FitResult

GROWN = 2  # times as many annotations as the last search had ask for another
ROOM = 2**30  # bytes that the patches of all candidates may take together


@dataclass(frozen=True)
class PresetChoice:
    """The settings of a training, with a preset that is named.

    Attributes
    ----------
    settings : TrainingSettings
    says : str
        How the preset came about; "" where the settings named it.
    found : Found or None
        What a search found, where there was one.
    tried : mapping or None
        What is kept of it (`project.runs.search_record`).
    run : str
        The earlier run in which the preset was chosen, "" where it is none.
    """

    settings: TrainingSettings
    says: str = ""
    found: SearchResult | None = None
    tried: Mapping[str, Any] | None = None
    run: str = ""


def choose(task: TrainingTask, stop: Stop) -> Generator[Progress, None, PresetChoice | None]:
    """Settle the preset of a training, by a search where there was none yet or too little was known; None if stopped.

    Of an earlier choice, name and number of epochs are used again; patches follow the current annotations.
    """
    settings = task.settings
    if settings.preset != AUTO_PRESET:
        return PresetChoice(settings)
    presets = candidate_presets(settings)
    default = presets[DEFAULT_PRESET]
    if settings.start_from is not None:
        return _as_begun(task, presets)
    if len(presets) == 1:
        forest = settings.architecture == "forest"
        return PresetChoice(default, "" if forest else f"{_USED} with the architecture {SMALL_CNN} alone.")
    parts = task.parts()
    targets = np.concatenate([classes.to_numpy(np.int64) for _, _, classes in parts]) if parts else np.empty(0, int)
    known = None if task.search else previous_choice(task.runs, settings, np.unique(targets).tolist())
    if known is not None and len(targets) < GROWN * sum(known[0].labels.values()):
        run, chosen = known
        return PresetChoice(chosen, f"Preset {chosen.preset} was chosen in run {run.name}.", run=run.name)
    from svetlana_jupyter.learn.cross_validation import MIN_PER_CLASS, describe_scarce_classes

    few = describe_scarce_classes(targets, dict(zip(task.classes.ids, task.classes.names)))
    if len(np.unique(targets)) < 2:
        return PresetChoice(default)  # which refuses to train
    if few:
        return PresetChoice(default, f"{_USED} from {MIN_PER_CLASS} annotated objects of each class on, but {few}.")
    return (yield from _searched(task, presets, parts, stop))


def previous_choice(
    runs: Iterable[Run], settings: TrainingSettings, classes: Iterable[int]
) -> tuple[Run, TrainingSettings] | None:
    """Return what the last search for the same settings and classes chose, and its run; None if there was none.

    >>> previous_choice([], TrainingSettings(), [1, 2]) is None
    True
    """
    known = last_search(runs, settings, classes)
    presets = candidate_presets(settings)
    if known is None or known[1]["chosen"] not in presets:
        return None
    run, tried = known
    return run, _for(presets[tried["chosen"]], tried.get("epochs"))


def _searched(
    task: TrainingTask, presets: Mapping[str, TrainingSettings], parts: Sequence[AnnotatedImage], stop: Stop
) -> Generator[Progress, None, PresetChoice | None]:
    """Try the presets."""
    from svetlana_jupyter.learn.dataset import CollectionProgress, max_objects_in_memory, resolve_settings
    from svetlana_jupyter.learn.preset_search import MAX_SEARCH_OBJECTS, SearchProgress, affordable_candidates, search

    began, keep_epochs = time.monotonic(), task.settings.epochs != TrainingSettings().epochs
    if not keep_epochs:
        frozen = dict(zip(presets, resolve_settings(parts, list(presets.values())), strict=True))
        n = min(MAX_SEARCH_OBJECTS, sum(len(classes) for _, _, classes in parts))
        presets = {name: presets[name] for name in affordable_candidates(frozen, n, len(parts[0][0].channels))}
    settings = list(presets.values())
    samples: list[TrainingData] = []
    few = _some(parts, min(MAX_SEARCH_OBJECTS, max_objects_in_memory(parts, settings, ROOM)), task.settings.seed)
    for gathered in task.collect_for_each(settings, few):
        if isinstance(gathered, CollectionProgress):
            yield Progress(gathered.done, gathered.total, "cutting patches")
        else:
            samples = gathered
        if stop():
            return None
    yield Progress(0, 1, "trying presets")
    found: SearchResult | None = None
    for event in search(dict(zip(presets, samples, strict=True)), keep_epochs, task.workers, stop):
        if isinstance(event, SearchProgress):
            yield Progress(event.done, event.total, event.text)
        else:
            found = event
    if found is None:
        return None
    chosen = _for(presets[found.preset], found.settings.epochs)
    return PresetChoice(
        settings=chosen,
        says=f"Preset {found.preset} was chosen of {len(presets)} by {len(found.nested_table)} annotated objects.",
        found=found,
        tried=search_record(task.settings, found, time.monotonic() - began),
    )


def _as_begun(task: TrainingTask, presets: Mapping[str, TrainingSettings]) -> PresetChoice:
    """Return the preset of the run that a training begins with: its weights fit no other, and know the answers."""
    name = task.begins.run if task.begins is not None else ""
    preset = next((run.settings["preset"] for run in task.runs if run.name == name), DEFAULT_PRESET)
    settings = presets.get(preset, presets[DEFAULT_PRESET])
    if not name or settings.architecture == "forest" or settings.preset != preset:
        return PresetChoice(presets[DEFAULT_PRESET], f"{_USED} where training begins anew.")
    return PresetChoice(settings, f"Preset {preset} is that of run {name}, with which training began.")


def _for(settings: TrainingSettings, epochs: int | None) -> TrainingSettings:
    """Return settings with as many epochs as were planned; a forest has none."""
    return settings if settings.architecture == "forest" or epochs is None else settings.changed(epochs=epochs)


def _some(parts: Sequence[AnnotatedImage], most: int, seed: int) -> list[AnnotatedImage]:
    """Return the annotated objects that presets are tried on."""
    from svetlana_jupyter.learn.preset_search import subsample_objects

    chosen = subsample_objects(np.concatenate([classes.to_numpy(np.int64) for _, _, classes in parts]), seed, most)
    ends = np.cumsum([len(classes) for _, _, classes in parts])
    pieces = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    begins = [0, *ends[:-1].tolist()]
    return [
        (pair, objects, classes.iloc[piece - begin])
        for (pair, objects, classes), piece, begin in zip(parts, pieces, begins, strict=True)
    ]


_USED = "The default preset was used: others are compared"


@dataclass(frozen=True)
class TrainingSetup:
    """The settings of a training, and what they cannot hold.

    Attributes
    ----------
    settings : TrainingSettings
    network : Module or None
        The user's own, given as an object.
    weights : Path or None
        What ``start_from`` means.
    run : str
        The run of this project that it means, "" where it is none.
    """

    settings: TrainingSettings
    network: Module | None = None
    weights: Path | None = None
    run: str = ""


def resolve_training_setup(
    stored_settings: TrainingSettings,
    given: TrainingSettings | None,
    changes: Mapping[str, Any],
    network: Module | None,
    runs: Mapping[str, Run],
) -> TrainingSetup:
    """Put together what a call asks for and what the project's file says.

    Parameters
    ----------
    in_file : TrainingSettings
        The project's.
    given : TrainingSettings, optional
        Instead of these, as the call gives them.
    changes : mapping
        Single settings that the call names; a module that ``architecture`` names here is imported.

    Raises
    ------
    ProjectError
        If the file names weights that are no run of this project.
    """
    settings = (given or stored_settings).changed(**changes)
    if network is not None:
        settings = settings.changed(architecture=USER_ARCHITECTURE)
    elif ":" in str(changes.get("architecture", "")):
        from svetlana_jupyter.learn.build import import_network

        import_network(settings.architecture)
    name = settings.start_from
    if name is None:
        return TrainingSetup(settings, network)
    if name in runs:
        return TrainingSetup(settings, network, runs[name].path, name)
    if "start_from" not in changes and name == stored_settings.start_from:
        raise ProjectError(
            f"training.json says start_from={name!r}, but a file may only name runs of its project, which are "
            f"{', '.join(runs) or 'none yet'}. If you trust it, give it to the call: train(start_from={name!r})."
        )
    return TrainingSetup(settings, network, Path(name))


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
    edit_groups : Series of str
        The edit that named each of these objects among others, "" where it named it alone.
    classes : Classes
    settings : TrainingSettings
    folder : Path
        Where runs are kept.
    begins : Beginning, optional
        What a network begins with, beside what the settings say.
    search : bool
        Look for the best preset anew, where the settings leave it open.
    runs : tuple of Run
        Those of the project, in which the preset may have been found before.
    says : str
        Which annotations are left out; "" where none is.
    workers : int
        Trainings at a time while presets are tried, on a core each; what is found does not depend on it.
    """

    pairs: Mapping[str, ImagePair]
    objects: Callable[[str], pd.DataFrame]
    labels: pd.Series[int]
    edit_groups: pd.Series[str]
    classes: ClassScheme
    settings: TrainingSettings
    folder: Path
    begins: TrainingSetup | None = None
    search: bool = False
    runs: tuple[Run, ...] = ()
    says: str = ""
    workers: int = 1

    def parts(self) -> list[AnnotatedImage]:
        """Return each annotated image with all its objects, and the classes of those that are annotated."""
        parts = []
        for name, pair in self.pairs.items():
            if name in self.labels.index.get_level_values("image"):
                objects = self.objects(name)
                labels = self.labels.xs(name, level="image")
                parts.append((pair, objects, labels[labels.index.isin(objects.index)]))
        return parts

    def collect_with_progress(self, settings: TrainingSettings) -> Iterator[CollectionProgress | TrainingData]:
        """Cut or measure the annotated objects."""
        for event in self.collect_for_each([settings], self.parts()):
            yield event[0] if isinstance(event, list) else event

    def collect_for_each(
        self, several: Sequence[TrainingSettings], parts: Sequence[AnnotatedImage]
    ) -> Iterator[CollectionProgress | list[TrainingData]]:
        """Cut or measure objects for several trainings at once."""
        from svetlana_jupyter.learn.dataset import collect_for_each

        for event in collect_for_each(parts, several, dict(zip(self.classes.ids, self.classes.names))):
            yield [self._complete(samples) for samples in event] if isinstance(event, list) else event

    def _complete(self, samples: TrainingData) -> TrainingData:
        """Add what is known of the samples beside their pixels, and for a network what it begins with."""
        from svetlana_jupyter.learn.dataset import InitialWeights

        samples = samples.with_edit_groups(self.edit_groups)
        if self.begins is None or samples.settings.architecture == "forest":
            return samples
        return replace(samples, initial=InitialWeights(self.begins.network, self.begins.weights))

    def samples(self, settings: TrainingSettings) -> TrainingData:
        """Return what `collect_with_progress` ends with."""
        *_, samples = self.collect_with_progress(settings)
        return samples  # type: ignore[return-value]

    def measured(self, stop: Stop) -> TrainingData | None:
        """Measure the annotated objects for a forest; None once it is to stop."""
        from svetlana_jupyter.learn.dataset import TrainingData

        for event in self.collect_with_progress(self.settings.changed(architecture="forest")):
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
    """Settle the preset, train and keep the run, then score it: it can be used before its score is known.

    A stop before training leaves nothing. One while training keeps the best network so far, and leaves out what is not
    scored yet.
    """
    yield Progress(0, 1, "starting")  # the first import of torch takes a second or two
    from svetlana_jupyter.learn.dataset import CollectionProgress
    from svetlana_jupyter.learn.novelty import fit_reference
    from svetlana_jupyter.learn.training import Batch, Epoch, FitResult, TrainingNote, fit

    began = time.monotonic()
    choice = yield from choose(task, stop)
    if choice is None or stop():
        yield TrainingAbandoned()
        return
    task = replace(task, settings=choice.settings)
    samples: TrainingData | None = None
    for gathered in task.collect_with_progress(task.settings):
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


_Scoring = Iterator["Progress | RunScored"]


def _score_of_choosing(samples: TrainingData, found: SearchResult, run: Run, stop: Stop) -> _Scoring:
    """Score each part of the annotations with the preset that the others choose, which the search knows already."""
    from svetlana_jupyter.learn.cross_validation import describe_score_source

    forest = next((one.table for one in found.candidates if one.settings.architecture == "forest"), None)
    plain = next((one for one in found.candidates if one.settings.augmentation == _plain(samples.settings)), None)
    warning = yield from _warned(samples, found.nested_table, stop, plain.table if plain is not None else None)
    known = {"network": found.nested_table} | ({"forest": forest} if forest is not None else {})
    source = describe_score_source(len(found.nested_table), found.kept_whole)
    says = f"{source}; what is scored of each part is the preset that the others choose."
    yield RunScored(run.with_score(says, known, warning))


def _score(task: TrainingTask, samples: TrainingData, choice: PresetChoice, run: Run, stop: Stop) -> _Scoring:
    """Cross-validate the run's own settings, and the forest on the same annotations."""
    from svetlana_jupyter.learn.cross_validation import STOPPED_MESSAGE

    if stop():
        yield RunScored(run.with_score(STOPPED_MESSAGE, {}))
        return
    own = yield from _validated(samples, "scoring on held-out annotations", stop)
    warning = (yield from _warned(samples, own.table, stop)) if own.accuracy is not None else ""
    tables = {"network": own, "forest": own}
    compared = task.settings.architecture != "forest" and not stop()
    if compared and (measured := task.measured(stop)) is not None:
        tables["forest"] = yield from _validated(measured, "scoring a forest beside it", stop)
    known = {name: result.table for name, result in tables.items() if result.accuracy is not None}
    says = own.message
    if own.accuracy is not None and task.begins is not None and task.begins.run:
        says += f" It began with run {task.begins.run}, which may know some of them: the score may be too good."
    elif own.accuracy is not None and choice.run:
        says += f" Some of them chose the preset in run {choice.run}: the score may be a little too good."
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
    return augmentation_warning(settings.augmentation, own, plain)


def _plain(settings: TrainingSettings) -> AugmentSettings:
    """Return the least augmentation that keeps out what may not count."""
    return restrict_to_allowed_cues(settings.changed(augmentation=AugmentSettings.none())).augmentation


def _validated(samples: TrainingData, text: str, stop: Stop) -> Generator[Progress, None, CrossValidationResult]:
    from svetlana_jupyter.learn.cross_validation import CrossValidationResult, FoldProgress, cross_validate

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


Size = tuple[float | None, float | None]


def select_training_objects(
    labels: pd.DataFrame, objects: Callable[[str], pd.DataFrame], exclude_border: bool, size: Size | None
) -> tuple[pd.DataFrame, str]:
    """Select the labels that a training learns from.

    Parameters
    ----------
    labels : DataFrame
        Indexed by ``(image, object)``.
    objects : callable
        Returns the object table of an image.
    exclude_border : bool
        Whether objects that touch the border of their image are left out.
    size : tuple of float or None, optional
        Pixels (voxels) that an object must have at least, and at most.

    Returns
    -------
    labels : DataFrame
    says : str
        "" where none is left out.
    """
    if labels.empty or not (exclude_border or any(bound is not None for bound in size or ())):
        return labels, ""
    tables = [
        objects(str(image)).reindex(rows.index.get_level_values("object")).set_axis(rows.index)
        for image, rows in labels.groupby(level="image", sort=False)
    ]
    # Annotated they are; only where they lie and how large they are is asked.
    table = pd.concat(tables).loc[labels.index, ["on_border", "size"]].assign(**{"class": "any"})
    reason = exclusion_reasons(table, exclude_border, size or (None, None))
    border, other = (int((reason == why).sum()) for why in ("border", "size"))
    parts = [f"{border:,} at the border of their image"] * bool(border) + [f"{other:,} by their size"] * bool(other)
    return labels[reason == ""], f"Annotated objects left out of training: {' and '.join(parts)}." if parts else ""
