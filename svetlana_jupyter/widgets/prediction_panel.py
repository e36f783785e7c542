"""Panel to predict objects, review the least certain ones, and export results."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from ipywidgets import Accordion, HBox

from svetlana_jupyter.core.annotations import UNLABELED, ObjectId
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.components import JobProgress, heading
from svetlana_jupyter.widgets.labeling import NO_OBJECT_SELECTED, LabelingPanel
from svetlana_jupyter.widgets.panel import Command, catch_errors, labeling_commands
from svetlana_jupyter.widgets.result_forms import ClassCounts, ExportForm
from svetlana_jupyter.widgets.scheduling import LatestQuestion
from svetlana_jupyter.widgets.viewer.object_details import Inspector, explanation_pictures

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import xarray as xr

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

    job_kinds = frozenset({"prediction"})  # the form shows what an export has written

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
        self.counts = ClassCounts(self, self.viewer.indexing)
        self.export_form = ExportForm(self)
        self._question: Question | None = None
        self._explanation = LatestQuestion(
            lambda question: project.explain(*question[0]),
            self._show_explanation,
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
        self.counts.show()
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
        observe(self.renew_queue, "predictions_version", "current_run")
        observe(self.reset_queue, "images_version")
        observe(self.show, "annotations_version", "classes_version", "predictions_version")

    def _predicted(self, object_id: ObjectId | None) -> pd.Series | None:
        """Return the row of an object in `Project.probabilities`, or None."""
        if object_id is None:
            return None
        table = self.project.probabilities(object_id.image)
        return cast("pd.Series", table.loc[object_id.label]) if object_id.label in table.index else None

    def _show_job(self) -> None:
        project, idle = self.project, self.project.job is None
        self.job.show(project.job)
        self.predict_image.disabled = self.predict_all.disabled = not (idle and project.current_run and project.images)
        self.retrain.disabled = not idle or bool(project.readiness())

    def _show_explanation(self, explanation: xr.Dataset) -> None:
        run = explanation.attrs["run"]
        caption = "Grad-CAM" if run == self.project.current_run else f"Grad-CAM of run {run}"
        self.inspector.show_pictures(*explanation_pictures(explanation), caption)

    def _show_explanation_error(self, question: Question, error: Exception) -> None:
        if not isinstance(error, SvetlanaError):
            raise error
        self.inspector.show_pictures(caption=str(error))
