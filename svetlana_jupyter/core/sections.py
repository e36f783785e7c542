"""An object of a volume from three sides, and the brightest of what lies around it: small enough to show beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from xarray import DataArray

SIDES = ("xy", "xz", "zy", "maximum")

_AROUND = 2.0  # how much wider than the object
_LEAST = 24.0  # rows: an object of a few voxels is not magnified to nothing but itself
_MOST = 128  # samples a side


@dataclass(frozen=True, eq=False)
class OrthoView:
    """A cut through a volume, or its projection.

    Attributes
    ----------
    values : array of shape (C, h, w)
        0 beyond the volume.
    own : array of bool, shape (h, w)
        Where the object is.
    size : tuple of float
        Height and width of the part of the volume it shows, in widths of a pixel: samples need not be squares.
    """

    values: NDArray[Any]
    own: NDArray[np.bool_]
    size: tuple[float, float]


def take_orthoviews(
    image: DataArray, mask: DataArray, object: int, row: pd.Series, spacing: Sequence[float] | None
) -> dict[str, OrthoView]:
    """Cut a volume through the middle of an object.

    Parameters
    ----------
    image : DataArray of shape (C, Z, Y, X)
    mask : DataArray of shape (Z, Y, X), integer
    object : int
    row : Series
        Its row of `core.objects.index_objects`.
    spacing : sequence of float, optional
        Voxel size ``(z, y, x)``; cubes where it is not known.

    Returns
    -------
    dict of str to Section
        By `SIDES`: the plane seen from above ("xy"), from the front ("xz": planes downwards) and from the side ("zy":
        planes to the right), and the brightest value along z around the object ("maximum"). All show a cube of the same
        size with the object's centroid in its middle.
    """
    sizes = np.array(spacing or (1.0, 1.0, 1.0)) / (spacing or (1.0,))[-1]
    longest = max(_LEAST, *((row[f"{axis}1"] - row[f"{axis}0"]) * size for axis, size in zip("zyx", sizes)))
    side = _AROUND * longest
    counts = np.maximum(3, np.round(side / sizes)).astype(int) | 1  # odd, so that the centroid is a sample
    steps = -(-counts // _MOST)
    halves = counts // steps // 2
    middle = np.clip([round(row[axis]) for axis in "zyx"], 0, np.array(mask.shape) - 1)
    places = [center + step * np.arange(-half, half + 1) for center, step, half in zip(middle, steps, halves)]
    values, own = _at(image, places), _at(mask, places) == object
    z, y, x = halves
    deep, high, wide = (float((2 * half + 1) * step * size) for half, step, size in zip(halves, steps, sizes))
    return {
        "xy": OrthoView(values[:, z], own[z], (high, wide)),
        "xz": OrthoView(values[:, :, y], own[:, y], (deep, wide)),
        "zy": OrthoView(values[..., x].swapaxes(1, 2), own[..., x].T, (high, deep)),
        "maximum": OrthoView(values.max(axis=1), own.any(axis=0), (high, wide)),
    }


def _at(array: DataArray, places: list[NDArray[np.int64]]) -> NDArray[Any]:
    """Return the voxels at evenly spaced places along the last axes, 0 beyond the volume."""
    inside = [np.flatnonzero((at >= 0) & (at < n)) for at, n in zip(places, array.shape[-3:])]
    window = tuple(slice(int(at[k[0]]), int(at[k[-1]]) + 1, int(at[1] - at[0])) for at, k in zip(places, inside))
    part = array.data[(..., *window)]
    part = np.asarray(part.compute(scheduler="synchronous") if hasattr(part, "compute") else part)
    voxels = np.zeros((*array.shape[:-3], *map(len, places)), part.dtype)
    z, y, x = (slice(int(k[0]), int(k[-1]) + 1) for k in inside)
    voxels[..., z, y, x] = part
    return voxels
