"""Timed page of JupyterLab in Chromium: the time of each key event and of each drawing.

The clock is that of the page. An image counts as drawn when the browser begins the screen frame that shows it.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import numpy as np
import psutil
from playwright.sync_api import Browser, sync_playwright

import tests.conftest  # noqa: F401  (Jupyter folders of its own)
from tests.browser import chromium
from tests.browser.lab import KERNEL, LabPage
from tests.browser.server import LabServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator

QUIET_MS = 600  # without a drawing: all expected drawings have arrived

# The visible canvas is drawn only from the layers behind it.
WATCH = """() => {
  window.events = [];
  window.drawings = [];
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (...given) {
    draw.apply(this, given);
    const canvas = this.canvas;
    if (!canvas.isConnected || !canvas.tabIndex && canvas.tabIndex !== 0) return;
    requestAnimationFrame(() => {
      const now = performance.now();
      const { data } = this.getImageData(canvas.width / 2 - 4, canvas.height / 2 - 4, 8, 8);
      const mean = (k) => data.filter((_, at) => at % 4 === k).reduce((sum, value) => sum + value, 0) / 64;
      window.drawings.push([now, mean(0), mean(1), mean(2)]);
    });
  };
  const note = (e) => e.target.tagName === "CANVAS" && window.events.push([performance.now(), e.type]);
  for (const type of ["keydown", "wheel"]) window.addEventListener(type, note, { capture: true, passive: true });
  // A drag may end outside of the canvas, and a button lies outside.
  for (const type of ["mouseup", "click"])
    window.addEventListener(type, () => window.events.push([performance.now(), type]), { capture: true });
}"""
# Messages that the kernel sends, with the bytes of their pictures.
COUNT = f"""() => {{
  window.messages = [];
  {KERNEL}.iopubMessage.connect((_, message) => {{
    const bytes = (message.buffers ?? []).reduce((sum, buffer) => sum + buffer.byteLength, 0);
    window.messages.push([performance.now(), message.header.msg_type, bytes]);
  }});
}}"""
QUIET = """(ms) => new Promise(resolve => {
  const wait = () => {
    const last = Math.max(window.events.at(-1)?.[0] ?? 0, window.drawings.at(-1)?.[0] ?? 0);
    performance.now() - last > ms ? resolve(true) : setTimeout(wait, 20);
  };
  wait();
})"""
# Types like an attentive user: the next key a given time after the last, but never before the center of the image
# has another color, nor before the frame of the screen with that picture has passed.
TYPE = """async ([keys, pause, limit]) => {
  const frame = () => new Promise(requestAnimationFrame);
  const canvas = document.activeElement;
  const seen = [];
  for (const key of keys) {
    const before = window.drawings.at(-1);
    seen.push(before.slice(1));
    const pressed = performance.now();
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    for (;;) {
      await frame();
      const last = window.drawings.at(-1);
      const elapsed = performance.now() - pressed;
      if (elapsed > limit) return seen;
      if (elapsed >= pause && [1, 2, 3].some(k => Math.abs(last[k] - before[k]) > 5)) break;
    }
    await frame();
  }
  return seen;
}"""

CENTER = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(canvas.width / 2 - 4, canvas.height / 2 - 4, 8, 8);
  const mean = (k) => data.filter((_, at) => at % 4 === k).reduce((sum, value) => sum + value, 0) / 64;
  return [performance.now(), mean(0), mean(1), mean(2)];
}"""


@dataclass(frozen=True)
class Block:
    """Keys typed over one canvas.

    Attributes
    ----------
    seen : list of (red, green, blue)
        Center of the canvas at each key press; shorter if the canvas did not change.
    pressed : list of float
        Times of the key presses, in milliseconds of the page's clock.
    drawings : array of shape (n, 4)
        Time and center color of each drawing.
    messages : list of (float, str, int)
        Time, type and bytes of the pictures of each message of the kernel.
    processor : float
        Processor time of the kernel in seconds, until the page has settled.
    """

    seen: list[list[float]]
    pressed: list[float]
    drawings: np.ndarray
    messages: list[tuple[float, str, int]]
    processor: float

    @property
    def times(self) -> list[float]:
        """Times from each key to the first drawing with another color at the center."""
        times = []
        for pressed in self.pressed:
            behind = self.drawings[:, 0] >= pressed
            before = self.drawings[~behind][-1, 1:]
            changed = behind & (np.abs(self.drawings[:, 1:] - before) > 5).any(axis=1)
            if changed.any():
                times.append(float(self.drawings[changed, 0][0] - pressed))
        return times

    @property
    def period(self) -> float:
        """Mean time from one key press to the next, in milliseconds."""
        return (self.pressed[-1] - self.pressed[0]) / (len(self.pressed) - 1)


