"""Page of JupyterLab in Chromium, operated like a user would, with access to its kernel.

Nothing here sleeps. Every wait is for something observable: a prompt, a text, a value in the kernel.
"""

from __future__ import annotations

import ast
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import imageio.v3 as iio

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from playwright.sync_api import Locator, Page

    from tests.browser.server import LabServer

SCREENSHOTS = Path(__file__).with_name("screenshots")
SECOND = 1000

NOTEBOOK = "window.jupyterapp.shell.currentWidget"
KERNEL = f"{NOTEBOOK}.sessionContext.session?.kernel"
# Execution counts of all cells before a run, so that those of an earlier run are not mistaken for its own.
NUMBERS = f"() => {NOTEBOOK}.content.widgets.map(cell => cell.model.executionCount ?? null)"
# Wait until every chosen code cell with text has a new execution count, or return the error of a failed cell.
CELLS_RAN = f"""([chosen, before]) => {{
  for (const index of chosen) {{
    const cell = {NOTEBOOK}.content.widgets[index];
    if (cell.model.type !== "code" || !cell.model.sharedModel.source.trim()) continue;
    const numbered = /\\[\\d+\\]/.test(cell.promptNode.textContent) && cell.model.executionCount !== before[index];
    if (!numbered) return false;
    const failure = cell.model.outputs.toJSON().find(output => output.output_type === "error");
    if (failure) return [failure.ename + ": " + failure.evalue, ...failure.traceback].join("\\n");
  }}
  return "ran";
}}"""
# `page.evaluate` has no time limit, so the reply of the kernel races against a timer.
ASK_KERNEL = f"""async ([expression, limit]) => {{
  const request = {KERNEL}.requestExecute(
    {{code: "", silent: true, store_history: false, user_expressions: {{answer: expression}}}});
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("the kernel did not answer")), limit));
  const reply = await Promise.race([request.done, late]);
  return reply.content.user_expressions.answer;
}}"""
# Not `page.wait_for_function`: it treats the promise of an asynchronous function as true.
WAIT_FOR_KERNEL = f"""async ([expression, limit]) => {{
  const ask = {ASK_KERNEL};
  const end = Date.now() + limit;
  for (;;) {{
    const answer = await ask([expression, limit]);
    const value = answer.data?.["text/plain"] ?? answer.ename + ": " + answer.evalue;
    if (value === "True" || Date.now() > end) return value;
    await new Promise(resolve => setTimeout(resolve, 50));
  }}
}}"""


class LabPage:
    """Browser page with JupyterLab and the kernel of its notebook.

    Attributes
    ----------
    page : Page
        The Playwright page, for everything without a method here.
    folder : Path
        Folder of the notebook; the working folder of its kernel.
    console : list of str
        Messages in the browser's console.
    """

    def __init__(self, page: Page, server: LabServer, folder: Path) -> None:
        self.page = page
        self.server = server
        self.folder = folder
        self.console: list[str] = []
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(f"page error: {error}"))

    def open_notebook(self, notebook: Path) -> None:
        """Copy a notebook into the server's folder, open it, and wait until its kernel is ready."""
        copy = self.folder / notebook.name
        shutil.copyfile(notebook, copy)
        self._open(copy.relative_to(self.server.root).as_posix())

    def reload(self) -> None:
        """Reload the page; the kernel keeps running."""
        self._open(self.page.evaluate(f"() => {NOTEBOOK}.context.path"))

    def _open(self, path: str) -> None:
        self.page.goto(f"{self.server.url}lab/tree/{path}?reset")
        shown = f"window.jupyterapp?.shell && {NOTEBOOK}?.context?.path === path"
        ready = f"path => {shown} && {NOTEBOOK}.sessionContext.isReady"
        self.page.wait_for_function(ready, arg=path, timeout=60 * SECOND)
        # Not the indicator in the toolbar: it shows idle before the session is ready, and a run started then hangs.
        self.page.wait_for_function(f"() => {KERNEL}?.status === 'idle'", timeout=60 * SECOND)

    def run_all(self, timeout: float = 120) -> None:
        """Run every cell and wait until each has its execution count.

        Raises
        ------
        AssertionError
            If a cell fails, with its traceback.
        """
        before = self.page.evaluate(NUMBERS)
        self._command("notebook:run-all-cells")
        self._wait_for_cells(list(range(len(before))), before, timeout)

    def run_cell(self, index: int, timeout: float = 120) -> None:
        """Run one cell and wait until it has its execution count; `index` counts all cells from 0, Markdown too."""
        before = self.page.evaluate(NUMBERS)
        self.page.evaluate(f"index => {{ {NOTEBOOK}.content.activeCellIndex = index; }}", index)
        self._command("notebook:run-cell")
        self._wait_for_cells([index], before, timeout)

    def _command(self, name: str) -> None:
        """Start a command of JupyterLab without awaiting its end: `page.evaluate` would wait forever."""
        self.page.evaluate("name => { window.jupyterapp.commands.execute(name); }", name)

    def _wait_for_cells(self, chosen: list[int], before: list[int | None], timeout: float) -> None:
        outcome = self.page.wait_for_function(CELLS_RAN, arg=[chosen, before], timeout=timeout * SECOND).json_value()
        assert outcome == "ran", outcome

    def cell(self, index: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        """Return the output area of a cell."""
        return self.cell(index).locator(".jp-Cell-outputWrapper")

    def canvas(self, index: int) -> Locator:
        """Return the visible, focusable ipycanvas in a cell's output."""
        return self.output(index).locator("canvas[tabindex]:visible")

    def evaluate(self, expression: str, timeout: float = 30) -> str:
        """Return ``str(expression)``, evaluated in the kernel.

        Raises
        ------
        AssertionError
            If the expression fails in the kernel.
        """
        answer = self.page.evaluate(ASK_KERNEL, [f"str({expression})", timeout * SECOND])
        assert answer["status"] == "ok", f"{answer.get('ename')}: {answer.get('evalue')} in {expression}"
        return ast.literal_eval(answer["data"]["text/plain"])

    def wait_until(self, expression: str, timeout: float = 30) -> None:
        """Wait until an expression is true in the kernel."""
        last = self.page.evaluate(WAIT_FOR_KERNEL, [f"bool({expression})", timeout * SECOND])
        assert last == "True", f"{expression} was not true within {timeout} s, but {last}"

    def wait_until_drawn(self, canvas: Locator, pointer: str) -> None:
        """Wait until a canvas shows the last frame that its pointer knows, so that a key applies to it."""
        viewer = "canvas.closest('.sv-viewer')"
        drawn = f"([canvas, frame]) => {viewer}.querySelector('[data-frame]')?.dataset.frame >= frame"
        frame = int(self.evaluate(f"{pointer}.frame"))
        self.page.wait_for_function(drawn, arg=[canvas.element_handle(), frame], timeout=30 * SECOND)

    def pixels(self, shown: Locator) -> NDArray[np.uint8]:
        """Return the pixels of an element in the browser, of shape (rows, columns, 3)."""
        style = ".sv-keys-hint { visibility: hidden; }"
        return iio.imread(shown.screenshot(style=style), extension=".png")[..., :3]

    def screenshot(self, name: str) -> Path:
        """Save a screenshot of the page."""
        SCREENSHOTS.mkdir(exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def close(self) -> None:
        """End the kernel and the page."""
        for session in self.page.request.get(f"{self.server.url}api/sessions").json():
            self.page.request.delete(f"{self.server.url}api/sessions/{session['id']}")
        self.page.close()
