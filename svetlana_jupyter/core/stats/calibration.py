"""Probabilities that mean what they say: of the objects predicted with 80 %, 80 % should be right.

A temperature divides the logits and a bias is added to them (vector scaling with one temperature: Guo et al., ICML
2017). Both are fitted on objects that the classifier was not trained on, and judged on others than they were fitted on.
The temperature leaves every predicted class as it is. The bias may change it, and is there to do so: it takes back what
class weights added while training. Each is used only where it helps by more than noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

FEWEST = 50  # objects to fit a temperature...
MIN_OBJECTS_PER_CLASS = 10  # ...and of each class to fit a bias
SMALLEST = 1e-4  # probabilities below are taken for it: a forest gives 0, which no logarithm takes
# How far, in logarithms, temperature and bias are expected to lie from none at all: holds them where few objects tell.
USUAL = 1.0
# By how many standard errors, over groups, the loss must be less with a temperature, and with a bias beside it.
NOISE = {False: 1.0, True: 2.0}
SIMULATIONS = 200

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """How the probabilities of a classifier are corrected.

    Attributes
    ----------
    temperature : float
        Above 1 where the classifier was too sure of itself.
    bias : mapping of class id to float
        Added to the logits; empty where none is needed.
    """

    temperature: float = 1.0
    bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self.temperature == 1.0 and not any(self.bias.values())

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table of predictions with its columns ``p_<class id>``, ``predicted`` and ``probability`` corrected.

        Examples
        --------
        >>> table = pd.DataFrame({"predicted": [1], "probability": [0.9], "p_1": [0.9], "p_2": [0.1]})
        >>> Calibration(2.0).apply(table).round(2).to_dict("list")
        {'predicted': [1], 'probability': [0.75], 'p_1': [0.75], 'p_2': [0.25]}
        """
        ids = class_ids(table)
        if self.is_identity or table.empty or not ids:
            return table
        columns = [f"p_{id}" for id in ids]
        parameters = np.array([np.log(self.temperature), *(self.bias.get(id, 0.0) for id in ids)])
        p = softmax(_scaled(_logits(table[columns].to_numpy(float)), parameters), axis=1)
        corrected = table.copy()
        corrected[columns] = p.astype(np.float32)
        corrected["predicted"] = np.array(ids)[p.argmax(axis=1)]
        if "probability" in table:
            corrected["probability"] = p.max(axis=1).astype(np.float32)
        return corrected


NO_CALIBRATION = Calibration()


def class_ids(table: pd.DataFrame, prefix: str = "p_") -> list[int]:
    """Return the class ids of the columns of probabilities."""
    return [int(column.removeprefix(prefix)) for column in map(str, table) if column.startswith(prefix)]


def calibrate(held_out: pd.DataFrame) -> tuple[Calibration, pd.DataFrame]:
    """Return the calibration that objects which were held out ask for, and these objects as it changes them.

    Parameters
    ----------
    held_out : DataFrame
        One row an object: ``fold``, ``group``, ``truth`` (class id), one ``p_<class id>`` each.

    Returns
    -------
    Calibration
        None where there are fewer than 50 objects.
    DataFrame
        The same rows, each part of them as the calibration that the other parts ask for changes it.
    """
    if len(held_out) < FEWEST or "fold" not in held_out:
        return NO_CALIBRATION, held_out
    parts = [_asked_for(held_out[held_out["fold"] != fold]).apply(part) for fold, part in held_out.groupby("fold")]
    return _asked_for(held_out), pd.concat(parts).loc[held_out.index]


