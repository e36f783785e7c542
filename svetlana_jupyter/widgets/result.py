"""What the current run is worth: its scores beside the forest's, warnings, what was taken for what, what was tried."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from ipywidgets import HTML, VBox

from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.project.evaluation_report import report_notes
from svetlana_jupyter.widgets.latest import LatestQuestion
from svetlana_jupyter.widgets.parts import muted, side_by_side
from svetlana_jupyter.widgets.scores import by_class, confusion, score_cards
from svetlana_jupyter.widgets.tried import model_selection_card

if TYPE_CHECKING:
    from svetlana_jupyter.project.evaluation import Evaluation
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.runs import Run

_EMPTY = "Nothing is trained yet. After the first training, its score stands here beside a random forest's."


class RunScores(VBox):
    """The scores of the current run, computed beside the kernel's loop.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    cards, warning, tables, tried, notes : HTML
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._latest: LatestQuestion[Run] = LatestQuestion(self._evaluated, self._draw, delay=0.0)
        self.cards, self.warning, self.tables, self.tried, self.notes = (HTML(layout=_WIDE) for _ in range(5))
        shown = [self.cards, self.warning, self.tables, self.tried, self.notes]
        super().__init__(shown, layout={"width": "100%"})

    def show(self) -> None:
        """Bring the scores up to the project's current run."""
        if self._project.current_run:
            self._latest.ask(self._project.run())
            return
        self._latest.drop()
        self.cards.value = f'<div class="sv-empty sv-calm">{muted(_EMPTY)}</div>'
        self._clear()

    def _clear(self) -> None:
        self.warning.value = self.tables.value = self.tried.value = self.notes.value = ""

    def _evaluated(self, run: Run) -> tuple[Run, Evaluation | str, str]:
        try:
            return run, self._project.evaluate(run.name), model_selection_card(run)
        except SvetlanaError as error:
            return run, str(error), ""

    def _draw(self, answer: tuple[Run, Evaluation | str, str]) -> None:
        run, report, tried = answer
        self._clear()
        if isinstance(report, str):
            self.cards.value = muted(report)
            self.notes.value = _lines(run.remarks)
            return
        self.cards.value = score_cards(report, forest_only=run.settings["architecture"] == "forest")
        self.tried.value = tried
        if report.warning:
            said = html.escape(report.warning)
            self.warning.value = f'<div class="sv-status sv-trouble" role="alert">{said}</div>'
        self.notes.value = _lines([*run.remarks, *([run.note, *report_notes(report)] if report.network else [])])
        if report.network is not None:
            classes = self._project.classes
            self.tables.value = side_by_side(confusion(report.network, classes), by_class(report.network, classes))


def _lines(said: list[str]) -> str:
    return "<br>".join(map(muted, said))


_WIDE = {"width": "100%", "margin": "2px 0"}
