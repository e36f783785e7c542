"""Warnings about images at the top of the panels, and their buttons."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.widgets.images_panel import ImagesPanel


@pytest.fixture
def panel(project):
    """The images panel of a project whose third image has a mask of classes."""
    mask = np.kron(np.arange(20).reshape(4, 5) % 2 + 1, np.pad(np.ones((6, 6), int), 2))
    project.add("<b>", mask.astype(np.uint8), mask)
    panel = ImagesPanel(project)
    assert panel.warnings.layout.display == "none"
    project.images.objects("<b>")
    return panel


def buttons(panel):
    return {child.description: child for child in panel.warnings.children[0].children[1].children}


def test_the_warning_appears_once_the_table_is_known_and_its_text_is_escaped(panel):
    shown = panel.warnings.children[0].children[0].value

    assert panel.warnings.layout.display is None
    assert "&lt;b&gt;" in shown
    assert "<b><b>" not in shown
    assert "lie in several places" in shown
    assert panel.children[0].children[1] is panel.warnings


def test_the_repair_button_numbers_the_pieces(panel):
    buttons(panel)["Number the pieces"].click()

    assert len(panel.project.objects("<b>")) == 20
    assert panel.warnings.layout.display == "none"
    assert "<b> has a new mask" in panel.status.text


def test_the_accept_button_hides_the_warning(panel):
    buttons(panel)["Accept the mask"].click()

    assert panel.project.images.warning("<b>") == ""
    assert panel.warnings.children == ()


def test_a_mask_that_changed_on_disk_can_be_neither_accepted_nor_repaired_as_it_was(panel):
    file = panel.project.images.mask_file("<b>")
    stored = zarr.open_array(file, mode="r+")
    stored[:] = 3 - stored[:] * (stored[:] > 0)

    with pytest.raises(ProjectError, match="has changed on disk"):
        panel.project.predictions()
    assert "has changed on disk" in panel.warnings.texts[0]
    assert "lie in several places" in panel.warnings.texts[0]
    assert buttons(panel) == {}
    with pytest.raises(ProjectError, match="has changed on disk"):
        panel.project.images.accept_warning("<b>")


def test_warnings_that_are_not_about_the_mask_have_no_buttons(panel):
    other = panel.project.images.warnings
    other.add_source(lambda name: "The predictions are outdated.")
    panel.warnings.refresh()

    assert len(panel.warnings.children) == len(panel.project.images) == 3
    for row, name in zip(panel.warnings.children, panel.project.images, strict=True):
        shown = [child.description for child in row.children[1].children]
        assert shown == (["Number the pieces", "Accept the mask"] if name == "<b>" else [])

    panel.project.images.accept_warning("<b>")
    assert panel.warnings.warnings["<b>"] == "The predictions are outdated."
    assert buttons(panel) == {}
