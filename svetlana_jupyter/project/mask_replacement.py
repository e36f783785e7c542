"""Replacement of the mask of an image.

The objects of the new mask are matched with the objects of the old mask, and links between matching objects are stored.

Annotation files stay unchanged. Each row of these files refers to a numbered mask, and the links between successive
masks (``masks/<image>.<n>.csv``: old object, new object, shared pixels) carry labels over to the current objects. This
includes the labels of all annotators, and labels that an undo restores.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.io.geojson import is_geojson
from svetlana_jupyter.core.io.images import fingerprint, known_spacing, open_mask_levels
from svetlana_jupyter.core.io.pixel_size import combine_spacings, format_spacing
from svetlana_jupyter.core.mask_repair import repair_mask
from svetlana_jupyter.core.objects import bbox_columns, index_objects
from svetlana_jupyter.core.relabeling import (
    LINK_COLUMNS,
    LabelMapping,
    match_bounding_boxes,
    match_overlaps,
    object_statuses,
    overlap_table,
)
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.file_access import make_folder
from svetlana_jupyter.project.object_tables import to_zarr
from svetlana_jupyter.project.outline_masks import lazy_outline_mask
from svetlana_jupyter.project.storage import ProjectFolder, atomic_folder, atomic_write, draft_folder

if TYPE_CHECKING:
    from collections.abc import Hashable

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.project.annotation_store import Annotations
    from svetlana_jupyter.project.image_collection import ImageCollection, Source
    from svetlana_jupyter.project.image_entry import ImageEntry
    from svetlana_jupyter.project.project_classes import ProjectClasses

STATUSES = ("kept", "relabeled", "split", "merged", "lost")
Match = tuple[LabelMapping, Mapping[int, int], str]  # links, pixels of each old object, and "pixels" or "boxes"


@dataclass(frozen=True)
class MaskMatch:
    """Match between the objects of the current mask and of a new mask of an image.

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
    """Replacement of masks in a project, with a preview.

    The match that was computed for a preview is reused for the replacement.
    """

    def __init__(
        self, folder: ProjectFolder, images: ImageCollection, annotations: Annotations, classes: ProjectClasses
    ) -> None:
        self._folder, self._images, self._annotations, self._classes = folder, images, annotations, classes
        self._match: tuple[Hashable, MaskMatch] | None = None

    def preview(self, name: str, mask: Source | None) -> pd.DataFrame:
        """Preview the result of `replace`, as `Project.check_mask` describes.

        This method may be called from any thread.
        """
        return status_table(self._matched(name, mask), self._labels_as_text(name))

    def repair(self, name: str, mask: Source | None, repair: str) -> tuple[pd.DataFrame, str]:
        """Replace the mask of an image by a repaired copy of it or of a new mask."""
        with self._folder.lock, draft_folder(self._folder.arrays_folder(name)) as draft:
            self._folder.check_writable()
            entry, cache = self._images.entry(name), self._folder.cache_folder
            file = self._images.mask_file(name) if mask is None else mask
            if mask is not None or not self._is_intact(entry):
                self._check_pixel_size(entry, file)
            source, _ = open_mask_levels(file, spacing=entry.spacing, cache=cache)
            repaired, note = repair_mask(source, repair, draft / "mask.zarr")
            report, summary = self.replace(name, repaired)
        return report, f"{summary}. {note}" if note else summary

    def replace(self, name: str, mask: Source | None) -> tuple[pd.DataFrame, str]:
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
                with self._folder.writing(self._folder.arrays_folder(name)):
                    self._save(match, match.opened)
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

    def _matched(self, name: str, mask: Source | None) -> MaskMatch:
        entry = self._images.entry(name)
        mask = self._images.mask_file(name) if mask is None else mask
        key = entry, fingerprint(mask), self._annotations.version
        if self._match is None or self._match[0] != key:
            self._match = key, self._match_objects(entry, mask, list(self._labels_as_text(name)))
        return self._match[1]

    def _match_objects(self, entry: ImageEntry, mask: Source, labeled: list[int]) -> MaskMatch:
        """Match the objects of a new mask with the objects of the current mask.

        No file is written.
        """
        new_fingerprint = f"{entry.fingerprint.split()[0]} {fingerprint(mask)}"
        is_intact = self._is_intact(entry)
        is_current = isinstance(mask, str | os.PathLike) and Path(mask).absolute() == self._images.mask_file(entry.name)
        if is_intact and (is_current or new_fingerprint == entry.fingerprint):
            same = pd.DataFrame([(label, label, 1) for label in labeled], columns=LINK_COLUMNS)
            return MaskMatch(entry, LabelMapping(same), dict.fromkeys(labeled, 1), "pixels", mask, new_fingerprint)
        if is_geojson(mask):
            mask = lazy_outline_mask(Path(mask), entry.shape)
        self._check_pixel_size(entry, mask)
        opened = self._images.open(entry, mask)
        objects = index_objects(opened.mask)
        match = self._match_by_pixels(entry, opened) if is_intact else None
        match = match or self._match_by_boxes(entry, objects, labeled)
        return MaskMatch(entry, *match, mask, new_fingerprint, opened, objects)

    def _check_pixel_size(self, entry: ImageEntry, mask: Source) -> None:
        """Raise an `InputError` if image and mask have different pixel sizes."""
        sizes = dict(zip("zyx"[-len(entry.shape) :], entry.spacing or ()))
        advice = f"open the mask with the right size: `sv.open_mask(mask, spacing={format_spacing(sizes)})`"
        try:
            opened, _ = open_mask_levels(mask, cache=self._folder.cache_folder)
            combine_spacings(sizes, known_spacing(opened), ("image", "mask"), advice)
        except InputError as error:
            raise InputError(f"{entry.name}: {error}") from error

    def _is_intact(self, entry: ImageEntry) -> bool:
        """Return whether the current mask still has the objects that were annotated."""
        try:
            self._images.check([entry.name])
        except ProjectError:
            return False
        return True

    def _match_by_pixels(self, entry: ImageEntry, opened: ImagePair) -> Match | None:
        """Match objects by overlap; None if the old mask is unreadable."""
        try:
            pairs = overlap_table(self._images.pair(entry.name).mask, opened.mask)
        except (OSError, InputError):
            return None
        sizes = pairs.groupby("old")["pixels"].sum()
        return LabelMapping(match_overlaps(pairs)), dict(zip(sizes.index.tolist(), sizes.tolist())), "pixels"

    def _match_by_boxes(self, entry: ImageEntry, objects: pd.DataFrame, labeled: list[int]) -> Match:
        """Match objects by the bounding boxes in the object table.

        Without a table, the bounding boxes stored with the annotations are used.
        """
        ndim, columns = len(entry.shape), bbox_columns(len(entry.shape))
        kept = self._images.kept_objects(entry.name)
        if kept is not None:
            old = kept[columns]
        else:
            known = {
                event.label: event.box
                for log in self._annotations.logs.values()
                for event in log.events
                if event.image == entry.name and event.mask == entry.mask_number and event.box
            }
            boxes = {label: known[label] for label in labeled if label in known}
            old = pd.DataFrame(list(boxes.values()), pd.Index(list(boxes), dtype="int64"), columns, dtype="int64")
        sizes = np.prod(old[columns[ndim:]].to_numpy() - old[columns[:ndim]].to_numpy(), axis=1)
        return LabelMapping(match_bounding_boxes(old, objects)), dict(zip(old.index.tolist(), sizes.tolist())), "boxes"

    def _save(self, match: MaskMatch, opened: ImagePair) -> None:
        """Replace the mask of the image, and store the links between old and new objects.

        ``project.json`` is written last; only then does the replacement take effect.
        """
        folder, entry, mask = self._folder, match.entry, match.mask
        number = entry.mask_number + 1
        if not isinstance(mask, str | os.PathLike):
            mask = folder.arrays_folder(entry.name) / f"mask.{number}.zarr"
            make_folder(mask.parent)
            with atomic_folder(mask) as draft:
                to_zarr(opened.mask, draft)
        links = folder.links_file(entry.name, number)
        make_folder(links.parent)
        with atomic_write(links) as draft:
            match.mapping.links.to_csv(draft, index=False)
        replaced = (*entry.replaced, {"mask": entry.mask, "fingerprint": entry.fingerprint})
        changed = replace(entry, mask=folder.relative(mask), fingerprint=match.new_fingerprint, replaced=replaced)
        self._images.replace_entry(changed, match.objects)

    def _labels_as_text(self, image: str) -> dict[int, str]:
        """Return the class or flag of each annotated object of an image.

        Skipped objects are left out.
        """
        names = dict(zip(self._classes.ids, self._classes.names))
        return {
            object_id.label: names.get(label.class_id, label.action)
            for object_id, label in dict(self._annotations.labels).items()
            if object_id.image == image and label.action != "skip"
        }


def status_table(match: MaskMatch, before: Mapping[int, str]) -> pd.DataFrame:
    """Return the status of each annotated object of an image under the new mask.

    Parameters
    ----------
    match : MaskMatch
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
    if lost:
        nowhere = {"status": "lost", "new": [()] * len(lost), "share": 0.0}
        table = pd.concat([table, pd.DataFrame(nowhere, pd.Index(lost, dtype="int64"))]).sort_index()
    table.insert(0, "class", [before[old] for old in table.index])
    table.index.name = "object"
    table.attrs["matched_by"] = match.matched_by
    return table
