"""Live classifiers: least squares with exact leave-one-out, and a small forest.

Both are fitted anew after each label, within milliseconds (least squares) and tenths of a second (forest). Their
hyperparameters are chosen without further fits: those of least squares by the log loss of exact leave-one-out
predictions, the temperature of the forest by the log loss of its out-of-bag predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.utils.class_weight import compute_sample_weight

from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.tree_growing import grow_trees

if TYPE_CHECKING:
    from collections.abc import Callable

    from sklearn.tree import DecisionTreeClassifier

REGULARIZATIONS = 10.0 ** np.arange(-3, 2.1, 0.5)
TEMPERATURES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.5, 7.0)  # factors of the least-squares scores, which lie about -1 to 1
DEFAULT_REGULARIZATION, DEFAULT_TEMPERATURE = 5, 1.5  # position and value where no class has two labels
N_TREES, TREES_PER_PART = 60, 6
FOREST_TEMPERATURES = (0.7, 1.0, 1.5, 2.0, 3.0, 4.0)  # exponents of the class fractions
MAX_DRAWN = 1_000  # labels drawn for each tree; the time of a tree grows with it
SMOOTHING = 0.5 / N_TREES  # added to class fractions, so that no probability is 0
LARGEST_LEAD = 20.0  # log of the ratio of two probabilities within a log loss

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LeastSquaresHead:
    """Linear classifier fitted by weighted least squares.

    Attributes
    ----------
    weights : float32 of shape (d, k)
    bias : float32 of shape (k,)
        The scores of features are ``features @ weights + bias``, and the probabilities are
        ``softmax(temperature * scores)``.
    temperature, regularization : float
        Values with the smallest leave-one-out log loss.
    leave_one_out : float64 of shape (n, k)
        Probabilities of each labeled object from a fit to all others, with the same class weights.
    log_loss : float
        Weighted mean of the leave-one-out log loss; NaN if no class has two labels.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    temperature: float
    regularization: float
    leave_one_out: NDArray[np.float64]
    log_loss: float

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class probabilities (n, k) of features (n, d)."""
        return self.from_products(features @ self.weights)

    def from_products(self, products: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class probabilities (n, k) of products of features and weights."""
        return np.asarray(softmax((products + self.bias) * np.float32(self.temperature), axis=1))


@dataclass(frozen=True, eq=False)
class LiveForest:
    """Random forest whose probabilities are sharpened by a temperature.

    Attributes
    ----------
    trees : list of DecisionTreeClassifier
    temperature : float
        Exponent of the class fractions with the smallest out-of-bag log loss.
    out_of_bag : float64 of shape (n, k)
        Probabilities of each labeled object from the trees that were trained without it.
    """

    trees: list[DecisionTreeClassifier]
    temperature: float
    out_of_bag: NDArray[np.float64]

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class probabilities (n, k) of features (n, d)."""
        features = np.ascontiguousarray(features, np.float32)  # checked once instead of for each tree
        fractions = sum(tree.predict_proba(features, check_input=False) for tree in self.trees) / len(self.trees)
        return sharpen(fractions, self.temperature).astype(np.float32)


@dataclass(frozen=True, eq=False)
class LiveModel:
    """Average of least squares and a forest on the first columns.

    Attributes
    ----------
    head : LeastSquaresHead
    forest : LiveForest
    columns : slice
        Columns that the forest uses.
    """

    head: LeastSquaresHead
    forest: LiveForest
    columns: slice


def fit_live_model(features: NDArray[np.float32], codes: NDArray[np.int64], columns: slice, seed: int = 0) -> LiveModel:
    """Fit least squares and a forest; see `fit_least_squares` and `fit_live_forest`."""
    return LiveModel(fit_least_squares(features, codes), fit_live_forest(features[:, columns], codes, seed), columns)


def fit_least_squares(features: NDArray[np.float32], codes: NDArray[np.int64]) -> LeastSquaresHead:
    """Fit a linear classifier, and choose its hyperparameters by leave-one-out.

    The targets are 1 for the class of an object and -1 for all others. An object has a weight that is proportional to
    the inverse square root of the number of labels of its class. The penalty includes the bias. The objects are
    decomposed once, in the space of objects or features, whichever is smaller, and give the leave-one-out
    residuals of all regularizations (Rifkin and Lippert 2007, MIT-CSAIL-TR-2007-025). The only label of a class has no
    part in the choice, because a fit without it does not know the class.

    Parameters
    ----------
    features : float32 of shape (n, d)
        Features of the labeled objects. A mean squared row norm of 1 suits the range of regularizations.
    codes : int of shape (n,)
        Class of each object, 0 to k - 1.

    Returns
    -------
    LeastSquaresHead

    Raises
    ------
    ClassifierError
        If the features are not finite, or if the labels are of a single class.

    >>> features = np.array([[-1.0], [-0.8], [0.9], [1.1]], np.float32)
    >>> fit_least_squares(features, np.array([0, 0, 1, 1])).probabilities(features).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    counts = _class_counts(features, codes)
    weights = np.asarray(counts[codes] ** -0.5, np.float64)
    weights *= len(codes) / weights.sum()
    root = np.sqrt(weights)[:, None]
    design = root * np.column_stack([features, np.ones(len(features))])
    targets = 2.0 * np.eye(len(counts))[codes] - 1
    many = len(design) > design.shape[1]
    eigenvalues, vectors = np.linalg.eigh(design.T @ design if many else design @ design.T)
    gains = 1 / (np.maximum(eigenvalues, 0)[:, None] + REGULARIZATIONS)
    # 32 bits halve the time with many labels, and change leave-one-out probabilities by less than 0.001.
    parts = design.astype(np.float32) @ vectors.astype(np.float32) if many else vectors
    scaled = root * targets
    responses = (vectors.T @ (design.T @ scaled if many else scaled))[:, None] * gains[:, :, None]
    left_out = _leave_one_out(parts, responses, gains, root, targets, many)
    counted = counts[codes] > 1
    best, temperature, loss = _best_choice(left_out[:, counted], codes[counted], weights[counted])
    solution = vectors @ responses[:, best]
    solution = (solution if many else design.T @ solution).astype(np.float32)
    return LeastSquaresHead(
        weights=solution[:-1],
        bias=solution[-1],
        temperature=temperature,
        regularization=float(REGULARIZATIONS[best]),
        leave_one_out=softmax(temperature * left_out[best], axis=1),
        log_loss=loss,
    )


