"""Which channels of a patch are what: the image's own, perhaps twice, those that show the object alone, its mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Self

import torch
from torch import Tensor

from svetlana_jupyter.core.patches import count_object_only_channels
from svetlana_jupyter.core.settings import PatchSettings


@dataclass(frozen=True)
class PatchLayout:
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
    rimmed : bool
        Whether a rim along the object's edge is left out of all that shows the image.
    """

    image: int
    copies: int
    hidden: int
    masked: bool
    has_eroded_margin: bool = False

    @classmethod
    def of(cls, settings: PatchSettings, channels: int) -> Self:
        """Return the layout of patches with so many channels in all."""
        image = channels - settings.mask_channel
        copies = 2 if settings.has_doubled_channels else 1
        hidden = count_object_only_channels(image, settings)
        return cls(image, copies, hidden, settings.mask_channel, has_eroded_margin=settings.rim != 0)

    @property
    def colors(self) -> int:
        """Channels that the image itself has."""
        return self.image // self.copies

    def shown(self, patches: Tensor) -> tuple[Tensor | None, ...]:
        """Return for each copy where it shows anything (n, 1, [z,] y, x), None where it shows all.

        What is hidden or left out is zero in every channel. Inside the object's mask a zero is a dark pixel, unless a
        rim was left out there.
        """
        image = patches[:, : self.image].chunk(self.copies, dim=1)
        return tuple(
            self._anything(copy, patches[:, -1:]) if self.has_eroded_margin or self._is_hidden(number) else None
            for number, copy in enumerate(image)
        )

    def join_channels(self, image: Tensor, shown: tuple[Tensor | None, ...], masks: Tensor) -> Tensor:
        """Return patches of image channels, zero where their copy shows nothing, and masks."""
        copies = [
            copy if seen is None else torch.where(seen, copy, 0.0)
            for copy, seen in zip(image.chunk(self.copies, dim=1), shown, strict=True)
        ]
        return torch.cat([*copies, masks], dim=1)

    def _is_hidden(self, copy: int) -> bool:
        return copy >= self.copies - self.hidden // self.colors

    def _anything(self, copy: Tensor, last: Tensor) -> Tensor:
        shows = [copy[:, channel : channel + 1] for channel in range(self.colors)]
        if self.masked and not self.has_eroded_margin:
            shows.append(last)
        # One by one is faster than a reduction over so few, and "or" of what is compared than "or" of numbers.
        return reduce(Tensor.logical_or, (one != 0 for one in shows))
