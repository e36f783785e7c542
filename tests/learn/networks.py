"""Example networks of users."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """Network with a convolution, dropout and a linear layer for a given number of dimensions."""

    def __init__(self, in_channels: int, num_classes: int, ndim: int = 2) -> None:
        super().__init__()
        convolution = nn.Conv2d if ndim == 2 else nn.Conv3d
        self.layers = nn.Sequential(convolution(in_channels, 6, 3), nn.ReLU(), nn.Dropout(0.1))
        self.out = nn.Linear(6, num_classes)

    def forward(self, patches: Tensor) -> Tensor:
        return self.out(self.layers(patches).flatten(2).mean(2))


class Demanding(nn.Module):
    """Network with an argument that the package cannot provide."""

    def __init__(self, channels: int, mood: str) -> None:
        super().__init__()


class Failing(Plain):
    """Network whose forward pass raises the listed errors, one per training, and then succeeds."""

    errors: list[Exception] = []  # noqa: RUF012  # shared by its copies on purpose

    def forward(self, patches: Tensor) -> Tensor:
        if self.training and self.errors:
            raise self.errors.pop(0)
        return super().forward(patches)


class Flat(nn.Module):
    """Network without a convolution."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(channels, classes)

    def forward(self, patches: Tensor) -> Tensor:
        return self.out(patches.flatten(2).mean(2))


def no_class(channels: int, classes: int) -> nn.Module:
    raise AssertionError("a function is never called by its import path")


PLAIN = torch.nn.Linear(2, 2)
