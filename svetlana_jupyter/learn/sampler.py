"""Class-balanced batch sampler and class weights."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from svetlana_jupyter.core.settings import TrainingSettings


def resolve_class_weights(
    targets: NDArray[np.int64], settings: TrainingSettings, names: Mapping[int, str]
) -> dict[int, float]:
    """Return the sampling weight of an annotated object of each class, by class id.

    Parameters
    ----------
    targets : integer array of shape (n,)
        Class ids.
    settings : TrainingSettings
    names : mapping of int to str
        Class names by id; may be incomplete.

    Raises
    ------
    SettingsError
        If the class weights of the settings contain a class without annotations.
    """
    ids, counts = np.unique(targets, return_counts=True)
    weights = settings.class_weights
    if not isinstance(weights, dict):
        exponent = {"none": 0.0, "softened": -0.5, "balanced": -1.0}[weights]
        return {int(class_id): float(count) ** exponent for class_id, count in zip(ids, counts, strict=True)}
    known = {names.get(int(class_id), str(class_id)): int(class_id) for class_id in ids}
    factors = dict.fromkeys(known.values(), 1.0)
    for key, weight in weights.items():
        # A class name that looks like a number, such as "1", is read from JSON settings as a number.
        class_id = key if key in factors else known.get(str(key))
        if not isinstance(class_id, int):
            listed = ", ".join(f"{name!r} ({class_id})" for name, class_id in known.items())
            raise SettingsError(
                f"class_weights contains {key!r}, but the annotated classes are {listed}. Use one of these names."
            )
        factors[class_id] = weight
    return factors


class BalancedBatchSampler:
    """Batch sampler that draws each class as often as its class weight requires.

    The samples of each class are shuffled like a deck of cards and drawn from the top. A deck that runs out is shuffled
    again, so that all samples of a class are drawn equally often.

    Parameters
    ----------
    targets : integer array of shape (n,)
        Class ids.
    settings : TrainingSettings
        Batch size, steps, class weights and seed.
    names : mapping of int to str, optional
        Class names, if class weights are given by name.
    """

    def __init__(
        self, targets: NDArray[np.int64], settings: TrainingSettings, names: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        self._rng = np.random.default_rng(settings.seed)
        factors = resolve_class_weights(targets, settings, names)
        self._members = [np.flatnonzero(targets == class_id) for class_id in factors]
        shares = np.array([factor * len(members) for factor, members in zip(factors.values(), self._members)])
        self._shares = shares / shares.sum()
        self._decks = [members[:0] for members in self._members]
        self.steps = settings.steps or math.ceil(len(targets) / settings.batch_size)
        self._count = self.steps * settings.batch_size if settings.steps else len(targets)
        self.smallest_batch = self._count // self.steps

    def epoch(self) -> list[NDArray[np.int64]]:
        """Return the positions of the samples of each batch of one epoch."""
        # With a random rounding offset, the class frequencies are exact on average over many epochs.
        edges = np.floor(np.cumsum(self._shares) * self._count + self._rng.random()).astype(int)
        edges[-1] = self._count
        quotas = np.diff(edges, prepend=0)
        drawn = np.concatenate([self._draw(position, quota) for position, quota in enumerate(quotas)])
        return np.array_split(self._rng.permutation(drawn), self.steps)

    def _draw(self, position: int, count: int) -> NDArray[np.int64]:
        while len(self._decks[position]) < count:
            shuffled = self._rng.permutation(self._members[position])
            self._decks[position] = np.concatenate([self._decks[position], shuffled])
        drawn, self._decks[position] = np.split(self._decks[position], [count])
        return drawn
