"""Varying patches while they train, a batch at a time.

Changing how patches are lit, stained, focused and how noisy they are, without moving a pixel or touching a mask.

Augmented patches of one object, exactly as training sees them, to be looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.patches import cut_patches
from svetlana_jupyter.core.settings import AugmentSettings, TrainingSettings
from svetlana_jupyter.learn.albumentations_adapter import build_pipeline
from svetlana_jupyter.learn.networks import Standardize
from svetlana_jupyter.learn.spatial import (
    PatchLayout,
    apply_views,
    augmentation_margin,
    random_rotations,
    symmetries,
    view_matrices,
    warp_patches,
)


def augment_intensity(
    patches: Tensor,
    augmentation: AugmentSettings,
    layout: PatchLayout,
    mean: Tensor,
    deviation: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Return patches (n, C, [z,] y, x) blurred, bent, mixed, brightened and made noisy, in the order a microscope does.

    Both copies of a channel change alike. What is hidden stays zero, and the mask stays as it is.

    Parameters
    ----------
    mean, deviation : Tensor of shape (C,)
        Of the channels over the training patches: the colour that mixing leaves as it is, and the unit of offset and
        noise.
    """
    how = augmentation
    if not any((how.blur, how.gamma, how.color, how.brightness, how.noise)):
        return patches
    ones, by_copy = (1,) * (patches.ndim - 2), (layout.copies, layout.colors)
    mean, deviation = (values[: layout.image].view(*by_copy, *ones).to(patches.device) for values in (mean, deviation))
    content_masks = layout.content_masks(patches)
    image = patches[:, : layout.image].view(len(patches), *by_copy, *patches.shape[2:])

    def draw() -> Tensor:
        """Return a number between -1 and 1 for each channel of each patch, the same for its copies."""
        drawn = torch.rand(len(patches), 1, layout.colors, *ones, generator=generator)
        return (2 * drawn - 1).to(patches.device)

    if how.blur:
        sigma = how.blur * torch.rand(len(patches), generator=generator).to(patches.device)
        image = _blurred(image, sigma, content_masks)
    if how.gamma:
        image = _bent(image, (1 + how.gamma) ** draw(), content_masks)
    if how.color and layout.colors > 1:
        image = image + deviation * _mixed((image - mean) / deviation, how.color, generator)
    if how.brightness:
        gain, offset = 1 + how.brightness * draw(), how.brightness * draw()
        image = image * gain + offset * deviation
    if how.noise:
        image = torch.addcmul(image, _noise(image[:, :1], generator), how.noise * deviation)
    return layout.join_channels(image.flatten(1, 2), content_masks, patches[:, layout.image :])


def _blurred(image: Tensor, sigma: Tensor, content_masks: tuple[Tensor | None, ...]) -> Tensor:
    """Blur each patch by a Gaussian of its own, in pixels; within what is shown, where something is hidden."""
    copies = []
    for copy, seen in zip(image.unbind(1), content_masks, strict=True):
        smooth = _smoothed(copy, sigma)
        copies.append(smooth if seen is None else smooth / _smoothed(seen.to(copy.dtype), sigma).clamp(min=1e-6))
    return torch.stack(copies, dim=1)


def _smoothed(image: Tensor, sigma: Tensor) -> Tensor:
    """Average (n, C, [z,] y, x) along one axis after the other; weights add up to one, also at the border."""
    for axis in range(2, image.ndim):
        places = torch.arange(image.shape[axis], device=image.device)
        apart = (places - places[:, None]) / sigma.clamp(min=1e-3)[:, None, None]
        weights = (-(apart**2) / 2).exp()
        weights = weights / weights.sum(dim=2, keepdim=True)
        flat = image.movedim(axis, 1)
        image = (weights @ flat.flatten(2)).view(flat.shape).movedim(1, axis)
    return image


