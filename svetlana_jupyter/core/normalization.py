"""Bringing the pixels of patches to comparable values (the paper, section 4.1, and more).

The grain of an object: what is left of its pixels when all that its outline explains is taken away.

Along the edge of an object its light mixes with that of its surroundings. In small objects this fall-off drowns a faint
texture, and a rim that leaves it out leaves out most of the object.

Telling what is an object's own light from what mixes in along its edge.

An even object in even surroundings looks, through any optics, like a constant and its own mask, blurred. So that is
fitted to the pixels of each object, for blurs from sharp to soft; what does not fit is the object's own.

Widening and narrowing the masks of objects.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from xarray import DataArray

from svetlana_jupyter.core.io.chunks import index_last_axes, read_padded
from svetlana_jupyter.core.settings import PatchSettings
from svetlana_jupyter.errors import DamagedError

LIMIT = 1 + 1e-5  # of squared distances
MAX_JOINED_ROWS = 400  # that are brought together one by one


def widened(own: NDArray[np.bool_], reach: Sequence[float]) -> NDArray[np.bool_]:
    """Widen each mask of (n, [z,] y, x) by a ball of ``reach`` pixels along each axis.

    Masks widened along rows are brought together from all neighbouring rows and planes: many times faster than a
    distance transform for the few pixels that are usual. Where these are many, squared distances in units of the ball
    are brought together axis by axis instead.
    """
    steps = [math.floor(radius + 1e-6) for radius in reach]
    if not any(steps):
        return own.copy()
    part = (slice(None), *joint_bbox(own, steps))
    result = np.zeros_like(own)
    result[part] = _widened(np.ascontiguousarray(own[part]), reach, steps)
    return result


def joint_bbox(own: NDArray[np.bool_], more: Sequence[int]) -> tuple[slice, ...]:
    """Return the box that holds all masks of (n, [z,] y, x), and so many pixels more on either side of each axis."""
    seen, box = np.asarray(own.any(axis=0)), []
    for axis, step in enumerate(more):
        places = np.flatnonzero(seen.any(axis=tuple(other for other in range(seen.ndim) if other != axis)))
        box.append(slice(max(int(places[0]) - step, 0), int(places[-1]) + step + 1) if len(places) else slice(0, 0))
    return tuple(box)


def _widened(own: NDArray[np.bool_], reach: Sequence[float], steps: Sequence[int]) -> NDArray[np.bool_]:
    rows = math.prod(2 * step + 1 for step in steps[:-1])
    if rows > MAX_JOINED_ROWS:
        return _near(own, reach)
    wider = [own]
    for step in range(1, steps[-1] + 1):
        wider.append(_joined(wider[-1].copy(), own, (0,) * (own.ndim - 2) + (step,), ahead_and_behind=True))
    result = np.zeros_like(own)
    for offset in itertools.product(*(range(-step, step + 1) for step in steps[:-1])):
        left = LIMIT - sum((step / radius) ** 2 for step, radius in zip(offset, reach) if step)
        if left >= 0:
            _joined(result, wider[math.floor(reach[-1] * math.sqrt(left) + 1e-9)], (*offset, 0))
    return result


def _joined(
    result: NDArray[np.bool_], mask: NDArray[np.bool_], offset: Sequence[int], ahead_and_behind: bool = False
) -> NDArray[np.bool_]:
    """Add to ``result`` a mask that is shifted along all axes but the first, and shifted back where that is asked."""
    to = tuple(slice(max(step, 0), min(step, 0) or None) for step in offset)
    since = tuple(slice(max(-step, 0), min(-step, 0) or None) for step in offset)
    for into, out_of in [(to, since), (since, to)] if ahead_and_behind else [(to, since)]:
        into, out_of = (slice(None), *into), (slice(None), *out_of)
        np.logical_or(result[into], mask[out_of], out=result[into])
    return result


def _near(own: NDArray[np.bool_], reach: Sequence[float]) -> NDArray[np.bool_]:
    distance = np.where(own, np.float32(0), np.float32(2))
    for axis, radius in enumerate(reach, start=1):
        before = distance
        distance = before.copy()
        for step in range(1, math.floor(radius + 1e-6) + 1):
            farther = before + np.float32((step / radius) ** 2)
            ahead, behind = (
                tuple(part if other == axis else slice(None) for other in range(own.ndim))
                for part in (slice(step, None), slice(None, -step))
            )
            np.minimum(distance[ahead], farther[behind], out=distance[ahead])
            np.minimum(distance[behind], farther[ahead], out=distance[behind])
    return distance <= np.float32(LIMIT)


def erode_masks(own: NDArray[np.bool_], reach: Sequence[float]) -> NDArray[np.bool_]:
    """Narrow each mask by as much as `widened` widens it; one that nothing would be left of stays as it is."""
    if max(reach) < 1:
        return own
    inner = ~widened(~own, reach)
    gone = ~inner.any(axis=tuple(range(1, own.ndim)))
    inner[gone] = own[gone]
    return inner


BLUR_SIGMAS = (0.5, 1.0, 2.0)  # standard deviations, pixels
REACH = 3  # deviations, beyond which a blur is cut off
INNER = 4  # power of the softest blurred mask that weighs the middle of an object
SINGULAR = 1e-9  # beside the greatest eigenvalue: an object of few pixels is explained in several ways

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


def grain(pixels: Floats, own: NDArray[np.bool_], view: tuple[slice, ...]) -> Floats:
    """Return the residuals of each object's pixels, in units of its level; zero beside it.

    Parameters
    ----------
    pixels : float32 of shape (n, C, [z,] y, x)
    own : bool of shape (n, [z,] y, x)
    view : tuple of slice
        The field of view inside the patch: what is blurred and fitted, so that a margin around it changes nothing.

    Returns
    -------
    float32 of shape (n, C, [z,] y, x)
        The level is the mean of the object's middle, where least light is mixed in, or the deviation of the residuals
        where that is more.
    """
    soft, counted = blur_masks(own, view), np.zeros_like(own)
    counted[index_last_axes(view)] = own[index_last_axes(view)]
    coefficients, level = fit(pixels, counted, soft)
    residuals = unmixing_residual(pixels, own, soft, coefficients)
    n, channels, axes = *pixels.shape[:2], tuple(range(2, pixels.ndim))
    count = np.count_nonzero(counted, axis=tuple(range(1, own.ndim))).clip(1)
    spread = (np.sum(residuals**2, axis=axes, where=counted[:, None]) / count[:, None]) ** 0.5
    scale = np.maximum(np.abs(level), spread).reshape(n, channels, *(1 for _ in axes))
    scaled = np.divide(residuals, scale, out=np.zeros_like(residuals), where=scale > 0)
    found: Floats = scaled.astype(np.float32)
    return found


Floats = NDArray[np.float32]

LOW, HIGH = 1.0, 99.8
TWICE = {"both": ("percentile", "object"), "both_raw": ("none", "object")}
SAMPLED_PIXELS = 4_000_000
SAMPLED_BLOCKS = 16


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of one image, each of shape (C,); of a sample when the image is large."""

    least: Floats
    most: Floats
    low: Floats
    high: Floats


