"""Grouped cross-validation: accuracy on objects of held-out groups."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.stats.metrics import Estimate, score
from svetlana_jupyter.learn.augmentation import center_crop
from svetlana_jupyter.learn.classifier import Classifier, NetworkClassifier
from svetlana_jupyter.learn.dataset import WorkProgress
from svetlana_jupyter.learn.inference import default_batch_size
from svetlana_jupyter.learn.splits import split_folds
from svetlana_jupyter.learn.training import Batch, FitResult, fit, never_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from svetlana_jupyter.learn.dataset import TrainingData

STOPPED_MESSAGE = "Stopped before the score was computed."
MIN_PER_CLASS = 5  # annotated objects of a scored class; with fewer, the confidence interval is too wide to be useful


@dataclass(frozen=True)
class CrossValidationResult:
    """Result of a cross-validation.

    Parameters
    ----------
    message : str
        Description of how the score was computed, or the reason why there is no score.
    table : DataFrame
        One row per object; see `held_out_table`. Empty if there is no score.
    accuracy : Estimate or None
        Accuracy with its 95 % confidence interval over groups (`core.stats.metrics.score`); None if there is no score.
    parameters : int or None
        Number of trainable parameters of one network; None for a forest.
    """

    message: str
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    accuracy: Estimate | None = None
    parameters: int | None = None


def cross_validate(
    samples: TrainingData, count: int | None = None, stop: Callable[[], bool] = never_stop
) -> Iterator[WorkProgress | CrossValidationResult]:
    """Predict each fold with a classifier trained on all other folds.

    Folds consist of whole groups (wells, patients, images, regions) if every class occurs in at least two groups, so
    that neighboring objects, which are similar, are not in both training and test data (`learn.splits.split_folds`).

    Parameters
    ----------
    samples : TrainingData
        Objects of classes with fewer than five objects are used for training in every fold, but are not scored. If
        fewer than two classes remain, the result has a message instead of a score.
    count : int, optional
        Number of folds; by default ``settings.folds``.
    stop : callable
        Called before every batch; once it returns True, cross-validation ends with a result without a score.

    Yields
    ------
    WorkProgress
        After every batch and after every fold, in folds.
    CrossValidationResult
        At the end.
    """
    scored = scored_objects(samples.targets)
    if len(scored) == 0:
        yield CrossValidationResult(describe_too_few(samples))
        return
    parts, kept_whole = split_folds(samples.subset(scored), count or samples.settings.folds)
    # The held-out fold is the test set. All other samples are used for training, without a validation set.
    samples = replace(samples, settings=samples.settings.changed(held_out=0.0))
    probabilities = np.zeros((len(samples), len(samples.classes)), np.float32)
    folds, parameters = np.zeros(len(samples), np.int64), None
    for done, part in enumerate((scored[part] for part in parts), start=1):
        rest = np.setdiff1d(np.arange(len(samples)), part)
        folds[part] = done
        for last in fit(samples.subset(rest), stop):
            if isinstance(last, Batch) and (last.epoch, last.batch) < (last.epochs, last.batches):
                share = (last.epoch - 1 + last.batch / last.batches) / last.epochs
                yield WorkProgress(done - 1 + share, len(parts))
        assert isinstance(last, FitResult)
        if stop():
            yield CrossValidationResult(STOPPED_MESSAGE)
            return
        probabilities[part] = predicted_probabilities(last.classifier, samples.subset(part), samples.classes)
        if isinstance(last.classifier, NetworkClassifier):
            parameters = sum(values.numel() for values in last.classifier.module.parameters())
        yield WorkProgress(done, len(parts))
    table = held_out_table(samples.subset(scored), folds[scored], probabilities[scored], samples.classes)
    names = {class_id: str(class_id) for class_id in samples.classes}
    accuracy = score(table["truth"], table["predicted"], names, table["group"]).accuracy
    message = f"{describe_score_source(len(table), kept_whole)}. {describe_unscored(samples)}".rstrip()
    yield CrossValidationResult(message, table, accuracy, parameters)


def cross_validation_work(samples: TrainingData) -> float:
    """Return the work of a cross-validation, in trainings on all samples.

    The result is 0 if the samples are too few for a score.
    """
    scored = scored_objects(samples.targets)
    if len(scored) == 0:
        return 0.0
    parts, _ = split_folds(samples.subset(scored), samples.settings.folds)
    # The number of steps per epoch depends on the number of samples unless the settings determine it.
    return float(len(parts)) if samples.settings.steps else len(parts) - len(scored) / len(samples)


def held_out_table(
    samples: TrainingData, folds: NDArray[np.int64], probabilities: NDArray[np.float32], classes: tuple[int, ...]
) -> pd.DataFrame:
    """Return a table of held-out predictions, in the format that runs store.

    Parameters
    ----------
    samples : TrainingData
    folds : int64 of shape (n,)
        Number of the fold in which each sample was held out.
    probabilities : float32 of shape (n, number of classes)
        Class probabilities, predicted by a classifier that was not trained on the fold of the sample.
    classes : tuple of int
        Class ids of the probabilities.

    Returns
    -------
    DataFrame
        One row per object: ``image``, ``object``, ``group``, ``fold``, ``truth`` and ``predicted`` (class ids), and
        ``p_<class id>`` per class.
    """
    columns = {"image": samples.images, "object": samples.objects, "group": samples.groups, "fold": folds}
    columns |= {"truth": samples.targets, "predicted": np.array(classes)[probabilities.argmax(axis=1)]}
    columns |= {f"p_{class_id}": p for class_id, p in zip(classes, probabilities.T, strict=True)}
    return pd.DataFrame(columns)


def scored_objects(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the objects whose class has enough objects for a score.

    The result is empty if fewer than two classes have enough.

    >>> scored_objects(np.array([1] * 5 + [2] * 3 + [3] * 5)).tolist()
    [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
    """
    ids, counts = np.unique(targets, return_counts=True)
    enough = ids[counts >= MIN_PER_CLASS]
    return np.flatnonzero(np.isin(targets, enough)) if len(enough) > 1 else np.empty(0, np.int64)


