"""Keeping annotations apart for scoring, whole groups at a time."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from svetlana_jupyter.learn.samples import Samples


def held_out(samples: Samples) -> NDArray[np.bool_]:
    """Return which samples are kept aside, none where there are too few.

    Whole groups are kept aside, about the share that the settings ask for, and every class stays in training.
    """
    settings, none = samples.settings, np.zeros(len(samples), bool)
    if not settings.held_out or len(samples) < settings.held_out_from:
        return none
    chosen = none.copy()
    chosen[folds(samples, round(1 / settings.held_out))[0][0]] = True
    stays = set(samples.targets[~chosen].tolist()) == set(samples.classes)
    return chosen if stays and chosen.any() else none


def folds(samples: Samples, count: int) -> tuple[list[NDArray[np.int64]], bool]:
    """Split samples into ``count`` parts of similar classes, and say whether groups stayed whole.

    They do where each class lives in enough of them; else single objects are dealt out.
    """
    seed = samples.settings.seed
    by_class = [len(set(samples.groups[samples.targets == id])) for id in samples.classes]
    grouped = min(by_class) >= count
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    splitter = kind(n_splits=count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer members than folds is absent from some, which scoring takes into account.
        warnings.simplefilter("ignore", UserWarning)
        parts = splitter.split(np.zeros(len(samples)), samples.targets, samples.groups if grouped else None)
        return [np.asarray(part, np.int64) for _, part in parts], grouped
