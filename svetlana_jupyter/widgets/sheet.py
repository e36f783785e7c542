"""Paints the page of a gallery: the thumbnails on one layer, frames, words and selection on the other.

Keeps the contract of `widgets.canvas`: only what differs is sent, and a page that was reloaded shows everything again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from svetlana_jupyter.core import encode
from svetlana_jupyter.core.contact import CellCaption, Sheet
from svetlana_jupyter.core.scene import BRIGHT_INK, DARK_INK
from svetlana_jupyter.widgets.canvas import LayeredCanvas, drawing, lock

PICTURES, MARKS = range(2)
_SMALL = 1 << 19  # pixels: up to this many a PNG is quick
_QUALITY = 92
_FONT, _BOLD = "11px system-ui, sans-serif", "600 11px system-ui, sans-serif"
_LETTER = 6.6  # CSS pixels, an average one of these fonts
_NARROWED = 0.78  # of a letter: a name is rather drawn narrower than cut
_TELLING = 5  # letters: a name cut to fewer says nothing that the colour does not
_FIRM, _LIKELY = 4, 2  # CSS pixels of a frame
_CHOSEN = {DARK_INK: "#0d47a1", BRIGHT_INK: "#ffffff"}


class GridCanvas(LayeredCanvas):
    """Shows the last sheet painted.

    Parameters
    ----------
    size, repaint
        As for `LayeredCanvas`.
    """

    def __init__(self, size: tuple[int, int], repaint: Callable[[], None]) -> None:
        super().__init__(size, 2, repaint)
        self._painted: Sheet | None = None
        self._resized = False

    @property
    def settled(self) -> bool:
        """Whether painting the same sheet once more would improve nothing."""
        return not self._resized

    def paint(self, sheet: Sheet, again: bool = False) -> None:
        """Show a sheet.

        Parameters
        ----------
        sheet : Sheet
        again : bool
            Send everything once more after the size has changed: the browser may have cleared it behind the last paint.
        """
        with lock:
            self._fit(sheet)
            if again and self._resized:
                self._painted, self._resized = None, False
            before, self._painted = self._painted, None
            with drawing(self._manager):
                if before is None or before.key != sheet.key:
                    self._put(self.widget[PICTURES], _encoded(sheet), 0, 0)
                self._mark(sheet)  # always, and last: the next full repaint begins on another canvas
                self._sign()
            self._painted = sheet

    def _fit(self, sheet: Sheet) -> None:
        height, width = sheet.pixels.shape[:2]
        if (self.widget.height, self.widget.width) != (height, width):
            self.widget.height, self.widget.width = height, width
            self._painted, self._resized = None, True
        self._dpr = sheet.dpr

    def _forget(self) -> None:
        self._painted = None

    def _mark(self, sheet: Sheet) -> None:
        """Draw what is said of each cell, in CSS pixels."""
        layer, grid = self.widget[MARKS], sheet.grid
        layer.reset_transform()
        layer.clear()
        layer.scale(sheet.dpr)
        layer.text_baseline = "alphabetic"
        for cell, tile in enumerate(sheet.tiles):
            top, left = grid.corner(cell)
            _frame(layer, tile, left, top, grid.side)
            _words(layer, tile, left, top + grid.side + grid.line - 4, grid.side, sheet.ink)
        layer.stroke_style = layer.fill_style = _CHOSEN[sheet.ink]
        layer.line_width = 3
        for cell in sheet.chosen:
            top, left = grid.corner(cell)
            layer.stroke_rect(left - 3, top - 3, grid.side + 6, grid.side + grid.line + 4)
            _check(layer, left + grid.side - 8, top + 8, sheet.ink)
        if sheet.cursor >= 0 and sheet.cursor not in sheet.chosen:
            top, left = grid.corner(sheet.cursor)
            layer.line_width = 1
            layer.stroke_rect(left - 3.5, top - 3.5, grid.side + 7, grid.side + grid.line + 5)
        if sheet.words:
            layer.font, layer.fill_style, layer.text_align = "14px system-ui, sans-serif", sheet.ink, "center"
            layer.fill_text(sheet.words, grid.size[1] / 2, grid.size[0] / 2)
        if sheet.hint is not None:
            _hint(layer, sheet)


def _encoded(sheet: Sheet) -> bytes:
    small = sheet.pixels.shape[0] * sheet.pixels.shape[1] <= _SMALL
    return encode.png(sheet.pixels) if small else encode.jpeg(sheet.pixels, _QUALITY)


def _frame(layer: Any, tile: CellCaption, left: float, top: float, side: float) -> None:
    width = _FIRM if tile.is_annotated else _LIKELY
    if tile.color:
        layer.stroke_style, layer.line_width = tile.color, width
        layer.stroke_rect(left + width / 2, top + width / 2, side - width, side - width)


def _words(layer: Any, tile: CellCaption, left: float, baseline: float, side: float, ink: str) -> None:
    layer.fill_style = ink
    if tile.share:
        layer.font, layer.text_align = _FONT, "right"
        layer.fill_text(tile.share, left + side, baseline)
    if tile.name:
        layer.font, layer.text_align = _BOLD if tile.is_annotated else _FONT, "left"
        width = side - (_LETTER * len(tile.share) + 4 if tile.share else 0)
        room = int(width / (_LETTER * _NARROWED))
        name = tile.name if len(tile.name) <= room else f"{tile.name[: max(1, room - 1)]}…"
        if room >= _TELLING or name == tile.name:
            layer.fill_text(name, left, baseline, width)  # the browser draws it narrower where it must


def _check(layer: Any, x: float, y: float, ink: str) -> None:
    """Draw a tick in a disc: a selection is seen without its colour too."""
    layer.fill_circle(x, y, 7)
    layer.stroke_style, layer.line_width = BRIGHT_INK if ink == DARK_INK else DARK_INK, 2
    layer.stroke_lines([(x - 3, y), (x - 1, y + 3), (x + 4, y - 3)])
    layer.stroke_style, layer.line_width = _CHOSEN[ink], 3


def _hint(layer: Any, sheet: Sheet) -> None:
    """Write beside the pointer, on a ground of its own, so that it is read over any picture."""
    row, column = sheet.hint.at
    width = _LETTER * len(sheet.hint.text) + 14
    x = min(max(column + 14, 2), sheet.grid.size[1] - width - 2)
    y = row - 12 if row > 34 else row + 32
    layer.font, layer.text_align = _FONT, "left"
    layer.fill_style = "rgba(20, 20, 20, 0.88)"
    layer.fill_rect(x, y - 15, width, 21)
    layer.fill_style = BRIGHT_INK
    layer.fill_text(sheet.hint.text, x + 7, y, width - 14)
