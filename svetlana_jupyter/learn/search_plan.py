"""Plan of a preset search: epochs, folds and finalists within a time budget.

Expected times follow from the sizes of patches and networks, not from measurements, so that the same search has the
same plan on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from svetlana_jupyter.core.settings import FOREST
from svetlana_jupyter.learn.forest import SECONDS_PER_TREE
from svetlana_jupyter.learn.live_classifier import SECONDS_PER_FIT
from svetlana_jupyter.learn.networks import BACKWARD_FACTOR, step_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from svetlana_jupyter.core.settings import TrainingSettings

# Time budget on one core for the comparison of networks and the final training, by number of dimensions. An idle core
# (AMD EPYC) needs about 60 % of this time, so two cores need about a third.
BUDGET_SECONDS = {2: 70.0, 3: 340.0}
EXPENSIVE_FACTOR = 2  # networks that take longer than this multiple of the first network must fit into the budget
N_FINALISTS = 2  # networks that are trained to the end in every fold
# The first round is long enough to see what a network learns: after 40 steps, hardly any network was better than
# guessing on cells with small inclusions, and the finalists were drawn by chance. Two folds pay for it.
FIRST_ROUND_PARTS = 2
FIRST_ROUND_SHARE = 1 / 5  # length of the first round as a fraction of all epochs
MIN_FIRST_STEPS = {2: 80, 3: 40}  # minimum number of training steps in the first round
MIN_STEPS = {2: 120, 3: 60}  # minimum number of training steps of the finalists, even if the budget is exceeded


@dataclass(frozen=True)
class SearchPlan:
    """Epochs, folds and finalists of a search, and the expected time of each step.

    Attributes
    ----------
    first_round_epochs, epochs : int
        Number of epochs in the first round, and number of epochs of the finalists.
    first_round_parts, parts : int
        Number of folds in the first round, and number of all folds.
    finalists : int
        Number of networks trained to the end. If there are not more networks, there is no first round.
    epoch_seconds, prediction_seconds : mapping of name to float
        Expected time of an epoch and of the prediction of all objects by each network, on one core.
    """

    first_round_epochs: int
    epochs: int
    first_round_parts: int
    parts: int
    finalists: int
    epoch_seconds: Mapping[str, float]
    prediction_seconds: Mapping[str, float]

    @property
    def has_first_round(self) -> bool:
        """Whether some networks are dropped after a first round."""
        return len(self.epoch_seconds) > self.finalists

    @property
    def first_round_seconds(self) -> float:
        """Expected time of the first round; 0 if there is none."""
        return sum(map(self.first_round_seconds_of, self.epoch_seconds)) if self.has_first_round else 0.0

    def first_round_seconds_of(self, name: str) -> float:
        """Return the expected time of one network in the first round."""
        share = self.first_round_parts / self.parts
        training = self.first_round_parts * self.first_round_epochs * self.epoch_seconds[name]
        return training + share * self.prediction_seconds[name]

    def finalist_seconds(self, name: str) -> float:
        """Return the expected time of training a finalist in every fold."""
        return self.parts * self.epochs * self.epoch_seconds[name] + self.prediction_seconds[name]

    def final_seconds(self, name: str) -> float:
        """Return the expected time of the final training on all objects of the search."""
        return self.epochs * self.epoch_seconds[name]

    def expensive(self) -> list[str]:
        """Return as many networks as there are finalists, the most expensive ones."""
        return sorted(self.epoch_seconds, key=self.finalist_seconds)[-self.finalists :]

    @property
    def entry_seconds(self) -> float:
        """Least expected time until a network can be the result."""
        cheapest = min(self.epoch_seconds, key=self.finalist_seconds)
        return self.first_round_seconds + self.finalist_seconds(cheapest) + self.final_seconds(cheapest)

    @property
    def seconds(self) -> float:
        """Expected time of all steps, if the finalists are the most expensive networks."""
        expensive = self.expensive()
        return self.first_round_seconds + sum(map(self.finalist_seconds, expensive)) + self.final_seconds(expensive[-1])


def plan_search(
    networks: Mapping[str, TrainingSettings], n: int, channels: int, parts: int, keep_epochs: bool
) -> SearchPlan:
    """Plan the rounds of a search within the time budget.

    Parameters
    ----------
    networks : mapping of name to TrainingSettings
        Settings of the candidates that are networks. Their automatic patch settings must be resolved.
    n : int
        Number of annotated objects.
    channels : int
        Number of image channels.
    parts : int
        Number of folds of the cross-validation.
    keep_epochs : bool
        True to keep the number of epochs of the settings, even if the budget is exceeded.
    """
    first = next(iter(networks.values()))
    ndim, steps, wanted = len(first.patches.shape), _steps_per_epoch(first, n), first.epochs
    training = {name: epoch_seconds(settings, n, channels) for name, settings in networks.items()}
    prediction = {
        name: n * step_seconds(settings, channels) / settings.batch_size * settings.views / BACKWARD_FACTOR
        for name, settings in networks.items()
    }

    def plan(epochs: int) -> SearchPlan:
        least = math.ceil(MIN_FIRST_STEPS[ndim] / steps)
        first_round = min(epochs, max(least, round(epochs * FIRST_ROUND_SHARE)))
        # If the first round would be the whole training, no network is dropped.
        finalists = len(networks) if first_round == epochs else min(N_FINALISTS, len(networks))
        return SearchPlan(first_round, epochs, min(FIRST_ROUND_PARTS, parts), parts, finalists, training, prediction)

    epochs, least = wanted, min(wanted, math.ceil(MIN_STEPS[ndim] / steps))
    while not keep_epochs and epochs > least and plan(epochs).seconds > BUDGET_SECONDS[ndim]:
        epochs -= 1
    return plan(epochs)


def affordable_candidates(candidates: Mapping[str, TrainingSettings], n: int, channels: int) -> list[str]:
    """Return the names of the candidates that fit the time budget.

    Classifiers without a network, and networks up to twice as expensive as the first candidate, are always included. A
    more expensive network is included only if its trainings in all folds and its final training fit the budget.

    Parameters
    ----------
    candidates : mapping of name to TrainingSettings
        Their automatic patch settings must be resolved.
    n, channels : int
        Number of annotated objects, and number of image channels.
    """
    limit = EXPENSIVE_FACTOR * epoch_seconds(next(iter(candidates.values())), n, channels)

    def is_affordable(settings: TrainingSettings) -> bool:
        if not settings.has_network:
            return True
        seconds, budget = epoch_seconds(settings, n, channels), BUDGET_SECONDS[len(settings.patches.shape)]
        return seconds <= limit or (settings.folds + 1) * settings.epochs * seconds <= budget

    return [name for name, settings in candidates.items() if is_affordable(settings)]


def epoch_seconds(settings: TrainingSettings, n: int, channels: int) -> float:
    """Estimate the duration of one epoch on one core; without a network, of a fit."""
    if settings.architecture == FOREST:
        return settings.trees * SECONDS_PER_TREE
    if not settings.has_network:
        return SECONDS_PER_FIT
    return _steps_per_epoch(settings, n) * step_seconds(settings, channels)


def _steps_per_epoch(settings: TrainingSettings, n: int) -> int:
    return settings.steps or math.ceil(n / settings.batch_size)
