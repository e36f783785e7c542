"""Training job: model selection and training, stored as one run."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from svetlana_jupyter.core.allowed_cues import SMALL_CNN, candidate_presets
from svetlana_jupyter.core.settings import AUTO_PRESET, DEFAULT_PRESET, FOREST, TrainingSettings
from svetlana_jupyter.core.stats.model_selection import augmentation_warning
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.jobs import Progress, Stop, thread_count
from svetlana_jupyter.project.run_scoring import CUTTING, NOT_SCORED, RunScored, Scoring, forward, save_score
from svetlana_jupyter.project.runs import (
    AUGMENTATION,
    COMPARISON,
    LABELS_FILE,
    NETWORK,
    RECORD_FILE,
    Run,
    last_search,
    new_run,
    search_record,
)
from svetlana_jupyter.project.scoring_plan import is_check_needed, plain_table
from svetlana_jupyter.project.storage import write_json, write_parquet
from svetlana_jupyter.project.training_task import label_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from svetlana_jupyter.learn.dataset import AnnotatedImage, TrainingData, WorkProgress
    from svetlana_jupyter.learn.novelty import ReferenceDistribution
    from svetlana_jupyter.learn.preset_search import SearchResult, SearchStopped
    from svetlana_jupyter.learn.training import FitResult
    from svetlana_jupyter.project.training_task import TrainingTask

SEARCH_AGAIN_FACTOR = 2  # growth of the number of annotations after which presets are compared again
MAX_SAMPLE_BYTES = 2**30  # memory for the patches of all candidate presets together
STOPPED_SEARCH = "No accuracy estimate yet: the comparison of presets was stopped."
DEFAULT_USED = "The default preset was used, since presets are compared only"


@dataclass(frozen=True)
class LearningCurve:
    """Learning curve of a training run, with one value per epoch.

    A score is None if there is no validation split. ``total`` is the number of planned epochs, 0 before the first.
    """

    epochs: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    scores: tuple[float | None, ...] = ()
    total: int = 0


@dataclass(frozen=True)
class TrainingAbandoned:
    """Event at the end of a training that was stopped before it had any result."""


@dataclass(frozen=True)
class FirstRun:
    """Event with a run that can be used while presets are compared."""

    run: Run


@dataclass(frozen=True)
class RunUnsaved:
    """Event with a trained run that could not be written; ``save`` writes it."""

    save: Callable[[], Run]


class RunNotSavedError(ProjectError):
    """Error raised if a trained run cannot be written to disk."""


def train_run(
    task: TrainingTask, stop: Stop
) -> Iterator[Progress | LearningCurve | FirstRun | Run | RunUnsaved | RunScored | Scoring | TrainingAbandoned]:
    """Select a preset, train a classifier, and store it as a run.

    If presets are compared, a random forest on all annotations is stored as the first run after seconds, unless the
    task says otherwise. A second run follows if another preset is better. The comparison of presets is also the score
    of the run; otherwise, a `Scoring` at the end computes it. After a stop, the best classifier so far is kept without
    a score; before any training, no run is stored.
    """
    yield Progress(0, 1, "starting")  # the first import of torch takes a second or two
    from svetlana_jupyter.learn.novelty import fit_reference

    start = time.monotonic()
    choice = yield from choose_preset(task, stop)
    if choice is None:
        yield TrainingAbandoned()
        return
    task = replace(task, settings=choice.settings)
    if choice.first is not None:
        yield from _score_first(choice, time.monotonic() - start)
        if choice.is_first_selected:
            return
    samples: TrainingData | None = None
    fitted = choice.fitted
    if not stop():
        samples = yield from forward(task.collect_with_progress(task.settings), CUTTING, stop, later=None)
    if samples is not None:
        trained = yield from _fit(samples, stop)
        fitted = trained if fitted is None or not trained.stopped else fitted
    if fitted is None:
        yield TrainingAbandoned()
        return
    seconds = time.monotonic() - start
    # Without a reference, no image is reported as out-of-distribution.
    reference = None if stop() or samples is None else fit_reference(samples)
    run = yield from _save(partial(_save_run, task, choice, fitted, reference, seconds))
    yield run
    yield from _start_scoring(task, choice, samples, run, stop)


def _start_scoring(
    task: TrainingTask, choice: PresetChoice, samples: TrainingData | None, run: Run, stop: Stop
) -> Iterator[RunScored | Scoring]:
    """Score a run as far as this takes no time; the rest is computed later."""
    from svetlana_jupyter.learn.cross_validation import STOPPED_MESSAGE, describe_too_few, scored_objects

    held_out = None
    if samples is None or run.stopped:
        yield save_score(run, STOPPED_SEARCH if samples is None else STOPPED_MESSAGE, {})
        return
    if not len(scored_objects(samples.targets)):
        yield save_score(run, describe_too_few(samples), {})
        return
    if choice.search_result is not None:
        scored = _score_search(samples, choice.search_result, run)
        held_out, run = choice.search_result.nested_table, scored.run
        yield scored
    if run.missing_scores and not stop():
        yield Scoring(run, task, samples, held_out)


def _save(save: Callable[[], Run]) -> Generator[RunUnsaved, None, Run]:
    try:
        run = save()
    except RunNotSavedError:
        yield RunUnsaved(save)
        raise
    return run


def _score_first(choice: PresetChoice, seconds: float) -> Iterator[Run | RunScored]:
    """Score the first run by the comparison of presets, which may have selected it."""
    from svetlana_jupyter.learn.cross_validation import describe_score_source, describe_unscored

    run, result, samples = choice.first, choice.search_result, choice.samples
    assert run is not None
    assert samples is not None
    if choice.is_first_selected:
        run = replace(run, choice=choice.explanation, seconds=seconds)
        yield run
    if result is None:
        yield save_score(run, STOPPED_SEARCH, {}, missing=run.missing_scores)
    elif choice.is_first_selected:
        yield _score_search(samples, result, run)
        assert choice.search_record is not None
        write_json(run.path / RECORD_FILE, choice.search_record)
    else:
        table = next(one.table for one in result.candidates if one.preset == run.settings["preset"])
        note = f"{describe_score_source(len(table), result.kept_whole)}. {describe_unscored(samples)}".rstrip()
        scored = save_score(run, note, {"network": table, "forest": table})
        yield replace(scored, is_provisional=True)


def _save_run(
    task: TrainingTask, choice: PresetChoice, fitted: FitResult, reference: ReferenceDistribution | None, seconds: float
) -> Run:
    """Write a trained classifier as a run, or raise a `RunNotSavedError`."""
    from safetensors import SafetensorError

    try:
        with new_run(task.folder) as (folder, finish):
            fitted.classifier.save(folder)
            if reference is not None:
                reference.save(folder)
            if choice.search_record is not None:
                write_json(folder / RECORD_FILE, choice.search_record)
            write_parquet(folder / LABELS_FILE, task.labels_table())
            return finish(_make_run(task, choice, fitted, reference, seconds))
    except (OSError, SafetensorError) as error:
        raise RunNotSavedError(
            f"The trained run could not be written to {task.folder} ({error}). Free disk space, then call "
            "project.runs.save() to keep it; it is lost when the kernel ends."
        ) from error


def _fit(samples: TrainingData, stop: Stop) -> Generator[Progress | LearningCurve, None, FitResult]:
    from svetlana_jupyter.learn.training import Batch, Epoch, FitResult, TrainingNote, fit

    curve, epochs = LearningCurve(), samples.settings.epochs
    for event in fit(samples, stop):
        if isinstance(event, Batch):
            yield Progress(event.epoch - 1 + event.batch / event.batches, event.epochs, "training")
        elif isinstance(event, Epoch):
            curve = LearningCurve(
                (*curve.epochs, event.epoch), (*curve.losses, event.loss), (*curve.scores, event.score), event.epochs
            )
            yield curve
        elif isinstance(event, TrainingNote):
            yield Progress(len(curve.epochs), epochs, event.text)
        else:
            fitted = event
    assert isinstance(fitted, FitResult)
    return fitted


def _make_run(
    task: TrainingTask, choice: PresetChoice, fitted: FitResult, reference: ReferenceDistribution | None, seconds: float
) -> Run:
    names, counts = task.class_names, task.labels.value_counts()
    settings = fitted.classifier.specification.settings
    is_scored_later = choice.search_result is None and not fitted.stopped
    return Run(
        name="",
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=settings.model_dump(mode="json"),
        classes={class_id: names[class_id] for class_id in fitted.classifier.classes},
        labels={names[class_id]: int(counts[class_id]) for class_id in fitted.classifier.classes},
        annotations=label_digest(task.labels),
        history=[{"epoch": epoch.epoch, "loss": epoch.loss, "score": epoch.score} for epoch in fitted.history],
        seconds=seconds,
        stopped=fitted.stopped,
        note=NOT_SCORED,
        missing_scores=_scores_of(settings) if is_scored_later else [],
        caveat=_caveat(task, choice),
        remarks=[*filter(None, [task.explanation]), *fitted.notes],
        left_out=reference.left_out if reference is not None else None,
        choice=choice.explanation,
        precision=fitted.classifier.precision,
    )


def _scores_of(settings: TrainingSettings) -> list[str]:
    """Return the scores of a run that is trained with these settings."""
    if settings.architecture == FOREST:
        return [NETWORK]
    return [NETWORK, AUGMENTATION, COMPARISON] if settings.has_network else [NETWORK, COMPARISON]


def _caveat(task: TrainingTask, choice: PresetChoice) -> str:
    """Return why the score of a run may be too good; "" otherwise."""
    if name := task.setup.run:
        return f"Training started from run {name}, which may have seen these objects: the score may be too good."
    if choice.run:
        return f"Run {choice.run} selected the preset on some of these objects: the score may be slightly too good."
    return ""


@dataclass(frozen=True)
class PresetChoice:
    """Settings of a training with a concrete preset.

    Attributes
    ----------
    settings : TrainingSettings
    explanation : str
        A sentence about how the preset was selected; "" if the settings name it.
    search_result : SearchResult or None
        Result of the comparison of presets, if there was one.
    search_record : mapping or None
        The stored part of the result (`project.runs.search_record`).
    run : str
        The earlier run in which the preset was selected, "" if there is none.
    fitted : FitResult or None
        The best classifier of the comparison, trained on part of the objects, in case that training is stopped.
    first : Run or None
        The forest that was stored before the comparison of presets.
    samples : TrainingData or None
        Data of the first run.
    """

    settings: TrainingSettings
    explanation: str = ""
    search_result: SearchResult | None = None
    search_record: Mapping[str, Any] | None = None
    run: str = ""
    fitted: FitResult | None = None
    first: Run | None = None
    samples: TrainingData | None = None

    @property
    def is_first_selected(self) -> bool:
        """Whether the first run has the selected preset, so that no other is trained."""
        return self.first is not None and self.first.settings["preset"] == self.settings.preset


def choose_preset(
    task: TrainingTask, stop: Stop
) -> Generator[Progress | FirstRun | RunUnsaved, None, PresetChoice | None]:
    """Select the preset of a training, and return the choice; None if stopped.

    Presets are compared unless an earlier run has compared them with enough annotations. In that case, the preset and
    the number of epochs of the earlier run are used again; patch settings are derived from the current annotations.
    """
    settings = task.settings
    if settings.preset != AUTO_PRESET:
        return PresetChoice(settings)
    presets = candidate_presets(settings)
    if settings.start_from is not None:
        return _preset_of_initial_run(task, presets)
    default = presets[DEFAULT_PRESET]
    if len(presets) == 1:
        reason = f"{DEFAULT_USED} with the architecture {SMALL_CNN}." if settings.has_network else ""
        return PresetChoice(default, reason)
    parts = task.parts()
    targets = _targets(parts)
    previous = None if task.search else previous_choice(task.runs, settings, np.unique(targets).tolist())
    if previous is not None and len(targets) < SEARCH_AGAIN_FACTOR * sum(previous[0].labels.values()):
        run, chosen = previous
        return PresetChoice(chosen, f"Preset {chosen.preset} was selected in run {run.name}.", run=run.name)
    from svetlana_jupyter.learn.cross_validation import MIN_PER_CLASS, scored_objects

    if len(np.unique(targets)) < 2:
        return PresetChoice(default)  # training will raise an error
    if len(scored_objects(targets)) == 0:
        reason = f"{DEFAULT_USED} with at least {MIN_PER_CLASS} annotated objects of two classes."
        return PresetChoice(default, reason)
    return (yield from _compare_presets(task, presets, parts, stop))


def previous_choice(
    runs: Iterable[Run], settings: TrainingSettings, classes: Iterable[int]
) -> tuple[Run, TrainingSettings] | None:
    """Return the latest run that compared presets for the same settings and classes.

    The result is the run and the settings that were selected, or None if there is no such run.

    >>> previous_choice([], TrainingSettings(), [1, 2]) is None
    True
    """
    found = last_search(runs, settings, classes)
    presets = candidate_presets(settings)
    if found is None or found[1]["chosen"] not in presets:
        return None
    run, record = found
    return run, _with_epochs(presets[record["chosen"]], record.get("epochs"))


def _with_epochs(settings: TrainingSettings, epochs: int | None) -> TrainingSettings:
    return settings if not settings.has_network or epochs is None else settings.changed(epochs=epochs)


def _preset_of_initial_run(task: TrainingTask, presets: Mapping[str, TrainingSettings]) -> PresetChoice:
    """Return the preset of the run that provides the initial weights.

    The weights fit no other preset. A comparison of presets would be biased, since the weights were trained with the
    labels.
    """
    name = task.setup.run
    preset = next((run.settings["preset"] for run in task.runs if run.name == name), DEFAULT_PRESET)
    settings = presets.get(preset, presets[DEFAULT_PRESET])
    if not name or not settings.has_network or settings.preset != preset:
        return PresetChoice(presets[DEFAULT_PRESET], f"{DEFAULT_USED} if training starts from scratch.")
    return PresetChoice(settings, f"Preset {preset} was used as in run {name}, from which training started.")


def _compare_presets(
    task: TrainingTask, presets: Mapping[str, TrainingSettings], parts: Sequence[AnnotatedImage], stop: Stop
) -> Generator[Progress | FirstRun | RunUnsaved, None, PresetChoice | None]:
    """Compare the presets and return the choice; first store a forest if wanted.

    The result is None if nothing was trained.
    """
    from svetlana_jupyter.learn.preset_search import SearchStopped, search

    start = time.monotonic()
    first = PresetChoice(task.settings)
    for settings in presets.values():
        if settings.architecture == FOREST and task.stores_first:
            first = yield from _train_first(task, settings, stop)
    if stop():
        return first if first.first is not None else None
    frozen, subset, growth = _plan_comparison(task, presets, parts)

    def collect(names: Sequence[str]) -> Iterator[WorkProgress | Mapping[str, TrainingData]]:
        known: dict[str, TrainingData] = {}
        if first.samples is not None and first.settings.preset in names:  # measured already
            known = {first.settings.preset: _select_samples(first.samples, subset)}
        others = [name for name in names if name not in known]
        if not others:
            yield known
            return
        for event in task.collect_for_each([presets[name] for name in others], subset):
            yield known | dict(zip(others, event, strict=True)) if isinstance(event, list) else event

    yield Progress(0, 1, "comparing presets", later=None)
    workers = task.setup.settings.threads or thread_count("script")
    events = search(frozen, collect, task.settings.epochs != TrainingSettings().epochs, workers, stop)
    result: SearchResult | SearchStopped | None
    # The most expensive presets are planned, since it is not known yet which are the best.
    result = yield from forward(events, "comparing presets", factor=growth, at_most=True)
    if result is None:
        return first if first.first is not None else None
    if isinstance(result, SearchStopped):
        is_first = first.first is not None and result.preset == first.settings.preset
        return first if is_first else replace(_stopped_choice(result), first=first.first, samples=first.samples)
    chosen = result.candidates[0]
    return replace(
        first,
        settings=_with_epochs(presets[chosen.preset], chosen.settings.epochs),
        explanation=_explain_selection(result),
        search_result=result,
        search_record=search_record(task.settings, result, time.monotonic() - start),
        fitted=None if result.fitted is None else _with_stop_note(result.fitted),
    )


def _train_first(
    task: TrainingTask, settings: TrainingSettings, stop: Stop
) -> Generator[Progress | FirstRun | RunUnsaved, None, PresetChoice]:
    """Store a forest to use while presets are compared."""
    from svetlana_jupyter.learn.novelty import fit_reference
    from svetlana_jupyter.learn.training import FitResult, fit

    start, choice = time.monotonic(), PresetChoice(settings, "First result, before presets were compared.")
    samples: TrainingData | None
    samples = yield from forward(task.collect_with_progress(settings), "measuring objects", stop, later=None)
    if samples is None:
        return choice
    *_, fitted = fit(samples, stop)
    assert isinstance(fitted, FitResult)
    reference = None if stop() else fit_reference(samples)
    seconds = time.monotonic() - start
    save = partial(_save_run, replace(task, settings=settings), choice, fitted, reference, seconds)
    run = yield from _save(save)
    yield FirstRun(run)
    return replace(choice, first=run, samples=samples)


def _plan_comparison(
    task: TrainingTask, presets: Mapping[str, TrainingSettings], parts: Sequence[AnnotatedImage]
) -> tuple[dict[str, TrainingSettings], list[AnnotatedImage], float]:
    """Return the affordable presets, the objects to compare them on, and a factor.

    The factor is the duration of the final training relative to that of a comparison. It takes more steps per epoch if
    presets are compared on a sample of the annotations.
    """
    from svetlana_jupyter.learn.dataset import max_objects_in_memory, resolve_settings
    from svetlana_jupyter.learn.preset_search import MAX_SEARCH_OBJECTS
    from svetlana_jupyter.learn.search_plan import affordable_candidates

    limit = min(MAX_SEARCH_OBJECTS, max_objects_in_memory(parts, list(presets.values()), MAX_SAMPLE_BYTES))
    subset = _subsample(parts, limit, task.settings.seed)
    n = sum(len(classes) for _, _, classes in subset)
    frozen = dict(zip(presets, resolve_settings(subset, list(presets.values())), strict=True))
    if task.settings.epochs == TrainingSettings().epochs:  # otherwise the user wants these epochs, whatever they cost
        frozen = {name: frozen[name] for name in affordable_candidates(frozen, n, len(parts[0][0].channels))}
    return frozen, subset, 1.0 if task.settings.steps else sum(len(classes) for _, _, classes in parts) / n


def _select_samples(samples: TrainingData, parts: Sequence[AnnotatedImage]) -> TrainingData:
    """Return the samples of the objects in ``parts``."""
    wanted = {(pair.name, label) for pair, _, classes in parts for label in classes.index.tolist()}
    keys = zip(samples.images.tolist(), samples.objects.tolist(), strict=True)
    return samples.subset(np.array([key in wanted for key in keys]))


def _with_stop_note(fitted: FitResult) -> FitResult:
    """Return the classifier of a fold with a note, to keep if training is stopped."""
    note = f"The training on all annotations was stopped: this classifier was trained on {fitted.n} of them."
    return replace(fitted, stopped=True, notes=(*fitted.notes, note))


def _explain_selection(result: SearchResult) -> str:
    """Return a sentence about the selected preset and the other candidates."""
    n, untried = len(result.nested_table), len(result.untried)
    text = f"Preset {result.candidates[0].preset} was selected among {len(result.candidates)} on {n} objects"
    others = "another preset" if untried == 1 else f"{untried} other presets"
    return f"{text}; {others} could gain too little for the time of their training." if untried else f"{text}."


def _stopped_choice(result: SearchStopped) -> PresetChoice:
    """Return the best candidate of a stopped comparison, with its classifier."""
    epochs = len(result.fitted.history)
    trained = f"trained on {result.fitted.n} objects" + (
        f" for {epochs} epoch{'' if epochs == 1 else 's'}" if result.settings.has_network else ""
    )
    why = "was the best so far" if result.finished else "was the first to be trained"
    text = f"The comparison of presets was stopped: preset {result.preset} {why}, {trained}."
    return PresetChoice(result.settings, text, fitted=result.fitted)


def _targets(parts: Sequence[AnnotatedImage]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *(classes.to_numpy(np.int64) for _, _, classes in parts)])


def _subsample(parts: Sequence[AnnotatedImage], limit: int, seed: int) -> list[AnnotatedImage]:
    """Return the subset of annotated objects on which presets are compared."""
    from svetlana_jupyter.learn.preset_search import subsample_objects

    chosen = subsample_objects(_targets(parts), seed, limit)
    offsets = np.cumsum([0, *(len(classes) for _, _, classes in parts)])
    return [
        (pair, objects, classes.iloc[chosen[(chosen >= first) & (chosen < last)] - first])
        for (pair, objects, classes), first, last in zip(parts, offsets, offsets[1:], strict=False)
    ]


def _score_search(samples: TrainingData, result: SearchResult, run: Run) -> RunScored:
    """Score the selection of presets by the nested cross-validation of the search."""
    from svetlana_jupyter.learn.cross_validation import describe_score_source, describe_unscored

    table, plain = result.nested_table, plain_table(samples, result)
    forest = [one.table for one in result.candidates if one.settings.architecture == FOREST]
    source = describe_score_source(len(table), result.kept_whole)
    note = f"{source}; each fold is scored with the preset selected on the other folds (nested cross-validation)."
    note = f"{note} {describe_unscored(samples)}".rstrip()
    is_checked = plain is not None or not is_check_needed(samples.settings, table)
    warning = ""
    if is_checked and plain is not None and is_check_needed(samples.settings, table):
        warning = augmentation_warning(samples.settings.augmentation, table, plain)
    held_out = dict(zip(("network", "forest"), [table, *forest]))
    return save_score(run, note, held_out, warning, [] if is_checked else [AUGMENTATION])
