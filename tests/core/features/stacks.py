"""Stacks of small objects for the feature tests."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from svetlana_jupyter.core.features.intensity import ObjectChannel
from svetlana_jupyter.core.features.region import ObjectStack
from svetlana_jupyter.core.features.texture import PaddedStack, texture_features


def blob(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return an irregular object, possibly with holes, that need not touch the sides of its bounding box."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.linspace(-1, 1, side) for side in shape], indexing="ij")
    inside = sum(axis**2 for axis in grid) < 0.8
    return inside & (gaussian_filter(rng.standard_normal(shape), 1.5) > -0.25)


def objects(shape: tuple[int, ...], count: int = 4, step: tuple[float, ...] | None = None) -> ObjectStack:
    own = np.array([blob(shape, seed) for seed in range(count)])
    assert own.reshape(count, -1).any(axis=1).all()
    return ObjectStack(own, step or (1.0,) * len(shape))


def solid(*sides: int, step: tuple[float, ...] | None = None) -> ObjectStack:
    """Return an object that fills its bounding box."""
    return ObjectStack(np.ones((1, *sides), bool), step or (1.0,) * len(sides))


def ball(radius: float, ndim: int, step: tuple[float, ...] | None = None) -> ObjectStack:
    """Return a disk or ball of a given radius, sampled by pixels with sides ``step``."""
    step = step or (1.0,) * ndim
    sides = [2 * int(np.ceil(radius / side_length)) + 3 for side_length in step]
    positions = [(np.arange(side) - side / 2 + 0.2) * side_length for side, side_length in zip(sides, step)]
    grid = np.meshgrid(*positions, indexing="ij")
    return ObjectStack((sum(axis**2 for axis in grid) <= radius**2)[None], step)


def channel(region: ObjectStack, seed: int = 0, blur: float = 1.0) -> ObjectChannel:
    """Return a channel of blurred noise, inside and outside the objects."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(region.own.shape)
    noise = gaussian_filter(noise, (0, *(blur,) * region.ndim)) if blur else noise
    return ObjectChannel(region, (100 + 20 * noise).astype(np.float32))


def textures(object_channel: ObjectChannel) -> dict[str, np.ndarray]:
    return texture_features(object_channel, PaddedStack(object_channel.region))
