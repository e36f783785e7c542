"""The table of objects as arrays with named dimensions, as xarray writes them to netCDF and Zarr."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from svetlana_jupyter.core.classes import ClassScheme


def object_dataset(
    table: pd.DataFrame,
    classes: ClassScheme,
    spacings: Mapping[str, Sequence[float] | None],
    measured: pd.DataFrame | None = None,
) -> xr.Dataset:
    """Return a table of objects as a Dataset.

    Parameters
    ----------
    table : DataFrame
        As `core.results.object_table` gives it, of one image or several.
    classes : Classes
    spacings : mapping of str to sequence of float or None
        Micrometres a pixel of each image, ``([z,] y, x)``.
    measured : DataFrame, optional
        Measurements, on the index of ``table``; objects that are not there get NaN.

    Returns
    -------
    Dataset
        Dims ``object``, ``class``, ``axis`` (``[z,] y, x``) and, with ``measured``, ``measurement``. Coordinates of an
        object are its ``image``, its ``label`` (its number in the mask) and the grouping columns; those of a class its
        name, ``code`` and ``color``. Variables are ``probability`` (object, class), ``predicted``, ``annotation`` and
        ``assigned`` (the column ``class`` of the table; "" where there is none), ``size`` (voxels), ``on_border``,
        ``centroid``, ``box_start`` and ``box_stop`` (object, axis; pixels), and ``measured`` (object, measurement).
        Where the spacing of all images is known, also ``centroid_um``, and ``area_um2`` or ``volume_um3``. What is not
        known is NaN. `Dataset.set_xindex` selects by image and label: ``ds.set_xindex(["image", "label"])``.
    """
    axes = [axis for axis in "zyx" if axis in table]
    image, label = (table.index.get_level_values(name) for name in ("image", "object"))
    result = xr.Dataset(
        {
            "probability": (("object", "class"), _numbers(table, [f"p_{name}" for name in classes.names], np.float32)),
            "predicted": ("object", _words(table["predicted"])),
            "annotation": ("object", _words(table["annotation"])),
            "assigned": ("object", _words(table["class"])),
            "size": ("object", table["size"].to_numpy(np.int64), {"units": "voxels"}),
            "on_border": ("object", table["on_border"].to_numpy(bool)),
            "centroid": (("object", "axis"), _numbers(table, axes), {"units": "pixels"}),
            "box_start": (("object", "axis"), _numbers(table, [f"{axis}0" for axis in axes]), {"units": "pixels"}),
            "box_stop": (("object", "axis"), _numbers(table, [f"{axis}1" for axis in axes]), {"units": "pixels"}),
        },
        coords={
            "class": np.array(classes.names, dtype=str),
            "code": ("class", np.array(classes.ids, np.int64)),
            "color": ("class", np.array([info.color for info in classes], dtype=str)),
            "axis": np.array(axes, dtype=str),
            "image": ("object", np.array(image, dtype=str)),
            "label": ("object", label.to_numpy(np.int64)),
            **{name: ("object", _words(table[name])) for name in _groups(table)},
        },
    )
    if measured is not None:
        names = np.array(measured.columns, dtype=str)
        values = measured.reindex(table.index).to_numpy(np.float32)
        result = result.assign_coords(measurement=names).assign(measured=(("object", "measurement"), values))
    return result.assign(_physical(result, spacings)) if all(spacings[name] for name in image.unique()) else result


def _physical(objects: xr.Dataset, spacings: Mapping[str, Sequence[float] | None]) -> dict[str, xr.DataArray]:
    """Return places and sizes in micrometres."""
    ndim = objects.sizes["axis"]
    steps = {name: tuple(step or ()) for name, step in spacings.items()}
    padded = {name: (*[math.nan] * (ndim - len(step)), *step) for name, step in steps.items()}
    names = objects["image"].to_numpy().tolist()
    step = xr.DataArray(np.array([padded[name] for name in names]).reshape(-1, ndim), dims=("object", "axis"))
    found = {"centroid_um": (objects["centroid"] * step).assign_attrs(units="micrometer")}
    if {len(steps[name]) for name in names} == {ndim}:
        key, unit = {2: ("area_um2", "micrometer^2"), 3: ("volume_um3", "micrometer^3")}[ndim]
        found[key] = (objects["size"] * step.prod("axis")).assign_attrs(units=unit)
    return found


def _numbers(table: pd.DataFrame, columns: Sequence[str], dtype: type = np.float64) -> NDArray[np.floating]:
    found: NDArray[np.floating] = table.reindex(columns=list(columns)).to_numpy(dtype)
    return found


def _words(column: pd.Series) -> NDArray[np.str_]:
    return np.array(column.astype("object").where(column.notna(), "").tolist(), dtype=str)


def _groups(table: pd.DataFrame) -> list[str]:
    """Return the grouping columns, which stand behind all others."""
    names = [str(name) for name in table]
    return names[names.index("on_border") + 1 :]
