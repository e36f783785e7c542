"""Normalization of patches, dilation of masks, and residual texture.

Along the edge of an object, optical blur mixes its light with that of its surroundings. In small objects, this gradient
hides faint texture, and an eroded margin would remove most of the object. But the image of a uniform object in uniform
surroundings is a constant plus the blurred mask of the object. So a constant and the mask, blurred by several widths,
are fitted to the pixels of each object and subtracted. The remainder is the residual texture.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from svetlana_jupyter.core.io.chunks import index_last_axes, read_padded
from svetlana_jupyter.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xarray import DataArray

    from svetlana_jupyter.core.settings import PatchSettings

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

LOW_PERCENTILE, HIGH_PERCENTILE = 1.0, 99.8
DOUBLED_NORMALIZATIONS = {"both": ("percentile", "object"), "both_raw": ("none", "object")}
SAMPLED_PIXELS = 4_000_000
SAMPLED_BLOCKS = 16
SAMPLING_IRRATIONALS = np.sqrt([2.0, 3.0, 5.0])

ROUNDING = 1 + 1e-5  # tolerance of squared distances
MAX_SHIFTED_ROWS = 400  # up to this number of rows in an ellipsoid, shifting is faster than a distance transform

BLUR_SIGMAS = (0.5, 1.0, 2.0)  # standard deviations in pixels
BLUR_REACH = 3  # standard deviations beyond which a blur is cut off
MIDDLE_POWER = 4  # the widest blur of a mask, raised to this power, weights pixels toward the middle of the object
# Eigenvalues below this fraction of the largest one are ignored: with few pixels, the fit has several solutions.
SINGULAR = 1e-9


class ImageStatistics(NamedTuple):
    """Extremes and percentiles of the channels of one image, each of shape (C,).

    The statistics of a large image are computed from a sample of its pixels.
    """

    min_value: Floats
    max_value: Floats
    low: Floats
    high: Floats


_cached_statistics: dict[str, ImageStatistics] = {}


def compute_image_statistics(image: DataArray) -> ImageStatistics:
    """Return extremes and percentiles of each channel of a ``c(z)yx`` image.

    Images of up to four million pixels per channel are read whole. Of larger images, 16 evenly spread blocks are read,
    so that time and memory are bounded. The result is cached for as long as the process runs.
    """
    name = getattr(image.data, "name", None)  # the name of a dask array identifies its content
    if name in _cached_statistics:
        return _cached_statistics[name]
    pixels, is_complete = _sample_pixels(image)
    low, high = np.percentile(pixels, (LOW_PERCENTILE, HIGH_PERCENTILE), axis=1).astype(np.float32)
    statistics = ImageStatistics(pixels.min(axis=1), pixels.max(axis=1), low, high)
    if name is not None and is_complete:
        _cached_statistics[name] = statistics
    return statistics


def set_image_statistics(image: DataArray, statistics: ImageStatistics | None) -> None:
    """Cache statistics that were computed elsewhere; None removes cached ones."""
    _cached_statistics.pop(image.data.name, None)
    if statistics is not None:
        _cached_statistics[image.data.name] = statistics


def normalize(
    pixels: Floats,
    masks: Bools,
    field_of_view: tuple[slice, ...],
    settings: PatchSettings,
    statistics: ImageStatistics | None,
    out: Floats,
    hidden: int = 0,
    bbox: tuple[slice, ...] = (),
) -> Floats:
    """Write the normalized channels of patches to ``out``.

    Parameters
    ----------
    pixels : float32 of shape (n, C, [z,] y, x)
    masks : bool of shape (n, [z,] y, x)
        The object's own pixels, without the eroded margin.
    field_of_view : tuple of slice
        Part of the patch from which statistics are computed, so that a margin around it does not change the result.
    settings : PatchSettings
    statistics : ImageStatistics, optional
        Needed for "percentile" and "both", and for "minmax" and "max" with ``scope="image"``.
    out : float32 of shape (n, C', [z,] y, x)
        Array to write the result to. C' is 2 C for normalizations that double the channels.
    hidden : int
        Number of channels, the last ones, of which only ``bbox`` is written: 0, C or C'.
    bbox : tuple of slice
        Bounding box that contains all masks.

    Returns
    -------
    float32 of shape (n, C', [z,] y, x)
        ``out``.

    Raises
    ------
    ValueError
        If the normalization is not implemented, or the statistics of the image are missing.
    """
    kinds, seen = DOUBLED_NORMALIZATIONS.get(settings.normalize, (settings.normalize,)), index_last_axes(field_of_view)
    channels = pixels.shape[1]
    for first, kind in zip(range(0, out.shape[1], channels), kinds):
        part = index_last_axes(bbox if first >= out.shape[1] - hidden else ())
        target = out[:, first : first + channels]
        if kind == "none":
            target[part] = pixels[part]
        elif kind == "grain":
            target[part] = residual_texture(pixels, masks, field_of_view)[part]
        elif kind == "object":
            _rescale(pixels[part], *_object_statistics(pixels[seen], masks[seen]), target[part])
        elif kind == "apart":
            assert settings.rim != "auto"
            around = ~dilate_masks(masks, (2 * settings.rim,) * len(field_of_view))
            _rescale(pixels[part], *_object_statistics(pixels[seen], around[seen]), target[part])
            inside = index_last_axes(joint_bbox(masks, (0,) * len(field_of_view)))
            own = np.empty((*target.shape[:2], *masks[inside].shape[1:]), np.float32)
            _rescale(pixels[inside], *_object_statistics(pixels[seen], masks[seen]), own)
            np.copyto(target[inside], own, where=masks[inside][:, None])
        elif kind in ("minmax", "max", "percentile"):
            low, high = _value_range(pixels[seen], kind, settings.scope, statistics)
            _rescale(pixels[part], low, high - low, target[part])
        else:
            raise ValueError(f"Normalization {kind!r} is not implemented in core.normalization.")
    return out


def _value_range(seen: Floats, kind: str, scope: str, statistics: ImageStatistics | None) -> tuple[Floats, Floats]:
    """Return the values that map to 0 and 1, each broadcastable to (n, C, [z,] y, x)."""
    axes = tuple(range(2, seen.ndim))
    if kind == "percentile" or scope == "image":
        if statistics is None:
            raise ValueError(f"Normalization {kind!r} needs the statistics of the image.")
        extremes = statistics.min_value, statistics.max_value
        limits = (statistics.low, statistics.high) if kind == "percentile" else extremes
        low, high = (values.reshape(1, -1, *(1 for _ in axes)) for values in limits)
    else:
        low, high = seen.min(axis=axes, keepdims=True), seen.max(axis=axes, keepdims=True)
    return (np.zeros_like(high), np.abs(high)) if kind == "max" else (low, high)


def _object_statistics(pixels: Floats, masks: Bools) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of each object's pixels.

    Both have shape (n, C, 1, ...). For an object without pixels, they are those of its whole patch.
    """
    n, channels = pixels.shape[:2]
    empty = ~masks.any(axis=tuple(range(1, masks.ndim)))
    if not empty.any():  # then pixels outside the joint bounding box have no effect
        part = index_last_axes(joint_bbox(masks, (0,) * (masks.ndim - 1)))
        pixels, masks = pixels[part], masks[part]
    weights = masks.reshape(n, -1).astype(np.float32)
    weights[empty] = 1
    count = weights.sum(axis=1)[:, None]
    values = pixels.reshape(n, channels, -1)
    mean = (values @ weights[:, :, None])[..., 0] / count
    values = values - mean[..., None]
    mean += (correction := (values @ weights[:, :, None])[..., 0] / count)  # float32 sums of large values are inexact
    variance = (np.square(values, out=values) @ weights[:, :, None])[..., 0] / count - correction**2
    shape = (n, channels, *(1 for _ in pixels.shape[2:]))
    return mean.reshape(shape), np.sqrt(np.maximum(variance, 0)).reshape(shape)


def _rescale(pixels: Floats, offset: Floats, scale: Floats, out: Floats) -> Floats:
    """Write ``(pixels - offset) / scale`` to ``out``, and return it.

    Where the scale is negligible relative to the offset, the result is zero.
    """
    flat = scale <= 1e-6 * np.maximum(np.abs(offset), np.float32(1e-30))
    np.subtract(pixels, offset, out=out)
    np.divide(out, np.where(flat, np.float32(1), scale), out=out)
    if flat.any():
        np.copyto(out, np.float32(0), where=flat)
    return out


def _sample_pixels(image: DataArray) -> tuple[Floats, bool]:
    """Return sampled pixels, (C, n), and whether all blocks could be read."""
    shape, damaged = np.array(image.shape[1:]), False
    side = int((SAMPLED_PIXELS / SAMPLED_BLOCKS) ** (1 / len(shape)))
    if shape.prod() <= SAMPLED_PIXELS:
        try:
            pixels = read_padded(image, np.zeros_like(shape), shape, "zeros")
            return to_finite_float32(pixels.reshape(len(pixels), -1)), True
        except DamagedError:
            side, damaged = max(1, int(shape.max()) // SAMPLED_BLOCKS), True
    sides = np.minimum(side, shape)
    # A low-discrepancy sequence: evenly spread along every axis, without the lattice of a grid.
    numbers = np.arange(1, SAMPLED_BLOCKS + 1)
    places = (0.5 + np.outer(numbers, SAMPLING_IRRATIONALS[: len(shape)])) % 1.0
    blocks = []
    for start in np.floor(places * (shape - sides + 1)).astype(np.int64):
        try:
            blocks.append(read_padded(image, start, start + sides, "zeros"))
        except DamagedError as error:
            damage, damaged = error, True
    if not blocks:
        raise damage
    return to_finite_float32(np.concatenate([block.reshape(len(block), -1) for block in blocks], axis=1)), not damaged


def to_finite_float32(pixels: NDArray[np.generic]) -> Floats:
    """Return pixels as float32; values that are not finite become zero."""
    if pixels.dtype.kind in "biu":
        return pixels.astype(np.float32)
    return np.nan_to_num(pixels.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def dilate_masks(masks: Bools, reach: Sequence[float]) -> Bools:
    """Dilate masks, (n, [z,] y, x), by an ellipsoid of ``reach`` pixels per axis.

    Masks are first dilated along rows, then combined with those shifted from neighboring rows and planes. For the usual
    reach of a few pixels, this takes 1.6 ms for 400 masks. A distance transform, which would take 165 ms, is used only
    for wide ellipsoids.
    """
    steps = [math.floor(radius + 1e-6) for radius in reach]
    if not any(steps):
        return masks.copy()
    part = (slice(None), *joint_bbox(masks, steps))
    result = np.zeros_like(masks)
    rows = math.prod(2 * step + 1 for step in steps[:-1])
    dilate = _dilate_by_shifts if rows <= MAX_SHIFTED_ROWS else _dilate_by_distance
    result[part] = dilate(np.ascontiguousarray(masks[part]), reach, steps)
    return result


def joint_bbox(masks: Bools, margin: Sequence[int]) -> tuple[slice, ...]:
    """Return the bounding box of all masks together, with a margin on each side.

    ``masks`` has shape (n, [z,] y, x).
    """
    seen, bbox = np.asarray(masks.any(axis=0)), []
    for axis, pixels in enumerate(margin):
        places = np.flatnonzero(seen.any(axis=tuple(other for other in range(seen.ndim) if other != axis)))
        low, high = (int(places[0]), int(places[-1]) + 1) if len(places) else (-pixels, -pixels)
        bbox.append(slice(max(low - pixels, 0), high + pixels))
    return tuple(bbox)


def _dilate_by_shifts(masks: Bools, reach: Sequence[float], steps: Sequence[int]) -> Bools:
    along_rows = [masks]  # dilated by 0, 1, ... pixels along the last axis
    for step in range(1, steps[-1] + 1):
        along_rows.append(along_rows[-1].copy())
        for shift in (step, -step):
            _add_shifted(along_rows[-1], masks, (*[0] * (masks.ndim - 2), shift))
    result = np.zeros_like(masks)
    for offset in itertools.product(*(range(-step, step + 1) for step in steps[:-1])):
        left = ROUNDING - sum((step / radius) ** 2 for step, radius in zip(offset, reach) if step)
        if left >= 0:
            _add_shifted(result, along_rows[math.floor(reach[-1] * math.sqrt(left) + 1e-9)], (*offset, 0))
    return result


def _add_shifted(result: Bools, masks: Bools, offset: Sequence[int]) -> None:
    """Add masks to ``result`` after shifting each by ``offset`` pixels per axis."""
    target = (slice(None), *(slice(max(step, 0), min(step, 0) or None) for step in offset))
    source = (slice(None), *(slice(max(-step, 0), min(-step, 0) or None) for step in offset))
    np.logical_or(result[target], masks[source], out=result[target])


def _dilate_by_distance(masks: Bools, reach: Sequence[float], steps: Sequence[int]) -> Bools:
    # Distances in units of the ellipsoid's radii; along an axis without reach, neighbors lie outside the ellipsoid.
    sampling = [1 / radius if step else 1e6 for radius, step in zip(reach, steps)]
    limit = math.sqrt(ROUNDING)
    return np.stack([distance_transform_edt(~mask, sampling) <= limit if mask.any() else mask for mask in masks])


def erode_masks(masks: Bools, reach: Sequence[float]) -> Bools:
    """Erode masks, (n, [z,] y, x), by an ellipsoid of ``reach`` pixels per axis.

    A mask that would vanish stays unchanged.
    """
    if max(reach) < 1:
        return masks
    inner = ~dilate_masks(~masks, reach)
    gone = ~inner.any(axis=tuple(range(1, masks.ndim)))
    inner[gone] = masks[gone]
    return inner


def blur_masks(masks: Bools, field_of_view: tuple[slice, ...]) -> Floats:
    """Blur masks by Gaussians of each standard deviation in `BLUR_SIGMAS`.

    Parameters
    ----------
    masks : bool of shape (n, [z,] y, x)
    field_of_view : tuple of slice
        The part of the patch that is blurred, so that a margin around it does not change the result.

    Returns
    -------
    float32 of shape (n, len(BLUR_SIGMAS), [z,] y, x)
    """
    seen = masks[index_last_axes(field_of_view)]
    # Outside this bounding box, blurred masks are zero.
    bbox = joint_bbox(seen, (math.ceil(BLUR_REACH * BLUR_SIGMAS[-1]),) * len(field_of_view))
    part, blurred = index_last_axes(bbox), np.zeros((len(masks), len(BLUR_SIGMAS), *seen.shape[1:]), np.float32)
    for i, sigma in enumerate(BLUR_SIGMAS):
        std = (0, *(sigma,) * len(field_of_view))
        blurred[:, i][part] = gaussian_filter(seen[part], std, output=np.float32, mode="nearest", truncate=BLUR_REACH)
    margin = [(part.start, side - part.stop) for part, side in zip(field_of_view, masks.shape[1:], strict=True)]
    return np.pad(blurred, [(0, 0), (0, 0), *margin], mode="edge")


def fit_blurred_masks(pixels: Floats, masks: Bools, blurred_masks: Floats) -> tuple[Doubles, Doubles]:
    """Fit a constant and the blurred masks of each object to its pixels.

    Parameters
    ----------
    pixels : float32 of shape (n, C, [z,] y, x)
    masks : bool of shape (n, [z,] y, x)
        The fitted pixels.
    blurred_masks : float32 of shape (n, len(BLUR_SIGMAS), [z,] y, x)
        From `blur_masks`.

    Returns
    -------
    coefficients : float64 of shape (n, C, 1 + len(BLUR_SIGMAS))
    level : float64 of shape (n, C)
        Mean of the object's middle, which contains the least light from outside.
    """
    n, channels = pixels.shape[:2]
    bbox = index_last_axes(joint_bbox(masks, (0,) * (masks.ndim - 1)))
    inside = masks[bbox].reshape(n, 1, -1)
    blurred = blurred_masks[bbox].reshape(n, len(BLUR_SIGMAS), -1)
    design = np.concatenate([inside, blurred], axis=1, dtype=np.float64) * inside
    values = pixels[bbox].reshape(n, channels, -1) * inside.astype(np.float64)
    transposed = design.swapaxes(1, 2)
    coefficients = values @ transposed @ np.linalg.pinv(design @ transposed, rcond=SINGULAR, hermitian=True)
    weights = transposed[:, :, -1:] ** MIDDLE_POWER
    level = values @ weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return coefficients, level[..., 0]


def unmixing_residual(pixels: Floats, masks: Bools, blurred_masks: Floats, coefficients: Doubles) -> Doubles:
    """Return the residuals of `fit_blurred_masks`, zero outside the objects.

    The residuals have shape (n, C, [z,] y, x).
    """
    constant, blurs = coefficients[..., 0], coefficients[..., 1:]
    explained = (blurs @ blurred_masks.reshape(*blurred_masks.shape[:2], -1)).reshape(pixels.shape)
    explained += constant.reshape(*constant.shape, *(1 for _ in masks.shape[1:]))
    return np.subtract(pixels, explained, out=np.zeros(pixels.shape), where=masks[:, None])


def residual_texture(pixels: Floats, masks: Bools, field_of_view: tuple[slice, ...]) -> Floats:
    """Return each object's residual texture, relative to its brightness.

    The texture is zero outside the objects.

    Parameters
    ----------
    pixels : float32 of shape (n, C, [z,] y, x)
    masks : bool of shape (n, [z,] y, x)
    field_of_view : tuple of slice
        The part of the patch that is blurred and fitted, so that a margin around it does not change the result.

    Returns
    -------
    float32 of shape (n, C, [z,] y, x)
        Residuals of `fit_blurred_masks`, divided by the mean of the object's middle, which contains the least light
        from outside, or by the standard deviation of the residuals if that is larger.
    """
    blurred_masks, fitted = blur_masks(masks, field_of_view), np.zeros_like(masks)
    fitted[index_last_axes(field_of_view)] = masks[index_last_axes(field_of_view)]
    coefficients, level = fit_blurred_masks(pixels, fitted, blurred_masks)
    residuals = unmixing_residual(pixels, masks, blurred_masks, coefficients)
    n, channels, axes = *pixels.shape[:2], tuple(range(2, pixels.ndim))
    count = np.count_nonzero(fitted, axis=tuple(range(1, masks.ndim))).clip(1)
    spread = (np.sum(residuals**2, axis=axes, where=fitted[:, None]) / count[:, None]) ** 0.5
    scale = np.maximum(np.abs(level), spread).reshape(n, channels, *(1 for _ in axes))
    return np.asarray(np.divide(residuals, scale, out=np.zeros_like(residuals), where=scale > 0), np.float32)
