"""Results panel: counts, plots, tables, evaluation and export."""

from __future__ import annotations

import io
import math
from functools import partial
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, Accordion, Dropdown, HBox, VBox

from svetlana_jupyter.project.run_store import LIVE
from svetlana_jupyter.widgets.call_names import name_controls
from svetlana_jupyter.widgets.components import (
    JobProgress,
    Markup,
    error_text,
    heading,
    html_table,
    image_html,
    muted,
    no_images_hint,
    prose_html,
    set_options,
)
from svetlana_jupyter.widgets.object_indexing import ObjectIndexer
from svetlana_jupyter.widgets.panel import MAX_WIDTH, Panel, catch_errors
from svetlana_jupyter.widgets.result_forms import ClassCounts, ExportForm
from svetlana_jupyter.widgets.scheduling import Debounce, LatestQuestion

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.runs import Run

_ROWS = 12  # of the object table that are displayed
_DPI = 110
_FIRST = "Counts follow every label. A stored run predicts when you press Predict all images."
_PREDICT = "Classify every object of every image with the current run"
_PREDICTED_LIVE = "Not needed: the live classifier predicts every object after each label"
_COLUMNS = ("class", "predicted", "annotation", "flag", "probability", "area")
_OUTDATED = "Labels or predictions have changed since. Press Estimate for the current fractions."


class ResultsPanel(Panel):
    """Panel that predicts all images, and shows and exports the results.

    Parameters
    ----------
    project : Project or path

    Attributes
    ----------
    predict, retrain : Button
    counts : ClassCounts
    by : Dropdown
        Groups of the estimated fractions and their plot.
    estimate : Button
        Estimates the fractions of the chosen groups.
    fractions, evaluation, objects : HTML
    outdated : HTML
        Says that labels or predictions have changed since the fractions were estimated.
    export_form : ExportForm
    sections : Accordion
        Holds all but the counts; a section is computed when it is opened.
    """

    job_kinds = frozenset({"prediction"})  # the form shows what an export has written
    _estimated: tuple[object, ...] = ()  # what the displayed fractions depend on

    def __init__(self, project: Project | str | Path) -> None:
        super().__init__(project)
        project = self.project
        self.layout.max_width = MAX_WIDTH
        fixed, background = {"width": "160px", "flex": "0 0 auto"}, project.background
        self.predict = self.make_button(background.predict, "Predict all images", "th", _PREDICT, "primary", **fixed)
        tooltip = "Train again on all labels, then predict all images"
        retrain = partial(background.train, predict=True)
        self.retrain = self.make_button(retrain, "Retrain and predict", "refresh", tooltip, width="auto")
        self.job = JobProgress(stop=lambda: self.run_action(project.stop))
        self.counts = ClassCounts(self, ObjectIndexer(project, self.status))
        self.export_form = ExportForm(self)
        # The picture takes a quarter of a second, and a run that is being scored is shown again and again.
        self._reports = LatestQuestion(self._report_html, self._show_report, 0.0, self._show_no_report)
        self.sections = Accordion(
            [self._make_fractions(), self._make_evaluation(), self._make_objects(), self.export_form],
            titles=["Fractions with confidence intervals", "Evaluation", "Object table", "Export"],
            layout={"width": "100%", "margin": "8px 0 0 0"},
        )
        self.sections.observe(lambda _: self.run_action(self._open_section), "selected_index")
        hint = no_images_hint()
        row = HBox([self.predict, self.retrain, self.job], layout={"width": "100%", "flex_flow": "row wrap"})
        body = VBox([row, heading("Counts"), self.counts, self.sections])
        self.children = (self._style, hint, body, self.status)

        def choose() -> None:
            hint.layout.display, body.layout.display = ("none", "") if project.images else ("", "none")

        self.observe_project(choose, "images_version")
        self.observe_project(self._follow_scores, "runs_version", "current_run")
        # As for the counts: too slow to run at each key, or for each image of a prediction.
        follow = Debounce(catch_errors(self._follow_results, self.status), delay=0.6).restart
        versions = "annotations_version", "classes_version", "images_version", "predictions_version"
        self.observe_project(follow, *versions, "runs_version", "current_run")
        self.observe_project(self._show_job, "job", "current_run", "annotations_version", "images_version")
        choose()
        self._show_job()
        self.counts.show()
        self.show_hint(_FIRST if project.images else "")

    def estimate_fractions(self) -> None:
        """Show the estimated fractions of the chosen groups, as a plot and a table."""
        by, run = [self.by.value], self.project.current_run
        if self._estimated[:1] != (run,):
            self.fractions.value = ""  # if there is an error, those of another run do not stay
        self.outdated.value = muted(_OUTDATED) if self.fractions.value else ""
        table = self.project.counts(by=by)
        figure = picture_html(self.project.plot.counts(by=by), "Fractions per class")
        self.fractions.value = f"{figure}{fractions_html(table)}"
        self.outdated.value, self._estimated = "", self._state  # estimating may have scored the run

    @property
    def _state(self) -> tuple[object, ...]:
        """What the fractions depend on, the current run first."""
        p = self.project
        versions = p.annotations_version, p.classes_version, p.images_version, p.predictions_version, p.runs_version
        return p.current_run, *versions

    def show_evaluation(self) -> None:
        """Show report and confusion matrix of the current run once they are computed."""
        self._reports.ask(self.project.runs.current)

    def _report_html(self, run: Run) -> str:
        report = self.project.evaluate(run.name)
        plot = picture_html(self.project.plot.confusion(run.name), "Confusion matrix") if report.network else ""
        return name_controls(report._repr_html_()) + plot

    def _show_report(self, report: str) -> None:
        self.evaluation.value = report

    def _show_no_report(self, run: Run, error: Exception) -> None:
        self.evaluation.value = muted(error_text(error, f"Run {run.name} cannot be evaluated"))

    def show_objects(self) -> None:
        """Show the first rows of the object table."""
        table = self.project.predictions()
        columns = [name for name in _COLUMNS if name in table]
        shown = table[columns].head(_ROWS).astype(object)
        shown = shown.where(shown.notna(), "–")
        rows = [[*index, *row] for index, row in zip(table.index[:_ROWS].tolist(), shown.to_numpy().tolist())]
        size = f"{len(table):,} rows and {len(table.columns)} columns"
        more = f"The first of {size}. Export writes all of them, and `project.predictions()` returns them."
        self.objects.value = (
            f'<div class="sv-pairs">{html_table(["image", "object", *columns], rows)}</div>{prose_html(more)}'
        )

    def _make_fractions(self) -> VBox:
        self.by = Dropdown(description="Group by", tooltip="Groups to compare", layout={"width": "240px"})
        tooltip = "Estimate the fraction of each class, with its 95 % confidence interval"
        self.estimate = self.make_button(self.estimate_fractions, "Estimate", "bar-chart", tooltip, width="120px")
        self.outdated = HTML(layout={"margin": "0 0 0 8px"})
        self.fractions = HTML(layout={"margin": "4px 0 0 0", "width": "100%"})
        return VBox([HBox([self.by, self.estimate, self.outdated]), self.fractions])

    def _make_evaluation(self) -> HTML:
        self.evaluation = HTML(layout={"margin": "0", "width": "100%"}).add_class("sv-report")
        return self.evaluation

    def _make_objects(self) -> HTML:
        self.objects = HTML(layout={"margin": "0", "width": "100%"})
        return self.objects

    def _open_section(self) -> None:
        """Compute what the opened section shows."""
        show: dict[int, Callable[[], None]] = {1: self.show_evaluation, 2: self.show_objects}
        if self.sections.selected_index in show:
            show[self.sections.selected_index]()

    def _follow_scores(self) -> None:
        """Compute the open evaluation again, since a run may have been scored or chosen."""
        if self.sections.selected_index == 1:
            self.show_evaluation()

    def _follow_results(self) -> None:
        """Show the fractions and the object table of the current run.

        The fractions of the live classifier, which each label changes, are only marked as outdated.
        """
        if self.sections.selected_index == 2:
            self.show_objects()
        if not self.fractions.value or self._estimated == self._state:
            return
        if self.project.current_run == LIVE == self._estimated[0]:
            self.outdated.value = muted(_OUTDATED)
        else:
            self.estimate_fractions()

    def _show_job(self) -> None:
        project, idle = self.project, self.project.job is None
        self.job.show(project.job)
        self.predict.disabled = not (idle and project.images and project.current_run not in ("", LIVE))
        self.predict.tooltip = _PREDICTED_LIVE if project.current_run == LIVE else _PREDICT
        self.retrain.disabled = not idle or bool(project.readiness())
        columns = dict.fromkeys(column for entry in project.images.values() for column in entry.groups)
        set_options(self.by, list(dict.fromkeys(["image", *columns])))


