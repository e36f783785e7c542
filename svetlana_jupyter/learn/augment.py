"""Varying patches while they train, a batch at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.layout import PatchLayout
from svetlana_jupyter.learn.pipeline_build import build_pipeline
from svetlana_jupyter.learn.relight import augment_intensity
from svetlana_jupyter.learn.symmetry import looked, matrices, symmetries
from svetlana_jupyter.learn.warp import random_rotations, warped


class Augmenter:
    """Varies batches of patches as the settings say: moved, relit, and through the user's own pipeline.

    Parameters
    ----------
    settings : TrainingSettings
        With concrete patches.
    mean, deviation : Tensor of shape (C,)
        Of each channel of the training patches, as the network standardises them.

    Raises
    ------
    SettingsError
        If the pipeline does not fit such patches.
    """

    def __init__(self, settings: TrainingSettings, mean: Tensor, deviation: Tensor) -> None:
        sampling = settings.patches.sampling
        assert isinstance(sampling, tuple)
        self.augmentation, self.patches, self.shape = settings.augmentation, settings.patches, sampling
        self.layout = PatchLayout.of(settings.patches, len(deviation))
        self.mean, self.deviation = mean.cpu(), deviation.cpu()
        self.pipeline = build_pipeline(settings, len(sampling), self.layout.colors)
        self._views = symmetries(settings.augmentation, settings.patches)
        self._matrices = matrices(self._views)

    def __call__(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        """Return varied patches (n, C, *shape) of patches (n, C, *wider); the generator decides all that is random."""
        patches = self._moved(patches, generator)
        patches = augment_intensity(patches, self.augmentation, self.layout, self.mean, self.deviation, generator)
        return patches if self.pipeline is None else self.pipeline(patches, generator)

    def _moved(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        how, count = self.augmentation, len(patches)
        moved = torch.rand(count, generator=generator) < how.share
        chosen = torch.randint(len(self._views), (count,), generator=generator) * moved
        shifts = self._shifts(patches, moved, generator) if how.shift else None
        if how.rotation != "free" and not how.scale:
            whole = None if shifts is None else shifts.round().long()
            return looked(patches, chosen, whole, self._views, self.shape)
        through = self._matrices[chosen]
        if how.rotation == "free":
            turned = random_rotations(count, self.patches, how.axes == "all", generator) @ through
            through = turned if how.share == 1 else torch.where(moved[:, None, None], turned, through)
        if how.scale:
            larger = how.scale * (2 * torch.rand(count, generator=generator) - 1)
            through = through * (1 + larger * moved)[:, None, None]
        if shifts is None:
            shifts = torch.zeros(count, len(self.shape))
        return warped(patches, through, shifts, self.shape, self.layout)

    def _shifts(self, patches: Tensor, moved: Tensor, generator: torch.Generator) -> Tensor:
        """Return by how many pixels each patch is shifted along each axis, within the margin that was cut."""
        most = [self.augmentation.shift * side for side in self.shape]
        room = [float((wide - side) // 2) for wide, side in zip(patches.shape[2:], self.shape, strict=True)]
        drawn = (2 * torch.rand(len(patches), len(most), generator=generator) - 1) * torch.tensor(most)
        return torch.maximum(torch.minimum(drawn, torch.tensor(room)), -torch.tensor(room)) * moved[:, None]


def center_crop(patches: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the middle of patches (n, C, *wider) as (n, C, *shape)."""
    for axis, (side, wide) in enumerate(zip(shape, patches.shape[2:], strict=True), start=2):
        patches = patches.narrow(axis, (wide - side) // 2, side)
    return patches
