"""How grey values follow each other in an object, whatever its brightness and however it is turned.

All of it is computed on values standardised by the object's own pixels, and over all directions at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.measures.bands import bands
from svetlana_jupyter.core.measures.brightness import Channel
from svetlana_jupyter.core.measures.contour import directions
from svetlana_jupyter.core.measures.neighbours import PaddedStack
from svetlana_jupyter.core.measures.patterns import patterns
from svetlana_jupyter.core.measures.region import Floats, Stack, over
from svetlana_jupyter.core.measures.table import PARTS, PIXEL_DISTANCES

LEVELS = 8  # of grey, each half a deviation wide; the outer two take in all that is beyond


def texture(channel: Channel, near: PaddedStack) -> dict[str, Floats]:
    """Return the group "texture" of the table, each of shape (n,)."""
    found = haralick_features(channel, near) | grain(channel, near) | patterns(channel) | bands(channel)
    return {name: channel.nan_if_flat(values) for name, values in found.items()}


def haralick_features(channel: Channel, near: PaddedStack) -> dict[str, Floats]:
    """Return what pairs of pixels some distance apart have in common (Haralick et al., 1973)."""
    region, levels = channel.region, quantize_gray_levels(channel.standardized)
    stack = near.spread(levels, LEVELS)  # one level more, for what is not the object's own
    base = (region.owner * LEVELS + levels) * (LEVELS + 1)
    found: dict[str, Floats] = {}
    for distance in PIXEL_DISTANCES:
        counts = np.zeros(len(region) * LEVELS * (LEVELS + 1), np.int64)
        for shift in near.shifts(distance):
            counts += np.bincount(base + stack[near.at + shift], minlength=len(counts))
        pairs = counts.reshape(len(region), LEVELS, LEVELS + 1)[..., :LEVELS]
        found |= {f"{name}_{distance}": values for name, values in _haralick(pairs).items()}
    return found


def quantize_gray_levels(standardized: Floats) -> NDArray[np.uint8]:
    """Return the grey level, 0 to LEVELS - 1, of each standardised value."""
    levels: NDArray[np.uint8] = np.clip(np.floor(2 * standardized) + LEVELS // 2, 0, LEVELS - 1).astype(np.uint8)
    return levels


def grain(channel: Channel, near: PaddedStack) -> dict[str, Floats]:
    """Return half the mean squared difference of pixels some part of the object's diameter apart.

    Of a texture that is enlarged together with its object this stays the same.
    """
    region = channel.region
    values = channel.standardized.astype(np.float32)
    stack = near.spread(values, 0)
    found = {}
    for part in PARTS:
        total, count = np.zeros(len(region)), np.zeros(len(region))
        for direction in directions(region.ndim):
            # Whole steps in this direction rarely make up the distance: what is found on both sides of it is mixed.
            steps = region.diameter / part / np.linalg.norm(np.multiply(direction, region.step))
            less = np.floor(steps)
            here = [_difference(values, stack, near, near.flat(direction), less + more) for more in (0, 1)]
            mixed = here[0] + (steps - less) * (here[1] - here[0])
            total += np.nan_to_num(mixed)
            count += ~np.isnan(mixed)
        found[f"grain_{part}"] = over(total, count)
    return found


def _difference(values: Stack, stack: Stack, near: PaddedStack, step: int, count: Floats) -> Floats:
    """Return half the mean squared difference of pixels as many steps apart as ``count`` says (n,), NaN without any."""
    there = near.at + np.repeat(step * count.astype(np.int64), near.region.counts)
    both = near.own[there]
    return over(near.region.total(np.square(values - stack[there]) * both) / 2, near.region.total(both))


def _haralick(pairs: NDArray[np.int64]) -> dict[str, Floats]:
    """Return measures of how often two levels meet, (n, LEVELS, LEVELS), in either order."""
    both = pairs + pairs.transpose(0, 2, 1)
    joint = over(both, both.sum(axis=(1, 2), keepdims=True))
    i, j = np.indices((LEVELS, LEVELS))
    mean = (joint * i).sum(axis=(1, 2), keepdims=True)
    variance = (joint * (i - mean) ** 2).sum(axis=(1, 2))
    together = (joint * (i - mean) * (j - mean)).sum(axis=(1, 2))
    return {
        "contrast": (joint * (i - j) ** 2).sum(axis=(1, 2)),
        "correlation": over(together, variance),
        "homogeneity": (joint / (1 + (i - j) ** 2)).sum(axis=(1, 2)),
        "entropy": -(joint * np.log2(np.where(joint > 0, joint, 1))).sum(axis=(1, 2)),
    }
