"""Form that opens or creates a project.

While the user types patterns, the form lists the pairs of image and mask that match, so that the user notices mistakes
before the project is created.
"""

from __future__ import annotations

import html
import re
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from ipywidgets import HTML, ColorPicker, Combobox, HBox, Text, VBox

from svetlana_jupyter.core.classes import PALETTE
from svetlana_jupyter.core.io.file_pairs import describe_skipped
from svetlana_jupyter.core.io.image_pair import preview_pairs
from svetlana_jupyter.core.io.typed_paths import clean_path
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.call_names import REPAIR_TEXTS
from svetlana_jupyter.widgets.components import (
    StatusLine,
    button,
    error_text,
    handle_in_order,
    heading,
    html_table,
    muted,
)
from svetlana_jupyter.widgets.panel import PANEL_WIDTH, catch_errors, style_widget
from svetlana_jupyter.widgets.scheduling import LatestQuestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class NewProjectForm(VBox):
    """Form that asks for a project folder, patterns of images and masks, and classes.

    Parameters
    ----------
    opened : callable
        Called with the project, and a sentence on the pairs that were skipped ("" if no pair was skipped).

    Attributes
    ----------
    folder : Combobox
    fields : PairFields
    classes : NewClassRows
    open_button : Button
    status : StatusLine
    """

    def __init__(self, opened: Callable[[Project, str], None]) -> None:
        super().__init__(layout={"width": "100%", "max_width": PANEL_WIDTH, "grid_gap": "4px"})
        self.add_class("svetlana")
        handle_in_order(self)
        self._opened = opened
        self.status = StatusLine()
        options = field_options("Folder")
        self.folder = Combobox(options=_projects_here(), placeholder="osteoclasts.svetlana", **options)
        self._folder_note = HTML()
        self.fields = PairFields(self.status, self._open)
        self.classes = NewClassRows()
        act = catch_errors(self._open, self.status)
        self.open_button = button(act, icon="folder-open", look="primary", width="150px", margin="0")
        self.folder.observe(catch_errors(lambda _: self._describe_folder(), self.status), "value")
        self.children = (
            style_widget(),
            heading("Project"),
            field_row(self.folder, self._folder_note),
            heading("Images and masks"),
            self.fields,
            heading("Classes"),
            self.classes,
            HBox([self.open_button, self.fields.remedies], layout={"margin": "8px 0 4px 0"}),
            self.status,
        )
        self._describe_folder()
        self.status.say("Enter a project folder and the files of your images and masks.")

    def _describe_folder(self) -> None:
        """Show whether the folder is a new project, an existing one, or a zip file."""
        text = self._folder_path()
        if text.lower().endswith(".zip"):
            note, action = "Project in a zip file, unpacked into the same folder", "Unpack and open"
        elif text and (Path(text) / "project.json").is_file():
            note, action = "Existing project", "Open"
        else:
            note, action = "New or existing project folder, or a zip file", "Create project"
        self._folder_note.value = muted(note)
        self.open_button.description, self.open_button.tooltip = action, note

    def _folder_path(self) -> str:
        return clean_path(self.folder.value) if self.folder.value.strip() else ""

    def _open(self, repair: str | None = None) -> None:
        text = self._folder_path()
        if not text:
            self.status.warn("Enter a project folder, for example osteoclasts.svetlana.")
            return
        has_images = bool(self.fields.patterns()[0])
        self.status.say("Opening …")
        path = Path(text)
        project = Project.from_zip(path) if text.lower().endswith(".zip") else Project(path)
        self._describe_folder()
        for name, color in self.classes.entered_classes():
            if name not in project.classes.names:
                project.classes.add(name, color)
        self._opened(project, self.fields.add_pairs(project, repair) if has_images else "")


def _projects_here() -> list[str]:
    """Return the projects and zip files in the working folder."""
    folders = [path.parent.name for path in Path().glob("*/project.json")]
    return sorted([*folders, *(path.name for path in Path().glob("*.zip"))])


# Patterns of images and masks, axes, and pixel size, as `Project.add_images` takes them.
FilePatterns = tuple[str, str, str | None, tuple[float, ...] | float | None]


