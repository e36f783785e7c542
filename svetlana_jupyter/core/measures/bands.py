"""Detail by its size: an object's own pixels, blurred more and more, and what each blurring takes away.

The blur of a pixel is the mean of the object's own pixels round it, weighted by a Gaussian, so that nothing from
outside comes in. It is computed by matrix products, which for boxes of the size of cells are many times faster than a
filter.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from svetlana_jupyter.core.measures.brightness import Channel
from svetlana_jupyter.core.measures.region import Floats, Region, Stack, over
from svetlana_jupyter.core.measures.table import BLUR_SCALES


def bands(channel: Channel) -> dict[str, Floats]:
    """Return deviation, skewness and peak of the detail between each scale and the one before."""
    region = channel.region
    finer, found = channel.standardized, {}
    for scale in BLUR_SCALES:
        coarser = region.of(blurred(region, channel.standardized_stack, scale))
        band = region.subtract_mean(finer - coarser)
        deviation = np.sqrt(region.mean(band * band))
        found[f"detail_{scale}"] = deviation
        # Of one pixel, or where a blur changes nothing, only rounding would be left to describe.
        something = np.where(deviation > 1e-4, deviation, 0.0)
        found[f"detail_skewness_{scale}"] = over(region.mean(band * band * band), something**3)
        found[f"detail_peak_{scale}"] = over(region.largest(band), something)
        finer = coarser
    return found


def blurred(region: Region, stack: Stack, scale: float) -> Stack:
    """Return a stack, zero outside the objects, blurred inside them by a Gaussian of ``scale`` lengths."""
    weight = _filtered(region.own.astype(np.float32), region, scale)
    weight[weight < 1e-6] = 1  # far from the object
    return _filtered(stack, region, scale) / weight


def _filtered(stack: Stack, region: Region, scale: float) -> Stack:
    for axis, (side, step) in enumerate(zip(region.box, region.step, strict=True), start=1):
        weights = _gaussian(side, scale / step)
        if axis == stack.ndim - 1:
            stack = stack @ weights
        else:
            shape = stack.shape
            lines = stack.reshape(-1, side, int(np.prod(shape[axis + 1 :])))
            stack = (weights @ lines).reshape(shape)
    return stack


@lru_cache(maxsize=256)
def _gaussian(side: int, scale: float) -> Stack:
    """Return the symmetric matrix that blurs a line of ``side`` pixels."""
    places = np.arange(side)
    weights = np.exp(-0.5 * ((places[:, None] - places) / scale) ** 2)
    # Numbers near the smallest there are would make the product many times slower.
    return np.where(weights > 1e-9, weights, 0).astype(np.float32)
