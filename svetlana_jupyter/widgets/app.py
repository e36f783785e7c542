"""App: the panels of one project in tabs, or the form that opens a project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, HBox, Tab, VBox

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from svetlana_jupyter.widgets.components import StatusLine, button, handle_in_order, muted
from svetlana_jupyter.widgets.gallery.gallery_panel import GalleryPanel
from svetlana_jupyter.widgets.images_panel import ImagesPanel
from svetlana_jupyter.widgets.new_project_form import NewProjectForm
from svetlana_jupyter.widgets.panel import MAX_WIDTH, Panel, as_project, catch_errors, style_widget
from svetlana_jupyter.widgets.prediction_panel import PredictionPanel
from svetlana_jupyter.widgets.training_panel import TrainingPanel

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project

_PANELS: tuple[tuple[str, type[Any]], ...] = (
    ("Images", ImagesPanel),
    ("Annotate", AnnotationPanel),
    ("Gallery", GalleryPanel),
    ("Train", TrainingPanel),
    ("Predict and review", PredictionPanel),
)


class App(VBox):
    """Widget with all panels, to annotate, train, predict and review.

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
    status : StatusLine
    """

    def __init__(self, project: Project | str | Path | None = None) -> None:
        super().__init__(layout={"width": "100%", "max_width": MAX_WIDTH})
        self.add_class("svetlana")
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
        self.save = button(save, "Save as zip", "file-archive-o", tooltip, width="136px", margin="0 4px 0 auto")
        tooltip = "Open or create another project"
        self.other = button(leave, "Open another", "folder-open-o", tooltip, width="136px", margin="0")
        self.tab = Tab([VBox() for _ in _PANELS], titles=[title for title, _ in _PANELS])
        self.tab.observe(lambda _: self._fill_tab(), "selected_index")
        self.tab.selected_index = self.tab.titles.index("Annotate" if project.images else "Images")
        self._fill_tab()
        name = HTML(muted(project.path.name), tooltip=str(project.path))
        self.children = (
            style_widget(),
            HBox([name, self.save, self.other], layout={"align_items": "center", "margin": "0 0 4px 0"}),
            self.status,
            self.tab,
        )
        if warning:
            self.status.warn(warning)

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
