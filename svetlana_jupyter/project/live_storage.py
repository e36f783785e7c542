"""Storage of live predictions as a numbered run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from svetlana_jupyter.core.allowed_cues import restrict_to_allowed_cues
from svetlana_jupyter.core.settings import LIVE_CLASSIFIER, TrainingSettings
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.prediction_parts import prediction_key
from svetlana_jupyter.project.runs import LABELS_FILE, Run, held_out_file, new_run
from svetlana_jupyter.project.storage import write_parquet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from svetlana_jupyter.learn.dataset import TrainingData
    from svetlana_jupyter.learn.novelty import ReferenceDistribution
    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.live_results import LiveResult
    from svetlana_jupyter.project.object_features import ObjectFeatures

NO_FEATURES = "its features cannot be computed"
UPDATE_FIRST = "changed since the live predictions. Call project.live.update() first."


@dataclass(frozen=True)
class RunKept:
    """Event with a run that holds former live predictions."""

    run: Run


@dataclass(frozen=True)
class LiveSnapshot:
    """Live predictions of one moment, with what is stored beside them.

    Attributes
    ----------
    result : LiveResult
    run : Run
        The live run.
    scored : DataFrame or None
        Held-out predictions of the scored labels (`Run.held_out`).
    labels : DataFrame
        Labels of the fit (`Run.training_labels`).
    settings : TrainingSettings
        Settings of the project.
    """

    result: LiveResult
    run: Run
    scored: pd.DataFrame | None
    labels: pd.DataFrame
    settings: TrainingSettings = field(repr=False)


def keep_live(
    snapshot: LiveSnapshot, folder: Path, images: ImageCollection, features: ObjectFeatures, stop: Stop
) -> Iterator[Progress | RunKept]:
    """Write live predictions as a run, with their classifier.

    The run becomes visible when it is complete; a stop leaves none.

    Raises
    ------
    ProjectError
        If an image or the settings have changed since the predictions, or if the run cannot be written.
    """
    from safetensors import SafetensorError

    from svetlana_jupyter.learn.live_classifier import make_live_classifier
    from svetlana_jupyter.learn.novelty import fit_reference
    from svetlana_jupyter.learn.specification import ClassifierSpec

    result, model = snapshot.result, snapshot.result.model
    assert model is not None
    _check_unchanged(snapshot, features)
    yield Progress(0, len(result.images), "keeping the live predictions")
    samples = _training_data(snapshot, images)
    if samples.classes != next(iter(result.images.values())).classes:
        raise ProjectError(f"The features of some labels were computed or have {UPDATE_FIRST}")
    names = tuple(snapshot.run.classes.get(class_id, f"class {class_id}") for class_id in samples.classes)
    specification = ClassifierSpec(samples.classes, names, samples.ndim, samples.channels, samples.settings)
    classifier = make_live_classifier(specification, result.data.matrix.fitted, model)
    reference = fit_reference(samples)
    run = _stored_run(snapshot, samples.settings, reference)
    try:
        with new_run(folder) as (draft, finish):
            classifier.save(draft)
            write_parquet(draft / LABELS_FILE, snapshot.labels)
            if snapshot.scored is not None:
                write_parquet(held_out_file(draft, "network"), snapshot.scored)
            if reference is not None:
                reference.save(draft)
            for number, name in enumerate(result.images, start=1):
                table = _predictions(result, name, images, reference)
                replace(run, path=draft).write_predictions(name, table)
                yield Progress(number, len(result.images), f"keeping the predictions of {name}")
                if stop():
                    return
            kept = finish(run)
    except (OSError, SafetensorError) as error:
        raise ProjectError(
            f"The live predictions could not be written to {folder} ({error}). Free disk space, then keep them again."
        ) from error
    yield RunKept(kept)


def _check_unchanged(snapshot: LiveSnapshot, features: ObjectFeatures) -> None:
    """Raise a `ProjectError` if the predictions are of other pixels or settings."""
    before, now = snapshot.result.data.matrix, features.matrix(list(snapshot.result.images))
    if [each.digest for each in now.fitted.sources] != [each.digest for each in before.fitted.sources]:
        raise ProjectError(f"The training settings or features have {UPDATE_FIRST}")
    for name, image in before.images.items():
        current = now.images.get(name)
        if current is None or [part.key for part in current.parts] != [part.key for part in image.parts]:
            raise ProjectError(f"The image {name!r} or its mask has {UPDATE_FIRST}")


def _training_data(snapshot: LiveSnapshot, images: ImageCollection) -> TrainingData:
    """Return the features and labels of the fit."""
    from svetlana_jupyter.learn.dataset import TrainingData

    data = snapshot.result.data
    has_features, inputs = data.matrix.find(data.labels.index)
    labels, entry = data.labels[has_features], images.entry(next(iter(snapshot.result.images)))
    values = restrict_to_allowed_cues(snapshot.settings).model_dump()
    values |= {"preset": LIVE_CLASSIFIER, "architecture": LIVE_CLASSIFIER, "start_from": None}
    return TrainingData(
        inputs=inputs,
        targets=np.asarray(labels, np.int64),
        groups=data.groups[has_features],
        images=labels.index.get_level_values(0).to_numpy(str),
        objects=labels.index.get_level_values(1).to_numpy(np.int64),
        names=snapshot.run.classes,
        ndim=len(entry.shape),
        channels=tuple(map(str, entry.channels)),
        settings=TrainingSettings(**values),
        edit_groups=np.full(len(labels), ""),
    )


def _stored_run(snapshot: LiveSnapshot, settings: TrainingSettings, reference: ReferenceDistribution | None) -> Run:
    live = snapshot.run
    return Run(
        name="",
        finished=live.finished,
        settings=settings.model_dump(mode="json"),
        classes=live.classes,
        labels=live.labels,
        annotations=live.annotations,
        history=[],
        seconds=0.0,
        stopped=False,
        note=live.note,
        left_out=None if reference is None else reference.left_out,
        choice="These are live predictions that were kept.",
    )


def _predictions(
    result: LiveResult, name: str, images: ImageCollection, reference: ReferenceDistribution | None
) -> pd.DataFrame:
    """Return the predictions for an image, as a prediction job stores them.

    They have a key only if all objects are predicted, so that others can be predicted later.
    """
    from svetlana_jupyter.learn.inference import sample_for_novelty

    predicted, features, objects = result.images[name], result.data.matrix.images[name], images.objects(name, wait=True)
    table, fingerprint = predicted.table.sort_index(), images.image_fingerprint(name)
    attributes: dict[Any, Any] = {"mask": predicted.mask, "image": fingerprint, "pixels": images.pixel_hash(name)}
    attributes["precision"] = "float32"
    unknown = objects.index.difference(table.index)
    is_late = features.is_waiting | (features.is_present & (predicted.predicted == 0))
    if not is_late.any() and objects.index.equals(features.labels):
        attributes["key"] = prediction_key(fingerprint, predicted.mask, objects, False, "float32")
        if len(unknown):
            attributes["failed"] = [[int(label), NO_FEATURES] for label in unknown]
    compared = features.labels.get_indexer(pd.Index(sample_for_novelty(objects)))
    compared = compared[(compared >= 0) & features.is_present[compared]]
    if reference is not None and len(compared):
        novelty = reference.novelty(features.read(compared), has_mask=False)
        attributes |= {"asked": len(compared), "unlike": float((novelty > 1).mean())}
    table.attrs = attributes
    return table