def _asked_for(held_out: pd.DataFrame) -> Calibration:
    ids = class_ids(held_out)
    logits = _logits(held_out[[f"p_{id}" for id in ids]].to_numpy(float))
    truth, folds = np.searchsorted(ids, held_out["truth"]), held_out["fold"].to_numpy()
    kinds = [False] if np.bincount(truth, minlength=len(ids)).min() < MIN_OBJECTS_PER_CLASS else [False, True]
    chosen, losses = np.zeros(len(ids) + 1), _losses(logits, truth)
    for with_bias in kinds:
        crossed = np.empty(len(truth))
        for fold in np.unique(folds):
            here = folds == fold
            parameters = _fitted(logits[~here], truth[~here], with_bias)
            crossed[here] = _losses(_scaled(logits[here], parameters), truth[here])
        gain = pd.Series(losses - crossed).groupby(held_out["group"].to_numpy()).sum()
        if gain.sum() > NOISE[with_bias] * np.sqrt((gain**2).sum()):
            chosen, losses = _fitted(logits, truth, with_bias), crossed
    bias = dict(zip(ids, chosen[1:].tolist())) if chosen[1:].any() else {}
    return Calibration(float(np.exp(chosen[0])), bias)


@dataclass(frozen=True)
class Reliability:
    """How far probabilities are from the shares that are right.

    Attributes
    ----------
    error : float
        Expected calibration error: the mean distance, over bins of equally many objects, between the mean probability
        of the predicted classes and the share of them that is right.
    by_chance : float
        What probabilities that are exactly right would show with as few objects, on average.
    bins : DataFrame
        ``n``, ``probability`` (mean), ``right`` (share).
    """

    error: float
    expected_by_chance: float
    bins: pd.DataFrame


def reliability(probability: Floats, right: NDArray[np.bool_], seed: int = 0) -> Reliability:
    """Compare the probabilities (n,) of predicted classes with whether these were right (n,)."""
    order = np.argsort(probability, kind="stable")
    probability, right = np.asarray(probability, float)[order], np.asarray(right)[order]
    count = int(np.clip(len(order) // 15, 1, 10))
    starts = np.linspace(0, len(order), count, endpoint=False).astype(int)
    sizes = np.diff([*starts, len(order)])
    mean = np.add.reduceat(probability, starts) / sizes
    if_exact = np.random.default_rng(seed).random((SIMULATIONS, len(order))) < probability
    shares = np.add.reduceat(np.vstack([right, if_exact]).astype(float), starts, axis=1) / sizes
    errors = np.abs(shares - mean) @ sizes / len(order)
    bins = pd.DataFrame({"n": sizes, "probability": mean, "right": shares[0]})
    return Reliability(float(errors[0]), float(errors[1:].mean()), bins)


def _logits(probabilities: Floats) -> Floats:
    return np.log(np.maximum(probabilities, SMALLEST))


def _scaled(logits: Floats, parameters: Floats) -> Floats:
    """Return logits divided by the temperature, given by its logarithm, plus the bias of each class."""
    return np.asarray(logits * np.exp(-parameters[0]) + parameters[1:])


def _losses(logits: Floats, truth: NDArray[np.int64]) -> Floats:
    return np.asarray(-log_softmax(logits, axis=1)[np.arange(len(truth)), truth])


def _fitted(logits: Floats, truth: NDArray[np.int64], with_bias: bool) -> Floats:
    """Return the logarithm of the temperature and the bias of each class, by the largest penalised likelihood."""
    n, k = logits.shape
    doubt = 1 / (n + 2)  # so many objects, all right, are no certainty (Platt 1999)
    wanted = (1 - doubt) * np.eye(k)[truth] + doubt / k

    def objective(some: Floats) -> tuple[float, Floats]:
        parameters = np.zeros(k + 1)
        parameters[: len(some)] = some
        scaled = _scaled(logits, parameters)
        logs = log_softmax(scaled, axis=1)
        excess = np.exp(logs) - wanted
        slope = np.array([-(excess * (scaled - parameters[1:])).sum(), *excess.sum(axis=0)])
        loss = (some**2).sum() / (2 * USUAL**2) - (logs * wanted).sum()
        return float(loss), slope[: len(some)] + some / USUAL**2

    start, found = np.zeros(k + 1 if with_bias else 1), np.zeros(k + 1)
    found[: len(start)] = minimize(objective, start, jac=True, method="L-BFGS-B").x
    return found
