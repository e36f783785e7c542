"""Tests of the images panel: the list, adding images, replacing a mask, importing annotations."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from svetlana_jupyter.core.io.readers import HDF5_SUFFIXES, READERS
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.images_panel import ImagesPanel
from tests.widgets.conftest import squares


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two wells with masks, and a new mask for A1: 1 is kept, 2 becomes 102, 3 splits, 4 and 5 merge, 6 is lost."""
    for seed, name in enumerate(["A1", "A2"]):
        image, mask = squares(seed)
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
        tifffile.imwrite(tmp_path / f"{name}_mask.tif", mask)
    old, new = squares(0)[1], squares(0)[1]
    columns = np.indices(old.shape)[1]
    new[old == 2] = 102
    new[(old == 3) & (columns >= 39)] = 103
    new[(old == 3) & (columns >= 42)] = 105
    new[4:13, 52:77] = 104
    new[old == 6] = 0
    tifffile.imwrite(tmp_path / "A1_again.tif", new)
    tifffile.imwrite(tmp_path / "small.tif", new[:20])
    return tmp_path


@pytest.fixture
def panel(files: Path) -> ImagesPanel:
    project = Project(files / "wells.svetlana", classes=["bright", "dark"])
    project.add_images(f"{files}/{{well}}.tif", masks=f"{files}/{{well}}_mask.tif")
    for label in range(1, 7):
        project.annotate("A1", label, "bright" if label % 2 else "dark")
    return ImagesPanel(project)


def test_each_image_is_listed_with_its_properties(panel):
    listing = panel.listing.value
    for text in ("A1", "A2", "64 × 96", "uint8", "A2_mask.tif", "not counted yet", "<th>Well</th>"):
        assert text in listing
    assert '<td class="sv-number">6</td>' in listing
    panel.project.annotate("A2", 1, "bright")
    assert "not counted yet" not in panel.listing.value


def test_images_are_added_and_skipped_pairs_are_reported(empty, files):
    panel = ImagesPanel(empty)
    assert panel.forms.selected_index == 0, "the form is open while the project is empty"
    panel.add.click()
    assert "Enter the files" in panel.status.text
    panel.fields.images.value = f"{files}/{{well}}.tif"
    panel.add.click()
    assert "The masks are missing" in panel.status.text
    panel.fields.masks.value = f"{files}/{{well}}_mask.tif"
    assert "2 of 4 images can be used" in panel.fields.pairs.value
    panel.add.click()
    assert list(empty.images) == ["A1", "A2"]
    assert panel.status.text.startswith("Added 2 images. 2 of 4 pairs were skipped.")
    assert panel.mask.image.options == ("A1", "A2")
    panel.fields.images.value = f"{files}/A{{well}}.tif"
    panel.fields.masks.value = f"{files}/A{{well}}_mask.tif"
    panel.add.click()
    assert len(empty.images) == 4, "the names are different ones"


def test_refused_masks_are_repaired_by_a_button_while_the_others_stay_as_they_are(empty, files):
    mask = squares(0)[1]
    tifffile.imwrite(files / "A2_mask.tif", np.where(mask > 12, mask + 32_768, mask).astype(np.uint16).view(np.int16))
    panel = ImagesPanel(empty)
    panel.fields.images.value = f"{files}/{{well}}.tif"
    panel.fields.masks.value = f"{files}/{{well}}_mask.tif"
    panel.add.click()
    assert list(empty.images) == ["A1"]
    assert "got -32755. Unsigned numbers were probably read as signed" in panel.status.text
    assert "1 of 4 images can be used" in panel.fields.pairs.value
    assert "got -32755" in panel.fields.pairs.value
    (repair,) = panel.fields.remedies.children
    assert repair.description == "Read as unsigned numbers"
    repair.click()
    assert list(empty.images) == ["A1", "A2"]
    assert list(empty.objects("A2").index) == [*range(1, 13), *range(32_781, 32_793)]
    assert empty.images.mask_file("A1") == files / "A1_mask.tif"
    assert panel.fields.remedies.children == ()


def test_the_effect_on_annotations_is_shown_before_the_mask_is_replaced(panel, files):
    form, project = panel.mask, panel.project
    assert form.image.value == "A1"
    assert form.replace.disabled
    assert str(files / "A1_again.tif") in form.path.options
    assert str(files / "A1_mask.tif") not in form.path.options
    form.path.value = str(files / "A1_again.tif")
    report = form.report.value
    assert "6 annotated objects in A1:" in report
    for row in (
        "1</td><td>Same label; the annotation is kept</td><td>1</td>",
        "2 → 102</td>",
        "3 → 3, 103, 105</td>",
        "4 → 104; 5 → 104</td>",
        "<td>No matching object; the annotation stays in the log</td><td>6</td>",
    ):
        assert row in report
    assert project.annotations.label_of("A1", 2).class_id == 2, "nothing has changed yet"
    form.replace.click()
    assert project.annotations.label_of("A1", 102).class_id == 2
    assert project.annotations.label_of("A1", 2).action == ""
    assert panel.status.text == project.status
    assert panel.status.text.endswith("1 kept, 1 relabeled, 1 split, 2 merged, 1 lost")
    assert "2 → 102" in form.report.value
    assert form.replace.disabled
    assert "A1_again.tif" in panel.listing.value


