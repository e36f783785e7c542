"""Model selection from held-out predictions, and the test whether augmentation destroys the classes.

The score of the selected classifier is too good: among several equally good ones, the luckiest is selected. So the
selection is repeated for every fold with the objects of the other folds only, and the score is that of the classifiers
so selected (nested cross-validation). This needs no further training (Varma and Simon 2006 repeat the whole search in
every fold; Tsamardinos et al. 2018 select by bootstrap samples of the same predictions).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from scipy.stats import binomtest

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from svetlana_jupyter.core.settings import AugmentSettings

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MIN_PROBABILITY = 1e-4  # forests predict 0, which has no logarithm
TEMPERATURES = np.exp(np.linspace(-2.0, 2.0, 33))
LOG_TEMPERATURE_PRIOR = 1.0  # standard deviation of the logarithm, which decides where there are few objects

# A difference is reported if it is significant at this level and at least so large.
MAX_P_VALUE, MIN_ACCURACY_LOSS = 0.01, 0.1
CHANCE_P_VALUE = 0.05
N_PERMUTATIONS = 1999


def brier_skill(truth: Integers, probabilities: Floats) -> float:
    """Return the quality of predictions, from 0 to 1.

    One minus half the squared distance between probabilities and truth (Brier score), averaged half over objects and
    half over classes, after temperature scaling has made all classifiers equally confident. With few objects, this is
    much more informative than the accuracy.

    Parameters
    ----------
    truth : int64 of shape (n,)
        Columns of ``probabilities``.
    probabilities : float64 of shape (n, k)

    >>> brier_skill(np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]])) > 0.99
    True
    """
    n, k = probabilities.shape
    logits = np.log(np.maximum(probabilities, MIN_PROBABILITY))
    scaled = log_softmax(logits / TEMPERATURES[:, None, None], axis=2)
    counts = np.bincount(truth, minlength=k)
    weights = 0.5 / n + 0.5 / ((counts > 0).sum() * counts[truth])
    losses = -(scaled[:, np.arange(n), truth] * weights).sum(axis=1)
    penalty = np.log(TEMPERATURES) ** 2 / (2 * LOG_TEMPERATURE_PRIOR**2) / n
    calibrated = np.exp(scaled[(losses + penalty).argmin()])
    distance = ((calibrated - np.eye(k)[truth]) ** 2).sum(axis=1)
    return float(1 - (distance * weights).sum() / 2)


def rank_candidates(truth: Integers, candidates: Mapping[str, Floats]) -> list[str]:
    """Return the names of candidates, the best first; ties keep their given order."""
    skills = {name: round(brier_skill(truth, p), 6) for name, p in candidates.items()}
    return sorted(candidates, key=lambda name: -skills[name])


def nested_selection(truth: Integers, folds: Integers, candidates: Mapping[str, Floats]) -> tuple[Floats, list[str]]:
    """Return predictions for each fold by the candidate that the objects of all other folds select.

    Parameters
    ----------
    truth, folds : int64 of shape (n,)
    candidates : mapping of name to float64 of shape (n, k)
        Probabilities for each object, by a classifier that was not trained on its fold.

    Returns
    -------
    probabilities : float64 of shape (n, k)
    names : list of str
        The selected candidate per fold, in the order of ``numpy.unique(folds)``.
    """
    result, names = np.zeros_like(next(iter(candidates.values()))), []
    for fold in np.unique(folds):
        here = folds == fold
        name = rank_candidates(truth[~here], {name: p[~here] for name, p in candidates.items()})[0]
        result[here] = candidates[name][here]
        names.append(name)
    return result, names


@dataclass(frozen=True)
class PairedComparison:
    """Two classifiers compared on the same objects.

    Parameters
    ----------
    n : int
        Number of objects.
    first, second : int
        Objects that each predicts correctly.
    only_first_correct, only_second_correct : int
        Objects that only one of them predicts correctly.
    """

    n: int
    first: int
    second: int
    only_first_correct: int
    only_second_correct: int

    @property
    def p(self) -> float:
        """Two-sided p-value of the exact test of McNemar (1947), which takes objects as independent."""
        discordant = self.only_first_correct + self.only_second_correct
        return float(binomtest(self.only_first_correct, discordant).pvalue) if discordant else 1.0


def compare_paired(first: pd.DataFrame, second: pd.DataFrame) -> PairedComparison:
    """Compare two tables of predictions on the objects that both contain.

    Parameters
    ----------
    first, second : DataFrame
        One row per object: image, object, truth and predicted class id.
    """
    both = first.merge(second, on=["image", "object"], suffixes=("_1", "_2"))
    a, b = (both[f"predicted_{n}"].to_numpy() == both[f"truth_{n}"].to_numpy() for n in (1, 2))
    return PairedComparison(len(both), int(a.sum()), int(b.sum()), int((a & ~b).sum()), int((b & ~a).sum()))


def permutation_p_value(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return the permutation p-value of the balanced accuracy: shuffled predictions are the null hypothesis.

    >>> permutation_p_value([1, 2] * 10, [1, 2] * 10)
    0.0005
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    _, classes, counts = np.unique(truth, return_inverse=True, return_counts=True)
    shares = (1 / counts / len(counts))[classes]  # contribution of each correct object to the mean recall
    observed = (truth == predicted) @ shares
    rng = np.random.default_rng(0)
    shuffled = np.array([(truth == rng.permutation(predicted)) @ shares for _ in range(N_PERMUTATIONS)])
    return float((1 + np.sum(shuffled >= observed - 1e-9)) / (1 + N_PERMUTATIONS))


def augmentation_warning(
    augmentation: AugmentSettings, with_augmentation: pd.DataFrame, without_augmentation: pd.DataFrame | None = None
) -> str:
    """Return a warning if augmentation seems to destroy the classes, "" otherwise.

    Parameters
    ----------
    augmentation : AugmentSettings
        Augmentation of the training.
    with_augmentation : DataFrame
        Its predictions for held-out objects, one row per object: image, object, truth and predicted class id.
    without_augmentation : DataFrame, optional
        The same of a training without augmentation.

    Returns
    -------
    str
        A warning if the training without augmentation is better by at least a tenth of the objects (p < 0.01), or if
        the training with augmentation is no better than chance (p > 0.05).
    """
    if not augmentation.varies or with_augmentation.empty:
        return ""
    varied = _varied_properties(augmentation)
    if without_augmentation is not None:
        pair = compare_paired(without_augmentation, with_augmentation)
        if pair.n and pair.first - pair.second >= MIN_ACCURACY_LOSS * pair.n and pair.p < MAX_P_VALUE:
            p = "p < 0.001" if pair.p < 0.001 else f"p = {pair.p:.3f}"
            return (
                f"Augmentation destroys the classes: without it {pair.first} of {pair.n} held-out objects are correct, "
                f"with it {pair.second} ({p}). It varies {varied}; turn off what distinguishes the classes."
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


def _varied_properties(augmentation: AugmentSettings) -> str:
    """Return the varied properties, such as "rotation, mirroring and brightness"."""
    moves = augmentation.share > 0
    properties = {
        "rotation": moves and augmentation.rotation != "none",
        "mirroring": moves and augmentation.flips,
        "size": moves and augmentation.scale > 0,
        "position": moves and augmentation.shift > 0,
        "brightness": augmentation.brightness > 0 or augmentation.gamma > 0,
        "color": augmentation.color > 0,
        "noise": augmentation.noise > 0,
        "sharpness": augmentation.blur > 0,
        "the effect of the Albumentations pipeline": augmentation.pipeline is not None,
    }
    # An augmentation that is not listed above must not turn the warning into an error.
    *first, last = [name for name, is_varied in properties.items() if is_varied] or ["other properties"]
    return f"{', '.join(first)} and {last}" if first else last