def _bent(image: Tensor, exponents: Tensor, content_masks: tuple[Tensor | None, ...]) -> Tensor:
    """Apply a gamma curve between the least and the greatest value that each channel of each patch shows."""
    copies = []
    for copy, seen in zip(image.unbind(1), content_masks, strict=True):
        axes = tuple(range(2, copy.ndim))
        low, high = (copy if seen is None else torch.where(seen, copy, far) for far in (math.inf, -math.inf))
        least, most = low.amin(axes, keepdim=True), high.amax(axes, keepdim=True)
        varies = most > least
        least, span = torch.where(varies, least, 0.0), torch.where(varies, most - least, 1.0)
        bent = least + span * ((copy - least) / span).clamp(0, 1) ** exponents[:, 0]
        copies.append(torch.where(varies, bent, copy))
    return torch.stack(copies, dim=1)


def _mixed(image: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Return what each channel takes from the others, up to ``amount`` of each.

    A random matrix near the identity on the colours: to first order that is what a change of stain strengths does to
    RGB (they mix linearly in optical density: Ruifrok & Johnston 2001), and what cross-talk does to fluorescence.
    Varying colours so is what lets a network stand other laboratories' stains (Tellez et al. 2019,
    doi:10.1016/j.media.2019.101544).
    """
    count, colors = len(image), image.shape[2]
    matrices = amount * (2 * torch.rand(count, 1, colors, colors, generator=generator) - 1)
    matrices = (matrices * (1 - torch.eye(colors))).to(image.device)
    return (matrices @ image.flatten(3)).view(image.shape)


def _noise(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return normal noise in the shape of ``image``."""
    if image.device.type == "cpu":
        return torch.randn(image.shape, generator=generator)
    # A batch of noise is drawn where it is used; its seed still comes from the one generator.
    own = torch.Generator(image.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    return torch.randn(image.shape, generator=own, device=image.device)


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
        self.layout = PatchLayout.from_settings(settings.patches, len(deviation))
        self.mean, self.deviation = mean.cpu(), deviation.cpu()
        self.pipeline = build_pipeline(settings, len(sampling), self.layout.colors)
        self._views = symmetries(settings.augmentation, settings.patches)
        self._matrices = view_matrices(self._views)

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
            return apply_views(patches, chosen, whole, self._views, self.shape)
        through = self._matrices[chosen]
        if how.rotation == "free":
            turned = random_rotations(count, self.patches, how.axes == "all", generator) @ through
            through = turned if how.share == 1 else torch.where(moved[:, None, None], turned, through)
        if how.scale:
            larger = how.scale * (2 * torch.rand(count, generator=generator) - 1)
            through = through * (1 + larger * moved)[:, None, None]
        if shifts is None:
            shifts = torch.zeros(count, len(self.shape))
        return warp_patches(patches, through, shifts, self.shape, self.layout)

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


def augment_object(
    pair: ImagePair,
    row: pd.DataFrame,
    beside: Iterable[tuple[ImagePair, pd.DataFrame]],
    settings: TrainingSettings,
    n: int = 8,
) -> NDArray[np.float32]:
    """Cut one object and vary it ``n`` times.

    Parameters
    ----------
    pair : ImagePair
    row : DataFrame
        The object's row of `core.objects.index_objects`.
    beside : iterable of (ImagePair, DataFrame)
        Objects to train on: brightness, colour and noise are in units of their channels' deviation.
    settings : TrainingSettings
        With concrete patches (`core.patches.resolve_patch_settings`). Its seed decides what is drawn.

    Returns
    -------
    float32 array of shape (n, C', *sampling)
        See `core.patches.take_patch` for C'.

    Raises
    ------
    SettingsError
        If the augmentation pipeline cannot work on such patches.
    """
    cut = [patches for each, rows in beside for _, patches in cut_patches(each, rows, settings.patches)]
    standardize = Standardize(cut[0].shape[1])
    standardize.measure(torch.from_numpy(np.concatenate(cut)))
    augment = Augmenter(settings, standardize.mean, standardize.deviation)
    ((_, patch),) = cut_patches(
        pair, row, settings.patches, augmentation_margin(settings.augmentation, settings.patches)
    )
    generator = torch.Generator().manual_seed(settings.seed)
    varied: NDArray[np.float32] = augment(torch.from_numpy(patch).expand(n, *patch.shape[1:]), generator).numpy()
    return varied
