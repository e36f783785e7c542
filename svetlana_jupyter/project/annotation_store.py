"""Edits of the annotator, and the current label of every object.

Only the annotator's own file is written. The files of other annotators are read when the project is opened. The current
label of an object is the majority vote of all annotators (`core.consensus.CurrentLabels`).
"""

from __future__ import annotations

import getpass
import itertools
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from svetlana_jupyter.core.annotations import (
    ERASED_LABEL,
    FLAGS,
    IMPORT_SOURCE_PREFIX,
    UNLABELED,
    AnnotationEvent,
    AnnotationLog,
    Label,
    ObjectId,
    VersionedObjectId,
    events_table,
)
from svetlana_jupyter.core.consensus import CurrentLabels
from svetlana_jupyter.core.objects import bbox_columns, centroid_columns
from svetlana_jupyter.core.relabeling import LINK_COLUMNS, LabelMapping
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.annotation_file import numbered_entries, open_annotation_file, read_other_logs
from svetlana_jupyter.project.file_access import check_readable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.project_classes import ProjectClasses
    from svetlana_jupyter.project.storage import Notify, ProjectFolder

ObjectLabels = int | Iterable[int]
PAUSE_SECONDS = 60  # longer gaps between annotations do not count as annotation time
_FLAGGED = {"ambiguous": "flagged as ambiguous", "bad_segmentation": "flagged as badly segmented", "skip": "skipped"}


