"""The table of runs: one row each, with a button that puts that run to use."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from ipywidgets import HTML, Button, HBox, VBox

from svetlana_jupyter.core.may_use import CUES
from svetlana_jupyter.project.evaluation import scored
from svetlana_jupyter.widgets.latest import LatestQuestion
from svetlana_jupyter.widgets.parts import format_duration, muted
from svetlana_jupyter.widgets.scores import percent

if TYPE_CHECKING:
    from svetlana_jupyter.core.scores import Scores
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.runs import Run

_COLUMNS = ("Run", "Finished", "Recipe", "What may count", "Labels", "Network", "Forest", "Took")


class RunTable(VBox):
    """Runs to compare and choose from, the latest first; their scores are computed beside the kernel's loop.

    Parameters
    ----------
    project : Project
    choose : callable
        Called with the name of the run whose button is pressed.
    """

    def __init__(self, project: Project, choose: Callable[[str], None]) -> None:
        self._project, self._choose = project, choose
        self._rows: dict[str, tuple[Button, HTML]] = {}
        self._scores: dict[tuple[str, str], tuple[str, str]] = {}
        self._latest: LatestQuestion[tuple[Run, ...]] = LatestQuestion(self._score, self._keep, delay=0.0)
        self._none = HTML(muted("There are none yet."))
        self._head = HBox(
            [
                HTML(layout={"width": "36px", "flex": "0 0 auto", "margin": "0"}),
                HTML(_cells(_COLUMNS, "sv-head"), layout={"flex": "1 1 auto", "margin": "1px 0"}),
            ],
            layout={"flex": "0 0 auto"},
        )
        super().__init__([self._none], layout={"width": "100%", "max_height": "260px", "overflow": "auto"})

    def show(self) -> None:
        """Show the runs that the project has now."""
        runs = {run.name: run for run in reversed(self._project.runs)}
        if list(runs) != list(self._rows):
            self._rows = {name: self._rows.get(name) or self._row(name) for name in runs}
            lines = [HBox(row, layout={"min_height": "30px", "flex": "0 0 auto"}) for row in self._rows.values()]
            self.children = (self._head, *lines) if lines else (self._none,)
        for name, (button, cells) in self._rows.items():
            used = name == self._project.current_run
            button.icon = "dot-circle-o" if used else "circle-o"
            button.tooltip = f"Run {name} is in use" if used else f"Use run {name}"
            cells.value = _cells(self._text(runs[name]), "sv-used" if used else "")
        if unknown := tuple(run for run in runs.values() if (run.name, run.note) not in self._scores):
            self._latest.ask(unknown)

    def button(self, name: str) -> Button:
        """Return the button of a run."""
        return self._rows[name][0]

    def _row(self, name: str) -> tuple[Button, HTML]:
        button = Button(layout={"width": "32px", "padding": "0", "margin": "1px 4px 1px 0", "flex": "0 0 auto"})
        button.on_click(lambda _: self._choose(name))
        return button, HTML(layout={"flex": "1 1 auto", "margin": "1px 0"})

    def _text(self, run: Run) -> tuple[str, ...]:
        """Return a run as cells of text."""
        return (
            run.name,
            f"{datetime.fromisoformat(run.finished).astimezone():%Y-%m-%d %H:%M}",
            f"{run.settings['recipe']}, {run.settings['architecture']}",
            _evidence(run.settings.get("may_use", CUES)),
            f"{sum(run.labels.values()):,}",
            *self._scores.get((run.name, run.note), ("…", "…")),
            format_duration(run.seconds) + (" (stopped)" if run.stopped else ""),
        )

    def _score(self, runs: tuple[Run, ...]) -> dict[tuple[str, str], tuple[str, str]]:
        found = {}
        for run in runs:
            known = scored(self._project, run)
            found[run.name, run.note] = _accuracy(known.network), _accuracy(known.forest)
        return found

    def _keep(self, scores: dict[tuple[str, str], tuple[str, str]]) -> None:
        self._scores |= scores
        self.show()


def _evidence(allowed: Sequence[str]) -> str:
    """Say what may count."""
    if set(allowed) == set(CUES):
        return "everything"
    return ", ".join(name for name in CUES if name in allowed) or "shape alone"


def _accuracy(scores: Scores | None) -> str:
    return percent(scores.accuracy.value) if scores and scores.accuracy.n else "–"


def _cells(texts: Sequence[str], look: str) -> str:
    return f'<div class="sv-run {look}">' + "".join(f"<span>{html.escape(text)}</span>" for text in texts) + "</div>"
