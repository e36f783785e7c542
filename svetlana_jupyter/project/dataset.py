"""What a project knows before any training: its images, its classes, and what people said of the objects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from traitlets import HasTraits, Int, Unicode

from svetlana_jupyter.core.annotations import UNLABELED, Action, Label, ObjectId
from svetlana_jupyter.core.classes import Classes, ClassInfo
from svetlana_jupyter.core.finding import COLUMNS, find_pairs
from svetlana_jupyter.core.pairing import ImagePair
from svetlana_jupyter.errors import InputError, SvetlanaError
from svetlana_jupyter.project.catalog import Catalog, ImageEntry, Source
from svetlana_jupyter.project.labelling import Labelling, default_annotator
from svetlana_jupyter.project.store import Store

MARKS = ("ambiguous", "bad", "skip")


class Dataset(HasTraits):
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

    classes_version = Int()
    images_version = Int()
    annotations_version = Int()
    status = Unicode()
    trouble = Unicode()

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        super().__init__()
        self.path = Path(path).absolute()
        names = Classes().adding(classes or ()).names  # refuses a name used twice before any folder is made
        self._lock = threading.RLock()
        self._store = Store(self.path)
        self._classes = _read_classes(self._store)
        self._catalog = Catalog(self._store)
        self._labelling = Labelling(
            self._store.annotations_folder,
            annotator or default_annotator(),
            self._store.writable,
            self._annotations_changed,
        )
        self.trouble = self._labelling.book.trouble
        if set(names) - set(self._classes.names):
            self._edit_classes(lambda known: known.adding(names))

    @property
    def images(self) -> Mapping[str, ImageEntry]:
        """The images by name, in the order in which they were added."""
        return dict(self._catalog.entries)

    def add(
        self,
        name: str,
        image: Source,
        mask: Source,
        axes: str | None = None,
        spacing: tuple[float, ...] | None = None,
        channels: Sequence[str] | None = None,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        """Add one image with its mask; adding the same again changes nothing.

        Parameters
        ----------
        name : str
        image, mask : path or array
            Files are read lazily where they lie and never written to; arrays are copied into the project.
            Several paths for the image are its channels.
        axes : str, optional
            For images that do not say, for example ``"zyx"`` or ``"cyx"``.
        spacing : tuple of float, optional
            Micrometres a pixel, ``([z,] y, x)``.
        channels : sequence of str, optional
        groups : mapping of str to str, optional
            What to group by: plate, well, patient, ...
        """
        entry = self._catalog.prepare(name, image, mask, axes, spacing, channels, groups)
        self._keep_images([entry])

    def add_images(
        self,
        images: str | Path,
        masks: str | Path,
        axes: str | None = None,
        spacing: tuple[float, ...] | None = None,
    ) -> pd.DataFrame:
        """Add all images that match a pattern, each with the mask of the same name; only headers are read.

        Parameters
        ----------
        images, masks : str
            Patterns like ``"wells/{plate}_{well}.tif"``. Placeholders pair images with masks, name the images and
            become grouping columns; ``{channel}`` stacks files that hold one channel each.

        Returns
        -------
        DataFrame
            One row a pair, as `core.pairing.find_pairs` gives it, with ``problem`` (a sentence, or empty).
            Rows with a problem were left out.

        Raises
        ------
        InputError
            If no pair can be used.
        """
        table = find_pairs(images, masks)
        groups = [column for column in table if column not in COLUMNS]
        entries = []
        for row in table.index[table["problem"] == ""]:
            found = table.loc[row]
            given: dict[str, str] = found[groups].to_dict()
            try:
                entries.append(
                    self._catalog.prepare(
                        found["name"], found["image"], found["mask"], axes, spacing, found["channels"], given
                    )
                )
            except SvetlanaError as error:
                table.loc[row, "problem"] = str(error)
        if not entries:
            problem = next(iter(table["problem"]), f"no file matches {images}")
            raise InputError(f"none of {len(table)} images could be added: {problem}")
        self._keep_images(entries)
        return table

    def pair(self, name: str) -> ImagePair:
        """Open an image with its mask, lazily."""
        return self._catalog.pair(name)

    def objects(self, name: str) -> pd.DataFrame:
        """Return the object index of an image (`core.objects.index_objects`), built on first use and kept."""
        return self._catalog.objects(name)

    @property
    def classes(self) -> Classes:
        """The classes, with stable ids, names, colours and keys."""
        return self._classes

    def add_class(self, name: str, color: str | None = None) -> None:
        """Add a class; one of that name stays as it is."""
        self._edit_classes(lambda classes: classes.adding([name], color))

    def rename_class(self, old: str, new: str) -> None:
        """Rename a class; its annotations and predictions follow."""
        self._edit_classes(lambda classes: classes.renaming(old, new))

    def recolor_class(self, name: str, color: str) -> None:
        """Give a class another colour, ``"#rrggbb"``."""
        self._edit_classes(lambda classes: classes.recoloring(name, color))

    def is_indexed(self, name: str) -> bool:
        """Whether `objects` would return at once."""
        return self._catalog.has_index(name)

    def input_folders(self) -> set[Path]:
        """Return the folders that images and masks lie in, where nothing may be written."""
        return self._catalog.folders()

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
        class_id = self.classes.by_name(class_name).id
        self._record("label", image, object, class_id, source, seconds)
        self.status = f"{_listed(image, object)} is {class_name}"

    def erase(self, image: str, object: int | Iterable[int], source: str = "script") -> None:
        """Take back what was said of objects."""
        self._record("erase", image, object, source=source)
        self.status = f"{_listed(image, object)} has no annotation any more"

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
        if mark not in MARKS:
            raise InputError(f"a mark is one of {', '.join(MARKS)}, got {mark!r}.")
        self._record(mark, image, object, source=source, seconds=seconds)  # type: ignore[arg-type]
        said = {
            "ambiguous": "is set aside as ambiguous",
            "bad": "is set aside as badly segmented",
            "skip": "is skipped",
        }
        self.status = f"{_listed(image, object)} {said[mark]}"

    def undo(self) -> bool:
        """Take back the last gesture; False if there is none."""
        with self._lock:
            return self._labelling.undo()

    def redo(self) -> bool:
        """Bring back the last gesture that was taken back; False if there is none."""
        with self._lock:
            return self._labelling.redo()

    @property
    def can_undo(self) -> bool:
        return bool(self._labelling.book.log.undoable)

    @property
    def can_redo(self) -> bool:
        return bool(self._labelling.book.log.redoable)

    def label_of(self, image: str, object: int) -> Label:
        """Return what stands for an object: a class, a mark, or nothing (``action`` "")."""
        return self._labelling.labels.get(ObjectId(image, object), UNLABELED)

    def labels(self) -> pd.DataFrame:
        """Return what stands for each object that something was said of.

        Returns
        -------
        DataFrame
            Indexed by ``(image, object)``: ``action`` ("label", "ambiguous", "bad" or "skip"), ``class_id`` (0 but for
            "label"), ``class`` (its name).
        """
        labels = self._labelling.labels
        index = pd.MultiIndex.from_tuples(list(labels), names=["image", "object"]) if labels else _EMPTY_INDEX
        names = dict(zip(self.classes.ids, self.classes.names))
        return pd.DataFrame(
            {
                "action": [label.action for label in labels.values()],
                "class_id": pd.Series([label.class_id for label in labels.values()], index=index, dtype="int64"),
                "class": pd.Series(
                    [names.get(label.class_id) for label in labels.values()], index=index, dtype="object"
                ),
            },
            index=index,
        )

    def annotations(self) -> pd.DataFrame:
        """Return the whole log, one row an entry, everybody's, in the order of time."""
        return self._labelling.table()

    def class_counts(self) -> pd.Series:
        """Return how many objects are annotated with each class, by name."""
        counts = self.labels()["class"].value_counts()
        return counts.reindex(list(self.classes.names), fill_value=0).rename("annotations")

    def rate(self) -> float:
        """Return how many annotations a minute are made at present, NaN if that is not known."""
        return self._labelling.rate()

    def _record(
        self,
        action: Action,
        image: str,
        object: int | Iterable[int],
        class_id: int = 0,
        source: str = "script",
        seconds: float | None = None,
    ) -> None:
        objects = _as_list(object)
        with self._lock:
            self._labelling.record(action, image, objects, self.objects(image), class_id, source, seconds)

    def _annotations_changed(self) -> None:
        self.annotations_version += 1

    def _keep_images(self, entries: list[ImageEntry]) -> None:
        with self._lock:
            if self._catalog.keep(entries):
                self.images_version += 1

    def _edit_classes(self, edit: Callable[[Classes], Classes]) -> None:
        with self._lock, self._store.editing_document() as document:
            self._classes = edit(_from_json(document["classes"]))
            document["classes"] = [vars(info) for info in self._classes]
        self.classes_version += 1


_EMPTY_INDEX = pd.MultiIndex.from_arrays(
    [pd.Series(dtype="object"), pd.Series(dtype="int64")], names=["image", "object"]
)


def _read_classes(store: Store) -> Classes:
    return _from_json(store.read_document()["classes"])


def _from_json(infos: list[dict[str, object]]) -> Classes:
    return Classes(ClassInfo(**info) for info in infos)  # type: ignore[arg-type]


def _as_list(object: int | Iterable[int]) -> list[int]:
    return [int(one) for one in object] if isinstance(object, Iterable) else [int(object)]


def _listed(image: str, object: int | Iterable[int]) -> str:
    objects = _as_list(object)
    return f"Object {objects[0]} in {image}" if len(objects) == 1 else f"Each of {len(objects)} objects in {image}"
