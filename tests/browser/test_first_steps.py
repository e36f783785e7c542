"""Notebook 01 in JupyterLab: operated with mouse and keys, checked by the project, the files and the pixels."""

from __future__ import annotations

import ast
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from playwright.sync_api import Locator, expect

if TYPE_CHECKING:
    from tests.browser.lab import LabPage

ROOT = Path(__file__).parent.parent.parent
NOTEBOOK = ROOT / "notebooks" / "01_first_steps.ipynb"
PANEL = "[output for output in Out.values() if type(output).__name__ == '{}'][0]"
ANNOTATION, PREDICTION = (PANEL.format(f"{name}Panel") for name in ("Annotation", "Prediction"))

# Messages of the kernel reach the screen two frames later.
THREE_FRAMES = "() => new Promise(r => { let n = 3; const f = () => n-- ? requestAnimationFrame(f) : r(); f(); })"


def cell_of(text: str) -> int:
    """Return the position of the only cell of the notebook that holds ``text``."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    found = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code" and text in "".join(cell["source"])]
    assert len(found) == 1, (text, found)
    return found[0]


class Panel:
    """Panel with a viewer in the output of a cell."""

    def __init__(self, lab: LabPage, cell: int, expression: str) -> None:
        self.lab, self.python = lab, expression
        self.output = lab.output(cell)
        self.canvas: Locator = lab.canvas(cell).first
        self.canvas.scroll_into_view_if_needed()

    def settled(self) -> None:
        """Wait until the screen shows the current state of the viewer in full quality."""
        viewer = f"{self.python}.viewer"
        self.lab.wait_until(
            f"{viewer}.model.scene is not None and {viewer}.model.scene.view == {viewer}.model.view"
            f" and {viewer}.screen.canvas.is_final"
            f" and {viewer}.screen.pointer.shown == list({viewer}.model.selection_id or ())"
        )
        self.lab.wait_until_drawn(self.canvas, f"{viewer}.screen.pointer")

    def center_of(self, image: str, label: int) -> dict[str, float]:
        """Return the center of an object on the canvas, in CSS pixels."""
        found = f"(lambda o: {self.python}.viewer.model.view.to_screen(o['y'] + 0.5, o['x'] + 0.5))"
        y, x = json.loads(self.lab.evaluate(f"[*map(float, {found}(project.objects({image!r}).loc[{label}]))]"))
        return {"x": x, "y": y}

    def click(self, image: str, label: int) -> None:
        self.settled()
        self.canvas.click(position=self.center_of(image, label))
        self.lab.wait_until(f"{self.python}.viewer.model.selected == {label}")

    def next_shown(self, before: tuple[str, int]) -> tuple[str, int]:
        """Wait until an object other than ``before`` is on the screen, and return it."""
        shown = f"tuple({self.python}.viewer.screen.pointer.shown)"
        self.lab.wait_until(f"{shown} not in ((), {before})")
        self.settled()
        image, label = ast.literal_eval(self.lab.evaluate(shown))
        return image, label

    def color_near(self, image: str, label: int, reach: int = 60) -> set[tuple[int, ...]]:
        """Return the colors that the browser shows around an object."""
        at = self.center_of(image, label)
        pixels = self.lab.pixels(self.canvas)
        row, column = round(at["y"]), round(at["x"])
        part = pixels[max(row - reach, 0) : row + reach, max(column - reach, 0) : column + reach]
        return set(map(tuple, part.reshape(-1, 3).tolist()))


def rgb(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color.removeprefix("#")))


def log_rows(folder: Path) -> list[dict[str, str]]:
    (file,) = (folder / "blood.svetlana" / "annotations").glob("*.csv")
    with file.open(newline="", encoding="utf-8") as lines:
        return [row for row in csv.DictReader(lines) if row["action"] != "draw"]


def test_the_first_notebook_from_annotation_to_the_table(lab: LabPage) -> None:
    lab.open_notebook(NOTEBOOK)
    lab.run_cell(cell_of("sv.Project("))
    expect(lab.output(cell_of("sv.Project("))).to_contain_text("smear_01")

    # Annotate: a click and a key; then the queue with one key per object.
    lab.run_cell(cell_of("AnnotationPanel"))
    panel = Panel(lab, cell_of("AnnotationPanel"), ANNOTATION)
    red = json.loads(
        lab.evaluate("[o for (i, o), k in sv.samples.blood_smear_classes().items() if i == 'smear_01' and k == 'RBC']")
    )[0]
    panel.settled()
    colors = json.loads(lab.evaluate("[c.color for c in project.classes]").replace("'", '"'))
    assert rgb(colors[0]) not in panel.color_near("smear_01", red), "nothing is colored before it is annotated"
    panel.click("smear_01", red)
    lab.page.keyboard.press("1")
    lab.wait_until(f"project.annotations.label_of('smear_01', {red}).class_id == 1")
    expect(panel.output).to_contain_text(f"Object {red} in smear_01 is labeled RBC")
    panel.settled()
    assert rgb(colors[0]) in panel.color_near("smear_01", red), "its outline has the color of its class"
    lab.page.keyboard.press("n")
    seen = ("smear_01", red)
    for count in range(2, 12):
        seen = panel.next_shown(seen)
        known = lab.evaluate(f"sv.samples.blood_smear_classes()[{seen}]")
        lab.page.keyboard.press(str(["RBC", "WBC", "platelet"].index(known) + 1))
        lab.wait_until(f"project.annotations.class_counts().sum() == {count}")
    lab.page.keyboard.press("u")
    lab.wait_until("project.annotations.class_counts().sum() == 10")
    lab.page.keyboard.press("r")
    lab.wait_until("project.annotations.class_counts().sum() == 11")
    panel.output.get_by_role("button", name="Undo").click()
    lab.wait_until("project.annotations.class_counts().sum() == 10")
    lab.page.keyboard.press("m")  # with the focus on a button, JupyterLab would turn the cell into Markdown
    expect(panel.canvas).to_be_visible()
    rows = log_rows(lab.folder)
    assert [row["action"] for row in rows] == ["label"] * 11 + ["undo", "redo", "undo"]
    assert rows[0]["source"] == "panel"
    assert {row["source"] for row in rows[1:11]} == {"random queue"}
    lab.run_cell(cell_of("blood_smear_classes()"))
    assert lab.evaluate("project.annotations.class_counts().sum()") == "60"
    save_screenshot(lab, panel)

    # Train: the kernel stays responsive, and the curve grows.
    lab.run_cell(cell_of("TrainingPanel"))
    output = lab.output(cell_of("TrainingPanel"))
    # A quick training: the browser shows a model selection or a long training in the same way.
    lab.evaluate(
        "setattr(project, 'settings', project.settings.changed(preset='default', epochs=12, folds=2, trees=30))"
    )
    output.get_by_role("button", name="Train").click()
    lab.wait_until("project.training_curve is not None and len(project.training_curve.epochs) >= 2", timeout=120)
    assert lab.evaluate("project.job is not None and 6 * 7", timeout=5) == "42", "the kernel is responsive"
    expect(output.locator("svg").first).to_contain_text("Loss")
    drawn = output.locator("svg").first.inner_html()
    lab.wait_until("len(project.training_curve.epochs) >= 8", timeout=120)
    expect(output.locator("svg").first).to_be_visible()
    assert output.locator("svg").first.inner_html() != drawn, "the curve grows"
    lab.wait_until("project.job is None and project.current_run == '0001'", timeout=600)
    expect(output).to_contain_text("Random forest on measured features", timeout=300_000)  # scores follow the run
    lab.screenshot("training")
    lab.run_cell(cell_of("project.evaluate()"))
    expect(lab.output(cell_of("project.evaluate()"))).to_contain_text("Accuracy")

    # Predict: class colors over the image; a click explains, a key corrects.
    lab.run_cell(cell_of("PredictionPanel"))
    panel = Panel(lab, cell_of("PredictionPanel"), PREDICTION)
    panel.output.get_by_role("button", name="Predict all images").click()
    lab.wait_until("project.job is None and project.predictions()['predicted'].notna().all()", timeout=300)
    image = lab.evaluate(f"{PREDICTION}.viewer.model.image")
    label = int(
        lab.evaluate(
            f"[o for i, o in project.predictions().query('annotation != annotation').index if i == {image!r}][0]"
        )
    )
    predicted = int(lab.evaluate(f"project.probabilities({image!r}).loc[{label}, 'predicted']"))
    panel.settled()
    assert rgb(colors[predicted - 1]) in panel.color_near(image, label), "the overlay shows the predicted class"
    panel.click(image, label)
    expect(panel.output.get_by_text("Grad-CAM")).to_be_visible(timeout=60_000)
    lab.screenshot("prediction")
    other = predicted % 3 + 1
    lab.page.keyboard.press(str(other))
    lab.wait_until(f"project.annotations.label_of({image!r}, {label}).class_id == {other}")
    panel.settled()
    assert rgb(colors[other - 1]) in panel.color_near(image, label), "the correction is on the screen"
    last = log_rows(lab.folder)[-1]
    assert (last["source"], last["image"], last["object"], last["class_id"]) == (
        "correction",
        image,
        str(label),
        str(other),
    )

    # The correction enters the next training.
    lab.evaluate("setattr(project, 'settings', project.settings.changed(epochs=2))")
    panel.output.get_by_role("button", name="Retrain").click()
    lab.wait_until("project.job is None and project.current_run == '0002'", timeout=300)
    assert lab.evaluate("sum(project.runs.current.labels.values())") == "61"

    # The table, the counts and the map.
    for text in ("project.predictions().head()", "project.counts(", "project.class_map(", "project.export("):
        lab.run_cell(cell_of(text))
    expect(lab.output(cell_of("project.predictions().head()"))).to_contain_text("probability")
    assert (lab.folder / "results" / "objects.csv").exists()
    assert lab.evaluate("project.class_map('smear_01').dims") == "('y', 'x')"

    # Outputs are lost on a reload; the panel is rebuilt from the kernel.
    lab.reload()
    lab.run_cell(cell_of("AnnotationPanel"))
    panel = Panel(lab, cell_of("AnnotationPanel"), "Out[max(Out)]")
    panel.settled()
    assert len(np.unique(lab.pixels(panel.canvas).reshape(-1, 3), axis=0)) > 1000, "the image is back"


def save_screenshot(lab: LabPage, panel: Panel) -> None:
    """Save a screenshot of the annotation panel."""
    panel.canvas.focus()
    lab.page.keyboard.press("f")
    panel.settled()
    panel.output.locator(".svetlana").first.screenshot(path=lab.screenshot("annotation"))
