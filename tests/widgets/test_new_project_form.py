"""Tests of the form that creates or opens a project."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.app import App
from svetlana_jupyter.widgets.scheduling import LatestQuestion
from tests.widgets.conftest import squares

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two images with masks, and a third without a mask."""
    for seed, name in enumerate(["A1", "A2"]):
        image, mask = squares(seed)
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
        tifffile.imwrite(tmp_path / f"{name}_mask.tif", mask)
    tifffile.imwrite(tmp_path / "A3.tif", image)
    return tmp_path


def fill_form(files: Path) -> App:
    app = App()
    form = app.children[0]
    form.folder.value = str(files / "wells.svetlana")
    form.fields.images.value = f"{files}/{{well}}.tif"
    form.fields.masks.value = f"{files}/{{well}}_mask.tif"
    return app


def name_classes(form, *names: str) -> None:
    for row, name in zip(form.classes.rows, names):
        row.name.value = name


def test_pairs_are_listed_and_problems_come_first(files):
    form = fill_form(files).children[0]
    assert "2 of 3 images can be used" in form.fields.pairs.value
    assert "A1_mask.tif" in form.fields.pairs.value
    assert "64 × 96" in form.fields.pairs.value
    assert "uint8" in form.fields.pairs.value
    assert form.fields.pairs.value.index("No mask was found") < form.fields.pairs.value.index("A1_mask.tif")


def test_a_pixel_size_that_is_not_used_is_shown_with_the_pair(files):
    image = squares(0)[0]
    tifffile.imwrite(files / "A1.tif", image, imagej=True, resolution=(2, 2), metadata={"unit": "<parsnip>"})

    form = fill_form(files).children[0]

    assert "0.5 &#x27;&lt;parsnip&gt;&#x27;) is not used: the unit is unknown" in form.fields.pairs.value
    assert "2 of 3 images can be used" in form.fields.pairs.value


def test_mismatched_files_are_reported_before_the_project_exists(files):
    tifffile.imwrite(files / "A3_mask.tif", squares(0)[1][:50])
    tifffile.imwrite(files / "A4.tif", squares(0)[0])
    (files / "A4_mask.tif").write_bytes(b"no picture")
    form = fill_form(files).children[0]
    assert "Image and mask must have the same shape" in form.fields.pairs.value
    assert "2 of 4 images can be used" in form.fields.pairs.value


def test_missing_axes_can_be_entered(files):
    image = squares(0)[0]
    tifffile.imwrite(files / "A3.tif", [image, image], photometric="minisblack")
    tifffile.imwrite(files / "A3_mask.tif", squares(0)[1])
    form = fill_form(files).children[0]
    form.fields.images.value = f"{files}/A3.tif"
    form.fields.masks.value = f"{files}/A3_mask.tif"
    form.fields.axes.value = "zyx"
    assert "pass `axes=" in form.fields.pairs.value
    form.fields.axes.value = "cyx"
    assert "2 channels, 64 × 96" in form.fields.pairs.value


def test_the_pixel_size_is_shown_or_can_be_entered(files):
    form = fill_form(files).children[0]
    note = form.fields.spacing_note
    assert "Not in the files" in note.value
    form.fields.spacing.value = "0.5"
    assert "0.5 × 0.5 µm" in note.value
    form.fields.spacing.value = "half"
    assert "is not a number" in form.fields.pairs.value


def test_the_form_opens_the_app_with_the_chosen_colors(files):
    app = fill_form(files)
    form = app.children[0]
    name_classes(form, "active", "resting")
    form.classes.rows[0].picker.value = "#123456"
    form.fields.spacing.value = "0.5"
    form.open_button.click()
    assert app.tab in app.children
    assert list(app.project.images) == ["A1", "A2"]
    assert app.project.images["A1"].spacing == (0.5, 0.5)
    assert app.project.classes.names == ("active", "resting")
    assert app.project.classes.by_name("active").color == "#123456"
    assert "1 of 3 pairs were skipped. A3: No mask was found" in app.status.text


