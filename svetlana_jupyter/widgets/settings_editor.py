"""What a form says of settings: their groups, their names in words, and what their documentation says of each.

One setting as a control: made from its type, it shows a value and says what a person chose instead.

Every setting of a training as a control, made from the model itself, so that none is forgotten.

All settings as JSON, to be edited in place: checked while one types, used when one says so.

All settings of a project, as controls or as JSON; both show the same, and follow the file edited by hand.
"""

from __future__ import annotations

import html
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from ipywidgets import (
    HTML,
    Box,
    Button,
    Checkbox,
    Combobox,
    Dropdown,
    FloatText,
    HBox,
    IntText,
    Text,
    Textarea,
    ToggleButtons,
    VBox,
)

from svetlana_jupyter.core.allowed_cues import explain_restrictions
from svetlana_jupyter.core.settings import ARCHITECTURES, NESTED_SETTINGS, PRESET_NAMES, Settings, TrainingSettings
from svetlana_jupyter.errors import SettingsError, SvetlanaError
from svetlana_jupyter.widgets.components import heading, muted
from svetlana_jupyter.widgets.panel import guarded
from svetlana_jupyter.widgets.scheduling import FileWatcher

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.components import StatusLine

# Which settings stand together; those that are not named stand under "More", so that none is forgotten.
GROUPS: dict[str, tuple[str, ...]] = {
    "Preset": ("preset",),
    "Objects": ("exclude_border", "size"),
    "Patches": ("patches.",),
    "Augmentation": ("augmentation.",),
    "Network": ("architecture", "depth", "width", "norm", "pretrained", "start_from", "body", "body_rate", "views"),
    "Loss": ("loss", "label_smoothing", "class_weights"),
    "Optimiser and schedule": (
        *("epochs", "patience", "steps", "batch_size", "optimizer", "learning_rate", "betas", "weight_decay"),
        *("schedule", "decay", "decay_every"),
    ),
    "Validation": ("held_out", "held_out_from", "hold_out_by", "folds"),
    "Forest": ("trees", "measurements."),
    "Machine": ("seed", "device", "precision", "threads"),
}
OTHER_GROUP = "More"
_NAMES = {
    "size": "Pixels",
    "measurements.groups": "Measurements",
    "measurements.ring": "Ring width",
    "held_out_from": "Held out from",
}
_LETTERS = {"mse": "MSE", "l1": "L1", "um": "µm", "px": "px"}
_ITEM = re.compile(r"^(?P<names>\w+(?:, \w+)*)(?: : (?P<kind>.+))?$")


@dataclass(frozen=True)
class SettingInfo:
    """One setting.

    Attributes
    ----------
    path : str
        ``"epochs"``, or ``"patches.size"`` for a setting within settings.
    annotation : type
    text : str
        What its documentation says.
    """

    path: str
    annotation: Any
    text: str

    @property
    def name(self) -> str:
        """The last part of the path in words.

        >>> SettingInfo("batch_size", int, "").name
        'Batch size'
        """
        words = _NAMES.get(self.path) or self.path.rpartition(".")[2].replace("_", " ")
        return words[:1].upper() + words[1:]


def leaves(model: type[Settings], prefix: str = "") -> Iterator[SettingInfo]:
    """Yield every single setting of a model, in its order; settings within settings come one by one."""
    said = parameter_docs(model)
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        if name in NESTED_SETTINGS:
            yield from leaves(field.annotation, f"{path}.")  # type: ignore[arg-type]
        else:
            yield SettingInfo(path, field.annotation, said.get(name, ""))


def grouped(found: list[SettingInfo]) -> dict[str, list[SettingInfo]]:
    """Return settings by the title under which they stand."""
    result: dict[str, list[SettingInfo]] = {title: [] for title in (*GROUPS, OTHER_GROUP)}
    for leaf in sorted(found, key=lambda leaf: _place(leaf.path)):  # sorted keeps the order of equals
        result[_place(leaf.path)[0]].append(leaf)
    return {title: group for title, group in result.items() if group}


def _place(path: str) -> tuple[str, int]:
    """Return the group of a setting, and where it stands in it."""
    for title, names in GROUPS.items():
        for position, name in enumerate(names):
            if path == name or (name.endswith(".") and path.startswith(name)):
                return title, position
    return OTHER_GROUP, 0


@cache
def parameter_docs(model: type[Settings]) -> dict[str, str]:
    """Return what the docstring of a model says of each of its parameters, as plain text."""
    said: dict[str, str] = {}
    names: list[str] = []
    section = (inspect.getdoc(model) or "").partition("Parameters\n----------\n")[2]
    for line in section.splitlines():
        item = _ITEM.match(line)
        if item:
            names = item["names"].split(", ")
            said |= dict.fromkeys(names, "")
        elif line.startswith("    ") and names:
            for name in names:
                said[name] = f"{said[name]} {line.strip()}".strip()
        elif line.strip():
            break  # the next section
    return {name: _plain(text) for name, text in said.items()}


