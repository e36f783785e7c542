"""Grouped splits for validation and cross-validation.

If possible, whole groups such as wells or images are held out. Objects that were labeled by the same edit, such as a
lasso selection, are held out together, because their labels are not independent.
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

ATTEMPTS = 10  # random splits; the split that distributes the classes best is used


class Folds(NamedTuple):
    """Split of the samples into folds, each of which is held out once.

    Attributes
    ----------
    parts : list of int64 array
        Positions of the samples of each fold; every sample is in exactly one fold.
    kept_whole : str
        Units that were never divided between two folds: "whole groups", "whole edits" or "single objects".
    """

    parts: list[NDArray[np.int64]]
    kept_whole: str


def validation_mask(samples: TrainingData) -> NDArray[np.bool_]:
    """Return a mask of the validation samples; all False if samples are too few.

    About the fraction ``settings.held_out`` of the samples is selected, in whole groups if possible. At least one
    sample of each class remains for training.
    """
    settings, none = samples.settings, np.zeros(len(samples), bool)
    if not settings.held_out or len(samples) < settings.held_out_from:
        return none
    chosen, count = none.copy(), round(1 / settings.held_out)
    chosen[split_folds(samples, count, min_parts=count).parts[0]] = True
    # If single objects were split, the only object of a class may have been selected.
    remains = set(samples.targets[~chosen].tolist()) == set(samples.classes)
    return chosen if remains and chosen.any() else none


def split_folds(samples: TrainingData, count: int, min_parts: int = 2) -> Folds:
    """Split samples into up to ``count`` folds with similar class frequencies.

    Groups are kept whole if each class occurs in at least ``min_parts`` groups. If a class occurs in fewer than
    ``count`` groups, there are fewer folds. Objects of one edit are also kept together, unless this reduces the number
    of folds. If groups cannot be kept whole, edits are kept whole; if this is impossible too, single objects are split.
    Each class occurs in at least two folds, unless it has only one object. The same samples and seed give the same
    folds.

    Parameters
    ----------
    samples : TrainingData
    count : int
        Maximum number of folds, at least 2.
    min_parts : int
        Minimum number of folds of whole groups or whole edits, at least 2.
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
    """Return the units that may be kept whole, the preferred units first.

    The keys are values of ``Folds.kept_whole``. The arrays contain the number of the unit of each sample.
    """
    groups = np.unique(samples.groups, return_inverse=True)[1]
    edits = _number_edits(samples.edit_groups)
    if len(np.unique(edits)) == len(edits):
        return {"whole groups": [groups]}
    # An edit across many groups joins them into one unit, so that few folds or none remain. Then edits are ignored.
    return {"whole groups": [_join_units(groups, edits), groups], "whole edits": [edits]}


def _number_edits(edit_groups: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the number of each sample's edit; samples without one ("") are separate."""
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
    """Split samples into folds of whole units; return [] if this is impossible.

    Each class occurs in at least two folds. Of several random splits, return the split whose classes occur in the most
    folds.
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


def _split(splitter: BaseCrossValidator, samples: TrainingData, units: ArrayLike | None) -> list[NDArray[np.int64]]:
    with warnings.catch_warnings():
        # A class with fewer members than folds is absent from some folds, which scoring takes into account.
        warnings.simplefilter("ignore", UserWarning)
        parts = splitter.split(np.zeros(len(samples)), samples.targets, units)
        return [np.asarray(part, np.int64) for _, part in parts]
