"""Which way objects and their textures lie; left out of a forest unless it is asked for."""

from __future__ import annotations

import itertools
import math

import numpy as np

from svetlana_jupyter.core.measures.bands import blurred
from svetlana_jupyter.core.measures.brightness import Channel
from svetlana_jupyter.core.measures.region import Floats, Region, over
from svetlana_jupyter.core.measures.shape import covariance
from svetlana_jupyter.core.measures.table import BLUR_SCALES

AXES = "zyx"


def direction(region: Region) -> dict[str, Floats]:
    """Return what the group "orientation" says of the mask, each of shape (n,)."""
    moments = covariance(region)
    found = {"extent": region.counts / _box_sizes(region), **_components("shape", moments)}
    if region.ndim == 2:
        # Against the columns' axis, counted towards the rows' end: 0 lies flat, 90 stands.
        double = np.arctan2(2 * moments[:, 0, 1], moments[:, 1, 1] - moments[:, 0, 0])
        round_ = np.hypot(2 * moments[:, 0, 1], moments[:, 1, 1] - moments[:, 0, 0]) < 1e-9
        found["angle"] = np.where(round_, np.nan, np.degrees(double / 2) % 180)
    return found


def texture_orientation_features(channel: Channel) -> dict[str, Floats]:
    """Return what the group "orientation" says of one channel, each of shape (n,)."""
    region = channel.region
    smooth = blurred(region, channel.standardized_stack, BLUR_SCALES[0]).reshape(-1)
    inner = np.flatnonzero(region.inner(range(region.ndim)))
    strides = [side // channel.pixels.itemsize for side in channel.pixels.strides[1:]]
    slopes = [
        (smooth[inner + stride] - smooth[inner - stride]) / (2 * step)
        for stride, step in zip(strides, region.step, strict=True)
    ]
    owner = inner // math.prod(region.box)
    tensor = np.zeros((len(region), region.ndim, region.ndim))
    for a, b in itertools.product(range(region.ndim), repeat=2):
        tensor[:, a, b] = np.bincount(owner, slopes[a] * slopes[b], minlength=len(region))
    found = _components("gradient", tensor)
    least = -region.largest(-channel.values)
    above = channel.values - least[region.owner]
    spread = region.mean(region.radius)
    for axis, offset in zip(AXES[-region.ndim :], region.offsets, strict=True):
        found[f"shift_{axis}"] = over(region.total(above * offset), region.total(above) * spread)
    return {name: channel.nan_if_flat(values) for name, values in found.items()}


def _components(name: str, tensors: Floats) -> dict[str, Floats]:
    """Return the components of symmetric tensors (n, ndim, ndim) but the last, each over the trace."""
    axes = AXES[-tensors.shape[1] :]
    trace = np.trace(tensors, axis1=1, axis2=2)
    return {
        f"{name}_{axes[a]}{axes[b]}": over(tensors[:, a, b], trace)
        for a, b in itertools.combinations_with_replacement(range(len(axes)), 2)
        if (axes[a], axes[b]) != ("x", "x")
    }


def _box_sizes(region: Region) -> Floats:
    sides = []
    for axis in range(1, region.ndim + 1):
        others = tuple(other for other in range(1, region.ndim + 1) if other != axis)
        seen = np.asarray(region.own.any(axis=others))
        sides.append(seen.shape[1] - seen.argmax(axis=1) - seen[:, ::-1].argmax(axis=1))
    sizes: Floats = np.prod(sides, axis=0).astype(np.float64)
    return sizes
