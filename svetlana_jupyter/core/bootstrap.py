"""Intervals of scores whose objects are not independent: a bootstrap over groups, in the shape of Wilson's interval.

Objects of one well are alike, so a score varies from well to well by more than its number of objects suggests. The
bootstrap draws whole groups and finds that variance. The usual percentiles of it would be too narrow for few groups,
and of no width where nothing is wrong; so the variance is turned into the number of independent objects that would
have it, and Wilson's interval is taken at that number, with Student's t for as many groups as there are (as Dean and
Pagano, Journal of Survey Statistics and Methodology 3, 2015, do for surveys of clusters). The fewer objects a group
has, the less it can add to the variance of independent ones, which is known: with one in each, t has no say.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

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
