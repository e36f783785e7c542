"""Classes of outlines and points from QuPath, matched to the objects of a mask."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.core.io.chunks import ArrayRegion, block_order, processing_block_shape, read_regions
from svetlana_jupyter.core.io.geojson import PolygonObject, check_planes, read_geojson
from svetlana_jupyter.core.polygons import fill_polygons
from svetlana_jupyter.project.importers.imported_labels import (
    NO_CLASS_NAMES,
    ImportedLabel,
    ImportedLabels,
    ImportRequest,
    split_flag,
)

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.image_collection import ImageCollection

CLASSIFICATION = "classification"
EXPORTED_KEYS = ("predicted", "annotation", "flag")


def read_qupath(request: ImportRequest, file: Path) -> ImportedLabels:
    """Return the classes of outlines and points for the objects of a mask.

    An outline is matched to the object whose IoU (intersection over union) with it exceeds one half, a point to the
    object that contains it. A cell whose outline matches no object is matched by the outline of its nucleus.

    A file that this package exported holds annotations and predictions. Only its annotations are read, unless
    ``request.column`` is "classification".
    """
    content = read_geojson(file)
    notes = [content.note]
    names = [(shape.metadata or {}).get("image", "") for shape in content.shapes]
    by_image: dict[str, list[PolygonObject]] = defaultdict(list)
    rows = []
    for shape, (image, problem) in zip(content.shapes, request.resolve_names(names, file, notes, is_strict=False)):
        if problem:
            rows.append(ImportedLabel(image, 0, *_class_and_flag(shape, request.column), problem, bool(image)))
        else:
            by_image[image].append(shape)
    for image, shapes in by_image.items():
        check_planes(shapes, request.images.pair(image).ndim)
        rows += _label_outlines(request, image, [shape for shape in shapes if shape.polygons], notes)
        for shape in shapes:
            if not shape.polygons:
                rows += _label_points(request, image, shape)
    colors = {shape.class_name: shape.color for shape in content.shapes if shape.class_name and shape.color}
    return ImportedLabels(rows, f"QuPath {file.name}", colors, note=" ".join(dict.fromkeys(filter(None, notes))))


def _label_outlines(
    request: ImportRequest, image: str, shapes: list[PolygonObject], notes: list[str]
) -> list[ImportedLabel]:
    outlines: dict[int, list[PolygonObject]] = defaultdict(list)
    for shape in shapes:
        outlines[shape.label].append(shape)
    partners = _match_objects(request.images, image, outlines)
    nuclei = {
        number: [replace(shape, polygons=shape.nucleus) for shape in parts if shape.nucleus]
        for number, parts in outlines.items()
        if not partners[number] and any(shape.nucleus for shape in parts)
    }
    by_nucleus = {number: label for number, label in _match_objects(request.images, image, nuclei).items() if label}
    if by_nucleus:
        notes.append(f"{len(by_nucleus):,} cells were matched by their nucleus.")
    partners |= by_nucleus
    if 2 * sum(map(bool, partners.values())) < len(partners):
        corners = np.array([shape.bbox for shape in shapes])
        low, high = corners[:, :2].min(axis=0).tolist(), corners[:, 2:].max(axis=0).tolist()
        sides = " × ".join(f"{side:,}" for side in request.images.pair(image).mask.shape)
        extent = f"y {low[0]} to {high[0]}, x {low[1]} to {high[1]}"
        notes.append(f"Compared: outlines {extent} px with {image!r} of {sides} px.")
    return [
        ImportedLabel(
            *(image, partners[number], *_class_and_flag(parts[0], request.column)),
            problem="" if partners[number] else f"no object overlaps with outline {number} by more than half",
        )
        for number, parts in outlines.items()
    ]


def _class_and_flag(shape: PolygonObject, column: str | None) -> tuple[str, str]:
    metadata = shape.metadata or {}
    if metadata.keys().isdisjoint(EXPORTED_KEYS):
        return ("" if shape.class_name.casefold() in NO_CLASS_NAMES else shape.class_name), ""
    if column == CLASSIFICATION:
        return shape.class_name, ""
    return split_flag(metadata.get("annotation", ""), metadata.get("flag"), bool(shape.class_name))


def _match_objects(images: ImageCollection, image: str, outlines: dict[int, list[PolygonObject]]) -> dict[int, int]:
    """Return for each outline the object whose IoU with it exceeds one half.

    The label is 0 if there is no such object.
    """
    mask, sizes = images.pair(image).mask, images.objects(image)["size"]
    extent = np.array(mask.shape[-2:])
    parts = [(number, shape) for number, shapes in outlines.items() for shape in shapes]
    boxes = np.array([shape.bbox for _, shape in parts], np.int64).reshape(-1, 4)
    low, high = np.clip(boxes[:, :2], 0, extent), np.clip(boxes[:, 2:], 0, extent)
    planes = np.array([shape.plane for _, shape in parts], np.int64)
    inside = np.flatnonzero((high > low).all(axis=1) & ((mask.ndim == 2) | (planes < mask.shape[0])))
    if mask.ndim == 3:
        low, high = np.c_[planes, low], np.c_[planes + 1, high]
    order = inside[block_order(low[inside], processing_block_shape(mask, mask))].tolist()
    windows = [ArrayRegion(tuple(low[i].tolist()), tuple(high[i].tolist())) for i in order]
    shared: dict[int, Counter[int]] = {number: Counter() for number in outlines}
    covered: Counter[int] = Counter()
    for i, pixels in zip(order, read_regions(mask, windows)):
        number, shape = parts[i]
        filled = fill_polygons(shape.polygons, (*low[i, -2:].tolist(), *high[i, -2:].tolist()))
        covered[number] += int(filled.sum())
        labels, counts = np.unique(pixels.reshape(filled.shape)[filled], return_counts=True)
        shared[number].update({int(label): int(count) for label, count in zip(labels, counts) if label})
    partners = dict.fromkeys(outlines, 0)
    for number, overlaps in shared.items():
        for label, count in overlaps.most_common(1):
            if label in sizes.index and 2 * count > covered[number] + int(sizes[label]) - count:
                partners[number] = label
    return partners


def _label_points(request: ImportRequest, image: str, shape: PolygonObject) -> list[ImportedLabel]:
    positions = np.floor(shape.points).astype(np.int64)
    if request.images.pair(image).ndim == 3:
        positions = np.c_[np.full(len(positions), shape.plane), positions]
    name, flag = _class_and_flag(shape, request.column)
    return [
        ImportedLabel(image, label, name, flag, "" if label else "no object lies under a point")
        for label in request.objects_at_points(image, positions).tolist()
    ]