def choice(word: str) -> str:
    """Return one of the words that a setting may be, as a person reads it.

    >>> choice("one_cycle"), choice("mse")
    ('one cycle', 'MSE')
    """
    return _LETTERS.get(word, word.replace("_", " "))


def _plain(text: str) -> str:
    return re.sub(r"\*(\w+)\*", r"\1", text.replace("``", "").replace("`", ""))


_CONTROL = {"width": "auto", "flex": "1 1 0", "min_width": "0", "margin": "1px 0"}
_NONE = type(None)
_NOTHING = re.compile(r"(?<=,)\s*none\s*$|^\s*none\s*(?=,)", re.IGNORECASE)  # in a pair


class SettingField(HBox):
    """The name of a setting, with what it does as a tooltip, and its control.

    Parameters
    ----------
    leaf : Leaf
    changed : callable
        Called with the path and the value that a person chose: plain data, checked by nobody yet.
    known : iterable of str
        Words to choose from where the type allows any text.

    Attributes
    ----------
    control : Widget
    value : object
        As the settings would take it.
    """

    def __init__(self, leaf: SettingInfo, changed: Callable[[str, Any], None], known: Iterable[str] = ()) -> None:
        self.leaf = leaf
        self.label = HTML(layout={"width": "112px", "flex": "0 0 auto", "margin": "1px 6px 1px 0"})
        self.control, self._read, self._write = _control(leaf.annotation, list(known))
        self._showing = False
        super().__init__([self.label, self.control], layout={"align_items": "center", "width": "100%"})
        self.add_class("sv-setting")
        if isinstance(self.control, Box):
            self.layout.align_items = "flex-start"
        self.mark(False)

        def observed(_: object) -> None:
            if not self._showing:
                changed(leaf.path, self.value)

        for one in _inputs(self.control):
            one.tooltip = leaf.text
            one.observe(observed, "value")

    @property
    def value(self) -> Any:
        return self._read()

    def show(self, value: Any) -> None:
        """Show a value of the settings; nobody is told."""
        self._showing = True
        try:
            self._write(value)
        finally:
            self._showing = False

    def mark(self, own: bool, wrong: bool = False) -> None:
        """Show whether the value is another than the preset's, and whether it is refused."""
        look = "sv-own" if own else ""
        said = html.escape(self.leaf.text, quote=True)
        self.label.value = f'<span class="sv-name {look}" title="{said}">{html.escape(self.leaf.name)}</span>'
        (self.add_class if wrong else self.remove_class)("sv-wrong")


def _control(annotation: Any, known: Sequence[str]) -> tuple[Any, Callable[[], Any], Callable[[Any], None]]:
    """Return a control for values of a type, with functions that read it and that write to it."""
    if annotation is bool:
        return _plain_setting_fields(Checkbox(indent=False, layout=_CONTROL))
    if annotation is int:
        return _plain_setting_fields(IntText(layout=_CONTROL))
    if annotation is float:
        return _plain_setting_fields(FloatText(layout=_CONTROL))
    if annotation is str:
        # No `continuous_update`: half a word is no value.
        return _plain_setting_fields(
            Combobox(options=list(known), ensure_option=False, continuous_update=False, layout=_CONTROL)
        )
    words = _words(annotation)
    if words:
        return _plain_setting_fields(Dropdown(options=[(choice(word), word) for word in words], layout=_CONTROL))
    several = _words(next(iter(typing.get_args(annotation)), None))
    if several and typing.get_origin(annotation) in (tuple, frozenset, set):
        return _several(several)
    return _text(annotation)


def _plain_setting_fields(control: Any) -> tuple[Any, Callable[[], Any], Callable[[Any], None]]:
    def write(value: Any) -> None:
        control.value = value

    return control, lambda: control.value, write


def _several(words: Sequence[str]) -> tuple[Any, Callable[[], Any], Callable[[Any], None]]:
    """Return a box to tick for each word of a set."""
    boxes = {word: Checkbox(description=choice(word), indent=False, layout={"width": "auto"}) for word in words}
    control = Box(list(boxes.values()), layout={**_CONTROL, "flex_flow": "row wrap", "grid_gap": "0 10px"})

    def write(value: Any) -> None:
        for word, box in boxes.items():
            box.value = word in value

    return control, lambda: [word for word, box in boxes.items() if box.value], write


