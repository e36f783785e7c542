"""Who said what of which object: the annotator's own book, the books of others, and what they agree on."""

from __future__ import annotations

import getpass
import itertools
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from svetlana_jupyter.core.annotations import (
    IMPORT_SOURCE_PREFIX,
    Action,
    AnnotationEvent,
    AnnotationLog,
    Label,
    ObjectId,
    VersionedObjectId,
    events_table,
)
from svetlana_jupyter.core.objects import bbox_columns, centroid_columns
from svetlana_jupyter.core.standing import CurrentLabels
from svetlana_jupyter.core.succession import LabelMapping
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.book import open_annotation_file, read_other_logs

PAUSE_SECONDS = 60  # longer gaps between annotations are pauses, not work

_Row: TypeAlias = tuple[str, int, int, tuple[float, ...], tuple[int, ...], int]


@dataclass(frozen=True, eq=False)
class LabelBatch:
    """What a gesture says of objects of one image.

    Attributes
    ----------
    image : str
    class_ids : mapping of int to int
        The class given to each object; 0 for every action but "label".
    index : DataFrame
        The object index of the image.
    mask : int
        Which of the image's masks the index is of.
    """

    image: str
    class_ids: Mapping[int, int]
    index: pd.DataFrame
    mask: int


class Annotations:
    """Writes the annotations of one person, and reads those of everybody.

    Parameters
    ----------
    folder : Path
        The project's annotations folder.
    annotator : str
    writable : bool
    changed : callable
        A bound method, called after every change.

    Attributes
    ----------
    touched : list of ObjectId
        The objects that this person's last gesture, undo or redo was about.
    """

    def __init__(self, folder: Path, annotator: str, writable: bool, changed: Callable[[], None]) -> None:
        self.book = open_annotation_file(folder, annotator, writable)
        self.annotator = annotator
        self.touched: list[ObjectId] = []
        self._others = read_other_logs(folder, excluding_file=self.book.file)
        self.book.listen(changed)
        self._followed: tuple[object, ...] = ()
        self._table: tuple[CurrentLabels, int, pd.DataFrame] | None = None
        self._standing = CurrentLabels(())

    def follow(self, steps: Mapping[str, Sequence[LabelMapping]], merged: Mapping[int, int]) -> None:
        """Carry annotations over the masks that were replaced, and count classes as those they were merged into."""
        if (steps, merged) != self._followed:
            self._standing = CurrentLabels(self.logs.values(), steps, merged)
            self._followed = steps, merged

    @property
    def logs(self) -> dict[str, AnnotationLog]:
        return {self.annotator: self.book.log, **self._others}

    @property
    def labels(self) -> Mapping[ObjectId, Label]:
        """What stands for each object: the only annotator's word, or what the majority says."""
        return self._standing.labels

    @property
    def counts(self) -> Counter[Label]:
        """How many objects each label stands for."""
        return self._standing.counts

    def label_table(self) -> pd.DataFrame:
        """Return `labels` as a table, indexed by ``(image, object)``: ``action`` and ``class_id``."""
        labels, current_labels = self.labels, self._standing
        if self._table is None or self._table[:2] != (current_labels, current_labels.version):
            images, objects = zip(*labels) if labels else ((), ())
            actions, ids = zip(*labels.values()) if labels else ((), ())
            index = pd.MultiIndex.from_arrays(
                [pd.Series(images, dtype="object"), pd.Series(objects, dtype="int64")], names=["image", "object"]
            )
            table = pd.DataFrame({"action": pd.Series(actions, index, "object"), "class_id": list(ids)}, index)
            self._table = current_labels, current_labels.version, table.astype({"class_id": "int64"})
        return self._table[2].copy()

    def record(
        self, told: Mapping[Action, Iterable[LabelBatch]], source: str = "script", seconds: float | None = None
    ) -> None:
        """Write one gesture, whose objects may be of several images, and of which several things may be said.

        Raises
        ------
        InputError
            If one of the objects is not in the object index of its image.
        """
        rows = [(action, *row) for action, parts in told.items() for part in parts for row in self._located(part)]
        self.book.ensure_writable()
        time, gesture, before = _now(), self.book.log.next_gesture, len(self.book.log.touched)
        self.book.append(
            AnnotationEvent(time, action, gesture, image, object, class_id, center, box, source, seconds, mask)
            for action, image, object, class_id, center, box, mask in rows
        )
        self._note(before)

    def _located(self, told: LabelBatch) -> Iterator[_Row]:
        image, index, objects = told.image, told.index, list(told.class_ids)
        missing = [object for object in objects if object not in index.index]
        if missing:
            raise InputError(
                f"image {image!r} has no object {missing[0]}; it has {len(index):,} objects, "
                f"numbered {index.index.min()} to {index.index.max()}."
            )
        ndim = sum(column in index for column in ("z", "y", "x"))
        centers = index.loc[objects, centroid_columns(ndim)].to_numpy(float).tolist()
        boxes = index.loc[objects, bbox_columns(ndim)].to_numpy(int).tolist()
        for object, center, box in zip(objects, centers, boxes):
            yield image, object, told.class_ids[object], tuple(center), tuple(box), told.mask

    def undo(self) -> bool:
        """Take back the last gesture; False if there is none."""
        self.book.ensure_writable()
        return self._step("undo", self.book.log.edit_to_undo)

    def redo(self) -> bool:
        """Bring back the last gesture taken back; False if there is none."""
        self.book.ensure_writable()
        return self._step("redo", self.book.log.edit_to_redo)

    def has_annotated_later_mask(self, image: str, mask: int) -> bool:
        """Whether this person spoke of a later mask of an image than this one."""
        return self.book.log.masks.get(image, 0) > mask

    def table(self) -> pd.DataFrame:
        """Return every row of every log, as `core.annotations.events_table` does."""
        return events_table(self.logs)

    def current_objects(self, subject: VersionedObjectId) -> list[ObjectId]:
        """Return the objects of the masks of today that an object of an earlier mask became."""
        return self._standing.current_objects(subject)

    def gestures(self) -> pd.Series[str]:
        """Return the gesture that gave each object its class where it named others too, by ``(image, object)``.

        Such objects are not independent of each other: a lasso takes neighbours, a selection what looks alike. What
        was imported in one go was said object by object elsewhere.
        """
        found: dict[ObjectId, str] = {}
        for who, log in self.logs.items():
            sizes = Counter(entry.gesture for entry in log.entries if entry.action == "label")
            for entry in log.entries:
                if entry.action == "label":
                    together = sizes[entry.gesture] > 1 and not entry.source.startswith(IMPORT_SOURCE_PREFIX)
                    name = f"{who} {entry.gesture}" if together else ""
                    found |= dict.fromkeys(self._standing.current_objects(entry.subject), name)
        labels = self.label_table()
        return labels.index.to_series().map(found).fillna("").astype("object")

    def rate(self) -> float:
        """Return a person's gestures a minute, by the median gap between the last fifty; NaN if that is not known."""
        by_hand = [entry for entry in self.book.log.entries[-50:] if entry.seconds is not None]
        times = [datetime.fromisoformat(entry.time) for entry in by_hand]
        gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(times)]
        gaps = [gap for gap in gaps if 0 < gap < PAUSE_SECONDS]
        return 60 / statistics.median(gaps) if gaps else float("nan")

    def _step(self, action: Action, gesture: int) -> bool:
        if gesture:
            before = len(self.book.log.touched)
            self.book.append([AnnotationEvent(_now(), action, gesture)])
            self._note(before)
        return bool(gesture)

    def _note(self, before: int) -> None:
        object_ids = self.book.log.touched[before:]
        self.touched = [id for subject in object_ids for id in self._standing.current_objects(subject)]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def default_annotator() -> str:
    """Return the computer's user name as a file can bear it; "me" where there is none (a container)."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        return "me"
    return "".join(c if c.isalnum() or c in ".@-_" else "_" for c in name).lstrip(".@-") or "me"
