"""Annotations from a file on the images panel: what was taken, what was not and why, and all of it back again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from svetlana_jupyter.widgets.images import ImagesPanel
from tests.widgets.conftest import squares


@pytest.fixture
def panel(project):
    made = ImagesPanel(project)
    yield made
    made.close()


def written(folder: Path, rows: list[tuple], name: str = "cells.csv", columns=("image", "object", "class")) -> str:
    pd.DataFrame(rows, columns=list(columns)).to_csv(folder / name, index=False)
    return str(folder / name)


def test_a_table_is_taken_in_and_what_was_not_found_is_listed(panel, project, tmp_path):
    form = panel.importing
    project.annotate("left", 2, "bright")
    rows = [("left", 1, "bright"), ("left", 2, "dark"), ("left", 99, "dark"), ("nowhere", 1, "dark")]
    form.path.value = written(tmp_path, [*rows, ("right", 4, "torn")])
    form.take.click()
    assert project.labels()["class"].to_dict() == {("left", 1): "bright", ("left", 2): "bright", ("right", 4): "torn"}
    assert "2 annotations are taken" in form.said.text and "tick the box above to take the new ones" in form.said.text
    assert form.missed.value.count("<tr>") == 4, "the head and three rows"
    assert "is bright here" in form.missed.value and "no object 99" in form.missed.value
    assert "sv-trouble" not in form.said.value and panel.status.text == "", "it is said once"
    assert form.undo.layout.display is None


def test_one_button_takes_all_of_it_back(panel, project, tmp_path):
    form = panel.importing
    project.annotate("left", 1, "dark")
    assert form.undo.layout.display == "none"
    form.path.value = written(tmp_path, [("left", 1, "bright"), ("left", 3, "bright"), ("right", 3, "bright")])
    form.overwrite.value = True
    form.take.click()
    assert project.class_counts().to_dict() == {"bright": 3, "dark": 0} and form.missed.value == ""
    form.undo.click()
    assert project.labels()["class"].to_dict() == {("left", 1): "dark"}
    assert "taken back" in form.said.text and form.undo.layout.display == "none"


def test_it_is_not_offered_back_once_something_else_was_said(panel, project, tmp_path):
    form = panel.importing
    form.path.value = written(tmp_path, [("left", 1, "bright")])
    form.take.click()
    project.annotate("left", 5, "dark")
    assert form.undo.layout.display == "none", "undo would take that back"
    form.take.click()
    assert "the same here already" in form.said.text and form.undo.layout.display == "none"


def test_the_image_and_the_column_may_be_chosen(panel, project, tmp_path):
    form = panel.importing
    assert [value for _, value in form.image.options] == ["", "left", "right"]
    form.path.value = written(tmp_path, [(7, "x", "dark")], columns=("object", "class", "second opinion"))
    form.take.click()
    assert "choose it above, one of left, right" in form.said.text and "sv-trouble" in form.said.value
    assert project.labels().empty
    form.image.value, form.column.value = "right", "second opinion"
    form.take.click()
    assert project.labels()["class"].to_dict() == {("right", 7): "dark"}


def test_the_numbers_of_a_class_image_are_named(panel, project, tmp_path):
    form = panel.importing
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
def test_a_file_that_cannot_be_used_is_said_in_a_sentence(panel, project, tmp_path, name, content, said):
    form = panel.importing
    if content is not None:
        (tmp_path / name).write_bytes(content)
    form.path.value = str(tmp_path / name) if name else " "
    form.image.value = "left"
    form.take.click()
    assert said in form.said.text and "sv-trouble" in form.said.value and "went wrong" not in form.said.text
    assert project.labels().empty and form.undo.layout.display == "none"


def test_what_a_file_says_stays_text(panel, tmp_path):
    form = panel.importing
    form.path.value = written(tmp_path, [("<i>left", 1, "<b>bold"), ("left", 99, "<b>bold")], name="<u>cells.csv")
    form.take.click()
    shown = form.said.value + form.missed.value
    assert "&lt;b&gt;bold" in shown and not {"<b>", "<i>", "<u>"} & {shown[i : i + 3] for i in range(len(shown))}


def test_many_rows_that_were_not_found_are_cut_short(panel, tmp_path):
    form = panel.importing
    form.path.value = written(tmp_path, [("left", 100 + i, "dark") for i in range(40)])
    form.take.click()
    assert (
        "sv-trouble" in form.said.value and form.missed.value.count("<tr>") == 13 and "and 28 more" in form.missed.value
    )
    assert form.undo.layout.display == "none", "nothing was taken"
