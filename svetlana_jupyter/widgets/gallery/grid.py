"""Grid of thumbnails: canvas, mouse and keyboard input, and captions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import traitlets
from ipywidgets import VBox

from svetlana_jupyter.core.display import encode
from svetlana_jupyter.core.display.overlay import uncertainty_color
from svetlana_jupyter.core.display.scene import BRIGHT_INK, DARK_INK, Hint
from svetlana_jupyter.core.display.selection import Selection
from svetlana_jupyter.core.display.thumbnails import CellCaption, DepthMode, GridLayout, GridScene, draw_thumbnail_grid
from svetlana_jupyter.widgets.components import FLAG_TEXTS, StatusLine
from svetlana_jupyter.widgets.gallery.thumbnail_loader import ThumbnailCache
from svetlana_jupyter.widgets.panel import Watcher, catch_errors
from svetlana_jupyter.widgets.scheduling import KeyPause, running_loop
from svetlana_jupyter.widgets.viewer.canvas import LEFT, MODIFIERS, LayeredCanvas
from svetlana_jupyter.widgets.viewer.interaction import Screen
from svetlana_jupyter.widgets.viewer.open_images import predicted_class
from svetlana_jupyter.widgets.viewer.viewer_model import shared_model

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.gallery.thumbnail_loader import GalleryPage
    from svetlana_jupyter.widgets.viewer.viewer_model import SelectionId

Objects = Sequence[tuple[str, int]]

COLUMNS = (5, 6, 8, 10, 12, 15)
FIELDS_OF_VIEW = tuple(2 ** (step / 2) for step in range(-3, 7))  # relative to the default crop
PICTURES, MARKS = range(2)
_PNG_LIMIT = 1 << 19  # pixels; below this, a PNG is encoded quickly
_QUALITY = 92
_FONT, _BOLD = "11px system-ui, sans-serif", "600 11px system-ui, sans-serif"
_LETTER = 6.6  # CSS pixels, average width of a letter in these fonts
_NARROWED = 0.78  # a name is condensed to this fraction of its width before it is cut
_CAPTION_GAP = 4  # CSS pixels between name and probability
_NAMED_SIDE = 58  # CSS pixels of a thumbnail with a gap, at ten columns
_MIN_LINE = 12  # CSS pixels; a lower line has no room for text
_MIN_LETTERS = 3  # a name cut to fewer letters would tell no more than the color does
_ANNOTATED_WIDTH, _PREDICTED_WIDTH = 4, 2  # CSS pixels of a frame
_CONFLICT_SIDE = 12  # CSS pixels of the mark of an object whose label and prediction differ
_SELECTED = {DARK_INK: "#0d47a1", BRIGHT_INK: "#ffffff"}
_WHEEL_STEP = 100.0  # one notch of the wheel of most mice
_ARROWS = {"ArrowUp": (-1, 0), "ArrowDown": (1, 0), "ArrowLeft": (0, -1), "ArrowRight": (0, 1)}
_EMPTY = "rgba(128, 128, 128, 0.2)"  # visible on a bright and on a dark page
_FLAG_CAPTION = {"ambiguous": "ambiguous", "bad_segmentation": "bad segm."}


class PatchGrid(VBox):
    """Grid of the thumbnails of one page; all views of a project share the selection.

    A click selects an object, Shift+click selects a range, and Ctrl+click adds or removes an object.

    Parameters
    ----------
    project : Project
    size : tuple of int
        Height and initial width of the grid, in CSS pixels.
    max_width : int
        The grid is as wide as the page allows, but no wider than this.
    line : int
        Height of the text below a thumbnail, in CSS pixels; without text, frames alone show the classes.

    Attributes
    ----------
    shared : SharedModel
    size : tuple of int
        Current height and width.
    selection : Selection
        Selected cells of the page.
    objects : tuple of (str, int)
        Objects of the page; set by `show`.
    scene : GridScene or None
        Contents of the last frame.
    columns : int
        Thumbnails per row at the initial width; a wider grid has more of them.
    field_of_view : float
        Extent of each thumbnail, relative to the default extent.
    depth : {"plane", "maximum"}
        What is displayed of a volume: the middle plane of each object, or the maximum over its planes.
    outlines : bool
    overlay : {"predictions", "uncertainty", "annotations", "off"}
        What the frames and captions show, as in the viewer.
    hovered : tuple of float or None
        Row and column of the pointer, if it is over an object.
    is_shown : bool
        Whether the grid is on the page; a hidden one draws nothing.
    turn_page : callable
        Called with the number of pages to turn, 1 or -1; set by the panel.
    caption_of : callable
        Returns the `CellCaption` of an object ``(image, label)``.
    screen : Screen
        Canvas with its input events and draw schedule.
    status : StatusLine
    """

    size = traitlets.Tuple()
    selection = traitlets.Any(Selection())
    columns = traitlets.Enum(COLUMNS, 10)
    field_of_view = traitlets.Enum(FIELDS_OF_VIEW, 1.0)
    depth = traitlets.Enum(["plane", "maximum"], "plane")
    outlines = traitlets.Bool(True)
    overlay = traitlets.Enum(["annotations", "predictions", "uncertainty", "off"], "predictions")
    hovered = traitlets.Instance(tuple, allow_none=True)

    def __init__(self, project: Project, size: tuple[int, int], max_width: int, line: int = 15) -> None:
        super().__init__(layout={"width": "100%", "max_width": f"{max_width}px"})
        self.add_class("sv-viewer")
        self.status = StatusLine(hides=True)
        self.objects: tuple[tuple[str, int], ...] = ()
        self.scene: GridScene | None = None
        self.message = ""
        self.is_shown = True
        self._side = 1.0
        self._next_objects: Objects = ()
        self._project, self._thumbnail_cache = project, ThumbnailCache(project)
        self.size, self._initial_width, self._max_width, self._line = size, size[1], max_width, line
        self._selection_count = 0
        self.shared, self._following = shared_model(project), False
        self.caption_of: Callable[[str, int], CellCaption] = self._caption
        self.turn_page: Callable[[int], object] = lambda pages: None
        self.screen = Screen(GridCanvas(size), self._draw, self._raise_unreadable, self.status)
        self.screen.pointer.name = "Thumbnails of objects"
        self.children = (self.screen.stage, self.status, self.screen.pointer)
        self.screen.add_listener(GridInteraction(self))
        self._watcher = Watcher(self.status)
        observe = self._watcher.observe
        observe(self.screen.pointer, self.screen.redraw, "dpr", "dark")
        observe(self.screen.pointer, self._change_size, "width", "height")
        observe(self, self.screen.redraw, "size", "columns", "field_of_view", "depth", "outlines", "overlay")
        observe(self, self.screen.redraw, "hovered")
        observe(self, self._publish_selection, "selection")
        # Later than the picture of the view in which a key was pressed: see `KeyPause`.
        observe(self.shared, KeyPause(catch_errors(self._adopt_selection, self.status)).restart, "selection")

    @property
    def grid(self) -> GridLayout:
        """Arrangement of the cells."""
        columns = math.ceil(self.columns * self.size[1] / self._initial_width)
        if self._line >= _MIN_LINE:  # with room for a name below each thumbnail, but for users who want them smaller
            columns = min(columns, max(3, self.size[1] * self.columns // (10 * _NAMED_SIDE)))
        return GridLayout(self.size, columns, line=self._line)

    @property
    def selection_id(self) -> SelectionId:
        """Identifier of the selection; None if nothing is selected.

        It contains a number that is never used again, so that a key never applies to a later selection.
        """
        return ("selection", self._selection_count) if self.selection.chosen else None

    @property
    def selected(self) -> list[tuple[str, int]]:
        """Selected objects, in their order on the page."""
        return [self.objects[cell] for cell in sorted(self.selection.chosen)]

    def show(self, objects: Objects, side: float, following: Objects = (), message: str = "") -> None:
        """Show a page; objects of other pages stay selected.

        Parameters
        ----------
        objects : sequence of (str, int)
            At most ``grid.count``.
        side : float
            Side of a thumbnail at field of view 1, in pixels of the project's first image.
        following : sequence of (str, int)
            Objects of the next page, whose thumbnails are read when nothing else is to be read.
        message : str
            Displayed if there are no objects.
        """
        self.objects, self._side = tuple(objects), side
        self._next_objects, self.message = tuple(following), message
        self.hovered = None
        self.status.say("")
        self.screen.loader.retry_failed()
        self._adopt_selection(Selection())
        self.screen.redraw()

    def select(self, selection: Selection) -> None:
        """Select cells of the page."""
        self.selection = selection.within(len(self.objects))

    @property
    def is_current(self) -> bool:
        """Whether what is selected here is still selected in all views."""
        return set(self.selected) <= set(self.shared.selection)

    def select_all(self) -> None:
        """Select all cells of the page."""
        self.select(self.selection.of(range(len(self.objects))))

    def select_inverse(self) -> None:
        """Invert the selection."""
        self.select(self.selection.inverted(len(self.objects)))

    def clear_selection(self) -> None:
        """Clear the selection."""
        self.select(self.selection.of(()))

    def change_patch_size(self, by: int) -> None:
        """Show fewer and larger thumbnails; if ``by`` is negative, more and smaller ones."""
        self.columns = _step(COLUMNS, self.columns, -by)

    def change_field_of_view(self, by: int) -> None:
        """Show more of the surroundings of each object; if ``by`` is negative, less."""
        self.field_of_view = _step(FIELDS_OF_VIEW, self.field_of_view, by)

    def move_cursor(self, down: int, right: int, extend: bool = False) -> bool:
        """Select the cell next to the cursor; with ``extend``, the range up to this cell.

        Return whether there is such a cell.
        """
        cursor = self.selection.cursor
        cell = cursor + down * self.grid.columns + right if cursor >= 0 else 0
        if 0 <= cell < len(self.objects):
            self.select(self.selection.with_range(cell) if extend else self.selection.only(cell))
        return 0 <= cell < len(self.objects)

    def hover(self, row: float, column: float) -> None:
        """Describe the object at a point of the screen."""
        self.hovered = (row, column) if self.cell_at(row, column) >= 0 else None

    def cell_at(self, row: float, column: float) -> int:
        """Return the cell at a point of the screen, or -1."""
        cell = self.grid.cell_at(row, column)
        return cell if cell < len(self.objects) else -1

    def close(self) -> None:
        """Stop loading images in the background and remove the grid."""
        self._watcher.close()
        self.screen.loader.close()
        super().close()

    def _change_size(self) -> None:
        pointer = self.screen.pointer
        width = min(pointer.width, self._max_width)
        self.screen.canvas.set_width(width)
        self.size = (self.size[0], width)
        if pointer.height:
            self.size = (max(pointer.height, self.grid.pitch[0] + self.grid.gap), width)

    def _publish_selection(self) -> None:
        self._selection_count += 1
        self.screen.redraw()
        if not self._following:
            self.shared.selection = tuple(self.selected)

    def _adopt_selection(self, before: Selection | None = None) -> None:
        """Select the objects of this page that are selected in any view."""
        wanted, before = set(self.shared.selection), self.selection if before is None else before
        cells = [cell for cell, object_id in enumerate(self.objects) if object_id in wanted]
        if frozenset(cells) == self.selection.chosen and before is self.selection:
            return
        self._following = True
        try:
            self.select(before.only(cells[0]) if len(cells) == 1 else before.of(cells))
        finally:
            self._following = False

    def _page(self, objects: Objects) -> GalleryPage:
        depth = cast("DepthMode", self.depth)
        pixels = round(self.grid.side * self.screen.pointer.dpr)
        return self._thumbnail_cache.page(list(objects), self._side * self.field_of_view, pixels, depth)

    def _draw(self) -> None:
        if not self.is_shown:
            return
        page, in_loop = self._page(self.objects), running_loop() is not None
        pictures = self._thumbnail_cache.cached_thumbnails(page)
        if None in pictures and not in_loop:
            catch_errors(page.load, self.status)()
            pictures = self._thumbnail_cache.cached_thumbnails(page)
        grid, dpr = self.grid, self.screen.pointer.dpr
        key = (page, grid, dpr, self.outlines, tuple(picture is None for picture in pictures))
        if self.scene is None or self.scene.key != key:
            pixels, boxes = draw_thumbnail_grid(pictures, grid, dpr, self.outlines)
        else:
            pixels, boxes = self.scene.pixels, self.scene.boxes
        ink = BRIGHT_INK if self.screen.pointer.dark else DARK_INK
        captions = tuple(self.caption_of(*object_id) for object_id in self.objects)
        chosen, cursor = self.selection.chosen, self.selection.cursor
        # Described now, because a key may have labeled the object under the pointer.
        row, column = self.hovered or (-1.0, -1.0)
        under = self.cell_at(row, column) if self.hovered else -1
        hint = Hint(describe_object(self._project, *self.objects[under]), (row, column)) if under >= 0 else None
        self.scene = GridScene(grid, dpr, key, pixels, boxes, ink, captions, chosen, cursor, hint, self.message)
        absent = [part for part in page.by_image() if None in self._thumbnail_cache.cached_thumbnails(part)]
        self.screen.paint(self.scene, self.selection_id, absent if in_loop else ())
        if None not in pictures and self._next_objects and in_loop:
            self.screen.loader.load_ahead([self._page(self._next_objects)])

    def _caption(self, image: str, label: int) -> CellCaption:
        return object_caption(self._project, image, label, self.overlay)

    def _raise_unreadable(self, error: Exception) -> None:
        raise error


class GridInteraction:
    """Translation of input events (`canvas.InputListener`) into changes of the grid."""

    def __init__(self, grid: PatchGrid) -> None:
        self._grid = grid
        self._dragging = False
        self._wheel = 0.0

    def pressed(self, row: float, column: float, button: int = LEFT, modifiers: str = "") -> None:
        """Select a cell; with Shift, select a range; with Ctrl, add or remove the cell."""
        cell, selection = self._grid.cell_at(row, column), self._grid.selection
        if button != LEFT or cell < 0:
            return
        self._dragging = True
        if "Shift" in modifiers:
            self._grid.select(selection.with_range(cell, keep="Ctrl" in modifiers))
        else:
            self._grid.select(selection.with_toggled(cell) if modifiers == "Ctrl" else selection.only(cell))

    def moved(self, row: float, column: float) -> None:
        """Extend the selection while dragging, and describe the object under the pointer."""
        cell, selection = self._grid.cell_at(row, column), self._grid.selection
        if self._dragging and cell >= 0 and cell != selection.cursor:
            self._grid.select(selection.with_range(cell))
        self._grid.hover(row, column)

    def released(self, row: float, column: float) -> None:
        """End a drag."""
        self._dragging = False
        self._grid.screen.redraw()  # the browser waits for a frame that accounts for this click

    def selection_id(self) -> SelectionId:
        """Return the current selection."""
        return self._grid.selection_id

    def pointer_left(self) -> None:
        """End a drag that leaves the canvas."""
        self._dragging = False
        self._grid.hovered = None

    def wheeled(self, delta: float, at: tuple[float, float] | None = None) -> None:
        """Show the next or the previous page."""
        self._wheel = self._wheel + delta if self._wheel * delta >= 0 else delta
        if abs(self._wheel) >= _WHEEL_STEP:  # a single page, however fast the wheel is turned
            self._grid.turn_page(1 if self._wheel > 0 else -1)
            self._wheel = 0.0

    def key_pressed(self, key: str, shown: SelectionId) -> None:
        """Move the cursor, or pass the key to ``handle_key``."""
        name = key.removeprefix("Shift+")
        if name in _ARROWS:
            moved = self._grid.move_cursor(*_ARROWS[name], extend=name != key)
            self._grid.screen.report("" if moved else "There is no object further this way on the page.")
        elif key not in MODIFIERS:
            self._grid.screen.handle_key(key, shown)


class GridCanvas(LayeredCanvas):
    """Canvas of the grid: thumbnails below; frames, captions and selection above.

    Parameters
    ----------
    size : tuple of int
        Initial height and width in CSS pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size, layers=2)

    def _extent(self, scene: GridScene) -> tuple[tuple[int, int], float]:
        return (scene.pixels.shape[0], scene.pixels.shape[1]), scene.dpr

    def _draw(self, scene: GridScene, before: GridScene | None, lossless: bool) -> None:
        if before is None or before.key != scene.key:
            small = scene.pixels[..., 0].size <= _PNG_LIMIT
            encoded = encode.png(scene.pixels) if small else encode.jpeg(scene.pixels, _QUALITY)
            self._draw_pictures(scene, encoded)
        _draw_marks(self.widget[MARKS], scene)

    def _draw_pictures(self, scene: GridScene, encoded: bytes) -> None:
        """Draw the thumbnails; elsewhere the background of the page is visible."""
        layer = self.widget[PICTURES]
        layer.clear()
        layer.fill_style = "#000000"
        tops, lefts, heights, widths = scene.boxes.T.tolist()
        layer.fill_rects(lefts, tops, widths, heights)
        layer.global_composite_operation = "source-atop"  # only where something is drawn already
        self._put(layer, encoded, 0, 0)
        layer.global_composite_operation = "destination-over"  # behind the thumbnails, and in place of missing ones
        layer.fill_style = _EMPTY
        corners = [scene.grid.corner(cell) for cell in range(len(scene.cell_captions))]
        tops, lefts = ([round(corner[axis] * scene.dpr) for corner in corners] for axis in (0, 1))
        layer.fill_rects(lefts, tops, round(scene.grid.side * scene.dpr))
        layer.global_composite_operation = "source-over"


