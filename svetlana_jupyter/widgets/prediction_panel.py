"""The panel to predict and review: every object classified, the least certain first, corrected with a key.

The form to export: where to, in which formats, and what was written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ipywidgets import HTML, Accordion, Button, Checkbox, HBox, Text, VBox

from svetlana_jupyter.core.annotations import UNLABELED, ObjectId
from svetlana_jupyter.core.stats.metrics import Proportion
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.project.exporters import FORMATS
from svetlana_jupyter.widgets.components import JobProgress, StatusLine, heading, html_table, muted, side_by_side
from svetlana_jupyter.widgets.labeling import NO_OBJECT_SELECTED, LabelingPanel
from svetlana_jupyter.widgets.panel import Command, catch_errors
from svetlana_jupyter.widgets.scheduling import Debounce
from svetlana_jupyter.widgets.viewer.object_details import Inspector, explanation_pictures

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.project.project import Project


class ExportForm(VBox):
    """A folder, a box to tick for each format, a button, and a line that says what came of it.

    Parameters
    ----------
    folder : str
        Suggested.
    formats : mapping of str to str
        What a person reads of each format; the first one is ticked.
    act : callable
        Called with the folder and the formats that are ticked; what it raises is shown.

    Attributes
    ----------
    said : Status
        Hidden as long as there is nothing to say.
    """

    def __init__(self, folder: str, formats: Mapping[str, str], act: Callable[[str, list[str]], None]) -> None:
        self.folder = Text(value=folder, description="Folder", layout={"width": "640px"})
        self.folder.tooltip = "Made if it is new"
        self.formats = {
            name: Checkbox(value=position == 0, description=words, indent=False, layout={"width": "276px"})
            for position, (name, words) in enumerate(formats.items())
        }
        self.export = Button(
            description="Export", icon="download", tooltip="Write the results", layout={"width": "110px"}
        )
        self.said = StatusLine(hides=True)
        # Unlike other buttons it leaves the keyboard where it is: the viewer, far above, would come back into sight.
        self.export.on_click(catch_errors(lambda _: self._act(), self.said))
        self._export = act
        super().__init__(
            [
                self.folder,
                HBox(list(self.formats.values()), layout={"flex_flow": "row wrap"}),
                self.export,
                self.said,
            ]
        )

    def _act(self) -> None:
        chosen = [name for name, box in self.formats.items() if box.value]
        if chosen:
            self._export(self.folder.value, chosen)
        else:
            self.said.warn("Tick what to export.")


Wanted = tuple[ObjectId | None, str]


class PredictionPanel(LabelingPanel):
    """Predict, look, correct, retrain, export.

    Parameters
    ----------
    project : Project
    """

    def __init__(self, project: Project) -> None:
        super().__init__(project, queue="uncertain", source="correction", queue_source="correction")
        self.viewer.overlay = "predictions"
        self.set_commands(
            Command(("p",), "Previous", "chevron-left", "Previous object", self.previous),
            Command(("n", " "), "Next", "chevron-right", "Next object, least certain first", self.next),
            Command(("Enter",), "Accept", "check", "Keep the prediction as an annotation", self.accept),
            Command(("s",), "Skip", "step-forward", "Pass over this object", self.mark_command("skip")),
            Command(("u",), "Undo", "undo", "Take back the last annotation", self.undo),
            Command(("r",), "Redo", "repeat", "Bring it back again", self.redo),
            Command(("a",), "Ambiguous", "question", "Even an expert could not tell", self.mark_command("ambiguous")),
            Command(
                ("b",),
                "Bad segmentation",
                "chain-broken",
                "The outline is wrong here",
                self.mark_command("bad_segmentation"),
            ),
        )
        self.predict_image = self.make_button(
            lambda: project.background.predict([self.viewer.image]),
            "Predict this image",
            icon="picture-o",
            tooltip="Classify every object of the image shown",
            layout={"width": "160px", "flex": "0 0 auto"},
        )
        self.predict_all = self.make_button(
            project.background.predict,
            "Predict all images",
            icon="th",
            button_style="primary",
            tooltip="Classify every object of every image",
            layout={"width": "160px", "flex": "0 0 auto"},
        )
        self.retrain = self.make_button(
            lambda: project.background.train(predict=True),
            "Retrain",
            icon="refresh",
            tooltip="Train again on all annotations, corrections included, and predict all images",
            layout={"width": "110px", "flex": "0 0 auto"},
        )
        self.job = JobProgress(stop=lambda: self.run_action(project.stop))
        self.inspector = Inspector(self.rows)
        self.counts = HTML(layout={"width": "100%", "margin": "0"})
        self.export_form = ExportForm(
            str(project.path.with_name(f"{project.path.stem}_results")),
            {name: kind.title for name, kind in FORMATS.items()},
            project.background.export,
        )
        self._wanted: Wanted = None, ""
        self._last_job = ""  # of the job that runs, or ran last
        # Counting all images and explaining take longer than a keypress may: both wait until the keys rest.
        self._recount = Debounce(catch_errors(self._show_counts, self.status), delay=0.6)
        self._reexplain = Debounce(catch_errors(self._explain, self.status), delay=0.2)

        empty, body = self.arrange(
            HBox([heading("Review"), self.help_button], layout={"align_items": "center"}),
            self.inspector,
            self.grid(),
            self.help,
        )
        self.children = (
            self._style,
            HBox([self.predict_image, self.predict_all, self.retrain, self.job], layout={"width": "100%"}),
            empty,
            body,
            self.status,
            heading("Counts"),
            self.counts,
            Accordion([self.export_form], titles=["Export the results"]),
        )
        self.observe_project(self._show_job, "job", "current_run", "annotations_version", "images_version")
        self.observe_project(self.reset_queue, "predictions_version", "current_run", "images_version")
        self.observe_project(self.show, "annotations_version", "classes_version", "predictions_version")
        self.observe_project(
            self._recount.restart, "annotations_version", "classes_version", "images_version", "predictions_version"
        )
        self.observe_project(self._show_exported, "last_export")
        self.observe_project(self._show_export_trouble, "trouble")
        self._show_job()
        self.show()
        self._show_counts()
        self.show_hint(
            "Predict, then press n for the least certain object: Enter accepts its prediction, a digit corrects it."
            if project.current_run
            else "Nothing is trained yet: annotate, train, then predict here."
        )

    def accept(self, object_id: ObjectId | None) -> None:
        """Keep the prediction of an object as its annotation."""
        predicted = self._predicted(object_id)
        if object_id is None or predicted is None:
            several = self.viewer.selection and not self.viewer.selected
            missing = "Accept predictions one by one." if several else "This object is not predicted yet."
            self.status.say(NO_OBJECT_SELECTED if object_id is None else missing)
            return
        self.label(self.project.classes.by_id(int(predicted["predicted"])).name, object_id)

    def show(self) -> None:
        project, object_id = self.project, self.one
        label = project.annotations.label_of(*object_id) if object_id else UNLABELED
        self.inspector.show(object_id, self._predicted(object_id), label, project.classes.scheme)
        self.buttons["Undo"].disabled = not project.annotations.can_undo
        self.buttons["Redo"].disabled = not project.annotations.can_redo
        wanted = object_id, project.current_run
        if wanted != self._wanted:
            self._wanted = wanted
            self.inspector.show_pictures()
            self._reexplain.restart()

    def _predicted(self, object_id: ObjectId | None) -> pd.Series | None:
        """Return the row of `Project.probabilities` of an object, if it has one."""
        if object_id is None:
            return None
        table = self.project.probabilities(object_id.image)
        return table.loc[object_id.label] if object_id.label in table.index else None

    def _show_job(self) -> None:
        project = self.project
        self.job.show(project.job)
        free = project.job is None
        if project.job is not None:
            self._last_job = project.job.kind
            if self._last_job == "export":
                self.export_form.said.say(f"{project.job.text or 'exporting'} …")
        self.export_form.export.disabled = not free
        self.predict_image.disabled = self.predict_all.disabled = not (free and project.current_run and project.images)
        self.retrain.disabled = not free or bool(project.readiness())

    def _show_counts(self) -> None:
        project = self.project
        if not (project.images and project.current_run):  # counting would have to look at every image, for little
            self.counts.value = muted("They come with the first prediction.")
            return
        self.viewer.indexing.after(project.images, self._count)

    def _count(self) -> None:
        project = self.project
        counts = project.counts(by="image")
        totals = counts.groupby("class")["count"].sum()
        known = int(totals.sum())
        shares = [(info, int(totals[info.name]), _share(int(totals[info.name]), known)) for info in project.classes]
        wide = counts.pivot(index="image", columns="class", values="count")[list(project.classes.names)]
        wide["without"] = counts.groupby("image")["left_out"].first()
        images = [(name, *map(int, row)) for name, row in zip(wide.index, wide.to_numpy())]
        self.counts.value = side_by_side(
            html_table(["Class", "Objects", "Share (95 % interval)"], shares),
            html_table(["Image", *project.classes.names, "Without class"], images),
        )

    def _show_exported(self) -> None:
        if self.project.last_export is not None:
            self.export_form.said.say(self.project.last_export.text)

    def _show_export_trouble(self) -> None:
        if self._last_job == "export" and self.project.trouble:
            self.export_form.said.warn(self.project.trouble)

    def _explain(self) -> None:
        """Show what the classifier sees and where it looked; computed beside the kernel's loop, so that keys go on."""
        wanted = self._wanted
        label, run = wanted
        if label is None or not run:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a script or a test: nothing to keep free
            self._show_explanation(wanted, self._pictures(label))
            return
        pictures = loop.run_in_executor(None, self._pictures, label)
        pictures.add_done_callback(
            catch_errors(lambda done: self._show_explanation(wanted, done.result()), self.status)
        )

    def _pictures(self, object_id: ObjectId) -> tuple[bytes, bytes] | SvetlanaError:
        try:
            return explanation_pictures(self.project.explain(*object_id))
        except SvetlanaError as error:
            return error

    def _show_explanation(self, wanted: Wanted, pictures: tuple[bytes, bytes] | SvetlanaError) -> None:
        """Show an answer, unless another object was chosen meanwhile."""
        if wanted != self._wanted:
            return
        if isinstance(pictures, SvetlanaError):
            self.inspector.show_pictures(caption=str(pictures))
        else:
            self.inspector.show_pictures(*pictures)


def _share(count: int, total: int) -> str:
    share = Proportion(count, total)
    low, high = share.interval
    return f"{share.value:.1%} ({low:.1%} to {high:.1%})" if total else "–"
