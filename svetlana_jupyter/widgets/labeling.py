"""What annotating and reviewing share: a viewer, a queue, and keys that say something of the object shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

from ipywidgets import HBox, VBox, Widget

from svetlana_jupyter.core.annotations import LabelAction, ObjectId
from svetlana_jupyter.widgets.components import ClassButtons, no_images_hint
from svetlana_jupyter.widgets.panel import SIDE_WIDTH, VIEWER_SIZE, CommandPanel, catch_errors
from svetlana_jupyter.widgets.viewer.toolbar import Item, ObjectMenu
from svetlana_jupyter.widgets.viewer.viewer import Viewer

if TYPE_CHECKING:
    from svetlana_jupyter.core.queue import QueuedObject
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.queues import Queue

NO_OBJECT_SELECTED = "No object is chosen: click one, or press n for the next."
KEY_IGNORED = "That key came before the next object was on the screen, so it labelled nothing."
_WRITTEN = "What you said is written then."
_AHEAD = 3  # objects of the queue that are read while the one before is looked at


class LabelingPanel(CommandPanel):
    """A panel in which one key says what the object on screen is, or what all selected objects are, in one edit.

    Every key event carries the object that was on screen when the key went down, so that typing ahead of a slow
    connection never labels another one: such a key is refused. A label given to the object that the queue brought goes
    on to the next.

    Parameters
    ----------
    project : Project
    queue : str
        Kind of queue, as `Project.queue` takes it.
    source : str
        How the annotation log names labels given here to objects that were clicked.
    queue_source : str
        And to objects that the queue brought.
    edit : callable, optional
        Called with the name of a class that a person wants to rename or merge.

    Attributes
    ----------
    viewer : Viewer
    rows : ClassRows
        The class buttons.
    menu : ObjectMenu
        The same and the marks, beside the object.
    status : Status
    """

    view_keys = (
        *CommandPanel.view_keys,
        ("x l", "Draw a box, a lasso: it selects what is inside"),
        ("Shift", "With a click or a drag: add to the selection"),
        ("Ctrl+A Escape", "Select all that is seen, nothing"),
        ("Shift+F10", "A menu beside the object, as by a right click"),
    )

    def __init__(
        self,
        project: Project,
        queue: str,
        source: str,
        queue_source: str,
        edit: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(project)
        self.viewer = Viewer(project, VIEWER_SIZE)
        self.rows = ClassButtons(
            act=lambda name: self.run_action(self.label, name, self.shown),
            recolor=lambda name, color: self.run_action(project.classes.recolor, name, color),
            edit=edit,
            on_found=lambda name: self.run_action(self._label_found, name),
        )
        self._kind, self._source, self._queue_source = queue, source, queue_source
        self._queue: Queue | None = None
        self._candidate: QueuedObject | None = None
        self._finding: ObjectId | None = None
        self._since = time.monotonic()
        self.viewer.on_key(catch_errors(self.press, self.status))
        self.viewer.on_select(catch_errors(self._picked, self.status))
        self.viewer.observe(catch_errors(lambda _: self.show(), self.status), ["image", "selected"])
        self.viewer.observe(catch_errors(self._selection_changed, self.status), "selection")
        self.menu = ObjectMenu(VIEWER_SIZE)
        self.viewer.stage.children = (*self.viewer.stage.children, self.menu)
        self.viewer.observe(catch_errors(lambda _: self._show_menu(), self.status), "menu")

    @property
    def shown(self) -> ObjectId | None:
        """What keys and buttons mean: the object selected, or several, as `Viewer.picked` numbers them."""
        return ObjectId(*self.viewer.picked) if self.viewer.picked else None

    @property
    def one(self) -> ObjectId | None:
        """The object selected in the viewer; None where none or several are."""
        return ObjectId(self.viewer.image, self.viewer.selected) if self.viewer.selected else None

    @property
    def queue(self) -> Queue:
        """The objects to come; made when it is first asked for, as it may have to look at every image."""
        if self._queue is None:
            self._queue = self.project.queue(self._kind, images=self.viewer.indexing.objects(self.project.images))
        return self._queue

    def reset_queue(self) -> None:
        """Start the queue again: there are other objects, or other predictions."""
        self._queue = self._candidate = None

    def choose_queue(self, kind: str) -> None:
        """Take the objects to come from another kind of queue, as `Project.queue` takes it."""
        self._kind = kind
        self.reset_queue()

    def focus(self) -> None:
        self.viewer.focus()

    def show(self) -> None:
        """Bring what is beside the viewer up to the project and the object shown."""

    def close(self) -> None:
        self.viewer.close()
        super().close()

    def arrange(self, *side: Widget) -> tuple[Widget, Widget]:
        """Return the sentence that is shown while there are no images, and the viewer with these parts beside it."""
        column = VBox(side, layout={"width": SIDE_WIDTH, "flex": "0 0 auto", "padding": "0 0 0 12px"})
        column.layout.grid_gap = "4px"
        empty = no_images_hint()
        body = HBox([self.viewer, column], layout={"width": "100%", "flex_flow": "row wrap"})

        def choose() -> None:
            empty.layout.display = "none" if self.project.images else "block"
            body.layout.display = "flex" if self.project.images else "none"

        self.observe_project(choose, "images_version")
        choose()
        return empty, body

    def press(self, key: str, shown: tuple[str, int] | None) -> None:
        """Follow a key that went down while ``shown`` was on screen."""
        label = ObjectId(*shown) if shown else None
        info = self.project.classes.by_shortcut(key)
        if info:
            self.label(info.name, label)
        if key == "/":
            self._finding = label
            self.rows.find.focus()
        self.dispatch_key(key, label)

    def label(self, name: str, object_id: ObjectId | None) -> None:
        """Give an object, or each that is selected, a class."""
        if self._means(object_id):
            self._record(object_id, partial(self.project.annotate, object_id.image, self._meant(), name))

    def _label_found(self, name: str) -> None:
        """Give the object that was on screen when a person began to look for a class that class."""
        label, self._finding = self._finding or self.shown, None
        self.label(name, label)

    def mark_command(self, mark: LabelAction) -> Callable[[ObjectId | None], None]:
        """Return the command that marks an object, or each selected, as skipped, ambiguous or badly segmented."""

        def act(object_id: ObjectId | None) -> None:
            if self._means(object_id):
                self._record(object_id, partial(self.project.flag, object_id.image, self._meant(), mark))

        return act

    def erase(self, object_id: ObjectId | None) -> None:
        """Remove what was said of an object, or of each that is selected."""
        if not self._means(object_id):
            return
        erase = partial(self.project.erase, object_id.image, self._meant(), source=self._source_for(object_id))

        def act() -> None:
            erase()
            self.status.say(self.project.status)

        self.viewer.indexing.after([object_id.image], act, _WRITTEN)

    def undo(self, object_id: ObjectId | None = None) -> None:
        """Take back the last annotation, whatever is shown."""
        self.viewer.indexing.after((), lambda: self._revisit(self.project.undo(), "undo"), _WRITTEN)

    def redo(self, object_id: ObjectId | None = None) -> None:
        """Annotate again what was taken back last."""
        self.viewer.indexing.after((), lambda: self._revisit(self.project.redo(), "redo"), _WRITTEN)

    def next(self, object_id: ObjectId | None = None) -> None:
        """Take the next object of the queue."""
        # A queue that is made now looks at every image.
        images = self.project.images if self._queue is None else ()
        self.viewer.indexing.after(
            images,
            lambda: self._bring(self.queue.next(), "No object is left in the queue."),
            "The next object comes then.",
            all=False,
        )

    def previous(self, object_id: ObjectId | None = None) -> None:
        """Go back to the object before."""
        self._bring(self._queue.previous() if self._queue else None, "This is the first object of the queue.")

    def _record(self, object_id: ObjectId, write: Callable[..., None]) -> None:
        """Write what a key said of an object, once its place is known; then go on."""
        write = partial(write, source=self._source_for(object_id), seconds=self._seconds(object_id))

        def act() -> None:
            write()
            self._go_on(object_id)

        self.viewer.indexing.after([object_id.image], act, _WRITTEN)

    def _means(self, object_id: ObjectId | None) -> TypeGuard[ObjectId]:
        """Whether a key or button is meant for the object; else the status says why not.

        A key typed ahead carries the object before, which has its label already: it may mean neither.
        """
        if object_id is None or object_id != self.shown:
            self.status.say(KEY_IGNORED if object_id else NO_OBJECT_SELECTED)
            return False
        return True

    def _meant(self) -> int | list[int]:
        return self.viewer.selected or list(self.viewer.selection)

    def _selection_changed(self, change: dict[str, Any]) -> None:
        if len(self.viewer.selection) > 1:
            self._candidate = None
            self._since = time.monotonic()
            self.status.say(f"{self._selection_text()} are selected: a key or a class button labels all of them.")
        elif len(change["old"]) > 1:
            self.status.say(NO_OBJECT_SELECTED)

    def _selection_text(self) -> str:
        one, several = self.viewer.selected, f"{len(self.viewer.selection):,} objects"
        return f"{f'Object {one}' if one else several} in {self.viewer.image}"

    def _show_menu(self) -> None:
        at, label = self.viewer.menu, self.shown
        if at is None or label is None:
            if self.menu.is_open:
                self.menu.hide()
                self.focus()
            return

        def item(text: str, key: str, act: Callable[[ObjectId], None], color: str = "") -> Item:
            def chosen() -> None:
                self.viewer.close_menu()
                self.run_action(act, label)

            return Item(text, key, chosen, color)

        keys = {command.text: command.keys[0] for command in self.commands}
        classes = [item(c.name, c.key, partial(self.label, c.name), c.color) for c in self.project.classes]
        marks = [
            item("Ambiguous", keys.get("Ambiguous", ""), self.mark_command("ambiguous")),
            item("Bad segmentation", keys.get("Bad segmentation", ""), self.mark_command("bad_segmentation")),
            item("Erase", keys.get("Erase", ""), self.erase),
        ]
        self.menu.show_at(at, self._selection_text(), [*classes, *marks])

    def _picked(self, image: str, label: int) -> None:
        self._candidate = None
        self._since = time.monotonic()
        self.status.say(f"Object {label} in {image}." if label else NO_OBJECT_SELECTED)

    def _bring(self, candidate: QueuedObject | None, otherwise: str) -> None:
        if candidate is None:
            self.status.say(otherwise)
            return
        self._candidate = candidate
        self.viewer.show(candidate.image, candidate.label)
        self.viewer.prefetch([coming.id for coming in self.queue.peek(_AHEAD)])
        self._since = time.monotonic()
        self.status.say(f"Object {candidate.label} in {candidate.image}, {candidate.reason}.")

    def _go_on(self, object_id: ObjectId) -> None:
        """Take the next object if the queue brought this one; the status keeps saying what was done to this one."""
        if self._is_candidate(object_id):
            self.next()
        self.status.say(self.project.status)

    def _revisit(self, done: bool, said: str) -> None:
        """Show what an undo or a redo was about: an object in its place in the queue if it is the one before."""
        if not done:
            self.status.say(f"Nothing is left to {said}.")
            return
        about = self.project.annotations.last_edited
        if not about:
            self.status.say(f"{said.capitalize()}: an object that the mask has no longer.")
            return
        object_id = about[-1]
        if len(about) > 1:
            self.viewer.image = object_id.image
            self.viewer.selection = tuple(number for image, number in about if image == object_id.image)
            images = {image for image, _ in about}
            where = object_id.image if len(images) == 1 else f"{len(images)} images"
            self.status.say(f"{said.capitalize()}: {len(about):,} objects in {where}.")
            return
        if object_id != self.shown:
            before = self.queue.previous() if self._candidate else None
            if before and before.id != object_id:
                self.queue.next()  # this was about another object: the queue stays where it is
                before = None
            self._candidate = before
            self.viewer.show(*object_id)
        self.status.say(f"{said.capitalize()}: object {object_id.label} in {object_id.image}.")

    def _is_candidate(self, object_id: ObjectId) -> bool:
        return self._candidate is not None and self._candidate.id == object_id

    def _source_for(self, object_id: ObjectId) -> str:
        return self._queue_source if self._is_candidate(object_id) else self._source

    def _seconds(self, object_id: ObjectId) -> float | None:
        return time.monotonic() - self._since if object_id == self.shown else None
