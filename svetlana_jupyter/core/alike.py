"""Showing small and large objects alike, where size may not count."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.blocks import index_last_axes
from svetlana_jupyter.core.geometry import PatchGeometry
from svetlana_jupyter.core.resampling import picked, resampled
from svetlana_jupyter.core.unmixing import blur_masks, fit, unmixing_residual

Floats = NDArray[np.float32]

OUTLINE_SMOOTHING = (
    2.0  # patch pixels to either side, over which outlines are rounded: more than the pixels of small objects do
)
MIN_KEPT_VOLUME = 0.5  # of an object's volume at least is kept where that takes away more


def alike(pixels: Floats, own: NDArray[np.bool_], geometry: PatchGeometry) -> tuple[Floats, NDArray[np.bool_]]:
    """Resample windows so that nothing but what they show tells how large an object was in the image.

    Pixels are picked, not averaged: noise stays what it was. The light that mixes in along the edge reaches equally far
    in small and large objects, so it is taken away. Outlines are rounded, or their corners would be coarser in small
    objects.

    Parameters
    ----------
    pixels : float32 of shape (n, C, *window)
    own : bool of shape (n, *window)

    Returns
    -------
    float32 of shape (n, C, *shape)
    bool of shape (n, *shape)
        The objects. Where one fills a pixel that was not its own, it shows its level.
    """
    steps, shape = geometry.step, geometry.shape
    soft = blur_masks(own, geometry.view)
    # So many of its pixels are enough to fit a large object by.
    some = index_last_axes(
        slice(seen.start, seen.stop, max(1, int(step / 2))) for seen, step in zip(geometry.view, steps)
    )
    coefficients, level = fit(pixels[some], own[some], soft[some])
    rounded = resampled(own.astype(np.float32), steps, shape, wide=OUTLINE_SMOOTHING)
    fills: NDArray[np.bool_] = rounded >= np.minimum(0.5, _least(rounded, own, MIN_KEPT_VOLUME / math.prod(steps)))
    pixels, soft, own = picked(pixels, steps, shape), picked(soft, steps, shape), picked(own, steps, shape)
    alone = unmixing_residual(pixels, own, soft, coefficients) + level.reshape(*level.shape, *(1 for _ in steps))
    return np.where((own | fills)[:, None], alone, pixels).astype(np.float32), fills


def _least(rounded: Floats, own: NDArray[np.bool_], share: float) -> Floats:
    """Return the value, (n, 1, ...), from which on an object fills this share of its pixels, more than 0."""
    ranked = np.sort(rounded.reshape(len(rounded), -1), axis=1)
    count = np.rint(share * np.count_nonzero(own, axis=tuple(range(1, own.ndim)))).astype(np.int64)
    least = ranked[np.arange(len(rounded)), -count.clip(1, ranked.shape[1])]
    whole: Floats = np.maximum(least, np.float32(1e-6)).reshape(-1, *(1 for _ in rounded.shape[1:]))
    return whole
