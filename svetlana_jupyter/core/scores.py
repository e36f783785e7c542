"""How predictions compare with the truth: accuracy and its kin, by class and by group, with honest intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from svetlana_jupyter.core.bootstrap import interval, resampled
from svetlana_jupyter.core.statistics import Proportion

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval, and the number of objects it is of; NaN where there are none."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.1%} (95 % interval {self.low:.1%} to {self.high:.1%})" if self.n else "none"


@dataclass(frozen=True)
class Scores:
    """How predictions compare with the truth.

    Attributes
    ----------
    accuracy : Estimate
    balanced_accuracy : Estimate
        The mean of the recalls of the classes that occur.
    macro_f1 : Estimate
        The mean of the F1 of the classes that occur or are predicted.
    groups : int
        What the intervals are over: so many groups, or single objects where it is 1.
    per_class : DataFrame
        Indexed by class: ``n`` and ``groups`` (objects of the class, and groups it lives in), ``recall`` and
        ``precision`` with their intervals (``recall_low``, ``recall_high``, ...), ``f1``.
    confusion : DataFrame
        Counts of objects; rows are the truth, columns the predictions.
    by_group : DataFrame
        Indexed by group: ``n``, ``accuracy`` with Wilson's interval ``low`` and ``high``, ``balanced_accuracy``.
    """

    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    groups: int
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    by_group: pd.DataFrame


def score(
    truth: ArrayLike,
    predicted: ArrayLike,
    names: Mapping[int, str],
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Scores:
    """Compare predicted class ids with true ones.

    Parameters
    ----------
    truth, predicted : array of int, shape (n,)
    names : mapping of class id to name
        The classes, in the order of the tables.
    groups : array of str, shape (n,), optional
        What objects have in common (their well, their patient): intervals are over groups (`core.bootstrap`), over
        single objects where there is one group, or where a class lives in one.
    weights : array of float, shape (n,), optional
        How many objects each stands for.

    >>> result = score([1, 1, 2, 2], [1, 2, 2, 2], {1: "resting", 2: "active"})
    >>> result.accuracy.value, result.balanced_accuracy.value
    (0.75, 0.75)
    """
    objects = _Objects.of(truth, predicted, list(names), groups, weights)
    found, drawn = measures(objects.confusion(objects.weight)), measures(objects.drawn())
    # Recalls are shares of the objects of a class, precisions of those predicted as it.
    told = {"recall": objects.effective_sizes(objects.truth), "precision": objects.effective_sizes(objects.predicted)}

    def estimate(name: str, n: float) -> Estimate:
        value = float(found[name])
        return Estimate(value, *interval(value, _deviation(drawn[name]), n, objects.groups), len(objects.truth))

    labels = pd.Index(list(names.values()), name="class")
    counts = objects.confusion(np.ones(len(objects.truth))).astype(np.int64)
    per_class = pd.DataFrame({"n": counts.sum(axis=1), "groups": objects.groups_per_class(objects.truth)}, labels)
    for name, side in (("recall", objects.truth), ("precision", objects.predicted)):
        per_class[name] = found[name]
        deviations = map(_deviation, drawn[name].T)
        bounds = map(interval, found[name].tolist(), deviations, told[name], objects.groups_per_class(side))
        per_class[[f"{name}_low", f"{name}_high"]] = list(bounds)
    per_class["f1"] = found["f1"]
    return Scores(
        accuracy=estimate("accuracy", _told(objects.weight)),
        balanced_accuracy=estimate("balanced_accuracy", _harmonic(told["recall"])),
        macro_f1=estimate("macro_f1", _harmonic([sum(both) / 2 for both in zip(*told.values())])),
        groups=objects.groups,
        per_class=per_class,
        confusion=pd.DataFrame(counts, labels, labels.rename("predicted")),
        by_group=objects.by_group(),
    )


def confusions(
    truth: ArrayLike,
    predicted: ArrayLike,
    ids: list[int],
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """Return the confusion matrix, weighted, of shape (k, k), and those of the bootstrap, of shape (draws, k, k).

    Parameters as of `score`; rows are the truth.
    """
    objects = _Objects.of(truth, predicted, ids, groups, weights)
    return objects.confusion(objects.weight), objects.drawn()


def measures(confusions: Floats) -> dict[str, Floats]:
    """Return the scores of confusion matrices.

    Parameters
    ----------
    confusions : float64 of shape (..., k, k)
        Rows are the truth, columns the predictions.

    Returns
    -------
    dict
        "accuracy", "balanced_accuracy" and "macro_f1" of shape (...,), "recall", "precision" and "f1" of shape
        (..., k); NaN where a class does not occur, is never predicted, or neither.
    """
    right = np.diagonal(confusions, axis1=-2, axis2=-1)
    true, guessed = confusions.sum(axis=-1), confusions.sum(axis=-2)
    recall, f1 = _over(right, true), _over(2 * right, true + guessed)
    return {
        "accuracy": _over(right.sum(axis=-1), true.sum(axis=-1)),
        "balanced_accuracy": _mean(recall),
        "macro_f1": _mean(f1),
        "recall": recall,
        "precision": _over(right, guessed),
        "f1": f1,
    }


def _over(part: Floats, whole: Floats) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0), np.float64)


def _mean(values: Floats) -> Floats:
    """Return the mean over classes of those values that are known."""
    known = ~np.isnan(values)
    return _over(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1).astype(float))


def _deviation(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.std()) if len(known) else 0.0


def _told(weight: Floats) -> float:
    """Return how many equally weighted objects tell as much (Kish)."""
    return float(weight.sum() ** 2 / (weight**2).sum()) if weight.any() else 0.0


def _harmonic(counts: Iterable[float]) -> float:
    """Return how many objects tell as much as a mean over classes, of which each is a share of so many."""
    known = [count for count in counts if count > 0]
    return len(known) ** 2 / sum(1 / count for count in known) if known else 0.0


@dataclass(frozen=True)
class _Objects:
    """Objects to compare: their classes, as places in the tables, group and weight, all of shape (n,), of k classes."""

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    group: NDArray[np.generic]
    weight: Floats
    k: int

    @classmethod
    def of(
        cls, truth: ArrayLike, predicted: ArrayLike, ids: list[int], groups: ArrayLike | None, weights: ArrayLike | None
    ) -> _Objects:
        places = {id: place for place, id in enumerate(ids)}
        true, guessed = (
            np.array([places[id] for id in np.asarray(side).tolist()], np.int64) for side in (truth, predicted)
        )
        group = np.zeros(len(true), np.int64) if groups is None else np.asarray(groups)
        weight = np.ones(len(true)) if weights is None else np.asarray(weights, float)
        return cls(true, guessed, group, weight, len(ids))

    @property
    def groups(self) -> int:
        return len(np.unique(self.group))

    def confusion(self, weight: Floats) -> Floats:
        counts = np.bincount(self.truth * self.k + self.predicted, weight, self.k**2)
        return np.asarray(counts.reshape(self.k, self.k), float)

    def drawn(self) -> Floats:
        """Return confusion matrices (draws, k, k) of groups drawn with replacement, of objects if one group is all."""
        cell, size = self.truth * self.k + self.predicted, self.k**2
        if not len(cell):
            return np.zeros((1, self.k, self.k))
        if self.groups > 1:
            rows, counts = np.zeros((self.groups, size)), np.ones(self.groups, np.int64)
            np.add.at(rows, (np.unique(self.group, return_inverse=True)[1], cell), self.weight)
        else:
            kinds, counts = np.unique(np.stack([cell, self.weight], axis=1), axis=0, return_counts=True)
            rows = np.eye(size)[kinds[:, 0].astype(int)] * kinds[:, 1:]
        return resampled(rows, counts).reshape(-1, self.k, self.k)

    def effective_sizes(self, side: NDArray[np.int64]) -> list[float]:
        return [_told(self.weight[side == place]) for place in range(self.k)]

    def groups_per_class(self, side: NDArray[np.int64]) -> list[int]:
        return [len(np.unique(self.group[side == place])) for place in range(self.k)]

    def by_group(self) -> pd.DataFrame:
        rows = []
        for group in np.unique(self.group):
            here = self.group == group
            share = Proportion(int((self.truth == self.predicted)[here].sum()), int(here.sum()))
            balanced = measures(self.confusion(here.astype(float)))["balanced_accuracy"]
            rows.append((group, share.n, share.value, *share.interval, float(balanced)))
        columns = ["group", "n", "accuracy", "low", "high", "balanced_accuracy"]
        return pd.DataFrame(rows, columns=columns).set_index("group")
