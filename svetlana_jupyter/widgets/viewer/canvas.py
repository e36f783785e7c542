"""Paints scenes on an ipycanvas: four layers, each copied from an off-screen canvas that also holds a margin.

The only file that knows ipycanvas, and with `widgets.viewer.canvas` the only one where x comes before y. Contract,
against what ipycanvas does by itself: a failure while drawing leaves every canvas of the kernel usable; a page that was
reloaded shows the picture again; pictures are sent as bytes encoded by us, and only what differs from the scene before
is sent.

What is written over the viewer's picture: scale bar, frame, lasso, words; on a layer of its own, in CSS pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from ipycanvas import Canvas, MultiCanvas
from ipycanvas.canvas import COMMANDS
from numpy.typing import NDArray

from svetlana_jupyter.core.display import encode
from svetlana_jupyter.core.display.scene import (
    BRIGHT_INK,
    DARK_INK,
    Hint,
    ImageLayer,
    IndexedLayer,
    Scene,
    size_with_margin,
)
from svetlana_jupyter.core.display.viewport import Viewport

_FONT = "12px system-ui, sans-serif"


def decorate(layer: Any, scene: Scene) -> None:
    """Draw the scale bar, the frame, the lasso and the words beside the pointer, in CSS pixels."""
    layer.reset_transform()
    layer.clear()
    layer.scale(scene.view.dpr)
    layer.font = _FONT
    layer.line_join = "round"
    _scale_bar(layer, scene)
    if scene.field is not None:
        _field(layer, scene.field, scene.view)
    if scene.lasso:
        _lasso(layer, scene)
    if scene.hint is not None:
        _hint(layer, scene.hint, scene.view)


def _scale_bar(layer: Any, scene: Scene) -> None:
    height, width = scene.view.size
    right, bottom = width - 14, height - 14
    layer.fill_style, layer.stroke_style = scene.ink, "#ffffff" if scene.ink == DARK_INK else "#000000"
    layer.line_width, layer.global_alpha = 3, 0.6
    layer.stroke_rect(right - scene.scale_bar.length, bottom, scene.scale_bar.length, 3)
    layer.text_align, layer.text_baseline = "right", "alphabetic"
    layer.stroke_text(scene.scale_bar.text, right, bottom - 6)
    layer.global_alpha = 1
    layer.fill_rect(right - scene.scale_bar.length, bottom, scene.scale_bar.length, 3)
    layer.fill_text(scene.scale_bar.text, right, bottom - 6)


def _field(layer: Any, field: tuple[float, float, float, float], view: Viewport) -> None:
    """Draw the corners of a frame: they say what it holds and hide little of it."""
    (top, left), (bottom, right) = view.to_screen(*field[:2]), view.to_screen(*field[2:])
    arm = min(14.0, (right - left) / 3, (bottom - top) / 3)
    layer.line_cap = "square"
    for width, color in ((3.5, "rgba(0, 0, 0, 0.6)"), (1.5, "#ffffff")):
        layer.line_width, layer.stroke_style = width, color
        for x, across in ((left, arm), (right, -arm)):
            for y, down in ((top, arm), (bottom, -arm)):
                layer.stroke_lines([(x + across, y), (x, y), (x, y + down)])


def _lasso(layer: Any, scene: Scene) -> None:
    """Draw the box or lasso that is being drawn; a dashed line shows on dark and on bright images alike."""
    corners = np.array([scene.view.to_screen(*corner)[::-1] for corner in scene.lasso])
    layer.fill_style = "rgba(255, 255, 255, 0.12)"
    layer.fill_polygon(corners)
    layer.line_width, layer.stroke_style = 2.5, "rgba(0, 0, 0, 0.7)"
    layer.stroke_polygon(corners)
    layer.line_width, layer.stroke_style = 1.25, "#ffffff"
    layer.set_line_dash([5, 4])
    layer.stroke_polygon(corners)
    layer.set_line_dash([])


def _hint(layer: Any, hint: Hint, view: Viewport) -> None:
    row, column = hint.at
    on_left = column > view.size[1] * 0.6  # so that the words never leave the picture
    x = column - 12 if on_left else column + 14
    y = min(max(row - 10, 16), view.size[0] - 8)
    layer.text_align, layer.text_baseline = "right" if on_left else "left", "alphabetic"
    layer.stroke_style, layer.line_width = "rgba(0, 0, 0, 0.75)", 4
    layer.fill_style = "#ffffff"
    layer.stroke_text(hint.text, x, y)
    layer.fill_text(hint.text, x, y)


IMAGE, OVERLAY, SELECTION, DECORATION = range(4)
_BUFFERED = (IMAGE, OVERLAY, SELECTION)
_SMALL = 1 << 18  # values: up to this many a PNG is as quick as a JPEG
_AROUND = {DARK_INK: "#e4e4e4", BRIGHT_INK: "#141414"}  # beside the image, quiet against it

# ipycanvas gathers the commands of all canvases of a kernel in one place, and callbacks may come from several threads.
lock = threading.RLock()


class InputListener(Protocol):
    """Who hears of the mouse and the keyboard; places are (row, column) in CSS pixels.

    ``picked`` tells which object the last click picked, whether a frame has shown it already or not. ``held`` names the
    keys held down during a click: ``""``, ``"Shift"``, ``"Ctrl"`` (also for Command on a Mac) or ``"Ctrl+Shift"``.
    """

    def pressed(self, row: float, column: float, button: int = 0, held: str = "") -> None: ...
    def moved(self, row: float, column: float) -> None: ...
    def released(self, row: float, column: float) -> None: ...
    def left(self) -> None: ...
    def wheeled(self, delta: float, at: tuple[float, float] | None = None) -> None: ...
    def key_pressed(self, key: str, shown: tuple[str, int] | None) -> None: ...
    def picked(self) -> tuple[str, int] | None: ...


@contextmanager
def drawing(manager: Any) -> Iterator[None]:
    """Gather draw commands and send them as one message; after an exception they are dropped, and drawing goes on.

    ipycanvas' own ``hold_canvas`` has no ``finally``: an exception inside it would freeze all canvases for good.
    """
    with lock:
        held = manager._caching
        manager._caching = True
        manager._current_canvas = None  # so that each message says which canvas it begins with, to a new page too
        try:
            yield
            if not held:
                manager.flush()
        finally:
            manager._caching = held
            manager._current_canvas = None
            if not held:
                manager._commands_cache, manager._buffers_cache = [], []


class LayeredCanvas:
    """A canvas of fixed size and several layers, which tells of the mouse and the keys.

    Parameters
    ----------
    size : tuple of int
        Height and width in CSS pixels.
    layers : int
    repaint : callable
        Called when a page has (re)connected and must be painted from scratch.

    Attributes
    ----------
    widget : MultiCanvas
    shown : tuple or None
        The ``(image, object)`` that keys are meant for.
    frame : int
        How many frames were painted. The layer drawn last carries the number in the page too, as the offset of line
        dashes, which nothing draws with: messages are followed at once, but pictures are drawn only when decoded.
    """

    def __init__(self, size: tuple[int, int], layers: int, repaint: Callable[[], None]) -> None:
        height, width = size
        layout = {"width": f"{width}px", "height": f"{height}px"}
        self.widget = MultiCanvas(layers, width=width, height=height, layout=layout)
        self.shown: tuple[str, int] | None = None
        self.frame = 0
        self._dpr = 1.0
        self._manager = self.widget._canvas_manager
        self._repaint = repaint
        self.widget.on_client_ready(self._client_ready)

    def listen(self, listener: InputListener) -> None:
        """Tell ``listener`` of the events that the canvas itself reports."""

        def place(x: float, y: float) -> tuple[float, float]:
            return y / self._dpr, x / self._dpr

        self.widget.on_mouse_down(lambda x, y: listener.pressed(*place(x, y)))
        self.widget.on_mouse_move(lambda x, y: listener.moved(*place(x, y)))
        self.widget.on_mouse_up(lambda x, y: listener.released(*place(x, y)))
        self.widget.on_mouse_out(lambda x, y: listener.left())
        self.widget.on_mouse_wheel(lambda dx, dy: listener.wheeled(dy))
        self.widget.on_key_down(
            lambda key, shift, ctrl, meta: listener.key_pressed(key_name(key, ctrl or meta, shift), self.shown)
        )

    def _sign(self) -> None:
        """Number the frame: the last command of each."""
        self.frame += 1
        self.widget[-1].line_dash_offset = self.frame

    def _put(self, canvas: Canvas, picture: bytes, x: int, y: int) -> None:
        # ipycanvas would encode the pixels itself, as coarse JPEG or slow PNG; its command takes any picture.
        self._manager.send_draw_command(canvas, COMMANDS["putImageData"], [x, y], [checked(picture)])

    def _forget(self) -> None:
        """The page knows of nothing that was painted before."""

    def _client_ready(self) -> None:
        self._forget()
        self._repaint()


class ImageCanvas(LayeredCanvas):
    """Shows the last scene painted.

    Parameters
    ----------
    size, repaint
        As for `LayeredCanvas`.
    """

    def __init__(self, size: tuple[int, int], repaint: Callable[[], None]) -> None:
        super().__init__(size, len(_BUFFERED) + 1, repaint)
        height, width = size
        self._lossy = False
        self._buffers = [Canvas(width=width, height=height) for _ in _BUFFERED]
        self._painted: Scene | None = None
        self._resized = False

    @property
    def settled(self) -> bool:
        """Whether painting the same scene once more with ``lossless`` would improve nothing."""
        return not (self._lossy or self._resized)

    def blank(self) -> None:
        """Show nothing."""
        self._painted = None
        with drawing(self._manager):
            for canvas in (*self._buffers, *self.widget._canvases):
                canvas.clear()

    def paint(self, scene: Scene, lossless: bool = False) -> None:
        """Show a scene; only what differs from the last one is sent.

        Parameters
        ----------
        scene : Scene
        lossless : bool
            Send the visible part of the image as PNG: for when nothing moves.
        """
        with lock:
            self._fit(scene)
            before, self._painted = self._painted, None
            with drawing(self._manager):
                self._draw(scene, before, lossless)
            self._painted = scene

    def _fit(self, scene: Scene) -> None:
        """Give the canvases as many pixels as the screen has, which clears them in the browser."""
        height, width = scene.view.device_size
        if (self.widget.height, self.widget.width) != (height, width):
            self.widget.height, self.widget.width = height, width
            self._painted, self._resized = None, True
        # With room for a margin, needed or not: of another size they would be empty, and it may be told too late.
        whole = size_with_margin(scene.view.device_size)
        if (self._buffers[0].height, self._buffers[0].width) != whole:
            for buffer in self._buffers:
                buffer.height, buffer.width = whole
            self._painted, self._resized = None, True
        self._dpr = scene.view.dpr

    def _draw(self, scene: Scene, before: Scene | None, lossless: bool) -> None:
        if lossless and self._resized:
            before, self._resized = None, False  # the browser may have resized a canvas after the last paint
        moved = before is None or (before.frame, before.offset) != (scene.frame, scene.offset)
        new_frame = before is None or before.frame != scene.frame
        changed = {
            IMAGE: new_frame or before.image.key != scene.image.key,
            OVERLAY: new_frame or _key(before.overlay) != _key(scene.overlay),
            SELECTION: new_frame or _key(before.selection) != _key(scene.selection),
        }
        sharpened = lossless and (changed[IMAGE] or self._lossy)
        if changed[IMAGE]:
            self._fill_image(scene)
        if sharpened:
            self._sharpen_image(scene)
        for number, layer in ((OVERLAY, scene.overlay), (SELECTION, scene.selection)):
            if changed[number]:
                self._fill_codes(self._buffers[number], layer)
        for number in _BUFFERED:
            if moved or changed[number] or (number == IMAGE and sharpened):
                self.widget[number].clear()
                if number == IMAGE:
                    self.widget[number].fill_style = _AROUND[scene.ink]
                    self.widget[number].fill_rect(0, 0, self.widget.width, self.widget.height)
                self.widget[number].draw_image(self._buffers[number], scene.offset[1], scene.offset[0])
        # Always, and last: the next full repaint begins on another canvas, which ipycanvas then names to the page.
        decorate(self.widget[DECORATION], scene)
        self._sign()

    def _fill_image(self, scene: Scene) -> None:
        layer = scene.image
        small = layer.pixels.size <= _SMALL
        self._buffers[IMAGE].clear()
        self._put_image(scene, layer, encode.png if small else encode.jpeg)
        self._lossy = not small

    def _sharpen_image(self, scene: Scene) -> None:
        if self._lossy:
            self._put_image(scene, crop_to_visible(scene), encode.png)
            self._lossy = False

    def _put_image(self, scene: Scene, layer: ImageLayer, encoded: Callable[[NDArray[np.uint8]], bytes]) -> None:
        if not layer.pixels.size:
            return
        frame, buffer = scene.frame, self._buffers[IMAGE]
        stretch = frame.scale * layer.box.width / layer.pixels.shape[1]
        x, y = (layer.box.x0 - frame.origin[1]) * frame.scale, (layer.box.y0 - frame.origin[0]) * frame.scale
        buffer.image_smoothing_enabled = frame.scale < 1  # magnified pixels stay pixels
        buffer.set_transform(stretch, 0, 0, stretch, x, y)
        self._put(buffer, encoded(layer.pixels), 0, 0)
        buffer.reset_transform()

    def _fill_codes(self, buffer: Canvas, layer: IndexedLayer | None) -> None:
        buffer.clear()
        if layer is not None and layer.codes.size:
            self._put(buffer, encode.indexed_png(layer.codes, layer.table), layer.offset[1], layer.offset[0])

    def _forget(self) -> None:
        self._painted = None


def checked(picture: bytes) -> bytes:
    """Return a picture that is whole: one that the browser cannot decode would freeze all canvases of its page."""
    whole_png = picture.startswith(b"\x89PNG\r\n\x1a\n") and picture.endswith(b"IEND\xaeB`\x82")
    whole_jpeg = picture.startswith(b"\xff\xd8\xff") and picture.endswith(b"\xff\xd9")
    if not (whole_png or whole_jpeg):
        raise ValueError(f"a picture must be a whole PNG or JPEG, got {len(picture)} bytes beginning {picture[:8]!r}")
    return picture


def key_name(key: str, control: bool, shift: bool = False) -> str:
    """Return the name of a key with what is held down: ``"Ctrl+z"`` (also for Command on a Mac), ``"Shift+ArrowUp"``.

    Of a key that writes a character, Shift has changed the character already.
    """
    held = [name for name, down in (("Ctrl", control), ("Shift", shift and len(key) > 1)) if down]
    return "+".join([*held, key])


def crop_to_visible(scene: Scene) -> ImageLayer:
    """Return the image layer cut to what is on the screen now, without the margin."""
    layer, view = scene.image, scene.view
    rows, columns = layer.pixels.shape[:2]
    if not layer.pixels.size:
        return layer
    stride = layer.box.width // columns
    top, left = view.to_image(0, 0)
    bottom, right = view.to_image(*view.size)
    y0, y1 = _cells(top, bottom, layer.box.y0, stride, rows)
    x0, x1 = _cells(left, right, layer.box.x0, stride, columns)
    box = type(layer.box)(
        layer.box.y0 + y0 * stride, layer.box.x0 + x0 * stride, layer.box.y0 + y1 * stride, layer.box.x0 + x1 * stride
    )
    return ImageLayer(layer.key, np.ascontiguousarray(layer.pixels[y0:y1, x0:x1]), box)


def _cells(low: float, high: float, start: int, stride: int, count: int) -> tuple[int, int]:
    first = int((low - start) // stride)
    last = int(-(-(high - start) // stride))
    return min(max(first, 0), count), min(max(last, 0), count)


def _key(layer: IndexedLayer | None) -> object:
    return None if layer is None else layer.key
