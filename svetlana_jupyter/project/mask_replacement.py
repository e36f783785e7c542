"""Replacing the mask of an image: its objects are matched with those of the old one, and the links are kept.

The log of annotations is not touched. It says of which mask each row speaks, and the links (``masks/<image>.<n>.csv``:
old object, new object, pixels they share) carry what was said over to the objects of today: one's own rows, those of
other people, and those that an undo brings back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from svetlana_jupyter.core.annotations import AnnotationLog, Label, ObjectId, VersionedObjectId
from svetlana_jupyter.core.io.geojson import is_geojson
from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.io.images import fingerprint
from svetlana_jupyter.core.objects import bbox_columns, index_objects
from svetlana_jupyter.core.relabeling import (
    LINK_COLUMNS,
    LabelMapping,
    link,
    match_bounding_boxes,
    object_statuses,
    overlap,
)
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.image_collection import (
    FormerMask,
    ImageCollection,
    ImageEntry,
    Source,
    lazy_outline_mask,
    to_zarr,
)
from svetlana_jupyter.project.storage import ProjectFolder, atomic_write, draft_path

Found = tuple[LabelMapping, Mapping[int, int], str]  # as of `Match`

STATUSES = ("kept", "moved", "split", "merged", "lost")


@dataclass(frozen=True)
class Match:
    """How the objects of another mask follow those of the one that an image has.

    Attributes
    ----------
    entry : ImageEntry
        Of the image.
    step : Succession
    old_size : mapping of int to int
        The pixels of each old object that was looked for, or those of its box.
    by : {"pixels", "boxes"}
    mask, given : path or array, str
        The other mask, and the fingerprint of the image with it.
    opened : ImagePair or None
        The image with it; None where it is the mask that the image has already.
    objects : DataFrame
        Its object index.
    """

    entry: ImageEntry
    step: LabelMapping
    old_sizes: Mapping[int, int]
    by: str
    mask: Source
    given: str
    opened: ImagePair | None = None
    objects: pd.DataFrame = field(default_factory=pd.DataFrame)


def read_label_mappings(store: ProjectFolder, entries: Iterable[ImageEntry]) -> dict[str, list[LabelMapping]]:
    """Read how the masks of each image replaced each other."""
    steps = {}
    for entry in entries:
        files = [store.links_file(entry.name, number) for number in range(1, entry.mask_number + 1)]
        if files:
            steps[entry.name] = [LabelMapping(_read_links(file)) for file in files]
    return steps


def match_masks(
    store: ProjectFolder,
    catalog: ImageCollection,
    name: str,
    mask: Source,
    labels: Iterable[ObjectId],
    logs: Iterable[AnnotationLog],
) -> Match:
    """Read another mask of an image and match its objects with those of the one it has; nothing is written.

    Parameters
    ----------
    labels : iterable of ObjectId
        The annotated objects.
    logs : iterable of AnnotationLog
        For the boxes of the annotated objects, where the old mask can no longer be read.
    """
    entry = catalog.entry(name)
    given = f"{entry.fingerprint.split()[0]} {fingerprint(mask)}"
    if given == entry.fingerprint:
        same = pd.DataFrame([(id.label, id.label, 1) for id in labels], columns=LINK_COLUMNS)
        return Match(entry, LabelMapping(same), dict.fromkeys(same["old"], 1), "pixels", mask, given)
    if is_geojson(mask):
        mask = lazy_outline_mask(Path(mask), entry.shape)
    opened = catalog.open(entry, mask)
    objects = index_objects(opened.mask)
    found = _by_pixels(store, catalog, entry, opened)
    step, sizes, by = found or _by_boxes(entry, objects, labels, logs)
    return Match(entry, step, sizes, by, mask, given, opened, objects)


def save_mask(store: ProjectFolder, catalog: ImageCollection, match: Match) -> None:
    """Give the image the mask that was matched, and keep how the objects of the old one became its own.

    The change stands once ``project.json`` does.
    """
    assert match.opened is not None
    entry, mask = match.entry, match.mask
    number = entry.mask_number + 1
    if not isinstance(mask, str | os.PathLike):
        mask = _keep_array(store, match.opened, number)
    links = store.links_file(entry.name, number)
    links.parent.mkdir(exist_ok=True)
    with atomic_write(links) as beside:
        match.step.links.to_csv(beside, index=False)
    former = FormerMask(entry.mask, entry.fingerprint)
    changed = replace(
        entry, mask=store.relative(Path(mask)), fingerprint=match.given, replaced=(*entry.replaced, former)
    )
    catalog.change(changed, match.objects)


def status_table(match: Match, before: Mapping[int, str]) -> pd.DataFrame:
    """Return what becomes of each annotated object of an image.

    Parameters
    ----------
    before : mapping of int to str
        What stands for the objects of the old mask: a class or a mark.

    Returns
    -------
    DataFrame
        Indexed by ``object`` (its old number): ``class``, ``fate`` and ``new`` and ``share`` as
        `core.relabeling.object_statuses`
        gives them. ``attrs["matched_by"]`` is "pixels" or "boxes".
    """
    table = object_statuses(match.step, match.old_sizes, sorted(set(before) & set(match.old_sizes)))
    lost = sorted(set(before) - set(match.old_sizes))
    nowhere = pd.DataFrame({"fate": "lost", "new": [()] * len(lost), "share": 0.0}, index=pd.Index(lost, dtype="int64"))
    table = pd.concat([table, nowhere]).sort_index() if lost else table
    table.insert(0, "class", [before[old] for old in table.index])
    table.index.name = "object"
    table.attrs["matched_by"] = match.by
    return table


def _by_pixels(store: ProjectFolder, catalog: ImageCollection, entry: ImageEntry, opened: ImagePair) -> Found | None:
    """Match by overlap; None where the old mask is no longer what it was, or cannot be read."""
    file = store.absolute(entry.mask)
    try:
        same = file.is_relative_to(store.path) or fingerprint(file) == entry.fingerprint.split()[1]
        if not same:
            return None
        pairs = overlap(catalog.pair(entry.name).mask, opened.mask)
    except (OSError, InputError):
        return None
    sizes = pairs.groupby("old")["pixels"].sum()
    return LabelMapping(link(pairs)), dict(zip(sizes.index.tolist(), sizes.tolist())), "pixels"


def _by_boxes(
    entry: ImageEntry, objects: pd.DataFrame, labels: Iterable[ObjectId], logs: Iterable[AnnotationLog]
) -> Found:
    known = {e.subject: e.box for log in logs for e in log.entries if e.image == entry.name and e.box}
    columns = bbox_columns(len(entry.shape))
    found = {id.label: known.get(VersionedObjectId(id.image, id.label, entry.mask_number)) for id in labels}
    boxes = {label: box for label, box in found.items() if box}
    old = pd.DataFrame(list(boxes.values()), pd.Index(list(boxes), dtype="int64"), columns, dtype="int64")
    low, high = (old[columns[i : i + len(entry.shape)]].to_numpy() for i in (0, len(entry.shape)))
    sizes = np.prod(high - low, axis=1)
    return LabelMapping(match_bounding_boxes(old, objects)), dict(zip(boxes, sizes.tolist())), "boxes"


def _keep_array(store: ProjectFolder, opened: ImagePair, number: int) -> Path:
    folder = store.arrays_folder(opened.name) / f"mask.{number}.zarr"
    draft = draft_path(folder)
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        to_zarr(opened.mask, draft)
        shutil.rmtree(folder, ignore_errors=True)  # left by a kill before project.json knew of it
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _read_links(file: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(file, usecols=LINK_COLUMNS, dtype="int64")
    except (OSError, ValueError) as error:
        raise ProjectError(
            f"{file} cannot be read ({error}), and it says how a new mask follows the old one; "
            "restore it from a backup, so that annotations stand for the right objects."
        ) from error


def in_words(labels: Mapping[ObjectId, Label], image: str, names: Mapping[int, str]) -> dict[int, str]:
    """Return what stands for the objects of an image, as a class or a mark; what was only skipped is left out."""
    return {
        id.label: names.get(label.class_id, label.action)
        for id, label in labels.items()
        if id.image == image and label.action != "skip"
    }
