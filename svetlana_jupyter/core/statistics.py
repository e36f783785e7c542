"""Honest numbers: counts and fractions with the intervals that their sample size allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

LEFT_OUT = ("ambiguous", "bad", "border", "size", "not_predicted")


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
        ``annotation``, ``on_border`` and ``size`` as of `core.results.object_table` where these are asked about.
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
        "bad": without & (aside == "bad"),
        "border": table["on_border"].astype(bool) if exclude_border else pd.Series(False, table.index),
        "size": pd.Series(False, table.index)
        if low is None and high is None
        else ~table["size"].between(-np.inf if low is None else low, np.inf if high is None else high),
        "not_predicted": without,
    }
    found = np.select([reasons[name].to_numpy(bool) for name in LEFT_OUT], list(LEFT_OUT), "")
    return pd.Series(found, table.index, "object")
