"""Which samples each batch of an epoch holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import SettingsError


def resolve_class_weights(
    targets: NDArray[np.int64], settings: TrainingSettings, names: Mapping[int, str]
) -> dict[int, float]:
    """Return by class id how many times as often as it was annotated a sample of that class counts.

    Parameters
    ----------
    targets : integer array of shape (n,)
        Class ids.
    names : mapping of int to str
        Class names, as far as they are known.

    Raises
    ------
    SettingsError
        If the class weights of the settings name a class that is not there.
    """
    ids, counts = np.unique(targets, return_counts=True)
    weights = settings.class_weights
    if not isinstance(weights, dict):
        exponent = {"none": 0.0, "softened": -0.5, "balanced": -1.0}[weights]
        return {int(id): float(count) ** exponent for id, count in zip(ids, counts, strict=True)}
    known = {names.get(int(id), str(id)): int(id) for id in ids}
    factors = dict.fromkeys(known.values(), 1.0)
    for key, weight in weights.items():
        # A name that looks like a number is a number after JSON.
        id = key if key in factors else known.get(str(key))
        if not isinstance(id, int):
            shown = ", ".join(f"{name!r} ({id})" for name, id in known.items())
            raise SettingsError(f"class_weights names {key!r}, but the annotated classes are {shown}.")
        factors[id] = weight
    return factors


class BalancedBatchSampler:
    """Deals samples out like decks of cards, one deck a class, each shuffled anew when it runs out.

    So every sample of a class is seen equally often, and a rare class as often as the class weights say.

    Parameters
    ----------
    targets : integer array of shape (n,)
        Class ids.
    settings : TrainingSettings
        Its batch size, steps, class weights and seed.
    names : mapping of int to str, optional
        Class names, where class weights are given by name.
    """

    def __init__(
        self, targets: NDArray[np.int64], settings: TrainingSettings, names: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        self._rng = np.random.default_rng(settings.seed)
        factors = resolve_class_weights(targets, settings, names)
        self._members = [np.flatnonzero(targets == id) for id in factors]
        shares = np.array([factor * len(members) for factor, members in zip(factors.values(), self._members)])
        self._shares = shares / shares.sum()
        self._decks = [members[:0] for members in self._members]
        self._size = settings.batch_size
        self.steps = settings.steps or math.ceil(len(targets) / settings.batch_size)
        self._count = self.steps * self._size if settings.steps else len(targets)
        self.smallest_batch = self._count // self.steps

    def epoch(self) -> list[NDArray[np.int64]]:
        """Return the positions of the samples of each batch of one epoch."""
        # Rounding at a random place keeps the shares exact over many epochs.
        edges = np.floor(np.cumsum(self._shares) * self._count + self._rng.random()).astype(int)
        edges[-1] = self._count
        quotas = np.diff(edges, prepend=0)
        dealt = np.concatenate([self._deal(position, quota) for position, quota in enumerate(quotas)])
        return np.array_split(self._rng.permutation(dealt), self.steps)

    def _deal(self, position: int, count: int) -> NDArray[np.int64]:
        while len(self._decks[position]) < count:
            self._decks[position] = np.concatenate(
                [self._decks[position], self._rng.permutation(self._members[position])]
            )
        dealt, self._decks[position] = self._decks[position][:count], self._decks[position][count:]
        return dealt
