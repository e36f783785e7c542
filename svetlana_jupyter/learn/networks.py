"""The small network in 2D and 3D, and what every network is to training, saving and explaining.

ResNet, DenseNet and AlexNet from torchvision, in 2D, for any number of channels and classes.

The one place that imports torchvision and what needs it, also where its wheel does not fit the torch build.

A torchvision wheel built for CUDA beside a CPU torch cannot load its compiled operators, and then fails to import
although only its Python code is needed. Declaring the two operators it registers functions for is enough; calling
them still fails, and nothing here does.

The small network as a processor goes forward with it fastest: weights and maps in the blocked layout of oneDNN.

Layers and weights are the same, so logits differ from the network's by no more than rounding. Maps stay in that layout
from the first convolution to the last pooling, where torch would bring each back into rows.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, ModuleType

import torch
from torch import Tensor, nn
from torch import library as operators

from svetlana_jupyter.errors import InputError

CONV_LAYERS: Mapping[int, type[nn.Module]] = MappingProxyType({2: nn.Conv2d, 3: nn.Conv3d})
NORM_LAYERS: Mapping[int, type[nn.Module]] = MappingProxyType({2: nn.BatchNorm2d, 3: nn.BatchNorm3d})
MAX_POOLS: Mapping[int, type[nn.Module]] = MappingProxyType({2: nn.MaxPool2d, 3: nn.MaxPool3d})
AVERAGE_POOLS: Mapping[int, type[nn.Module]] = MappingProxyType({2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d})
# The layout of memory in which convolutions are fastest, on CPU and GPU alike.
MEMORY_FORMATS: Mapping[int, torch.memory_format] = MappingProxyType(
    {2: torch.channels_last, 3: torch.channels_last_3d}
)


class ClassificationNetwork(nn.Module):
    """What training, saving and explaining need of a network, besides logits (n, classes) from its ``forward``.

    Attributes
    ----------
    standardize : Standardize
        Its first layer.
    draws : bool
        Whether its layers may draw at random by themselves, as dropout does.
    """

    standardize: Standardize
    is_stochastic = True

    @property
    def last_layer(self) -> nn.Module:
        """The layer that gives the logits, which also trains where the body is frozen."""
        raise NotImplementedError

    @property
    def first_conv_weight(self) -> str:
        """The name of the weights that see the channels, "" where no convolution does."""
        found = (name for name, layer in self.named_modules() if isinstance(layer, tuple(CONV_LAYERS.values())))
        return next((f"{name}.weight" for name in found), "")

    @property
    def gradcam_layer(self) -> nn.Module | None:
        """The layer whose maps Grad-CAM looks at: the last convolution, where there is one."""
        layers = [layer for layer in self.modules() if isinstance(layer, tuple(CONV_LAYERS.values()))]
        return layers[-1] if layers else None


class SmallCNN(ClassificationNetwork):
    """The light-weight encoder of the paper's Fig. 7, in 2D or 3D.

    Blocks of convolution, ReLU, batch normalisation and max pooling; every block halves the sides and doubles the
    width. An average over what is left and one linear layer give the logits (the paper's softmax belongs to the loss
    and to prediction).

    Parameters
    ----------
    ndim : 2 or 3
    channels : int
        Of the input, the mask channel included.
    classes : int
    depth, width : int
        Number of blocks, and channels of the first.
    """

    is_stochastic = False

    def __init__(self, ndim: int, channels: int, classes: int, depth: int, width: int) -> None:
        super().__init__()
        widths = [channels, *(width * 2**level for level in range(depth))]
        self.standardize = Standardize(channels)
        self.blocks = nn.Sequential(*(self._block(ndim, into, out) for into, out in itertools.pairwise(widths)))
        self.pool = nn.Sequential(AVERAGE_POOLS[ndim](1), nn.Flatten())
        self.head = nn.Linear(widths[-1], classes)

    @staticmethod
    def _block(ndim: int, into: int, out: int) -> nn.Sequential:
        return nn.Sequential(
            CONV_LAYERS[ndim](into, out, kernel_size=3, padding=1),
            nn.ReLU(),
            NORM_LAYERS[ndim](out),
            # Rounding up lets a patch of any size through any number of blocks.
            MAX_POOLS[ndim](2, ceil_mode=True),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Return logits (n, classes) of patches (n, channels, [z,] y, x)."""
        logits: Tensor = self.head(self.pool(self.blocks(self.standardize(patches))))
        return logits

    @property
    def last_layer(self) -> nn.Module:
        return self.head

    @property
    def gradcam_layer(self) -> nn.Module:
        """The last layer before its map is halved once more."""
        block = self.blocks[-1]
        assert isinstance(block, nn.Sequential)
        return block[2]


