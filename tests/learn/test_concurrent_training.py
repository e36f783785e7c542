"""Trainings in several threads: none changes the weights of another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn import build
from svetlana_jupyter.learn.training import fit
from tests.learn.calls import collect_training_data
from tests.learn.networks import Plain

if TYPE_CHECKING:
    from svetlana_jupyter.learn.dataset import TrainingData

SETTINGS = TrainingSettings(epochs=2, steps=4, batch_size=8, depth=2, width=4, patches={"sampling": 12}, threads=1)


@pytest.fixture
def samples(annotated_image) -> TrainingData:
    return collect_training_data([annotated_image], SETTINGS)


def weights(samples: TrainingData, network: torch.nn.Module | None = None) -> dict[str, np.ndarray]:
    *_, last = fit(samples, network=network)
    return dict(last.classifier.tensors())


def test_first_weights_are_drawn_by_one_training_at_a_time(samples, monkeypatch):
    """Each thread waits, with its generator seeded, for another thread that draws at this moment."""
    expected, drawing = weights(samples), threading.Barrier(2)
    build_network = build.build_network

    def build_together(*args):
        try:
            drawing.wait(0.2)  # passes only if two threads are between seeding and drawing
            torch.rand(1)
        except threading.BrokenBarrierError:
            pass
        return build_network(*args)

    monkeypatch.setattr(build, "build_network", build_together)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(weights, [samples, samples]))
    for each in found:
        assert all(np.array_equal(values, each[name]) for name, values in expected.items())


def test_dropout_draws_the_same_numbers_beside_another_training(samples):
    """Dropout draws from the global generator in every step."""
    network = Plain(3, 2, samples.ndim)
    expected = weights(samples, network)
    before = torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: weights(samples, network), range(6)))
    for each in found:
        assert all(np.array_equal(values, each[name]) for name, values in expected.items())
    assert torch.equal(torch.get_rng_state(), before)
