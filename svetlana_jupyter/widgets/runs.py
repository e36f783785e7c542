"""The table of runs: one row each, with a button that puts that run to use."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from ipywidgets import HTML, Button, HBox, VBox

from svetlana_jupyter.widgets.parts import duration, muted
from svetlana_jupyter.widgets.scores import percent

if TYPE_CHECKING:
    from svetlana_jupyter.core.scores import Scores
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.runs import Run

_COLUMNS = ("Run", "Finished", "Recipe", "Architecture", "Labels", "Network", "Forest", "Took")


class RunTable(VBox):
    """Runs to compare and choose from, the latest first.

    Parameters
    ----------
    choose : callable
        Called with the name of the run whose button is pressed.
    """

    def __init__(self, choose: Callable[[str], None]) -> None:
        self._choose = choose
        self._rows: dict[str, tuple[Button, HTML]] = {}
        self._texts: dict[tuple[str, str], tuple[str, ...]] = {}
        self._none = HTML(muted("There are none yet."))
        self._head = HBox(
            [
                HTML(layout={"width": "36px", "flex": "0 0 auto", "margin": "0"}),
                HTML(_cells(_COLUMNS, "sv-head"), layout={"flex": "1 1 auto", "margin": "1px 0"}),
            ],
            layout={"flex": "0 0 auto"},
        )
        super().__init__([self._none], layout={"width": "100%", "max_height": "260px", "overflow": "auto"})

    def show(self, project: Project, current: str) -> None:
        """Show the runs of a project; ``current`` is in use."""
        texts = {run.name: self._text(project, run) for run in reversed(project.runs)}
        if list(texts) != list(self._rows):
            self._rows = {name: self._rows.get(name) or self._row(name) for name in texts}
            lines = [HBox(row, layout={"min_height": "30px", "flex": "0 0 auto"}) for row in self._rows.values()]
            self.children = (self._head, *lines) if lines else (self._none,)
        for name, (button, cells) in self._rows.items():
            used = name == current
            button.icon = "dot-circle-o" if used else "circle-o"
            button.tooltip = f"Run {name} is in use" if used else f"Use run {name}"
            cells.value = _cells(texts[name], "sv-used" if used else "")

    def button(self, name: str) -> Button:
        """Return the button of a run."""
        return self._rows[name][0]

    def _row(self, name: str) -> tuple[Button, HTML]:
        button = Button(layout={"width": "32px", "padding": "0", "margin": "1px 4px 1px 0", "flex": "0 0 auto"})
        button.on_click(lambda _: self._choose(name))
        return button, HTML(layout={"flex": "1 1 auto", "margin": "1px 0"})

    def _text(self, project: Project, run: Run) -> tuple[str, ...]:
        """Return a run as cells of text, made once before and once after it is scored."""
        if (run.name, run.note) not in self._texts:
            known = project.evaluate(run.name)
            self._texts[run.name, run.note] = (
                run.name,
                f"{datetime.fromisoformat(run.finished).astimezone():%Y-%m-%d %H:%M}",
                str(run.settings["recipe"]),
                str(run.settings["architecture"]),
                f"{sum(run.labels.values()):,}",
                _accuracy(known.network),
                _accuracy(known.forest),
                duration(run.seconds) + (" (stopped)" if run.stopped else ""),
            )
        return self._texts[run.name, run.note]


def _accuracy(scores: Scores | None) -> str:
    return percent(scores.accuracy.value) if scores and scores.accuracy.n else "–"


def _cells(texts: Sequence[str], look: str) -> str:
    return f'<div class="sv-run {look}">' + "".join(f"<span>{html.escape(text)}</span>" for text in texts) + "</div>"
