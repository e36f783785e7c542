"""Calibration of predicted probabilities.

Of the objects that are predicted with a probability of 80 %, 80 % should be predicted correctly.

The logits are divided by a temperature, and a bias per class is added (vector scaling with a single temperature: Guo et
al., ICML 2017). Temperature and bias are fitted to objects that the classifier was not trained on, and evaluated on
other objects. The temperature never changes a predicted class. The bias may change it, because it corrects for the
class weights of the training. Temperature and bias are used only if they reduce the loss by more than its random error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_OBJECTS = 50  # to fit a temperature
MIN_OBJECTS_PER_CLASS = 10  # to fit a bias
MIN_PROBABILITY = 1e-4  # forests predict 0, which has no logarithm
# Prior standard deviation of the log temperature and of the biases; it matters if there are few objects.
LOG_TEMPERATURE_PRIOR = 1.0
# Number of standard errors (over groups) by which the loss must decrease to use a temperature (False), or a bias in
# addition (True).
MIN_STANDARD_ERRORS = {False: 1.0, True: 2.0}
N_SIMULATIONS = 200

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Correction of the probabilities of a classifier.

    Attributes
    ----------
    temperature : float
        Divisor of the logits, above 1 if the classifier is overconfident.
    bias : mapping of class id to float
        Added to the logits; empty if no bias is used.
    """

    temperature: float = 1.0
    bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def is_identity(self) -> bool:
        """Whether the calibration leaves all probabilities unchanged."""
        return self.temperature == 1.0 and not any(self.bias.values())

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return predictions with corrected probabilities and classes.

        The corrected columns are ``p_<class id>``, ``predicted`` and ``probability``.

        Examples
        --------
        >>> table = pd.DataFrame({"predicted": [1], "probability": [0.9], "p_1": [0.9], "p_2": [0.1]})
        >>> Calibration(2.0).apply(table).round(2).to_dict("list")
        {'predicted': [1], 'probability': [0.75], 'p_1': [0.75], 'p_2': [0.25]}
        """
        ids = class_ids(table)
        if self.is_identity or table.empty or not ids:
            return table
        columns = [f"p_{class_id}" for class_id in ids]
        parameters = np.array([np.log(self.temperature), *(self.bias.get(class_id, 0.0) for class_id in ids)])
        p = softmax(_scale(to_logits(table[columns].to_numpy(float)), parameters), axis=1)
        corrected = table.copy()
        corrected[columns] = p.astype(np.float32)
        corrected["predicted"] = np.array(ids)[p.argmax(axis=1)]
        if "probability" in table:
            corrected["probability"] = p.max(axis=1).astype(np.float32)
        return corrected


NO_CALIBRATION = Calibration()


def class_ids(table: pd.DataFrame, prefix: str = "p_") -> list[int]:
    """Return the class ids in the names of the probability columns."""
    return [int(column.removeprefix(prefix)) for column in map(str, table) if column.startswith(prefix)]


def calibrate(held_out_predictions: pd.DataFrame) -> tuple[Calibration, pd.DataFrame]:
    """Fit a calibration to held-out predictions, and correct these by cross-fitting.

    Parameters
    ----------
    held_out_predictions : DataFrame
        One row per object: ``fold``, ``group``, ``truth`` (class id), and a column ``p_<class id>`` per class.

    Returns
    -------
    Calibration
        Calibration fitted to all folds; `NO_CALIBRATION` for fewer than 50 objects.
    DataFrame
        The same rows; each fold is corrected by a calibration that is fitted to the other folds.
    """
    table = held_out_predictions
    if len(table) < MIN_OBJECTS or "fold" not in table:
        return NO_CALIBRATION, table
    parts = [_fit_calibration(table[table["fold"] != fold]).apply(part) for fold, part in table.groupby("fold")]
    return _fit_calibration(table), pd.concat(parts).loc[table.index]


def _fit_calibration(table: pd.DataFrame) -> Calibration:
    ids = class_ids(table)
    logits = to_logits(table[[f"p_{class_id}" for class_id in ids]].to_numpy(float))
    truth, folds = np.searchsorted(ids, table["truth"]), table["fold"].to_numpy()
    has_enough_for_bias = np.bincount(truth, minlength=len(ids)).min() >= MIN_OBJECTS_PER_CLASS
    chosen, losses = np.zeros(len(ids) + 1), _losses(logits, truth)
    for with_bias in [False, True] if has_enough_for_bias else [False]:
        cross_fitted = np.empty(len(truth))
        for fold in np.unique(folds):
            here = folds == fold
            parameters = _fit_parameters(logits[~here], truth[~here], with_bias)
            cross_fitted[here] = _losses(_scale(logits[here], parameters), truth[here])
        gain = pd.Series(losses - cross_fitted).groupby(table["group"].to_numpy()).sum()
        if gain.sum() > MIN_STANDARD_ERRORS[with_bias] * np.sqrt((gain**2).sum()):
            chosen, losses = _fit_parameters(logits, truth, with_bias), cross_fitted
    bias = dict(zip(ids, chosen[1:].tolist())) if chosen[1:].any() else {}
    return Calibration(float(np.exp(chosen[0])), bias)


def _fit_parameters(logits: Floats, truth: NDArray[np.int64], with_bias: bool) -> Floats:
    """Fit log temperature and biases by maximum penalized likelihood."""
    n, k = logits.shape
    doubt = 1 / (n + 2)  # n correct predictions do not prove certainty (Platt 1999)
    target = (1 - doubt) * np.eye(k)[truth] + doubt / k

    def objective(free: Floats) -> tuple[float, Floats]:
        parameters = np.zeros(k + 1)
        parameters[: len(free)] = free
        scaled = _scale(logits, parameters)
        logs = log_softmax(scaled, axis=1)
        excess = np.exp(logs) - target
        gradient = np.array([-(excess * (scaled - parameters[1:])).sum(), *excess.sum(axis=0)])
        loss = (free**2).sum() / (2 * LOG_TEMPERATURE_PRIOR**2) - (logs * target).sum()
        return float(loss), gradient[: len(free)] + free / LOG_TEMPERATURE_PRIOR**2

    start, result = np.zeros(k + 1 if with_bias else 1), np.zeros(k + 1)
    result[: len(start)] = minimize(objective, start, jac=True, method="L-BFGS-B").x
    return result


def to_logits(probabilities: Floats) -> Floats:
    """Return the logarithms of probabilities, clipped at `MIN_PROBABILITY`."""
    return np.log(np.maximum(probabilities, MIN_PROBABILITY))


def _scale(logits: Floats, parameters: Floats) -> Floats:
    """Return logits divided by the temperature, plus the bias of each class."""
    return np.asarray(logits * np.exp(-parameters[0]) + parameters[1:])


def _losses(logits: Floats, truth: NDArray[np.int64]) -> Floats:
    return np.asarray(-log_softmax(logits, axis=1)[np.arange(len(truth)), truth])


@dataclass(frozen=True)
class Reliability:
    """Difference between probabilities and the fractions of correct predictions.

    Attributes
    ----------
    error : float
        Expected calibration error: mean difference, over bins of equally many objects, between the mean probability of
        the predicted classes and the fraction of correct predictions.
    expected_by_chance : float
        Mean error that perfectly calibrated probabilities would have with the same number of objects.
    bins : DataFrame
        One row per bin: ``n`` (number of objects), ``probability`` (mean), ``right`` (fraction of correct predictions).
    """

    error: float
    expected_by_chance: float
    bins: pd.DataFrame


def reliability(probability: Floats, correct: NDArray[np.bool_], seed: int = 0) -> Reliability:
    """Compare probabilities (n,) of predicted classes with their correctness (n,)."""
    order = np.argsort(probability, kind="stable")
    probability, correct = np.asarray(probability, float)[order], np.asarray(correct)[order]
    n_bins = int(np.clip(len(order) // 15, 1, 10))
    starts = np.linspace(0, len(order), n_bins, endpoint=False).astype(int)
    sizes = np.diff([*starts, len(order)])
    mean = np.add.reduceat(probability, starts) / sizes
    simulated = np.random.default_rng(seed).random((N_SIMULATIONS, len(order))) < probability
    shares = np.add.reduceat(np.vstack([correct, simulated]).astype(float), starts, axis=1) / sizes
    errors = np.abs(shares - mean) @ sizes / len(order)
    bins = pd.DataFrame({"n": sizes, "probability": mean, "right": shares[0]})
    return Reliability(float(errors[0]), float(errors[1:].mean()), bins)
