"""Every setting of a training as a control, made from the model itself, so that none is forgotten."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ipywidgets import HTML, VBox

from svetlana_jupyter.core.recipes import RECIPE_NAMES
from svetlana_jupyter.core.settings import ARCHITECTURES, TrainingSettings
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.parts import heading
from svetlana_jupyter.widgets.setting_fields import SettingField
from svetlana_jupyter.widgets.setting_words import grouped, leaves

KNOWN: dict[str, Iterable[str]] = {"architecture": ARCHITECTURES, "recipe": RECIPE_NAMES}
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
        """Show settings, and which of them are others than their recipe's."""
        values, usual = settings.model_dump(), TrainingSettings(recipe=settings.recipe).model_dump()
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
