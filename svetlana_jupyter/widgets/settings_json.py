"""All settings as JSON, to be edited in place: checked while one types, used when one says so."""

from __future__ import annotations

import html
from collections.abc import Callable

from ipywidgets import HTML, Button, HBox, Textarea, VBox

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import SettingsError, SvetlanaError
from svetlana_jupyter.widgets.parts import muted

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
