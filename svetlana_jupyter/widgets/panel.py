"""Base of all panels: error display, project observers, commands with keys, layout and style sheet."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ipywidgets import HTML, Box, Button, GridBox, HBox, VBox, Widget

from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.components import StatusLine, keycap, no_images_hint
from svetlana_jupyter.widgets.viewer.pointer import KeyGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import traitlets

    from svetlana_jupyter.core.annotations import LabelAction
    from svetlana_jupyter.core.classes import ClassInfo
    from svetlana_jupyter.project.project import Project

# Together these fit the output area of a notebook that is 1100 pixels wide.
VIEWER_SIZE = (540, 648)
SIDE_WIDTH = "304px"
PANEL_WIDTH = "960px"
ICON_LAYOUT = {"width": "28px", "padding": "0", "margin": "0 2px 0 0"}
VIEW_KEYS = (("f", "Show the whole image"), ("+ -", "Zoom in or out"))

logger = logging.getLogger(__name__)


def style_widget() -> Box:
    """Return the invisible widget with the style sheet and the key guard that each panel contains."""
    css = Path(__file__).with_name("panel.css").read_text("utf-8")
    return Box([HTML(f"<style>{css}</style>"), KeyGuard()], layout={"display": "none"})


def catch_errors(act: Callable[..., object], status: StatusLine) -> Callable[..., None]:
    """Return ``act`` as a callback whose exceptions are displayed in ``status`` and logged.

    A notebook shows nothing of an exception in a widget callback. The message of a `SvetlanaError` is written for the
    user; of any other exception, the log has the traceback.
    """

    @functools.wraps(act)
    def call(*args: Any, **kwargs: Any) -> None:
        try:
            act(*args, **kwargs)
        except SvetlanaError as error:
            logger.info("refused: %s", error)
            status.warn(str(error))
        except Exception as error:
            logger.exception("exception in a panel's callback")
            status.warn(f"Something went wrong: {type(error).__name__}: {error}")

    return call


class Watcher:
    """Observers that display their exceptions and can be removed together.

    Parameters
    ----------
    status : StatusLine
        Displays exceptions.
    """

    def __init__(self, status: StatusLine) -> None:
        self._status = status
        self._observers: list[tuple[traitlets.HasTraits, Callable[[Any], None], list[str]]] = []

    def observe(self, source: traitlets.HasTraits, act: Callable[[], object], *names: str) -> None:
        """Call ``act()`` whenever one of the named traits of ``source`` changes."""
        safe_act = catch_errors(act, self._status)

        def changed(change: Any) -> None:
            safe_act()

        source.observe(changed, list(names))
        self._observers.append((source, changed, list(names)))

    def close(self) -> None:
        """Remove all observers."""
        for source, changed, names in self._observers:
            source.unobserve(changed, names)
        self._observers.clear()


class Panel(VBox):
    """Base of the panels.

    Parameters
    ----------
    project : Project
        Shared with other panels and with scripts. A panel observes it and calls its methods; it keeps no state that
        belongs to the project.

    Attributes
    ----------
    project : Project
    status : StatusLine
        Result of the last action, or its error.
    """

    def __init__(self, project: Project) -> None:
        super().__init__(layout={"width": "100%", "max_width": PANEL_WIDTH})
        self.add_class("svetlana")
        self.project = project
        self.status = StatusLine()
        self._style = style_widget()
        self._watcher = Watcher(self.status)
        self.observe_project(lambda: self.status.say(project.status), "status")
        self.observe_project(self._show_trouble, "trouble")

    def observe_project(self, act: Callable[[], object], *names: str) -> None:
        """Call ``act()`` whenever one of the named traits of the project changes, until the panel is closed."""
        self._watcher.observe(self.project, act, *names)

    def make_button(self, act: Callable[[], object], text: str = "", *, tooltip: str, **options: Any) -> Button:
        """Return a button that runs an action through `run_action`."""
        button = Button(description=text, tooltip=tooltip, **options)
        button.on_click(lambda _: self.run_action(act))
        return button

    def run_action(self, act: Callable[..., object], *args: Any) -> None:
        """Run an action, display its error, and give the keyboard focus back to the canvas.

        While a button has the focus, JupyterLab's shortcuts would take the next key; ``m`` would destroy the output.
        """
        catch_errors(act, self.status)(*args)
        self.focus()

    def arrange(self, main: Widget, *side: Widget) -> tuple[Widget, Widget]:
        """Lay out the panel: ``main`` with a column at its side, or a hint while the project has no images.

        Returns
        -------
        hint, body : Widget
            One of them is displayed.
        """
        column = VBox(side, layout={"width": SIDE_WIDTH, "flex": "0 0 auto", "padding": "0 0 0 12px"})
        column.layout.grid_gap = "4px"
        hint = no_images_hint()
        body = HBox([main, column], layout={"width": "100%", "flex_flow": "row wrap"})

        def choose() -> None:
            hint.layout.display = "none" if self.project.images else "block"
            body.layout.display = "flex" if self.project.images else "none"

        self.observe_project(choose, "images_version")
        choose()
        return hint, body

    def show_hint(self, hint: str) -> None:
        """Display what to do first, or the project's present problem."""
        self.status.say(hint)
        self._show_trouble()

    def focus(self) -> None:
        """Give the keyboard focus to the canvas, in a panel that has one."""

    def close(self) -> None:
        """Stop observing the project, and remove the panel."""
        self._watcher.close()
        super().close()

    def _show_trouble(self) -> None:
        if self.project.trouble:
            self.status.warn(self.project.trouble)


