"""Canvas on which scenes are painted.

This is the only module that imports ipycanvas, where x comes before y. It avoids four problems of ipycanvas: an
exception while drawing would freeze every canvas of the kernel, a reloaded page would stay empty, images would be
encoded slowly and sent completely, even if only a part has changed, and the page would copy every visible layer several
times per message.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from ipycanvas import Canvas, MultiCanvas
from ipycanvas.canvas import COMMANDS

from svetlana_jupyter.core.display import encode
from svetlana_jupyter.core.display.channels import rgb_of
from svetlana_jupyter.core.display.scene import ImageLayer, size_with_margin
from svetlana_jupyter.core.display.viewport import PixelBox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from svetlana_jupyter.core.display.scene import Hint, IndexedLayer, Scene
    from svetlana_jupyter.core.display.viewport import Viewport

LEFT, MIDDLE, RIGHT = 0, 1, 2  # mouse buttons
MODIFIERS = {"Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock"}

# Off-screen canvases, from which the visible canvas is drawn. They also hold a margin around the view, so that dragging
# sends no pixels.
IMAGE, OVERLAY, SELECTION = _BUFFERED = range(3)
_PNG_LIMIT = 1 << 18  # values: below this, a PNG is encoded as quickly as a JPEG
_PLATE = "rgba(20, 20, 20, 0.72)"  # behind the scale bar, which may lie on the image or beside it
_FONT = "12px system-ui, sans-serif"

# ipycanvas collects the commands of all canvases of a kernel in one place, and callbacks may come from several threads.
canvas_lock = threading.RLock()


class InputListener(Protocol):
    """Receiver of mouse and keyboard events.

    Positions are (row, column) in CSS pixels. ``modifiers`` names the keys held down during a click: ``""``,
    ``"Shift"``, ``"Ctrl"`` (also for Command on a Mac) or ``"Ctrl+Shift"``. ``selection_id`` returns the
    selection after the last click, even if no frame has shown it yet. ``key_pressed`` receives the selection that was
    on the screen when the key went down.
    """

    def pressed(self, row: float, column: float, button: int = 0, modifiers: str = "") -> None:
        """Handle the press of a mouse button."""

    def moved(self, row: float, column: float) -> None:
        """Handle a move of the pointer."""

    def released(self, row: float, column: float) -> None:
        """Handle the release of a mouse button."""

    def pointer_left(self) -> None:
        """Handle the pointer leaving the canvas."""

    def wheeled(self, delta: float, at: tuple[float, float] | None = None) -> None:
        """Handle a turn of the wheel."""

    def key_pressed(self, key: str, shown: tuple[str, int] | None) -> None:
        """Handle a key that was pressed."""

    def selection_id(self) -> tuple[str, int] | None:
        """Return the current selection."""


@contextmanager
def batch_drawing(manager: Any) -> Iterator[None]:
    """Collect draw commands and send them as one message.

    After an exception, the commands are dropped. The ``hold_canvas`` of ipycanvas has no ``finally``: an exception
    inside it would freeze all canvases permanently.
    """
    with canvas_lock:
        nested = manager._caching
        manager._caching = True
        manager._current_canvas = None  # each message then names its first canvas, which a new page must know
        try:
            yield
            if not nested:
                manager.flush()
        finally:
            manager._caching = nested
            manager._current_canvas = None
            if not nested:
                manager._commands_cache, manager._buffers_cache = [], []


class LayeredCanvas:
    """Canvas of several layers, which shows scenes and reports input events.

    Parameters
    ----------
    size : tuple of int
        Initial height and width in CSS pixels.
    layers : int
    buffers : int
        Number of off-screen canvases.

    Attributes
    ----------
    widget : MultiCanvas
    counter : Canvas
        Off-screen canvas whose line dash offset is the number of the last frame. Each message ends on it: of the canvas
        on which a message ends, the page shows a copy at the beginning and at the end of the next message.
    repaint : callable
        Called when a browser page has connected or reconnected and must be painted from scratch; set by `Screen`.
    shown : tuple or None
        Selection to which keys apply, as `ViewerModel.selection_id` identifies it.
    frame : int
        Number of painted frames. The browser draws images only once they are decoded; ``pointer.js`` reads the number
        from ``counter`` to find out which frame is visible.
    """

    def __init__(self, size: tuple[int, int], layers: int, buffers: int = 0) -> None:
        height, width = size
        # On a narrower page the browser shrinks the canvas until it is drawn again in its new size.
        layout = {"width": f"{width}px", "max_width": "100%", "height": "auto"}
        self.widget = MultiCanvas(layers, width=width, height=height, layout=layout)
        self.shown: tuple[str, int] | None = None
        self.frame = 0
        self._buffers = [Canvas(width=width, height=height) for _ in range(buffers)]
        self.counter = Canvas(width=1, height=1)
        self._dpr = 1.0
        self._painted: Any = None  # contents of the last frame; None if the page must be painted from scratch
        self._resized = False
        self._manager = self.widget._canvas_manager
        self.repaint: Callable[[], None] = lambda: None
        self.widget.on_client_ready(self._client_ready)

    @property
    def is_final(self) -> bool:
        """Whether the last scene is already painted in full quality."""
        return not self._resized

    def add_listener(self, listener: InputListener) -> None:
        """Report the events that ipycanvas itself provides to ``listener``."""

        def position(x: float, y: float) -> tuple[float, float]:
            return y / self._dpr, x / self._dpr

        self.widget.on_mouse_down(lambda x, y: listener.pressed(*position(x, y)))
        self.widget.on_mouse_move(lambda x, y: listener.moved(*position(x, y)))
        self.widget.on_mouse_up(lambda x, y: listener.released(*position(x, y)))
        self.widget.on_mouse_out(lambda x, y: listener.pointer_left())
        self.widget.on_mouse_wheel(lambda dx, dy: listener.wheeled(dy))
        self.widget.on_key_down(
            lambda key, shift, ctrl, meta: listener.key_pressed(key_name(key, ctrl or meta, shift), self.shown)
        )

    def set_width(self, width: int) -> None:
        """Set the width on the page, in CSS pixels; the height follows."""
        self.widget.layout.width = f"{width}px"

    def clear(self) -> None:
        """Clear what is visible."""
        self._painted = None
        with self._batch():
            for canvas in self.widget._canvases:
                canvas.clear()

    def paint(self, scene: Any, lossless: bool = False) -> None:
        """Show a scene; only what differs from the last scene is sent.

        Parameters
        ----------
        scene : Scene or GridScene
        lossless : bool
            Whether to paint in full quality, because nothing moves. After a resize, everything is sent again, because
            the browser may have cleared a canvas after the last frame.
        """
        with canvas_lock:
            size, self._dpr = self._extent(scene)
            self._fit([self.widget], size)
            # Always with room for a margin, because every resize clears a canvas, perhaps only after the next paint.
            self._fit(self._buffers, size_with_margin(size))
            if lossless and self._resized:
                self._forget()
                self._resized = False
            with self._batch():
                self._draw(scene, self._painted, lossless)
                self.frame += 1
            self._painted = scene

    def is_painted(self, scene: Any, lossless: bool) -> bool:
        """Return whether `paint` would change nothing on the screen."""
        return False

    @contextmanager
    def _batch(self) -> Iterator[None]:
        """Send all commands as one message; after an exception, paint from scratch."""
        try:
            with batch_drawing(self._manager):
                yield
                self.counter.line_dash_offset = self.frame
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        """Paint everything again with the next frame."""
        self._painted = None

    def _extent(self, scene: Any) -> tuple[tuple[int, int], float]:
        """Return height and width of a scene in device pixels, and its pixel ratio."""
        raise NotImplementedError

    def _draw(self, scene: Any, before: Any, lossless: bool) -> None:
        """Draw what differs from the scene ``before``; draw everything if that is None."""
        raise NotImplementedError

    def _fit(self, canvases: Iterable[Any], size: tuple[int, int]) -> None:
        """Resize canvases, which clears them in the browser."""
        for canvas in canvases:
            if (canvas.height, canvas.width) != size:
                canvas.height, canvas.width = size
                self._forget()
                self._resized = True

    def _put(self, canvas: Canvas, picture: bytes, x: int, y: int) -> None:
        # ipycanvas would encode pixels as coarse JPEG or slow PNG; its command accepts any encoded image.
        self._manager.send_draw_command(canvas, COMMANDS["putImageData"], [x, y], [check_decodable(picture)])

    def _client_ready(self) -> None:
        self._forget()
        self.repaint()


@dataclass
class _Picture:
    """Off-screen picture of a scene, None if it must be drawn from scratch."""

    buffers: Sequence[Canvas]
    scene: Scene | None = None
    lossy: bool = False


class ImageCanvas(LayeredCanvas):
    """Canvas of the viewer.

    While the view moves, large images are sent as JPEG. When nothing moves, the visible part is sent as PNG. There are
    two off-screen pictures: the visible canvas is a copy of one, and the other holds the scene that may be painted
    next, so that no pixels need to be sent then.

    Parameters
    ----------
    size : tuple of int
        Initial height and width in CSS pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size, 1, 2 * len(_BUFFERED))
        self._shown = _Picture(self._buffers[: len(_BUFFERED)])
        self._next = _Picture(self._buffers[len(_BUFFERED) :])

    @property
    def is_final(self) -> bool:
        """Whether the last scene is already painted in full quality."""
        return not self._shown.lossy and super().is_final

    def prepare(self, scene: Scene) -> None:
        """Send the pixels of a scene that may be painted next, without showing it."""
        with canvas_lock:
            if self._painted is not None and self._extent(scene) == self._extent(self._painted):
                with self._batch():
                    self._update(self._next, scene)

    def is_painted(self, scene: Scene, lossless: bool) -> bool:
        """Return whether `paint` would change nothing on the screen."""
        if self._painted is None or (lossless and not self.is_final):
            return False
        return _visible_parts(scene) == _visible_parts(self._painted)

    def _extent(self, scene: Scene) -> tuple[tuple[int, int], float]:
        return scene.view.device_size, scene.view.dpr

    def _forget(self) -> None:
        super()._forget()
        self._shown.scene = self._next.scene = None

    def _draw(self, scene: Scene, before: Scene | None, lossless: bool) -> None:
        if not _has_pixels_of(self._shown, scene) and _has_pixels_of(self._next, scene):
            self._shown, self._next = self._next, self._shown
        self._update(self._shown, scene, lossless)
        layer = self.widget[0]
        layer.reset_transform()
        layer.clear()
        for buffer in self._shown.buffers:
            layer.draw_image(buffer, scene.offset[1], scene.offset[0])
        draw_decoration(layer, scene)

    def _update(self, picture: _Picture, scene: Scene, lossless: bool = False) -> None:
        """Draw what differs from the scene of a picture."""
        before, buffers = picture.scene, picture.buffers
        if before is None or before.frame != scene.frame:
            changed = set(_BUFFERED)
        else:
            keys = zip(_BUFFERED, _layer_keys(before), _layer_keys(scene))
            changed = {number for number, old, new in keys if old != new}
        if IMAGE in changed:
            picture.lossy = scene.image.pixels.size > _PNG_LIMIT
            buffers[IMAGE].clear()
            self._put_image(buffers[IMAGE], scene, scene.image, encode.jpeg if picture.lossy else encode.png)
        if lossless and picture.lossy:
            self._put_image(buffers[IMAGE], scene, crop_to_visible(scene), encode.png)
            picture.lossy = False
        for number, layer in ((OVERLAY, scene.overlay), (SELECTION, scene.selection)):
            if number in changed:
                self._fill_codes(buffers[number], layer)
        picture.scene = scene

    def _put_image(
        self, buffer: Canvas, scene: Scene, layer: ImageLayer, encoded: Callable[[NDArray[np.uint8]], bytes]
    ) -> None:
        if not layer.pixels.size:
            return
        frame = scene.frame
        stretch = frame.scale * layer.box.width / layer.pixels.shape[1]
        x, y = (layer.box.x0 - frame.origin[1]) * frame.scale, (layer.box.y0 - frame.origin[0]) * frame.scale
        buffer.image_smoothing_enabled = frame.scale < 1  # magnified pixels keep their edges
        buffer.set_transform(stretch, 0, 0, stretch, x, y)
        self._put(buffer, encoded(layer.pixels), 0, 0)
        buffer.reset_transform()

    def _fill_codes(self, buffer: Canvas, layer: IndexedLayer | None) -> None:
        buffer.clear()
        if layer is not None and layer.codes.size:
            self._put(buffer, encode.indexed_png(layer.codes, layer.table), layer.offset[1], layer.offset[0])


