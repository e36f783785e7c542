"""What people said of objects: an append-only log, and the state it leads to.

A *gesture* is one key press, click or lasso, however many objects it names. Undo and redo are entries of their own
that name a gesture: history is never rewritten, so the state is always the replay of the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import pandas as pd

Mark = Literal["label", "ambiguous", "bad", "skip"]
Action = Literal["label", "erase", "skip", "ambiguous", "bad", "undo", "redo"]
ACTIONS: tuple[Action, ...] = get_args(Action)


class ObjectId(NamedTuple):
    """An object, as it is known everywhere: the image's name and the object's integer in the mask."""

    image: str
    object: int


@dataclass(frozen=True)
class Label:
    """What stands for an object: a class (``action`` "label"), or why it has none; ``action`` "" is nothing at all."""

    action: Mark | Literal[""] = ""
    class_id: int = 0


UNLABELED = Label()


@dataclass(frozen=True)
class Entry:
    """One row of the log.

    Parameters
    ----------
    time : str
        UTC, ISO 8601 with milliseconds.
    action : str
        One of `ACTIONS`.
    gesture : int
        The gesture this row belongs to; for undo and redo, the gesture that is undone or done again.
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
    """

    time: str
    action: Action
    gesture: int
    image: str = ""
    object: int = 0
    class_id: int = 0
    center: tuple[float, ...] = ()
    box: tuple[int, ...] = ()
    source: str = "script"
    seconds: float | None = None

    @property
    def id(self) -> ObjectId:
        return ObjectId(self.image, self.object)


class AnnotationLog:
    """The entries of one annotator and the state they lead to.

    >>> log = AnnotationLog()
    >>> log.append([Entry("2026-01-01T09:00:00.000Z", "label", 1, "well", 17, class_id=2)])
    >>> log.label_of(ObjectId("well", 17)).class_id
    2
    >>> log.append([Entry("2026-01-01T09:00:01.000Z", "undo", log.undoable)])
    >>> log.label_of(ObjectId("well", 17)).action
    ''
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries: list[Entry] = []
        self._labels: dict[ObjectId, Label] = {}
        self._gestures: dict[int, list[Entry]] = {}
        self._before: dict[int, dict[ObjectId, Label]] = {}
        self._done: list[int] = []
        self._undone: list[int] = []
        self.append(entries)

    @property
    def labels(self) -> Mapping[ObjectId, Label]:
        """Every object that something was said of, in the order in which it was last said."""
        return self._labels

    @property
    def next_gesture(self) -> int:
        return max(self._gestures, default=0) + 1

    @property
    def undoable(self) -> int:
        """The gesture that undo would take back, 0 if there is none."""
        return self._done[-1] if self._done else 0

    @property
    def redoable(self) -> int:
        """The gesture that redo would bring back, 0 if there is none."""
        return self._undone[-1] if self._undone else 0

    def label_of(self, id: ObjectId) -> Label:
        return self._labels.get(id, UNLABELED)

    def append(self, entries: Iterable[Entry]) -> None:
        """Add rows and follow them. Rows of one gesture may arrive in one call or in several."""
        for entry in entries:
            self.entries.append(entry)
            if entry.action == "undo":
                self._undo(entry.gesture)
            elif entry.action == "redo":
                self._redo(entry.gesture)
            else:
                self._do(entry)

    def _do(self, entry: Entry) -> None:
        if entry.gesture not in self._gestures:
            self._gestures[entry.gesture] = []
            self._before[entry.gesture] = {}
            self._done.append(entry.gesture)
            self._undone.clear()
        self._gestures[entry.gesture].append(entry)
        self._before[entry.gesture].setdefault(entry.id, self.label_of(entry.id))
        self._follow(entry)

    def _undo(self, gesture: int) -> None:
        if gesture == self.undoable:
            self._undone.append(self._done.pop())
            for id, label in self._before[gesture].items():
                self._set(id, label)

    def _redo(self, gesture: int) -> None:
        if gesture == self.redoable:
            self._done.append(self._undone.pop())
            for entry in self._gestures[gesture]:
                self._follow(entry)

    def _follow(self, entry: Entry) -> None:
        if entry.action == "erase":
            self._set(entry.id, UNLABELED)
        elif entry.action == "label":
            self._set(entry.id, Label("label", entry.class_id))
        elif entry.action == "skip":
            if self.label_of(entry.id) == UNLABELED:  # passing over an object takes nothing from it
                self._set(entry.id, Label("skip"))
        elif entry.action in ("ambiguous", "bad"):
            self._set(entry.id, Label(entry.action))

    def _set(self, id: ObjectId, label: Label) -> None:
        self._labels.pop(id, None)
        if label != UNLABELED:
            self._labels[id] = label


def agree(annotators: Iterable[Mapping[ObjectId, Label]]) -> dict[ObjectId, Label]:
    """Merge what several annotators say: the majority stands, a tie is left out.

    A skipped object has no vote in it.
    """
    votes: dict[ObjectId, Counter[Label]] = {}
    for labels in annotators:
        for id, label in labels.items():
            votes.setdefault(id, Counter())
            if label.action != "skip":
                votes[id][label] += 1
    merged: dict[ObjectId, Label] = {}
    for id, counter in votes.items():
        ranked = counter.most_common(2)
        if not ranked:
            merged[id] = Label("skip")
        elif len(ranked) == 1 or ranked[0][1] > ranked[1][1]:
            merged[id] = ranked[0][0]
    return merged


def log_table(logs: Mapping[str, AnnotationLog]) -> pd.DataFrame:
    """Return every row of every annotator's log as a table, with the annotator in the column ``who``.

    Returns
    -------
    DataFrame
        One row an entry, in the order of time (UTC), with the fields of `Entry`; the centre as ``z``, ``y``, ``x``
        (pixels, NaN where unknown) and the box as text.
    """
    rows = [
        {
            "time": entry.time,
            "who": who,
            "action": entry.action,
            "gesture": entry.gesture,
            "image": entry.image,
            "object": entry.object,
            "class_id": entry.class_id,
            **dict(zip("xyz", reversed(entry.center))),
            "box": " ".join(map(str, entry.box)),
            "source": entry.source,
            "seconds": entry.seconds,
        }
        for who, log in logs.items()
        for entry in log.entries
    ]
    columns = [
        "time",
        "who",
        "action",
        "gesture",
        "image",
        "object",
        "class_id",
        "z",
        "y",
        "x",
        "box",
        "source",
        "seconds",
    ]
    table = pd.DataFrame(rows, columns=columns).astype({"z": float, "y": float, "x": float, "seconds": float})
    table["time"] = pd.to_datetime(table["time"], utc=True, format="ISO8601")
    return table.sort_values("time", kind="stable", ignore_index=True)
