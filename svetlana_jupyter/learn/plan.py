"""How long a search for a recipe trains, decided before it starts: the clock then cannot change what it finds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from svetlana_jupyter.core.settings import TrainingSettings

# Seconds of one core that search, final training and outer score may take together. An idle one (AMD EPYC) takes about
# 0.6 of them, so two take about a third.
BUDGET_SECONDS = {2: 50.0, 3: 340.0}
# Those of one training step: a constant, per million values of the widest maps, and per million multiplications.
STEP, SECONDS_PER_MAP, SECONDS_PER_PRODUCT = 0.002, 0.0135, 0.000009
EXPENSIVE_FACTOR = 2  # times as much as others cost, from which on a network must leave time for them
BACKWARD_FACTOR = 3  # times a forward pass, that included
N_FINALISTS = {2: 3, 3: 2}  # networks that are trained to the end in every fold
FIRST_ROUND_SHARE = 1 / 6  # of the steps, after which the others are left behind...
MIN_FIRST_STEPS = {2: 40, 3: 20}  # ...but not before so many
FEWEST = {2: 60, 3: 40}


@dataclass(frozen=True)
class SearchPlan:
    """What a search will do.

    Attributes
    ----------
    first, epochs : int
        Epochs after which all but ``finalists`` networks are left behind, and of those that are not.
    finalists : int
        With as many candidates as finalists or fewer, none is left behind.
    seconds : float
        What it may take on one core.
    """

    first: int
    epochs: int
    finalists: int
    seconds: float


def plan(networks: Sequence[TrainingSettings], n: int, channels: int, parts: int, keep_epochs: bool) -> SearchPlan:
    """Plan a search.

    Parameters
    ----------
    networks : sequence of TrainingSettings
        Candidates, with concrete patches.
    n : int
        Number of annotated objects.
    channels : int
        Of the image.
    parts : int
        Folds of the cross-validation.
    fixed : bool
        Whether the number of epochs was asked for, and must be kept.
    """
    ndim = len(networks[0].patches.sampling)  # type: ignore[arg-type]  # concrete, so a tuple
    epoch = [epoch_seconds(settings, n, channels) for settings in networks]
    look = [n * _patch_seconds(settings, channels) * settings.views / BACKWARD_FACTOR for settings in networks]
    finalists = min(N_FINALISTS[ndim], len(networks))

    def seconds(first: int, epochs: int) -> float:
        found = parts * epochs * _dearest(epoch, finalists) + _dearest(look, finalists) + epochs * max(epoch)
        if len(networks) > finalists:
            found += parts * first * sum(epoch) + sum(look)
        return found

    steps = _steps(networks[0], n)

    def first_of(epochs: int) -> int:
        return min(epochs, max(math.ceil(MIN_FIRST_STEPS[ndim] / steps), round(epochs * FIRST_ROUND_SHARE)))

    wanted = networks[0].epochs
    epochs, least = wanted, min(wanted, math.ceil(FEWEST[ndim] / steps))
    while not keep_epochs and epochs > least and seconds(first_of(epochs), epochs) > BUDGET_SECONDS[ndim]:
        epochs -= 1
    first = first_of(epochs)
    if first == epochs:  # so short that none need be left behind
        finalists = len(networks)
    return SearchPlan(first, epochs, finalists, seconds(first, epochs))


def affordable_candidates(candidates: Mapping[str, TrainingSettings], n: int, channels: int) -> list[str]:
    """Return the names of candidates that a search has time for.

    A network that costs much more than the first one must leave time for others: it trains in every fold and at last.

    Parameters
    ----------
    candidates : mapping of name to TrainingSettings
        With concrete patches. Forests are quick.
    n, channels : int
        As for `plan`.
    """
    first = epoch_seconds(next(iter(candidates.values())), n, channels)

    def leaves_time(settings: TrainingSettings) -> bool:
        assert isinstance(settings.patches.sampling, tuple)
        one = epoch_seconds(settings, n, channels)
        return (
            one <= EXPENSIVE_FACTOR * first
            or (settings.folds + 1) * settings.epochs * one <= BUDGET_SECONDS[len(settings.patches.sampling)]
        )

    return [name for name, one in candidates.items() if one.architecture == "forest" or leaves_time(one)]


def epoch_seconds(settings: TrainingSettings, n: int, channels: int) -> float:
    """Return what one epoch of the small network takes on one core."""
    return _steps(settings, n) * step_seconds(settings, channels)


def step_seconds(settings: TrainingSettings, channels: int) -> float:
    """Return what one training step of the small network takes on one core."""
    sampling = settings.patches.sampling
    assert isinstance(sampling, tuple)
    ndim, pixels = len(sampling), math.prod(sampling)
    into = channels * (2 if settings.patches.has_doubled_channels else 1) + settings.patches.mask_channel
    values, products = float(pixels * (into + settings.width)), 0.0
    for level in range(settings.depth):
        out = settings.width * 2**level
        products += pixels / 2 ** (ndim * level) * 3**ndim * into * out
        into = out
    batch = settings.batch_size
    return STEP + batch * (values * SECONDS_PER_MAP + products * BACKWARD_FACTOR * SECONDS_PER_PRODUCT) / 1e6


def _steps(settings: TrainingSettings, n: int) -> int:
    return settings.steps or math.ceil(n / settings.batch_size)


def _patch_seconds(settings: TrainingSettings, channels: int) -> float:
    return step_seconds(settings, channels) / settings.batch_size


def _dearest(costs: Sequence[float], count: int) -> float:
    """Return what those that cost most cost together."""
    return sum(sorted(costs)[-count:])
