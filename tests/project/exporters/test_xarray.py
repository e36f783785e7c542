"""The table as a Dataset: equal values, unchanged after writing to netCDF and Zarr."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr

from tests.project.exporters.conftest import LARGEST, NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project


def test_the_dataset_contains_the_table(predicted: Project) -> None:
    measured = predicted.measure(groups=["shape"])
    dataset, table = predicted.to_xarray(), predicted.predictions()
    assert dict(dataset.sizes) | {"measurement": 0} == {"object": 24, "class": 2, "axis": 2, "measurement": 0}
    assert list(zip(dataset["image"].values, dataset["label"].values)) == table.index.tolist()
    assert dataset["class"].values.tolist() == ["dim", "=bright <b>"]
    assert dataset["code"].values.tolist() == [1, 2]
    for i, name in enumerate(predicted.classes.names):
        np.testing.assert_array_equal(dataset["probability"][:, i], table[f"p_{name}"])
    columns = {"predicted": "predicted", "annotation": "annotation", "flag": "flag", "assigned": "class"}
    for name, column in columns.items():
        assert dataset[name].values.tolist() == table[column].fillna("").tolist()
    np.testing.assert_array_equal(dataset["centroid"].sel(axis="x"), table["x"])
    np.testing.assert_array_equal(dataset["centroid_um"], table[["y", "x"]] * [0.5, 0.25])
    np.testing.assert_array_equal(
        dataset["box_stop"] - dataset["box_start"], table[["y1", "x1"]].values - table[["y0", "x0"]]
    )
    np.testing.assert_array_equal(dataset["area_um2"], table["size"] * 0.125)
    np.testing.assert_allclose(dataset["measured"].sel(measurement="area_um2"), dataset["area_um2"], rtol=1e-6)
    assert set(measured) - set(table) <= set(dataset["measurement"].values)
    assert set(dataset["plate"].values) == {"P0", "P1"}
    assert dataset.attrs["run"] == predicted.current_run
    entry = dataset.set_xindex(["image", "label"]).sel(image=NAMES[1], label=LARGEST)
    assert entry["predicted"] == table.loc[(NAMES[1], LARGEST), "predicted"]


def test_the_dataset_of_a_single_image(predicted: Project) -> None:
    assert set(predicted.to_xarray([NAMES[1]])["image"].values) == {NAMES[1]}


def test_a_volume_without_predictions(volume: Project) -> None:
    dataset = volume.to_xarray()
    assert dataset["axis"].values.tolist() == ["z", "y", "x"]
    assert dataset["probability"].isnull().all()
    np.testing.assert_array_equal(dataset["volume_um3"], dataset["size"] * 0.5)
    assert (dataset["assigned"] != "").sum() == 2
    assert "measured" not in dataset


def test_without_spacing_there_are_no_micrometer_columns(volume: Project) -> None:
    mask = np.zeros((8, 9), np.uint8)
    mask[2:4, 3:6] = 5
    volume.add("flat", mask * 2, mask, "yx")
    dataset = volume.to_xarray()
    assert not [name for name in dataset if "um" in name]
    last = dataset.isel(object=-1)
    assert last["centroid"].values.tolist()[1:] == [2.5, 4.0]
    assert np.isnan(last["centroid"][0])


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
def test_the_dataset_is_read_back_unchanged(predicted: Project, tmp_path: Path, form: str) -> None:
    dataset = predicted.to_xarray()
    if form == "netcdf":
        dataset.to_netcdf(tmp_path / "objects.nc")
        reopened = xr.load_dataset(tmp_path / "objects.nc")
    else:
        dataset.to_zarr(tmp_path / "objects.zarr", zarr_format=2)
        reopened = xr.open_zarr(tmp_path / "objects.zarr").load()
    xr.testing.assert_identical(reopened.astype(dataset.dtypes), dataset)


def test_netcdf_3_stores_small_label_numbers(volume: Project, tmp_path: Path) -> None:
    volume.to_xarray().to_netcdf(tmp_path / "objects.nc", engine="scipy")
    reopened = xr.load_dataset(tmp_path / "objects.nc", engine="scipy")
    np.testing.assert_array_equal(reopened["label"], range(1, 9))
    assert reopened["annotation"].values.tolist()[:3] == ["dim", "bright", ""]
