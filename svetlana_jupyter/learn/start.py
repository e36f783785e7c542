"""What a network begins with, beside what settings can hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn


@dataclass(frozen=True)
class InitialWeights:
    """A module of the user's, and where weights are.

    Parameters
    ----------
    network : Module, optional
        The user's own, instead of the architecture of the settings.
    weights : Path, optional
        What ``start_from`` of the settings means: a run's folder, or a file of weights. None: its own text is the path.
    """

    network: nn.Module | None = None
    weights: Path | None = None


NOTHING = InitialWeights()
