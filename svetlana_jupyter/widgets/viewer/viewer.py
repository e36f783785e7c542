"""The viewer: one image of a project with its objects, to look at, pick from and press keys on.

One image of a project as the viewer needs it: readers, contrast, and how its objects are marked.

The images of a viewer that stay open, and what they share: memory for their pixels, contrast set by hand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets
from ipywidgets import Box, VBox

from svetlana_jupyter.core.display.channels import (
    DisplaySettings,
    initial_display_settings,
    is_sampled_whole,
    sample_pixels,
)
from svetlana_jupyter.core.display.overlay import ObjectStyles, class_styles
from svetlana_jupyter.core.display.scene import Hint, Scene, compose, tiles_to_read
from svetlana_jupyter.core.display.tiles import MEMORY_MB, TileCache, TileReader, limit_cache, tile_cache
from svetlana_jupyter.core.display.viewport import Viewport
from svetlana_jupyter.core.io.images import is_rgb
from svetlana_jupyter.errors import InputError, SvetlanaError
from svetlana_jupyter.widgets.components import StatusLine
from svetlana_jupyter.widgets.object_indexing import ObjectIndexer
from svetlana_jupyter.widgets.panel import catch_errors
from svetlana_jupyter.widgets.scheduling import BackgroundLoader, Debounce, Throttle, running_loop
from svetlana_jupyter.widgets.viewer.canvas import ImageCanvas, lock
from svetlana_jupyter.widgets.viewer.interaction import SelectionId, ViewerInteraction, ViewerSelection
from svetlana_jupyter.widgets.viewer.object_details import Field, ObjectDetails
from svetlana_jupyter.widgets.viewer.pointer import Pointer
from svetlana_jupyter.widgets.viewer.toolbar import Toolbar

if TYPE_CHECKING:
    from collections.abc import Hashable

    import pandas as pd

    from svetlana_jupyter.core.display.tiles import TileGroup
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.project.project import Project

_SHARE, _MOST, _SCALE = 0.2, 0.6, 24.0  # of the screen: a usual object, a large one; screen pixels an image pixel
_SAID = {"ambiguous": "ambiguous", "bad_segmentation": "bad segmentation"}


class OpenImage:
    """An open image, with what the viewer remembers of it.

    Parameters
    ----------
    project : Project
    name : str
        Of the image.
    cache : TileCache
        Where pixels are kept.

    Attributes
    ----------
    pair : ImagePair
    image, mask : Reader
    pixels : array of shape (C, n)
        A sample of each channel, ascending.
    automatic, palette : Palette
        How the channels are shown at first, and now.
    planes : int
        1 in 2D.
    """

    def __init__(self, project: Project, name: str, cache: TileCache) -> None:
        self.pair: ImagePair = project.pair(name)
        pair = self.pair
        self.name = name
        self.image = TileReader(pair.image, pair.levels, cache)
        self.mask = TileReader(pair.mask, pair.mask_levels, cache)
        self.planes: int = pair.mask.sizes.get("z", 1)
        self.spacing = pair.spacing[-1] if pair.spacing else None
        self._look_over()
        self.palette = self.auto_palette
        self._project = project
        self._predictions: tuple[int, pd.DataFrame] | None = None
        self._marks: tuple[Hashable, ObjectStyles] | None = None
        self._places: tuple[pd.DataFrame, float] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.shape

    def refine_contrast(self) -> bool:
        """Choose the automatic contrast anew if by now the whole image has been seen; False if nothing changes.

        The few places that are read of a huge image at first may all be background.
        """
        if self._whole or not is_sampled_whole(self.image):
            return False
        before = self.auto_palette
        self._look_over()
        if self.palette == before:
            self.palette = self.auto_palette
        return self.auto_palette != before

    def _look_over(self) -> None:
        image = self.pair.image
        self._whole = is_sampled_whole(self.image)
        self.pixels = sample_pixels(self.image)
        self.auto_palette = initial_display_settings(list(self.pair.channels), is_rgb(image), image.dtype, self.pixels)

    def predictions(self) -> pd.DataFrame:
        """Return what the current run predicted here, read once."""
        version = self._project.predictions_version
        if self._predictions is None or self._predictions[0] != version:
            self._predictions = (version, self._project.probabilities(self.name))
        return self._predictions[1]

    def marks(self, overlay: str) -> ObjectStyles | None:
        """Return how the objects are marked by "annotations", "predictions" (annotations above them) or "off"."""
        if overlay == "off":
            return None
        project = self._project
        base = (self.name, overlay, project.classes_version, project.predictions_version)
        if self._marks is None or self._marks[0] != base:
            predicted = self.predictions()["predicted"] if overlay == "predictions" else None
            marks = class_styles(
                project.classes.scheme, lambda objects: project.annotations.labels_of(self.name, objects), predicted
            )
            self._marks = base, marks
        return self._marks[1].with_key((*base, project.annotations_version))

    def describe(self, label: int, overlay: str) -> str:
        """Say what an object is: its number, and what a person or else the classifier says of it."""
        annotation = self._project.annotations.label_of(self.name, label)
        classes = self._project.classes
        if annotation.action == "label":
            return f"object {label} · {classes.by_id(annotation.class_id).name}"
        if annotation.action in _SAID:
            return f"object {label} · {_SAID[annotation.action]}"
        predictions = self.predictions()
        if overlay == "predictions" and label in predictions.index:
            row = predictions.loc[label]
            name = classes.by_id(int(row["predicted"])).name
            return f"object {label} · {name}? {row['probability']:.0%}"
        return f"object {label}"

    def view_centered_on(self, label: int, view: Viewport, zoom: bool) -> Viewport:
        """Return the view with an object in its middle, or near it at the image's border.

        Parameters
        ----------
        label : int
        view : View
            Where to start from.
        zoom : bool
            Magnify so that the object and its surroundings are well seen.
        """
        table, usual = self._index()
        if label not in table.index:
            raise InputError(f"{self.name} has no object {label}; it has {len(table):,} objects.")
        row = table.loc[label]
        scale = view.scale
        if zoom:
            height, side = min(view.size), float(max(row["y1"] - row["y0"], row["x1"] - row["x0"]))
            scale = min(_SHARE * height / usual, _MOST * height / side, _SCALE)
            scale = max(scale, Viewport.fitted(self.shape, view.size).scale)
        # Pixel (row, column) is a square whose middle is half a pixel further.
        center = float(row["y"]) + 0.5, float(row["x"]) + 0.5
        return replace(view, center=center, scale=scale, plane=round(row["z"]) if "z" in table else view.plane).framed(
            self.shape
        )

    def _index(self) -> tuple[pd.DataFrame, float]:
        """Return the object index, and the median of the objects' longest sides."""
        table = self._project.objects(self.name)
        if self._places is None or self._places[0] is not table:
            sides = np.maximum(table["y1"] - table["y0"], table["x1"] - table["x0"])
            self._places = table, float(sides.median())
        return self._places