def parse_patterns(images: str, masks: str, axes: str, spacing: str) -> FilePatterns:
    """Return the entered patterns as arguments of `Project.add_images`.

    Images without masks, or masks without images, raise an error. Both fields may be empty.
    """
    if bool(images) != bool(masks):
        missing = "masks" if images else "images"
        raise InputError(f"The {missing} are missing. Enter both images and masks, or leave both empty.")
    return images, masks, axes or None, parse_numbers(spacing)


_SHOWN_PAIRS = 12
_REMEDY = {"width": "auto", "margin": "0 0 0 8px"}


class PairFields(VBox):
    """Fields for the patterns of images and masks, and a list of the matching files.

    Parameters
    ----------
    status : StatusLine
        Shows errors while the user types.
    add : callable
        Adds the images (`add_pairs`), with a repair of their masks as its argument.

    Attributes
    ----------
    images, masks, axes, spacing : Text
    remedies : HBox
        Buttons for what makes refused images usable (`InputError.remedy`); to be placed next to the button that adds
        the images.
    pairs : HTML
    spacing_note : HTML
    """

    def __init__(self, status: StatusLine, add: Callable[[str | None], None]) -> None:
        self._latest: LatestQuestion[list[str]] = LatestQuestion(
            lambda entered: preview_pairs(*parse_patterns(*entered), max_pairs=_SHOWN_PAIRS),
            catch_errors(self._show, StatusLine()),
            # Any error is possible: a path that is half typed may lead anywhere in a file system.
            show_error=lambda _, error: self._show(error_text(error, "The files cannot be listed")),
        )
        self.images = Text(placeholder="images/{well}.tif", **field_options("Images"))
        self.masks = Text(placeholder="masks/{well}_mask.tif", **field_options("Masks"))
        self.axes = Text(placeholder="from the files", **field_options("Axes"))
        self.spacing = Text(placeholder="from the files", **field_options("Pixel size in µm"))
        self.spacing_note = HTML()
        self.pairs = HTML(layout={"width": "100%", "margin": "2px 0 0 0"})
        self._status = status
        self._listed: pd.DataFrame | None = None
        self.remedies = HBox(layout={"flex_flow": "row wrap"})
        self._buttons = {"swap": button(self.swap, "Swap images and masks", "exchange", **_REMEDY)}
        for repair, (text, tooltip) in REPAIR_TEXTS.items():
            act = catch_errors(partial(add, repair), status)
            self._buttons[repair] = button(act, text, "wrench", tooltip, **_REMEDY)
        self._inputs = (self.images, self.masks, self.axes, self.spacing)
        super().__init__(
            [
                field_row(self.images, "A folder, a file, or a pattern: {plate}, {well}, {channel} … vary"),
                field_row(self.masks, "A folder, a file, or a pattern with the same braces"),
                field_row(self.axes, "If not in the files: zyx (planes), cyx (channels) or czyx"),
                field_row(self.spacing, self.spacing_note),
                self.pairs,
            ],
            layout={"width": "100%", "grid_gap": "4px"},
        )
        for text in self._inputs:
            text.observe(catch_errors(lambda _: self._ask(), status), "value")
        self._ask()

    def patterns(self) -> FilePatterns:
        """Return the patterns as arguments of `Project.add_images`."""
        return parse_patterns(*self._entered())

    def clear(self) -> None:
        """Empty the fields."""
        for text in self._inputs:
            text.value = ""

    def add_pairs(self, project: Project, repair: str | None = None) -> str:
        """Add the images, and return a sentence on skipped pairs or "".

        Refused pairs are marked in the list, with a button for each remedy, also after an error.
        """
        self._latest.ask(None)  # an answer that is still awaited knows nothing of the refusal
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the panel shows the sentence
                added = project.add_images(*self.patterns(), repair)
        except InputError as error:
            names = list[str]() if self._listed is None or not error.remedy else [*self._listed["name"]]
            self._show_refused(dict.fromkeys(names, "See the message below"), [error.remedy] if error.remedy else [])
            raise InputError(_in_panel_terms(str(error)), error.remedy) from error
        refused = {name: problem.removeprefix(f"{name}: ") for name, problem in zip(added["name"], added["problem"])}
        self._show_refused(refused, added.attrs["remedies"].values())
        return _in_panel_terms(describe_skipped(added))

    def _show_refused(self, problems: Mapping[str, str], remedies: Iterable[str]) -> None:
        if self._listed is not None:
            usable = self._listed["problem"] == ""
            self._listed.loc[usable, "problem"] = self._listed.loc[usable, "name"].map(problems).fillna("")
            self._show(self._listed)
        self._offer(remedies)

    def swap(self) -> None:
        """Exchange the patterns of images and masks."""
        self.images.value, self.masks.value = self.masks.value, self.images.value

    def _ask(self) -> None:
        entered = self._entered()
        if self.remedies.children:  # the refusal was that of other files
            self._status.say("")
            self._offer([])
        if all(entered[:2]):
            self._latest.ask(entered)
        else:
            self._latest.ask(None)
            self._show("Matching files will be listed here.")

    def _entered(self) -> list[str]:
        return [text.value.strip() for text in self._inputs]

    def _show(self, pairs: pd.DataFrame | str) -> None:
        self._listed = None if isinstance(pairs, str) else pairs
        self.spacing_note.value = muted(_spacing_text(pairs))
        self.pairs.value = f'<div class="sv-pairs">{_pairs_html(pairs)}</div>'
        self._offer([] if isinstance(pairs, str) else pairs.attrs.get("remedies", {}).values())

    def _offer(self, remedies: Iterable[str]) -> None:
        self.remedies.children = tuple(self._buttons[remedy] for remedy in dict.fromkeys(remedies))


