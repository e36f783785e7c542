"""ResNet, DenseNet and AlexNet from torchvision, in 2D, for any number of channels and classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor, nn

from svetlana_jupyter.errors import InputError
from svetlana_jupyter.learn.architectures import ClassificationNetwork, Standardize
from svetlana_jupyter.learn.torchvision_loader import load_torchvision

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
