"""The gallery with mouse and keyboard: thumbnails selected, labeled with one key, and undone."""

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
PAGE = "panel._page_number == {} and " + DRAWN


class Sheet:
    """The grid of thumbnails in the browser."""

    def __init__(self, lab: LabPage, cell: int) -> None:
        self.lab, self.output = lab, lab.output(cell)
        self.canvas: Locator = lab.canvas(cell)
        self.canvas.scroll_into_view_if_needed()

    def corner(self, cell: int) -> tuple[float, float]:
        """Return the left and top of a thumbnail on the canvas."""
        top, left = ast.literal_eval(self.lab.evaluate(f"tuple(map(float, panel.page.grid.corner({cell})))"))
        return left, top

    def place(self, cell: int) -> tuple[float, float]:
        """Return a point inside a thumbnail, on the page."""
        box = self.canvas.bounding_box()
        assert box is not None
        left, top = self.corner(cell)
        return box["x"] + left + 20, box["y"] + top + 20

    def click(self, cell: int, *modifiers: str) -> None:
        keyboard = self.lab.page.keyboard
        for key in modifiers:
            keyboard.down(key)
        self.lab.page.mouse.click(*self.place(cell))
        for key in modifiers:
            keyboard.up(key)

    def selected(self, cells: list[int]) -> None:
        """Wait until these cells are selected and displayed so."""
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
        """Return whether the frame of a selection is visible just outside a thumbnail."""
        left, top = self.corner(cell)
        pixels = self.lab.pixels(self.canvas)
        return bool((pixels[round(top) + 10, round(left) - 4 : round(left) - 1] != pixels[4, 40]).any())


def test_thumbnails_are_selected_by_mouse_and_keys_labeled_and_undone(lab: LabPage, tmp_path) -> None:
    lab.open_notebook(write_notebook(tmp_path / "gallery.ipynb", [PROJECT, "panel", "after = 1"]))
    lab.run_all()
    keyboard, sheet = lab.page.keyboard, Sheet(lab, 1)
    lab.wait_until(DRAWN)
    count = int(lab.evaluate("len(panel.page.objects)"))
    expect(sheet.output).to_contain_text(f"0 of {count} on this page")
    colors = [rgb(color) for color in ast.literal_eval(lab.evaluate("[c.color for c in project.classes]"))]

    # A click selects one thumbnail, Shift a range, Ctrl one more, a drag several.
    sheet.click(3)
    sheet.selected([3])
    assert sheet.is_marked(3)
    assert not sheet.is_marked(5)
    sheet.click(12, "Shift")
    sheet.selected(list(range(3, 13)))
    sheet.click(20, "Control")
    sheet.click(5, "Control")
    sheet.selected([3, 4, *range(6, 13), 20])
    expect(sheet.output).to_contain_text(f"10 of {count} on this page")
    keyboard.press("1")
    lab.wait_until("project.annotations.class_counts()['RBC'] == 10")
    assert lab.evaluate("project.annotations.table()['edit'].nunique()") == "1"
    sheet.settled()
    assert sheet.frame(4) == sheet.frame(20) == colors[0] != sheet.frame(5)
    mouse = lab.page.mouse
    mouse.move(*sheet.place(21))
    mouse.down()
    for cell in (22, 23, 24):
        mouse.move(*sheet.place(cell), steps=3)
    mouse.up()
    sheet.selected([21, 22, 23, 24])

    # Keys select the neighbor, a range, the others, all, none; buttons do too.
    keyboard.press("ArrowRight")
    sheet.selected([25])
    keyboard.press("Shift+ArrowDown")
    columns = int(lab.evaluate("panel.page.columns"))
    sheet.selected(list(range(25, 26 + columns)))
    keyboard.press("i")
    sheet.selected([cell for cell in range(count) if not 25 <= cell <= 25 + columns])
    keyboard.press("Control+a")
    sheet.selected(list(range(count)))
    lab.screenshot("gallery-all")
    keyboard.press("Escape")
    sheet.selected([])
    sheet.output.get_by_role("button", name="All", exact=True).click()
    sheet.selected(list(range(count)))
    sheet.output.get_by_role("button", name="Invert").click()
    sheet.selected([])
    keyboard.press("m")  # a button has just been pressed: JupyterLab would turn the cell into Markdown
    expect(sheet.canvas).to_be_visible()

    # The second page by key, the first by wheel; a class button labels the selection.
    keyboard.press("n")
    lab.wait_until(PAGE.format(1))
    second = lab.evaluate("panel.page.objects[:3]")
    sheet.click(0)
    sheet.click(2, "Shift")
    sheet.selected([0, 1, 2])
    sheet.output.get_by_role("button", name="WBC").click()
    lab.wait_until("project.annotations.class_counts()['WBC'] == 3")
    assert lab.evaluate("tuple(project.labels().query('`class` == \"WBC\"').index.to_list())") == second
    mouse.move(*sheet.place(30))
    mouse.wheel(0, -120)
    lab.wait_until(PAGE.format(0))
    assert lab.evaluate("project.annotations.class_counts().sum()") == "13"

    # Undo shows the page of the edit and reverts the whole edit; redo repeats it.
    lab.canvas(1).focus()
    keyboard.press("u")
    lab.wait_until("project.annotations.class_counts().to_dict() == {'RBC': 10, 'WBC': 0, 'platelet': 0}")
    lab.wait_until(PAGE.format(1))
    sheet.selected([0, 1, 2])
    assert colors[1] != sheet.frame(1)
    keyboard.press("r")
    lab.wait_until("project.annotations.class_counts()['WBC'] == 3")
    sheet.settled()
    assert sheet.frame(1) == colors[1]
    keyboard.press("p")
    lab.wait_until(PAGE.format(0))
    sheet.settled()
    sheet.output.locator(".svetlana").first.screenshot(path=lab.screenshot("gallery"))
    assert lab.page.locator(".jp-Notebook .jp-Cell").count() == 3
    assert not [line for line in lab.console if "page error" in line]
