"""The whole loop in tabs over one project; without a project, first a form that asks for images and classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Button, HBox, Tab, Text, VBox

from svetlana_jupyter.core.finding import find_pairs
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.annotation import AnnotationPanel
from svetlana_jupyter.widgets.panel import Panel, guarded
from svetlana_jupyter.widgets.parts import Status, heading, muted, table
from svetlana_jupyter.widgets.prediction import PredictionPanel
from svetlana_jupyter.widgets.style import PANEL_WIDTH, style
from svetlana_jupyter.widgets.training import TrainingPanel

_PANELS: tuple[tuple[str, type[Any]], ...] = (
    ("Annotate", AnnotationPanel),
    ("Train", TrainingPanel),
    ("Predict and review", PredictionPanel),
)
_LISTED = 10


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
            self.children = (ProjectForm(self._open),)
        else:
            self._open(project)

    def _open(self, project: Project) -> None:
        self.project = project
        self.tab = Tab([VBox() for _ in _PANELS], titles=[title for title, _ in _PANELS])
        self.tab.observe(lambda _: self._fill(), "selected_index")
        self.tab.selected_index = 0
        self._fill()
        self.children = (self.tab,)

    def _fill(self) -> None:
        """Make the panel of the open tab when it is first looked at, so that no unseen viewer draws."""
        title, panel = _PANELS[self.tab.selected_index]
        if title in self.panels:
            return
        page, status = self.tab.children[self.tab.selected_index], Status()

        def make() -> None:
            self.panels[title] = panel(self.project)
            page.children = (self.panels[title],)

        page.children = (style(), status)  # stays when the panel cannot be made
        guarded(make, status)()


class ProjectForm(VBox):
    """Asks for a project folder, where images and masks lie, and the classes; shows at once which files pair.

    Parameters
    ----------
    opened : callable
        Called with the project.
    """

    def __init__(self, opened: Callable[[Project], None]) -> None:
        super().__init__(layout={"width": "100%", "max_width": PANEL_WIDTH, "grid_gap": "4px"})
        self.add_class("svetlana")
        self._opened = opened
        self.status = Status()
        self.folder = _field("Project folder", "osteoclasts.svetlana", "Made if it is new, reopened if it is there")
        self.images = _field("Images", "images/{well}.tif", "Braces name what differs: {plate}, {well}, {channel} …")
        self.masks = _field("Masks", "masks/{well}.tif", "The same braces pair each mask with its image")
        self.classes = _field("Classes", "active, resting", "Names, separated by commas; more can be added later")
        self.pairs = HTML(layout={"width": "100%", "min_height": "40px", "max_height": "330px", "overflow": "auto"})
        self.open = Button(
            description="Open",
            icon="folder-open",
            button_style="primary",
            tooltip="Open the project",
            layout={"width": "110px"},
        )
        self.open.on_click(guarded(lambda _: self._open(), self.status))
        for field in (self.images, self.masks):
            field.observe(guarded(lambda _: self._show_pairs(), self.status), "value")
        self.children = (
            style(),
            heading("Open a project"),
            *(
                HBox([field, HTML(muted(field.tooltip))], layout={"align_items": "center"})
                for field in (self.folder, self.images, self.masks, self.classes)
            ),
            self.pairs,
            self.open,
            self.status,
        )
        self._show_pairs()
        self.status.say("Name a folder for the project, and say where the images and their masks lie.")

    def _show_pairs(self) -> None:
        if not (self.images.value.strip() and self.masks.value.strip()):
            self.pairs.value = muted("The images found will be listed here.")
            return
        try:
            found = find_pairs(self.images.value.strip(), self.masks.value.strip())
        except SvetlanaError as error:
            self.pairs.value = muted(str(error))
            return
        rows = [
            (row.name, _where(row.image), _where(row.mask), row.problem)
            for row in found.head(_LISTED).itertuples(False)
        ]
        good = int((found["problem"] == "").sum())
        more = f" The first {_LISTED} are listed." if len(found) > _LISTED else ""
        self.pairs.value = muted(f"{good:,} of {len(found):,} images have their mask.{more}") + table(
            ["Name", "Image", "Mask", "Problem"], rows
        )

    def _open(self) -> None:
        if not self.folder.value.strip():
            self.status.say("Name a folder for the project first, for example osteoclasts.svetlana.")
            return
        names = [name.strip() for name in self.classes.value.split(",") if name.strip()]
        project = Project(self.folder.value.strip(), classes=names)
        if self.images.value.strip():
            project.add_images(self.images.value.strip(), masks=self.masks.value.strip())
        self._opened(project)


def _field(description: str, placeholder: str, tooltip: str) -> Text:
    return Text(
        description=description,
        placeholder=placeholder,
        tooltip=tooltip,
        layout={"width": "520px"},
        style={"description_width": "110px"},
    )


def _where(paths: Any) -> str:
    """Return a path, or the several of one image, as short text."""
    if paths is None:
        return "none"
    paths = paths if isinstance(paths, tuple) else (paths,)
    return ", ".join(Path(path).name for path in paths)
