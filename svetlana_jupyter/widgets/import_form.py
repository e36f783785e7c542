"""The form to import annotations: a file, what it does not say itself, and what became of each of its rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd
from ipywidgets import HTML, Button, Checkbox, Dropdown, HBox, Text, VBox

from svetlana_jupyter.errors import InputError, SvetlanaError
from svetlana_jupyter.widgets.pair_fields import field, line, note
from svetlana_jupyter.widgets.panel import guarded
from svetlana_jupyter.widgets.parts import StatusLine, muted, table

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

_LISTED = 12
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
        self.take.tooltip = "Annotate as the file says, in one gesture"
        self.undo = Button(description="Take it back", icon="undo", layout={"width": "130px", "margin": "0 0 0 8px"})
        self.undo.tooltip = "Undo the import as a whole"
        self.said = StatusLine(hides=True)
        self.missed = HTML(layout={"width": "100%", "margin": "0"})
        self.take.on_click(guarded(lambda _: self._take(), self.said))
        self.undo.on_click(guarded(lambda _: self._undo(), self.said))
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
        self.missed.value = in_words(missed)
        self._imported = project.annotations_version if project.annotations_version != before else 0
        self.follow()

    def _undo(self) -> None:
        self._imported = 0
        self._project.undo()
        self.missed.value = ""
        self.said.say("The import is taken back.")
        self._status.say("")
        self.follow()


def in_words(missed: pd.DataFrame) -> str:
    """Return the first rows of a report of `Project.import_annotations` as HTML, "" for none."""
    if missed.empty:
        return ""
    first = missed.head(_LISTED)
    rows = [
        (row["image"] or "–", int(row["object"]) or "–", row["class"] or "–", row["why"])
        for row in first.to_dict("records")
    ]
    more = f"and {len(missed) - len(rows):,} more" if len(missed) > len(rows) else ""
    return f'<div class="sv-pairs">{table(["Image", "Object", "Class", "Not taken because"], rows)}{muted(more)}</div>'


def _here(sentence: str) -> str:
    for script, panel in _HERE.items():
        sentence = re.sub(script, panel, sentence)
    return sentence
