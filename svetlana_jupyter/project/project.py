"""The project: its data, and the classifiers trained on it with what they found.

Everything a panel does is one call here. State changes only on the thread and loop that made the project; jobs post
to it.

What an analysis goes on with: counts beside those of a person, and figures.

What the runs of a project found: tables, maps, counts, scores and explanations, of the run that was chosen.

A project that predicts: its runs over the objects of its images, here or on a cluster.

A project whose results go to other tools: as files in a folder of their own, and as a Dataset.

A dataset that takes in what other tools and tables say of its objects.

Segmentations that change under the annotations of a project: what would become of them, and the change itself.

A test set: objects that are scored alone, and whose predictions nobody sees before saying what they are.

What a project knows before any training: its images, its classes, and what people said of the objects.

The images and the classes of a project folder.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from traitlets import Any as AnyTrait
from traitlets import HasTraits, Int, Unicode

from svetlana_jupyter.core.annotations import UNLABELED, Action, Label, LabelAction, ObjectId
from svetlana_jupyter.core.classes import ClassInfo, ClassScheme
from svetlana_jupyter.core.io.file_pairs import PAIR_COLUMNS, find_pairs
from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.io.images import fingerprint
from svetlana_jupyter.core.io.table_files import TableSource
from svetlana_jupyter.core.predictions import class_map, merge_predictions, object_table, probability_map
from svetlana_jupyter.core.queue import uncertainty_order
from svetlana_jupyter.core.settings import AUTO_PRESET, TrainingSettings
from svetlana_jupyter.core.stats.outliers import HeldOutGroups, compare_images
from svetlana_jupyter.errors import InputError, ProjectError, SettingsError, SvetlanaError
from svetlana_jupyter.project.annotation_store import Annotations, LabelBatch, default_annotator
from svetlana_jupyter.project.counts import (
    CountComparison,
    compare_counts,
    count_objects,
    estimate_rates_on_test_set,
    images_with_conditions,
)
from svetlana_jupyter.project.distributed import resolve_client
from svetlana_jupyter.project.evaluation import (
    Evaluation,
    EvaluationData,
    compare_runs,
    evaluate_run,
    outlying_images,
    score_run,
    test_set_predictions,
)
from svetlana_jupyter.project.exporters import Export, ExportFinished
from svetlana_jupyter.project.exporters.output_folder import OutputFolder
from svetlana_jupyter.project.exporters.snapshot import ResultsSnapshot, to_xarray
from svetlana_jupyter.project.features import DEFAULT_FEATURE_GROUPS, feature_table, measure_images, needs_measuring
from svetlana_jupyter.project.image_collection import ImageCollection, ImageEntry, Source
from svetlana_jupyter.project.importers import read_imported_labels
from svetlana_jupyter.project.importers.imported_labels import ImportRequest, apply_import
from svetlana_jupyter.project.jobs import JobRunner, Progress, Stop, Work, thread_count
from svetlana_jupyter.project.mask_replacement import (
    STATUSES,
    Match,
    in_words,
    match_masks,
    read_label_mappings,
    save_mask,
    status_table,
)
from svetlana_jupyter.project.patch_previews import augmented_patches, check_pipeline
from svetlana_jupyter.project.prediction_job import (
    AllPredicted,
    ImagePredicted,
    PredictionTask,
    describe_failures,
    predict_images,
)
from svetlana_jupyter.project.queues import Queue
from svetlana_jupyter.project.repr_html import project_report_html
from svetlana_jupyter.project.runs import Run, read_runs
from svetlana_jupyter.project.storage import ProjectFolder, pack, unpack
from svetlana_jupyter.project.sweep import PAPER_GRID, cells, sweep, sweep_table
from svetlana_jupyter.project.test_set import FEWEST, Drawn, SamplingFrame, draw, read_test_set, write_test_set
from svetlana_jupyter.project.training_job import (
    LearningCurve,
    RunScored,
    TrainingAbandoned,
    TrainingTask,
    readiness,
    resolve_training_setup,
    select_training_objects,
    train_run,
)

if TYPE_CHECKING:
    from distributed import Client
    from matplotlib.figure import Figure
    from torch.nn import Module


class _InterimImages(Mapping[str, ImageEntry]):
    """Images of a project with all that functions need of them."""

    def __init__(self, project: Any) -> None:
        self._project = project
        self.pair, self.objects, self.is_indexed = project.pair, project.objects, project.is_indexed
        self.image_files, self.add_all, self.files = project.image_files, project.add_each, project.input_files

    def __getitem__(self, name: str) -> ImageEntry:
        return self._project._catalog.entries[name]  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(self._project._catalog.entries)

    def __len__(self) -> int:
        return len(self._project._catalog.entries)


class _InterimClasses:
    def __init__(self, project: Any) -> None:
        self._project, self.add = project, project.add_class

    @property
    def infos(self) -> Sequence[ClassInfo]:
        return self._project.classes.infos  # type: ignore[no-any-return]

    def by_id(self, class_id: int) -> ClassInfo:
        return self._project.classes.by_id(class_id)  # type: ignore[no-any-return]


class _InterimAnnotations:
    def __init__(self, project: Any) -> None:
        self.label_of, self.apply = project.label_of, project.say_each


class _InterimTestSet:
    def __init__(self, project: Any) -> None:
        self._project = project

    @property
    def objects(self) -> list[ObjectId]:
        return self._project.test_objects  # type: ignore[no-any-return]

    def __contains__(self, item: object) -> bool:
        return self._project.in_test_set(*item)  # type: ignore[no-any-return, misc]


class CollectionCollection(HasTraits):
    """Images with their objects, and classes to tell them apart by.

    Parameters
    ----------
    path : str or Path
        The project folder; made if it is new, else reopened where it was left.

    Attributes
    ----------
    classes_version, images_version : int
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
    status = Unicode()
    trouble = Unicode()

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path).absolute()
        self._lock = threading.RLock()
        self._store = ProjectFolder(self.path)
        self._classes = _from_json(self._store.read_document()["classes"])
        self._catalog = ImageCollection(self._store)

    @property
    def images(self) -> Mapping[str, ImageEntry]:
        """The images by name, in the order in which they were added."""
        return dict(self._catalog.entries)

    @property
    def _interim_images(self) -> _InterimImages:
        return _InterimImages(self)

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
            Several paths for the image are its channels. Outlines as QuPath exports them (GeoJSON) are drawn as a mask
            that is kept in the project; where they overlap the smaller one lies above, and `status` says so.
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

    def add_each(self, pairs: Mapping[str, tuple[Source, Source]]) -> None:
        """Add images with their masks by name, all of them or none."""
        self._keep_images([self._catalog.prepare(name, image, mask) for name, (image, mask) in pairs.items()])

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
            One row a pair, as `core.io.image_pair.find_pairs` gives it, with ``problem`` (a sentence, or empty).
            Rows with a problem were left out.

        Raises
        ------
        InputError
            If no pair can be used.
        """
        table = find_pairs(images, masks)
        groups = [column for column in table if column not in PAIR_COLUMNS]
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

    def objects(
        self, name: str, progress: Callable[[int, int], None] | None = None, wait: bool = False
    ) -> pd.DataFrame:
        """Return the object index of an image (`core.objects.index_objects`), built on first use and kept.

        Parameters
        ----------
        name : str
        progress : callable, optional
            Called with how many of how many steps are done.
        wait : bool
            Where another thread is finding the objects already, wait however long that takes, instead of an error
            after some seconds.
        """
        return self._catalog.objects(name, progress, wait)

    @property
    def classes(self) -> ClassScheme:
        """The classes, with stable ids, names, colours and keys."""
        return self._classes

    def add_class(self, name: str, color: str | None = None) -> None:
        """Add a class; one of that name stays as it is."""
        if name in {info.name for info in self.classes.infos if info.into}:
            raise InputError(
                f"{name!r} was merged into {self.classes.by_name(name).name!r}; take that back with "
                f"project.split_class({name!r}), or choose another name."
            )
        self._edit_classes(lambda classes: classes.adding([name], color))

    def rename_class(self, old: str, new: str) -> None:
        """Rename a class; its annotations and predictions follow."""
        self._edit_classes(lambda classes: classes.with_renamed(old, new))

    def recolor_class(self, name: str, color: str) -> None:
        """Give a class another colour, ``"#rrggbb"``."""
        self._edit_classes(lambda classes: classes.with_recolored(name, color))

    def merge_classes(self, name: str, into: str) -> None:
        """Count one class as another from now on: its annotations, predictions, and those still to come.

        Nothing that was said is rewritten: the class keeps its place in ``project.json`` with what it counts as, and
        `split_class` brings it back. Undo and redo, which are about objects, leave it alone.
        """
        self._edit_classes(lambda classes: classes.with_merged(name, into), needs=2)
        self.status = f"{name} counts as {self.classes.by_name(into).name}"

    def split_class(self, name: str) -> None:
        """Take back that a class was merged into another: what was said with it is its own again."""
        self._edit_classes(lambda classes: classes.with_unmerged(name))
        self.status = f"{name} is a class of its own again"

    def is_indexed(self, name: str) -> bool:
        """Whether `objects` would return at once."""
        return self._catalog.has_index(name)

    def input_files(self) -> list[Path]:
        """Return the files, or folders of Zarr, that images and masks are read from; nothing is written there."""
        return self._catalog.files()

    def mask_file(self, name: str) -> Path:
        """Return where the mask of an image lies."""
        return self._store.absolute(self._catalog.entry(name).mask)

    def image_files(self, name: str) -> list[Path]:
        """Return where the files of an image lie: one, or one a channel."""
        image = self._catalog.entry(name).image
        return [self._store.absolute(path) for path in (image if isinstance(image, tuple) else (image,))]

    def save_zip(self, path: str | Path | None = None, *, arrays: bool = True) -> Path:
        """Write the project to one zip file, from which `from_zip` opens it again.

        Everything in the project folder is in it: classes, annotations, settings, runs and their predictions. Images
        and masks that lie outside are referenced, not copied: keep them too, best beside the project.

        Parameters
        ----------
        path : str or Path, optional
            The file, or a folder for it; by default it is written beside the project.
        arrays : bool
            Whether to include images that were given as arrays and are kept in the project. Without them, the project
            opens, but these cannot be shown.

        Returns
        -------
        Path
            The file, written whole or not at all.
        """
        with self._lock:
            file = pack(self._store, path, arrays)
        self.status = f"Saved to {file}"
        return file

    def _keep_images(self, entries: list[ImageEntry]) -> None:
        with self._lock:
            if self._catalog.keep(entries):
                self.images_version += 1
            drawn = [self._catalog.notes.pop(entry.name) for entry in entries if entry.name in self._catalog.notes]
            if drawn:
                self.status = " ".join(drawn)

    def _edit_classes(self, edit: Callable[[ClassScheme], ClassScheme], needs: int = 1) -> None:
        with self._lock:
            with self._store.edit_document(needs) as document:
                classes = edit(_from_json(document["classes"]))
                document["classes"] = [_to_json(info) for info in classes.infos]
            self._classes = classes
            self._follow()
        self.classes_version += 1

    def _follow(self) -> None:
        """Bring what depends on classes and masks up to them."""


def _from_json(infos: list[dict[str, Any]]) -> ClassScheme:
    return ClassScheme(ClassInfo(**info) for info in infos)


def _to_json(info: ClassInfo) -> dict[str, Any]:
    """Return a class as ``project.json`` keeps it; ``into`` stands there only for a class that was merged."""
    return {key: value for key, value in vars(info).items() if key != "into" or value}


MARKS = ("ambiguous", "bad_segmentation", "skip")


class Dataset(CollectionCollection):
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
        label: int | Iterable[int],
        class_name: str,
        source: str = "script",
        seconds: float | None = None,
    ) -> None:
        """Give one object, or several in one edit, a class; on disk when this returns.

        Parameters
        ----------
        image : str
        label : int or iterable of int
        class_name : str
        source : str
            Where it comes from, for the log.
        seconds : float, optional
            How long the object had been looked at.
        """
        self.annotate_each(dict.fromkeys(_ids(image, label), class_name), source, seconds)

    def erase(self, image: str, label: int | Iterable[int], source: str = "script") -> None:
        """Take back what was said of objects."""
        self.erase_each(_ids(image, label), source)

    def mark(
        self,
        image: str,
        label: int | Iterable[int],
        mark: str,
        source: str = "script",
        seconds: float | None = None,
    ) -> None:
        """Set objects aside as "ambiguous" or "bad_segmentation" (badly segmented), or pass over them with "skip".

        What is set aside is neither trained on nor counted, and is reported as such.
        """
        self.mark_each(_ids(image, label), mark, source, seconds)

    def annotate_each(
        self, classes: Mapping[tuple[str, int], str], source: str = "script", seconds: float | None = None
    ) -> None:
        """Give objects, of one image or of several, a class each, all in one edit that one undo takes back.

        Parameters
        ----------
        classes : mapping of (image, object) to class name
        """
        ids = {name: self.classes.by_name(name).id for name in set(classes.values())}
        self._record("label", {label: ids[name] for label, name in classes.items()}, source, seconds)
        self.status = f"{_counted(classes)} {'is' if len(classes) == 1 else 'are'} {', '.join(sorted(ids))}"

    def say_each(self, words: Mapping[tuple[str, int], str], source: str = "script") -> None:
        """Give objects a class each, or set them aside as "ambiguous" or "bad_segmentation", all in one edit.

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
        """Set objects, of one image or of several, aside in one edit, as `mark` does with those of one image."""
        objects = dict.fromkeys(objects, 0)
        self._record(_checked(mark), objects, source, seconds)
        said = {
            "ambiguous": "set aside as ambiguous",
            "bad_segmentation": "set aside as badly segmented",
            "skip": "skipped",
        }
        self.status = f"{_counted(objects)} {'is' if len(objects) == 1 else 'are'} {said[mark]}"

    def erase_each(self, objects: Iterable[tuple[str, int]], source: str = "script") -> None:
        """Take back what was said of objects, of one image or of several, in one edit."""
        objects = dict.fromkeys(objects, 0)
        self._record("erase", objects, source)
        self.status = f"{_counted(objects)} {'has' if len(objects) == 1 else 'have'} no annotation any more"

    def undo(self) -> bool:
        """Take back the last edit; False if there is none."""
        with self._lock:
            return self._labelling.undo()

    def redo(self) -> bool:
        """Bring back the last edit that was taken back; False if there is none."""
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

    def label_of(self, image: str, label: int) -> Label:
        """Return what stands for an object: a class, a mark, or nothing (``action`` "")."""
        return self._labelling.labels.get(ObjectId(image, label), UNLABELED)

    def labels_of(self, image: str, objects: Sequence[int] | NDArray[np.integer]) -> dict[int, Label]:
        """Return what stands for these objects of an image, where something was said of them, and perhaps of others.

        As quick as there are objects asked for, or labels at all, whichever is less.
        """
        labels = self._labelling.labels
        if len(labels) < len(objects):
            return {subject.label: annotation for subject, annotation in labels.items() if subject.image == image}
        asked = ((label, labels.get(ObjectId(image, label))) for label in map(int, objects))
        return {label: annotation for label, annotation in asked if annotation is not None}

    def labels(self) -> pd.DataFrame:
        """Return what stands for each object that something was said of.

        Returns
        -------
        DataFrame
            Indexed by ``(image, object)``: ``action`` ("label", "ambiguous", "bad_segmentation" or "skip"),
            ``class_id`` (0 but for "label"), ``class`` (its name).
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
        """Write one edit; the images keep the order in which they are first named."""
        self._record_each({action: class_ids}, source, seconds)

    def _record_each(
        self, said: Mapping[Action, Mapping[tuple[str, int], int]], source: str, seconds: float | None = None
    ) -> None:
        """Write one edit of which several things are said."""
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


def _ids(image: str, label: int | Iterable[int]) -> list[ObjectId]:
    objects = label if isinstance(label, Iterable) else [label]
    return [ObjectId(image, int(one)) for one in objects]


def _by_image(class_ids: Mapping[tuple[str, int], int]) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for (image, label), class_id in class_ids.items():
        found.setdefault(image, {})[int(label)] = class_id
    return found


def _checked(mark: str) -> LabelAction:
    if mark not in MARKS:
        raise InputError(f"a mark is one of {', '.join(MARKS)}, got {mark!r}.")
    return mark  # type: ignore[return-value]


def _counted(objects: Mapping[tuple[str, int], object]) -> str:
    if len(objects) != 1:
        return f"{len(objects):,} objects"
    image, label = next(iter(objects))
    return f"Object {label} in {image}"


class Imports(Dataset):
    """A `Dataset` whose annotations may come from elsewhere."""

    def import_annotations(
        self,
        source: TableSource,
        image: str | None = None,
        *,
        column: str | None = None,
        names: Mapping[int, str] | Sequence[str] | None = None,
        overwrite: bool = False,
    ) -> pd.DataFrame:
        """Annotate objects as a file or table says: all in one edit, which one undo takes back.

        Parameters
        ----------
        source : path or DataFrame
            A table (CSV, Excel or DataFrame) with a row an object: columns for its image, its number in the mask or its
            position (x, y and z in pixels, or in µm where that stands in the header), and its class, in usual
            spellings; ilastik's object tables are such. Outlines or points from QuPath (GeoJSON), for the objects that
            they share more than half with, or lie on. A class image (TIFF, HDF5, ...), in which each pixel has the
            class of its object. The folder of a napari-svetlana project, whose images are added where they are not
            there yet.
        image : str, optional
            Of a source that does not say it; by default the one that the file is called after, or the only one.
        column : str, optional
            Which column of a table has the classes. By default what a person said goes before what a classifier said:
            "annotation", ilastik's "User Label", "class", ..., "Predicted Class".
        names : mapping of int to str or sequence of str, optional
            What the numbers of a class image mean (a sequence begins with 1), or those of napari-svetlana (it begins
            with 0).
        overwrite : bool
            Whether an object that is another class here takes the new one; otherwise it stays, and is said.

        Returns
        -------
        DataFrame
            One row for each of the source: ``image``, ``object``, ``class``, ``outcome`` ("taken", "known", "differs",
            "contradicts", "earlier", "no class", "not found") and ``why``. ``attrs["summary"]``, and `status`, say it
            in a sentence. Classes that are new are added, with the file's colours.

        Raises
        ------
        InputError
            If the source cannot be used; then nothing has changed.
        """
        self._store.check_writable()
        images = self._interim_images
        request = ImportRequest(images, self.classes, image, column, names)  # type: ignore[arg-type]
        labels = read_imported_labels(request, source)
        report = apply_import(images, _InterimClasses(self), _InterimAnnotations(self), labels, overwrite)  # type: ignore[arg-type]
        self.status = report.attrs["summary"]
        return report


class Masks(Imports):
    """A `Dataset` whose images can be given other masks."""

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        super().__init__(path, classes, annotator)
        self._matched: tuple[Hashable, Match] | None = None

    def check_mask(self, name: str, mask: Source) -> pd.DataFrame:
        """Return what `replace_mask` would do with the annotations of an image; nothing changes.

        May be called on any thread. A `replace_mask` with the same mask right behind it has little left to do.

        Parameters
        ----------
        name : str
        mask : path or array

        Returns
        -------
        DataFrame
            As of `replace_mask`, without ``carried``.

        Raises
        ------
        InputError
            If the mask cannot be used.
        """
        return status_table(self._match(name, mask), self._said_in(name))

    def replace_mask(self, name: str, mask: Source) -> pd.DataFrame:
        """Give an image another segmentation; annotations go over to the objects that took the place of theirs.

        Nothing is deleted: the log stays as it is, with undo and redo, and so do the old mask and the predictions made
        on it, which are of other objects and no longer shown. An object takes over an annotation that more than half
        of it had, by the pixels it shares with old objects; of objects with different annotations that became one,
        none does. Where the old mask can no longer be read (its file was overwritten), the boxes that are kept with
        each annotation are compared instead.

        Parameters
        ----------
        name : str
        mask : path or array
            Of the same shape. A file is read where it lies, an array is copied into the project, outlines (GeoJSON) are
            drawn there.

        Returns
        -------
        DataFrame
            One row an annotated object, indexed by its old number: ``class``; ``fate`` ("kept", "moved" to another
            number, "split" into several, "merged" with others, "lost"); ``new`` (the objects in its place); ``share``
            (how much of it lies in them); ``carried`` (those of them that have its annotation now).
            ``attrs["matched_by"]`` is "pixels" or "boxes".

        Raises
        ------
        InputError
            If the mask cannot be used; then nothing has changed.
        """
        with self._lock:
            self._check_idle()
            self._store.check_writable()
            before = self._said_in(name)
            match = self._match(name, mask)
            if match.opened is not None:
                save_mask(self._store, self._catalog, match)
                self._matched = None
                self._read_again()
            report = status_table(match, before)
            after = self._said_in(name)
        report["carried"] = [
            tuple(one for one in new if after.get(one) == said) for new, said in zip(report["new"], report["class"])
        ]
        counts = report["fate"].value_counts()
        said = ", ".join(f"{counts[fate]} {fate}" for fate in STATUSES if fate in counts)
        self.status = f"{name} has a new mask. Annotated objects: {said or 'none'}"
        return report

    def _match(self, name: str, mask: Source) -> Match:
        """Return how the objects of a mask follow those of an image, looked into once."""
        entry = self._catalog.entry(name)
        key = entry, fingerprint(mask), self.annotations_version
        if self._matched is None or self._matched[0] != key:
            ids = [ObjectId(name, label) for label in self._said_in(name)]
            logs = list(self._labelling.logs.values())
            self._matched = key, match_masks(self._store, self._catalog, name, mask, ids, logs)
        return self._matched[1]

    def _said_in(self, name: str) -> dict[int, str]:
        """Return what stands for the objects of an image, as a class or a mark; what was only skipped is left out."""
        return in_words(dict(self._labelling.labels), name, dict(zip(self.classes.ids, self.classes.names)))


class Blind(Masks):
    """A `Dataset` that keeps objects apart which were drawn at random."""

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        super().__init__(path, classes, annotator)
        self._drawn: Drawn | None = None
        self._weights: tuple[object, Drawn | None, Mapping[ObjectId, float]] = None, None, {}

    def draw_test_set(self, n: int, per: Sequence[str] | str | None = None, seed: int = 0) -> pd.DataFrame:
        """Draw objects at random that the accuracy is measured on, and nothing else.

        They are never trained on, nor used to choose a preset or to calibrate, whatever is said of them. What is
        predicted of them is not shown before a person has annotated them; ``project.queue("test")`` brings them, and
        once most are annotated, `evaluate` scores a run on them. They are drawn among the objects that nobody has
        annotated yet, as it is those that a classifier decides. Drawing again as before changes nothing.

        Parameters
        ----------
        n : int
            How many, in each group where ``per`` is given.
        per : str or sequence of str, optional
            "image" or grouping columns, for example "well": as many of each. Objects are then weighted by how many each
            stands for.
        seed : int

        Returns
        -------
        DataFrame
            As of `test_set`.

        Raises
        ------
        ProjectError
            If another test set was drawn already: to draw until the result pleases would make it worthless.
        """
        columns = (per,) if isinstance(per, str) else tuple(per or ())
        if n < 1:
            raise InputError(f"a test set needs objects, got n={n}.")
        with self._lock:
            known = self._drawn_before()
            if known is None:
                drawn = draw(self._pools(columns), n, columns, seed)
                if len(drawn.object_ids) < FEWEST:
                    raise InputError(
                        f"a test set of {len(drawn.object_ids)} objects would say little; draw at "
                        f"least {FEWEST}, better "
                        "100, which give an accuracy within some 6 %."
                    )
                write_test_set(self._store, drawn)
                self._drawn = drawn
            elif (known.n, known.per, known.seed) != (n, columns, seed):
                raise ProjectError(
                    f"a test set of {len(known.object_ids)} objects was drawn already ({known.time[:10]}, n={known.n}, "
                    f"seed={known.seed}), and a second one could be chosen by its result. To start over, which gives "
                    f"up what was kept apart, remove {self._store.test_set_file}."
                )
        count = len(self.test_objects)
        self.status = f"{count:,} objects are kept apart as a test set: annotate them with the queue “test”"
        return self.test_set()

    def test_set(self) -> pd.DataFrame:
        """Return the objects of the test set, in the order in which they were drawn, and what was said of them.

        Returns
        -------
        DataFrame
            Indexed by ``(image, object)``: ``stands_for`` (objects), ``action`` ("" where nothing was said yet) and
            ``class``. Without rows where no test set was drawn.
        """
        weights = self._test_weights()
        labels = [self.label_of(*id) for id in weights]
        names = dict(zip(self.classes.ids, self.classes.names))
        index = pd.MultiIndex.from_tuples(list(weights), names=["image", "object"]) if weights else _NO_OBJECTS
        columns = {
            "stands_for": pd.Series(list(weights.values()), index, "float64"),
            "action": pd.Series([label.action for label in labels], index, "object"),
            "class": pd.Series([names.get(label.class_id) for label in labels], index, "object"),
        }
        return pd.DataFrame(columns, index)

    @property
    def test_objects(self) -> list[ObjectId]:
        """The objects of the test set, in the order in which they were drawn, by their numbers of today."""
        return list(self._test_weights())

    def in_test_set(self, image: str, label: int) -> bool:
        """Whether an object is scored alone."""
        return ObjectId(image, label) in self._test_weights()

    def hidden(self, image: str) -> frozenset[int]:
        """Return the objects of an image whose predictions are not shown: of the test set, and not annotated yet."""
        mine = [id for id in self._test_weights() if id.image == image]
        return frozenset(id.label for id in mine if self.label_of(*id).action in ("", "skip"))

    def training_labels(self) -> pd.DataFrame:
        """Return the rows of `labels` that a classifier may learn from: with a class, and not of the test set."""
        labels = self.labels().query("action == 'label'")
        apart = labels.index.isin(self.test_objects) if self.test_objects else False
        return labels[~pd.Series(apart, labels.index)]

    def training_counts(self) -> pd.Series:
        """Return how many objects of each class a classifier may learn from, by name."""
        counts = self.class_counts()
        apart = Counter(self.label_of(*id).class_id for id in self.test_objects)
        return counts - pd.Series({info.name: apart[info.id] for info in self.classes}, counts.index, "int64")

    def _drawn_before(self) -> Drawn | None:
        if self._drawn is None:  # perhaps another notebook drew one meanwhile
            self._drawn = read_test_set(self._store)
        return self._drawn

    def _test_weights(self) -> Mapping[ObjectId, float]:
        """Return how many objects each of the test set stands for."""
        drawn = self._drawn_before()
        if self._weights[0] is not self._steps or self._weights[1] is not drawn:
            found: dict[ObjectId, float] = {}
            for subject, weight in zip(drawn.object_ids, drawn.stands_for) if drawn else ():
                if subject.image in self.images:
                    found |= dict.fromkeys(self._labelling.current_objects(subject), weight)
            self._weights = self._steps, drawn, found
        return self._weights[2]

    def _pools(self, per: tuple[str, ...]) -> list[list[SamplingFrame]]:
        """Return the objects that may be drawn, by the group of images that they are drawn from."""
        said: dict[str, list[int]] = {}
        for id, label in self._labelling.labels.items():
            if label.action != "skip":
                said.setdefault(id.image, []).append(id.label)
        groups: dict[tuple[str, ...], list[SamplingFrame]] = {}
        for name, entry in self.images.items():
            known = {**entry.groups, "image": name}
            unknown = [column for column in per if column not in known]
            if unknown:
                raise InputError(
                    f"image {name!r} has no column {unknown[0]!r} to draw by; choose among {', '.join(known)}."
                )
            free = self.objects(name).index.difference(said.get(name, [])).to_numpy(np.int64)
            if len(free):
                group = groups.setdefault(tuple(known[column] for column in per), [])
                group.append(SamplingFrame(name, entry.mask_number, free))
        if not groups:
            raise ProjectError("there is no object without annotation to draw; add images first.")
        return list(groups.values())


_NO_OBJECTS = pd.MultiIndex.from_arrays(
    [pd.Series([], dtype="object"), pd.Series([], dtype="int64")], names=["image", "object"]
)


class Results(Blind):
    """A dataset with its finished runs and all that can be read off them.

    Attributes
    ----------
    predictions_version, runs_version : int
        Count up with every change, for panels to observe.
    current_run : str
        The name of the run that everything shows; "" before the first training.
    """

    predictions_version = Int()
    runs_version = Int()
    current_run = Unicode()

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        super().__init__(path, classes, annotator)
        self._predicted: dict[tuple[str, str], tuple[Mapping[int, int], int, pd.DataFrame]] = {}
        self._shown: dict[tuple[str, str], tuple[pd.DataFrame, frozenset[int], pd.DataFrame]] = {}
        self._runs = read_runs(self._store.runs_folder)
        self._networks: dict[str, Module] = {}  # of runs whose network was given as an object in this session
        chosen = str(self._store.read_document().get("current_run", ""))
        self.current_run = chosen if chosen in self._runs else max(self._runs, default="")

    @property
    def runs(self) -> list[Run]:
        """All finished runs, the oldest first."""
        return list(self._runs.values())

    def run(self, name: str | None = None) -> Run:
        """Return a finished run by name, the current one by default."""
        name = name or self.current_run
        if not name:
            raise ProjectError("there is no trained classifier yet; annotate some objects of each class, then train.")
        if name not in self._runs:
            raise InputError(f"there is no run {name!r}; the runs are {', '.join(self._runs) or 'none yet'}.")
        return self._runs[name]

    def choose_run(self, name: str) -> None:
        """Make another finished run the current one, here and when the project is reopened."""
        self._make_current(self.run(name))

    def probabilities(self, image: str, run: str | None = None) -> pd.DataFrame:
        """Return what a run predicted for the objects of one image.

        Returns
        -------
        DataFrame
            Indexed by object: ``predicted`` (class id), ``probability``, one ``p_<class id>`` each, calibrated where
            the run has a calibration; empty before the image was predicted. Objects of the test set are left out
            before they are annotated.
        """
        self._catalog.entry(image)
        if not (run or self.current_run):
            return _NOTHING_PREDICTED
        table, hidden = self._all_probabilities(self.run(run), image), self.hidden(image)
        if not hidden:
            return table
        seen = run or self.current_run, image
        if seen not in self._shown or self._shown[seen][0] is not table or self._shown[seen][1] != hidden:
            self._shown[seen] = table, hidden, table.drop(index=list(hidden), errors="ignore")
        return self._shown[seen][2]

    def _all_probabilities(self, run: Run, image: str) -> pd.DataFrame:
        """Return what `probabilities` does, with what is hidden from people."""
        seen, merged, mask = (run.name, image), self.classes.merged, self._catalog.entry(image).mask_number
        known = self._predicted.get(seen)
        if known is None or known[:2] != (merged, mask):
            table = run.read_predictions(image)
            if table is None or table.attrs.get("mask", 0) != mask:  # its objects are those of another mask
                table = _NOTHING_PREDICTED
            table = merge_predictions(run.calibration.apply(table), merged)
            self._predicted[seen] = known = merged, mask, table
        return known[2]

    def predictions(self, images: Iterable[str] | None = None) -> pd.DataFrame:
        """Return one row for each object, as `core.predictions.object_table` describes it."""
        tables = [self._object_table(name) for name in self._chosen(images)]
        if not tables:
            raise ProjectError("the project has no images yet; add some with project.add_images(...).")
        return pd.concat(tables)

    def failed(self, images: Iterable[str] | None = None, run: str | None = None) -> pd.DataFrame:
        """Return the objects that a run could not see, because their pixels do not decode.

        Returns
        -------
        DataFrame
            Indexed by ``(image, object)``: ``why``, a sentence. `predictions` shows them without a prediction;
            `predict` tries them again.
        """
        rows = [
            (name, int(label), str(why))
            for name in self._chosen(images)
            for label, why in self.run(run).predictions_attributes(name).get("failed", ())
        ]
        return pd.DataFrame(rows, columns=["image", "object", "why"]).set_index(["image", "object"])

    def class_map(self, image: str) -> xr.DataArray:
        """Return the class under each pixel of an image, lazily (`core.predictions.class_map`)."""
        return class_map(self.pair(image).mask, self._object_table(image).droplevel("image"), self.classes)

    def probability_map(self, image: str) -> xr.DataArray:
        """Return the probability of the predicted class under each pixel, lazily; NaN where there is none."""
        return probability_map(self.pair(image).mask, self._object_table(image).droplevel("image"))

    def counts(
        self,
        by: Sequence[str] | str = (),
        conditions: TableSource | None = None,
        *,
        exclude_border: bool = False,
        size: tuple[float | None, float | None] = (None, None),
        corrected: bool = False,
    ) -> pd.DataFrame:
        """Count the objects of each class, by image, grouping columns or conditions, with what was left out.

        Parameters
        ----------
        by : str or sequence of str
            "image", grouping columns or condition columns, for example ``["plate", "well"]`` or "dose"; all objects
            together by default.
        conditions : path or DataFrame, optional
            A CSV or table with one row a well (a plate and well, a patient, an image) and what was done to it
            (`core.io.table_files.join_conditions`). Conditions that are the same throughout a group stand beside it.
            Rows and images that find no partner are named in `status`; their conditions are missing.
        exclude_border : bool
            Whether to leave out objects that touch the border of their image.
        size : tuple of float or None
            Pixels (voxels) that an object must have at least, and at most: ``(50, None)`` leaves out small ones.
        corrected : bool
            Whether to add counts that are freed from the classifier's mistakes by those it made on the test set
            (`core.stats.count_correction`): annotated objects count as they are, the others as so many of each class
            as would be
            predicted like this. Each class is taken to be recognised as well in every group as in the test set.

        Returns
        -------
        DataFrame
            Tidy, one row a group and class: ``count``, ``total``, ``fraction`` with its 95 % interval over objects
            (``low``, ``high``), ``corrected`` with its own (``corrected_low``, ``corrected_high``) where it is asked
            for, and ``left_out`` by reason (`core.stats.metrics.count_classes`).

        Raises
        ------
        ProjectError
            If counts are to be corrected and there is no test set, or it does not say enough.
        """

        def estimate_rates(counted: pd.DataFrame) -> Any:
            predictions, reason = test_set_predictions(self.run(), self._evaluation_data())
            return estimate_rates_on_test_set(predictions, reason, counted, self.classes)

        names, rates = self.classes.names, estimate_rates if corrected else None
        table, remark = count_objects(
            self.predictions(), self._groups(), names, by, conditions, exclude_border, size, rates
        )
        self.status = remark or self.status
        return table

    def evaluate(self, run: str | None = None) -> Evaluation:
        """Return how good a run is, as far as it is known, with the source of the figure."""
        chosen = self.run(run)
        exclude_border, size = chosen.settings.get("exclude_border", False), chosen.settings.get("size")
        labels, _ = select_training_objects(self.training_labels(), self.objects, exclude_border, size)
        return evaluate_run(chosen, self._evaluation_data(), labels, self.compare_images(run=chosen.name))

    def _evaluation_data(self) -> EvaluationData:
        return EvaluationData(
            self.classes, self.images, self.mark_counts(), self.test_set(), self.objects, self._all_probabilities
        )

    def score_run(self, run: Run) -> Evaluation:
        """Return the score of a run, without a comparison of images."""
        return score_run(run, self._evaluation_data())

    def _groups(self) -> dict[str, Mapping[str, str]]:
        return {name: entry.groups for name, entry in self.images.items()}

    def compare_images(self, images: Iterable[str] | None = None, run: str | None = None) -> pd.DataFrame:
        """Return how much of each predicted image looks unlike all annotated objects (`core.novelty.compare_images`).

        Parameters
        ----------
        images : iterable of str, optional
            All by default.
        run : str, optional
            The current one by default.

        Returns
        -------
        DataFrame
            Indexed by image: ``asked`` (how many of its objects, at random), ``novelty`` (share of them; 5 % are
            expected), ``annotated``, ``p``, and ``warn``, whether the image as a whole looks unlike those annotated:
            then its predictions are not to be trusted before some of its objects are annotated too. Without rows where
            too little was annotated to tell.
        """
        chosen, wanted = self.run(run), self._chosen(images)
        counts = self.training_labels().groupby(level="image").size()
        annotated = {str(image): int(count) for image, count in counts.items()}
        entries = self.images
        if chosen.left_out is None:
            return compare_images(chosen.outlier_fractions({}), annotated, HeldOutGroups((), ()))
        # The annotated images say what is usual, whichever are asked for.
        masks = {name: entries[name].mask_number for name in dict.fromkeys([*wanted, *annotated])}
        found = compare_images(chosen.outlier_fractions(masks), annotated, chosen.left_out)
        return found[found.index.isin(wanted)]

    def compare_runs(self) -> pd.DataFrame:
        """Return the finished runs side by side, the latest first.

        Returns
        -------
        DataFrame
            Indexed by run: ``finished`` (UTC), ``preset``, ``architecture``, ``may_use``, ``labels`` (annotations it
            learned from), ``source`` of its score, ``accuracy`` with its 95 % interval ``low`` and ``high``,
            ``balanced`` accuracy, accuracy of the ``forest`` tried beside it, ``epochs``, ``stopped``, ``seconds`` of
            training, a digest of the ``annotations`` (the same for the same ones), and whether it is ``current``.
            Scores of runs that learned from other annotations were measured on other objects.
        """
        return compare_runs(self.runs, self.score_run, self.current_run)

    def explain(self, image: str, label: int, class_name: str | None = None) -> xr.Dataset:
        """Return the patch of an object as the classifier sees it, and where it looked (Grad-CAM).

        Parameters
        ----------
        class_name : str, optional
            The class whose evidence is asked for; the predicted one by default.
        """
        from svetlana_jupyter.learn.classifier import load_classifier
        from svetlana_jupyter.learn.gradcam import explain

        run = self.run()
        class_id = self.classes.by_name(class_name).id if class_name else None
        if label in self.hidden(image):
            raise ProjectError(
                f"object {label} of {image!r} belongs to the test set: annotate it first, so that nobody is led."
            )
        return explain(
            self.pair(image),
            self.objects(image),
            label,
            load_classifier(run.path, self._networks.get(run.name)),
            class_id,
        )

    def queue(
        self,
        kind: str = "random",
        seed: int = 0,
        images: Iterable[str] | None = None,
        near: tuple[str, int] | None = None,
    ) -> Queue:
        """Return a queue of objects to look at that nobody has said anything of, each with the reason for it.

        Parameters
        ----------
        kind : {"random", "uncertain", "near", "image", "test"}
            Uniformly at random; the least certain first; those nearest to the object ``near``, in its image; one image
            after the other; or those of the test set, which no other queue brings.
        seed : int
            Of the random order.
        images : iterable of str, optional
            All by default.
        near : (image, object), optional
            For "near".
        """
        return Queue(
            self._interim_images,  # type: ignore[arg-type]
            _InterimAnnotations(self),
            _InterimTestSet(self),
            self.predictions,
            kind,
            seed,
            self._chosen(images),
            near,
        )

    def uncertain(self, n: int = 100) -> list[ObjectId]:
        """Return up to ``n`` objects without annotation, those predicted with the least probability first."""
        table = self.predictions()
        found = uncertainty_order(table[table["annotation"].isna()])
        return [candidate.id for candidate, _ in zip(found, range(n))]

    def replace_mask(self, name: str, mask: Source) -> pd.DataFrame:
        report = super().replace_mask(name, mask)
        self.predictions_version += 1
        return report

    def draw_test_set(self, n: int, per: Sequence[str] | str | None = None, seed: int = 0) -> pd.DataFrame:
        drawn = super().draw_test_set(n, per, seed)
        self.predictions_version += 1
        return drawn

    def _object_table(self, name: str) -> pd.DataFrame:
        predictions = self.probabilities(name)
        return object_table(
            name,
            self.objects(name),
            self._catalog.entry(name).groups,
            self._labelling.labels,
            None if predictions.empty else predictions,
            self.classes,
            self.current_run,
        )

    def _chosen(self, images: Iterable[str] | None) -> list[str]:
        if images is None:
            return list(self.images)
        names = [images] if isinstance(images, str) else list(images)
        return [self._catalog.entry(name).name for name in names]

    def _make_current(self, run: Run) -> None:
        if self._store.writable:
            with self._store.edit_document() as document:
                document["current_run"] = run.name
        self.current_run = run.name
        self.predictions_version += 1


_NOTHING_PREDICTED = pd.DataFrame(
    {"predicted": pd.Series(dtype="int64"), "probability": pd.Series(dtype="float32")},
    index=pd.Index([], dtype="int64", name="object"),
)


Value = Literal["fraction", "count"]


class Analysis(Results):
    """Results that are compared with other counts, and plotted."""

    def compare_counts(
        self,
        manual: TableSource | Mapping[str, float],
        class_name: str | None = None,
        *,
        exclude_border: bool = False,
        size: tuple[float | None, float | None] = (None, None),
    ) -> CountComparison:
        """Compare the counts of a class with those of a person, well by well or image by image.

        Parameters
        ----------
        manual : path, DataFrame or mapping
            A CSV or table with a column called like a grouping column ("well") or "image", and either "class" and
            "count" or a column called like the class; other columns, a treatment say, are kept. Or the count of each
            image by its name.
        class_name : str, optional
            Which class, where the table counts several.
        exclude_border, size
            What is left out, as for `counts`.

        Returns
        -------
        CountComparison
            ``slope``, ``intercept``, ``r2``, ``bias``, ``limits`` (95 % limits of agreement), ``n``, the ``table``, and
            ``figure()``: the paper's Fig. 4 h with the plot of Bland and Altman.

        Raises
        ------
        InputError
            If no row of the table fits, or fewer than three do.
        """
        found = compare_counts(
            self.predictions(), self._groups(), self.classes, manual, class_name, exclude_border, size
        )
        self.status = str(found)
        return found

    def plot_counts(
        self,
        by: Sequence[str] | str = (),
        conditions: TableSource | None = None,
        *,
        replicates: Sequence[str] | str | None = None,
        classes: Sequence[str] | str | None = None,
        value: Value = "fraction",
        exclude_border: bool = False,
        size: tuple[float | None, float | None] = (None, None),
    ) -> Figure:
        """Plot the counts of the classes: a point a replicate, with their mean and its 95 % interval.

        Parameters
        ----------
        by : str or sequence of str
            What makes the groups along the axis, as for `counts`: "dose", "image", ...
        conditions : path or DataFrame, optional
            As for `counts`.
        replicates : str or sequence of str, optional
            What a point stands for: "well", "patient", ... By default all grouping columns, or the image where there
            are none. Where each group is a single image, the interval is over its objects.
        classes : str or sequence of str, optional
            Which classes are shown; all by default.
        value : {"fraction", "count"}
        exclude_border, size
            As for `counts`.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from svetlana_jupyter.project.plots import plot_counts

        if value not in get_args(Value):
            raise InputError(f"value is “fraction” or “count”, got {value!r}.")
        by = [by] if isinstance(by, str) else list(by)
        names = [classes] if isinstance(classes, str) else list(classes or self.classes.names)
        chosen = {self.classes.by_name(name).name for name in names}
        images, _ = images_with_conditions(self._groups(), conditions)
        if replicates is None:
            own = sorted({column for entry in self.images.values() for column in entry.groups})
            points = [column for column in images.columns if column in own] or ["image"]
        else:
            points = [replicates] if isinstance(replicates, str) else list(replicates)
        points = [column for column in points if column not in by]
        if "image" in by:
            points = []
        table = self.counts([*by, *points], conditions, exclude_border=exclude_border, size=size)
        if not table["total"].any():
            raise ProjectError("nothing is counted yet: predict first with project.predict(), or annotate objects.")
        shown = ClassScheme(info for info in self.classes if info.name in chosen)
        return plot_counts(table[table["class"].isin(chosen)], by, points, shown, value)

    def plot_gallery(self, n: int = 8) -> Figure:
        """Plot the ``n`` objects of each class that the classifier is most certain and least certain of.

        Objects that a person has annotated are left out. Each is shown with its outline and probability.
        """
        from svetlana_jupyter.project.plots import plot_gallery

        if n < 1:
            raise InputError(f"a gallery shows at least one object of each class, got n={n}.")
        table = self.predictions()
        table = table[table["predicted"].notna() & table["annotation"].isna()]
        if table.empty:
            raise ProjectError("nothing is predicted yet; call project.predict() first.")
        return plot_gallery(self.pair, self.objects, self.classes, table, n)

    def plot_confusion(self, run: str | None = None) -> Figure:
        """Plot which classes a run takes for which, on the objects that `evaluate` scores it by."""
        from svetlana_jupyter.project.plots import plot_confusion

        report = self.evaluate(run)
        if report.network is None:
            raise ProjectError(f"it is not known how often run {report.run} is right: {report.text}")
        title = f"run {report.run}, {report.source}: {report.network.accuracy.value:.1%} right"
        return plot_confusion(report.network.confusion, self.classes, title)