def test_every_readable_file_is_offered_as_a_mask(panel, files):
    names = [f"mask{suffix}" for suffix in (*READERS, *HDF5_SUFFIXES, ".zarr", ".TIF", ".geojson")]
    for name in names:
        (files / name).touch()
    (files / "notes.txt").touch()
    panel.mask.refresh()
    offered = {Path(path).name for path in panel.mask.path.options}
    assert set(names) <= offered
    assert "notes.txt" not in offered


@pytest.mark.parametrize(
    ("file", "message"),
    [("gone.tif", "gone.tif does not exist"), ("small.tif", "same shape"), ("A1.tif", "The mask has no object")],
)
def test_an_unusable_mask_is_reported_and_changes_nothing(panel, files, file, message):
    image = np.zeros_like(squares(0)[0])
    tifffile.imwrite(files / "A1.tif", image)
    before = panel.project.labels()
    panel.mask.path.value = str(files / file)
    assert message in panel.mask.report.value
    assert panel.mask.replace.disabled
    assert panel.project.labels().equals(before)
    assert panel.project.images["A1"].mask_number == 0


def test_replacing_the_mask_of_an_image_without_annotations(panel, files):
    panel.mask.image.value = "A2"
    panel.mask.path.value = str(files / "A1_again.tif")
    assert "No annotations in A2" in panel.mask.report.value
    panel.mask.replace.click()
    assert panel.project.images["A2"].mask_number == 1


def test_masks_are_compared_in_the_background(panel, files):
    async def compare():
        panel.mask.path.value = str(files / "A1_again.tif")
        assert "Comparing" in panel.mask.report.value
        assert panel.mask.replace.disabled
        end = time.monotonic() + 30
        while panel.mask.replace.disabled:
            assert time.monotonic() < end
            await asyncio.sleep(0)
        assert "2 → 102" in panel.mask.report.value

    asyncio.run(compare())


def test_a_mask_is_not_replaced_while_a_job_runs(panel, files, monkeypatch):
    panel.mask.path.value = str(files / "A1_again.tif")
    monkeypatch.setattr(panel.project._jobs, "check_idle", lambda: panel.project.runs["none"])
    panel.mask.replace.click()
    assert panel.project.images["A1"].mask_number == 0
    assert "There is no run" in panel.status.text


def test_file_names_are_escaped(empty, files):
    mask = squares(0)[1]
    evil = files / "<b>bold<b>_mask.tif"
    tifffile.imwrite(evil, mask)
    empty.add("<i>well", files / "A1.tif", evil)
    panel = ImagesPanel(empty)
    assert "&lt;i&gt;well" in panel.listing.value
    assert "<b>" not in panel.listing.value + panel.mask.report.value
    assert "<b>" not in panel.mask._current_mask.value


@pytest.fixture
def import_panel(project):
    made = ImagesPanel(project)
    yield made
    made.close()


def write_table(folder: Path, rows: list[tuple], name: str = "cells.csv", columns=("image", "object", "class")) -> str:
    pd.DataFrame(rows, columns=list(columns)).to_csv(folder / name, index=False)
    return str(folder / name)


def test_a_table_is_imported_and_failed_rows_are_listed(import_panel, project, tmp_path):
    form = import_panel.importing
    project.annotate("left", 2, "bright")
    rows = [("left", 1, "bright"), ("left", 2, "dark"), ("left", 99, "dark"), ("nowhere", 1, "dark")]
    form.path.value = write_table(tmp_path, [*rows, ("right", 4, "torn")])
    form.take.click()
    assert project.labels()["class"].to_dict() == {("left", 1): "bright", ("left", 2): "bright", ("right", 4): "torn"}
    assert "Imported 2 annotations" in form.message.text
    assert "check the box above to replace" in form.message.text
    assert form.not_imported.value.count("<tr>") == 4, "the header and three rows"
    assert "labeled bright in this project" in form.not_imported.value
    assert "no object 99" in form.not_imported.value
    assert "sv-trouble" not in form.message.value
    assert import_panel.status.text == "", "the summary is shown once"
    assert form.undo.layout.display is None


