"""Intensity of objects and of the annulus around them, one channel at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.core.features.catalog import QUANTILES
from svetlana_jupyter.core.features.region import Floats, ObjectStack, Stack, safe_divide

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAT = 1e-6  # coefficient of variation up to which an object counts as constant, because of rounding errors


@dataclass(frozen=True, eq=False)
class ObjectChannel:
    """One channel of a stack of objects.

    Parameters
    ----------
    region : ObjectStack
    pixels : float32 of shape (n, *box)
    """

    region: ObjectStack
    pixels: Stack

    @cached_property
    def values(self) -> Floats:
        """Values of the object pixels, object by object."""
        return self.region.of(self.pixels)

    @cached_property
    def mean(self) -> Floats:
        """Mean of each object, (n,)."""
        return self.region.mean(self.values)

    @cached_property
    def sd(self) -> Floats:
        """Standard deviation of each object, (n,)."""
        return np.sqrt(self.region.mean((self.values - self.mean[self.region.owner]) ** 2))

    @cached_property
    def flat(self) -> NDArray[np.bool_]:
        """Whether each object is constant, (n,), so that only its mean is meaningful."""
        return ~(self.sd > FLAT * np.maximum(np.abs(self.mean), 1e-30))

    @cached_property
    def standardized(self) -> Floats:
        """Values standardized within each object; zeros in constant objects."""
        scale = np.where(self.flat, np.inf, self.sd)
        return (self.values - self.mean[self.region.owner]) / scale[self.region.owner]

    @cached_property
    def standardized_stack(self) -> Stack:
        """Standardized values as a stack, with zeros around the objects."""
        stack = np.zeros(self.pixels.shape, np.float32)
        stack.reshape(-1)[self.region.at] = self.standardized
        return stack

    @cached_property
    def skewness(self) -> Floats:
        """Skewness of each object, (n,); NaN for constant objects."""
        z = self.standardized
        return self.nan_if_flat(self.region.mean(z * z * z))

    def nan_if_flat(self, values: Floats) -> Floats:
        """Return values (n,), replaced by NaN for constant objects."""
        return np.where(self.flat, np.nan, values)

    def quantiles(self, shares: NDArray[np.float64]) -> Floats:
        """Return linearly interpolated quantiles (n, len(shares)); NaN without pixels.

        Sorting all objects at once is many times faster than `numpy.quantile` per object.
        """
        quantiles = np.full((len(self.region), len(shares)), np.nan)
        nonempty = self.region.counts > 0
        own, pixels = self.region.own[nonempty], self.pixels[nonempty]
        ascending = np.sort(np.where(own, pixels, np.float32(np.inf)).reshape(len(own), math.prod(self.region.box)))
        last = self.region.counts[nonempty, None] - 1
        ranks = shares * last
        below = np.floor(ranks).astype(np.int64)
        lower, upper = (
            np.take_along_axis(ascending, at, axis=1).astype(float) for at in (below, np.minimum(below + 1, last))
        )
        quantiles[nonempty] = lower + (upper - lower) * (ranks - below)
        return quantiles


def intensity_features(channel: ObjectChannel) -> dict[str, Floats]:
    """Return the measurements of the group "intensity", each of shape (n,)."""
    region, z = channel.region, channel.standardized
    minimum, *quantiles, maximum = channel.quantiles(np.array([0.0, *QUANTILES.values(), 1.0])).T
    absolute = {
        "mean": channel.mean,
        "sd": channel.sd,
        "min": minimum,
        "max": maximum,
        **dict(zip(QUANTILES, quantiles, strict=True)),
        "total": region.total(channel.values),
    }
    radius = region.radius
    mean_radius, centered_radius = region.mean(radius), region.subtract_mean(radius)
    weights = channel.values - minimum[region.owner]
    total_weight = region.total(weights)
    shift = np.sqrt(sum(safe_divide(region.total(weights * offset), total_weight) ** 2 for offset in region.offsets))
    relative = {
        "skewness": channel.skewness,
        "kurtosis": region.mean((z * z) ** 2) - 3,
        "peak": safe_divide(maximum - channel.mean, channel.sd),
        "rim": safe_divide(region.total(np.where(region.rim, z, 0.0)), region.total(region.rim.astype(float))),
        "radial_trend": safe_divide(region.mean(z * centered_radius), np.sqrt(region.mean(centered_radius**2))),
        "concentration": safe_divide(region.total(weights * radius), total_weight * mean_radius),
        "center_shift": safe_divide(shift, mean_radius),
    }
    return absolute | {name: channel.nan_if_flat(values) for name, values in relative.items()}


def annulus_features(channel: ObjectChannel, annulus: ObjectChannel) -> dict[str, Floats]:
    """Return the measurements of the group "ring" of one channel, each of shape (n,)."""
    contrast = channel.mean - annulus.mean
    return {
        "ring_mean": annulus.mean,
        "ring_sd": annulus.sd,
        "ring_median": annulus.quantiles(np.array([0.5]))[:, 0],
        "ring_contrast": contrast,
        "ring_ratio": safe_divide(channel.mean, annulus.mean),
        "ring_step": channel.nan_if_flat(safe_divide(contrast, channel.sd)),
        "ring_roughness": channel.nan_if_flat(safe_divide(annulus.sd, channel.sd)),
        "ring_skewness": annulus.skewness,
    }
