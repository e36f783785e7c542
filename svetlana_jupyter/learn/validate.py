"""How well a classifier would do on objects it was not trained on: cross-validation by groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

from svetlana_jupyter.learn.augment import center_crop
from svetlana_jupyter.learn.events import Fitted
from svetlana_jupyter.learn.fit import fit, never
from svetlana_jupyter.learn.forest import Forest
from svetlana_jupyter.learn.predict import BATCH
from svetlana_jupyter.learn.samples import Samples
from svetlana_jupyter.learn.split import folds

FEWEST = 5  # of each class: with fewer, the interval would say nothing


@dataclass(frozen=True)
class Fold:
    """Progress: this many of the folds are trained and scored."""

    done: int
    total: int


@dataclass(frozen=True)
class Validation:
    """What cross-validation found.

    Parameters
    ----------
    accuracy, low, high : float or None
        Share of right answers with its 95 % Wilson interval, which takes objects as independent; None where there are
        too few annotations.
    balanced : float or None
        Mean over classes of the share of right answers.
    n : int
        Number of annotated objects scored.
    says : str
        The source of the score, or why there is none.
    table : DataFrame
        One row an object: image, object, group, truth and predicted class id.
    """

    accuracy: float | None
    low: float | None
    high: float | None
    balanced: float | None
    n: int
    says: str
    table: pd.DataFrame


def cross_validate(samples: Samples, count: int = 5, stop: Callable[[], bool] = never) -> Iterator[Fold | Validation]:
    """Train on all folds but one and score that one, for each.

    Folds are whole groups (wells, patients, images, regions) where every class lives in enough of them, so that
    neighbours which look alike are not on both sides.

    Parameters
    ----------
    samples : Samples
        With at least five of each class; otherwise the result is a sentence instead of numbers.
    count : int
        Number of folds.
    stop : callable
        Asked before every batch; once it returns True, the result says that it was stopped.
    """
    empty = pd.DataFrame(columns=["image", "object", "group", "truth", "predicted"])
    sentence = _why_not(samples)
    if sentence:
        yield Validation(None, None, None, None, len(samples), sentence, empty)
        return
    parts, grouped = folds(samples, count)
    # A fold is what is held out; all the rest trains.
    samples = replace(samples, settings=samples.settings.changed(held_out=0.0))
    predicted = np.zeros(len(samples), np.int64)
    for done, part in enumerate(parts, start=1):
        rest = np.setdiff1d(np.arange(len(samples)), part)
        predicted[part] = _predicted(samples.subset(rest), samples.subset(part), stop)
        if stop():
            yield Validation(None, None, None, None, len(samples), "Stopped before the score was known.", empty)
            return
        yield Fold(done, len(parts))
    yield _validation(samples, predicted, grouped)


def _why_not(samples: Samples) -> str:
    """Return why there is no score, "" where there can be one."""
    counts = {id: int((samples.targets == id).sum()) for id in samples.classes}
    scarce = [f"{samples.names.get(id, f'class {id}')} has {n}" for id, n in counts.items() if n < FEWEST]
    if not scarce:
        return ""
    return f"Not known yet: a score needs at least {FEWEST} annotated objects of each class, but {', '.join(scarce)}."


def _predicted(training: Samples, testing: Samples, stop: Callable[[], bool]) -> NDArray[np.int64]:
    """Return the class ids that a classifier trained on one part gives the other."""
    fitted = [event for event in fit(training, stop) if isinstance(event, Fitted)][-1]
    inputs = testing.inputs
    if not isinstance(fitted.classifier, Forest):
        assert isinstance(fitted.classifier.patches.sampling, tuple)
        inputs = center_crop(torch.from_numpy(inputs), fitted.classifier.patches.sampling).numpy()
    pieces = np.array_split(np.arange(len(inputs)), -(-len(inputs) // BATCH[testing.ndim]))
    probabilities = np.concatenate([fitted.classifier.classify(inputs[piece]) for piece in pieces])
    ids: NDArray[np.int64] = np.array(fitted.classifier.classes)[probabilities.argmax(axis=1)]
    return ids


def _validation(samples: Samples, predicted: NDArray[np.int64], grouped: bool) -> Validation:
    right = predicted == samples.targets
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    table = pd.DataFrame(
        {
            "image": samples.images,
            "object": samples.objects,
            "group": samples.groups,
            "truth": samples.targets,
            "predicted": predicted,
        }
    )
    apart = "whole groups" if grouped else "single objects (the classes live in too few groups)"
    return Validation(
        accuracy=float(right.mean()),
        low=float(interval.low),
        high=float(interval.high),
        balanced=float(pd.Series(right).groupby(samples.targets).mean().mean()),
        n=len(right),
        says=f"Cross-validation on {len(right)} annotated objects, held out by {apart}.",
        table=table,
    )
