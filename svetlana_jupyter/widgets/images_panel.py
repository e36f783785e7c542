"""Images panel: list of images, and forms for images, masks and annotations."""

from __future__ import annotations

import html
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ipywidgets import HTML, Accordion, Button, Checkbox, Combobox, Dropdown, HBox, Text, VBox

from svetlana_jupyter.core.io.geojson import is_geojson
from svetlana_jupyter.core.io.readers import HDF5_SUFFIXES, READERS
from svetlana_jupyter.core.io.typed_paths import clean_path
from svetlana_jupyter.errors import InputError, SvetlanaError
from svetlana_jupyter.widgets.components import StatusLine, button, error_text, heading, html_table, muted, set_options
from svetlana_jupyter.widgets.new_project_form import PairFields, field_options, field_row
from svetlana_jupyter.widgets.panel import MAX_WIDTH, Panel, catch_errors
from svetlana_jupyter.widgets.scheduling import LatestQuestion

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.project.project import Project

_LISTED_IMAGES = 500


class ImagesPanel(Panel):
    """Panel that lists the images of a project.

    Its forms add images, replace masks and import annotations.

    Parameters
    ----------
    project : Project or path

    Attributes
    ----------
    listing : HTML
    fields : PairFields
    add : Button
    mask : MaskForm
    importing : ImportForm
    forms : Accordion
        Holds the fields to add images, ``mask`` and ``importing``.
    """

    def __init__(self, project: Project | str | Path) -> None:
        super().__init__(project)
        self.layout.max_width = MAX_WIDTH
        project = self.project
        self.listing = HTML(layout={"width": "100%", "margin": "0"})
        self.fields = PairFields(self.status, self._add)
        tooltip = "Add the images listed above; images of the project stay as they are"
        self.add: Button = self.make_button(self._add, "Add images", "plus", tooltip, width="150px", margin="0")
        self.mask = MaskForm(self)
        self.importing = ImportForm(project, self.status)
        self.forms = Accordion(
            [VBox([self.fields, HBox([self.add, self.fields.remedies])]), self.mask, self.importing],
            titles=["Add images", "Replace a mask", "Import annotations"],
            selected_index=None if project.images else 0,
            layout={"margin": "8px 0 4px 0"},
        )
        self.children = (self._style, heading("Images"), self.listing, self.forms, self.status)
        self.observe_project(self._refresh, "images_version", "annotations_version")
        self._refresh()
        first = "No images yet. Enter the files of your images and masks."
        self.show_hint("Add images, replace a mask, or import annotations." if project.images else first)

    def _refresh(self) -> None:
        project, images = self.project, self.project.images
        annotated = project.labels().query("action == 'label'").groupby(level="image").size()
        columns = list(dict.fromkeys(group for entry in images.values() for group in entry.groups))
        groups = [group for group in columns if any(entry.groups.get(group) != name for name, entry in images.items())]
        names = [group for group in columns if group not in groups]  # columns with the names of the images
        rows = [
            [
                name,
                *(entry.groups.get(group, "") for group in groups),
                self._object_count(name),
                int(annotated.get(name, 0)),
                " × ".join(map(str, entry.shape)) + f", {len(entry.channels)} channels" * (len(entry.channels) > 1),
                entry.dtype,
                images.mask_file(name).name,
            ]
            for name, entry in islice(images.items(), _LISTED_IMAGES)
        ]
        titles = [", ".join(names).capitalize() or "Name", *(group.capitalize() for group in groups)]
        titles += ["Objects", "Annotated", "Shape", "Type", "Mask"]
        more = muted(f"and {len(images) - len(rows):,} more" if len(images) > len(rows) else "")
        self.listing.value = f'<div class="sv-pairs sv-listing">{html_table(titles, rows)}{more}</div>' if rows else ""
        self.mask.refresh()
        self.importing.refresh()

    def _object_count(self, name: str) -> int | str:
        if not self.project.images.is_indexed(name):
            return "not counted yet"
        try:
            return len(self.project.objects(name))
        except SvetlanaError:  # the warning above the panel tells the user what to do
            return "unknown"

    def _add(self, repair: str | None = None) -> None:
        if not self.fields.patterns()[0]:
            self.status.warn("Enter the files of your images and masks.")
            return
        before = len(self.project.images)
        skipped = self.fields.add_pairs(self.project, repair)
        count = len(self.project.images) - before
        message = f"Added {count:,} image{'' if count == 1 else 's'}. {skipped}".strip()
        if skipped:
            self.status.warn(message)
        else:
            self.status.say(message)
            self.fields.clear()


_LISTED_FILES, _LISTED_OBJECTS = 100, 6
_STATUS_TEXTS = {
    "kept": "Same label; the annotation is kept",
    "relabeled": "Another label; the annotation is kept",
    "split": "Split; new objects mostly inside the old one keep its annotation",
    "merged": "Merged; the annotation of more than half of the new object is kept",
    "lost": "No matching object; the annotation stays in the log",
}
_MATCHED_BY_BOXES = "The old mask has changed on disk. Bounding boxes of the annotated objects are compared instead."

MaskQuestion = tuple[str, str]  # an image, and the path of a mask that may replace its current mask


