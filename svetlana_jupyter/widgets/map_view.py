"""Map of objects: mouse and keyboard input, and the link to the other views."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import traitlets
from ipywidgets import HTML, VBox

from svetlana_jupyter.core.classes import PALETTE
from svetlana_jupyter.core.display.point_map import NEUTRAL, PROBABILITY_COLORS, MapScene, PointMap, compose_map
from svetlana_jupyter.core.display.scene import BRIGHT_INK, DARK_INK, Hint
from svetlana_jupyter.core.display.selection import rectangle_corners
from svetlana_jupyter.core.display.thumbnails import GridLayout, draw_thumbnail_grid
from svetlana_jupyter.core.display.viewport import Viewport
from svetlana_jupyter.core.features.projection import FeatureMap, pca_map
from svetlana_jupyter.widgets.components import error_text
from svetlana_jupyter.widgets.gallery.grid import describe_object
from svetlana_jupyter.widgets.gallery.thumbnail_loader import ThumbnailCache, default_crop_side
from svetlana_jupyter.widgets.map_canvas import PICTURE_SIDE, MapCanvas
from svetlana_jupyter.widgets.map_colors import COLORINGS, MapObjects, point_styles
from svetlana_jupyter.widgets.panel import Watcher
from svetlana_jupyter.widgets.scheduling import LatestQuestion, running_loop
from svetlana_jupyter.widgets.viewer.canvas import LEFT, MIDDLE, MODIFIERS
from svetlana_jupyter.widgets.viewer.interaction import Screen
from svetlana_jupyter.widgets.viewer.viewer_model import shared_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from svetlana_jupyter.core.display.point_map import PointStyles
    from svetlana_jupyter.core.display.selection import Point
    from svetlana_jupyter.project.object_features import ObjectFeatures
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.components import StatusLine
    from svetlana_jupyter.widgets.gallery.thumbnail_loader import GalleryPage
    from svetlana_jupyter.widgets.viewer.viewer_model import SelectionId

_LISTED = "In the region of the map"  # title of the objects inside a box or lasso, which the gallery shows
_REACH = 8.0  # CSS pixels between the pointer and the dot that it points at
_CLICK_TOLERANCE = 4.0  # CSS pixels that the pointer may move during a click
_MIN_SEGMENT = 2.0  # CSS pixels between two corners of a lasso
_WHEEL_TO_DOUBLE = 300.0  # turn of the wheel that doubles the magnification
_PAN_STEP = 0.125  # fraction of the screen per arrow key
_ZOOM_STEP = 1.5
_ARROWS = {"ArrowUp": (1, 0), "ArrowDown": (-1, 0), "ArrowLeft": (0, 1), "ArrowRight": (0, -1)}
_DELAY = 0.05  # seconds to wait for another request before a map is computed
_LEGEND_IMAGES = 12
_WIDE = 400  # CSS pixels of a map with room for the whole caption
_NO_EFFECT = {
    **dict.fromkeys(_ARROWS, "The map cannot move any further this way."),
    **dict.fromkeys("+=-", "The map cannot be zoomed any further."),
    "f": "The whole map is visible.",
}
_EMPTY = FeatureMap({}, np.empty((0, 2), np.float32), "PCA", 0)


class MapView(VBox):
    """Map of the objects of a project: similar objects are close to each other.

    A click selects an object, dragging moves the map, and the wheel zooms. The selection is that of all views of the
    project.

    Parameters
    ----------
    project : Project
    status : StatusLine
        Displays errors.
    size : tuple of int
        Initial height and width in CSS pixels. The map follows the width of the page.
    max_size : tuple of int
        Maximum height and width.
    report : callable
        Called with a sentence if a key had no effect, otherwise with "".
    fills : bool
        Whether the map fills the box that the page gives it.

    Attributes
    ----------
    shared : SharedModel
        Selection of all views of the project.
    view : Viewport
        Displayed part of the map.
    tool : {"move", "box", "lasso"}
        Effect of dragging.
    add_to_selection : bool
        Whether a click, a box or a lasso adds to the selection, as with Shift.
    coloring : {"prediction", "label", "probability", "image", "off"}
    method : {"PCA", "UMAP"}
        UMAP takes minutes; until it is computed, the map of PCA is shown.
    is_shown : bool
        Whether the panel displays the map; otherwise it computes and draws nothing.
    hovered : tuple of (int, float, float) or None
        Number of the object under the pointer, with the pointer's row and column on the screen.
    lasso : tuple of (y, x)
        Corners of the box or lasso that is being drawn, in units of the map.
    objects : MapObjects
    screen : Screen
        Canvas with its input events and draw schedule.
    scene : MapScene or None
        Contents of the last frame.
    """

    view = traitlets.Instance(Viewport)
    tool = traitlets.Enum(["move", "box", "lasso"], "move")
    add_to_selection = traitlets.Bool(False)
    coloring = traitlets.Enum(COLORINGS, "prediction")
    method = traitlets.Enum(["PCA", "UMAP"], "PCA")
    is_shown = traitlets.Bool(True)
    hovered = traitlets.Instance(tuple, allow_none=True)
    lasso = traitlets.Tuple()

    def __init__(
        self,
        project: Project,
        status: StatusLine,
        size: tuple[int, int],
        max_size: tuple[int, int],
        report: Callable[[str], object],
        fills: bool = False,
    ) -> None:
        self._project, self.shared, self._max_size, self._report = project, shared_model(project), max_size, report
        self._proportions = size[0] / size[1]
        self._map, self._masks = _EMPTY, project.images.mask_numbers()
        self.points, self.objects = PointMap.from_coordinates(_EMPTY.coordinates), MapObjects({})
        self.scene: MapScene | None = None
        self._problem = ""
        self._moving = False
        self._styles: PointStyles | None = None
        self._selected: tuple[object, NDArray[np.int64]] = (None, np.empty(0, np.int64))
        self._shown_features = -1, -1
        self._thumbnails = ThumbnailCache(project)
        super().__init__(layout={"width": "100%", "max_width": f"{max_size[1]}px"})
        self.add_class("sv-viewer")
        if fills:
            self.add_class("sv-fill")
            self.layout.max_width = None
        self.view = Viewport.fitted(self.points.shape, size)
        self.screen = Screen(MapCanvas(size), self._draw, self._raise_unreadable, status)
        self.screen.report = report
        self.screen.pointer.name = "Map of objects"
        self.legend = HTML(layout={"margin": "2px 0 0 0"})
        self.children = (self.screen.stage, self.legend, self.screen.pointer)
        self._events = MapEvents(self)
        self.screen.add_listener(self._events)
        self._pca = LatestQuestion(pca_of_features, self._show_map, _DELAY, self._show_problem)
        self._umap = LatestQuestion(umap_of_features, self._show_map, _DELAY, self._show_problem)
        self._watcher = Watcher(status)
        observe, redraw = self._watcher.observe, self.screen.redraw
        observe(self.screen.pointer, self._change_resolution, "dpr")
        observe(self.screen.pointer, self._change_size, "width", "height")
        observe(self.screen.pointer, redraw, "dark")
        observe(self, redraw, "view", "coloring", "hovered", "lasso")
        observe(self, self._change_method, "method")
        observe(self, self._become_shown, "is_shown")
        observe(self.shared, redraw, "selection", "filter")
        observe(project, redraw, "annotations_version", "predictions_version", "classes_version", "current_run")
        observe(project, self._images_changed, "images_version")
        observe(project, self._follow_features, "live_state")
        self.reload()

    @property
    def candidates(self) -> NDArray[np.bool_]:
        """Which objects (n,) can be selected: not hidden, and not left out by the filter."""
        return self.styles.candidates

    @property
    def styles(self) -> PointStyles:
        """Colors of the points, looked up again after every change of the project."""
        project = self._project
        versions = project.annotations_version, project.predictions_version, project.classes_version
        chosen = self.shared.filter
        key = (self.objects, self.coloring, project.current_run, chosen, *versions)
        if self._styles is None or self._styles.key != key:
            self._styles = point_styles(project, self.objects, self.coloring, key, chosen)
            self.legend.value = legend_html(project, self.objects, self.coloring)
        return self._styles

    @property
    def selected(self) -> NDArray[np.int64]:
        """Numbers of the selected objects that are on the map."""
        key = self.objects, self.shared.changes
        if self._selected[0] != key:
            self._selected = key, self.objects.find(self.shared.selection)
        return self._selected[1]

    def reload(self) -> None:
        """Compute the map of the features that are known now, in the background."""
        if self.is_shown:
            self._pca.ask(self._project.features)

    def fit(self) -> None:
        """Show the whole map."""
        self.view = self._fitted_view()

    def zoom(self, factor: float, about: tuple[float, float] | None = None) -> None:
        """Zoom about a point (row, column) of the screen, by default its center."""
        self.set_view(self.view.zoomed(factor, about))

    def set_view(self, view: Viewport, moving: bool = False) -> None:
        """Show another part of the map; ``moving`` is True while the user drags it."""
        self._moving = moving
        self.view = view.clamped(self.points.shape)

    def object_at(self, row: float, column: float) -> int:
        """Return the number of the object at a point of the screen, or -1."""
        y, x = self.view.to_image(row, column)
        return self.points.nearest(y, x, _REACH / self.view.scale, self.candidates)

    def select(self, numbers: NDArray[np.int64], extend: bool = False) -> None:
        """Select objects in all views.

        Parameters
        ----------
        numbers : array of int, shape (n,)
        extend : bool
            Whether the objects are added to the selection; a single selected object is removed from it.
        """
        objects = self.objects.ids(np.sort(numbers))
        if extend or self.add_to_selection:
            before = self.shared.selection
            if len(objects) == 1 and objects[0] in before:
                objects = tuple(each for each in before if each != objects[0])
            else:
                objects = (*before, *objects)
        self.shared.selection = objects
        # A key that follows the user's own click applies to the clicked object, even before a frame shows it.
        self._events.clicked = self.screen.canvas.shown = self.shared.selection_id

    def select_inside(self, corners: Sequence[Point], extend: bool = False) -> None:
        """Select the objects inside a polygon, and list them in the gallery."""
        self.select(self.points.inside(corners, self.candidates), extend)
        if len(self.shared.selection) > 1:
            self.shared.listed = _LISTED, self.shared.selection

    def select_visible(self) -> None:
        """Select all objects on the screen."""
        view = self.view
        self.select_inside(rectangle_corners(view.to_image(0, 0), view.to_image(*view.size)))

    def clear_selection(self) -> None:
        """Deselect all objects."""
        self.select(np.empty(0, np.int64))

    def close(self) -> None:
        """Stop following the project, and remove the map."""
        self._watcher.close()
        self._pca.ask(None)
        self._umap.ask(None)
        self.screen.loader.close()
        super().close()

    def _fitted_view(self) -> Viewport:
        return Viewport.fitted(self.points.shape, self.view.size, self.view.dpr)

    def _show_map(self, made: FeatureMap) -> None:
        """Show a new map; a view that the user has moved stays."""
        if made.method != "PCA" and self.method != made.method:
            return  # the user has returned to the other method
        shows_all = self.view == self._fitted_view() or not len(self.points.placed)
        if self._map.method != made.method or self._map.labels.keys() != made.labels.keys():
            shows_all = True
        self._map, self.points = made, PointMap.from_coordinates(made.coordinates)
        self.objects, self._problem, self.hovered = MapObjects(made.labels), "", None
        if shows_all:
            self.fit()
        if self.method == "UMAP" and made.method == "PCA":
            self._umap.ask(self._project.features)
        self.screen.redraw()

    def _show_problem(self, question: object, error: Exception) -> None:
        """Show why there is no map in its place."""
        self._problem = error_text(error, "The map cannot be computed")
        self.screen.redraw()

    def _describe_state(self) -> str:
        """Return why the map is empty, or what it still waits for."""
        if not self._project.images:
            return "Add images to see the map of their objects."
        state = self._project.live.state
        if state.provisional and state.features_done < state.features_total:
            return f"Features of {state.features_done:,} of {state.features_total:,} objects are computed."
        return self._problem if self._problem or len(self.points.placed) else "The map is being computed."

    def _caption(self) -> str:
        if not len(self.points.placed):
            return ""
        what = f"Map · {self._map.method} of {self._map.features:,} features"
        if self.method != self._map.method and not self._problem:
            return f"{what} · {self.method} is being computed"
        state = self._describe_state() or ("a lasso selects in every view" if self.view.size[1] > _WIDE else "")
        return f"{what} · {state}" if state else what

    def _images_changed(self) -> None:
        """Remove a map of objects that may be gone, and compute a new one."""
        masks = self._project.images.mask_numbers()
        if self._masks != masks:
            self._masks = masks
            self._show_map(_EMPTY)
        self.reload()

    def _follow_features(self) -> None:
        state = self._project.live.state
        progress = state.features_done, state.features_total
        if progress != self._shown_features:
            self._shown_features = progress
            self.reload()

    def _change_method(self) -> None:
        self._umap.ask(None)
        self._problem = ""
        self.reload()
        self.screen.redraw()

    def _become_shown(self) -> None:
        self.reload()
        self.screen.redraw()

    def _change_resolution(self) -> None:
        self.view = replace(self.view, dpr=self.screen.pointer.dpr)

    def _change_size(self) -> None:
        """Adapt the map to the width of the page, or to its whole box."""
        pointer, (max_height, max_width) = self.screen.pointer, self._max_size
        width = min(pointer.width, max_width)
        size = pointer.height or min(round(width * self._proportions), max_height), width
        if size != self.view.size:
            self.screen.canvas.set_width(size[1])
            shows_all = self.view == self._fitted_view()
            self.view = replace(self.view, size=size)
            if shows_all:
                self.fit()

    def _draw(self) -> None:
        if not self.is_shown:
            return
        ink = BRIGHT_INK if self.screen.pointer.dark else DARK_INK
        scene = compose_map(
            self.points,
            self.styles,
            self.view,
            ink,
            selected=self.selected,
            selection_key=self.shared.changes,
            previous=self.scene,
            moving=self._moving,
        )
        hint, picture, missing = self._hovered_object()
        message = "" if len(self.points.placed) else self._describe_state()
        self.scene = replace(
            scene, lasso=self.lasso, hint=hint, picture=picture, caption=self._caption(), message=message
        )
        self.screen.paint(self.scene, self.shared.selection_id, missing)

    def _hovered_object(self) -> tuple[Hint | None, NDArray[np.uint8] | None, tuple[GalleryPage, ...]]:
        """Return text and thumbnail of the object under the pointer, and missing pixels."""
        if self.hovered is None or not self.candidates[self.hovered[0]]:
            return None, None, ()
        number, *at = self.hovered
        (object_id,) = self.objects.ids(np.array([number]))
        hint = Hint(describe_object(self._project, *object_id), (at[0], at[1]))
        dpr = self.screen.pointer.dpr
        side = default_crop_side(self._project.objects(object_id.image).loc[[object_id.label]])
        page = self._thumbnails.page([object_id], side, round(PICTURE_SIDE * dpr), "plane")
        if running_loop() is None:
            page.load()
        pictures = self._thumbnails.cached_thumbnails(page)
        if pictures[0] is None:
            return hint, None, (page,)
        grid = GridLayout((PICTURE_SIDE, PICTURE_SIDE), columns=1, gap=0, line=0)
        return hint, draw_thumbnail_grid(pictures, grid, dpr)[0], ()

    def _raise_unreadable(self, error: Exception) -> None:
        raise error


def pca_of_features(features: ObjectFeatures) -> FeatureMap:
    """Return the map of the features that are known; runs on any thread."""
    return pca_map(features.matrix().images)


def umap_of_features(features: ObjectFeatures) -> FeatureMap:
    """Return the map by UMAP of the features that are known; runs on any thread.

    Raises
    ------
    SettingsError
        If umap-learn is not installed.
    """
    from svetlana_jupyter.learn.umap_projection import umap_map

    return umap_map(features.matrix().images)


def legend_html(project: Project, objects: MapObjects, coloring: str) -> str:
    """Return what the colors mean, as HTML."""
    swatch = '<span class="sv-swatch" style="background:{}"></span>{}'.format
    if coloring == "image":
        names = [html.escape(name) for name in objects.images]
        parts = list(map(swatch, PALETTE, names[:_LEGEND_IMAGES]))
        if len(names) > len(parts):
            parts.append(f"and {len(names) - len(parts):,} more images, whose colors repeat")
    elif coloring == "probability":
        ramp = ", ".join(PROBABILITY_COLORS)
        lowest = 1 / max(2, len(project.classes))
        bar = f'<span class="sv-ramp" style="background:linear-gradient(to right, {ramp})"></span>'
        parts = [f"Probability of the predicted class {lowest:.0%} {bar} 100%", swatch(NEUTRAL, "no prediction")]
    else:
        parts = [swatch(info.color, html.escape(info.name)) for info in project.classes]
        parts.append(swatch(NEUTRAL, "no prediction" if coloring == "prediction" else "not labeled"))
    parts = ["No colors"] if coloring == "off" else [*parts, "ring: labeled", "colored ring: conflict"]
    if len(project.test_set):
        parts.append("test set: gray, and not selected here, until annotated")
    return f'<div class="sv-muted sv-legend">{" · ".join(parts)}</div>'


@dataclass(frozen=True)
class _Press:
    """Mouse press: its position, the view at that time, and the effect of dragging."""

    row: float
    column: float
    button: int
    view: Viewport
    extend: bool
    tool: str


class MapEvents:
    """Translation of input events (`canvas.InputListener`) into changes of the map.

    Attributes
    ----------
    clicked : tuple or None
        Selection after the user's last click.
    """

    def __init__(self, view: MapView) -> None:
        self._view = view
        self._pointer: tuple[float, float] | None = None
        self._press: _Press | None = None
        self._dragged = False
        self.clicked: SelectionId = None
        self._keys: dict[str, Callable[[], None]] = {
            **{key: partial(self._pan, *step) for key, step in _ARROWS.items()},
            **dict.fromkeys(("+", "="), partial(view.zoom, _ZOOM_STEP)),
            "-": partial(view.zoom, 1 / _ZOOM_STEP),
            "[": partial(self._change_coloring, -1),
            "]": partial(self._change_coloring, 1),
            "x": partial(self._toggle_tool, "box"),
            "l": partial(self._toggle_tool, "lasso"),
            "f": view.fit,
            "Ctrl+a": view.select_visible,
        }

    def pressed(self, row: float, column: float, button: int = LEFT, modifiers: str = "") -> None:
        """Begin a click or a drag."""
        if button in (LEFT, MIDDLE):
            extend, tool = "Shift" in modifiers, self._view.tool
            # With Shift a drag always selects: with the move tool it draws a box.
            tool = "move" if button == MIDDLE else "box" if extend and tool == "move" else tool
            self._press = _Press(row, column, button, self._view.view, extend, tool)
            self._dragged = False

    def moved(self, row: float, column: float) -> None:
        """Continue a drag, or describe the object under the pointer."""
        self._pointer, press, view = (row, column), self._press, self._view
        if press is None:
            number = view.object_at(row, column)
            view.hovered = (number, row, column) if number >= 0 else None
            return
        down, right = row - press.row, column - press.column
        if not self._dragged and math.hypot(down, right) <= _CLICK_TOLERANCE:
            return
        if not self._dragged:
            self._dragged, view.hovered = True, None
            view.lasso = (press.view.to_image(press.row, press.column),) if press.tool == "lasso" else ()
        if press.tool == "lasso":
            before = view.view.to_screen(*view.lasso[-1])
            if max(abs(row - before[0]), abs(column - before[1])) >= _MIN_SEGMENT:
                view.lasso = (*view.lasso, view.view.to_image(row, column))
        elif press.tool == "box":
            corner = press.view.to_image(press.row, press.column)
            view.lasso = rectangle_corners(corner, view.view.to_image(row, column))
        else:
            view.set_view(press.view.panned(down, right), moving=True)

    def released(self, row: float, column: float) -> None:
        """Finish a box or lasso, or select the clicked object."""
        press = self._end_press()
        if press is not None and press.button == LEFT and not self._dragged:
            number = self._view.object_at(row, column)
            self._view.select(np.array([number] if number >= 0 else [], np.int64), press.extend)
        self.clicked = self._view.shared.selection_id
        self._view.screen.redraw()  # the browser waits for a frame after this click, even if nothing changed

    def selection_id(self) -> SelectionId:
        """Return the selection after the last click, even if another object follows."""
        return self.clicked

    def pointer_left(self) -> None:
        """Finish a drag that leaves the canvas."""
        self._end_press()
        self._pointer = self._view.hovered = None

    def wheeled(self, delta: float, at: tuple[float, float] | None = None) -> None:
        """Zoom about the pointer."""
        self._view.hovered = None
        self._view.zoom(2 ** (-delta / _WHEEL_TO_DOUBLE), at or self._pointer)

    def key_pressed(self, key: str, shown: SelectionId) -> None:
        """Move the map, use a tool, or pass the key to the panel."""
        view = self._view
        if key in self._keys:
            before = view.view, view.tool, view.coloring, view.shared.changes
            self._keys[key]()
            unchanged = before == (view.view, view.tool, view.coloring, view.shared.changes)
            view.screen.report(_NO_EFFECT.get(key, "") if unchanged else "")
        elif key == "Escape" and (self._press is not None or view.shared.selection or view.tool != "move"):
            self._escape()
        elif key not in MODIFIERS:
            view.screen.handle_key(key, shown)

    def _end_press(self) -> _Press | None:
        """End and return the press; a box or lasso selects the objects inside."""
        press, self._press = self._press, None
        if press is not None and self._dragged and self._view.lasso:
            corners, self._view.lasso = self._view.lasso, ()
            self._view.select_inside(corners, press.extend)
        return press

    def _pan(self, down: int, right: int) -> None:
        height, width = self._view.view.size
        self._view.set_view(self._view.view.panned(down * height * _PAN_STEP, right * width * _PAN_STEP))

    def _change_coloring(self, by: int) -> None:
        self._view.coloring = COLORINGS[(COLORINGS.index(self._view.coloring) + by) % len(COLORINGS)]

    def _toggle_tool(self, tool: str) -> None:
        self._view.tool = "move" if self._view.tool == tool else tool

    def _escape(self) -> None:
        """Cancel the lasso being drawn, otherwise the selection, otherwise the tool."""
        if self._press is not None:
            self._press, self._view.lasso = None, ()
        elif self._view.shared.selection:
            self._view.clear_selection()
        else:
            self._view.tool = "move"
