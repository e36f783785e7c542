"""The whole in tabs, and the form that opens a project."""

from __future__ import annotations

from pathlib import Path

import pytest
import tifffile

from svetlana_jupyter.widgets.app import App
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


def test_three_panels_share_one_project(project):
    app = App(project)
    for position in range(3):
        app.tab.selected_index = position
    annotate, train, predict = app.panels.values()
    assert annotate.project is train.project is predict.project is project
    project.annotate("left", 1, "bright")
    assert "only bright has some" in train.readiness.value
    assert "1 annotated" in annotate.tally.value


def test_a_panel_is_made_when_its_tab_is_first_opened(project):
    app = App(project)
    assert list(app.panels) == ["Annotate"]
    app.tab.selected_index = 2
    assert list(app.panels) == ["Annotate", "Predict and review"]


def test_a_panel_that_cannot_be_made_says_why_and_is_made_once_it_can(project):
    file = project.path / "training.json"
    good = file.read_text()
    file.write_text("{")
    app = App(project)
    app.tab.selected_index = 1
    assert "valid JSON" in app.tab.children[1].children[1].text
    file.write_text(good)
    app.tab.selected_index = 0
    app.tab.selected_index = 1
    assert "Train" in app.panels


def test_the_form_lists_the_pairs_and_what_has_no_mask(files):
    form = App().children[0]
    form.images.value = f"{files}/{{well}}.tif"
    form.masks.value = f"{files}/{{well}}_mask.tif"
    assert "2 of 3 images have their mask" in form.pairs.value
    assert "A1_mask.tif" in form.pairs.value


def test_the_form_opens_the_app(files):
    app = App()
    form = app.children[0]
    form.folder.value = str(files / "wells.svetlana")
    form.images.value = f"{files}/{{well}}.tif"
    form.masks.value = f"{files}/{{well}}_mask.tif"
    form.classes.value = "active, resting"
    form.open.click()
    assert app.children == (app.tab,)
    assert list(app.project.images) == ["A1", "A2"]
    assert app.project.classes.names == ("active", "resting")


def test_the_form_reopens_a_project_by_its_folder_alone(project):
    app = App()
    app.children[0].folder.value = str(project.path)
    app.children[0].open.click()
    assert list(app.project.images) == ["left", "right"]


def test_what_the_form_cannot_do_is_said_in_it(files):
    app = App()
    form = app.children[0]
    form.open.click()
    assert "Name a folder" in form.status.text
    form.folder.value = str(files)
    form.open.click()
    assert "holds no project.json" in form.status.text
    form.images.value = "<b>*.tif"
    form.masks.value = "*.tif"
    assert "<b>" not in form.pairs.value
    assert app.project is None