class Annotations:
    """Edits of one annotator, and the current labels of all annotators.

    Edits are only allowed on the thread that created the project; labels may be read on any thread.

    Parameters
    ----------
    folder : ProjectFolder
    annotator : str or None
        Name of the annotator; by default the user name on this computer.
    images : ImageCollection
    classes : ProjectClasses
    notify : Notify

    Attributes
    ----------
    annotator : str
    file : AnnotationFile
        The annotator's file, shared by all `Project` objects of this kernel for the same folder.
    mappings : dict of str to list of LabelMapping
        Links between the objects of successive masks, for each image whose mask was replaced. Every mask replacement
        creates a new dict.
    version : int
        Number of changes since the project was opened.
    problem : str
        A sentence about an annotation file that cannot be read or used completely, "" without a problem. Training is
        refused while there is one.
    note : str
        A sentence about an annotation of an unknown image, which is ignored; "" if there is none.
    last_edited : list of ObjectId
        The objects that this annotator's last edit, undo or redo changed.
    """

    def __init__(
        self,
        folder: ProjectFolder,
        annotator: str | None,
        images: ImageCollection,
        classes: ProjectClasses,
        notify: Notify,
    ) -> None:
        self._folder, self._images, self._classes, self._notify = folder, images, classes, notify
        self.annotator = annotator or default_annotator()
        self.file = open_annotation_file(folder.annotations_folder, self.annotator, folder.writable)
        self.file.add_listener(self._file_changed)
        self.version = 0
        self.mappings = self._read_mappings()
        self._others, self.problem = read_other_logs(folder.annotations_folder, excluding_file=self.file.file)
        self.problem = self.problem or self._unknown("class_id", {0, *(info.id for info in classes.infos)})
        self.note = self._unknown("image", {"", *images})
        self._other_lengths = [len(log.events) for log in self._others.values()]
        self.last_edited: list[ObjectId] = []
        self._handed_out: dict[VersionedObjectId, list[VersionedObjectId]] = {}
        self._table: tuple[CurrentLabels, int, dict[int, str], pd.DataFrame] | None = None
        self._carried_over: tuple[object, ...] = ()
        self._current = CurrentLabels(())
        self.refresh()

    @property
    def logs(self) -> dict[str, AnnotationLog]:
        """The annotation log of each annotator, by annotator name."""
        return {self.annotator: self.file.log, **self._others}

    @property
    def labels(self) -> Mapping[ObjectId, Label]:
        """The current label of every labeled object, by majority vote of all annotators."""
        return self._current.labels

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to undo."""
        return bool(self.file.log.edit_to_undo)

    @property
    def can_redo(self) -> bool:
        """Whether there is an edit to redo."""
        return bool(self.file.log.edit_to_redo)

    def annotate_each(
        self, classes: Mapping[tuple[str, int], str], source: str = "script", seconds: float | None = None
    ) -> None:
        """Label objects of one or several images in a single edit.

        One undo reverts the whole edit.

        Parameters
        ----------
        classes : mapping of (image, label) to class name
        source : str
            Origin of the annotations, which is recorded in the annotation log.
        seconds : float, optional
            Time for which the object was displayed before it was annotated.
        """
        ids = {name: self._classes.by_name(name).id for name in set(classes.values())}
        before = {object_id: self.label_of(*object_id).class_id for object_id in classes}
        replaced = sum(before[object_id] not in (0, ids[name]) for object_id, name in classes.items())
        self._record({object_id: Label("label", ids[name]) for object_id, name in classes.items()}, source, seconds)
        others = f"; {replaced:,} of them had another label" if replaced and len(classes) > 1 else ""
        self._notify.status(f"{_describe(classes)} labeled {', '.join(sorted(ids))}{others}.")

    def flag_each(
        self, objects: Iterable[tuple[str, int]], flag: str, source: str = "script", seconds: float | None = None
    ) -> None:
        """Flag objects of one or several images in a single edit.

        The flag is "ambiguous", "bad_segmentation" or "skip".
        """
        if flag not in FLAGS:
            raise InputError(f"Unknown flag {flag!r}. Use one of {', '.join(FLAGS)}.")
        labels = dict.fromkeys(objects, Label(flag))
        self._record(labels, source, seconds)
        self._notify.status(f"{_describe(labels)} {_FLAGGED[flag]}.")

    def erase_each(self, objects: Iterable[tuple[str, int]], source: str = "script") -> None:
        """Remove the annotations of objects of one or several images in a single edit."""
        labels = dict.fromkeys(objects, ERASED_LABEL)
        self._record(labels, source)
        self._notify.status(f"{_describe(labels)} no longer annotated.")

    def apply(self, labels: Mapping[tuple[str, int], Label], source: str = "script") -> None:
        """Label or flag objects of one or several images in a single edit."""
        self._record(labels, source)

    def undo(self) -> bool:
        """Undo the last edit; return False if there is none."""
        return self._step("undo")

    def redo(self) -> bool:
        """Redo the last undone edit; return False if there is none."""
        return self._step("redo")

    def label_of(self, image: str, label: int) -> Label:
        """Return the current label of an object; its ``action`` is "" if it has none."""
        return self.labels.get(ObjectId(image, label), UNLABELED)

    def labels_of(self, image: str, objects: Sequence[int] | NDArray[np.integer]) -> dict[int, Label]:
        """Return the current labels of objects of an image, by object.

        The result may include labels of other objects of the image. The running time is proportional to the number of
        given objects or the number of all labels, whichever is smaller.
        """
        labels = self.labels
        if len(labels) < len(objects):
            return {object_id.label: label for object_id, label in labels.items() if object_id.image == image}
        pairs = ((number, labels.get(ObjectId(image, number))) for number in map(int, objects))
        return {number: label for number, label in pairs if label is not None}

    def label_table(self) -> pd.DataFrame:
        """Return the current labels as a table.

        Returns
        -------
        DataFrame
            Indexed by ``(image, object)``: ``action`` ("label", "ambiguous", "bad_segmentation" or "skip"),
            ``class_id`` (0 for flags) and ``class`` (the name of the class).
        """
        labels, current, names = self.labels, self._current, dict(zip(self._classes.ids, self._classes.names))
        if self._table is None or self._table[:3] != (current, current.version, names):
            index = object_index(labels)
            actions, ids = zip(*labels.values()) if labels else ((), ())
            table = pd.DataFrame({"action": pd.Series(actions, index, "object"), "class_id": list(ids)}, index)
            table = table.astype({"class_id": "int64"})
            table["class"] = table["class_id"].map(names).astype("object").where(table["class_id"] > 0, None)
            self._table = current, current.version, names, table
        return self._table[3].copy()

    def class_ids(self) -> pd.Series[int]:
        """Return the class id of every labeled object, by ``(image, object)``."""
        with self._folder.lock:
            return self.label_table().query("action == 'label'")["class_id"]

    def table(self) -> pd.DataFrame:
        """Return a table of the events of all annotators, ordered by time.

        The columns are those of `core.annotations.events_table`.
        """
        return events_table(self.logs)

    def class_counts(self) -> pd.Series:
        """Return the number of annotated objects per class, by class name."""
        counts = [self._current.counts[Label("label", info.id)] for info in self._classes]
        index = pd.Index(self._classes.names, name="class", dtype="object")
        return pd.Series(counts, index, "int64", "annotations")

    def class_use(self, class_id: int) -> str:
        """Return a sentence about the labels of a class, "" without any.

        Labels that undo can bring back count, too.
        """
        name, n = self._classes.by_id(class_id).name, self._current.counts[Label("label", class_id)]
        if n:
            return f"{n:,} objects are labeled {name!r}, so it cannot be deleted."
        others, problem = read_other_logs(self._folder.annotations_folder, self.file.file)
        logs = [self.file.log, *others.values()]
        if problem:
            return problem
        if any(event.class_id == class_id for log in logs for event in log.events):
            return f"Undo can bring back labels of {name!r}, so it cannot be deleted."
        return ""

    def flag_counts(self) -> dict[str, int]:
        """Return the number of objects with each flag."""
        return {flag: self._current.counts[Label(flag)] for flag in FLAGS}

    def rate(self) -> float:
        """Return the number of edits per minute; NaN if it is unknown.

        The number is computed from the median gap between edits among the last 50 events, ignoring pauses.
        """
        by_hand = [entry for entry in self.file.log.events[-50:] if entry.seconds is not None]
        times = [datetime.fromisoformat(entry.time) for entry in by_hand]
        gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(times)]
        gaps = [gap for gap in gaps if 0 < gap < PAUSE_SECONDS]
        return 60 / statistics.median(gaps) if gaps else float("nan")

    def edit_groups(self) -> pd.Series[str]:
        """Return the edit of each object that was labeled together with other objects.

        The edit is "" for an object that was labeled alone. The index is ``(image, object)``. Objects of one edit are
        not independent: a lasso selects neighbors, and a selection in the gallery contains similar objects.
        Cross-validation therefore keeps them in one fold. Imported objects count as labeled alone, since they were
        labeled one by one in another program.
        """
        groups: dict[ObjectId, str] = {}
        for annotator, log in self.logs.items():
            entries = [entry for entry in log.events if entry.action == "label"]
            sizes = Counter(entry.edit for entry in entries)
            for entry in entries:
                together = sizes[entry.edit] > 1 and not entry.source.startswith(IMPORT_SOURCE_PREFIX)
                name = f"{annotator} {entry.edit}" if together else ""
                groups |= dict.fromkeys(self.current_objects(entry.versioned_id), name)
        return self.label_table().index.to_series().map(groups).fillna("").astype("object")

    def current_objects(self, object_id: VersionedObjectId) -> list[ObjectId]:
        """Return the current objects that replaced an object of an earlier mask."""
        return self._current.current_objects(object_id)

    def drawn_objects(self) -> set[ObjectId]:
        """Return the current objects that were drawn at random.

        Objects of the test set, which is a random draw of its own, need not be among them.
        """
        drawn = set[VersionedObjectId]().union(*(log.drawn_objects() for log in self.logs.values()))
        return {current for versioned_id in drawn for current in self.current_objects(versioned_id)}

    def hand_out(self, object_id: ObjectId, passed: Iterable[ObjectId]) -> None:
        """Note that a random draw over all objects handed out an object.

        The draw is recorded in the annotation log together with the first label or flag of the object.

        Parameters
        ----------
        object_id : ObjectId
        passed : iterable of ObjectId
            Labeled objects that the draw passed over before; their draw is recorded, too.
        """
        versions = [
            VersionedObjectId(*each, self._images.entry(each.image).mask_number) for each in (object_id, *passed)
        ]
        self._handed_out[versions[0]] = versions[1:]

    def _unknown(self, name: Literal["class_id", "image"], known: Collection[object]) -> str:
        """Return a sentence about the first annotation of an unknown class or image."""
        for who, log in self.logs.items():
            unknown = next((event for event in log.events if getattr(event, name) not in known), None)
            if unknown is not None:
                file = self._folder.annotations_folder / f"{who}.csv"
                line = next((line for line, event in numbered_entries(file) if event == unknown), 0)
                what = f"class {unknown.class_id}" if name == "class_id" else f"image {unknown.image!r:.80}"
                return (
                    f"Line {line} of {file} is about {what}, which the project does not have. Restore project.json, or "
                    "correct that line."
                )
        return ""

    def refresh(self) -> None:
        """Recompute the current labels if masks were replaced or classes merged."""
        merged = self._classes.merged
        if (self.mappings, merged) != self._carried_over:
            self._current = CurrentLabels(self.logs.values(), self.mappings, merged)
            self._carried_over = self.mappings, merged

    def reload_masks(self) -> None:
        """Read the images and mask replacements of the project again.

        Call this method after a mask was replaced, possibly by another `Project` object.
        """
        self._images.reload()
        self.mappings = self._read_mappings()
        self.refresh()
        self._notify.changed("images")
        self._file_changed()

    def reload_others(self) -> None:
        """Follow logs of other annotators that another `Project` object changed."""
        others, _ = read_other_logs(self._folder.annotations_folder, self.file.file, known=self._others)
        if list(map(id, others.values())) != list(map(id, self._others.values())):
            self._others, self._carried_over = others, ()
            self.refresh()
        lengths = [len(log.events) for log in others.values()]
        if lengths != self._other_lengths:
            self._other_lengths = lengths
            self._file_changed()

    def _file_changed(self) -> None:
        self.version += 1
        self._notify.changed("annotations")

    def _read_mappings(self) -> dict[str, list[LabelMapping]]:
        """Read the links between the objects of the successive masks of each image."""
        return {
            name: [LabelMapping(_read_links(self._folder.links_file(name, n))) for n in range(1, entry.mask_number + 1)]
            for name, entry in self._images.items()
            if entry.mask_number
        }

    def _record(self, labels: Mapping[tuple[str, int], Label], source: str, seconds: float | None = None) -> None:
        """Write one edit to the annotation file, image by image."""
        if not isinstance(source, str) or not isinstance(seconds, int | float | None):
            raise InputError(f"source must be text and seconds a number, got {source!r} and {seconds!r}.")
        by_image: dict[str, dict[int, Label]] = {}
        for (image, number), label in labels.items():
            by_image.setdefault(image, {})[int(number)] = label
        with self._folder.lock:
            for image in by_image:
                # Another `Project` object has replaced the mask, so the labels refer to other objects.
                number = self._images.entry(image).mask_number
                self._images.check([image])
                if max(self.file.log.masks.get(image, 0), self._images.entry(image).mask_number) > number:
                    self.reload_masks()
                    raise ProjectError(
                        f"The mask of {image!r} was replaced in the meantime, so nothing was saved. "
                        "Look at the new objects, then annotate again."
                    )
            located = [row for image, of_image in by_image.items() for row in self._located(image, of_image)]
            trouble_before = self.file.trouble
            self.file.ensure_writable()
            time, edit = _now(), self.file.log.next_edit
            events = [
                AnnotationEvent(time, action, edit, image, number, class_id, center, box, source, seconds, mask)
                for image, number, (action, class_id), center, box, mask in located
            ]
            objects = [event.versioned_id for event in events]
            draws = [
                AnnotationEvent(time, "draw", 0, image, number, source="random", mask=mask)
                for image, number, mask in self._unrecorded_draws(objects)
            ]
            self._append([*draws, *events])  # a single write, which costs no second disk sync
            for versioned_id in objects:
                self._handed_out.pop(versioned_id, None)
        # Clears the message if its cause no longer exists: the disk has space, or the other kernel closed the file.
        self._notify.trouble(self.file.trouble, trouble_before)

    def _unrecorded_draws(self, objects: Iterable[VersionedObjectId]) -> list[VersionedObjectId]:
        """Return the draws to record when these objects are annotated."""
        handed_out = [each for each in objects if each in self._handed_out]
        drawn = dict.fromkeys(each for last in handed_out for each in (*self._handed_out[last], last))
        logs = self.logs.values()
        return [
            each
            for each in drawn
            if each.image in self._images
            and each.mask == self._images.entry(each.image).mask_number
            and not any(each in log.draws for log in logs)
        ]

    def _located(self, image: str, labels: Mapping[int, Label]) -> Iterator[tuple[Any, ...]]:
        """Yield image, number, label, center, bounding box and mask number per object."""
        objects, numbers, mask = self._images.objects(image), list(labels), self._images.entry(image).mask_number
        if unknown := [number for number in numbers if number not in objects.index]:
            raise InputError(
                f"Image {image!r} has no object {unknown[0]}. Choose one of its {len(objects):,} objects, "
                f"numbered {objects.index.min()} to {objects.index.max()}."
            )
        ndim = sum(column in objects for column in "zyx")
        rows = objects.index.get_indexer(pd.Index(numbers))  # `loc` takes milliseconds
        centers, boxes = (
            np.column_stack([objects[name].to_numpy()[rows] for name in names]).astype(dtype).tolist()
            for names, dtype in ((centroid_columns(ndim), float), (bbox_columns(ndim), int))
        )
        for (number, label), center, box in zip(labels.items(), centers, boxes):
            yield image, number, label, tuple(center), tuple(box), mask

    def _step(self, action: Literal["undo", "redo"]) -> bool:
        with self._folder.lock:
            self.file.ensure_writable()
            log = self.file.log
            edit = log.edit_to_undo if action == "undo" else log.edit_to_redo
            if edit:
                self._append([AnnotationEvent(_now(), action, edit)])
            return bool(edit)

    def _append(self, events: Iterable[AnnotationEvent]) -> None:
        log = self.file.log
        before = len(log.changed_objects)
        self.file.append(events)
        edited = log.changed_objects[before:]
        self.last_edited = [current for object_id in edited for current in self.current_objects(object_id)]


def object_ids(image: str, label: ObjectLabels) -> list[ObjectId]:
    """Return the ids of one or several objects of an image."""
    numbers = label if isinstance(label, Iterable) and not isinstance(label, str) else [label]
    return [ObjectId(image, _whole_number(number, image)) for number in numbers]


def _whole_number(number: Any, image: str) -> int:
    try:
        if (whole := int(number)) == number:
            return whole
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"{number!r} is not the number of an object in {image!r}. Pass its label in the mask, such as 1.")


def object_index(ids: Collection[tuple[str, int]]) -> pd.MultiIndex:
    """Return a pandas index ``(image, object)`` of object ids."""
    images, objects = zip(*ids) if ids else ((), ())
    levels = [pd.Series(images, dtype="object"), pd.Series(objects, dtype="int64")]
    return pd.MultiIndex.from_arrays(levels, names=["image", "object"])


def default_annotator() -> str:
    """Return the user name on this computer as a valid annotator name.

    The name is "me" if there is no user name, as in some containers.
    """
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        return "me"
    return "".join(c if c.isalnum() or c in ".@-_" else "_" for c in name).lstrip(".@-") or "me"


def _describe(objects: Mapping[tuple[str, int], object]) -> str:
    if len(objects) != 1:
        return f"{len(objects):,} objects are"
    image, label = next(iter(objects))
    return f"Object {label} in {image} is"


def _read_links(file: Path) -> pd.DataFrame:
    try:
        check_readable(file)
        links = pd.read_csv(file, usecols=LINK_COLUMNS, dtype="int64")
        if (links < 0).to_numpy().any():
            raise ValueError("it contains negative numbers")
        return links
    except (OSError, ValueError, OverflowError) as error:
        raise ProjectError(
            f"{file}, which links the objects of a new mask to the old ones, cannot be read ({error}). "
            "Restore it from a backup; without it annotations would refer to the wrong objects."
        ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