def fractions_html(table: pd.DataFrame) -> str:
    """Return estimated fractions as a table, in percent, with notes as footnotes."""
    notes = {note: number for number, note in enumerate(filter(None, table["note"].unique()), start=1)}

    def cell(column: str, value: Any) -> object:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "–"
        if column in ("fraction", "low", "high"):
            return Markup(f'<div class="sv-number">{100 * value:.1f} %</div>')
        if column == "note":
            return notes.get(value, "")
        return round(value) if column == "estimate" else value

    columns = [str(name) for name in table.columns if name != "note" or notes]
    rows = [list(map(cell, columns, row)) for row in table[columns].astype(object).to_numpy().tolist()]
    footnotes = "".join(f"<div>{number} {muted(note)}</div>" for note, number in notes.items())
    return f'<div class="sv-pairs">{html_table(columns, rows)}</div>{footnotes}'


def picture_html(figure: Figure, text: str) -> str:
    """Return a figure as HTML: two images, of which the page shows that of its theme."""
    from svetlana_jupyter.project.plots import use_bright_ink  # with matplotlib, which the figure has imported

    pictures = []
    for dark in (False, True):
        if dark:
            use_bright_ink(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", transparent=True)
        page = "sv-on-dark" if dark else "sv-on-light"
        pictures.append(f'<span class="{page}">{image_html(buffer.getvalue(), text)}</span>')
    return f'<div class="sv-figure">{"".join(pictures)}</div>'
