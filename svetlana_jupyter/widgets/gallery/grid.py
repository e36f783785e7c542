"""A page of patches on the screen: what the mouse and the keys select there, and what is said of each.

Paints the page of a gallery: the thumbnails on one layer, frames, words and selection on the other.

Keeps the contract of `widgets.viewer.canvas`: only what differs is sent, and a page that was reloaded shows
everything again.

What the mouse and the keys do over a page of patches: select, turn the page, or pass a key on.

What is said of an object beside its patch: the class, who gave it, and how sure a classifier is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import traitlets
from ipywidgets import Box, VBox

from svetlana_jupyter.core.display import encode
from svetlana_jupyter.core.display.scene import BRIGHT_INK, DARK_INK, Hint
from svetlana_jupyter.core.display.selection import Selection
from svetlana_jupyter.core.display.thumbnails import CellCaption, DepthMode, GridLayout, GridScene, draw_thumbnail_grid
from svetlana_jupyter.widgets.components import StatusLine
from svetlana_jupyter.widgets.gallery.thumbnail_loader import Page, ThumbnailCache
from svetlana_jupyter.widgets.panel import catch_errors
from svetlana_jupyter.widgets.scheduling import BackgroundLoader, Debounce, Throttle, running_loop
from svetlana_jupyter.widgets.viewer.canvas import LayeredCanvas, drawing, lock
from svetlana_jupyter.widgets.viewer.pointer import Pointer

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

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
        self._painted: GridScene | None = None
        self._resized = False

    @property
    def settled(self) -> bool:
        """Whether painting the same sheet once more would improve nothing."""
        return not self._resized

    def paint(self, sheet: GridScene, again: bool = False) -> None:
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

    def _fit(self, sheet: GridScene) -> None:
        height, width = sheet.pixels.shape[:2]
        if (self.widget.height, self.widget.width) != (height, width):
            self.widget.height, self.widget.width = height, width
            self._painted, self._resized = None, True
        self._dpr = sheet.dpr

    def _forget(self) -> None:
        self._painted = None

    def _mark(self, sheet: GridScene) -> None:
        """Draw what is said of each cell, in CSS pixels."""
        layer, grid = self.widget[MARKS], sheet.grid
        layer.reset_transform()
        layer.clear()
        layer.scale(sheet.dpr)
        layer.text_baseline = "alphabetic"
        for cell, tile in enumerate(sheet.cell_captions):
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
        if sheet.message:
            layer.font, layer.fill_style, layer.text_align = "14px system-ui, sans-serif", sheet.ink, "center"
            layer.fill_text(sheet.message, grid.size[1] / 2, grid.size[0] / 2)
        if sheet.hint is not None:
            _hint(layer, sheet)


def _encoded(sheet: GridScene) -> bytes:
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


def _hint(layer: Any, sheet: GridScene) -> None:
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


_LEFT = 0
_NOTCH = 100.0  # of the wheel of most mice
_ARROWS = {"ArrowUp": (-1, 0), "ArrowDown": (1, 0), "ArrowLeft": (0, -1), "ArrowRight": (0, 1)}
_MODIFIERS = {"Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock"}


def _safe(method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)
    def call(self: GridInteraction, *args: Any) -> None:
        catch_errors(method, self._page.status)(self, *args)

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


_SHORT = {"ambiguous": "ambiguous", "bad_segmentation": "bad_segmentation"}
_LONG = {"ambiguous": "ambiguous", "bad_segmentation": "bad segmentation", "skip": "skipped"}


class Captions:
    """Says what a project knows of its objects, now.

    Parameters
    ----------
    project : Project
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def predicted(self, image: str, label: int) -> tuple[int, float]:
        """Return class id and probability; 0 and 0.0 where nothing is predicted."""
        table = self._project.probabilities(image)
        if label not in table.index:
            return 0, 0.0
        return int(table.at[label, "predicted"]), float(table.at[label, "probability"])

    def tile(self, image: str, label: int) -> CellCaption:
        """Return the frame and the words of a patch: the annotation, else the prediction."""
        annotation = self._project.annotations.label_of(image, label)
        if annotation.action == "label":
            info = self._project.classes.by_id(annotation.class_id)
            return CellCaption(info.color, is_annotated=True, name=info.name)
        if annotation.action in _SHORT:
            return CellCaption(is_annotated=True, name=_SHORT[annotation.action])
        class_id, probability = self.predicted(image, label)
        if not class_id:
            return CellCaption()
        info = self._project.classes.by_id(class_id)
        return CellCaption(info.color, name=info.name, share=f"{probability:.0%}")

    def sentence(self, image: str, label: int) -> str:
        """Return all that is known: the object, the annotation and the prediction."""
        words = [f"object {label} in {image}"]
        annotation, (class_id, probability) = (
            self._project.annotations.label_of(image, label),
            self.predicted(image, label),
        )
        if annotation.action:
            words.append(
                self._project.classes.by_id(annotation.class_id).name
                if annotation.class_id
                else _LONG[annotation.action]
            )
        if class_id:
            words.append(f"{self._project.classes.by_id(class_id).name}? {probability:.0%}")
        return " · ".join(words)


