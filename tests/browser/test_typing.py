"""Keys and names in JupyterLab: typed fast, while the kernel is busy, and before a panel has the focus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.browser.test_faults import CELLS_NOW, settled
from tests.browser.test_first_steps import THREE_FRAMES
from tests.browser.test_harness import write_notebook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser.lab import LabPage

CELLS = [
    """\
import svetlana_jupyter as sv
from pathlib import Path
blood = sv.samples.blood_smear()
project = sv.Project("blood.svetlana")
added = project.add_images(f"{blood}/images/{{smear}}.png", masks=f"{blood}/masks/{{smear}}.tif")
panel = sv.AnnotationPanel(project)
import threading
threads = set()
for widget in (panel.new_class.name, panel.new_class.add):
    widget.on_msg(lambda *_: threads.add(threading.current_thread().name))""",
    "panel",
    "while not Path('released').exists(): pass",
]
NAMES = ["macrophage", "neutrophil", "eosinophil", *(f"st {number}" for number in range(4, 18))]  # as many as keys
FOCUSED = "() => document.activeElement.tagName"


def test_names_and_keys_reach_what_they_were_typed_for(lab: LabPage, tmp_path: Path) -> None:
    lab.open_notebook(write_notebook(tmp_path / "typing.ipynb", CELLS))
    for cell in range(2):
        lab.run_cell(cell)
    output, canvas, hint = lab.output(1), lab.canvas(1), lab.output(1).get_by_text("Click here to use the keys")
    settled(lab)
    expect(hint).to_be_visible()
    assert lab.page.evaluate(FOCUSED) != "CANVAS", "a new panel does not take the focus"
    lab.screenshot("click-here")

    # Names typed at once, first with an idle kernel, then with one that is busy until all are typed.
    field = output.get_by_placeholder("new class …")
    field.click()
    for name in NAMES[:2]:
        lab.page.keyboard.type(name)
        lab.page.keyboard.press("Enter")
    lab.wait_until(f"project.classes.names == {tuple(NAMES[:2])}")
    lab.page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 2; }")
    lab.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell'); }")
    expect(lab.cell(2)).to_contain_text("[*]")
    field.click()
    for name in NAMES[2:]:
        lab.page.keyboard.type(name)
        lab.page.keyboard.press("Enter")
    lab.page.keyboard.type("last one")
    output.get_by_role("button", name="Add").click()
    (lab.folder / "released").touch()
    lab.wait_until("project.classes.names[-1] == 'last one'", timeout=120)
    assert lab.evaluate("project.classes.names") == str((*NAMES, "last one"))
    expect(field).to_have_value("")
    assert lab.evaluate("threads") == "{'MainThread'}", "text and clicks are handled in order"

    # The hint is gone while the picture has the focus. Status and hover label name the object that a key brings.
    canvas.click(position={"x": 5, "y": 5})
    expect(hint).to_be_hidden()
    canvas.hover(position={"x": 324, "y": 270})
    lab.page.keyboard.press("n")
    lab.wait_until("panel.viewer.model.selected")
    for _ in range(3):
        settled(lab, 1)
        before = lab.evaluate("panel.shown.label")
        lab.page.keyboard.press("1")
        lab.wait_until(f"panel.shown.label != {before}")
        settled(lab, 1)
        now = lab.evaluate("'Labeled macrophage. Now object {1} in {0}, drawn at random.'.format(*panel.shown)")
        expect(output.get_by_role("status").last).to_have_text(now)
        lab.wait_until(
            "(hint := panel.viewer.model.scene.hint) is None or hint.text.split(' · ')[0] =="
            " f'object {panel.viewer.model.scene.object_at(*hint.at)}'"
        )

    # A class without a key, found by its name while the next key follows at once.
    before = lab.evaluate("len(project.annotations.table())")
    lab.page.keyboard.type("/last o\n")
    assert (
        lab.page.evaluate("() => new Promise(done => setTimeout(() => done(document.activeElement.tagName)))")
        == "CANVAS"
    )
    lab.wait_until(f"len(project.annotations.table()) == {before} + 1")
    assert lab.evaluate("project.annotations.table()['class_id'].iloc[-1]") == str(len(NAMES) + 1)

    # Undo and redo; then the focus goes elsewhere.
    settled(lab, 1)
    for keys, action in (("Control+z", "undo"), ("Control+Shift+z", "redo"), ("Control+Shift+Z", None)):
        lab.page.keyboard.press(keys)
        if action:
            lab.wait_until(f"project.annotations.table()['action'].iloc[-1] == {action!r}")
    expect(output.get_by_role("status").last).to_have_text("Nothing to redo.")
    lab.page.keyboard.press("Escape")
    lab.page.keyboard.press("Shift+9")
    notebook = lab.page.evaluate(CELLS_NOW)
    field.focus()
    lab.page.evaluate(THREE_FRAMES)
    expect(hint).to_be_visible()
    lab.screenshot("click-here-again")
    assert lab.page.evaluate(CELLS_NOW) == notebook
    assert not [line for line in lab.console if "page error" in line]
