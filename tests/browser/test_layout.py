"""Panels on narrow and wide pages and in both themes: nothing is cut, and the mouse hits what it points at."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import numpy as np
from playwright.sync_api import expect

from tests.browser.test_first_steps import Panel
from tests.browser.test_harness import write_notebook

if TYPE_CHECKING:
    from tests.browser.lab import LabPage

WIDTHS = (1100, 1920, 960)  # of the browser window, in which the file browser is open
PROJECT = """\
import svetlana_jupyter as sv
blood = sv.samples.blood_smear()
project = sv.Project("blood.svetlana", classes=["RBC", "WBC", "platelet"])
added = project.add_images(f"{blood}/images/{{smear}}.png", masks=f"{blood}/masks/{{smear}}.tif")
for (image, label), name in list(sv.samples.blood_smear_classes().items())[:30]:
    project.annotate(image, label, name)
counts = [len(project.objects(name)) for name in project.images]
app = sv.App(project)"""
# Texts of buttons, tabs, titles and dropdowns that are not completely visible, and elements that are cut by others.
CUT = """() => {
  const cut = [];
  const ruler = document.createElement("canvas").getContext("2d");
  const panels = document.querySelectorAll(".jp-OutputArea .svetlana");
  const parts = [...panels].flatMap(panel => [...panel.querySelectorAll(
    "button, select, .widget-label, .widget-label-basic, .lm-TabBar-tabLabel, .jupyter-widget-Collapse-header, th")]);
  for (const part of parts.filter(part => part.getBoundingClientRect().width)) {
    const style = getComputedStyle(part), box = part.getBoundingClientRect();
    if (part.tagName === "SELECT") {
      ruler.font = style.font;
      const room = part.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
      for (const option of part.options)
        if (ruler.measureText(option.text).width > room) cut.push(`${option.text} (option)`);
    } else if (part.scrollWidth > part.clientWidth && part.clientWidth) cut.push(part.textContent || part.title);
    for (let outer = part.parentElement; outer && !outer.matches(".jp-OutputArea"); outer = outer.parentElement) {
      const frame = outer.getBoundingClientRect();
      if (getComputedStyle(outer).overflowX !== "visible" && (box.right > frame.right + 1 || box.left < frame.left - 1))
        cut.push(`${part.textContent || part.title} (by ${outer.className})`);
    }
  }
  return [...new Set(cut)];
}"""


def cut_texts(lab: LabPage) -> list[str]:
    found: list[str] = lab.page.evaluate(CUT)
    return found


def resize(lab: LabPage, width: int) -> None:
    lab.page.set_viewport_size({"width": width, "height": 1000})


def test_nothing_is_cut_and_the_mouse_hits_its_object_at_any_width(lab: LabPage, tmp_path) -> None:
    resize(lab, WIDTHS[0])
    lab.open_notebook(write_notebook(tmp_path / "layout.ipynb", [PROJECT, "app", "form = sv.App()\nform"]))
    lab.run_all()
    output, page = lab.output(1), lab.page
    tab = lambda name: output.get_by_role("tab", name=name, exact=True)  # noqa: E731

    # No text is cut in any tab, with the sections below it opened.
    problems = {}
    for title in ("Images", "Gallery", "Train", "Predict and review", "Annotate"):
        tab(title).click()
        lab.wait_until(f"{title!r} in app.panels")
        headers = output.locator(".jupyter-widget-Collapse-header:visible")
        for header in [None, *range(headers.count())]:
            if header is not None:
                headers.nth(header).click()
            for width in WIDTHS:
                resize(lab, width)
                problems[title, header, width] = cut_texts(lab)
    assert "\n".join(f"{place}: {found}" for place, found in problems.items() if found) == ""

    # The picture is as wide as the page allows; on a narrow page, a click selects the object under it.
    panel = Panel(lab, 1, "app.panels['Annotate']")
    width = "app.panels['Annotate'].viewer.model.view.size[1]"
    lab.wait_until(f"{width} < 560")
    frame, box = output.bounding_box(), panel.canvas.bounding_box()
    assert box["x"] >= frame["x"]
    assert box["x"] + box["width"] <= frame["x"] + frame["width"]
    red = ast.literal_eval(
        lab.evaluate("[o for (i, o), k in sv.samples.blood_smear_classes().items() if i == 'smear_01']")
    )
    panel.click("smear_01", red[0])
    panel.click("smear_01", red[-1])
    # Also while the page shows the picture smaller than it was drawn, as it does until the kernel has answered.
    panel.canvas.evaluate("canvas => { canvas.style.width = '300px'; }")
    x, y = (panel.center_of("smear_01", red[0])[axis] * 300 / int(lab.evaluate(width)) for axis in "xy")
    panel.canvas.click(position={"x": x, "y": y})
    lab.wait_until(f"app.panels['Annotate'].viewer.model.selected == {red[0]}")
    panel.canvas.click(position={"x": x, "y": y}, button="right")
    menu = output.locator(".sv-menu:visible")
    expect(menu).to_contain_text(f"Object {red[0]} in smear_01")
    assert menu.bounding_box()["x"] + menu.bounding_box()["width"] <= frame["x"] + frame["width"]
    page.keyboard.press("Escape")
    resize(lab, 1920)
    lab.wait_until(f"{width} > 1000")
    panel.click("smear_01", red[-1])

    # Around the picture, the page shows in the color of its theme.
    for theme, dark in (("JupyterLab Dark", True), ("JupyterLab Light", False)):
        page.evaluate("theme => { window.jupyterapp.commands.execute('apputils:change-theme', {theme}); }", theme)
        page.wait_for_function("dark => document.body.dataset.jpThemeLight === String(!dark)", arg=dark)
        lab.wait_until(f"app.panels['Gallery'].page.screen.pointer.dark == {dark}")
        corner = lab.pixels(panel.canvas)[5:15, 5:15]
        assert np.all(corner < 100 if dark else corner > 200), (theme, corner[0, 0])

    # In the gallery, too, a click selects the thumbnail under it at any width.
    tab("Gallery").click()
    for size in (1920, 960):
        resize(lab, size)
        lab.wait_until(f"app.panels['Gallery'].page.size[1] {'>' if size == 1920 else '<'} 1000")
        corner = ast.literal_eval(lab.evaluate("tuple(map(float, app.panels['Gallery'].page.grid.corner(13)))"))
        lab.canvas(1).click(position={"x": corner[1] + 10, "y": corner[0] + 10})
        lab.wait_until("app.panels['Gallery'].page.selection.chosen == {13}")
        lab.screenshot(f"layout-gallery-{size}")
    assert not [line for line in lab.console if "page error" in line]
