"""The helper beside the canvas: what the browser knows of the pointer, the keys and the screen, and ipycanvas does not.

An enhancement: without it (a page that cannot load it) the canvas' own events do everything, less comfortably.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from svetlana_jupyter.widgets.viewer.canvas import InputListener, key_name

_CSS = """
.sv-viewer canvas { outline: none; cursor: crosshair; }
.sv-viewer canvas:focus { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: -1px; }
.sv-viewer button:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: -1px; }
.sv-stage { position: relative; overflow: visible; }
.sv-menu { position: absolute; z-index: 10; padding: 4px 0; border-radius: 4px;
  background: var(--jp-layout-color1, #fff); border: 1px solid var(--jp-border-color1, #bdbdbd);
  box-shadow: 0 3px 10px rgba(0, 0, 0, 0.35); }
.sv-menu .sv-menu-title { padding: 2px 10px 3px; font-size: 12px; line-height: 18px; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; color: var(--jp-ui-font-color2, #616161); }
.sv-menu .sv-menu-item { position: relative; }
.sv-menu button { width: 100%; height: 26px; margin: 0; padding: 0 34px 0 10px; text-align: left; line-height: 26px;
  background: transparent; color: var(--jp-ui-font-color1, #212121); overflow: hidden; text-overflow: ellipsis; }
.sv-menu button:hover, .sv-menu button:focus { background: var(--jp-layout-color2, #eee); box-shadow: none; }
.sv-menu .sv-menu-key { position: absolute; right: 8px; top: 2px; pointer-events: none; }
"""


class Pointer(anywidget.AnyWidget):
    """Invisible; belongs into the same box (of class ``sv-viewer``) as the canvas.

    Attributes
    ----------
    dpr : float
        Device pixels a CSS pixel, of the page that said so last.
    shown : list
        ``[image, object]`` on the screen now, empty without an object; set with each frame. Key events bring it back,
        so that a key pressed while the next object was still on its way counts for the object that was seen.
    answered : float
        When the last click that the screen knows of was made, by the page's clock. A key behind a later click counts
        for the object that click picks.
    frame : int
        Since which frame this is so: the page takes it for seen once the canvas shows that frame.
    """

    _esm = Path(__file__).with_name("pointer.js")
    _css = _CSS

    dpr = traitlets.Float(1.0).tag(sync=True)
    shown = traitlets.List().tag(sync=True)
    answered = traitlets.Float(0.0).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Unicode().tag(sync=True)

    _clicked = 0.0

    def __init__(self, layer: str = "") -> None:
        """Make one; ``layer`` is the model id of the layer that carries the numbers of frames."""
        super().__init__(layer=layer)

    def tell(self, shown: tuple[str, int] | None, frame: int = 0) -> None:
        """Say which object a frame shows, that was sent or is about to be."""
        with self.hold_sync():
            self.shown = list(shown or ())
            self.frame = frame
            self.answered = self._clicked

    def listen(self, listener: InputListener) -> None:
        """Tell ``listener`` of what the pointer and the keys do over the canvas."""

        def received(_: object, message: dict[str, Any], buffers: object) -> None:
            match message:
                case {"event": "pressed", "row": row, "column": column, "button": button}:
                    listener.pressed(row, column, button, message.get("held", ""))
                case {"event": "moved", "row": row, "column": column}:
                    listener.moved(row, column)
                case {"event": "released", "row": row, "column": column, "time": time}:
                    self._clicked = time
                    listener.released(row, column)
                case {"event": "left"}:
                    listener.left()
                case {"event": "wheeled", "delta": delta, "row": row, "column": column}:
                    listener.wheeled(delta, (row, column))
                case {"event": "key_pressed", "key": key, "control": control, "shown": shown}:
                    seen = listener.picked() if shown is None else (shown[0], shown[1]) if shown else None
                    listener.key_pressed(key_name(key, control, message.get("shift", False)), seen)

        self.on_msg(received)


class KeyGuard(anywidget.AnyWidget):
    """Invisible; keeps the keys of a panel from JupyterLab, whichever of its buttons and fields has the keyboard.

    JupyterLab's shortcuts would act on the cell: ``m`` makes it Markdown and destroys the panel.
    """

    _esm = """
    function render({ el }) {
      const stop = new AbortController();
      const guard = () => {
        if (stop.signal.aborted) return;
        const panel = el.closest(".svetlana");
        if (!panel) return void requestAnimationFrame(guard); // not in the page yet
        panel.addEventListener("keydown", (e) => e.stopPropagation(), { signal: stop.signal });
      };
      guard();
      return () => stop.abort();
    }
    export default { render };
    """
