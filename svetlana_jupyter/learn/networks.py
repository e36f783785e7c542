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
        logits: Tensor = self.head(self.embed(patches))
        return logits

    def embed(self, patches: Tensor) -> Tensor:
        """Return the features (n, d) that the last layer classifies."""
        features: Tensor = self.pool(self.blocks(self.standardize(patches)))
        return features

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


def fold_network(network: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> FoldedSmallCNN | None:
    """Fold the normalization of a network; None where this is not supported.

    Parameters
    ----------
    network : Module
    device : torch.device
    dtype : torch.dtype
        Type of weights and feature maps, float32 or bfloat16.
    """
    if not isinstance(network, SmallCNN) or device.type != "cpu":
        return None
    has_group_norm = any(isinstance(layer, nn.GroupNorm) for layer in network.modules())  # differs between patches
    return None if has_group_norm else FoldedSmallCNN(network, dtype)


class FoldedSmallCNN:
    """Copy of a trained `SmallCNN` with folded normalization, fast on a CPU.

    A block computes ``max_pool(scale * relu(conv(x)) + shift)``. The convolution with scaled weights and shifted bias
    gives ``scale * conv(x) + shift``, from which the normalized rectified maps differ only by a bound: ``shift`` is
    their minimum where the scale is positive, and their maximum where it is negative. Bounds commute with maximum
    pooling, so they are applied to the pooled maps, which are 4 or 8 times smaller. Logits differ from those of the
    network only by rounding. The first convolution divides by the deviations of the standardization, because each
    additional pass over the patches takes about a tenth of the time. Later changes of the network do not affect the
    copy.

    Parameters
    ----------
    network : SmallCNN
    dtype : torch.dtype
        Type of weights and feature maps. The subtraction of the means of the channels, the mean over the last maps and
        the last layer are always computed in 32 bits.

    Attributes
    ----------
    head : Module
        The last layer, which maps features to logits.
    """

    @torch.inference_mode()
    def __init__(self, network: SmallCNN, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self.head = copy.deepcopy(network.head)
        self._mean, deviation = network.standardize.mean.clone(), network.standardize.deviation
        first, *others = network.blocks
        self._blocks = [_fold_block(first, dtype, deviation), *(_fold_block(block, dtype) for block in others)]

    @torch.inference_mode()
    def __call__(self, patches: Tensor) -> Tensor:
        """Return logits (n, classes) of patches (n, channels, [z,] y, x)."""
        logits: Tensor = self.head(self.embed(patches))
        return logits

    @torch.inference_mode()
    def embed(self, patches: Tensor) -> Tensor:
        """Return the features (n, d) that the last layer classifies, in 32 bits."""
        convolve = nn.functional.conv2d if patches.ndim == 4 else nn.functional.conv3d
        # Channel by channel, before channels are interleaved: ten times as fast.
        mean = self._mean.view(-1, *(1,) * (patches.ndim - 2))
        maps = torch.empty(patches.shape, dtype=self._dtype)
        torch.sub(patches.contiguous(), mean, out=maps)
        maps = maps.to(memory_format=MEMORY_FORMATS[patches.ndim - 2])
        for weight, bias, lowest, highest in self._blocks:
            maps = _pool_pairs(convolve(maps, weight, bias, padding=1))
            maps = torch.minimum(torch.maximum(maps, lowest, out=maps), highest, out=maps)
        features: Tensor = maps.float().mean(dim=tuple(range(2, maps.ndim)))
        return features


def _fold_block(
    block: nn.Module, dtype: torch.dtype, deviation: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return weight and bias of the folded convolution, and bounds of the maps.

    If a deviation (channels) is given, the convolution divides its input by it.
    """
    convolution, _, norm, _ = block.children()
    assert isinstance(convolution, nn.Conv2d | nn.Conv3d)
    assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
    assert convolution.bias is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    per_channel = -1, *(1,) * (convolution.weight.ndim - 2)
    weight = convolution.weight * scale.view(-1, 1, *per_channel[1:])
    weight = (weight if deviation is None else weight / deviation.view(per_channel)).to(dtype)
    bounds = shift.where(scale >= 0, -torch.inf), shift.where(scale < 0, torch.inf)
    lowest, highest = (bound.view(per_channel).to(dtype) for bound in bounds)
    layout = MEMORY_FORMATS[len(convolution.kernel_size)]
    return weight.to(memory_format=layout), (convolution.bias * scale + shift).to(dtype), lowest, highest


def _pool_pairs(maps: Tensor) -> Tensor:
    """Return the maxima of pairs of pixels along each axis; sides are rounded up.

    On channels-last maps, this takes less than half as long as the maximum pooling of torch.
    """
    for axis in range(2, maps.ndim):
        if maps.shape[axis] % 2:
            maps = nn.functional.pad(maps, (0, 0) * (maps.ndim - 1 - axis) + (0, 1), value=-torch.inf)
        even, odd = maps.unfold(axis, 2, 2).unbind(-1)
        maps = torch.maximum(even, odd)
    return maps
