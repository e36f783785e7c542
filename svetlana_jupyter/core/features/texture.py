"""Texture: co-occurrence, semivariance, local binary patterns, detail.

All features are computed from values standardized by the object's own pixels, and averaged over all directions. The
orientation of objects and textures is measured separately; by default, a random forest does not use it.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from svetlana_jupyter.core.features.catalog import BLUR_SCALES, LBP_KINDS, PARTS, PIXEL_DISTANCES
from svetlana_jupyter.core.features.region import Floats, ObjectStack, Offset, Stack, inner_along, safe_divide
from svetlana_jupyter.core.features.shape import covariance, directions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from svetlana_jupyter.core.features.intensity import ObjectChannel

LEVELS = 8  # gray levels, each half a standard deviation wide; the outer two levels include all values beyond
EQUAL = 1e-4  # standard deviations by which a neighbor may be darker and still count as equal (rounding errors)
AXES = "zyx"
_MIN_DETAIL = 1e-4  # standard deviation up to which the detail consists of rounding errors
_SQUARE = tuple(itertools.product((-1, 0, 1), repeat=2))  # a pixel and its neighbors
_CIRCLE = tuple((math.sin(turn * math.pi / 4), math.cos(turn * math.pi / 4)) for turn in range(8))


class PaddedStack:
    """Objects in one flat array, separated by margins.

    The margins are as wide as the largest pixel offset, so that a pixel pair never spans two objects.

    Parameters
    ----------
    region : ObjectStack

    Attributes
    ----------
    at : int array of shape (m,)
        Flat positions of the object pixels in the padded stack, object by object.
    own : bool array
        Mask of the objects in the flat padded stack.
    """

    def __init__(self, region: ObjectStack) -> None:
        self.region = region
        longest = max(*PIXEL_DISTANCES, float(region.diameter.max()) / min(PARTS))
        reach = tuple(math.floor(longest / step) + 1 for step in region.step)
        box = tuple(side + margin for side, margin in zip(region.box, reach, strict=True))
        self._strides = tuple(math.prod(box[axis + 1 :]) for axis in range(region.ndim))
        # Steps may lead past the last object, but not before the first: the first nonzero part of offsets is positive.
        self.own = np.zeros(len(region) * math.prod(box) + self.flat(reach), bool)
        stack = self.own[: len(region) * math.prod(box)].reshape(len(region), *box)
        stack[(slice(None), *map(slice, region.box))] = region.own
        self.at = np.flatnonzero(self.own)

    def spread(self, values: NDArray[Any], outside: float) -> NDArray[Any]:
        """Return a flat padded stack of values at ``region.at``, ``outside`` elsewhere."""
        stack = np.full(len(self.own), outside, values.dtype)
        stack[self.at] = values
        return stack

    def shifts(self, distance: float) -> NDArray[np.int64]:
        """Return the index shifts of steps of the given distance in all directions."""
        return np.array([self.flat(offset) for offset in offsets(self.region.step, distance)], np.int64)

    def flat(self, offset: Offset) -> int:
        """Return the index shift of an offset in the flat stack."""
        return sum(part * stride for part, stride in zip(offset, self._strides, strict=True))


@lru_cache(maxsize=256)
def offsets(step: tuple[float, ...], distance: float) -> tuple[Offset, ...]:
    """Return the different pixel offsets of about this distance in all directions."""
    units = [np.array(direction) / np.linalg.norm(direction) for direction in directions(len(step))]
    rounded = (tuple(np.rint(distance * unit / np.array(step)).astype(int).tolist()) for unit in units)
    return tuple(dict.fromkeys(offset for offset in rounded if offset > (0,) * len(step)))


def texture_features(channel: ObjectChannel, padded: PaddedStack) -> dict[str, Floats]:
    """Return the measurements of the group "texture", each of shape (n,)."""
    features = haralick_features(channel, padded) | semivariance_features(channel, padded)
    features |= lbp_features(channel) | detail_features(channel)
    return {name: channel.nan_if_flat(values) for name, values in features.items()}


def haralick_features(channel: ObjectChannel, padded: PaddedStack) -> dict[str, Floats]:
    """Return gray-level co-occurrence features (Haralick et al., 1973)."""
    region, levels = channel.region, quantize_gray_levels(channel.standardized)
    stack = padded.spread(levels, LEVELS)  # an additional level for pixels outside the object
    base = (region.owner * LEVELS + levels) * (LEVELS + 1)
    features: dict[str, Floats] = {}
    for distance in PIXEL_DISTANCES:
        counts = np.zeros(len(region) * LEVELS * (LEVELS + 1), np.int64)
        for shift in padded.shifts(distance):
            counts += np.bincount(base + stack[padded.at + shift], minlength=len(counts))
        pairs = counts.reshape(len(region), LEVELS, LEVELS + 1)[..., :LEVELS]
        features |= {f"{name}_{distance}": values for name, values in _haralick(pairs).items()}
    return features


def quantize_gray_levels(standardized: Floats) -> NDArray[np.uint8]:
    """Return the gray level, 0 to LEVELS - 1, of each standardized value."""
    return np.asarray(np.clip(np.floor(2 * standardized) + LEVELS // 2, 0, LEVELS - 1), np.uint8)


def _haralick(pairs: NDArray[np.int64]) -> dict[str, Floats]:
    """Return features of symmetrized co-occurrence counts (n, LEVELS, LEVELS)."""
    symmetric = pairs + pairs.transpose(0, 2, 1)
    joint = safe_divide(symmetric, symmetric.sum(axis=(1, 2), keepdims=True))
    i, j = np.indices((LEVELS, LEVELS))
    mean = (joint * i).sum(axis=(1, 2), keepdims=True)
    variance = (joint * (i - mean) ** 2).sum(axis=(1, 2))
    joint_moment = (joint * (i - mean) * (j - mean)).sum(axis=(1, 2))
    return {
        "contrast": (joint * (i - j) ** 2).sum(axis=(1, 2)),
        "correlation": safe_divide(joint_moment, variance),
        "homogeneity": (joint / (1 + (i - j) ** 2)).sum(axis=(1, 2)),
        "entropy": -(joint * np.log2(np.where(joint > 0, joint, 1))).sum(axis=(1, 2)),
    }


def semivariance_features(channel: ObjectChannel, padded: PaddedStack) -> dict[str, Floats]:
    """Return the semivariance at several fractions of the object's diameter.

    The semivariance is half the mean squared difference of pixels at a given distance. At a fraction of the diameter,
    it is invariant to magnification of an object together with its texture.
    """
    region = channel.region
    values = channel.standardized.astype(np.float32)
    stack = padded.spread(values, 0)
    features = {}
    for part in PARTS:
        total, count = np.zeros(len(region)), np.zeros(len(region))
        for direction in directions(region.ndim):
            # The distance is rarely a whole number of steps, so interpolate between the two nearest whole numbers.
            steps = region.diameter / part / np.linalg.norm(np.multiply(direction, region.step))
            whole = np.floor(steps)
            shift = padded.flat(direction)
            lower, upper = (_semivariance(values, stack, padded, shift, whole + more) for more in (0, 1))
            interpolated = lower + (steps - whole) * (upper - lower)
            total += np.nan_to_num(interpolated)
            count += ~np.isnan(interpolated)
        features[f"grain_{part}"] = safe_divide(total, count)
    return features


def _semivariance(values: Stack, stack: Stack, padded: PaddedStack, shift: int, steps: Floats) -> Floats:
    """Return the semivariance of pixels ``steps`` (n,) apart, NaN without such pairs."""
    partner = padded.at + np.repeat(shift * steps.astype(np.int64), padded.region.counts)
    both = padded.own[partner]
    squares = np.square(values - stack[partner]) * both
    return safe_divide(padded.region.total(squares) / 2, padded.region.total(both))


def lbp_features(channel: ObjectChannel) -> dict[str, Floats]:
    """Return the shares of uniform local binary patterns (Ojala et al., 2002).

    A pattern consists of the neighbors that are at least as bright as the center. Patterns with at most two changes
    around the circle are classified by the number of these neighbors; all other patterns form one class. Only pixels
    with all neighbors in the object are used.
    """
    region = channel.region
    counts = np.zeros((len(region), LBP_KINDS))
    for axes in pattern_planes(region.step):
        inner = np.flatnonzero(inner_along(inner_along(region.own, axes[0]), axes[1]))  # all eight neighbors inside
        kinds = _pattern_kinds(channel.standardized_stack, inner, axes)
        owner = inner // math.prod(region.box)
        counts += np.bincount(owner * LBP_KINDS + kinds, minlength=counts.size).reshape(counts.shape)
    shares = safe_divide(counts, counts.sum(axis=1, keepdims=True))
    return {f"lbp_{kind}": shares[:, kind] for kind in range(LBP_KINDS)}


def pattern_planes(step: tuple[float, ...]) -> list[tuple[int, int]]:
    """Return the pairs of axes in whose planes local binary patterns are computed.

    These are y and x and, if the pixel size along z is the same, also the two pairs with z.
    """
    last = (len(step) - 2, len(step) - 1)
    pairs = itertools.combinations(range(len(step)), 2)
    return [axes for axes in pairs if axes == last or math.isclose(step[axes[0]], step[axes[1]], rel_tol=0.05)]


def _pattern_kinds(stack: Stack, inner: NDArray[np.int64], axes: tuple[int, int]) -> NDArray[np.int64]:
    """Return the class of the local binary pattern at flat positions of a stack."""
    flat, (down, right) = stack.reshape(-1), (stack.strides[axis + 1] // stack.itemsize for axis in axes)
    value = {(row, column): flat[inner + row * down + column * right] for row, column in _SQUARE}
    center = value[0, 0]
    brighter = []
    for y, x in _CIRCLE:
        row, column = round(y), round(x)
        neighbor = value[row, column]
        if row and column:  # bilinear interpolation, so that all eight neighbors lie on a circle
            part, beside = abs(y), value[row, 0] + value[0, column]
            neighbor = part * part * neighbor + part * (1 - part) * beside + (1 - part) ** 2 * center
        brighter.append(neighbor >= center - EQUAL)
    circle = np.array(brighter, np.int8)
    changes = np.count_nonzero(circle != np.roll(circle, 1, axis=0), axis=0)
    return np.where(changes <= 2, circle.sum(axis=0, dtype=np.int64), LBP_KINDS - 1)


def detail_features(channel: ObjectChannel) -> dict[str, Floats]:
    """Return standard deviation, skewness and peak of the detail that blurs remove."""
    region = channel.region
    finer, features = channel.standardized, {}
    for scale in BLUR_SCALES:
        coarser = region.of(blur_within_objects(region, channel.standardized_stack, scale))
        detail = region.subtract_mean(finer - coarser)
        deviation = np.sqrt(region.mean(detail * detail))
        features[f"detail_{scale}"] = deviation
        divisor = np.where(deviation > _MIN_DETAIL, deviation, 0.0)  # NaN if only rounding errors are left
        features[f"detail_skewness_{scale}"] = safe_divide(region.mean(detail * detail * detail), divisor**3)
        features[f"detail_peak_{scale}"] = safe_divide(region.largest(detail), divisor)
        finer = coarser
    return features


def blur_within_objects(region: ObjectStack, stack: Stack, scale: float) -> Stack:
    """Blur each object without its surroundings by a Gaussian of sigma ``scale``.

    Each pixel becomes the Gaussian-weighted mean of the object's own pixels (normalized convolution). The blur is
    computed by matrix products, which are many times faster than a filter for crops of the size of cells.
    """
    weight = _convolve(region.own.astype(np.float32), region, scale)
    weight[weight < 1e-6] = 1  # no division by 0 far from the object
    return _convolve(stack, region, scale) / weight


def _convolve(stack: Stack, region: ObjectStack, scale: float) -> Stack:
    for axis, (side, step) in enumerate(zip(region.box, region.step, strict=True), start=1):
        weights = _gaussian_matrix(side, scale / step)
        if axis == stack.ndim - 1:
            stack = stack @ weights
        else:
            lines = stack.reshape(-1, side, math.prod(stack.shape[axis + 1 :]))
            stack = (weights @ lines).reshape(stack.shape)
    return stack


@lru_cache(maxsize=256)
def _gaussian_matrix(side: int, scale: float) -> Stack:
    """Return the symmetric matrix that blurs a line of ``side`` pixels."""
    positions = np.arange(side)
    weights = np.exp(-0.5 * ((positions[:, None] - positions) / scale) ** 2)
    # Denormal numbers would make the product many times slower.
    return np.where(weights > 1e-9, weights, 0).astype(np.float32)


def orientation_features(region: ObjectStack) -> dict[str, Floats]:
    """Return the "orientation" measurements of the masks, each of shape (n,)."""
    moments = covariance(region)
    bbox_sizes = math.prod(region.largest(axis) + region.largest(-axis) + 1 for axis in region.positions)
    features = {"extent": np.nan_to_num(region.counts / bbox_sizes), **_tensor_components("shape", moments)}
    if region.ndim == 2:
        # Sine and cosine of twice the angle from the x axis toward higher rows: 0 degrees is horizontal, 90 vertical.
        sine, cosine = 2 * moments[:, 0, 1], moments[:, 1, 1] - moments[:, 0, 0]
        angle = np.degrees(np.arctan2(sine, cosine) / 2) % 180
        features["angle"] = np.where(np.hypot(sine, cosine) < 1e-9, np.nan, angle)
    return features


def texture_orientation_features(channel: ObjectChannel) -> dict[str, Floats]:
    """Return the "orientation" measurements of one channel, each of shape (n,)."""
    region = channel.region
    smooth = blur_within_objects(region, channel.standardized_stack, BLUR_SCALES[0]).reshape(-1)
    inner = np.flatnonzero(region.inner)
    strides = [side // channel.pixels.itemsize for side in channel.pixels.strides[1:]]
    steps = zip(strides, region.step, strict=True)
    slopes = [(smooth[inner + stride] - smooth[inner - stride]) / (2 * step) for stride, step in steps]
    owner = inner // math.prod(region.box)
    tensor = np.zeros((len(region), region.ndim, region.ndim))
    for a, b in itertools.product(range(region.ndim), repeat=2):
        tensor[:, a, b] = np.bincount(owner, slopes[a] * slopes[b], minlength=len(region))
    features = _tensor_components("gradient", tensor)
    minimum = -region.largest(-channel.values)
    weights = channel.values - minimum[region.owner]
    divisor = region.total(weights) * region.mean(region.radius)
    for axis, offset in zip(AXES[-region.ndim :], region.offsets, strict=True):
        features[f"shift_{axis}"] = safe_divide(region.total(weights * offset), divisor)
    return {name: channel.nan_if_flat(values) for name, values in features.items()}


def _tensor_components(name: str, tensors: Floats) -> dict[str, Floats]:
    """Return components of symmetric tensors (n, ndim, ndim), divided by the trace.

    The last diagonal component follows from the other components and is left out.
    """
    axes = AXES[-tensors.shape[1] :]
    trace = np.trace(tensors, axis1=1, axis2=2)
    pairs = list(itertools.combinations_with_replacement(range(len(axes)), 2))
    return {f"{name}_{axes[a]}{axes[b]}": safe_divide(tensors[:, a, b], trace) for a, b in pairs[:-1]}
