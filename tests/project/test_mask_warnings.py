"""Warnings about masks whose numbers do not name objects, from the object table to the export."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import tifffile

from svetlana_jupyter.errors import InputError, ResultWarning
from svetlana_jupyter.project.project import Project

CELLS = np.kron(np.arange(1, 21).reshape(4, 5), np.pad(np.ones((6, 6), int), 2)).astype(np.uint16)
CLASSES = np.where(CELLS > 0, 1 + CELLS % 2, 0).astype(np.uint8)


@pytest.fixture
def project(tmp_path):
    """A project with a mask of classes and a mask of objects, both indexed."""
    made = Project(tmp_path / "p.svetlana", classes=["a", "b"])
    for name, mask in (("classes", CLASSES), ("cells", CELLS)):
        tifffile.imwrite(tmp_path / f"{name}_image.tif", (mask * 10).astype(np.uint8))
        tifffile.imwrite(tmp_path / f"{name}.tif", mask)
        made.add(name, tmp_path / f"{name}_image.tif", tmp_path / f"{name}.tif")
    return made


def index(project):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        project.objects("classes"), project.objects("classes"), project.objects("cells")
    return [str(warning.message) for warning in caught if warning.category is ResultWarning]


def test_the_warning_names_the_numbers_the_cause_and_both_calls(project):
    assert project.images.warning("classes") == ""  # not indexed yet

    (printed,) = index(project)

    assert "2 of 2 numbers in the mask lie in several places (number 1 in 10 pieces)" in printed
    assert "`project.replace_mask('classes', repair='components')`" in printed
    assert "`project.images.accept_warning('classes')`" in printed
    assert printed == f"classes: {project.images.warning('classes')}" == project.trouble
    assert project.images.warning("cells") == ""


def test_tables_and_exports_carry_the_warning(project, tmp_path):
    index(project)
    text = f"classes: {project.images.warning('classes')}"
    project.annotate("classes", 1, "a")

    assert project.objects("classes").attrs["warning"] == text
    assert "warning" not in project.objects("cells").attrs
    assert project.predictions().attrs["warning"] == project.counts("image").attrs["warning"] == text
    assert "warning" not in project.predictions(["cells"]).attrs
    assert project.to_xarray().attrs["warning"] == text

    project.export(tmp_path / "results", ["csv"])
    written = pd.read_csv(tmp_path / "results" / "warnings.csv", index_col="image")["warning"].to_dict()
    assert written == json.loads((tmp_path / "results" / "export.json").read_text("utf-8"))["warnings"]
    assert written == {"classes": project.images.warning("classes")}


def test_an_export_removes_its_earlier_warnings_but_no_file_of_others(project, tmp_path):
    index(project)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "warnings.parquet").write_text("mine")
    project.export(tmp_path / "results", ["csv"])
    assert (tmp_path / "results" / "warnings.csv").exists()

    project.images.accept_warning("classes")
    project.export(tmp_path / "results", ["csv", "parquet"])

    about = json.loads((tmp_path / "results" / "export.json").read_text("utf-8"))
    assert (tmp_path / "results" / "warnings.parquet").read_text() == "mine"
    tables = {f"{name}.{suffix}" for name in ("objects", "counts") for suffix in ("csv", "parquet")}
    assert set(about["files"]) == tables
    found = {file.name for file in (tmp_path / "results").iterdir()}
    assert found == {*tables, "export.json", "warnings.parquet"}


def test_a_repair_numbers_the_pieces_and_keeps_annotations(project, tmp_path):
    index(project)
    project.annotate("classes", 1, "a")

    report = project.replace_mask("classes", repair="components")

    assert len(project.objects("classes")) == 20
    assert report.loc[1, "status"] == "split"
    assert len(report.loc[1, "carried"]) == 10
    assert project.images.warning("classes") == project.trouble == ""
    assert "warning" not in project.predictions().attrs
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "classes.tif"), CLASSES)  # the file is not changed
    assert list((project.path / "arrays").glob(".*")) == []


def test_an_accepted_mask_stays_accepted_until_it_is_replaced(project):
    index(project)

    project.images.accept_warning("classes")

    assert project.images.warning("classes") == project.trouble == ""
    opened = Project(project.path)
    assert "warning" not in opened.objects("classes").attrs
    opened.replace_mask("classes", CLASSES[:, ::-1].copy())
    assert "lie in several places" in opened.images.warning("classes")


def test_the_warning_is_known_again_after_opening_without_reading_the_mask(project, tmp_path):
    index(project)
    text = project.images.warning("classes")
    (tmp_path / "classes.tif").rename(tmp_path / "moved.tif")
    (tmp_path / "moved.tif").rename(tmp_path / "classes.tif")

    opened = Project(project.path)

    assert opened.images.is_indexed("classes")
    assert opened.images.warning("classes") == text


def test_tables_without_piece_counts_are_built_again(project):
    index(project)
    file = next((project.path / "objects").glob("classes*"))
    table = pd.read_parquet(file)
    table.drop(columns="pieces").to_parquet(file)

    opened = Project(project.path)

    assert "lie in several places" in opened.images.warning("classes")


@pytest.mark.parametrize("repair", [None, "unsigned"])
def test_negative_numbers_are_refused_with_the_repair_that_reads_them(repair, tmp_path):
    project = Project(tmp_path / "p.svetlana")
    signed = (CELLS * 3000).astype(np.uint16)
    tifffile.imwrite(tmp_path / "mask.tif", signed.view(np.int16))
    tifffile.imwrite(tmp_path / "image.tif", CELLS.astype(np.uint8))

    if repair is None:
        with pytest.raises(InputError, match=r'repair="unsigned".*mask.view\(.uint16.\)'):
            project.add("i", tmp_path / "image.tif", tmp_path / "mask.tif")
        return
    project.add("i", tmp_path / "image.tif", tmp_path / "mask.tif", repair=repair)

    assert project.objects("i").index.tolist() == np.unique(signed[signed > 0]).tolist()
    assert project.images.image_files("i") == [tmp_path / "image.tif"]  # not copied


def test_a_single_negative_number_marks_pixels_to_ignore(tmp_path):
    mask = CELLS.astype(np.int32)
    mask[0] = -1

    with pytest.raises(InputError, match=r"-1 may mark pixels to ignore: set them to 0 first, .*mask.clip\(0\)"):
        Project(tmp_path / "p.svetlana").add("i", CELLS.astype(np.uint8), mask)
