"""Replacement of the mask of an image: objects are matched with those of the old mask, and the links are stored.

Annotation files stay as they are. Each of their rows refers to a numbered mask, and the links between successive masks
(``masks/<image>.<n>.csv``: old object, new object, shared pixels) carry labels over to the current objects: those of
all annotators, and those that an undo restores.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.annotations import AnnotationLog, ObjectId, VersionedObjectId
from svetlana_jupyter.core.io.geojson import is_geojson
from svetlana_jupyter.core.io.images import fingerprint
from svetlana_jupyter.core.objects import bbox_columns, index_objects
from svetlana_jupyter.core.relabeling import (
    LINK_COLUMNS,
    LabelMapping,
    match_bounding_boxes,
    match_overlaps,
    object_statuses,
    overlap_table,
)
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.image_collection import (
    FormerMask,
    ImageCollection,
    ImageEntry,
    Source,
    lazy_outline_mask,
    to_zarr,
)
from svetlana_jupyter.project.storage import ProjectFolder, atomic_folder, atomic_write

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.project.annotation_store import Annotations
    from svetlana_jupyter.project.project_classes import ProjectClasses

STATUSES = ("kept", "relabeled", "split", "merged", "lost")


@dataclass(frozen=True)
class MaskMatch:
    """Match of the objects of a new mask with those of the current mask of an image.

    Attributes
    ----------
    entry : ImageEntry
    mapping : LabelMapping
        Links of old to new objects.
    old_sizes : mapping of int to int
        Pixels of each old object, or of its bounding box.
    matched_by : {"pixels", "boxes"}
    mask : path or array
        The new mask.
    new_fingerprint : str
        Fingerprint of the image with the new mask.
    opened : ImagePair or None
        The image with the new mask; None if the image has that mask already.
    objects : DataFrame
        Object table of the new mask.
    """

    entry: ImageEntry
    mapping: LabelMapping
    old_sizes: Mapping[int, int]
    matched_by: str
    mask: Source
    new_fingerprint: str
    opened: ImagePair | None = None
    objects: pd.DataFrame = field(default_factory=pd.DataFrame)


class MaskReplacement:
    """Replacement of masks in a project, with a preview; the last match is remembered from preview to replacement."""

    def __init__(
        self, folder: ProjectFolder, images: ImageCollection, annotations: Annotations, classes: ProjectClasses
    ) -> None:
        self._folder, self._images, self._annotations, self._classes = folder, images, annotations, classes
        self._match: tuple[Hashable, MaskMatch] | None = None

    def preview(self, name: str, mask: Source) -> pd.DataFrame:
        """Return what `replace` would do, as `Project.check_mask` describes; any thread may call this."""
        return status_table(self._matched(name, mask), self._labels_as_text(name))

    def replace(self, name: str, mask: Source) -> tuple[pd.DataFrame, str]:
        """Replace the mask of an image, as `Project.replace_mask` describes.

        Returns
        -------
        report : DataFrame
        summary : str
            One sentence for the status line.
        """
        with self._folder.lock:
            self._folder.check_writable()
            before = self._labels_as_text(name)
            match = self._matched(name, mask)
            if match.opened is not None:
                save_mask(self._folder, self._images, match)
                self._match = None
                self._annotations.reload_masks()
            report = status_table(match, before)
            after = self._labels_as_text(name)
        report["carried"] = [
            tuple(label for label in new if after.get(label) == text)
            for new, text in zip(report["new"], report["class"])
        ]
        counts = report["status"].value_counts()
        listed = ", ".join(f"{counts[status]} {status}" for status in STATUSES if status in counts)
        return report, f"{name} has a new mask. Annotated objects: {listed or 'none'}"

    def _matched(self, name: str, mask: Source) -> MaskMatch:
        entry = self._images.entry(name)
        key = entry, fingerprint(mask), self._annotations.version
        if self._match is None or self._match[0] != key:
            ids = [ObjectId(name, label) for label in self._labels_as_text(name)]
            logs = list(self._annotations.logs.values())
            self._match = key, match_masks(self._folder, self._images, name, mask, ids, logs)
        return self._match[1]

    def _labels_as_text(self, image: str) -> dict[int, str]:
        """Return the class or flag of each annotated object of an image; skipped objects do not count."""
        names = dict(zip(self._classes.ids, self._classes.names))
        return {
            object_id.label: names.get(label.class_id, label.action)
            for object_id, label in dict(self._annotations.labels).items()
            if object_id.image == image and label.action != "skip"
        }


def match_masks(
    folder: ProjectFolder,
    images: ImageCollection,
    name: str,
    mask: Source,
    labels: Iterable[ObjectId],
    logs: Iterable[AnnotationLog],
) -> MaskMatch:
    """Read a new mask of an image and match its objects with those of the current one; nothing is written.

    Parameters
    ----------
    labels : iterable of ObjectId
        The annotated objects.
    logs : iterable of AnnotationLog
        Source of the bounding boxes of annotated objects, if the old mask can no longer be read.
    """
    entry = images.entry(name)
    new_fingerprint = f"{entry.fingerprint.split()[0]} {fingerprint(mask)}"
    if new_fingerprint == entry.fingerprint:
        same = pd.DataFrame([(object_id.label, object_id.label, 1) for object_id in labels], columns=LINK_COLUMNS)
        return MaskMatch(entry, LabelMapping(same), dict.fromkeys(same["old"], 1), "pixels", mask, new_fingerprint)
    if is_geojson(mask):
        mask = lazy_outline_mask(Path(mask), entry.shape)
    opened = images.open(entry, mask)
    objects = index_objects(opened.mask)
    match = _match_by_pixels(folder, images, entry, opened) or _match_by_boxes(entry, objects, labels, logs)
    return MaskMatch(entry, *match, mask, new_fingerprint, opened, objects)


def save_mask(folder: ProjectFolder, images: ImageCollection, match: MaskMatch) -> None:
    """Replace the mask of the image by the matched one, and store the links between their objects.

    The replacement takes effect when ``project.json`` is written, which is last.
    """
    assert match.opened is not None
    entry, mask = match.entry, match.mask
    number = entry.mask_number + 1
    if not isinstance(mask, str | os.PathLike):
        mask = _copy_array(folder, match.opened, number)
    links = folder.links_file(entry.name, number)
    links.parent.mkdir(exist_ok=True)
    with atomic_write(links) as draft:
        match.mapping.links.to_csv(draft, index=False)
    former = FormerMask(entry.mask, entry.fingerprint)
    changed = replace(
        entry, mask=folder.relative(Path(mask)), fingerprint=match.new_fingerprint, replaced=(*entry.replaced, former)
    )
    images.replace_entry(changed, match.objects)


def status_table(match: MaskMatch, before: Mapping[int, str]) -> pd.DataFrame:
    """Return the status of each annotated object of an image under the new mask.

    Parameters
    ----------
    before : mapping of int to str
        Class or flag of each annotated object of the old mask.

    Returns
    -------
    DataFrame
        Indexed by ``object`` (its old label): ``class``, and ``status``, ``new`` and ``share`` as in
        `core.relabeling.object_statuses`. ``attrs["matched_by"]`` is "pixels" or "boxes".
    """
    table = object_statuses(match.mapping, match.old_sizes, sorted(set(before) & set(match.old_sizes)))
    lost = sorted(set(before) - set(match.old_sizes))
    nowhere = pd.DataFrame(
        {"status": "lost", "new": [()] * len(lost), "share": 0.0}, index=pd.Index(lost, dtype="int64")
    )
    table = pd.concat([table, nowhere]).sort_index() if lost else table
    table.insert(0, "class", [before[old] for old in table.index])
    table.index.name = "object"
    table.attrs["matched_by"] = match.matched_by
    return table


def _match_by_pixels(
    folder: ProjectFolder, images: ImageCollection, entry: ImageEntry, opened: ImagePair
) -> tuple[LabelMapping, Mapping[int, int], str] | None:
    """Match by overlap; return None if the old mask has changed or cannot be read."""
    file = folder.absolute(entry.mask)
    try:
        same = file.is_relative_to(folder.path) or fingerprint(file) == entry.fingerprint.split()[1]
        if not same:
            return None
        pairs = overlap_table(images.pair(entry.name).mask, opened.mask)
    except (OSError, InputError):
        return None
    sizes = pairs.groupby("old")["pixels"].sum()
    return LabelMapping(match_overlaps(pairs)), dict(zip(sizes.index.tolist(), sizes.tolist())), "pixels"


def _match_by_boxes(
    entry: ImageEntry, objects: pd.DataFrame, labels: Iterable[ObjectId], logs: Iterable[AnnotationLog]
) -> tuple[LabelMapping, Mapping[int, int], str]:
    known = {e.versioned_id: e.box for log in logs for e in log.events if e.image == entry.name and e.box}
    columns = bbox_columns(len(entry.shape))
    found = {
        object_id.label: known.get(VersionedObjectId(object_id.image, object_id.label, entry.mask_number))
        for object_id in labels
    }
    boxes = {label: box for label, box in found.items() if box}
    old = pd.DataFrame(list(boxes.values()), pd.Index(list(boxes), dtype="int64"), columns, dtype="int64")
    low, high = (old[columns[i : i + len(entry.shape)]].to_numpy() for i in (0, len(entry.shape)))
    sizes = np.prod(high - low, axis=1)
    return LabelMapping(match_bounding_boxes(old, objects)), dict(zip(boxes, sizes.tolist())), "boxes"


def _copy_array(folder: ProjectFolder, opened: ImagePair, number: int) -> Path:
    mask = folder.arrays_folder(opened.name) / f"mask.{number}.zarr"
    with atomic_folder(mask) as draft:
        to_zarr(opened.mask, draft)
    return mask