def draw_decoration(layer: Any, scene: Scene) -> None:
    """Draw scale bar, patch frame, lasso and hover text, in CSS pixels."""
    layer.scale(scene.view.dpr)
    layer.font = _FONT
    layer.line_join = "round"
    if scene.marks:
        _draw_marks(layer, scene)
    _draw_scale_bar(layer, scene)
    if scene.field is not None:
        _draw_frame(layer, scene.field, scene.view)
    if scene.lasso:
        draw_lasso(layer, scene.lasso, scene.view)
    if scene.hint is not None:
        _draw_hint(layer, scene.hint, scene.view)


def _draw_marks(layer: Any, scene: Scene) -> None:
    """Draw a square in the color of its class on each labeled object.

    Where the prediction differs, the square is larger, and its right half has the color of the predicted class.
    """
    at = np.array([scene.view.to_screen(mark.y, mark.x) for mark in scene.marks])
    colors = np.array([rgb_of(mark.color) for mark in scene.marks])
    others = np.array([rgb_of(mark.other or mark.color) for mark in scene.marks])
    half = np.where([bool(mark.other) for mark in scene.marks], 7.0, 4.0)
    tops, lefts, sides = at[:, 0] - half, at[:, 1] - half, 2 * half
    layer.fill_style = "#ffffff"
    layer.fill_rects(lefts - 1.5, tops - 1.5, sides + 3, sides + 3)
    layer.fill_styled_rects(lefts, tops, half, sides, colors)
    layer.fill_styled_rects(lefts + half, tops, half, sides, others)