_known: dict[str, ImageStatistics] = {}


def image_statistics(image: DataArray) -> ImageStatistics:
    """Return extremes and percentiles of each channel of a ``c(z)yx`` image.

    Images of up to four million pixels a channel are taken whole, larger ones at 16 places spread evenly, so that time
    and memory are bounded. The result is kept for as long as the process runs.
    """
    name = getattr(image.data, "name", None)  # dask names an array by its content
    if name in _known:
        return _known[name]
    pixels, whole = _sample(image)
    low, high = np.percentile(pixels, (LOW, HIGH), axis=1)
    statistics = ImageStatistics(
        pixels.min(axis=1), pixels.max(axis=1), low.astype(np.float32), high.astype(np.float32)
    )
    if name is not None and whole:
        _known[name] = statistics
    return statistics


def set_image_statistics(image: DataArray, statistics: ImageStatistics | None) -> None:
    """Take what was measured elsewhere for the statistics of an image; None forgets them."""
    _known.pop(image.data.name, None)
    if statistics is not None:
        _known[image.data.name] = statistics


def normalize(
    pixels: Floats,
    own: NDArray[np.bool_],
    view: tuple[slice, ...],
    settings: PatchSettings,
    image: ImageStatistics | None,
    out: Floats | None = None,
) -> Floats:
    """Return patches of shape (n, C', [z,] y, x) from raw ones.

    Parameters
    ----------
    pixels : float32 of shape (n, C, [z,] y, x)
    own : bool of shape (n, [z,] y, x)
        The pixels of the object itself, without its rim.
    view : tuple of slice
        The field of view inside the patch: statistics are taken there, so that a margin changes nothing.
    image : ImageStatistics, optional
        Needed for "percentile" and "both", and for "minmax" and "max" with ``scope="image"``.
    out : float32 of shape (n, C', [z,] y, x), optional
        Where to write them.
    """
    how, channels = settings.normalize, pixels.shape[1]
    if out is None:
        out = np.empty((len(pixels), channels * (2 if how in TWICE else 1), *pixels.shape[2:]), np.float32)
    if how == "none":
        out[:] = pixels
        return out
    if how in TWICE:
        for one, part in zip(TWICE[how], (out[:, :channels], out[:, channels:]), strict=True):
            normalize(pixels, own, view, settings.changed(normalize=one), image, part)
        return out
    if how == "grain":
        out[:] = grain(pixels, own, view)
        return out
    if how in ("object", "apart"):
        seen = index_last_axes(view)
        _rescaled(pixels, *_object_statistics(pixels[seen], own[seen]), out)
        if how == "apart":
            assert settings.rim != "auto"
            around = ~widened(own, (2 * settings.rim,) * len(view))
            apart = _rescaled(pixels, *_object_statistics(pixels[seen], around[seen]), np.empty_like(out))
            np.copyto(out, apart, where=~own[:, None])
        return out
    axes = tuple(range(2, pixels.ndim))
    if how == "percentile" or settings.scope == "image":
        if image is None:
            raise ValueError("image statistics are needed")
        low, high = (image.low, image.high) if how == "percentile" else (image.least, image.most)
        low, high = (values.reshape(1, -1, *(1 for _ in axes)) for values in (low, high))
    else:
        part = pixels[index_last_axes(view)]
        low, high = part.min(axis=axes, keepdims=True), part.max(axis=axes, keepdims=True)
    if how == "max":
        low, high = np.zeros_like(high), np.abs(high)
    return _rescaled(pixels, low, high - low, out)


