"""How the weights follow the gradient: Adam, with a learning rate that changes as the schedule says.

What training makes small (the paper, section 4.1): losses of logits against classes.

Batch normalisation's running averages: taken anew from the training patches, or done without.

They lag behind after a few steps, so that a network that has learned predicts at chance as it is saved.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR, StepLR

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.networks import ClassificationNetwork


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


Loss = Callable[[Tensor, Tensor], Tensor]

_OF_PROBABILITIES: Mapping[str, Loss] = MappingProxyType(
    {"l1": functional.l1_loss, "smooth_l1": functional.smooth_l1_loss, "mse": functional.mse_loss}
)


def build_loss(settings: TrainingSettings) -> Loss:
    """Return the loss that the settings name: of logits (n, classes) and positions of classes (n,), a mean over n.

    What is wanted is 1 for the right class and 0 for the others, or with label smoothing s among K classes
    1 - s + s / K and s / K. Binary cross entropy takes each class for a question of its own, yes or no; L1, smooth L1
    and mean squared error compare what is wanted with the probabilities that the softmax of the logits gives.
    """
    name, smoothing = settings.loss, settings.label_smoothing

    def loss(logits: Tensor, classes: Tensor) -> Tensor:
        logits = logits.float()  # 16 bits are too few for a loss
        if name == "cross_entropy":
            return functional.cross_entropy(logits, classes, label_smoothing=smoothing)
        wanted = functional.one_hot(classes, logits.shape[1]).to(logits)
        wanted = wanted * (1 - smoothing) + smoothing / logits.shape[1]
        if name == "binary_cross_entropy":
            return functional.binary_cross_entropy_with_logits(logits, wanted)
        return _OF_PROBABILITIES[name](logits.softmax(dim=1), wanted)

    return loss


BATCH_NORM_TYPES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
MAX_GROUPS = 8

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


def batch_norm_layers(network: nn.Module) -> list[BatchNorm]:
    """Return the layers that keep running averages."""
    return [layer for layer in network.modules() if isinstance(layer, BATCH_NORM_TYPES) and layer.track_running_stats]


@torch.inference_mode()
def update_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Recompute the running averages over these batches, and leave the network set to evaluation.

    All else, such as dropout, is as in evaluation meanwhile.
    """
    network.eval()
    layers = batch_norm_layers(network)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
        layer.train()
    for batch in batches:
        network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def replace_batch_norm(network: nn.Module) -> None:
    """Replace batch normalisation by group normalisation, which treats each patch by itself; gain and offset stay."""
    for parent, name, layer in list(_placed(network)):
        if isinstance(layer, BATCH_NORM_TYPES):
            grouped = nn.GroupNorm(math.gcd(MAX_GROUPS, layer.num_features), layer.num_features, eps=layer.eps)
            if layer.affine:
                grouped.load_state_dict({"weight": layer.weight.detach(), "bias": layer.bias.detach()})
            setattr(parent, name, grouped)


def _placed(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in network.modules():
        for name, child in parent.named_children():
            yield parent, name, child
