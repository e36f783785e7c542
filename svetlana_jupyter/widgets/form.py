"""The form that a project begins with: folder, images, masks, pixel size, classes; it shows at once what it finds."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ipywidgets import HTML, Button, Combobox, HBox, Text, VBox

from svetlana_jupyter.core.preview import preview_pairs
from svetlana_jupyter.errors import InputError, SvetlanaError
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.class_fields import ClassFields
from svetlana_jupyter.widgets.latest import Latest
from svetlana_jupyter.widgets.panel import guarded
from svetlana_jupyter.widgets.parts import Status, heading, muted, table
from svetlana_jupyter.widgets.style import PANEL_WIDTH, style

_FIXED = ("name", "image", "mask", "channels", "problem", "shape", "dtype", "spacing")
_LISTED = 12
_HINT = "Name a folder for the project, and say where the images and their masks lie."


@dataclass(frozen=True)
class Question:
    """What the form says of images and masks."""

    images: str
    masks: str
    axes: str | None
    spacing: str


class ProjectForm(VBox):
    """Asks for a project folder, where images and masks lie, and the classes; shows while one types which files pair.

    Parameters
    ----------
    opened : callable
        Called with the project, and a sentence that says what was left out ("" if nothing was).
    """

    def __init__(self, opened: Callable[[Project, str], None]) -> None:
        super().__init__(layout={"width": "100%", "max_width": PANEL_WIDTH, "grid_gap": "4px"})
        self.add_class("svetlana")
        self._opened = opened
        self._latest = Latest(_look, guarded(self._show, Status()))
        self.status = Status()
        self.folder = Combobox(
            options=_projects_here(), placeholder="osteoclasts.svetlana", continuous_update=True, **_field("Folder")
        )
        self._folder_note = HTML()
        self.images = Text(placeholder="images/{well}.tif", **_field("Images"))
        self.masks = Text(placeholder="masks/{well}_mask.tif", **_field("Masks"))
        self.axes = Text(placeholder="as the files say", **_field("Axes"))
        self.spacing = Text(placeholder="as the files say", **_field("Pixel size in µm"))
        self._axes_note = _note("Only where a file does not say: zyx for planes, cyx for channels, czyx for both")
        self._spacing_note = HTML()
        self.pairs = HTML(layout={"width": "100%", "margin": "2px 0 0 0"})
        self.classes = ClassFields()
        self.begin = Button(icon="folder-open", button_style="primary", layout={"width": "150px", "margin": "0"})
        self.begin.on_click(guarded(lambda _: self._open(), self.status))
        self.folder.observe(guarded(lambda _: self._follow_folder(), self.status), "value")
        for field in (self.images, self.masks, self.axes, self.spacing):
            field.observe(guarded(lambda _: self._ask(), self.status), "value")
        self.children = (
            style(),
            heading("Project"),
            _line(self.folder, self._folder_note),
            heading("Images and masks"),
            _line(self.images, _note("Braces stand for what differs: {plate}, {well}, {channel} …")),
            _line(self.masks, _note("The same braces bring each image its mask")),
            _line(self.axes, self._axes_note),
            _line(self.spacing, self._spacing_note),
            self.pairs,
            heading("Classes"),
            self.classes,
            HBox([self.begin], layout={"margin": "8px 0 4px 0"}),
            self.status,
        )
        self._follow_folder()
        self._ask()
        self.status.say(_HINT)

    @property
    def question(self) -> Question:
        return Question(
            self.images.value.strip(), self.masks.value.strip(), self.axes.value.strip() or None, self.spacing.value
        )

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

    def _ask(self) -> None:
        question = self.question
        if question.images and question.masks:
            self._latest.ask(question)
        else:
            self._latest.drop()
            self._show("The images found will be listed here.")

    def _show(self, found: pd.DataFrame | str) -> None:
        self._spacing_note.value = muted(_said_of_spacing(found))
        self.pairs.value = f'<div class="sv-pairs">{_listing(found)}</div>'

    def _open(self) -> None:
        text = self.folder.value.strip()
        if not text:
            self.status.warn("Name a folder for the project first, for example osteoclasts.svetlana.")
            return
        question, classes = self.question, self.classes.chosen()
        if bool(question.images) != bool(question.masks):
            missing = "masks" if question.images else "images"
            self.status.warn(f"Say where the {missing} lie, or leave both empty.")
            return
        spacing = _numbers(question.spacing)
        self.status.say("Opening …")
        path = Path(text).expanduser()
        project = Project.from_zip(path) if text.lower().endswith(".zip") else Project(path)
        for name, color in classes:
            if name not in project.classes.names:
                project.add_class(name, color)
        left_out = ""
        if question.images:
            added = project.add_images(question.images, question.masks, question.axes, spacing)
            problems = added.loc[added["problem"] != ""]
            if len(problems):
                first = problems.iloc[0]
                reason = first["problem"].removeprefix(f"{first['name']}: ")
                left_out = f"{len(problems):,} of {len(added):,} were left out. {first['name']}: {reason}"
        self._opened(project, left_out)


def _look(question: Question) -> pd.DataFrame | str:
    """Return what the patterns find, or a sentence why they find nothing."""
    try:
        return preview_pairs(question.images, question.masks, question.axes, _numbers(question.spacing), most=_LISTED)
    except SvetlanaError as error:
        return str(error)
    except Exception as error:  # whatever a file system does: a half-typed path may lead anywhere
        return f"It could not be looked for: {error}"


def _numbers(text: str) -> tuple[float, ...] | float | None:
    """Read one number, or one for each axis."""
    words = text.replace(",", " ").replace("×", " ").split()
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        raise InputError(
            f"the pixel size should be numbers in micrometres, such as 0.65 or 2.0, 0.65, 0.65 (z, y, x), got {text!r}."
        ) from None
    return (numbers[0] if len(numbers) == 1 else numbers) if numbers else None


def _listing(found: pd.DataFrame | str) -> str:
    """Return the pairs as HTML, those with a problem first."""
    if isinstance(found, str):
        return f'<div class="sv-empty">{html.escape(found)}</div>'
    good = found["problem"] == ""
    shown = pd.concat([found[~good].head(_LISTED // 2), found[good].head(_LISTED)]).head(_LISTED)
    groups = [column for column in found if column not in _FIXED]
    rows = []
    for _, row in shown.iterrows():
        said = [row["name"], *(row[group] for group in groups), row["shape"] or "", row["dtype"] or "", _files(row)]
        rows.append(["⚠" if row["problem"] else "✓", *said, row["problem"]])
    said = f"{int(good.sum()):,} of {len(found):,} images can be used."
    if len(found) > len(shown):
        said += f" {len(shown)} are listed" + (", those with a problem first." if (~good).any() else ".")
    titles = ["", "Name", *(group.capitalize() for group in groups), "Shape", "Type", "Files", ""]
    return muted(said) + table(titles, rows)


def _said_of_spacing(found: pd.DataFrame | str) -> str:
    if isinstance(found, str) or not found["shape"].notna().any():
        return "One number, or one for each axis: z, y, x"
    opened = found[found["shape"].notna()]
    known = {spacing for spacing in opened["spacing"] if spacing}
    if opened["spacing"].isna().any():
        return "The files do not say: without it everything is in pixels"
    if len(known) > 1:
        return "The files differ"
    return " × ".join(f"{size:.4g}" for size in known.pop()) + " µm"


def _files(row: pd.Series) -> str:
    """Return the names of a row's files as short text."""
    names = [", ".join(Path(path).name for path in _tuple(row[what])) for what in ("image", "mask") if row[what]]
    return " + ".join(names)


def _tuple(paths: Any) -> tuple[Any, ...]:
    return paths if isinstance(paths, tuple) else (paths,)


def _projects_here() -> list[str]:
    """Return the projects and zip files in the working folder, to choose among."""
    folders = [path.parent.name for path in Path().glob("*/project.json")]
    return sorted([*folders, *(path.name for path in Path().glob("*.zip"))])


def _field(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "layout": {"width": "480px", "flex": "0 0 auto"},
        "style": {"description_width": "110px"},
    }


def _note(text: str) -> HTML:
    return HTML(muted(text))


def _line(field: Any, note: HTML) -> HBox:
    note.layout = {"margin": "0 0 0 10px", "flex": "1 1 0"}
    return HBox([field, note], layout={"align_items": "center"})
