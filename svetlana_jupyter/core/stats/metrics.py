"""Classification scores and class counts, with 95 % confidence intervals.

Objects of one well are alike, so a score varies more between wells than the number of objects suggests. A cluster
bootstrap, which draws whole groups, estimates this variance. Intervals between bootstrap percentiles would be too
narrow for few groups, and of zero width if there are no errors. Instead, the variance is converted to an effective
sample size, the number of independent objects with the same variance, and Wilson's interval is computed for this size,
with Student's t for the number of groups (Dean and Pagano, Journal of Survey Statistics and Methodology 3, 2015, for
cluster surveys). The variance of independent objects is known, so the normal distribution replaces Student's t as the
number of objects per group decreases to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

N_BOOTSTRAP = 2000
CONFIDENCE = 0.95
MIN_CORRELATION = 0.05  # of the objects of a group; a few groups with few errors show less correlation than there is
EXCLUSION_REASONS = ("ambiguous", "bad_segmentation", "border", "size", "not_predicted")

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
SizeLimits = tuple[float | None, float | None]


@dataclass(frozen=True)
class Proportion:
    """Proportion ``k`` of ``n`` with its 95 % confidence interval (Wilson).

    If ``n`` is 0, value and interval are NaN.
    """

    k: int
    n: int

    @property
    def value(self) -> float:
        """The fraction ``k / n``."""
        return self.k / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound of the confidence interval."""
        from scipy.stats import binomtest

        if not self.n:
            return math.nan, math.nan
        bounds = binomtest(self.k, self.n).proportion_ci(method="wilson")
        return float(bounds.low), float(bounds.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} (95 % interval {low:.1%} to {high:.1%}, {self.k} of {self.n})" if self.n else "none"


@dataclass(frozen=True)
class Estimate:
    """Score with its 95 % confidence interval and its number of objects.

    If there are no objects, score and interval are NaN.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.1%} (95 % interval {self.low:.1%} to {self.high:.1%})" if self.n else "none"


@dataclass(frozen=True)
class Scores:
    """Comparison of predictions with the truth.

    Attributes
    ----------
    accuracy : Estimate
    balanced_accuracy : Estimate
        Mean recall of the classes that occur.
    macro_f1 : Estimate
        Mean F1 of the classes that occur or are predicted.
    groups : int
        Number of groups that the bootstrap draws; 1 if it draws single objects.
    per_class : DataFrame
        Indexed by class: ``n`` and ``groups`` (objects of the class, and groups that contain it), ``recall`` and
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
    """Compare predicted class ids with the true class ids.

    Parameters
    ----------
    truth, predicted : array of int, shape (n,)
    names : mapping of class id to name
        The classes, in the order of the tables.
    groups : array of str, shape (n,), optional
        Wells, patients or images, whose objects are alike. The bootstrap draws whole groups or, from a single group,
        objects. The interval of a class that occurs in a single group is that of independent objects.
    weights : array of float, shape (n,), optional
        Number of objects that each scored object represents.

    >>> result = score([1, 1, 2, 2], [1, 2, 2, 2], {1: "resting", 2: "active"})
    >>> result.accuracy.value, result.balanced_accuracy.value
    (0.75, 0.75)
    """
    objects = PredictedObjects((truth, predicted), list(names), groups, weights)
    point, bootstrap = map(scores_of_confusion, (objects.confusion(objects.weight), objects.bootstrap_confusions()))
    # A recall is a proportion of the objects of a class, a precision of the objects that are predicted as this class.
    sides = {"recall": objects.truth, "precision": objects.predicted}
    sizes = {name: objects.effective_sizes(side) for name, side in sides.items()}

    def estimate(name: str, n: float) -> Estimate:
        value = float(point[name])
        interval = share_interval(value, _standard_error(bootstrap[name]), n, objects.n_groups)
        return Estimate(value, *interval, len(objects.truth))

    labels = pd.Index(list(names.values()), name="class")
    counts = objects.confusion(np.ones(len(objects.truth))).astype(np.int64)
    per_class = pd.DataFrame({"n": counts.sum(axis=1), "groups": objects.groups_per_class(objects.truth)}, labels)
    for name, side in sides.items():
        per_class[name] = point[name]
        errors, n_groups = map(_standard_error, bootstrap[name].T), objects.groups_per_class(side)
        bounds = map(share_interval, point[name].tolist(), errors, sizes[name], n_groups)
        per_class[[f"{name}_low", f"{name}_high"]] = list(bounds)
    per_class["f1"] = point["f1"]
    accuracy = estimate("accuracy", _effective_sample_size(objects.weight))
    balanced_accuracy = estimate("balanced_accuracy", _size_of_class_mean(sizes["recall"]))
    macro_f1 = estimate("macro_f1", _size_of_class_mean([sum(both) / 2 for both in zip(*sizes.values())]))
    confusion = pd.DataFrame(counts, labels, labels.rename("predicted"))
    by_group = objects.by_group()
    return Scores(accuracy, balanced_accuracy, macro_f1, objects.n_groups, per_class, confusion, by_group)


