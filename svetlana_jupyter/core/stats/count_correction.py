"""Class counts corrected for the errors of a classifier (Rogan–Gladen).

A classifier that mistakes a tenth of the objects of a frequent class for a rare class overestimates the rare class. A
random test set shows how often objects of each class are predicted as each class, so that the true counts can be
computed (Rogan and Gladen, American Journal of Epidemiology 107, 1978, for two classes; Forman, Data Mining and
Knowledge Discovery 17, 2008). The correction also holds for groups of objects with other class proportions, as long as
each class is recognized as well as in the test set. If the hardest objects were annotated after the test set was drawn,
the remaining objects are recognized better than the test set, and the correction is too large.

The confidence intervals include the uncertainty of the test set, by bootstrap over its groups or objects, and the
random error of the counted group. A confusion that never occurred in the test set may still be possible: each bootstrap
draw adds a random count, one object per true class on average (Dirichlet prior; for two classes, the Jeffreys prior).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svetlana_jupyter.core.stats.metrics import PredictedObjects

Floats = NDArray[np.float64]

MIN_SINGULAR_VALUE = 0.1  # of the matrix of rates; below this value, the classes cannot be distinguished


class ConfusionRates(NamedTuple):
    """Frequencies at which objects of each class are predicted as each class.

    Attributes
    ----------
    rates : float64 of shape (k, k)
        Rows are the truth, columns the predictions; rows add up to 1. A class without objects counts as always
        recognized.
    bootstrap_rates : float64 of shape (draws, k, k)
        The rates of each bootstrap draw.
    is_observed : bool of shape (k,)
        Whether a class has objects.
    """

    rates: Floats
    bootstrap_rates: Floats
    is_observed: NDArray[np.bool_]

    @property
    def is_invertible(self) -> bool:
        """Whether counts can be corrected; impossible if two classes have equal rates."""
        return bool(np.linalg.svd(self.rates, compute_uv=False).min() >= MIN_SINGULAR_VALUE)


def estimate_confusion_rates(
    truth: ArrayLike,
    predicted: ArrayLike,
    ids: list[int],
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> ConfusionRates:
    """Estimate how often random objects of each class are predicted as each class.

    Parameters
    ----------
    truth, predicted : array of int, shape (n,)
        Class ids.
    ids : list of int
        The k classes.
    groups : array of str, shape (n,), optional
        Groups of similar objects, such as wells. The bootstrap draws groups or, from a single group, objects.
    weights : array of float, shape (n,), optional
        Number of objects that each drawn object represents.
    seed : int
    """
    objects = PredictedObjects((truth, predicted), ids, groups, weights)
    counts, bootstrap = objects.confusion(objects.weight), objects.bootstrap_confusions()
    rates = _row_shares(counts, np.eye(len(ids)))
    scale = np.size(truth) / counts.sum() if counts.any() else 1.0  # converts weights to numbers of objects
    unseen = np.random.default_rng(seed).gamma(1 / len(ids), size=bootstrap.shape)
    bootstrap = np.where(bootstrap.sum(axis=-1, keepdims=True) > 0, bootstrap * scale + unseen, 0)
    return ConfusionRates(rates, _row_shares(bootstrap, rates), counts.sum(axis=1) > 0)


def solve_counts(confusion_rates: ConfusionRates, predicted: ArrayLike, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Return corrected numbers of objects per class, with 95 % confidence intervals.

    Parameters
    ----------
    confusion_rates : ConfusionRates
    predicted : array of int, shape (k,)
        Number of objects predicted as each class.
    seed : int

    Returns
    -------
    value, low, high : float64 of shape (k,)
        Corrected numbers of objects and their confidence bounds, from 0 to the sum of ``predicted``; ``value`` adds up
        to this sum.

    >>> rates = np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> solve_counts(ConfusionRates(rates, rates[None], np.array([True, True])), [34, 66])[0].round(6)
    array([20., 80.])
    """
    counts = np.asarray(predicted, np.int64)
    total = int(counts.sum())
    if not total:
        return np.zeros(len(counts)), np.zeros(len(counts)), np.zeros(len(counts))
    rates, bootstrap_rates = confusion_rates.rates, confusion_rates.bootstrap_rates
    value = _solve(rates, counts / total)
    rng = np.random.default_rng(seed)
    true = np.diff(np.rint(np.cumsum(value) * total), prepend=0).astype(np.int64)  # integers with the same sum
    drawn = sum(rng.multinomial(n, row, len(bootstrap_rates)) for n, row in zip(true.tolist(), rates))
    simulated: Floats = (drawn + (value * total - true) @ rates) / total
    low, high = np.quantile(_solve(bootstrap_rates, simulated), [0.025, 0.975], axis=0)
    return value * total, np.minimum(low, value) * total, np.maximum(high, value) * total


def _row_shares(counts: Floats, default: Floats) -> Floats:
    """Return rows scaled to a sum of 1; rows without counts become ``default``."""
    sums = counts.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(sums > 0, counts / np.where(sums > 0, sums, 1), default), np.float64)


def _solve(rates: Floats, shares: Floats) -> Floats:
    """Return the true class shares that would lead to the predicted class shares.

    If some of these shares would be negative, return the nearest shares without negative values.
    """
    inverse = np.linalg.pinv(np.swapaxes(rates, -1, -2), rcond=MIN_SINGULAR_VALUE / 2)
    return _project_on_simplex((inverse @ shares[..., None])[..., 0])


def _project_on_simplex(points: Floats) -> Floats:
    """Return the nearest points whose coordinates are at least 0 and add up to 1.

    See Duchi et al., ICML 2008.
    """
    descending = -np.sort(-points, axis=-1)
    excess = np.cumsum(descending, axis=-1) - 1
    positions = np.arange(1, points.shape[-1] + 1)
    last = (descending * positions > excess).sum(axis=-1, keepdims=True)
    return np.asarray(np.maximum(points - np.take_along_axis(excess, last - 1, axis=-1) / last, 0), np.float64)
