"""Object outlines in GeoJSON files of QuPath.

The vertices of an outline are in pixels from the top left corner of the image. An outline may have a class and a color.
"""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.io.bounded_files import decompress_gzip, parse_json, read_bounded
from svetlana_jupyter.errors import InputError

SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
# Object types of QuPath that are objects, in order of preference. Its annotations are regions of the tissue, unless
# there are no cells and detections. Cores of a tissue microarray and the root of all objects are never objects.
OBJECT_KINDS = (("cell", "detection"), ("annotation", "unknown", "other", ""), ("tile",))
LEGACY_KINDS = {  # QuPath 0.2 writes these as the id of a feature, and as the name in a table
    **{"pathcellobject": "cell", "pathdetectionobject": "detection", "pathtileobject": "tile"},
    **{"pathannotationobject": "annotation", "tmacoreobject": "tma_core", "pathrootobject": "root"},
}
MAX_DEPTH = 100  # of features inside features
MAX_COORDINATE = 2**31  # pixels

Ring = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PolygonObject:
    """Object in a GeoJSON file, given by an outline or by points.

    Attributes
    ----------
    label : int
        Label in the file or, if the file has no labels, the position of the feature, counted from 1.
    polygons : tuple of tuple of float arrays of shape (n, 2)
        Polygons, each with its outer ring and then the rings of its holes. A ring consists of vertices ``(y, x)`` in
        pixels; pixel (0, 0) extends from (0, 0) to (1, 1).
    points : float array of shape (n, 2)
        Positions ``(y, x)`` of a point feature.
    plane, time : int
        Index of the z plane, and of the time point.
    class_name, color : str
        Name and hexadecimal color of the class; "" if the file does not state them.
    metadata : mapping of str to str, optional
        Metadata that QuPath stores with the object.
    nucleus : tuple of tuple of float arrays of shape (n, 2)
        Polygons of the nucleus of a cell.
    """

    label: int
    polygons: tuple[tuple[Ring, ...], ...]
    points: Ring
    plane: int = 0
    class_name: str = ""
    color: str = ""
    metadata: Mapping[str, str] | None = None
    time: int = 0
    nucleus: tuple[tuple[Ring, ...], ...] = ()

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        """Bounding box ``(y0, x0, y1, x1)`` in pixels, half-open."""
        corners = np.concatenate([ring for rings in self.polygons for ring in rings] or [self.points])
        low, high = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])


@dataclass(frozen=True, eq=False)
class GeoJsonObjects:
    """Objects of a GeoJSON file, and a note on its other features ("" if none)."""

    shapes: tuple[PolygonObject, ...]
    note: str = ""


def is_geojson(source: object) -> bool:
    """Return whether the suffix of a path is that of a GeoJSON file."""
    return isinstance(source, str | Path) and str(source).casefold().endswith(SUFFIXES)


def is_legacy_kind(text: str) -> bool:
    """Return whether QuPath 0.2 writes a text as an object type ("PathCellObject")."""
    return text.casefold() in LEGACY_KINDS


def select_objects(kinds: Sequence[str]) -> list[bool]:
    """Return which of QuPath's objects are objects of a mask, judging by their types.

    >>> select_objects(["Annotation", "Cell"]), select_objects(["Annotation", "TMA core"])
    ([False, True], [True, False])
    """
    plain = [LEGACY_KINDS.get(kind.casefold(), kind.casefold().replace(" ", "_")) for kind in kinds]
    known = {"root", "tma_core", "tile", *OBJECT_KINDS[0]}
    plain = [kind if kind in known else "other" for kind in plain]
    for group in OBJECT_KINDS:
        if any(kind in group for kind in plain):
            return [kind in group for kind in plain]
    return [False] * len(plain)


def read_geojson(path: Path) -> GeoJsonObjects:
    """Read the objects of a GeoJSON file.

    Objects are the cells and detections of QuPath or, in a file without cells and detections, all features except tiles
    and cores of a tissue microarray. Features inside features are read, too. Labels are kept if every feature has a
    label (its name, its property "label" or "object", or its id). Features with the same label on different planes
    belong to one object.

    Parameters
    ----------
    path : Path
        File with a feature collection, a list of features or one feature, optionally compressed with gzip.

    Raises
    ------
    InputError
        If the file is not GeoJSON, contains neither outlines nor points, contains an invalid outline, or contains
        objects of several time points.
    """
    features = _read_features(path)
    kinds = [_kind(feature) for feature in features]
    chosen, notes = select_objects(kinds), []
    if not all(chosen):
        rest = Counter(kind or "unknown object" for kind, is_object in zip(kinds, chosen) if not is_object)
        notes.append(f"Not read: {', '.join(f'{count} {kind}s' for kind, count in rest.items())}.")
        features = list(itertools.compress(features, chosen))
    shapes = [_polygon_object(feature, label, path) for feature, label in zip(features, _labels(features))]
    objects = tuple(shape for shape in shapes if shape.polygons or len(shape.points))
    if not objects:
        raise InputError(
            f"{path} holds no outline of an object. {' '.join([*notes, ''])}Export the objects from QuPath as GeoJSON."
        )
    if lines := len(shapes) - len(objects):
        notes.append(f"{lines} features have neither an outline nor points, so that they enclose no pixels.")
    times = sorted({shape.time for shape in objects})
    if len(times) > 1:
        raise InputError(
            f"{path} contains objects of {len(times)} time points ({', '.join(map(str, times[:5]))}), but an image has "
            "only one. Export the objects of one time point."
        )
    if times != [0]:
        notes.append(f"All objects are of time point {times[0]}.")
    return GeoJsonObjects(objects, " ".join(notes))


