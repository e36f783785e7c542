"""Batch and group normalization, losses, learning rate schedules and optimizer settings."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.build import build_network
from svetlana_jupyter.learn.networks import SmallCNN
from svetlana_jupyter.learn.optim import (
    batch_norm_layers,
    build_loss,
    build_optimizer,
    build_schedule,
    freeze_body,
    replace_batch_norm,
    update_batch_norm,
)


def network(ndim: int = 2, **values) -> nn.Module:
    torch.manual_seed(0)
    return build_network(TrainingSettings(depth=2, width=4, **values), ndim, 2, 3)


def patches(count: int, seed: int = 0) -> torch.Tensor:
    return 5 + 3 * torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_recomputed_batch_norm_statistics_are_mean_and_variance_of_the_layer_input():
    model = network()
    update_batch_norm(model, [patches(32)])
    layer_input = model.blocks[0][:2](model.standardize(patches(32)))
    first, second = batch_norm_layers(model)
    torch.testing.assert_close(first.running_mean, layer_input.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(first.running_var, layer_input.var(dim=(0, 2, 3)))
    deeper = model.blocks[1][:2](model.blocks[0](model.standardize(patches(32))))
    torch.testing.assert_close(second.running_mean, deeper.mean(dim=(0, 2, 3)), rtol=2e-3, atol=1e-5)


def test_recomputing_batch_norm_statistics_resets_them_and_weights_batches_equally():
    model, other = network(), network()
    update_batch_norm(model, [patches(8, seed=9)])
    for each in (model, other):
        update_batch_norm(each, [patches(8, seed=1), patches(8, seed=2)])
    for name, values in model.state_dict().items():
        assert torch.equal(values, other.state_dict()[name])
    assert all(layer.momentum == 0.1 and not layer.training for layer in batch_norm_layers(model))


def test_dropout_is_off_while_batch_norm_statistics_are_recomputed():
    with_dropout = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(2))
    update_batch_norm(with_dropout, [patches(16)])
    torch.testing.assert_close(with_dropout[1].running_mean, patches(16).mean(dim=(0, 2, 3)))


@pytest.mark.parametrize("ndim", [2, 3])
def test_group_norm_has_no_running_statistics_and_normalizes_each_patch_separately(ndim):
    model = network(ndim, norm="group")
    assert batch_norm_layers(model) == []
    assert batch_norm_layers(network(ndim)) != []
    batch = torch.randn(4, 2, *[8] * ndim)
    model.train()
    torch.testing.assert_close(model(batch)[:1], model(batch[:1]))
    assert set(model.state_dict()) == {name for name in network(ndim).state_dict() if ".running_" not in name} - {
        f"blocks.{block}.2.num_batches_tracked" for block in range(2)
    }


def test_scale_and_shift_survive_the_conversion_to_group_norm():
    layers = nn.Sequential(nn.BatchNorm2d(6))
    layers[0].weight.data[:], layers[0].bias.data[:] = torch.arange(6.0), torch.arange(6.0, 12.0)
    replace_batch_norm(layers)
    assert isinstance(layers[0], nn.GroupNorm)
    assert layers[0].num_groups == 2
    assert torch.equal(layers[0].weight, torch.arange(6.0))
    assert torch.equal(layers[0].bias, torch.arange(6.0, 12.0))


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 1.0, 4.0], [0.2, 0.1, 9.0]])
CLASSES = torch.tensor([0, 2, 1, 2])


def value(name: str, smoothing: float = 0.0) -> float:
    return float(build_loss(TrainingSettings(loss=name, label_smoothing=smoothing))(LOGITS, CLASSES))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_with_label_smoothing_equals_that_of_torch(smoothing):
    reference = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(LOGITS, CLASSES)
    assert value("cross_entropy", smoothing) == pytest.approx(float(reference), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "l1", "smooth_l1", "mse"])
def test_every_loss_equals_its_formula(name, smoothing):
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
                "smooth_l1": (p - y) ** 2 / 2,  # differences of probabilities are at most 1
                "mse": (p - y) ** 2,
            }[name]
            count += 1
    mean = total / (len(LOGITS) if name == "cross_entropy" else count)
    assert value(name, smoothing) == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "l1", "smooth_l1", "mse"])
def test_a_gradient_step_decreases_the_loss(name):
    loss = build_loss(TrainingSettings(loss=name))
    logits = LOGITS.clone().requires_grad_()
    loss(logits, CLASSES).backward()
    assert loss(logits - 0.1 * logits.grad, CLASSES) < loss(logits, CLASSES)


def test_losses_of_16_bit_logits_are_computed_in_32_bits():
    loss = build_loss(TrainingSettings())
    assert loss(LOGITS.bfloat16(), CLASSES).dtype == torch.float32
    np.testing.assert_allclose(loss(LOGITS.bfloat16(), CLASSES), loss(LOGITS, CLASSES), rtol=0.02)


STEPS = 4


def network_optim() -> SmallCNN:
    torch.manual_seed(0)
    return SmallCNN(2, channels=1, classes=2, depth=1, width=2)


def rates(**values) -> list[list[float]]:
    """Return the learning rates of each parameter group at every step and after the last."""
    settings = TrainingSettings(**values)
    optimizer = build_optimizer(network_optim(), settings)
    schedule = build_schedule(optimizer, settings, STEPS)
    actual = []
    for _ in range(settings.epochs * STEPS + 1):
        actual.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return actual


def test_step_decay_divides_the_rate_by_ten_every_hundred_epochs_as_in_the_paper():
    actual = rates(preset="paper", epochs=250, steps=STEPS)
    for epoch, rate in ((0, 1e-3), (99, 1e-3), (100, 1e-4), (199, 1e-4), (200, 1e-5), (249, 1e-5)):
        for step in range(STEPS):
            assert actual[epoch * STEPS + step][0] == pytest.approx(rate)


def test_decay_and_decay_every_are_used():
    actual = rates(schedule="step", learning_rate=1.0, decay=0.5, decay_every=2, epochs=5)
    assert [actual[epoch * STEPS][0] for epoch in range(5)] == pytest.approx([1, 1, 0.5, 0.5, 0.25])


def test_the_cosine_schedule_decreases_to_zero():
    actual = [rate for (rate,) in rates(schedule="cosine", learning_rate=0.1, epochs=5)]
    expected = [0.05 * (1 + math.cos(math.pi * step / 20)) for step in range(21)]
    assert actual == pytest.approx(expected, abs=1e-9)


def test_the_one_cycle_schedule_peaks_at_the_rate_and_ends_near_zero():
    actual = [rate for (rate,) in rates(schedule="one_cycle", learning_rate=0.1, epochs=10)]
    peak = actual.index(max(actual))
    assert actual[peak] == pytest.approx(0.1, rel=0.01)
    assert actual[0] == pytest.approx(0.1 / 25)
    assert peak == pytest.approx(0.3 * 40, abs=1)
    assert actual[: peak + 1] == sorted(actual[: peak + 1])
    assert actual[peak:] == sorted(actual[peak:], reverse=True)
    assert actual[40] < 1e-5


def test_the_constant_schedule_is_constant():
    assert {rate for (rate,) in rates(schedule="constant", learning_rate=0.1, epochs=3)} == {0.1}


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "constant"])
def test_body_rate_follows_the_same_schedule(schedule):
    actual = rates(schedule=schedule, learning_rate=0.1, body_rate=0.01, epochs=3, decay_every=1)
    for head, body in actual[:-1]:
        assert body == pytest.approx(head / 10)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_rate_betas_and_weight_decay_are_passed_to_adam(name, kind):
    settings = TrainingSettings(
        optimizer=name, learning_rate=0.02, betas=(0.8, 0.95), weight_decay=0.3, schedule="constant"
    )
    trained_network, plain = network_optim(), network_optim()
    optimizer = build_optimizer(trained_network, settings)
    reference = kind(plain.parameters(), lr=0.02, betas=(0.8, 0.95), weight_decay=0.3)
    patches = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        for model, by in ((trained_network, optimizer), (plain, reference)):
            by.zero_grad()
            (model(patches)[:, 0] ** 2).mean().backward()
            by.step()
    for name_, weights in trained_network.state_dict().items():
        torch.testing.assert_close(weights, plain.state_dict()[name_])


def test_training_does_not_import_the_compiler_of_torch():
    code = """
import sys, torch
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.optim import build_optimizer, build_schedule
from tests.learn.test_optim import network
for name in ("adam", "adamw"):
    settings = TrainingSettings(optimizer=name)
    one = network()
    optimizer = build_optimizer(one, settings)
    schedule = build_schedule(optimizer, settings, 2)
    before = one.head.weight.clone()
    one.zero_grad()
    one(torch.ones(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    schedule.step()
    assert (one.head.weight != before).any()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0


def test_a_frozen_body_leaves_only_the_last_layer_to_train():
    model = network_optim()
    freeze_body(model)
    (group,) = build_optimizer(model, TrainingSettings(body="frozen")).param_groups
    assert {id(weights) for weights in group["params"]} == {id(model.head.weight), id(model.head.bias)}
    assert [name for name, weights in model.named_parameters() if weights.requires_grad] == ["head.weight", "head.bias"]