Objects = Sequence[tuple[str, int]]
SelectionId = tuple[str, int] | None

COLUMNS = (5, 6, 8, 10, 12, 15)
FIELDS_OF_VIEW = tuple(2 ** (step / 2) for step in range(-3, 7))  # of what holds a usual object


class PatchGrid(VBox):
    """Shows the patches of a page of objects; a click selects one, with Shift a range, with Ctrl one more.

    Parameters
    ----------
    album : Album
    size : tuple of int
        Height and width of the picture, in screen pixels.
    captions : Captions
        What is said of each object.

    Attributes
    ----------
    selection : Selection
        Which cells of the page are selected.
    objects : tuple of (str, int)
        What is on the page; set by `show`.
    sheet : Sheet or None
        What is on the screen.
    columns, field, depth, outlines
        How many patches stand side by side, how much each shows (1: a usual object), of a volume the "plane" or the
        "maximum", and whether objects are outlined.
    """

    selection = traitlets.Any(Selection())
    columns = traitlets.Enum(COLUMNS, 10)
    field = traitlets.Float(1.0)
    depth = traitlets.Enum(["plane", "maximum"], "plane")
    outlines = traitlets.Bool(True)

    def __init__(self, album: ThumbnailCache, size: tuple[int, int], captions: Captions) -> None:
        super().__init__(layout={"width": f"{size[1]}px", "flex": "0 0 auto"})
        self.add_class("sv-viewer")
        self.status = StatusLine(hides=True)
        self.objects: tuple[tuple[str, int], ...] = ()
        self.sheet: GridScene | None = None
        self.words = ""
        self._side = 1.0
        self._next: Objects = ()
        self._album, self._size, self._captions = album, size, captions
        self._number = 0
        self._hint: Hint | None = None
        self._still = False
        self._key_callbacks: list[Callable[[str, SelectionId], Any]] = []
        self._turn_callbacks: list[Callable[[int], Any]] = []
        self._throttle = Throttle(catch_errors(self._draw, self.status))
        self._rest = Debounce(self._repaint_still)
        self._loader = BackgroundLoader(self._throttle.request, catch_errors(self._say_unreadable, self.status))
        self._surface = GridCanvas(size, self._throttle.request)
        self._pointer = Pointer(self._surface.widget[-1].model_id)
        self.children = (Box([self._surface.widget]), self.status, self._pointer)
        leafing = GridInteraction(self)
        self._surface.listen(leafing)
        self._pointer.listen(leafing)
        self._pointer.observe(catch_errors(lambda _: self.redraw(), self.status), "dpr")
        self.observe(catch_errors(lambda _: self.redraw(), self.status), ["field", "depth", "outlines"])
        self.observe(catch_errors(self._select, self.status), "selection")

    @property
    def grid(self) -> GridLayout:
        return GridLayout(self._size, self.columns)

    @property
    def picked(self) -> SelectionId:
        """What keys are meant for: this state of page and selection, by a number that is never used again."""
        return ("selection", self._number) if self.selection.chosen else None

    @property
    def selected(self) -> list[tuple[str, int]]:
        """The selected objects, in their order on the page."""
        return [self.objects[cell] for cell in sorted(self.selection.chosen)]

    def show(self, objects: Objects, side: float, following: Objects = (), words: str = "") -> None:
        """Show a page, nothing of it selected.

        Parameters
        ----------
        objects : sequence of (str, int)
            At most as many as ``grid.count``.
        side : float
            What a patch shows at field 1, in pixels of the project's first image.
        following : sequence of (str, int)
            What the next page will show; read when nothing else is to be.
        words : str
            Shown in place of the patches, where there are none.
        """
        self.objects, self._side, self._next, self.words = tuple(objects), side, tuple(following), words
        self._hint = None
        self.status.say("")
        self._loader.retry_failed()
        self.select(Selection())
        self.redraw()

    def select(self, selection: Selection) -> None:
        """Select cells of the page."""
        self.selection = selection.within(len(self.objects))

    def select_all(self) -> None:
        """Select all patches of the page."""
        self.select(self.selection.of(range(len(self.objects))))

    def select_inverse(self) -> None:
        """Select the patches of the page that are not selected, and those that are no longer."""
        self.select(self.selection.inverted(len(self.objects)))

    def clear_selection(self) -> None:
        """Select nothing."""
        self.select(self.selection.of(()))

    def change_patch_size(self, by: int) -> None:
        """Show fewer and larger patches, or with -1 more and smaller ones."""
        at = COLUMNS.index(self.columns) - by
        self.columns = COLUMNS[min(max(at, 0), len(COLUMNS) - 1)]

    def change_field_of_view(self, by: int) -> None:
        """Show more around each object, or with -1 less."""
        nearest = min(range(len(FIELDS_OF_VIEW)), key=lambda i: abs(FIELDS_OF_VIEW[i] - self.field))
        self.field = FIELDS_OF_VIEW[min(max(nearest + by, 0), len(FIELDS_OF_VIEW) - 1)]

    def on_key(self, act: Callable[[str, SelectionId], Any]) -> None:
        """Call ``act(key, shown)`` for each key that does not move the selection; see `picked` for ``shown``."""
        self._key_callbacks.append(act)

    def on_page_turn(self, act: Callable[[int], Any]) -> None:
        """Call ``act(pages)`` when the wheel turns pages."""
        self._turn_callbacks.append(act)

    def focus(self) -> None:
        """Give the keyboard to the picture."""
        self._surface.widget.focus()

    def redraw(self) -> None:
        """Bring the screen up to date, as soon as it can follow."""
        self._throttle.request()

    def walk(self, down: int, right: int, extend: bool = False) -> None:
        """Select the patch beside the cursor, or with ``extend`` all from the anchor to it."""
        cursor = self.selection.cursor
        cell = cursor + down * self.columns + right if cursor >= 0 else 0
        if 0 <= cell < len(self.objects):
            self.select(self.selection.with_range(cell) if extend else self.selection.only(cell))

    def hover(self, row: float, column: float) -> None:
        """Say what the object under a point of the screen is."""
        cell = self.cell_at(row, column)
        hint = Hint(self._captions.sentence(*self.objects[cell]), (row, column)) if cell >= 0 else None
        if hint != self._hint:
            self._hint = hint
            self.redraw()

    def stop_hovering(self) -> None:
        """The pointer is on no patch."""
        if self._hint is not None:
            self._hint = None
            self.redraw()

    def cell_at(self, row: float, column: float) -> int:
        """Return the patch at a point of the screen, -1 for none."""
        cell = self.grid.cell_at(row, column)
        return cell if cell < len(self.objects) else -1

    def press(self, key: str, shown: SelectionId) -> None:
        """Pass a key on, with what was selected on the screen."""
        for act in self._key_callbacks:
            act(key, shown)

    def turn(self, pages: int) -> None:
        """Ask for another page."""
        for act in self._turn_callbacks:
            act(pages)

    def close(self) -> None:
        """Stop reading, and remove the page."""
        self._loader.close()
        super().close()

    def _select(self, change: Any) -> None:
        self._number += 1
        self.redraw()

    def _page(self, objects: Objects) -> Page:
        depth: DepthMode = self.depth
        pixels = round(self.grid.side * self._pointer.dpr)
        return self._album.page(list(objects), self._side * self.field, pixels, depth)

    def _draw(self) -> None:
        page, dpr = self._page(self.objects), self._pointer.dpr
        if None in (pictures := self._album.pictures(page)):
            if running_loop() is None:
                catch_errors(page.load, self.status)()
                pictures = self._album.pictures(page)
            else:
                self._loader.load_visible([page])
        elif self._next and running_loop() is not None:
            self._loader.load_ahead([self._page(self._next)])
        key = (page, self.grid, dpr, self.outlines, tuple(picture is None for picture in pictures))
        before = self.sheet
        if before is None or before.key != key:
            pixels, ink = draw_thumbnail_grid(pictures, self.grid, dpr, self.outlines)
        else:
            pixels, ink = before.pixels, before.ink
        self.sheet = GridScene(
            grid=self.grid,
            dpr=dpr,
            key=key,
            pixels=pixels,
            ink=ink,
            cell_captions=tuple(self._captions.tile(*object_id) for object_id in self.objects),
            chosen=self.selection.chosen,
            cursor=self.selection.cursor,
            hint=self._hint,
            message=self.words,
        )
        self._surface.paint(self.sheet, again=self._still)
        self._still = False
        self._surface.shown = self.picked
        self._pointer.tell(self.picked, self._surface.frame)
        if not self._surface.settled:
            self._rest.restart()

    def _repaint_still(self) -> None:
        self._still = True
        self._throttle.request()

    def _say_unreadable(self, error: Exception) -> None:
        raise error
