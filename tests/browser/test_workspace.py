"""The loop of the workspace in JupyterLab: labels recolor everything, in image, gallery and map."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.browser.test_first_steps import Panel, rgb
from tests.browser.test_harness import write_notebook

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from tests.browser.lab import LabPage

PROJECT = """\
import svetlana_jupyter as sv
blood = sv.samples.blood_smear()
truth = sv.samples.blood_smear_classes()
project = sv.Project("blood.svetlana", classes=["RBC", "WBC", "platelet"])
added = project.add_images(f"{blood}/images/{{smear}}.png", masks=f"{blood}/masks/{{smear}}.tif")
for (image, label), name in list(truth.items())[:6]:
    project.annotate(image, label, name)
app = sv.App(project)"""
PANEL = "app.panels['Label']"
MAP = f"{PANEL}.map"
LABELS = "int(project.annotations.class_counts().sum())"
TYPED = 12
IS_WHOLE = """() => {
  const box = part => document.querySelector(part).getBoundingClientRect();
  const app = box(".sv-app"), page = box(".jp-WindowedPanel-outer");
  return app.top >= page.top && app.bottom <= page.bottom;
}"""


def open_workspace(lab: LabPage, tmp_path) -> Locator:
    lab.page.set_viewport_size({"width": 1440, "height": 900})
    lab.open_notebook(write_notebook(tmp_path / "workspace.ipynb", [PROJECT, "app"]))
    lab.run_all()
    lab.wait_until(f"{PANEL}.viewer.model.scene is not None")
    lab.wait_until("project.live_state.stage == 'average' and not project.live_state.provisional", timeout=120)
    return lab.output(1)


def label_as_seen(lab: LabPage, count: int) -> list[tuple[str, int]]:
    """Label objects of the queue with the true class of each object on the screen."""
    panel, before, seen = Panel(lab, 1, PANEL), ("", 0), []
    panel.canvas.click(position={"x": 6, "y": 6})
    lab.page.keyboard.press("Space")
    for _ in range(count):
        before = panel.next_shown(before)
        seen.append(before)
        known = lab.evaluate(f"truth.get({before}, 'RBC')")
        labels = int(lab.evaluate(LABELS))
        lab.page.keyboard.press(str(["RBC", "WBC", "platelet"].index(known) + 1))
        lab.wait_until(f"{LABELS} == {labels + 1}")
    return seen


def test_labels_recolor_everything_and_a_lasso_on_the_map_labels_the_gallery(lab: LabPage, tmp_path) -> None:
    output = open_workspace(lab, tmp_path)
    page, panel = lab.page, Panel(lab, 1, PANEL)

    # Six labels by key change the predictions without a button.
    version = int(lab.evaluate("project.predictions_version"))
    assert not page.evaluate(IS_WHOLE)
    seen = label_as_seen(lab, 6)
    assert page.evaluate(IS_WHOLE), "a key shows the whole workspace"
    assert len(set(seen)) == 6
    lab.wait_until(f"project.predictions_version > {version} and project.live_state.labels == 12", timeout=60)
    expect(output.locator(".sv-truth")).to_contain_text("12 labels")
    expect(output.locator(".sv-app-head")).to_contain_text("✓ Saved")

    # A prediction is corrected by a key, which recolors the object, and undo takes it back.
    colors = [rgb(color) for color in ast.literal_eval(lab.evaluate("[c.color for c in project.classes]"))]
    image, label = ast.literal_eval(
        lab.evaluate("[o for o in project.predictions().query(\"predicted == 'RBC' and annotation.isna()\").index][0]")
    )
    lab.evaluate(f"setattr(app, 'selected', [({image!r}, {label})])")
    lab.wait_until(f"{PANEL}.viewer.model.selected == {label}")
    panel.settled()
    page.keyboard.press("2")
    lab.wait_until(f"project.annotations.label_of({image!r}, {label}).class_id == 2")
    panel.settled()
    assert colors[1] in panel.color_near(image, label)
    page.keyboard.press("u")
    lab.wait_until(f"{LABELS} == 12")

    # A lasso on the map selects in all views; the gallery lists these objects, and a key labels them all.
    output.get_by_role("button", name="Map").click()
    lab.wait_until(
        f"{MAP} is not None and {MAP}.scene is not None and len({MAP}.points.placed) == len({MAP}.objects) > 0"
    )
    expect(output.get_by_role("application", name="Map of objects")).to_be_visible()
    page.keyboard.press("l")
    lab.wait_until(f"{MAP}.tool == 'lasso'")
    box = lab.canvas(1).first.bounding_box()
    on_screen = f"[tuple(map(float, {MAP}.view.to_screen(y, x))) for y, x in {corners_around()}]"
    corners = ast.literal_eval(lab.evaluate(on_screen))
    page.mouse.move(box["x"] + corners[0][1], box["y"] + corners[0][0])
    page.mouse.down()
    for row, column in [*corners[1:], corners[0]]:
        page.mouse.move(box["x"] + column, box["y"] + row, steps=4)
    page.mouse.up()
    lab.wait_until("len(app.selected) > 3")
    chosen = set(ast.literal_eval(lab.evaluate("list(app.selected)")))
    output.get_by_role("button", name="Gallery").click()
    lab.wait_until(f"{PANEL}.gallery is not None and set({PANEL}.gallery.listed) == {chosen}")
    lab.canvas(1).first.focus()
    page.keyboard.press("Control+a")
    lab.wait_until(f"set({PANEL}.gallery.page.selected) == set({PANEL}.gallery.page.objects)")
    lab.wait_until_drawn(lab.canvas(1).first, f"{PANEL}.gallery.page.screen.pointer")
    count = int(lab.evaluate(f"len({PANEL}.gallery.page.selected)"))
    edits = int(lab.evaluate("project.annotations.table()['edit'].nunique()"))
    page.keyboard.press("1")
    lab.wait_until(f"all(project.annotations.label_of(*each).class_id == 1 for each in {PANEL}.gallery.page.objects)")
    assert int(lab.evaluate("project.annotations.table()['edit'].nunique()")) == edits + 1, "one edit labels them all"
    page.keyboard.press("u")
    lab.wait_until(f"{LABELS} == 12")
    assert 3 < count <= len(chosen)
    lab.screenshot("workspace-gallery")

    # The README shows such a picture. Another image, and full screen.
    output.get_by_role("button", name="Both").click()
    output.locator(".sv-app").screenshot(path=lab.screenshot("workspace"))
    output.get_by_role("button", name="Image").first.click()
    output.get_by_title("Displayed image").locator("visible=true").select_option("smear_05")
    lab.wait_until(f"{PANEL}.viewer.model.image == 'smear_05'")
    output.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement?.matches('.sv-app')")
    lab.wait_until(f"{PANEL}.viewer.model.view.size[0] > 600")
    below = "(innerHeight - document.querySelector('.sv-space').getBoundingClientRect().bottom)"
    page.wait_for_function(f"0 < {below} && {below} < 60")
    lab.screenshot("workspace-full-screen")
    selected = lab.evaluate("app.selected.tolist()")
    page.keyboard.press("Space")  # goes to the canvas, not to the button
    lab.wait_until(f"app.selected.tolist() != {selected}")
    assert page.evaluate(f"document.fullscreenElement !== null && 0 < {below} && {below} < 60")
    output.get_by_role("button", name="Full screen").click()
    page.wait_for_function("!document.fullscreenElement")

    # Escape closes the list of keys, and keeps the selection.
    selected = lab.evaluate("app.selected.tolist()")
    page.keyboard.press("?")
    expect(output.locator(".sv-help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(output.locator(".sv-help")).to_be_hidden()
    assert lab.evaluate("app.selected.tolist()") == selected != "[]"

    # In narrower windows, too, the row of tools has room for its last button, beside the list of images.
    last = "document.querySelector('.sv-tools .fa-ellipsis-h').getBoundingClientRect().right"
    for width in (*range(1440, 900, -80), 880):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function(f"{last} < document.querySelector('.sv-main').getBoundingClientRect().right - 8")
        lab.screenshot(f"workspace-{width}")
    assert not [line for line in lab.console if "page error" in line]


def corners_around() -> str:
    """Return the corners of a square around a fifth of the map, as an expression for the kernel."""
    at = f"{MAP}.points.points[{MAP}.points.placed]"
    return (
        f"(lambda p: [(p[0] - 120, p[1] - 120), (p[0] - 120, p[1] + 120), (p[0] + 120, p[1] + 120), "
        f"(p[0] + 120, p[1] - 120)])(__import__('numpy').median({at}, axis=0))"
    )


def test_a_trained_run_replaces_the_live_one_while_the_user_types_and_no_key_is_lost(lab: LabPage, tmp_path) -> None:
    output = open_workspace(lab, tmp_path)
    lab.evaluate("[project.annotate(i, o, n) for (i, o), n in list(truth.items())[6:40]]")
    quick = "preset='default', epochs=2, folds=2, trees=10"
    lab.evaluate(f"setattr(project, 'settings', project.settings.changed({quick}))")
    lab.evaluate("setattr(project.live, 'trains', False)")  # one training is enough
    compared = "__import__('sys').modules['svetlana_jupyter.project.shown_run']"
    lab.evaluate(f"setattr({compared}, '_compare', lambda *_: [('20 labels', 0.9, 0.1)])")  # the network wins
    lab.evaluate("project.background.train(predict=True)")
    typed: list[tuple[str, int]] = []
    panel, before = Panel(lab, 1, PANEL), ("", 0)
    panel.canvas.click(position={"x": 6, "y": 6})
    lab.page.keyboard.press("Space")
    while len(typed) < TYPED or lab.evaluate("project.current_run") != "0001":
        before = panel.next_shown(before)
        typed.append(before)
        labels = int(lab.evaluate(LABELS))
        lab.page.keyboard.press("1")
        lab.wait_until(f"{LABELS} == {labels + 1}")
    assert len(set(typed)) == len(typed), "no object was shown twice"
    assert lab.evaluate(f"all(project.annotations.label_of(*each).class_id == 1 for each in {typed})") == "True"
    assert "not" not in lab.evaluate(f"{PANEL}.status.text")
    assert lab.evaluate("list(project.runs._runs)") == "['0001']"
    expect(output.locator(".sv-truth")).to_contain_text("Run 0001 replaced the live classifier, because it predicts 20")
    output.get_by_role("tab", name="Train", exact=True).click()
    output.get_by_role("button", name="Show live").click()
    expect(output.locator(".sv-truth")).to_contain_text("Live")
    assert not [line for line in lab.console if "page error" in line]
