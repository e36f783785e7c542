"""App: the panels of one project in tabs, or the form that opens a project."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, Button, HBox, Tab, VBox

from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.annotation_store import object_index
from svetlana_jupyter.widgets.components import StatusLine, button, handle_in_order, muted
from svetlana_jupyter.widgets.images_panel import ImagesPanel
from svetlana_jupyter.widgets.label_panel import LabelPanel
from svetlana_jupyter.widgets.new_project_form import NewProjectForm
from svetlana_jupyter.widgets.panel import WORKSPACE_WIDTH, Panel, Watcher, as_project, catch_errors, style_widget
from svetlana_jupyter.widgets.results_panel import ResultsPanel
from svetlana_jupyter.widgets.scheduling import KeyPause
from svetlana_jupyter.widgets.training_panel import TrainingPanel
from svetlana_jupyter.widgets.truth_line import TruthLine
from svetlana_jupyter.widgets.viewer.viewer_model import shared_model

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd

    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.viewer.viewer_model import SharedModel

_PANELS: tuple[tuple[str, type[Any]], ...] = (
    ("Images", ImagesPanel),
    ("Label", LabelPanel),
    ("Train", TrainingPanel),
    ("Results", ResultsPanel),
)


class App(VBox):
    """Widget with all panels: images, labels, training and results.

    The line below the tabs states which classifier is shown and how good it is, in every tab.

    Parameters
    ----------
    project : Project or path, optional
        The project, or the folder or zip file of a project, which is opened. Without it, a form asks for the folder,
        the images and the classes.

    Attributes
    ----------
    project : Project or None
        None while the form is shown.
    tab : Tab
    panels : dict of str to Panel
        The panels created so far, by the titles of their tabs.
    save, other : Button
        Buttons that save the project as a zip file and open another project.
    saved : HTML
        Whether all labels are on disk.
    full_screen : Button
    truth : TruthLine
    status : StatusLine
    selected : MultiIndex
        The selected objects as pairs (image, object), in all views; assign an index or pairs to select others.
    """

    def __init__(self, project: Project | str | Path | None = None) -> None:
        super().__init__(layout={"width": "100%", "max_width": WORKSPACE_WIDTH})
        self.add_class("svetlana")
        self.add_class("sv-app")
        handle_in_order(self)
        self.project: Project | None = None
        self.panels: dict[str, Panel] = {}
        if project is None:
            self.children: tuple[Any, ...] = (NewProjectForm(self._open),)
        else:
            self._open(as_project(project))

    def _open(self, project: Project, warning: str = "") -> None:
        self.project = project
        self.status = StatusLine(hides=True)
        save, leave = catch_errors(self._save, self.status), catch_errors(self._leave, self.status)
        tooltip = "Everything but the images, in one file to archive or share"
        self.save = button(save, "Save as zip", "file-archive-o", tooltip, width="auto")
        tooltip = "Open or create another project"
        self.other = button(leave, "Open another", "folder-open-o", tooltip, width="auto")
        self.truth = TruthLine(project, catch_errors(project.stop, self.status), self.status)
        self.tab = Tab([VBox() for _ in _PANELS], titles=[title for title, _ in _PANELS])
        self.tab.observe(lambda _: self._fill_tab(), "selected_index")
        self.tab.selected_index = self.tab.titles.index("Label" if project.images else "Images")
        self._fill_tab()
        name = HTML(muted(project.path.name), tooltip=str(project.path))
        self.saved = HTML(layout={"margin": "0 6px"})
        self._watcher = Watcher(self.status)
        self._watcher.observe(project, KeyPause(self._show_saved).restart, "annotations_version", "trouble")
        self._show_saved()
        self.full_screen = Button(description="Full screen", icon="arrows-alt", tooltip="Fill the screen, or leave it")
        self.full_screen.layout.width = "auto"
        self.full_screen.add_class("sv-full-screen")  # the page handles it, because a browser obeys only a click
        self.children = (
            style_widget(),
            HBox([name, self.saved, self.save, self.other, self.full_screen]).add_class("sv-app-head"),
            self.truth,
            self.tab,
            self.status,
        )
        if warning:
            self.status.warn(warning)

    @property
    def selected(self) -> pd.MultiIndex:
        """The selected objects, as pairs (image, object)."""
        return object_index(self._shared.selection)

    @selected.setter
    def selected(self, objects: Iterable[tuple[str, int]]) -> None:
        assert self.project is not None
        chosen = [(str(image), int(label)) for image, label in objects]
        for name in dict.fromkeys(image for image, _ in chosen):
            missing = {label for image, label in chosen if image == name} - set(self.project.objects(name).index)
            if missing:
                raise InputError(
                    f"{name} has no object {min(missing)}. Choose objects listed by `project.objects({name!r})`."
                )
        self._shared.selection = tuple(chosen)

    @property
    def _shared(self) -> SharedModel:
        if self.project is None:
            raise ProjectError("No project is open. Open one in the form of the app.")
        return shared_model(self.project)

    def _show_saved(self) -> None:
        """Show whether labels are written to the disk."""
        if self.project is None:
            return
        file = self.project.annotations.file
        saved = f"Each label is on disk before the panel says so: {file.file}"
        tip = saved if file.is_writable else file.trouble or "The project is read-only."
        text = "✓ Saved" if file.is_writable else "⚠ Read-only"
        self.saved.value = f'<span class="sv-muted" title="{html.escape(tip, quote=True)}">{text}</span>'

    def _save(self) -> None:
        assert self.project is not None
        file = self.project.save_zip()
        self.status.say(f"Saved {file}. To download it, right-click it in the file browser.")

    def close(self) -> None:
        """Close the panels, and remove the app."""
        self._close_panels()
        super().close()

    def _close_panels(self) -> None:
        for panel in getattr(self, "panels", {}).values():  # missing if the argument of the app was refused
            panel.close()
        if getattr(self, "truth", None) is not None:
            self.truth.close()
            self._watcher.close()
        self.panels = {}

    def _leave(self) -> None:
        """Close the project, and show the form."""
        assert self.project is not None
        if (job := self.project.job) is not None:
            raise ProjectError(f"{job.with_article.capitalize()} is running. Wait for it or stop it, then try again.")
        self._close_panels()
        self.project.annotations.file.close()  # another kernel may annotate now
        self.project = None
        self.children = (NewProjectForm(self._open),)

    def _fill_tab(self) -> None:
        """Create the panel of the selected tab if the user selects it for the first time.

        Viewers in tabs that the user has not opened therefore do not draw.
        """
        title, panel = _PANELS[self.tab.selected_index]
        if title in self.panels:
            return
        page, status = self.tab.children[self.tab.selected_index], StatusLine()

        def make() -> None:
            self.panels[title] = panel(self.project)
            page.children = (self.panels[title],)

        status.say("Loading …")
        page.children = (style_widget(), status)  # replaced unless the panel raises an error
        catch_errors(make, status)()
