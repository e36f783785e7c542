"""What lies close around objects."""

from __future__ import annotations

import numpy as np

from svetlana_jupyter.core.measures.brightness import Channel
from svetlana_jupyter.core.measures.region import Floats, over


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
