"""What the current run is worth: its scores beside the forest's, warnings, and what was taken for what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipywidgets import HTML, VBox

from svetlana_jupyter.widgets.parts import muted, side_by_side
from svetlana_jupyter.widgets.scores import by_class, confusion, score_cards

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

_EMPTY = "Nothing is trained yet. After the first training, its score stands here beside a random forest's."


class RunResult(VBox):
    """The scores of the current run.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    cards, tables, note : HTML
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self.cards = HTML(layout={"width": "100%", "margin": "0"})
        self.tables = HTML(layout={"width": "100%", "margin": "4px 0 0 0"})
        self.note = HTML(layout={"width": "100%", "margin": "0"})
        super().__init__([self.cards, self.note, self.tables], layout={"width": "100%"})

    def show(self) -> None:
        """Bring the scores up to the project's current run."""
        project = self._project
        if not project.current_run:
            self.cards.value = f'<div class="sv-empty sv-calm">{muted(_EMPTY)}</div>'
            self.tables.value = self.note.value = ""
            return
        run, report = project.run(), project.evaluate()
        self.cards.value = score_cards(report, forest_alone=run.settings["architecture"] == "forest")
        if report.network is None:
            self.tables.value = self.note.value = ""
            return
        self.note.value = muted(f"{run.note} Intervals are over {report.over}.")
        self.tables.value = side_by_side(
            confusion(report.network, project.classes), by_class(report.network, project.classes)
        )