def check_planes(shapes: Sequence[PolygonObject], ndim: int) -> None:
    """Raise an error if outlines of several z planes belong to a 2D image."""
    planes = sorted({shape.plane for shape in shapes})
    if ndim == 2 and len(planes) > 1:
        raise InputError(
            f"The outlines are in {len(planes)} z planes ({', '.join(map(str, planes[:5]))}), but the image has only "
            "one. Export the objects of one plane."
        )


def _read_features(path: Path) -> list[Mapping[str, Any]]:
    try:
        content = read_bounded(path)
        document = parse_json(decompress_gzip(content) if content[:2] == b"\x1f\x8b" else content)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist. Check the path.") from error
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read as GeoJSON ({error}). Export or copy it again.") from error
    features = document.get("features", [document]) if isinstance(document, dict) else document
    found = list(_with_children(features, path)) if isinstance(features, list) else []
    if not any("geometry" in feature for feature in found) and features != []:
        raise InputError(f"{path} contains no GeoJSON features. Export the objects from QuPath as GeoJSON.")
    return found


def _with_children(features: Sequence[Any], path: Path, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield features and the features inside them (QuPath's hierarchy)."""
    if depth > MAX_DEPTH:
        raise InputError(f"{path} contains features inside features in more than {MAX_DEPTH} levels. Export it again.")
    for feature in features:
        if not isinstance(feature, Mapping):
            raise InputError(f"{path} contains {feature!r:.40} in the place of a GeoJSON feature. Export it again.")
        yield feature
        children = _properties(feature).get("childObjects", feature.get("childObjects"))
        if isinstance(children, list):
            yield from _with_children(children, path, depth + 1)


def _kind(feature: Mapping[str, Any]) -> str:
    """Return the object type of a feature, as written by any version of QuPath."""
    properties, name = _properties(feature), feature.get("id")
    kind = properties.get("objectType", properties.get("object_type"))
    if kind is None and isinstance(name, str) and is_legacy_kind(name):
        kind = LEGACY_KINDS[name.casefold()]
    return str(kind if kind is not None else "")


def _properties(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = feature.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _labels(features: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the labels of features, or positions from 1 if any feature lacks one."""
    for place in ("object", "label", "name", "id"):
        labels = [_label(one.get("id") if place == "id" else _properties(one).get(place)) for one in features]
        planes = {(label, _plane(feature)) for label, feature in zip(labels, features)}
        if all(labels) and len(planes) == len(features):
            return labels
    return list(range(1, len(features) + 1))


def _label(value: Any) -> int:
    """Convert a positive integer or its text to a label, and anything else to 0."""
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _plane(feature: Mapping[str, Any], axis: str = "z") -> int:
    geometry = feature.get("geometry")
    plane = geometry.get("plane") if isinstance(geometry, Mapping) else None
    index = plane.get(axis, 0) if isinstance(plane, Mapping) else 0
    if not isinstance(index, int | float) or not abs(index) < MAX_COORDINATE or index != int(index):
        raise InputError(f"A feature has the plane {axis}={index!r:.40}, which is no integer. Export the file again.")
    return int(index)


def _polygon_object(feature: Mapping[str, Any], label: int, path: Path) -> PolygonObject:
    properties = _properties(feature)
    try:
        rings, positions = _geometry(feature.get("geometry"))
        nucleus, _ = _geometry(feature.get("nucleusGeometry", properties.get("nucleusGeometry")))
        plane, time = _plane(feature), _plane(feature, "t")
        name, color = _classification(properties.get("classification"))
    except (TypeError, ValueError, IndexError, AttributeError, KeyError, RecursionError, OverflowError) as error:
        raise InputError(
            f"Feature {label} of {path} has an invalid outline ({error}). Export the file again."
        ) from error
    metadata = properties.get("metadata")
    texts = {str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, Mapping) else None
    return PolygonObject(label, rings, positions, plane, name, color, texts, time, nucleus)


def _geometry(geometry: Any) -> tuple[tuple[tuple[Ring, ...], ...], Ring]:
    """Return the polygons and the points of a geometry or a collection of geometries."""
    geometry = geometry or {}
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "GeometryCollection":
        parts = [_geometry(part) for part in geometry["geometries"]]
        return tuple(itertools.chain(*(rings for rings, _ in parts))), np.concatenate(
            [np.empty((0, 2)), *(points for _, points in parts)]
        )
    polygons = [coordinates] if kind == "Polygon" else coordinates if kind == "MultiPolygon" else []
    points = [coordinates] if kind == "Point" else coordinates if kind == "MultiPoint" else []
    rings = tuple(tuple(map(_vertices, polygon)) for polygon in polygons or [] if polygon)
    return rings, _vertices(points) if points else np.empty((0, 2))


def _vertices(points: Any) -> Ring:
    vertices = np.asarray([point[:2] for point in points], np.float64).reshape(-1, 2)[:, ::-1]
    if not len(vertices) or not (np.abs(vertices) < MAX_COORDINATE).all():  # NaN is out of range, too
        raise ValueError("a vertex is not a position in an image")
    return vertices


def _classification(value: Any) -> tuple[str, str]:
    """Return the name and color of a class, as stored by any version of QuPath."""
    if isinstance(value, str):
        return value.strip(), ""
    if not isinstance(value, Mapping):
        return "", ""
    names, color, packed = value.get("names"), value.get("color"), value.get("colorRGB")
    name = str(value.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else "")).strip()
    if isinstance(color, list) and len(color) >= 3 and all(isinstance(part, int) for part in color[:3]):
        return name, "#" + "".join(f"{int(part) & 255:02x}" for part in color[:3])
    return name, f"#{packed & 0xFFFFFF:06x}" if isinstance(packed, int) else ""
