"""What the mouse and the keys do over a page of patches: select, turn the page, or pass a key on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from svetlana_jupyter.widgets.panel import guarded

if TYPE_CHECKING:
    from svetlana_jupyter.widgets.page import PatchGrid

_LEFT = 0
_NOTCH = 100.0  # of the wheel of most mice
_ARROWS = {"ArrowUp": (-1, 0), "ArrowDown": (1, 0), "ArrowLeft": (0, -1), "ArrowRight": (0, 1)}
_MODIFIERS = {"Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock"}


def _safe(method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)
    def call(self: GridInteraction, *args: Any) -> None:
        guarded(method, self._page.status)(self, *args)

    return call


class GridInteraction:
    """A `canvas.InputListener` that turns events into calls of the page."""

    def __init__(self, page: PatchGrid) -> None:
        self._page = page
        self._dragging = False
        self._turned = 0.0

    @_safe
    def pressed(self, row: float, column: float, button: int = _LEFT, held: str = "") -> None:
        cell, selection = self._page.cell_at(row, column), self._page.selection
        if button != _LEFT or cell < 0:
            return
        self._dragging = True
        if "Shift" in held:
            self._page.select(selection.with_range(cell, keep="Ctrl" in held))
        else:
            self._page.select(selection.with_toggled(cell) if held == "Ctrl" else selection.only(cell))

    @_safe
    def moved(self, row: float, column: float) -> None:
        cell, selection = self._page.cell_at(row, column), self._page.selection
        if self._dragging and cell >= 0 and cell != selection.cursor:
            self._page.select(selection.with_range(cell))
        self._page.hover(row, column)

    @_safe
    def released(self, row: float, column: float) -> None:
        self._dragging = False
        self._page.redraw()  # the browser waits for a frame that knows of this click

    def picked(self) -> tuple[str, int] | None:
        return self._page.picked

    @_safe
    def left(self) -> None:
        self._dragging = False
        self._page.stop_hovering()

    @_safe
    def wheeled(self, delta: float, at: tuple[float, float] | None = None) -> None:
        self._turned = self._turned + delta if self._turned * delta >= 0 else delta
        if abs(self._turned) >= _NOTCH:  # one page, however fast the wheel is turned
            self._page.turn(1 if self._turned > 0 else -1)
            self._turned = 0.0

    @_safe
    def key_pressed(self, key: str, shown: tuple[str, int] | None) -> None:
        name = key.removeprefix("Shift+")
        if name in _ARROWS:
            self._page.walk(*_ARROWS[name], extend=name != key)
        elif key not in _MODIFIERS:
            self._page.press(key, shown)