def test_one_button_undoes_the_whole_import(import_panel, project, tmp_path):
    form = import_panel.importing
    project.annotate("left", 1, "dark")
    assert form.undo.layout.display == "none"
    form.path.value = write_table(tmp_path, [("left", 1, "bright"), ("left", 3, "bright"), ("right", 3, "bright")])
    form.overwrite.value = True
    form.take.click()
    assert project.annotations.class_counts().to_dict() == {"bright": 3, "dark": 0}
    assert form.not_imported.value == ""
    form.undo.click()
    assert project.labels()["class"].to_dict() == {("left", 1): "dark"}
    assert "Undid the import" in form.message.text
    assert form.undo.layout.display == "none"


def test_the_import_cannot_be_undone_after_another_annotation(import_panel, project, tmp_path):
    form = import_panel.importing
    form.path.value = write_table(tmp_path, [("left", 1, "bright")])
    form.take.click()
    project.annotate("left", 5, "dark")
    assert form.undo.layout.display == "none", "undo would remove the new annotation"
    form.take.click()
    assert "1 unchanged" in form.message.text
    assert form.undo.layout.display == "none"


def test_image_and_class_column_can_be_chosen(import_panel, project, tmp_path):
    form = import_panel.importing
    assert [value for _, value in form.image.options] == ["", "left", "right"]
    form.path.value = write_table(tmp_path, [(7, "x", "dark")], columns=("object", "class", "second opinion"))
    form.take.click()
    assert "Choose one of these above: left, right" in form.message.text
    assert "sv-trouble" in form.message.value
    assert project.labels().empty
    form.image.value, form.column.value = "right", "second opinion"
    form.take.click()
    assert project.labels()["class"].to_dict() == {("right", 7): "dark"}


def test_class_names_can_be_given_for_a_class_image(import_panel, project, tmp_path):
    form = import_panel.importing
    codes = np.where(squares(0)[1] == 3, 7, 0).astype(np.uint8)
    codes[squares(0)[1] == 4] = 1
    form.path.value = str(tmp_path / "left.tif")
    tifffile.imwrite(form.path.value, codes)
    form.take.click()
    assert "Enter their names above. If" in form.message.text
    assert project.labels().empty
    form.names.value = "dark, b, c, d, e, f, bright"
    form.take.click()
    found = project.labels()["class"].to_dict()
    assert found == {("left", 3): "bright", ("left", 4): "dark"}
    assert "without a class" in form.message.text or form.not_imported.value == ""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("", None, "Enter the file"),
        ("gone.csv", None, "gone.csv does not exist"),
        ("empty.csv", b"", "empty.csv"),
        ("odd.csv", b"a;b\n1;2\n", "column"),
        ("torn.geojson", b'{"type": "Feat', "torn.geojson"),
        ("torn.tif", b"II*\0nothing", "torn.tif"),
    ],
)
def test_an_unusable_file_is_reported(import_panel, project, tmp_path, name, content, message):
    form = import_panel.importing
    if content is not None:
        (tmp_path / name).write_bytes(content)
    form.path.value = str(tmp_path / name) if name else " "
    form.image.value = "left"
    form.take.click()
    assert message in form.message.text
    assert "sv-trouble" in form.message.value
    assert "went wrong" not in form.message.text
    assert project.labels().empty
    assert form.undo.layout.display == "none"


def test_texts_from_a_file_are_escaped(import_panel, tmp_path):
    form = import_panel.importing
    form.path.value = write_table(tmp_path, [("<i>left", 1, "<b>bold"), ("left", 99, "<b>bold")], name="<u>cells.csv")
    form.take.click()
    shown = form.message.value + form.not_imported.value
    assert "&lt;b&gt;bold" in shown
    assert not {"<b>", "<i>", "<u>"} & {shown[i : i + 3] for i in range(len(shown))}


def test_a_long_list_of_failed_rows_is_shortened(import_panel, tmp_path):
    form = import_panel.importing
    form.path.value = write_table(tmp_path, [("left", 100 + i, "dark") for i in range(40)])
    form.take.click()
    assert "sv-trouble" in form.message.value
    assert form.not_imported.value.count("<tr>") == 13
    assert "and 28 more" in form.not_imported.value
    assert form.undo.layout.display == "none", "nothing was imported"


def test_what_an_import_sets_aside_is_counted_and_listed_by_reason(import_panel, project, tmp_path):
    form = import_panel.importing
    rows = [
        *[("left.tif", 1, "dark")] * 3,
        *[("right.tif", n, "dark") for n in range(1, 31)],
        ("left.tif", 10**30, "dark"),
    ]
    form.path.value, form.image.value = write_table(tmp_path, rows), "left"
    form.take.click()
    assert project.labels()["class"].to_dict() == {("left", 1): "dark"}
    assert "30 set aside (it is of image 'right.tif')" in form.message.text
    assert f"the mask has no object {10**30}" in form.message.text
    assert f"no object {10**30}" in form.not_imported.value
    assert "and 19 more" in form.not_imported.value
