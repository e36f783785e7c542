"""Class fractions in wells and conditions, with 95 % confidence intervals.

Counted predictions are biased: a classifier that mistakes a tenth of the objects of a frequent class for a rare class
overestimates the rare class, and the sum of calibrated probabilities is no better where the fractions differ from those
of the labeled objects. Instead, the fractions of each well are those under which its predicted probabilities are most
likely (expectation maximization: Saerens, Latinne and Decaestecker, Neural Computation 14, 2002), after the
probabilities have been corrected on labeled objects that were drawn uniformly at random (bias-corrected temperature
scaling: Alexandari, Kundaje and Shrikumar, ICML 2020).

The intervals contain two errors. The correction is uncertain, since it is fitted to few labels, and it is the same for
all wells: it is drawn repeatedly from its posterior distribution. The wells of a condition differ: they are the
replicates of Student's t.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax
from scipy.stats import t

from svetlana_jupyter.core.stats.calibration import to_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MIN_LABELS = 20  # uniformly drawn labels that an interval requires
N_DRAWS = 100
SPREAD = 0.5  # objects spread over the classes, which keep fractions off 0 and 1
N_POOLED = 500  # objects, drawn from all wells, on which the error that the wells share is computed
# Prior standard deviations of the correction: of its slope (the inverse temperature) around 1, and of its biases.
PRIOR_DEVIATIONS = 0.5, 1.0


class DrawnLabels(NamedTuple):
    """Uniformly drawn labeled objects with held-out predictions.

    Attributes
    ----------
    probability : float64 of shape (l, k)
        Predicted probabilities, without calibration.
    truth : int64 of shape (l,)
        Positions of the true classes, from 0 to k - 1.
    unit : array of str, shape (l,)
        Well, patient or image of each object.
    """

    probability: Floats
    truth: Integers
    unit: NDArray[np.str_]


class CountedObjects(NamedTuple):
    """Objects of one group whose class fractions are estimated.

    Attributes
    ----------
    probability : float64 of shape (n, k)
        Predicted probabilities, without calibration.
    annotation : int64 of shape (n,)
        Positions of the annotated classes; -1 for an object without an annotation.
    unit : array of str, shape (n,)
        Well, patient or image of each object: the units that the group is a sample of.
    """

    probability: Floats
    annotation: Integers
    unit: NDArray[np.str_]


class Fractions(NamedTuple):
    """Class fractions of a group, with 95 % confidence intervals.

    Attributes
    ----------
    fraction, low, high : float64 of shape (k,)
        ``low`` and ``high`` are NaN without an interval.
    method : str
        "annotated" (all objects are), "corrected" or "predicted" (not corrected).
    note : str
        Why there is no interval, or what it assumes; "" otherwise.
    """

    fraction: Floats
    low: Floats
    high: Floats
    method: str
    note: str


class FractionEstimator:
    """Estimator of class fractions, from labels that were drawn uniformly at random.

    Parameters
    ----------
    labels : DrawnLabels
        May be empty; then fractions are counted predictions without intervals.
    seed : int
    """

    def __init__(self, labels: DrawnLabels, seed: int = 0) -> None:
        self._labels, self._rng = labels, np.random.default_rng(seed)
        k = labels.probability.shape[1]
        n_labels = len(labels.truth)
        if n_labels >= MIN_LABELS:
            self._fit = fit_corrections(labels, np.ones((1, n_labels)), np.zeros((1, k + 1)))
            weights = self._rng.exponential(size=(N_DRAWS, n_labels))
            priors = self._rng.standard_normal((N_DRAWS, k + 1))
            self._draws = fit_corrections(labels, weights / weights.mean(axis=1, keepdims=True), priors)

    def estimate(self, groups: Sequence[CountedObjects]) -> list[Fractions]:
        """Estimate the class fractions of each group."""
        return [self._estimate(group) for group in groups]

    def _estimate(self, group: CountedObjects) -> Fractions:
        k = group.probability.shape[1]
        rest = group.annotation < 0
        if not rest.any() or len(self._labels.truth) < MIN_LABELS:
            chosen = np.where(rest, group.probability.argmax(axis=1), group.annotation)
            none = np.full(k, np.nan)
            method = "predicted" if rest.any() else "annotated"
            return Fractions(np.bincount(chosen, minlength=k) / len(chosen), none, none, method, "")
        names, unit = np.unique(group.unit, return_inverse=True)
        known = np.stack([np.bincount(unit[group.annotation == c], minlength=len(names)) for c in range(k)], axis=1)
        sizes = np.bincount(unit)
        logits = to_logits(group.probability)
        each = known.astype(float)
        for u in range(len(names)):
            chosen = rest & (unit == u)
            if chosen.any():
                each[u] += chosen.sum() * mix(self._fit.ratios(logits[chosen]))[0]
        each /= sizes[:, None]
        weight = sizes / sizes.sum()
        fraction = weight @ each
        # error that all units share
        unannotated = np.flatnonzero(rest)
        shared = np.zeros((N_DRAWS, k))
        if len(unannotated):
            some = self._rng.permutation(unannotated)[:N_POOLED]
            ratios = self._draws.ratios(logits[some])
            if len(names) == 1:
                boot = self._rng.exponential(size=(N_DRAWS, len(some)))
                boot /= boot.mean(axis=1, keepdims=True)
            else:
                boot = np.ones((1, len(some)))
            pooled = mix(self._fit.ratios(logits[some]))
            shared = (mix(ratios, boot) - pooled) * len(unannotated) / len(rest)
        n = len(rest)
        mean = np.clip(fraction, 0.5 / n, 1 - 0.5 / n)
        values = logit(np.clip(mean + shared, 0.25 / n, 1 - 0.25 / n))
        if len(names) > 1:
            effective = 1 / (weight**2).sum()
            variance = (weight**2) @ (each - fraction) ** 2 * effective / (effective - 1)
            quantiles = t.ppf((np.arange(200) + 0.5) / 200, max(1.0, effective - 1))
            error = np.sqrt(variance) / (mean * (1 - mean))
            values = (values[:, None] + quantiles[None, :, None] * error).reshape(-1, k)
        low, high = expit(np.quantile(values, [0.025, 0.975], axis=0))
        return Fractions(fraction, np.minimum(low, fraction), np.maximum(high, fraction), "corrected", "")


class Corrections(NamedTuple):
    """Corrections of predicted probabilities, ``softmax(slope * log p + bias)``.

    Attributes
    ----------
    slope : float64 of shape (d,)
    bias, prior : float64 of shape (d, k)
        ``prior`` is the mean corrected probability of each class among the labels.
    """

    slope: Floats
    bias: Floats
    prior: Floats

    def ratios(self, logits: Floats) -> Floats:
        """Return likelihood ratios, (d, n, k), of objects with the given logits, (n, k)."""
        p = softmax(self.slope[:, None, None] * logits + self.bias[:, None, :], axis=2)
        return np.asarray(p / self.prior[:, None, :], np.float64)


def fit_corrections(labels: DrawnLabels, weights: Floats, priors: Floats) -> Corrections:
    """Fit d corrections by weighted, penalized maximum likelihood (Newton's method)."""
    z = to_logits(labels.probability)
    k = z.shape[1]
    y = np.eye(k)[labels.truth]
    deviation = np.array([PRIOR_DEVIATIONS[0], *[PRIOR_DEVIATIONS[1]] * k])
    center = priors * deviation + np.eye(k + 1)[0]
    free = center.copy()
    for _ in range(12):
        p = softmax(free[:, :1, None] * z + free[:, None, 1:], axis=2)  # d, l, k
        excess = weights[:, :, None] * (p - y)
        pz = (p * z).sum(2)
        gradient = np.concatenate([(excess * z).sum((1, 2))[:, None], excess.sum(1)], axis=1)
        gradient += (free - center) / deviation**2
        H = np.empty((len(free), k + 1, k + 1))
        wp = weights[:, :, None] * p
        H[:, 0, 0] = (wp * z * z).sum((1, 2)) - (weights * pz**2).sum(1)
        H[:, 0, 1:] = H[:, 1:, 0] = (wp * (z - pz[:, :, None])).sum(1)
        H[:, 1:, 1:] = -np.swapaxes(wp, 1, 2) @ p
        H[:, np.arange(1, k + 1), np.arange(1, k + 1)] += wp.sum(1)
        H += np.diag(1 / deviation**2)
        step = np.linalg.solve(H, gradient[..., None])[..., 0]
        free = free - np.clip(step, -1, 1)
    p = softmax(free[:, :1, None] * z + free[:, None, 1:], axis=2)
    prior = (weights[:, :, None] * p).sum(1) / weights.sum(1, keepdims=True)
    return Corrections(free[:, 0], free[:, 1:], np.maximum(prior, 1e-6))


def mix(ratios: Floats, weights: Floats | None = None, steps: int = 100) -> Floats:
    """Return the most likely class fractions, (d, k), by expectation maximization.

    Parameters
    ----------
    ratios : float64 of shape (d, n, k)
        Likelihood of each object under each class, up to a factor per object.
    weights : float64 of shape (d or 1, n), optional
    steps : int
        Maximum number of iterations.
    """
    d, n, k = ratios.shape
    fractions = np.full((d, k), 1 / k)
    weights = np.ones((1, n)) if weights is None else weights
    total = weights.sum(axis=1)[:, None]
    for _ in range(steps):
        before, likelihood = fractions, (ratios @ fractions[:, :, None])[:, :, 0]
        expected = fractions * ((weights / likelihood)[:, None, :] @ ratios)[:, 0]
        fractions = (expected + SPREAD / k) / (total + SPREAD)
        if np.abs(fractions - before).max() < 1e-5:
            break
    return fractions
