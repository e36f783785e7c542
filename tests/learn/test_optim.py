"""The optimiser and the learning rate do what their settings say."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.architectures import SmallCNN
from svetlana_jupyter.learn.optim import build_optimizer, build_schedule, freeze_body

STEPS = 4


def network() -> SmallCNN:
    torch.manual_seed(0)
    return SmallCNN(2, channels=1, classes=2, depth=1, width=2)


def rates(**values) -> list[list[float]]:
    """The learning rates of each group at every step, and once after the last."""
    settings = TrainingSettings(**values)
    optimizer = build_optimizer(network(), settings)
    schedule = build_schedule(optimizer, settings, STEPS)
    found = []
    for _ in range(settings.epochs * STEPS + 1):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


def test_step_decay_is_a_tenth_every_hundred_epochs_as_in_the_paper():
    found = rates(recipe="paper", epochs=250, steps=STEPS)
    for epoch, rate in ((0, 1e-3), (99, 1e-3), (100, 1e-4), (199, 1e-4), (200, 1e-5), (249, 1e-5)):
        for step in range(STEPS):
            assert found[epoch * STEPS + step][0] == pytest.approx(rate)


def test_decay_and_its_epochs_can_be_chosen():
    found = rates(schedule="step", learning_rate=1.0, decay=0.5, decay_every=2, epochs=5)
    assert [found[epoch * STEPS][0] for epoch in range(5)] == pytest.approx([1, 1, 0.5, 0.5, 0.25])


def test_cosine_falls_from_the_rate_to_nothing():
    found = [rate for (rate,) in rates(schedule="cosine", learning_rate=0.1, epochs=5)]
    wanted = [0.05 * (1 + math.cos(math.pi * step / 20)) for step in range(21)]
    assert found == pytest.approx(wanted, abs=1e-9)


def test_one_cycle_rises_to_the_rate_and_falls_to_almost_nothing_at_the_last_step():
    found = [rate for (rate,) in rates(schedule="one_cycle", learning_rate=0.1, epochs=10)]
    peak = found.index(max(found))
    assert found[peak] == pytest.approx(0.1, rel=0.01) and found[0] == pytest.approx(0.1 / 25)
    assert peak == pytest.approx(0.3 * 40, abs=1)
    assert found[: peak + 1] == sorted(found[: peak + 1]) and found[peak:] == sorted(found[peak:], reverse=True)
    assert found[40] < 1e-5


def test_constant_stays():
    assert {rate for (rate,) in rates(schedule="constant", learning_rate=0.1, epochs=3)} == {0.1}


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "constant"])
def test_the_bodys_own_rate_follows_the_same_schedule(schedule):
    found = rates(schedule=schedule, learning_rate=0.1, body_rate=0.01, epochs=3, decay_every=1)
    for head, body in found[:-1]:
        assert body == pytest.approx(head / 10)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_rate_momenta_and_weight_decay_reach_adam(name, kind):
    settings = TrainingSettings(
        optimizer=name, learning_rate=0.02, betas=(0.8, 0.95), weight_decay=0.3, schedule="constant"
    )
    ours, plain = network(), network()
    optimizer = build_optimizer(ours, settings)
    reference = kind(plain.parameters(), lr=0.02, betas=(0.8, 0.95), weight_decay=0.3)
    patches = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        for one, by in ((ours, optimizer), (plain, reference)):
            by.zero_grad()
            (one(patches)[:, 0] ** 2).mean().backward()
            by.step()
    for name_, weights in ours.state_dict().items():
        torch.testing.assert_close(weights, plain.state_dict()[name_])


def test_training_does_not_load_torchs_compiler():
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
    one = network()
    freeze_body(one)
    (group,) = build_optimizer(one, TrainingSettings(body="frozen")).param_groups
    assert {id(weights) for weights in group["params"]} == {id(one.head.weight), id(one.head.bias)}
    assert [name for name, weights in one.named_parameters() if weights.requires_grad] == ["head.weight", "head.bias"]
