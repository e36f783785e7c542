"""Outlines as QuPath writes them: GeoJSON with a class and a colour, in pixels from the corner of the image."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.errors import InputError

SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
OBJECT_TYPES = ("cell", "detection")  # of QuPath; its annotations are regions, unless there is nothing else
MAX_COORDINATE = 2**31  # pixels

Ring = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PolygonObject:
    """One feature of a file.

    Attributes
    ----------
    number : int
        Of its object: as the file names it, else by its order, from 1 on.
    polygons : tuple of tuple of float arrays of shape (n, 2)
        Rings of corners ``(y, x)``, the outer one first, in pixels; pixel (0, 0) reaches from (0, 0) to (1, 1).
    points : float array of shape (n, 2)
        Of a feature that is points.
    plane : int
    class_name, color : str
        "" where it has none.
    said : mapping of str to str
        Its metadata.
    """

    label: int
    polygons: tuple[tuple[Ring, ...], ...]
    points: Ring
    plane: int = 0
    class_name: str = ""
    color: str = ""
    metadata: Mapping[str, str] | None = None

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        """The pixels it may cover: first row and column, and those behind the last."""
        corners = np.concatenate([ring for rings in self.polygons for ring in rings] or [self.points])
        low, high = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])


@dataclass(frozen=True, eq=False)
class GeoJsonObjects:
    """The objects of a file, and a sentence about features that are none; "" where all are."""

    shapes: tuple[PolygonObject, ...]
    note: str = ""


def is_geojson(source: object) -> bool:
    """Whether a source is a GeoJSON file, by its ending."""
    return isinstance(source, str | Path) and str(source).casefold().endswith(SUFFIXES)


def read_geojson(path: Path) -> GeoJsonObjects:
    """Read the objects of a GeoJSON file.

    QuPath's cells and detections are the objects of a file that has some; else its annotations are. Numbers are kept
    where every feature has one (as its name, as "label" or "object" in its properties, or as its id): features of the
    same number on several planes are one object.

    Parameters
    ----------
    path : Path
        A feature collection, a list of features or one feature; it may be packed with gzip.

    Raises
    ------
    InputError
        If it is no GeoJSON, holds no outline or point, or one that is broken.
    """
    features = list(_features(_document(path), path))
    kinds = Counter(str(_properties(feature).get("objectType", "")).casefold() for feature in features)
    others = ""
    if any(kind in kinds for kind in OBJECT_TYPES):
        kept = [one for one in features if str(_properties(one).get("objectType", "")).casefold() in OBJECT_TYPES]
        if len(kept) < len(features):
            rest = Counter(str(_properties(one).get("objectType", "other")) for one in features) - Counter(
                str(_properties(one).get("objectType", "other")) for one in kept
            )
            others = "Left aside: " + ", ".join(f"{count} {kind}s" for kind, count in rest.items()) + "."
        features = kept
    numbers = _numbers(features)
    shapes = [_shape(feature, number, path) for feature, number in zip(features, numbers)]
    found = tuple(shape for shape in shapes if shape.polygons or len(shape.points))
    if not found:
        raise InputError(f"{path} holds no outline of an object. Export objects from QuPath as GeoJSON.")
    lines = len(shapes) - len(found)
    return GeoJsonObjects(
        found, f"{others} {lines} features are lines, which enclose nothing.".strip() if lines else others
    )


def _document(path: Path) -> Any:
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return json.loads(content)
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there.") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as GeoJSON ({error}). Export it again, or copy it whole.") from error


def _features(document: Any, path: Path) -> Iterator[Mapping[str, Any]]:
    if isinstance(document, Mapping):
        document = document.get("features", [document])
    if not isinstance(document, list) or not all(isinstance(one, Mapping) and "geometry" in one for one in document):
        raise InputError(f"{path} is no GeoJSON of features. Export objects from QuPath as GeoJSON.")
    return iter(document)


def _properties(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    found = feature.get("properties")
    return found if isinstance(found, Mapping) else {}


def _numbers(features: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the numbers that the features have in one of the usual places, else their order."""
    for place in ("object", "label", "name", "id"):
        given = [_number(one.get("id") if place == "id" else _properties(one).get(place)) for one in features]
        planes = {(number, _plane(one)) for number, one in zip(given, features)}
        if all(given) and len(planes) == len(features):
            return given
    return list(range(1, len(features) + 1))


def _number(value: Any) -> int:
    """Return a positive integer, 0 for anything else."""
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _plane(feature: Mapping[str, Any]) -> int:
    geometry = feature.get("geometry")
    plane = geometry.get("plane") if isinstance(geometry, Mapping) else None
    return int(plane.get("z", 0)) if isinstance(plane, Mapping) else 0


def _shape(feature: Mapping[str, Any], number: int, path: Path) -> PolygonObject:
    geometry, properties = feature["geometry"] or {}, _properties(feature)
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    try:
        polygons = [coordinates] if kind == "Polygon" else coordinates if kind == "MultiPolygon" else []
        points = [coordinates] if kind == "Point" else coordinates if kind == "MultiPoint" else []
        rings = tuple(tuple(map(_corners, polygon)) for polygon in polygons or [] if polygon)
        places = _corners(points) if points else np.empty((0, 2))
        plane = _plane(feature)
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{path} has a broken outline (feature {number}: {error}). Export it again.") from error
    name, color = _classification(properties.get("classification"))
    metadata = properties.get("metadata")
    said = {str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, Mapping) else None
    return PolygonObject(number, rings, places, plane, name, color, said)


def _corners(points: Any) -> Ring:
    found = np.asarray([point[:2] for point in points], np.float64).reshape(-1, 2)[:, ::-1]
    if not len(found) or not (np.abs(found) < MAX_COORDINATE).all():  # NaN is not either
        raise ValueError("a corner is no place in an image")
    return found


def _classification(value: Any) -> tuple[str, str]:
    """Return the name and colour of a class, in the forms that QuPath has had."""
    if isinstance(value, str):
        return value.strip(), ""
    if not isinstance(value, Mapping):
        return "", ""
    names = value.get("names")
    name = str(value.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else "")).strip()
    color, packed = value.get("color"), value.get("colorRGB")
    if isinstance(color, list) and len(color) >= 3:
        return name, "#" + "".join(f"{int(part) & 255:02x}" for part in color[:3])
    return name, f"#{packed & 0xFFFFFF:06x}" if isinstance(packed, int) else ""
