"""The panel to train: what may count, Train and Stop, live curves, honest scores, earlier runs, and every setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipywidgets import HTML, Accordion, HBox

from svetlana_jupyter.core.recipes import AUTO_PRESET
from svetlana_jupyter.errors import ProjectError, SettingsError
from svetlana_jupyter.widgets.augmented import AugmentationPreview
from svetlana_jupyter.widgets.curves import curves
from svetlana_jupyter.widgets.evidence import CueCheckboxes
from svetlana_jupyter.widgets.pace import Pace
from svetlana_jupyter.widgets.panel import Panel, guarded
from svetlana_jupyter.widgets.parts import JobProgress, muted
from svetlana_jupyter.widgets.result import RunScores
from svetlana_jupyter.widgets.runs import RunTable
from svetlana_jupyter.widgets.settings_view import SettingsEditor

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

_PREVIEW, _RUNS, _ADVANCED = "Eight augmented patches", "Earlier runs", "Advanced: every setting"


class TrainingPanel(Panel):
    """Train a classifier on the annotations of a project; the kernel stays free meanwhile.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    questions : Questions
        What may count.
    train : Button
    search : Button
        Shown where the recipe is chosen by a search and there was a training.
    job : JobBar
    readiness : HTML
        What is missing before a training can start.
    curves : HTML
    result : RunResult
        The scores of the current run.
    preview : AugmentedPatches
    runs : RunTable
    settings : SettingsView
        Every setting, as controls and as JSON.
    more : Accordion
        Holds the last three.
    """

    def __init__(self, project: Project) -> None:
        super().__init__(project)
        self._pace = Pace(guarded(self._show_curves, self.status), rest=0.4)
        self.train = self.button(
            project.start_training,
            "Train",
            icon="play",
            button_style="primary",
            tooltip="Train on all annotations; the notebook stays free",
            layout={"width": "110px", "flex": "0 0 auto"},
        )
        self.search = self.button(
            lambda: project.start_training(search=True),
            "Try recipes anew",
            tooltip="Look for the best recipe once more, within what may count, and train it; "
            "it happens by itself when there are twice as many annotations",
            layout={"width": "140px", "flex": "0 0 auto"},
        )
        self.search.add_class("sv-quiet")
        self.job = JobProgress(stop=lambda: self.do(project.stop))
        self.readiness = HTML(layout={"margin": "0 0 0 12px", "flex": "1 1 auto"})
        self.curves = HTML(layout={"width": "100%", "margin": "0", "display": "none"})
        self.result = RunScores(project)
        self.preview = AugmentationPreview(project)
        self.runs = RunTable(project, choose=lambda name: self.do(project.choose_run, name))
        self.settings = SettingsEditor(project, self.status)
        self.questions = CueCheckboxes(project, lambda allowed: self.do(self._allow, allowed))
        titles = [_PREVIEW, _RUNS, _ADVANCED]
        self.more = Accordion(
            [self.preview, self.runs, self.settings], titles=titles, layout={"width": "100%", "margin": "6px 0 2px 0"}
        )
        self.children = (
            self._style,
            self.questions,
            HBox(
                [self.train, self.search, self.readiness, self.job],
                layout={"width": "100%", "align_items": "center", "flex_flow": "row wrap"},
            ),
            self.curves,
            self.result,
            self.more,
            self.status,
        )
        self.more.observe(guarded(lambda _: self._preview(), self.status), "selected_index")
        self.settings.on_change(guarded(self._follow_settings, self.status))
        self.watch(self._show_readiness, "annotations_version", "classes_version", "images_version", "job")
        self.watch(self._preview, "annotations_version", "images_version")
        self.watch(self.questions.draw_cards, "images_version", "annotations_version")
        self.watch(lambda: self.job.show(project.job), "job")
        self.watch(self._pace.request, "live", "job")
        self.watch(self._show_runs, "current_run", "runs_version", "classes_version")
        self._follow_settings()
        self.questions.draw_cards()
        self._show_readiness()
        self.job.show(project.job)
        self._show_runs()
        self.show_hint("Train learns from all annotations; the notebook stays free meanwhile.")

    def open_section(self, title: str) -> None:
        """Open one of the sections by its title."""
        self.more.selected_index = self.more.titles.index(title)

    def close(self) -> None:
        self.settings.close()
        super().close()

    def _allow(self, allowed: frozenset[str]) -> None:
        """Let this evidence count, and no other."""
        try:
            self.settings.keep(self.project.settings.changed(may_use=allowed))
        finally:
            self._follow_settings()

    def _follow_settings(self) -> None:
        if self.settings.used:
            self.questions.show(self.settings.used.may_use)
        self._show_search()
        self._show_readiness()
        self._preview()

    def _show_readiness(self) -> None:
        project = self.project
        missing, running = project.readiness(), project.job is not None
        self.readiness.value = muted(missing)
        self.readiness.layout.display = None if missing and not running else "none"
        self.train.disabled = self.search.disabled = bool(missing) or running

    def _show_search(self) -> None:
        chosen = self.settings.used is not None and self.settings.used.recipe == AUTO_PRESET
        self.search.layout.display = None if chosen and self.project.runs else "none"

    def _show_curves(self) -> None:
        project = self.project
        training = project.job is not None and project.job.kind == "training"
        if training or not project.current_run:
            live = project.live
            epochs, losses, scores = (live.epochs, live.losses, live.scores) if live else ((), (), ())
            total = (live.total if live else 0) or self._epochs()
        else:
            history = project.run().history
            epochs, losses = [entry["epoch"] for entry in history], [entry["loss"] for entry in history]
            scores, total = [entry.get("score") for entry in history], len(history)
        self.curves.layout.display = None if training or epochs else "none"
        self.curves.value = curves(epochs, losses, scores, total)

    def _epochs(self) -> int:
        try:
            return self.project.settings.epochs
        except (SettingsError, ProjectError, OSError):  # edited by hand and wrong: the settings say so themselves
            return 1

    def _show_runs(self) -> None:
        self.runs.show()
        self.result.show()
        self._show_search()
        self._pace.request()

    def _preview(self) -> None:
        """Show augmented patches, while a person looks at them."""
        if self.more.selected_index == self.more.titles.index(_PREVIEW) and (settings := self.settings.used):
            self.preview.show(settings)
