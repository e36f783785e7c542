"""Whether two ways of counting agree: a line through them, and their differences (Bland and Altman)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import linregress

from svetlana_jupyter.errors import InputError

Z_95 = 1.96  # deviations of a normal distribution that hold 95 % of it, rounded as Bland and Altman do


@dataclass(frozen=True)
class Agreement:
    """How ``y`` follows ``x``, of ``n`` pairs.

    Attributes
    ----------
    n : int
    slope, intercept : float
        Of the least-squares line ``y = slope * x + intercept``; NaN where all ``x`` are the same.
    r2 : float
        Coefficient of determination of that line. It says how well one follows the other, not that they are equal.
    bias : float
        Mean of ``y - x``.
    deviation : float
        Standard deviation of ``y - x`` (n - 1).
    limits : tuple of float
        95 % limits of agreement: ``bias`` ∓ 1.96 ``deviation``. A further ``y - x`` is expected between them.
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
    """Compare two measurements of the same things.

    Parameters
    ----------
    x, y : array of float, shape (n,)
        The reference, and what is compared with it.

    Raises
    ------
    InputError
        If there are fewer than three pairs.

    References
    ----------
    J. M. Bland, D. G. Altman: Statistical methods for assessing agreement between two methods of clinical measurement.
    Lancet 327 (1986), 307-310.

    Examples
    --------
    >>> found = agreement([10, 20, 30, 40], [11, 22, 31, 44])
    >>> round(found.slope, 3), found.bias
    (1.08, 2.0)
    """
    reference, other = np.asarray(x, float), np.asarray(y, float)
    if len(reference) < 3:
        raise InputError(f"agreement needs at least three pairs of counts, got {len(reference)}.")
    difference = other - reference
    bias, deviation = float(difference.mean()), float(difference.std(ddof=1))
    slope = intercept = r2 = float("nan")
    if np.ptp(reference) > 0:
        line = linregress(reference, other)
        slope, intercept, r2 = float(line.slope), float(line.intercept), float(line.rvalue**2)
    limits = bias - Z_95 * deviation, bias + Z_95 * deviation
    return Agreement(len(reference), slope, intercept, r2, bias, deviation, limits)
