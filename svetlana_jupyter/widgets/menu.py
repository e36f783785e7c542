"""The small menu over the picture: what can be said of the object, or of the objects, it was opened for."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ipywidgets import HTML, Box, Button, VBox

from svetlana_jupyter.widgets.parts import keycap

_WIDTH, _ROW, _TITLE, _EDGE = 216, 26, 36, 6  # CSS pixels; the title with the border and padding of the menu


@dataclass(frozen=True)
class Item:
    """One line of the menu: ``act`` is what it does; ``color`` is a class's, or empty."""

    text: str
    key: str
    act: Callable[[], object]
    color: str = ""


class ObjectMenu(VBox):
    """A menu that opens beside a point of a picture and stays inside it.

    Parameters
    ----------
    size : tuple of int
        Height and width of the picture, in CSS pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(layout={"display": "none", "width": f"{_WIDTH}px", "overflow": "hidden auto"})
        self.add_class("sv-menu")
        self._size = size
        self.items: tuple[Item, ...] = ()

    def show_at(self, at: tuple[float, float], title: str, items: Sequence[Item]) -> None:
        """Show these items beside a point (row, column) of the picture, and give the first the keyboard."""
        self._drop()
        self.items = tuple(items)
        height, width = self._size
        most = height - 2 * _EDGE
        tall = min(_TITLE + _ROW * len(items), most)
        self.layout.max_height = f"{most}px"
        self.layout.top = f"{_inside(at[0], tall, height):.0f}px"
        beside = at[1] + 8 if at[1] + 8 + _WIDTH <= width else at[1] - 8 - _WIDTH
        self.layout.left = f"{_inside(beside, _WIDTH, width):.0f}px"
        head = HTML(f'<div class="sv-menu-title">{html.escape(title)}</div>', layout={"margin": "0"})
        lines = [_line(item) for item in items]
        self.children = (head, *lines)
        self.layout.display = ""
        lines[0].children[0].focus()

    def hide(self) -> None:
        """Show nothing."""
        self.layout.display = "none"
        self._drop()

    @property
    def is_open(self) -> bool:
        return self.layout.display != "none"

    def buttons(self) -> list[Button]:
        """Return the buttons of the items."""
        return [line.children[0] for line in self.children[1:]]

    def _drop(self) -> None:
        """Let go of the widgets of the time before."""
        before, self.children = self.children, ()
        for line in before:
            for part in getattr(line, "children", ()):
                part.close()
            line.close()


def _line(item: Item) -> Box:
    button = Button(description=item.text, tooltip=f"{item.text} (key {item.key})" if item.key else item.text)
    button.on_click(lambda _: item.act())
    button.layout.border_left = f"8px solid {item.color}" if item.color else "8px solid transparent"
    key = HTML(keycap(item.key) if item.key else "", layout={"margin": "0"})
    key.add_class("sv-menu-key")
    line = Box([button, key], layout={"flex": "0 0 auto", "overflow": "visible"})
    line.add_class("sv-menu-item")
    return line


def _inside(start: float, extent: float, whole: float) -> float:
    """Return where something of this extent begins, as near to ``start`` as it fits."""
    return max(_EDGE, min(start, whole - extent - _EDGE))
