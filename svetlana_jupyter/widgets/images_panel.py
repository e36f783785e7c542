"""The panel of the images: what a project holds, more images, another mask, annotations from elsewhere.

Another mask for an image: what would become of its annotations is said before anything changes.

The form to import annotations: a file, what it does not say itself, and what became of each of its rows.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from ipywidgets import HTML, Accordion, Button, Checkbox, Combobox, Dropdown, HBox, Text, VBox

from svetlana_jupyter.errors import InputError, SvetlanaError
from svetlana_jupyter.widgets.components import StatusLine, heading, html_table, muted
from svetlana_jupyter.widgets.new_project_form import PairFields, field, left_out, line, note, numbers
from svetlana_jupyter.widgets.panel import Panel, catch_errors
from svetlana_jupyter.widgets.scheduling import LatestQuestion

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

_KINDS = (".tif", ".tiff", ".png", ".npy", ".zarr", ".h5")
_OFFERED, _NAMED = 100, 6
_MEANINGS = {
    "kept": "found again under the same number, with what was said of them",
    "moved": "found again under another number, with what was said of them",
    "split": "fell into several objects: each that is mostly of the old one has what was said of it",
    "merged": "became one with others: it has what was said of more than half of it, or nothing",
    "lost": "lie where the new mask has no object: what was said stays in the log",
}
_BOXES = "The old mask is not what it was, so the boxes that were noted with each annotation are compared."
_EMPTY = "Choose a file, and what would become of the annotations is said here."


@dataclass(frozen=True)
class Question:
    """A mask that may take the place of an image's."""

    image: str
    path: str


class MaskForm(VBox):
    """Gives an image of a project another mask.

    Parameters
    ----------
    project : Project
    do : callable
        Does what a button asks for, and shows what goes wrong (`Panel.run_action`).
    status : Status

    Attributes
    ----------
    image : Dropdown
    path : Combobox
    report : HTML
    replace : Button
    """

    def __init__(self, project: Project, run_action: Callable[..., None], status: StatusLine) -> None:
        self._project, self._status = project, status
        self._latest = LatestQuestion(self._look, catch_errors(self._show, status))
        self._checked: Question | None = None
        self.image = Dropdown(**field("Image"))
        self.path = Combobox(placeholder="masks/A1_again.tif", continuous_update=True, **field("New mask"))
        self.report = HTML(layout={"width": "100%", "margin": "2px 0 0 0"})
        self.replace = Button(description="Replace the mask", icon="exchange", layout={"width": "170px", "margin": "0"})
        self.replace.on_click(lambda _: run_action(self._replace))
        self._now = note("")
        super().__init__(
            [
                line(self.image, self._now),
                line(self.path, note("Of the same shape; it is read where it lies")),
                self.report,
                HBox([self.replace]),
            ],
            layout={"width": "100%", "grid_gap": "4px"},
        )
        self.image.observe(catch_errors(lambda _: self._choose(), status), "value")
        self.path.observe(catch_errors(lambda _: self._ask(), status), "value")
        self.follow()

    def follow(self) -> None:
        """Offer the images that the project has now."""
        names = list(self._project.images)
        if list(self.image.options) != names:
            chosen = self.image.value
            self.image.options = names
            self.image.value = chosen if chosen in names else (names[0] if names else None)
        self._choose()

    def _choose(self) -> None:
        name = self.image.value
        if name is None:
            return
        now = self._project.mask_file(name)
        self._now.value = muted(f"has {now.name}")
        self._now.tooltip = str(now)
        others = [file for file in sorted(now.parent.iterdir()) if file.suffix in _KINDS] if now.parent.is_dir() else []
        self.path.options = [str(file) for file in others[:_OFFERED] if file != now]
        self._ask()

    def _ask(self) -> None:
        path = self.path.value.strip()
        self._checked = None
        self.replace.disabled = True
        if path and self.image.value:
            self._say("Comparing …")
            self._latest.ask(Question(self.image.value, path))
        else:
            self._latest.cancel()
            self._say(_EMPTY)

    def _look(self, question: Question) -> tuple[Question, pd.DataFrame | str]:
        try:
            return question, self._project.check_mask(question.image, Path(question.path).expanduser())
        except SvetlanaError as error:
            return question, str(error)
        except Exception as error:  # whatever a file system does: a half-typed path may lead anywhere
            return question, f"It could not be read: {error}"

    def _show(self, found: tuple[Question, pd.DataFrame | str]) -> None:
        question, report = found
        if isinstance(report, str):
            self._say(report)
            return
        self._checked = question
        self.replace.disabled = False
        self.report.value = in_words(report, question.image)

    def _say(self, text: str) -> None:
        self.report.value = f'<div class="sv-pairs"><div class="sv-empty">{html.escape(text)}</div></div>'

    def _replace(self) -> None:
        question = self._checked
        if question is None:
            return
        report = self._project.replace_mask(question.image, Path(question.path).expanduser())
        said = self._project.status
        self.path.value = ""
        self.report.value = in_words(report, question.image)
        self._status.say(said)


