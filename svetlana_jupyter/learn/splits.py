"""Grouped splits for validation and cross-validation.

Whole groups are held out, and objects of one edit stay together, because their labels are not independent.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import BaseCrossValidator, KFold, StratifiedGroupKFold, StratifiedKFold

if TYPE_CHECKING:
    from svetlana_jupyter.learn.dataset import TrainingData

ATTEMPTS = 10  # random splits, of which the one that spreads the classes best is used


class Folds(NamedTuple):
    """Split of the samples into parts, each of which is held out once.

    Attributes
    ----------
    parts : list of int64 array
        Positions of the samples; every sample is in one part.
    kept_whole : str
        Units that were never divided between two parts: "whole groups", "whole edits" or "single objects".
    """

    parts: list[NDArray[np.int64]]
    kept_whole: str


def validation_mask(samples: TrainingData) -> NDArray[np.bool_]:
    """Return a mask of the samples that validate training, empty if they are too few.

    About the share of the settings is held out in whole groups, and every class stays in training.
    """
    settings, none = samples.settings, np.zeros(len(samples), bool)
    if not settings.held_out or len(samples) < settings.held_out_from:
        return none
    chosen, count = none.copy(), round(1 / settings.held_out)
    chosen[split_folds(samples, count, min_parts=count).parts[0]] = True
    # Single objects may have been dealt out, which can take the only object of a class.
    remains = set(samples.targets[~chosen].tolist()) == set(samples.classes)
    return chosen if remains and chosen.any() else none


def split_folds(samples: TrainingData, count: int, min_parts: int = 2) -> Folds:
    """Split samples into up to ``count`` parts with similar class shares.

    Groups stay whole, and so do the objects of one edit, if each class occurs in at least ``min_parts`` groups; there
    are fewer parts if it occurs in fewer than ``count``. Otherwise edits stay whole, otherwise single objects are
    split. Whichever part is held out, each class occurs in the rest, unless it has a single object. The same samples
    and seed give the same parts.

    Parameters
    ----------
    samples : TrainingData
    count, min_parts : int
        At least 2.
    """
    for kept_whole, units in _candidate_units(samples).items():
        parts = max((_split_units(samples, numbers, count, min_parts) for numbers in units), key=len)
        if parts:
            return Folds(parts, kept_whole)
    largest_class = int(np.unique(samples.targets, return_counts=True)[1].max())
    splitter_type = StratifiedKFold if largest_class > 1 else KFold  # single objects cannot be stratified
    count = max(2, min(count, largest_class))
    splitter = splitter_type(n_splits=count, shuffle=True, random_state=samples.settings.seed)
    return Folds(_split(splitter, samples, None), "single objects")


def _candidate_units(samples: TrainingData) -> dict[str, list[NDArray[np.int64]]]:
    """Return the unit of each sample for all ways to keep units whole, best first."""
    groups = np.unique(samples.groups, return_inverse=True)[1]
    edits = _number_edits(samples.edit_groups)
    if len(np.unique(edits)) == len(edits):
        return {"whole groups": [groups]}
    # A single edit across all groups would leave nothing to hold out: then edits are ignored.
    return {"whole groups": [_join_units(groups, edits), groups], "whole edits": [edits]}


def _number_edits(edit_groups: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return a number per edit; an object without an edit ("") is a unit of its own."""
    named, numbers = edit_groups != "", np.arange(len(edit_groups))
    numbers[named] = len(edit_groups) + np.unique(edit_groups[named], return_inverse=True)[1]
    return np.asarray(np.unique(numbers, return_inverse=True)[1], np.int64)


def _join_units(groups: NDArray[np.int64], edits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return units that divide neither a group nor an edit."""
    count = groups.max() + 1
    shape = (count + edits.max() + 1,) * 2
    _, units = connected_components(coo_array((np.ones(len(groups)), (groups, count + edits)), shape), False)
    return np.asarray(units[groups], np.int64)


def _split_units(
    samples: TrainingData, units: NDArray[np.int64], count: int, min_parts: int
) -> list[NDArray[np.int64]]:
    """Return parts of whole units, each class in at least two, or [] if impossible.

    Of several splits, the one with the classes in most parts is returned.
    """
    count = min(count, *(len(np.unique(units[samples.targets == class_id])) for class_id in samples.classes))
    if count < min_parts:
        return []
    best, most = list[NDArray[np.int64]](), 0
    for attempt in range(ATTEMPTS):
        seed = samples.settings.seed + attempt
        parts = _split(StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed), samples, units)
        present = np.array([[class_id in samples.targets[part] for part in parts] for class_id in samples.classes])
        if present.sum(axis=1).min() >= 2 and present.sum() > most and min(map(len, parts)):
            best, most = parts, int(present.sum())
        if present.all():
            break
    return best


def _split(
    splitter: BaseCrossValidator, samples: TrainingData, units: ArrayLike | None
) -> list[NDArray[np.int64]]:
    with warnings.catch_warnings():
        # A class with fewer members than folds is absent from some folds, which scoring takes into account.
        warnings.simplefilter("ignore", UserWarning)
        parts = splitter.split(np.zeros(len(samples)), samples.targets, units)
        return [np.asarray(part, np.int64) for _, part in parts]