def test_folders_quotes_and_one_image_are_understood(files):
    for kind in ("image", "mask"):
        (files / kind).mkdir()
    for name in ("A1", "A2"):
        (files / f"{name}.tif").rename(files / "image" / f"{name}.tif")
        (files / f"{name}_mask.tif").rename(files / "mask" / f"{name}_mask.tif")
    app = App()
    form = app.children[0]
    form.folder.value = f' "{files}/wells.svetlana"'
    form.fields.images.value = f"'{files}/image/A1.tif'"
    form.fields.masks.value = f"file://{files}/mask"
    assert "1 of 1 image can be used" in form.fields.pairs.value
    form.fields.images.value = f'"{files}/image" '
    assert "2 of 2 images can be used" in form.fields.pairs.value
    form.open_button.click()
    assert app.project.path == files / "wells.svetlana"
    assert list(app.project.images) == ["A1", "A2"]
    assert app.status.text == ""


def test_swapped_images_and_masks_are_noticed_and_exchanged_by_a_button(files):
    app = fill_form(files)
    form = app.children[0]
    assert form.fields.remedies.children == ()
    form.fields.images.value, form.fields.masks.value = form.fields.masks.value, form.fields.images.value
    assert "seem to be swapped" in form.fields.pairs.value
    form.open_button.click()
    assert app.project is None
    assert "seem to be swapped" in form.status.text
    (swap,) = form.fields.remedies.children
    assert swap.description == "Swap images and masks"
    swap.click()
    assert form.fields.remedies.children == ()
    assert form.fields.masks.value == f"{files}/{{well}}_mask.tif"
    form.open_button.click()
    assert list(app.project.images) == ["A1", "A2"]


def test_placeholders_are_not_classes(files):
    app = fill_form(files)
    app.children[0].open_button.click()
    assert app.project.classes.names == ()


def test_the_last_class_row_is_empty():
    fields = App().children[0].classes
    count = len(fields.rows)
    fields.rows[0].name.value = "first"
    assert len(fields.rows) == count
    fields.rows[-1].name.value = "last"
    assert [row.name.value for row in fields.rows] == ["first", *[""] * (count - 2), "last", ""]
    fields.rows[-1].remove.click()
    assert [row.name.value for row in fields.rows[-2:]] == ["last", ""]


def test_class_rows_are_added_and_removed_with_distinct_colors():
    fields = App().children[0].classes
    row = fields.extend()
    row.name.value = "third"
    fields.rows[0].remove.click()
    assert [kept is row for kept in fields.rows] == [False, True, False]
    assert len({kept.picker.value for kept in fields.rows}) == 3
    assert fields.entered_classes() == [("third", row.picker.value)]


def test_an_existing_project_is_opened_by_its_folder(project):
    app = App()
    form = app.children[0]
    form.folder.value = str(project.path)
    assert form.open_button.description == "Open"
    form.open_button.click()
    assert list(app.project.images) == ["left", "right"]
    assert app.project.classes.names == ("bright", "dark")


def test_a_project_is_saved_as_a_zip_and_opened_again(annotated, tmp_path):
    app = App(annotated)
    app.save.click()
    (file,) = annotated.path.parent.glob("*.zip")
    assert file.name in app.status.text
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = App()
    form = again.children[0]
    form.folder.value = str(file.rename(elsewhere / file.name))
    assert form.open_button.description == "Unpack and open"
    form.open_button.click()
    assert again.project.annotations.class_counts().sum() == 12


def test_invalid_entries_are_reported_in_the_form(files):
    app = App()
    form = app.children[0]
    form.open_button.click()
    assert "Enter a project folder" in form.status.text
    form.folder.value = str(files)
    form.open_button.click()
    assert "contains no project.json" in form.status.text
    form.fields.images.value = "<b>*.tif"
    form.open_button.click()
    assert "The masks are missing" in form.status.text
    form.fields.masks.value = "*.tif"
    assert "<b>" not in form.fields.pairs.value
    assert app.project is None


