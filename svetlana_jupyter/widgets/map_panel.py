"""Map panel: similar objects are close to each other, in colors of classes.

The user selects objects by click, box or lasso, in all views of the project, and labels them with one key.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ipywidgets import HTML, Dropdown, HBox, VBox
from traitlets import link

from svetlana_jupyter.widgets.components import heading, muted
from svetlana_jupyter.widgets.gallery.grid import describe_object
from svetlana_jupyter.widgets.map_view import MapView
from svetlana_jupyter.widgets.panel import MAX_VIEWER_SIZE, VIEWER_SIZE, Panel, catch_errors
from svetlana_jupyter.widgets.scheduling import running_loop
from svetlana_jupyter.widgets.selection_labeling import SelectionControls, SelectionLabeling

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.viewer.viewer_model import SelectionId

_COLORINGS = (
    ("Predictions", "prediction"),
    ("Labels", "label"),
    ("Probability", "probability"),
    ("Images", "image"),
    ("No colors", "off"),
)
_VIEW_KEYS = (
    ("Click", "Select one object"),
    ("Shift", "With a click or a drag: add to the selection"),
    ("x l", "Draw a box or a lasso to select the objects inside"),
    ("Ctrl+A Escape", "Select all visible objects; clear the selection"),
    ("← ↑ → ↓", "Move the map"),
    ("+ - f", "Zoom in or out; show the whole map"),
    ("[ ]", "Color by predictions, labels, probability or images"),
)
_HINT = "Similar objects are close to each other. Draw a lasso around some (l); then press the key of their class."
_NOTHING_SELECTED = "No object selected. Click a point, or press l and draw around several."


class MapPanel(Panel):
    """Panel with a map of all objects, on which the user selects and labels.

    The selection is that of all views of the project: what is selected here is marked in images and galleries, too.

    Parameters
    ----------
    project : Project or path

    Attributes
    ----------
    view : MapView
    toolbar : MapToolbar
    labeling : SelectionLabeling
    controls : SelectionControls
        Keys, class buttons and commands.
    class_buttons : ClassButtons
    command_bar : CommandBar
    """

    def __init__(self, project: Project | str | Path) -> None:
        super().__init__(project)
        project = self.project
        self.view = view = MapView(project, self.status, VIEWER_SIZE, MAX_VIEWER_SIZE, self.report_key)
        self.toolbar = MapToolbar(view)
        self.labeling = labeling = SelectionLabeling(
            project, view.shared, lambda: self.shown, self.status, "map", _NOTHING_SELECTED, lambda: None
        )
        self.controls = controls = SelectionControls(self, labeling, _VIEW_KEYS)
        self.class_buttons, self.command_bar = controls.class_buttons, controls.command_bar
        self.selection_text = HTML(layout={"margin": "0"})
        self.hint, self.body = self.arrange(
            VBox([self.toolbar, view], layout={"max_width": f"{MAX_VIEWER_SIZE[1]}px"}),
            self.command_bar.header("Classes"),
            self.class_buttons,
            heading("Selection"),
            self.selection_text,
            self.command_bar.grid(),
            self.command_bar.help,
        )
        self.children = (self._style, self.hint, self.body, self.status)
        view.screen.handle_key = catch_errors(controls.handle_key, self.status)
        self._watcher.observe(view.shared, self._selection_changed, "selection")
        versions = "annotations_version", "classes_version", "images_version", "predictions_version"
        self.observe_project(self._refresh, *versions, "current_run")
        self.show_hint(_HINT if project.images else "")
        self._refresh()
        if running_loop() is not None:  # without one, predictions would arrive on another thread
            project.live.start()

    @property
    def shown(self) -> SelectionId:
        """Identifier of the selection; None if nothing is selected."""
        return self.view.shared.selection_id

    def describe_selection(self) -> str:
        """Return a sentence about the selected objects."""
        return self.labeling.describe_selection()

    def focus(self) -> None:
        """Give the map the keyboard focus."""
        self.view.screen.focus()

    def close(self) -> None:
        """Stop observing the project, and remove the panel."""
        self.view.close()
        super().close()

    def _selection_changed(self) -> None:
        self.labeling.restart_clock()
        self._refresh()

    def _refresh(self) -> None:
        """Update counts, buttons and the description of the selection."""
        self.controls.refresh()
        selection = self.view.shared.selection
        text = describe_object(self.project, *selection[0]) if len(selection) == 1 else self.describe_selection()
        self.selection_text.value = muted(f"{text[:1].upper()}{text[1:]}")


class MapToolbar(HBox):
    """Controls of a map in one row.

    Parameters
    ----------
    view : MapView
        Its traits are linked to the controls.
    is_part : bool
        Whether the panel has its own controls for the colors and the tools, which are then left out.

    Attributes
    ----------
    coloring, method : Dropdown
    by_image : ToggleButton
        Colors the points by image instead of what the panel chooses.
    box, lasso, adding : ToggleButton
    """

    def __init__(self, view: MapView, is_part: bool = False) -> None:
        button, toggle = view.screen.button, view.screen.toggle
        layout = {"width": "116px", "flex": "0 0 auto", "margin": "0 4px 0 0"}
        self.coloring = Dropdown(options=_COLORINGS, tooltip="Color of the points ([ and ])", layout=layout)
        tooltip = "PCA is computed at once, UMAP in some minutes"
        self.method = Dropdown(options=["PCA", "UMAP"], tooltip=tooltip, layout=layout | {"width": "84px"})
        self.box = toggle("object-group", "Box: drag around points to select them (x)")
        self.lasso = toggle("pencil", "Lasso: draw a line around points to select them (l)")
        self.adding = toggle("plus", "Add to the selection, or remove from it (Shift)")
        self.by_image = toggle("picture-o", "Color by image")
        own = [] if is_part else [self.coloring]
        tools = [self.by_image] if is_part else [self.box, self.lasso]
        buttons = [
            button("expand", "Show the whole map (f)", view.fit),
            button("search-minus", "Zoom out (-)", lambda: view.zoom(1 / 1.5)),
            button("search-plus", "Zoom in (+)", lambda: view.zoom(1.5)),
            *tools,
            self.adding,
            button("th-large", "Select all visible points (Ctrl+A)", view.select_visible),
            button("times", "Clear the selection (Escape)", view.clear_selection),
        ]
        super().__init__([*own, self.method, *buttons], layout={"align_items": "center", "margin": "0 0 4px 0"})
        link((view, "coloring"), (self.coloring, "value"))
        link((view, "method"), (self.method, "value"))
        link((view, "add_to_selection"), (self.adding, "value"))
        for tool, control in (("box", self.box), ("lasso", self.lasso)):
            is_chosen = (lambda value, tool=tool: value == tool), partial(_chosen_tool, view, tool)
            link((view, "tool"), (control, "value"), is_chosen)
        for dropdown in (self.coloring, self.method):
            dropdown.observe(lambda _: view.screen.focus(), "value")


def _chosen_tool(view: MapView, tool: str, is_chosen: bool) -> str:
    """Return the tool after the user has switched one on or off."""
    return tool if is_chosen else "move" if view.tool == tool else view.tool
