"""The form that a project begins with: it shows what it finds, says what is wrong, and becomes the app."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import tifffile

from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.app import App
from svetlana_jupyter.widgets.scheduling import LatestQuestion
from tests.widgets.conftest import squares


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two images with masks, and a third without."""
    for seed, name in enumerate(["A1", "A2"]):
        image, mask = squares(seed)
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
        tifffile.imwrite(tmp_path / f"{name}_mask.tif", mask)
    tifffile.imwrite(tmp_path / "A3.tif", image)
    return tmp_path


def filled(files: Path) -> App:
    app = App()
    form = app.children[0]
    form.folder.value = str(files / "wells.svetlana")
    form.fields.images.value = f"{files}/{{well}}.tif"
    form.fields.masks.value = f"{files}/{{well}}_mask.tif"
    return app


def name_classes(form, *names: str) -> None:
    for row, name in zip(form.classes.rows, names):
        row.name.value = name


def test_the_form_lists_the_pairs_and_first_what_has_no_mask(files):
    form = filled(files).children[0]
    assert "2 of 3 images can be used" in form.fields.pairs.value
    assert "A1_mask.tif" in form.fields.pairs.value
    assert "64 × 96" in form.fields.pairs.value
    assert "uint8" in form.fields.pairs.value
    assert form.fields.pairs.value.index("No mask was found") < form.fields.pairs.value.index("A1_mask.tif")


def test_files_that_do_not_fit_each_other_say_so_before_the_project_is_made(files):
    tifffile.imwrite(files / "A3_mask.tif", squares(0)[1][:50])
    tifffile.imwrite(files / "A4.tif", squares(0)[0])
    (files / "A4_mask.tif").write_bytes(b"no picture")
    form = filled(files).children[0]
    assert "image and mask must have the same shape" in form.fields.pairs.value
    assert "2 of 4 images can be used" in form.fields.pairs.value


def test_axes_that_no_file_says_are_asked_for_and_taken(files):
    image = squares(0)[0]
    tifffile.imwrite(files / "A3.tif", [image, image], photometric="minisblack")
    tifffile.imwrite(files / "A3_mask.tif", squares(0)[1])
    form = filled(files).children[0]
    form.fields.images.value = f"{files}/A3.tif"
    form.fields.masks.value = f"{files}/A3_mask.tif"
    form.fields.axes.value = "zyx"
    assert "say so" in form.fields.pairs.value
    form.fields.axes.value = "cyx"
    assert "2 channels, 64 × 96" in form.fields.pairs.value


def test_the_pixel_size_is_told_where_a_file_says_it_and_asked_for_otherwise(files):
    form = filled(files).children[0]
    note = form.fields.spacing_note
    assert "do not say" in note.value
    form.fields.spacing.value = "0.5"
    assert "0.5 × 0.5 µm" in note.value
    form.fields.spacing.value = "half"
    assert "should be numbers" in form.fields.pairs.value


def test_the_form_opens_the_app_with_the_chosen_colours(files):
    app = filled(files)
    form = app.children[0]
    name_classes(form, "active", "resting")
    form.classes.rows[0].picker.value = "#123456"
    form.fields.spacing.value = "0.5"
    form.begin.click()
    assert app.tab in app.children
    assert list(app.project.images) == ["A1", "A2"]
    assert app.project.images["A1"].spacing == (0.5, 0.5)
    assert app.project.classes.names == ("active", "resting")
    assert app.project.classes.by_name("active").color == "#123456"
    assert "1 of 3 were left out. A3: No mask was found" in app.status.text


def test_an_example_in_a_field_is_no_class(files):
    app = filled(files)
    app.children[0].begin.click()
    assert app.project.classes.names == ()


def test_rows_for_classes_come_and_go_and_keep_their_colours():
    fields = App().children[0].classes
    row = fields.extend()
    row.name.value = "third"
    fields.rows[0].remove.click()
    assert [kept is row for kept in fields.rows] == [False, True]
    assert len({kept.picker.value for kept in (*fields.rows, fields.extend())}) == 3
    assert fields.chosen() == [("third", row.picker.value)]


def test_the_form_reopens_a_project_by_its_folder_alone(project):
    app = App()
    form = app.children[0]
    form.folder.value = str(project.path)
    assert form.begin.description == "Open"
    form.begin.click()
    assert list(app.project.images) == ["left", "right"]
    assert app.project.classes.names == ("bright", "dark")


def test_a_project_is_saved_as_a_zip_and_opened_from_it(annotated, tmp_path):
    app = App(annotated)
    app.save.click()
    (found,) = annotated.path.parent.glob("*.zip")
    assert found.name in app.status.text
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = App()
    form = again.children[0]
    form.folder.value = str(found.rename(elsewhere / found.name))
    assert form.begin.description == "Unpack and open"
    form.begin.click()
    assert again.project.class_counts().sum() == 12


def test_what_the_form_cannot_do_is_said_in_it(files):
    app = App()
    form = app.children[0]
    form.begin.click()
    assert "Name a folder" in form.status.text
    form.folder.value = str(files)
    form.begin.click()
    assert "holds no project.json" in form.status.text
    form.fields.images.value = "<b>*.tif"
    form.begin.click()
    assert "where the masks lie" in form.status.text
    form.fields.masks.value = "*.tif"
    assert "<b>" not in form.fields.pairs.value
    assert app.project is None


def test_an_image_added_twice_is_no_problem(files):
    filled(files).children[0].begin.click()
    app = filled(files)
    app.children[0].begin.click()
    assert len(app.project.images) == 2
    assert isinstance(app.project, Project)


def test_only_the_answer_to_the_last_question_is_shown():
    shown = []

    async def typed() -> None:
        latest = LatestQuestion(str.upper, shown.append, delay=0)
        for text in ("a", "ab", "abc"):
            latest.ask(text)
        while not shown:
            await asyncio.sleep(0)
        latest.ask("gone")
        latest.cancel()
        latest.ask("last")
        while len(shown) < 2:
            await asyncio.sleep(0)

    asyncio.run(typed())
    assert shown == ["ABC", "LAST"]