def _object_statistics(pixels: Floats, own: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return mean and deviation, each (n, C, 1, ...), of the object's own pixels, or of all where it has none."""
    n, channels = pixels.shape[:2]
    empty = ~own.any(axis=tuple(range(1, own.ndim)))
    if not empty.any():  # nothing beside the objects counts
        part = index_last_axes(joint_bbox(own, (0,) * (own.ndim - 1)))
        pixels, own = pixels[part], own[part]
    weights = own.reshape(n, -1).astype(np.float32)
    weights[empty] = 1
    count = weights.sum(axis=1)[:, None]
    values = pixels.reshape(n, channels, -1)
    mean = (values @ weights[:, :, None])[..., 0] / count
    values = values - mean[..., None]
    mean += (correction := (values @ weights[:, :, None])[..., 0] / count)  # sums of large values are not exact
    variance = np.einsum("ncp,ncp->nc", values * weights[:, None], values) / count - correction**2
    shape = (n, channels, *(1 for _ in pixels.shape[2:]))
    return mean.reshape(shape), np.sqrt(np.maximum(variance, 0)).reshape(shape)


def _rescaled(pixels: Floats, offset: Floats, scale: Floats, out: Floats) -> Floats:
    """Write ``(pixels - offset) / scale`` to ``out``, zeros where the scale is (nearly) zero beside the values."""
    flat = scale <= 1e-6 * np.maximum(np.abs(offset), np.float32(1e-30))
    np.subtract(pixels, offset, out=out)
    np.divide(out, np.where(flat, np.float32(1), scale), out=out)
    if flat.any():
        np.copyto(out, np.float32(0), where=flat)
    return out


def _sample(image: DataArray) -> tuple[Floats, bool]:
    """Return pixels of shape (C, n), float32, and whether all that were wanted could be read."""
    shape, damaged = np.array(image.shape[1:]), False
    side = int((SAMPLED_PIXELS / SAMPLED_BLOCKS) ** (1 / len(shape)))
    if shape.prod() <= SAMPLED_PIXELS:
        try:
            pixels = read_padded(image, np.zeros_like(shape), shape, "zeros")
            return to_finite_float32(pixels.reshape(len(pixels), -1)), True
        except DamagedError:
            side, damaged = max(1, int(shape.max()) // SAMPLED_BLOCKS), True
    sides = np.minimum(side, shape)
    # Low-discrepancy places: evenly spread along every axis, without the lattice of a grid.
    places = (0.5 + np.outer(np.arange(1, SAMPLED_BLOCKS + 1), _IRRATIONALS[: len(shape)])) % 1.0
    blocks = []
    for start in np.floor(places * (shape - sides + 1)).astype(np.int64):
        try:
            blocks.append(read_padded(image, start, start + sides, "zeros"))
        except DamagedError as error:
            damage, damaged = error, True
    if not blocks:
        raise damage
    return to_finite_float32(np.concatenate([block.reshape(len(block), -1) for block in blocks], axis=1)), not damaged


_IRRATIONALS = np.sqrt([2.0, 3.0, 5.0])


def to_finite_float32(pixels: NDArray[np.generic]) -> Floats:
    """Return ``pixels`` as float32, zeros where they are not finite."""
    if pixels.dtype.kind in "biu":
        return pixels.astype(np.float32)
    return np.nan_to_num(pixels.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
