"""The grain of an object: what is left of its pixels when all that its outline explains is taken away.

Along the edge of an object its light mixes with that of its surroundings. In small objects this fall-off drowns a faint
texture, and a rim that leaves it out leaves out most of the object.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.blocks import index_last_axes
from svetlana_jupyter.core.unmixing import blur_masks, fit, unmixing_residual

Floats = NDArray[np.float32]


def grain(pixels: Floats, own: NDArray[np.bool_], view: tuple[slice, ...]) -> Floats:
    """Return the residuals of each object's pixels, in units of its level; zero beside it.

    Parameters
    ----------
    pixels : float32 of shape (n, C, [z,] y, x)
    own : bool of shape (n, [z,] y, x)
    view : tuple of slice
        The field of view inside the patch: what is blurred and fitted, so that a margin around it changes nothing.

    Returns
    -------
    float32 of shape (n, C, [z,] y, x)
        The level is the mean of the object's middle, where least light is mixed in, or the deviation of the residuals
        where that is more.
    """
    soft, counted = blur_masks(own, view), np.zeros_like(own)
    counted[index_last_axes(view)] = own[index_last_axes(view)]
    coefficients, level = fit(pixels, counted, soft)
    residuals = unmixing_residual(pixels, own, soft, coefficients)
    n, channels, axes = *pixels.shape[:2], tuple(range(2, pixels.ndim))
    count = np.count_nonzero(counted, axis=tuple(range(1, own.ndim))).clip(1)
    spread = (np.sum(residuals**2, axis=axes, where=counted[:, None]) / count[:, None]) ** 0.5
    scale = np.maximum(np.abs(level), spread).reshape(n, channels, *(1 for _ in axes))
    scaled = np.divide(residuals, scale, out=np.zeros_like(residuals), where=scale > 0)
    found: Floats = scaled.astype(np.float32)
    return found