def _draw_scale_bar(layer: Any, scene: Scene) -> None:
    height, width = scene.view.size
    right, bottom = width - 14, height - 14
    left = right - scene.scale_bar.length
    layer.fill_style = _PLATE
    layer.fill_rect(left - 8, bottom - 21, scene.scale_bar.length + 16, 29)
    layer.fill_style, layer.text_align, layer.text_baseline = "#ffffff", "right", "alphabetic"
    layer.fill_rect(left, bottom, scene.scale_bar.length, 3)
    layer.fill_text(scene.scale_bar.text, right, bottom - 6)


def _draw_frame(layer: Any, field: tuple[float, float, float, float], view: Viewport) -> None:
    """Draw the corners of a rectangle, which hide less than its sides would."""
    (top, left), (bottom, right) = view.to_screen(*field[:2]), view.to_screen(*field[2:])
    arm = min(14.0, (right - left) / 3, (bottom - top) / 3)
    layer.line_cap = "square"
    for width, color in ((3.5, "rgba(0, 0, 0, 0.6)"), (1.5, "#ffffff")):
        layer.line_width, layer.stroke_style = width, color
        for x, across in ((left, arm), (right, -arm)):
            for y, down in ((top, arm), (bottom, -arm)):
                layer.stroke_lines([(x + across, y), (x, y), (x, y + down)])


