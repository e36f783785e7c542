"""Augmentation of training patches: geometry, intensity and the user's pipeline.

Patches are augmented batch by batch. One generator draws all random numbers.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from svetlana_jupyter.core.patches import cut_patches
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd
    from numpy.typing import NDArray

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.settings import AugmentSettings, TrainingSettings

Pixels = TypeVar("Pixels", Tensor, "NDArray[np.float32]")


def augment_intensity(
    patches: Tensor,
    augmentation: AugmentSettings,
    layout: PatchLayout,
    mean: Tensor,
    deviation: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Change blur, gamma, color, brightness and noise of patches at random.

    The changes follow the order of image formation, from blur to noise. If patches contain two copies of a channel,
    both change in the same way. Hidden pixels stay zero, and the mask is not changed.

    Parameters
    ----------
    patches : Tensor of shape (n, C, [z,] y, x)
    augmentation : AugmentSettings
    layout : PatchLayout
    mean, deviation : Tensor of shape (C,)
        Mean and standard deviation of each channel of the training patches. Color mixing does not change the mean;
        brightness offset and noise are in units of the standard deviation.
    generator : torch.Generator
    """
    if not any(getattr(augmentation, name) for name in ("blur", "gamma", "color", "brightness", "noise")):
        return patches
    ones, by_copy = (1,) * (patches.ndim - 2), (layout.copies, layout.colors)
    mean, deviation = (values[: layout.image].view(*by_copy, *ones).to(patches.device) for values in (mean, deviation))
    content_masks = layout.content_masks(patches)
    image = patches[:, : layout.image].view(len(patches), *by_copy, *patches.shape[2:])

    def draw() -> Tensor:
        """Return random numbers in [-1, 1), one per channel and patch."""
        uniform = torch.rand(len(patches), 1, layout.colors, *ones, generator=generator)
        return (2 * uniform - 1).to(patches.device)

    def change_copies(change: Callable[[Tensor, Tensor | None], Tensor]) -> Tensor:
        copies = zip(image.unbind(1), content_masks, strict=True)
        return torch.stack([change(copy, seen) for copy, seen in copies], dim=1)

    if augmentation.blur:
        sigma = augmentation.blur * torch.rand(len(patches), generator=generator).to(patches.device)
        image = change_copies(partial(_blur, sigma))
    if augmentation.gamma:
        image = change_copies(partial(_apply_gamma, (1 + augmentation.gamma) ** draw()[:, 0]))
    if augmentation.color and layout.colors > 1:
        image = image + deviation * _mix_colors((image - mean) / deviation, augmentation.color, generator)
    if augmentation.brightness:
        gain, offset = 1 + augmentation.brightness * draw(), augmentation.brightness * draw()
        image = image * gain + offset * deviation
    if augmentation.noise:
        image = torch.addcmul(image, _normal_noise(image[:, :1], generator), augmentation.noise * deviation)
    return layout.join_channels(image.flatten(1, 2), content_masks, patches[:, layout.image :])


def _blur(sigma: Tensor, copy: Tensor, seen: Tensor | None) -> Tensor:
    """Blur the visible pixels of each patch by a Gaussian with its own sigma."""
    smooth = _smooth(copy, sigma)
    return smooth if seen is None else smooth / _smooth(seen.to(copy.dtype), sigma).clamp(min=1e-6)


def _smooth(image: Tensor, sigma: Tensor) -> Tensor:
    """Blur images (n, C, [z,] y, x) axis by axis, with weights that sum to one."""
    for axis in range(2, image.ndim):
        positions = torch.arange(image.shape[axis], device=image.device)
        distances = (positions - positions[:, None]) / sigma.clamp(min=1e-3)[:, None, None]
        weights = (-(distances**2) / 2).exp()
        weights = weights / weights.sum(dim=2, keepdim=True)
        flat = image.movedim(axis, 1)
        image = (weights @ flat.flatten(2)).view(flat.shape).movedim(1, axis)
    return image


def _apply_gamma(exponents: Tensor, copy: Tensor, seen: Tensor | None) -> Tensor:
    """Apply a gamma curve between the minimum and maximum of each channel and patch."""
    axes = tuple(range(2, copy.ndim))
    low, high = (copy if seen is None else torch.where(seen, copy, far) for far in (math.inf, -math.inf))
    least, most = low.amin(axes, keepdim=True), high.amax(axes, keepdim=True)
    varies = most > least
    least, span = torch.where(varies, least, 0.0), torch.where(varies, most - least, 1.0)
    return torch.where(varies, least + span * ((copy - least) / span).clamp(0, 1) ** exponents, copy)


