"""Editor of the training settings, as controls and as JSON.

The common settings have controls; JSON holds all settings. Names and explanations come from the settings models
(`core.settings`). Both views show the same settings, and are updated when the file ``training.json`` is edited by hand
or by another panel.
"""

from __future__ import annotations

import html
import json
import re
from functools import cache, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from ipywidgets import HTML, Checkbox, Combobox, Dropdown, FloatText, HBox, IntText, Text, Textarea, ToggleButtons, VBox
from traitlets import Instance

from svetlana_jupyter.core.allowed_cues import explain_restrictions
from svetlana_jupyter.core.settings import ARCHITECTURES, NESTED_SETTINGS, PRESET_NAMES, TrainingSettings
from svetlana_jupyter.errors import SettingsError, SvetlanaError
from svetlana_jupyter.project.file_access import read_text
from svetlana_jupyter.widgets.components import button, error_html, heading, html_table, muted
from svetlana_jupyter.widgets.panel import catch_errors
from svetlana_jupyter.widgets.scheduling import FileWatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ipywidgets import ValueWidget
    from pydantic.fields import FieldInfo

    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.components import StatusLine

# Settings with a control, by the title of their group. "patches.size" is the size within the nested patch settings.
CONTROLS: Mapping[str, tuple[str, ...]] = {
    "Training": ("preset", "architecture", "epochs", "learning_rate", "class_weights"),
    "Machine": ("device", "seed"),
    "Objects": ("exclude_border", "size"),
    "Patches": ("patches.size", "patches.context", "patches.normalize"),
    "Augmentation": ("augmentation.flips", "augmentation.rotation"),
}
SUGGESTIONS: Mapping[str, Sequence[str]] = {"architecture": ARCHITECTURES, "preset": PRESET_NAMES}
FORM, JSON = "Controls", "JSON"


class SettingsEditor(VBox):
    """Training settings of a project, to view and change as controls or as JSON.

    Parameters
    ----------
    project : Project
    status : StatusLine
        Shows errors that belong to neither view.

    Attributes
    ----------
    used : TrainingSettings or None
        The settings in use; None while ``training.json`` is invalid. A trait, so that it can be observed.
    form : SettingsForm
    json : SettingsJsonEditor
    view : ToggleButtons
        Switches between ``form`` and ``json``.
    cue_note : HTML
        The settings that are overridden because a cue is not allowed.
    file_watcher : FileWatcher
        Detects changes of ``training.json``.
    """

    used = Instance(TrainingSettings, allow_none=True)

    def __init__(self, project: Project, status: StatusLine) -> None:
        self._project, self._status = project, status
        self.form = SettingsForm(lambda: project.settings, self.keep)
        self.json = SettingsJsonEditor(self.keep, lambda: self.show(discard_draft=True))
        self.view = ToggleButtons(
            options=[FORM, JSON],
            tooltips=["The most common settings", "All settings as text, as stored in training.json"],
            style={"button_width": "96px"},
        )
        self.view.observe(lambda _: self._show_view(), "value")
        self.file_watcher = FileWatcher(project.path / "training.json", catch_errors(self.show, status))
        self.cue_note = HTML(layout={"width": "100%", "margin": "0", "display": "none"})
        super().__init__([self.view, self.cue_note, self.form, self.json], layout={"width": "100%"})
        self._show_view()
        self.show()

    def keep(self, settings: TrainingSettings) -> None:
        """Use these settings from the next training on.

        Raises
        ------
        SettingsError
            If the project cannot use these settings; the previous settings then stay in use.
        """
        self._project.settings = settings
        self.show()

    def show(self, discard_draft: bool = False) -> None:
        """Show the settings in use.

        Parameters
        ----------
        discard_draft : bool
            Whether to discard edits of the JSON that were not applied.
        """
        try:
            settings, problem = self._project.settings, ""
        except SettingsError as error:
            settings, problem = None, str(error)
        # The raw text of the file, because an invalid file has no settings and the user repairs it here.
        try:
            text = read_text(self._project.path.resolve() / "training.json")
        except FileNotFoundError:
            text = self._project.settings.to_json()
        except (OSError, ValueError):  # `problem` names the reason
            text = ""
        self.json.show(text, discard_draft)
        if settings is None:
            self.view.value = JSON
            self._status.warn(problem)
        else:
            self.form.show(settings)
            note = explain_restrictions(settings)
            self.cue_note.value, self.cue_note.layout.display = muted(note), None if note else "none"
        self.used = settings

    def close(self) -> None:
        """Stop watching the file, and remove the editor."""
        self.file_watcher.close()
        super().close()

    def _show_view(self) -> None:
        for part, name in ((self.form, FORM), (self.json, JSON)):
            part.layout.display = None if self.view.value == name else "none"


