"""What was found, in the forms an analysis goes on with: one table of objects, and maps with the mask's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from svetlana_jupyter.core.annotations import Label, ObjectId
from svetlana_jupyter.core.classes import ClassScheme

MAX_DENSE_LABEL = 1 << 24  # labels up to here are looked up by position, larger ones by bisection


def object_table(
    image: str,
    objects: pd.DataFrame,
    groups: Mapping[str, str],
    labels: Mapping[ObjectId, Label],
    predictions: pd.DataFrame | None,
    classes: ClassScheme,
    run: str,
) -> pd.DataFrame:
    """Return one row for each object of an image: its class, where that comes from, and where the object lies.

    Parameters
    ----------
    objects : DataFrame
        The object index.
    predictions : DataFrame or None
        Indexed by object: ``predicted`` (class id), ``probability``, one ``p_<class id>`` each.

    Returns
    -------
    DataFrame
        Indexed by ``(image, object)``: ``class`` (the annotation where there is one, else the prediction; missing for
        objects set aside as ambiguous or badly segmented), ``predicted``, ``annotation``, ``probability``, one
        ``p_<class name>`` each, ``run``, size, centroid and box in pixels, ``on_border``, and the grouping columns.
    """
    names = {info.id: info.name for info in classes}
    said = {id.object: label for id, label in labels.items() if id.image == image and label.action != "skip"}
    words = {label: names.get(said[label].class_id, said[label].action) for label in said}
    annotation = pd.Series(words, dtype="object").reindex(objects.index)
    set_aside = [label for label in objects.index.intersection(list(said)) if said[label].action != "label"]
    if predictions is None:
        predictions = pd.DataFrame({"predicted": pd.Series(dtype=float), "probability": pd.Series(dtype=float)})
    predictions = predictions.reindex(objects.index)
    predicted = predictions["predicted"].map(names).astype("object")
    table = pd.DataFrame({"class": annotation.where(annotation.notna(), predicted)})
    table.loc[set_aside, "class"] = None
    table["predicted"] = predicted
    table["annotation"] = annotation
    table["probability"] = predictions["probability"].astype("float32")
    for info in classes:
        if f"p_{info.id}" in predictions:
            table[f"p_{info.name}"] = predictions[f"p_{info.id}"].astype("float32")
    table["run"] = pd.Series(run, index=objects.index, dtype="object").where(predictions["predicted"].notna())
    table = table.join(objects)
    for group, value in groups.items():
        table[group] = value
    table.index = pd.MultiIndex.from_product([[image], objects.index], names=["image", "object"])
    return table


def merge_predictions(predictions: pd.DataFrame, merged: Mapping[int, int]) -> pd.DataFrame:
    """Return predictions in which merged classes are one: their probabilities add up, and the largest sum wins.

    Parameters
    ----------
    predictions : DataFrame
        Indexed by object: ``predicted`` (class id), ``probability``, one ``p_<class id>`` each.
    merged : mapping of int to int
        The class that each merged class counts as.

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
    for id in ids:
        into = merged.get(id, id)
        summed[into] = predictions[f"p_{id}"] + summed.get(into, 0)
    p = np.stack([column.to_numpy() for column in summed.values()], axis=1)
    best = p.argmax(axis=1) if len(p) else np.empty(0, np.int64)
    head = {"predicted": np.array(list(summed))[best], "probability": p.max(axis=1, initial=0)}
    return pd.DataFrame(head | {f"p_{id}": column for id, column in summed.items()}, predictions.index)


def class_map(mask: xr.DataArray, table: pd.DataFrame, classes: ClassScheme, name: str = "class") -> xr.DataArray:
    """Return the class of the object under each pixel, computed chunk by chunk when it is asked for.

    Parameters
    ----------
    mask : DataArray of shape ([Z,] Y, X), integer
    table : DataFrame
        Indexed by object, with a column ``class`` of class names (missing where there is none).

    Returns
    -------
    DataArray
        Shape and coordinates of the mask, lazy. 0 is background, a class has its stable id, and the highest code stands
        for objects without a class; CF attributes ``flag_values`` and ``flag_meanings`` say so.
    """
    dtype = np.uint8 if max(classes.ids, default=0) < 255 else np.uint16
    unknown = int(np.iinfo(dtype).max)
    codes = table["class"].map({info.name: info.id for info in classes}).fillna(unknown).to_numpy(dtype)
    result = lookup(mask, table.index.to_numpy(), codes, name)
    result.attrs = {
        "flag_values": np.array([0, *classes.ids, unknown], dtype),
        "flag_meanings": " ".join(["background", *map(_flag, classes.names), "not_predicted"]),
    }
    return result


def probability_map(mask: xr.DataArray, table: pd.DataFrame, name: str = "probability") -> xr.DataArray:
    """Return the probability of the predicted class under each pixel: float32, NaN where nothing was predicted."""
    return lookup(mask, table.index.to_numpy(), table["probability"].to_numpy(np.float32), name, background=np.nan)


def lookup(
    mask: xr.DataArray, objects: ArrayLike, values: NDArray[np.generic], name: str, background: float = 0
) -> xr.DataArray:
    """Replace each label of a mask by its object's value, lazily.

    Parameters
    ----------
    mask : DataArray of shape ([Z,] Y, X), integer
    objects : array of int, shape (n,)
        Ascending labels.
    values : array of shape (n,)
        Their values; their dtype is the result's. Labels that are not among ``objects`` get ``background``.
    """
    objects = np.asarray(objects, dtype=np.int64)
    highest = int(objects[-1]) if len(objects) else 0
    if highest < MAX_DENSE_LABEL:
        dense = np.full(highest + 2, background, values.dtype)
        dense[objects] = values

        def replace(block: NDArray[np.integer]) -> Any:
            return dense[np.minimum(block, highest + 1)]
    else:
        keys = np.concatenate([objects, [np.iinfo(np.int64).max]])
        sparse = np.concatenate([values, np.array([background], values.dtype)])

        def replace(block: NDArray[np.integer]) -> Any:
            wanted = block.astype(np.int64)
            found = np.searchsorted(keys, wanted)
            return np.where(keys[found] == wanted, sparse[found], sparse[-1])

    data = mask.data.map_blocks(replace, dtype=values.dtype)
    return xr.DataArray(data, coords=mask.coords, dims=mask.dims, name=name)


def _flag(name: str) -> str:
    return "_".join(name.split())  # CF separates meanings by blanks