def in_words(report: pd.DataFrame, image: str) -> str:
    """Return a report of `Project.check_mask` or `Project.replace_mask` as HTML."""
    if report.empty:
        return muted(f"Nothing of {image} is annotated, so nothing can be lost.")
    rows = []
    for fate, meaning in _MEANINGS.items():
        objects = report.index[report["fate"] == fate]
        if len(objects):
            rows.append((len(objects), meaning, _listed(report.loc[objects])))
    said = f"{len(report):,} annotated object{'' if len(report) == 1 else 's'} of {image}:"
    boxes = f"<br>{muted(_BOXES)}" if report.attrs.get("matched_by") == "boxes" else ""
    return f"{muted(said)}{html_table(['', 'Annotated objects', 'Which'], rows)}{boxes}"


def _listed(report: pd.DataFrame) -> str:
    """Return the first of some objects, with the numbers of those in their place where they differ."""
    named = [
        f"{old} → {', '.join(map(str, new))}" if new and tuple(new) != (old,) else str(old)
        for old, new in report["new"].head(_NAMED).items()
    ]
    return "; ".join(named) + (" …" if len(report) > _NAMED else "")


_LISTED_IMPORT_FORM = 12
_FITS = ("taken", "known")
_AS_SAID = "as the file says"
# What a script would write, as it is done here.
_HERE = {
    r"overwrite=True takes the new ones": "tick the box above to take the new ones",
    r"name it with image=, one of": "choose it above, one of",
    r"with names=\{[^}]*\}": "under class names above",
    r"give names= one": "write one above",
}


class ImportForm(VBox):
    """Takes in what a file says of the objects of a project.

    Parameters
    ----------
    project : Project
    status : Status
        Of the panel, emptied where the form says what was done.

    Attributes
    ----------
    path, column, names : Text
    image : Dropdown
        "" is what the file says.
    overwrite : Checkbox
    take, undo : Button
        ``undo`` is shown until something else is annotated.
    said : Status
    missed : HTML
        The rows of which nothing was taken.
    """

    def __init__(self, project: Project, status: StatusLine) -> None:
        self._project, self._status = project, status
        self._imported = 0  # annotations_version behind the last import
        self.path = Text(placeholder="cells.csv", **field("File"))
        self.image = Dropdown(**field("Image"))
        self.column = Text(placeholder=_AS_SAID, **field("Class column"))
        self.names = Text(placeholder=_AS_SAID, **field("Class names"))
        self.overwrite = Checkbox(
            description="Replace what is another class here", indent=False, layout={"margin": "0 0 0 116px"}
        )
        self.take = Button(description="Import", icon="sign-in", layout={"width": "110px", "margin": "0"})
        self.take.tooltip = "Annotate as the file says, in one edit"
        self.undo = Button(description="Take it back", icon="undo", layout={"width": "130px", "margin": "0 0 0 8px"})
        self.undo.tooltip = "Undo the import as a whole"
        self.said = StatusLine(hides=True)
        self.missed = HTML(layout={"width": "100%", "margin": "0"})
        self.take.on_click(catch_errors(lambda _: self._take(), self.said))
        self.undo.on_click(catch_errors(lambda _: self._undo(), self.said))
        kinds = "A table (CSV, Excel; ilastik's too), GeoJSON of QuPath, a class image, a napari-svetlana folder"
        super().__init__(
            [
                line(self.path, note(kinds)),
                line(self.image, note("Only where the file does not name its images")),
                line(self.column, note("Only where a table has several that might be meant")),
                line(self.names, note("Only for numbers of a class image, in their order: resting, active")),
                self.overwrite,
                HBox([self.take, self.undo]),
                self.said,
                self.missed,
            ],
            layout={"width": "100%", "grid_gap": "4px"},
        )
        self.follow()

    def follow(self) -> None:
        """Offer the images that the project has now, and to take back what was imported last."""
        names = list(self._project.images)
        if [value for _, value in self.image.options] != ["", *names]:
            chosen = self.image.value
            self.image.options = [(_AS_SAID, ""), *((name, name) for name in names)]
            self.image.value = chosen if chosen in names else ""
        latest = bool(self._imported) and self._imported == self._project.annotations_version
        self.undo.layout.display = None if latest else "none"

    def _take(self) -> None:
        path, project = self.path.value.strip(), self._project
        self.missed.value = ""
        if not path:
            self.said.warn("Say which file the annotations are in first.")
            return
        before = project.annotations_version
        names = [name.strip() for name in self.names.value.split(",")] if self.names.value.strip() else None
        try:
            report = project.import_annotations(
                path,
                self.image.value or None,
                column=self.column.value.strip() or None,
                names=names,
                overwrite=self.overwrite.value,
            )
        except SvetlanaError as error:
            raise InputError(_here(str(error))) from error
        missed = report[~report["outcome"].isin(_FITS)]
        summary = _here(report.attrs["summary"])
        (self.said.say if report["outcome"].isin(_FITS).any() else self.said.warn)(summary)
        self._status.say("")  # where the project says it in the words of a script
        self.missed.value = in_words_import_form(missed)
        self._imported = project.annotations_version if project.annotations_version != before else 0
        self.follow()

    def _undo(self) -> None:
        self._imported = 0
        self._project.undo()
        self.missed.value = ""
        self.said.say("The import is taken back.")
        self._status.say("")
        self.follow()


