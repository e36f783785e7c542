"""How well a classifier would do on objects it was not trained on: cross-validation by groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from svetlana_jupyter.core.stats.metrics import score
from svetlana_jupyter.learn.augmentation import center_crop
from svetlana_jupyter.learn.classifier import Classifier, NetworkClassifier
from svetlana_jupyter.learn.dataset import TrainingData
from svetlana_jupyter.learn.forest import ForestClassifier
from svetlana_jupyter.learn.inference import BATCH_SIZES
from svetlana_jupyter.learn.splits import split_folds
from svetlana_jupyter.learn.training import FitResult, fit, never_stop

STOPPED_MESSAGE = "Stopped before the score was known."
MIN_PER_CLASS = 5  # of each class: with fewer, the interval would say nothing


@dataclass(frozen=True)
class FoldProgress:
    """Progress: this many of the folds are trained and scored."""

    done: int
    total: int


@dataclass(frozen=True)
class CrossValidationResult:
    """What cross-validation found.

    Parameters
    ----------
    accuracy, low, high : float or None
        Share of right answers with its 95 % interval over groups (`core.stats.metrics.score`); None where there are
        too few
        annotations.
    balanced_accuracy : float or None
        Mean over classes of the share of right answers.
    n : int
        Number of annotated objects scored.
    message : str
        The source of the score, or why there is none.
    table : DataFrame
        One row an object, as `held_out_table` gives it.
    parameters : int or None
        Numbers that training finds in one of the networks; None for a forest.
    """

    accuracy: float | None
    low: float | None
    high: float | None
    balanced_accuracy: float | None
    n: int
    message: str
    table: pd.DataFrame
    parameters: int | None = None


def cross_validate(
    samples: TrainingData, count: int | None = None, stop: Callable[[], bool] = never_stop
) -> Iterator[FoldProgress | CrossValidationResult]:
    """Train on all folds but one and score that one, for each.

    Folds are whole groups (wells, patients, images, regions) where every class lives in at least two of them, so that
    neighbours which look alike are not on both sides (`learn.splits.folds`).

    Parameters
    ----------
    samples : Samples
        With at least five of each class; otherwise the result is a sentence instead of numbers.
    count : int, optional
        Number of folds; by default that of the settings.
    stop : callable
        Asked before every batch; once it returns True, the result says that it was stopped.
    """
    sentence = reason_for_no_score(samples)
    if sentence:
        yield _unknown(samples, sentence)
        return
    parts, apart = split_folds(samples, count or samples.settings.folds)
    # A fold is what is held out; all the rest trains.
    samples = replace(samples, settings=samples.settings.changed(held_out=0.0))
    probabilities = np.zeros((len(samples), len(samples.classes)), np.float32)
    number, parameters = np.zeros(len(samples), np.int64), None
    for done, part in enumerate(parts, start=1):
        rest = np.setdiff1d(np.arange(len(samples)), part)
        number[part] = done
        classifier = [event for event in fit(samples.subset(rest), stop) if isinstance(event, FitResult)][-1].classifier
        if stop():
            yield _unknown(samples, STOPPED_MESSAGE)
            return
        probabilities[part] = predicted_probabilities(classifier, samples.subset(part), samples.classes)
        parameters = _parameters(classifier)
        yield FoldProgress(done, len(parts))
    yield _validation(held_out_table(samples, number, probabilities), apart, parameters)


def held_out_table(samples: TrainingData, folds: NDArray[np.int64], probabilities: NDArray[np.float32]) -> pd.DataFrame:
    """Return what is known of objects that were held out, in the form that a run keeps it.

    Parameters
    ----------
    samples : Samples
    folds : int64 of shape (n,)
        The number of the part in which each sample was held out.
    probabilities : float32 of shape (n, number of classes)
        In the order of ``samples.classes``, by a classifier that was not trained on that part.

    Returns
    -------
    DataFrame
        One row an object: ``image``, ``object``, ``group``, ``fold``, ``truth`` and ``predicted`` (class ids), and one
        ``p_<class id>`` each.
    """
    columns = {"image": samples.images, "object": samples.objects, "group": samples.groups, "fold": folds}
    columns |= {"truth": samples.targets, "predicted": np.array(samples.classes)[probabilities.argmax(axis=1)]}
    return pd.DataFrame(columns | {f"p_{id}": p for id, p in zip(samples.classes, probabilities.T, strict=True)})


def reason_for_no_score(samples: TrainingData) -> str:
    """Return why there is no score, "" where there can be one."""
    few = describe_scarce_classes(samples.targets, samples.names)
    if not few:
        return ""
    return f"Not known yet: a score needs at least {MIN_PER_CLASS} annotated objects of each class, but {few}."


def describe_scarce_classes(targets: NDArray[np.int64], names: Mapping[int, str]) -> str:
    """Say which classes have too few annotated objects to hold some of them out, "" where none has.

    >>> describe_scarce_classes(np.array([1] * 9 + [2] * 3), {1: "active", 2: "resting"})
    'resting has 3'
    """
    ids, counts = np.unique(targets, return_counts=True)
    few = [(id, n) for id, n in zip(ids.tolist(), counts.tolist()) if n < MIN_PER_CLASS]
    return ", ".join(f"{names.get(id, f'class {id}')} has {n}" for id, n in few)


def predicted_probabilities(
    classifier: Classifier, testing: TrainingData, classes: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return the probabilities (n, number of classes) that a classifier gives samples which it was not trained on."""
    inputs = testing.inputs
    if not isinstance(classifier, ForestClassifier):
        assert isinstance(classifier.patches.sampling, tuple)
        inputs = center_crop(torch.from_numpy(inputs), classifier.patches.sampling).numpy()
    pieces = np.array_split(np.arange(len(inputs)), -(-len(inputs) // BATCH_SIZES[testing.ndim]))
    known = np.concatenate([classifier.classify(inputs[piece]) for piece in pieces])
    probabilities = np.zeros((len(inputs), len(classes)), np.float32)  # a class that did not train has none
    probabilities[:, np.searchsorted(classes, classifier.classes)] = known
    return probabilities


def _parameters(classifier: Classifier) -> int | None:
    if not isinstance(classifier, NetworkClassifier):
        return None
    return sum(values.numel() for values in classifier.module.parameters())


def _unknown(samples: TrainingData, sentence: str) -> CrossValidationResult:
    table = pd.DataFrame(columns=["image", "object", "group", "fold", "truth", "predicted"])
    return CrossValidationResult(None, None, None, None, len(samples), sentence, table)


def describe_score_source(n: int, apart: str) -> str:
    """Say where a score comes from, by how many objects were held out and what was never divided (`split.Folds`)."""
    because = "" if apart == "whole groups" else " (the classes live in too few groups)"
    return f"Cross-validation on {n} annotated objects, held out by {apart}{because}"


def _validation(table: pd.DataFrame, apart: str, parameters: int | None) -> CrossValidationResult:
    ids = table["truth"].unique().tolist()
    found = score(table["truth"], table["predicted"], {id: str(id) for id in ids}, table["group"])
    return CrossValidationResult(
        accuracy=found.accuracy.value,
        low=found.accuracy.low,
        high=found.accuracy.high,
        balanced_accuracy=found.balanced_accuracy.value,
        n=len(table),
        message=f"{describe_score_source(len(table), apart)}.",
        table=table,
        parameters=parameters,
    )
