"""Tables in each format, read by pandas, openpyxl and anndata: the same rows as `Project.predictions`."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING

import anndata
import numpy as np
import openpyxl
import pandas as pd
import pytest

from svetlana_jupyter.core.features.compute import measure
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.exporters import tables
from svetlana_jupyter.project.project import Project
from tests.project.exporters.conftest import LARGEST, NAMES, SPACING

if TYPE_CHECKING:
    from pathlib import Path

EXACT = {"dtype": {"run": str}, "float_precision": "round_trip"}
SHEETS = ["objects", "counts", "measurements"]


def assert_same_table(result: pd.DataFrame, table: pd.DataFrame, excel: bool = False) -> None:
    """Check that a file contains a table; missing values may be None or NaN, and Excel has 16 digits."""
    assert result.columns.tolist() == table.columns.tolist()
    assert len(result) == len(table)
    for name in table:
        if table[name].dtype.kind == "f":
            digits = 15 if excel and table[name].dtype == np.float64 else 17
            np.testing.assert_allclose(result[name].astype(table[name].dtype), table[name], rtol=10.0**-digits)
        else:
            pd.testing.assert_series_equal(
                without_missing(result[name]), without_missing(table[name]), check_index=False
            )


def without_missing(values: pd.Series) -> pd.Series:
    return values.astype(object).where(values.notna(), None)


def without_apostrophe(value: object) -> object:
    return value[1:] if isinstance(value, str) and value.startswith("'=") else value


def test_text_in_csv_files_is_never_a_formula_but_negative_numbers_stay(predicted: Project, tmp_path: Path) -> None:
    predicted.classes.rename("dim", "-1")
    predicted.measure(groups=["intensity"])
    files = predicted.export(tmp_path / "results", ["csv", "patches"])
    cells = [cell for file in files[:3] for row in csv.reader(file.open(newline="")) for cell in row]
    cells += [cell for row in csv.reader((files[3] / "patches.csv").open(newline="")) for cell in row]
    begins = [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    assert begins, "skewness may be negative"
    assert all(np.isfinite(float(cell)) for cell in begins)
    assert {"'=bright <b>", "'-1"} <= set(cells)


@pytest.mark.parametrize("name", ["csv", "parquet", "excel"])
def test_every_table_is_read_back_unchanged(predicted: Project, tmp_path: Path, name: str) -> None:
    measured = predicted.measure(groups=["shape"])
    files = predicted.export(tmp_path / "results", [name])
    if name == "excel":
        (file,) = files
        result = pd.read_excel(file, sheet_name=None, dtype={"run": str})
    else:
        assert [file.name for file in files] == [f"{sheet}.{name}" for sheet in SHEETS]
        result = {file.stem: pd.read_csv(file, **EXACT) if name == "csv" else pd.read_parquet(file) for file in files}
        if name == "csv":
            result = {stem: table.map(without_apostrophe) for stem, table in result.items()}
        else:
            result = {stem: table.reset_index() for stem, table in result.items()}
    assert list(result) == SHEETS
    table = predicted.predictions()
    assert_same_table(result["objects"], table.reset_index(), excel=name == "excel")
    assert result["counts"]["count"].sum() == predicted.counts()["count"].sum() == len(table) - 1
    shape = measured.drop(columns=table.columns).reset_index()
    assert_same_table(result["measurements"][shape.columns.tolist()], shape)


def test_an_export_measures_no_objects(predicted: Project, tmp_path: Path) -> None:
    predicted.add("new", *(np.ones((9, 9), np.uint8) * n for n in (5, 1)), "yx")
    files = predicted.export(tmp_path / "results", ["csv"])
    result = pd.read_csv(files[-1])
    assert files[-1].name == "measurements.csv"
    assert set(result["image"]) == set(NAMES)


def test_partial_measurements_are_not_exported(volume: Project, tmp_path: Path) -> None:
    pair, objects = volume.pair("vol"), volume.objects("vol")
    settings = volume.settings.measurements.changed(groups=("shape",))
    assert len(pd.concat(measure(pair, objects.iloc[:3], settings))) == 3
    assert [file.name for file in volume.export(tmp_path / "results")] == ["objects.csv", "counts.csv"]
    assert len(pd.concat(measure(pair, objects, settings))) == 8
    assert [file.name for file in volume.export(tmp_path / "results")][2:] == ["measurements.csv"]


def test_a_class_name_like_a_formula_is_text_in_excel(predicted: Project, tmp_path: Path) -> None:
    (file,) = predicted.export(tmp_path / "results", ["excel"])
    sheet = openpyxl.load_workbook(file)["objects"]
    cells = [cell for row in sheet.iter_rows() for cell in row if str(cell.value).startswith("=")]
    assert {cell.value for cell in cells} == {"=bright <b>"}
    assert {cell.data_type for cell in cells} == {"s"}
    assert sheet.freeze_panes == "A2"


def test_more_objects_than_excel_rows_are_refused_before_any_work(
    predicted: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "EXCEL_ROWS", 24)
    with pytest.raises(ProjectError, match=r"has 24 objects, .* room for 23\. Export \"csv\""):
        predicted.export(tmp_path / "results", ["csv", "excel"])
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("measured", [False, True])
def test_anndata_has_objects_classes_positions_and_measurements(
    predicted: Project, tmp_path: Path, measured: bool
) -> None:
    if measured:
        expected = predicted.measure(groups=["shape"])
    else:
        for file in predicted.path.glob("measurements/*/*.parquet"):
            file.unlink()
        predicted = Project(predicted.path)
    (file,) = predicted.export(tmp_path / "results", ["anndata"])
    data = anndata.read_h5ad(file)
    table = predicted.predictions()
    assert data.obs_names.tolist() == [f"{image}/{label}" for image, label in table.index]
    assert data.obs["object"].max() == LARGEST
    assert_same_table(
        data.obs.astype({name: table.reset_index()[name].dtype for name in data.obs}), table.reset_index()
    )
    colors = dict(zip(data.obs["class"].cat.categories, data.uns["class_colors"]))
    assert colors == {info.name: info.color for info in predicted.classes}
    np.testing.assert_array_equal(data.obsm["spatial"], table[["x", "y"]] * SPACING[::-1])
    assert data.uns["spatial_unit"] == "um"
    probabilities = table[["p_dim", "p_=bright <b>"]]
    np.testing.assert_array_equal(data.obsm["probabilities"], probabilities)
    if measured:
        np.testing.assert_array_equal(data[:, "area_um2"].X[:, 0], expected["area_um2"])
    else:
        np.testing.assert_array_equal(data.X, probabilities)
        assert data.var_names.tolist() == ["dim", "=bright <b>"]


def test_anndata_of_an_unpredicted_volume(volume: Project, tmp_path: Path) -> None:
    data = anndata.read_h5ad(volume.export(tmp_path / "results", ["anndata"])[0])
    table = volume.predictions()
    np.testing.assert_array_equal(data.obsm["spatial"], table[["x", "y", "z"]] * [0.5, 0.5, 2.0])
    assert data.n_vars == 0
    assert data.obs["annotation"].notna().sum() == 2


def test_a_missing_anndata_package_is_reported_before_any_work(
    predicted: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(ProjectError, match=r'pip install "svetlana-jupyter\[anndata\]"'):
        predicted.export(tmp_path / "results", ["csv", "anndata"])
    assert not (tmp_path / "results").exists()