def object_caption(project: Project, image: str, label: int, overlay: str = "predictions") -> CellCaption:
    """Return frame and caption of a cell, from its annotation or else its prediction.

    Parameters
    ----------
    project : Project
    image : str
    label : int
    overlay : {"predictions", "uncertainty", "annotations", "off"}
        Annotations have the colors of their classes with each of them but "off".
    """
    if overlay == "off":
        return CellCaption()
    annotation, classes = project.annotations.label_of(image, label), project.classes
    shows_predictions = overlay in ("predictions", "uncertainty")
    class_id, probability = predicted_class(project, image, label) if shows_predictions else (0, 0.0)
    if annotation.class_id:
        info = classes.by_id(annotation.class_id)
        other = classes.by_id(class_id).color if class_id not in (0, annotation.class_id) else ""
        return CellCaption(info.color, is_annotated=True, name=info.name, other=other)
    if annotation.action in _FLAG_CAPTION:
        return CellCaption(is_annotated=True, name=_FLAG_CAPTION[annotation.action])
    if not class_id:
        return CellCaption()
    info = classes.by_id(class_id)
    color = info.color if overlay == "predictions" else uncertainty_color(probability, len(classes))
    return CellCaption(color, name=info.name, share=f"{probability:.0%}")


def describe_object(project: Project, image: str, label: int) -> str:
    """Return the object, its annotation and its prediction in one line."""
    annotation, classes = project.annotations.label_of(image, label), project.classes
    class_id, probability = predicted_class(project, image, label)
    annotated = classes.by_id(annotation.class_id).name if annotation.class_id else ""
    predicted = f"{classes.by_id(class_id).name}? {probability:.0%}" if class_id else ""
    texts = f"object {label} in {image}", annotated or FLAG_TEXTS.get(annotation.action), predicted
    return " · ".join(filter(None, texts))


