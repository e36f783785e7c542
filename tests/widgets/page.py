"""Browser page that executes the ipycanvas messages of a kernel and has pixels."""

from __future__ import annotations

import cv2
import imageio.v3 as iio
import numpy as np
from ipycanvas import Canvas
from ipycanvas.canvas import _CMD_LIST, _CanvasManager
from ipywidgets import widget_serialization

_FROM_JSON = widget_serialization["from_json"]
_SMOOTHING = Canvas.ATTRS["image_smoothing_enabled"]
_FILL_STYLE = Canvas.ATTRS["fill_style"]


class Page:
    """Page that executes every message after it was opened.

    Attributes
    ----------
    messages : list of list of (str, str, list)
        Per message the canvas, the command and its arguments.
    pictures : list of bytes
        All encoded pictures received.
    """

    def __init__(self):
        self.messages = []
        self.pictures = []
        self._pixels = {}
        self._states = {}
        self._current = None

    def pixels(self, canvas):
        """Return the pixels of an off-screen canvas or a layer: RGBA, shape (height, width, 4)."""
        shape = (canvas.height, canvas.width, 4)
        if self._pixels.get(canvas.model_id, np.empty(0)).shape != shape:
            self._pixels[canvas.model_id] = np.zeros(shape, np.uint8)
        return self._pixels[canvas.model_id]

    def receive(self, commands, buffers):
        batch = commands if isinstance(commands[0], list) else [commands]
        buffers = list(buffers)
        self.messages.append([])
        for number, arguments, *counts in batch:
            name = _CMD_LIST[number]
            taken = [buffers.pop(0) for _ in range(counts[0] if counts else 0)]
            if name == "switchCanvas":
                self._current = _FROM_JSON(arguments[0], None)
                continue
            if self._current is None:
                raise RuntimeError("the page was not told which canvas to draw on, and stays blank")
            self.messages[-1].append((self._current.model_id, name, arguments))
            self._do(self._current, name, arguments, taken)

    def _do(self, canvas, name, arguments, buffers):
        state = self._states.setdefault(canvas.model_id, {"matrix": np.eye(3), "fill": "#000000", "smooth": True})
        if name == "set" and arguments[0] == _FILL_STYLE:
            state["fill"] = arguments[1]
        elif name == "set" and arguments[0] == _SMOOTHING:
            state["smooth"] = arguments[1]
        elif name == "setTransform":
            a, b, c, d, e, f = arguments
            state["matrix"] = np.array([[a, c, e], [b, d, f], [0, 0, 1.0]])
        elif name == "resetTransform":
            state["matrix"] = np.eye(3)
        elif name == "clear":
            self.pixels(canvas)[:] = 0
        elif name == "fillRect" and state["fill"].startswith("#"):
            x, y, width, height = (round(value) for value in arguments)
            color = [int(state["fill"][i : i + 2], 16) for i in (1, 3, 5)]
            self.pixels(canvas)[y : y + height, x : x + width] = [*color, 255]
        elif name == "putImageData":
            self.pictures.append(buffers[0])
            self._lay(canvas, iio.imread(buffers[0], mode="RGBA"), arguments, state)
        elif name == "drawImage":
            source = _FROM_JSON(arguments[0], None)
            self._lay(canvas, self.pixels(source), arguments[1:3], {"matrix": np.eye(3), "smooth": False})

    def _lay(self, canvas, picture, at, state):
        target = self.pixels(canvas)
        matrix = state["matrix"] @ np.array([[1, 0, at[0]], [0, 1, at[1]], [0, 0, 1.0]])
        # The middle of a pixel is at .5 for the browser and at 0 for OpenCV.
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        matrix = (np.linalg.inv(half) @ matrix @ half)[:2]
        mode = cv2.INTER_LINEAR if state["smooth"] else cv2.INTER_NEAREST
        laid = cv2.warpAffine(picture, matrix, target.shape[1::-1], flags=mode)
        opaque = laid[..., 3] > 0
        target[opaque] = laid[opaque]


def listen(monkeypatch):
    """Return the list of open pages; every message of ipycanvas goes to all of them."""
    pages = []
    monkeypatch.setattr(
        _CanvasManager,
        "_send_custom",
        lambda self, commands, buffers=(): [page.receive(commands, buffers) for page in pages],
    )
    return pages
