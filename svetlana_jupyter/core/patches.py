"""Cutting what a classifier sees of each object; training, prediction, preview and explanation all cut here.

Bringing windows of an image to the pixels of a patch.

Showing small and large objects alike, where size may not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from xarray import DataArray

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
    ImageStatistics,
    blur_masks,
    erode_masks,
    fit,
    image_statistics,
    joint_bbox,
    normalize,
    to_finite_float32,
    unmixing_residual,
    widened,
)
from svetlana_jupyter.core.patch_geometry import PatchGeometry, patch_geometry, view_size_per_object
from svetlana_jupyter.core.settings import PatchSettings
from svetlana_jupyter.errors import PatchError

if TYPE_CHECKING:
    from svetlana_jupyter.core.io.image_pair import ImagePair

Scalar = TypeVar("Scalar", np.float32, np.bool_)


def resampled(
    pixels: Floats,
    steps: Sequence[float],
    shape: Sequence[int],
    box: Sequence[slice] | None = None,
    window: Sequence[int] | None = None,
    wide: float = 1.0,
) -> Floats:
    """Resample the last axes by triangles as wide as the steps: linear when enlarging, averaging when reducing.

    From the last axis to the first, each with all axes behind it as one, so that nothing is transposed. Pixels may be
    those of a ``box`` in a ``window``, which are zero beside it. The triangles are ``wide`` times as wide as that.
    """
    first = pixels.ndim - len(shape)
    window = window or pixels.shape[first:]
    for axis in range(pixels.ndim - 1, first - 1, -1):
        step, count, side = steps[axis - first], shape[axis - first], window[axis - first]
        if step == wide == 1.0 and box is None:
            continue
        at = (np.arange(count) - (count - 1) / 2) * step
        here = np.arange(side) - (side - 1) / 2
        weights = np.maximum(0.0, 1.0 - np.abs(here - at[:, None]) / (wide * max(1.0, step)))
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        if box is not None:
            weights = np.ascontiguousarray(weights[:, box[axis - first]])
        before, behind = pixels.shape[:axis], pixels.shape[axis + 1 :]
        if behind:
            rows = pixels.reshape(math.prod(before), pixels.shape[axis], math.prod(behind))
            pixels = (weights @ rows).reshape(*before, count, *behind)
        else:
            pixels = (pixels.reshape(math.prod(before), pixels.shape[axis]) @ weights.T).reshape(*before, count)
    return pixels


def nearest(values: NDArray[Scalar], axis: int, step: float, count: int) -> NDArray[Scalar]:
    """Resample one axis by taking the nearest pixel."""
    taken: NDArray[Scalar] = np.take(values, _places(step, count, values.shape[axis]), axis=axis)
    return taken


def picked(values: NDArray[Scalar], steps: Sequence[float], shape: Sequence[int]) -> NDArray[Scalar]:
    """Resample the last axes by taking the nearest pixel."""
    sides = values.shape[values.ndim - len(shape) :]
    places: Any = np.ix_(*(_places(*axis) for axis in zip(steps, shape, sides, strict=True)))
    taken: NDArray[Scalar] = values[(..., *places)]
    return taken


def _places(step: float, count: int, side: int) -> NDArray[np.int64]:
    at = (np.arange(count) - (count - 1) / 2) * step + (side - 1) / 2
    whole: NDArray[np.int64] = np.floor(at + 0.5).astype(np.int64)
    return whole


OUTLINE_SMOOTHING = (
    2.0  # patch pixels to either side, over which outlines are rounded: more than the pixels of small objects do
)
MIN_KEPT_VOLUME = 0.5  # of an object's volume at least is kept where that takes away more


def alike(pixels: Floats, own: NDArray[np.bool_], geometry: PatchGeometry) -> tuple[Floats, NDArray[np.bool_]]:
    """Resample windows so that nothing but what they show tells how large an object was in the image.

    Pixels are picked, not averaged: noise stays what it was. The light that mixes in along the edge reaches equally far
    in small and large objects, so it is taken away. Outlines are rounded, or their corners would be coarser in small
    objects.

    Parameters
    ----------
    pixels : float32 of shape (n, C, *window)
    own : bool of shape (n, *window)

    Returns
    -------
    float32 of shape (n, C, *shape)
    bool of shape (n, *shape)
        The objects. Where one fills a pixel that was not its own, it shows its level.
    """
    steps, shape = geometry.step, geometry.shape
    soft = blur_masks(own, geometry.view)
    # So many of its pixels are enough to fit a large object by.
    some = index_last_axes(
        slice(seen.start, seen.stop, max(1, int(step / 2))) for seen, step in zip(geometry.view, steps)
    )
    coefficients, level = fit(pixels[some], own[some], soft[some])
    rounded = resampled(own.astype(np.float32), steps, shape, wide=OUTLINE_SMOOTHING)
    fills: NDArray[np.bool_] = rounded >= np.minimum(0.5, _least(rounded, own, MIN_KEPT_VOLUME / math.prod(steps)))
    pixels, soft, own = picked(pixels, steps, shape), picked(soft, steps, shape), picked(own, steps, shape)
    alone = unmixing_residual(pixels, own, soft, coefficients) + level.reshape(*level.shape, *(1 for _ in steps))
    return np.where((own | fills)[:, None], alone, pixels).astype(np.float32), fills


def _least(rounded: Floats, own: NDArray[np.bool_], share: float) -> Floats:
    """Return the value, (n, 1, ...), from which on an object fills this share of its pixels, more than 0."""
    ranked = np.sort(rounded.reshape(len(rounded), -1), axis=1)
    count = np.rint(share * np.count_nonzero(own, axis=tuple(range(1, own.ndim)))).astype(np.int64)
    least = ranked[np.arange(len(rounded)), -count.clip(1, ranked.shape[1])]
    whole: Floats = np.maximum(least, np.float32(1e-6)).reshape(-1, *(1 for _ in rounded.shape[1:]))
    return whole


Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

PIECE_BYTES = 4 * 2**20  # small enough to stay in the processor's cache


def take_patch(
    image: DataArray,
    mask: DataArray,
    center: Sequence[float] | NDArray[np.float64],
    settings: PatchSettings,
    label: int | None = None,
) -> Floats:
    """Cut one object-centred patch, padded where it leaves the image.

    Parameters
    ----------
    image : DataArray of shape (C, [Z,] Y, X)
        Lazily loaded is fine; only the chunks under the patch are read.
    mask : DataArray of shape ([Z,] Y, X), integer
    center : sequence of float
        Centre in pixels, ``([z,] y, x)``.
    settings : PatchSettings
        Concrete (`core.patch_geometry.resolve_patch_settings`); where the view follows the object, with the size that
        `core.patch_geometry.patch_settings_for_object` gives this one.
    label : int, optional
        Whose mask the last channel shows; by default the object under the centre.

    Returns
    -------
    float32 array of shape (C', *sampling)
        C' is C (2 C where ``settings.has_doubled_channels``), and one more with a mask channel, which is the last.

    Raises
    ------
    PatchError
        If ``center`` lies outside the image, or the settings are not concrete.
    """
    at = np.floor(np.array(center, float) + 0.5).astype(np.int64)
    if len(at) != mask.ndim or (at < 0).any() or (at >= mask.shape).any():
        raise PatchError(f"a patch's centre must lie inside the image of shape {mask.shape}, got {tuple(center)}.")
    if label is None:
        label = int(read_padded(mask, at, at + 1, "zeros").item())
    geometry = patch_geometry(settings, spacing_of(image))
    start = geometry.starts(np.array([center], float))
    own = read_padded(mask, start[0], start[0] + geometry.window, "zeros") == label
    pixels = read_padded(image, start[0], start[0] + geometry.window, settings.padding)
    patches = _finish(
        to_finite_float32(pixels)[None], own[None], geometry, settings, statistics_for_normalization(image, settings)
    )
    return np.ascontiguousarray(patches[0])


def cut_patches(
    pair: ImagePair, objects: pd.DataFrame, settings: PatchSettings, margin: float | Sequence[float] = 1.0
) -> Iterator[tuple[Labels, Floats]]:
    """Cut the patches of many objects, in the order of the image's blocks, each block read once.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    settings : PatchSettings
        With concrete size and sampling (`resolve_patch_settings`).
    margin : float or one for each axis
        Widen the patches by at least this factor at the same resolution, for rotations; the middle stays the same.

    Yields
    ------
    labels : int64 of shape (n,)
    patches : float32 of shape (n, C', *sampling)
        At most 2 MiB of image at a time; see `take_patch` for C'.
    """
    for labels, (patches,) in cut_patches_for_each(pair, objects, [(settings, margin)]):
        yield labels, patches


def cut_patches_for_each(
    pair: ImagePair, objects: pd.DataFrame, ways: Sequence[tuple[PatchSettings, float | Sequence[float]]]
) -> Iterator[tuple[Labels, list[Floats]]]:
    """Cut the patches of many objects in several ways while reading each block once.

    Parameters
    ----------
    ways : sequence of (settings, margin)
        As `cut_patches` takes them.

    Yields
    ------
    labels : int64 of shape (n,)
    patches : list of float32 arrays, one a way
    """
    centers = objects[["z", "y", "x"][-pair.ndim :]].to_numpy(float)
    labels = objects.index.to_numpy(np.int64)
    cutting = [_Way.of(pair, objects, centers, settings, margin) for settings, margin in ways]
    starts = np.min([way.starts for way in cutting], axis=0)
    ends = np.max([way.starts + way.windows for way in cutting], axis=0)
    largest = max(int(way.windows.prod(axis=1).max(initial=1)) for way in cutting)
    piece = max(1, PIECE_BYTES // (4 * pair.image.shape[0] * largest))
    # Padding may differ from way to way, and then the pixels do.
    paddings = {way.settings.padding for way in cutting}
    for members in group_by_block(centers, processing_block_shape(pair.image, pair.mask)):
        low, high = starts[members].min(axis=0), ends[members].max(axis=0)
        pixels = {padding: read_padded(pair.image, low, high, padding) for padding in paddings}
        mask = read_padded(pair.mask, low, high, "zeros")
        for some in np.split(members, range(piece, len(members), piece)):
            yield labels[some], [way.cut(some, labels, pixels[way.settings.padding], mask, low) for way in cutting]


def patch_regions(pair: ImagePair, objects: pd.DataFrame, settings: PatchSettings) -> list[ArrayRegion]:
    """Return the parts of an image, one a block, that `cut_patches` reads for some objects."""
    centers = objects[["z", "y", "x"][-pair.ndim :]].to_numpy(float)
    way = _Way.of(pair, objects, centers, settings, 1.0, statistics=False)
    ends, shape, windows = way.starts + way.windows, np.array(pair.mask.shape), []
    for members in group_by_block(centers, processing_block_shape(pair.image, pair.mask)):
        low, high = readable_range(way.starts[members].min(axis=0), ends[members].max(axis=0), shape, settings.padding)
        windows.append(ArrayRegion(tuple(low.tolist()), tuple(high.tolist())))
    return windows


@dataclass(frozen=True)
class _Way:
    """One way to cut all objects: the geometries there are, and which is whose."""

    settings: PatchSettings
    statistics: ImageStatistics | None
    geometries: list[PatchGeometry]
    whose: NDArray[np.int64]
    starts: NDArray[np.int64]
    windows: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        pair: ImagePair,
        objects: pd.DataFrame,
        centers: NDArray[np.float64],
        settings: PatchSettings,
        margin: float | Sequence[float],
        statistics: bool = True,
    ) -> _Way:
        sizes, whose = np.unique(view_size_per_object(settings, objects, pair.spacing), axis=0, return_inverse=True)
        concrete = [settings.changed(size=tuple(map(float, size))) for size in sizes]
        geometries = [patch_geometry(one, pair.spacing, margin) for one in concrete]
        if len(settings.sampling) != pair.ndim:  # type: ignore[arg-type]  # patch_geometry has made sure
            raise PatchError(
                f"the patch settings are for {len(geometries[0].shape)}D objects, but {pair.name!r} is {pair.ndim}D. "
                'Give a size that fits, or size="auto".'
            )
        windows = np.array([geometry.window for geometry in geometries], np.int64).reshape(-1, pair.ndim)[whose]
        starts = np.empty_like(windows)
        for number, geometry in enumerate(geometries):
            starts[whose == number] = geometry.starts(centers[whose == number])
        measured = statistics_for_normalization(pair.image, settings) if statistics else None
        return cls(settings, measured, geometries, whose, starts, windows)

    def cut(self, some: Labels, labels: Labels, pixels: NDArray[Any], mask: NDArray[Any], low: Labels) -> Floats:
        """Return the patches of some objects (positions) from a block that begins at ``low``."""
        parts, order = list[Floats](), list[Labels]()
        for number in np.unique(self.whose[some]):
            geometry = self.geometries[number]
            chosen = np.flatnonzero(self.whose[some] == number)
            places = tuple((self.starts[some[chosen]] - low).T)
            own = _windows(mask, geometry.window, places) == labels[some[chosen]].reshape(-1, *(1 for _ in places))
            raw = np.moveaxis(to_finite_float32(_windows(pixels, geometry.window, places)), 1, 0)
            parts.append(_finish(raw, own, geometry, self.settings, self.statistics))
            order.append(chosen)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)[np.argsort(np.concatenate(order))]


def _finish(
    pixels: Floats,
    own: NDArray[np.bool_],
    geometry: PatchGeometry,
    settings: PatchSettings,
    statistics: ImageStatistics | None,
) -> Floats:
    """Turn raw windows (n, C, *window) and their masks (n, *window) into patches."""
    if settings.rim == "auto":
        raise PatchError("the rim is still automatic; call freeze_patches with the objects first.")
    view, alone = geometry.view, own
    rim, dilation = ((width,) * len(geometry.step) for width in (settings.rim, settings.dilation))
    if settings.view == "object":
        assert isinstance(settings.sampling, tuple)
        view = tuple(
            slice((count - seen) // 2, (count + seen) // 2) for count, seen in zip(geometry.shape, settings.sampling)
        )
        pixels, own = alike(pixels, own, geometry)
        inner = alone = own  # nothing is mixed into it any more
    else:
        inner = erode_masks(alone, rim)
    steps = geometry.step if settings.view == "fixed" else (1.0,) * len(view)
    ready = all(step == 1.0 for step in steps)
    channels = pixels.shape[1] * (2 if settings.has_doubled_channels else 1)
    patches = np.empty((len(pixels), channels + (ready and settings.mask_channel), *pixels.shape[2:]), np.float32)
    image = normalize(pixels, inner, view, settings, statistics, patches[:, :channels])
    if settings.rim:
        image *= _factor(~(widened(inner, [2 * width for width in rim]) & ~inner))
    hidden = count_object_only_channels(channels, settings)
    shown = inner if settings.rim or not hidden else widened(alone, dilation)
    if hidden:
        image[:, -hidden:] *= _factor(shown)
    if ready:
        if settings.mask_channel:
            patches[:, -1] = own
        return patches
    box, visible = joint_bbox(shown, (0,) * len(steps)), channels - hidden
    parts = []
    if visible:
        parts.append(resampled(image[:, :visible], steps, geometry.shape))
    if hidden:  # zero beside the box
        parts.append(resampled(image[index_last_axes(box)][:, visible:], steps, geometry.shape, box, image.shape[2:]))
    image = np.concatenate(parts, axis=1)
    if not settings.mask_channel:
        return image
    for axis, (step, count) in enumerate(zip(steps, geometry.shape, strict=True), 1):
        if step != 1.0:
            own = nearest(own, axis, step, count)
    return np.concatenate([image, own[:, None].astype(np.float32)], axis=1)


def _factor(shown: NDArray[np.bool_]) -> Floats:
    return shown[:, None].astype(np.float32)


def count_object_only_channels(count: int, settings: PatchSettings) -> int:
    """Return how many channels, counted from the last, show nothing but the object."""
    if settings.context == "hide" or settings.normalize == "grain":
        return count
    return count // 2 if settings.has_doubled_channels else 0


def _windows(block: NDArray[Any], window: tuple[int, ...], places: tuple[NDArray[np.int64], ...]) -> NDArray[Any]:
    """Copy windows out of the last axes of a block: (..., n, *window)."""
    leading = block.ndim - len(window)
    leading_axes: tuple[Any, ...] = (slice(None),) * leading
    views = np.lib.stride_tricks.sliding_window_view(block, window, axis=tuple(range(leading, block.ndim)))
    copies: NDArray[Any] = views[leading_axes + places]
    return copies


def statistics_for_normalization(image: DataArray, settings: PatchSettings) -> ImageStatistics | None:
    """Return the statistics of an image that its patches are normalised by, None where they are by none."""
    by_image = settings.scope == "image" and settings.normalize in ("minmax", "max")
    return image_statistics(image) if by_image or settings.normalize in ("percentile", "both") else None
