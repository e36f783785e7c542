"""Each loss is the one its name promises, by torch's own module or written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.losses import build_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 1.0, 4.0], [0.2, 0.1, 9.0]])
CLASSES = torch.tensor([0, 2, 1, 2])


def value(name: str, smoothing: float = 0.0) -> float:
    return float(build_loss(TrainingSettings(loss=name, label_smoothing=smoothing))(LOGITS, CLASSES))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_torchs_with_its_label_smoothing(smoothing):
    reference = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(LOGITS, CLASSES)
    assert value("cross_entropy", smoothing) == pytest.approx(float(reference), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "l1", "smooth_l1", "mse"])
def test_every_loss_is_its_formula(name, smoothing):
    total, count = 0.0, 0
    for logits, right in zip(LOGITS.double().tolist(), CLASSES.tolist(), strict=True):
        powers = [math.exp(logit) for logit in logits]
        for position, logit in enumerate(logits):
            p = powers[position] / sum(powers)
            q = 1 / (1 + math.exp(-logit))
            y = (1 - smoothing) * (position == right) + smoothing / 3
            total += {
                "cross_entropy": -y * math.log(p),
                "binary_cross_entropy": -y * math.log(q) - (1 - y) * math.log(1 - q),
                "l1": abs(p - y),
                "smooth_l1": (p - y) ** 2 / 2,  # no difference of probabilities is above 1
                "mse": (p - y) ** 2,
            }[name]
            count += 1
    mean = total / (len(LOGITS) if name == "cross_entropy" else count)
    assert value(name, smoothing) == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "l1", "smooth_l1", "mse"])
def test_a_step_against_the_gradient_makes_the_loss_smaller(name):
    loss = build_loss(TrainingSettings(loss=name))
    logits = LOGITS.clone().requires_grad_()
    loss(logits, CLASSES).backward()
    assert loss(logits - 0.1 * logits.grad, CLASSES) < loss(logits, CLASSES)


def test_logits_of_16_bits_are_compared_in_32():
    loss = build_loss(TrainingSettings())
    assert loss(LOGITS.bfloat16(), CLASSES).dtype == torch.float32
    np.testing.assert_allclose(loss(LOGITS.bfloat16(), CLASSES), loss(LOGITS, CLASSES), rtol=0.02)
