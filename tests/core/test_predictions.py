"""Object table and lazy class maps compared with a naive loop over pixels."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from svetlana_jupyter.core.annotations import Label, ObjectId
from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.predictions import MAX_DENSE_LABEL, class_map, object_table, probability_map

CLASSES = ClassScheme().with_added(["resting", "very active"])


def mask_of(labels: list[int], shape: tuple[int, ...] = (6, 8), seed: int = 0) -> xr.DataArray:
    values = np.random.default_rng(seed).choice([0, *labels], shape).astype(np.uint32)
    return xr.DataArray(da.from_array(values, chunks=3), dims=("z", "y", "x")[-len(shape) :])


@pytest.mark.parametrize("labels", [[1, 2, 3], [5, 70_000, 4_000_000_000], [1, MAX_DENSE_LABEL + 5]])
@pytest.mark.parametrize("shape", [(6, 8), (4, 5, 6)])
def test_a_class_map_holds_the_class_of_the_object_under_each_pixel(labels: list[int], shape: tuple[int, ...]) -> None:
    mask = mask_of(labels, shape)
    classes = dict(zip(labels, ["very active", None, "resting"]))
    table = pd.DataFrame({"class": pd.Series(classes, dtype="object")})
    codes = {0: 0, **{label: {"resting": 1, "very active": 2, None: 255}[name] for label, name in classes.items()}}
    naive = np.vectorize(codes.get)(mask.to_numpy())
    result = class_map(mask, table, CLASSES)
    assert isinstance(result.data, da.Array)
    assert result.dims == mask.dims
    assert result.dtype == np.uint8
    assert (result.to_numpy() == naive).all()


def test_a_class_map_describes_its_codes() -> None:
    attrs = class_map(mask_of([1]), pd.DataFrame({"class": ["resting"]}, index=[1]), CLASSES).attrs
    meanings = dict(zip(attrs["flag_values"].tolist(), attrs["flag_meanings"].split()))
    assert meanings == {0: "background", 1: "resting", 2: "very_active", 255: "not_predicted"}


def test_labels_missing_from_the_table_count_as_background() -> None:
    mask = mask_of([3, 9])
    result = class_map(mask, pd.DataFrame({"class": ["resting"]}, index=[3]), CLASSES)
    assert (result.to_numpy() == np.where(mask == 3, 1, 0)).all()


def test_a_map_keeps_the_coordinates_of_the_mask() -> None:
    mask = mask_of([1]).assign_coords(y=np.arange(6) * 0.5, x=np.arange(8) * 0.5)
    result = probability_map(mask, pd.DataFrame({"probability": [0.75]}, index=[1]))
    xr.testing.assert_equal(result.coords.to_dataset(), mask.coords.to_dataset())
    assert np.isnan(result.to_numpy()[mask.to_numpy() == 0]).all()
    assert (result.to_numpy()[mask.to_numpy() == 1] == 0.75).all()


def test_the_table_prefers_annotations_and_excludes_flagged_objects() -> None:
    objects = pd.DataFrame({"size": [10, 20, 30, 40], "y": 1.0, "x": 2.0}, index=pd.Index([2, 4, 6, 8], name="object"))
    predictions = pd.DataFrame(
        {"predicted": [1, 1, 2], "probability": [0.9, 0.8, 0.7], "p_1": [0.9, 0.8, 0.3]}, index=[2, 4, 6]
    )
    labels = {
        ObjectId("well", 4): Label("label", 2),
        ObjectId("well", 6): Label("bad_segmentation"),
        ObjectId("well", 2): Label("skip"),
        ObjectId("other", 2): Label("label", 2),
    }
    table = object_table("well", objects, {"plate": "P1"}, labels, predictions, CLASSES, "0003").droplevel("image")
    assert table["class"].where(table["class"].notna(), None).to_dict() == {
        2: "resting",
        4: "very active",
        6: None,
        8: None,
    }
    assert table.loc[4, "predicted"] == "resting"
    assert table.loc[4, "annotation"] == "very active"
    assert table["flag"].fillna("").to_dict() == {2: "skip", 4: "", 6: "bad_segmentation", 8: ""}
    assert table["annotation"].fillna("").to_dict() == {2: "", 4: "very active", 6: "", 8: ""}
    assert pd.isna(table.loc[8, "run"])
    assert table.loc[2, "run"] == "0003"
    assert table.loc[2, "p_resting"] == pytest.approx(0.9)
    assert (table["plate"] == "P1").all()
    assert table.loc[8, "size"] == 40


def test_the_table_of_an_image_without_predictions_has_the_same_columns() -> None:
    objects = pd.DataFrame({"size": [10]}, index=pd.Index([2], name="object"))
    table = object_table("well", objects, {}, {}, None, CLASSES, "")
    assert {"class", "predicted", "annotation", "probability", "run"} <= set(table)
    assert table["class"].isna().all()
