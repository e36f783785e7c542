"""What is written over the viewer's picture: scale bar, frame, lasso, words; on a layer of its own, in CSS pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from svetlana_jupyter.core.scene import DARK_INK, Hint, Scene
from svetlana_jupyter.core.view import View

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


def _field(layer: Any, field: tuple[float, float, float, float], view: View) -> None:
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


def _hint(layer: Any, hint: Hint, view: View) -> None:
    row, column = hint.at
    on_left = column > view.size[1] * 0.6  # so that the words never leave the picture
    x = column - 12 if on_left else column + 14
    y = min(max(row - 10, 16), view.size[0] - 8)
    layer.text_align, layer.text_baseline = "right" if on_left else "left", "alphabetic"
    layer.stroke_style, layer.line_width = "rgba(0, 0, 0, 0.75)", 4
    layer.fill_style = "#ffffff"
    layer.stroke_text(hint.text, x, y)
    layer.fill_text(hint.text, x, y)
