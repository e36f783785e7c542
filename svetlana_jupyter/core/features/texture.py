"""How grey values follow each other in an object, whatever its brightness and however it is turned.

All of it is computed on values standardised by the object's own pixels, and over all directions at once.

Local binary patterns: which of its eight neighbours in a plane are at least as bright as a pixel.

Uniform and rotation invariant (Ojala, Pietikäinen and Mäenpää, 2002): a pattern with at most two changes between
brighter and darker round the circle counts by its number of brighter neighbours, all others as one.

Detail by its size: an object's own pixels, blurred more and more, and what each blurring takes away.

The blur of a pixel is the mean of the object's own pixels round it, weighted by a Gaussian, so that nothing from
outside comes in. It is computed by matrix products, which for boxes of the size of cells are many times faster than a
filter.

The pixels some way from each pixel of an object, for all objects of a stack at once.

Which way objects and their textures lie; left out of a forest unless it is asked for.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.features.catalog import BLUR_SCALES, LBP_KINDS, PARTS, PIXEL_DISTANCES
from svetlana_jupyter.core.features.intensity import Channel
from svetlana_jupyter.core.features.region import Floats, Offset, Region, Stack, over
from svetlana_jupyter.core.features.shape import covariance, directions

NEIGHBORS = 8
EQUAL = 1e-4  # deviations by which a neighbour may be darker and still counts as equal: rounding decides nothing
_CIRCLE = tuple((math.sin(turn * math.pi / 4), math.cos(turn * math.pi / 4)) for turn in range(NEIGHBORS))


def patterns(channel: Channel) -> dict[str, Floats]:
    """Return the share of each kind of pattern among the pixels whose neighbours are the object's own too."""
    region = channel.region
    counts = np.zeros((len(region), LBP_KINDS))
    for axes in planes(region.step):
        inside = np.flatnonzero(_surrounded(region, axes))
        kinds = _kinds(channel.standardized_stack, inside, axes)
        owner = inside // math.prod(region.box)
        counts += np.bincount(owner * LBP_KINDS + kinds, minlength=counts.size).reshape(counts.shape)
    shares = over(counts, counts.sum(axis=1, keepdims=True))
    return {f"lbp_{kind}": shares[:, kind] for kind in range(LBP_KINDS)}


def planes(step: tuple[float, ...]) -> list[tuple[int, int]]:
    """Return the pairs of axes to look along: those of rows and columns, and of any other axes of equal step."""
    last = (len(step) - 2, len(step) - 1)
    every = itertools.combinations(range(len(step)), 2)
    return [axes for axes in every if axes == last or math.isclose(step[axes[0]], step[axes[1]], rel_tol=0.05)]


