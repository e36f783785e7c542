"""Queries: functions that choose the objects to label next.

A query gets a `Pool` of objects and returns some of them, the best first, each with a reason for the annotator. The
default, `useful`, chooses the objects whose labels would lower the uncertainty of the live classifier most. Classifiers
learn faster from such objects than from random ones, but they are no random sample: accuracy and counts are estimated
from the objects drawn at random, which queues mix in (`project.queues`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_REGULARIZATION = 0.3  # before two classes are labeled
LEAST_REGULARIZATION = 10**-1.5  # smaller values would regard labeled objects as known exactly
BLOCK = 256  # rows of the matrix of all pairs that are changed at a time
ALIKE = 0.5  # cosine of the features of two objects from which they count as alike
CLEAR = 0.5  # difference of the two highest probabilities of a clear prediction
WEIGHT_POWER = 4  # of the margins; a higher power finds the boundary between separate classes with fewer labels

Floats = NDArray[np.float32]


class Pick(NamedTuple):
    """Position of a chosen object in its pool, with the reason for the annotator."""

    position: int
    reason: str


@dataclass(frozen=True, eq=False)
class Pool:
    """Objects to choose from, and what is known about them.

    Each query states which fields it requires; the others may be missing.

    Parameters
    ----------
    features : float32 of shape (n, d), optional
        Features of the objects, with a mean squared row norm of about 1.
    probabilities : float32 of shape (n, k), optional
        Predicted probabilities of the classes.
    others : float32 of shape (n, k), optional
        Probabilities by a second classifier.
    codes : int of shape (n,), optional
        Position of the class that each object is labeled with.
    labeled : float32 of shape (m, d), optional
        Features of labeled objects outside the pool.
    names : sequence of str
        Names of the k classes.
    chosen : sequence of int
        Positions of the classes that the user chose.
    counts : sequence of int
        Number of labels per class.
    regularization : float
        Regularization of the live classifier.
    total : int
        Number of objects of which the pool is a random sample; 0 if the pool contains all.
    """

    features: Floats | None = None
    probabilities: Floats | None = None
    others: Floats | None = None
    codes: NDArray[np.int64] | None = None
    labeled: Floats | None = None
    names: Sequence[str] = ()
    chosen: Sequence[int] = ()
    counts: Sequence[int] = ()
    regularization: float = FIRST_REGULARIZATION
    total: int = 0


Function = Callable[[Pool, int], list[Pick]]


@dataclass(frozen=True)
class Query:
    """A query with what it needs.

    Parameters
    ----------
    function : callable
        Takes a `Pool` and the number of objects; returns up to as many picks, the best first.
    title : str
        Name for a menu.
    needs : tuple of str
        Fields of `Pool` that the function requires.
    classes : int
        Number of classes that the user has to choose.
    labeled : bool
        True if the pool consists of labeled objects, with leave-one-out probabilities.
    """

    function: Function
    title: str
    needs: tuple[str, ...]
    classes: int = 0
    labeled: bool = False


def useful(pool: Pool, count: int) -> list[Pick]:
    """Choose objects whose labels lower the summed posterior variance most.

    The live classifier is a least-squares fit, so the posterior covariance C of its scores has a closed form that
    depends on the features alone, and a label of object j lowers the variance of object i by
    ``C[i, j]**2 / (C[j, j] + regularization)`` (Cohn, Ghahramani and Jordan 1996, JAIR 4:129). If there are
    predictions, the sum over all objects i is weighted by how close the two likeliest classes are and how rare the
    classes are. After each choice C is updated as if the object were labeled, so that the chosen objects differ.

    Requires ``features``; uses ``labeled``, ``probabilities``, ``regularization`` and ``total``.
    """
    return _lower_variance(pool, count, _weights(pool))


def diverse(pool: Pool, count: int) -> list[Pick]:
    """Choose typical objects that differ from each other and from labeled ones.

    Like `useful`, but without regard to predictions. Requires ``features``; uses ``labeled``, ``regularization`` and
    ``total``.
    """
    return _lower_variance(pool, count, None)


def uncertain(pool: Pool, count: int) -> list[Pick]:
    """Choose objects with the smallest difference of the two highest probabilities.

    Requires ``probabilities``.
    """
    p = _required(pool.probabilities)
    first, second = _two_likeliest(p)
    return [
        Pick(i, f"uncertain: {_share(pool, p, i, first[i])} or {_share(pool, p, i, second[i])}")
        for i in _smallest(_margins(p), count)
    ]


def confused(pool: Pool, count: int) -> list[Pick]:
    """Choose objects whose two likeliest classes are the two chosen ones.

    Those with the smallest difference come first. Requires ``probabilities`` and two ``chosen`` classes.
    """
    p = _required(pool.probabilities)
    a, b = pool.chosen
    first, second = _two_likeliest(p)
    between = (np.minimum(first, second) == min(a, b)) & (np.maximum(first, second) == max(a, b))
    score = np.where(between, np.abs(p[:, a] - p[:, b]), np.nan)
    return [Pick(i, f"{_share(pool, p, i, a)} or {_share(pool, p, i, b)}") for i in _smallest(score, count)]


def predicted(pool: Pool, count: int) -> list[Pick]:
    """Choose objects predicted as the chosen class, the least certain first.

    Requires ``probabilities`` and one ``chosen`` class.
    """
    p = _required(pool.probabilities)
    (code,) = pool.chosen
    score = np.where(_two_likeliest(p)[0] == code, p[:, code], np.nan)
    return [Pick(i, f"predicted as {_share(pool, p, i, code)}") for i in _smallest(score, count)]


def rare(pool: Pool, count: int) -> list[Pick]:
    """Choose objects that most likely belong to the class with the fewest labels.

    Requires ``probabilities`` and ``counts``.
    """
    p, code = _required(pool.probabilities), int(np.argmin(pool.counts))
    return [
        Pick(i, f"possibly {_share(pool, p, i, code)}, the class with the fewest labels")
        for i in _smallest(-p[:, code], count)
    ]


def disagreement(pool: Pool, count: int) -> list[Pick]:
    """Choose objects on which two classifiers disagree most.

    The disagreement is the total variation distance of their probabilities. Requires ``probabilities`` and ``others``.
    """
    p, q = _required(pool.probabilities), _required(pool.others)
    of_p, of_q = _two_likeliest(p)[0], _two_likeliest(q)[0]
    score = np.where(of_p != of_q, -np.abs(p - q).sum(axis=1) / 2, np.nan)
    return [
        Pick(i, f"{_share(pool, p, i, of_p[i])} by one classifier, {_share(pool, q, i, of_q[i])} by the other")
        for i in _smallest(score, count)
    ]


def suspect(pool: Pool, count: int) -> list[Pick]:
    """Choose labeled objects whose label is unlikely according to all other labels.

    Only objects for which another class is more likely are chosen. The only label of a class is never chosen: without
    it, the others know nothing of its class. Requires ``codes``, ``counts`` and, as ``probabilities``, leave-one-out or
    out-of-bag probabilities of the labeled objects.
    """
    p, codes = _required(pool.probabilities), pool.codes
    assert codes is not None
    given, first = p[np.arange(len(p)), codes], _two_likeliest(p)[0]
    has_others = np.asarray(pool.counts)[codes] > 1
    return [
        Pick(i, f"labeled {pool.names[codes[i]]}, but the other labels suggest {_share(pool, p, i, first[i])}")
        for i in _smallest(np.where((first != codes) & has_others, given, np.nan), count)
    ]


def unlike(pool: Pool, count: int) -> list[Pick]:
    """Choose objects whose features are far from those of all labeled ones.

    Without labeled objects, they are those of `diverse`. Requires ``features`` and ``labeled``.
    """
    features, labeled = _required(pool.features), _required(pool.labeled)
    if not len(labeled):
        return diverse(pool, count)
    norms = (features**2).sum(axis=1)
    distance = (norms[:, None] - 2 * features @ labeled.T + (labeled**2).sum(axis=1)).min(axis=1)
    ranks = np.argsort(np.argsort(distance)) / max(len(distance), 1)
    picks = []
    for _ in range(min(count, len(features))):
        i = int(distance.argmax())
        picks.append(Pick(i, f"farther from all labeled objects than {100 * ranks[i]:.0f} % of the others"))
        distance = np.minimum(distance, norms - 2 * features @ features[i] + norms[i])
        distance[[pick.position for pick in picks]] = -np.inf
    return picks


QUERIES = {
    "useful": Query(useful, "Most useful", ("features",)),
    "uncertain": Query(uncertain, "Uncertain", ("probabilities",)),
    "diverse": Query(diverse, "Diverse", ("features",)),
    "disagreement": Query(disagreement, "Network against forest", ("probabilities", "others")),
    "confused": Query(confused, "Between two classes", ("probabilities",), classes=2),
    "predicted": Query(predicted, "Predicted as a class", ("probabilities",), classes=1),
    "rare": Query(rare, "Rarest class", ("probabilities", "counts")),
    "suspect": Query(suspect, "Suspected label errors", ("probabilities", "codes", "counts"), labeled=True),
    "unlike": Query(unlike, "Unlike the labeled objects", ("features", "labeled")),
}


def _lower_variance(pool: Pool, count: int, weights: NDArray[np.float32] | None) -> list[Pick]:
    """Choose objects as described in `useful`; None for equal weights."""
    features = _required(pool.features)
    if not len(features):
        return []
    regularization = np.float32(max(pool.regularization, LEAST_REGULARIZATION))
    covariance = features @ features.T
    covariance += 1
    if pool.labeled is not None and len(pool.labeled):
        between = features @ pool.labeled.T + 1
        known = (pool.labeled @ pool.labeled.T + 1).astype(np.float64)
        known[np.diag_indices(len(known))] += regularization
        covariance -= between @ np.linalg.solve(known, between.T.astype(np.float64)).astype(np.float32)
    weighted = np.ones(len(features), np.float32) if weights is None else weights
    clear = np.ones(len(features), bool) if weights is None else _margins(_required(pool.probabilities)) > CLEAR
    norms, scale = np.linalg.norm(features, axis=1), max(pool.total, len(features)) / len(features)
    gains, row = np.empty(len(features), np.float32), np.zeros(len(features), np.float32)
    picks: dict[int, str] = {}
    for _ in range(min(count, len(features))):
        for start in range(0, len(features), BLOCK):  # small enough for the cache of a core
            block, part = covariance[start : start + BLOCK], slice(start, start + BLOCK)
            block -= row[part, None] * row
            gains[part] = np.square(block) @ weighted
        variance = np.maximum(covariance.diagonal(), 0)
        gains /= variance + regularization
        gains[list(picks)] = -np.inf
        best = int(gains.argmax())
        alike = int(np.count_nonzero(features @ features[best] > ALIKE * norms * norms[best])) - 1
        likeness = f"like {round(max(alike, 0) * scale):,} other objects"
        picks[best] = f"{'typical' if clear[best] else 'uncertain'}, and {likeness}"
        row = covariance[best] / np.sqrt(variance[best] + regularization)
    return [Pick(position, reason) for position, reason in picks.items()]


def _weights(pool: Pool) -> NDArray[np.float32] | None:
    """Return the weight of each object for `useful`, None without predictions."""
    if pool.probabilities is None:
        return None
    rarity = pool.probabilities / np.maximum(pool.probabilities.sum(axis=0), 1)
    return np.asarray((1 - _margins(pool.probabilities)) ** WEIGHT_POWER * rarity.sum(axis=1))


def _two_likeliest(probabilities: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the likeliest and the second likeliest class.

    A single class, of merged ones, is both.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    return order[:, 0], order[:, :2][:, -1]


def _margins(probabilities: Floats) -> Floats:
    """Return the difference of the two highest probabilities."""
    highest = -np.partition(-probabilities, 1, axis=1)[:, :2]
    return np.asarray(highest[:, 0] - highest[:, 1])


def _smallest(scores: Floats, count: int) -> list[int]:
    """Return the positions of the smallest scores, in order; NaN is left out."""
    count = min(count, int(np.count_nonzero(~np.isnan(scores))))
    if not count:
        return []
    among = np.flatnonzero(scores <= np.partition(scores, count - 1)[count - 1])
    return [int(i) for i in among[np.argsort(scores[among], kind="stable")][:count]]


def _share(pool: Pool, probabilities: Floats, row: int, code: int) -> str:
    """Return a class with its probability, for example "mitosis 63 %"."""
    return f"{pool.names[code]} {100 * probabilities[row, code]:.0f} %"


def _required(values: Floats | None) -> Floats:
    """Return values that the pool has to have."""
    assert values is not None, "the pool lacks a field that the query needs"
    return values
