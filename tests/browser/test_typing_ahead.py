"""Keys typed ahead on a slow connection: each labels the displayed object or nothing."""

from __future__ import annotations

import ast
import json
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.browser.lab import LabPage
from tests.browser.latency import SlowLine
from tests.browser.test_harness import write_notebook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, WebSocket

    from tests.browser.server import LabServer

ROUND_TRIP = 0.150
KEYS = 200

# Each object is a square of its own color, six steps per channel, so that a pixel identifies the displayed object.
CELLS = [
    """\
import numpy as np, svetlana_jupyter as sv
mask = np.zeros((1600, 1600), np.uint16)
for number in range(1, 216):
    y, x = 320 + 64 * ((number - 1) // 15), 320 + 64 * ((number - 1) % 15)
    mask[y : y + 48, x : x + 48] = number
image = np.stack([51 * (mask // 36), 51 * (mask // 6 % 6), 51 * (mask % 6)]).astype(np.uint8)
image[:, mask == 0] = 128
project = sv.Project("squares.svetlana", classes=[f"class {number}" for number in range(1, 10)])
project.add("squares", image, mask, axes="cyx", channels=["red", "green", "blue"])
panel = sv.AnnotationPanel(project)
panel"""
]
# Center pixel of the screen when a key goes down, before any other listener receives the key.
WATCH_KEYS = """() => {
  window.keysSeen = [];
  window.addEventListener("keydown", (e) => {
    const canvas = e.target;
    if (canvas.tagName !== "CANVAS") return;
    const [red, green, blue] = canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data;
    const step = (value) => Math.round(value / 51);
    window.keysSeen.push([e.key, 36 * step(red) + 6 * step(green) + step(blue)]);
  }, { capture: true });
}"""
MIDDLE = """() => {
  const canvas = document.querySelector("canvas[tabindex]");
  return [...canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data].join();
}"""
TWO_FRAMES = "() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
SENT_KEY = re.compile(rb'\{[^{}]*"event":\s*"key_pressed"[^{}]*\}')


@pytest.fixture
def slow(lab_server: LabServer, browser: Browser, request: pytest.FixtureRequest) -> Iterator[LabPage]:
    """Page of JupyterLab behind a proxy whose delay can be set."""
    line = SlowLine(lab_server.url)
    folder = lab_server.root / request.node.name
    folder.mkdir()
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    server = SimpleNamespace(url=line.url, root=lab_server.root, log=lab_server.log)
    page = LabPage(context.new_page(), server, folder)
    page.line = line
    yield page
    line.seconds = 0.0
    page.close()
    context.close()
    line.stop()


def test_keys_typed_ahead_label_the_displayed_object_or_nothing(slow, tmp_path):
    sent: list[dict[str, object]] = []

    def listen(socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: sent.extend(keys_in(frame)))

    slow.page.on("websocket", listen)
    slow.open_notebook(write_notebook(tmp_path / "ahead.ipynb", CELLS))
    slow.run_all()
    canvas = slow.canvas(0)
    canvas.click(position={"x": 5, "y": 5})
    before = slow.page.evaluate(MIDDLE)
    slow.page.keyboard.press("n")
    slow.page.wait_for_function(f"before => ({MIDDLE})() !== before", arg=before)
    slow.wait_until("panel.viewer.screen.pointer.shown and panel.viewer.screen.canvas.is_final")
    slow.page.evaluate(TWO_FRAMES)
    slow.page.evaluate(WATCH_KEYS)
    del sent[:]
    slow.line.seconds = ROUND_TRIP / 2

    digits = [str(1 + press * press % 9) for press in range(KEYS)]
    for digit in digits:
        slow.page.keyboard.press(digit)
        slow.page.evaluate(TWO_FRAMES)
    slow.page.keyboard.press("?")  # arrives after all of them
    slow.wait_until("panel.command_bar.help.layout.display == 'block'")

    seen = slow.page.evaluate("window.keysSeen")
    assert [key for key, _ in seen] == [*digits, "?"]
    assert [key["key"] for key in sent] == [*digits, "?"], "the page sends every key once"
    meant = [key["shown"][1] for key in sent[:-1]]
    first = {label: position for position, label in reversed(list(enumerate(meant)))}
    log = ast.literal_eval(
        slow.evaluate("project.annotations.table()[['object', 'class_id', 'action']].values.tolist()")
    )
    assert log == [[label, int(digits[first[label]]), "label"] for label in dict.fromkeys(meant)], (
        "the first key for an object labels it; later keys for it are ignored"
    )
    for label, _, _ in log:
        assert seen[first[label]][1] == label, "the labeled object is the one that was on the screen"
    assert 5 < len(log) < KEYS / 2, "keys were faster than objects"


def keys_in(frame: str | bytes) -> list[dict[str, object]]:
    """Return the key events in a message of the page, with the object that each carries."""
    content = frame.encode() if isinstance(frame, str) else frame
    return [json.loads(found) for found in SENT_KEY.findall(content)]
