"""Tables, datasets and lazy maps of predictions.

Maps have the shape of the mask and are computed block by block.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from svetlana_jupyter.core.annotations import Label, ObjectId
    from svetlana_jupyter.core.classes import ClassScheme

OBJECT_COLUMNS = frozenset(
    ["image", "object", "class", "predicted", "annotation", "flag", "probability", "run", "size", "on_border"]
    + [f"{axis}{end}" for axis in "zyx" for end in ("", "0", "1")]
)  # columns of `object_table`, except one per class and the grouping columns
EXCLUDING_FLAGS = ("ambiguous", "bad_segmentation")  # flags of objects that have no class
MAX_DENSE_LABEL = 1 << 24  # labels below this limit are looked up in an array, larger labels by binary search


def object_table(
    image: str,
    objects: pd.DataFrame,
    groups: Mapping[str, str],
    labels: Mapping[ObjectId, Label],
    predictions: pd.DataFrame | None,
    classes: ClassScheme,
    run: str,
) -> pd.DataFrame:
    """Return one row per object of an image: class, prediction and position.

    Parameters
    ----------
    objects : DataFrame
        Object table of the mask (`core.objects.index_objects`).
    predictions : DataFrame or None
        Indexed by object: ``predicted`` (class id), its ``probability``, and one column ``p_<class id>`` per class.

    Returns
    -------
    DataFrame
        Indexed by ``(image, object)``: ``class`` (the annotation if there is one, else the prediction; missing for
        excluded objects, which are flagged as ambiguous or badly segmented), ``predicted``, ``annotation`` (class
        names only), ``flag`` ("ambiguous", "bad_segmentation" or "skip"), ``probability``, one column
        ``p_<class name>`` per class, ``run``, size, centroid and bounding box in pixels, ``on_border``, and the
        grouping columns.
    """
    names = {info.id: info.name for info in classes}
    current = {key.label: label for key, label in labels.items() if key.image == image}
    annotated = {number: names[label.class_id] for number, label in current.items() if label.action == "label"}
    flagged = {number: label.action for number, label in current.items() if label.action != "label"}
    annotation, flag = (_text_column(texts, objects.index) for texts in (annotated, flagged))
    empty = pd.DataFrame(columns=["predicted", "probability"], dtype=float)
    predictions = (empty if predictions is None else predictions).reindex(objects.index)
    predicted = predictions["predicted"].map(names).to_numpy(object)
    shown = np.where(pd.isna(annotation), predicted, annotation)
    shown[np.isin(flag, EXCLUDING_FLAGS)] = None
    probabilities = {"probability": "probability", **{f"p_{info.name}": f"p_{info.id}" for info in classes}}
    # Built at once from arrays: this is called for every image, and adding columns one by one takes twice as long.
    columns: dict[str, Any] = {"class": shown, "predicted": predicted, "annotation": annotation, "flag": flag}
    columns |= {
        name: predictions[column].to_numpy(np.float32)
        for name, column in probabilities.items()
        if column in predictions
    }
    columns["run"] = np.where(predictions["predicted"].notna(), np.array(run, object), np.nan)
    columns |= {str(name): values.to_numpy() for name, values in objects.items()} | dict(groups)
    return pd.DataFrame(columns, pd.MultiIndex.from_product([[image], objects.index], names=["image", "object"]))


def _text_column(texts: Mapping[int, str], labels: pd.Index) -> NDArray[np.object_]:
    """Return the text of each object (n,); NaN for objects without a text."""
    column, places = np.full(len(labels), np.nan, object), labels.get_indexer(pd.Index(list(texts), dtype=labels.dtype))
    column[places[places >= 0]] = np.array(list(texts.values()), object)[places >= 0]
    return column


def merge_predictions(predictions: pd.DataFrame, merged: Mapping[int, int]) -> pd.DataFrame:
    """Return predictions with the probabilities of merged classes added up.

    The predicted class is the one with the largest sum.

    Parameters
    ----------
    predictions : DataFrame
        Indexed by object: ``predicted`` (class id), its ``probability``, and one column ``p_<class id>`` per class.
    merged : mapping of int to int
        Ids of merged classes, mapped to the ids of the classes that they count as.

    Examples
    --------
    >>> table = pd.DataFrame({"predicted": [1], "probability": [0.4], "p_1": [0.4], "p_2": [0.3], "p_3": [0.3]})
    >>> merge_predictions(table, {3: 2}).to_dict("list")
    {'predicted': [2], 'probability': [0.6], 'p_1': [0.4], 'p_2': [0.6]}
    """
    ids = [int(column.removeprefix("p_")) for column in map(str, predictions) if column.startswith("p_")]
    if not set(ids) & set(merged):
        return predictions
    summed: dict[int, pd.Series[float]] = {}
    for class_id in ids:
        into = merged.get(class_id, class_id)
        summed[into] = predictions[f"p_{class_id}"] + summed.get(into, 0)
    p = np.stack([column.to_numpy() for column in summed.values()], axis=1)
    best = p.argmax(axis=1) if len(p) else np.empty(0, np.int64)
    head = {"predicted": np.array(list(summed))[best], "probability": p.max(axis=1, initial=0)}
    return pd.DataFrame(head | {f"p_{class_id}": column for class_id, column in summed.items()}, predictions.index)


def class_map(mask: xr.DataArray, table: pd.DataFrame, classes: ClassScheme) -> xr.DataArray:
    """Return a lazy map of the class of the object at each pixel.

    Parameters
    ----------
    mask : DataArray of shape ([Z,] Y, X), integer
    table : DataFrame
        Indexed by object, with a column ``class`` of class names (missing for objects without a class).

    Returns
    -------
    DataArray
        Lazy array with the shape and coordinates of the mask. The code 0 is the background, the code of a class is its
        permanent id, and the highest value of the data type means an object without a class. The CF attributes
        ``flag_values`` and ``flag_meanings`` list these codes.
    """
    dtype = np.uint8 if max(classes.ids, default=0) < 255 else np.uint16
    unknown = int(np.iinfo(dtype).max)
    codes = table["class"].map({info.name: info.id for info in classes}).fillna(unknown).to_numpy(dtype)
    flags = ["_".join(name.split()) for name in classes.names]  # CF attributes separate meanings by spaces
    values, meanings = np.array([0, *classes.ids, unknown], dtype), " ".join(["background", *flags, "not_predicted"])
    return _lookup(mask, table.index, codes, "class").assign_attrs(flag_values=values, flag_meanings=meanings)


def probability_map(mask: xr.DataArray, table: pd.DataFrame) -> xr.DataArray:
    """Return a lazy map of the predicted class's probability, NaN if there is none."""
    return _lookup(mask, table.index, table["probability"].to_numpy(np.float32), "probability", background=np.nan)


