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

Labels that are a random sample of the counted objects take part in the mixture with their true classes, so that a poor
classifier adds little to what they say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri, stdtr, stdtrit

from svetlana_jupyter.core.stats.calibration import to_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MIN_LABELS = 20  # drawn labels that an interval requires, and those of a group for a correction of its own
MIN_LABELS_PER_CLASS = 5
N_DRAWS = 60
N_POOLED = 500  # objects, drawn from all wells, on which the error that the wells share is computed
SPREAD = 0.5  # objects spread over the classes, which keep fractions off 0 and 1
MIN_CORRELATION = 0.01  # of the objects of a well; few wells of a rare class show less than there is
SIGNIFICANCE = 0.01
# Prior standard deviations of the correction: of its slope (the inverse temperature), and of its biases.
PRIOR_DEVIATIONS = 0.5, 1.0
GRID = expit(np.linspace(-10, 10, 201))

UNCORRECTED = f"Fewer than {MIN_LABELS} labels were drawn at random: errors are unknown."
EXACT = "All objects are annotated: the count is exact."
RARE = f"Fewer than {MIN_LABELS_PER_CLASS} randomly drawn labels of this class."
ASSUMPTION = f"Fewer than {MIN_LABELS} labels were drawn here: errors are assumed as elsewhere."
REFUSED = f"Errors differ between groups, and fewer than {MIN_LABELS} labels were drawn here."


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

    They are in the order in which their images were added.

    Attributes
    ----------
    probability : float64 of shape (n, k)
        Predicted probabilities, without calibration.
    annotation : int64 of shape (n,)
        Positions of the annotated classes; -1 for an object without an annotation.
    unit : array of str, shape (n,)
        Well, patient or image of each object: the units that the group is a sample of.
    is_drawn : bool of shape (n,)
        Whether the object is annotated because it was drawn uniformly at random. The objects of the group that were
        drawn need not be a sample of all of it: images may have been added after the draw.
    """

    probability: Floats
    annotation: Integers
    unit: NDArray[np.str_]
    is_drawn: NDArray[np.bool_]


class Fractions(NamedTuple):
    """Class fractions of a group, with 95 % confidence intervals.

    Attributes
    ----------
    fraction, low, high : float64 of shape (k,)
        ``low`` and ``high`` are NaN without an interval; ``fraction``, too, if no estimate holds.
    method : str
        "annotated" (all objects are), "corrected" or "predicted" (not corrected).
    note : list of str
        For each class, why it has no interval, or what the interval assumes; "" otherwise.
    """

    fraction: Floats
    low: Floats
    high: Floats
    method: str
    note: list[str]


class FractionEstimator:
    """Estimator of class fractions, from labels that were drawn uniformly at random.

    Parameters
    ----------
    labels : DrawnLabels
        With fewer than `MIN_LABELS`, fractions are those of the predictions, without intervals.
    seed : int
    """

    def __init__(self, labels: DrawnLabels, seed: int = 0) -> None:
        self._labels, self._seed = labels, seed
        if len(labels.truth) >= MIN_LABELS:
            prior = np.eye(labels.probability.shape[1] + 1)[:1]  # a slope of 1, no bias
            self._correction = fit_corrections(labels, prior)
            self._drawn = draw_corrections(labels, prior, self._correction, seed)

    def estimate(self, groups: Sequence[CountedObjects]) -> list[Fractions]:
        """Estimate the class fractions of each group.

        A group with at least `MIN_LABELS` labels of its own has its own correction. For other groups, the classifier
        is assumed to err as often as elsewhere, unless the labels of all groups show that it does not.
        """
        if len(self._labels.truth) < MIN_LABELS:
            return [_count(group) for group in groups]
        is_own = [np.isin(self._labels.unit, group.unit) for group in groups]
        pooled = [_Mixture(group, self._correction) for group in groups]
        differ = self._errors_differ(pooled, is_own)
        return [self._estimate(*each, differ) for each in zip(groups, pooled, is_own)]

    def _estimate(self, group: CountedObjects, mixture: _Mixture, is_own: NDArray[np.bool_], differ: bool) -> Fractions:
        if (group.annotation >= 0).all():
            return _count(group)
        labels, drawn, note = self._labels, self._drawn, ""
        if is_own.sum() < MIN_LABELS:
            note = REFUSED if differ else ASSUMPTION
        elif not is_own.all():
            own = DrawnLabels(labels.probability[is_own], labels.truth[is_own], labels.unit[is_own])
            correction = fit_corrections(own, self._correction.parameters)
            mixture = _Mixture(group, correction)
            drawn = draw_corrections(own, drawn.parameters, correction, self._seed)
        counts = np.bincount(labels.truth, minlength=group.probability.shape[1])
        none = np.full(len(counts), np.nan)
        if note == REFUSED:
            return Fractions(none, none, none, "corrected", [note] * len(counts))
        fraction = mixture.of_all(mixture.fractions)
        bounds = mixture.interval(drawn, np.minimum(counts, counts.sum() - counts), self._seed)
        rare = counts < MIN_LABELS_PER_CLASS
        # A group consists of whole objects; bounds between two numbers would exclude the true one.
        low, high = (np.where(rare, np.nan, mixture.of_all(*row)) for row in zip(bounds, (np.floor, np.ceil)))
        return Fractions(fraction, low, high, "corrected", np.where(rare, RARE, note).tolist())

    def _errors_differ(self, mixtures: Sequence[_Mixture], is_own: Sequence[NDArray[np.bool_]]) -> bool:
        """Return whether the labels show that the classifier errs more in some groups."""
        from scipy.stats import chi2

        statistic, freedom = 0.0, 0
        logits, truth = to_logits(self._labels.probability), self._labels.truth
        for mixture, own in zip(mixtures, is_own):
            if own.sum() < MIN_LABELS_PER_CLASS or own.all() or not mixture.n:
                continue
            expected = self._correction.ratios(logits[own])[0].T * mixture.fractions
            expected /= expected.sum(axis=1, keepdims=True)
            excess = (np.eye(expected.shape[1])[truth[own]] - expected).sum(axis=0)
            covariance = np.diag(expected.sum(axis=0)) - expected.T @ expected
            statistic += float(excess @ np.linalg.pinv(covariance, hermitian=True) @ excess)
            freedom += len(excess) - 1
        return bool(freedom and chi2.sf(statistic, freedom) < SIGNIFICANCE)


def _count(group: CountedObjects) -> Fractions:
    """Return the fractions of the annotated, or else predicted, classes."""
    k, is_known = group.probability.shape[1], group.annotation >= 0
    classes = np.eye(k)[np.where(is_known, group.annotation, group.probability.argmax(axis=1))]
    fraction, none = classes.mean(axis=0), np.full(k, np.nan)
    if not is_known.all():
        return Fractions(fraction, none, none, "predicted", [UNCORRECTED] * k)
    if len(np.unique(group.unit)) == 1:
        return Fractions(fraction, none, none, "annotated", [EXACT] * k)
    bounds = _interval(fraction, np.zeros((1, k)), classes - fraction, group.unit)
    return Fractions(fraction, *bounds, "annotated", [""] * k)


def _is_sample(group: CountedObjects) -> bool:
    """Return whether the annotated objects are a random sample of a group.

    They are if all of them were drawn, and if they are spread evenly over the group. They are not if objects were added
    after the draw, which may be of other classes (Kolmogorov–Smirnov test).
    """
    from scipy.stats import kstest

    places, n = np.flatnonzero(group.annotation >= 0), len(group.annotation)
    if not places.size or not group.is_drawn[places].all():
        return False
    return bool(kstest((places + 0.5) / n, "uniform").pvalue >= SIGNIFICANCE)


class _Mixture:
    """Most likely class fractions of the objects of a group.

    Annotated objects take part if they are a random sample of the group (`_is_sample`). Otherwise all annotated objects
    are left out, and added in `of_all`: they may be those of one class, and what is left differs from the drawn ones.

    Attributes
    ----------
    n : int
        Number of objects that take part.
    fractions : float64 of shape (k,)
    """

    def __init__(self, group: CountedObjects, correction: Corrections) -> None:
        k, is_annotated = group.probability.shape[1], group.annotation >= 0
        rest = ~is_annotated | _is_sample(group)
        self.n, self._unit, self._classes = int(rest.sum()), group.unit[rest], group.annotation[rest]
        self._annotated = np.bincount(group.annotation[is_annotated], minlength=k)
        self._added = np.bincount(group.annotation[~rest], minlength=k)
        self._logits = to_logits(group.probability[rest])
        self._ratios = self._ratios_of(correction)
        self.fractions = mix(self._ratios)[0]

    def _ratios_of(self, correction: Corrections, some: Integers | slice = slice(None)) -> Floats:
        """Return likelihood ratios; an annotated object is of no other class."""
        ratios, classes = correction.ratios(self._logits[some]), self._classes[some]
        is_known = classes >= 0
        ratios[:, :, is_known] = np.eye(ratios.shape[1])[:, classes[is_known]]
        return ratios

    def of_all(self, fractions: Floats, rounded: Callable[[Floats], Floats] = np.asarray) -> Floats:
        """Return fractions of all objects, annotated ones included.

        The numbers of objects are passed through ``rounded``.
        """
        total, annotated = self._added.sum() + self.n, self._annotated
        numbers = rounded(self._added + self.n * fractions)
        return np.asarray(np.clip(numbers, annotated, total - annotated.sum() + annotated) / total)

    def interval(self, drawn: Corrections, n_labels: Integers, seed: int) -> tuple[Floats, Floats]:
        """Return the bounds of the fractions.

        Parameters
        ----------
        drawn : Corrections
        n_labels : int64 of shape (k,)
            Number of labels on which the correction of each class stands.
        seed : int
        """
        some = np.random.default_rng(seed).permutation(self.n)[:N_POOLED]
        pooled = mix(self._ratios[:, :, some])
        shared = mix(self._ratios_of(drawn, some), pooled) - pooled
        shared *= stdtrit(np.maximum(n_labels - 1, 1), 0.975) / ndtri(0.975)  # the draws are too narrow for few labels
        return _interval(self.fractions, shared, influence(self._ratios[0].T, self.fractions), self._unit)


def _interval(fractions: Floats, shared: Floats, effects: Floats, unit: NDArray[np.str_]) -> tuple[Floats, Floats]:
    """Return the bounds of the fractions.

    Parameters
    ----------
    fractions : float64 of shape (k,)
    shared : float64 of shape (d, k)
        Draws of the error that all units share.
    effects : float64 of shape (n, k)
        See `influence`.
    unit : array of str, shape (n,)
        Sampling units. Where all objects are of a single unit, they are the units themselves.
    """
    n, positions = len(unit), np.unique(unit, return_inverse=True)[1]
    sizes = np.bincount(positions)
    if len(sizes) == 1:
        positions, sizes = np.arange(n), np.ones(n, np.int64)
    share = sizes / n
    units = float(1 / (share**2).sum())  # number of equal units with the same variance (Kish)
    freedom = max(units - 1, 1.0)
    each = np.stack([np.bincount(positions, effect) for effect in effects.T], axis=1) / sizes[:, None]
    variance = share**2 @ (each - share @ each) ** 2 * units / freedom
    least = (1 + MIN_CORRELATION * (n / units - 1)) / n
    low, high = np.array([_invert(*row, least, freedom) for row in zip(fractions, shared.T, variance)]).T
    return low, high


def _invert(center: float, shared: Floats, variance: float, least: float, freedom: float) -> tuple[float, float]:
    """Return the 95 % bounds of one fraction.

    At a bound, an estimate as far away has a probability of 2.5 %, averaged over the draws of ``shared``. The variance
    grows like that of a binomial fraction towards 1/2, and is at least ``least`` times that.
    """
    binomial, inside = GRID * (1 - GRID), min(max(center, least / 2), 1 - least / 2)
    error = np.sqrt(np.maximum(variance * np.maximum(1, binomial / (inside * (1 - inside))), binomial * least))
    below = stdtr(freedom, (GRID - inside - shared[:, None]) / error).mean(axis=0)
    low, high = np.interp([0.025, 0.975], np.maximum.accumulate(below), GRID)
    return min(float(low), center), max(float(high), center)


def influence(ratios: Floats, fractions: Floats) -> Floats:
    """Return n times the effect of each object on the estimated fractions.

    The mean effect of the objects of a unit is the difference of its fractions from those of all units, without the
    bias of an estimate for each unit, which cannot be negative.

    Parameters
    ----------
    ratios : float64 of shape (n, k)
        Likelihood of each object under each class, up to a factor per object.
    fractions : float64 of shape (k,)

    Returns
    -------
    float64 of shape (n, k)
    """
    n, k = ratios.shape
    scores = ratios / (ratios @ fractions)[:, None]
    tangent = np.linalg.svd(np.ones((1, k)))[2][1:]  # fractions add up to 1
    information = (scores.T @ scores + np.diag(SPREAD / k / fractions**2)) / n
    return np.asarray(scores @ tangent.T @ np.linalg.solve(tangent @ information @ tangent.T, tangent))


class Corrections(NamedTuple):
    """Corrections of predicted probabilities, ``softmax(slope * log p + bias)``.

    Attributes
    ----------
    parameters : float64 of shape (d, k + 1)
        The slope, then the biases.
    prior : float64 of shape (d, k)
        The mean corrected probability of each class among the labels.
    """

    parameters: Floats
    prior: Floats

    def ratios(self, logits: Floats) -> Floats:
        """Return likelihood ratios, (d, k, n), of objects with the given logits, (n, k)."""
        return _softmax(self.parameters, logits.T) / self.prior[:, :, None]


def draw_corrections(labels: DrawnLabels, centers: Floats, fitted: Corrections, seed: int) -> Corrections:
    """Draw corrections from their posterior distribution.

    Each draw weights the labels, and moves the prior, at random (weighted likelihood bootstrap: Newton and Raftery,
    Journal of the Royal Statistical Society B 56, 1994).
    """
    rng, k = np.random.default_rng(seed), labels.probability.shape[1]
    weights = rng.exponential(size=(N_DRAWS, len(labels.truth)))
    noise = rng.standard_normal((N_DRAWS, k + 1)) * _prior_deviations(k)
    return fit_corrections(labels, centers + noise, weights / weights.mean(axis=1, keepdims=True), fitted.parameters)


def fit_corrections(
    labels: DrawnLabels, centers: Floats, weights: Floats | None = None, start: Floats | None = None
) -> Corrections:
    """Fit corrections by penalized maximum likelihood (Newton's method).

    Parameters
    ----------
    labels : DrawnLabels
    centers : float64 of shape (d, k + 1)
        Means of the normal prior distribution of each correction.
    weights : float64 of shape (d, l), optional
        Weights of the labels; equal by default.
    start : float64 of shape (1, k + 1), optional
        Parameters at which to begin.
    """
    weights = np.ones((1, len(labels.truth))) if weights is None else weights
    z = to_logits(labels.probability).T
    k = len(z)
    truth = np.eye(k)[:, labels.truth]
    precision = 1 / _prior_deviations(k) ** 2
    free = np.broadcast_to(centers if start is None else start, centers.shape)
    diagonal = np.arange(1, k + 1)
    for _ in range(20):
        p = _softmax(free, z)
        weighted = weights[:, None, :] * p
        mean = (p * z).sum(axis=1, keepdims=True)
        excess = weighted - weights[:, None, :] * truth
        gradient = (free - centers) * precision
        gradient[:, 0] += (excess * z).sum(axis=(1, 2))
        gradient[:, 1:] += excess.sum(axis=2)
        hessian = np.zeros((len(free), k + 1, k + 1)) + np.diag(precision)
        hessian[:, 0, 0] += (weighted * z * (z - mean)).sum(axis=(1, 2))
        hessian[:, 0, 1:] = hessian[:, 1:, 0] = (weighted * (z - mean)).sum(axis=2)
        hessian[:, 1:, 1:] -= weighted @ np.swapaxes(p, 1, 2)
        hessian[:, diagonal, diagonal] += weighted.sum(axis=2)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        step /= np.maximum(1, np.abs(step).max(axis=1, keepdims=True))  # longer steps may diverge
        free = free - step
        if np.abs(step).max() < 1e-2:  # the error is the square of the last step
            break
    prior = (weights[:, None, :] * _softmax(free, z)).sum(axis=2) / weights.sum(axis=1, keepdims=True)
    return Corrections(free, np.maximum(prior, 1e-6))


def _prior_deviations(k: int) -> Floats:
    return np.array([PRIOR_DEVIATIONS[0], *[PRIOR_DEVIATIONS[1]] * k])


def _softmax(free: Floats, z: Floats) -> Floats:
    """Return corrected probabilities (d, k, n) for logits z (k, n)."""
    scores = free[:, :1, None] * z + free[:, 1:, None]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def mix(ratios: Floats, start: Floats | None = None, steps: int = 100) -> Floats:
    """Return the most likely class fractions, (d, k), by expectation maximization.

    Parameters
    ----------
    ratios : float64 of shape (d, k, n)
        Likelihood of each object under each class, up to a factor per object.
    start : float64 of shape (1, k), optional
        Fractions at which to begin; equal ones by default.
    steps : int
        Maximum number of iterations.

    Examples
    --------
    A quarter of the objects look like the first class, and no object could be of both:

    >>> ratios = np.array([[[1.0, 0, 0, 0], [0, 1, 1, 1]]])
    >>> mix(ratios).round(2)
    array([[0.28, 0.72]])
    """
    d, k, n = ratios.shape
    fractions = np.full((d, k), 1 / k) if start is None else np.broadcast_to(start, (d, k))
    for _ in range(steps):
        before, likelihood = fractions, (fractions[:, None, :] @ ratios)[:, 0]
        expected = fractions * (ratios @ (1 / likelihood)[:, :, None])[:, :, 0]
        fractions = (expected + SPREAD / k) / (n + SPREAD)
        if np.abs(fractions - before).max() < 1e-5:
            break
    return fractions