class SettingsForm(VBox):
    """Controls for the settings of `CONTROLS`, in groups.

    Parameters
    ----------
    current : callable
        Returns the settings in use, to which a change is applied.
    keep : callable
        Called with the changed settings. May reject them with a `SettingsError`.

    Attributes
    ----------
    fields : dict of str to SettingField
        The fields by the paths of their settings, for example ``"patches.size"``.
    others : HTML
        The settings that differ from the preset but have no control.
    message : HTML
        Reason why the last change was rejected.
    """

    def __init__(self, current: Callable[[], TrainingSettings], keep: Callable[[TrainingSettings], None]) -> None:
        self._current, self._keep = current, keep
        self.others, self.message = (HTML(layout={"margin": "0", "display": "none"}) for _ in range(2))
        self.fields = {path: SettingField(path, self._change) for paths in CONTROLS.values() for path in paths}
        groups = [
            VBox([heading(title), *map(self.fields.get, paths)]).add_class("sv-group")
            for title, paths in CONTROLS.items()
        ]
        super().__init__([VBox(groups).add_class("sv-settings"), self.others, self.message], layout={"width": "100%"})

    def show(self, settings: TrainingSettings) -> None:
        """Show settings, and mark the settings that differ from their preset."""
        preset = TrainingSettings(preset=settings.preset, may_use=settings.may_use)
        changed = [path for path in setting_fields() if attrgetter(path)(settings) != attrgetter(path)(preset)]
        for path, field in self.fields.items():
            field.show(attrgetter(path)(settings))
            field.mark(changed=path in changed)
        others = ", ".join(path for path in changed if path not in self.fields)
        self.others.value, self.others.layout.display = muted(f"Also changed: {others}."), None if others else "none"
        self._show_message("")

    def _change(self, path: str, value: Any) -> None:
        first, _, second = path.partition(".")
        try:
            self._keep(self._current().changed(**{first: {second: value} if second else value}))
        except SvetlanaError as error:
            self.fields[path].mark(changed=True, invalid=True)
            self._show_message(str(error))

    def _show_message(self, problem: str) -> None:
        self.message.value = error_html(problem)
        self.message.layout.display = None if problem else "none"


class SettingField(HBox):
    """Name of a setting, its explanation as a tooltip, and its control.

    Parameters
    ----------
    path : str
    changed : callable
        Called with the path and the value that the user entered: plain data, not validated yet.

    Attributes
    ----------
    control : ValueWidget
    """

    def __init__(self, path: str, changed: Callable[[str, Any], None]) -> None:
        annotation = setting_fields()[path].annotation
        self.label = HTML(layout={"width": "112px", "flex": "0 0 auto", "margin": "1px 6px 1px 0"})
        self.control = _control(annotation, SUGGESTIONS.get(path, ()))
        self.control.tooltip = explanation(path)
        self._is_text = type(self.control) is Text  # not isinstance: a Combobox is a Text, but its value is not parsed
        self._path, self._optional, self._showing = path, type(None) in get_args(annotation), False
        super().__init__([self.label, self.control], layout={"align_items": "center", "width": "100%"})
        self.add_class("sv-setting")
        self.mark(False)
        self.control.observe(lambda _: None if self._showing else changed(path, self.value), "value")

    @property
    def value(self) -> Any:
        """The entered value, parsed to the type of the setting."""
        return parse_value(self.control.value, self._optional) if self._is_text else self.control.value

    def show(self, value: Any) -> None:
        """Show a value, without calling ``changed``."""
        self._showing = True
        try:
            self.control.value = format_value(value) if self._is_text else value
        finally:
            self._showing = False

    def mark(self, changed: bool, invalid: bool = False) -> None:
        """Mark a value that differs from the preset, or that was rejected."""
        css_class, title = "sv-own" if changed else "", html.escape(explanation(self._path))
        name = html.escape(setting_name(self._path))
        self.label.value = f'<span class="sv-name {css_class}" title="{title}">{name}</span>'
        (self.add_class if invalid else self.remove_class)("sv-wrong")


def _control(annotation: Any, suggestions: Sequence[str]) -> ValueWidget:
    """Return a control for values of a type, by default a text field."""
    layout = {"width": "auto", "flex": "1 1 0", "min_width": "0", "margin": "1px 0"}
    if annotation in (bool, int, float):
        return {bool: partial(Checkbox, indent=False), int: IntText, float: FloatText}[annotation](layout=layout)
    if get_origin(annotation) is Literal:
        return Dropdown(options=[(choice_name(choice), choice) for choice in get_args(annotation)], layout=layout)
    # Text is read on Enter or when the field loses focus, because a half-typed value is not valid.
    if annotation is str:
        return Combobox(options=list(suggestions), ensure_option=False, continuous_update=False, layout=layout)
    placeholder = "none" if type(None) in get_args(annotation) else ""
    return Text(placeholder=placeholder, continuous_update=False, layout=layout)


