"""Batch normalisation's running averages: taken anew from the training patches, or done without.

They lag behind after a few steps, so that a network that has learned predicts at chance as it is saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

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
