"""How the weights follow the gradient: Adam, with a learning rate that changes as the schedule says."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR, StepLR

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.architectures import ClassificationNetwork


class _UncompiledOptimizer(optim.Optimizer):
    """An optimiser whose first step does not load torch's compiler, in a second and with 80 MB, to tell it to stay out.

    What torch wrapped for the compiler's sake is called as it is inside.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        inspect.unwrap(optim.Optimizer.add_param_group)(self, param_group)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        inspect.unwrap(super().step.__func__)(self, closure)  # type: ignore[attr-defined]


class _Adam(_UncompiledOptimizer, optim.Adam):
    pass


class _AdamW(_UncompiledOptimizer, optim.AdamW):
    pass


def freeze_body(network: ClassificationNetwork) -> None:
    """Make all weights but those of the last layer stay as they are."""
    for weights in _body(network):
        weights.requires_grad_(False)


def build_optimizer(network: ClassificationNetwork, settings: TrainingSettings) -> optim.Optimizer:
    """Return Adam, or AdamW with its decoupled weight decay, over all weights that train.

    Weights of one rate are one group: that of the last layer comes first, and the body's, if it has its own, second.
    """
    head = list(network.last_layer.parameters())
    by_rate = {settings.learning_rate: head}
    if body := [weights for weights in _body(network) if weights.requires_grad]:
        by_rate.setdefault(settings.body_rate or settings.learning_rate, []).extend(body)
    groups = [{"params": weights, "lr": rate} for rate, weights in by_rate.items()]
    kind = _AdamW if settings.optimizer == "adamw" else _Adam
    # In one pass over the weights: with small networks a loop over them costs as much as the augmentation of a batch.
    return kind(groups, betas=settings.betas, weight_decay=settings.weight_decay, fused=head[0].device.type != "mps")


def _body(network: ClassificationNetwork) -> list[nn.Parameter]:
    head = {id(weights) for weights in network.last_layer.parameters()}
    return [weights for weights in network.parameters() if id(weights) not in head]


def build_schedule(optimizer: optim.Optimizer, settings: TrainingSettings, steps: int) -> LRScheduler:
    """Return the schedule of each group's rate, to be stepped once after every one of ``steps`` batches an epoch.

    *one_cycle* rises to the rate over the first 30 % of all batches and falls to almost nothing along half cosines;
    *cosine* falls from the rate to nothing; *step* is the paper's (section 4.1); *constant* stays.
    """
    total = settings.epochs * steps
    rates = [group["lr"] for group in optimizer.param_groups]
    schedules: dict[str, Callable[[], LRScheduler]] = {
        # one step more than there are, because the schedule is stepped once after the last
        "one_cycle": lambda: OneCycleLR(optimizer, rates, total_steps=total + 1, cycle_momentum=False),
        "cosine": lambda: CosineAnnealingLR(optimizer, T_max=total),
        "step": lambda: StepLR(optimizer, step_size=settings.decay_every * steps, gamma=settings.decay),
        "constant": lambda: LambdaLR(optimizer, lambda step: 1.0),
    }
    return schedules[settings.schedule]()