def test_adding_the_same_images_again_changes_nothing(files):
    fill_form(files).children[0].open_button.click()
    app = fill_form(files)
    app.children[0].open_button.click()
    assert len(app.project.images) == 2
    assert isinstance(app.project, Project)


def test_only_the_latest_answer_is_shown():
    shown = []

    async def typed() -> None:
        latest = LatestQuestion(str.upper, shown.append, delay=0)
        for text in ("a", "ab", "abc"):
            latest.ask(text)
        while not shown:
            await asyncio.sleep(0)
        latest.ask("gone")
        latest.ask(None)
        latest.ask("last")
        while len(shown) < 2:
            await asyncio.sleep(0)

    asyncio.run(typed())
    assert shown == ["ABC", "LAST"]


def refused_form(tmp_path: Path, mask: np.ndarray) -> App:
    """Return a form whose only mask was refused."""
    tifffile.imwrite(tmp_path / "B1.tif", squares(0)[0])
    tifffile.imwrite(tmp_path / "B1_mask.tif", mask)
    app = fill_form(tmp_path)
    app.children[0].open_button.click()
    assert app.project is None
    return app


def test_a_mask_that_was_read_as_signed_is_added_as_unsigned_by_a_button(tmp_path):
    mask = np.where(squares(0)[1] > 0, squares(0)[1] + 120, 0).astype(np.uint8)
    app = refused_form(tmp_path, mask.view(np.int8))
    form = app.children[0]
    assert "got -128. Unsigned numbers were probably read as signed: click “Read as unsigned" in form.status.text
    assert "0 of 1 image can be used" in form.fields.pairs.value
    assert form.open_button.description == "Open", "the project exists, without images"
    (repair,) = form.fields.remedies.children
    assert repair.description == "Read as unsigned numbers"
    repair.click()
    assert app.tab in app.children
    assert app.project.objects("B1")["size"].to_dict() == dict.fromkeys(range(121, 145), 81)
    assert not app.project.images.warnings.of_images(["B1"])


@pytest.mark.parametrize("value", [1, 255])
def test_a_binary_mask_is_added_with_numbered_pieces_by_a_button(tmp_path, value):
    app = refused_form(tmp_path, np.where(squares(0)[1] > 0, value, 0).astype(np.uint8))
    form = app.children[0]
    assert f"its only label is {value}" in form.status.text
    (repair,) = form.fields.remedies.children
    assert repair.description == "Number the pieces"
    repair.click()
    assert app.project.objects("B1")["size"].to_dict() == dict.fromkeys(range(1, 25), 81)


def test_a_refusal_that_no_repair_resolves_shows_no_button_and_typing_hides_the_buttons(tmp_path):
    form = refused_form(tmp_path, np.where(squares(0)[1] > 0, -1, 0).astype(np.int8)).children[0]
    assert "-1 may mark pixels to ignore" in form.status.text
    assert form.fields.remedies.children == ()
    form = refused_form(tmp_path, squares(0)[1].astype(np.int16) - 5).children[0]
    assert len(form.fields.remedies.children) == 1
    form.fields.images.value = f"{tmp_path}/{{name}}.tif"
    assert form.fields.remedies.children == ()
    assert form.status.text == ""


def test_a_button_of_a_refusal_is_gone_as_soon_as_other_files_are_typed(tmp_path):
    form = refused_form(tmp_path, np.where(squares(0)[1] > 0, 1, 0).astype(np.uint8)).children[0]
    assert len(form.fields.remedies.children) == 1

    async def typed() -> None:
        form.fields.masks.value = f"{tmp_path}/{{well}}_other.tif"
        assert form.fields.remedies.children == (), "the other files are not listed yet"

    asyncio.run(typed())
