"""Work of scoring a run, planned before its training.

The time left of a training covers the scoring. The speed is measured in the current stage, so all work is expressed in
steps of that stage: epochs of the training, then cross-validations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from svetlana_jupyter.core.allowed_cues import restrict_to_allowed_cues
from svetlana_jupyter.core.settings import AugmentSettings, TrainingSettings
from svetlana_jupyter.core.stats.model_selection import MIN_ACCURACY_LOSS

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.learn.dataset import TrainingData
    from svetlana_jupyter.learn.preset_search import SearchResult


@dataclass(frozen=True)
class ScoringWork:
    """Work of scoring a run.

    Attributes
    ----------
    epochs : float
        All of it, in epochs of the training.
    check : bool
        Whether cross-validation may be repeated without augmentation.
    at_most : bool
        Whether the score decides if it is repeated.
    forest : float
        Cross-validation of a forest for comparison, in cross-validations of the network.
    """

    epochs: float = 0.0
    check: bool = False
    at_most: bool = False
    forest: float = 0.0


def planned_scoring(samples: TrainingData, searched: SearchResult | None) -> ScoringWork:
    """Plan the scoring of a run that is trained on the samples.

    Parameters
    ----------
    samples : TrainingData
    searched : SearchResult, optional
        Result of the comparison of presets, which contains the score of the run.
    """
    from svetlana_jupyter.learn.cross_validation import cross_validation_work
    from svetlana_jupyter.learn.forest import SECONDS_PER_TREE
    from svetlana_jupyter.learn.search_plan import epoch_seconds
    from svetlana_jupyter.learn.splits import validation_mask

    settings, trainings = samples.settings, cross_validation_work(samples)
    if not settings.has_network or not trainings:
        return ScoringWork()
    trained = 1.0 if settings.steps else 1.0 - float(validation_mask(samples).mean())
    if searched is not None:
        check = plain_table(samples, searched) is None and is_check_needed(settings, searched.nested_table)
        return ScoringWork(check * trainings * settings.epochs / trained, check)
    check = may_destroy_differences(settings)
    seconds = settings.epochs * epoch_seconds(settings, len(samples), len(samples.channels))
    forest = settings.folds * settings.trees * SECONDS_PER_TREE / (trainings * seconds)
    return ScoringWork((1 + check + forest) * trainings * settings.epochs / trained, check, check, forest)


def check_factor(settings: TrainingSettings, all_settings: list[TrainingSettings]) -> float:
    """Return the number of trainings after a comparison of presets.

    These are the final training, and those of a cross-validation that may check the augmentation.
    """
    least = least_augmentation(settings)
    compared = any(one.augmentation == least for one in all_settings)
    return 1.0 if compared or not may_destroy_differences(settings) else float(settings.folds)


def may_destroy_differences(settings: TrainingSettings) -> bool:
    """Return whether augmentation may hide the differences between classes."""
    is_least = least_augmentation(settings) == settings.augmentation
    return settings.has_network and settings.augmentation.varies and not is_least


def is_check_needed(settings: TrainingSettings, table: pd.DataFrame) -> bool:
    """Return whether to score without augmentation, too, given held-out predictions."""
    has_room = bool((table["predicted"] == table["truth"]).mean() <= 1 - MIN_ACCURACY_LOSS)
    return has_room and may_destroy_differences(settings)


def plain_table(samples: TrainingData, searched: SearchResult) -> pd.DataFrame | None:
    """Return the held-out predictions of a candidate with the least augmentation."""
    least = least_augmentation(samples.settings)
    return next((one.table for one in searched.candidates if one.settings.augmentation == least), None)


def least_augmentation(settings: TrainingSettings) -> AugmentSettings:
    """Return the least augmentation that hides the cues that are not allowed."""
    return restrict_to_allowed_cues(settings.changed(augmentation=AugmentSettings.none())).augmentation
