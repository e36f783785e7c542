"""Label panel: image, gallery and map as views of one selection, with a queue."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ipywidgets import HTML, Box, Dropdown, HBox, ToggleButton, ToggleButtons, VBox
from traitlets import link

from svetlana_jupyter.core.annotations import UNLABELED, ObjectId
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.class_editor import ClassEditor, NewClassField
from svetlana_jupyter.widgets.components import muted, no_images_hint, set_options
from svetlana_jupyter.widgets.gallery.gallery_view import GalleryView
from svetlana_jupyter.widgets.label_sidebar import (
    CONFLICT_TIP,
    HIDDEN_SIMILAR,
    QUEUED,
    NextObjects,
    SelectedObject,
    SimilarObjects,
    class_totals,
    key_hints,
    section,
    similar_objects,
    tally_html,
)
from svetlana_jupyter.widgets.labeling import LabelingPanel
from svetlana_jupyter.widgets.map_panel import MapToolbar
from svetlana_jupyter.widgets.map_view import MapView
from svetlana_jupyter.widgets.object_filter import STATUS_TITLES, ObjectFilter
from svetlana_jupyter.widgets.panel import WORKSPACE_WIDTH, Command, as_project, catch_errors, labeling_commands
from svetlana_jupyter.widgets.scheduling import KeyPause, running_loop
from svetlana_jupyter.widgets.viewer.open_images import predicted_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from svetlana_jupyter.core.queue import QueuedObject
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.queues import Queue
    from svetlana_jupyter.widgets.gallery.grid import PatchGrid
    from svetlana_jupyter.widgets.viewer.viewer_model import SelectionId, SharedModel

_VIEWS = (("Image", "image"), ("Gallery", "gallery"), ("Map", "map"), ("Both", "both"))
_VIEW_ICONS = ("picture-o", "th", "braille", "columns")
_VIEW_TIPS = (
    "The image",
    "All objects as thumbnails",
    "Map of all objects: similar ones are close to each other",
    "The image beside the gallery or the map, whichever was shown last",
)
_OVERLAYS = (("Predictions", "predictions"), ("Uncertainty", "uncertainty"), ("Labels", "annotations"), ("Off", "off"))
_OVERLAY_ICONS = ("circle", "adjust", "dot-circle-o", "ban")
_OVERLAY_TIPS = (
    f"Colors of predicted classes; labeled objects have a thick outline and a dot. {CONFLICT_TIP}",
    "Brighter where the classifier is less certain",
    "Colors of labeled objects only",
    "No colors",
)
_COLORINGS = {"predictions": "prediction", "uncertainty": "probability", "annotations": "label", "off": "off"}
_TOOLS = (("Pick", "move"), ("Box", "box"), ("Lasso", "lasso"))
_TOOL_ICONS = ("mouse-pointer", "object-group", "pencil")
_TOOL_TIPS = ("Click to select, drag to move", "Drag a box around objects (x)", "Draw a line around objects (l)")
_FLAGS = (("Flag …", ""), ("Ambiguous", "Ambiguous"), ("Bad outline", "Bad segmentation"), ("Erase label", "Erase"))
_COLUMNS_TIP = "Labels given, and objects of the class: as labeled or else predicted, as in Results"
_FIRST = "Click an object or press Space; then press the key of its class."
_COMPUTING = "The features of the objects are being computed."
_NOT_PREDICTED = "No selected object is predicted yet."
_SIZE, _MAX_SIZE = (480, 640), (2000, 4000)


class LabelPanel(LabelingPanel):
    """Workspace in which the user labels objects and sees all predictions.

    Image, gallery and map are views of one selection; class keys, Enter, undo, flags and Skip mean the same in all.
    The panel fills the width and height of the page.

    Parameters
    ----------
    project : Project or path

    Attributes
    ----------
    views : ToggleButtons
        The displayed views: "image", "gallery", "map" or "both".
    overlay, tool : ToggleButtons
    filter : FilterControls
    gallery : GalleryView or None
    map : MapView or None
        None before it is first displayed.
    object : SelectedObject
    next_objects : NextObjects
    similar : SimilarObjects
    """

    fills: ClassVar[bool] = True

    def __init__(self, project: Project | str | Path) -> None:
        project = as_project(project)
        if running_loop() is not None:  # without one, predictions would arrive on another thread
            project.live.start()  # before anything asks for predictions, which would be computed at once
        super().__init__(project, "useful", "panel", edit=lambda name: self.editor.edit(name))
        self.layout.max_width = WORKSPACE_WIDTH
        self.add_class("sv-space")
        self.gallery: GalleryView | None = None
        self.map: MapView | None = None
        self._map_box, self._second = VBox().add_class("sv-gallery"), "gallery"
        self.editor, self.new_class = ClassEditor(self), NewClassField(self)
        self.viewer.model.overlay = "predictions"
        self.command_bar.set_commands(*self._commands())
        self.hint = no_images_hint()
        self._area = Box([self.viewer]).add_class("sv-area")
        self.key_line = HTML(layout={"margin": "0", "flex": "0 0 auto"})
        self.body = HBox([VBox([self._make_tools(), self._area]).add_class("sv-main"), self._make_side()])
        self.body.add_class("sv-body")
        foot = HBox([self.status, self.key_line, self.command_bar.help_button]).add_class("sv-foot")
        self.command_bar.help.add_class("sv-help")
        self.children = (self._style, self.hint, self.body, foot, self.command_bar.help)
        self._update_later = KeyPause(catch_errors(self._update_side, self.status))
        self._observe_changes()
        self._refresh()
        self.show_hint(_FIRST if project.images else "")
        project.live.urgent_objects = self._urgent_objects

    @property
    def queue(self) -> Queue:
        """The chosen queue of objects, created at its first use."""
        if self._queue is None:
            images = self.viewer.indexing.objects(self.project.images)
            self._queue = self.project.queue(self._kind, images=images, classes=self.next_objects.classes)
        return self._queue

    def show_view(self, name: str) -> None:
        """Show the image, the gallery, the map, or the image beside one of them."""
        self._second = name if name in ("gallery", "map") else self._second
        shown = {"both": ("image", self._second)}.get(name, (name,))
        if "gallery" in shown and self.gallery is None:
            self.gallery = self._make_gallery()
            self._area.children = (*self._area.children, self.gallery)
        if "map" in shown and self.map is None:
            self.map = self._make_map()
            self._area.children = (*self._area.children, self._map_box)
        views = {"image": (self.viewer, self.viewer), "gallery": (self.gallery, self.gallery)}
        for part, (view, box) in (views | {"map": (self.map, self._map_box)}).items():
            if view is not None:
                box.layout.display = "" if part in shown else "none"
                view.is_shown = part in shown
        for control, parts in self._tools_of:
            control.layout.display = "" if set(parts) & set(shown) else "none"
        self.focus()

    def accept(self, object_id: ObjectId | None) -> None:
        """Keep the prediction of each selected object as its label."""
        predicted = {each: predicted_class(self.project, *each)[0] for each in self.shared.selection}
        by_id = self.project.classes.by_id
        names = {each: by_id(class_id).name for each, class_id in predicted.items() if class_id}
        if object_id is not None and not names:
            self.status.say(_NOT_PREDICTED)
            return

        def write(objects: Iterable[ObjectId], **details: Any) -> None:
            self.project.annotations.annotate_each(names, **details)

        self._edit(object_id, "Accepted.", write)

    def show_similar(self, object_id: ObjectId | None) -> None:
        """Fill the gallery with the objects most similar to the selected one."""
        if object_id is None or object_id.label < 0:
            self.status.say("Select a single object first.")
            return
        if object_id.label in self.project.test_set.hidden(object_id.image):
            self.status.say(HIDDEN_SIMILAR)
            return
        found = tuple(ObjectId(*each) for each in similar_objects(self.project, object_id))
        self.views.value = "both" if self.views.value == "both" else "gallery"
        self._candidate = None  # a label must not go on to an object of the queue, which the gallery does not list
        self.shared.listed = f"Like object {object_id.label}", (object_id, *found)

    def focus(self) -> None:
        """Give the displayed view the keyboard focus."""
        if self.views.value == "gallery" and self.gallery is not None:
            self.gallery.page.screen.focus()
        elif self.views.value == "map" and self.map is not None:
            self.map.screen.focus()
        else:
            super().focus()

    def close(self) -> None:
        """Stop observing the project, and remove the panel."""
        for view in (self.gallery, self.map):
            if view is not None:
                view.close()
        self.next_objects.strip.close()
        self.similar.strip.close()
        super().close()

    def show(self) -> None:
        """Update what depends on the selection, once no more keys are pressed."""
        self._update_later.restart()

    def _commands(self) -> list[Command]:
        similar, why = "Show the most similar objects in the gallery", "Show what the classifier looks at"
        return [
            Command(("p",), "Previous", "chevron-left", "Previous object", self.previous),
            Command(("n", " "), "Next", "chevron-right", "Next object of the queue", self.next),
            Command(("Enter",), "Accept", "check", "Keep the prediction as the label", self.accept),
            *labeling_commands(self, "Skip", "Undo", "Redo", "Ambiguous", "Bad segmentation", "Erase"),
            Command(("w",), "Why?", "", why, lambda shown: self.object.toggle_why(shown)),
            Command(("k",), "Similar", "clone", similar, self.show_similar),
        ]

    def _make_tools(self) -> HBox:
        """Return the row of tools above the views."""
        toolbar, model = self.viewer.toolbar, self.viewer.model
        self.views = _segments(_VIEWS, _VIEW_ICONS, _VIEW_TIPS)
        self.views.observe(lambda change: self.run_action(self.show_view, change["new"]), "value")
        self.overlay = _segments(_OVERLAYS, _OVERLAY_ICONS, _OVERLAY_TIPS)
        self.tool = _segments(_TOOLS, _TOOL_ICONS, _TOOL_TIPS).add_class("sv-icons")
        for name, control in (("overlay", self.overlay), ("tool", self.tool)):
            link((model, name), (control, "value"))
            control.observe(lambda _: self.focus(), "value")
        toolbar.images.add_class("sv-images")
        fit, smaller, larger, pixels = toolbar.zooming
        self.more = ToggleButton(icon="ellipsis-h", tooltip="More: contrast, channels, opacity, selection")
        self.more.layout.width = "32px"
        buttons = self.command_bar.buttons
        for name in ("Undo", "Redo"):
            buttons[name].description = ""
        tools = toolbar.tools
        rest = HBox([toolbar.outlines, pixels, tools.adding, tools.all, tools.none, tools.menu])
        menu = VBox([rest, toolbar.opacity, tools.planes, toolbar.channels]).add_class("sv-more")
        menu.layout.display = "none"
        self.more.observe(lambda change: menu.layout.set_trait("display", "" if change["new"] else "none"), "value")
        images, zoom = HBox([toolbar.images]), HBox([smaller, fit, larger]).add_class("sv-group").add_class("sv-zoom")
        left, right = [self.views, images, self.overlay], [zoom, self.tool]
        self._tools_of = (images, ["image"]), (zoom, ["image"]), (self.tool, ["image", "map"])
        history = HBox([buttons["Undo"], buttons["Redo"]]).add_class("sv-group")
        gap = Box(layout={"flex": "1 1 0", "min_width": "0"})
        filters = self._make_filter()
        return HBox([*left, *filters, gap, history, *right, self.more, menu]).add_class("sv-tools")

    def _make_filter(self) -> tuple[ToggleButton, FilterControls]:
        """Return the filter of all views, and the button that unfolds it."""
        self.filter = FilterControls(self.project, self.shared).add_class("sv-more").add_class("sv-at-left")
        self.filter.layout.display = "none"
        button = ToggleButton(icon="filter", tooltip="Filter: show only some of the objects in color")
        button.layout.width = "32px"
        button.observe(lambda change: self.filter.layout.set_trait("display", "" if change["new"] else "none"), "value")

        def follow() -> None:
            self.filter.follow()
            is_active = self.shared.filter.is_active
            (button.add_class if is_active else button.remove_class)("sv-active")

        self._watcher.observe(self.shared, follow, "filter")
        follow()
        return button, self.filter

    def _make_side(self) -> VBox:
        """Return the column with classes, selected object, queue and similar objects."""
        buttons = self.command_bar.buttons
        flag = Dropdown(options=_FLAGS, tooltip="Flag the object, or erase its label")

        def flagged(change: Any) -> None:
            if change["new"]:
                flag.value = ""
                buttons[change["new"]].click()

        flag.observe(flagged, "value")
        buttons["Accept"].add_class("mod-primary")
        actions = [buttons["Accept"], buttons["Skip"], flag, buttons["Why?"]]
        details = self.viewer.object_details
        self.object = SelectedObject(self.project, details, actions, self.status)
        self.next_objects = NextObjects(self.project, lambda: self.run_action(self._choose_queue))
        self.similar = SimilarObjects(self.project, self._label_similar, self.status)
        for strip in (self.next_objects.strip, self.similar.strip):
            strip.grid.screen.handle_key = catch_errors(partial(self._grid_key, strip.grid), self.status)
        columns = HTML(f'<span class="sv-muted" title="{_COLUMNS_TIP}">labels · objects</span>', layout={"margin": "0"})
        return VBox(
            [
                section("Classes", self.class_buttons, self.editor, self.new_class, aside=columns),
                section("Selected object", self.object, aside=self.object.name),
                section("Next to label", self.next_objects, aside=self.next_objects.kind),
                section("Similar objects", self.similar, aside=self.similar.classes).add_class("sv-rest"),
            ]
        ).add_class("sv-column")

    def _make_gallery(self) -> GalleryView:
        gallery = GalleryView(self.project, self.status, _SIZE, _MAX_SIZE[1], self.report_key)
        gallery.layout.max_width = gallery.page.layout.max_width = None
        gallery.page.add_class("sv-fill")
        gallery.add_class("sv-gallery")
        gallery.page.screen.handle_key = catch_errors(partial(self._grid_key, gallery.page), self.status)
        gallery.page.screen.report = self.report_key
        link((self.viewer.model, "overlay"), (gallery.page, "overlay"))
        gallery.rearrange()
        return gallery

    def _make_map(self) -> MapView:
        view = MapView(self.project, self.status, _SIZE, _MAX_SIZE, self.report_key, fills=True)
        view.screen.handle_key = catch_errors(self._map_key, self.status)
        toolbar, model = MapToolbar(view, is_part=True), self.viewer.model
        for trait in ("tool", "add_to_selection"):
            link((model, trait), (view, trait))

        def color(change: object = None) -> None:
            view.coloring = "image" if toolbar.by_image.value else _COLORINGS[model.overlay]

        def follow(change: object) -> None:
            toolbar.by_image.value = view.coloring == "image"
            model.overlay = {coloring: name for name, coloring in _COLORINGS.items()}.get(view.coloring, model.overlay)

        toolbar.by_image.observe(color, "value")
        model.observe(color, "overlay")
        view.observe(follow, "coloring")
        color()
        self._map_box.children = (toolbar, view)
        return view

    def _observe_changes(self) -> None:
        observe = self.observe_project
        self._watcher.observe(self.shared, self.show, "selection", "filter")
        observe(self._refresh, "classes_version", "images_version")
        observe(self.show, "annotations_version", "predictions_version", "current_run")
        observe(self._follow_features, "live_state")
        observe(self.reset_queue, "images_version")
        observe(self._follow_predictions, "predictions_version", "current_run")

    def _grid_key(self, grid: PatchGrid, key: str, shown: SelectionId) -> None:
        """Handle a key that was pressed in a gallery or a strip of thumbnails."""
        if self.gallery is not None and grid is self.gallery.page and self.gallery.move(key):
            return
        stale = ObjectId("", 0)  # what was on the screen of the grid is no longer selected
        is_current = shown == grid.selection_id and grid.is_current
        self.handle_key(key, None if shown is None else self.shown if is_current else stale)

    def _map_key(self, key: str, shown: SelectionId) -> None:
        """Handle a key that was pressed on the map, and that does not move it."""
        self.handle_key(key, shown)

    def _follow_predictions(self) -> None:
        if self._kind == "uncertain":
            self.renew_queue()

    def _urgent_objects(self) -> dict[str, list[int]]:
        """Return the objects to predict first: queued ones, then visible ones."""
        urgent: dict[str, list[int]] = {}
        for image, label in self.next_objects.strip.grid.objects:
            urgent.setdefault(image, []).append(label)
        if (scene := self.viewer.model.scene) is not None:
            urgent.setdefault(self.viewer.model.image, []).extend(scene.raster.objects.tolist())
        return urgent

    def _choose_queue(self) -> None:
        self._kind = self.next_objects.kind.value
        self.reset_queue()
        self.show()  # also if the queue is empty or cannot be made
        self.next()

    def _label_similar(self, name: str, objects: Sequence[tuple[str, int]]) -> None:
        def act() -> None:
            self.project.annotations.annotate_each(dict.fromkeys(objects, name), source="similar")
            self.status.say(self.project.status)

        self.run_action(act)

    def _refresh(self) -> None:
        has_images = bool(self.project.images)
        self.hint.layout.display, self.body.layout.display = ("none", "") if has_images else ("", "none")
        self.new_class.refresh()
        self.editor.refresh()
        self.similar.refresh()
        self.filter.refresh()
        self.next_objects.refresh()
        self.key_line.value = key_hints(list(self.project.classes))
        self.show()

    def _update_side(self) -> None:
        """Update counts, the selected object and the queue."""
        project, selection = self.project, self.shared.selection
        self.command_bar.show_history()
        given, totals = project.annotations.class_counts(), class_totals(project)
        total = sum(totals.values())
        details = {c.id: tally_html(int(given[c.name]), totals.get(c.id, 0), total) for c in project.classes}
        label = project.annotations.label_of(*selection[0]) if len(selection) == 1 else UNLABELED
        self.class_buttons.show(project.classes.scheme, details, chosen=label.class_id)
        self.object.show(selection)
        self.similar.show(selection)
        self.next_objects.show(*self._find_queued(), self.shared.filter.is_active)

    def _find_queued(self) -> tuple[QueuedObject | None, list[QueuedObject], str]:
        """Return the object of the queue on the screen, the next ones, or a problem."""
        project, candidate = self.project, self._candidate
        is_ready = self._queue is not None or all(map(project.images.is_indexed, project.images))
        try:
            coming = self.queue.coming(QUEUED) if is_ready and project.images else []
        except SvetlanaError as error:
            return None, [], str(error)
        following = [each for each in coming if each != candidate]
        if candidate is not None and not following and project.annotations.label_of(*candidate.id).action:
            candidate = None  # the last object of the queue is labeled
        is_waiting = project.images and project.live.is_following and (not is_ready or project.live.state.provisional)
        if candidate is None and not following and is_waiting:
            return None, [], _COMPUTING
        return candidate, [each for each in following if self.queue.is_open(each)] or following, ""

    def _follow_features(self) -> None:
        """Show the queue once features are known, for which it may have waited."""
        if _COMPUTING in self.next_objects.reason.value:
            self.show()


class FilterControls(VBox):
    """Controls of the filter that all views of a project share.

    Parameters
    ----------
    project : Project
    shared : SharedModel

    Attributes
    ----------
    status, class_id : Dropdown
    """

    def __init__(self, project: Project, shared: SharedModel) -> None:
        self._project, self._shared = project, shared
        layout = {"width": "150px"}
        self.status = Dropdown(options=STATUS_TITLES, tooltip="Filter by annotation", layout=layout)
        self.class_id = Dropdown(tooltip="Filter by class, annotated or predicted", layout=layout)
        text = "Other objects have no color, and are not selected by a box or lasso."
        super().__init__([HBox([self.status, self.class_id]), HTML(muted(text), layout={"margin": "0"})])
        self._is_following = False
        self.refresh()
        self.follow()
        for control in (self.status, self.class_id):
            control.observe(lambda _: self._choose(), "value")

    def refresh(self) -> None:
        """Update the classes; a filter by a class that is gone ends."""
        set_options(self.class_id, [("Any class", 0), *((info.name, info.id) for info in self._project.classes)])

    def follow(self) -> None:
        """Show the filter that another view has chosen."""
        self._is_following = True
        self.status.value, self.class_id.value = self._shared.filter.status, self._shared.filter.class_id
        self._is_following = False

    def _choose(self) -> None:
        if not self._is_following:
            self._shared.filter = ObjectFilter(self.status.value, self.class_id.value)


def _segments(options: Sequence[tuple[str, str]], icons: Sequence[str], tooltips: Sequence[str]) -> ToggleButtons:
    """Return buttons of which one is chosen; narrow pages show only icons."""
    return ToggleButtons(options=options, icons=icons, tooltips=tooltips).add_class("sv-segments")
