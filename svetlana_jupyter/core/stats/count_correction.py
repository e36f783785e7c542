"""Counts of classes freed from what a classifier gets wrong, by how it did on objects drawn at random.

A classifier that takes a tenth of the many for the few finds too many of the few. How often it takes each class for
each other is known from a test set; so the counts that would look as those predicted do can be solved for (Rogan and
Gladen, American Journal of Epidemiology 107, 1978, for two classes; Forman, Data Mining and Knowledge Discovery 17,
2008). It holds for groups with other proportions too, as long as each class is recognised as well in them as in the
test set. Where the hardest objects were annotated after the test set was drawn, those left are recognised better than
it, and too much is corrected.

The intervals hold what the test set leaves open, by bootstrap over its groups or objects, and what chance does in the
group that is counted. A confusion that was never seen is not taken for impossible: each draw adds to it a chance of
what so few objects cannot rule out (the prior of Jeffreys).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svetlana_jupyter.core.stats.metrics import confusions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MIN_SINGULAR_VALUE = 0.1  # the least singular value of the rates with which classes can be told apart


@dataclass(frozen=True)
class ConfusionRates:
    """How often objects of each class are predicted as each.

    Attributes
    ----------
    rates : float64 of shape (k, k)
        Rows are the truth, columns the predictions; rows add up to 1. A class without an object is taken to be
        recognised always.
    drawn : float64 of shape (draws, k, k)
        The same as it might have been.
    known : bool of shape (k,)
        Whether there were objects of a class.
    """

    rates: Floats
    drawn: Floats
    known: NDArray[np.bool_]

    @property
    def is_invertible(self) -> bool:
        """Whether counts can be corrected: not where two classes are predicted alike."""
        return bool(np.linalg.svd(self.rates, compute_uv=False).min() >= MIN_SINGULAR_VALUE)


def estimate_confusion_rates(
    truth: ArrayLike,
    predicted: ArrayLike,
    ids: list[int],
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> ConfusionRates:
    """Learn from objects drawn at random how often each class is predicted as each.

    Parameters
    ----------
    truth, predicted : array of int, shape (n,)
        Class ids.
    ids : list of int
        The k classes.
    groups : array of str, shape (n,), optional
        What objects have in common: the bootstrap is over groups, over objects where there is one.
    weights : array of float, shape (n,), optional
        How many objects each stands for.
    """
    found, drawn = confusions(truth, predicted, ids, groups, weights)
    known = found.sum(axis=1) > 0
    rates = _rates(found, np.eye(len(ids)))
    scale = np.size(truth) / found.sum() if found.any() else 1.0  # as many as were looked at
    unseen = np.random.default_rng(seed).gamma(1 / len(ids), size=drawn.shape)
    drawn = _rates(np.where(drawn.sum(axis=-1, keepdims=True) > 0, drawn * scale + unseen, 0), rates)
    return ConfusionRates(rates, drawn, known)


def correct(found: ConfusionRates, predicted: ArrayLike, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Return how many objects of each class there are where so many are predicted, with 95 % intervals.

    Parameters
    ----------
    found : Recognition
    predicted : array of int, shape (k,)
        Objects predicted as each class.

    Returns
    -------
    value, low, high : float64 of shape (k,)
        Numbers of objects, from 0 to the sum of those predicted; ``value`` adds up to it.

    >>> rates = np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> correct(ConfusionRates(rates, rates[None], np.array([True, True])), [34, 66])[0].round(6)
    array([20., 80.])
    """
    counts = np.asarray(predicted, np.int64)
    total = int(counts.sum())
    if not total:
        nothing = np.zeros(len(counts))
        return nothing, nothing, nothing
    value = _solved(found.rates, counts / total)
    rng = np.random.default_rng(seed)
    true = np.diff(np.rint(np.cumsum(value) * total), prepend=0).astype(np.int64)  # whole, with the same sum
    again = sum(rng.multinomial(n, row, len(found.drawn)) for n, row in zip(true.tolist(), found.rates))
    moved = (again + (value * total - true) @ found.rates) / total
    low, high = np.quantile(_solved(found.drawn, moved), [0.025, 0.975], axis=0)
    return value * total, np.minimum(low, value) * total, np.maximum(high, value) * total


def _rates(counts: Floats, otherwise: Floats) -> Floats:
    """Return rows that add up to 1; those of ``otherwise`` where there is nothing."""
    sums = counts.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(sums > 0, counts / np.where(sums > 0, sums, 1), otherwise), np.float64)


def _solved(rates: Floats, shares: Floats) -> Floats:
    """Return the shares of the classes that are predicted as these, the nearest that are none below 0."""
    inverse = np.linalg.pinv(np.swapaxes(rates, -1, -2), rcond=MIN_SINGULAR_VALUE / 2)
    return _on_simplex((inverse @ shares[..., None])[..., 0])


def _on_simplex(points: Floats) -> Floats:
    """Return the nearest points with coordinates of at least 0 that add up to 1 (Duchi et al., ICML 2008)."""
    descending = -np.sort(-points, axis=-1)
    excess = np.cumsum(descending, axis=-1) - 1
    places = np.arange(1, points.shape[-1] + 1)
    last = (descending * places > excess).sum(axis=-1, keepdims=True)
    return np.asarray(np.maximum(points - np.take_along_axis(excess, last - 1, axis=-1) / last, 0), np.float64)
