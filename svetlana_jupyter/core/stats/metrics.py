"""How predictions compare with the truth: accuracy and its kin, by class and by group, with honest intervals.

Intervals of scores whose objects are not independent: a bootstrap over groups, in the shape of Wilson's interval.

Objects of one well are alike, so a score varies from well to well by more than its number of objects suggests. The
bootstrap draws whole groups and finds that variance. The usual percentiles of it would be too narrow for few groups,
and of no width where nothing is wrong; so the variance is turned into the number of independent objects that would
have it, and Wilson's interval is taken at that number, with Student's t for as many groups as there are (as Dean and
Pagano, Journal of Survey Statistics and Methodology 3, 2015, do for surveys of clusters). The fewer objects a group
has, the less it can add to the variance of independent ones, which is known: with one in each, t has no say.

Honest numbers: counts and fractions with the intervals that their sample size allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, norm, t

DRAWS = 2000
CONFIDENCE = 0.95


def resampled(
    rows: NDArray[np.float64], counts: NDArray[np.int64], draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """Return sums over as many units as there are, drawn with replacement.

    Parameters
    ----------
    rows : float64 of shape (m, k)
        The different units.
    counts : int64 of shape (m,)
        How many there are of each.

    Returns
    -------
    float64 of shape (draws, k)
    """
    total = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(total, counts / total, draws)
    return np.asarray(drawn @ rows, np.float64)


def interval(value: float, deviation: float, n: float, groups: int) -> tuple[float, float]:
    """Return the 95 % interval of a share whose bootstrap has a deviation.

    Parameters
    ----------
    value, deviation : float
        The share, and the standard deviation of its bootstrap.
    n : float
        Objects it is a share of; it is taken to tell no more than so many independent ones.
    groups : int
        Groups that were drawn; 1 where single objects were.

    Examples
    --------
    Without groups it is Wilson's interval:

    >>> [round(bound, 3) for bound in interval(0.9, (0.9 * 0.1 / 50) ** 0.5, 50, 1)]
    [0.786, 0.957]
    """
    if not n or math.isnan(value):
        return math.nan, math.nan
    tail = (1 + CONFIDENCE) / 2
    square, variance = float(norm.ppf(tail)) ** 2, deviation**2
    if groups > 1:
        square += (float(t.ppf(tail, groups - 1)) ** 2 - square) * max(0.0, 1 - groups / n)
        variance *= groups / (groups - 1)
    size = min(n, max(1.0, value * (1 - value) / variance)) if variance > 0 else n
    widened = 1 + square / size
    center = (value + square / (2 * size)) / widened
    half = math.sqrt(square * (value * (1 - value) / size + square / (4 * size**2))) / widened
    # Rounding must not put the bound on the wrong side of a share of 0 or 1.
    return max(0.0, min(center - half, value)), min(1.0, max(center + half, value))


LEFT_OUT = ("ambiguous", "bad_segmentation", "border", "size", "not_predicted")


@dataclass(frozen=True)
class Proportion:
    """``k`` of ``n`` with Wilson's 95 % interval; the fraction and its bounds are NaN when ``n`` is 0."""

    k: int
    n: int

    @property
    def value(self) -> float:
        return self.k / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        if not self.n:
            return float("nan"), float("nan")
        bounds = binomtest(self.k, self.n).proportion_ci(method="wilson")
        return float(bounds.low), float(bounds.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} (95 % interval {low:.1%} to {high:.1%}, {self.k} of {self.n})" if self.n else "none"


def count_classes(
    table: pd.DataFrame,
    names: Sequence[str],
    by: Sequence[str] = (),
    exclude_border: bool = False,
    size: tuple[float | None, float | None] = (None, None),
) -> pd.DataFrame:
    """Count objects by class, one row a group and class.

    Parameters
    ----------
    table : DataFrame
        One row an object, with a column ``class`` (missing where there is none) and the columns ``by``; with
        ``annotation``, ``on_border`` and ``size`` as of `core.predictions.object_table` where these are asked about.
    names : sequence of str
        The classes; each gets a row in every group, also when it does not occur.
    by : sequence of str
        Columns whose values make the groups; what is missing is a group too.
    exclude_border : bool
        Whether to leave out objects that touch the border of the image.
    size : tuple of float or None
        Pixels (voxels) that an object must have at least, and at most, to be counted.

    Returns
    -------
    DataFrame
        The ``by`` columns, ``class``, ``count``, ``total`` (objects of the group that are counted), ``fraction`` with
        Wilson's 95 % interval ``low`` and ``high``, and ``left_out`` (objects of the group that are not), as the sum of
        ``ambiguous``, ``bad``, ``border``, ``size`` and ``not_predicted``: each under the first reason that it has.
    """
    reason = exclusion_reasons(table, exclude_border, size)
    rows = []
    groups = table.groupby(list(by), sort=True, observed=True, dropna=False) if by else [((), table)]
    for key, group in groups:
        why = reason[group.index]
        counts = group["class"][why == ""].value_counts()
        left_out = [int((why == one).sum()) for one in LEFT_OUT]
        total = len(group) - sum(left_out)
        for name in names:
            share = Proportion(int(counts.get(name, 0)), total)
            rows.append((*key, name, share.k, total, share.value, *share.interval, sum(left_out), *left_out))
    columns = ["class", "count", "total", "fraction", "low", "high", "left_out", *LEFT_OUT]
    return pd.DataFrame(rows, columns=[*by, *columns])


def exclusion_reasons(
    table: pd.DataFrame, exclude_border: bool = False, size: tuple[float | None, float | None] = (None, None)
) -> pd.Series[str]:
    """Return why each object is not counted, one of `LEFT_OUT`; "" for those that are."""
    low, high = size
    without = table["class"].isna()
    aside = table["annotation"] if "annotation" in table else pd.Series(None, table.index, "object")
    reasons = {
        "ambiguous": without & (aside == "ambiguous"),
        "bad_segmentation": without & (aside == "bad_segmentation"),
        "border": table["on_border"].astype(bool) if exclude_border else pd.Series(False, table.index),
        "size": pd.Series(False, table.index)
        if low is None and high is None
        else ~table["size"].between(-np.inf if low is None else low, np.inf if high is None else high),
        "not_predicted": without,
    }
    found = np.select([reasons[name].to_numpy(bool) for name in LEFT_OUT], list(LEFT_OUT), "")
    return pd.Series(found, table.index, "object")


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
        What objects have in common (their well, their patient): intervals are over groups (`core.stats.metrics`), over
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
