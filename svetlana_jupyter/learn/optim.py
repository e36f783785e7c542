"""Optimizer, learning rate schedule, loss and batch normalization of a training.

The settings of section 4.1 of the Svetlana paper are available: Adam, its learning rate schedule and its losses.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR, StepLR

if TYPE_CHECKING:
    from svetlana_jupyter.core.settings import TrainingSettings
    from svetlana_jupyter.learn.networks import ClassificationNetwork


class _UncompiledOptimizer(optim.Optimizer):
    """Optimizer whose first step does not load torch's compiler.

    By default, torch loads its compiler at the first step, only to exclude that step from compilation. This takes one
    second and 80 MB. Here the methods are called without the wrapper that loads the compiler.
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
    """Exclude all weights but those of the last layer from training."""
    for weights in _body(network):
        weights.requires_grad_(False)


def build_optimizer(network: ClassificationNetwork, settings: TrainingSettings) -> optim.Optimizer:
    """Return Adam or AdamW (decoupled weight decay) for all trainable weights.

    The first parameter group holds the last layer. The other layers (the body) are in a second group if their learning
    rate differs, else in the first group.
    """
    head = list(network.last_layer.parameters())
    by_rate = {settings.learning_rate: head}
    if body := [weights for weights in _body(network) if weights.requires_grad]:
        by_rate.setdefault(settings.body_rate or settings.learning_rate, []).extend(body)
    groups = [{"params": weights, "lr": rate} for rate, weights in by_rate.items()]
    adam = _AdamW if settings.optimizer == "adamw" else _Adam
    # Fused, because in small networks a loop over the weights takes as long as the augmentation of a batch.
    return adam(groups, betas=settings.betas, weight_decay=settings.weight_decay, fused=head[0].device.type != "mps")


def _body(network: ClassificationNetwork) -> list[nn.Parameter]:
    head = {id(weights) for weights in network.last_layer.parameters()}
    return [weights for weights in network.parameters() if id(weights) not in head]


def build_schedule(optimizer: optim.Optimizer, settings: TrainingSettings, steps: int) -> LRScheduler:
    """Return the schedule of the learning rates, to be stepped after every batch.

    *one_cycle* rises to the learning rate over the first 30 % of all batches and then falls to almost zero, both along
    half cosines. *cosine* falls from the learning rate to zero. *step* multiplies it by ``decay`` every ``decay_every``
    epochs, as in the paper (section 4.1). *constant* does not change it.

    Parameters
    ----------
    optimizer : Optimizer
    settings : TrainingSettings
    steps : int
        Batches per epoch.
    """
    total = settings.epochs * steps
    rates = [group["lr"] for group in optimizer.param_groups]
    schedules: dict[str, Callable[[], LRScheduler]] = {
        # One more step than batches, because the schedule is also stepped after the last batch.
        "one_cycle": lambda: OneCycleLR(optimizer, rates, total_steps=total + 1, cycle_momentum=False),
        "cosine": lambda: CosineAnnealingLR(optimizer, T_max=total),
        "step": lambda: StepLR(optimizer, step_size=settings.decay_every * steps, gamma=settings.decay),
        "constant": lambda: LambdaLR(optimizer, lambda step: 1.0),
    }
    return schedules[settings.schedule]()


Loss = Callable[[Tensor, Tensor], Tensor]

_PROBABILITY_LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"l1": functional.l1_loss, "smooth_l1": functional.smooth_l1_loss, "mse": functional.mse_loss}
)


def build_loss(settings: TrainingSettings) -> Loss:
    """Return the loss function of the settings.

    The function computes the mean loss from logits (n, classes) and class positions (n,). Targets are 1 for the true
    class and 0 for the other classes. With label smoothing s and K classes, they are 1 - s + s / K and s / K. Binary
    cross entropy treats each class as a binary problem; L1, smooth L1 and mean squared error compare the targets with
    softmax probabilities.
    """
    name, smoothing = settings.loss, settings.label_smoothing

    def loss(logits: Tensor, classes: Tensor) -> Tensor:
        logits = logits.float()  # 16-bit precision is not enough for the loss
        if name == "cross_entropy":
            return functional.cross_entropy(logits, classes, label_smoothing=smoothing)
        targets = functional.one_hot(classes, logits.shape[1]).to(logits)
        targets = targets * (1 - smoothing) + smoothing / logits.shape[1]
        if name == "binary_cross_entropy":
            return functional.binary_cross_entropy_with_logits(logits, targets)
        return _PROBABILITY_LOSSES[name](logits.softmax(dim=1), targets)

    return loss


MAX_GROUPS = 8
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


def batch_norm_layers(network: nn.Module) -> list[BatchNorm]:
    """Return the batch normalization layers that have running statistics."""
    return [layer for layer in network.modules() if isinstance(layer, BatchNorm) and layer.track_running_stats]


@torch.inference_mode()
def update_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Recompute batch normalization statistics; set the network to evaluation mode.

    After few training steps, the running statistics lag behind the weights, so that even a network that has learned the
    classes may predict no better than chance.

    Notes
    -----
    `torch.optim.swa_utils.update_bn` sets the whole network to training mode, so that dropout changes the statistics
    and uses the global random state. Here only the batch normalization layers are set to training mode.
    """
    network.eval()
    layers = batch_norm_layers(network)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # makes the statistics a plain mean over all batches
        layer.train()
    for batch in batches:
        network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def replace_batch_norm(network: nn.Module) -> None:
    """Replace batch normalization by group normalization, keeping gain and offset."""
    children = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()]
    for parent, name, layer in children:
        if isinstance(layer, BatchNorm):
            grouped = nn.GroupNorm(math.gcd(MAX_GROUPS, layer.num_features), layer.num_features, eps=layer.eps)
            if layer.affine:
                grouped.load_state_dict({"weight": layer.weight.detach(), "bias": layer.bias.detach()})
            setattr(parent, name, grouped)
