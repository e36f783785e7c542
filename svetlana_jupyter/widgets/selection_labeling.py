"""Labels, flags and undo for the objects that are selected in any view."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from svetlana_jupyter.widgets.viewer.open_images import predicted_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from svetlana_jupyter.core.annotations import LabelAction
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.components import StatusLine
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
        self._project, self._shared, self._shown, self._status = project, shared, shown, status
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
        count = len(self._shared.selection) if self._shown() else 0
        return f"{count:,} object{'' if count == 1 else 's'} selected." if count else self._nothing_selected

    def restart_clock(self) -> None:
        """Measure from now on for how long the selection is displayed."""
        self._selected_at = time.monotonic()

    def _annotate(self, classes: dict[tuple[str, int], str]) -> None:
        self._project.annotations.annotate_each(classes, source=self._source, seconds=self._seconds())
        self._status.say(self._project.status)

    def _applies_to(self, shown: SelectionId) -> bool:
        """Return whether an action applies to the selection; if not, display the reason."""
        if shown is None or shown != self._shown():
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
