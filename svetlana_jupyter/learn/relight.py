"""Changing how patches are lit, stained, focused and how noisy they are, without moving a pixel or touching a mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from svetlana_jupyter.core.settings import AugmentSettings
from svetlana_jupyter.learn.layout import PatchLayout


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
    shown = layout.shown(patches)
    image = patches[:, : layout.image].view(len(patches), *by_copy, *patches.shape[2:])

    def draw() -> Tensor:
        """Return a number between -1 and 1 for each channel of each patch, the same for its copies."""
        drawn = torch.rand(len(patches), 1, layout.colors, *ones, generator=generator)
        return (2 * drawn - 1).to(patches.device)

    if how.blur:
        sigma = how.blur * torch.rand(len(patches), generator=generator).to(patches.device)
        image = _blurred(image, sigma, shown)
    if how.gamma:
        image = _bent(image, (1 + how.gamma) ** draw(), shown)
    if how.color and layout.colors > 1:
        image = image + deviation * _mixed((image - mean) / deviation, how.color, generator)
    if how.brightness:
        gain, offset = 1 + how.brightness * draw(), how.brightness * draw()
        image = image * gain + offset * deviation
    if how.noise:
        image = torch.addcmul(image, _noise(image[:, :1], generator), how.noise * deviation)
    return layout.join_channels(image.flatten(1, 2), shown, patches[:, layout.image :])


def _blurred(image: Tensor, sigma: Tensor, shown: tuple[Tensor | None, ...]) -> Tensor:
    """Blur each patch by a Gaussian of its own, in pixels; within what is shown, where something is hidden."""
    copies = []
    for copy, seen in zip(image.unbind(1), shown, strict=True):
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


def _bent(image: Tensor, exponents: Tensor, shown: tuple[Tensor | None, ...]) -> Tensor:
    """Apply a gamma curve between the least and the greatest value that each channel of each patch shows."""
    copies = []
    for copy, seen in zip(image.unbind(1), shown, strict=True):
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
