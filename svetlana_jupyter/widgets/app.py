"""The whole loop in tabs over one project; without a project, first a form that asks for images and classes."""

from __future__ import annotations

from typing import Any

from ipywidgets import HTML, Button, HBox, Tab, VBox

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from svetlana_jupyter.widgets.components import StatusLine, muted
from svetlana_jupyter.widgets.gallery.gallery_panel import GalleryPanel
from svetlana_jupyter.widgets.images_panel import ImagesPanel
from svetlana_jupyter.widgets.new_project_form import NewProjectForm
from svetlana_jupyter.widgets.panel import PANEL_WIDTH, Panel, catch_errors, style_widget
from svetlana_jupyter.widgets.prediction_panel import PredictionPanel
from svetlana_jupyter.widgets.training_panel import TrainingPanel

_PANELS: tuple[tuple[str, type[Any]], ...] = (
    ("Images", ImagesPanel),
    ("Annotate", AnnotationPanel),
    ("Gallery", GalleryPanel),
    ("Train", TrainingPanel),
    ("Predict and review", PredictionPanel),
)


def _button(text: str, icon: str, tooltip: str) -> Button:
    return Button(description=text, icon=icon, tooltip=tooltip, layout={"width": "136px", "margin": "0"})


class App(VBox):
    """Annotate, train, predict and review, in one widget.

    Parameters
    ----------
    project : Project, optional
        Without one, a form asks for the folder, the images and the classes.

    Attributes
    ----------
    project : Project or None
        None while the form is shown.
    tab : Tab
    panels : dict of str to Panel
        The panels that were opened so far, by the titles of their tabs.
    """

    def __init__(self, project: Project | None = None) -> None:
        super().__init__(layout={"width": "100%", "max_width": PANEL_WIDTH})
        self.add_class("svetlana")
        self.project = project
        self.panels: dict[str, Panel] = {}
        if project is None:
            self.children = (NewProjectForm(self._open),)
        else:
            self._open(project)

    def _open(self, project: Project, left_out: str = "") -> None:
        self.project = project
        self.status = StatusLine(hides=True)
        self.save = _button("Save as zip", "file-archive-o", "All but the images, in one file to keep or pass on")
        self.save.layout.margin = "0 4px 0 auto"
        self.save.on_click(catch_errors(lambda _: self._save(), self.status))
        self.other = _button("Open another", "folder-open-o", "Another project, or one in a zip file")
        self.other.on_click(catch_errors(lambda _: self._leave(), self.status))
        self.tab = Tab([VBox() for _ in _PANELS], titles=[title for title, _ in _PANELS])
        self.tab.observe(lambda _: self._fill(), "selected_index")
        # A project without images begins with them.
        self.tab.selected_index = self.tab.titles.index("Annotate" if project.images else "Images")
        self._fill()
        name = HTML(muted(project.path.name), tooltip=str(project.path))
        self.children = (
            style_widget(),
            HBox([name, self.save, self.other], layout={"align_items": "center", "margin": "0 0 4px 0"}),
            self.status,
            self.tab,
        )
        if left_out:
            self.status.warn(left_out)

    def _save(self) -> None:
        file = self.project.save_zip()
        self.status.say(f"Saved in {file}. A right click on it in the file browser downloads it.")

    def _leave(self) -> None:
        """Ask for another project; this one stays on the disk as it is."""
        if self.project.job is not None:
            raise ProjectError(
                f"{self.project.job.named.capitalize()} is running: wait for it, or stop it, before you leave."
            )
        for panel in self.panels.values():
            panel.close()
        self.panels, self.project = {}, None
        self.children = (NewProjectForm(self._open),)

    def _fill(self) -> None:
        """Make the panel of the open tab when it is first looked at, so that no unseen viewer draws."""
        title, panel = _PANELS[self.tab.selected_index]
        if title in self.panels:
            return
        page, status = self.tab.children[self.tab.selected_index], StatusLine()

        def make() -> None:
            self.panels[title] = panel(self.project)
            page.children = (self.panels[title],)

        page.children = (style_widget(), status)  # stays when the panel cannot be made
        catch_errors(make, status)()
