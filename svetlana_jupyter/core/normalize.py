"""Bringing the pixels of patches to comparable values (the paper, section 4.1, and more)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xarray import DataArray

from svetlana_jupyter.core.blocks import index_last_axes, read
from svetlana_jupyter.core.grain import grain
from svetlana_jupyter.core.patch_settings import PatchSettings
from svetlana_jupyter.core.widening import joint_bbox, widened
from svetlana_jupyter.errors import DamagedError

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
            pixels = read(image, np.zeros_like(shape), shape, "zeros")
            return to_finite_float32(pixels.reshape(len(pixels), -1)), True
        except DamagedError:
            side, damaged = max(1, int(shape.max()) // SAMPLED_BLOCKS), True
    sides = np.minimum(side, shape)
    # Low-discrepancy places: evenly spread along every axis, without the lattice of a grid.
    places = (0.5 + np.outer(np.arange(1, SAMPLED_BLOCKS + 1), _IRRATIONALS[: len(shape)])) % 1.0
    blocks = []
    for start in np.floor(places * (shape - sides + 1)).astype(np.int64):
        try:
            blocks.append(read(image, start, start + sides, "zeros"))
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