_KEPT = 4  # a queue goes back and forth between images


class Shelf:
    """Opens images, and keeps those open that were shown last.

    Parameters
    ----------
    project : Project
    status : Status
        Says how far the finding of objects is.

    Attributes
    ----------
    cache : TileCache
    indexing : Indexing
    """

    def __init__(self, project: Project, status: StatusLine) -> None:
        self.cache = tile_cache()
        self.indexing = ObjectIndexer(project, status)
        self._project = project
        self._kept: dict[str, OpenImage] = {}
        self._by_hand: dict[object, DisplaySettings] = {}

    def take(self, name: str) -> OpenImage:
        """Return an image, opened now or kept from before, in the contrast that was last set for its like."""
        opened = self.kept(name) or OpenImage(self._project, name, self.cache)
        self.put(opened)
        self.indexing.begin(name, opened.pair.mask.size)
        opened.palette = self._by_hand.get(opened.auto_palette.display_key, opened.auto_palette)
        return opened

    def kept(self, name: str) -> OpenImage | None:
        """Return an image if it is open, and its mask was not replaced since."""
        opened = self._kept.get(name)
        return opened if opened is not None and opened.pair is self._project.pair(name) else None

    def put(self, opened: OpenImage) -> None:
        """Keep an image; of more than a few, the one not taken for longest is closed."""
        self._kept.pop(opened.name, None)
        self._kept[opened.name] = opened
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]

    def ahead(self, image: str, label: int, view: Viewport) -> tuple[TileGroup, ...]:
        """Return what would have to be read to bring an object into this view; nothing for images that are not open."""
        opened = self.kept(image)
        if opened is None or not self._project.images.is_indexed(image):
            return ()
        return tiles_to_read(opened.image, opened.mask, opened.view_centered_on(label, view, zoom=True))

    def set_manual_palette(self, opened: OpenImage, palette: DisplaySettings) -> None:
        """Show an image, and those to come with the same channels, in this palette; the automatic one ends that."""
        opened.palette = palette
        self._by_hand[palette.display_key] = palette
        if palette == opened.auto_palette:
            del self._by_hand[palette.display_key]


logger = logging.getLogger(__name__)