def _step(options: tuple[Any, ...], current: Any, by: int) -> Any:
    """Return the option ``by`` places further, but not beyond the first or last one."""
    return options[min(max(options.index(current) + by, 0), len(options) - 1)]


def _draw_marks(layer: Any, scene: GridScene) -> None:
    """Draw frames, captions and selection, in CSS pixels."""
    grid = scene.grid
    layer.reset_transform()
    layer.clear()
    layer.scale(scene.dpr)
    layer.text_baseline = "alphabetic"
    for cell, tile in enumerate(scene.cell_captions):
        top, left = grid.corner(cell)
        _draw_frame(layer, tile, left, top, grid.side, scene.ink)
        if grid.line >= _MIN_LINE:
            _draw_caption(layer, tile, left, top + grid.side + grid.line - 4, grid.side, scene.ink)
    layer.stroke_style = layer.fill_style = _SELECTED[scene.ink]
    layer.line_width = 3
    for cell in scene.chosen:
        top, left = grid.corner(cell)
        layer.stroke_rect(left - 3, top - 3, grid.side + 6, grid.side + grid.line + 4)
        _draw_check_mark(layer, left + grid.side - 8, top + 8, scene.ink)
    if scene.cursor >= 0 and scene.cursor not in scene.chosen:
        top, left = grid.corner(scene.cursor)
        layer.line_width = 1
        layer.stroke_rect(left - 3.5, top - 3.5, grid.side + 7, grid.side + grid.line + 5)
    if scene.message:
        layer.font, layer.fill_style, layer.text_align = "14px system-ui, sans-serif", scene.ink, "center"
        layer.fill_text(scene.message, grid.size[1] / 2, grid.size[0] / 2)
    if scene.hint is not None:
        _draw_hint(layer, scene.hint, grid)


