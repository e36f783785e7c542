"""Network architectures, with the properties that training and Grad-CAM use.

The architectures are the small encoder of the Svetlana paper in 2D and 3D, and the ResNet, DenseNet and AlexNet
families of torchvision in 2D. `learn.build` selects an architecture by its name in `core.settings`.

Torchvision is only imported by `load_torchvision`, which also works if the torchvision wheel does not fit the torch
build. A wheel built for CUDA, for example, cannot load its compiled operators with a CPU build of torch. Importing it
then fails, although this package only needs its Python code. The import succeeds once the two operators for which
torchvision registers functions are declared. Calling them would still fail, but this package never does so.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import math
import re
import sys
from functools import cache
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch import library as operators

from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from svetlana_jupyter.core.settings import TrainingSettings

# Convolution, batch normalization, maximum and average pooling by number of dimensions.
_LAYERS: Mapping[int, tuple[type[nn.Module], ...]] = MappingProxyType(
    {
        2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
        3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AdaptiveAvgPool3d),
    }
)
# Convolutions are fastest in these memory formats, on CPU and GPU alike.
MEMORY_FORMATS = MappingProxyType({2: torch.channels_last, 3: torch.channels_last_3d})


class ClassificationNetwork(nn.Module):
    """Network that maps patches (n, channels, [z,] y, x) to logits (n, classes).

    Parameters
    ----------
    channels : int
        Channels of the input, including the mask channel.

    Attributes
    ----------
    standardize : Standardize
        The first layer.
    body : Module
        All other layers.
    is_stochastic : bool
        True if a layer may draw random numbers in training, as dropout does.
    """

    body: nn.Module
    is_stochastic = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.standardize = Standardize(channels)

    def forward(self, patches: Tensor) -> Tensor:
        """Return logits (n, classes) of patches (n, channels, [z,] y, x)."""
        logits: Tensor = self.body(self.standardize(patches))
        return logits

    @property
    def last_layer(self) -> nn.Module:
        """The last layer with weights, which is trained even if the body is frozen."""
        *_, last = (layer for layer in self.modules() if any(True for _ in layer.parameters(recurse=False)))
        return last

    @property
    def first_conv_weight(self) -> str:
        """The name of the weights of the first convolution, "" if there is none."""
        found = (name for name, layer in self.named_modules() if isinstance(layer, nn.Conv2d | nn.Conv3d))
        return next((f"{name}.weight" for name in found), "")

    @property
    def gradcam_layer(self) -> nn.Module | None:
        """The layer whose feature maps Grad-CAM uses: the last convolution, if any."""
        layers = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)]
        return layers[-1] if layers else None


class SmallCNN(ClassificationNetwork):
    """Lightweight encoder of the Svetlana paper (Fig. 7), in 2D or 3D.

    The network consists of blocks of convolution, ReLU, batch normalization and max pooling. Each block halves the side
    lengths of the feature maps and has twice as many channels as the previous block. Global average pooling and one
    linear layer compute the logits (the softmax of the paper is part of the loss and of prediction).

    Parameters
    ----------
    ndim : 2 or 3
    channels : int
        Channels of the input, including the mask channel.
    classes : int
    depth, width : int
        Number of blocks, and number of channels of the first block.
    """

    is_stochastic = False

    def __init__(self, ndim: int, channels: int, classes: int, depth: int, width: int) -> None:
        super().__init__(channels)
        convolution, norm, max_pool, average_pool = _LAYERS[ndim]
        widths = [channels, *(width * 2**level for level in range(depth))]
        # With ceil_mode, side lengths are rounded up, so that patches of any size fit any number of blocks.
        blocks = (
            (convolution(into, out, kernel_size=3, padding=1), nn.ReLU(), norm(out), max_pool(2, ceil_mode=True))
            for into, out in itertools.pairwise(widths)
        )
        self.blocks = nn.Sequential(*(nn.Sequential(*layers) for layers in blocks))
        self.pool = nn.Sequential(average_pool(1), nn.Flatten())
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, patches: Tensor) -> Tensor:
        """Return logits (n, classes) of patches (n, channels, [z,] y, x)."""
        logits: Tensor = self.head(self.pool(self.blocks(self.standardize(patches))))
        return logits

    @property
    def gradcam_layer(self) -> nn.Module:
        """The batch normalization before the final max pooling."""
        return self.blocks[-1].get_submodule("2")


class Standardize(nn.Module):
    """Standardization of each channel by its mean and standard deviation.

    The mean and standard deviation of the training patches are stored with the weights of the network.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def measure(self, patches: Tensor) -> None:
        """Set mean and deviation to those of patches (n, C, ...).

        The deviation of a constant channel is set to 1.
        """
        deviation, mean = torch.std_mean(patches, dim=[0, *range(2, patches.ndim)], correction=0)
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, patches: Tensor) -> Tensor:
        """Return standardized patches (n, C, ...)."""
        shape = -1, *(1,) * (patches.ndim - 2)
        return (patches - self.mean.view(shape)) / self.deviation.view(shape)


OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def load_torchvision() -> ModuleType:
    """Import torchvision, even if its compiled operators do not fit the torch build."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _declare_operators()
    return importlib.import_module("torchvision")


@cache
def _declare_operators() -> operators.Library:
    # The declarations exist as long as the library object, which the cache keeps alive.
    declared = operators.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in OPERATORS:
        declared.define(schema)  # type: ignore[no-untyped-call]
    return declared


# The pretrained DenseNet weights use layer names of an older torchvision: "norm.1" for the layer now named "norm1".
_NUMBERED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")


# The layer that Grad-CAM uses, by architecture family.
_GRADCAM_LAYERS = {"resnet": "layer4", "densenet": "features.norm5", "alexnet": "features.10"}


class TorchvisionNetwork(ClassificationNetwork):
    """Torchvision network for any number of channels and classes.

    Parameters
    ----------
    name : str
        One of `core.settings.TORCHVISION_ARCHITECTURES`.
    channels : int
        Channels of the input, including the mask channel.
    classes : int
    """

    def __init__(self, name: str, channels: int, classes: int) -> None:
        super().__init__(channels)
        self._features = next(layer for family, layer in _GRADCAM_LAYERS.items() if name.startswith(family))
        self.body = load_torchvision().models.get_model(name, weights=None, num_classes=classes)
        first = next(layer for layer in self.body.modules() if isinstance(layer, nn.Conv2d))
        first.in_channels = channels
        first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, channels, *first.kernel_size))
        nn.init.kaiming_normal_(first.weight)

    @property
    def gradcam_layer(self) -> nn.Module:
        """The layer with the last feature maps."""
        return self.body.get_submodule(self._features)


def download_weights(name: str) -> dict[str, Tensor]:
    """Download the pretrained weights of torchvision, or read them from its cache.

    Raises
    ------
    InputError
        If the weights cannot be downloaded.
    """
    weights = load_torchvision().models.get_model_weights(name).DEFAULT
    try:
        tensors: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no connection, or a file with another checksum
        raise InputError(
            f"The pretrained weights of {name} could not be downloaded from {weights.url} ({error}). Train with "
            "pretrained=False, or download the weights on another machine, save them with safetensors and pass that "
            "file as start_from."
        ) from error
    return {_NUMBERED.sub(r"\1\2", key): values for key, values in tensors.items()}


# Seconds of one training step on one core (AMD EPYC): a constant, plus seconds per million values of the largest
# feature maps, plus seconds per million multiplications.
SECONDS_PER_STEP, SECONDS_PER_MAP, SECONDS_PER_PRODUCT = 0.002, 0.0135, 0.000009
BACKWARD_FACTOR = 3  # cost of a forward and a backward pass, relative to a forward pass


def step_seconds(settings: TrainingSettings, channels: int) -> float:
    """Estimate the duration of one training step of a `SmallCNN` on one core."""
    patches = settings.patches
    ndim, pixels = len(patches.shape), math.prod(patches.shape)
    into = channels * (1 + patches.has_doubled_channels) + patches.mask_channel
    values, products = float(pixels * (into + settings.width)), 0.0
    for level in range(settings.depth):
        out = settings.width * 2**level
        products += pixels / 2 ** (ndim * level) * 3**ndim * into * out
        into = out
    seconds = values * SECONDS_PER_MAP + products * BACKWARD_FACTOR * SECONDS_PER_PRODUCT
    return SECONDS_PER_STEP + settings.batch_size * seconds / 1e6


def to_onednn(network: nn.Module, device: torch.device) -> OneDNNSmallCNN | None:
    """Convert a network to oneDNN; None if the network or device is not supported."""
    if not isinstance(network, SmallCNN) or device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    has_group_norm = any(isinstance(layer, nn.GroupNorm) for layer in network.modules())  # not available in oneDNN
    return None if has_group_norm else OneDNNSmallCNN(network)


class OneDNNSmallCNN:
    """Copy of a trained `SmallCNN`, optimized for prediction on a CPU.

    Weights and feature maps stay in the blocked memory layout of oneDNN from the first convolution to the last
    pooling, whereas torch would convert each feature map back. Layers and weights are the same, so logits differ only
    by rounding. Later changes of the network do not affect the copy.
    """

    @torch.inference_mode()
    def __init__(self, network: SmallCNN) -> None:
        self._head = copy.deepcopy(nn.Sequential(network.pool, network.head))
        mean, deviation = network.standardize.mean, network.standardize.deviation
        # Standardization is computed as a batch normalization with gain 1 and offset 0.
        self._standardize = _to_mkldnn(torch.ones_like(mean), torch.zeros_like(mean), mean, deviation**2)
        self._blocks = []
        for block in network.blocks:
            convolution, _, norm, _ = block.children()
            assert isinstance(convolution, nn.Conv2d | nn.Conv3d)
            assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
            weights = _to_mkldnn(convolution.weight, convolution.bias)
            averages = _to_mkldnn(norm.weight, norm.bias, norm.running_mean, norm.running_var)
            self._blocks.append((weights, averages, norm.eps))

    @torch.inference_mode()
    def __call__(self, patches: Tensor) -> Tensor:
        """Return logits (n, classes) of patches (n, channels, [z,] y, x)."""
        ones, twos, zeros = ((side,) * (patches.ndim - 2) for side in (1, 2, 0))
        pool = torch.max_pool2d if patches.ndim == 4 else torch.max_pool3d
        maps = _normalize(patches.to_mkldnn(), self._standardize, 0.0)
        for (weight, bias), averages, eps in self._blocks:
            maps = torch.mkldnn_convolution(maps, weight, bias, ones, ones, ones, 1)
            maps = _normalize(torch.relu_(maps), averages, eps)
            maps = pool(maps, twos, twos, zeros, ones, ceil_mode=True)
        logits: Tensor = self._head(maps.to_dense())
        return logits


def _to_mkldnn(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().to_mkldnn() for tensor in tensors if tensor is not None)


def _normalize(maps: Tensor, averages: tuple[Tensor, ...], eps: float) -> Tensor:
    weight, bias, mean, variance = averages
    return torch.batch_norm(maps, weight, bias, mean, variance, False, 0.0, eps, False)  # inference, without cuDNN
