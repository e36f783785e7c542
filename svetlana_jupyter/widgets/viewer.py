"""The viewer: one image of a project with its objects, to look at, pick from and press keys on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import traitlets
from ipywidgets import Box, VBox

from svetlana_jupyter.core.contrast import Palette
from svetlana_jupyter.core.scene import Hint, Scene, compose
from svetlana_jupyter.core.view import View
from svetlana_jupyter.errors import InputError, SvetlanaError
from svetlana_jupyter.widgets.canvas import CanvasSurface, lock
from svetlana_jupyter.widgets.navigation import Navigation
from svetlana_jupyter.widgets.opened import OpenImage
from svetlana_jupyter.widgets.pace import Pace, Rest
from svetlana_jupyter.widgets.panel import guarded
from svetlana_jupyter.widgets.parts import Status
from svetlana_jupyter.widgets.picking import Picking, Shown
from svetlana_jupyter.widgets.pointer import Pointer
from svetlana_jupyter.widgets.toolbar import Toolbar

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

_KEPT = 4  # images that stay open: a queue goes back and forth between images
_OBJECT_SHARE, _OBJECT_MOST, _OBJECT_SCALE = 0.2, 0.6, 24.0  # of the screen: a usual object, a large one; pixels

logger = logging.getLogger(__name__)


class Viewer(Picking, VBox):
    """Shows one image of a project, its segmentation, annotations and predictions.

    A click picks an object, dragging moves the image, the wheel zooms; keys that do not move the view go to `on_key`.
    How several objects are selected, `Picking` says.

    Parameters
    ----------
    project : Project
    size : tuple of int
        Height and width of the picture, in screen pixels.

    Attributes
    ----------
    image : str
        Name of the image shown; empty when the project has none.
    overlay : {"annotations", "predictions", "off"}
        What objects are coloured by; annotations are shown above predictions.
    opacity : float
        Of the objects' tint, 0 to 1.
    outlines : bool
    plane : int
        The plane shown of a volume.
    view : View
    scene : Scene or None
        What is on the screen; None before an image could be shown.
    stage : Box
        Holds the picture, and what a panel lays over it.
    """

    image = traitlets.Unicode()
    overlay = traitlets.Enum(["annotations", "predictions", "off"], "annotations")
    opacity = traitlets.Float(0.25)
    outlines = traitlets.Bool(True)
    plane = traitlets.Int(0)

    def __init__(self, project: Project, size: tuple[int, int] = (520, 740)) -> None:
        super().__init__(layout={"width": f"{size[1]}px", "flex": "0 0 auto"})
        self.add_class("sv-viewer")
        self.project = project
        self.status = Status()
        self.scene: Scene | None = None
        self.view = View((0.0, 0.0), 1.0, size)
        self._opened: OpenImage | None = None
        self._kept: dict[str, OpenImage] = {}
        self._watching: list[tuple[traitlets.HasTraits, Callable[[Any], None], list[str]]] = []
        self._by_hand: dict[object, Palette] = {}
        self._unreadable = False
        self._hint: Hint | None = None
        self._still = False
        self._key_callbacks: list[Callable[[str, Shown], Any]] = []
        self._pace = Pace(guarded(self._draw, self.status))
        self._rest = Rest(self._sharpen)
        self._surface = CanvasSurface(size, self._pace.request)
        self._pointer = Pointer()
        self._toolbar = Toolbar(self)
        self.stage = Box([self._surface.widget])
        self.stage.add_class("sv-stage")
        self.children = (self._toolbar, self.stage, self._toolbar.plane, self.status, self._pointer)
        self.status.observe(lambda _: self._show_status(), "value")
        self._show_status()
        navigation = Navigation(self)
        self._surface.listen(navigation)
        self._pointer.listen(navigation)
        self._when(self._pointer, self._resolve, "dpr")
        self._when(self, self._open, "image")
        self._when(self, self._change_plane, "plane")
        self._when(self, self.redraw, "selection", "overlay", "opacity", "outlines")
        self._when(project, self._list_images, "images_version")
        self._when(project, self.redraw, "annotations_version", "predictions_version", "classes_version")
        self._list_images()

    def show(self, image: str, object: int = 0, zoom: bool = True) -> None:
        """Show an image and select an object of it.

        Parameters
        ----------
        image : str
        object : int
            Brought to the middle of the screen, or near it at the image's border; with 0 the view stays as it is.
        zoom : bool
            Magnify so that the object and its surroundings are well seen.

        Raises
        ------
        InputError
            If the image has no such object.
        """
        self.image = image
        if self._opened is None or not object:
            self.selection = ()
            return
        center, side, usual = self._opened.place(object)
        self.selected = object
        scale = self.view.scale
        if zoom:
            height = min(self.view.size)
            scale = min(_OBJECT_SHARE * height / usual, _OBJECT_MOST * height / side, _OBJECT_SCALE)
            scale = max(scale, View.fitted(self._opened.shape, self.view.size).scale)
        if len(center) == 3:
            self.plane = round(center[0])
        # Pixel (row, column) is a square whose middle is half a pixel further.
        view = replace(self.view, center=(center[-2] + 0.5, center[-1] + 0.5), scale=scale)
        self.look(view.framed(self._opened.shape))

    def on_key(self, act: Callable[[str, Shown], Any]) -> None:
        """Call ``act(key, shown)`` for each key that does not move the view.

        ``shown`` is the `picked` of the screen on which the key was pressed: the ``(image, object)``, or None when no
        object was selected. With Ctrl or Command the key is named ``"Ctrl+z"``.
        """
        self._key_callbacks.append(act)

    def focus(self) -> None:
        """Give the keyboard to the picture."""
        self._surface.widget.focus()

    def look(self, view: View) -> None:
        """Show another part of the image."""
        if self._opened is not None:
            self.view = view.bounded(self._opened.shape)
            self.redraw()

    def zoom(self, factor: float, about: tuple[float, float] | None = None) -> None:
        """Magnify about a point (row, column) of the screen, by default its middle."""
        self.look(self.view.zoomed(factor, about))

    def zoom_to_pixels(self) -> None:
        """Show one image pixel on one device pixel."""
        self.zoom(1 / self.view.device_scale)

    def fit(self) -> None:
        """Show the whole image."""
        if self._opened is not None:
            self.look(View.fitted(self._opened.shape, self.view.size, self.view.dpr, self.plane))

    def step_plane(self, by: int) -> None:
        """Go up or down in a volume."""
        if self._opened is not None:
            self.plane = min(max(self.plane + by, 0), self._opened.planes - 1)

    def show_as(self, palette: Palette) -> None:
        """Show the image, and those to come with the same channels, with another contrast or other channels."""
        if self._opened is not None:
            self._opened.palette = palette
            self._by_hand[palette.kind] = palette
            if palette == self._opened.automatic:
                del self._by_hand[palette.kind]
            self.redraw()

    def hover(self, row: float, column: float) -> None:
        """Name the object under a point of the screen."""
        object = self.scene.object_at(row, column) if self.scene is not None else 0
        if not object or self._opened is None:
            self.stop_hovering()
            return
        self._hint = Hint(self._opened.describe(object, self.overlay), (row, column))
        self.redraw()

    def stop_hovering(self) -> None:
        """The pointer is on no object."""
        if self._hint is not None:
            self._hint = None
            self.redraw()

    def press(self, key: str, shown: Shown) -> None:
        """Pass a key on, with the object that was on the screen."""
        for act in self._key_callbacks:
            act(key, shown)

    def redraw(self) -> None:
        """Bring the screen up to date, as soon as it can follow."""
        self._still = False
        self._pace.request()

    def close(self) -> None:
        """Stop following the project, and remove the viewer."""
        for source, act, names in self._watching:
            source.unobserve(act, names)
        self._watching.clear()
        super().close()

    def _draw(self) -> None:
        with lock:
            if self._opened is not None:
                self._draw_image(self._opened)

    def _draw_image(self, opened: OpenImage) -> None:
        with self._reading(opened.name):
            scene = compose(
                opened.image,
                opened.mask,
                self.view,
                opened.palette,
                opened.marks(self.overlay),
                opacity=self.opacity,
                outlines=self.outlines,
                selected=self.selection,
                hint=self._hint,
                lasso=self.lasso,
                spacing=opened.spacing,
                before=self.scene,
                quick=not self._still,
            )
        self._surface.paint(scene, lossless=self._still)
        self._tell_shown(self.picked)
        self.scene = scene
        if scene.coarse or not self._surface.settled:
            self._rest.restart()

    def _sharpen(self) -> None:
        self._still = True
        self._pace.request()

    def _tell_shown(self, shown: Shown) -> None:
        """Say which object keys are meant for from now on, behind the frame that shows it."""
        self._surface.shown = shown
        self._pointer.tell(shown)

    def _open(self) -> None:
        self._opened = self._hint = self.scene = None
        self.selection = self.lasso = ()
        self._tell_shown(None)
        self._surface.blank()
        if self.image:
            with self._reading(self.image):
                self._opened = self._opening(self.image)
            self._toolbar.follow(self._opened)
            self.plane = self._opened.planes // 2
            self.fit()

    def _opening(self, name: str) -> OpenImage:
        opened = self._kept.pop(name, None) or OpenImage(self.project, name)
        self._kept[name] = opened  # behind all others: the first is the one not seen for longest
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        opened.palette = self._by_hand.get(opened.automatic.kind, opened.automatic)
        return opened

    def _list_images(self) -> None:
        names = list(self.project.images)
        self._toolbar.list_images(names, self.image)
        if self.image not in names:
            self.image = names[0] if names else ""

    def _change_plane(self) -> None:
        self.look(replace(self.view, plane=self.plane))

    @traitlets.validate("plane")
    def _existing_plane(self, proposal: dict[str, Any]) -> int:
        planes = self._opened.planes if self._opened is not None else 1
        return min(max(proposal["value"], 0), planes - 1)

    def _resolve(self) -> None:
        self.view = replace(self.view, dpr=self._pointer.dpr)
        self.redraw()

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Say in the user's words that pixels could not be read; the sentence goes when they can be."""
        try:
            yield
        except SvetlanaError:  # says what to do already
            self._unreadable = True
            raise
        except Exception as error:
            self._unreadable = True
            logger.exception("%s cannot be shown", name)
            raise InputError(
                f"{name} cannot be shown ({error}). Check that its files are whole and where they were; "
                "nothing is lost, and other images can be shown."
            ) from error
        if self._unreadable:
            self._unreadable = False
            self.status.say("")

    def _when(self, source: traitlets.HasTraits, act: Callable[[], None], *names: str) -> None:
        safe = guarded(act, self.status)

        def changed(change: Any) -> None:
            safe()

        source.observe(changed, list(names))
        self._watching.append((source, changed, list(names)))

    def _show_status(self) -> None:
        self.status.layout.display = "" if self.status.text else "none"
