"""Pixel sizes in micrometres, as the coordinates of an array."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from xarray import DataArray

from svetlana_jupyter.core.formats.units import to_micrometers
from svetlana_jupyter.errors import InputError

Spacing: TypeAlias = float | Sequence[float]


def pixel_size_along(array: DataArray, axis: str) -> float | None:
    """Pixel size along an axis whose coordinate is even and has a unit of length; None for others."""
    if axis not in array.coords:
        return None
    coordinate = array[axis]
    unit = coordinate.attrs.get("units")
    if coordinate.size == 1:
        return to_micrometers(coordinate.attrs.get("spacing"), unit)
    steps = np.diff(coordinate.values.astype(float))
    if not np.allclose(steps, steps[0], rtol=1e-3, atol=0):
        return None
    return to_micrometers(f"{steps[0]:.10g}", unit)  # without the rounding of the coordinates


def coordinates(axes: str, shape: Sequence[int], spacing: Mapping[str, float]) -> dict[str, Any]:
    """Coordinates in micrometres for the axes whose spacing is known.

    ``spacing`` is repeated as an attribute, for axes of a single pixel, whose coordinate does not show it.
    """
    return {
        axis: (axis, np.arange(length) * spacing[axis], {"units": "micrometer", "spacing": spacing[axis]})
        for axis, length in zip(axes, shape)
        if axis in spacing
    }


def parse_spacing(spacing: Spacing, axes: str, where: str) -> dict[str, float]:
    """Pixel size by axis, from one number for all axes or one for each."""
    sizes = [float(spacing)] * len(axes) if isinstance(spacing, (int, float)) else [float(size) for size in spacing]
    if len(sizes) != len(axes) or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise InputError(
            f"spacing should be {len(axes)} positive numbers in micrometres, ({', '.join(axes)}), for {where}; "
            f"got {spacing}."
        )
    return dict(zip(axes, sizes))
