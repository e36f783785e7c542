"""How bright objects are, and how the brightness lies in them; one channel at a time, from their own pixels.

What lies close around objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.features.catalog import QUANTILES
from svetlana_jupyter.core.features.region import Floats, Region, Stack, over

FLAT = 1e-6  # deviation over mean below which an object counts as of one value: what is left is rounding


@dataclass(frozen=True, eq=False)
class Channel:
    """One channel of a stack of objects.

    Parameters
    ----------
    region : Region
    pixels : float32 of shape (n, *box)
    """

    region: Region
    pixels: Stack

    @cached_property
    def values(self) -> Floats:
        """The objects' own pixels, one after the other."""
        return self.region.of(self.pixels)

    @cached_property
    def mean(self) -> Floats:
        return self.region.mean(self.values)

    @cached_property
    def sd(self) -> Floats:
        return np.sqrt(self.region.mean((self.values - self.mean[self.region.owner]) ** 2))

    @cached_property
    def flat(self) -> NDArray[np.bool_]:
        """Which objects are of one value, so that only their brightness can be told."""
        return ~(self.sd > FLAT * np.maximum(np.abs(self.mean), 1e-30))

    @cached_property
    def standardized(self) -> Floats:
        """The own pixels less their mean, over their deviation; zeros in flat objects."""
        scale = np.where(self.flat, np.inf, self.sd)
        return (self.values - self.mean[self.region.owner]) / scale[self.region.owner]

    @cached_property
    def standardized_stack(self) -> Stack:
        """The same as a stack, with zeros around the objects."""
        stack = np.zeros(self.pixels.shape, np.float32)
        stack.reshape(-1)[self.region.at] = self.standardized
        return stack

    @cached_property
    def skewness(self) -> Floats:
        z = self.standardized
        return self.nan_if_flat(self.region.mean(z * z * z))

    def nan_if_flat(self, values: Floats) -> Floats:
        return np.where(self.flat, np.nan, values)

    def quantiles(self, shares: NDArray[np.float64]) -> Floats:
        """Return quantiles (n, len(shares)), linear between pixels; NaN where an object has no pixels."""
        found = np.full((len(self.region), len(shares)), np.nan)
        some = self.region.counts > 0
        own, pixels = self.region.own[some], self.pixels[some]
        row = np.sort(np.where(own, pixels, np.float32(np.inf)).reshape(len(own), math.prod(self.region.box)))
        last = self.region.counts[some, None] - 1
        ranks = shares * last
        below = np.floor(ranks).astype(np.int64)
        lower, upper = (
            np.take_along_axis(row, at, axis=1).astype(float) for at in (below, np.minimum(below + 1, last))
        )
        found[some] = lower + (upper - lower) * (ranks - below)
        return found


def brightness(channel: Channel) -> dict[str, Floats]:
    """Return the group "intensity" of the table, each of shape (n,)."""
    region, z = channel.region, channel.standardized
    shares = np.array([0.0, *QUANTILES.values(), 1.0])
    least, *quantiles, most = channel.quantiles(shares).T
    found = {
        "mean": channel.mean,
        "sd": channel.sd,
        "min": least,
        "max": most,
        **dict(zip(QUANTILES, quantiles, strict=True)),
        "total": region.total(channel.values),
    }
    radius = region.radius
    far = region.subtract_mean(radius)
    above = channel.values - least[region.owner]
    weight = region.total(above)
    center = [over(region.total(above * offset), weight) for offset in region.offsets]
    spread = region.mean(radius)
    relative = {
        "skewness": channel.skewness,
        "kurtosis": region.mean((z * z) ** 2) - 3,
        "peak": over(most - channel.mean, channel.sd),
        "rim": over(region.total(np.where(region.rim, z, 0.0)), region.total(region.rim.astype(float))),
        "radial_trend": over(region.mean(z * far), np.sqrt(region.mean(far**2))),
        "concentration": over(region.total(above * radius), weight * spread),
        "center_shift": over(np.sqrt(sum(place**2 for place in center)), spread),
    }
    return found | {name: channel.nan_if_flat(values) for name, values in relative.items()}


def ring(channel: Channel, around: Channel) -> dict[str, Floats]:
    """Return what the group "ring" says of one channel, each of shape (n,): of an object, and of the ring around it."""
    contrast = channel.mean - around.mean
    return {
        "ring_mean": around.mean,
        "ring_sd": around.sd,
        "ring_median": around.quantiles(np.array([0.5]))[:, 0],
        "ring_contrast": contrast,
        "ring_ratio": over(channel.mean, around.mean),
        "ring_step": channel.nan_if_flat(over(contrast, channel.sd)),
        "ring_roughness": channel.nan_if_flat(over(around.sd, channel.sd)),
        "ring_skewness": around.skewness,
    }