def in_words_import_form(missed: pd.DataFrame) -> str:
    """Return the first rows of a report of `Project.import_annotations` as HTML, "" for none."""
    if missed.empty:
        return ""
    first = missed.head(_LISTED_IMPORT_FORM)
    rows = [
        (row["image"] or "–", int(row["object"]) or "–", row["class"] or "–", row["why"])
        for row in first.to_dict("records")
    ]
    more = f"and {len(missed) - len(rows):,} more" if len(missed) > len(rows) else ""
    listed = html_table(["Image", "Object", "Class", "Not taken because"], rows)
    return f'<div class="sv-pairs">{listed}{muted(more)}</div>'


def _here(sentence: str) -> str:
    for script, panel in _HERE.items():
        sentence = re.sub(script, panel, sentence)
    return sentence


_LISTED = 500
_HINT = "More images can be added below, and an image can be given another mask: its annotations go over to it."


class ImagesPanel(Panel):
    """Lists the images of a project, adds some, gives one another mask, and imports annotations.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    listing : HTML
    fields : PairFields
    add : Button
    mask : MaskForm
    importing : ImportForm
    """

    def __init__(self, project: Project) -> None:
        super().__init__(project)
        self.listing = HTML(layout={"width": "100%", "margin": "0"})
        self.fields = PairFields(self.status)
        self.add: Button = self.make_button(
            self._add,
            "Add images",
            icon="plus",
            tooltip="Add the images listed above; what the project has already stays as it is",
            layout={"width": "150px", "margin": "0"},
        )
        self.mask = MaskForm(project, self.run_action, self.status)
        self.importing = ImportForm(project, self.status)
        self.forms = Accordion(
            [VBox([self.fields, HBox([self.add])]), self.mask, self.importing],
            titles=["Add images", "Give an image another mask", "Import annotations"],
            selected_index=None if project.images else 0,
            layout={"margin": "8px 0 4px 0"},
        )
        self.children = (self._style, heading("Images"), self.listing, self.forms, self.status)
        self.observe_project(self._follow, "images_version", "annotations_version")
        self._follow()
        self.show_hint(_HINT if project.images else "There are no images yet: say below where they lie.")

    def _follow(self) -> None:
        project = self.project
        entries = project.images
        labels = project.labels().query("action == 'label'")
        annotated = labels.groupby(level="image").size()
        groups = list(dict.fromkeys(group for entry in entries.values() for group in entry.groups))
        rows = []
        for name, entry in list(entries.items())[:_LISTED]:
            channels = f"{len(entry.channels)} channels, " if len(entry.channels) > 1 else ""
            objects = len(project.objects(name)) if project.is_indexed(name) else "not counted yet"
            said = [name, *(entry.groups.get(group, "") for group in groups)]
            shape = channels + " × ".join(map(str, entry.shape))
            rows.append([*said, shape, entry.dtype, objects, int(annotated.get(name, 0)), project.mask_file(name).name])
        titles = ["Name", *(group.capitalize() for group in groups), "Shape", "Type", "Objects", "Annotated", "Mask"]
        more = len(entries) - len(rows)
        said = f"and {more:,} more" if more else ""
        self.listing.value = f'<div class="sv-pairs">{html_table(titles, rows)}{muted(said)}</div>' if rows else ""
        self.mask.follow()
        self.importing.follow()

    def _add(self) -> None:
        question = self.fields.question
        question.check()
        if not question.images:
            self.status.warn("Say where the images and their masks lie first.")
            return
        before = len(self.project.images)
        spacing = numbers(question.spacing)
        added = self.project.add_images(question.images, question.masks, question.axes, spacing)
        count = len(self.project.images) - before
        problems = left_out(added)
        said = f"{count:,} image{' is' if count == 1 else 's are'} new. {problems}".strip()
        (self.status.warn if problems else self.status.say)(said)
        if not problems:
            self.fields.clear()
