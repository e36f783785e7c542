"""What a project knows before any training: its images, its classes, and what people said of the objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from traitlets import Int

from svetlana_jupyter.core.annotations import UNLABELED, Action, Label, LabelAction, ObjectId
from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.archive import unpack
from svetlana_jupyter.project.collection import Collection
from svetlana_jupyter.project.labelling import Annotations, LabelBatch, default_annotator
from svetlana_jupyter.project.replacement import read_label_mappings

MARKS = ("ambiguous", "bad", "skip")


class Dataset(Collection):
    """Images with their objects, classes, and annotations, kept in a project folder.

    Parameters
    ----------
    path : str or Path
        The project folder; made if it is new, else reopened where it was left.
    classes : iterable of str, optional
        Class names; new ones are added to those the project has, none is ever dropped.
    annotator : str, optional
        Whose annotations these are; the computer's user name by default.

    Attributes
    ----------
    classes_version, images_version, annotations_version : int
        Count up with every change, for panels to observe.
    status, trouble : str
        What was done last, and the last problem that no call could raise.

    Raises
    ------
    ProjectError
        If the folder cannot be made or is no project.
    """

    annotations_version = Int()

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        names = ClassScheme().adding(classes or ()).names  # refuses a name used twice before any folder is made
        super().__init__(path)
        self._labelling = Annotations(
            self._store.annotations_folder,
            annotator or default_annotator(),
            self._store.writable,
            self._annotations_changed,
        )
        self.trouble = self._labelling.book.trouble
        self._steps = read_label_mappings(self._store, self.images.values())
        self._follow()
        if self.classes.adding(names) != self.classes:
            self._edit_classes(lambda known: known.adding(names))

    @classmethod
    def from_zip(cls, file: str | Path, folder: str | Path | None = None, annotator: str | None = None) -> Self:
        """Open a project that `save_zip` wrote.

        Parameters
        ----------
        file : str or Path
        folder : str or Path, optional
            Where to unpack it, which must be new or empty; by default beside the file, under the project's own name.
        annotator : str, optional

        Raises
        ------
        ProjectError
            If it is no such file, names places outside its folder, or the folder holds something already.
        """
        project = cls(unpack(Path(file), folder), annotator=annotator)
        missing = project._catalog.missing()
        if missing:
            project.trouble = (
                f"{len(missing)} files are not where the project says, for example {missing[0]}; put them there."
            )
        return project

    @property
    def annotator(self) -> str:
        """Whose annotations this project writes."""
        return self._labelling.annotator

    def annotate(
        self,
        image: str,
        object: int | Iterable[int],
        class_name: str,
        source: str = "script",
        seconds: float | None = None,
    ) -> None:
        """Give one object, or several in one gesture, a class; on disk when this returns.

        Parameters
        ----------
        image : str
        object : int or iterable of int
        class_name : str
        source : str
            Where it comes from, for the log.
        seconds : float, optional
            How long the object had been looked at.
        """
        self.annotate_each(dict.fromkeys(_ids(image, object), class_name), source, seconds)

    def erase(self, image: str, object: int | Iterable[int], source: str = "script") -> None:
        """Take back what was said of objects."""
        self.erase_each(_ids(image, object), source)

    def mark(
        self,
        image: str,
        object: int | Iterable[int],
        mark: str,
        source: str = "script",
        seconds: float | None = None,
    ) -> None:
        """Set objects aside as "ambiguous" or "bad" (badly segmented), or pass over them with "skip".

        What is set aside is neither trained on nor counted, and is reported as such.
        """
        self.mark_each(_ids(image, object), mark, source, seconds)

    def annotate_each(
        self, classes: Mapping[tuple[str, int], str], source: str = "script", seconds: float | None = None
    ) -> None:
        """Give objects, of one image or of several, a class each, all in one gesture that one undo takes back.

        Parameters
        ----------
        classes : mapping of (image, object) to class name
        """
        ids = {name: self.classes.by_name(name).id for name in set(classes.values())}
        self._record("label", {object: ids[name] for object, name in classes.items()}, source, seconds)
        self.status = f"{_counted(classes)} {'is' if len(classes) == 1 else 'are'} {', '.join(sorted(ids))}"

    def say_each(self, words: Mapping[tuple[str, int], str], source: str = "script") -> None:
        """Give objects a class each, or set them aside as "ambiguous" or "bad", all in one gesture.

        A class of such a name goes before the mark.
        """
        names = {info.name for info in self.classes.infos}
        said: dict[Action, dict[tuple[str, int], int]] = {}
        for id, word in words.items():
            mark = word if word in MARKS and word not in names else None
            action: Action = "label" if mark is None else _checked(mark)
            said.setdefault(action, {})[id] = self.classes.by_name(word).id if mark is None else 0
        self._record_each(said, source)

    def mark_each(
        self, objects: Iterable[tuple[str, int]], mark: str, source: str = "script", seconds: float | None = None
    ) -> None:
        """Set objects, of one image or of several, aside in one gesture, as `mark` does with those of one image."""
        objects = dict.fromkeys(objects, 0)
        self._record(_checked(mark), objects, source, seconds)
        said = {"ambiguous": "set aside as ambiguous", "bad": "set aside as badly segmented", "skip": "skipped"}
        self.status = f"{_counted(objects)} {'is' if len(objects) == 1 else 'are'} {said[mark]}"

    def erase_each(self, objects: Iterable[tuple[str, int]], source: str = "script") -> None:
        """Take back what was said of objects, of one image or of several, in one gesture."""
        objects = dict.fromkeys(objects, 0)
        self._record("erase", objects, source)
        self.status = f"{_counted(objects)} {'has' if len(objects) == 1 else 'have'} no annotation any more"

    def undo(self) -> bool:
        """Take back the last gesture; False if there is none."""
        with self._lock:
            return self._labelling.undo()

    def redo(self) -> bool:
        """Bring back the last gesture that was taken back; False if there is none."""
        with self._lock:
            return self._labelling.redo()

    @property
    def touched(self) -> list[ObjectId]:
        """The objects that the last annotation, undo or redo of this annotator was about."""
        return list(self._labelling.touched)

    @property
    def can_undo(self) -> bool:
        return bool(self._labelling.book.log.edit_to_undo)

    @property
    def can_redo(self) -> bool:
        return bool(self._labelling.book.log.edit_to_redo)

    def label_of(self, image: str, object: int) -> Label:
        """Return what stands for an object: a class, a mark, or nothing (``action`` "")."""
        return self._labelling.labels.get(ObjectId(image, object), UNLABELED)

    def labels_of(self, image: str, objects: Sequence[int] | NDArray[np.integer]) -> dict[int, Label]:
        """Return what stands for these objects of an image, where something was said of them, and perhaps of others.

        As quick as there are objects asked for, or labels at all, whichever is less.
        """
        labels = self._labelling.labels
        if len(labels) < len(objects):
            return {subject.object: label for subject, label in labels.items() if subject.image == image}
        asked = ((object, labels.get(ObjectId(image, object))) for object in map(int, objects))
        return {object: label for object, label in asked if label is not None}

    def labels(self) -> pd.DataFrame:
        """Return what stands for each object that something was said of.

        Returns
        -------
        DataFrame
            Indexed by ``(image, object)``: ``action`` ("label", "ambiguous", "bad" or "skip"), ``class_id`` (0 but for
            "label"), ``class`` (its name).
        """
        table = self._labelling.label_table()
        names = dict(zip(self.classes.ids, self.classes.names))
        table["class"] = table["class_id"].map(names).astype("object").where(table["class_id"] > 0, None)
        return table

    def annotations(self) -> pd.DataFrame:
        """Return the whole log, one row an entry, everybody's, in the order of time."""
        return self._labelling.table()

    def class_counts(self) -> pd.Series:
        """Return how many objects are annotated with each class, by name."""
        counts = self._labelling.counts
        found = [counts[Label("label", info.id)] for info in self.classes]
        return pd.Series(found, pd.Index(self.classes.names, name="class", dtype="object"), "int64", "annotations")

    def mark_counts(self) -> dict[str, int]:
        """Return how many objects are set aside, or were passed over, by mark."""
        counts = self._labelling.counts
        return {mark: counts[Label(mark)] for mark in get_args(LabelAction) if mark != "label"}

    def rate(self) -> float:
        """Return how many annotations a minute are made at present, NaN if that is not known."""
        return self._labelling.rate()

    def _record(
        self, action: Action, class_ids: Mapping[tuple[str, int], int], source: str, seconds: float | None = None
    ) -> None:
        """Write one gesture; the images keep the order in which they are first named."""
        self._record_each({action: class_ids}, source, seconds)

    def _record_each(
        self, said: Mapping[Action, Mapping[tuple[str, int], int]], source: str, seconds: float | None = None
    ) -> None:
        """Write one gesture of which several things are said."""
        by_action = {action: _by_image(class_ids) for action, class_ids in said.items()}
        images = list(dict.fromkeys(image for by_image in by_action.values() for image in by_image))
        with self._lock:
            for image in images:
                if self._labelling.has_annotated_later_mask(image, self._catalog.entry(image).mask_number):
                    self._read_again()
                    raise ProjectError(
                        f"the mask of {image!r} was replaced since it was opened here, so nothing was written; "
                        "look at the new objects, then annotate again."
                    )
            told = {
                action: [
                    LabelBatch(image, ids, self.objects(image), self._catalog.entry(image).mask_number)
                    for image, ids in by_image.items()
                ]
                for action, by_image in by_action.items()
            }
            if self._catalog.overwritten and (problem := self._overwritten(images)):
                raise ProjectError(problem)
            known = self._labelling.book.trouble
            self._labelling.record(told, source, seconds)
        if self.trouble == known:  # it may be over: the disk has room, the other kernel let go
            self.trouble = self._labelling.book.trouble

    def _overwritten(self, images: Iterable[str]) -> str:
        """Return a sentence if the mask of an annotated image was overwritten; "" if that is not so."""
        said = {subject.image for log in self._labelling.logs.values() for subject in log.labels}
        for name in self._catalog.overwritten.intersection(images) & said:
            mask = self._store.absolute(self._catalog.entry(name).mask)
            return (
                f"The mask of {name!r} was overwritten since it was annotated: call project.replace_mask({name!r}, "
                f"{str(mask)!r}), so that the annotations find their objects again."
            )
        return ""

    def _annotations_changed(self) -> None:
        self.annotations_version += 1

    def _follow(self) -> None:
        self._labelling.follow(self._steps, self.classes.merged)

    def _read_again(self) -> None:
        """Take in masks that were replaced, here or through another project object on this folder."""
        self._catalog.reload()
        self._steps = read_label_mappings(self._store, self.images.values())
        self._follow()
        self.images_version += 1
        self.annotations_version += 1

    def _check_idle(self) -> None:
        """Refuse what cannot be done while a job reads the project."""


def _ids(image: str, object: int | Iterable[int]) -> list[ObjectId]:
    objects = object if isinstance(object, Iterable) else [object]
    return [ObjectId(image, int(one)) for one in objects]


def _by_image(class_ids: Mapping[tuple[str, int], int]) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for (image, object), class_id in class_ids.items():
        found.setdefault(image, {})[int(object)] = class_id
    return found


def _checked(mark: str) -> LabelAction:
    if mark not in MARKS:
        raise InputError(f"a mark is one of {', '.join(MARKS)}, got {mark!r}.")
    return mark  # type: ignore[return-value]


def _counted(objects: Mapping[tuple[str, int], object]) -> str:
    if len(objects) != 1:
        return f"{len(objects):,} objects"
    image, object = next(iter(objects))
    return f"Object {object} in {image}"
