"""Labels, flags and undo for the objects that are selected in any view.

`SelectionLabeling` does what `SelectionControls` offers by keys and buttons.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from svetlana_jupyter.widgets.components import ClassButtons, count_html
from svetlana_jupyter.widgets.panel import Command, CommandBar, labeling_commands
from svetlana_jupyter.widgets.viewer.open_images import predicted_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

    from svetlana_jupyter.core.annotations import LabelAction
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.components import StatusLine
    from svetlana_jupyter.widgets.panel import Line, Panel
    from svetlana_jupyter.widgets.viewer.viewer_model import SelectionId, SharedModel

_KEY_IGNORED = "Key ignored: the selection was not displayed yet."


class SelectionLabeling:
    """Actions that annotate all selected objects in one edit.

    Each action receives the selection that was on the screen when its key was pressed. If another one is selected now,
    the action does nothing and says so.

    Parameters
    ----------
    project : Project
    shared : SharedModel
    shown : callable
        Returns the identifier of the selection, or None if nothing is selected.
    status : StatusLine
        Displays results.
    source : str
        Source of the annotations, which the log records.
    nothing_selected : str
        Displayed if nothing is selected.
    reveal : callable
        Called after undo or redo has selected other objects, to display them.
    """

    def __init__(
        self,
        project: Project,
        shared: SharedModel,
        shown: Callable[[], SelectionId],
        status: StatusLine,
        source: str,
        nothing_selected: str,
        reveal: Callable[[], object],
    ) -> None:
        self._project, self._shared, self.shown, self._status = project, shared, shown, status
        self._source, self._nothing_selected, self._reveal = source, nothing_selected, reveal
        self._selected_at = time.monotonic()

    def label(self, name: str, shown: SelectionId) -> None:
        """Label all selected objects with a class."""
        if self._applies_to(shown):
            self._annotate(dict.fromkeys(self._shared.selection, name))

    def accept(self, shown: SelectionId) -> None:
        """Keep each prediction of the selected objects as an annotation."""
        if not self._applies_to(shown):
            return
        predicted = {object_id: predicted_class(self._project, *object_id)[0] for object_id in self._shared.selection}
        classes = self._project.classes
        names = {object_id: classes.by_id(class_id).name for object_id, class_id in predicted.items() if class_id}
        if names:
            self._annotate(names)
        else:
            self._status.say("No selected object is predicted yet.")

    def flag_command(self, flag: LabelAction) -> Callable[[SelectionId], None]:
        """Return the command that sets a flag on all selected objects."""

        def act(shown: SelectionId) -> None:
            if self._applies_to(shown):
                flag_each = self._project.annotations.flag_each
                flag_each(self._shared.selection, flag, source=self._source, seconds=self._seconds())
                self._status.say(self._project.status)

        return act

    def erase(self, shown: SelectionId) -> None:
        """Remove the annotations of all selected objects."""
        if self._applies_to(shown):
            self._project.annotations.erase_each(self._shared.selection, source=self._source)
            self._status.say(self._project.status)

    def undo(self, shown: SelectionId = None) -> None:
        """Undo the last edit, regardless of the selection, and select its objects."""
        self._revisit(self._project.undo(), "undo")

    def redo(self, shown: SelectionId = None) -> None:
        """Redo the edit that was undone last, and select its objects."""
        self._revisit(self._project.redo(), "redo")

    def describe_selection(self) -> str:
        """Return a sentence about the selected objects."""
        count = len(self._shared.selection) if self.shown() else 0
        return f"{count:,} object{'' if count == 1 else 's'} selected." if count else self._nothing_selected

    def restart_clock(self) -> None:
        """Measure from now on for how long the selection is displayed."""
        self._selected_at = time.monotonic()

    def _annotate(self, classes: dict[tuple[str, int], str]) -> None:
        self._project.annotations.annotate_each(classes, source=self._source, seconds=self._seconds())
        self._status.say(self._project.status)

    def _applies_to(self, shown: SelectionId) -> bool:
        """Return whether an action applies to the selection; if not, display the reason."""
        if shown is None or shown != self.shown():
            self._status.say(_KEY_IGNORED if shown else self._nothing_selected)
            return False
        return True

    def _seconds(self) -> float:
        seconds, self._selected_at = time.monotonic() - self._selected_at, time.monotonic()
        return seconds

    def _revisit(self, done: bool, verb: str) -> None:
        objects = self._project.annotations.last_edited
        if not done:
            self._status.say(f"Nothing to {verb}.")
        elif not objects:
            self._status.say(f"{verb.capitalize()}: the object is no longer in the mask.")
        else:
            self._shared.selection = tuple(objects)
            self._reveal()
            text = f"{len(objects):,} objects" if len(objects) > 1 else "object {1} in {0}".format(*objects[0])
            self._status.say(f"{verb.capitalize()}: {text}.")


class SelectionControls:
    """Class buttons, commands and keys that label the selection of all views.

    Parameters
    ----------
    panel : Panel
    labeling : SelectionLabeling
    view_keys : iterable of (str, str)
        Keys that change the view, separated by spaces, with their help text.
    move : callable, optional
        Handles a key that changes the view; returns whether it does so.

    Attributes
    ----------
    class_buttons : ClassButtons
    command_bar : CommandBar
    """

    def __init__(
        self,
        panel: Panel,
        labeling: SelectionLabeling,
        view_keys: Iterable[Line],
        move: Callable[[str], bool] = lambda key: False,
    ) -> None:
        self._project, self._labeling, self._move = panel.project, labeling, move
        self.command_bar = CommandBar(panel, labeling.shown, "Label the whole selection with this class", view_keys)
        label_selection = partial(panel.run_action, lambda name: labeling.label(name, labeling.shown()))
        self.class_buttons = ClassButtons(
            act=label_selection,
            recolor=lambda name, color: panel.run_action(panel.project.classes.recolor, name, color),
            on_found=label_selection,
        )
        self.command_bar.set_commands(
            Command(("Enter",), "Accept", "check", "Keep each prediction as an annotation", labeling.accept),
            *labeling_commands(labeling, "Erase", "Undo", "Redo", "Ambiguous", "Bad segmentation", "Skip"),
        )

    def handle_key(self, key: str, shown: SelectionId) -> None:
        """Handle a key that was pressed while ``shown`` was selected on the screen."""
        self._project.background.key_pressed()
        if info := self._project.classes.by_shortcut(key):
            self._labeling.label(info.name, shown)
        elif self._move(key):
            pass
        elif key == "/" and self.class_buttons.find_is_needed:
            self.class_buttons.find.focus()
        else:
            self.command_bar.dispatch_key(key, shown)

    def refresh(self) -> pd.Series:
        """Update counts and buttons; return the number of labels per class."""
        project = self._project
        counts = project.annotations.class_counts()
        details = {info.id: count_html(int(counts[info.name])) for info in project.classes}
        self.class_buttons.show(project.classes.scheme, details)
        self.command_bar.show_history()
        self.command_bar.buttons["Accept"].disabled = not project.current_run
        return counts
