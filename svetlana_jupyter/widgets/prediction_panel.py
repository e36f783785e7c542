"""Panel to predict objects, review the least certain ones, and export results."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from ipywidgets import HTML, Accordion, Checkbox, HBox, Text, VBox

from svetlana_jupyter.core.annotations import UNLABELED, ObjectId
from svetlana_jupyter.core.io.typed_paths import clean_path
from svetlana_jupyter.core.stats.metrics import count_classes
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.project.exporters import FORMATS
from svetlana_jupyter.widgets.components import (
    JobProgress,
    StatusLine,
    button,
    heading,
    html_table,
    muted,
    side_by_side,
)
from svetlana_jupyter.widgets.labeling import NO_OBJECT_SELECTED, LabelingPanel
from svetlana_jupyter.widgets.new_project_form import field_options, field_row
from svetlana_jupyter.widgets.panel import Command, catch_errors, labeling_commands
from svetlana_jupyter.widgets.scheduling import Debounce, LatestQuestion
from svetlana_jupyter.widgets.viewer.object_details import Inspector, explanation_pictures

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from svetlana_jupyter.project.project import Project

Question = tuple[ObjectId, str]  # the object to explain, and the run

_FIRST_TRAINED = (
    "Predict, then press n for the least certain object. Enter accepts its prediction, the key of a class corrects it."
)
_FIRST_UNTRAINED = "No classifier is trained yet. Annotate, train, then predict here."


class PredictionPanel(LabelingPanel):
    """Panel to predict, review, correct, retrain and export.

    Parameters
    ----------
    project : Project or path
    """

    job_kinds = frozenset({"prediction", "export"})

    def __init__(self, project: Project | str | Path) -> None:
        super().__init__(project, "uncertain", "correction", queue_source="correction")
        project = self.project
        self.viewer.model.overlay = "predictions"
        self.command_bar.set_commands(
            Command(("p",), "Previous", "chevron-left", "Previous object", self.previous),
            Command(("n", " "), "Next", "chevron-right", "Next object, least certain first", self.next),
            Command(("Enter",), "Accept", "check", "Keep the prediction as an annotation", self.accept),
            *labeling_commands(self, "Skip", "Undo", "Redo", "Ambiguous", "Bad segmentation"),
        )
        self._make_job_buttons()
        self.job = JobProgress(stop=lambda: self.run_action(project.stop))
        self.inspector = Inspector(self.class_buttons)
        self.counts = HTML(layout={"width": "100%", "margin": "0"})
        self.export_form = ExportForm(project)
        self._question: Question | None = None
        self._last_job = ""  # kind of the job that runs, or ran last
        # Counting and explaining are too slow to run at each key, so both wait until no more keys are pressed.
        self._recount = Debounce(catch_errors(self._show_counts, self.status), delay=0.6)
        self._explanation = LatestQuestion(
            lambda question: explanation_pictures(project.explain(*question[0])),
            lambda pictures: self.inspector.show_pictures(*pictures),
            0.2,
            catch_errors(self._show_explanation_error, self.status),
        )

        hint, body = self.arrange(
            self.viewer,
            self.command_bar.header("Review"),
            self.inspector,
            self.command_bar.grid(),
            self.command_bar.help,
        )
        row = {"width": "100%", "flex_flow": "row wrap"}
        self.children = (
            self._style,
            HBox([self.predict_image, self.predict_all, self.retrain, self.job], layout=row),
            hint,
            body,
            self.status,
            heading("Counts"),
            self.counts,
            Accordion([self.export_form], titles=["Export the results"]),
        )
        self._observe_changes()
        self._show_job()
        self.show()
        self._show_counts()
        self.show_hint(_FIRST_TRAINED if project.current_run else _FIRST_UNTRAINED)

    def accept(self, object_id: ObjectId | None) -> None:
        """Keep the prediction of an object as its annotation."""
        predicted = self._predicted(object_id)
        if object_id is None:
            self.status.say(NO_OBJECT_SELECTED)
        elif predicted is not None:
            self.label(self.project.classes.by_id(int(predicted["predicted"])).name, object_id)
        elif self.single_object is None and self.viewer.model.selection:
            self.status.say("Select a single object: predictions are accepted one by one.")
        else:
            self.status.say("This object is not predicted yet.")

    def show(self) -> None:
        """Show the prediction of the selected object, and start its explanation."""
        project, object_id = self.project, self.single_object
        label = project.annotations.label_of(*object_id) if object_id else UNLABELED
        self.inspector.show(object_id, self._predicted(object_id), label, project.classes.scheme)
        self.command_bar.show_history()
        question = (object_id, project.current_run) if object_id and project.current_run else None
        if question != self._question:
            self._question = question
            self.inspector.show_pictures()
            self._explanation.ask(question)

    def _make_job_buttons(self) -> None:
        make, background, fixed = self.make_button, self.project.background, {"width": "160px", "flex": "0 0 auto"}
        this, every = "Classify every object of the displayed image", "Classify every object of every image"
        again = "Train again on all annotations including corrections, then predict all images"
        self.predict_image = make(self._predict_image, "Predict this image", "picture-o", this, **fixed)
        self.predict_all = make(background.predict, "Predict all images", "th", every, "primary", **fixed)
        retrain = partial(background.train, predict=True)
        self.retrain = make(retrain, "Retrain", "refresh", again, width="110px", flex="0 0 auto")

    def _predict_image(self) -> None:
        self.project.background.predict([self.viewer.model.image])

    def _observe_changes(self) -> None:
        observe = self.observe_project
        observe(self._show_job, "job", "current_run", "annotations_version", "images_version")
        observe(self.reset_queue, "predictions_version", "current_run", "images_version")
        observe(self.show, "annotations_version", "classes_version", "predictions_version")
        observe(
            self._recount.restart, "annotations_version", "classes_version", "images_version", "predictions_version"
        )
        observe(self._show_exported, "last_export")
        observe(self._show_export_error, "trouble")

    def _predicted(self, object_id: ObjectId | None) -> pd.Series | None:
        """Return the row of an object in `Project.probabilities`, or None."""
        if object_id is None:
            return None
        table = self.project.probabilities(object_id.image)
        return cast("pd.Series", table.loc[object_id.label]) if object_id.label in table.index else None

    def _show_job(self) -> None:
        project, idle = self.project, self.project.job is None
        self.job.show(project.job)
        if project.job is not None:
            self._last_job = project.job.kind
            if self._last_job == "export":
                self.export_form.result.say(f"{project.job.text or 'exporting'} …")
        self.export_form.export.disabled = not idle
        self.predict_image.disabled = self.predict_all.disabled = not (idle and project.current_run and project.images)
        self.retrain.disabled = not idle or bool(project.readiness())

    def _show_counts(self) -> None:
        project = self.project
        if project.images and project.current_run:
            self.viewer.indexing.run_when_indexed(project.images, self._count)
        else:  # counting would index every image, only to show empty tables
            self.counts.value = muted("Counts appear after the first prediction.")

    def _count(self) -> None:
        project = self.project
        counts = count_classes(project.predictions().reset_index(), project.classes.names, ["image"])
        totals = counts.groupby("class")["count"].sum()
        per_class = [(info, int(totals[info.name])) for info in project.classes]
        wide = counts.pivot(index="image", columns="class", values="count")[list(project.classes.names)]
        wide["without"] = counts.groupby("image")["left_out"].first()
        per_image = [(name, *map(int, row)) for name, row in zip(wide.index, wide.to_numpy())]
        self.counts.value = side_by_side(
            html_table(["Class", "Objects"], per_class),
            html_table(["Image", *project.classes.names, "Without class"], per_image),
        ) + muted("Objects as annotated or predicted. project.counts() estimates the share of each class.")

    def _show_exported(self) -> None:
        if self.project.last_export is not None:
            self.export_form.result.say(self.project.last_export.text)

    def _show_export_error(self) -> None:
        if self._last_job == "export" and self.project.trouble:
            self.export_form.result.warn(self.project.trouble)

    def _show_explanation_error(self, question: Question, error: Exception) -> None:
        if not isinstance(error, SvetlanaError):
            raise error
        self.inspector.show_pictures(caption=str(error))


class ExportForm(VBox):
    """Form with a folder, one checkbox per format, and the result of the export.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    folder : Text
    formats : dict of str to Checkbox
        The checkbox of each format; the first one is ticked initially.
    export : Button
    result : StatusLine
        Hidden while it is empty.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
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
        super().__init__([folder_row, formats_row, self.export, self.result])

    def _export(self) -> None:
        if ticked := [name for name, box in self.formats.items() if box.value]:
            self._project.background.export(clean_path(self.folder.value), ticked)
        else:
            self.result.warn("No format is selected. Tick at least one.")
