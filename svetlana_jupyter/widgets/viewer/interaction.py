"""What is selected in a viewer: one object by a click, several by Shift, a box, a lasso, or all that are seen.

What the mouse and the keys do over the viewer's picture: move the view, select objects, or pass a key on.

The buttons that select: box, lasso, adding, all that is seen, none, the menu; and which planes are meant.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import traitlets
from ipywidgets import Button, Dropdown, HBox, IntRangeSlider, ToggleButton
from traitlets import link

from svetlana_jupyter.core.display.selection import PlaneSelection, Point, objects_in_polygon, rectangle_corners
from svetlana_jupyter.widgets.panel import catch_errors

if TYPE_CHECKING:
    from svetlana_jupyter.core.display.scene import Scene
    from svetlana_jupyter.core.display.viewport import Viewport
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.object_indexing import ObjectIndexer
    from svetlana_jupyter.widgets.viewer.canvas import ImageCanvas
    from svetlana_jupyter.widgets.viewer.viewer import Shelf, Viewer

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
        view: Viewport
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
        label = self.scene.object_at(row, column)
        if extend or self.adding:
            self._choose(set(self.selection) ^ {label} - {0})
        else:
            self._choose({label} - {0})

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
        label = self.scene.object_at(row, column) if self.scene is not None else 0
        if label and label not in self.selection:
            self._choose([label])
        if self.selection:
            self.menu = (row, column)

    def open_menu_for_selection(self) -> None:
        """Open the menu in the middle of what is selected."""
        if self.selection:
            self.menu = self._middle()

    def zoom_on_selection(self, factor: float) -> None:
        """Magnify about what is selected, where that is on the screen; else about the middle of the screen."""
        about = self._middle() if self.selection and self.project.images.is_indexed(self.image) else None
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
        return tuple(sorted({int(label) for label in proposal["value"]}))

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


_LEFT, _MIDDLE, _RIGHT = 0, 1, 2
_STILL = 4.0  # CSS pixels the hand may tremble during a click
_WHEEL_TO_DOUBLE = 300.0
_STEP = 0.125  # of the screen, for an arrow key
_ARROWS = {"ArrowUp": (1, 0), "ArrowDown": (-1, 0), "ArrowLeft": (0, 1), "ArrowRight": (0, -1)}
_PLANES = {"[": -1, "]": 1, "PageUp": -1, "PageDown": 1}
_ZOOMS = {"+": 1.5, "=": 1.5, "-": 1 / 1.5}
_TOOLS = {"x": "box", "l": "lasso"}
_MENU = {"ContextMenu", "Shift+F10"}
_MODIFIERS = {"Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock"}


def _safe(method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)
    def call(self: ViewerInteraction, *args: Any) -> None:
        catch_errors(method, self._viewer.status)(self, *args)

    return call


@dataclass(frozen=True)
class _Press:
    """Where a button went down, with which view, and what dragging does from there."""

    row: float
    column: float
    button: int
    view: Viewport
    extend: bool
    tool: str


class ViewerInteraction:
    """A `canvas.InputListener` that turns events into calls of the viewer."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._pointer: tuple[float, float] | None = None
        self._press: _Press | None = None
        self._dragged = False

    @_safe
    def pressed(self, row: float, column: float, button: int = _LEFT, held: str = "") -> None:
        viewer = self._viewer
        viewer.close_menu()
        if button in (_LEFT, _MIDDLE):
            extend = "Shift" in held
            # With Shift a drag selects in any case: a box adds what is inside.
            tool = "move" if button == _MIDDLE else "box" if extend and viewer.tool == "move" else viewer.tool
            self._press = _Press(row, column, button, viewer.view, extend, tool)
            self._dragged = False
        elif button == _RIGHT:
            viewer.open_menu_at(row, column)

    @_safe
    def moved(self, row: float, column: float) -> None:
        self._pointer = (row, column)
        if self._press is None:
            self._viewer.hover(row, column)
            return
        press = self._press
        down, right = row - press.row, column - press.column
        if not self._dragged and math.hypot(down, right) <= _STILL:
            return
        if not self._dragged:
            self._dragged = True
            self._viewer.stop_hovering()
            if press.tool == "lasso":
                self._viewer.draw_lasso(press.row, press.column)
        if press.tool == "lasso":
            self._viewer.draw_lasso(row, column)
        elif press.tool == "box":
            self._viewer.draw_box(press.view.to_image(press.row, press.column), row, column)
        else:
            self._viewer.look(press.view.panned(down, right), moving=True)

    @_safe
    def released(self, row: float, column: float) -> None:
        press, self._press = self._press, None
        if press is not None and self._dragged and press.tool != "move":
            self._viewer.finish_lasso(press.extend)
        elif press is not None and press.button == _LEFT and not self._dragged:
            self._viewer.select_at(row, column, press.extend)
        self._viewer.redraw()  # the page waits for a frame that knows of this click

    def picked(self) -> tuple[str, int] | None:
        return self._viewer.picked

    @_safe
    def left(self) -> None:
        press, self._press, self._pointer = self._press, None, None
        if press is not None and self._dragged and press.tool != "move":
            self._viewer.finish_lasso(press.extend)  # the canvas alone does not tell where the button goes up
        self._viewer.stop_hovering()

    @_safe
    def wheeled(self, delta: float, at: tuple[float, float] | None = None) -> None:
        self._viewer.close_menu()
        self._viewer.zoom(2 ** (-delta / _WHEEL_TO_DOUBLE), at or self._pointer)

    @_safe
    def key_pressed(self, key: str, shown: tuple[str, int] | None) -> None:
        viewer = self._viewer
        if viewer.close_menu() and key == "Escape":
            return
        if key in _ARROWS:
            height, width = viewer.view.size
            down, right = _ARROWS[key]
            viewer.look(viewer.view.panned(down * height * _STEP, right * width * _STEP))
        elif key in _PLANES:
            viewer.step_plane(_PLANES[key])
        elif key in _ZOOMS:
            viewer.zoom_on_selection(_ZOOMS[key])
        elif key == "f":
            viewer.fit()
        elif key in _TOOLS:
            viewer.tool = "move" if viewer.tool == _TOOLS[key] else _TOOLS[key]
        elif key == "Ctrl+a":
            viewer.select_visible()
        elif key in _MENU:
            viewer.open_menu_for_selection()
        elif key == "Escape":
            self._give_up(key, shown)
        elif key not in _MODIFIERS:
            viewer.press(key, shown)

    def _give_up(self, key: str, shown: tuple[str, int] | None) -> None:
        """Leave what is under way: the lasso being drawn, else the selection, else the tool."""
        viewer = self._viewer
        if self._press is not None:
            self._press = None
            viewer.cancel_lasso()
        elif viewer.selection:
            viewer.clear_selection()
        elif viewer.tool != "move":
            viewer.tool = "move"
        else:
            viewer.press(key, shown)


