"""Volume in the workspace: keys and the slider change the plane, and objects of the displayed plane are labeled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.browser.test_first_steps import Panel
from tests.browser.test_harness import write_notebook
from tests.browser.test_workspace import LABELS, PANEL

if TYPE_CHECKING:
    from tests.browser.lab import LabPage

PROJECT = """\
import svetlana_jupyter as sv
nuclei = sv.samples.bright_foci_3d(seed=3, shape=(48, 96, 96), count=16)
project = sv.Project("nuclei.svetlana", classes=["plain", "foci"])
project.add("volume", nuclei.image, nuclei.mask, spacing=(0.5, 0.5, 0.5))
project.live.trains = False
objects = project.objects("volume").sort_values("z")
app = sv.App(project)"""
MODEL = f"{PANEL}.viewer.model"


def test_planes_are_changed_and_the_objects_that_they_show_are_labeled(lab: LabPage, tmp_path) -> None:
    lab.open_notebook(write_notebook(tmp_path / "volume.ipynb", [PROJECT, "app"]))
    lab.run_all()
    panel, keyboard = Panel(lab, 1, PANEL), lab.page.keyboard
    panel.settled()
    plane = int(lab.evaluate(f"{MODEL}.plane"))
    before = lab.pixels(panel.canvas)

    # The keys and the slider change the plane, and the picture with it.
    panel.canvas.click(position={"x": 6, "y": 6})
    keyboard.press("PageDown")
    lab.wait_until(f"{MODEL}.plane == {plane + 1}")
    panel.settled()
    assert np.any(lab.pixels(panel.canvas) != before)
    slider = panel.output.get_by_role("slider").first
    slider.focus()
    keyboard.press("ArrowLeft")
    lab.wait_until(f"{MODEL}.plane == {plane}")
    keyboard.press("Home")
    lab.wait_until(f"{MODEL}.plane == 0")

    # A click selects only what the plane shows; a key labels it.
    first, last = (int(lab.evaluate(f"objects.index[{place}]")) for place in (0, -1))
    middle = int(lab.evaluate(f"round(objects.loc[{first}, 'z'])"))
    panel.canvas.click(position={"x": 6, "y": 6})
    for _ in range(middle):
        keyboard.press("PageDown")
    lab.wait_until(f"{MODEL}.plane == {middle}")
    panel.click("volume", first)
    there = f"nuclei.mask[{middle}][tuple(objects.loc[{last}, ['y', 'x']].astype(float).round().astype(int))]"
    assert int(lab.evaluate(there)) not in (first, last)
    panel.settled()
    panel.canvas.click(position=panel.center_of("volume", last))
    lab.wait_until(f"{MODEL}.selected == {there}")
    panel.click("volume", first)
    keyboard.press("1")
    lab.wait_until(f"project.annotations.label_of('volume', {first}).class_id == 1")
    assert lab.evaluate(LABELS) == "1"

    # The queue shows each object in its middle plane.
    keyboard.press("Space")
    shown = ("volume", first)
    for key in ("2", "1", "2"):
        shown = panel.next_shown(shown)
        z, plane = (float(lab.evaluate(text)) for text in (f"objects.loc[{shown[1]}, 'z']", f"{MODEL}.plane"))
        assert abs(z - plane) <= 1
        keyboard.press(key)
        lab.wait_until(f"project.annotations.label_of(*{shown}).class_id == {key}")
    lab.wait_until("project.live_state.stage == 'average' and project.live_state.labels == 4", timeout=60)
    assert not [line for line in lab.console if "page error" in line]