@cache
def setting_fields() -> Mapping[str, FieldInfo]:
    """Return the pydantic field of every setting by its path.

    >>> [path for path in setting_fields() if path.startswith("patches.")][:2]
    ['patches.size', 'patches.unit']
    """
    fields: dict[str, FieldInfo] = {}
    for name, field in TrainingSettings.model_fields.items():
        parts = getattr(field.annotation, "model_fields", {}) if name in NESTED_SETTINGS else {}
        fields |= {f"{name}.{part}": inner for part, inner in parts.items()} or {name: field}
    return fields


def setting_name(path: str) -> str:
    """Return the display name of a setting.

    >>> setting_name("patches.normalize"), setting_name("class_weights")
    ('Normalize', 'Class weights')
    """
    name = setting_fields()[path].title or path.rpartition(".")[2].replace("_", " ")
    return name[:1].upper() + name[1:]


def explanation(path: str) -> str:
    """Return the documentation of a setting as a single line."""
    return " ".join((setting_fields()[path].description or "").split())


def choice_name(choice: str) -> str:
    """Return the display name of one of the values of a setting.

    >>> choice_name("half_turns"), choice_name("cpu")
    ('half turns', 'CPU')
    """
    return {"cpu": "CPU", "cuda": "CUDA", "mps": "MPS"}.get(choice, choice.replace("_", " "))


def format_value(value: Any) -> str:
    """Return a value as text for an input field.

    >>> format_value((50, None)), format_value((48.0, 32)), format_value(None), format_value({"1": 2.0})
    ('50, none', '48, 32', '', '{"1": 2.0}')
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list | tuple):
        return ", ".join(format_value(part) or "none" for part in value)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else json.dumps(value)


def parse_value(text: str, optional: bool) -> Any:
    """Return the value that was entered as text in an input field.

    The text may be "none", numbers separated by commas, JSON, or any other text.

    >>> parse_value("48, 32", False), parse_value("", True), parse_value("auto", False), parse_value("50, none", True)
    ([48, 32], None, 'auto', [50, None])
    """
    text = text.strip()
    if optional and text.lower() in ("", "none", "null"):
        return None
    with_nulls = re.sub(r"(?<=,)\s*none\s*$|^\s*none\s*(?=,)", "null", text, flags=re.IGNORECASE)
    for candidate in (text, f"[{with_nulls}]"):
        try:
            return json.loads(candidate)
        except json.JSONDecodeError:
            continue
    return text


_VALID = "Valid. Apply uses these settings."
_CONFLICT = "Valid. The settings in use have changed: press Revert or Apply."
_IN_USE = "These settings are in use."


class SettingsJsonEditor(VBox):
    """All settings as JSON, validated while typing, with an explanation of each.

    Parameters
    ----------
    keep : callable
        Called with the new settings. May reject them with a `SettingsError`.
    revert : callable
        Called to show the settings in use again.

    Attributes
    ----------
    text : Textarea
    message : HTML
    apply, revert : Button
    help : HTML
        A table of all settings with their explanations, collapsed at first.
    """

    def __init__(self, keep: Callable[[TrainingSettings], None], revert: Callable[[], None]) -> None:
        self._keep, self._revert = keep, revert
        self._used = ""
        self._conflict = False  # the settings in use have changed since the draft was started
        self.text = Textarea(rows=22, layout={"width": "auto", "margin": "0"})
        self.text.add_class("sv-code")
        self.text.tooltip = "All settings, as stored in training.json"
        self.message = HTML(layout={"margin": "4px 0 0 0", "width": "100%"})
        self.apply = button(self._apply, "Apply", "check", "Use these settings", width="100px")
        self.revert = button(revert, "Revert", "undo", "Discard changes that were not applied", width="100px")
        table = html_table(["Setting", "Explanation"], [(path, explanation(path)) for path in setting_fields()])
        self.help = HTML(f'<details><summary>All settings</summary><div class="sv-pairs">{table}</div></details>')
        buttons = HBox([self.apply, self.revert], layout={"margin": "4px 0 0 0"})
        super().__init__([self.text, self.message, buttons, self.help], layout={"width": "100%"})
        self.text.observe(lambda _: self._check(), "value")

    def show(self, text: str, discard_draft: bool = False) -> None:
        """Show the settings in use, unless the user has edited the text."""
        before, self._used = self._used, text.strip()
        if discard_draft or self.text.value.strip() == before:
            self._conflict, self.text.value = False, self._used
        else:
            self._conflict = self._conflict or self._used != before
        self._check()

    def _check(self) -> None:
        """Validate the text, and show the result below it."""
        edited = self.text.value.strip() != self._used
        self.revert.disabled = self.apply.disabled = not edited
        self.message.value = muted((_CONFLICT if self._conflict else _VALID) if edited else _IN_USE)
        try:
            TrainingSettings.from_json(self.text.value)
        except SettingsError as error:
            self._refuse(error)

    def _apply(self) -> None:
        try:
            self._keep(TrainingSettings.from_json(self.text.value))
        except SvetlanaError as error:
            self._refuse(error)
        else:
            self._revert()

    def _refuse(self, error: SvetlanaError) -> None:
        self.apply.disabled = True
        self.message.value = error_html(str(error))