def draw_lasso(layer: Any, lasso: Iterable[tuple[float, float]], view: Viewport) -> None:
    """Draw a box or lasso with a dashed line, visible on any image."""
    corners = np.array([view.to_screen(*corner)[::-1] for corner in lasso])
    layer.fill_style = "rgba(255, 255, 255, 0.12)"
    layer.fill_polygon(corners)
    layer.line_width, layer.stroke_style = 2.5, "rgba(0, 0, 0, 0.7)"
    layer.stroke_polygon(corners)
    layer.line_width, layer.stroke_style = 1.25, "#ffffff"
    layer.set_line_dash([5, 4])
    layer.stroke_polygon(corners)
    layer.set_line_dash([])


def _draw_hint(layer: Any, hint: Hint, view: Viewport) -> None:
    row, column = hint.at
    on_left = column > view.size[1] * 0.6  # so that the text stays inside the image area
    x = column - 12 if on_left else column + 14
    y = min(max(row - 10, 16), view.size[0] - 8)
    layer.text_align, layer.text_baseline = "right" if on_left else "left", "alphabetic"
    layer.stroke_style, layer.line_width = "rgba(0, 0, 0, 0.75)", 4
    layer.fill_style = "#ffffff"
    layer.stroke_text(hint.text, x, y)
    layer.fill_text(hint.text, x, y)


