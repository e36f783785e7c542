"""What the mouse and the keys do over the viewer's picture: move the view, pick an object, or pass a key on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from svetlana_jupyter.widgets.panel import guarded

if TYPE_CHECKING:
    from svetlana_jupyter.core.view import View
    from svetlana_jupyter.widgets.viewer import Viewer

_LEFT, _MIDDLE = 0, 1
_STILL = 4.0  # CSS pixels the hand may tremble during a click
_WHEEL_TO_DOUBLE = 300.0
_STEP = 0.125  # of the screen, for an arrow key
_ARROWS = {"ArrowUp": (1, 0), "ArrowDown": (-1, 0), "ArrowLeft": (0, 1), "ArrowRight": (0, -1)}
_PLANES = {"[": -1, "]": 1, "PageUp": -1, "PageDown": 1}
_ZOOMS = {"+": 1.5, "=": 1.5, "-": 1 / 1.5}
_MODIFIERS = {"Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock"}


def _safe(method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)
    def call(self: Navigation, *args: Any) -> None:
        guarded(method, self._viewer.status)(self, *args)

    return call


class Navigation:
    """A `canvas.Listener` that turns events into calls of the viewer."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._pointer: tuple[float, float] | None = None
        self._press: tuple[float, float, int, View] | None = None
        self._dragged = False

    @_safe
    def pressed(self, row: float, column: float, button: int = _LEFT, held: str = "") -> None:
        if button in (_LEFT, _MIDDLE):
            self._press = (row, column, button, self._viewer.view)
            self._dragged = False

    @_safe
    def moved(self, row: float, column: float) -> None:
        self._pointer = (row, column)
        if self._press is None:
            self._viewer.hover(row, column)
            return
        from_row, from_column, _, view = self._press
        self._dragged = self._dragged or math.hypot(row - from_row, column - from_column) > _STILL
        if self._dragged:
            self._viewer.look(view.panned(row - from_row, column - from_column))

    @_safe
    def released(self, row: float, column: float) -> None:
        press, self._press = self._press, None
        if press is not None and press[2] == _LEFT and not self._dragged:
            self._viewer.pick(row, column)
        self._viewer.redraw()  # the page waits for a frame that knows of this click

    def picked(self) -> tuple[str, int] | None:
        return self._viewer.picked

    @_safe
    def left(self) -> None:
        self._press = self._pointer = None
        self._viewer.stop_hovering()

    @_safe
    def wheeled(self, delta: float, at: tuple[float, float] | None = None) -> None:
        self._viewer.zoom(2 ** (-delta / _WHEEL_TO_DOUBLE), at or self._pointer)

    @_safe
    def key_pressed(self, key: str, shown: tuple[str, int] | None) -> None:
        viewer = self._viewer
        if key in _ARROWS:
            height, width = viewer.view.size
            down, right = _ARROWS[key]
            viewer.look(viewer.view.panned(down * height * _STEP, right * width * _STEP))
        elif key in _PLANES:
            viewer.step_plane(_PLANES[key])
        elif key in _ZOOMS:
            viewer.zoom(_ZOOMS[key])
        elif key == "f":
            viewer.fit()
        elif key not in _MODIFIERS:
            viewer.press(key, shown)
