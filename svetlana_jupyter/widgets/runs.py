"""The table of runs: one row each, with a button that puts that run to use."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence

from ipywidgets import HTML, Button, HBox, VBox

_COLUMNS = ("Run", "Finished", "Recipe", "Labels", "Network", "Forest")


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
        self._head = HBox(
            [
                HTML(layout={"width": "36px", "margin": "0"}),
                HTML(_cells(_COLUMNS, "sv-head"), layout={"flex": "1 1 auto", "margin": "1px 0"}),
            ]
        )
        super().__init__(layout={"width": "100%", "max_height": "230px", "overflow": "auto", "display": "none"})

    def show(self, rows: Iterable[Sequence[str]], current: str) -> None:
        """Show rows of text, one cell a column, whose first cell is the run's name; ``current`` is in use."""
        texts = {row[0]: row for row in rows}
        if list(texts) != list(self._rows):
            self._rows = {name: self._rows.get(name) or self._row(name) for name in texts}
            self.layout.display = "flex" if texts else "none"
            self.children = (self._head, *(HBox(row, layout={"min_height": "30px"}) for row in self._rows.values()))
        for name, (button, cells) in self._rows.items():
            used = name == current
            button.icon = "dot-circle-o" if used else "circle-o"
            button.tooltip = f"Run {name} is in use" if used else f"Use run {name}"
            cells.value = _cells(texts[name], "sv-used" if used else "")

    def button(self, name: str) -> Button:
        """Return the button of a run."""
        return self._rows[name][0]

    def _row(self, name: str) -> tuple[Button, HTML]:
        button = Button(layout={"width": "32px", "padding": "0", "margin": "1px 4px 1px 0"})
        button.on_click(lambda _: self._choose(name))
        return button, HTML(layout={"flex": "1 1 auto", "margin": "1px 0"})


def _cells(texts: Sequence[str], look: str) -> str:
    return f'<div class="sv-run {look}">' + "".join(f"<span>{html.escape(text)}</span>" for text in texts) + "</div>"
