"""Geometry of patches: their field of view and sampling."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from svetlana_jupyter.core.objects import bbox_columns
from svetlana_jupyter.errors import PatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from svetlana_jupyter.core.settings import PatchSettings

    Sides = tuple[float, ...]
    Margin = float | Sequence[float]

# Maximum pixels per side of patches with an automatic field of view (enough to recognize cells, and fast on a laptop),
# and of patches with a given field of view whose sampling is "auto".
MAX_AUTO_SAMPLING = {2: 48, 3: 24}
MAX_SAMPLING_OF_GIVEN_SIZE = {2: 96, 3: 24}
MIN_SIDE = 8
# If the view is "object": minimum pixels per side, and image pixels per patch pixel of a small object. Larger objects
# are sampled more coarsely.
MIN_SAMPLING_OBJECT_VIEW, COARSENING_OBJECT_VIEW = 12, 4 / 3
# Maximum eroded margin (blur mixes the light of object and surroundings over about two pixels), object width per pixel
# of margin (so that narrow objects keep most of their pixels), and margin if the view is "object".
MAX_RIM, SIDE_PER_RIM_PIXEL, RIM_OBJECT_VIEW = 2, 3.5, 1
MAX_VIEW_SCALE = 8.0  # bounds memory even if a segmentation error creates a huge object
AUTOMATIC_SIZE_MESSAGE = "The patch size is still automatic. Call resolve_patch_settings with the objects first."


class PatchGeometry(NamedTuple):
    """Positions of the pixels of a patch, relative to the pixel at its center.

    Parameters
    ----------
    sampling_step : tuple of float
        Image pixels between neighboring patch pixels, ``([z,] y, x)``.
    shape : tuple of int
        Patch pixels along each axis, margin included.
    window : tuple of int
        Image pixels read along each axis, for all pixels of the patch.
    field_of_view : tuple of slice
        The field of view (without margin), as indices into the window.
    """

    sampling_step: tuple[float, ...]
    shape: tuple[int, ...]
    window: tuple[int, ...]
    field_of_view: tuple[slice, ...]

    def coordinates(self, center: Sequence[float] | NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return the positions of the patch's pixels in the image, for each axis."""
        middle = window_starts(np.asarray(center, float), self.window) + (np.array(self.window) - 1) / 2
        first = middle - (np.array(self.shape) - 1) / 2 * self.sampling_step
        along = zip("zyx"[-len(self.shape) :], first, self.sampling_step, self.shape, strict=True)
        return {axis: start + step * np.arange(count) for axis, start, step, count in along}


def window_starts(centers: NDArray[np.float64], windows: ArrayLike) -> NDArray[np.int64]:
    """Return the first pixels of image windows that are centered on given positions.

    The results are rounded to whole pixels. Arguments and result have shape (n, ndim) or (ndim,).
    """
    return np.floor(centers - (np.asarray(windows) - 1) / 2 + 0.5).astype(np.int64)


def resolve_patch_settings(
    settings: PatchSettings,
    objects: pd.DataFrame,
    classes: pd.Series | None,
    spacing: Sides | None,
    min_sampling: int = 1,
) -> PatchSettings:
    """Return settings with a concrete size and sampling per axis.

    An automatic size is the longest bounding box side of an object times the margin. The 95th percentile of these sides
    is computed for each class, and the largest percentile is used, so that a rare class of large objects is not
    cropped.

    Parameters
    ----------
    settings : PatchSettings
    objects : DataFrame
        Object table of `core.objects.index_objects`; tables of several images may be concatenated.
    classes : Series, optional
        Class of the annotated objects, on the index of ``objects``.
    spacing : tuple of float, optional
        Micrometers per pixel, ``([z,] y, x)``.
    min_sampling : int
        Number of patch pixels that a network needs along the longest side; ignored if the settings give the sampling.
    """
    if settings.is_frozen:
        return settings
    ndim = 3 if "z0" in objects else 2
    pixel_sizes = units_per_pixel(settings, ndim, spacing)
    longest = _sides(objects, pixel_sizes).max(axis=1)
    sides = _field_of_view(settings, longest, classes, pixel_sizes)
    sampling = _sampling(settings, longest, sides, min(pixel_sizes), min_sampling)
    concrete = settings.changed(size=tuple(float(side) for side in sides), sampling=sampling)
    return concrete.changed(rim=_auto_rim(concrete, objects, ndim)) if settings.rim == "auto" else concrete


