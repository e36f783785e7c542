"""Failures under a panel: they are explained, lose nothing, and end when their cause does."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr

from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from svetlana_jupyter.widgets.app import App
from svetlana_jupyter.widgets.gallery.gallery_panel import GalleryPanel
from tests.project.test_write_failures import raise_disk_full
from tests.widgets.conftest import squares

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def panel(project):
    made = AnnotationPanel(project)
    yield made
    made.close()


@pytest.fixture
def files(tmp_path: Path) -> Project:
    """A project whose images lie in files: a tiled TIFF and a Zarr."""
    made = Project(tmp_path / "files.svetlana", classes=["bright", "dark"])
    for seed, name in enumerate(["left", "right"]):
        image, mask = squares(seed)
        tifffile.imwrite(tmp_path / f"{name}.tif", image, tile=(16, 16))
        stored = zarr.create_array(tmp_path / f"{name}.zarr", shape=mask.shape, chunks=(16, 16), dtype=mask.dtype)
        stored[...] = mask
        made.add(name, tmp_path / f"{name}.tif", tmp_path / f"{name}.zarr")
    return made


def shown(gallery: GalleryPanel) -> list[bool]:
    """Return whether each object of the page has a thumbnail."""
    page = gallery.page
    return [picture is not None for picture in page._thumbnail_cache.cached_thumbnails(page._page(page.objects))]


def label(panel: AnnotationPanel, image: str, label: int, key: str) -> None:
    panel.viewer.show(image, label)
    panel.viewer.screen.handle_key(key, (image, label))


def is_explained(text: str) -> bool:
    return bool(text) and "Something went wrong" not in text and "Errno" not in text


def test_a_missing_project_folder_takes_no_annotation_and_loses_none(panel, project, tmp_path):
    label(panel, "left", 1, "1")
    away = project.path.rename(tmp_path / "away")
    label(panel, "left", 2, "2")
    assert is_explained(panel.status.text)
    assert "sv-trouble" in panel.status.value
    assert project.annotations.label_of("left", 2).action == ""
    away.rename(project.path)
    label(panel, "left", 3, "2")
    assert panel.status.text == "Object 3 in left is labeled dark."
    reopened = Project(project.path)
    assert [reopened.annotations.label_of("left", label).class_id for label in (1, 2, 3)] == [1, 0, 2]


@pytest.mark.parametrize(
    "act",
    [
        lambda panel: panel.class_buttons.row(1).edit.click() or panel.editor.rename.click(),
        lambda panel: setattr(panel.class_buttons.row(1).picker, "value", "#00ff00"),
        lambda panel: setattr(panel.new_class.name, "value", "late") or panel.new_class.add.click(),
        lambda panel: panel.command_bar.buttons["Undo"].click(),
        lambda panel: panel.command_bar.buttons["Next"].click(),
    ],
    ids=["rename", "recolor", "add", "undo", "next"],
)
def test_actions_on_a_missing_project_folder_are_refused_with_a_message(panel, project, tmp_path, act, caplog):
    label(panel, "left", 1, "1")
    away = project.path.rename(tmp_path / "away")
    act(panel)
    assert is_explained(panel.status.text)
    assert "Traceback" not in caplog.text
    assert not project.path.exists(), "no new folder is created in its place"
    away.rename(project.path)
    label(panel, "left", 2, "1")
    assert project.annotations.label_of("left", 2).class_id == 1
    assert project.classes.names[:2] == ("bright", "dark")


def test_a_deleted_image_is_named_and_the_others_still_work(files, tmp_path):
    panel = AnnotationPanel(files)
    label(panel, "left", 1, "1")
    (tmp_path / "right.tif").unlink()
    label(panel, "right", 1, "1")
    assert "right" in panel.viewer.status.text
    assert is_explained(panel.viewer.status.text)
    label(panel, "left", 2, "2")
    assert panel.viewer.status.text == ""
    assert files.annotations.label_of("left", 1).class_id == 1
    assert files.annotations.label_of("left", 2).class_id == 2


def test_a_corrupt_block_is_reported_and_the_panel_goes_on(files, tmp_path):
    panel = AnnotationPanel(files)
    files.objects("right")
    for chunk in (tmp_path / "right.zarr" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"torn")
    label(panel, "right", 1, "2")
    assert "right.zarr cannot be read" in panel.viewer.status.text
    label(panel, "left", 1, "2")
    assert files.annotations.label_of("left", 1).class_id == 2
    assert panel.viewer.status.text == ""


def test_two_panels_of_one_project_agree(project):
    first, second = AnnotationPanel(project), AnnotationPanel(project)
    label(first, "left", 1, "1")
    label(second, "left", 2, "2")
    first.viewer.screen.handle_key("u", None)
    assert project.annotations.label_of("left", 2).action == ""
    assert second.command_bar.buttons["Redo"].disabled is first.command_bar.buttons["Redo"].disabled is False
    assert ">1<" in second.class_buttons.row(1).children[3].value


def test_the_app_opens_a_project_whose_images_are_all_missing(files, tmp_path):
    for file in tmp_path.glob("*.tif"):
        file.unlink()
    app = App(Project(files.path))
    panel = app.panels["Label"]
    assert is_explained(panel.viewer.status.text)
    app.tab.selected_index = app.tab.titles.index("Results")
    assert "Results" in app.panels


def test_a_mask_that_changed_on_the_disk_is_refused_until_it_is_replaced(files, tmp_path):
    files.objects("left")
    mask = squares(0)[1]
    mask[mask == 24] = 0
    zarr.open_array(tmp_path / "left.zarr", mode="r+")[...] = mask
    again = Project(files.path)
    panel = AnnotationPanel(again)
    assert "The mask of 'left' has changed on disk" in panel.warnings.warnings["left"]
    again.replace_mask("left")
    panel.viewer.show("left", 1)
    assert panel.viewer.model.selected == 1
    assert panel.warnings.warnings == {}
    assert np.array_equal(again.objects("left").index, np.arange(1, 24))


def test_a_full_disk_takes_no_annotation_and_loses_none(panel, project, monkeypatch):
    label(panel, "left", 1, "1")
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", raise_disk_full)
        label(panel, "left", 2, "2")
        assert "No space left on device" in panel.status.text
        assert "sv-trouble" in panel.status.value
        assert project.annotations.label_of("left", 2).action == "", "an annotation that is not saved is not displayed"
        panel.command_bar.buttons["Undo"].click()
        assert "No space left on device" in panel.status.text
        assert project.annotations.label_of("left", 1).class_id == 1
        panel.class_buttons.row(1).picker.value = "#00ff00"
        assert "No space left on device" in panel.status.text
    label(panel, "left", 2, "2")
    assert panel.status.text == "Object 2 in left is labeled dark."
    assert "sv-trouble" not in panel.status.value
    assert Project(project.path).annotations.class_counts().to_dict() == {"bright": 1, "dark": 1}


OTHER_KERNEL = """
import sys
from svetlana_jupyter.project.project import Project
project = Project(sys.argv[1], annotator="ann")
project.annotate("left", 7, "bright")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def elsewhere(project):
    """Another kernel that annotates as 'ann'."""
    command = [sys.executable, "-c", OTHER_KERNEL, str(project.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def test_a_second_kernel_of_the_same_annotator_is_read_only_until_the_first_ends(project, elsewhere):
    panel = AnnotationPanel(Project(project.path, annotator="ann"))
    assert "Another notebook is annotating as 'ann'" in panel.status.text
    assert "sv-trouble" in panel.status.value
    label(panel, "left", 1, "1")
    assert "Another notebook is annotating" in panel.status.text
    assert panel.project.annotations.class_counts().to_dict() == {"bright": 1, "dark": 0}, "those of the other kernel"
    elsewhere.kill()
    elsewhere.wait()
    label(panel, "left", 1, "1")
    assert panel.status.text == "Object 1 in left is labeled bright."
    assert "sv-trouble" not in panel.status.value
    assert ">2<" in panel.class_buttons.row(1).children[3].value


def test_the_gallery_names_the_missing_file_and_labels_the_rest(files, tmp_path):
    (tmp_path / "right.tif").unlink()
    gallery = GalleryPanel(files)
    assert "right.tif does not exist" in gallery.page.status.text
    assert is_explained(gallery.page.status.text)
    assert {name for (name, _), seen in zip(gallery.page.objects, shown(gallery), strict=True) if seen} == {"left"}
    gallery.filter_bar.order.value = "position"
    gallery.page.select(gallery.page.selection.of([0, 1]))
    gallery.controls.handle_key("1", gallery.shown)
    assert files.annotations.class_counts()["bright"] == 2
    panel = AnnotationPanel(files)
    while panel.viewer.model.image != "right":
        panel.handle_key("n", None)
    assert "right.tif does not exist" in panel.viewer.status.text
    assert panel.shown is None
    while panel.viewer.model.image == "right":
        panel.handle_key("n", None)
    assert panel.shown.image == "left", "the queue continues with the other images"
