"""Warnings about images at the top of the panels, and their buttons."""

from __future__ import annotations

import numpy as np
import pytest

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
