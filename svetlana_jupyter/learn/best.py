"""The best state that a network was in while it trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class BestWeights:
    """Keeps the weights of the best epoch: by the score on what is held out where it is known, else by the loss.

    Attributes
    ----------
    epoch : int
        The best one, the later of equals; 0 before any.
    improved : int
        The last that was truly better than all before.
    score : float or None
        Of the best.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._rank: tuple[bool, float] | None = None
        self._state: dict[str, Tensor] = {}
        self.epoch, self.last_improvement = 0, 0
        self.score: float | None = None

    def offer(self, epoch: int, loss: float, score: float | None) -> None:
        """Keep the weights as they are now if they are as good as the best; a score beats any loss."""
        rank = (score is not None, -loss if score is None else score)
        if self._rank is None or rank > self._rank:
            self.last_improvement = epoch
        if self._rank is None or rank >= self._rank:
            self._rank, self.epoch, self.score = rank, epoch, score
            self._state = copy.deepcopy(self._network.state_dict())

    def restore(self) -> None:
        """Give the network the best weights again."""
        self._network.load_state_dict(self._state)


def has_finite_weights(network: nn.Module) -> bool:
    """Tell whether every weight is a number."""
    return all(bool(torch.isfinite(weights).all()) for weights in network.parameters())
