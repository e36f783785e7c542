"""The panel of the images: what there is, more of it, and another mask whose effect is said before it stands.

Annotations from a file on the images panel: what was taken, what was not and why, and all of it back again.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.images_panel import ImagesPanel
from tests.widgets.conftest import squares


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two wells with masks, and another for the first: 1 as before, 2 as 102, 3 in three, 4 and 5 as one, 6 gone."""
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


def test_each_image_is_listed_with_what_is_known_of_it(panel):
    listing = panel.listing.value
    for text in ("A1", "A2", "64 × 96", "uint8", "A2_mask.tif", "not counted yet", "<th>Well</th>"):
        assert text in listing
    assert '<td class="sv-number">6</td>' in listing
    panel.project.annotate("A2", 1, "bright")
    assert "not counted yet" not in panel.listing.value


def test_images_are_added_and_what_is_left_out_is_said(empty, files):
    panel = ImagesPanel(empty)
    assert panel.forms.selected_index == 0, "it is open where there is nothing yet"
    panel.add.click()
    assert "Say where the images" in panel.status.text
    panel.fields.images.value = f"{files}/{{well}}.tif"
    panel.add.click()
    assert "Say where the masks lie" in panel.status.text
    panel.fields.masks.value = f"{files}/{{well}}_mask.tif"
    assert "2 of 4 images can be used" in panel.fields.pairs.value
    panel.add.click()
    assert list(empty.images) == ["A1", "A2"]
    assert panel.status.text.startswith("2 images are new. 2 of 4 were left out.")
    assert panel.mask.image.options == ("A1", "A2")
    panel.fields.images.value = f"{files}/A{{well}}.tif"
    panel.fields.masks.value = f"{files}/A{{well}}_mask.tif"
    panel.add.click()
    assert len(empty.images) == 4, "under other names"


def test_what_would_become_of_annotations_is_said_before_the_mask_is_replaced(panel, files):
    form, project = panel.mask, panel.project
    assert form.image.value == "A1" and form.replace.disabled
    assert str(files / "A1_again.tif") in form.path.options and str(files / "A1_mask.tif") not in form.path.options
    form.path.value = str(files / "A1_again.tif")
    said = form.report.value
    assert "6 annotated objects of A1:" in said
    for row in (
        "1</td><td>found again under the same number, with what was said of them</td><td>1</td>",
        "2 → 102</td>",
        "3 → 3, 103, 105</td>",
        "4 → 104; 5 → 104</td>",
        "<td>lie where the new mask has no object: what was said stays in the log</td><td>6</td>",
    ):
        assert row in said
    assert project.annotations.label_of("A1", 2).class_id == 2, "nothing has changed yet"
    form.replace.click()
    assert project.annotations.label_of("A1", 102).class_id == 2 and project.annotations.label_of("A1", 2).action == ""
    assert panel.status.text == project.status
    assert panel.status.text.endswith("1 kept, 1 moved, 1 split, 2 merged, 1 lost")
    assert "2 → 102" in form.report.value and form.replace.disabled
    assert "A1_again.tif" in panel.listing.value


@pytest.mark.parametrize(
    ("file", "said"),
    [("gone.tif", "gone.tif does not exist"), ("small.tif", "same shape"), ("A1.tif", "at least one object")],
)
def test_a_mask_that_cannot_be_used_is_said_and_changes_nothing(panel, files, file, said):
    image = np.zeros_like(squares(0)[0])
    tifffile.imwrite(files / "A1.tif", image)
    before = panel.project.labels()
    panel.mask.path.value = str(files / file)
    assert said in panel.mask.report.value and panel.mask.replace.disabled
    assert panel.project.labels().equals(before) and panel.project.images["A1"].mask_number == 0


def test_a_mask_under_which_nothing_is_annotated_loses_nothing(panel, files):
    panel.mask.image.value = "A2"
    panel.mask.path.value = str(files / "A1_again.tif")
    assert "Nothing of A2 is annotated" in panel.mask.report.value
    panel.mask.replace.click()
    assert panel.project.images["A2"].mask_number == 1


def test_the_kernel_is_free_while_masks_are_compared(panel, files):
    async def look():
        panel.mask.path.value = str(files / "A1_again.tif")
        assert "Comparing" in panel.mask.report.value and panel.mask.replace.disabled
        end = time.monotonic() + 30
        while panel.mask.replace.disabled:
            assert time.monotonic() < end
            await asyncio.sleep(0)
        assert "2 → 102" in panel.mask.report.value

    asyncio.run(look())


def test_a_mask_is_not_replaced_under_a_running_job(panel, files, monkeypatch):
    panel.mask.path.value = str(files / "A1_again.tif")
    monkeypatch.setattr(panel.project._jobs, "check_idle", lambda: panel.project.runs["none"])
    panel.mask.replace.click()
    assert panel.project.images["A1"].mask_number == 0 and "There is no run" in panel.status.text


def test_names_of_files_stay_text(empty, files):
    mask = squares(0)[1]
    evil = files / "<b>bold<b>_mask.tif"
    tifffile.imwrite(evil, mask)
    empty.add("<i>well", files / "A1.tif", evil)
    panel = ImagesPanel(empty)
    assert "&lt;i&gt;well" in panel.listing.value and "<b>" not in panel.listing.value + panel.mask.report.value
    assert "<b>" not in panel.mask._now.value


