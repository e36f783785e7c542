"""Which channels of a patch are what: the image's own, perhaps twice, those that show the object alone, its mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from svetlana_jupyter.core.patches import hidden_channels
from svetlana_jupyter.core.settings import PatchSettings


@dataclass(frozen=True)
class Layout:
    """The channels of patches (n, C', [z,] y, x), in their order.

    Parameters
    ----------
    image : int
        Channels that show the image, every copy counted.
    copies : int
        How often each channel of the image is there: twice where the patches are doubled.
    hidden : int
        How many of the image channels, counted from the last, show nothing but the object.
    masked : bool
        Whether the object's own mask follows as the last channel.
    """

    image: int
    copies: int
    hidden: int
    masked: bool

    @classmethod
    def of(cls, settings: PatchSettings, channels: int) -> Self:
        """Return the layout of patches with so many channels in all."""
        image = channels - settings.mask_channel
        copies = 2 if settings.is_doubled else 1
        return cls(image, copies, hidden_channels(image, settings), settings.mask_channel)

    @property
    def colors(self) -> int:
        """Channels that the image itself has."""
        return self.image // self.copies

    def shown(self, patches: Tensor) -> Tensor | None:
        """Return where hidden channels show anything (n, 1, [z,] y, x), None where no channel is hidden.

        That is where one of them is not zero; a dark pixel inside the object's mask is shown too.
        """
        if not self.hidden:
            return None
        shown = patches[:, -1:] != 0
        for channel in range(self.image - self.hidden, patches.shape[1] - 1):  # faster than a reduction over so few
            shown = shown.logical_or(patches[:, channel : channel + 1])
        return shown

    def joined(self, image: Tensor, shown: Tensor | None, masks: Tensor) -> Tensor:
        """Return patches of image channels, those that are hidden zero wherever nothing is ``shown``, and masks."""
        if shown is None:
            return torch.cat([image, masks], dim=1)
        alone = torch.where(shown, image[:, -self.hidden :], 0.0)
        return torch.cat([image[:, : -self.hidden], alone, masks], dim=1)
