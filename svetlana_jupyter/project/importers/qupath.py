"""Classes of outlines and points from QuPath, for the objects of a mask that they lie on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.core.io.chunks import ArrayRegion, processing_block_shape, read_regions
from svetlana_jupyter.core.io.geojson import PolygonObject, read_geojson
from svetlana_jupyter.core.polygons import fill_polygons
from svetlana_jupyter.project.importers.imported_labels import (
    Found,
    ImportedLabel,
    block_order,
    find_image,
    image_aliases,
    objects_at,
    resolve_image,
)

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Dataset

CLASSIFICATION = "classification"


def read_qupath(project: Dataset, file: Path, image: str | None, column: str | None) -> Found:
    """Return what the outlines of a file say of the objects that they share more than half with; points of those under
    them.

    Files that this package exported say what was annotated and what was only predicted: then the annotation counts,
    unless ``column`` is "classification".
    """
    found = read_geojson(file)
    named = find_image(
        next((one.metadata["image"] for one in found.shapes if one.metadata and "image" in one.metadata), ""),
        image_aliases(project),
    )
    name = resolve_image(project, image or named or None, file)
    outlines: dict[int, list[PolygonObject]] = {}
    for shape in found.shapes:
        if shape.polygons:
            outlines.setdefault(shape.label, []).append(shape)
    partner = _partners(project, name, outlines)
    colors = {one.class_name: one.color for one in found.shapes if one.class_name and one.color}
    rows = []
    for number, shapes in outlines.items():
        problem = "" if partner[number] else f"no object shares more than half with outline {number}"
        rows.append(ImportedLabel(name, partner[number], _class(shapes[0], column), problem))
    rows += _points(project, name, [shape for shape in found.shapes if not shape.polygons], column)
    return Found(rows, f"QuPath {file.name}", colors, note=found.note)


def _class(shape: PolygonObject, column: str | None) -> str:
    ours = shape.metadata is not None and ("predicted" in shape.metadata or "annotation" in shape.metadata)
    if ours and column != CLASSIFICATION:
        return (shape.metadata or {}).get("annotation", "")
    return shape.class_name


def _partners(project: Dataset, image: str, outlines: dict[int, list[PolygonObject]]) -> dict[int, int]:
    """Return the object that is more than half of what it and an outline cover together; 0 where there is none."""
    mask, objects = project.pair(image).mask, project.objects(image)
    extent = np.array(mask.shape[-2:])
    shared: dict[int, Counter[int]] = {number: Counter() for number in outlines}
    covered: Counter[int] = Counter()
    parts = [(number, shape) for number, shapes in outlines.items() for shape in shapes]
    boxes = np.array([shape.bbox for _, shape in parts], np.int64).reshape(-1, 4)
    low, high = np.clip(boxes[:, :2], 0, extent), np.clip(boxes[:, 2:], 0, extent)
    planes = np.array([shape.plane for _, shape in parts], np.int64)
    there = (high > low).all(axis=1) & ((mask.ndim == 2) | (planes < mask.shape[0]))
    if mask.ndim == 3:
        low, high = np.c_[planes, low], np.c_[planes + 1, high]
    wanted = np.flatnonzero(there)
    order = wanted[block_order(low[wanted], processing_block_shape(mask, mask))]
    windows = [ArrayRegion(tuple(low[i].tolist()), tuple(high[i].tolist())) for i in order]
    for i, pixels in zip(order.tolist(), read_regions(mask, windows)):
        number, shape = parts[i]
        first, last = low[i, -2:].tolist(), high[i, -2:].tolist()
        own = fill_polygons(shape.polygons, (*first, *last))
        covered[number] += int(own.sum())
        labels, counts = np.unique(pixels.reshape(own.shape)[own], return_counts=True)
        shared[number].update({int(label): int(count) for label, count in zip(labels, counts) if label})
    sizes = objects["size"]
    found = dict.fromkeys(outlines, 0)
    for number, counts_of in shared.items():
        for label, count in counts_of.most_common(1):
            if label in sizes.index and 2 * count > covered[number] + int(sizes[label]) - count:
                found[number] = label
    return found


def _points(project: Dataset, image: str, shapes: list[PolygonObject], column: str | None) -> list[ImportedLabel]:
    mask = project.pair(image).mask
    rows = []
    for shape in shapes:
        places = np.floor(shape.points).astype(np.int64)
        if mask.ndim == 3:
            places = np.c_[np.full(len(places), shape.plane), places]
        for label in objects_at(project, image, places).tolist():
            rows.append(
                ImportedLabel(image, label, _class(shape, column), "" if label else "no object lies under a point")
            )
    return rows
