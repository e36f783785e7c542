"""Honest numbers: counts, fractions and accuracies with the intervals that their sample size allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import binomtest


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


@dataclass(frozen=True)
class Scores:
    """How predictions compare with the truth.

    Attributes
    ----------
    accuracy : Proportion
    balanced_accuracy : float
        The mean of the recalls of the classes that occur.
    per_class : DataFrame
        Indexed by class: ``n``, ``precision``, ``recall``, ``recall_low``, ``recall_high`` (Wilson's 95 % interval).
    confusion : DataFrame
        Counts; rows are the truth, columns the predictions.
    """

    accuracy: Proportion
    balanced_accuracy: float
    per_class: pd.DataFrame
    confusion: pd.DataFrame


def score(truth: ArrayLike, predicted: ArrayLike, names: Mapping[int, str]) -> Scores:
    """Compare predicted class ids with true ones.

    Parameters
    ----------
    truth, predicted : array of int, shape (n,)
    names : mapping of class id to name
        The classes, in the order of the tables.

    >>> result = score([1, 1, 2, 2], [1, 2, 2, 2], {1: "resting", 2: "active"})
    >>> result.accuracy.k, result.balanced_accuracy
    (3, 0.75)
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    ids = list(names)
    counts = np.array([[int(np.sum((truth == t) & (predicted == p))) for p in ids] for t in ids]).reshape(len(ids), -1)
    labels = [names[id] for id in ids]
    confusion = pd.DataFrame(counts, pd.Index(labels, name="class"), pd.Index(labels, name="predicted"))
    rows = []
    for i, name in enumerate(labels):
        recall, precision = Proportion(counts[i, i], counts[i].sum()), Proportion(counts[i, i], counts[:, i].sum())
        rows.append((name, recall.n, precision.value, recall.value, *recall.interval))
    columns = ["class", "n", "precision", "recall", "recall_low", "recall_high"]
    per_class = pd.DataFrame(rows, columns=columns).set_index("class")
    return Scores(
        accuracy=Proportion(int(np.trace(counts)), int(counts.sum())),
        balanced_accuracy=float(per_class["recall"].mean()),
        per_class=per_class,
        confusion=confusion,
    )


def count_classes(table: pd.DataFrame, names: Sequence[str], by: Sequence[str] = ()) -> pd.DataFrame:
    """Count objects by class, one row a group and class.

    Parameters
    ----------
    table : DataFrame
        One row an object, with a column ``class`` (missing where there is none) and the columns ``by``.
    names : sequence of str
        The classes; each gets a row in every group, also when it does not occur.
    by : sequence of str
        Columns whose values make the groups.

    Returns
    -------
    DataFrame
        The ``by`` columns, ``class``, ``count``, ``total`` (objects of the group with a class), ``fraction`` with
        Wilson's 95 % interval ``low`` and ``high``, and ``left_out`` (objects of the group without a class).
    """
    rows = []
    groups = table.groupby(list(by), sort=True, observed=True) if by else [((), table)]
    for key, group in groups:
        counts = group["class"].value_counts()
        total = int(group["class"].notna().sum())
        for name in names:
            share = Proportion(int(counts.get(name, 0)), total)
            rows.append((*key, name, share.k, total, share.value, *share.interval, len(group) - total))
    return pd.DataFrame(rows, columns=[*by, "class", "count", "total", "fraction", "low", "high", "left_out"])