class MaskForm(VBox):
    """Form that replaces the mask of an image.

    The form first shows the effect on the annotations.

    Parameters
    ----------
    panel : Panel
        Runs the replacement, and shows its result and errors.

    Attributes
    ----------
    image : Dropdown
    path : Combobox
    report : HTML
    replace : Button
    """

    def __init__(self, panel: Panel) -> None:
        project, status = self._project, self._status = panel.project, panel.status
        self._latest: LatestQuestion[MaskQuestion] = LatestQuestion(
            lambda question: (question, project.check_mask(question[0], Path(clean_path(question[1])))),
            catch_errors(self._show, status),
            # Any error is possible: a path that is half typed may lead anywhere in a file system.
            show_error=lambda _, error: self._show_text(error_text(error, "The file cannot be read")),
        )
        self._checked: MaskQuestion | None = None
        self.image = Dropdown(**field_options("Image"))
        self.path = Combobox(placeholder="masks/A1_new.tif", **field_options("New mask"))
        self.report = HTML(layout={"width": "100%", "margin": "2px 0 0 0"})
        self.replace = panel.make_button(self._replace, "Replace mask", "exchange", width="170px", margin="0")
        self._current_mask = HTML()
        super().__init__(
            [
                field_row(self.image, self._current_mask),
                field_row(self.path, "Same shape as the image; the file is not copied"),
                self.report,
                HBox([self.replace]),
            ],
            layout={"width": "100%", "grid_gap": "4px"},
        )
        self.image.observe(catch_errors(lambda _: self._list_masks(), status), "value")
        self.path.observe(catch_errors(lambda _: self._ask(), status), "value")
        self.refresh()

    def refresh(self) -> None:
        """Update the list of images, and compare the masks again."""
        set_options(self.image, list(self._project.images))
        self._list_masks()

    def _list_masks(self) -> None:
        """List the files in the folder of the current mask as suggestions."""
        if self.image.value is None:
            return
        current = self._project.images.mask_file(self.image.value)
        self._current_mask.value = muted(f"Current mask: {current.name}")
        self._current_mask.tooltip = str(current)
        files = sorted(filter(is_mask_file, current.parent.iterdir())) if current.parent.is_dir() else []
        changed = self._project.images.refusal(self.image.value)  # then the current file is a new mask
        self.path.options = [str(file) for file in files[:_LISTED_FILES] if changed or file != current]
        self._ask()

    def _ask(self) -> None:
        path = self.path.value.strip()
        self._checked = None
        self.replace.disabled = True
        if path and self.image.value:
            self._show_text("Comparing …")
            self._latest.ask((self.image.value, path))
        else:
            self._latest.ask(None)
            self._show_text("Choose a file to preview its effect on the annotations.")

    def _show(self, answer: tuple[MaskQuestion, pd.DataFrame]) -> None:
        question, report = answer
        self._checked = question
        self.replace.disabled = False
        self.report.value = mask_report_html(report, question[0])

    def _show_text(self, text: str) -> None:
        self.report.value = f'<div class="sv-pairs"><div class="sv-empty">{html.escape(text)}</div></div>'

    def _replace(self) -> None:
        assert self._checked is not None  # otherwise the button is disabled
        image, path = self._checked
        report = self._project.replace_mask(image, Path(clean_path(path)))
        message = self._project.status
        self.path.value = ""
        self.report.value = mask_report_html(report, image)
        self._status.say(message)


def is_mask_file(file: Path) -> bool:
    """Return whether a file can be opened as a mask, judging by its name."""
    return file.suffix.lower() in {*READERS, *HDF5_SUFFIXES, ".zarr"} or is_geojson(file)


def mask_report_html(report: pd.DataFrame, image: str) -> str:
    """Return a report of `Project.check_mask` or `Project.replace_mask` as HTML."""
    if report.empty:
        return muted(f"No annotations in {image}, so none are affected.")
    statuses = report.groupby("status")["new"]
    groups = {status: statuses.get_group(status) for status in _STATUS_TEXTS if status in statuses.groups}
    rows = [(len(group), _STATUS_TEXTS[status], _label_changes(group)) for status, group in groups.items()]
    summary = f"{len(report):,} annotated object{'' if len(report) == 1 else 's'} in {image}:"
    boxes = f"<br>{muted(_MATCHED_BY_BOXES)}" if report.attrs.get("matched_by") == "boxes" else ""
    return f"{muted(summary)}{html_table(['Objects', 'Effect', 'Labels'], rows)}{boxes}"


def _label_changes(new_labels: pd.Series) -> str:
    """Return the first old labels, each with its new labels if they differ."""
    changes = [
        f"{old} → {', '.join(map(str, new))}" if new and tuple(new) != (old,) else str(old)
        for old, new in new_labels.head(_LISTED_OBJECTS).items()
    ]
    return "; ".join(changes) + (" …" if len(new_labels) > _LISTED_OBJECTS else "")


