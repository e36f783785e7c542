"""Cutting what a classifier sees of each object; training, prediction, preview and explanation all cut here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from xarray import DataArray

from svetlana_jupyter.core.blocks import block_sides, group_by_block, read
from svetlana_jupyter.core.images import spacing_of
from svetlana_jupyter.core.normalize import ImageStatistics, finite, image_statistics, normalize
from svetlana_jupyter.core.settings import PatchSettings
from svetlana_jupyter.core.widening import widened
from svetlana_jupyter.errors import PatchError

if TYPE_CHECKING:
    from svetlana_jupyter.core.pairing import ImagePair

Floats = NDArray[np.float32]

# Most pixels a side that an automatic field of view is sampled with: enough to tell cells, cheap on a laptop.
AUTO_SAMPLING = {2: 48, 3: 24}
LEAST_SIDE = 8
PIECE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of a patch lie, relative to the pixel at its centre.

    Parameters
    ----------
    step : tuple of float
        Image pixels between neighbouring patch pixels, ``([z,] y, x)``.
    shape : tuple of int
        Patch pixels along each axis, margin included.
    window : tuple of int
        Image pixels read along each axis.
    view : tuple of slice
        The field of view (without margin) inside the window.
    """

    step: tuple[float, ...]
    shape: tuple[int, ...]
    window: tuple[int, ...]
    view: tuple[slice, ...]

    def starts(self, centers: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the first pixel of each window, so that its middle is nearest to the centre; both (n, ndim)."""
        return np.floor(centers - (np.array(self.window) - 1) / 2 + 0.5).astype(np.int64)

    def origin(self, center: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
        """Return the position in the image of the patch's first pixel."""
        start = self.starts(np.array([center], float))[0]
        middle = start + (np.array(self.window) - 1) / 2
        return tuple(middle - (np.array(self.shape) - 1) / 2 * self.step)


def freeze_patches(
    settings: PatchSettings,
    objects: pd.DataFrame,
    classes: pd.Series | None,
    spacing: tuple[float, ...] | None,
) -> PatchSettings:
    """Return settings with a concrete size and sampling for every axis.

    An automatic size is the longest box side with a margin: the 95th percentile of each class, and of these the
    largest, so that a rare class of large objects is not cropped.

    Parameters
    ----------
    objects : DataFrame
        As `core.objects.index_objects` gives it; of several images, one below the other.
    classes : Series, optional
        Class of the annotated objects, on the index of ``objects``.
    spacing : tuple of float, optional
        Micrometres a pixel, ``([z,] y, x)``.
    """
    if settings.is_frozen:
        return settings
    axes = "zyx" if "z0" in objects else "yx"
    units = _units_per_pixel(settings, len(axes), spacing)
    size = settings.size
    if size == "auto":
        size = _auto_size(settings, objects, classes, axes, units)
        limit = AUTO_SAMPLING[len(axes)]
    else:
        limit = 2**16
    sides = _for_each_axis(size, len(axes), "size")
    if settings.sampling is None:
        # Equal steps along all axes, as fine as the finest axis.
        sampling = tuple(max(4, min(limit, round(side / min(units)))) for side in sides)
    else:
        sampling = tuple(int(n) for n in _for_each_axis(settings.sampling, len(axes), "sampling"))
    return settings.changed(size=tuple(float(side) for side in sides), sampling=sampling)


def take_patch(
    image: DataArray,
    mask: DataArray,
    center: Sequence[float] | NDArray[np.float64],
    settings: PatchSettings,
    object: int | None = None,
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
        With concrete size and sampling (`freeze_patches`).
    object : int, optional
        Whose mask the last channel shows; by default the object under the centre.

    Returns
    -------
    float32 array of shape (C', *sampling)
        C' is C (2 C with ``normalize="both"``), and one more with a mask channel, which is the last.

    Raises
    ------
    PatchError
        If ``center`` lies outside the image, or size and sampling are not concrete.
    """
    at = np.floor(np.array(center, float) + 0.5).astype(np.int64)
    if len(at) != mask.ndim or (at < 0).any() or (at >= mask.shape).any():
        raise PatchError(f"a patch's centre must lie inside the image of shape {mask.shape}, got {tuple(center)}.")
    if object is None:
        object = int(read(mask, at, at + 1, "zeros").item())
    geometry = patch_geometry(settings, spacing_of(image))
    start = geometry.starts(np.array([center], float))
    own = read(mask, start[0], start[0] + geometry.window, "zeros") == object
    pixels = read(image, start[0], start[0] + geometry.window, settings.padding)
    patches = _finish(finite(pixels)[None], own[None], geometry, settings, _statistics(image, settings))
    return np.ascontiguousarray(patches[0])


def cut_patches(
    pair: ImagePair, objects: pd.DataFrame, settings: PatchSettings, margin: float | Sequence[float] = 1.0
) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Cut the patches of many objects, in the order of the image's blocks, each block read once.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    settings : PatchSettings
        With concrete size and sampling (`freeze_patches`).
    margin : float or one for each axis
        Widen the patches by at least this factor at the same resolution, for rotations; the middle stays the same.

    Yields
    ------
    labels : int64 of shape (n,)
    patches : float32 of shape (n, C', *sampling)
        At most 32 MiB of image at a time; see `take_patch` for C'.
    """
    geometry = patch_geometry(settings, pair.spacing, margin)
    if len(geometry.shape) != pair.ndim:
        raise PatchError(
            f"the patch settings are for {len(geometry.shape)}D objects, but {pair.name!r} is {pair.ndim}D. "
            'Give a size that fits, or size="auto".'
        )
    statistics = _statistics(pair.image, settings)
    centers = objects[["z", "y", "x"][-pair.ndim :]].to_numpy(float)
    labels = objects.index.to_numpy(np.int64)
    starts = geometry.starts(centers)
    window = np.array(geometry.window)
    piece = max(1, PIECE_BYTES // (4 * pair.image.shape[0] * int(window.prod())))
    for members in group_by_block(centers, block_sides(pair.image, pair.mask)):
        low = starts[members].min(axis=0)
        high = starts[members].max(axis=0) + window
        pixels = read(pair.image, low, high, settings.padding)
        mask = read(pair.mask, low, high, "zeros")
        for some in np.split(members, range(piece, len(members), piece)):
            places = tuple((starts[some] - low).T)
            own = _windows(mask, geometry.window, places) == labels[some].reshape(-1, *(1 for _ in window))
            cut = np.moveaxis(finite(_windows(pixels, geometry.window, places)), 1, 0)
            yield labels[some], _finish(cut, own, geometry, settings, statistics)


def patch_geometry(
    settings: PatchSettings, spacing: tuple[float, ...] | None, margin: float | Sequence[float] = 1.0
) -> Geometry:
    """Work out which pixels of an image make a patch; an error where the settings are not concrete."""
    if not (isinstance(settings.size, tuple) and isinstance(settings.sampling, tuple)):
        raise PatchError("the patch size is still automatic; call freeze_patches with the objects first.")
    if len(settings.size) != len(settings.sampling):
        raise PatchError(f"size {settings.size} and sampling {settings.sampling} must name as many axes.")
    units = _units_per_pixel(settings, len(settings.size), spacing)
    step, shape, window, view = [], [], [], []
    margins = [margin] * len(units) if isinstance(margin, int | float) else margin
    for size, sampling, unit, wider in zip(settings.size, settings.sampling, units, margins, strict=True):
        pixels = size / unit
        gap = pixels / sampling
        more = math.ceil(sampling * (wider - 1) / 2 - 1e-9)
        count = sampling + 2 * more
        if math.isclose(gap, 1.0, rel_tol=1e-6):
            gap, read_, seen = 1.0, count, sampling
        else:
            read_ = 2 * math.ceil((count - 1) / 2 * gap + max(1.0, gap)) + 1
            seen = min(read_, 2 * math.floor(pixels / 2) + 1)
        step.append(gap)
        shape.append(count)
        window.append(read_)
        view.append(slice((read_ - seen) // 2, (read_ + seen) // 2))
    return Geometry(tuple(step), tuple(shape), tuple(window), tuple(view))


def _finish(
    pixels: Floats,
    own: NDArray[np.bool_],
    geometry: Geometry,
    settings: PatchSettings,
    statistics: ImageStatistics | None,
) -> Floats:
    """Turn raw windows (n, C, *window) and their masks (n, *window) into patches."""
    pixels = normalize(pixels, own, geometry.view, settings, statistics)
    hidden = hidden_channels(pixels.shape[1], settings)
    if hidden:
        alone = pixels[:, -hidden:] * widened(own, (settings.dilation,) * (own.ndim - 1))[:, None]
        pixels = np.concatenate([pixels[:, :-hidden], alone], axis=1)
    for axis, (step, count) in enumerate(zip(geometry.step, geometry.shape, strict=True)):
        if step != 1.0:
            pixels = _resampled(pixels, axis + 2, step, count)
            own = _nearest(own, axis + 1, step, count)
    if not settings.mask_channel:
        return np.ascontiguousarray(pixels)
    return np.concatenate([pixels, own[:, None].astype(np.float32)], axis=1)


def hidden_channels(count: int, settings: PatchSettings) -> int:
    """Return how many channels, counted from the last, show nothing but the object."""
    if settings.context == "hide":
        return count
    return count // 2 if settings.normalize == "both" else 0


def _resampled(pixels: Floats, axis: int, step: float, count: int) -> Floats:
    """Resample one axis by a triangle as wide as the step: linear when enlarging, averaging when reducing."""
    at = (np.arange(count) - (count - 1) / 2) * step
    here = np.arange(pixels.shape[axis]) - (pixels.shape[axis] - 1) / 2
    weights = np.maximum(0.0, 1.0 - np.abs(here - at[:, None]) / max(1.0, step))
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return np.moveaxis(np.tensordot(pixels, weights, axes=(axis, 1)), -1, axis)


def _nearest(own: NDArray[np.bool_], axis: int, step: float, count: int) -> NDArray[np.bool_]:
    at = (np.arange(count) - (count - 1) / 2) * step + (own.shape[axis] - 1) / 2
    nearest: NDArray[np.bool_] = own.take(np.floor(at + 0.5).astype(np.int64), axis=axis)
    return nearest


def _windows(block: NDArray[Any], window: tuple[int, ...], places: tuple[NDArray[np.int64], ...]) -> NDArray[Any]:
    """Copy windows out of the last axes of a block: (..., n, *window)."""
    leading = block.ndim - len(window)
    leading_axes: tuple[Any, ...] = (slice(None),) * leading
    views = np.lib.stride_tricks.sliding_window_view(block, window, axis=tuple(range(leading, block.ndim)))
    copies: NDArray[Any] = views[leading_axes + places]
    return copies


def _statistics(image: DataArray, settings: PatchSettings) -> ImageStatistics | None:
    by_image = settings.scope == "image" and settings.normalize in ("minmax", "max")
    return image_statistics(image) if by_image or settings.normalize in ("percentile", "both") else None


def _auto_size(
    settings: PatchSettings, objects: pd.DataFrame, classes: pd.Series | None, axes: str, units: tuple[float, ...]
) -> float:
    if objects.empty:
        raise PatchError("an automatic patch size needs at least one object; the mask has none.")
    sides = pd.DataFrame({axis: (objects[f"{axis}1"] - objects[f"{axis}0"]) * unit for axis, unit in zip(axes, units)})
    longest = sides.max(axis=1)
    known = None if classes is None else classes.reindex(longest.index)
    if known is not None and known.notna().any():
        side = float(longest.groupby(known).quantile(0.95).max())
    else:
        side = float(longest.quantile(0.95))
    side = max(side * settings.margin, LEAST_SIDE * min(units))
    return float(math.ceil(side)) if settings.unit == "px" else side


def _units_per_pixel(settings: PatchSettings, ndim: int, spacing: tuple[float, ...] | None) -> tuple[float, ...]:
    if settings.unit == "px":
        return (1.0,) * ndim
    if spacing is None:
        raise PatchError(
            "patch sizes in micrometres need an image with known spacing, but this one has none. Give spacing=(…) when "
            'the image is added, or use unit="px".'
        )
    return tuple(spacing)


def _for_each_axis(value: float | tuple[float, ...], ndim: int, name: str) -> tuple[float, ...]:
    sides = value if isinstance(value, tuple) else (value,) * ndim
    if len(sides) != ndim:
        raise PatchError(f"{name} must be one number or {ndim} for a {ndim}D image, got {sides}.")
    return tuple(sides)
