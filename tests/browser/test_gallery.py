"""Gallery with mouse and keyboard: thumbnails are selected, labeled with a key, and undone."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from playwright.sync_api import Locator, expect

from tests.browser.test_first_steps import rgb
from tests.browser.test_harness import write_notebook

if TYPE_CHECKING:
    from tests.browser.lab import LabPage

PROJECT = """\
import svetlana_jupyter as sv
from svetlana_jupyter.widgets.gallery.gallery_panel import GalleryPanel
blood = sv.samples.blood_smear()
project = sv.Project("blood.svetlana", classes=["RBC", "WBC", "platelet"])
added = project.add_images(f"{blood}/images/{{smear}}.png", masks=f"{blood}/masks/{{smear}}.tif")
panel = GalleryPanel(project)"""
DRAWN = (
    "panel.page.scene is not None and len(panel.page.objects) > 0"
    " and all(panel.page._thumbnail_cache.cached_thumbnails(panel.page._page(panel.page.objects)))"
)
SHOWN = "panel.page.scene.chosen == panel.page.selection.chosen and panel.page.screen.canvas.is_final"
PAGE = "panel.view.page_number == {} and " + DRAWN


class ThumbnailGrid:
    """Grid of thumbnails in the browser."""

    def __init__(self, lab: LabPage, cell: int) -> None:
        self.lab, self.output = lab, lab.output(cell)
        self.canvas: Locator = lab.canvas(cell)
        self.canvas.scroll_into_view_if_needed()

    def corner(self, cell: int) -> tuple[float, float]:
        """Return the left and top of a thumbnail on the canvas."""
        top, left = ast.literal_eval(self.lab.evaluate(f"tuple(map(float, panel.page.grid.corner({cell})))"))
        return left, top

    def point_in(self, cell: int) -> tuple[float, float]:
        """Return a point inside a thumbnail, on the page."""
        box = self.canvas.bounding_box()
        assert box is not None
        left, top = self.corner(cell)
        return box["x"] + left + 20, box["y"] + top + 20

    def click(self, cell: int, *modifiers: str) -> None:
        keyboard = self.lab.page.keyboard
        for key in modifiers:
            keyboard.down(key)
        self.lab.page.mouse.click(*self.point_in(cell))
        for key in modifiers:
            keyboard.up(key)

    def selected(self, cells: list[int]) -> None:
        """Wait until these cells are selected and displayed as selected."""
        self.lab.wait_until(f"sorted(panel.page.selection.chosen) == {cells}")
        self.settled()

    def settled(self) -> None:
        """Wait until the screen shows the current state of the grid."""
        self.lab.wait_until(SHOWN)
        self.lab.wait_until_drawn(self.canvas, "panel.page.screen.pointer")

    def frame(self, cell: int) -> tuple[int, ...]:
        """Return the color at the middle of the upper edge of a thumbnail."""
        side = float(self.lab.evaluate("panel.page.grid.side"))
        left, top = self.corner(cell)
        return tuple(self.lab.pixels(self.canvas)[round(top) + 2, round(left + side / 2)].tolist())

    def is_marked(self, cell: int) -> bool:
        """Return whether the selection frame is visible just outside a thumbnail."""
        left, top = self.corner(cell)
        pixels = self.lab.pixels(self.canvas)
        return bool((pixels[round(top) + 10, round(left) - 4 : round(left) - 1] != pixels[4, 40]).any())


def test_thumbnails_are_selected_by_mouse_and_keys_labeled_and_undone(lab: LabPage, tmp_path) -> None:
    lab.open_notebook(write_notebook(tmp_path / "gallery.ipynb", [PROJECT, "panel", "after = 1"]))
    lab.run_all()
    keyboard, grid = lab.page.keyboard, ThumbnailGrid(lab, 1)
    lab.wait_until(DRAWN)
    count = int(lab.evaluate("len(panel.page.objects)"))
    expect(grid.output).to_contain_text(f"0 of {count} on this page")
    colors = [rgb(color) for color in ast.literal_eval(lab.evaluate("[c.color for c in project.classes]"))]

    # A click selects a thumbnail, Shift a range, Ctrl another one, a drag several.
    grid.click(3)
    grid.selected([3])
    assert grid.is_marked(3)
    assert not grid.is_marked(5)
    grid.click(12, "Shift")
    grid.selected(list(range(3, 13)))
    grid.click(20, "Control")
    grid.click(5, "Control")
    grid.selected([3, 4, *range(6, 13), 20])
    expect(grid.output).to_contain_text(f"10 of {count} on this page")
    keyboard.press("1")
    lab.wait_until("project.annotations.class_counts()['RBC'] == 10")
    assert lab.evaluate("project.annotations.table()['edit'].nunique()") == "1"
    grid.settled()
    assert grid.frame(4) == grid.frame(20) == colors[0] != grid.frame(5)
    mouse = lab.page.mouse
    mouse.move(*grid.point_in(21))
    mouse.down()
    for cell in (22, 23, 24):
        mouse.move(*grid.point_in(cell), steps=3)
    mouse.up()
    grid.selected([21, 22, 23, 24])

    # Keys select the neighbor, a range, the others, all, none; buttons do too.
    keyboard.press("ArrowRight")
    grid.selected([25])
    keyboard.press("Shift+ArrowDown")
    columns = int(lab.evaluate("panel.page.grid.columns"))
    grid.selected(list(range(25, 26 + columns)))
    keyboard.press("i")
    grid.selected([cell for cell in range(count) if not 25 <= cell <= 25 + columns])
    keyboard.press("Control+a")
    grid.selected(list(range(count)))
    lab.screenshot("gallery-all")
    keyboard.press("Escape")
    grid.selected([])
    grid.output.get_by_role("button", name="All", exact=True).click()
    grid.selected(list(range(count)))
    grid.output.get_by_role("button", name="Invert").click()
    grid.selected([])
    keyboard.press("m")  # a button has just been pressed: JupyterLab would turn the cell into Markdown
    expect(grid.canvas).to_be_visible()

    # The second page by key, the first by wheel; a class button labels the selection.
    keyboard.press("n")
    lab.wait_until(PAGE.format(1))
    second = lab.evaluate("panel.page.objects[:3]")
    grid.click(0)
    grid.click(2, "Shift")
    grid.selected([0, 1, 2])
    grid.output.get_by_role("button", name="WBC").click()
    lab.wait_until("project.annotations.class_counts()['WBC'] == 3")
    assert lab.evaluate("tuple(project.labels().query('`class` == \"WBC\"').index.to_list())") == second
    mouse.move(*grid.point_in(30))
    mouse.wheel(0, -120)
    lab.wait_until(PAGE.format(0))
    assert lab.evaluate("project.annotations.class_counts().sum()") == "13"

    # Undo shows the page of the edit and reverts the whole edit; redo repeats it.
    lab.canvas(1).focus()
    keyboard.press("u")
    lab.wait_until("project.annotations.class_counts().to_dict() == {'RBC': 10, 'WBC': 0, 'platelet': 0}")
    lab.wait_until(PAGE.format(1))
    grid.selected([0, 1, 2])
    assert colors[1] != grid.frame(1)
    keyboard.press("r")
    lab.wait_until("project.annotations.class_counts()['WBC'] == 3")
    grid.settled()
    assert grid.frame(1) == colors[1]
    keyboard.press("p")
    lab.wait_until(PAGE.format(0))
    grid.settled()
    grid.output.locator(".svetlana").first.screenshot(path=lab.screenshot("gallery"))
    assert lab.page.locator(".jp-Notebook .jp-Cell").count() == 3
    assert not [line for line in lab.console if "page error" in line]