def _mix_colors(image: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Return the random contribution of the other channels to each channel.

    Each channel gets up to the fraction ``amount`` of every other channel. To first order, this simulates variable
    stain strength in RGB images (stains mix linearly in optical density: Ruifrok & Johnston 2001) and cross-talk in
    fluorescence images. Color augmentation makes networks robust to the stains of other laboratories (Tellez et al.
    2019, doi:10.1016/j.media.2019.101544).
    """
    count, colors = len(image), image.shape[2]
    matrices = amount * (2 * torch.rand(count, 1, colors, colors, generator=generator) - 1)
    matrices = (matrices * (1 - torch.eye(colors))).to(image.device)
    return (matrices @ image.flatten(3)).view(image.shape)


def _normal_noise(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal noise of the shape of ``image``."""
    if image.device.type == "cpu":
        return torch.randn(image.shape, generator=generator)
    # Noise is drawn on the device of the image, with a seed from ``generator``.
    device_generator = torch.Generator(image.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    return torch.randn(image.shape, generator=device_generator, device=image.device)


class Augmenter:
    """Augmentation of batches by geometry, intensity and the user's own pipeline.

    Parameters
    ----------
    settings : TrainingSettings
        Its automatic patch settings must be resolved.
    mean, deviation : Tensor of shape (C,)
        Mean and standard deviation of each channel of the training patches.

    Raises
    ------
    SettingsError
        If the user's pipeline fails on patches of this shape or changes their shape.
    """

    def __init__(self, settings: TrainingSettings, mean: Tensor, deviation: Tensor) -> None:
        self.augmentation, self.patches, self.shape = settings.augmentation, settings.patches, settings.patches.shape
        self.layout = PatchLayout.from_settings(settings.patches, len(deviation))
        self.mean, self.deviation = mean.cpu(), deviation.cpu()
        self.pipeline = build_pipeline(settings, len(self.shape), self.layout.colors)
        self._views = symmetries(settings.augmentation, settings.patches)
        self._matrices = view_matrices(self._views)

    def __call__(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        """Augment patches (n, C, *wider) and crop them to (n, C, *shape)."""
        patches = self._transform(patches, generator)
        patches = augment_intensity(patches, self.augmentation, self.layout, self.mean, self.deviation, generator)
        return patches if self.pipeline is None else self.pipeline(patches, generator)

    def _transform(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        augmentation, count = self.augmentation, len(patches)
        moved = torch.rand(count, generator=generator) < augmentation.share
        chosen = torch.randint(len(self._views), (count,), generator=generator) * moved
        shifts = self._shifts(patches, moved, generator) if augmentation.shift else None
        if augmentation.rotation != "free" and not augmentation.scale:
            pixels = None if shifts is None else shifts.round().long()
            return apply_views(patches, chosen, pixels, self._views, self.shape)
        matrices = self._matrices[chosen]
        if augmentation.rotation == "free":
            rotated = random_rotations(count, self.patches, augmentation.axes == "all", generator) @ matrices
            matrices = rotated if augmentation.share == 1 else torch.where(moved[:, None, None], rotated, matrices)
        if augmentation.scale:
            change = augmentation.scale * (2 * torch.rand(count, generator=generator) - 1)
            matrices = matrices * (1 + change * moved)[:, None, None]
        shifts = torch.zeros(count, len(self.shape)) if shifts is None else shifts
        return warp_patches(patches, matrices, shifts, self.shape, self.layout)

    def _shifts(self, patches: Tensor, moved: Tensor, generator: torch.Generator) -> Tensor:
        """Return random shifts (n, ndim) in pixels, limited to the margin of the patches."""
        most = torch.tensor([self.augmentation.shift * side for side in self.shape])
        room = torch.tensor([float((wide - side) // 2) for wide, side in zip(patches.shape[2:], self.shape)])
        drawn = (2 * torch.rand(len(patches), len(most), generator=generator) - 1) * most
        return drawn.clamp(-room, room) * moved[:, None]


def center_crop(patches: Pixels, shape: tuple[int, ...]) -> Pixels:
    """Return a view of the center (n, C, *shape) of patches (n, C, *wider)."""
    sides = zip(shape, patches.shape[2:], strict=True)
    crop: tuple[slice, ...] = tuple(slice((wide - side) // 2, (wide + side) // 2) for side, wide in sides)
    return patches[:, :, *crop]


def augment_object(
    pair: ImagePair,
    row: pd.DataFrame,
    training_objects: Iterable[tuple[ImagePair, pd.DataFrame]],
    settings: TrainingSettings,
    n: int = 8,
) -> NDArray[np.float32]:
    """Cut the patch of one object and augment it ``n`` times, exactly as in training.

    Parameters
    ----------
    pair : ImagePair
    row : DataFrame
        The object's row of the object table (`core.objects.index_objects`).
    training_objects : iterable of (ImagePair, DataFrame)
        Training images, each with the rows of its training objects. Brightness, color and noise are scaled by the
        standard deviation of each channel in their patches.
    settings : TrainingSettings
        Its automatic patch settings must be resolved (`core.patch_geometry.resolve_patch_settings`). Its seed
        determines the augmentation.
    n : int
        Number of augmented patches.

    Returns
    -------
    float32 array of shape (n, C', *sampling)
        The C' channels are those of `core.patches.take_patch`.

    Raises
    ------
    SettingsError
        If the augmentation pipeline fails on patches of this shape or changes their shape.
    """
    cut = [patches for each, rows in training_objects for _, patches in cut_patches(each, rows, settings.patches)]
    standardize = Standardize(cut[0].shape[1])
    standardize.measure(torch.from_numpy(np.concatenate(cut)))
    augment = Augmenter(settings, standardize.mean, standardize.deviation)
    margin = augmentation_margin(settings.augmentation, settings.patches)
    ((_, patch),) = cut_patches(pair, row, settings.patches, margin)
    generator = torch.Generator().manual_seed(settings.seed)
    augmented: NDArray[np.float32] = augment(torch.from_numpy(patch).expand(n, *patch.shape[1:]), generator).numpy()
    return augmented
