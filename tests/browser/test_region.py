"""Region selection by rectangle, lasso, Shift-click and menu, on a standard and a high-resolution screen."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import nbformat
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.lab import LabPage
from tests.browser.test_first_steps import THREE_FRAMES, Panel, rgb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.browser.server import LabServer

# Objects 1 to 24 in four rows of six.
CELLS = [
    """\
import numpy as np
import svetlana_jupyter as sv
mask = np.zeros((240, 360), np.uint16)
for i in range(24):
    y, x = 60 * (i // 6) + 15, 60 * (i % 6) + 15
    mask[y : y + 30, x : x + 30] = i + 1
project = sv.Project("cells.svetlana", classes=["active", "resting"])
project.add("well", np.where(mask, 150, 40).astype(np.uint8), mask, axes="yx")""",
    "panel = sv.AnnotationPanel(project)\npanel",
    "after = 1",
]
NONE, SOME = "not panel.viewer.model.selection", "panel.viewer.model.selection == {}"
FOCUSED = "() => document.activeElement.tagName + ' ' + document.activeElement.textContent"


@pytest.fixture(params=[1, 2], ids=["standard screen", "high-resolution screen"])
def lab(lab_server: LabServer, browser: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LabPage]:
    folder = lab_server.root / f"region-{request.param}"
    folder.mkdir()
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, device_scale_factor=request.param)
    page = LabPage(context.new_page(), lab_server, folder)
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "region.ipynb")
    page.open_notebook(tmp_path / "region.ipynb")
    page.run_all()
    yield page
    page.close()
    context.close()


class CanvasMouse:
    """Mouse over the canvas, positioned in image pixels."""

    def __init__(self, lab: LabPage, panel: Panel) -> None:
        self.lab, self.panel = lab, panel

    def at(self, y: float, x: float) -> tuple[float, float]:
        row, column = ast.literal_eval(self.lab.evaluate(f"panel.viewer.model.view.to_screen({y}, {x})"))
        box = self.panel.canvas.bounding_box()
        assert box is not None
        return box["x"] + column, box["y"] + row

    def drag(self, *points: tuple[float, float]) -> None:
        places = [self.at(*point) for point in points]
        mouse = self.lab.page.mouse
        mouse.move(*places[0])
        mouse.down()
        for place in places[1:]:
            mouse.move(*place, steps=4)
        mouse.up()

    def colors(self, label: int) -> set[tuple[int, ...]]:
        """Return the colors of an object in the browser."""
        shown = self.lab.pixels(self.panel.canvas)
        scale = shown.shape[1] / float(self.lab.evaluate("panel.viewer.model.view.size[1]"))
        y, x = middle(label)
        place = "[*panel.viewer.model.view.to_screen({}, {})]".format
        top, left = ast.literal_eval(self.lab.evaluate(place(y - 15, x - 15)))
        bottom, right = ast.literal_eval(self.lab.evaluate(place(y + 15, x + 15)))
        part = shown[round(top * scale) : round(bottom * scale), round(left * scale) : round(right * scale)]
        return set(map(tuple, part.reshape(-1, 3).tolist()))

    def click(self, y: float, x: float, button: str = "left") -> None:
        self.lab.page.mouse.click(*self.at(y, x), button=button)  # type: ignore[arg-type]


def middle(label: int) -> tuple[float, float]:
    return 60 * ((label - 1) // 6) + 30.0, 60 * ((label - 1) % 6) + 30.0


def test_objects_are_selected_by_box_lasso_and_shift_and_labeled_by_key_or_menu(lab: LabPage) -> None:
    page, keyboard = lab.page, lab.page.keyboard
    panel = Panel(lab, 1, "panel")
    canvas_mouse = CanvasMouse(lab, panel)
    panel.settled()

    # Rectangle by its button; a key labels all objects inside in a single edit.
    panel.output.get_by_title("Box:").click()
    canvas_mouse.drag((5, 5), (60, 70), (115, 115))
    lab.wait_until(SOME.format((1, 2, 7, 8)))
    expect(panel.output).to_contain_text("4 objects in well selected")
    panel.settled()
    keyboard.press("1")
    lab.wait_until("project.annotations.class_counts()['active'] == 4")
    assert lab.evaluate("project.annotations.table()['edit'].nunique()") == "1"
    panel.settled()
    active, resting = map(rgb, ast.literal_eval(lab.evaluate("[c.color for c in project.classes]")))
    for label in (1, 2, 7, 8):
        assert active in canvas_mouse.colors(label)
    assert active not in canvas_mouse.colors(16)

    # Lasso by its key, ending outside of the canvas; its line is visible while it is drawn.
    keyboard.press("Escape")
    lab.wait_until(NONE)
    keyboard.press("l")
    expect(panel.output.get_by_title("Lasso:")).to_have_class(re.compile("mod-active"))
    around = [(125, 185), (125, 300), (235, 300), (235, 185)]
    page.mouse.move(*canvas_mouse.at(*around[0]))
    page.mouse.down()
    for corner in around[1:]:
        page.mouse.move(*canvas_mouse.at(*corner), steps=5)
    lab.wait_until(
        "abs(panel.viewer.model.lasso[-1][1] - 185) < 2 and panel.viewer.model.scene.lasso == panel.viewer.model.lasso"
    )
    page.evaluate(THREE_FRAMES)
    row, column = ast.literal_eval(lab.evaluate("panel.viewer.model.view.to_screen(235, 240)"))
    scale = int(lab.evaluate("int(panel.viewer.screen.pointer.dpr)"))
    y, x, reach = round(row * scale), round(column * scale), 40
    near = lab.pixels(panel.canvas)[y - 4 * scale : y + 5 * scale, x - reach : x + reach]
    assert near.max() > 150, "the line of the lasso is on the screen"
    page.mouse.up()
    lab.wait_until(SOME.format((16, 17, 22, 23)))

    # Shift adds or removes an object.
    keyboard.down("Shift")
    canvas_mouse.click(*middle(24))
    lab.wait_until(SOME.format((16, 17, 22, 23, 24)))
    canvas_mouse.click(*middle(16))
    lab.wait_until(SOME.format((17, 22, 23, 24)))
    keyboard.up("Shift")

    # The menu of a selected object applies to the selection; arrows and Enter choose.
    canvas_mouse.click(*middle(23), button="right")
    menu = panel.output.locator(".sv-menu")
    expect(menu).to_contain_text("4 objects in well")
    expect(page.locator(".lm-Menu")).to_have_count(0)
    page.wait_for_function(f"({FOCUSED})() === 'BUTTON active'")
    lab.screenshot(f"region-menu-{scale}")
    keyboard.press("ArrowDown")
    assert page.evaluate(FOCUSED) == "BUTTON resting"
    keyboard.press("Enter")
    lab.wait_until("project.annotations.class_counts()['resting'] == 4")
    expect(menu).to_be_hidden()
    page.wait_for_function(f"({FOCUSED})().startsWith('CANVAS')")
    panel.settled()
    assert resting in canvas_mouse.colors(24)

    # Undo reverts the edit; a key works while the menu is open; Escape closes it; Ctrl+A selects all.
    keyboard.press("u")
    lab.wait_until("project.annotations.class_counts()['resting'] == 0")
    canvas_mouse.click(*middle(12), button="right")
    expect(menu).to_contain_text("Object 12 in well")
    keyboard.press("2")
    lab.wait_until("project.annotations.label_of('well', 12).class_id == 2")
    expect(menu).to_be_hidden()
    page.wait_for_function(f"({FOCUSED})().startsWith('CANVAS')")
    keyboard.press("Shift+F10")
    expect(menu).to_be_visible()
    page.wait_for_function(f"({FOCUSED})().startsWith('BUTTON')")
    keyboard.press("Escape")
    expect(menu).to_be_hidden()
    assert lab.evaluate("panel.viewer.model.selection") == "(12,)"
    page.wait_for_function(f"({FOCUSED})().startsWith('CANVAS')")
    keyboard.press("Control+a")
    lab.wait_until(SOME.format(tuple(range(1, 25))))
    lab.screenshot(f"region-all-{scale}")

    # A halo is crisp: white, as wide as specified in device pixels, with no intermediate colors.
    panel.settled()
    row, column = ast.literal_eval(
        lab.evaluate("panel.viewer.model.view.to_screen(75, 90)")
    )  # the upper side of object 8
    y, x = round(row * scale), round(column * scale)
    strip = list(map(tuple, lab.pixels(panel.canvas)[y - 5 * scale : y + 2 * scale, x].tolist()))
    assert strip.count((255, 255, 255)) == 2 * scale
    assert {color for color in strip if max(color) > 20} == {(255, 255, 255), active}

    # Tab leaves the canvas; no key has reached the notebook.
    keyboard.press("Tab")
    assert not page.evaluate(FOCUSED).startswith("CANVAS")
    assert page.locator(".jp-Notebook .jp-Cell").count() == len(CELLS)
    assert not [line for line in lab.console if "page error" in line]
