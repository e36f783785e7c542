"""The panel to train: choose a recipe, press Train, watch the curves, and compare the runs."""

from __future__ import annotations

import html
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, Accordion, BoundedIntText, Dropdown, HBox, Textarea, VBox

from svetlana_jupyter.core.settings import RECIPES, TrainingSettings
from svetlana_jupyter.errors import SettingsError
from svetlana_jupyter.project.evaluation import scored
from svetlana_jupyter.widgets.curves import curves
from svetlana_jupyter.widgets.pace import Pace
from svetlana_jupyter.widgets.panel import Panel, guarded
from svetlana_jupyter.widgets.parts import JobBar, muted
from svetlana_jupyter.widgets.runs import RunTable

if TYPE_CHECKING:
    from svetlana_jupyter.core.scores import Scores
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.runs import Run


class TrainingPanel(Panel):
    """Train a classifier on the annotations of a project; the kernel stays free meanwhile.

    Parameters
    ----------
    project : Project
    """

    def __init__(self, project: Project) -> None:
        super().__init__(project)
        self._rows: dict[tuple[str, str], tuple[str, ...]] = {}
        self._pace = Pace(guarded(self._show_curves, self.status), rest=0.4)
        self.recipe = Dropdown(options=list(RECIPES), description="Recipe", **_field(180))
        self.recipe.tooltip = "A set of settings that is known to work"
        self.epochs = BoundedIntText(min=1, max=100_000, description="Epochs", **_field(130))
        self.epochs.tooltip = "How long the network learns"
        self.seed = BoundedIntText(min=0, max=2**31 - 1, description="Seed", **_field(120))
        self.seed.tooltip = "The same annotations, settings and seed give the same network"
        self.train = self.button(
            project.start_training,
            "Train",
            icon="play",
            button_style="primary",
            tooltip="Train on all annotations",
            layout={"width": "110px"},
        )
        self.job = JobBar(stop=lambda: self.do(project.stop))
        self.readiness = HTML(layout={"margin": "0 0 0 12px"})
        self.curves = HTML(layout={"height": "184px", "margin": "0"})
        self.scores = HTML(layout={"width": "100%", "margin": "0"})
        self.runs = RunTable(choose=lambda name: self.do(project.choose_run, name))
        self.json = Textarea(rows=18, layout={"width": "auto"})
        self.json.tooltip = "Every setting; kept in training.json"
        self.json_says = HTML(layout={"margin": "0"})
        self.advanced = Accordion([VBox([self.json, self.json_says])], titles=["Advanced: every setting, as JSON"])

        self.children = (
            self._style,
            HBox(
                [self.recipe, self.epochs, self.seed, self.train, self.readiness],
                layout={"flex_flow": "row wrap", "align_items": "center"},
            ),
            self.advanced,
            self.job,
            self.curves,
            self.scores,
            self.runs,
            self.status,
        )
        self._choice(self.recipe, lambda: project.settings.recipe, TrainingSettings.from_recipe)
        self._choice(self.epochs, lambda: project.settings.epochs, lambda n: project.settings.changed(epochs=n))
        self._choice(self.seed, lambda: project.settings.seed, lambda n: project.settings.changed(seed=n))
        self.json.observe(guarded(self._read_json, self.status), "value")
        self.watch(self._show_readiness, "annotations_version", "classes_version", "images_version", "job")
        self.watch(lambda: self.job.show(project.job), "job")
        self.watch(self._pace.request, "live", "job")
        self.watch(self._show_runs, "current_run", "runs_version")
        self._show_settings()
        self._show_readiness()
        self.job.show(project.job)
        self._show_runs()
        self.greet("Train learns from all annotations; the notebook stays free meanwhile.")

    def _choice(self, field: Any, current: Callable[[], Any], settings: Callable[[Any], TrainingSettings]) -> None:
        """Let ``field`` change the project's settings; what the panel itself writes there is what they are already."""

        def chosen(change: Any) -> None:
            if change["new"] not in (None, current()):
                self.project.settings = settings(change["new"])
                self._show_settings()

        field.observe(guarded(chosen, self.status), "value")

    def _read_json(self, change: Any) -> None:
        """Follow the JSON text as it is typed; what is no valid setting yet is said below it and changes nothing."""
        try:
            settings = TrainingSettings.from_json(change["new"])
        except SettingsError as error:
            self.json_says.value = f'<div class="sv-status sv-trouble">{html.escape(str(error))}</div>'
            return
        self.json_says.value = muted("These settings are valid and in use.")
        if settings != self.project.settings:
            self.project.settings = settings
            self._show_fields()

    def _show_settings(self) -> None:
        settings = self.project.settings
        self._show_fields()
        self.json.value = settings.to_json()

    def _show_fields(self) -> None:
        settings = self.project.settings
        self.recipe.value = settings.recipe if settings.recipe in RECIPES else None
        self.epochs.value = settings.epochs
        self.seed.value = settings.seed

    def _show_readiness(self) -> None:
        missing = self.project.readiness()
        self.readiness.value = muted(missing)
        self.train.disabled = bool(missing) or self.project.job is not None

    def _show_curves(self) -> None:
        project = self.project
        training = project.job is not None and project.job.kind == "training"
        if training or not project.current_run:
            live = project.live
            epochs, losses, scores = (live.epochs, live.losses, live.scores) if live else ((), (), ())
            total = project.settings.epochs
        else:
            history = project.run().history
            epochs, losses = [entry["epoch"] for entry in history], [entry["loss"] for entry in history]
            scores, total = [entry.get("score") for entry in history], len(history)
        self.curves.value = curves(epochs, losses, scores, total)

    def _show_runs(self) -> None:
        project = self.project
        self.runs.show([self._row(run) for run in reversed(project.runs)], project.current_run)
        self.scores.value = self._score_cards() if project.current_run else muted("Nothing is trained yet.")
        self._pace.request()

    def _row(self, run: Run) -> tuple[str, ...]:
        """Return a run as cells of text, made once before and once after it is scored."""
        if (run.name, run.note) not in self._rows:
            known = scored(self.project, run)
            self._rows[run.name, run.note] = (
                run.name,
                f"{datetime.fromisoformat(run.finished).astimezone():%Y-%m-%d %H:%M}",
                str(run.settings["recipe"]),
                f"{sum(run.labels.values()):,}",
                _percent(known.network),
                _percent(known.forest),
            )
        return self._rows[run.name, run.note]

    def _score_cards(self) -> str:
        known = self.project.evaluate()
        if known.network is None:
            return muted(known.text)
        cards = "".join(
            f'<div class="sv-score">{html.escape(title)}<b>{_percent(scores)}</b>'
            f"{muted(str(scores.accuracy) if scores else 'not known')}</div>"
            for title, scores in (("This network", known.network), ("Random forest on measurements", known.forest))
        )
        return f'<div class="sv-scores">{cards}</div>{muted(self.project.run().note)}'


def _percent(scores: Scores | None) -> str:
    return f"{scores.accuracy.value:.0%}" if scores and scores.accuracy.n else "–"


def _field(width: int) -> dict[str, Any]:
    return {"layout": {"width": f"{width}px", "margin": "2px 18px 2px 0"}, "style": {"description_width": "initial"}}