def _in_panel_terms(sentence: str) -> str:
    """Name the button in the place of the argument of `Project.add_images`."""
    return re.sub(r'pass repair="(\w+)"', lambda match: f"click “{REPAIR_TEXTS[match[1]][0]}”", sentence)


def _pairs_html(pairs: pd.DataFrame | str) -> str:
    """Return the pairs as HTML; pairs with a problem come first."""
    if isinstance(pairs, str):
        return f'<div class="sv-empty">{html.escape(pairs)}</div>'
    usable = pairs["problem"] == ""
    # At most half of the rows show problems, so that the user also sees pairs that match.
    shown = pd.concat([pairs[~usable].head(_SHOWN_PAIRS // 2), pairs[usable].head(_SHOWN_PAIRS)]).head(_SHOWN_PAIRS)
    fixed = {"name", "image", "mask", "channels", "problem", "shape", "dtype", "spacing", "note"}
    # One per placeholder in braces, unless it is the name of the image.
    groups = [str(column) for column in pairs if column not in fixed and (pairs[column] != pairs["name"]).any()]
    problems, matching = [], []
    for _, row in shown.iterrows():
        files = " + ".join(_file_names(row[kind]) for kind in ("image", "mask") if row[kind])
        if row["problem"]:
            problems.append(["⚠", row["name"], files, row["problem"]])
        else:
            values = [row[group] for group in groups] + [row["shape"], row["dtype"], files, row["note"]]
            matching.append(["✓", row["name"], *values])
    order = "." if usable.all() else ", problems first."
    more = f" Showing {len(shown)}{order}" if len(pairs) > len(shown) else ""
    summary = f"{int(usable.sum()):,} of {len(pairs):,} image{'' if len(pairs) == 1 else 's'} can be used.{more}"
    titles = ["", "Name", *(group.capitalize() for group in groups), "Shape", "Type", "Files", ""]
    refused = html_table(["", "Name", "Files", "Problem"], problems) if problems else ""
    return muted(summary) + refused + (html_table(titles, matching) if matching else "")


def _file_names(paths: Any) -> str:
    return ", ".join(Path(path).name for path in (paths if isinstance(paths, tuple) else (paths,)))


def _spacing_text(pairs: pd.DataFrame | str) -> str:
    opened = None if isinstance(pairs, str) else pairs[pairs["shape"].notna()]
    if opened is None or opened.empty:
        return "One number, or one per axis: z, y, x"
    if opened["spacing"].isna().any():
        return "Not in the files; without a pixel size, all lengths are in pixels"
    sizes = {spacing for spacing in opened["spacing"] if spacing}
    return "Differs between files" if len(sizes) > 1 else " × ".join(f"{size:.4g}" for size in sizes.pop()) + " µm"


def parse_numbers(text: str) -> tuple[float, ...] | float | None:
    """Parse one number, or one number per axis; return None for an empty text.

    >>> parse_numbers("0.65"), parse_numbers("2 × 0.65, 0.65"), parse_numbers("")
    (0.65, (2.0, 0.65, 0.65), None)
    """
    try:
        numbers = tuple(float(word) for word in text.replace(",", " ").replace("×", " ").split())
    except ValueError:
        raise InputError(
            f"Pixel size {text!r} is not a number. Enter micrometers, such as 0.65, or 2.0, 0.65, 0.65 for z, y, x."
        ) from None
    return (numbers[0] if len(numbers) == 1 else numbers) if numbers else None


_DESCRIPTION = 110  # CSS pixels


def field_options(description: str) -> dict[str, Any]:
    """Return the description and the style of an input field, as keyword arguments."""
    layout = {"width": "auto", "max_width": "720px", "flex": "0 0 auto"}
    style = {"description_width": f"{_DESCRIPTION}px"}
    return {"description": description, "layout": layout, "style": style}


def field_row(field: Any, note: HTML | str) -> VBox:
    """Return an input field with a note below it."""
    text = HTML(muted(note)) if isinstance(note, str) else note
    text.layout = {"margin": f"0 0 2px {_DESCRIPTION + 10}px"}
    return VBox([field, text], layout={"width": "100%", "overflow": "visible"})


_EXAMPLES = ("active", "resting")


class NewClassRows(VBox):
    """Rows for the names and colors of new classes.

    The last row is empty. Enter moves the focus to the next empty row (``key_guard.js``: a name that is typed fast
    cannot wait for the kernel).

    Attributes
    ----------
    add : Button
    """

    def __init__(self) -> None:
        self.add = button(self.extend, "Add class", "plus", "Add a row", width="110px")
        super().__init__([self.add], layout={"width": "auto"})
        for _ in _EXAMPLES:
            self.extend()

    @property
    def rows(self) -> tuple[NewClassRow, ...]:
        """The rows, one per class."""
        return tuple(self.children[:-1])

    def extend(self) -> NewClassRow:
        """Add an empty row, and return it."""
        used, count = [row.picker.value for row in self.rows], len(self.rows)
        color = next((color for color in PALETTE if color not in used), PALETTE[count % len(PALETTE)])
        placeholder = f"for example {_EXAMPLES[count]}" if count < len(_EXAMPLES) else "another class"
        row = NewClassRow(color, placeholder, self)
        self.children = (*self.rows, row, self.add)
        row.name.observe(lambda _: self._extend_after_last(), "value")
        return row

    def entered_classes(self) -> list[tuple[str, str]]:
        """Return the name and color of every row that has a name."""
        return [(row.name.value.strip(), row.picker.value) for row in self.rows if row.name.value.strip()]

    def _extend_after_last(self) -> None:
        if not self.rows or self.rows[-1].name.value.strip():
            self.extend()

    def remove(self, removed: NewClassRow) -> None:
        """Remove a row."""
        self.children = tuple(child for child in self.children if child is not removed)
        removed.close()
        self._extend_after_last()


class NewClassRow(HBox):
    """Color and name of a new class, and a button that removes the row.

    Parameters
    ----------
    color, placeholder : str
    rows : NewClassRows
    """

    def __init__(self, color: str, placeholder: str, rows: NewClassRows) -> None:
        self.picker = ColorPicker(concise=True, value=color, layout={"width": "30px", "margin": "2px 6px 2px 0"})
        self.picker.tooltip = "Color of this class"
        self.name = Text(placeholder=placeholder, layout={"width": "260px", "margin": "2px 0"}).add_class("sv-row")
        self.remove = button(lambda: rows.remove(self), "", "times", "Remove this row", "quiet", width="30px")
        super().__init__([self.picker, self.name, self.remove], layout={"align_items": "center"})
