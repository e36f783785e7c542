"""Panels under stress in a browser: displayed twice, reloaded, a busy kernel, hostile names."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import numpy as np
from playwright.sync_api import expect

from tests.browser.test_first_steps import THREE_FRAMES
from tests.browser.test_harness import write_notebook

if TYPE_CHECKING:
    from tests.browser.lab import LabPage

NAMES = [
    "<script>window.injected = 1</script>",
    '<img src=x onerror="window.injected = 1">',
    "\"quoted\" & 'co'",
    "🧬 emoji",
    "עברית",
]
PROJECT = f"""\
import svetlana_jupyter as sv
blood = sv.samples.blood_smear()
project = sv.Project("blood.svetlana", classes={NAMES!r})
added = project.add_images(f"{{blood}}/images/{{{{smear}}}}.png", masks=f"{{blood}}/masks/{{{{smear}}}}.tif")
panel = sv.AnnotationPanel(project)"""
BUSY = "from pathlib import Path\nwhile not Path('released').exists(): pass"
SETTLED = (
    "panel.viewer.model.scene.view == panel.viewer.model.view and panel.viewer.screen.canvas.is_final"
    " and panel.viewer.screen.pointer.shown == list(panel.viewer.model.selection_id or ())"
    " and (not panel.viewer.model.selected or panel.viewer.object_details.field is not None)"  # the framed patch
)
CELLS_NOW = "() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.type)"


def settled(lab: LabPage, *cells: int) -> None:
    lab.wait_until(SETTLED)
    for cell in cells:
        lab.wait_until_drawn(lab.canvas(cell), "panel.viewer.screen.pointer")


def log(lab: LabPage) -> list[tuple[int, int]]:
    return [
        tuple(row)
        for row in ast.literal_eval(lab.evaluate("project.annotations.table()[['object', 'class_id']].values.tolist()"))
    ]


def displayed_object(lab: LabPage, *cells: int) -> int:
    settled(lab, *cells)
    return int(lab.evaluate("panel.viewer.model.selected"))


def test_no_key_is_lost_with_two_displays_a_reload_or_a_busy_kernel(lab, tmp_path):
    lab.open_notebook(write_notebook(tmp_path / "faults.ipynb", [PROJECT, "panel", "panel", BUSY]))
    for cell in range(3):
        lab.run_cell(cell)

    # Displayed twice: both show the same, and both handle keys.
    lab.canvas(2).click(position={"x": 5, "y": 5})
    lab.page.keyboard.press("n")
    lab.wait_until("panel.viewer.model.selected")
    first = displayed_object(lab, 1, 2)
    assert np.array_equal(lab.pixels(lab.canvas(1))[5:-5, 5:-5], lab.pixels(lab.canvas(2))[5:-5, 5:-5])
    lab.page.keyboard.press("1")
    lab.wait_until("len(project.annotations.table()) == 1")
    second = displayed_object(lab, 1, 2)
    lab.canvas(1).focus()
    lab.page.keyboard.press("2")
    lab.wait_until("len(project.annotations.table()) == 2")
    third = displayed_object(lab, 1)
    assert log(lab) == [(first, 1), (second, 2)]

    # Names are escaped everywhere.
    for name in NAMES:
        expect(lab.output(1).get_by_role("button", name=name, exact=True)).to_be_visible()
    expect(lab.output(1).get_by_role("status").last).to_contain_text(f"Labeled {NAMES[1]}. Now object")
    lab.output(1).get_by_title(f"Rename {NAMES[0]}").click()
    expect(lab.output(1).locator(".sv-editor b")).to_have_text(NAMES[0])
    lab.output(1).get_by_title(f"Rename {NAMES[0]}").click()
    assert lab.page.evaluate("window.injected") is None

    # Another cell keeps the kernel busy: the first of the waiting keys labels the object it was pressed for.
    lab.canvas(1).focus()
    lab.page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 3; }")
    lab.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell'); }")
    expect(lab.cell(3)).to_contain_text("[*]")
    lab.canvas(1).focus()
    for key in "345":
        lab.page.keyboard.press(key)
    (lab.folder / "released").touch()
    lab.wait_until("len(project.annotations.table()) == 3 and 'Key ignored' in panel.status.text")
    assert log(lab)[2] == (third, 3)

    # The page is reloaded after a key: the label is kept, and the panel continues at the same object.
    fourth = displayed_object(lab, 1)
    lab.page.keyboard.press("4")
    lab.wait_until("len(project.annotations.table()) == 4")
    lab.reload()
    lab.run_cell(1)
    lab.canvas(1).scroll_into_view_if_needed()
    fifth = displayed_object(lab, 1)
    assert len(np.unique(lab.pixels(lab.canvas(1)).reshape(-1, 3), axis=0)) > 1000, "the image is back"
    lab.canvas(1).focus()
    lab.page.keyboard.press("5")
    lab.wait_until("len(project.annotations.table()) == 5")
    assert log(lab)[3:] == [(fourth, 4), (fifth, 5)]


def test_keys_in_a_form_do_not_reach_jupyterlab(lab, tmp_path):
    (lab.folder / "images").mkdir()
    lab.open_notebook(write_notebook(tmp_path / "form.ipynb", [f"{PROJECT}\nadded", "app = sv.App(); app"]))
    lab.run_all()
    before = lab.page.evaluate(CELLS_NOW)
    form = lab.output(1)
    fields = form.locator("input[type=text]:visible")
    fields.nth(0).fill("again.svetlana")
    fields.nth(1).fill(lab.evaluate("f'{blood}/images/{{smear}}.png'"))
    fields.nth(2).fill(lab.evaluate("f'{blood}/masks/{{smear}}.tif'"))
    expect(form).to_contain_text("images can be used")
    form.get_by_role("button", name="Add class").click()
    for key in "mabxdd":
        lab.page.keyboard.press(key)
    lab.page.evaluate(THREE_FRAMES)
    assert lab.page.evaluate(CELLS_NOW) == before
    # Names typed at once: more than there are rows, and faster than the kernel adds them.
    typed = [NAMES[0], "RBC", "WBC", "platelet", "blast"]
    rows = form.locator(".sv-row input")
    rows.first.click()
    lab.page.keyboard.type("\n".join(typed))
    expect(rows.nth(5)).to_be_visible()
    assert [rows.nth(number).input_value() for number in range(5)] == typed
    lab.screenshot("form")
    form.get_by_role("button", name="Create project").click()
    expect(form.locator("canvas[tabindex]").first).to_be_visible(timeout=60_000)
    form.get_by_role("tab", name="Train").click()
    form.get_by_role("button", name="Save as zip").focus()
    for key in "mabxdd":
        lab.page.keyboard.press(key)
    lab.page.evaluate(THREE_FRAMES)
    assert lab.page.evaluate(CELLS_NOW) == before
    assert lab.evaluate("app.project.classes.names") == str(tuple(typed))
    assert lab.page.evaluate("window.injected") is None