def _surrounded(region: Region, axes: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels of the stack have all eight neighbours in their own object."""
    inside = region.own.copy()
    for axis in axes:
        narrower = np.zeros_like(inside)
        before, here, after = (
            tuple(part if other == axis + 1 else slice(None) for other in range(inside.ndim))
            for part in (slice(None, -2), slice(1, -1), slice(2, None))
        )
        narrower[here] = inside[before] & inside[here] & inside[after]
        inside = narrower
    return inside


def _kinds(stack: NDArray[np.float32], inside: NDArray[np.int64], axes: tuple[int, int]) -> NDArray[np.int64]:
    flat = stack.reshape(-1)
    strides = [stack.strides[axis + 1] // stack.itemsize for axis in axes]
    center = flat[inside]
    value = {
        (row, column): flat[inside + row * strides[0] + column * strides[1]]
        for row, column in itertools.product((-1, 0, 1), repeat=2)
        if row or column
    }
    brighter = []
    for down, right in _CIRCLE:
        row, column = round(down), round(right)
        neighbor = value[row, column]
        if row and column:  # between pixels, so that all eight lie on a circle
            part = abs(down)
            neighbor = (
                part * part * neighbor
                + part * (1 - part) * (value[row, 0] + value[0, column])
                + (1 - part) ** 2 * center
            )
        brighter.append(neighbor >= center - EQUAL)
    ring = np.array(brighter, np.int8)
    changes = np.count_nonzero(ring != np.roll(ring, 1, axis=0), axis=0)
    return np.where(changes <= 2, ring.sum(axis=0, dtype=np.int64), LBP_KINDS - 1)


def bands(channel: Channel) -> dict[str, Floats]:
    """Return deviation, skewness and peak of the detail between each scale and the one before."""
    region = channel.region
    finer, found = channel.standardized, {}
    for scale in BLUR_SCALES:
        coarser = region.of(blurred(region, channel.standardized_stack, scale))
        band = region.subtract_mean(finer - coarser)
        deviation = np.sqrt(region.mean(band * band))
        found[f"detail_{scale}"] = deviation
        # Of one pixel, or where a blur changes nothing, only rounding would be left to describe.
        something = np.where(deviation > 1e-4, deviation, 0.0)
        found[f"detail_skewness_{scale}"] = over(region.mean(band * band * band), something**3)
        found[f"detail_peak_{scale}"] = over(region.largest(band), something)
        finer = coarser
    return found


def blurred(region: Region, stack: Stack, scale: float) -> Stack:
    """Return a stack, zero outside the objects, blurred inside them by a Gaussian of ``scale`` lengths."""
    weight = _filtered(region.own.astype(np.float32), region, scale)
    weight[weight < 1e-6] = 1  # far from the object
    return _filtered(stack, region, scale) / weight


def _filtered(stack: Stack, region: Region, scale: float) -> Stack:
    for axis, (side, step) in enumerate(zip(region.box, region.step, strict=True), start=1):
        weights = _gaussian(side, scale / step)
        if axis == stack.ndim - 1:
            stack = stack @ weights
        else:
            shape = stack.shape
            lines = stack.reshape(-1, side, int(np.prod(shape[axis + 1 :])))
            stack = (weights @ lines).reshape(shape)
    return stack


@lru_cache(maxsize=256)
def _gaussian(side: int, scale: float) -> Stack:
    """Return the symmetric matrix that blurs a line of ``side`` pixels."""
    places = np.arange(side)
    weights = np.exp(-0.5 * ((places[:, None] - places) / scale) ** 2)
    # Numbers near the smallest there are would make the product many times slower.
    return np.where(weights > 1e-9, weights, 0).astype(np.float32)


class PaddedStack:
    """A stack with a margin behind each axis, so that a step from an object's pixel never ends in another object.

    Parameters
    ----------
    region : Region
    reach : tuple of int
        How many pixels a step may be long along each axis.

    Attributes
    ----------
    at : int array of shape (m,)
        Flat positions of the objects' pixels in the widened stack; those of one object after those of another.
    own : bool array
        Which pixels of the flat widened stack belong to an object.
    """

    def __init__(self, region: Region, reach: tuple[int, ...]) -> None:
        self.region = region
        box = tuple(side + margin for side, margin in zip(region.box, reach, strict=True))
        self._strides = tuple(math.prod(box[axis + 1 :]) for axis in range(region.ndim))
        # Steps may lead behind the last object, never before the first: the first part of an offset is positive.
        self.own = np.zeros(len(region) * math.prod(box) + self.flat(reach), bool)
        stack = self.own[: len(region) * math.prod(box)].reshape(len(region), *box)
        stack[(slice(None), *map(slice, region.box))] = region.own
        self.at = np.flatnonzero(self.own)

    @classmethod
    def of(cls, region: Region) -> Self:
        """Prepare for all the distances that a texture is measured at."""
        longest = max(*PIXEL_DISTANCES, float(region.diameter.max()) / min(PARTS))
        return cls(region, tuple(math.floor(longest / step) + 1 for step in region.step))

    def spread(self, values: NDArray[Any], outside: float) -> NDArray[Any]:
        """Return values at ``region.at`` as a flat widened stack."""
        stack = np.full(len(self.own), outside, values.dtype)
        stack[self.at] = values
        return stack

    def shifts(self, distance: float) -> NDArray[np.int64]:
        """Return how far steps of a length, in all directions, lead in the flat stack."""
        return np.array([self.flat(offset) for offset in offsets(self.region.step, distance)], np.int64)

    def flat(self, offset: Offset) -> int:
        """Return how far a step leads in the flat stack."""
        return sum(part * stride for part, stride in zip(offset, self._strides, strict=True))


@lru_cache(maxsize=256)
def offsets(step: tuple[float, ...], distance: float) -> tuple[Offset, ...]:
    """Return the offsets of about this length in all directions; longer pixels are stepped over less often."""
    found: dict[Offset, None] = {}
    for direction in directions(len(step)):
        unit = np.array(direction) / np.linalg.norm(direction)
        offset = tuple(int(part) for part in np.rint(distance * unit / np.array(step)))
        if offset > (0,) * len(step):
            found[offset] = None
    return tuple(found)


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
