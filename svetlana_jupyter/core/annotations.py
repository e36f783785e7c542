"""What people said of objects: an append-only log, and the state it leads to.

A *edit* is one key press, click or lasso, however many objects it names. Undo and redo are entries of their own
that name a edit: history is never rewritten, so the state is always the replay of the log.

Every row speaks of an object by its number in the mask that was on screen. What was said of a mask that was replaced
stays as it was said; `core.current_labels` carries it over to the objects of today.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import pandas as pd

LabelAction = Literal["label", "ambiguous", "bad_segmentation", "skip"]
Action = Literal["label", "erase", "skip", "ambiguous", "bad_segmentation", "undo", "redo"]
IMPORT_SOURCE_PREFIX = "import: "  # how the source of annotations that came from elsewhere begins
ACTIONS: tuple[Action, ...] = get_args(Action)


class ObjectId(NamedTuple):
    """An object, as it is known everywhere: the image's name and the object's integer in the mask."""

    image: str
    label: int


class VersionedObjectId(NamedTuple):
    """What a row speaks of: an object by its number in one of the masks that the image has had, counted from 0."""

    image: str
    label: int
    mask: int = 0


class Label(NamedTuple):
    """What stands for an object: a class (``action`` "label"), or why it has none.

    ``action`` "" is nothing at all; "erase" is kept for objects of a later mask, so that nothing is carried over.
    """

    action: LabelAction | Literal["erase", ""] = ""
    class_id: int = 0


UNLABELED = Label()
ERASED_LABEL = Label("erase")


@dataclass(frozen=True)
class AnnotationEvent:
    """One row of the log.

    Parameters
    ----------
    time : str
        UTC, ISO 8601 with milliseconds.
    action : str
        One of `ACTIONS`.
    edit : int
        The edit this row belongs to; for undo and redo, the edit that is undone or done again.
    image, object : str, int
        Empty and 0 for undo and redo.
    class_id : int
        The class given, 0 for every action but "label".
    center : tuple of float
        Centroid ``([z,] y, x)`` in pixels, kept so that annotations survive a new segmentation.
    box : tuple of int
        Bounding box, half open: all lower bounds, then all upper bounds.
    source : str
        Where it came from: "script", "panel", "queue", "correction", ...
    seconds : float or None
        How long the object had been on screen.
    mask : int
        Which of the image's masks the object's number is of: 0 is the first, 1 the one that replaced it.
    """

    time: str
    action: Action
    edit: int
    image: str = ""
    label: int = 0
    class_id: int = 0
    center: tuple[float, ...] = ()
    box: tuple[int, ...] = ()
    source: str = "script"
    seconds: float | None = None
    mask: int = 0

    @property
    def subject(self) -> VersionedObjectId:
        return VersionedObjectId(self.image, self.label, self.mask)


class AnnotationLog:
    """The entries of one annotator and the state they lead to.

    >>> log = AnnotationLog()
    >>> log.append([AnnotationEvent("2026-01-01T09:00:00.000Z", "label", 1, "well", 17, class_id=2)])
    >>> log.label_of(VersionedObjectId("well", 17)).class_id
    2
    >>> log.append([AnnotationEvent("2026-01-01T09:00:01.000Z", "undo", log.edit_to_undo)])
    >>> log.label_of(VersionedObjectId("well", 17)).action
    ''

    Attributes
    ----------
    entries : list of Entry
    touched : list of Subject
        What changed, one change after the other: who keeps up with the log reads on from where it was.
    masks : dict of str to int
        The latest mask of each image that something was said of.
    next_edit : int
        A number that no edit has yet.
    """

    def __init__(self, entries: Iterable[AnnotationEvent] = ()) -> None:
        self.entries: list[AnnotationEvent] = []
        self.touched: list[VersionedObjectId] = []
        self.masks: dict[str, int] = {}
        self.next_edit = 1
        self._labels: dict[VersionedObjectId, Label] = {}
        self._gestures: dict[int, list[AnnotationEvent]] = {}
        self._before: dict[int, dict[VersionedObjectId, Label]] = {}
        self._done: list[int] = []
        self._undone: list[int] = []
        self.append(entries)

    @property
    def labels(self) -> Mapping[VersionedObjectId, Label]:
        """Everything that something was said of, in the order in which it was last said."""
        return self._labels

    @property
    def edit_to_undo(self) -> int:
        """The edit that undo would take back, 0 if there is none."""
        return self._done[-1] if self._done else 0

    @property
    def edit_to_redo(self) -> int:
        """The edit that redo would bring back, 0 if there is none."""
        return self._undone[-1] if self._undone else 0

    def label_of(self, subject: VersionedObjectId) -> Label:
        return self._labels.get(subject, UNLABELED)

    def append(self, entries: Iterable[AnnotationEvent]) -> None:
        """Add rows and follow them. Rows of one edit may arrive in one call or in several."""
        for entry in entries:
            self.entries.append(entry)
            if entry.action == "undo":
                self._undo(entry.edit)
            elif entry.action == "redo":
                self._redo(entry.edit)
            else:
                self._do(entry)

    def _do(self, entry: AnnotationEvent) -> None:
        if entry.edit not in self._gestures:
            self._gestures[entry.edit] = []
            self._before[entry.edit] = {}
            self._done.append(entry.edit)
            self._undone.clear()
            self.next_edit = max(self.next_edit, entry.edit + 1)
        self.masks[entry.image] = max(entry.mask, self.masks.get(entry.image, 0))
        self._gestures[entry.edit].append(entry)
        self._before[entry.edit].setdefault(entry.subject, self.label_of(entry.subject))
        self._follow(entry)

    def _undo(self, edit: int) -> None:
        if edit == self.edit_to_undo:
            self._undone.append(self._done.pop())
            for subject, label in self._before[edit].items():
                self._set(subject, label)

    def _redo(self, edit: int) -> None:
        if edit == self.edit_to_redo:
            self._done.append(self._undone.pop())
            for entry in self._gestures[edit]:
                self._follow(entry)

    def _follow(self, entry: AnnotationEvent) -> None:
        subject = entry.subject
        if entry.action == "erase":
            self._set(subject, ERASED_LABEL if subject.mask else UNLABELED)
        elif entry.action == "label":
            self._set(subject, Label("label", entry.class_id))
        elif entry.action == "skip":
            if self.label_of(subject) == UNLABELED:  # passing over an object takes nothing from it
                self._set(subject, Label("skip"))
        elif entry.action in ("ambiguous", "bad_segmentation"):
            self._set(subject, Label(entry.action))

    def _set(self, subject: VersionedObjectId, label: Label) -> None:
        self._labels.pop(subject, None)
        if label != UNLABELED:
            self._labels[subject] = label
        self.touched.append(subject)


def events_table(logs: Mapping[str, AnnotationLog]) -> pd.DataFrame:
    """Return every row of every annotator's log as a table, with the annotator in the column ``who``.

    Returns
    -------
    DataFrame
        One row an entry, in the order of time (UTC), with the fields of `AnnotationEvent`; the centre as ``z``,
        ``y``, ``x``
        (pixels, NaN where unknown) and the box as text.
    """
    rows = [
        {
            "time": entry.time,
            "who": who,
            "action": entry.action,
            "edit": entry.edit,
            "image": entry.image,
            "object": entry.label,
            "class_id": entry.class_id,
            **dict(zip("xyz", reversed(entry.center))),
            "box": " ".join(map(str, entry.box)),
            "source": entry.source,
            "seconds": entry.seconds,
            "mask": entry.mask,
        }
        for who, log in logs.items()
        for entry in log.entries
    ]
    columns = [
        "time",
        "who",
        "action",
        "edit",
        "image",
        "object",
        "class_id",
        "z",
        "y",
        "x",
        "box",
        "source",
        "seconds",
        "mask",
    ]
    table = pd.DataFrame(rows, columns=columns).astype({"z": float, "y": float, "x": float, "seconds": float})
    table["time"] = pd.to_datetime(table["time"], utc=True, format="ISO8601")
    return table.sort_values("time", kind="stable", ignore_index=True)
