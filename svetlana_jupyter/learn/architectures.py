"""The small network in 2D and 3D, and what every network is to training, saving and explaining."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

CONV_LAYERS: Mapping[int, type[nn.Module]] = MappingProxyType({2: nn.Conv2d, 3: nn.Conv3d})
NORM_LAYERS: Mapping[int, type[nn.Module]] = MappingProxyType({2: nn.BatchNorm2d, 3: nn.BatchNorm3d})
MAX_POOLS: Mapping[int, type[nn.Module]] = MappingProxyType({2: nn.MaxPool2d, 3: nn.MaxPool3d})
AVERAGE_POOLS: Mapping[int, type[nn.Module]] = MappingProxyType({2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d})
# The layout of memory in which convolutions are fastest, on CPU and GPU alike.
LAYOUTS: Mapping[int, torch.memory_format] = MappingProxyType({2: torch.channels_last, 3: torch.channels_last_3d})


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
    draws = True

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

    draws = False

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