def _text(annotation: Any) -> tuple[Any, Callable[[], Any], Callable[[Any], None]]:
    """Return a field for what has no control of its own: numbers, several numbers, a word, or JSON."""
    optional = _NONE in typing.get_args(annotation)
    is_document = optional and any(typing.get_origin(part) is dict for part in typing.get_args(annotation))
    kind = Textarea if is_document else Text
    control = kind(placeholder="none" if optional else "", continuous_update=False, layout=_CONTROL)
    if kind is Textarea:
        control.rows = 1

    def write(value: Any) -> None:
        control.value = written(value)

    return control, lambda: read(control.value, optional), write


def written(value: Any) -> str:
    """Return a value as a person would write it.

    >>> written((50, None))
    '50, none'
    >>> written((48, 32)), written(None), written("auto"), written({"1": 2.0})
    ('48, 32', '', 'auto', '{"1": 2.0}')
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return ", ".join("none" if one is None else written(one) for one in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)


def read(text: str, optional: bool) -> Any:
    """Read what a person wrote: nothing, numbers with commas between them, JSON, or else a word.

    >>> read("48, 32", False), read("", True), read("auto", False), read("0.5", False), read("50, none", True)
    ([48, 32], None, 'auto', 0.5, [50, None])
    """
    text = text.strip()
    if optional and text.lower() in ("", "none", "null"):
        return None
    for candidate in (text, f"[{_NOTHING.sub('null', text)}]"):
        try:
            return json.loads(candidate)
        except json.JSONDecodeError:
            continue
    return text


def _words(annotation: Any) -> tuple[str, ...]:
    """Return the words that a type allows, where it allows nothing else."""
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def _inputs(control: Any) -> Sequence[Any]:
    return control.children if isinstance(control, Box) else [control]


KNOWN: dict[str, Iterable[str]] = {"architecture": ARCHITECTURES, "preset": PRESET_NAMES}
HIDDEN_SETTINGS = ("may_use", "measurements.may_use")  # on the face of the panel


class SettingsForm(VBox):
    """Controls for all settings, in groups.

    Parameters
    ----------
    current : callable
        Returns the settings that a change begins from.
    keep : callable
        Called with the changed settings. It may refuse them with a `SettingsError`.

    Attributes
    ----------
    fields : dict of str to SettingField
        By path, for example ``"patches.size"``.
    says : HTML
        What was refused.
    """

    def __init__(self, current: Callable[[], TrainingSettings], keep: Callable[[TrainingSettings], None]) -> None:
        self._current, self._keep = current, keep
        self.says = HTML(layout={"margin": "0", "display": "none"})
        found = [leaf for leaf in leaves(TrainingSettings) if leaf.path not in HIDDEN_SETTINGS]
        self.fields = {leaf.path: SettingField(leaf, self._change, KNOWN.get(leaf.path, ())) for leaf in found}
        groups = []
        for title, group in grouped(found).items():
            box = VBox([heading(title), *(self.fields[leaf.path] for leaf in group)])
            box.add_class("sv-group")
            groups.append(box)
        columns = VBox(groups)
        columns.add_class("sv-settings")
        super().__init__([columns, self.says], layout={"width": "100%"})

    def show(self, settings: TrainingSettings) -> None:
        """Show settings, and which of them are others than their preset's."""
        values, usual = settings.model_dump(), TrainingSettings(preset=settings.preset).model_dump()
        for path, field in self.fields.items():
            value = _at(values, path)
            field.show(value)
            field.mark(own=value != _at(usual, path))
        self._say("")

    def _change(self, path: str, value: Any) -> None:
        first, _, second = path.partition(".")
        try:
            self._keep(self._current().changed(**{first: {second: value} if second else value}))
        except SvetlanaError as error:
            self.fields[path].mark(own=True, wrong=True)
            self._say(str(error))

    def _say(self, problem: str) -> None:
        self.says.value = f'<div class="sv-status sv-trouble" role="alert">{html.escape(problem)}</div>'
        self.says.layout.display = None if problem else "none"