_LISTED_ROWS = 12
_IMPORTED = ("taken", "known")  # outcomes of rows whose label is now an annotation of the project
_FROM_FILE = "from the file"
# Messages of `Project.import_annotations` name its arguments. The panel has form fields in their place.
_PANEL_TERMS = {
    r"pass overwrite=True to replace": "check the box above to replace",
    r"Pass image=, one of": "Choose one of these above:",
    r"or pass image=": "or choose an image above",
    r"Leave out image= if": f"Choose “{_FROM_FILE}” as the image if",
    r"Pass column=, one of": "Enter one of these as the class column:",
    r"with spacing=": "with its pixel size",
    r"Pass their names with names=\{[^}]*\}": "Enter their names above",
    r"Pass names=": "Enter class names above",
    r"Pass the path": "Enter the path",
}


class ImportForm(VBox):
    """Form that imports annotations from a file.

    Parameters
    ----------
    project : Project
    status : StatusLine
        Status line of the panel; cleared when the form itself shows the result.

    Attributes
    ----------
    path, column, names : Text
    image : Dropdown
        The value is "" if the file names its images.
    overwrite : Checkbox
    take, undo : Button
        ``undo`` is shown until the annotations change again.
    message : StatusLine
    not_imported : HTML
        The rows that were not imported.
    """

    def __init__(self, project: Project, status: StatusLine) -> None:
        self._project, self._status = project, status
        self._imported_version = 0  # annotations_version after the last import
        self.path = Text(placeholder="cells.csv", **field_options("File"))
        self.image = Dropdown(**field_options("Image"))
        self.column = Text(placeholder=_FROM_FILE, **field_options("Class column"))
        self.names = Text(placeholder=_FROM_FILE, **field_options("Class names"))
        overwrite = "Overwrite existing annotations"
        self.overwrite = Checkbox(description=overwrite, indent=False, layout={"margin": "0 0 0 116px"})
        self.message = StatusLine(hides=True)
        self.not_imported = HTML(layout={"width": "100%", "margin": "0"})
        take, undo = catch_errors(self._take, self.message), catch_errors(self._undo, self.message)
        tooltip = "Import all annotations as one edit"
        self.take = button(take, "Import", "sign-in", tooltip, width="110px", margin="0")
        tooltip = "Undo the whole import"
        self.undo = button(undo, "Undo import", "undo", tooltip, width="130px", margin="0 0 0 8px")
        super().__init__(
            [
                field_row(self.path, "CSV or Excel table, QuPath GeoJSON, class image, napari-svetlana folder"),
                field_row(self.image, "If the file does not name its images"),
                field_row(self.column, "If a table has several columns of classes"),
                field_row(self.names, "For a class image: names of classes 1, 2, …, such as resting, active"),
                self.overwrite,
                HBox([self.take, self.undo]),
                self.message,
                self.not_imported,
            ],
            layout={"width": "100%", "grid_gap": "4px"},
        )
        self.refresh()

    def refresh(self) -> None:
        """Update the list of images; show Undo if the import is the last edit."""
        set_options(self.image, [(_FROM_FILE, ""), *((name, name) for name in self._project.images)])
        last = bool(self._imported_version) and self._imported_version == self._project.annotations_version
        self.undo.layout.display = None if last else "none"

    def _take(self) -> None:
        path, project = self.path.value.strip() and clean_path(self.path.value), self._project
        self.not_imported.value = ""
        if not path:
            self.message.warn("Enter the file with the annotations.")
            return
        before = project.annotations_version
        names = [name.strip() for name in self.names.value.split(",")] if self.names.value.strip() else None
        column, image, overwrite = self.column.value.strip() or None, self.image.value or None, self.overwrite.value
        try:
            report = project.import_annotations(path, image, column=column, names=names, overwrite=overwrite)
        except SvetlanaError as error:
            raise InputError(_in_panel_terms(str(error))) from error
        imported = report["outcome"].isin(_IMPORTED)
        (self.message.say if imported.any() else self.message.warn)(_in_panel_terms(report.attrs["summary"]))
        self._status.say("")  # the panel shows the same summary with the argument names of a script
        self.not_imported.value = import_report_html(report[~imported])
        self._imported_version = project.annotations_version if project.annotations_version != before else 0
        self.refresh()

    def _undo(self) -> None:
        self._imported_version = 0
        self._project.undo()
        self.not_imported.value = ""
        self.message.say("Undid the import.")
        self._status.say("")
        self.refresh()


def import_report_html(not_imported: pd.DataFrame) -> str:
    """Return rows of an import report as HTML, at first one for each reason."""
    if not_imported.empty:
        return ""
    order = not_imported.groupby("why").cumcount().sort_values(kind="stable").index
    shown = not_imported.loc[order].head(_LISTED_ROWS)[["image", "object", "class", "why"]]
    rows = [[value or "–" for value in row] for row in shown.itertuples(index=False)]
    more = f"and {len(not_imported) - len(rows):,} more" if len(not_imported) > len(rows) else ""
    listed = html_table(["Image", "Object", "Class", "Not imported because"], rows)
    return f'<div class="sv-pairs">{listed}{muted(more)}</div>'


def _in_panel_terms(sentence: str) -> str:
    for script, panel in _PANEL_TERMS.items():
        sentence = re.sub(script, panel, sentence)
    return sentence
