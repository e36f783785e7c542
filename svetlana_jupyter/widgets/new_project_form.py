"""The form that a project begins with: folder, images, masks, pixel size, classes; it shows at once what it finds.

Where images and masks lie: patterns, axes, pixel size; it shows at once which files pair, and what is wrong.

The classes a project begins with: a name and a colour each, in rows that grow as they are filled.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ipywidgets import HTML, Button, ColorPicker, Combobox, HBox, Text, VBox

from svetlana_jupyter.core.classes import PALETTE
from svetlana_jupyter.core.io.image_pair import preview_pairs
from svetlana_jupyter.errors import InputError, SvetlanaError
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.components import StatusLine, heading, html_table, muted
from svetlana_jupyter.widgets.panel import PANEL_WIDTH, catch_errors, style_widget
from svetlana_jupyter.widgets.scheduling import LatestQuestion

_FIXED = ("name", "image", "mask", "channels", "problem", "shape", "dtype", "spacing")
_LISTED = 12


@dataclass(frozen=True)
class Question:
    """What the fields say of images and masks."""

    images: str
    masks: str
    axes: str | None
    spacing: str

    def check(self) -> None:
        """Refuse one half of a pair, and a pixel size that is no number; nothing at all is no problem."""
        if bool(self.images) != bool(self.masks):
            missing = "masks" if self.images else "images"
            raise InputError(f"Say where the {missing} lie, or leave both empty.")
        numbers(self.spacing)


class PairFields(VBox):
    """Fields for the patterns of images and masks, and below them the files that pair.

    Parameters
    ----------
    status : Status
        Shows what goes wrong while one types.

    Attributes
    ----------
    images, masks, axes, spacing : Text
    pairs : HTML
    spacing_note : HTML
    """

    def __init__(self, status: StatusLine) -> None:
        self._latest = LatestQuestion(_look, catch_errors(self._show, StatusLine()))
        self.images = Text(placeholder="images/{well}.tif", **field("Images"))
        self.masks = Text(placeholder="masks/{well}_mask.tif", **field("Masks"))
        self.axes = Text(placeholder="as the files say", **field("Axes"))
        self.spacing = Text(placeholder="as the files say", **field("Pixel size in µm"))
        self.spacing_note = HTML()
        self.pairs = HTML(layout={"width": "100%", "margin": "2px 0 0 0"})
        axes = "Only where a file does not say: zyx for planes, cyx for channels, czyx for both"
        super().__init__(
            [
                line(self.images, note("Braces stand for what differs: {plate}, {well}, {channel} …")),
                line(self.masks, note("The same braces bring each image its mask")),
                line(self.axes, note(axes)),
                line(self.spacing, self.spacing_note),
                self.pairs,
            ],
            layout={"width": "100%", "grid_gap": "4px"},
        )
        for one in (self.images, self.masks, self.axes, self.spacing):
            one.observe(catch_errors(lambda _: self._ask(), status), "value")
        self._ask()

    @property
    def question(self) -> Question:
        return Question(
            self.images.value.strip(), self.masks.value.strip(), self.axes.value.strip() or None, self.spacing.value
        )

    def clear(self) -> None:
        """Empty the fields."""
        for one in (self.images, self.masks, self.axes, self.spacing):
            one.value = ""

    def _ask(self) -> None:
        question = self.question
        if question.images and question.masks:
            self._latest.ask(question)
        else:
            self._latest.cancel()
            self._show("The images found will be listed here.")

    def _show(self, found: pd.DataFrame | str) -> None:
        self.spacing_note.value = muted(_said_of_spacing(found))
        self.pairs.value = f'<div class="sv-pairs">{_listing(found)}</div>'


def left_out(added: pd.DataFrame) -> str:
    """Return which of the pairs of `Project.add_images` were left out, and why, as a sentence; "" for none."""
    problems = added.loc[added["problem"] != ""]
    if not len(problems):
        return ""
    first = problems.iloc[0]
    reason = first["problem"].removeprefix(f"{first['name']}: ")
    return f"{len(problems):,} of {len(added):,} were left out. {first['name']}: {reason}"


def numbers(text: str) -> tuple[float, ...] | float | None:
    """Read one number, or one for each axis."""
    words = text.replace(",", " ").replace("×", " ").split()
    try:
        found = tuple(float(word) for word in words)
    except ValueError:
        raise InputError(
            f"the pixel size should be numbers in micrometres, such as 0.65 or 2.0, 0.65, 0.65 (z, y, x), got {text!r}."
        ) from None
    return (found[0] if len(found) == 1 else found) if found else None


def field(description: str) -> dict[str, Any]:
    """Return how a field of a form looks."""
    return {
        "description": description,
        "layout": {"width": "480px", "flex": "0 0 auto"},
        "style": {"description_width": "110px"},
    }


def note(text: str) -> HTML:
    """Return what is said of a field."""
    return HTML(muted(text))


def line(one: Any, said: HTML) -> HBox:
    """Return a field with what is said of it."""
    said.layout = {"margin": "0 0 0 10px", "flex": "1 1 200px"}
    return HBox([one, said], layout={"align_items": "center", "flex_flow": "row wrap"})


def _look(question: Question) -> pd.DataFrame | str:
    """Return what the patterns find, or a sentence why they find nothing."""
    try:
        return preview_pairs(
            question.images, question.masks, question.axes, numbers(question.spacing), max_pairs=_LISTED
        )
    except SvetlanaError as error:
        return str(error)
    except Exception as error:  # whatever a file system does: a half-typed path may lead anywhere
        return f"It could not be looked for: {error}"


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
    return muted(said) + html_table(titles, rows)


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


_EXAMPLES = ("active", "resting")


class NewClassRow(HBox):
    """One class to be: its colour, its name, and a button that takes it out again."""

    def __init__(
        self, color: str, placeholder: str, remove: Callable[[NewClassRow], None], entered: Callable[[], None]
    ) -> None:
        self.picker = ColorPicker(concise=True, value=color, layout={"width": "30px", "margin": "2px 6px 2px 0"})
        self.picker.tooltip = "Colour of this class"
        self.name = Text(placeholder=placeholder, layout={"width": "260px", "margin": "2px 0"})
        self.name.on_msg(lambda _, content, __: entered() if content.get("event") == "submit" else None)
        self.remove = Button(icon="times", tooltip="Leave this class out", layout={"width": "30px"})
        self.remove.add_class("sv-quiet")
        self.remove.on_click(lambda _: remove(self))
        super().__init__([self.picker, self.name, self.remove], layout={"align_items": "center"})


class NewClassRows(VBox):
    """Rows for the classes; Enter in one begins the next.

    Attributes
    ----------
    rows : tuple of ClassField
    add : Button
    """

    def __init__(self) -> None:
        self.add = Button(description="Add class", icon="plus", tooltip="One more class", layout={"width": "110px"})
        self.add.on_click(lambda _: self.extend())
        super().__init__(layout={"width": "auto"})
        self._rows: tuple[NewClassRow, ...] = ()
        for _ in _EXAMPLES:
            self.extend()

    @property
    def rows(self) -> tuple[NewClassRow, ...]:
        return self._rows

    def extend(self) -> NewClassRow:
        """Add an empty row."""
        taken = {row.picker.value for row in self._rows}
        color = next((color for color in PALETTE if color not in taken), PALETTE[len(self._rows) % len(PALETTE)])
        count = len(self._rows)
        placeholder = f"for example {_EXAMPLES[count]}" if count < len(_EXAMPLES) else "another class"
        row = NewClassRow(color, placeholder, self._remove, self._entered)
        self._lay(*self._rows, row)
        return row

    def chosen(self) -> list[tuple[str, str]]:
        """Return the name and colour of every class that has a name."""
        return [(row.name.value.strip(), row.picker.value) for row in self._rows if row.name.value.strip()]

    def _entered(self) -> None:
        empty = next((row for row in self._rows if not row.name.value.strip()), None)
        (empty or self.extend()).name.focus()

    def _remove(self, gone: NewClassRow) -> None:
        self._lay(*(row for row in self._rows if row is not gone))
        gone.close()

    def _lay(self, *rows: Any) -> None:
        self._rows = rows
        self.children = (*rows, self.add)


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
        self.begin.on_click(catch_errors(lambda _: self._open(), self.status))
        self.folder.observe(catch_errors(lambda _: self._follow_folder(), self.status), "value")
        self.children = (
            style_widget(),
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