def _at(values: Mapping[str, Any], path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values


_VALID = "Valid: Apply puts these settings to use."
_CHANGED = "Valid, but the settings in use have changed meanwhile: Revert shows those, Apply uses these."
_SAME = "These settings are in use."


class SettingsJsonEditor(VBox):
    """A text field with the settings, the sentence below it, and the buttons that use or drop what was written.

    Parameters
    ----------
    keep : callable
        Called with the new settings. It may refuse them with a `SettingsError`.
    revert : callable
        Called to show the settings in use again.

    Attributes
    ----------
    text : Textarea
    says : HTML
    apply, revert : Button
    """

    def __init__(self, keep: Callable[[TrainingSettings], None], revert: Callable[[], None]) -> None:
        self._keep, self._revert = keep, revert
        self._used = ""
        self._elsewhere = False  # the settings in use were changed behind the text that is not applied yet
        self.text = Textarea(rows=22, layout={"width": "auto", "margin": "0"})
        self.text.add_class("sv-code")
        self.text.tooltip = "Every setting; kept in training.json"
        self.says = HTML(layout={"margin": "4px 0 0 0", "width": "100%"})
        self.apply = Button(description="Apply", icon="check", tooltip="Use these settings", layout={"width": "100px"})
        self.revert = Button(description="Revert", icon="undo", tooltip="Drop what was written here and not applied")
        self.revert.layout = {"width": "100px"}
        super().__init__(
            [self.text, self.says, HBox([self.apply, self.revert], layout={"margin": "4px 0 0 0"})],
            layout={"width": "100%"},
        )
        self.text.observe(lambda _: self._check(), "value")
        self.apply.on_click(lambda _: self._apply())
        self.revert.on_click(lambda _: revert())

    def show(self, text: str, drop: bool = False) -> None:
        """Show what is in use, as it stands in the file; what was written and not applied gives way with ``drop``."""
        dirty = self.text.value.strip() != self._used
        before, self._used = self._used, text.strip()
        if drop or not dirty:
            self._elsewhere, self.text.value = False, self._used
        else:
            self._elsewhere = self._elsewhere or self._used != before
        self._check()

    def _check(self) -> TrainingSettings | None:
        """Say below the text whether it can be used."""
        changed = self.text.value.strip() != self._used
        self.revert.disabled = not changed
        try:
            settings = TrainingSettings.from_json(self.text.value)
        except SettingsError as error:
            self._refuse(error)
            return None
        self.apply.disabled = not changed
        said = (_CHANGED if self._elsewhere else _VALID) if changed else _SAME
        self.says.value = muted(said)
        return settings

    def _apply(self) -> None:
        settings = self._check()
        if settings is not None:
            try:
                self._keep(settings)
            except SvetlanaError as error:
                self._refuse(error)
            else:
                self._revert()

    def _refuse(self, error: SvetlanaError) -> None:
        self.apply.disabled = True
        self.says.value = f'<div class="sv-status sv-trouble" role="alert">{html.escape(str(error))}</div>'


FORM, JSON = "Controls", "JSON"


class SettingsEditor(VBox):
    """The settings of a project, to be looked at and changed.

    Parameters
    ----------
    project : Project
    status : Status
        Shows what goes wrong.

    Attributes
    ----------
    used : TrainingSettings or None
        The settings in use; None while ``training.json`` cannot be used.
    form : SettingsForm
    json : SettingsJson
    view : ToggleButtons
        Which of them is seen.
    because : HTML
        Which settings give way to what may count.
    watch : FileWatch
        Looks whether ``training.json`` was changed by somebody else.
    """

    def __init__(self, project: Project, status: StatusLine) -> None:
        self._project, self._status = project, status
        self._callbacks: list[Callable[[], object]] = []
        self.used: TrainingSettings | None = None
        self.form = SettingsForm(lambda: project.settings, self.keep)
        self.json = SettingsJsonEditor(self.keep, lambda: self.show(drop=True))
        self.view = ToggleButtons(
            options=[FORM, JSON],
            tooltips=["A control for each setting", "All settings as text, as they stand in training.json"],
            style={"button_width": "96px"},
        )
        self.view.observe(lambda _: self._choose(), "value")
        self.watch = FileWatcher(project.path / "training.json", guarded(self.show, status))
        self.because = HTML(layout={"width": "100%", "margin": "0", "display": "none"})
        super().__init__([self.view, self.because, self.form, self.json], layout={"width": "100%"})
        self._choose()
        self.show()

    def on_change(self, act: Callable[[], object]) -> None:
        """Call ``act`` when other settings are in use."""
        self._callbacks.append(act)

    def keep(self, settings: TrainingSettings) -> None:
        """Use these settings from the next training on.

        Raises
        ------
        SettingsError
            If the project cannot use them; nothing has changed then.
        """
        self._project.settings = settings
        self.show()

    def show(self, drop: bool = False) -> None:
        """Show what is in use; with ``drop``, also in place of a text that was not applied."""
        problem = ""
        try:
            settings = self._project.settings
        except SettingsError as error:
            settings, problem = None, str(error)
        self.json.show(self._text(), drop)
        changed, self.used = settings != self.used, settings
        if settings is not None:
            self.form.show(settings)
            words = explain_restrictions(settings)
            self.because.value, self.because.layout.display = muted(words), None if words else "none"
        elif problem:  # the text is where it can be mended
            self.view.value = JSON
            self._status.warn(problem)
        if changed:
            for act in self._callbacks:
                act()

    def close(self) -> None:
        self.watch.close()
        super().close()

    def _text(self) -> str:
        file = self._project.path / "training.json"
        return file.read_text("utf-8") if file.exists() else self._project.settings.to_json()

    def _choose(self) -> None:
        for part, name in ((self.form, FORM), (self.json, JSON)):
            part.layout.display = None if self.view.value == name else "none"
