"""Honest numbers: counts and fractions with the intervals that their sample size allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
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
