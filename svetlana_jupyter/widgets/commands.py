"""Commands of a panel: what a button and its keys do, and the help that lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, Button, GridBox

from svetlana_jupyter.widgets.panel import Panel
from svetlana_jupyter.widgets.parts import keycap

if TYPE_CHECKING:
    from svetlana_jupyter.core.classes import ClassInfo
    from svetlana_jupyter.project.project import Project


@dataclass(frozen=True)
class Command:
    """What a button and its keys do to what was on screen (an `ObjectId`, None for nothing)."""

    keys: tuple[str, ...]
    text: str
    icon: str
    tooltip: str
    act: Callable[[Any], None]


class CommandPanel(Panel):
    """A panel whose commands have a button, keys and a line in the help each.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    commands : tuple of Command
    buttons : dict of str to Button
        The commands' buttons, by the text on them.
    help : HTML
        The keys; shown and hidden by ``help_button``.
    digits : str
        What the help says of the keys that stand for classes.
    view_keys : tuple of (str, str)
        Keys that change the view, separated by blanks, with what they do.
    """

    digits = "the class of the object"
    view_keys: tuple[tuple[str, str], ...] = (("f + -", "Whole image, larger, smaller"),)

    def __init__(self, project: Project) -> None:
        super().__init__(project)
        self.commands: tuple[Command, ...] = ()
        self.buttons: dict[str, Button] = {}
        self.help = HTML(layout={"display": "none", "margin": "4px 0 0 0"})
        self.help_button = self.button(
            self.toggle_help,
            icon="keyboard-o",
            tooltip="Show the keys (?)",
            layout={"width": "36px", "margin": "0 0 0 auto"},
        )
        self.watch(self._list_keys, "classes_version")

    @property
    def shown(self) -> Any:
        """What a button is meant for now; None for nothing."""
        return None

    def offer(self, *commands: Command) -> None:
        """Give these commands a button and their keys, and list them in the help."""
        self.commands = commands
        self.buttons = {command.text: self._button_of(command) for command in commands}
        self._list_keys()

    def _list_keys(self) -> None:
        """Write the help, with the keys that the classes have now."""
        lines = class_keys(self.project.classes, self.digits)
        lines += [(" ".join(map(_named, command.keys)), command.tooltip) for command in self.commands]
        lines += [(" ".join(map(keycap, keys.split())), text) for keys, text in self.view_keys]
        lines.append((keycap("?"), "Show or hide these keys"))
        cells = "".join(f"<span>{keys}</span><span>{text}</span>" for keys, text in lines)
        self.help.value = f'<div class="sv-keys">{cells}</div>'

    def dispatch_key(self, key: str, shown: Any) -> None:
        """Do what the commands of a key do, or show the help."""
        if key == "?":
            self.toggle_help()
        for command in self.commands:
            if key in command.keys:
                command.act(shown)

    def grid(self) -> GridBox:
        """Return the buttons of the commands in two columns."""
        columns = {"grid_template_columns": "4fr 5fr", "grid_gap": "4px", "width": "100%"}
        return GridBox(list(self.buttons.values()), layout=columns)

    def toggle_help(self) -> None:
        """Show or hide what the keys do."""
        self.help.layout.display = "block" if self.help.layout.display == "none" else "none"

    def _button_of(self, command: Command) -> Button:
        return self.button(
            lambda: command.act(self.shown),
            command.text,
            icon=command.icon,
            tooltip=f"{command.tooltip} (key {command.keys[0]})",
            layout={"width": "auto", "margin": "0"},
        )


def class_keys(classes: Iterable[ClassInfo], meaning: str) -> list[tuple[str, str]]:
    """Return the keys of these classes as HTML, with what they mean; and how a class without a key is reached."""
    infos = list(classes)
    keys = [info.key for info in infos if info.key]
    row, others = [key for key in keys if key in "123456789"], [key for key in keys if key not in "123456789"]
    shown = [" … ".join(map(keycap, dict.fromkeys((row[0], row[-1]))))] if row else []
    lines = [(" ".join([*shown, *map(keycap, others)]), meaning)] if keys else []
    if len(keys) < len(infos):
        lines.append((f"{keycap('/')} {keycap('⏎')}", "Find a class by its name, take it"))
    return lines


def _named(key: str) -> str:
    return keycap({" ": "Space"}.get(key, key))
