"""Gallery panel: pages of thumbnails, framed in the colors of their classes.

The user filters and sorts the thumbnails, and labels all selected objects with one key.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ipywidgets import HTML

from svetlana_jupyter.widgets.components import heading, muted
from svetlana_jupyter.widgets.gallery.gallery_view import GalleryView
from svetlana_jupyter.widgets.panel import MAX_VIEWER_SIZE, Panel, catch_errors
from svetlana_jupyter.widgets.selection_labeling import SelectionControls, SelectionLabeling

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.viewer.viewer_model import SelectionId

GRID_SIZE = (484, 648)
_VIEW_KEYS = (
    ("Click", "Select one object"),
    ("Drag", "Select several objects in a row"),
    ("Shift+Click", "Select a range"),
    ("Ctrl+Click", "Add or remove one object"),
    ("← ↑ → ↓", "Move the selection; with Shift extend it"),
    ("Ctrl+A i Esc", "Select the whole page; invert the selection; clear it"),
    ("n PageDown Space", "Next page"),
    ("p PageUp", "Previous page"),
    ("Home End", "First or last page"),
    ("+ -", "Larger or smaller thumbnails"),
    ("[ ]", "Show less or more of the surroundings"),
    ("o", "Show or hide outlines"),
    ("m", "Show the middle plane or the maximum projection of a volume"),
    ("g", "Arrange again with current labels and predictions"),
)
_HINT = "Click a thumbnail, drag over several or press Ctrl+A; then press the key of their class."
_NOTHING_SELECTED = "No object selected. Click a thumbnail, drag over several, or press Ctrl+A for all."


class GalleryPanel(Panel):
    """Panel to look at many objects at once and to label the selected ones.

    Each thumbnail has a frame in the color of its class, thick for an annotation and thin for a prediction. Objects
    keep their places while they are annotated; they are filtered and sorted again when the user asks for it.

    Parameters
    ----------
    project : Project or path

    Attributes
    ----------
    view : GalleryView
    page : PatchGrid
    filter_bar : FilterBar
    page_bar : PageBar
    display_bar : DisplayBar
    labeling : SelectionLabeling
    controls : SelectionControls
        Keys, class buttons and commands.
    class_buttons : ClassButtons
    command_bar : CommandBar
    """

    def __init__(self, project: Project | str | Path) -> None:
        super().__init__(project)
        project = self.project
        self.view = view = GalleryView(project, self.status, GRID_SIZE, MAX_VIEWER_SIZE[1], self.report_key)
        self._shared = view.shared
        self.page, self.filter_bar, self.page_bar, self.display_bar = (
            view.page,
            view.filter_bar,
            view.page_bar,
            view.display_bar,
        )
        self.labeling = labeling = SelectionLabeling(
            project, view.shared, lambda: self.shown, self.status, "gallery", _NOTHING_SELECTED, view.reveal
        )
        self.controls = controls = SelectionControls(self, labeling, _VIEW_KEYS, view.move)
        self.class_buttons, self.command_bar = controls.class_buttons, controls.command_bar
        self.progress_text = HTML(layout={"margin": "0", "min_height": "38px"})
        self.selection_text = HTML(layout={"margin": "0"})
        self.hint, self.body = self.arrange(
            view,
            self.command_bar.header("Classes"),
            self.class_buttons,
            heading("Selection"),
            self.selection_text,
            self.command_bar.grid(),
            self.progress_text,
            self.command_bar.help,
        )
        self.children = (self._style, self.hint, self.body, self.status)
        self.page.screen.handle_key = catch_errors(controls.handle_key, self.status)
        self.page.screen.report = self.report_key
        self._watcher.observe(self._shared, self._selection_changed, "selection")
        self._watcher.observe(self.page, self._show_selection, "selection", "size", "columns")
        self.observe_project(self._refresh, "annotations_version", "classes_version", "images_version")
        self.observe_project(self._predictions_changed, "predictions_version", "current_run")
        self.show_hint(_HINT if project.images else "")
        view.on_page = self._show_selection
        view.rearrange()
        self._refresh()

    @property
    def shown(self) -> SelectionId:
        """Identifier of the selection; None if nothing is selected."""
        return self.page.selection_id if self.page.is_current else None

    def describe_selection(self) -> str:
        """Return a sentence about the selected objects."""
        return self.labeling.describe_selection()

    def focus(self) -> None:
        """Give the grid the keyboard focus."""
        self.page.screen.focus()

    def close(self) -> None:
        """Stop observing the project, and remove the panel."""
        self.view.close()
        super().close()

    def _selection_changed(self) -> None:
        self.labeling.restart_clock()
        self._show_selection()

    def _refresh(self) -> None:
        """Update counts, buttons and frames."""
        project, counts = self.project, self.controls.refresh()
        rate = project.annotations.rate()
        text = f"{int(counts.sum()):,} annotated" + ("" if math.isnan(rate) else f" · {rate:.0f} edits per minute")
        first = "Name the first class in the Annotate panel."
        self.progress_text.value = muted(text if len(project.classes) else first)

    def _predictions_changed(self) -> None:
        self._refresh()
        self.status.say("New predictions. Press g to arrange the gallery by them.")

    def _show_selection(self) -> None:
        here, everywhere = len(self.page.selection.chosen), len(self._shared.selection)
        other = f", {everywhere - here:,} elsewhere" if everywhere > here else ""
        self.selection_text.value = muted(f"{here:,} of {len(self.page.objects):,} on this page{other}")
