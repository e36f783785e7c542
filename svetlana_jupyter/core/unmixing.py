"""Telling what is an object's own light from what mixes in along its edge.

An even object in even surroundings looks, through any optics, like a constant and its own mask, blurred. So that is
fitted to the pixels of each object, for blurs from sharp to soft; what does not fit is the object's own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from svetlana_jupyter.core.blocks import index_last_axes
from svetlana_jupyter.core.widening import joint_bbox

BLUR_SIGMAS = (0.5, 1.0, 2.0)  # standard deviations, pixels
REACH = 3  # deviations, beyond which a blur is cut off
INNER = 4  # power of the softest blurred mask that weighs the middle of an object
SINGULAR = 1e-9  # beside the greatest eigenvalue: an object of few pixels is explained in several ways

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def blur_masks(own: NDArray[np.bool_], view: tuple[slice, ...]) -> Floats:
    """Return masks as each of the blurs shows them.

    Parameters
    ----------
    own : bool of shape (n, [z,] y, x)
    view : tuple of slice
        The field of view inside the patch: only that is blurred, so that a margin around it changes nothing.

    Returns
    -------
    float32 of shape (n, len(BLURS), [z,] y, x)
    """
    seen = own[index_last_axes(view)]
    box = joint_bbox(seen, (math.ceil(REACH * BLUR_SIGMAS[-1]),) * len(view))  # beside it, masks stay zero
    part, blurred = index_last_axes(box), np.zeros((len(own), len(BLUR_SIGMAS), *seen.shape[1:]), np.float32)
    for number, sigma in enumerate(BLUR_SIGMAS):
        sigmas = (0, *(sigma,) * len(view))
        blurred[:, number][part] = gaussian_filter(
            seen[part], sigmas, output=np.float32, mode="nearest", truncate=REACH
        )
    margin = [(part.start, side - part.stop) for part, side in zip(view, own.shape[1:], strict=True)]
    return np.pad(blurred, [(0, 0), (0, 0), *margin], mode="edge")


def fit(pixels: Floats, own: NDArray[np.bool_], soft: Floats) -> tuple[Doubles, Doubles]:
    """Fit each object's pixels by a constant and its mask, blurred.

    Parameters
    ----------
    pixels : float32 of shape (n, C, [z,] y, x)
    own : bool of shape (n, [z,] y, x)
        The pixels that are fitted.
    soft : float32 of shape (n, len(BLURS), [z,] y, x)
        As `blur_masks` gives it.

    Returns
    -------
    coefficients : float64 of shape (n, C, 1 + len(BLURS))
    level : float64 of shape (n, C)
        The mean of the object's middle, where least light is mixed in.
    """
    n, channels = pixels.shape[:2]
    box = index_last_axes(joint_bbox(own, (0,) * (own.ndim - 1)))
    inside = own[box].reshape(n, 1, -1)
    explains = np.concatenate([inside, soft[box].reshape(n, len(BLUR_SIGMAS), -1)], axis=1, dtype=np.float64) * inside
    values = pixels[box].reshape(n, channels, -1) * inside.astype(np.float64)
    turned = explains.swapaxes(1, 2)
    coefficients = values @ turned @ np.linalg.pinv(explains @ turned, rcond=SINGULAR, hermitian=True)
    weights = turned[:, :, -1:] ** INNER
    level = values @ weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return coefficients, level[..., 0]


def unmixing_residual(pixels: Floats, own: NDArray[np.bool_], soft: Floats, coefficients: Doubles) -> Doubles:
    """Return what is left of each object's pixels, (n, C, [z,] y, x), zero beside it; parameters as `fit` has them."""
    constant, blurs = coefficients[..., 0], coefficients[..., 1:]
    explained = (blurs @ soft.reshape(*soft.shape[:2], -1)).reshape(pixels.shape)
    explained += constant.reshape(*constant.shape, *(1 for _ in own.shape[1:]))
    return np.subtract(pixels, explained, out=np.zeros(pixels.shape), where=own[:, None])
