"""Varying patches while they train, a batch at a time, and averaging predictions over views of one patch."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from svetlana_jupyter.core.settings import AugmentSettings, PatchSettings

View = tuple[int, tuple[int, ...]]  # quarter turns in the plane, then axes to mirror


def margin_for(augmentation: AugmentSettings, patches: PatchSettings) -> float:
    """Return how much wider patches must be cut so that turning and shrinking them leaves no empty corner.

    In 3D the corners of a free rotation about any axis are left to the padding: they would more than double memory.
    """
    if patches.context == "hide":
        return 1.0  # what turns in from outside is zero anyway
    wider = math.sqrt(2) if augmentation.rotation == "free" else 1.0
    return wider * (1.0 + augmentation.scale)


@dataclass(frozen=True)
class Augmenter:
    """Varies batches of patches as the settings say.

    Parameters
    ----------
    settings : AugmentSettings
    shape : tuple of int
        Sides of the patches that come out; those that go in may be wider by a margin.
    masked : bool
        Whether the last channel is a mask, which is moved by nearest neighbour and never gets brighter or noisy.
    deviation : Tensor of shape (C,)
        The unit of brightness and noise.
    """

    settings: AugmentSettings
    shape: tuple[int, ...]
    masked: bool
    deviation: Tensor

    def __call__(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        """Return varied patches (n, C, *shape) of patches (n, C, *wider)."""
        how = self.settings
        moved = torch.rand(len(patches), generator=generator) < how.share
        if how.rotation == "free" or how.scale:
            patches = self._warped(patches, moved, generator)
        else:
            patches = center_crop(patches, self.shape)
            if how.rotation == "half_turns":
                patches = _half_turned(patches, moved, generator)
            elif how.rotation == "right_angles" and self.shape[-1] == self.shape[-2]:
                patches = _turned(patches, moved, how.axes == "all" and len(set(self.shape)) == 1, generator)
        if how.flips:
            patches = _mirrored(patches, moved, generator)
        return self._relit(patches, generator)

    def _warped(self, patches: Tensor, moved: Tensor, generator: torch.Generator) -> Tensor:
        """Turn and scale each patch by a matrix of its own."""
        count, ndim = len(patches), len(self.shape)
        if self.settings.rotation == "free":
            matrices = _rotations(count, ndim, self.settings.axes == "all", generator)
        else:
            matrices = torch.eye(ndim).repeat(count, 1, 1)
        scales = 1.0 + self.settings.scale * (2 * torch.rand(count, 1, 1, generator=generator) - 1)
        matrices = torch.where(moved[:, None, None], matrices * scales, torch.eye(ndim))
        # affine_grid speaks of x, y(, z) in units of half a patch; the matrices of pixels along (z,) y, x.
        out = torch.tensor(self.shape, dtype=torch.float32)
        into = torch.tensor(patches.shape[2:], dtype=torch.float32)
        matrices = (matrices * out / into[:, None]).flip(1, 2)
        affine = torch.cat([matrices, torch.zeros(count, ndim, 1)], dim=2).to(patches.device)
        grid = functional.affine_grid(affine, [count, patches.shape[1], *self.shape], align_corners=False)
        if not self.masked:
            return functional.grid_sample(patches, grid, padding_mode="reflection", align_corners=False)
        image = functional.grid_sample(patches[:, :-1], grid, padding_mode="reflection", align_corners=False)
        mask = functional.grid_sample(patches[:, -1:], grid, mode="nearest", padding_mode="zeros", align_corners=False)
        return torch.cat([image, mask], dim=1)

    def _relit(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        """Change gain and offset of each channel and add noise."""
        how, colors = self.settings, patches.shape[1] - self.masked
        if not (how.brightness or how.noise):
            return patches
        per_channel = (len(patches), colors, *(1 for _ in self.shape))
        unit = self.deviation[:colors].view(1, -1, *(1 for _ in self.shape))
        gain = 1 + how.brightness * (2 * torch.rand(per_channel, generator=generator) - 1)
        offset = how.brightness * (2 * torch.rand(per_channel, generator=generator) - 1)
        image = patches[:, :colors]
        image = image * gain.to(image.device) + (offset.to(image.device) * unit)
        if how.noise:
            image = image + how.noise * unit * torch.randn(image.shape, generator=generator).to(image.device)
        return torch.cat([image, patches[:, colors:]], dim=1)


def center_crop(patches: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the middle of patches (n, C, *wider) as (n, C, *shape)."""
    for axis, (side, wide) in enumerate(zip(shape, patches.shape[2:], strict=True), start=2):
        patches = patches.narrow(axis, (wide - side) // 2, side)
    return patches


def views(augmentation: AugmentSettings, shape: tuple[int, ...], limit: int) -> list[View]:
    """Return up to ``limit`` views, the patch itself first, that training has declared equivalent."""
    if augmentation.share < 1:
        return [(0, ())]
    axes = range(2, 2 + len(shape)) if augmentation.flips else ()
    mirrors = [axes_ for count in range(len(axes) + 1) for axes_ in itertools.combinations(axes, count)]
    if augmentation.rotation == "none":
        turns = range(1)
    else:
        turns = range(0, 4, 2 if augmentation.rotation == "half_turns" or shape[-1] != shape[-2] else 1)
    if len(turns) > 1:
        # Half a turn is a mirror along both axes of the plane: name every view once.
        mirrors = [axes_ for axes_ in mirrors if len(shape) + 1 not in axes_]
    every = [(turn, mirror) for mirror in mirrors for turn in turns]
    return every[:: max(1, len(every) // limit)][:limit]


def look(patches: Tensor, view: View) -> Tensor:
    """Return patches as one view shows them."""
    turn, mirror = view
    patches = torch.rot90(patches, turn, (-2, -1)) if turn else patches
    return patches.flip(mirror) if mirror else patches


def _mirrored(patches: Tensor, moved: Tensor, generator: torch.Generator) -> Tensor:
    for axis in range(2, patches.ndim):
        chosen = moved & (torch.rand(len(patches), generator=generator) < 0.5)
        chosen = chosen.to(patches.device).view(-1, *(1 for _ in patches.shape[1:]))
        patches = torch.where(chosen, patches.flip(axis), patches)
    return patches


def _half_turned(patches: Tensor, moved: Tensor, generator: torch.Generator) -> Tensor:
    chosen = moved & (torch.rand(len(patches), generator=generator) < 0.5)
    chosen = chosen.to(patches.device).view(-1, *(1 for _ in patches.shape[1:]))
    return torch.where(chosen, patches.flip(-2, -1), patches)


def _turned(patches: Tensor, moved: Tensor, every_axis: bool, generator: torch.Generator) -> Tensor:
    planes = [(-2, -1), (-3, -1), (-3, -2)] if every_axis and patches.ndim == 5 else [(-2, -1)]
    for plane in planes:
        turns = torch.randint(4, (len(patches),), generator=generator) * moved
        patches = torch.stack(
            [torch.rot90(patch, int(turn), plane) for patch, turn in zip(patches, turns, strict=True)]
        )
    return patches


def _rotations(count: int, ndim: int, every_axis: bool, generator: torch.Generator) -> Tensor:
    """Return random rotation matrices (count, ndim, ndim) for points ``([z,] y, x)``."""
    if ndim == 3 and every_axis:
        # A random unit quaternion is a rotation drawn evenly.
        w, x, y, z = functional.normalize(torch.randn(count, 4, generator=generator), dim=1).unbind(1)
        rows = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    matrices = torch.eye(ndim).repeat(count, 1, 1)
    matrices[:, -2, -2] = matrices[:, -1, -1] = angle.cos()
    matrices[:, -2, -1], matrices[:, -1, -2] = angle.sin(), -angle.sin()
    return matrices
