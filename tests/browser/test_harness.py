"""Harness of the browser tests: clicks on a button and a canvas, a failing cell, a reload that keeps the kernel."""

from __future__ import annotations

import nbformat
import pytest
from playwright.sync_api import expect

CELLS = [
    """\
import ipywidgets
label = ipywidgets.Label("not pressed")
button = ipywidgets.Button(description="Press")
button.on_click(lambda _: label.set_trait("value", "pressed"))
ipywidgets.VBox([button, label])""",
    """\
import ipycanvas
clicks = []
canvas = ipycanvas.Canvas(width=200, height=100)
canvas.fill_style = "#204080"
canvas.fill_rect(0, 0, 200, 100)
canvas.on_mouse_down(lambda x, y: clicks.append((round(x), round(y))))
canvas""",
]


def write_notebook(path, cells):
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)"}  # otherwise JupyterLab asks for one
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": kernel}), path)
    return path


def test_clicks_reach_python_and_its_changes_reach_the_page(lab, tmp_path):
    lab.open_notebook(write_notebook(tmp_path / "clicks.ipynb", CELLS))
    lab.run_all()
    lab.output(0).get_by_role("button", name="Press").click()
    expect(lab.output(0)).to_contain_text("pressed")
    expect(lab.output(0)).not_to_contain_text("not pressed")
    lab.canvas(1).click(position={"x": 30, "y": 40})
    lab.wait_until("clicks")
    assert lab.evaluate("clicks") == "[(30, 40)]"
    assert lab.pixels(lab.canvas(1))[50, 100].tolist() == [0x20, 0x40, 0x80]
    assert lab.screenshot("harness").stat().st_size > 10_000


def test_a_single_cell_runs_repeatedly(lab, tmp_path):
    lab.open_notebook(write_notebook(tmp_path / "again.ipynb", ["runs = globals().get('runs', 0) + 1", "1 / 0"]))
    lab.run_cell(0)
    lab.run_cell(0)
    assert lab.evaluate("runs") == "2"


def test_a_reload_keeps_the_kernel(lab, tmp_path):
    lab.open_notebook(write_notebook(tmp_path / "reload.ipynb", ["answer = 6 * 7"]))
    lab.run_all()
    lab.reload()
    assert lab.evaluate("answer") == "42"


def test_a_failing_cell_is_reported_with_its_error(lab, tmp_path):
    lab.open_notebook(write_notebook(tmp_path / "fails.ipynb", ["1 / 0", "2"]))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        lab.run_all()


def test_waiting_for_the_kernel_ends_at_the_time_limit(lab, tmp_path):
    later = "import threading\ndone = []\nthreading.Timer(1.0, done.append, [1]).start()"
    lab.open_notebook(write_notebook(tmp_path / "later.ipynb", [later]))
    lab.run_all()
    lab.wait_until("done")
    assert lab.evaluate("done") == "[1]"
    with pytest.raises(AssertionError, match="False"):
        lab.wait_until("not done", timeout=0.3)
