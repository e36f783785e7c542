"""Which pixels of an image make a patch: its field of view, its sampling, and how both follow the objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from svetlana_jupyter.core.settings import PatchSettings
from svetlana_jupyter.errors import PatchError

# Most pixels a side that an automatic field of view is sampled with: enough to tell cells, cheap on a laptop.
MAX_AUTO_SAMPLING = {2: 48, 3: 24}
MAX_SAMPLING_OF_GIVEN_SIZE = {2: 96, 3: 24}  # and one that is given, where the sampling is left to find a preset with
MIN_SIDE = 8
# Where the view follows the object, a small one is picked from at every so many pixels, a large one at more.
MIN_SAMPLING_OBJECT_VIEW, COARSENING_OBJECT_VIEW = 12, 4 / 3
# Light of an object and its surroundings mixes over about two pixels; narrower objects can spare less.
MAX_RIM, SIDE_PER_RIM_PIXEL, RIM_OBJECT_VIEW = 2, 3.5, 1
SIZE_IS_AUTOMATIC = "the patch size is still automatic; call freeze_patches with the objects first."
MAX_VIEW_SCALE = 8.0  # a mask's largest mistakes shall not cost all memory


@dataclass(frozen=True)
class PatchGeometry:
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


def resolve_patch_settings(
    settings: PatchSettings,
    objects: pd.DataFrame,
    classes: pd.Series | None,
    spacing: tuple[float, ...] | None,
    least: int = 1,
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
    least : int
        Patch pixels that a network needs along the longest side: a sampling that is not given is made so fine.
    """
    if settings.is_frozen:
        return settings
    ndim = 3 if "z0" in objects else 2
    units = units_per_pixel(settings, ndim, spacing)
    sides = _field_of_view(settings, objects, classes, units)
    sampling = _sampling(settings, objects, sides, units, least)
    frozen = settings.changed(size=tuple(float(side) for side in sides), sampling=sampling)
    return frozen.changed(rim=_auto_rim(frozen, objects, units)) if settings.rim == "auto" else frozen


def patch_geometry(
    settings: PatchSettings, spacing: tuple[float, ...] | None, margin: float | Sequence[float] = 1.0
) -> PatchGeometry:
    """Work out which pixels of an image make a patch; an error where the settings are not concrete."""
    if not (isinstance(settings.size, tuple) and isinstance(settings.sampling, tuple)):
        raise PatchError(SIZE_IS_AUTOMATIC)
    if len(settings.size) != len(settings.sampling):
        raise PatchError(f"size {settings.size} and sampling {settings.sampling} must name as many axes.")
    units = units_per_pixel(settings, len(settings.size), spacing)
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
    return PatchGeometry(tuple(step), tuple(shape), tuple(window), tuple(view))


def view_size_per_object(
    settings: PatchSettings, objects: pd.DataFrame, spacing: tuple[float, ...] | None
) -> NDArray[np.float64]:
    """Return the field of view of each object, (n, ndim), in the unit of the settings.

    Parameters
    ----------
    settings : PatchSettings
        With a concrete size.
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    """
    if not isinstance(settings.size, tuple):
        raise PatchError(SIZE_IS_AUTOMATIC)
    size = np.array(settings.size)
    if settings.view == "fixed":
        return np.broadcast_to(size, (len(objects), len(size)))
    longest = _sides(objects, units_per_pixel(settings, len(size), spacing)).max(axis=1).to_numpy()
    scale: NDArray[np.float64] = (longest * settings.margin / size.max()).clip(1 / MAX_VIEW_SCALE, MAX_VIEW_SCALE)
    sizes: NDArray[np.float64] = scale[:, None] * size
    return sizes


def patch_settings_for_object(
    settings: PatchSettings, objects: pd.DataFrame, label: int, spacing: tuple[float, ...] | None
) -> PatchSettings:
    """Return the settings with the size that this object's view has, as `take_patch` and `patch_geometry` need them."""
    (size,) = view_size_per_object(settings, objects.loc[[label]], spacing)
    return settings.changed(size=tuple(map(float, size)))


def _field_of_view(
    settings: PatchSettings, objects: pd.DataFrame, classes: pd.Series | None, units: tuple[float, ...]
) -> tuple[float, ...]:
    if settings.size == "auto":
        return (_auto_size(settings, objects, classes, units),) * len(units)
    sides = _for_each_axis(settings.size, len(units), "size")
    if settings.sampling == "auto" and settings.context == "hide":  # farther out is hardly anything to see
        enough = _auto_size(settings, objects, classes, units)
        return tuple(min(side, enough) for side in sides)
    return sides


def _sampling(
    settings: PatchSettings, objects: pd.DataFrame, sides: Sequence[float], units: tuple[float, ...], least: int
) -> tuple[int, ...]:
    ndim, longest, smallest = len(units), max(sides) / min(units), 4
    if isinstance(settings.sampling, int | tuple):
        return tuple(int(n) for n in _for_each_axis(settings.sampling, ndim, "sampling"))
    if settings.view == "object":
        small = (
            _sides(objects, units).max(axis=1).quantile(0.05) * settings.margin / min(units) / COARSENING_OBJECT_VIEW
        )
        longest, smallest = max(MIN_SAMPLING_OBJECT_VIEW, float(small)), MIN_SAMPLING_OBJECT_VIEW
    if settings.size == "auto":
        longest = min(longest, MAX_AUTO_SAMPLING[ndim])
    elif settings.sampling == "auto":
        longest = min(longest, MAX_SAMPLING_OF_GIVEN_SIZE[ndim])
    longest = max(longest, least)
    # Equal steps along all axes, by themselves as fine as the finest axis.
    return tuple(max(smallest, round(longest * side / max(sides))) for side in sides)


def _sides(objects: pd.DataFrame, units: tuple[float, ...]) -> pd.DataFrame:
    """Return the sides of the boxes, one column an axis."""
    axes = "zyx"[-len(units) :]
    sides = {axis: (objects[f"{axis}1"] - objects[f"{axis}0"]) * unit for axis, unit in zip(axes, units, strict=True)}
    return pd.DataFrame(sides)


def _auto_rim(settings: PatchSettings, objects: pd.DataFrame, units: tuple[float, ...]) -> int:
    """Return how wide a rim most objects can spare; where the view follows the object, none of it is left out."""
    if settings.view == "object":
        return RIM_OBJECT_VIEW
    sides = _sides(objects, (1.0,) * len(units))
    return int(min(MAX_RIM, sides.min(axis=1).median() // SIDE_PER_RIM_PIXEL))


def _auto_size(
    settings: PatchSettings, objects: pd.DataFrame, classes: pd.Series | None, units: tuple[float, ...]
) -> float:
    if objects.empty:
        raise PatchError("an automatic patch size needs at least one object; the mask has none.")
    longest = _sides(objects, units).max(axis=1)
    known = None if classes is None else classes.reindex(longest.index)
    if known is not None and known.notna().any():
        side = float(longest.groupby(known).quantile(0.95).max())
    else:
        side = float(longest.quantile(0.95))
    side = max(side * settings.margin, MIN_SIDE * min(units))
    return float(math.ceil(side)) if settings.unit == "px" else side


def units_per_pixel(settings: PatchSettings, ndim: int, spacing: tuple[float, ...] | None) -> tuple[float, ...]:
    """Return how long a pixel is along each axis, in the unit of the settings."""
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
