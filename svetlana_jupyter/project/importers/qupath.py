"""Classes of outlines and points from QuPath, matched to the objects of a mask."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.core.io.chunks import ArrayRegion, block_order, processing_block_shape, read_regions
from svetlana_jupyter.core.io.geojson import PolygonObject, read_geojson
from svetlana_jupyter.core.polygons import fill_polygons
from svetlana_jupyter.project.importers.imported_labels import ImportedLabel, ImportedLabels, ImportRequest, split_flag

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.image_collection import ImageCollection

CLASSIFICATION = "classification"
EXPORTED_KEYS = ("predicted", "annotation", "flag")


def read_qupath(request: ImportRequest, file: Path) -> ImportedLabels:
    """Return the classes of outlines and points for the objects of a mask.

    An outline is matched to the object whose IoU (intersection over union) with it exceeds one half, a point to the
    object that contains it.

    A file that this package exported holds annotations and predictions. Only its annotations are read, unless
    ``request.column`` is "classification".
    """
    content = read_geojson(file)
    named = [str(shape.metadata["image"]) for shape in content.shapes if shape.metadata and "image" in shape.metadata]
    found = {} if request.image is not None else request.find_images(named[:1])[0]
    name = next(iter(found.values()), "") or request.resolve_image(file)
    outlines: dict[int, list[PolygonObject]] = defaultdict(list)
    rows = []
    for shape in content.shapes:
        if shape.polygons:
            outlines[shape.label].append(shape)
    partners = _match_objects(request.images, name, outlines)
    for number, shapes in outlines.items():
        problem = "" if partners[number] else f"no object overlaps with outline {number} by more than half"
        class_name, flag = _class_and_flag(shapes[0], request.column)
        rows.append(ImportedLabel(name, partners[number], class_name, problem, flag))
    for shape in content.shapes:
        if not shape.polygons:
            rows += _label_points(request, name, shape)
    colors = {shape.class_name: shape.color for shape in content.shapes if shape.class_name and shape.color}
    return ImportedLabels(rows, f"QuPath {file.name}", colors, note=content.note)


def _class_and_flag(shape: PolygonObject, column: str | None) -> tuple[str, str]:
    metadata = shape.metadata or {}
    if column == CLASSIFICATION or metadata.keys().isdisjoint(EXPORTED_KEYS):
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
        ImportedLabel(image, label, name, "" if label else "no object lies under a point", flag)
        for label in request.objects_at_points(image, positions).tolist()
    ]