class WatchedPage(LabPage):
    """Timed page of JupyterLab."""

    def show(self, cells: list[str], timeout: float = 300) -> None:
        """Run these cells as a notebook; the last displays a panel."""
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
        path = self.folder.parent / "benchmark.ipynb"
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata={"kernelspec": kernel}
        )
        nbformat.write(notebook, path)
        self.open_notebook(path)
        self.page.evaluate(WATCH)
        self.run_all(timeout)
        self.page.evaluate(COUNT)

    def forget(self) -> None:
        """Clear the recorded events and drawings after the page has settled."""
        self.quiet()
        self.page.evaluate("() => { window.events.length = window.drawings.length = 0; }")

    def quiet(self, milliseconds: float = QUIET_MS) -> None:
        """Wait until nothing has been drawn for some time."""
        self.page.evaluate(QUIET, milliseconds)

    def events(self, kind: str) -> list[float]:
        """Return the times of the events of a kind, in milliseconds of the page's clock."""
        return [at for at, type_name in self.page.evaluate("() => window.events") if type_name == kind]

    def drawings(self) -> np.ndarray:
        """Return the times of all drawings and the color at the center: (n, 4)."""
        return np.array(self.page.evaluate("() => window.drawings"), float).reshape(-1, 4)

    def type(self, keys: list[str], pause: float = 0.0, limit: float = 3000) -> list[list[float]]:
        """Type keys over the canvas, each after the image has followed the previous key and ``pause`` has passed.

        Returns
        -------
        list of (red, green, blue)
            Center of the image at each key press; shorter if the image did not change within ``limit``.
        """
        return self.page.evaluate(TYPE, [keys, pause, limit])

    def type_block(self, canvas: Locator, keys: list[str]) -> Block:
        """Type keys over a canvas and measure the answer to each, once the page has settled."""
        self.quiet()
        canvas.evaluate("canvas => canvas.focus({ preventScroll: true })")
        start = self.drawings_of(canvas)
        self.page.evaluate("start => { window.events = []; window.messages = []; window.drawings = [start]; }", start)
        used = float(self.evaluate("__import__('time').process_time()"))
        asked = len(self.page.evaluate("() => window.messages"))
        seen = self.type(keys)
        messages = self.page.evaluate("() => window.messages")[asked:]
        self.quiet()
        used = float(self.evaluate("__import__('time').process_time()")) - used
        return Block(seen, self.events("keydown"), self.drawings(), messages, used)

    def drawings_of(self, canvas: Locator) -> list[float]:
        """Return the time and the color at the center of a canvas, as a drawing."""
        return canvas.evaluate(CENTER)

    def until_drawn(self, kind: str) -> float:
        """Return the time from the last event of a kind to the last drawing after it, once the page has settled."""
        self.quiet()
        self.evaluate("None")  # the kernel may still be busy
        self.quiet()
        began = self.events(kind)[-1]
        behind = [at for at in self.drawings()[:, 0] if at >= began]
        assert behind, f"nothing was drawn after the last {kind}"
        return behind[-1] - began

    def kernel_mb(self) -> float:
        """Return the resident memory of the kernel."""
        return psutil.Process(int(self.evaluate("__import__('os').getpid()"))).memory_info().rss / 1e6


@contextmanager
def watched_pages() -> Iterator[Any]:
    """Yield a function that opens a page on a running JupyterLab."""
    path = chromium.find()
    if not path:
        raise SystemExit("no Chromium: run `python -m tests.browser.chromium`")
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        server = LabServer(Path(home))
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        opened: list[WatchedPage] = []

        def open_page(name: str, other: Browser | None = None) -> WatchedPage:
            context = other.contexts[0] if other else browser.new_context(viewport={"width": 1600, "height": 1000})
            opened.append(WatchedPage(context.new_page(), server, server.root / name))
            opened[-1].folder.mkdir()
            return opened[-1]

        open_page.visit = playwright.chromium.connect_over_cdp
        open_page.path = path
        try:
            yield open_page
        finally:
            browser.close()
            server.stop()


class Unwatched:
    """Chromium to which Playwright connects only briefly: while connected, it keeps every image that a page loads.

    Parameters
    ----------
    path : str
        Path of the browser.
    folder : Path
        Folder of the profile.
    """

    def __init__(self, path: str, folder: Path) -> None:
        options = ["--headless=new", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
        self._process = subprocess.Popen([path, *options, "about:blank"], stderr=subprocess.PIPE, text=True)
        for line in self._process.stderr or ():
            if match := re.search(r"ws://\S+", line):
                self.address = match[0]
                return
        raise RuntimeError("the browser has ended")

    @property
    def mb(self) -> float:
        """Return the private memory of all its processes."""
        processes = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        return sum(process.memory_full_info().uss for process in processes) / 1e6

    def __enter__(self) -> Unwatched:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(15)


def percentiles(times: list[float]) -> dict[str, int]:
    """Return median, 95th percentile and maximum, in whole milliseconds."""
    return {
        "median ms": round(float(np.median(times))),
        "p95 ms": round(float(np.percentile(times, 95))),
        "worst ms": round(max(times)),
    }


def load() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 1)
