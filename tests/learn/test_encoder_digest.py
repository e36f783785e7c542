"""Hash of an encoder: equal for equal functions, different for any that could differ."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

from svetlana_jupyter.learn.encoder_digest import encoder_digest

FACTOR = np.ones(3)


def scaled(patches: np.ndarray, factor: float = 1.0) -> np.ndarray:
    return patches.reshape(len(patches), -1) * factor


def enclosed(factor: object) -> Any:
    return lambda patches: scaled(patches) * factor


def global_factor(patches: np.ndarray) -> np.ndarray:
    return scaled(patches)[:, :3] * FACTOR


class Scaled:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        return scaled(patches, self.factor)


class Powers(torch.nn.Module):
    def __init__(self, exponent: int) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.flatten(1) ** self.exponent


def weights(value: float) -> torch.nn.Module:
    module = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(module.weight, value)
    torch.nn.init.constant_(module.bias, 0)
    return torch.nn.Sequential(torch.nn.Flatten(), module)


@pytest.mark.parametrize(
    ("make", "one", "other"),
    [
        (enclosed, 1.0, 2.0),
        (enclosed, np.ones(2), np.zeros(2)),
        (lambda size: enclosed(torch.ones(size)), 1, 2),
        (lambda factor: functools.partial(scaled, factor=factor), 1.0, 2.0),
        (Scaled, 1.0, 2.0),
        (lambda factor: Scaled(factor).__call__, 1.0, 2.0),
        (lambda factor: enclosed(Scaled(factor)), 1.0, 2.0),
        (weights, 1.0, 2.0),
        (torch.nn.AvgPool2d, 2, 4),
        (Powers, 2, 3),
        (lambda kind: torch.nn.Sequential(torch.nn.Flatten(), kind()), torch.nn.ReLU, torch.nn.Tanh),
        (lambda code: eval(f"lambda patches: patches[:, 0, 0] + {code}"), 1, 2),
    ],
)
def test_encoders_that_compute_something_else_have_another_hash(make, one, other):
    assert encoder_digest(make(one)) == encoder_digest(make(one))
    assert encoder_digest(make(one)) != encoder_digest(make(other))


def test_global_values_count(monkeypatch):
    before = encoder_digest(global_factor)
    monkeypatch.setitem(globals(), "FACTOR", np.zeros(3))
    assert encoder_digest(global_factor) != before


def test_values_that_contain_themselves_are_hashed():
    encoder = Scaled(1.0)
    vars(encoder)["itself"] = encoder
    assert encoder_digest(encoder) == encoder_digest(encoder)