class Predicting(Results):
    """Results that can be made.

    Attributes
    ----------
    job : JobState or None
        The running training or prediction.
    """

    job = AnyTrait(allow_none=True)

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        super().__init__(path, classes, annotator)
        self._jobs = JobRunner(self)

    def handle(self, event: object) -> None:
        """Take in one event of a job; only ever called by the owner."""
        if isinstance(event, ImagePredicted):
            self._take_predicted(event)
        elif isinstance(event, AllPredicted):
            self._tell(event.images)

    def predict(
        self,
        images: Iterable[str] | None = None,
        run: str | None = None,
        *,
        client: Client | Literal["local"] | None = None,
        resume: bool = True,
        average: bool = False,
        network: Module | None = None,
    ) -> None:
        """Classify every object of the images (all by default) and wait.

        What is done is kept part after part: after a stop, Ctrl-C or a power cut the same call does the rest alone. An
        image that is predicted already is left out, unless it, its mask or its objects have changed since.

        Parameters
        ----------
        images : iterable of str, optional
        run : str, optional
            The current one by default.
        client : dask.distributed.Client or "local", optional
            Of the cluster that does the work; by default the client that is active, else this machine. Its workers must
            see the images under the same paths.
        resume : bool
            Whether to leave out what is predicted already; otherwise all is done anew.
        average : bool
            Average over the mirrored and turned views that the run was trained with; each costs a prediction.
        network : torch.nn.Module, optional
            Your own, where the run was trained in an earlier session with one that was given as an object.

        Raises
        ------
        ClassifierError
            Before anything is predicted, if the run does not fit an image.
        InputError
            At the end, if some images could not be predicted; the others are.
        """
        if network is not None:
            self._networks[self.run(run).name] = network
        self._jobs.run("prediction", self._prediction(images, run, thread_count("script"), client, resume, average))

    def start_prediction(self, images: Iterable[str] | None = None, run: str | None = None) -> None:
        """Classify on a thread of its own, so that the notebook stays free."""
        self._jobs.start("prediction", self._prediction(images, run, thread_count("panel")))

    def leave_out(self, images: Collection[str]) -> None:
        """Go on as if some images were not part of the project, until it is opened again; nothing is written."""
        with self._lock:
            self._catalog.leave_out(images)
            self.images_version += 1

    def _prediction(
        self,
        images: Iterable[str] | None,
        run: str | None,
        threads: int,
        client: Client | Literal["local"] | None = None,
        resume: bool = True,
        average: bool = False,
    ) -> Work:
        chosen, names = self.run(run), self._chosen(images)
        self._store.check_writable()
        task = self._predicting(names, chosen, threads, self._networks.get(chosen.name))
        task = replace(task, client=resolve_client(client), resume=resume, average=average)
        return lambda stop: predict_images(task, stop)

    def _predicting(self, names: list[str], run: Run, threads: int, network: Module | None) -> PredictionTask:
        masks = {name: entry.mask_number for name, entry in self.images.items()}
        return PredictionTask(
            names, run, threads, self.pair, self.objects, self._catalog.image_fingerprint, masks, network
        )

    def _take_predicted(self, event: ImagePredicted) -> None:
        self._predicted.pop((event.run, event.image), None)
        self.predictions_version += 1
        self._tell((event,))

    def _tell(self, events: Sequence[ImagePredicted]) -> None:
        """Say what was predicted, and all that a person should know of it."""
        where = events[0].image if len(events) == 1 else f"{len(events):,} images"
        said = [f"{sum(event.count for event in events):,} objects of {where} are predicted"]
        said += [
            f"{event.image} has changed since it was predicted, so all of it was predicted anew"
            for event in events
            if event.changed
        ]
        compared = self.compare_images([event.image for event in events], events[0].run)
        if compared["warn"].any():
            said.append(outlying_images(compared))
        failed = [describe_failures(event.image, event.failed) for event in events if event.failed]
        if failed:
            self.trouble = ". ".join(failed)
        self.status = ". ".join([*said, *failed])


