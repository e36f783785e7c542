"""Base class of all panels: error display, observers, commands, style sheet."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial, wraps
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ipywidgets import HTML, Box, Button, GridBox, HBox, VBox, Widget

from svetlana_jupyter.errors import ProjectError, SvetlanaError
from svetlana_jupyter.project.jobs import panel_call
from svetlana_jupyter.project.known_files import checked_live
from svetlana_jupyter.widgets.components import StatusLine, button, handle_in_order, heading, keycap, no_images_hint
from svetlana_jupyter.widgets.viewer.pointer import KeyGuard
from svetlana_jupyter.widgets.warning_list import WarningList

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import traitlets

    from svetlana_jupyter.core.annotations import LabelAction
    from svetlana_jupyter.core.classes import ClassInfo
    from svetlana_jupyter.project.jobs import JobKind
    from svetlana_jupyter.project.project import Project

# Initial and maximum height and width of the viewer, which follows the width of the page. In an output area that is
# narrower than 760 pixels, the column at its side is displayed below it.
VIEWER_SIZE, MAX_VIEWER_SIZE = (540, 648), (600, 1280)
MAX_FILLING_SIZE = 2000, 4000  # of a viewer that fills its box
MAIN_WIDTH, SIDE_WIDTH = "480px", "268px"
PANEL_WIDTH, MAX_WIDTH, WORKSPACE_WIDTH = "960px", "1560px", "2560px"
ICON_LAYOUT = {"width": "28px", "padding": "0", "margin": "0 2px 0 0"}
_DIGITS = set("123456789")

Line = tuple[str, str]  # of the help: keys, and their effect

logger = logging.getLogger(__name__)


def style_widget() -> Box:
    """Return an invisible widget with the style sheet and the key guard of a panel."""
    css = Path(__file__).with_name("panel.css").read_text("utf-8")
    return Box([HTML(f"<style>{css}</style>"), KeyGuard()], layout={"display": "none"})


def catch_errors(act: Callable[..., object], status: StatusLine) -> Callable[..., None]:
    """Return ``act`` as a callback that displays and logs its exceptions.

    A notebook does not display exceptions of widget callbacks, so ``status`` displays them. The message of a
    `SvetlanaError` tells the user what to do; the traceback of any other exception is logged. Within a callback, each
    image and mask file is looked at no more than once per second.
    """

    @wraps(act)
    def call(*args: Any, **kwargs: Any) -> None:
        try:
            with checked_live(), panel_call():  # callbacks of the mouse run many times per second
                act(*args, **kwargs)
        except SvetlanaError as error:
            logger.info("action rejected: %s", error)
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
        self._observers = ExitStack()

    def observe(self, source: traitlets.HasTraits, act: Callable[[], object], *names: str) -> None:
        """Call ``act()`` whenever one of the named traits of ``source`` changes."""
        safe_act = catch_errors(act, self._status)

        def changed(change: Any) -> None:
            safe_act()

        source.observe(changed, names)
        self._observers.callback(source.unobserve, changed, names)

    def close(self) -> None:
        """Remove all observers."""
        self._observers.close()


def as_project(project: Project | str | Path) -> Project:
    """Return a project, or open the project in a folder or zip file.

    Raises
    ------
    ProjectError
        If there is no project at this path, or the argument is neither a project nor a path.
    """
    from svetlana_jupyter.project.project import Project

    if isinstance(project, Project):
        return project
    if not isinstance(project, str | PathLike):
        raise ProjectError(
            f"A panel needs a project or the path of its folder, got {type(project).__name__}. "
            'Pass sv.Project("osteoclasts.svetlana").'
        )
    path = Path(project).expanduser()
    if path.suffix.lower() == ".zip":
        return Project.from_zip(path)
    if not (path / "project.json").is_file():
        raise ProjectError(
            f"There is no project at '{path.absolute()}'. Pass sv.Project({str(project)!r}) to create one, or call "
            "sv.App() for a form."
        )
    return Project(path)


class Panel(VBox):
    """Base class of the panels.

    Parameters
    ----------
    project : Project or path
        Shared with other panels and with scripts. A panel observes the project and calls its methods, but holds no
        state of the project itself. A path is the folder or the zip file of a project, which is opened.

    Attributes
    ----------
    project : Project
    status : StatusLine
        Displays the result or the error of the last action in this panel, and of the jobs in ``job_kinds``.
    job_kinds : frozenset of str
        Kinds of jobs whose results the panel displays, even if it did not start them.
    warnings : WarningList
        Displays warnings about images, above everything else.
    """

    job_kinds: ClassVar[frozenset[JobKind]] = frozenset()

    def __init__(self, project: Project | str | Path) -> None:
        project = as_project(project)
        super().__init__(layout={"width": "100%", "max_width": PANEL_WIDTH})
        self.add_class("svetlana")
        handle_in_order(self)
        self.project = project
        self.status = StatusLine()
        self.warnings = WarningList(project, self.run_action)
        self._style = VBox([style_widget(), self.warnings])
        self._watcher = Watcher(self.status)
        self._acting, self._unused_key = False, ""
        self._job, self._follows_job = project.job, project.job is not None and project.job.kind in self.job_kinds
        self.observe_project(self._follow_job, "job")
        self.observe_project(self._show_status, "status")
        self.observe_project(self._show_trouble, "trouble")
        self.observe_project(self.warnings.refresh, "images_version", "predictions_version")

    def __del__(self) -> None:
        if hasattr(self, "project"):  # a panel whose argument was refused has nothing to close
            super().__del__()

    def observe_project(self, act: Callable[[], object], *names: str) -> None:
        """Call ``act()`` whenever one of the named traits of the project changes."""
        self._watcher.observe(self.project, act, *names)

    def make_button(self, act: Callable[[], object], *texts: Any, **options: Any) -> Button:
        """Return a button that runs an action with `run_action`."""
        return button(partial(self.run_action, act), *texts, **options)

    def run_action(self, act: Callable[..., object], *args: Any) -> None:
        """Run an action, display its error, and give the focus back to the canvas.

        If a button kept the focus, JupyterLab would handle the next key as a shortcut: for
        example, ``m`` turns the cell into Markdown and deletes its output.
        """
        self._acting = True
        catch_errors(act, self.status)(*args)
        self._acting = False
        self.focus()

    def report_key(self, problem: str) -> None:
        """Display why a key had no effect; "" after a key that had an effect."""
        if problem:
            self._unused_key = problem
            self.status.say(problem)
        elif self._unused_key and self.status.text == self._unused_key:
            self.status.say(self.describe_selection())

    def describe_selection(self) -> str:
        """Return a sentence about what is selected in the panel."""
        return ""

    def arrange(self, main: Widget, *side: Widget) -> tuple[Widget, Widget]:
        """Arrange the main widget, with the other widgets in a column at its side.

        Returns
        -------
        hint, body : Widget
            The hint is displayed while the project has no images, the body otherwise.
        """
        self.layout.max_width = MAX_WIDTH
        main.layout.flex, main.layout.min_width = f"1000 1 {MAIN_WIDTH}", "0"
        layout = {"flex": f"1 1 {SIDE_WIDTH}", "min_width": "0", "padding": "0 0 0 12px", "grid_gap": "4px"}
        hint = no_images_hint()
        body = HBox([main, VBox(side, layout=layout)], layout={"width": "100%", "flex_flow": "row wrap"})

        def choose() -> None:
            hint.layout.display = "none" if self.project.images else "block"
            body.layout.display = "flex" if self.project.images else "none"

        self.observe_project(choose, "images_version")
        choose()
        return hint, body

    def show_hint(self, hint: str) -> None:
        """Display a hint on what to do first, or the current problem of the project."""
        self.status.say(hint)
        self._show_trouble()

    def focus(self) -> None:
        """Give the keyboard focus to the canvas, if the panel has a canvas."""

    def close(self) -> None:
        """Stop observing the project, and remove the panel."""
        self._watcher.close()
        super().close()

    def _follow_job(self) -> None:
        """Display the start and the result of a job, if it concerns this panel."""
        before, job = self._job, self.project.job
        self._job = job
        if before is None and job is not None:
            self._follows_job = self._acting or job.kind in self.job_kinds
            if self._follows_job:  # not the result of an earlier job
                self.status.say(f"{job.kind.capitalize()} started.")
        elif job is None and self._follows_job:
            self._follows_job = False
            self.show_hint(self.project.status)

    def _show_status(self) -> None:
        if self._acting or self._follows_job:
            self.status.say(self.project.status)

    def _show_trouble(self) -> None:
        trouble = self.project.trouble
        if trouble and trouble not in self.warnings.texts:
            self.status.warn(trouble)


@dataclass(frozen=True)
class Command:
    """An action with a button and keys.

    ``act`` receives the selection that was on the screen, or None if nothing was selected.
    """

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
    """Return the labeling commands with the given names, in the given order."""
    flag = panel.flag_command
    commands = (
        Command(("u", "Ctrl+z"), "Undo", "undo", "Undo the last edit", panel.undo),
        Command(("r", "Ctrl+Shift+z", "Ctrl+y"), "Redo", "repeat", "Redo the edit undone last", panel.redo),
        Command(("s",), "Skip", "step-forward", "Skip without a label", flag("skip")),
        Command(("e", "Delete"), "Erase", "eraser", "Remove the annotation", panel.erase),
        Command(("a",), "Ambiguous", "question", "The class is unclear even to an expert", flag("ambiguous")),
        Command(("b",), "Bad segmentation", "chain-broken", "The outline is wrong", flag("bad_segmentation")),
    )
    return sorted((c for c in commands if c.text in names), key=lambda c: names.index(c.text))


class CommandBar:
    """Commands of a panel: a button, keys and a help line for each command.

    Parameters
    ----------
    panel : Panel
    shown : callable
        Returns the current selection, to which the buttons apply; None if nothing is selected.
    class_help : str
        Help text of the keys that assign classes.
    view_keys : iterable of (str, str)
        Keys that change the view, separated by spaces, with their help text.

    Attributes
    ----------
    commands : tuple of Command
    buttons : dict of str to Button
        The buttons by their text.
    help : HTML
        List of the keys, shown and hidden by ``help_button``.
    """

    def __init__(self, panel: Panel, shown: Callable[[], Any], class_help: str, view_keys: Iterable[Line]) -> None:
        self._panel, self._shown, self._class_help, self._view_keys = panel, shown, class_help, view_keys
        self.commands: tuple[Command, ...] = ()
        self.buttons: dict[str, Button] = {}
        self.help = HTML(layout={"display": "none", "margin": "4px 0 0 0"})
        place = {"width": "36px", "margin": "0 0 0 auto"}
        self.help_button = panel.make_button(self.toggle_help, "", "keyboard-o", "Show the keys (?)", **place)
        self.help_button.add_class("sv-help-button")  # the page presses it when Escape closes the help
        panel.observe_project(self._list_keys, "classes_version")

    def set_commands(self, *commands: Command) -> None:
        """Set the commands, each with a button, keys and a line in the help."""
        self.commands = commands
        for command in commands:
            tooltip = f"{command.tooltip} (key {command.keys[0]})"
            act = partial(self._run, command)
            texts = command.text, command.icon, tooltip
            self.buttons[command.text] = self._panel.make_button(act, *texts, width="auto", margin="0")
        self._list_keys()

    def dispatch_key(self, key: str, shown: Any) -> None:
        """Run the command of a key, show the help, or say that the key has no effect."""
        command = next((command for command in self.commands if key in command.keys), None)
        if key == "?":
            self.toggle_help()
        elif command is not None:
            command.act(shown)
        elif key.isdecimal():
            self._panel.report_key(f"No class has the key {key}. Press ? for all keys.")
        elif key == "Escape":
            self.help.layout.display = "none"
        else:
            self._panel.report_key(f"The key {_key_text(key)} has no effect here. Press ? for all keys.")

    def header(self, title: str) -> HBox:
        """Return a heading with the button that shows the keys."""
        return HBox([heading(title), self.help_button], layout={"align_items": "center"})

    def grid(self) -> GridBox:
        """Return the buttons of the commands in two columns."""
        columns = {"grid_template_columns": "2fr 3fr", "grid_gap": "4px", "width": "100%"}
        return GridBox(list(self.buttons.values()), layout=columns).add_class("sv-commands")

    def toggle_help(self) -> None:
        """Show or hide the list of keys."""
        self.help.layout.display = "block" if self.help.layout.display == "none" else "none"

    def show_history(self) -> None:
        """Enable Undo and Redo if there is something to undo or redo."""
        self.buttons["Undo"].disabled = not self._panel.project.annotations.can_undo
        self.buttons["Redo"].disabled = not self._panel.project.annotations.can_redo

    def _list_keys(self) -> None:
        """Write the help, with the current keys of the classes."""
        lines = class_keys(self._panel.project.classes.scheme, self._class_help)
        lines += [
            (" ".join(keycap(_key_text(key)) for key in command.keys), command.tooltip) for command in self.commands
        ]
        lines += [(" ".join(map(keycap, keys.split())), text) for keys, text in self._view_keys]
        lines.append((keycap("?"), "Show or hide these keys"))
        cells = "".join(f"<span>{keys}</span><span>{text}</span>" for keys, text in lines)
        self.help.value = f'<div class="sv-keys">{cells}</div>'

    def _run(self, command: Command) -> None:
        command.act(self._shown())


def _key_text(key: str) -> str:
    """Return the name of a key as a keyboard shows it.

    >>> _key_text(" "), _key_text("Ctrl+Shift+z")
    ('Space', 'Ctrl+Shift+Z')
    """
    *modifiers, name = [key] if key == "+" else key.split("+")
    return "+".join([*modifiers, name.upper() if modifiers and len(name) == 1 else "Space" if name == " " else name])


def class_keys(classes: Iterable[ClassInfo], text: str) -> list[Line]:
    """Return the lines of the help that list the keys of classes, as HTML.

    If a class has no key, an additional line explains how to find a class by name.
    """
    keys = [info.key for info in classes]
    digits, letters = [key for key in keys if key in _DIGITS], [key for key in keys if key and key not in _DIGITS]
    span = [" … ".join(map(keycap, dict.fromkeys((digits[0], digits[-1]))))] if digits else []
    lines = [(" ".join([*span, *map(keycap, letters)]), text)] if digits or letters else []
    if not all(keys):
        lines.append((f"{keycap('/')} {keycap('⏎')}", "Find a class by name and apply it"))
    return lines
