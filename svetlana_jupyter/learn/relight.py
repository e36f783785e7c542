"""Changing how patches are lit, stained, focused and how noisy they are, without moving a pixel or touching a mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from svetlana_jupyter.core.settings import AugmentSettings
from svetlana_jupyter.learn.layout import Layout


def relit(
    patches: Tensor,
    augmentation: AugmentSettings,
    layout: Layout,
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
    ones = (1,) * (patches.ndim - 2)
    mean, deviation = (values[: layout.image].view(1, -1, *ones).to(patches.device) for values in (mean, deviation))
    shown = layout.shown(patches)
    image = patches[:, : layout.image]

    def draw(*shape: int) -> Tensor:
        """Return numbers between -1 and 1, the same for both copies of a channel."""
        drawn = 2 * torch.rand(len(patches), *shape, *ones, generator=generator) - 1
        return drawn.repeat(1, layout.copies, *ones).to(patches.device)

    if how.blur:
        sigma = how.blur * torch.rand(len(patches), generator=generator).to(patches.device)
        image = _blurred(image, sigma, shown, layout)
    if how.gamma:
        image = _bent(image, (1 + how.gamma) ** draw(layout.colors), shown, layout)
    if how.color and layout.colors > 1:
        image = image + deviation * _mixed((image - mean) / deviation, how.color, layout, generator)
    if how.brightness:
        gain, offset = 1 + how.brightness * draw(layout.colors), how.brightness * draw(layout.colors)
        image = image * gain + offset * deviation
    if how.noise:
        image = image + how.noise * deviation * _noise(image, layout, generator)
    return layout.hide(torch.cat([image, patches[:, layout.image :]], dim=1), shown)


def _blurred(image: Tensor, sigma: Tensor, shown: Tensor | None, layout: Layout) -> Tensor:
    """Blur each patch by a Gaussian of its own, in pixels; channels that are hidden only within what they show."""
    smooth = _smoothed(image, sigma)
    if shown is None:
        return smooth
    weight = _smoothed(shown.to(image.dtype), sigma).clamp(min=1e-6)
    return torch.cat([smooth[:, : -layout.hidden], smooth[:, -layout.hidden :] / weight], dim=1)


def _smoothed(image: Tensor, sigma: Tensor) -> Tensor:
    """Average along one axis after the other; weights add up to one, also at the border."""
    for axis in range(2, image.ndim):
        places = torch.arange(image.shape[axis], device=image.device)
        apart = (places - places[:, None]) / sigma.clamp(min=1e-3)[:, None, None]
        weights = (-(apart**2) / 2).exp()
        weights = weights / weights.sum(dim=2, keepdim=True)
        flat = image.movedim(axis, 1)
        image = (weights @ flat.flatten(2)).view(flat.shape).movedim(1, axis)
    return image


def _bent(image: Tensor, exponents: Tensor, shown: Tensor | None, layout: Layout) -> Tensor:
    """Apply a gamma curve between the least and the greatest value that each channel of each patch shows."""
    axes = tuple(range(2, image.ndim))
    least, most = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    if shown is not None:
        alone = image[:, -layout.hidden :]
        extremes = (
            torch.where(shown, alone, math.inf).amin(axes, keepdim=True),
            torch.where(shown, alone, -math.inf).amax(axes, keepdim=True),
        )
        least, most = (
            torch.cat([all_[:, : -layout.hidden], own], dim=1)
            for all_, own in zip((least, most), extremes, strict=True)
        )
    flat = ~(most > least)
    least, span = torch.where(flat, 0.0, least), torch.where(flat, 1.0, most - least)
    bent = least + span * ((image - least) / span).clamp(0, 1) ** exponents
    return torch.where(flat, image, bent)


def _mixed(image: Tensor, amount: float, layout: Layout, generator: torch.Generator) -> Tensor:
    """Return what each channel takes from the others, up to ``amount`` of each.

    A random matrix near the identity on the colours: to first order that is what a change of stain strengths does to
    RGB (they mix linearly in optical density: Ruifrok & Johnston 2001), and what cross-talk does to fluorescence.
    Varying colours so is what lets a network stand other laboratories' stains (Tellez et al. 2019,
    doi:10.1016/j.media.2019.101544).
    """
    count, colors = len(image), layout.colors
    matrices = amount * (2 * torch.rand(count, 1, colors, colors, generator=generator) - 1)
    matrices = (matrices * (1 - torch.eye(colors))).to(image.device)
    return (matrices @ image.reshape(count, layout.copies, colors, -1)).view(image.shape)


def _noise(image: Tensor, layout: Layout, generator: torch.Generator) -> Tensor:
    """Return normal noise, the same in both copies of a channel."""
    shape = (len(image), layout.colors, *image.shape[2:])
    if image.device.type == "cpu":
        drawn = torch.randn(shape, generator=generator)
    else:
        # A batch of noise is drawn where it is used; its seed still comes from the one generator.
        own = torch.Generator(image.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        drawn = torch.randn(shape, generator=own, device=image.device)
    return drawn.repeat(1, layout.copies, *(1 for _ in shape[2:]))
