"""What a form says of settings: their groups, their names in words, and what their documentation says of each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from svetlana_jupyter.core.validated import NESTED_SETTINGS, Settings

# Which settings stand together; those that are not named stand under "More", so that none is forgotten.
GROUPS: dict[str, tuple[str, ...]] = {
    "Recipe": ("recipe",),
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
