"""Observable state of the views: of one viewer, and shared by all views."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import traitlets

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.display.viewport import Viewport
from svetlana_jupyter.widgets.object_filter import ObjectFilter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from svetlana_jupyter.core.display.scene import Scene
    from svetlana_jupyter.project.project import Project

SelectionId = tuple[str, int] | None


class SharedModel(traitlets.HasTraits):
    """Selection that all views of a project share: images, galleries and maps.

    Attributes
    ----------
    selection : tuple of ObjectId
        Selected objects, of any images. Keys and buttons apply to all of them.
    changes : int
        Number of changes of the selection. Not a trait.
    listed : tuple of (str, tuple of ObjectId)
        List of objects that a gallery shows instead of all objects, with its title, such as the objects inside a lasso
        or similar objects; ``("", ())`` for none.
    filter : ObjectFilter
        Filter of all views: a gallery shows only the objects that it selects; images and maps show only these in color,
        and a box or lasso selects no others.
    """

    selection = traitlets.Tuple()
    filter = traitlets.Instance(ObjectFilter, args=())
    listed = traitlets.Tuple(("", ()))

    def __init__(self) -> None:
        self.changes = 0
        super().__init__()

    @property
    def selection_id(self) -> SelectionId:
        """Identifier of the current selection; None if nothing is selected.

        A single object is ``(image, label)``. Several objects are ``(image, -n)``, where n counts selections, so that a
        key pressed for one selection is never applied to another.
        """
        if len(self.selection) > 1:
            return self.selection[0].image, -self.changes
        return self.selection[0] if self.selection else None

    def labels_in(self, image: str) -> tuple[int, ...]:
        """Return the labels of the selected objects of an image."""
        return tuple(label for name, label in self.selection if name == image)

    def keep_only(self, masks: Mapping[str, int], before: Mapping[str, int]) -> None:
        """Deselect objects whose image was removed or whose mask was replaced."""
        self.selection = tuple(each for each in self.selection if masks.get(each.image) == before.get(each.image))

    @traitlets.validate("selection")
    def _unique_ids(self, proposal: dict[str, Any]) -> tuple[ObjectId, ...]:
        objects: Iterable[tuple[str, int]] = proposal["value"]
        return tuple(dict.fromkeys(each if type(each) is ObjectId else ObjectId(*each) for each in objects))

    # This observer runs before all others, which therefore find the count up to date.
    @traitlets.observe("selection")
    def _count_change(self, change: dict[str, Any]) -> None:
        self.changes += 1


_models: WeakKeyDictionary[Project, SharedModel] = WeakKeyDictionary()


def shared_model(project: Project) -> SharedModel:
    """Return the model that all views of a project share."""
    if project not in _models:
        _models[project] = model = SharedModel()
        masks = project.images.mask_numbers()

        def images_changed(change: object) -> None:
            nonlocal masks
            before, masks = masks, project.images.mask_numbers()
            model.keep_only(masks, before)

        project.observe(images_changed, "images_version")
    return _models[project]


class ViewerModel(traitlets.HasTraits):
    """View and selection of a viewer.

    The viewer, its toolbar and the panel around it observe the traits. Traits are set only on the thread of the
    kernel's event loop, and never while a frame is drawn.

    Parameters
    ----------
    size : tuple of int
        Height and width of the displayed image area, in CSS pixels.
    shared : SharedModel, optional
        Selection that this viewer shares with other views; by default its own.

    Attributes
    ----------
    shared : SharedModel
    image : str
        Name of the displayed image; empty when the project has none.
    shape : tuple of int or None
        Rows and columns of the open image; None while no image is open.
    planes : int
        Number of planes of the open image, 1 in 2D.
    plane : int
        Displayed plane of a volume.
    view : Viewport
        Displayed part of the image. Change it by `set_view`.
    view_requests : int
        Number of calls of `set_view`. The viewer redraws when this count changes, because even setting an equal view
        must redraw: after a read error, the user retries the read in this way.
    moving : bool
        Whether the image is being dragged. Not a trait.
    scene : Scene or None
        Contents of the last frame; None before the first frame of an image. Not a trait, because comparing two scenes
        would compare arrays.
    selection : tuple of int
        Selected objects of the displayed image, ascending.
    selected : int
        The selected object if exactly one object is selected and it is in the displayed image, else 0.
    tool : {"move", "box", "lasso"}
        Effect of dragging.
    add_to_selection : bool
        Whether a click, a box or a lasso adds to the selection, as with Shift.
    plane_scope : {"plane", "range", "all"}
        Planes of a volume in which the box or lasso selects objects: objects visible on the displayed plane, objects
        whose centroid lies in ``plane_range``, or all objects.
    plane_range : tuple of int
        First and last plane for the plane scope "range".
    lasso : tuple of (y, x)
        Corners of the box or lasso that is being drawn, in image coordinates.
    menu : tuple of float or None
        Row and column of the screen at which the context menu is open; None while it is closed.
    overlay : {"annotations", "predictions", "uncertainty", "off"}
        Source of the object colors. Annotations take precedence over predictions and their uncertainty.
    opacity : float
        Opacity of the object colors, 0 to 1.
    outlines : bool
        Whether objects are outlined.
    hovered : tuple of (int, float, float) or None
        Object under the pointer, with the pointer's row and column on the screen.
    """

    image = traitlets.Unicode()
    shape = traitlets.Instance(tuple, allow_none=True)
    planes = traitlets.Int(1)
    plane = traitlets.Int(0)
    view = traitlets.Instance(Viewport)
    view_requests = traitlets.Int(0)
    selection = traitlets.Tuple()
    selected = traitlets.Int(0)
    tool = traitlets.Enum(["move", "box", "lasso"], "move")
    add_to_selection = traitlets.Bool(False)
    plane_scope = traitlets.Enum(["plane", "range", "all"], "plane")
    plane_range = traitlets.Tuple((0, 0))
    lasso = traitlets.Tuple()
    menu = traitlets.Instance(tuple, allow_none=True)
    overlay = traitlets.Enum(["annotations", "predictions", "uncertainty", "off"], "annotations")
    opacity = traitlets.Float(0.25)
    outlines = traitlets.Bool(True)
    hovered = traitlets.Instance(tuple, allow_none=True)

    def __init__(self, size: tuple[int, int], shared: SharedModel | None = None) -> None:
        self.scene: Scene | None = None
        self.moving = False
        self.shared = shared or SharedModel()
        self._following = False  # while this model adopts the shared selection
        super().__init__(view=Viewport((0.0, 0.0), 1.0, size))
        self.shared.observe(self._follow_shared, "selection")

    @property
    def selection_id(self) -> SelectionId:
        """Identifier of the shared selection; None if none of it is in this image.

        The selection need not be on the screen yet.
        """
        return self.shared.selection_id if self.selection else None

    def close(self) -> None:
        """Stop following the shared selection."""
        with suppress(ValueError):  # closed before
            self.shared.unobserve(self._follow_shared, "selection")

    def set_view(self, view: Viewport, moving: bool = False) -> None:
        """Show another part of the image; ``moving`` is True while the user drags it."""
        if self.shape is not None:
            self.moving = moving
            self.view = view.clamped(self.shape)
            self.view_requests += 1

    def zoom(self, factor: float, about: tuple[float, float] | None = None) -> None:
        """Zoom about a point (row, column) of the screen, by default its center."""
        self.set_view(self.view.zoomed(factor, about))

    def zoom_to_pixels(self) -> None:
        """Show one image pixel per device pixel."""
        self.zoom(1 / self.view.device_scale)

    def fit(self) -> None:
        """Show the whole image."""
        if self.shape is not None:
            self.set_view(self.fitted_view(self.shape))

    def fitted_view(self, shape: tuple[int, int]) -> Viewport:
        """Return the view that shows a whole image of shape (Y, X)."""
        return Viewport.fitted(shape, self.view.size, self.view.dpr, self.plane)

    def step_plane(self, by: int) -> None:
        """Change the displayed plane of a volume by a number of planes."""
        self.plane += by

    def object_at(self, row: float, column: float) -> int:
        """Return the object at a point of the screen, or 0."""
        return self.scene.object_at(row, column) if self.scene is not None else 0

    @traitlets.validate("plane")
    def _clip_plane(self, proposal: dict[str, Any]) -> int:
        return min(max(int(proposal["value"]), 0), self.planes - 1)

    @traitlets.validate("selection")
    def _sort_selection(self, proposal: dict[str, Any]) -> tuple[int, ...]:
        return tuple(sorted({int(label) for label in proposal["value"]}))

    def _follow_shared(self, change: object = None) -> None:
        """Adopt the part of the shared selection that is in the displayed image."""
        self._following, before = True, self._following
        try:
            self.selection = self.shared.labels_in(self.image)
            self.selected = self.selection[0] if len(self.shared.selection) == len(self.selection) == 1 else 0
        finally:
            self._following = before

    # These observers run before all others, which therefore find the menu, the selection and `selected` up to date.
    @traitlets.observe("image")
    def _image_changed(self, change: dict[str, Any]) -> None:
        """Keep what is selected in the new image, else deselect everything."""
        self._follow_shared()
        if not self.selection:
            self.shared.selection = ()

    @traitlets.observe("selection")
    def _selection_changed(self, change: dict[str, Any]) -> None:
        self.menu = None
        if not self._following:
            self.shared.selection = tuple(ObjectId(self.image, label) for label in self.selection)
            self._follow_shared()

    @traitlets.observe("selected")
    def _selected_changed(self, change: dict[str, Any]) -> None:
        if not self._following:
            self.selection = (self.selected,) if self.selected else ()