def _draw_frame(layer: Any, tile: CellCaption, left: float, top: float, side: float, ink: str) -> None:
    width = _ANNOTATED_WIDTH if tile.is_annotated else _PREDICTED_WIDTH
    if tile.color or tile.is_dashed:
        layer.stroke_style, layer.line_width = tile.color or ink, width
        layer.set_line_dash([5, 4] if tile.is_dashed else [])
        layer.stroke_rect(left + width / 2, top + width / 2, side - width, side - width)
        layer.set_line_dash([])
    if tile.other:
        _draw_conflict(layer, tile, left, top + side)


def _draw_conflict(layer: Any, tile: CellCaption, left: float, bottom: float) -> None:
    """Draw the square in two colors with which the image marks a conflict."""
    x, y = left + _ANNOTATED_WIDTH + 2, bottom - _ANNOTATED_WIDTH - 2 - _CONFLICT_SIDE
    layer.fill_style = "#ffffff"
    layer.fill_rect(x - 1.5, y - 1.5, _CONFLICT_SIDE + 3, _CONFLICT_SIDE + 3)
    for part, color in enumerate((tile.color, tile.other)):
        layer.fill_style = color
        layer.fill_rect(x + part * _CONFLICT_SIDE / 2, y, _CONFLICT_SIDE / 2, _CONFLICT_SIDE)