class Exporting(Predicting):
    """Results that are written for other tools.

    Attributes
    ----------
    exported : Written or None
        The last export that ran beside the notebook.
    """

    exported = AnyTrait(allow_none=True)

    def handle(self, event: object) -> None:
        """Take in one event of a job; only ever called by the owner."""
        if isinstance(event, ExportFinished):
            self.exported, self.status = event, event.text
        else:
            super().handle(event)

    def export(self, folder: str | Path, formats: Sequence[str] = ("csv",)) -> list[Path]:
        """Write the results to a folder of their own, as they stand now, and return the files.

        Parameters
        ----------
        folder : str or Path
            Made if it is new. Not one that images or masks lie in, nor part of the project. Files of an earlier export
            there are replaced, others are not.
        formats : sequence of str
            "csv", "parquet", "excel" (tables), "anndata" (for scanpy), "tiff" (class maps for ImageJ), "ome-tiff",
            "masks" (one a class), "ome-zarr", "geojson" (outlines for QuPath), "patches" (those annotated).

        Raises
        ------
        InputError
            If a format is not known.
        ProjectError
            If the folder is not for exports, a format cannot hold the results (before anything is written), or a file
            cannot be written; every file is whole or not there.
        """
        return list(self._export(folder, formats).files())

    def start_export(self, folder: str | Path, formats: Sequence[str] = ("csv",)) -> None:
        """Export on a thread of its own, so that the notebook stays free; `job` and `status` tell."""
        export = self._export(folder, formats)
        self.exported = None

        def work(stop: Stop) -> Iterator[object]:
            files: list[Path] = []
            yield Progress(0, 1, "exporting")
            for file in export.files(stop):
                files.append(file)
                yield Progress(export.done, 1, f"{file.name} is written")
            yield ExportFinished(export.folder, tuple(files), export.stopped)

        self._jobs.start("export", work)

    def to_xarray(self, images: Iterable[str] | None = None) -> xr.Dataset:
        """Return the table of objects as arrays with dims ``object`` and ``class`` (`core.predictions`).

        What was measured already is in it too. Its ``to_netcdf("objects.nc")`` and ``to_zarr`` write it.
        """
        return to_xarray(self._snapshot(self._chosen(images)))

    def _export(self, folder: str | Path, formats: Sequence[str]) -> Export:
        names = list(self.images)
        output = OutputFolder(Path(folder), self.path, names, self.input_files())
        return Export(lambda: self._snapshot(names), output, formats)

    def _snapshot(self, names: Sequence[str]) -> ResultsSnapshot:
        """Return the present results; any thread may call this while annotating goes on."""
        for name in names:
            self.objects(name, wait=True)
        with self._lock:
            labels = self.labels().query("action == 'label'")
            labels = labels[labels.index.get_level_values("image").isin(names)]
            test_set = [self.in_test_set(str(image), int(label)) for image, label in labels.index]
            return ResultsSnapshot(
                self.path.name,
                self.pair,
                self.objects,
                self.settings,  # type: ignore[attr-defined]
                self.predictions(names),
                labels[["class", "class_id"]].assign(test_set=test_set),
                self.classes,
                self.current_run,
                {name: self.images[name].groups for name in names},
            )


