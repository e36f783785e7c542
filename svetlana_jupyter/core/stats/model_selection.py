"""Model selection from held-out predictions, and the augmentation warning.

The cross-validation score of the selected classifier is optimistic, because the selection favors classifiers that
score well by chance. So the selection is repeated for every fold: a classifier is selected by its predictions in the
other folds, and scored on this fold (nested cross-validation). This needs no further training (Varma and Simon 2006
repeat the whole search in every fold; Tsamardinos et al. 2018 select on bootstrap samples of the same predictions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from svetlana_jupyter.core.stats.calibration import LOG_TEMPERATURE_PRIOR, Floats, to_logits

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pandas as pd

    from svetlana_jupyter.core.settings import AugmentSettings

Integers = NDArray[np.int64]

TEMPERATURES = np.exp(np.linspace(-2.0, 2.0, 33))

# A loss of accuracy by augmentation is reported if it is significant at this level and at least this large.
MAX_P_VALUE, MIN_ACCURACY_LOSS = 0.01, 0.1
CHANCE_P_VALUE = 0.05
N_PERMUTATIONS = 1999
MIN_UNITS = 5  # with fewer sampling units, standard errors over them would be arbitrary


def brier_skill(truth: Integers, probabilities: Floats) -> float:
    """Return the quality of predicted probabilities, from 0 to 1, by the Brier score.

    The result is one minus half the squared distance between probabilities and truth; the mean distance over objects
    and the mean distance over classes have equal weight. The probabilities are first calibrated by temperature scaling,
    so that overconfident classifiers are not at a disadvantage. With few objects, this score is much more informative
    than the accuracy.

    Parameters
    ----------
    truth : int64 of shape (n,)
        True classes, as columns of ``probabilities``.
    probabilities : float64 of shape (n, k)

    >>> brier_skill(np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]])) > 0.99
    True
    """
    distances, weights = _calibrated_distances(truth, probabilities)
    return float(1 - distances @ weights)


def _calibrated_distances(truth: Integers, probabilities: Floats) -> tuple[Floats, Floats]:
    """Return half the squared error of calibrated probabilities, and weights."""
    n, k = probabilities.shape
    scaled = log_softmax(to_logits(probabilities) / TEMPERATURES[:, None, None], axis=2)
    counts = np.bincount(truth, minlength=k)
    weights = 0.5 / n + 0.5 / ((counts > 0).sum() * counts[truth])
    losses = -(scaled[:, np.arange(n), truth] * weights).sum(axis=1)
    penalty = np.log(TEMPERATURES) ** 2 / (2 * LOG_TEMPERATURE_PRIOR**2) / n
    calibrated = np.exp(scaled[(losses + penalty).argmin()])
    return ((calibrated - np.eye(k)[truth]) ** 2).sum(axis=1) / 2, weights


def possible_gain(truth: Integers, probabilities: Floats, units: ArrayLike) -> float:
    """Return an upper bound of the `brier_skill` that a better classifier could gain.

    The skill of a perfect classifier is 1, so the bound is the loss, one minus the skill, plus its standard error.

    Parameters
    ----------
    truth : int64 of shape (n,)
    probabilities : float64 of shape (n, k)
    units : array of shape (n,)
        Sampling unit of each object, such as its image, over which the standard error is computed.

    >>> truth = np.array([0, 0, 1, 1])
    >>> guesses = np.full((4, 2), 0.5)
    >>> possible_gain(truth, guesses, [1, 2, 3, 4])
    0.25
    """
    distances, weights = _calibrated_distances(truth, probabilities)
    return float(distances @ weights) + _standard_error(distances, weights, units)


def rank_candidates(truth: Integers, candidates: Mapping[str, Floats]) -> list[str]:
    """Return the names of candidate classifiers, sorted by `brier_skill`, best first.

    Candidates of equal skill keep their order.
    """
    return sorted(candidates, key=lambda name: -round(brier_skill(truth, candidates[name]), 6))


def select_candidate(
    truth: Integers, candidates: Mapping[str, Floats], units: ArrayLike, preferred: Collection[str] = ()
) -> str:
    """Return the name of the best candidate, or of a preferred one that is as good.

    With few objects, the best of many candidates is partly the luckiest one. So any other candidate is selected only if
    its `brier_skill` exceeds that of the best preferred candidate by more than the standard error of the difference.

    Parameters
    ----------
    truth : int64 of shape (n,)
    candidates : mapping of name to float64 of shape (n, k)
    units : array of shape (n,)
        Sampling unit of each object, such as its image, over which the standard error is computed; over single objects
        if there are fewer than five units.
    preferred : collection of str
        Candidates that do not need many objects, such as classifiers without a network.

    >>> truth = np.array([0, 0, 1, 1])
    >>> same = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.4, 0.6]])
    >>> select_candidate(truth, {"large": same, "small": same}, [1, 2, 3, 4])
    'large'
    >>> select_candidate(truth, {"large": same, "small": same}, [1, 2, 3, 4], ["small"])
    'small'
    """
    ranked = rank_candidates(truth, candidates)
    best, simple = ranked[0], next((name for name in ranked if name in preferred), None)
    if simple is None or simple == best:
        return best
    weights = _calibrated_distances(truth, candidates[best])[1]
    gains = np.subtract(*(_calibrated_distances(truth, candidates[name])[0] for name in (simple, best)))
    return best if gains @ weights > _standard_error(gains, weights, _enough_units(units)) else simple


def _enough_units(units: ArrayLike) -> Integers:
    """Return the numbers of sampling units, or of objects if the units are few."""
    names, numbers = np.unique(units, return_inverse=True)
    return numbers if len(names) >= MIN_UNITS else np.arange(len(numbers))


def _standard_error(values: Floats, weights: Floats, units: ArrayLike) -> float:
    """Return the standard error of the weighted sum of values, over sampling units.

    The weights sum to 1.
    """
    _, numbers = np.unique(units, return_inverse=True)
    deviations = np.bincount(numbers, weights * (values - float(values @ weights)))
    m = len(deviations)
    return float(np.sqrt((deviations**2).sum() * m / max(m - 1, 1)))


def nested_selection(
    truth: Integers,
    folds: Integers,
    candidates: Mapping[str, Floats],
    units: ArrayLike | None = None,
    preferred: Collection[str] = (),
) -> Floats:
    """Return predictions of each fold by the candidate that the other folds select.

    Parameters
    ----------
    truth, folds : int64 of shape (n,)
    candidates : mapping of name to float64 of shape (n, k)
        Class probabilities of each object, predicted by a classifier that was not trained on the fold of the object.
    units, preferred
        As for `select_candidate`; by default every object is a unit.

    Returns
    -------
    float64 of shape (n, k)
    """
    units = np.arange(len(truth)) if units is None else np.asarray(units)
    result = np.zeros_like(next(iter(candidates.values())))
    for fold in np.unique(folds):
        here = folds == fold
        others = {name: p[~here] for name, p in candidates.items()}
        result[here] = candidates[select_candidate(truth[~here], others, units[~here], preferred)][here]
    return result


def may_gain(
    truth: Integers, folds: Integers, units: ArrayLike, candidates: Mapping[str, Floats], least: float
) -> bool:
    """Return whether a better candidate may gain at least ``least``.

    The decision counts for nested cross-validation, too: the best candidate is selected from all folds, and from all
    folds but any single one. The result is False only if none of these selections may be improved (`possible_gain`).
    So a search that ends then would also have ended without the fold that is scored, and the nested score stays
    unbiased.

    Parameters
    ----------
    truth, folds : int64 of shape (n,)
    units : array of shape (n,)
        Sampling unit of each object, such as its image.
    candidates : mapping of name to float64 of shape (n, k)
    least : float
        Brier skill.
    """
    units = np.asarray(units)
    for chosen in [np.ones(len(folds), bool), *(folds != fold for fold in np.unique(folds))]:
        own = {name: p[chosen] for name, p in candidates.items()}
        best = own[rank_candidates(truth[chosen], own)[0]]
        if possible_gain(truth[chosen], best, units[chosen]) >= least:
            return True
    return False


class PairedComparison(NamedTuple):
    """Comparison of two classifiers on the same objects.

    Parameters
    ----------
    n : int
        Number of objects.
    first, second : int
        Number of objects that each classifier predicts correctly.
    p : float
        Two-sided p-value of the exact test of McNemar (1947), which assumes independent objects.
    """

    n: int
    first: int
    second: int
    p: float


def compare_paired(first: pd.DataFrame, second: pd.DataFrame) -> PairedComparison:
    """Compare two tables of predictions on the objects that both contain.

    Parameters
    ----------
    first, second : DataFrame
        One row per object: image, object, truth and predicted class id.
    """
    from scipy.stats import binomtest

    both = first.merge(second, on=["image", "object"], suffixes=("_1", "_2"))
    a, b = (both[f"predicted_{n}"].to_numpy() == both[f"truth_{n}"].to_numpy() for n in (1, 2))
    only_first, discordant = int((a & ~b).sum()), int((a != b).sum())
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return PairedComparison(len(both), int(a.sum()), int(b.sum()), p)


def permutation_p_value(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return the permutation p-value of the balanced accuracy.

    The null hypothesis is that predictions and truth are independent.

    >>> permutation_p_value([1, 2] * 10, [1, 2] * 10)
    0.0005
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    _, classes, counts = np.unique(truth, return_inverse=True, return_counts=True)
    shares = (1 / counts / len(counts))[classes]  # contribution of an object, if correct, to the mean recall
    observed = (truth == predicted) @ shares
    rng = np.random.default_rng(0)
    shuffled = np.array([(truth == rng.permutation(predicted)) @ shares for _ in range(N_PERMUTATIONS)])
    return float((1 + np.sum(shuffled >= observed - 1e-9)) / (1 + N_PERMUTATIONS))


def augmentation_warning(
    augmentation: AugmentSettings, with_augmentation: pd.DataFrame, without_augmentation: pd.DataFrame | None = None
) -> str:
    """Return a warning if augmentation seems to remove class differences, else "".

    Parameters
    ----------
    augmentation : AugmentSettings
        Augmentation of the training.
    with_augmentation : DataFrame
        Predictions of the training for held-out objects, one row per object: image, object, truth and predicted class
        id.
    without_augmentation : DataFrame, optional
        Predictions of a training without augmentation, with the same columns.

    Returns
    -------
    str
        A warning if the accuracy without augmentation is higher by at least 0.1 (p < 0.01), or if the training with
        augmentation is no better than chance (p > 0.05).
    """
    if not augmentation.varies or with_augmentation.empty:
        return ""
    *first, last = augmentation.varied_properties
    varied = f"{', '.join(first)} and {last}" if first else last
    if without_augmentation is not None:
        pair = compare_paired(without_augmentation, with_augmentation)
        if pair.n and pair.first - pair.second >= MIN_ACCURACY_LOSS * pair.n and pair.p < MAX_P_VALUE:
            p = "p < 0.001" if pair.p < 0.001 else f"p = {pair.p:.3f}"
            return (
                f"Augmentation destroys the classes: without it {pair.first} of {pair.n} held-out objects are correct, "
                f"with it {pair.second} ({p}). It varies {varied}; turn off the properties that distinguish the "
                "classes."
            )
    if permutation_p_value(with_augmentation["truth"], with_augmentation["predicted"]) <= CHANCE_P_VALUE:
        return ""
    n, correct = len(with_augmentation), int((with_augmentation["truth"] == with_augmentation["predicted"]).sum())
    result = f"The score, {correct} of {n} held-out objects correct, is no better than chance"
    if without_augmentation is not None:
        p_value = permutation_p_value(without_augmentation["truth"], without_augmentation["predicted"])
        if p_value > CHANCE_P_VALUE:
            return (
                f"{result}, nor is it without augmentation: patches may not show what distinguishes the classes, or "
                "more annotations are needed."
            )
    return f"{result}. Augmentation may destroy the classes: it varies {varied}. Try training without it."
