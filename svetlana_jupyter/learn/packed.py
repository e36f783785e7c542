"""The small network as a processor goes forward with it fastest: weights and maps in the blocked layout of oneDNN.

Layers and weights are the same, so logits differ from the network's by no more than rounding. Maps stay in that layout
from the first convolution to the last pooling, where torch would bring each back into rows.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from svetlana_jupyter.learn.architectures import SmallCNN

POOLS = {2: torch.max_pool2d, 3: torch.max_pool3d}


def pack(network: nn.Module, device: torch.device) -> OneDNNSmallCNN | None:
    """Return the packed form of a network as it is now, None where there is none for it or for the device."""
    if not isinstance(network, SmallCNN) or device.type != "cpu":
        return None
    if any(isinstance(layer, nn.GroupNorm) for layer in network.modules()):  # oneDNN has batch normalisation alone
        return None
    return OneDNNSmallCNN(network) if torch.backends.mkldnn.is_available() else None  # type: ignore[no-untyped-call]


class OneDNNSmallCNN:
    """A trained `SmallCNN` that gives its logits faster, and learns no more."""

    @torch.inference_mode()
    def __init__(self, network: SmallCNN) -> None:
        self._head = copy.deepcopy(nn.Sequential(network.pool, network.head))
        mean, deviation = network.standardize.mean, network.standardize.deviation
        # Standardisation is a batch normalisation that neither scales nor shifts.
        self._standardize = _packed(torch.ones_like(mean), torch.zeros_like(mean), mean, deviation**2)
        self._blocks = []
        for block in network.blocks:
            convolution, _, norm, _ = block.children()
            assert isinstance(convolution, nn.Conv2d | nn.Conv3d) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
            weights = _packed(convolution.weight, convolution.bias)
            averages = _packed(norm.weight, norm.bias, norm.running_mean, norm.running_var)
            self._blocks.append((weights, averages, norm.eps))

    @torch.inference_mode()
    def __call__(self, patches: Tensor) -> Tensor:
        """Return logits (n, classes) of patches (n, channels, [z,] y, x)."""
        ndim = patches.ndim - 2
        ones, twos, zeros = ((side,) * ndim for side in (1, 2, 0))
        maps = _normalized(patches.to_mkldnn(), self._standardize, 0.0)
        for (weight, bias), averages, eps in self._blocks:
            maps = torch.mkldnn_convolution(maps, weight, bias, ones, ones, ones, 1)
            maps = _normalized(torch.relu_(maps), averages, eps)
            maps = POOLS[ndim](maps, twos, twos, zeros, ones, ceil_mode=True)
        logits: Tensor = self._head(maps.to_dense())
        return logits


def _packed(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().to_mkldnn() for tensor in tensors if tensor is not None)


def _normalized(maps: Tensor, averages: tuple[Tensor, ...], eps: float) -> Tensor:
    weight, bias, mean, variance = averages
    return torch.batch_norm(
        maps, weight, bias, mean, variance, training=False, momentum=0.0, eps=eps, cudnn_enabled=False
    )
