"""Which samples each batch of an epoch holds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.settings import TrainingSettings


class Draws:
    """Deals samples out like decks of cards, one deck a class, each shuffled anew when it runs out.

    So every sample of a class is seen equally often, and a rare class as often as the class weights say.

    Parameters
    ----------
    targets : integer array of shape (n,)
        Positions in ``classes``.
    classes : tuple of int
        Class ids.
    settings : TrainingSettings
        Its batch size, steps, class weights and seed.
    """

    def __init__(self, targets: NDArray[np.int64], classes: tuple[int, ...], settings: TrainingSettings) -> None:
        self._rng = np.random.default_rng(settings.seed)
        self._members = [np.flatnonzero(targets == position) for position in range(len(classes))]
        counts = np.array([len(members) for members in self._members], float)
        weights = settings.class_weights
        if weights == "balanced":
            shares = (counts > 0).astype(float)
        elif weights == "softened":
            shares = np.sqrt(counts)
        elif isinstance(weights, dict):
            shares = counts * [weights.get(id, 1.0) for id in classes]
        else:
            shares = counts
        self._shares = shares / shares.sum()
        self._decks = [members[:0] for members in self._members]
        self._size = settings.batch_size
        self.steps = settings.steps or math.ceil(len(targets) / settings.batch_size)
        self._count = self.steps * self._size if settings.steps else len(targets)

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
