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

WIDTHS = (1100, 1920, 1280, 960)  # of the browser window, in which the file browser is open
PROJECT = """\
import svetlana_jupyter as sv
blood = sv.samples.blood_smear()
project = sv.Project("blood.svetlana", classes=["RBC", "WBC", "platelet"])
added = project.add_images(f"{blood}/images/{{smear}}.png", masks=f"{blood}/masks/{{smear}}.tif")
for (image, label), name in list(sv.samples.blood_smear_classes().items())[:30]:
    project.annotate(image, label, name)
counts = [len(project.objects(name)) for name in project.images]
app = sv.App(project)"""
PANEL = "app.panels['Label']"
# Texts of buttons, tabs, titles and dropdowns that are not completely visible, and elements that are cut by others.
CUT = """() => {
  const cut = [];
  const ruler = document.createElement("canvas").getContext("2d");
  const panels = document.querySelectorAll(".jp-OutputArea .svetlana");
  const parts = [...panels].flatMap(panel => [...panel.querySelectorAll(
    `button, select, .sv-two-lines, .widget-label, .widget-label-basic, .lm-TabBar-tabLabel,
     .jupyter-widget-Collapse-header, th`)]);
  for (const part of parts.filter(part => part.getBoundingClientRect().width)) {
    const style = getComputedStyle(part), box = part.getBoundingClientRect();
    if (part.tagName === "SELECT") {
      ruler.font = style.font;
      const room = part.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
      // A dropdown with actions always shows its caption again.
      const shown = part.options[0].text.endsWith("…") ? [part.options[0]] : part.options;
      for (const option of shown)
        if (ruler.measureText(option.text).width > room) cut.push(`${option.text} (option)`);
    } else if (part.scrollHeight > part.clientHeight && part.matches(".sv-two-lines")) cut.push(part.textContent);
    else if (part.scrollWidth > part.clientWidth && part.clientWidth) cut.push(part.textContent || part.title);
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

    lab.wait_until("project.live_state.stage == 'average' and not project.live_state.provisional", timeout=60)
    # No text is cut in any tab, with the sections below it opened.
    problems = {}
    for title in ("Images", "Train", "Results", "Label"):
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

    # The workspace fits the window. On a narrow page, too, a click selects the object under it.
    panel = Panel(lab, 1, PANEL)
    size = f"{PANEL}.viewer.model.view.size"
    lab.wait_until(f"{size}[1] < 560")
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
    x, y = (panel.center_of("smear_01", red[0])[axis] * 300 / int(lab.evaluate(f"{size}[1]")) for axis in "xy")
    panel.canvas.click(position={"x": x, "y": y})
    lab.wait_until(f"{PANEL}.viewer.model.selected == {red[0]}")
    panel.canvas.click(position={"x": x, "y": y}, button="right")
    menu = output.locator(".sv-menu:visible")
    expect(menu).to_contain_text(f"Object {red[0]} in smear_01")
    assert menu.bounding_box()["x"] + menu.bounding_box()["width"] <= frame["x"] + frame["width"]
    page.keyboard.press("Escape")
    for width, height in ((1280, 800), (1920, 1000)):
        page.set_viewport_size({"width": width, "height": height})
        lab.wait_until(f"{size}[1] > {width // 2 - 120} and {size}[0] > {height // 2}")
        scroller = page.locator(".jp-WindowedPanel-outer:visible").bounding_box()["height"]
        assert output.locator(".sv-app").bounding_box()["height"] <= scroller, "it fits without scrolling"
        for row, limit in ((".sv-tools", 44), (".sv-actions", 34)):
            assert output.locator(row).bounding_box()["height"] < limit, f"{row} is one row"
        panel.click("smear_01", red[-1])
        lab.screenshot(f"layout-label-{width}")

    # Image and gallery side by side, in both themes: around the picture, the page shows in the color of its theme.
    output.get_by_role("button", name="Both").click()
    grid = f"{PANEL}.gallery.page"
    lab.wait_until(f"{PANEL}.gallery is not None and {grid}.scene is not None and {grid}.screen.canvas.is_final")
    for theme, dark in (("JupyterLab Dark", True), ("JupyterLab Light", False)):
        page.evaluate("theme => { window.jupyterapp.commands.execute('apputils:change-theme', {theme}); }", theme)
        page.wait_for_function("dark => document.body.dataset.jpThemeLight === String(!dark)", arg=dark)
        lab.wait_until(f"{grid}.screen.pointer.dark == {dark}")
        corner = lab.pixels(lab.canvas(1).nth(1))[1:4, 1:4]
        assert np.all(corner < 100 if dark else corner > 200), (theme, corner[0, 0])
        lab.screenshot(f"layout-both-{'dark' if dark else 'light'}")
    lab.wait_until(f"{grid}.selected == [('smear_01', {red[-1]})]")

    # In the gallery, no filter is cut, such as the name of a region of the map.
    output.get_by_role("button", name="Gallery").click()
    lab.evaluate(f"{PANEL}.shared.set_trait('listed', ('In the region of the map', tuple({grid}.objects)))")
    expect(output.locator(".sv-filter-bar option:checked").first).to_have_text("In the region of the map")
    for width in WIDTHS:
        resize(lab, width)
        assert cut_texts(lab) == []
    lab.evaluate(f"{PANEL}.shared.set_trait('listed', ('', ()))")

    # In the gallery, too, a click selects the thumbnail under it at any width, in all views.
    for width in (1920, 960):
        resize(lab, width)
        lab.wait_until(f"{grid}.size[1] {'>' if width == 1920 else '<'} 1000")
        corner = ast.literal_eval(lab.evaluate(f"tuple(map(float, {grid}.grid.corner(13)))"))
        lab.canvas(1).first.click(position={"x": corner[1] + 10, "y": corner[0] + 10})
        lab.wait_until(f"{grid}.selection.chosen == {{13}} and list(app.selected) == {grid}.selected")
    assert not [line for line in lab.console if "page error" in line]
