"""Outlines with classes and measurements, as the GeoJSON that QuPath exports and imports.

A ``FeatureCollection`` with one detection an object (in 3D: one an object and plane, with ``plane.z``), its outline in
pixels ``(x, y)`` along pixel edges. ``name`` is the object's number in the mask, ``metadata`` says the image, what was
predicted and what was annotated. GeoJSON has no number that is not one: what is not known of an object is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pandas as pd

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.polygons import Outline, Polygon, iter_object_outlines

if TYPE_CHECKING:
    from svetlana_jupyter.project.exporters.snapshot import OutputFolder, ResultsSnapshot

ANY_CHANNEL = -1


def write_geojson(place: OutputFolder, found: ResultsSnapshot) -> Iterator[Path]:
    """Write one file an image, feature by feature."""
    for image, stem in place.names.items():
        pair, features = found.pair(image), _Features(found, image)
        with place.write_file(f"{stem}.geojson") as beside, beside.open("w", encoding="utf-8") as file:
            file.write('{"type": "FeatureCollection", "features": [')
            between = "\n"
            for outline in place.watched(iter_object_outlines(pair.mask, found.objects(image))):
                feature = json.dumps(features.of(outline), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
                file.write(between + feature)
                between = ",\n"
            file.write("\n]}\n")
        yield place.folder / f"{stem}.geojson"


class _Features:
    """The features of one image."""

    def __init__(self, found: ResultsSnapshot, image: str) -> None:
        table = found.of_image(image)
        shown = ["probability", *(f"p_{name}" for name in found.classes.names if f"p_{name}" in table), "size"]
        numbers = pd.concat([table[shown], found.measured(image)], axis=1)
        self._image, self._ndim = image, found.pair(image).ndim
        self._classifications = _classifications(found.classes)
        said = table[["class", "predicted", "annotation", "run", *found.groups[image]]].astype("object")
        self._words, self._said = list(map(str, said)), said.where(said.notna(), None).to_numpy()
        self._names, self._numbers = list(map(str, numbers)), numbers.to_numpy(np.float64)
        self._row = {int(label): row for row, label in enumerate(table.index)}

    def of(self, outline: Outline) -> Mapping[str, Any]:
        row = self._row[outline.label]
        said = dict(zip(self._words, self._said[row]))
        name = said.pop("class")
        measured = {key: _short(n) for key, n in zip(self._names, self._numbers[row].tolist()) if np.isfinite(n)}
        metadata = {key: str(value) for key, value in {"image": self._image, **said}.items() if value is not None}
        place = f"{self._image}/{outline.label}" + (f"/{outline.plane}" if self._ndim == 3 else "")
        return {
            "type": "Feature",
            "id": str(uuid5(NAMESPACE_URL, place)),
            "geometry": _geometry(outline, self._ndim),
            "properties": {
                "objectType": "detection",
                "name": str(outline.label),
                **({"classification": self._classifications[name]} if name else {}),
                "measurements": measured,
                "metadata": metadata,
            },
        }


def _geometry(outline: Outline, ndim: int) -> dict[str, Any]:
    parts = [_coordinates(polygon) for polygon in outline.polygons]
    kind, coordinates = ("Polygon", parts[0]) if len(parts) == 1 else ("MultiPolygon", parts)
    geometry: dict[str, Any] = {"type": kind, "coordinates": coordinates}
    return geometry | ({"plane": {"c": ANY_CHANNEL, "z": outline.plane, "t": 0}} if ndim == 3 else {})


def _coordinates(polygon: Polygon) -> list[list[list[int]]]:
    return [ring[:, ::-1].tolist() for ring in polygon]


def _classifications(classes: ClassScheme) -> Mapping[str, Mapping[str, Any]]:
    return {info.name: {"name": info.name, "color": list(bytes.fromhex(info.color[1:]))} for info in classes}


def _short(number: float) -> float | int:
    """Return a float32, or an integer, without the digits that it has only as a float64."""
    return int(number) if number.is_integer() else float(f"{number:.9g}")