def check_decodable(picture: bytes) -> bytes:
    """Return an encoded image after checking that it is complete.

    An image that the browser cannot decode would freeze all canvases of its page.
    """
    complete_png = picture.startswith(b"\x89PNG\r\n\x1a\n") and picture.endswith(b"IEND\xaeB`\x82")
    complete_jpeg = picture.startswith(b"\xff\xd8\xff") and picture.endswith(b"\xff\xd9")
    if not (complete_png or complete_jpeg):
        raise ValueError(f"Encoded image must be a complete PNG or JPEG, got {len(picture)} bytes: {picture[:8]!r} ...")
    return picture


def key_name(key: str, control: bool, shift: bool = False) -> str:
    """Return the name of a key with its modifiers, such as ``"Ctrl+z"``.

    Command on a Mac counts as Ctrl. Shift is not named with a key that writes a character, because the character
    already differs; with Ctrl, where browsers differ in the case of letters, a letter is named in lower case.

    >>> key_name("Z", control=True, shift=True), key_name("Z", control=False, shift=True)
    ('Ctrl+Shift+z', 'Z')
    """
    is_letter = control and len(key) == 1 and key.isalpha()
    modifiers = [name for name, down in (("Ctrl", control), ("Shift", shift and (is_letter or len(key) > 1))) if down]
    return "+".join([*modifiers, key.lower() if is_letter else key])


def crop_to_visible(scene: Scene) -> ImageLayer:
    """Return the image layer without the margin that is off the screen."""
    layer, view = scene.image, scene.view
    if not layer.pixels.size:
        return layer
    stride, start = layer.box.width // layer.pixels.shape[1], (layer.box.y0, layer.box.x0)
    first, last = (np.subtract(view.to_image(*corner), start) for corner in ((0, 0), view.size))
    inside = np.clip([first // stride, -(-last // stride)], 0, layer.pixels.shape[:2]).astype(int)
    (y0, x0), (y1, x1) = inside.tolist()
    pixels = np.ascontiguousarray(layer.pixels[y0:y1, x0:x1])
    return ImageLayer(layer.key, pixels, PixelBox(*(inside * stride + start).ravel().tolist()))


def _layer_keys(scene: Scene) -> list[object]:
    return [layer and layer.key for layer in (scene.image, scene.overlay, scene.selection)]


def _visible_parts(scene: Scene) -> tuple[object, ...]:
    return scene.view, scene.frame, _layer_keys(scene), scene.scale_bar, scene.hint, scene.lasso, scene.field


def _has_pixels_of(picture: _Picture, scene: Scene) -> bool:
    """Return whether a picture has the image pixels of a scene."""
    before = picture.scene
    return before is not None and before.frame == scene.frame and before.image.key == scene.image.key
