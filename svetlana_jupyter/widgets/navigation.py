"""What the mouse and the keys do over the viewer's picture: move the view, select objects, or pass a key on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from svetlana_jupyter.widgets.panel import guarded

if TYPE_CHECKING:
    from svetlana_jupyter.core.view import View
    from svetlana_jupyter.widgets.viewer import Viewer

_LEFT, _MIDDLE, _RIGHT = 0, 1, 2
_STILL = 4.0  # CSS pixels the hand may tremble during a click
_WHEEL_TO_DOUBLE = 300.0
_STEP = 0.125  # of the screen, for an arrow key
_ARROWS = {"ArrowUp": (1, 0), "ArrowDown": (-1, 0), "ArrowLeft": (0, 1), "ArrowRight": (0, -1)}
_PLANES = {"[": -1, "]": 1, "PageUp": -1, "PageDown": 1}
_ZOOMS = {"+": 1.5, "=": 1.5, "-": 1 / 1.5}
_TOOLS = {"x": "box", "l": "lasso"}
_MENU = {"ContextMenu", "Shift+F10"}
_MODIFIERS = {"Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock"}


def _safe(method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)
    def call(self: ViewerInteraction, *args: Any) -> None:
        guarded(method, self._viewer.status)(self, *args)

    return call


@dataclass(frozen=True)
class _Press:
    """Where a button went down, with which view, and what dragging does from there."""

    row: float
    column: float
    button: int
    view: View
    extend: bool
    tool: str


class ViewerInteraction:
    """A `canvas.InputListener` that turns events into calls of the viewer."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._pointer: tuple[float, float] | None = None
        self._press: _Press | None = None
        self._dragged = False

    @_safe
    def pressed(self, row: float, column: float, button: int = _LEFT, held: str = "") -> None:
        viewer = self._viewer
        viewer.close_menu()
        if button in (_LEFT, _MIDDLE):
            extend = "Shift" in held
            # With Shift a drag selects in any case: a box adds what is inside.
            tool = "move" if button == _MIDDLE else "box" if extend and viewer.tool == "move" else viewer.tool
            self._press = _Press(row, column, button, viewer.view, extend, tool)
            self._dragged = False
        elif button == _RIGHT:
            viewer.open_menu_at(row, column)

    @_safe
    def moved(self, row: float, column: float) -> None:
        self._pointer = (row, column)
        if self._press is None:
            self._viewer.hover(row, column)
            return
        press = self._press
        down, right = row - press.row, column - press.column
        if not self._dragged and math.hypot(down, right) <= _STILL:
            return
        if not self._dragged:
            self._dragged = True
            self._viewer.stop_hovering()
            if press.tool == "lasso":
                self._viewer.draw_lasso(press.row, press.column)
        if press.tool == "lasso":
            self._viewer.draw_lasso(row, column)
        elif press.tool == "box":
            self._viewer.draw_box(press.view.to_image(press.row, press.column), row, column)
        else:
            self._viewer.look(press.view.panned(down, right), moving=True)

    @_safe
    def released(self, row: float, column: float) -> None:
        press, self._press = self._press, None
        if press is not None and self._dragged and press.tool != "move":
            self._viewer.finish_lasso(press.extend)
        elif press is not None and press.button == _LEFT and not self._dragged:
            self._viewer.select_at(row, column, press.extend)
        self._viewer.redraw()  # the page waits for a frame that knows of this click

    def picked(self) -> tuple[str, int] | None:
        return self._viewer.picked

    @_safe
    def left(self) -> None:
        press, self._press, self._pointer = self._press, None, None
        if press is not None and self._dragged and press.tool != "move":
            self._viewer.finish_lasso(press.extend)  # the canvas alone does not tell where the button goes up
        self._viewer.stop_hovering()

    @_safe
    def wheeled(self, delta: float, at: tuple[float, float] | None = None) -> None:
        self._viewer.close_menu()
        self._viewer.zoom(2 ** (-delta / _WHEEL_TO_DOUBLE), at or self._pointer)

    @_safe
    def key_pressed(self, key: str, shown: tuple[str, int] | None) -> None:
        viewer = self._viewer
        if viewer.close_menu() and key == "Escape":
            return
        if key in _ARROWS:
            height, width = viewer.view.size
            down, right = _ARROWS[key]
            viewer.look(viewer.view.panned(down * height * _STEP, right * width * _STEP))
        elif key in _PLANES:
            viewer.step_plane(_PLANES[key])
        elif key in _ZOOMS:
            viewer.zoom_on_selection(_ZOOMS[key])
        elif key == "f":
            viewer.fit()
        elif key in _TOOLS:
            viewer.tool = "move" if viewer.tool == _TOOLS[key] else _TOOLS[key]
        elif key == "Ctrl+a":
            viewer.select_visible()
        elif key in _MENU:
            viewer.open_menu_for_selection()
        elif key == "Escape":
            self._give_up(key, shown)
        elif key not in _MODIFIERS:
            viewer.press(key, shown)

    def _give_up(self, key: str, shown: tuple[str, int] | None) -> None:
        """Leave what is under way: the lasso being drawn, else the selection, else the tool."""
        viewer = self._viewer
        if self._press is not None:
            self._press = None
            viewer.cancel_lasso()
        elif viewer.selection:
            viewer.clear_selection()
        elif viewer.tool != "move":
            viewer.tool = "move"
        else:
            viewer.press(key, shown)
