"""One setting as a control: made from its type, it shows a value and says what a person chose instead."""

from __future__ import annotations

import html
import json
import re
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from ipywidgets import HTML, Box, Checkbox, Combobox, Dropdown, FloatText, HBox, IntText, Text, Textarea

from svetlana_jupyter.widgets.setting_words import SettingInfo, choice

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
        """Show whether the value is another than the recipe's, and whether it is refused."""
        look = "sv-own" if own else ""
        said = html.escape(self.leaf.text, quote=True)
        self.label.value = f'<span class="sv-name {look}" title="{said}">{html.escape(self.leaf.name)}</span>'
        (self.add_class if wrong else self.remove_class)("sv-wrong")


def _control(annotation: Any, known: Sequence[str]) -> tuple[Any, Callable[[], Any], Callable[[Any], None]]:
    """Return a control for values of a type, with functions that read it and that write to it."""
    if annotation is bool:
        return _plain(Checkbox(indent=False, layout=_CONTROL))
    if annotation is int:
        return _plain(IntText(layout=_CONTROL))
    if annotation is float:
        return _plain(FloatText(layout=_CONTROL))
    if annotation is str:
        # No `continuous_update`: half a word is no value.
        return _plain(Combobox(options=list(known), ensure_option=False, continuous_update=False, layout=_CONTROL))
    words = _words(annotation)
    if words:
        return _plain(Dropdown(options=[(choice(word), word) for word in words], layout=_CONTROL))
    several = _words(next(iter(typing.get_args(annotation)), None))
    if several and typing.get_origin(annotation) in (tuple, frozenset, set):
        return _several(several)
    return _text(annotation)


def _plain(control: Any) -> tuple[Any, Callable[[], Any], Callable[[Any], None]]:
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