def patch_geometry(settings: PatchSettings, spacing: Sides | None, margin: Margin = 1.0) -> PatchGeometry:
    """Return the positions of patch pixels, and the image pixels to read for them.

    Raises
    ------
    PatchError
        If the settings are not concrete.
    """
    if not (isinstance(settings.size, tuple) and isinstance(settings.sampling, tuple)):
        raise PatchError(AUTOMATIC_SIZE_MESSAGE)
    if len(settings.size) != len(settings.sampling):
        raise PatchError(
            f"Size {settings.size} and sampling {settings.sampling} have different lengths. Give one number per axis "
            "in both."
        )
    pixel_sizes = units_per_pixel(settings, len(settings.size), spacing)
    axes = []
    margins = [margin] * len(pixel_sizes) if isinstance(margin, int | float) else margin
    for size, sampling, pixel_size, factor in zip(settings.size, settings.sampling, pixel_sizes, margins, strict=True):
        pixels = size / pixel_size
        step = pixels / sampling
        count = sampling + 2 * math.ceil(sampling * (factor - 1) / 2 - 1e-9)
        if math.isclose(step, 1.0, rel_tol=1e-6):
            step, side, seen = 1.0, count, sampling
        else:
            side = 2 * math.ceil((count - 1) / 2 * step + max(1.0, step)) + 1
            seen = min(side, 2 * math.floor(pixels / 2) + 1)
        axes.append((step, count, side, slice((side - seen) // 2, (side + seen) // 2)))
    return PatchGeometry(*zip(*axes))


def view_size_per_object(settings: PatchSettings, objects: pd.DataFrame, spacing: Sides | None) -> NDArray[np.float64]:
    """Return the field of view of each object, in the unit of the settings.

    Parameters
    ----------
    settings : PatchSettings
        With a concrete size.
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    spacing : tuple of float, optional
        Micrometers per pixel, ``([z,] y, x)``.
    """
    if not isinstance(settings.size, tuple):
        raise PatchError(AUTOMATIC_SIZE_MESSAGE)
    size = np.array(settings.size)
    if settings.view == "fixed":
        return np.broadcast_to(size, (len(objects), len(size)))
    longest = _sides(objects, units_per_pixel(settings, len(size), spacing)).max(axis=1).to_numpy()
    scale = (longest * settings.margin / size.max()).clip(1 / MAX_VIEW_SCALE, MAX_VIEW_SCALE)
    return np.asarray(scale[:, None] * size)


def patch_settings_for_object(
    settings: PatchSettings, objects: pd.DataFrame, label: int, spacing: Sides | None
) -> PatchSettings:
    """Return the settings with the field of view of one object, for `take_patch`."""
    (size,) = view_size_per_object(settings, objects.loc[[label]], spacing)
    return settings.changed(size=tuple(size.tolist()))


def units_per_pixel(settings: PatchSettings, ndim: int, spacing: Sides | None) -> Sides:
    """Return the length of a pixel along each axis, in the unit of the settings."""
    if settings.unit == "px":
        return (1.0,) * ndim
    if spacing is None:
        raise PatchError(
            "Patch sizes in micrometers need an image with known pixel size, but this image has none. Pass spacing=(…) "
            'when adding the image, or use unit="px".'
        )
    return tuple(spacing)


def _field_of_view(settings: PatchSettings, longest: pd.Series, classes: pd.Series | None, pixel_sizes: Sides) -> Sides:
    if settings.size == "auto":
        return (_auto_size(settings, longest, classes, pixel_sizes),) * len(pixel_sizes)
    sides = _per_axis(settings.size, len(pixel_sizes), "size")
    if settings.sampling == "auto" and settings.context == "hide":  # beyond that, patches are nearly empty
        enough = _auto_size(settings, longest, classes, pixel_sizes)
        return tuple(min(side, enough) for side in sides)
    return sides


def _auto_size(settings: PatchSettings, longest: pd.Series, classes: pd.Series | None, pixel_sizes: Sides) -> float:
    if longest.empty:
        raise PatchError("An automatic patch size needs at least one object, but there is none. Give a size.")
    class_of = None if classes is None else classes.reindex(longest.index)
    if class_of is not None and class_of.notna().any():
        side = float(longest.groupby(class_of).quantile(0.95).max())
    else:
        side = float(longest.quantile(0.95))
    side = max(side * settings.margin, MIN_SIDE * min(pixel_sizes))
    return float(math.ceil(side)) if settings.unit == "px" else side


def _sampling(
    settings: PatchSettings, object_sides: pd.Series, sides: Sides, finest_pixel: float, min_sampling: int
) -> tuple[int, ...]:
    ndim, longest, smallest = len(sides), max(sides) / finest_pixel, 4
    if isinstance(settings.sampling, int | tuple):
        return tuple(int(n) for n in _per_axis(settings.sampling, ndim, "sampling"))
    if settings.view == "object":
        small_side, smallest = object_sides.quantile(0.05) / finest_pixel, MIN_SAMPLING_OBJECT_VIEW
        longest = max(smallest, float(small_side) * settings.margin / COARSENING_OBJECT_VIEW)
    if settings.size == "auto":
        longest = min(longest, MAX_AUTO_SAMPLING[ndim])
    elif settings.sampling == "auto":
        longest = min(longest, MAX_SAMPLING_OF_GIVEN_SIZE[ndim])
    longest = max(longest, min_sampling)
    # The steps are equal along all axes, by default the pixel size of the finest axis.
    return tuple(max(smallest, round(longest * side / max(sides))) for side in sides)


def _auto_rim(settings: PatchSettings, objects: pd.DataFrame, ndim: int) -> int:
    """Return the default eroded margin, scaled to the median object width."""
    if settings.view == "object":
        return RIM_OBJECT_VIEW
    return int(min(MAX_RIM, _sides(objects, (1.0,) * ndim).min(axis=1).median() // SIDE_PER_RIM_PIXEL))


def _sides(objects: pd.DataFrame, pixel_sizes: Sides) -> pd.DataFrame:
    """Return the side lengths of the bounding boxes, one column per axis."""
    first, last = np.split(objects[bbox_columns(len(pixel_sizes))].to_numpy(float), 2, axis=1)
    return pd.DataFrame((last - first) * pixel_sizes, objects.index)


def _per_axis(value: float | Sides, ndim: int, name: str) -> Sides:
    sides = value if isinstance(value, tuple) else (value,) * ndim
    if len(sides) != ndim:
        raise PatchError(f"Setting {name!r} of a {ndim}D image got {sides}. Give one number, or {ndim} numbers.")
    return tuple(sides)