class Project(Exporting, Analysis):
    """Objects of images, what people say of them, and what classifiers make of that.

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
    classes_version, images_version, annotations_version, predictions_version, runs_version : int
        Count up with every change, for panels to observe.
    current_run : str
        The name of the run that table, maps, counts and export show; "" before the first training.
    job : JobState or None
        The running training or prediction.
    live : LiveCurve or None
        The curve of the training that runs or ran last.
    status, trouble : str
        What was done last, and the last problem that no call could raise.

    Raises
    ------
    ProjectError
        If the folder cannot be made or is no project.
    """

    live = AnyTrait(allow_none=True)

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        super().__init__(path, classes, annotator)
        self._network: Module | None = None  # of the training that runs, where it was given as an object
        if self._store.writable and not self._store.settings_file.exists():
            self.settings = TrainingSettings()

    @property
    def settings(self) -> TrainingSettings:
        """What the next training uses: ``training.json`` of the project, which may be edited by hand."""
        file = self._store.settings_file
        if not file.exists():
            return TrainingSettings()
        try:
            return TrainingSettings.from_json(file.read_text("utf-8"))
        except SettingsError as error:
            raise SettingsError(f"{file}: {error}") from error

    @settings.setter
    def settings(self, settings: TrainingSettings) -> None:
        check_pipeline(self._interim_images, self._labeled(), settings)  # type: ignore[arg-type]
        self._store.write_text(self._store.settings_file, settings.to_json() + "\n")

    def preview_augmentation(
        self, image: str, label: int, settings: TrainingSettings | None = None, n: int = 8
    ) -> xr.DataArray:
        """Return ``n`` patches of an object (n, channel, [z,] y, x), each varied as training varies it.

        Parameters
        ----------
        settings : TrainingSettings, optional
            The project's by default; its seed decides what is drawn.
        """
        images, settings = self._interim_images, settings or self.settings
        return augmented_patches(images, self._labeled(), self.runs, image, label, settings, n)  # type: ignore[arg-type]

    def _labeled(self) -> pd.Series[int]:
        with self._lock:
            return self.labels().query("action == 'label'")["class_id"]

    def readiness(self) -> str:
        """Return what is still missing before a training can start, as a sentence; "" when nothing is."""
        try:
            return self._missing(self.settings)
        except SettingsError:  # which is said where they are shown
            return self._missing(TrainingSettings())

    def train(
        self,
        settings: TrainingSettings | Mapping[str, Any] | None = None,
        *,
        predict: bool = False,
        search: bool = False,
        network: Module | None = None,
        **changes: Any,
    ) -> Run:
        """Train a classifier on all annotations and wait for it.

        With the preset "auto", which is the default, several presets are tried within what may count
        (`learn.preset_search`), and the best is trained. It is used again by later trainings of the same settings and
        classes,
        until there are twice as many annotations.

        Parameters
        ----------
        settings : TrainingSettings, optional
            For this run alone; by default the project's. ``run.settings`` of an earlier run trains the same again.
        predict : bool
            Classify every object of every image behind it.
        search : bool
            Try the presets anew.
        network : torch.nn.Module, optional
            One of your own instead of the architecture of the settings: logits (n, classes) of patches
            (n, channels, [z,] y, x), the mask channel included. A copy is trained.
        **changes
            Single settings to replace, for example ``epochs=50`` or ``patches={"size": 64}``. A network of your own
            that is named here, ``architecture="package.module:Name"``, is imported.

        Returns
        -------
        Run
            Finished, and from now on `current_run`.
        """
        threads = thread_count("script")
        self._jobs.run("training", self._training(settings, changes, predict, network, threads, search))
        return self._runs[self.current_run]

    def start_training(
        self,
        settings: TrainingSettings | Mapping[str, Any] | None = None,
        *,
        predict: bool = False,
        search: bool = False,
        network: Module | None = None,
        **changes: Any,
    ) -> None:
        """Train on a thread of its own, so that the notebook stays free; `job`, `live` and `current_run` tell."""
        threads = thread_count("panel")
        self._jobs.start("training", self._training(settings, changes, predict, network, threads, search))

    def measure(
        self,
        images: Iterable[str] | None = None,
        groups: Iterable[str] = DEFAULT_FEATURE_GROUPS,
        ring: float | None = None,
    ) -> pd.DataFrame:
        """Measure every object of the images (all by default), each only once, and wait; Ctrl-C keeps what is done.

        Parameters
        ----------
        images : iterable of str, optional
        groups : iterable of str
            Of "shape", "intensity", "texture", "ring" (brightness around the object), "ring_texture", "orientation"
            and "position": all but "ring_texture" by default. `sv.describe_measurements()` says what is in them, in
            which unit, and what it means.
        ring : float, optional
            Width of the ring around an object in pixels; by default that of the settings.

        Returns
        -------
        DataFrame
            `predictions`, and behind its columns one for each measurement: ``area_um2``, ``dna_mean``, ... Lengths,
            areas and volumes are in micrometres where the spacing of an image is known, else in pixels and without
            ``_um`` behind the name. NaN is what cannot be told of an object.
        """
        names = self._chosen(images)
        chosen = self.settings.measurements
        chosen = chosen.changed(groups=tuple(groups), ring=chosen.ring if ring is None else ring)
        pairs = {name: self.pair(name) for name in names}
        if any(needs_measuring(pair, self.objects(name), chosen) for name, pair in pairs.items()):
            self._jobs.run("measurement", lambda stop: measure_images(pairs, self.objects, chosen, stop))
        table = self.predictions(names)
        measured = pd.concat([feature_table(pair, self.objects(name), chosen) for name, pair in pairs.items()])
        return table.merge(measured, how="left", left_index=True, right_index=True, suffixes=("", "_measured"))

    def sweep(
        self, settings: TrainingSettings | None = None, *, sampling: int | None = None, **values: Any
    ) -> pd.DataFrame:
        """Cross-validate every combination of some settings: the paper's Table 2 for one's own data.

        Each cell is kept in the project as soon as it is known: Ctrl-C loses none that is done, and the same call goes
        on with the rest. The test set is left alone. The best row of many is a little too good: its excess over the
        others is partly luck.

        Parameters
        ----------
        settings : TrainingSettings, optional
            What the values change; by default the project's.
        sampling : int, optional
            Pixels a side that patches are resampled to, fewer to be done sooner.
        **values
            Settings; those given as lists are varied, the others hold for all. Without a list, as in the paper:
            ``depth=[2, 3], width=[2, 4, 8, 16, 32, 64]``.

        Returns
        -------
        DataFrame
            One row a combination, the most accurate first, as `project.sweep.sweep_table` describes it.

        Examples
        --------
        ``project.sweep(depth=[2, 3], width=[4, 16], epochs=20, sampling=24)``
        """
        if sampling is not None:
            values["patches"] = {"sampling": sampling}
        if not any(isinstance(value, list | range) for value in values.values()):
            values = {**PAPER_GRID, **values}
        task = self._task(settings, {}, thread_count("script"))
        wanted = cells(task, values)
        self._jobs.run("sweep", lambda stop: sweep(task, wanted, self._store.sweep_file, stop))
        return sweep_table(wanted, self._store.sweep_file)

    def stop(self) -> None:
        """Ask the running job to finish with what it has: a training with its best network so far."""
        self._jobs.stop()

    def _repr_html_(self) -> str:
        return project_report_html(
            self.path.name,
            self._interim_images,  # type: ignore[arg-type]
            self.labels(),
            self.class_counts(),
            self.classes,
            self.current_run,
            len(self.runs),
        )

    def _training(
        self,
        settings: TrainingSettings | Mapping[str, Any] | None,
        changes: Mapping[str, Any],
        predict: bool,
        network: Module | None,
        threads: int,
        search: bool,
    ) -> Work:
        given = TrainingSettings(**settings) if isinstance(settings, Mapping) else settings
        task = replace(self._task(given, changes, threads, network), search=search)
        if search and task.settings.preset != AUTO_PRESET:
            raise ProjectError(
                f'a search chooses the preset, but the settings name "{task.settings.preset}"; give preset="auto".'
            )
        threads = task.settings.threads or threads
        self.live, self._network = LearningCurve(), network

        def work(stop: Stop) -> Iterator[object]:
            for event in train_run(task, stop):
                yield event
                if predict and isinstance(event, Run):
                    yield from predict_images(self._predicting(list(task.pairs), event, threads, network), stop)

        return work

    def _task(
        self,
        settings: TrainingSettings | None,
        changes: Mapping[str, Any],
        threads: int,
        network: Module | None = None,
    ) -> TrainingTask:
        wanted = (settings or self.settings).changed(**changes)
        missing = self._missing(wanted)
        if missing:
            raise ProjectError(missing)
        self._store.check_writable()
        begins = resolve_training_setup(self.settings, settings, changes, network, self._runs)
        labels, says = select_training_objects(self.training_labels(), self.objects, wanted.exclude_border, wanted.size)
        return TrainingTask(
            pairs={name: self.pair(name) for name in self.images},
            objects=self.objects,
            labels=labels["class_id"],
            edit_groups=self._labelling.edit_groups(),
            classes=self.classes,
            settings=begins.settings.changed(threads=begins.settings.threads or threads),
            folder=self._store.runs_folder,
            begins=begins,
            runs=tuple(self.runs),
            says=says,
            workers=begins.settings.threads or thread_count("script"),
        )

    def _missing(self, settings: TrainingSettings) -> str:
        labels, says = select_training_objects(
            self.training_labels(), self.objects, settings.exclude_border, settings.size
        )
        counts = labels["class_id"].value_counts().reindex(self.classes.ids, fill_value=0)
        named = counts.set_axis(self.classes.names)
        return self._overwritten(self.images) or readiness(bool(self.images), named, says)

    def _check_idle(self) -> None:
        if self.job is not None:
            raise ProjectError(f"{self.job.named} reads these objects; wait for it or stop it with project.stop().")

    def handle(self, event: object) -> None:
        """Take in one event of a job; only ever called by the owner."""
        if isinstance(event, LearningCurve):
            self.live = event
        elif isinstance(event, Run):
            self._runs[event.name] = event
            if self._network is not None:
                self._networks[event.name] = self._network
            self.runs_version += 1
            self._make_current(event)
            trained = f"Run {event.name} is trained on {sum(event.labels.values())} annotations"
            self.status = ". ".join([trained, " ".join(filter(None, [event.choice, *event.remarks]))]).removesuffix(
                ". "
            )
        elif isinstance(event, RunScored):
            self._runs[event.run.name] = event.run
            self.runs_version += 1
            if not event.run.calibration.is_identity:
                self._predicted.clear()
                self.predictions_version += 1
            self.status = self.evaluate(event.run.name).text
        elif isinstance(event, TrainingAbandoned):
            self.status = "Stopped before anything was trained."
        else:
            super().handle(event)
