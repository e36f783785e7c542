"""Screen, object selection, and mouse and keyboard input of the viewer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from ipywidgets import HTML, Box, Button, ToggleButton

from svetlana_jupyter.core.display.selection import PlaneSelection, Point, objects_in_polygon, rectangle_corners
from svetlana_jupyter.widgets.object_filter import matching_objects
from svetlana_jupyter.widgets.panel import ICON_LAYOUT, catch_errors
from svetlana_jupyter.widgets.scheduling import BackgroundLoader, Debounce, Throttle
from svetlana_jupyter.widgets.viewer.canvas import LEFT, MIDDLE, MODIFIERS, RIGHT, InputListener, LayeredCanvas
from svetlana_jupyter.widgets.viewer.pointer import Pointer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from svetlana_jupyter.core.display.viewport import Viewport
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.components import StatusLine
    from svetlana_jupyter.widgets.object_indexing import ObjectIndexer
    from svetlana_jupyter.widgets.scheduling import Loadable
    from svetlana_jupyter.widgets.viewer.viewer_model import SelectionId, ViewerModel

_SHARPEN_AFTER_KEY = 0.4  # seconds; users who type fast need no full quality in between
_MIN_SEGMENT = 2.0  # CSS pixels between two corners of a lasso
_CLICK_TOLERANCE = 4.0  # CSS pixels that the pointer may move during a click
_WHEEL_TO_DOUBLE = 300.0  # turn of the wheel that doubles the magnification
_PAN_STEP = 0.125  # fraction of the screen per arrow key
_ARROWS = {"ArrowUp": (1, 0), "ArrowDown": (-1, 0), "ArrowLeft": (0, 1), "ArrowRight": (0, -1)}
_PLANES = {"[": -1, "]": 1, "PageUp": -1, "PageDown": 1}
_ZOOMS = {"+": 1.5, "=": 1.5, "-": 1 / 1.5}
_TOOLS = {"x": "box", "l": "lasso"}
_MENU_KEYS = ("ContextMenu", "Shift+F10")
_EVENTS = ("pressed", "moved", "released", "pointer_left", "wheeled", "key_pressed")


class Screen:
    """Canvas with its input events, draw schedule, background reads and buttons.

    Parameters
    ----------
    canvas : LayeredCanvas
    draw : callable
        Paints one frame on the canvas.
    on_error : callable
        Called with the exception of a failed read. It may raise an error, which is then displayed.
    status : StatusLine
        Displays errors.

    Attributes
    ----------
    pointer : Pointer
    loader : BackgroundLoader
    handle_key : callable
        Called as ``handle_key(key, shown)`` for each key that does not move the view; set by the panel. ``shown``
        identifies the selection that was on the screen when the key was pressed, or is None if nothing was selected.
        With Ctrl or Command the key is named ``"Ctrl+z"``.
    report : callable
        Called with a sentence if a key that moves the view had no effect, otherwise with ""; set by the panel.
    stage : Box
        Holds the canvas, a hint that is displayed while the canvas does not have the keyboard focus, and widgets that a
        panel places over the canvas.
    request : callable
        Draws as soon as the browser can keep up. Unlike `redraw`, it does not return from full to reduced quality.
    """

    def __init__(
        self, canvas: LayeredCanvas, draw: Callable[[], None], on_error: Callable[[Exception], None], status: StatusLine
    ) -> None:
        self.canvas, self._status = canvas, status
        self._still = False  # nothing has changed for a while: the frame is to be painted in full quality
        self.handle_key: Callable[[str, SelectionId], object] = lambda key, shown: None
        self.report: Callable[[str], object] = lambda problem: None
        self._throttle = Throttle(catch_errors(draw, status))
        self.request = self._throttle.request
        self._debounce = Debounce(self._sharpen)
        self.loader = BackgroundLoader(self.request, catch_errors(on_error, status))
        self.pointer = Pointer(layer=canvas.counter.model_id)
        canvas.repaint = self.request
        hint = HTML("Click here to use the keys", layout={"margin": "0"}).add_class("sv-keys-hint")
        self.stage = Box([canvas.widget, hint]).add_class("sv-stage")

    def add_listener(self, listener: InputListener) -> None:
        """Report mouse and keyboard events to ``listener``, and display its errors."""
        handlers = {name: catch_errors(getattr(listener, name), self._status) for name in _EVENTS}
        safe: Any = SimpleNamespace(**handlers, selection_id=listener.selection_id)
        self.canvas.add_listener(safe)
        self.pointer.add_listener(safe)

    def redraw(self) -> None:
        """Draw a changed frame as soon as the browser can keep up."""
        self._still = False
        self.request()

    def draw_now(self) -> None:
        """Draw what has been requested at once, in answer to a key.

        Full quality follows later than otherwise, so that the next key need not wait for it.
        """
        self._throttle.draw_requested()
        if not self.canvas.is_final:
            self._debounce.restart(_SHARPEN_AFTER_KEY)

    def paint(self, scene: Any, selection_id: SelectionId, missing: Sequence[Loadable]) -> None:
        """Paint a scene and its selection, and read what is missing.

        Once nothing is missing and nothing has changed for a while, the scene is painted again in full quality.
        """
        if not (self.canvas.is_painted(scene, self._still) and self.pointer.is_up_to_date(selection_id)):
            # Before painting, so that this small message does not wait for the large frame.
            self.pointer.set_shown(selection_id, self.canvas.frame + 1)
            self.canvas.paint(scene, self._still)
        self.canvas.shown = selection_id
        self.loader.load_visible(missing)
        if not self.loader.busy and not self.canvas.is_final:
            self._debounce.restart()

    def focus(self) -> None:
        """Give the canvas the keyboard focus."""
        self.canvas.widget.focus()

    def button(
        self, icon: str, tooltip: str, act: Callable[[], object], text: str = "", keeps_focus: bool = False
    ) -> Button:
        """Return a small button that displays the errors of ``act``.

        The button gives the keyboard focus back to the canvas, unless ``keeps_focus``: while a button has the focus,
        JupyterLab handles the next key as a shortcut.
        """
        button = Button(icon=icon, description=text, tooltip=tooltip, layout=ICON_LAYOUT)
        safe_act = catch_errors(act, self._status)
        button.on_click(lambda _: safe_act())
        if not keeps_focus:
            button.on_click(lambda _: self.focus())
        return button

    def toggle(self, icon: str, tooltip: str, value: bool = False) -> ToggleButton:
        """Return a small toggle button that gives the keyboard focus back to the canvas."""
        toggle = ToggleButton(value, icon=icon, tooltip=tooltip, layout=ICON_LAYOUT)
        toggle.observe(lambda _: self.focus(), "value")
        return toggle

    def _sharpen(self) -> None:
        self._still = True
        self.request()


class ObjectSelector:
    """Selection of objects by click, box or lasso, and their context menu.

    Parameters
    ----------
    project : Project
    model : ViewerModel
    indexing : ObjectIndexer
    canvas : LayeredCanvas

    Attributes
    ----------
    on_select : callable
        Called as ``on_select(image, label)`` after the user selected one object or none (``label`` 0).
    clicked : tuple or None
        Selection after the user's last click, as `ViewerModel.selection_id` identifies it.
    """

    def __init__(self, project: Project, model: ViewerModel, indexing: ObjectIndexer, canvas: LayeredCanvas) -> None:
        self._project, self._model, self._indexing, self._canvas = project, model, indexing, canvas
        self.on_select: Callable[[str, int], object] = lambda image, label: None
        self.clicked: SelectionId = None

    def select_at(self, row: float, column: float, extend: bool = False) -> None:
        """Select the object at a point of the screen.

        With ``extend``, add it to the selection, or remove it if it is selected.
        """
        model = self._model
        if model.scene is not None:
            clicked = {model.object_at(row, column)} - {0}
            self._select(clicked ^ set(model.selection) if extend or model.add_to_selection else clicked)

    def draw_box(self, corner: Point, row: float, column: float) -> None:
        """Draw the selection rectangle from an image point to a screen point."""
        self._model.lasso = rectangle_corners(corner, self._model.view.to_image(row, column))

    def draw_lasso(self, row: float, column: float) -> None:
        """Extend the lasso to a point of the screen."""
        model = self._model
        if model.lasso:
            before = model.view.to_screen(*model.lasso[-1])
            if max(abs(row - before[0]), abs(column - before[1])) < _MIN_SEGMENT:
                return
        model.lasso = (*model.lasso, model.view.to_image(row, column))

    def finish_lasso(self, extend: bool = False) -> None:
        """Select every object whose centroid is inside the box or lasso."""
        corners, self._model.lasso = self._model.lasso, ()
        if self._model.image and corners:
            self._select_inside(corners, extend or self._model.add_to_selection)

    def select_visible(self) -> None:
        """Select every object whose centroid is on the screen."""
        if self._model.image:
            view = self._model.view
            self._select_inside(rectangle_corners(view.to_image(0, 0), view.to_image(*view.size)), extend=False)

    def clear_selection(self) -> None:
        """Clear the selection."""
        self._select(())

    def open_menu_at(self, row: float, column: float) -> None:
        """Open the menu for the object at a point of the screen.

        If the object belongs to the selection, the menu applies to the selection.
        """
        model = self._model
        label = model.object_at(row, column)
        if label and label not in model.selection:
            self._select([label])
        if model.selection:
            model.menu = (row, column)

    def open_menu_for_selection(self) -> None:
        """Open the menu at the center of the selection."""
        if self._model.selection:
            self._model.menu = self._selection_center()

    def close_menu(self) -> bool:
        """Close the menu; return whether it was open."""
        was_open, self._model.menu = self._model.menu is not None, None
        return was_open

    def zoom_on_selection(self, factor: float) -> None:
        """Zoom about the center of the selection, or of the screen if it is not visible."""
        model = self._model
        about = self._selection_center() if model.selection and self._project.images.is_indexed(model.image) else None
        visible = about is not None and all(0 <= at < end for at, end in zip(about, model.view.size))
        model.zoom(factor, about if visible else None)

    def _select_inside(self, corners: tuple[Point, ...], extend: bool) -> None:
        """Select the objects inside a region once they are indexed.

        Nothing is selected if the selection changed in the meantime.
        """
        model = self._model
        plane_scopes: dict[str, PlaneSelection] = {
            "plane": model.plane,
            "range": range(model.plane_range[0], model.plane_range[1] + 1),
            "all": None,
        }
        image, planes, before = model.image, plane_scopes[model.plane_scope], model.shared.changes

        def select() -> None:
            if (model.image, model.shared.changes) == (image, before):
                found = objects_in_polygon(self._project.objects(image), corners, planes)
                only = matching_objects(self._project, image, model.shared.filter)
                inside = (found if only is None else found[np.isin(found, only)]).tolist()
                self._select([*model.selection, *inside] if extend else inside)
                if len(inside) > 1:
                    model.shared.listed = f"Inside: {len(model.selection):,}", model.shared.selection

        self._indexing.run_when_indexed([image], select, "The region is selected afterwards.")

    def _selection_center(self) -> Point:
        """Return row and column of the center of the selection on the screen."""
        model = self._model
        centers = self._project.objects(model.image).loc[list(model.selection), ["y", "x"]]
        y, x = (float(center) + 0.5 for center in centers.mean())
        return model.view.to_screen(y, x)

    def _select(self, objects: Iterable[int]) -> None:
        model = self._model
        model.selection = tuple(objects)
        # A key that follows the user's own click applies to the clicked object, even before a frame shows the
        # selection. A selection made by the program counts from its frame on, so that earlier keys are ignored.
        self.clicked = self._canvas.shown = model.selection_id
        if len(model.selection) < 2:
            self.on_select(model.image, model.selected)


@dataclass(frozen=True)
class _Press:
    """Mouse press: its position, the view at that time, and the effect of dragging."""

    row: float
    column: float
    button: int
    view: Viewport
    extend: bool
    tool: str


class ViewerEvents:
    """Translation of the events of `InputListener` into changes of the viewer."""

    def __init__(self, model: ViewerModel, selector: ObjectSelector, screen: Screen) -> None:
        self._model, self._selector, self._screen = model, selector, screen
        self._pointer: tuple[float, float] | None = None
        self._press: _Press | None = None
        self._dragged = False
        self._keys: dict[str, Callable[[], None]] = {
            **{key: partial(self._pan, *step) for key, step in _ARROWS.items()},
            **{key: partial(model.step_plane, by) for key, by in _PLANES.items()},
            **{key: partial(selector.zoom_on_selection, factor) for key, factor in _ZOOMS.items()},
            **{key: partial(self._toggle_tool, tool) for key, tool in _TOOLS.items()},
            **dict.fromkeys(_MENU_KEYS, selector.open_menu_for_selection),
            "f": model.fit,
            "Ctrl+a": selector.select_visible,
        }

    def pressed(self, row: float, column: float, button: int = LEFT, modifiers: str = "") -> None:
        """Begin a click or a drag, or open the context menu."""
        self._selector.close_menu()
        if button in (LEFT, MIDDLE):
            model, extend = self._model, "Shift" in modifiers
            # With Shift a drag always selects: with the move tool it draws a box.
            tool = "move" if button == MIDDLE else "box" if extend and model.tool == "move" else model.tool
            self._press = _Press(row, column, button, model.view, extend, tool)
            self._dragged = False
        elif button == RIGHT:
            self._selector.open_menu_at(row, column)

    def moved(self, row: float, column: float) -> None:
        """Continue a drag, or show which object is under the pointer."""
        self._pointer = (row, column)
        press = self._press
        if press is None:
            label = self._model.object_at(row, column)
            self._model.hovered = (label, row, column) if label else None
            return
        down, right = row - press.row, column - press.column
        if not self._dragged:
            if math.hypot(down, right) <= _CLICK_TOLERANCE:
                return
            self._dragged = True
            self._model.hovered = None
            if press.tool == "lasso":
                self._selector.draw_lasso(press.row, press.column)
        if press.tool == "lasso":
            self._selector.draw_lasso(row, column)
        elif press.tool == "box":
            self._selector.draw_box(press.view.to_image(press.row, press.column), row, column)
        else:
            self._model.set_view(press.view.panned(down, right), moving=True)

    def released(self, row: float, column: float) -> None:
        """Finish a lasso, or select the clicked object."""
        press = self._end_press()
        if press is not None and press.button == LEFT and not self._dragged:
            self._selector.select_at(row, column, press.extend)
        self._selector.clicked = self._model.selection_id
        self._screen.redraw()  # the browser waits for a frame after this click, even if nothing changed

    def selection_id(self) -> SelectionId:
        """Return the selection after the last click, even if another object follows."""
        return self._selector.clicked

    def pointer_left(self) -> None:
        """Finish a drag that leaves the canvas."""
        # Without the pointer helper, the canvas does not report the release of a button outside of it.
        self._end_press()
        self._pointer = self._model.hovered = None

    def wheeled(self, delta: float, at: tuple[float, float] | None = None) -> None:
        """Zoom about the pointer."""
        self._selector.close_menu()
        self._model.zoom(2 ** (-delta / _WHEEL_TO_DOUBLE), at or self._pointer)

    def key_pressed(self, key: str, shown: SelectionId) -> None:
        """Move the view, use a tool, or pass the key to the panel."""
        if self._selector.close_menu() and key == "Escape":
            return
        if key in self._keys:
            before = self._state()
            self._keys[key]()
            self._screen.report("" if self._state() != before else self._no_effect(key))
        elif key == "Escape":
            self._escape(shown)
        elif key not in MODIFIERS:
            self._screen.handle_key(key, shown)

    def _end_press(self) -> _Press | None:
        """End and return the press; a box or lasso selects the objects inside."""
        press, self._press = self._press, None
        if press is not None and self._dragged and press.tool != "move":
            self._selector.finish_lasso(press.extend)
        return press

    def _state(self) -> tuple[object, ...]:
        model = self._model
        return model.view, model.plane, model.tool, model.selection, model.menu

    def _no_effect(self, key: str) -> str:
        """Return a sentence on why a key changed nothing."""
        if key in _PLANES:
            edge = "first" if _PLANES[key] < 0 else "last"
            return "This image has a single plane." if self._model.planes == 1 else f"This is the {edge} plane."
        if key in _MENU_KEYS:
            return "No object is selected. Click an object, then open its menu."
        if key in _ARROWS:
            return "The image cannot move any further this way."
        if key in _ZOOMS:
            return "The image cannot be zoomed any further."
        return "The whole image is visible." if key == "f" else ""

    def _pan(self, down: int, right: int) -> None:
        height, width = self._model.view.size
        self._model.set_view(self._model.view.panned(down * height * _PAN_STEP, right * width * _PAN_STEP))

    def _toggle_tool(self, tool: str) -> None:
        self._model.tool = "move" if self._model.tool == tool else tool

    def _escape(self, shown: SelectionId) -> None:
        """Cancel the lasso being drawn, otherwise the selection, otherwise the tool."""
        if self._press is not None:
            self._press, self._model.lasso = None, ()
        elif self._model.selection:
            self._selector.clear_selection()
        elif self._model.tool != "move":
            self._model.tool = "move"
        else:
            self._screen.handle_key("Escape", shown)
