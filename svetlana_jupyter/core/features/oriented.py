"""Oriented features of objects in 2D: responses of Gabor filters.

A Gabor filter with a round envelope is a product of a function of y and a function of x. So its response is computed by
two matrix products per object, and filters at mirrored angles share them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from svetlana_jupyter.core.features.patch_boxes import Bools, Floats, iter_boxes, subtract_mean
from svetlana_jupyter.core.features.patch_catalog import ANGLES, FREQUENCIES, ORIENTED_FEATURES

# Standard deviation of the envelope in wavelengths, for a bandwidth of one octave (Daugman 1985).
ENVELOPE = 3 / math.pi * math.sqrt(math.log(2) / 2)
TRUNCATE = 2.5  # standard deviations beyond which a filter is cut off
LEAST_RESPONSE = 1e-3  # added before the logarithm; the sample of objects has standard deviation 1
STACK_PIXELS = 1 << 14  # per channel in a stack of objects, so that all responses fit into the processor's cache


def oriented_features(patches: Floats, masks: Bools) -> Floats:
    """Compute the logarithms of the mean Gabor responses inside objects.

    Parameters
    ----------
    patches : float32 of shape (n, c, side, side)
        Channels with standard deviation 1 over all objects, from `core.features.object_patches.iter_patches`.
    masks : bool of shape (n, side, side)
        The object's own pixels; the others are ignored.

    Returns
    -------
    float32 of shape (n, c, len(ORIENTED_FEATURES))
        For each frequency, the responses to waves along x (0 degrees), then turned toward higher rows. NaN for an
        object with NaN or infinite pixels, and for an empty mask.
    """
    result = np.full((*patches.shape[:2], len(ORIENTED_FEATURES)), np.nan, np.float32)
    for rows, pixels, own in iter_boxes(patches, masks, STACK_PIXELS):
        subtract_mean(pixels, own)
        weights = own / np.count_nonzero(own, axis=(1, 2), keepdims=True).astype(np.float32)
        means = np.empty((len(ORIENTED_FEATURES), *pixels.shape[:2]), np.float32)
        for number, frequency in enumerate(FREQUENCIES):
            for angle in range(ANGLES // 2 + 1):
                responses = _responses(pixels, _filter(own.shape[1], frequency, angle))
                both = dict(zip((angle, (ANGLES - angle) % ANGLES), responses, strict=True))  # equal at 0 and 90
                for at, (real, imaginary) in both.items():
                    modulus = np.sqrt(np.square(real) + np.square(imaginary))
                    means[number * ANGLES + at] = np.einsum("cnyx,nyx->cn", modulus, weights)
        result[rows] = np.log(means + LEAST_RESPONSE).transpose(2, 1, 0)
    return result


class _Filter(NamedTuple):
    """Matrices that apply a Gabor filter to a box of pixels.

    Attributes
    ----------
    left : float32 of shape (2 * side, side)
        Real and imaginary part of the function of y, below each other.
    right : float32 of shape (side, 2 * side)
        Real and imaginary part of the function of x, beside each other.
    window : float32 of shape (side, side)
        Sum over the extent of the filter along one axis.
    mean : complex
        Mean of the filter, which is subtracted so that it does not respond to brightness.
    """

    left: Floats
    right: Floats
    window: Floats
    mean: complex


def _responses(pixels: Floats, gabor: _Filter) -> list[tuple[Floats, Floats]]:
    """Return real and imaginary part of the responses (c, n, side, side).

    The second response is that of the filter mirrored along x.
    """
    side = pixels.shape[-1]
    products = np.matmul(gabor.left, np.matmul(pixels, gabor.right))
    upper, lower = products[..., :side, :], products[..., side:, :]
    real, cross = upper[..., :side], upper[..., side:]
    other_cross, both = lower[..., :side], lower[..., side:]
    constant = np.matmul(gabor.window, np.matmul(pixels, gabor.window))
    level, phase = constant * np.float32(gabor.mean.real), constant * np.float32(gabor.mean.imag)
    return [(real - both - level, cross + other_cross - phase), (real + both - level, other_cross - cross - phase)]


@lru_cache(maxsize=256)
def _filter(side: int, frequency: float, angle: int) -> _Filter:
    theta = math.pi * angle / ANGLES
    sd = ENVELOPE / frequency
    reach = math.ceil(max(TRUNCATE * sd * abs(math.cos(theta)), TRUNCATE * sd * abs(math.sin(theta)), 1))
    position = np.arange(-reach, reach + 1)
    envelope = np.exp(-(position**2) / (2 * sd**2)) / (math.sqrt(2 * math.pi) * sd)
    along = [envelope * np.exp(2j * np.pi * frequency * part * position) for part in (math.sin(theta), math.cos(theta))]
    distance = np.arange(side) - np.arange(side)[:, None]
    inside = np.abs(distance) <= reach
    y, x = (np.where(inside, line[np.clip(distance + reach, 0, 2 * reach)], 0) for line in along)
    left, right = np.concatenate([y.real, y.imag]), np.concatenate([x.real.T, x.imag.T], axis=1)
    left, right, window = (part.astype(np.float32) for part in (left, right, inside))
    return _Filter(left, right, window, complex(np.mean(along[0]) * np.mean(along[1])))