def _draw_caption(layer: Any, tile: CellCaption, left: float, baseline: float, side: float, ink: str) -> None:
    layer.fill_style = ink
    share_width = _LETTER * len(tile.share)
    if tile.share:
        layer.font, layer.text_align = _FONT, "right"
        layer.fill_text(tile.share, left + side, baseline, share_width)
    if tile.name:
        layer.font, layer.text_align = _BOLD if tile.is_annotated else _FONT, "left"
        width = side - (share_width + _CAPTION_GAP if tile.share else 0)
        letters = int(width / (_LETTER * _NARROWED))
        name = tile.name if len(tile.name) <= letters else f"{tile.name[: max(1, letters - 1)]}…"
        if letters >= _MIN_LETTERS or name == tile.name:
            layer.fill_text(name, left, baseline, width)  # the browser condenses text wider than this


def _draw_check_mark(layer: Any, x: float, y: float, ink: str) -> None:
    """Draw a check mark in a disc, so that a selection is visible without color."""
    layer.fill_circle(x, y, 7)
    layer.stroke_style, layer.line_width = BRIGHT_INK if ink == DARK_INK else DARK_INK, 2
    layer.stroke_lines([(x - 3, y), (x - 1, y + 3), (x + 4, y - 3)])
    layer.stroke_style, layer.line_width = _SELECTED[ink], 3


def _draw_hint(layer: Any, hint: Hint, grid: GridLayout) -> None:
    """Write the hover text next to the pointer, on a dark background."""
    row, column = hint.at
    width = _LETTER * len(hint.text) + 14
    x = min(max(column + 14, 2), grid.size[1] - width - 2)
    y = row - 12 if row > 34 else row + 32
    layer.font, layer.text_align = _FONT, "left"
    layer.fill_style = "rgba(20, 20, 20, 0.88)"
    layer.fill_rect(x, y - 15, width, 21)
    layer.fill_style = BRIGHT_INK
    layer.fill_text(hint.text, x + 7, y, width - 14)
