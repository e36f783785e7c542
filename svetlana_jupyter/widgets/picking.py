"""What is selected in a viewer: one object by a click, several by Shift, a box, a lasso, or all that are seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import traitlets

from svetlana_jupyter.core.region_selection import PlaneSelection, Point, objects_in_polygon, rectangle_corners

if TYPE_CHECKING:
    from svetlana_jupyter.core.scene import Scene
    from svetlana_jupyter.core.view import View
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.canvas import ImageCanvas
    from svetlana_jupyter.widgets.indexing import ObjectIndexer
    from svetlana_jupyter.widgets.shelf import Shelf

SelectionId = tuple[str, int] | None

_FINE = 2.0  # CSS pixels between two corners of a lasso


class ViewerSelection(traitlets.HasTraits):
    """The part of a viewer that selects.

    Attributes
    ----------
    selection : tuple of int
        The selected objects, ascending: what keys and buttons mean.
    selected : int
        The selected object where it is one; 0 for none and for several.
    tool : {"move", "box", "lasso"}
        What dragging does.
    adding : bool
        Whether a click, a box or a lasso adds to the selection, as it does with Shift.
    reach : {"plane", "range", "all"}
        Which planes of a volume a box or a lasso takes objects from: those seen on the plane shown, those whose
        centroid lies in a range of planes, or all.
    span : tuple of int
        The first and the last plane of that range.
    lasso : tuple of (y, x)
        The box or lasso that is being drawn, in points of the image.
    menu : tuple of float or None
        Row and column of the screen where the menu of the selection is open; a panel shows it.
    """

    selected = traitlets.Int(0)
    selection = traitlets.Tuple()
    tool = traitlets.Enum(["move", "box", "lasso"], "move")
    adding = traitlets.Bool(False)
    reach = traitlets.Enum(["plane", "range", "all"], "plane")
    span = traitlets.Tuple((0, 0))
    lasso = traitlets.Tuple()
    menu = traitlets.Tuple(default_value=None, allow_none=True)

    if TYPE_CHECKING:  # what the viewer has
        image: str
        plane: int
        project: Project
        scene: Scene | None
        view: View
        _open_images: Shelf
        _surface: ImageCanvas
        redraw: Callable[[], None]
        zoom: Callable[..., None]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._selections = 0
        self._pick_callbacks: list[Callable[[str, int], Any]] = []
        super().__init__(*arguments, **options)

    @property
    def indexing(self) -> ObjectIndexer:
        """Finds the objects of images, and does then what waited for them."""
        return self._open_images.indexing

    @property
    def picked(self) -> SelectionId:
        """What keys mean now, on the screen already or not; None for nothing.

        One object is ``(image, object)``; several are ``(image, -number)``, where the number counts selections, so
        that a key pressed for one selection is never taken for another.
        """
        if len(self.selection) > 1:
            return self.image, -self._selections
        return (self.image, self.selected) if self.selected else None

    def on_select(self, act: Callable[[str, int], Any]) -> None:
        """Call ``act(image, object)`` after one object or none was chosen; ``object`` is 0 on the background."""
        self._pick_callbacks.append(act)

    def select_at(self, row: float, column: float, extend: bool = False) -> None:
        """Select the object under a point of the screen; with ``extend``, add it to the selection or take it away."""
        if self.scene is None:
            return
        object = self.scene.object_at(row, column)
        if extend or self.adding:
            self._choose(set(self.selection) ^ {object} - {0})
        else:
            self._choose({object} - {0})

    def draw_box(self, corner: Point, row: float, column: float) -> None:
        """Draw a box from a point of the image to one of the screen; `finish_lasso` selects what is inside."""
        self._draw_lasso(rectangle_corners(corner, self.view.to_image(row, column)))

    def draw_lasso(self, row: float, column: float) -> None:
        """Lead the lasso on to a point of the screen; `finish_lasso` selects what is inside."""
        if self.lasso:
            before = self.view.to_screen(*self.lasso[-1])
            if max(abs(row - before[0]), abs(column - before[1])) < _FINE:
                return
        self._draw_lasso((*self.lasso, self.view.to_image(row, column)))

    def finish_lasso(self, extend: bool = False) -> None:
        """Select every object whose centroid is inside what was drawn."""
        corners = self.lasso
        self.cancel_lasso()
        if self.image and corners:
            self._choose_inside(corners, extend or self.adding)

    def cancel_lasso(self) -> None:
        """Draw no longer, and select nothing."""
        self._draw_lasso(())

    def select_visible(self) -> None:
        """Select every object whose centroid is on the screen."""
        if self.image:
            height, width = self.view.size
            self._choose_inside(
                rectangle_corners(self.view.to_image(0, 0), self.view.to_image(height, width)), extend=False
            )

    def clear_selection(self) -> None:
        """Select nothing."""
        self._choose(())

    def open_menu_at(self, row: float, column: float) -> None:
        """Open the menu at a point of the screen, for the object there; for several, if it is one of them."""
        object = self.scene.object_at(row, column) if self.scene is not None else 0
        if object and object not in self.selection:
            self._choose([object])
        if self.selection:
            self.menu = (row, column)

    def open_menu_for_selection(self) -> None:
        """Open the menu in the middle of what is selected."""
        if self.selection:
            self.menu = self._middle()

    def zoom_on_selection(self, factor: float) -> None:
        """Magnify about what is selected, where that is on the screen; else about the middle of the screen."""
        about = self._middle() if self.selection and self.project.is_indexed(self.image) else None
        seen = about is not None and all(0 <= at < end for at, end in zip(about, self.view.size))
        self.zoom(factor, about if seen else None)

    def close_menu(self) -> bool:
        """Close the menu; return whether it was open."""
        was_open, self.menu = self.menu is not None, None
        return was_open

    def _choose_inside(self, corners: tuple[Point, ...], extend: bool) -> None:
        """Select the objects inside a region; if they must be found first, unless others are selected meanwhile."""
        image, planes, before = self.image, self._planes(), self._selections

        def choose() -> None:
            if (self.image, self._selections) == (image, before):
                found = objects_in_polygon(self.project.objects(image), corners, planes).tolist()
                self._choose([*self.selection, *found] if extend else found)

        self.indexing.after([image], choose, "What you drew selects them then.")

    def _middle(self) -> Point:
        """Return the middle of what is selected, as row and column of the screen."""
        centers = self.project.objects(self.image).loc[list(self.selection), ["y", "x"]]
        y, x = (float(middle) + 0.5 for middle in centers.mean())
        return self.view.to_screen(y, x)

    def _planes(self) -> PlaneSelection:
        if self.reach == "range":
            return range(self.span[0], self.span[1] + 1)
        return self.plane if self.reach == "plane" else None

    def _choose(self, objects: Iterable[int]) -> None:
        self.selection = tuple(objects)
        self._surface.shown = self.picked
        if len(self.selection) < 2:
            for act in self._pick_callbacks:
                act(self.image, self.selected)

    def _draw_lasso(self, corners: tuple[Point, ...]) -> None:
        self.lasso = corners
        self.redraw()

    @traitlets.validate("selection")
    def _each_once(self, proposal: dict[str, Any]) -> tuple[int, ...]:
        return tuple(sorted({int(object) for object in proposal["value"]}))

    @traitlets.observe("selection")
    def _follow_selection(self, change: dict[str, Any]) -> None:
        self._selections += 1
        self.menu = None
        self.selected = self.selection[0] if len(self.selection) == 1 else 0

    @traitlets.observe("selected")
    def _follow_selected(self, change: dict[str, Any]) -> None:
        if self.selected:
            self.selection = (self.selected,)
        elif len(self.selection) == 1:
            self.selection = ()
