"""The grain of an object: what is left of its pixels when all that its outline explains is taken away.

Along the edge of an object its light mixes with that of its surroundings. In small objects this fall-off drowns a faint
texture, and a rim that leaves it out leaves out most of the object. An even object in even surroundings looks, through
any optics, like a constant and its own mask, blurred. So that is fitted to the pixels of each object, for blurs from
sharp to soft, and what does not fit is kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from svetlana_jupyter.core.blocks import last_axes

BLURS = (0.5, 1.0, 2.0)  # standard deviations, pixels
INNER = 4  # power of the softest blurred mask that weighs the middle of an object
SINGULAR = 1e-9  # beside the greatest eigenvalue: an object of few pixels is explained in several ways

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
    n, channels, seen = *pixels.shape[:2], last_axes(view)
    margin = [(part.start, side - part.stop) for part, side in zip(view, own.shape[1:], strict=True)]
    blurred = [
        gaussian_filter(own[seen], (0, *(sigma,) * len(view)), output=np.float64, mode="nearest", truncate=3)
        for sigma in BLURS
    ]
    wider = [np.pad(one, [(0, 0), *margin], mode="edge") for one in blurred]
    inside = own.reshape(n, 1, -1)
    explains = np.stack([own, *wider], axis=1).reshape(n, len(BLURS) + 1, -1) * inside
    values = pixels.reshape(n, channels, -1) * inside.astype(np.float64)
    counted = np.pad(own[seen], [(0, 0), *margin]).reshape(n, 1, -1)
    fits = (explains * counted).swapaxes(1, 2)
    inverse = np.linalg.pinv(explains @ fits, rcond=SINGULAR, hermitian=True)
    residuals = values - values @ fits @ inverse @ explains
    weights = fits[:, :, -1:] ** INNER
    level = np.abs(values @ weights) / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    spread = (residuals**2 @ counted.swapaxes(1, 2) / np.maximum(counted.sum(axis=2, keepdims=True), 1)) ** 0.5
    scale = np.maximum(level, spread)
    found: Floats = np.divide(residuals, scale, out=np.zeros_like(residuals), where=scale > 0).astype(np.float32)
    return found.reshape(pixels.shape)