class Standardize(nn.Module):
    """Bring each channel to mean 0 and deviation 1, by averages over the training patches kept with the weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def measure(self, patches: Tensor) -> None:
        """Take the averages from patches (n, channels, ...); a flat channel keeps its values."""
        axes = [axis for axis in range(patches.ndim) if axis != 1]
        deviation, mean = torch.std_mean(patches, dim=axes, correction=0)
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, patches: Tensor) -> Tensor:
        shape = (1, -1, *(1 for _ in patches.shape[2:]))
        return (patches - self.mean.view(shape)) / self.deviation.view(shape)


OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def load_torchvision() -> ModuleType:
    """Import torchvision, natively where its wheel fits."""
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
def load_grad_cam() -> ModuleType:
    """Import ``pytorch_grad_cam``, which imports torchvision itself."""
    load_torchvision()
    return importlib.import_module("pytorch_grad_cam")


@cache
def _declare_operators() -> operators.Library:
    """Declare the operators; the declarations live as long as the library object, which the cache keeps."""
    declared = operators.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in OPERATORS:
        declared.define(schema)  # type: ignore[no-untyped-call]
    return declared


# The published DenseNets were trained by a version of torchvision that named "norm.1" what is "norm1" now.
_NUMBERED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")


@dataclass(frozen=True)
class TorchvisionFamily:
    """What differs between the families.

    Parameters
    ----------
    first, features, last : str
        Names of the first convolution, of the layer whose maps Grad-CAM looks at, and of the layer that gives logits.
    """

    first: str
    features: str
    last: str


_FAMILIES: Mapping[str, TorchvisionFamily] = MappingProxyType(
    {
        "resnet": TorchvisionFamily("conv1", "layer4", "fc"),
        "densenet": TorchvisionFamily("features.conv0", "features.norm5", "classifier"),
        "alexnet": TorchvisionFamily("features.0", "features.10", "classifier.6"),
    }
)


class TorchvisionNetwork(ClassificationNetwork):
    """A network of torchvision with its first layer for ``channels`` and its last for ``classes``.

    Parameters
    ----------
    name : str
        One of `core.settings.TORCHVISION_ARCHITECTURES`.
    channels : int
        Of the input, the mask channel included.
    classes : int
    """

    def __init__(self, name: str, channels: int, classes: int) -> None:
        super().__init__()
        self._family = get_family(name)
        self.standardize = Standardize(channels)
        self.body: nn.Module = load_torchvision().models.get_model(name, weights=None, num_classes=classes)
        first = self.body.get_submodule(self._family.first)
        assert isinstance(first, nn.Conv2d)
        first.in_channels = channels
        first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, channels, *first.kernel_size))
        nn.init.kaiming_normal_(first.weight)

    def forward(self, patches: Tensor) -> Tensor:
        """Return logits (n, classes) of patches (n, channels, y, x)."""
        logits: Tensor = self.body(self.standardize(patches))
        return logits

    @property
    def last_layer(self) -> nn.Module:
        return self.body.get_submodule(self._family.last)

    @property
    def gradcam_layer(self) -> nn.Module:
        return self.body.get_submodule(self._family.features)


def get_family(name: str) -> TorchvisionFamily:
    """Return the family of a network by its name."""
    return next(family for start, family in _FAMILIES.items() if name.startswith(start))


def download_weights(name: str) -> dict[str, Tensor]:
    """Return the weights that torchvision publishes for a network, from the internet or from what was fetched before.

    Raises
    ------
    InputError
        If they cannot be fetched.
    """
    weights = load_torchvision().models.get_model_weights(name).DEFAULT
    try:
        found: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no connection; or a file that is not the one that was published
        raise InputError(
            f"the pretrained weights of {name} cannot be fetched from {weights.url} ({error}). Train with "
            f"pretrained=False, or fetch them elsewhere, save them with safetensors and name that file in start_from."
        ) from error
    return {_NUMBERED.sub(r"\1\2", key): values for key, values in found.items()}


POOLS = {2: torch.max_pool2d, 3: torch.max_pool3d}


def to_onednn(network: nn.Module, device: torch.device) -> OneDNNSmallCNN | None:
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