def describe_too_few(samples: TrainingData) -> str:
    """Return a sentence about samples that are too few for a score."""
    need = f"a score needs at least {MIN_PER_CLASS} annotated objects of two classes"
    return f"No score yet: {need}, but {_scarce_classes(samples.targets, samples.names)}."


def describe_unscored(samples: TrainingData) -> str:
    """Return a sentence about classes that are left out of the score, or ""."""
    scarce = _scarce_classes(samples.targets, samples.names)
    need = f"which needs {MIN_PER_CLASS} annotated objects of a class"
    return f"Left out of the score, {need}: {scarce}." if scarce else ""


def _scarce_classes(targets: NDArray[np.int64], names: Mapping[int, str]) -> str:
    """Describe the classes with too few annotated objects, such as "torn has 3"."""
    ids, counts = np.unique(targets, return_counts=True)
    scarce = [(class_id, n) for class_id, n in zip(ids.tolist(), counts.tolist()) if n < MIN_PER_CLASS]
    return ", ".join(f"{names.get(class_id, f'class {class_id}')} has {n}" for class_id, n in scarce)


def predicted_probabilities(
    classifier: Classifier, testing: TrainingData, classes: tuple[int, ...]
) -> NDArray[np.float32]:
    """Predict the class probabilities (n, number of classes) of held-out samples."""
    inputs = testing.inputs
    if isinstance(classifier, NetworkClassifier):
        inputs = center_crop(inputs, classifier.patches.shape)
    pieces = np.array_split(inputs, -(-len(inputs) // default_batch_size(classifier)))
    probabilities = np.zeros((len(inputs), len(classes)), np.float32)  # 0 for classes without training objects
    columns = np.searchsorted(classes, classifier.classes)
    probabilities[:, columns] = np.concatenate([classifier.classify(piece) for piece in pieces])
    return probabilities


def describe_score_source(n: int, kept_whole: str) -> str:
    """Describe how a score was computed: number of objects, and units held out."""
    reason = "" if kept_whole == "whole groups" else " (the classes occur in too few groups)"
    return f"Cross-validation on {n} annotated objects, held out by {kept_whole}{reason}"