def scores_of_confusion(confusions: Floats) -> dict[str, Floats]:
    """Return the scores of many confusion matrices at once.

    Parameters
    ----------
    confusions : float64 of shape (..., k, k)
        Rows are the truth, columns the predictions.

    Returns
    -------
    dict
        "accuracy", "balanced_accuracy" and "macro_f1" of shape (...,), "recall", "precision" and "f1" of shape
        (..., k). Recall is NaN for a class that does not occur, precision for a class that is never predicted, and F1
        for a class that neither occurs nor is predicted.
    """
    correct = np.diagonal(confusions, axis1=-2, axis2=-1)
    true, guessed = confusions.sum(axis=-1), confusions.sum(axis=-2)
    recall, precision, f1 = _divide(correct, true), _divide(correct, guessed), _divide(2 * correct, true + guessed)
    accuracy = _divide(correct.sum(axis=-1), true.sum(axis=-1))
    means = {"accuracy": accuracy, "balanced_accuracy": _class_mean(recall), "macro_f1": _class_mean(f1)}
    return means | {"recall": recall, "precision": precision, "f1": f1}


def share_interval(value: float, standard_error: float, n: float, groups: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a proportion.

    Parameters
    ----------
    value : float
    standard_error : float
        Standard deviation of the bootstrap draws.
    n : float
        Number of objects; upper bound of the effective sample size.
    groups : int
        Number of groups that the bootstrap drew; 1 if it drew single objects.

    Examples
    --------
    Without groups, the result is Wilson's interval:

    >>> [round(bound, 3) for bound in share_interval(0.9, (0.9 * 0.1 / 50) ** 0.5, 50, 1)]
    [0.786, 0.957]
    """
    from scipy.stats import norm, t

    if not n or math.isnan(value):
        return math.nan, math.nan
    tail, limit = (1 + CONFIDENCE) / 2, n
    square, variance = float(norm.ppf(tail)) ** 2, standard_error**2
    if groups > 1:
        square += (float(t.ppf(tail, groups - 1)) ** 2 - square) * max(0.0, 1 - groups / n)
        variance *= groups / (groups - 1)
        limit = n / (1 + MIN_CORRELATION * max(0.0, n / groups - 1))
    size = min(limit, max(1.0, value * (1 - value) / variance)) if variance > 0 else limit
    denominator = 1 + square / size
    center = (value + square / (2 * size)) / denominator
    half = math.sqrt(square * (value * (1 - value) / size + square / (4 * size**2))) / denominator
    # Rounding must not put a bound on the wrong side of 0 or 1.
    return max(0.0, min(center - half, value)), min(1.0, max(center + half, value))


def _divide(part: Floats, whole: Floats) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0), np.float64)


def _class_mean(values: Floats) -> Floats:
    """Return the mean over classes, ignoring NaN; NaN if all values are NaN."""
    known = ~np.isnan(values)
    return _divide(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1).astype(float))


def _standard_error(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.std()) if len(known) else 0.0


def _effective_sample_size(weight: Floats) -> float:
    """Return the number of equally weighted objects with the same variance (Kish)."""
    return float(weight.sum() ** 2 / (weight**2).sum()) if weight.any() else 0.0


def _size_of_class_mean(sizes: Iterable[float]) -> float:
    """Return the effective sample size of the mean over classes of the given sizes."""
    known = [size for size in sizes if size > 0]
    return len(known) ** 2 / sum(1 / size for size in known) if known else 0.0


class PredictedObjects:
    """True class, predicted class, group and weight of n objects.

    ``sides`` contains the true and the predicted class ids; the other parameters are those of `score`. Class ids are
    converted to their positions in ``ids``, from 0 to k - 1.
    """

    def __init__(
        self, sides: tuple[ArrayLike, ArrayLike], ids: list[int], groups: ArrayLike | None, weights: ArrayLike | None
    ) -> None:
        self.k, positions = len(ids), pd.Series(np.arange(len(ids)), ids)
        self.truth, self.predicted = (positions.loc[np.asarray(side, np.int64)].to_numpy(np.int64) for side in sides)
        self.group = np.zeros(len(self.truth), np.int64) if groups is None else np.asarray(groups)
        self.weight = np.ones(len(self.truth)) if weights is None else np.asarray(weights, float)
        self.n_groups = len(np.unique(self.group))

    def confusion(self, weight: Floats) -> Floats:
        """Return the weighted confusion matrix (k, k), whose rows are the true classes."""
        counts = np.bincount(self.truth * self.k + self.predicted, weight, self.k**2)
        return np.asarray(counts.reshape(self.k, self.k), float)

    def bootstrap_confusions(self) -> Floats:
        """Return confusion matrices, (draws, k, k), of groups drawn with replacement.

        If there is a single group, objects are drawn instead.
        """
        cell, size = self.truth * self.k + self.predicted, self.k**2
        if not len(cell):
            return np.zeros((1, self.k, self.k))
        if self.n_groups > 1:
            rows, counts = np.zeros((self.n_groups, size)), np.ones(self.n_groups, np.int64)
            np.add.at(rows, (np.unique(self.group, return_inverse=True)[1], cell), self.weight)
        else:  # equal objects are drawn together, which is faster
            kinds, counts = np.unique(np.stack([cell, self.weight], axis=1), axis=0, return_counts=True)
            rows = np.eye(size)[kinds[:, 0].astype(int)] * kinds[:, 1:]
        total = counts.sum()
        drawn = np.random.default_rng(0).multinomial(total, counts / total, N_BOOTSTRAP)
        return np.asarray(drawn @ rows, np.float64).reshape(-1, self.k, self.k)

    def effective_sizes(self, side: Integers) -> list[float]:
        """Return the effective sample size of each class in ``truth`` or ``predicted``."""
        return [_effective_sample_size(self.weight[side == position]) for position in range(self.k)]

    def groups_per_class(self, side: Integers) -> list[int]:
        """Return the number of groups with each class in ``truth`` or ``predicted``."""
        return [len(np.unique(self.group[side == position])) for position in range(self.k)]

    def by_group(self) -> pd.DataFrame:
        """Return the scores of each group, as in `Scores.by_group`."""
        rows = []
        for group in np.unique(self.group):
            here = self.group == group
            share = Proportion(int((self.truth == self.predicted)[here].sum()), int(here.sum()))
            balanced = scores_of_confusion(self.confusion(here.astype(float)))["balanced_accuracy"]
            rows.append((group, share.n, share.value, *share.interval, float(balanced)))
        columns = ["group", "n", "accuracy", "low", "high", "balanced_accuracy"]
        return pd.DataFrame(rows, columns=columns).set_index("group")


def count_classes(
    table: pd.DataFrame,
    names: Sequence[str],
    by: Sequence[str] = (),
    exclude_border: bool = False,
    size: SizeLimits = (None, None),
) -> pd.DataFrame:
    """Count objects by class, one row per group and class.

    Parameters
    ----------
    table : DataFrame
        One row per object, with a column ``class`` (missing for objects without a class) and the columns ``by``. The
        columns ``flag``, ``on_border`` and ``size`` of `core.predictions.object_table` are used to exclude
        objects.
    names : sequence of str
        The classes; each class has a row in every group, even if it does not occur in the group.
    by : sequence of str
        Columns whose values form the groups; objects with missing values form a group, too.
    exclude_border : bool
        Exclude objects that touch the border of the image.
    size : tuple of float or None
        Minimum and maximum number of pixels (voxels) of a counted object.

    Returns
    -------
    DataFrame
        The ``by`` columns, ``class``, ``count``, ``total`` (counted objects of the group), ``left_out`` (excluded
        objects of the group), and the excluded objects per reason: ``ambiguous``, ``bad_segmentation``, ``border``,
        ``size`` and ``not_predicted``. Each excluded object is counted under the first reason that applies.
    """
    reason = exclusion_reasons(table, exclude_border, size)
    rows = []
    groups = table.groupby(list(by), sort=True, observed=True, dropna=False) if by else [((), table)]
    for key, group in groups:
        reason_here = reason[group.index]
        counts = group["class"][reason_here == ""].value_counts()
        excluded = [int((reason_here == name).sum()) for name in EXCLUSION_REASONS]
        total = len(group) - sum(excluded)
        rows += [(*key, name, int(counts.get(name, 0)), total, sum(excluded), *excluded) for name in names]
    columns = ["class", "count", "total", "left_out", *EXCLUSION_REASONS]
    return pd.DataFrame(rows, columns=[*by, *columns])


def exclusion_reasons(table: pd.DataFrame, exclude_border: bool, size: SizeLimits) -> pd.Series[str]:
    """Return why each object is excluded from counts, "" for counted objects.

    The reasons are those in `EXCLUSION_REASONS`.
    """
    low, high = (-np.inf if size[0] is None else size[0]), (np.inf if size[1] is None else size[1])
    nothing = pd.Series(False, table.index)
    unclassified = table["class"].isna()
    flag = table.get("flag", nothing)
    reasons = {
        "ambiguous": flag == "ambiguous",
        "bad_segmentation": flag == "bad_segmentation",
        "border": table["on_border"].astype(bool) if exclude_border else nothing,
        "size": nothing if size == (None, None) else ~table["size"].between(low, high),
        "not_predicted": unclassified,
    }
    first = np.select([reasons[name].to_numpy(bool) for name in EXCLUSION_REASONS], list(EXCLUSION_REASONS), "")
    return pd.Series(first, table.index, "object")