def fit_live_forest(
    features: NDArray[np.float32], codes: NDArray[np.int64], seed: int = 0, check: Callable[[], object] = lambda: None
) -> LiveForest:
    """Fit 60 trees with balanced class weights; choose the temperature out of bag.

    Parameters
    ----------
    features : float32 of shape (n, d)
        Features of the labeled objects.
    codes : int of shape (n,)
        Class of each object, 0 to k - 1.
    seed : int
        The same features, codes and seed give the same forest.
    check : callable
        Called after every few trees; it may wait, or raise an exception to stop.

    Raises
    ------
    ClassifierError
        If the features are not finite, or if the labels are of a single class.
    """
    counts = _class_counts(features, codes)
    weights, drawn = compute_sample_weight("balanced", codes), min(len(codes), MAX_DRAWN)
    trees: list[DecisionTreeClassifier] = []
    votes, voters = np.zeros((len(codes), len(counts))), np.zeros((len(codes), 1))
    for tree, chosen in grow_trees(features, codes, weights, drawn, N_TREES, seed):
        trees.append(tree)
        rest = np.setdiff1d(np.arange(len(codes)), chosen)
        if len(rest):
            votes[rest] += tree.predict_proba(features[rest])
            voters[rest] += 1
        if len(trees) % TREES_PER_PART == 0:
            check()
    out_of_bag = np.where(voters > 0, votes / np.maximum(voters, 1), 1 / len(counts))
    counted = counts[codes] > 1
    temperature = 1.0
    if counted.any():
        losses = [_log_loss(sharpen(out_of_bag[counted], t), codes[counted]) for t in FOREST_TEMPERATURES]
        temperature = FOREST_TEMPERATURES[int(np.argmin(losses))]
    return LiveForest(trees, temperature, sharpen(out_of_bag, temperature))


def _class_counts(features: NDArray[np.float32], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of labels per class, if a classifier can be fitted."""
    if features.ndim != 2 or codes.shape != (len(features),):
        raise ClassifierError(
            f"Features of shape {features.shape} do not fit codes of shape {codes.shape}. Pass one code per row."
        )
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        raise ClassifierError(
            f"Features of {len(broken):,} labeled objects are not finite, first in row {broken[0]}. "
            "Leave out objects without features."
        )
    counts = np.bincount(codes)
    if np.count_nonzero(counts) < 2:
        raise ClassifierError(f"{len(codes):,} labels are of fewer than two classes. Label objects of two classes.")
    if not counts.all():
        raise ClassifierError(f"No label has the code {counts.argmin()}. Number the classes from 0 without gaps.")
    return counts


def _leave_one_out(
    parts: Floats, responses: Floats, gains: Floats, root: Floats, targets: Floats, many: bool
) -> Floats:
    """Return the scores (regularizations, n, k) of each object from a fit without it.

    ``parts`` (n, r) are eigenvectors of the kernel matrix, or with ``many`` labels the projections on eigenvectors of
    the covariance matrix, which give the fitted values and the hat matrix in place of residuals and its complement.
    """
    residuals = np.tensordot(parts, responses.astype(parts.dtype), 1)
    complement = parts**2 @ gains.astype(parts.dtype)
    if many:
        residuals = (root * targets)[:, None] - residuals
        complement = 1 - complement
    return np.asarray(targets - (residuals / (complement * root)[:, :, None]).transpose(1, 0, 2))


def _best_choice(scores: Floats, codes: NDArray[np.int64], weights: Floats) -> tuple[int, float, float]:
    """Return the position of the best regularization, its temperature and log loss.

    ``scores`` has the shape (regularizations, n, k).
    """
    if not len(codes):
        return DEFAULT_REGULARIZATION, DEFAULT_TEMPERATURE, np.nan
    of_class = np.take_along_axis(scores, codes[None, :, None], axis=2)
    leads = (scores - of_class).astype(np.float32).transpose(0, 2, 1)  # of each class over the class of the object
    losses = [
        [
            np.average(np.log(np.exp(np.minimum(t * some, LARGEST_LEAD)).sum(axis=0)), weights=weights)
            for t in TEMPERATURES
        ]
        for some in leads
    ]
    best, sharpness = divmod(int(np.argmin(losses)), len(TEMPERATURES))
    return best, TEMPERATURES[sharpness], float(losses[best][sharpness])


def _log_loss(probabilities: Floats, codes: NDArray[np.int64]) -> float:
    """Return the mean log loss of probabilities (n, k), all above 0."""
    return float(-np.log(probabilities[np.arange(len(codes)), codes]).mean())


def sharpen(fractions: Floats, temperature: float) -> Floats:
    """Return class fractions (n, k) to the power of the temperature, normalized."""
    powers = (fractions + SMOOTHING) ** temperature
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
