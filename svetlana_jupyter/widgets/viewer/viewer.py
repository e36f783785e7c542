"""Viewer of one image with its objects, annotations and predictions."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import traitlets
from ipywidgets import VBox

from svetlana_jupyter.core.display.scene import Hint, compose
from svetlana_jupyter.core.display.tiles import MEMORY_MB, limit_cache
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.project.known_files import checked_lately
from svetlana_jupyter.widgets.components import StatusLine
from svetlana_jupyter.widgets.object_indexing import ObjectIndexer
from svetlana_jupyter.widgets.panel import Watcher, catch_errors
from svetlana_jupyter.widgets.scheduling import Debounce, running_loop
from svetlana_jupyter.widgets.viewer.canvas import ImageCanvas, canvas_lock
from svetlana_jupyter.widgets.viewer.interaction import ObjectSelector, Screen, ViewerEvents
from svetlana_jupyter.widgets.viewer.object_details import ObjectDetails
from svetlana_jupyter.widgets.viewer.open_images import OpenImage, OpenImages, unreadable_image
from svetlana_jupyter.widgets.viewer.toolbar import Toolbar
from svetlana_jupyter.widgets.viewer.viewer_model import ViewerModel, shared_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from svetlana_jupyter.core.display.channels import DisplaySettings
    from svetlana_jupyter.core.display.scene import Scene
    from svetlana_jupyter.core.display.viewport import Viewport
    from svetlana_jupyter.project.project import Project

_ZOOM_PAUSE = 0.3  # seconds after which the next object is prepared again for another magnification

logger = logging.getLogger(__name__)


class Viewer(VBox):
    """Viewer of one image with its objects, annotations and predictions.

    A click selects an object, dragging moves the image, and the wheel zooms. Keys that do not move the view are passed
    to ``screen.handle_key``. The view and the selection are traits of ``model``.

    Parameters
    ----------
    project : Project
    size : tuple of int
        Initial height and width of the image area, in CSS pixels. The image area follows the width of the page.
    max_size : tuple of int, optional
        Maximum height and width; by default ``size``.
    fills : bool
        Whether the image fills the box that the page gives it; the panel then places the toolbar and the details.
    model : ViewerModel, optional
        View and selection; by default a new model, which shares the selection with all views of the project.

    Attributes
    ----------
    project : Project
    model : ViewerModel
    selector : ObjectSelector
    indexing : ObjectIndexer
    screen : Screen
        Canvas with its input events and draw schedule.
    memory_mb : float
        Limit of the memory for decoded pixels of all images, in MB. Other pixels are read again when needed.
    is_shown : bool
        Whether the viewer is on the page; a hidden one draws nothing, and follows the selection once it is shown.
    toolbar : Toolbar
    image_area : Box
        Holds the canvas, and widgets that a panel places over it.
    object_details : ObjectDetails
        Small images of the selected object.
    status : StatusLine
    """

    memory_mb = traitlets.Float(MEMORY_MB)
    is_shown = traitlets.Bool(True)

    def __init__(
        self,
        project: Project,
        size: tuple[int, int] = (520, 740),
        model: ViewerModel | None = None,
        max_size: tuple[int, int] | None = None,
        fills: bool = False,
    ) -> None:
        self._proportions, self._max_size = size[0] / size[1], max_size or size
        super().__init__(layout={"width": "100%", "max_width": f"{self._max_size[1]}px"})
        self.add_class("sv-viewer")
        self.project = project
        self.status = StatusLine(hides=True)
        self.model = model = model or ViewerModel(size, shared_model(project))
        self._leading = False  # while this viewer itself shows an object
        self.indexing = ObjectIndexer(project, self.status)
        self._open_images = OpenImages(project, self.indexing)
        self._opened: OpenImage | None = None
        self._unreadable = False
        self._coming: list[tuple[str, int]] = []
        self._expected: list[tuple[str, int]] = []  # objects whose pixels were requested
        self._prepared: tuple[tuple[str, int], Scene] | None = None
        self._scale = 0.0  # magnification of the objects of a queue; 0 before the first one
        self._shown_scale = 0.0  # that of the last one, which is smaller for a large object
        self._prepared_scale = 0.0
        self._prepare_soon = Debounce(self._prepare, 0.0)
        self._canvas = ImageCanvas(size)
        self.screen = Screen(self._canvas, self._draw, self._raise_unreadable, self.status)
        self.screen.pointer.name = "Image with its objects"
        self.selector = ObjectSelector(project, model, self.indexing, self.screen.canvas)
        # The toolbar observes the model before the viewer does, so that controls are up to date when a frame is drawn.
        self.toolbar = Toolbar(model, self.selector, self.screen, self.set_palette)
        self.image_area = self.screen.stage
        self.object_details = ObjectDetails(project)
        above, below = ((), ()) if fills else ((self.toolbar,), (self.object_details,))
        if fills:
            self.add_class("sv-fill")
            self.layout.max_width = None
        self.children = (*above, self.image_area, self.toolbar.plane, self.status, *below, self.screen.pointer)
        self.screen.add_listener(ViewerEvents(model, self.selector, self.screen))
        self._watcher = Watcher(self.status)
        observe, redraw = self._watcher.observe, self.screen.redraw
        observe(self.screen.pointer, self._change_resolution, "dpr")
        observe(self.screen.pointer, self._change_size, "width", "height")
        observe(model, self._open, "image")
        observe(model, self._change_plane, "plane")
        observe(model, self._change_view, "view_requests")
        observe(model, redraw, "selection", "overlay", "opacity", "outlines", "lasso", "hovered")
        observe(self.object_details, redraw, "field")
        # Other views may change the selection with every key, so this view follows once they pause.
        observe(model.shared, Debounce(catch_errors(self._follow_selection, self.status), 0.15).restart, "selection")
        observe(model.shared, self._show_details, "selection")
        observe(model.shared, redraw, "filter")
        observe(self, self._follow_selection, "is_shown")
        observe(self, redraw, "is_shown")
        observe(self, lambda: limit_cache(self._open_images.cache, self.memory_mb), "memory_mb")
        observe(project, self._list_images, "images_version")
        observe(project, redraw, "annotations_version", "predictions_version", "classes_version")
        self._list_images()

    def show(self, image: str, label: int = 0, zoom: bool = True) -> None:
        """Show an image and select one of its objects.

        Parameters
        ----------
        image : str
        label : int
            Object to show at the center of the screen, or near the center if it lies at the border of the image. With
            0, the view does not change.
        zoom : bool
            Whether to zoom so that the object and its surroundings are clearly visible. After the first object, the
            magnification stays, or becomes that to which the user has zoomed.

        Raises
        ------
        InputError
            If the image has no such object.
        """
        model, self._leading = self.model, True
        scale = self._chosen_scale()
        try:
            model.image = image
            if self._opened is None or not label:
                model.selection = ()
                return
            scale = scale or self._opened.usual_scale(model.view)
            view = self._opened.view_centered_on(label, model.view, scale if zoom else 0.0)
            model.selected = label
            model.plane = view.plane
            model.set_view(view)
            if zoom:
                self._scale, self._shown_scale = scale, model.view.scale
        finally:
            self._leading = False

    def _chosen_scale(self) -> float:
        """Return the magnification for the next object of a queue; 0 for the usual one."""
        model = self.model
        if model.shape is None or model.view == model.fitted_view(model.shape):
            return 0.0
        return self._scale if model.view.scale == self._shown_scale else model.view.scale

    def prefetch(self, objects: Iterable[tuple[str, int]]) -> None:
        """Read what `show` needs for objects ``(image, label)``, once the view is drawn.

        The picture of the first object is sent to the browser, so that showing this object takes little time.
        """
        self._coming = list(objects)
        self.screen.request()

    def set_palette(self, palette: DisplaySettings) -> None:
        """Apply display settings to the image and to later images with the same channels."""
        if self._opened is not None:
            self._open_images.set_manual_palette(self._opened, palette)
            self.screen.redraw()
            self._show_details()

    def close(self) -> None:
        """Stop observing the project and loading images, and remove the viewer."""
        self._watcher.close()
        self.model.close()
        self.screen.loader.close()
        super().close()

    def _follow_selection(self) -> None:
        """Show what another view has selected, unless it is on the screen."""
        model, selection = self.model, self.model.shared.selection
        if (
            self._leading
            or not self.is_shown
            or not selection
            or not self.project.images.is_indexed(selection[0].image)
        ):
            return
        if len(selection) > 1:
            if not model.selection:
                model.image = selection[0].image
        elif self._opened is None or not model.selected or not self._opened.is_visible(model.selected, model.view):
            image, label = selection[0]
            self.show(image, label, zoom=False)

    def _draw(self) -> None:
        if self._opened is not None and self.is_shown:
            with canvas_lock:
                self._draw_image(self._opened)

    def _draw_image(self, image: OpenImage) -> None:
        model, hovered = self.model, self.model.hovered
        with self._reading():
            prepared = self._prepared[1] if self._prepared else None
            is_prepared = prepared is not None and prepared.view == model.view
            scene = self._compose(image, model.view, model.selection, prepared if is_prepared else model.scene)
            # The object that is under the pointer now: the view may have moved since the pointer did.
            under = scene.object_at(*hovered[1:]) if hovered else 0
            hint = Hint(image.describe(under, model.overlay), hovered[1:]) if hovered and under else None
            marks = image.marks(scene.raster, model.view.dpr, model.overlay, model.shared.filter)
            field = self.object_details.field if model.selected else None  # the object may be in another image
            scene = replace(scene, hint=hint, lasso=model.lasso, field=field, marks=marks)
        model.scene = scene
        self.screen.paint(scene, model.selection_id, scene.missing)
        if not scene.missing:
            self._finish_image(image)

    def _compose(
        self, image: OpenImage, view: Viewport, selected: tuple[int, ...], previous: Scene | None = None
    ) -> Scene:
        """Compose what the screen shows of an image, reusing layers of ``previous``."""
        model = self.model
        return compose(
            image.image,
            image.mask,
            view,
            image.palette,
            image.styles(model.overlay, model.shared.filter),
            opacity=model.opacity,
            outlines=model.outlines,
            selected=selected,
            spacing=image.spacing,
            previous=previous,
            # With an event loop, missing tiles are read in the background, and the frame is drawn again later.
            allow_missing=running_loop() is not None,
            moving=model.moving,
        )

    def _prepare(self) -> None:
        """Send the picture of the next object to the browser, unless tiles are missing."""
        image, model = self._opened, self.model
        if not self._coming or image is None or self._coming[0][0] != image.name:
            return
        label = self._coming[0][1]
        try:
            with checked_lately():
                scale = self._chosen_scale() or image.usual_scale(model.view)
                view = image.view_centered_on(label, model.view, scale).clamped(image.shape)
                scene = self._compose(image, view, (label,))
            if not scene.missing:
                self._prepared, self._prepared_scale = (self._coming[0], scene), self._chosen_scale()
                self._canvas.prepare(scene)
        except Exception:
            logger.info("the next object cannot be drawn; its display will say why", exc_info=True)

    def _finish_image(self, image: OpenImage) -> None:
        """Refine contrast and prefetch upcoming objects once the whole view is drawn."""
        if self._unreadable:
            self._unreadable = False
            self.status.say("")
        if image.refine_contrast():
            self.toolbar.refresh(image)
            self.screen.redraw()
        coming, expected, self._expected = self._coming, self._expected, self._coming
        for each in coming:
            if each not in expected:
                pieces = self._open_images.pieces_ahead(*each, self.model.view, self._chosen_scale())
                self.screen.loader.load_ahead(pieces)
        if running_loop() is None:
            return
        if coming[:1] != [self._prepared and self._prepared[0]]:
            self._prepare_soon.restart()
        elif self._prepared_scale != self._chosen_scale():
            self._prepare_soon.restart(_ZOOM_PAUSE)

    def _open(self) -> None:
        """Open the image of the model.

        The order matters. Nothing may be drawn before an image is open. The number of planes must be set before the
        toolbar is updated, because the plane slider is linked to the plane of the model.
        """
        model, screen = self.model, self.screen
        self._opened = model.scene = model.shape = model.hovered = None
        model.planes = 1
        model.lasso = ()
        screen.canvas.shown = None
        screen.pointer.set_shown(None, screen.canvas.frame)
        screen.canvas.clear()
        if model.image:
            try:
                with self._reading():
                    self._opened = image = self._open_images.open_image(model.image)
            finally:
                if self._opened is None:  # keys must not label what cannot be seen
                    model.selection = ()
            model.shape, model.planes = image.shape, image.planes
            self.toolbar.refresh(image)
            model.plane = image.planes // 2
            model.fit()
            self._show_details()

    def _list_images(self) -> None:
        model, names = self.model, list(self.project.images)
        self.toolbar.list_images(names, model.image)
        if model.image not in names:
            selected = [object_id.image for object_id in model.shared.selection]
            model.image = next(iter([*selected[:1], *names]), "")
        elif model.image and (self._opened is None or self._open_images.get_open(model.image) is not self._opened):
            self._open()  # its mask was replaced, or could not be read before

    def _change_plane(self) -> None:
        self.model.set_view(replace(self.model.view, plane=self.model.plane))

    def _change_view(self) -> None:
        self.screen.loader.retry_failed()
        self.screen.redraw()

    def _change_resolution(self) -> None:
        self.model.view = replace(self.model.view, dpr=self.screen.pointer.dpr)
        self.screen.redraw()

    def _change_size(self) -> None:
        """Adapt the image area to the width of the page, or to its whole box."""
        model, pointer, (max_height, max_width) = self.model, self.screen.pointer, self._max_size
        width = min(pointer.width, max_width)
        size = pointer.height or min(round(width * self._proportions), max_height), width
        if size != model.view.size:
            self.screen.canvas.set_width(width)
            shows_all = model.shape is not None and model.view == model.fitted_view(model.shape)
            was_visible = self._is_selected_visible()
            model.view = replace(model.view, size=size)
            if shows_all:
                model.fit()
            elif was_visible and not self._is_selected_visible():
                assert self._opened is not None
                model.set_view(self._opened.view_centered_on(model.selected, model.view))
            else:
                model.set_view(model.view)

    def _is_selected_visible(self) -> bool:
        model, image = self.model, self._opened
        return image is not None and bool(model.selected) and image.is_visible(model.selected, model.view)

    def _show_details(self) -> None:
        """Show small images of the selected object, whichever image it is in."""
        opened, selection = self._opened, self.model.shared.selection
        one = selection[0] if len(selection) == 1 else None
        palette = opened.palette if opened and one and opened.name == one.image else None
        self.object_details.show((*one, palette) if one else None)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Display read errors as a message, until the whole view can be read again."""
        try:
            yield
        except SvetlanaError:  # its message tells the user what to do
            self._unreadable = True
            raise
        except Exception as error:
            logger.exception("%s cannot be shown", self.model.image)
            self._raise_unreadable(error)

    def _raise_unreadable(self, error: Exception) -> None:
        self._unreadable = True
        raise unreadable_image(self.model.image, error) from error
