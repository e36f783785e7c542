"""The panel of the images: what there is, more of it, and another mask whose effect is said before it stands."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.images import ImagesPanel
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
    for object in range(1, 7):
        project.annotate("A1", object, "bright" if object % 2 else "dark")
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
    assert project.label_of("A1", 2).class_id == 2, "nothing has changed yet"
    form.replace.click()
    assert project.label_of("A1", 102).class_id == 2 and project.label_of("A1", 2).action == ""
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
    monkeypatch.setattr(type(panel.project), "_check_idle", lambda self: self.run("none"))
    panel.mask.replace.click()
    assert panel.project.images["A1"].mask_number == 0 and "there is no run" in panel.status.text


def test_names_of_files_stay_text(empty, files):
    mask = squares(0)[1]
    evil = files / "<b>bold<b>_mask.tif"
    tifffile.imwrite(evil, mask)
    empty.add("<i>well", files / "A1.tif", evil)
    panel = ImagesPanel(empty)
    assert "&lt;i&gt;well" in panel.listing.value and "<b>" not in panel.listing.value + panel.mask.report.value
    assert "<b>" not in panel.mask._now.value
