"""Annotation log: an append-only list of events, and the resulting labels.

An *edit* is one undo step: a key press, click or lasso, which may annotate many objects. Undo and redo are events of
their own that refer to an edit. History is never rewritten: replaying the log always gives the current labels.

A *draw* records that an object was drawn uniformly at random from all objects. It changes no label and belongs to no
edit, so that undo does not take it back. Counts need to know which labels were drawn (`project.drawn_labels`).

Every event identifies an object by its pixel value (label) in the mask that was displayed. When a mask is replaced, its
events stay unchanged; `core.consensus` carries the annotations over to the current mask.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LabelAction = Literal["label", "ambiguous", "bad_segmentation", "skip"]
Action = Literal["label", "erase", "skip", "ambiguous", "bad_segmentation", "undo", "redo", "draw"]
IMPORT_SOURCE_PREFIX = "import: "  # prefix of `AnnotationEvent.source` for imported annotations
ACTIONS: tuple[Action, ...] = get_args(Action)
FLAGS: tuple[LabelAction, ...] = ("ambiguous", "bad_segmentation", "skip")
# Sources of labels whose objects were drawn at random: "random" is stated by the user; "queue" was the source of the
# random queue in version 0.1.0. Now, draws are events of their own.
RANDOM_SOURCES = ("random", "queue")


class ObjectId(NamedTuple):
    """Identifier of an object: its image, and its label in the current mask."""

    image: str
    label: int


class VersionedObjectId(NamedTuple):
    """Identifier of an object in one of the successive masks of an image.

    The first mask is number 0; each mask that replaces another has the next number.
    """

    image: str
    label: int
    mask: int = 0


class Label(NamedTuple):
    """Label of an object: its class, or the reason for having no class.

    ``action`` is "label" if the object has a class, and "" if it has no label. In a mask that replaced another mask,
    "erase" keeps the label of the earlier mask from being carried over.
    """

    action: Action | Literal[""] = ""
    class_id: int = 0


UNLABELED = Label()
ERASED_LABEL = Label("erase")


@dataclass(frozen=True)
class AnnotationEvent:
    """One row of the annotation log.

    Parameters
    ----------
    time : str
        UTC, ISO 8601 with milliseconds.
    action : str
        One of `ACTIONS`.
    edit : int
        Number of the edit that the event belongs to; for undo and redo, the edit that is undone or redone; 0 for draws.
    image, label : str, int
        Image name and object; empty and 0 for undo and redo.
    class_id : int
        The assigned class, 0 for all actions but "label".
    center : tuple of float
        Centroid ``([z,] y, x)`` in pixels, by which an object can be identified after a new segmentation.
    box : tuple of int
        Bounding box, half open: all lower bounds, then all upper bounds.
    source : str
        Origin of the event: "script", "panel", "queue", "correction", ...
    seconds : float or None
        Time for which the object had been displayed.
    mask : int
        Number of the mask that contains the object: 0 is the image's first mask, 1 the mask that replaced it.
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
    def versioned_id(self) -> VersionedObjectId:
        """Identifier of the annotated object."""
        return VersionedObjectId(self.image, self.label, self.mask)


