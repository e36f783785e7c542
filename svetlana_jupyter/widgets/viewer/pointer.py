"""Helper widgets for browser events that ipycanvas does not report.

They report mouse buttons, modifier keys, the pixel ratio of the screen, and the width and the theme of the page. The
pointer widget is optional: without it, the viewer uses the events of the canvas.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from svetlana_jupyter.widgets.viewer.canvas import InputListener, key_name

MAX_HEIGHT = 2000  # CSS pixels
MIN_WIDTH = 100  # CSS pixels; a smaller image area has no room for a thumbnail
DPR_RANGE = 0.25, 16.0  # the zoom of browsers is 25 % to 500 %, that of screens up to 300 %


class Pointer(anywidget.AnyWidget):
    """Invisible helper of a canvas, a child of the same ``sv-viewer`` box.

    Parameters
    ----------
    layer : str
        Model id of the off-screen canvas that carries the frame numbers.

    Attributes
    ----------
    dpr : float
        Device pixels per CSS pixel, as the browser reported it last, within `DPR_RANGE`.
    width : int
        CSS pixels that the page offers to the viewer, at least `MIN_WIDTH`; 0 before the browser has reported it.
    height : int
        CSS pixels that the page offers to a canvas that fills its box (style class ``sv-fill``), at most `MAX_HEIGHT`;
        0 for other canvases, whose height the kernel chooses.
    dark : bool
        Whether JupyterLab has a dark theme.
    shown : list
        Selection on the screen, ``[image, label]`` or empty; set with each frame. The browser sends it back with each
        key, so that a key pressed before the next object was displayed applies to the object that was visible.
    click_time : float
        Time of the last click that the frame accounts for, by the clock of the browser. A key after a later click
        applies to the object that this click selects.
    frame : int
        Number of the frame to which ``shown`` and ``click_time`` belong. The browser uses them once the canvas shows
        this frame.
    name : str
        Accessible name of the canvas, for screen readers.
    """

    _esm = Path(__file__).with_name("pointer.js")
    _css = Path(__file__).with_name("pointer.css")

    dpr = traitlets.Float(1.0).tag(sync=True)
    width = traitlets.Int(0).tag(sync=True)
    height = traitlets.Int(0).tag(sync=True)
    dark = traitlets.Bool(False).tag(sync=True)
    shown: traitlets.List[Any] = traitlets.List().tag(sync=True)
    click_time = traitlets.Float(0.0).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)

    _last_click = 0.0

    @traitlets.validate("dpr")
    def _clip_dpr(self, proposal: dict[str, Any]) -> float:
        low, high = DPR_RANGE
        return max(low, min(float(proposal["value"]), high))  # low for NaN

    @traitlets.validate("width")
    def _limit_width(self, proposal: dict[str, Any]) -> int:
        return max(int(proposal["value"]), MIN_WIDTH)

    @traitlets.validate("height")
    def _limit_height(self, proposal: dict[str, Any]) -> int:
        return min(max(int(proposal["value"]), 0), MAX_HEIGHT)

    def set_shown(self, shown: tuple[str, int] | None, frame: int = 0) -> None:
        """Send the browser the selection that a frame shows."""
        with self.hold_sync():
            self.shown = list(shown or ())
            self.frame = frame
            self.click_time = self._last_click

    def is_up_to_date(self, shown: tuple[str, int] | None) -> bool:
        """Return whether the browser knows this selection as that of the last click."""
        return (self.shown, self.click_time) == (list(shown or ()), self._last_click)

    def add_listener(self, listener: InputListener) -> None:
        """Report mouse and keyboard events over the canvas to ``listener``."""

        def received(_: object, message: dict[str, Any], buffers: object) -> None:
            match message:
                case {"event": "pressed", "row": row, "column": column, "button": button}:
                    listener.pressed(row, column, button, message.get("modifiers", ""))
                case {"event": "moved", "row": row, "column": column}:
                    listener.moved(row, column)
                case {"event": "released", "row": row, "column": column, "time": time}:
                    self._last_click = time
                    listener.released(row, column)
                case {"event": "pointer_left"}:
                    listener.pointer_left()
                case {"event": "wheeled", "delta": delta, "row": row, "column": column}:
                    listener.wheeled(delta, (row, column))
                case {"event": "key_pressed", "key": key, "control": control, "shown": shown}:
                    # None: the key followed a click, and the browser has not received its selection yet.
                    current = listener.selection_id() if shown is None else (shown[0], shown[1]) if shown else None
                    listener.key_pressed(key_name(key, control, message.get("shift", False)), current)

        self.on_msg(received)


class KeyGuard(anywidget.AnyWidget):
    """Invisible helper for the keys and text fields of a panel.

    It hides the keys from JupyterLab, whose shortcuts would act on the notebook cell: ``m`` turns the cell into
    Markdown and deletes the panel. Before Enter and before a click, it sends the text that ipywidgets holds back while
    the kernel is busy, so that an action sees all that was typed.
    """

    _esm = Path(__file__).with_name("key_guard.js")
