"""Work of scoring a run, and whether its augmentation is checked."""

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
    """Work of scoring a run after its cross-validation, in such cross-validations.

    Attributes
    ----------
    check : bool
        Whether cross-validation may be repeated without augmentation, which the score decides.
    forest : float
        Cross-validation of a forest for comparison.
    """

    check: bool = False
    forest: float = 0.0


def planned_scoring(samples: TrainingData) -> ScoringWork:
    """Plan the scoring of a run that was trained on the samples."""
    from svetlana_jupyter.learn.cross_validation import cross_validation_work
    from svetlana_jupyter.learn.forest import SECONDS_PER_TREE
    from svetlana_jupyter.learn.search_plan import epoch_seconds

    settings, trainings = samples.settings, cross_validation_work(samples)
    if not settings.has_network or not trainings:
        return ScoringWork()
    seconds = settings.epochs * epoch_seconds(settings, len(samples), len(samples.channels))
    forest = settings.folds * settings.trees * SECONDS_PER_TREE / (trainings * seconds)
    return ScoringWork(may_destroy_differences(settings), forest)


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