@pytest.fixture
def panel_import_form(project):
    made = ImagesPanel(project)
    yield made
    made.close()


def written(folder: Path, rows: list[tuple], name: str = "cells.csv", columns=("image", "object", "class")) -> str:
    pd.DataFrame(rows, columns=list(columns)).to_csv(folder / name, index=False)
    return str(folder / name)


def test_a_table_is_taken_in_and_what_was_not_found_is_listed(panel_import_form, project, tmp_path):
    form = panel_import_form.importing
    project.annotate("left", 2, "bright")
    rows = [("left", 1, "bright"), ("left", 2, "dark"), ("left", 99, "dark"), ("nowhere", 1, "dark")]
    form.path.value = written(tmp_path, [*rows, ("right", 4, "torn")])
    form.take.click()
    assert project.labels()["class"].to_dict() == {("left", 1): "bright", ("left", 2): "bright", ("right", 4): "torn"}
    assert "2 annotations are taken" in form.said.text and "tick the box above to take the new ones" in form.said.text
    assert form.missed.value.count("<tr>") == 4, "the head and three rows"
    assert "is bright here" in form.missed.value and "no object 99" in form.missed.value
    assert "sv-trouble" not in form.said.value and panel_import_form.status.text == "", "it is said once"
    assert form.undo.layout.display is None


def test_one_button_takes_all_of_it_back(panel_import_form, project, tmp_path):
    form = panel_import_form.importing
    project.annotate("left", 1, "dark")
    assert form.undo.layout.display == "none"
    form.path.value = written(tmp_path, [("left", 1, "bright"), ("left", 3, "bright"), ("right", 3, "bright")])
    form.overwrite.value = True
    form.take.click()
    assert project.annotations.class_counts().to_dict() == {"bright": 3, "dark": 0} and form.missed.value == ""
    form.undo.click()
    assert project.labels()["class"].to_dict() == {("left", 1): "dark"}
    assert "taken back" in form.said.text and form.undo.layout.display == "none"


def test_it_is_not_offered_back_once_something_else_was_said(panel_import_form, project, tmp_path):
    form = panel_import_form.importing
    form.path.value = written(tmp_path, [("left", 1, "bright")])
    form.take.click()
    project.annotate("left", 5, "dark")
    assert form.undo.layout.display == "none", "undo would take that back"
    form.take.click()
    assert "the same here already" in form.said.text and form.undo.layout.display == "none"


def test_the_image_and_the_column_may_be_chosen(panel_import_form, project, tmp_path):
    form = panel_import_form.importing
    assert [value for _, value in form.image.options] == ["", "left", "right"]
    form.path.value = written(tmp_path, [(7, "x", "dark")], columns=("object", "class", "second opinion"))
    form.take.click()
    assert "choose it above, one of left, right" in form.said.text and "sv-trouble" in form.said.value
    assert project.labels().empty
    form.image.value, form.column.value = "right", "second opinion"
    form.take.click()
    assert project.labels()["class"].to_dict() == {("right", 7): "dark"}


def test_the_numbers_of_a_class_image_are_named(panel_import_form, project, tmp_path):
    form = panel_import_form.importing
    codes = np.where(squares(0)[1] == 3, 7, 0).astype(np.uint8)
    codes[squares(0)[1] == 4] = 1
    form.path.value = str(tmp_path / "left.tif")
    tifffile.imwrite(form.path.value, codes)
    form.take.click()
    assert "say it under class names above. If" in form.said.text and project.labels().empty
    form.names.value = "dark, b, c, d, e, f, bright"
    form.take.click()
    found = project.labels()["class"].to_dict()
    assert found == {("left", 3): "bright", ("left", 4): "dark"}
    assert "no class" in form.said.text or form.missed.value == ""


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("", None, "Say which file"),
        ("gone.csv", None, "gone.csv is not there"),
        ("empty.csv", b"", "empty.csv"),
        ("odd.csv", b"a;b\n1;2\n", "column"),
        ("torn.geojson", b'{"type": "Feat', "torn.geojson"),
        ("torn.tif", b"II*\0nothing", "torn.tif"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_in_a_sentence(panel_import_form, project, tmp_path, name, content, said):
    form = panel_import_form.importing
    if content is not None:
        (tmp_path / name).write_bytes(content)
    form.path.value = str(tmp_path / name) if name else " "
    form.image.value = "left"
    form.take.click()
    assert said in form.said.text and "sv-trouble" in form.said.value and "went wrong" not in form.said.text
    assert project.labels().empty and form.undo.layout.display == "none"


def test_what_a_file_says_stays_text(panel_import_form, tmp_path):
    form = panel_import_form.importing
    form.path.value = written(tmp_path, [("<i>left", 1, "<b>bold"), ("left", 99, "<b>bold")], name="<u>cells.csv")
    form.take.click()
    shown = form.said.value + form.missed.value
    assert "&lt;b&gt;bold" in shown and not {"<b>", "<i>", "<u>"} & {shown[i : i + 3] for i in range(len(shown))}


def test_many_rows_that_were_not_found_are_cut_short(panel_import_form, tmp_path):
    form = panel_import_form.importing
    form.path.value = written(tmp_path, [("left", 100 + i, "dark") for i in range(40)])
    form.take.click()
    assert (
        "sv-trouble" in form.said.value and form.missed.value.count("<tr>") == 13 and "and 28 more" in form.missed.value
    )
    assert form.undo.layout.display == "none", "nothing was taken"
