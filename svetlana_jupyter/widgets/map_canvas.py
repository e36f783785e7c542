"""Canvas of the map of objects."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

from svetlana_jupyter.core.display import encode
from svetlana_jupyter.core.display.scene import BRIGHT_INK
from svetlana_jupyter.widgets.viewer.canvas import LayeredCanvas, draw_lasso

if TYPE_CHECKING:
    from svetlana_jupyter.core.display.point_map import MapScene
    from svetlana_jupyter.core.display.scene import Hint
    from svetlana_jupyter.core.display.viewport import Viewport

PICTURE_SIDE = 84  # CSS pixels, side of the thumbnail beside the pointer
_FONT = "12px system-ui, sans-serif"
_LETTER = 6.6  # CSS pixels, average width of a letter in this font
_LINE = 16  # CSS pixels between two lines
_PLATE = "rgba(20, 20, 20, 0.88)"


class MapCanvas(LayeredCanvas):
    """Canvas of the map: dots, labeled dots and selection, and text above.

    Each of the layers has an off-screen canvas, from which it is copied while the user drags the map.

    Parameters
    ----------
    size : tuple of int
        Initial height and width in CSS pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size, layers=1, buffers=3)

    def _extent(self, scene: MapScene) -> tuple[tuple[int, int], float]:
        return scene.view.device_size, scene.view.dpr

    def _draw(self, scene: MapScene, before: MapScene | None, lossless: bool) -> None:
        layers = scene.dots, scene.labeled, scene.selection
        old = (before.dots, before.labeled, before.selection) if before else (None, None, None)
        visible = self.widget[0]
        visible.reset_transform()
        visible.clear()
        for layer, was, buffer in zip(layers, old, self._buffers):
            if before is None or layer is not was:
                buffer.clear()
                if layer is not None:
                    self._put(buffer, encode.indexed_png(layer.codes, layer.table), 0, 0)
            visible.draw_image(buffer, scene.offset[1], scene.offset[0])
        _draw_decoration(visible, scene)
        if scene.hint is not None and scene.picture is not None:
            x, y = (round(at * scene.view.dpr) for at in _hint_corner(scene.hint, scene.view))
            visible.reset_transform()  # the thumbnail is drawn in device pixels
            self._put(visible, encode.jpeg(scene.picture), x, y)


def _draw_decoration(layer: Any, scene: MapScene) -> None:
    """Draw caption, lasso and hint, in CSS pixels."""
    height, width = scene.view.size
    layer.scale(scene.view.dpr)
    layer.font, layer.text_baseline, layer.fill_style = _FONT, "alphabetic", scene.ink
    letters = max(1, int((width - 24) / _LETTER))
    layer.text_align = "center"
    for number, line in enumerate(wrap(scene.message, letters)):
        layer.fill_text(line, width / 2, height / 2 + number * _LINE, width - 24)
    layer.text_align = "left"
    for number, line in enumerate(reversed(wrap(scene.caption, letters))):
        layer.fill_text(line, 12, height - 12 - number * _LINE, width - 24)
    if scene.lasso:
        draw_lasso(layer, scene.lasso, scene.view)
    if scene.hint is not None:
        x, y = _hint_corner(scene.hint, scene.view)
        layer.fill_style = _PLATE
        layer.fill_rect(x - 4, y - 4, _hint_width(scene.hint) + 8, PICTURE_SIDE + 28)
        layer.fill_style = BRIGHT_INK
        layer.fill_text(scene.hint.text, x, y + PICTURE_SIDE + 17)


def _hint_width(hint: Hint) -> float:
    return max(PICTURE_SIDE, _LETTER * len(hint.text))


def _hint_corner(hint: Hint, view: Viewport) -> tuple[float, float]:
    """Return x and y of a thumbnail beside the pointer, inside the map."""
    row, column = hint.at
    width, height = _hint_width(hint), PICTURE_SIDE + 24
    x = column + 20 if column + 26 + width < view.size[1] else column - 20 - width
    y = row + 20 if row + 26 + height < view.size[0] else row - 20 - height
    return max(x, 6.0), max(y, 6.0)
