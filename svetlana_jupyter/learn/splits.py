"""Keeping annotations apart for scoring: whole groups at a time, and never single objects of one edit."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from svetlana_jupyter.learn.dataset import TrainingData

ATTEMPTS = 10  # deals of the groups, of which the one that spreads the classes best is taken


class Folds(NamedTuple):
    """Samples in parts, each of which is held out once.

    Attributes
    ----------
    parts : list of int64 array
        Positions of the samples; every sample is in one part.
    kept_whole : str
        What was never divided between two parts: "whole groups", "whole edits" or "single objects".
    """

    parts: list[NDArray[np.int64]]
    kept_whole: str


def validation_mask(samples: TrainingData) -> NDArray[np.bool_]:
    """Return which samples are kept aside, none where there are too few.

    Whole groups are kept aside, about the share that the settings ask for, and every class stays in training.
    """
    settings, none = samples.settings, np.zeros(len(samples), bool)
    if not settings.held_out or len(samples) < settings.held_out_from:
        return none
    chosen, count = none.copy(), round(1 / settings.held_out)
    chosen[split_folds(samples, count, min_parts=count).parts[0]] = True
    stays = set(samples.targets[~chosen].tolist()) == set(samples.classes)
    return chosen if stays and chosen.any() else none


def split_folds(samples: TrainingData, count: int, min_parts: int = 2) -> Folds:
    """Split samples into up to ``count`` parts of similar classes; the same samples and seed give the same parts.

    Groups stay whole, and with them the objects of one edit, where each class lives in at least ``min_parts`` of
    them;
    there are fewer parts where it lives in fewer than ``count``. Else edit_groups stay whole, else single objects are
    dealt out. Whatever part is held out, each class is among the rest, unless it has a single object.

    Parameters
    ----------
    samples : Samples
    count, fewest : int
        At least 2.
    """
    for apart, units in _units(samples).items():
        parts = max((_dealt(samples, some, count, min_parts) for some in units), key=len)
        if parts:
            return Folds(parts, apart)
    count = min(count, int(np.unique(samples.targets, return_counts=True)[1].max()))
    splitter = StratifiedKFold(n_splits=count, shuffle=True, random_state=samples.settings.seed)
    return Folds(_split(splitter, samples, None), "single objects")


def _units(samples: TrainingData) -> dict[str, list[NDArray[np.int64]]]:
    """Return what might stay whole, the best first: for each sample the number of its unit, in one or two ways."""
    groups = np.unique(samples.groups, return_inverse=True)[1]
    edit_groups = _numbered(samples.edit_groups)
    if len(np.unique(edit_groups)) == len(edit_groups):
        return {"whole groups": [groups]}
    # One edit through all groups would leave none apart: then they count as if there were no edit_groups.
    return {"whole groups": [_joined(groups, edit_groups), groups], "whole edits": [edit_groups]}


def _numbered(edit_groups: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return a number for each edit; an object without one ("") is a unit of its own."""
    named, numbers = edit_groups != "", np.arange(len(edit_groups))
    numbers[named] = len(edit_groups) + np.unique(edit_groups[named], return_inverse=True)[1]
    return np.asarray(np.unique(numbers, return_inverse=True)[1], np.int64)


def _joined(groups: NDArray[np.int64], edit_groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return units that divide neither a group nor a edit."""
    count = groups.max() + 1
    shape = (count + edit_groups.max() + 1,) * 2
    _, units = connected_components(coo_array((np.ones(len(groups)), (groups, count + edit_groups)), shape), False)
    return np.asarray(units[groups], np.int64)


def _dealt(samples: TrainingData, units: NDArray[np.int64], count: int, min_parts: int) -> list[NDArray[np.int64]]:
    """Return parts of whole units, each class in as many of them as can be and never in one alone; none if not so."""
    count = min(count, *(len(np.unique(units[samples.targets == id])) for id in samples.classes))
    if count < min_parts:
        return []
    best, most = list[NDArray[np.int64]](), 0
    for attempt in range(ATTEMPTS):
        seed = samples.settings.seed + attempt
        parts = _split(StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed), samples, units)
        present = np.array([[id in samples.targets[part] for part in parts] for id in samples.classes])
        if present.sum(axis=1).min() >= 2 and present.sum() > most and min(map(len, parts)):
            best, most = parts, int(present.sum())
        if present.all():
            break
    return best


def _split(
    splitter: StratifiedKFold | StratifiedGroupKFold, samples: TrainingData, units: ArrayLike | None
) -> list[NDArray[np.int64]]:
    with warnings.catch_warnings():
        # A class with fewer members than folds is absent from some, which scoring takes into account.
        warnings.simplefilter("ignore", UserWarning)
        parts = splitter.split(np.zeros(len(samples)), samples.targets, units)
        return [np.asarray(part, np.int64) for _, part in parts]