def _lookup(
    mask: xr.DataArray, index: pd.Index, values: NDArray[np.generic], name: str, background: float = 0
) -> xr.DataArray:
    """Replace each label of a mask by the value of its object, lazily.

    ``index`` holds the labels, ascending; all other labels become ``background``.
    """
    objects = index.to_numpy(np.int64)
    highest = int(objects[-1]) if len(objects) else 0
    if highest < MAX_DENSE_LABEL:
        dense = np.full(highest + 2, background, values.dtype)
        dense[objects] = values

        def replace(block: NDArray[np.integer]) -> Any:
            return dense[np.minimum(block, highest + 1)]
    else:

        def replace(block: NDArray[np.integer]) -> Any:
            labels = block.astype(np.int64)
            positions = np.searchsorted(objects, labels).clip(max=len(objects) - 1)
            return np.where(objects[positions] == labels, values[positions], values.dtype.type(background))

    data = mask.data.map_blocks(replace, dtype=values.dtype)
    return xr.DataArray(data, coords=mask.coords, dims=mask.dims, name=name)


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
        Table of `object_table`, of one or more images.
    classes : ClassScheme
    spacings : mapping of str to sequence of float or None
        Pixel size of each image in micrometers, ``([z,] y, x)``.
    measured : DataFrame, optional
        Measurements with the index of ``table``; objects without measurements get NaN.

    Returns
    -------
    Dataset
        Dimensions are ``object``, ``class``, ``axis`` (``[z,] y, x``) and, with ``measured``, ``measurement``.
        Coordinates of an object are its ``image``, its ``label`` (in the mask) and the grouping columns; coordinates of
        a class are its name, ``code`` and ``color``. Variables are ``probability`` (object, class); ``predicted``,
        ``annotation``, ``flag`` and ``assigned`` (the column ``class`` of the table), which are "" if missing;
        ``size`` (voxels); ``on_border``; ``centroid``, ``box_start`` and ``box_stop`` (object, axis; pixels); and
        ``measured`` (object, measurement). If the pixel size of all images is known, there are also ``centroid_um``,
        and ``area_um2`` or ``volume_um3``. Missing numbers are NaN. To select by image and label, call
        ``ds.set_xindex(["image", "label"])`` first.
    """
    axes = [axis for axis in "zyx" if axis in table]
    columns = list(map(str, table))
    groups = columns[columns.index("on_border") + 1 :]  # grouping columns are the last
    image, label = (table.index.get_level_values(name) for name in ("image", "object"))
    result = xr.Dataset(
        {
            "probability": (("object", "class"), _numbers(table, [f"p_{name}" for name in classes.names], np.float32)),
            "predicted": ("object", _texts(table["predicted"])),
            "annotation": ("object", _texts(table["annotation"])),
            "flag": ("object", _texts(table["flag"])),
            "assigned": ("object", _texts(table["class"])),
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
            **{name: ("object", _texts(table[name])) for name in groups},
        },
    )
    if measured is not None:
        names = np.array(measured.columns, dtype=str)
        values = measured.reindex(table.index).to_numpy(np.float32)
        result = result.assign_coords(measurement=names).assign(measured=(("object", "measurement"), values))
    return result.assign(_physical(result, spacings)) if all(spacings[name] for name in image.unique()) else result


def _physical(objects: xr.Dataset, spacings: Mapping[str, Sequence[float] | None]) -> dict[str, xr.DataArray]:
    """Return centroids, and areas or volumes, in micrometers."""
    ndim = objects.sizes["axis"]
    steps = {name: tuple(step or ()) for name, step in spacings.items()}
    padded = {name: (*[math.nan] * (ndim - len(step)), *step) for name, step in steps.items()}
    names = objects["image"].to_numpy().tolist()
    step = xr.DataArray(np.array([padded[name] for name in names]).reshape(-1, ndim), dims=("object", "axis"))
    variables = {"centroid_um": (objects["centroid"] * step).assign_attrs(units="micrometer")}
    if {len(steps[name]) for name in names} == {ndim}:
        key, unit = {2: ("area_um2", "micrometer^2"), 3: ("volume_um3", "micrometer^3")}[ndim]
        variables[key] = (objects["size"] * step.prod("axis")).assign_attrs(units=unit)
    return variables


def _numbers(table: pd.DataFrame, columns: Sequence[str], dtype: type = np.float64) -> NDArray[np.floating]:
    return np.asarray(table.reindex(columns=list(columns)).to_numpy(dtype))


def _texts(column: pd.Series) -> NDArray[np.str_]:
    return np.array(column.astype("object").where(column.notna(), "").tolist(), dtype=str)
