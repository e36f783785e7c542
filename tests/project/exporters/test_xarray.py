"""The table as a Dataset: every number is the table's, and it comes back from netCDF and Zarr as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr

from tests.project.exporters.conftest import LARGEST, NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project


def test_the_dataset_holds_the_table(predicted: Project) -> None:
    measured = predicted.measure(groups=["shape"])
    found, table = predicted.to_xarray(), predicted.predictions()
    assert dict(found.sizes) | {"measurement": 0} == {"object": 24, "class": 2, "axis": 2, "measurement": 0}
    assert list(zip(found["image"].values, found["label"].values)) == table.index.tolist()
    assert found["class"].values.tolist() == ["dim", "=bright <b>"]
    assert found["code"].values.tolist() == [1, 2]
    for i, name in enumerate(predicted.classes.names):
        np.testing.assert_array_equal(found["probability"][:, i], table[f"p_{name}"])
    for name, column in {"predicted": "predicted", "annotation": "annotation", "assigned": "class"}.items():
        assert found[name].values.tolist() == table[column].fillna("").tolist()
    np.testing.assert_array_equal(found["centroid"].sel(axis="x"), table["x"])
    np.testing.assert_array_equal(found["centroid_um"], table[["y", "x"]] * [0.5, 0.25])
    np.testing.assert_array_equal(
        found["box_stop"] - found["box_start"], table[["y1", "x1"]].values - table[["y0", "x0"]]
    )
    np.testing.assert_array_equal(found["area_um2"], table["size"] * 0.125)
    np.testing.assert_allclose(found["measured"].sel(measurement="area_um2"), found["area_um2"], rtol=1e-6)
    assert set(measured) - set(table) <= set(found["measurement"].values)
    assert set(found["plate"].values) == {"P0", "P1"}
    assert found.attrs["run"] == predicted.current_run
    one = found.set_xindex(["image", "label"]).sel(image=NAMES[1], label=LARGEST)
    assert one["predicted"] == table.loc[(NAMES[1], LARGEST), "predicted"]


def test_one_image_of_several(predicted: Project) -> None:
    assert set(predicted.to_xarray([NAMES[1]])["image"].values) == {NAMES[1]}


def test_a_volume_without_predictions(volume: Project) -> None:
    found = volume.to_xarray()
    assert found["axis"].values.tolist() == ["z", "y", "x"]
    assert found["probability"].isnull().all()
    np.testing.assert_array_equal(found["volume_um3"], found["size"] * 0.5)
    assert (found["assigned"] != "").sum() == 2
    assert "measured" not in found


def test_without_a_spacing_there_are_no_micrometres(volume: Project) -> None:
    mask = np.zeros((8, 9), np.uint8)
    mask[2:4, 3:6] = 5
    volume.add("flat", mask * 2, mask, "yx")
    found = volume.to_xarray()
    assert not [name for name in found if "um" in name]
    last = found.isel(object=-1)
    assert last["centroid"].values.tolist()[1:] == [2.5, 4.0]
    assert np.isnan(last["centroid"][0])


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
def test_it_comes_back_from_a_file(predicted: Project, tmp_path: Path, form: str) -> None:
    found = predicted.to_xarray()
    if form == "netcdf":
        found.to_netcdf(tmp_path / "objects.nc")
        again = xr.load_dataset(tmp_path / "objects.nc")
    else:
        found.to_zarr(tmp_path / "objects.zarr", zarr_format=2)
        again = xr.open_zarr(tmp_path / "objects.zarr").load()
    xr.testing.assert_identical(again.astype(found.dtypes), found)


def test_netcdf_3_takes_it_where_numbers_are_small(volume: Project, tmp_path: Path) -> None:
    volume.to_xarray().to_netcdf(tmp_path / "objects.nc", engine="scipy")
    again = xr.load_dataset(tmp_path / "objects.nc", engine="scipy")
    np.testing.assert_array_equal(again["label"], range(1, 9))
    assert again["annotation"].values.tolist()[:3] == ["dim", "bright", ""]
