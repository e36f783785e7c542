"""Agreement of two counting methods: regression line and Bland–Altman limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Agreement(NamedTuple):
    """Agreement of ``y`` with ``x`` over ``n`` pairs.

    Attributes
    ----------
    n : int
    slope, intercept : float
        Least-squares line ``y = slope * x + intercept``; NaN where all ``x`` are equal.
    r2 : float
        Coefficient of determination of the line: how well ``y`` follows ``x``, not whether they are equal.
    bias : float
        Mean of ``y - x``.
    deviation : float
        Standard deviation of ``y - x`` (with divisor n - 1).
    limits : tuple of float
        95 % limits of agreement: the range that contains a new difference ``y - x`` with a probability of 95 %, also
        if there are few pairs. For many pairs, it is ``bias`` ∓ 1.96 ``deviation``.
    """

    n: int
    slope: float
    intercept: float
    r2: float
    bias: float
    deviation: float
    limits: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.limits
        return (
            f"R² {self.r2:.3f}, slope {self.slope:.3g}, intercept {self.intercept:.3g}; "
            f"bias {self.bias:+.3g}, 95 % limits of agreement {low:+.3g} to {high:+.3g} (n = {self.n})"
        )


def agreement(x: ArrayLike, y: ArrayLike) -> Agreement:
    """Compare two measurements of the same quantities.

    Parameters
    ----------
    x, y : array of float, shape (n,)
        Reference values, and the values to compare with them.

    Raises
    ------
    InputError
        If there are fewer than three pairs.

    References
    ----------
    J. M. Bland, D. G. Altman: Statistical methods for assessing agreement between two methods of clinical measurement.
    Lancet 327 (1986), 307-310. Limits for few pairs (tolerance interval): B. Carstensen, Comparing clinical measurement
    methods, Wiley (2010).

    Examples
    --------
    >>> result = agreement([10, 20, 30, 40], [11, 22, 31, 44])
    >>> round(result.slope, 3), result.bias
    (1.08, 2.0)
    """
    from scipy.stats import linregress, t

    reference, other = np.asarray(x, float), np.asarray(y, float)
    if len(reference) < 3:
        raise InputError(f"Agreement needs at least three pairs of counts, got {len(reference)}. Count more images.")
    difference = other - reference
    bias, deviation = float(difference.mean()), float(difference.std(ddof=1))
    slope = intercept = r2 = math.nan
    if np.ptp(reference) > 0:
        line = linregress(reference, other)
        slope, intercept, r2 = float(line.slope), float(line.intercept), float(line.rvalue**2)
    n = len(reference)
    half = float(t.ppf(0.975, n - 1)) * deviation * math.sqrt(1 + 1 / n)
    return Agreement(n, slope, intercept, r2, bias, deviation, (bias - half, bias + half))
