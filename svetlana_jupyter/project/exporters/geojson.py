"""GeoJSON export: outlines with classes and measurements, for QuPath.

A file is a ``FeatureCollection`` with one detection per object; in 3D, with one per object and plane (``plane.z``).
Outlines follow the pixel edges, with coordinates ``(x, y)`` in pixels. ``name`` is the label of the object in the mask;
``metadata`` holds the image, prediction, annotation and flag. Missing values are left out, because GeoJSON has no NaN.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pandas as pd

from svetlana_jupyter.core.polygons import Outline, iter_object_outlines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from svetlana_jupyter.project.exporters.output_folder import OutputFolder
    from svetlana_jupyter.project.exporters.snapshot import ResultsSnapshot

ANY_CHANNEL = -1


def write_geojson(output: OutputFolder, snapshot: ResultsSnapshot) -> Iterator[Path]:
    """Write one GeoJSON file per image, with the outlines of its objects."""
    for image, stem in output.names.items():
        with output.write_file(f"{stem}.geojson") as draft, draft.open("w", encoding="utf-8") as file:
            file.write('{"type": "FeatureCollection", "features": [')
            separator = "\n"
            for feature in output.until_stopped(_features(snapshot, image)):
                text = json.dumps(feature, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
                file.write(separator + text)
                separator = ",\n"
            file.write("\n]}\n")
        yield output.folder / f"{stem}.geojson"


def _features(snapshot: ResultsSnapshot, image: str) -> Iterator[Mapping[str, Any]]:
    table, classes, pair = snapshot.rows_of_image(image), snapshot.classes, snapshot.pair(image)
    shown = ["probability", *(f"p_{name}" for name in classes.names if f"p_{name}" in table), "size"]
    numbers = pd.concat([table[shown], snapshot.measurements(image)], axis=1)
    texts = table[["class", "predicted", "annotation", "flag", "run", *snapshot.groups[image]]].astype("object")
    colors = {info.name: list(bytes.fromhex(info.color[1:])) for info in classes}
    # Plain arrays, because looking up rows of a DataFrame would take longer than the rest of the export.
    text_names, number_names = list(map(str, texts)), list(map(str, numbers))
    text_rows, number_rows = texts.where(texts.notna(), None).to_numpy(), numbers.to_numpy(np.float64)
    row_of_label = {int(label): row for row, label in enumerate(table.index)}
    for outline in iter_object_outlines(pair.mask, snapshot.objects(image)):
        row = row_of_label[outline.label]
        metadata = {"image": image, **dict(zip(text_names, text_rows[row]))}
        name = metadata.pop("class")
        measured = zip(number_names, number_rows[row].tolist())
        position = f"{image}/{outline.label}" + (f"/{outline.plane}" if pair.ndim == 3 else "")
        yield {
            "type": "Feature",
            "id": str(uuid5(NAMESPACE_URL, position)),
            "geometry": _geometry(outline, pair.ndim),
            "properties": {
                "objectType": "detection",
                "name": str(outline.label),
                **({"classification": {"name": name, "color": colors[name]}} if name else {}),
                "measurements": {key: _short(number) for key, number in measured if np.isfinite(number)},
                "metadata": {key: str(value) for key, value in metadata.items() if value is not None},
            },
        }


def _geometry(outline: Outline, ndim: int) -> dict[str, Any]:
    parts = [[ring[:, ::-1].tolist() for ring in polygon] for polygon in outline.polygons]
    kind, coordinates = ("Polygon", parts[0]) if len(parts) == 1 else ("MultiPolygon", parts)
    geometry: dict[str, Any] = {"type": kind, "coordinates": coordinates}
    return geometry | ({"plane": {"c": ANY_CHANNEL, "z": outline.plane, "t": 0}} if ndim == 3 else {})


def _short(number: float) -> float | int:
    """Return a number without the digits that its conversion to float64 added."""
    return int(number) if number.is_integer() else float(f"{number:.9g}")
