"""The form that a project begins with: folder, images, masks, pixel size, classes; it shows at once what it finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ipywidgets import HTML, Button, Combobox, HBox, VBox

from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.class_fields import NewClassRows
from svetlana_jupyter.widgets.pair_fields import PairFields, field, left_out, line, numbers
from svetlana_jupyter.widgets.panel import guarded
from svetlana_jupyter.widgets.parts import StatusLine, heading, muted
from svetlana_jupyter.widgets.style import PANEL_WIDTH, style

_HINT = "Name a folder for the project, and say where the images and their masks lie."


class NewProjectForm(VBox):
    """Asks for a project folder, where images and masks lie, and the classes; shows while one types which files pair.

    Parameters
    ----------
    opened : callable
        Called with the project, and a sentence that says what was left out ("" if nothing was).

    Attributes
    ----------
    folder : Combobox
    fields : PairFields
    classes : ClassFields
    begin : Button
    """

    def __init__(self, opened: Callable[[Project, str], None]) -> None:
        super().__init__(layout={"width": "100%", "max_width": PANEL_WIDTH, "grid_gap": "4px"})
        self.add_class("svetlana")
        self._opened = opened
        self.status = StatusLine()
        self.folder = Combobox(
            options=_projects_here(), placeholder="osteoclasts.svetlana", continuous_update=True, **field("Folder")
        )
        self._folder_note = HTML()
        self.fields = PairFields(self.status)
        self.classes = NewClassRows()
        self.begin = Button(icon="folder-open", button_style="primary", layout={"width": "150px", "margin": "0"})
        self.begin.on_click(guarded(lambda _: self._open(), self.status))
        self.folder.observe(guarded(lambda _: self._follow_folder(), self.status), "value")
        self.children = (
            style(),
            heading("Project"),
            line(self.folder, self._folder_note),
            heading("Images and masks"),
            self.fields,
            heading("Classes"),
            self.classes,
            HBox([self.begin], layout={"margin": "8px 0 4px 0"}),
            self.status,
        )
        self._follow_folder()
        self.status.say(_HINT)

    def _follow_folder(self) -> None:
        """Say what will happen with the folder: a new project, one that is there, one out of a zip."""
        text = self.folder.value.strip()
        path = Path(text).expanduser()
        if text.lower().endswith(".zip"):
            said, verb = "A project in a zip file: it is unpacked beside it", "Unpack and open"
        elif text and (path / "project.json").is_file():
            said, verb = "This project is there: it opens where it was left", "Open"
        else:
            said, verb = "A folder for all that is yours; a project or its zip is opened again", "Make project"
        self._folder_note.value = muted(said)
        self.begin.description, self.begin.tooltip = verb, said

    def _open(self) -> None:
        text = self.folder.value.strip()
        if not text:
            self.status.warn("Name a folder for the project first, for example osteoclasts.svetlana.")
            return
        question, classes = self.fields.question, self.classes.chosen()
        question.check()
        self.status.say("Opening …")
        path = Path(text).expanduser()
        project = Project.from_zip(path) if text.lower().endswith(".zip") else Project(path)
        for name, color in classes:
            if name not in project.classes.names:
                project.add_class(name, color)
        problems = ""
        if question.images:
            spacing = numbers(question.spacing)
            problems = left_out(project.add_images(question.images, question.masks, question.axes, spacing))
        self._opened(project, problems)


def _projects_here() -> list[str]:
    """Return the projects and zip files in the working folder, to choose among."""
    folders = [path.parent.name for path in Path().glob("*/project.json")]
    return sorted([*folders, *(path.name for path in Path().glob("*.zip"))])