@dataclass(frozen=True)
class Command:
    """An action with a button and keys; it receives the selection that was on the screen, or None."""

    keys: tuple[str, ...]
    text: str
    icon: str
    tooltip: str
    act: Callable[[Any], None]


class LabelingActions(Protocol):
    """Actions that the labeling panels and the gallery share."""

    def undo(self, shown: Any = None) -> None:
        """Undo the last edit."""

    def redo(self, shown: Any = None) -> None:
        """Redo the edit that was undone last."""

    def erase(self, shown: Any) -> None:
        """Remove the annotations of the selection."""

    def flag_command(self, flag: LabelAction) -> Callable[[Any], None]:
        """Return the command that sets a flag on the selection."""
        ...


def labeling_commands(panel: LabelingActions, *names: str) -> list[Command]:
    """Return the shared commands with the given names, in the given order."""
    commands = (
        Command(("u",), "Undo", "undo", "Undo the last edit", panel.undo),
        Command(("r",), "Redo", "repeat", "Redo the edit undone last", panel.redo),
        Command(("s",), "Skip", "step-forward", "Skip without a label", panel.flag_command("skip")),
        Command(("e", "Delete"), "Erase", "eraser", "Remove the annotation", panel.erase),
        Command(("a",), "Ambiguous", "question", "Not even an expert can tell", panel.flag_command("ambiguous")),
        Command(
            ("b",), "Bad segmentation", "chain-broken", "The outline is wrong", panel.flag_command("bad_segmentation")
        ),
    )
    by_name = {command.text: command for command in commands}
    return [by_name[name] for name in names]


class CommandBar:
    """Commands of a panel: a button, keys and a line in the help for each.

    Parameters
    ----------
    panel : Panel
    shown : callable
        Returns the selection to which a button applies now; None for none.
    class_keys_help : str
        Help text of the keys that stand for classes.
    view_keys : tuple of (str, str)
        Keys that change the view, separated by spaces, with their help text.

    Attributes
    ----------
    commands : tuple of Command
    buttons : dict of str to Button
        The buttons, by their text.
    help : HTML
        List of the keys, shown and hidden by ``help_button``.
    """

    def __init__(
        self,
        panel: Panel,
        shown: Callable[[], Any],
        class_keys_help: str = "Label the object with this class",
        view_keys: tuple[tuple[str, str], ...] = VIEW_KEYS,
    ) -> None:
        self._panel, self._shown = panel, shown
        self._class_keys_help, self._view_keys = class_keys_help, view_keys
        self.commands: tuple[Command, ...] = ()
        self.buttons: dict[str, Button] = {}
        self.help = HTML(layout={"display": "none", "margin": "4px 0 0 0"})
        self.help_button = panel.make_button(
            self.toggle_help,
            icon="keyboard-o",
            tooltip="Show the keys (?)",
            layout={"width": "36px", "margin": "0 0 0 auto"},
        )
        panel.observe_project(self._list_keys, "classes_version")

    def set_commands(self, *commands: Command) -> None:
        """Set the commands, each with a button, keys and a line in the help."""
        self.commands = commands
        self.buttons = {command.text: self._make_button(command) for command in commands}
        self._list_keys()

    def dispatch_key(self, key: str, shown: Any) -> None:
        """Run the commands of a key, or show the help."""
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
        """Show or hide the list of keys."""
        self.help.layout.display = "block" if self.help.layout.display == "none" else "none"

    def show_history(self) -> None:
        """Enable Undo and Redo if there is something to undo or redo."""
        self.buttons["Undo"].disabled = not self._panel.project.annotations.can_undo
        self.buttons["Redo"].disabled = not self._panel.project.annotations.can_redo

    def _list_keys(self) -> None:
        """Write the help, with the current keys of the classes."""
        lines = class_keys(self._panel.project.classes.scheme, self._class_keys_help)
        lines += [
            (" ".join(keycap("Space" if key == " " else key) for key in command.keys), command.tooltip)
            for command in self.commands
        ]
        lines += [(" ".join(map(keycap, keys.split())), text) for keys, text in self._view_keys]
        lines.append((keycap("?"), "Show or hide these keys"))
        cells = "".join(f"<span>{keys}</span><span>{text}</span>" for keys, text in lines)
        self.help.value = f'<div class="sv-keys">{cells}</div>'

    def _make_button(self, command: Command) -> Button:
        return self._panel.make_button(
            lambda: command.act(self._shown()),
            command.text,
            icon=command.icon,
            tooltip=f"{command.tooltip} (key {command.keys[0]})",
            layout={"width": "auto", "margin": "0"},
        )


def class_keys(classes: Iterable[ClassInfo], text: str) -> list[tuple[str, str]]:
    """Return help lines for the keys of these classes, as HTML, and for finding a class without a key."""
    infos = list(classes)
    keys = [info.key for info in infos if info.key]
    digits, letters = [key for key in keys if key in "123456789"], [key for key in keys if key not in "123456789"]
    span = [" … ".join(map(keycap, dict.fromkeys((digits[0], digits[-1]))))] if digits else []
    lines = [(" ".join([*span, *map(keycap, letters)]), text)] if keys else []
    if len(keys) < len(infos):
        lines.append((f"{keycap('/')} {keycap('⏎')}", "Find a class by name and apply it"))
    return lines
