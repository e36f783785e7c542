"""All settings of a project, as controls or as JSON; both show the same, and follow the file edited by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ipywidgets import HTML, ToggleButtons, VBox

from svetlana_jupyter.core.may_use import said
from svetlana_jupyter.errors import SettingsError
from svetlana_jupyter.widgets.file_watch import FileWatcher
from svetlana_jupyter.widgets.panel import guarded
from svetlana_jupyter.widgets.parts import muted
from svetlana_jupyter.widgets.settings_form import SettingsForm
from svetlana_jupyter.widgets.settings_json import SettingsJsonEditor

if TYPE_CHECKING:
    from svetlana_jupyter.core.settings import TrainingSettings
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.parts import StatusLine

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
            words = said(settings)
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
