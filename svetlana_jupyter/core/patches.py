"""Extraction of object-centered patches.

Training, prediction, previews and explanations all use the same patches. If size is not an allowed cue, all objects are
resampled to the same size, coarseness and sharpness.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.io.chunks import (
    ArrayRegion,
    group_by_block,
    index_last_axes,
    processing_block_shape,
    read_padded,
    readable_range,
)
from svetlana_jupyter.core.io.images import spacing_of
from svetlana_jupyter.core.normalization import (
    Bools,
    Floats,
    ImageStatistics,
    blur_masks,
    compute_image_statistics,
    dilate_masks,
    erode_masks,
    fit_blurred_masks,
    joint_bbox,
    normalize,
    to_finite_float32,
    unmixing_residual,
)
from svetlana_jupyter.core.objects import centroid_columns
from svetlana_jupyter.core.patch_geometry import PatchGeometry, patch_geometry, view_size_per_object, window_starts
from svetlana_jupyter.errors import PatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    from xarray import DataArray

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.settings import PatchSettings

    Margin = float | Sequence[float]
    Point = Sequence[float] | NDArray[np.float64]

Labels = NDArray[np.int64]

MAX_PIECE_BYTES = 4 * 2**20  # image data that is cut at a time; it fits into the processor's cache
# Patch pixels on either side over which outlines are smoothed; enough to round the coarse outlines of small objects.
OUTLINE_SMOOTHING = 2.0
MIN_KEPT_VOLUME = 0.5  # minimum fraction of an object's volume that smoothing keeps


def take_patch(image: DataArray, mask: DataArray, center: Point, settings: PatchSettings, label: int) -> Floats:
    """Cut one object-centered patch, padded where it extends beyond the image.

    Parameters
    ----------
    image : DataArray of shape (C, [Z,] Y, X)
        May be lazy; only the chunks under the patch are read.
    mask : DataArray of shape ([Z,] Y, X), integer
    center : sequence of float
        Center in pixels, ``([z,] y, x)``.
    settings : PatchSettings
        Concrete settings (`core.patch_geometry.resolve_patch_settings`). If the view is "object", these are the
        settings that `core.patch_geometry.patch_settings_for_object` returns for this object.
    label : int
        Label of the object.

    Returns
    -------
    float32 array of shape (C', *sampling)
        C' is C (2 C if ``settings.has_doubled_channels``), plus 1 if there is a mask channel, which is the last.

    Raises
    ------
    PatchError
        If ``center`` lies outside the image, or the settings are not concrete.
    """
    at = np.floor(np.array(center, float) + 0.5).astype(np.int64)
    if len(at) != mask.ndim or (at < 0).any() or (at >= mask.shape).any():
        raise PatchError(f"Patch center {tuple(center)} lies outside the image of shape {mask.shape}.")
    geometry = patch_geometry(settings, spacing_of(image))
    start = window_starts(np.asarray(center, float), geometry.window)
    masks = read_padded(mask, start, start + geometry.window, "zeros")[None] == label
    pixels = to_finite_float32(read_padded(image, start, start + geometry.window, settings.padding))[None]
    statistics = statistics_for_normalization(image, settings)
    return np.ascontiguousarray(_finish_patches(pixels, masks, geometry, settings, statistics)[0])


def cut_patches(
    pair: ImagePair, objects: pd.DataFrame, settings: PatchSettings, margin: Margin = 1.0
) -> Iterator[tuple[Labels, Floats]]:
    """Cut the patches of many objects block by block, reading each block once.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    settings : PatchSettings
        With concrete size and sampling (`core.patch_geometry.resolve_patch_settings`).
    margin : float or one per axis
        Minimum factor by which the patches are enlarged, at the same resolution, so that they can be rotated without
        empty corners.

    Yields
    ------
    labels : int64 of shape (n,)
    patches : float32 of shape (n, C', *sampling)
        Patches from at most 4 MiB of image pixels at a time; see `take_patch` for C'.
    """
    for labels, (patches,) in cut_patches_for_each(pair, objects, [(settings, margin)]):
        yield labels, patches


def cut_patches_for_each(
    pair: ImagePair, objects: pd.DataFrame, settings_and_margins: Sequence[tuple[PatchSettings, Margin]]
) -> Iterator[tuple[Labels, list[Floats]]]:
    """Cut the patches of many objects with several settings, reading each block once.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
    settings_and_margins : sequence of (settings, margin)
        Settings and margin of each set of patches, as in `cut_patches`.

    Yields
    ------
    labels : int64 of shape (n,)
    patches : list of float32 arrays
        One array per pair of settings and margin.
    """
    cutters = [_PatchCutter(pair, objects, *given) for given in settings_and_margins]
    for some, region in _read_regions(pair, cutters, len(objects)):
        yield cutters[0].labels[some], [cutter.cut(some, region) for cutter in cutters]


def read_patches(
    pair: ImagePair, objects: pd.DataFrame, settings: PatchSettings, max_objects: int
) -> Iterator[tuple[Labels, Callable[[], Floats]]]:
    """Read what `cut_patches` cuts, so that several threads can cut.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
    settings : PatchSettings
    max_objects : int
        Maximum number of objects to cut at a time.

    Yields
    ------
    labels : int64 of shape (n,)
    cut : callable
        Returns the patches of these objects. It reads nothing, and any thread may call it.
    """
    cutter = _PatchCutter(pair, objects, settings)
    for some, region in _read_regions(pair, [cutter], max_objects):
        yield cutter.labels[some], partial(cutter.cut, some, region)


class _RegionPixels(NamedTuple):
    """Pixels that patches are cut from, which begin at ``low``.

    ``image`` holds the pixels by padding.
    """

    image: Mapping[Literal["reflect", "zeros"], NDArray[Any]]
    mask: NDArray[Any]
    low: Labels


def _read_regions(
    pair: ImagePair, cutters: Sequence[_PatchCutter], max_objects: int
) -> Iterator[tuple[Labels, _RegionPixels]]:
    """Yield the row numbers of objects to cut together, and the pixels around them."""
    starts = np.min([cutter.starts for cutter in cutters], axis=0)
    ends = np.max([cutter.starts + cutter.windows for cutter in cutters], axis=0)
    largest = max(int(cutter.windows.prod(axis=1).max(initial=1)) for cutter in cutters)
    piece = max(1, min(max_objects, MAX_PIECE_BYTES // (4 * pair.image.shape[0] * largest)))
    paddings = {cutter.settings.padding for cutter in cutters}  # blocks are read once for each padding
    for members in group_by_block(cutters[0].centers, processing_block_shape(pair.image, pair.mask)):
        low, high = starts[members].min(axis=0), ends[members].max(axis=0)
        pixels = {padding: read_padded(pair.image, low, high, padding) for padding in paddings}
        region = _RegionPixels(pixels, read_padded(pair.mask, low, high, "zeros"), low)
        for some in np.split(members, range(piece, len(members), piece)):
            yield some, region


def patch_regions(pair: ImagePair, objects: pd.DataFrame, settings: PatchSettings) -> list[ArrayRegion]:
    """Return the regions that `cut_patches` reads for these objects, one per block."""
    cutter = _PatchCutter(pair, objects, settings.changed(normalize="none"))  # so that no statistics are computed
    ends, shape, regions = cutter.starts + cutter.windows, np.array(pair.mask.shape), []
    for members in group_by_block(cutter.centers, processing_block_shape(pair.image, pair.mask)):
        start, stop = cutter.starts[members].min(axis=0), ends[members].max(axis=0)
        low, high = readable_range(start, stop, shape, settings.padding)
        regions.append(ArrayRegion(tuple(low.tolist()), tuple(high.tolist())))
    return regions


def count_object_only_channels(count: int, settings: PatchSettings) -> int:
    """Return how many of ``count`` channels show only the object; they come last."""
    if settings.context == "hide" or settings.normalize == "grain":
        return count
    return count // 2 if settings.has_doubled_channels else 0


def statistics_for_normalization(image: DataArray, settings: PatchSettings) -> ImageStatistics | None:
    """Return the image statistics that the normalization needs, or None."""
    needs_extremes = settings.scope == "image" and settings.normalize in ("minmax", "max")
    needs_percentiles = settings.normalize in ("percentile", "both")
    return compute_image_statistics(image) if needs_extremes or needs_percentiles else None


class _PatchCutter:
    """Patch extraction with the same settings for all objects.

    If the view is "object", objects of different size have patches of different geometry.
    """

    def __init__(self, pair: ImagePair, objects: pd.DataFrame, settings: PatchSettings, margin: Margin = 1.0) -> None:
        views = view_size_per_object(settings, objects, pair.spacing)
        sizes, self.geometry_of = np.unique(views, axis=0, return_inverse=True)
        self.geometries = [
            patch_geometry(settings.changed(size=tuple(size)), pair.spacing, margin) for size in sizes.tolist()
        ]
        if len(settings.shape) != pair.ndim:
            raise PatchError(
                f"The patch settings are for {sizes.shape[1]}D objects, but {pair.name!r} is {pair.ndim}D. "
                'Give a size that fits, or size="auto".'
            )
        self.settings, self.statistics = settings, statistics_for_normalization(pair.image, settings)
        self.labels = objects.index.to_numpy(np.int64)
        self.centers = objects[centroid_columns(pair.ndim)].to_numpy(float)
        windows = np.array([geometry.window for geometry in self.geometries], np.int64)
        self.windows = windows.reshape(-1, pair.ndim)[self.geometry_of]
        self.starts = window_starts(self.centers, self.windows)

    def cut(self, some: Labels, region: _RegionPixels) -> Floats:
        """Cut patches of the objects at positions ``some`` from a region around them."""
        pixels = region.image[self.settings.padding]
        parts, order = list[Floats](), list[Labels]()
        for position in np.unique(self.geometry_of[some]):
            geometry = self.geometries[position]
            chosen = np.flatnonzero(self.geometry_of[some] == position)
            starts = tuple((self.starts[some[chosen]] - region.low).T)
            own_labels = self.labels[some[chosen]].reshape(-1, *(1 for _ in starts))
            masks = _copy_windows(region.mask, geometry.window, starts) == own_labels
            raw = np.moveaxis(to_finite_float32(_copy_windows(pixels, geometry.window, starts)), 1, 0)
            parts.append(_finish_patches(raw, masks, geometry, self.settings, self.statistics))
            order.append(chosen)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)[np.argsort(np.concatenate(order))]


def _copy_windows(block: NDArray[Any], window: tuple[int, ...], starts: tuple[NDArray[np.int64], ...]) -> NDArray[Any]:
    """Copy windows out of the last axes of a block, to shape (..., n, *window)."""
    views = np.lib.stride_tricks.sliding_window_view(block, window, axis=tuple(range(-len(window), 0)))
    index: tuple[Any, ...] = (..., *starts, *(slice(None) for _ in window))
    return np.asarray(views[index])


def _finish_patches(
    pixels: Floats, masks: Bools, geometry: PatchGeometry, settings: PatchSettings, statistics: ImageStatistics | None
) -> Floats:
    """Convert raw windows (n, C, *window) and their masks (n, *window) to patches."""
    if settings.rim == "auto":
        raise PatchError("The eroded margin is still automatic. Call resolve_patch_settings with the objects first.")
    field_of_view, steps = geometry.field_of_view, geometry.sampling_step
    margin, dilation = ((width,) * len(steps) for width in (settings.rim, settings.dilation))
    if settings.view == "object":
        field_of_view = tuple(
            slice((count - seen) // 2, (count + seen) // 2) for count, seen in zip(geometry.shape, settings.shape)
        )
        pixels, masks = normalize_object_size(pixels, masks, geometry)
        inner = masks  # normalize_object_size has removed the light of the surroundings
        steps = (1.0,) * len(steps)
    else:
        inner = erode_masks(masks, margin)
    ready = all(step == 1.0 for step in steps)  # then patches are written in place, without resampling
    channels = pixels.shape[1] * (2 if settings.has_doubled_channels else 1)
    hidden = count_object_only_channels(channels, settings)
    visible = channels - hidden
    shown = inner if settings.rim or not hidden else dilate_masks(masks, dilation)
    bbox = joint_bbox(shown, (0,) * len(steps))  # outside, object-only channels are zero
    part = index_last_axes(bbox)
    patches = np.empty((len(pixels), channels + (ready and settings.mask_channel), *pixels.shape[2:]), np.float32)
    if ready:
        patches[:, visible:channels] = 0
    image = normalize(pixels, inner, field_of_view, settings, statistics, patches[:, :channels], hidden, bbox)
    if visible and settings.rim:
        image[:, :visible] *= _as_factor(~(dilate_masks(inner, [2 * width for width in margin]) & ~inner))
    if hidden:
        image[part][:, visible:] *= _as_factor(shown[part])
    if ready:
        if settings.mask_channel:
            patches[:, -1] = masks
        return patches
    parts = []
    if visible:
        parts.append(resample(image[:, :visible], steps, geometry.shape))
    if hidden:
        parts.append(resample(image[part][:, visible:], steps, geometry.shape, bbox, image.shape[2:]))
    if settings.mask_channel:
        parts.append(resample_nearest(masks, steps, geometry.shape)[:, None].astype(np.float32))
    return np.concatenate(parts, axis=1)


def _as_factor(shown: Bools) -> Floats:
    return shown[:, None].astype(np.float32)


def resample(
    pixels: Floats,
    steps: Sequence[float],
    shape: Sequence[int],
    bbox: Sequence[slice] | None = None,
    window: Sequence[int] | None = None,
    smoothing: float = 1.0,
) -> Floats:
    """Resample the last axes with triangular weights.

    This interpolates linearly when enlarging and averages when reducing.

    Parameters
    ----------
    pixels : float32 of shape (..., *window)
        The whole window or, if ``bbox`` is given, this part of it; the rest of the window is zero.
    steps : sequence of float
        Distance between new pixels, in old pixels; weights fall to zero over this distance, or over 1 if that is more.
    shape : sequence of int
        Number of new pixels per axis.
    bbox : sequence of slice, optional
        Part of the window that ``pixels`` holds; all by default.
    window : sequence of int, optional
        Shape of the window; needed with ``bbox``.
    smoothing : float
        Factor by which the triangular weights are widened.

    Returns
    -------
    float32 of shape (..., *shape)
    """
    first = pixels.ndim - len(shape)
    window = window or pixels.shape[first:]
    # The last axis is resampled first, and all axes behind the current one are merged, so that no array is transposed.
    for axis in range(pixels.ndim - 1, first - 1, -1):
        step, count, side = steps[axis - first], shape[axis - first], window[axis - first]
        if step == smoothing == 1.0 and bbox is None:
            continue
        at = (np.arange(count) - (count - 1) / 2) * step
        here = np.arange(side) - (side - 1) / 2
        weights = np.maximum(0.0, 1.0 - np.abs(here - at[:, None]) / (smoothing * max(1.0, step)))
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        if bbox is not None:
            weights = np.ascontiguousarray(weights[:, bbox[axis - first]])
        before, behind = pixels.shape[:axis], pixels.shape[axis + 1 :]
        if behind:
            rows = pixels.reshape(math.prod(before), pixels.shape[axis], math.prod(behind))
            pixels = (weights @ rows).reshape(*before, count, *behind)
        else:
            pixels = (pixels.reshape(-1, pixels.shape[axis]) @ weights.T).reshape(*before, count)
    return pixels


def resample_nearest(values: NDArray[Any], steps: Sequence[float], shape: Sequence[int]) -> NDArray[Any]:
    """Resample the last axes by nearest neighbor."""
    axes = zip(steps, shape, values.shape[values.ndim - len(shape) :], strict=True)
    at = ((np.arange(count) - (count - 1) / 2) * step + (side - 1) / 2 for step, count, side in axes)
    return np.asarray(values[(..., *np.ix_(*(np.floor(place + 0.5).astype(np.int64) for place in at)))])


def normalize_object_size(pixels: Floats, masks: Bools, geometry: PatchGeometry) -> tuple[Floats, Bools]:
    """Resample windows so that they do not reveal the size of the object.

    Pixels are resampled by nearest neighbor, because averaging would reduce noise more in large objects than in small
    ones. Light of the surroundings that is blurred into the edge is removed, because this edge is relatively wider in
    small objects. Outlines are smoothed, because pixel corners look coarser in small objects.

    Parameters
    ----------
    pixels : float32 of shape (n, C, *window)
    masks : bool of shape (n, *window)
    geometry : PatchGeometry

    Returns
    -------
    float32 of shape (n, C, *shape)
    bool of shape (n, *shape)
        Smoothed masks of the objects. Pixels that smoothing adds to an object show its brightness.
    """
    steps, shape = geometry.sampling_step, geometry.shape
    blurred_masks = blur_masks(masks, geometry.field_of_view)
    # For a large object, a subset of its pixels suffices for the fit.
    subset = index_last_axes(
        slice(seen.start, seen.stop, max(1, int(step / 2))) for seen, step in zip(geometry.field_of_view, steps)
    )
    coefficients, level = fit_blurred_masks(pixels[subset], masks[subset], blurred_masks[subset])
    rounded = resample(masks.astype(np.float32), steps, shape, smoothing=OUTLINE_SMOOTHING)
    threshold = _fill_threshold(rounded, masks, MIN_KEPT_VOLUME / math.prod(steps))
    fills: Bools = rounded >= np.minimum(0.5, threshold)
    pixels, masks, blurred_masks = (resample_nearest(array, steps, shape) for array in (pixels, masks, blurred_masks))
    own_light = unmixing_residual(pixels, masks, blurred_masks, coefficients)
    own_light += level.reshape(*level.shape, *(1 for _ in steps))
    return np.where((masks | fills)[:, None], own_light, pixels).astype(np.float32), fills


def _fill_threshold(rounded: Floats, masks: Bools, fraction: float) -> Floats:
    """Return the thresholds that keep this fraction of each object, (n, 1, ...)."""
    ranked = np.sort(rounded.reshape(len(rounded), -1), axis=1)
    count = np.rint(fraction * np.count_nonzero(masks, axis=tuple(range(1, masks.ndim)))).astype(np.int64)
    threshold = ranked[np.arange(len(rounded)), -count.clip(1, ranked.shape[1])]
    return np.asarray(np.maximum(threshold, np.float32(1e-6)).reshape(-1, *(1 for _ in rounded.shape[1:])))
