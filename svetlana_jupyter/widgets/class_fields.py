"""The classes a project begins with: a name and a colour each, in rows that grow as they are filled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ipywidgets import Button, ColorPicker, HBox, Text, VBox

from svetlana_jupyter.core.classes import PALETTE

_EXAMPLES = ("active", "resting")


class NewClassRow(HBox):
    """One class to be: its colour, its name, and a button that takes it out again."""

    def __init__(
        self, color: str, placeholder: str, remove: Callable[[NewClassRow], None], entered: Callable[[], None]
    ) -> None:
        self.picker = ColorPicker(concise=True, value=color, layout={"width": "30px", "margin": "2px 6px 2px 0"})
        self.picker.tooltip = "Colour of this class"
        self.name = Text(placeholder=placeholder, layout={"width": "260px", "margin": "2px 0"})
        self.name.on_msg(lambda _, content, __: entered() if content.get("event") == "submit" else None)
        self.remove = Button(icon="times", tooltip="Leave this class out", layout={"width": "30px"})
        self.remove.add_class("sv-quiet")
        self.remove.on_click(lambda _: remove(self))
        super().__init__([self.picker, self.name, self.remove], layout={"align_items": "center"})


class NewClassRows(VBox):
    """Rows for the classes; Enter in one begins the next.

    Attributes
    ----------
    rows : tuple of ClassField
    add : Button
    """

    def __init__(self) -> None:
        self.add = Button(description="Add class", icon="plus", tooltip="One more class", layout={"width": "110px"})
        self.add.on_click(lambda _: self.extend())
        super().__init__(layout={"width": "auto"})
        self._rows: tuple[NewClassRow, ...] = ()
        for _ in _EXAMPLES:
            self.extend()

    @property
    def rows(self) -> tuple[NewClassRow, ...]:
        return self._rows

    def extend(self) -> NewClassRow:
        """Add an empty row."""
        taken = {row.picker.value for row in self._rows}
        color = next((color for color in PALETTE if color not in taken), PALETTE[len(self._rows) % len(PALETTE)])
        count = len(self._rows)
        placeholder = f"for example {_EXAMPLES[count]}" if count < len(_EXAMPLES) else "another class"
        row = NewClassRow(color, placeholder, self._remove, self._entered)
        self._lay(*self._rows, row)
        return row

    def chosen(self) -> list[tuple[str, str]]:
        """Return the name and colour of every class that has a name."""
        return [(row.name.value.strip(), row.picker.value) for row in self._rows if row.name.value.strip()]

    def _entered(self) -> None:
        empty = next((row for row in self._rows if not row.name.value.strip()), None)
        (empty or self.extend()).name.focus()

    def _remove(self, gone: NewClassRow) -> None:
        self._lay(*(row for row in self._rows if row is not gone))
        gone.close()

    def _lay(self, *rows: Any) -> None:
        self._rows = rows
        self.children = (*rows, self.add)