class AnnotationLog:
    """Events of one annotator, and the resulting labels.

    >>> log = AnnotationLog()
    >>> log.append([AnnotationEvent("2026-01-01T09:00:00.000Z", "label", 1, "well", 17, class_id=2)])
    >>> log.label_of(VersionedObjectId("well", 17)).class_id
    2
    >>> log.append([AnnotationEvent("2026-01-01T09:00:01.000Z", "undo", log.edit_to_undo)])
    >>> log.label_of(VersionedObjectId("well", 17)).action
    ''

    Attributes
    ----------
    events : list of AnnotationEvent
    labels : dict of VersionedObjectId to Label
        All labels, in the order of their last change.
    changed_objects : list of VersionedObjectId
        One entry per change of a label, in order. To process only new changes, continue after the last entry read.
    draws : set of VersionedObjectId
        The objects of all recorded draws.
    masks : dict of str to int
        Number of the latest annotated mask of each image.
    next_edit : int
        The first unused edit number.
    """

    def __init__(self, events: Iterable[AnnotationEvent] = ()) -> None:
        self.events: list[AnnotationEvent] = []
        self.changed_objects: list[VersionedObjectId] = []
        self.draws: set[VersionedObjectId] = set()
        self.masks: dict[str, int] = {}
        self.labels: dict[VersionedObjectId, Label] = {}
        self.next_edit = 1
        self._events_of_edit: defaultdict[int, list[AnnotationEvent]] = defaultdict(list)
        self._labels_before: defaultdict[int, dict[VersionedObjectId, Label]] = defaultdict(dict)
        self._done: list[int] = []
        self._undone: list[int] = []
        self.append(events)

    @property
    def edit_to_undo(self) -> int:
        """The edit that undo would revert, 0 if there is none."""
        return self._done[-1] if self._done else 0

    @property
    def edit_to_redo(self) -> int:
        """The edit that redo would apply again, 0 if there is none."""
        return self._undone[-1] if self._undone else 0

    def label_of(self, versioned_id: VersionedObjectId) -> Label:
        """Return the label of an object in one of the masks of its image."""
        return self.labels.get(versioned_id, UNLABELED)

    def drawn_objects(self) -> set[VersionedObjectId]:
        """Return the objects that were drawn at random.

        These are the objects of recorded draws, and those that an edit with one of the `RANDOM_SOURCES` labeled, unless
        the edit is undone.
        """
        done = set(self._done)
        stated = (event for event in self.events if event.source in RANDOM_SOURCES and event.edit in done)
        return self.draws | {event.versioned_id for event in stated}

    def append(self, events: Iterable[AnnotationEvent]) -> None:
        """Add events and update the labels.

        The events of one edit may be added in several calls.
        """
        for event in events:
            self.events.append(event)
            if event.action == "draw":
                self.draws.add(event.versioned_id)
                self.masks[event.image] = max(event.mask, self.masks.get(event.image, 0))
            elif event.action not in ("undo", "redo"):
                self._do(event)
            elif event.action == "undo" and self._done[-1:] == [event.edit]:
                self._undone.append(self._done.pop())
                for versioned_id, label in self._labels_before[event.edit].items():
                    self._set(versioned_id, label)
            elif event.action == "redo" and self._undone[-1:] == [event.edit]:
                self._done.append(self._undone.pop())
                for redone in self._events_of_edit[event.edit]:
                    self._apply(redone)

    def _do(self, event: AnnotationEvent) -> None:
        if event.edit not in self._events_of_edit:
            self._done.append(event.edit)
            self._undone.clear()
            self.next_edit = max(self.next_edit, event.edit + 1)
        self.masks[event.image] = max(event.mask, self.masks.get(event.image, 0))
        self._events_of_edit[event.edit].append(event)
        self._labels_before[event.edit].setdefault(event.versioned_id, self.label_of(event.versioned_id))
        self._apply(event)

    def _apply(self, event: AnnotationEvent) -> None:
        if event.action == "skip" and event.versioned_id in self.labels:
            return  # skipping keeps an existing label
        label = Label(event.action, event.class_id if event.action == "label" else 0)
        self._set(event.versioned_id, label if event.mask or label != ERASED_LABEL else UNLABELED)

    def _set(self, versioned_id: VersionedObjectId, label: Label) -> None:
        self.labels.pop(versioned_id, None)
        if label != UNLABELED:
            self.labels[versioned_id] = label
        self.changed_objects.append(versioned_id)


def events_table(logs: Mapping[str, AnnotationLog]) -> pd.DataFrame:
    """Return the events of all annotators as a table.

    Returns
    -------
    DataFrame
        One row per event except draws, ordered by time (UTC). The columns are the fields of `AnnotationEvent`, with the
        label as ``object``, the center as ``z``, ``y``, ``x`` (pixels, NaN where unknown) and the bounding box as text;
        the column ``who`` names the annotator, and ``drawn`` tells whether the object was drawn at random.
    """
    drawn = set[VersionedObjectId]().union(*(log.drawn_objects() for log in logs.values()))
    rows = [
        {
            **vars(event),
            "who": who,
            "object": event.label,
            "box": " ".join(map(str, event.box)),
            **dict(zip("xyz", reversed(event.center))),
            "drawn": event.versioned_id in drawn,
        }
        for who, log in logs.items()
        for event in log.events
        if event.action != "draw"
    ]
    columns = ["time", "who", "action", "edit", "image", "object", "class_id"]
    columns += ["z", "y", "x", "box", "source", "seconds", "mask", "drawn"]
    table = pd.DataFrame(rows, columns=columns).astype({"z": float, "y": float, "x": float, "seconds": float})
    table["time"] = pd.to_datetime(table["time"], utc=True, format="ISO8601")
    return table.sort_values("time", kind="stable", ignore_index=True)
