"""What every panel is: a column over one project, whose callbacks lose no exception and give the keys back.

Commands of a panel: what a button and its keys do, and the help that lists them.

The looks of the panels: one style sheet, scoped by the class ``svetlana``, in the theme's colours.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, Box, Button, GridBox, VBox

from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.components import StatusLine, keycap
from svetlana_jupyter.widgets.viewer.pointer import KeyGuard

if TYPE_CHECKING:
    from svetlana_jupyter.core.classes import ClassInfo
    from svetlana_jupyter.project.project import Project

# Together they fit the output of a notebook that is 1100 pixels wide.
VIEWER_SIZE = (540, 648)
SIDE_WIDTH = "304px"
PANEL_WIDTH = "960px"

_CSS = """
.svetlana { color: var(--jp-ui-font-color1, #212121); }
.svetlana .widget-html-content, .svetlana .jupyter-widget-html-content { line-height: 1.45; }
.svetlana .jupyter-widget-tab > .widget-tab-contents { padding: 10px 0 0 0; border-width: 1px 0 0 0; }
.svetlana h4 { margin: 0; font-size: 13px; font-weight: 600; color: var(--jp-ui-font-color1, #212121); }
.svetlana .sv-muted { color: var(--jp-ui-font-color2, #616161); font-size: 12px; }
.svetlana .sv-number { font-variant-numeric: tabular-nums; text-align: right; font-size: 13px;
  white-space: nowrap; }
.svetlana kbd { display: inline-block; min-width: 12px; padding: 0 4px; text-align: center; font-size: 11px;
  line-height: 17px; border: 1px solid var(--jp-border-color1, #bdbdbd); border-bottom-width: 2px; border-radius: 3px;
  background: var(--jp-layout-color1, #fff); color: var(--jp-ui-font-color1, #212121); box-shadow: none; }
.svetlana .sv-status { padding: 5px 10px; font-size: 13px; min-height: 19px;
  border-left: 3px solid var(--jp-brand-color1, #1976d2); background: var(--jp-layout-color2, #eee); }
.svetlana .sv-status.sv-trouble { border-left-color: var(--jp-error-color1, #d32f2f);
  background: color-mix(in srgb, var(--jp-error-color1, #d32f2f) 15%, var(--jp-layout-color1, #fff)); }
.svetlana .sv-line { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.svetlana .sv-empty { padding: 28px 24px; font-size: 14px; border: 1px dashed var(--jp-border-color1, #bdbdbd);
  border-radius: 4px; color: var(--jp-ui-font-color1, #212121); }
.svetlana .sv-empty code { font-size: 13px; }
.svetlana .sv-swatch { display: inline-block; width: 11px; height: 11px; margin-right: 7px; border-radius: 2px;
  vertical-align: -1px; border: 1px solid rgba(0, 0, 0, .25); }
.svetlana .sv-class-button { text-align: left; padding: 0 10px; overflow: hidden; text-overflow: ellipsis; }
.svetlana .jupyter-button.mod-active { box-shadow: inset 0 -3px 0 var(--jp-brand-color1, #1976d2); }
.svetlana .sv-chosen { box-shadow: inset 0 0 0 2px var(--jp-brand-color1, #1976d2); font-weight: 600; }
.svetlana .sv-bar { display: inline-block; width: 64px; height: 9px; margin-right: 6px; border-radius: 2px;
  background: var(--jp-layout-color3, #ddd); vertical-align: 0; overflow: hidden; }
.svetlana .sv-percent { display: inline-block; min-width: 40px; }
.svetlana .sv-bar > span { display: block; height: 100%; }
.svetlana .sv-pictures { display: flex; gap: 10px; }
.svetlana .sv-pictures figure { margin: 0; width: 140px; }
.svetlana .sv-pictures img, .svetlana .sv-pictures .sv-blank { display: block; width: 140px; height: 140px;
  object-fit: contain; background: #000; border-radius: 3px; }
.svetlana .sv-pictures .sv-blank { background: var(--jp-layout-color2, #eee); }
.svetlana .sv-pictures figcaption { margin-top: 3px; font-size: 12px; line-height: 1.3;
  color: var(--jp-ui-font-color2, #616161); }
.svetlana .sv-beside { gap: 12px; }
.svetlana .sv-beside figure { width: 110px; }
.svetlana .sv-beside img { width: 110px; height: 110px; }
.svetlana .sv-beside.sv-nothing { display: flex; align-items: center; justify-content: center; height: 110px;
  border: 1px dashed var(--jp-border-color2, #e0e0e0); border-radius: 4px; }
.svetlana table.sv-table { border-collapse: collapse; font-size: 13px; margin: 0; color: inherit; }
.svetlana table.sv-table th { font-weight: 600; text-align: left; padding: 3px 14px 3px 6px; white-space: nowrap;
  border-bottom: 1px solid var(--jp-border-color1, #bdbdbd); position: sticky; top: 0;
  background: var(--jp-layout-color1, #fff); }
.svetlana table.sv-table td { text-align: left; padding: 3px 14px 3px 6px; vertical-align: top;
  border-bottom: 1px solid var(--jp-border-color2, #e0e0e0); }
.svetlana table.sv-table .sv-number { text-align: right; }
.svetlana table.sv-table .sv-nowrap { white-space: nowrap; }
.svetlana table.sv-table tr.sv-current { background: var(--jp-layout-color2, #eee); font-weight: 600; }
.svetlana .sv-side { display: flex; flex-wrap: wrap; gap: 8px 32px; align-items: flex-start; }
.svetlana .sv-side > div { max-width: 100%; }
.svetlana .sv-side > div { max-height: 230px; overflow: auto; }
.svetlana .sv-calm { padding: 12px 16px; font-size: 13px; }
.svetlana .sv-run { display: grid;
  grid-template-columns: 44px 138px minmax(100px, 2fr) minmax(90px, 2fr) 52px 62px 54px minmax(60px, 1fr);
  column-gap: 12px;
  font-size: 13px; line-height: 28px; font-variant-numeric: tabular-nums;
  border-bottom: 1px solid var(--jp-border-color2, #e0e0e0); }
.svetlana .sv-run.sv-head, .svetlana .sv-run.sv-used { font-weight: 600; }
.svetlana .sv-scores { display: flex; flex-wrap: wrap; gap: 12px; margin-bottom: 4px; }
.svetlana .sv-score { flex: 1 1 240px; padding: 8px 12px; border: 1px solid var(--jp-border-color2, #e0e0e0);
  border-radius: 4px; }
.svetlana .sv-score b { display: block; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums; }
.svetlana .sv-score span { line-height: 1.4; }
.svetlana .sv-confusion { overflow: auto; max-width: 100%; }
.svetlana table.sv-matrix { border-collapse: separate; border-spacing: 2px; font-size: 13px; }
.svetlana table.sv-matrix caption { text-align: left; caption-side: bottom; padding-top: 4px; }
.svetlana table.sv-matrix th { font-weight: 400; text-align: left; padding: 2px 8px; white-space: nowrap;
  max-width: 120px; overflow: hidden; text-overflow: ellipsis; }
.svetlana table.sv-matrix thead th { text-align: center; }
.svetlana table.sv-matrix td { min-width: 64px; padding: 4px 8px; text-align: center; border-radius: 3px;
  font-variant-numeric: tabular-nums; }
.svetlana .sv-settings { display: block; column-width: 286px; column-gap: 28px; width: 100%; overflow: visible; }
.svetlana .sv-settings > .sv-group { break-inside: avoid; display: inline-flex; width: 100%; overflow: visible; }
.svetlana .sv-setting { flex: 0 0 auto; overflow: visible; }
.svetlana .sv-setting .sv-name { display: block; font-size: 12px; line-height: 28px; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; cursor: help; }
.svetlana .sv-setting .sv-own { font-weight: 600; }
.svetlana .sv-setting .sv-own::before { content: "• "; color: var(--jp-brand-color1, #1976d2); }
.svetlana .sv-setting.sv-wrong input, .svetlana .sv-setting.sv-wrong textarea, .svetlana .sv-setting.sv-wrong select
  { border-color: var(--jp-error-color1, #d32f2f); }
.svetlana .widget-label-basic { display: flex; align-items: center; gap: 5px; }
.svetlana .widget-label-basic input { margin: 0; }
.svetlana .sv-code textarea { font-family: var(--jp-code-font-family, monospace); font-size: 12px; line-height: 1.4; }
.svetlana .sv-pictures.sv-varied { flex-wrap: wrap; gap: 8px; }
.svetlana .sv-pictures.sv-varied figure, .svetlana .sv-pictures.sv-varied img { width: 104px; }
.svetlana .sv-pictures.sv-varied img { height: 104px; }
.svetlana .sv-pictures.sv-varied figcaption { display: none; }
.svetlana .sv-run > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.svetlana .sv-questions { padding: 2px 0 6px 0; }
.svetlana .sv-question { position: relative; }
.svetlana .sv-question .widget-checkbox { cursor: pointer; }
.svetlana .sv-question .sv-card { display: none; position: absolute; z-index: 20; top: 28px; left: -8px;
  width: 424px; box-sizing: content-box; padding: 8px 12px; border-radius: 4px;
  background: var(--jp-layout-color1, #fff); border: 1px solid var(--jp-border-color1, #bdbdbd);
  box-shadow: 0 3px 10px rgba(0, 0, 0, 0.35); }
.svetlana .sv-question:hover .sv-card, .svetlana .sv-question:has(input:focus-visible) .sv-card { display: block; }
.svetlana .sv-card p { margin: 3px 0 5px 0; font-size: 12px; line-height: 1.35; }
.svetlana .sv-card img { width: 84px; height: 84px; border-radius: 3px; vertical-align: middle; }
.svetlana .sv-card .sv-row { display: flex; align-items: center; }
.svetlana .sv-card .sv-same { margin: 0 5px; font-weight: 600; }
.svetlana .sv-quiet { padding: 0; background: transparent; color: var(--jp-ui-font-color2, #616161); }
.svetlana .sv-quiet:hover, .svetlana .sv-quiet:focus { color: var(--jp-ui-font-color1, #212121); }
.svetlana .sv-editor { border: 1px solid var(--jp-border-color1, #bdbdbd); border-radius: 4px; }
.svetlana .sv-pairs { min-height: 44px; max-height: 330px; overflow: auto; }
.svetlana .sv-pairs .sv-table { width: 100%; margin-top: 4px; }
.svetlana .sv-pairs td { white-space: nowrap; }
.svetlana .sv-pairs td:last-child { white-space: normal; width: 99%; }
.svetlana .sv-pairs .sv-empty { padding: 10px 12px; font-size: 13px; }
.svetlana .sv-keys { display: grid; grid-template-columns: max-content 1fr; gap: 3px 10px; font-size: 12px; }
.svetlana .sv-keys kbd { justify-self: start; }
"""


def style_widget() -> Box:
    """Return the invisible widget that each panel holds: the style sheet, and the guard of its keys."""
    return Box([HTML(f"<style>{_CSS}</style>"), KeyGuard()], layout={"display": "none"})


logger = logging.getLogger(__name__)


def catch_errors(act: Callable[..., object], status: StatusLine) -> Callable[..., None]:
    """Return ``act`` as a callback whose exceptions are shown in ``status`` and logged.

    Without this they would be lost: a notebook shows nothing of an exception in a widget callback. An error of ours is
    a sentence already; of any other the log has the traceback.
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


class Panel(VBox):
    """Base of the panels.

    Parameters
    ----------
    project : Project
        Shared with other panels and with scripts; a panel observes it and calls its verbs, and keeps nothing of its own
        that the project should know.
    """

    def __init__(self, project: Project) -> None:
        super().__init__(layout={"width": "100%", "max_width": PANEL_WIDTH})
        self.add_class("svetlana")
        self.project = project
        self.status = StatusLine()
        self._style = style_widget()
        self._watching: list[tuple[Callable[[Any], None], list[str]]] = []
        self.observe_project(lambda: self.status.say(project.status), "status")
        self.observe_project(self._warn, "trouble")

    def observe_project(self, act: Callable[[], object], *names: str) -> None:
        """Call ``act`` whenever one of these traits of the project changes, until the panel is closed."""
        safe = catch_errors(act, self.status)

        def changed(change: Any) -> None:
            safe()

        self.project.observe(changed, list(names))
        self._watching.append((changed, list(names)))

    def make_button(self, act: Callable[[], object], description: str = "", *, tooltip: str, **options: Any) -> Button:
        """Return a button that calls ``act`` and then gives the keyboard back to the viewer."""
        made = Button(description=description, tooltip=tooltip, **options)
        made.on_click(lambda _: self.run_action(act))
        return made

    def run_action(self, act: Callable[..., object], *args: Any) -> None:
        """Do what a button asks for: exceptions go to the status line, and the keys go back to the viewer.

        A button keeps the keyboard after a click, where JupyterLab's own shortcuts would take the next key (``m`` would
        destroy the output of the cell).
        """
        catch_errors(act, self.status)(*args)
        self.focus()

    def show_hint(self, hint: str) -> None:
        """Begin with what to do here, or with a problem that the project has already."""
        self.status.say(hint)
        self._warn()

    def focus(self) -> None:
        """Give the keyboard to the viewer, in a panel that has one."""

    def close(self) -> None:
        """Stop following the project, and remove the panel."""
        for changed, names in self._watching:
            self.project.unobserve(changed, names)
        self._watching.clear()
        super().close()

    def _warn(self) -> None:
        if self.project.trouble:
            self.status.warn(self.project.trouble)


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
        self.help_button = self.make_button(
            self.toggle_help,
            icon="keyboard-o",
            tooltip="Show the keys (?)",
            layout={"width": "36px", "margin": "0 0 0 auto"},
        )
        self.observe_project(self._list_keys, "classes_version")

    @property
    def shown(self) -> Any:
        """What a button is meant for now; None for nothing."""
        return None

    def set_commands(self, *commands: Command) -> None:
        """Give these commands a button and their keys, and list them in the help."""
        self.commands = commands
        self.buttons = {command.text: self._button_of(command) for command in commands}
        self._list_keys()

    def _list_keys(self) -> None:
        """Write the help, with the keys that the classes have now."""
        lines = class_keys(self.project.classes.scheme, self.digits)
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
        return self.make_button(
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