ICON_LAYOUT = {"width": "28px", "padding": "0", "margin": "0 2px 0 0"}
_REACHES = (("on this plane", "plane"), ("on the planes", "range"), ("on all planes", "all"))


class SelectionTools(HBox):
    """What the mouse and the keys select with, as buttons.

    Parameters
    ----------
    viewer : Viewer

    Attributes
    ----------
    planes : HBox
        Which planes a box or a lasso takes objects from; shown for a volume while one of them is in use.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.box = self._toggle("object-group", "Box: drag round objects to select them (x)")
        self.lasso = self._toggle("pencil", "Lasso: drag a line round objects to select them (l)")
        self.adding = self._toggle("plus", "Add to the selection, or take one away (Shift)")
        self.seen = icon_button(viewer, "th-large", "Select all objects on the screen (Ctrl+A)", viewer.select_visible)
        self.none = icon_button(viewer, "times", "Select nothing (Escape)", viewer.clear_selection)
        # The menu has the keyboard when it is open.
        self.menu = icon_button(
            viewer,
            "bars",
            "What can be said of the selection (right click, Shift+F10)",
            viewer.open_menu_for_selection,
            refocus=False,
        )
        super().__init__(
            [self.box, self.lasso, self.adding, self.seen, self.none, self.menu],
            layout={"margin": "2px 0", "flex": "0 0 auto", "overflow": "visible"},
        )
        self.reach = Dropdown(
            options=_REACHES, description="Select", tooltip="The planes whose objects a box or a lasso selects"
        )
        self.reach.layout, self.reach.style = {"width": "200px"}, {"description_width": "48px"}
        self.span = IntRangeSlider(tooltip="The first and the last plane", layout={"width": "260px"})
        self.planes = HBox([self.reach, self.span], layout={"display": "none"})
        link((viewer, "adding"), (self.adding, "value"))
        link((viewer, "reach"), (self.reach, "value"))
        self.span.observe(lambda change: viewer.set_trait("span", change["new"]), "value")
        for tool, button in (("box", self.box), ("lasso", self.lasso)):
            button.observe(self._chooser(tool), "value")
        viewer.observe(lambda _: self.follow(), ["tool", "reach", "selection"])
        self.follow()

    def follow(self, planes: int | None = None) -> None:
        """Show what fits the tool and, if that is given, an image of so many planes."""
        viewer = self._viewer
        if planes is not None:
            self.span.max = planes - 1
            self.span.value = (0, planes - 1)
        self.box.value, self.lasso.value = viewer.tool == "box", viewer.tool == "lasso"
        self.none.disabled = self.menu.disabled = not viewer.selection
        self.planes.layout.display = "flex" if self.span.max > 0 and viewer.tool != "move" else "none"
        self.span.layout.display = "" if viewer.reach == "range" else "none"

    def _chooser(self, tool: str) -> Callable[[dict[str, bool]], None]:
        def changed(change: dict[str, bool]) -> None:
            if change["new"]:
                self._viewer.tool = tool
            elif self._viewer.tool == tool:
                self._viewer.tool = "move"

        return changed

    def _toggle(self, icon: str, tooltip: str) -> ToggleButton:
        button = ToggleButton(icon=icon, tooltip=tooltip, layout=ICON_LAYOUT)
        button.observe(lambda _: self._viewer.focus(), "value")
        return button


def icon_button(
    viewer: Viewer, icon: str, tooltip: str, act: Callable[[], None], text: str = "", refocus: bool = True
) -> Button:
    """Return a small button; after a click it gives the keyboard back to the picture, as JupyterLab's shortcuts would
    take the next key."""
    button = Button(icon=icon, description=text, tooltip=tooltip, layout=ICON_LAYOUT)
    safe = catch_errors(act, viewer.status)

    def clicked(_: Button) -> None:
        safe()
        if refocus:
            viewer.focus()

    button.on_click(clicked)
    return button