class Viewer(ViewerSelection, VBox):
    """Shows one image of a project, its segmentation, annotations and predictions.

    A click picks an object, dragging moves the image, the wheel zooms; keys that do not move the view go to `on_key`.
    How several objects are selected, `ViewerSelection` says.

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
    memory_mb : float
        How much of the decoded pixels is kept, of all images together; the rest is read again when it is shown.
    view : View
    scene : Scene or None
        What is on the screen; None before an image could be shown.
    stage : Box
        Holds the picture, and what a panel lays over it.
    beside : Beside
        Small pictures of the selected object.
    """

    image = traitlets.Unicode()
    overlay = traitlets.Enum(["annotations", "predictions", "off"], "annotations")
    opacity = traitlets.Float(0.25)
    outlines = traitlets.Bool(True)
    plane = traitlets.Int(0)
    memory_mb = traitlets.Float(MEMORY_MB)

    def __init__(self, project: Project, size: tuple[int, int] = (520, 740)) -> None:
        super().__init__(layout={"width": f"{size[1]}px", "flex": "0 0 auto"})
        self.add_class("sv-viewer")
        self.project = project
        self.status = StatusLine(hides=True)
        self.scene: Scene | None = None
        self.view = Viewport((0.0, 0.0), 1.0, size)
        self._opened: OpenImage | None = None
        self._open_images = Shelf(project, self.status)
        self._watching: list[tuple[traitlets.HasTraits, Callable[[Any], None], list[str]]] = []
        self._unreadable = False
        self._coming: list[tuple[str, int]] = []
        self._hint: Hint | None = None
        self._field: Field | None = None
        self._still = self._moving = False
        self._key_callbacks: list[Callable[[str, SelectionId], Any]] = []
        self._throttle = Throttle(catch_errors(self._draw, self.status))
        self._rest = Debounce(self._sharpen)
        self._loader = BackgroundLoader(self._throttle.request, catch_errors(self._say_unreadable, self.status))
        self._surface = ImageCanvas(size, self._throttle.request)
        self._pointer = Pointer(self._surface.widget[-1].model_id)
        self._toolbar = Toolbar(self)
        self.stage = Box([self._surface.widget])
        self.stage.add_class("sv-stage")
        self.beside = ObjectDetails(project, catch_errors(self._frame, self.status))
        self.children = (self._toolbar, self.stage, self._toolbar.plane, self.status, self.beside, self._pointer)
        navigation = ViewerInteraction(self)
        self._surface.listen(navigation)
        self._pointer.listen(navigation)
        self._when(self._pointer, self._resolve, "dpr")
        self._when(self, self._open, "image")
        self._when(self, self._change_plane, "plane")
        self._when(self, self.redraw, "selection", "overlay", "opacity", "outlines")
        self._when(self, self._look_closer, "selected")
        self._when(self, lambda: limit_cache(self._open_images.cache, self.memory_mb), "memory_mb")
        self._when(project, self._list_images, "images_version")
        self._when(project, self.redraw, "annotations_version", "predictions_version", "classes_version")
        self._list_images()

    def show(self, image: str, label: int = 0, zoom: bool = True) -> None:
        """Show an image and select an object of it.

        Parameters
        ----------
        image : str
        label : int
            Brought to the middle of the screen, or near it at the image's border; with 0 the view stays as it is.
        zoom : bool
            Magnify so that the object and its surroundings are well seen.

        Raises
        ------
        InputError
            If the image has no such object.
        """
        self.image = image
        if self._opened is None or not label:
            self.selection = ()
            return
        view = self._opened.view_centered_on(label, self.view, zoom)
        self.selected = label
        self.plane = view.plane
        self.look(view)

    def prefetch(self, objects: Iterable[tuple[str, int]]) -> None:
        """Read what `show` would need of these ``(image, object)``, off the loop and once the screen is up to date."""
        self._coming = list(objects)
        self._throttle.request()

    def on_key(self, act: Callable[[str, SelectionId], Any]) -> None:
        """Call ``act(key, shown)`` for each key that does not move the view.

        ``shown`` is the `picked` of the screen on which the key was pressed: the ``(image, object)``, or None when no
        object was selected. With Ctrl or Command the key is named ``"Ctrl+z"``.
        """
        self._key_callbacks.append(act)

    def focus(self) -> None:
        """Give the keyboard to the picture."""
        self._surface.widget.focus()

    def look(self, view: Viewport, moving: bool = False) -> None:
        """Show another part of the image; it is ``moving`` while it is being dragged."""
        if self._opened is not None:
            self._moving = moving
            self.view = view.clamped(self._opened.shape)
            self._loader.retry_failed()
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
            self.look(Viewport.fitted(self._opened.shape, self.view.size, self.view.dpr, self.plane))

    def step_plane(self, by: int) -> None:
        """Go up or down in a volume."""
        if self._opened is not None:
            self.plane = min(max(self.plane + by, 0), self._opened.planes - 1)

    def set_palette(self, palette: DisplaySettings) -> None:
        """Show the image, and those to come with the same channels, with another contrast or other channels."""
        if self._opened is not None:
            self._open_images.set_manual_palette(self._opened, palette)
            self.redraw()
            self._look_closer()

    def hover(self, row: float, column: float) -> None:
        """Name the object under a point of the screen."""
        label = self.scene.object_at(row, column) if self.scene is not None else 0
        if not label or self._opened is None:
            self.stop_hovering()
            return
        self._hint = Hint(self._opened.describe(label, self.overlay), (row, column))
        self.redraw()

    def stop_hovering(self) -> None:
        """The pointer is on no object."""
        if self._hint is not None:
            self._hint = None
            self.redraw()

    def press(self, key: str, shown: SelectionId) -> None:
        """Pass a key on, with the object that was on the screen."""
        for act in self._key_callbacks:
            act(key, shown)

    def redraw(self) -> None:
        """Bring the screen up to date, as soon as it can follow."""
        self._still = False
        self._throttle.request()

    def close(self) -> None:
        """Stop following the project, and remove the viewer."""
        for source, act, names in self._watching:
            source.unobserve(act, names)
        self._watching.clear()
        self._loader.close()
        super().close()

    def _look_closer(self) -> None:
        """Show the selected object in small pictures."""
        self._field = None
        if self._opened is not None:
            self.beside.show(self.image, self.selected, self._opened.palette)

    def _frame(self, field: Field | None) -> None:
        """Frame what of the image the patch of the selected object shows."""
        if field != self._field:
            self._field = field
            self.redraw()

    def _draw(self) -> None:
        with lock:
            if self._opened is not None:
                self._draw_image(self._opened)

    def _draw_image(self, opened: OpenImage) -> None:
        with self._reading():
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
                field=self._field,
                spacing=opened.spacing,
                previous=self.scene,
                # With a loop, what takes long is read beside it, and the picture is drawn again as the pieces come.
                allow_missing=running_loop() is not None,
                moving=self._moving,
            )
        self._pointer.tell(self.picked, self._surface.frame + 1)  # first, as it is small and the picture is not
        self._surface.paint(scene, lossless=self._still)
        self._surface.shown = self.picked
        self.scene = scene
        self._loader.load_visible(scene.missing)
        if not scene.missing:
            self._all_there(opened)
        if not self._loader.busy and not self._surface.settled:
            self._rest.restart()

    def _all_there(self, opened: OpenImage) -> None:
        """Go on to what could wait until the screen shows everything."""
        if self._unreadable:
            self._unreadable = False
            self.status.say("")
        if opened.refine_contrast():
            self._toolbar.follow(opened)
            self.redraw()
        coming, self._coming = self._coming, []
        for image, label in coming:
            self._loader.load_ahead(self._open_images.ahead(image, label, self.view))

    def _sharpen(self) -> None:
        self._still = True
        self._throttle.request()

    def _open(self) -> None:
        self._opened = self._hint = self.scene = None
        self.selection = self.lasso = ()
        self._surface.shown = None
        self._pointer.tell(None, self._surface.frame)
        self._surface.blank()
        if self.image:
            with self._reading():
                self._opened = self._open_images.take(self.image)
            self._toolbar.follow(self._opened)
            self.plane = self._opened.planes // 2
            self.fit()

    def _list_images(self) -> None:
        names = list(self.project.images)
        self._toolbar.list_images(names, self.image)
        if self.image not in names:
            self.image = names[0] if names else ""
        elif (
            self._opened is not None and self._open_images.kept(self.image) is not self._opened
        ):  # its mask was replaced
            self._open()

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
    def _reading(self) -> Iterator[None]:
        """Say in the user's words that pixels could not be read; the sentence goes when all can be."""
        try:
            yield
        except SvetlanaError:  # says what to do already
            self._unreadable = True
            raise
        except Exception as error:
            logger.exception("%s cannot be shown", self.image)
            self._say_unreadable(error)

    def _say_unreadable(self, error: Exception) -> None:
        self._unreadable = True
        raise InputError(
            f"{self.image} cannot be shown ({error}). Check that its files are whole and where they were; "
            "nothing is lost, and other images can be shown."
        ) from error

    def _when(self, source: traitlets.HasTraits, act: Callable[[], None], *names: str) -> None:
        safe = catch_errors(act, self.status)

        def changed(change: Any) -> None:
            safe()

        source.observe(changed, list(names))
        self._watching.append((source, changed, list(names)))
