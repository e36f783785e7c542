"""Counts of the classes, and the form that exports all results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipywidgets import HTML, Checkbox, HBox, Text, VBox

from svetlana_jupyter.core.io.typed_paths import clean_path
from svetlana_jupyter.core.stats.metrics import count_classes
from svetlana_jupyter.project.exporters import FORMATS
from svetlana_jupyter.widgets.components import StatusLine, button, html_table, muted, side_by_side
from svetlana_jupyter.widgets.new_project_form import field_options, field_row
from svetlana_jupyter.widgets.panel import catch_errors
from svetlana_jupyter.widgets.scheduling import Debounce

if TYPE_CHECKING:
    from svetlana_jupyter.widgets.object_indexing import ObjectIndexer
    from svetlana_jupyter.widgets.panel import Panel

_COUNTED = "Objects as annotated or else predicted. Fractions with confidence intervals allow for wrong predictions."


class ClassCounts(HTML):
    """Tables with the number of objects per class, and per class and image.

    Parameters
    ----------
    panel : Panel
    indexing : ObjectIndexer
    """

    def __init__(self, panel: Panel, indexing: ObjectIndexer) -> None:
        super().__init__(layout={"width": "100%", "margin": "0"})
        self._project, self._indexing = panel.project, indexing
        # Counting is too slow to run at each key, so it waits until no more keys are pressed.
        recount = Debounce(catch_errors(self.show, panel.status), delay=0.6).restart
        versions = "annotations_version", "classes_version", "images_version", "predictions_version"
        panel.observe_project(recount, *versions, "current_run")

    def show(self) -> None:
        """Count the objects of all images, once they are indexed."""
        project = self._project
        if project.images and project.current_run:
            self._indexing.run_when_indexed(project.images, self._count)
        else:  # counting would index every image, only to show empty tables
            self.value = muted("Counts appear after the first prediction.")

    def _count(self) -> None:
        project = self._project
        counts = count_classes(project.predictions().reset_index(), project.classes.names, ["image"])
        totals = counts.groupby("class")["count"].sum()
        per_class = [(info, int(totals[info.name])) for info in project.classes]
        wide = counts.pivot(index="image", columns="class", values="count")[list(project.classes.names)]
        wide["without"] = counts.groupby("image")["left_out"].first()
        per_image = [(name, *map(int, row)) for name, row in zip(wide.index, wide.to_numpy())]
        self.value = side_by_side(
            html_table(["Class", "Objects"], per_class),
            html_table(["Image", *project.classes.names, "Without class"], per_image),
        ) + muted(_COUNTED)


class ExportForm(VBox):
    """Form with a folder, one checkbox per format, and the result of the export.

    Parameters
    ----------
    panel : Panel

    Attributes
    ----------
    folder : Text
    formats : dict of str to Checkbox
        The checkbox of each format; the first one is ticked initially.
    export : Button
    waiting : HTML
        Why the button is disabled.
    result : StatusLine
        Hidden while it is empty.
    """

    def __init__(self, panel: Panel) -> None:
        self._project = project = panel.project
        self._last_job = ""  # kind of the job that runs, or ran last
        folder = str(project.path.with_name(f"{project.path.stem}_results"))
        self.folder = Text(value=folder, **field_options("Folder"))
        self.formats = {
            name: Checkbox(False, description=exporter.title, indent=False, layout={"width": "240px"})
            for name, exporter in FORMATS.items()
        }
        next(iter(self.formats.values())).value = True
        self.result = StatusLine(hides=True)
        # Unlike other buttons, this one does not give the keyboard focus to the viewer, which would scroll into view.
        act = catch_errors(self._export, self.result)
        self.export = button(act, "Export", "download", "Write the results", width="110px")
        formats_row = HBox(list(self.formats.values()), layout={"flex_flow": "row wrap"})
        folder_row = field_row(self.folder, "A new folder is created")
        self.waiting = HTML(layout={"margin": "0 8px"})
        super().__init__(
            [folder_row, formats_row, HBox([self.export, self.waiting], layout={"align_items": "center"}), self.result]
        )
        panel.observe_project(self._show_job, "job")
        panel.observe_project(self._show_exported, "last_export")
        panel.observe_project(self._show_error, "trouble")
        self._show_job()

    def _show_job(self) -> None:
        job = self._project.job
        self.export.disabled = job is not None
        self.waiting.value = muted(f"Available when the {job.kind} has ended.") if job else ""
        if job is not None:
            self._last_job = job.kind
            if job.kind == "export":
                self.result.say(f"{job.text or 'exporting'} …")

    def _show_exported(self) -> None:
        if self._project.last_export is not None:
            self.result.say(self._project.last_export.text)

    def _show_error(self) -> None:
        if self._last_job == "export" and self._project.trouble:
            self.result.warn(self._project.trouble)

    def _export(self) -> None:
        if ticked := [name for name, box in self.formats.items() if box.value]:
            self._project.background.export(clean_path(self.folder.value), ticked)
        else:
            self.result.warn("No format is selected. Tick at least one.")
