"""A page of patches on the screen: what the mouse and the keys select there, and what is said of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import traitlets
from ipywidgets import Box, VBox

from svetlana_jupyter.core.contact import GridLayout, Sheet, draw_thumbnail_grid
from svetlana_jupyter.core.gallery import Selection
from svetlana_jupyter.core.scene import Hint
from svetlana_jupyter.core.thumbnails import DepthMode
from svetlana_jupyter.widgets.album import Page, ThumbnailCache
from svetlana_jupyter.widgets.captions import Captions
from svetlana_jupyter.widgets.leafing import GridInteraction
from svetlana_jupyter.widgets.loading import BackgroundLoader
from svetlana_jupyter.widgets.pace import Debounce, Pace, running_loop
from svetlana_jupyter.widgets.panel import guarded
from svetlana_jupyter.widgets.parts import StatusLine
from svetlana_jupyter.widgets.pointer import Pointer
from svetlana_jupyter.widgets.sheet import GridCanvas

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
        self.sheet: Sheet | None = None
        self.words = ""
        self._side = 1.0
        self._next: Objects = ()
        self._album, self._size, self._captions = album, size, captions
        self._number = 0
        self._hint: Hint | None = None
        self._still = False
        self._key_callbacks: list[Callable[[str, SelectionId], Any]] = []
        self._turn_callbacks: list[Callable[[int], Any]] = []
        self._pace = Pace(guarded(self._draw, self.status))
        self._rest = Debounce(self._repaint_still)
        self._loader = BackgroundLoader(self._pace.request, guarded(self._say_unreadable, self.status))
        self._surface = GridCanvas(size, self._pace.request)
        self._pointer = Pointer(self._surface.widget[-1].model_id)
        self.children = (Box([self._surface.widget]), self.status, self._pointer)
        leafing = GridInteraction(self)
        self._surface.listen(leafing)
        self._pointer.listen(leafing)
        self._pointer.observe(guarded(lambda _: self.redraw(), self.status), "dpr")
        self.observe(guarded(lambda _: self.redraw(), self.status), ["field", "depth", "outlines"])
        self.observe(guarded(self._select, self.status), "selection")

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
        self._pace.request()

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
                guarded(page.load, self.status)()
                pictures = self._album.pictures(page)
            else:
                self._loader.load_visible([page])
        elif self._next and running_loop() is not None:
            self._loader.expect([self._page(self._next)])
        key = (page, self.grid, dpr, self.outlines, tuple(picture is None for picture in pictures))
        before = self.sheet
        if before is None or before.key != key:
            pixels, ink = draw_thumbnail_grid(pictures, self.grid, dpr, self.outlines)
        else:
            pixels, ink = before.pixels, before.ink
        self.sheet = Sheet(
            grid=self.grid,
            dpr=dpr,
            key=key,
            pixels=pixels,
            ink=ink,
            tiles=tuple(self._captions.tile(*object) for object in self.objects),
            chosen=self.selection.chosen,
            cursor=self.selection.cursor,
            hint=self._hint,
            words=self.words,
        )
        self._surface.paint(self.sheet, again=self._still)
        self._still = False
        self._surface.shown = self.picked
        self._pointer.tell(self.picked, self._surface.frame)
        if not self._surface.settled:
            self._rest.restart()

    def _repaint_still(self) -> None:
        self._still = True
        self._pace.request()

    def _say_unreadable(self, error: Exception) -> None:
        raise error
