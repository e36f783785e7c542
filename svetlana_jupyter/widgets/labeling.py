"""Base class of the panels that label objects.

It combines a viewer, a queue of objects, and keys that apply to the object on the screen.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from svetlana_jupyter.core.annotations import LabelAction, ObjectId
from svetlana_jupyter.project.known_files import checked_lately
from svetlana_jupyter.widgets.components import ClassButtons
from svetlana_jupyter.widgets.panel import (
    MAX_FILLING_SIZE,
    MAX_VIEWER_SIZE,
    VIEWER_SIZE,
    CommandBar,
    Panel,
    catch_errors,
    labeling_commands,
)
from svetlana_jupyter.widgets.viewer.toolbar import MenuItem, ObjectMenu
from svetlana_jupyter.widgets.viewer.viewer import Viewer
from svetlana_jupyter.widgets.viewer.viewer_model import shared_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from svetlana_jupyter.core.queue import QueuedObject
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.queues import Queue

NO_OBJECT_SELECTED = "No object selected. Click an object, or press n for the next one."
_FLAGGED = {"skip": "Skipped.", "ambiguous": "Flagged as ambiguous.", "bad_segmentation": "Flagged as badly segmented."}
KEY_IGNORED = "Key ignored: the next object was not displayed yet."
_PREFETCHED = 3  # objects of the queue that are read while the current one is displayed
_VIEW_KEYS = (
    ("f", "Show the whole image"),
    ("+ -", "Zoom in or out"),
    ("x l", "Draw a box or a lasso to select the objects inside"),
    ("Shift", "With a click or a drag: add to the selection"),
    ("Ctrl+A Escape", "Select all visible objects; clear the selection"),
    ("Shift+F10", "Open the menu next to the object (also: right click)"),
)


class LabelingPanel(Panel):
    """Panel in which one key labels the object on the screen.

    If several objects are selected, the key labels all of them in one edit.

    Every key event carries the selection that was on the screen when the key went down. Over a slow connection, the
    user may press a key before the next object is displayed; the key is then ignored, so that it never labels a wrong
    object. After the user has labeled the object that the queue showed, the next object is shown.

    Parameters
    ----------
    project : Project
    queue : str
        Kind of queue, as for `Project.queue`.
    source : str
        Source that the annotation log records for labels of objects that the user selected.
    queue_source : str
        Source that the annotation log records for labels of objects that the queue showed; by default the kind of the
        queue, followed by "queue". The log records apart which of them were drawn at random.
    edit : callable, optional
        Called with the name of a class that the user wants to rename or merge.

    Attributes
    ----------
    viewer : Viewer
    class_buttons : ClassButtons
    menu : ObjectMenu
        Context menu with the classes and flags.
    command_bar : CommandBar
    fills : bool
        Whether the viewer fills its box, and the panel places its controls.
    """

    fills: ClassVar[bool] = False

    def __init__(
        self,
        project: Project | str | Path,
        queue: str,
        source: str,
        queue_source: str = "",
        edit: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(project)
        project = self.project
        self.command_bar = CommandBar(self, lambda: self.shown, "Label the object with this class", _VIEW_KEYS)
        max_size = MAX_FILLING_SIZE if self.fills else MAX_VIEWER_SIZE
        self.viewer = Viewer(project, VIEWER_SIZE, max_size=max_size, fills=self.fills)
        self.shared = shared_model(project)
        self.class_buttons = ClassButtons(
            act=lambda name: self.run_action(self.label, name, self.shown),
            recolor=lambda name, color: self.run_action(project.classes.recolor, name, color),
            edit=edit,
            on_found=lambda name: self.run_action(self._label_found, name),
        )
        self._kind, self._source, self._queue_source = queue, source, queue_source
        self._queue: Queue | None = None
        self._candidate: QueuedObject | None = None  # shown by the queue; None once another object is selected
        self._searched: ObjectId | None = None  # the object on the screen when the search for a class began
        self._selected_at = time.monotonic()
        self._selection_size = 0
        self._ignored = 0  # keys since the last report
        self.menu = ObjectMenu()
        self.viewer.image_area.children = (*self.viewer.image_area.children, self.menu)
        self.viewer.screen.handle_key = catch_errors(self.handle_key, self.status)
        self.viewer.screen.report = self.report_key
        self.viewer.selector.on_select = catch_errors(self._object_selected, self.status)
        self._watcher.observe(self.viewer.model, self.show, "image", "selected")
        self._watcher.observe(self.shared, self._selection_changed, "selection")
        self._watcher.observe(self.viewer.model, self._show_menu, "menu")

    @property
    def shown(self) -> ObjectId | None:
        """Selection to which keys and buttons apply; None if nothing is selected.

        For several objects, it is the identifier that `SharedModel.selection_id` returns.
        """
        selection_id = self.shared.selection_id
        return ObjectId(*selection_id) if selection_id else None

    @property
    def single_object(self) -> ObjectId | None:
        """The selected object; None if none or several are selected."""
        return self.shared.selection[0] if len(self.shared.selection) == 1 else None

    @property
    def queue(self) -> Queue:
        """The queue of objects, created at its first use as it may index every image."""
        if self._queue is None:
            self._queue = self.project.queue(self._kind, images=self.viewer.indexing.objects(self.project.images))
        return self._queue

    def reset_queue(self) -> None:
        """Restart the queue, for other objects or another order."""
        self._queue = self._candidate = None

    def renew_queue(self) -> None:
        """Order the queue anew, without losing the object on the screen."""
        self._queue = None

    def focus(self) -> None:
        """Give the viewer the keyboard focus."""
        self.viewer.screen.focus()

    def show(self) -> None:
        """Update the controls next to the viewer."""

    def close(self) -> None:
        """Stop observing the project and the viewer, and remove the panel."""
        self.viewer.close()
        super().close()

    def handle_key(self, key: str, shown: tuple[str, int] | None) -> None:
        """Handle a key that was pressed while ``shown`` was selected on the screen."""
        self.project.background.key_pressed()
        object_id = ObjectId(*shown) if shown else None
        if info := self.project.classes.by_shortcut(key):
            self.label(info.name, object_id)
        elif key == "/" and self.class_buttons.find_is_needed:
            self._searched = object_id
            self.class_buttons.find.focus()
        else:
            self.command_bar.dispatch_key(key, object_id)

    def label(self, name: str, object_id: ObjectId | None) -> None:
        """Label an object, or all selected objects, with a class."""

        def write(objects: Iterable[ObjectId], **details: Any) -> None:
            self.project.annotations.annotate_each(dict.fromkeys(objects, name), **details)

        self._edit(object_id, f"Labeled {name}.", write)

    def flag_command(self, flag: LabelAction) -> Callable[[ObjectId | None], None]:
        """Return the command that flags an object, or all selected objects."""
        flag_each = partial(self.project.annotations.flag_each, flag=flag)
        return lambda object_id: self._edit(object_id, _FLAGGED[flag], flag_each)

    def erase(self, object_id: ObjectId | None) -> None:
        """Remove the annotation of an object, or of all selected objects."""
        self._edit(object_id, "", self.project.annotations.erase_each)

    def undo(self, object_id: ObjectId | None = None) -> None:
        """Undo the last edit, regardless of the selection."""
        self._run_when_indexed((), lambda: self._revisit(self.project.undo(), "undo"))

    def redo(self, object_id: ObjectId | None = None) -> None:
        """Redo the edit that was undone last."""
        self._run_when_indexed((), lambda: self._revisit(self.project.redo(), "redo"))

    def next(self, object_id: ObjectId | None = None) -> None:
        """Show the next object of the queue."""
        self.viewer.indexing.run_when_indexed(
            self.project.images if self._queue is None else (),  # a new queue needs the objects of every image
            self._show_next,
            "The next object is shown afterwards.",
            needs_all=False,
        )

    def previous(self, object_id: ObjectId | None = None) -> None:
        """Go back to the previous object of the queue."""
        if (candidate := self._queue.previous() if self._queue else None) is None:
            self.status.say("This is the first object of the queue.")
            return
        self._show_candidate(candidate)
        self._report_candidate(candidate)

    def _run_when_indexed(self, images: Iterable[str], act: Callable[[], object]) -> None:
        self.viewer.indexing.run_when_indexed(images, act, "Your annotation is saved afterwards.")

    def _label_found(self, name: str) -> None:
        """Label the object that was on the screen when the search for a class began."""
        object_id, self._searched = self._searched or self.shown, None
        self.label(name, object_id)

    def _edit(self, object_id: ObjectId | None, done: str, write: Callable[..., object]) -> None:
        """Annotate the selection once it is indexed; without ``done``, erase its label.

        After an annotation of the object that the queue showed, the next object is shown. If the user presses a
        key before that, the key event carries the previous object, which is labeled already. The user may have meant
        either object, so the key is ignored.
        """
        if object_id is None or object_id != self.shown:
            self._ignored += object_id is not None
            self.status.say(KEY_IGNORED if object_id else NO_OBJECT_SELECTED)
            return
        objects = self.shared.selection
        of_queue = self._queue_source or f"{self._kind} queue"
        source = of_queue if self._is_candidate(object_id) else self._source
        write = partial(write, objects, source=source)
        if done:
            write = partial(write, seconds=time.monotonic() - self._selected_at)

        def act() -> None:
            if done and self._is_candidate(object_id):
                self._write_and_advance(write, done)
            else:
                write()
                self.status.say(self.project.status)

        self._run_when_indexed(dict.fromkeys(each.image for each in objects), act)

    def _write_and_advance(self, write: Callable[[], object], done: str) -> None:
        """Show the next object of the queue, write the annotation, then report it."""
        candidate = None
        try:
            with checked_lately():
                candidate = self.queue.next()
                if candidate is not None and self._is_candidate(candidate.id):  # a renewed queue begins with it again
                    candidate = self.queue.next()
                if candidate is not None:
                    self._show_candidate(candidate)
                    self.viewer.screen.draw_now()  # before writing, because syncing the file takes longer
        finally:  # even if the next object cannot be shown
            self._write(write, candidate)
        self._report_candidate(candidate, done)

    def _write(self, write: Callable[[], object], following: QueuedObject | None) -> None:
        """Write an annotation; if that fails, go back from the object that follows."""
        try:
            write()
        except Exception:
            if following is not None and following == self._candidate and (before := self.queue.previous()):
                self._show_candidate(before)
            raise

    def _selection_changed(self) -> None:
        before, self._selection_size = self._selection_size, len(self.shared.selection)
        if self._selection_size > 1:
            self._candidate = None
            self._selected_at = time.monotonic()
            self.status.say(f"{self._describe_selection()} selected. A key or a class button labels all of them.")
        elif before > 1:
            self.status.say(NO_OBJECT_SELECTED)

    def _describe_selection(self) -> str:
        selection = self.shared.selection
        images = {each.image for each in selection}
        objects = f"Object {selection[0].label}" if len(selection) == 1 else f"{len(selection):,} objects"
        return f"{objects} in {selection[0].image if len(images) == 1 else f'{len(images):,} images'}"

    def _show_menu(self) -> None:
        at, shown = self.viewer.model.menu, self.shown
        if at is None or shown is None:
            if self.menu.is_open:
                self.menu.hide()
                self.focus()
            return

        def item(text: str, key: str, act: Callable[[ObjectId], None], color: str = "") -> MenuItem:
            def chosen() -> None:
                self.viewer.selector.close_menu()
                self.run_action(act, shown)

            return MenuItem(text, key, chosen, color)

        classes = [item(c.name, c.key, partial(self.label, c.name), c.color) for c in self.project.classes]
        keys = {command.text: command.keys[0] for command in self.command_bar.commands}
        commands = labeling_commands(self, "Ambiguous", "Bad segmentation", "Erase")
        others = [item(command.text, keys.get(command.text, ""), command.act) for command in commands]
        self.menu.show_at(at, self.viewer.model.view.size, self._describe_selection(), [*classes, *others])

    def _object_selected(self, image: str, label: int) -> None:
        self._candidate = None
        self._selected_at = time.monotonic()
        self.status.say(self.describe_selection())

    def describe_selection(self) -> str:
        """Return a sentence about the selected objects."""
        return f"{self._describe_selection()}." if self.shown else NO_OBJECT_SELECTED

    def _show_next(self) -> None:
        if (candidate := self.queue.next()) is not None:
            self._show_candidate(candidate)
        self._report_candidate(candidate)

    def _show_candidate(self, candidate: QueuedObject) -> None:
        self._candidate = candidate
        self.viewer.show(candidate.image, candidate.label)
        self.viewer.prefetch([coming.id for coming in self.queue.coming(_PREFETCHED)])
        self._selected_at = time.monotonic()

    def _report_candidate(self, candidate: QueuedObject | None, done: str = "") -> None:
        """Say which object of the queue is shown, after a sentence on the last edit."""
        if candidate is None:
            self.status.say(f"{done} {self.queue.end}".strip())
            return
        now = f"bject {candidate.label} in {candidate.image}, {candidate.reason}."
        ignored, self._ignored = self._ignored, 0
        # Said again, because the report of a key typed just afterwards replaces the message.
        late = f" {ignored} earlier key{'' if ignored == 1 else 's'} ignored." if ignored else ""
        self.status.say_soon(f"{done} Now o{now}{late}" if done else f"O{now}{late}")

    def _revisit(self, done: bool, verb: str) -> None:
        """Show the objects of an edit that was undone or redone.

        If the edit concerned the previous object of the queue, the queue goes back to that object.
        """
        objects = self.project.annotations.last_edited
        edit = verb.capitalize()
        if not done:
            self.status.say(f"Nothing to {verb}.")
        elif not objects:
            self.status.say(f"{edit}: the object is no longer in the mask.")
        elif len(objects) > 1:
            self.shared.selection = tuple(objects)
            image = self.viewer.model.image = objects[-1].image
            count = len({name for name, _ in objects})
            self.status.say(f"{edit}: {len(objects):,} objects in {image if count == 1 else f'{count} images'}.")
        else:
            self._revisit_one(objects[0])
            self.status.say(f"{edit}: object {objects[0].label} in {objects[0].image}.")

    def _revisit_one(self, object_id: ObjectId) -> None:
        if object_id == self.shown:
            return
        candidate = self.queue.previous() if self._candidate else None
        if candidate and candidate.id != object_id:
            self.queue.next()  # the edit concerned another object: the queue stays where it is
            candidate = None
        self._candidate = candidate
        self.viewer.show(*object_id)

    def _is_candidate(self, object_id: ObjectId) -> bool:
        return self._candidate is not None and self._candidate.id == object_id
