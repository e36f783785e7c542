"""Choosing among classifiers by what they predict of held-out objects, and how good a choice so made is.

The score of the one that is chosen is too good: of several that are equally good it is the luckiest. So the choice is
made again for every fold, by the objects of the others alone, and what is reported of a fold is what the classifier
that they would have chosen predicts. That costs no training (Varma & Simon 2006 repeat the search in every fold;
Tsamardinos et al. 2018 choose by bootstrap samples of the same predictions).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

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
