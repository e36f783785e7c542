"""Choosing among classifiers by what they predict of held-out objects, and how good a choice so made is.

The score of the one that is chosen is too good: of several that are equally good it is the luckiest. So the choice is
made again for every fold, by the objects of the others alone, and what is reported of a fold is what the classifier
that they would have chosen predicts. That costs no training (Varma & Simon 2006 repeat the search in every fold;
Tsamardinos et al. 2018 choose by bootstrap samples of the same predictions).

Whether augmentation destroys what tells the classes apart: a sentence, from predictions of held-out objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from svetlana_jupyter.core.settings import AugmentSettings

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SMALLEST = 1e-4  # a forest gives 0, of which there is no logarithm
TEMPERATURES = np.exp(np.linspace(-2.0, 2.0, 33))
USUAL = 1.0  # how far from 1 a temperature is expected to be, as a logarithm: holds it where few objects tell


def merit(truth: Integers, probabilities: Floats) -> float:
    """Return how good predictions are, from 0 to 1.

    One minus half the squared distance between probabilities and truth (Brier), a mean half over objects and half over
    classes, after a temperature has made all classifiers equally sure of themselves: few objects tell much more by it
    than by the share that is right.

    Parameters
    ----------
    truth : int64 of shape (n,)
        Columns of ``probabilities``.
    probabilities : float64 of shape (n, k)

    >>> merit(np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]])) > 0.99
    True
    """
    logits = np.log(np.maximum(probabilities, SMALLEST))
    scaled = logits / TEMPERATURES[:, None, None]
    scaled -= scaled.max(axis=2, keepdims=True)
    scaled -= np.log(np.exp(scaled).sum(axis=2, keepdims=True))
    counts = np.bincount(truth, minlength=probabilities.shape[1])
    weights = 0.5 / len(truth) + 0.5 / ((counts > 0).sum() * counts[truth])
    losses = -(scaled[:, np.arange(len(truth)), truth] * weights).sum(axis=1)
    unusual = np.log(TEMPERATURES) ** 2 / (2 * USUAL**2) / len(truth)
    p = np.exp(scaled[(losses + unusual).argmin()])
    distance = ((p - np.eye(probabilities.shape[1])[truth]) ** 2).sum(axis=1)
    return float(1 - (distance * weights).sum() / 2)


def ranked(truth: Integers, candidates: Mapping[str, Floats]) -> list[str]:
    """Return the names of candidates, the best first; of equally good ones the one that is named first."""
    merits = {name: round(merit(truth, p), 6) for name, p in candidates.items()}
    return sorted(candidates, key=lambda name: -merits[name])


def nested_selection(truth: Integers, folds: Integers, candidates: Mapping[str, Floats]) -> tuple[Floats, list[str]]:
    """Return predictions for each fold by the candidate that the objects of all other folds choose.

    Parameters
    ----------
    truth, folds : int64 of shape (n,)
    candidates : mapping of name to float64 of shape (n, k)
        Probabilities for each object, by a classifier that was not trained on its fold.

    Returns
    -------
    probabilities : float64 of shape (n, k)
    names : list of str
        Who was chosen for each fold, in the order of ``numpy.unique(folds)``.
    """
    result, names = np.zeros_like(next(iter(candidates.values()))), []
    for fold in np.unique(folds):
        here = folds == fold
        name = ranked(truth[~here], {name: p[~here] for name, p in candidates.items()})[0]
        result[here] = candidates[name][here]
        names.append(name)
    return result, names


MAX_P_VALUE, MIN_ACCURACY_LOSS = (
    0.01,
    0.1,
)  # how unlikely a difference must be by chance, and how large, to be spoken of
CHANCE_P_VALUE = 0.05
N_PERMUTATIONS = 1999


@dataclass(frozen=True)
class PairedComparison:
    """Two classifiers on the same objects.

    Parameters
    ----------
    n : int
        Number of objects.
    first, second : int
        How many each has right.
    only_first, only_second : int
        How many it alone has right.
    """

    n: int
    first: int
    second: int
    only_first_correct: int
    only_second_correct: int

    @property
    def p(self) -> float:
        """How likely a difference at least as large is where both are equally good.

        By the exact test of McNemar (1947), which takes objects as independent.
        """
        apart = self.only_first_correct + self.only_second_correct
        return float(binomtest(self.only_first_correct, apart).pvalue) if apart else 1.0


def compare(first: pd.DataFrame, second: pd.DataFrame) -> PairedComparison:
    """Compare two tables of predictions on the objects that both have.

    Parameters
    ----------
    first, second : DataFrame
        One row an object: image, object, truth and predicted class id.
    """
    both = first.merge(second, on=["image", "object"], suffixes=("_1", "_2"))
    one, other = (both[f"predicted_{n}"].to_numpy() == both[f"truth_{n}"].to_numpy() for n in (1, 2))
    return PairedComparison(
        len(both), int(one.sum()), int(other.sum()), int((one & ~other).sum()), int((other & ~one).sum())
    )


def permutation_p_value(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return how likely guessing has a balanced accuracy at least as high: guesses are the predictions, shuffled.

    >>> permutation_p_value([1, 2] * 10, [1, 2] * 10)
    0.0005
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    _, classes, counts = np.unique(truth, return_inverse=True, return_counts=True)
    shares = (1 / counts / len(counts))[classes]  # of each right answer in the mean of the recalls
    found = (truth == predicted) @ shares
    rng = np.random.default_rng(0)
    guessed = np.array([(truth == rng.permutation(predicted)) @ shares for _ in range(N_PERMUTATIONS)])
    return float((1 + np.sum(guessed >= found - 1e-9)) / (1 + N_PERMUTATIONS))


def destroyed(augmentation: AugmentSettings, varied: pd.DataFrame, plain: pd.DataFrame | None = None) -> str:
    """Say whether augmentation destroys the classes; "" where nothing speaks for it.

    Parameters
    ----------
    augmentation : AugmentSettings
        That of the training.
    varied : DataFrame
        What it predicted for objects it was not trained on, one row an object: image, object, truth and predicted class
        id.
    plain : DataFrame, optional
        The same of a training without augmentation.

    Returns
    -------
    str
        A warning where the plain training is far better, by at least a tenth of the objects and beyond doubt
        (p < 0.01), or where the varied one cannot be told from guessing (p > 0.05).
    """
    if not augmentation.varies or varied.empty:
        return ""
    what = _in_words(augmentation)
    if plain is not None:
        pair = compare(plain, varied)
        if pair.n and pair.first - pair.second >= MIN_ACCURACY_LOSS * pair.n and pair.p < MAX_P_VALUE:
            return (
                f"Augmentation destroys the classes: without it {pair.first} of {pair.n} held-out objects are right, "
                f"with it {pair.second} (p {_plain_p(pair.p)}). It varies {what}; leave out what tells classes apart."
            )
    if permutation_p_value(varied["truth"], varied["predicted"]) <= CHANCE_P_VALUE:
        return ""
    right = int((varied["truth"] == varied["predicted"]).sum())
    said = f"The score, {right} of {len(varied)} right, cannot be told from guessing"
    if plain is not None and permutation_p_value(plain["truth"], plain["predicted"]) > CHANCE_P_VALUE:
        return (
            f"{said}, and neither can it without augmentation: patches may not show what tells the classes apart, or "
            "more annotations are needed."
        )
    return f"{said}. Augmentation may destroy what tells the classes apart: it varies {what}. Try without."


def _in_words(augmentation: AugmentSettings) -> str:
    """Say what is varied: "how objects are turned and mirrored, and their brightness"."""
    moved = augmentation.share > 0
    words = {
        "how objects are turned": moved and augmentation.rotation != "none",
        "how they are mirrored": moved and augmentation.flips,
        "their size": moved and augmentation.scale > 0,
        "where they lie": moved and augmentation.shift > 0,
        "brightness": augmentation.brightness > 0 or augmentation.gamma > 0,
        "color": augmentation.color > 0,
        "noise": augmentation.noise > 0,
        "sharpness": augmentation.blur > 0,
        "what the Albumentations pipeline does": augmentation.pipeline is not None,
    }
    said = [word for word, holds in words.items() if holds]
    return " and ".join([", ".join(said[:-1]), said[-1]]) if len(said) > 1 else said[0]


def _plain_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
