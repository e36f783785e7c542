"""Rasterization compared with scikit-image, tracing compared with GEOS, and reading of GeoJSON."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.draw import polygon2mask
from xarray import DataArray

from svetlana_jupyter.core import polygons as polygons_module
from svetlana_jupyter.core.io.chunks import MIN_BLOCK_SHAPE
from svetlana_jupyter.core.io.geojson import PolygonObject, read_geojson
from svetlana_jupyter.core.io.sources import to_dask
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.polygons import PolygonMask, fill_polygons, iter_object_outlines, outline_polygons
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

BOX = (0, 0, 30, 40)
corner = st.tuples(st.floats(-5, 35, width=32), st.floats(-5, 45, width=32))


def ring(*corners: tuple[float, float]) -> np.ndarray:
    return np.array(corners, float)


@settings(max_examples=80)
@given(st.lists(corner, min_size=3, max_size=9))
def test_filled_polygons_equal_those_of_scikit_image(corners: list[tuple[float, float]]) -> None:
    outline = ring(*corners)
    result = fill_polygons([[outline]], BOX)
    expected = polygon2mask(BOX[2:], outline - 0.5)  # there, pixel (0, 0) has its center at (0, 0)
    for row, column in np.argwhere(result != expected):  # only pixels with a center on a side may differ
        point, ends = np.array([row, column]) + 0.5, np.roll(outline, -1, axis=0)
        way = ends - outline
        share = ((point - outline) * way).sum(axis=1) / np.maximum((way**2).sum(axis=1), 1e-300)
        assert np.linalg.norm(outline + np.clip(share, 0, 1)[:, None] * way - point, axis=1).min() < 1e-5


def test_a_pixel_on_a_common_side_belongs_to_one_polygon() -> None:
    middle = 7.5  # through the centers of pixels
    left, right = ring((2, 2), (2, middle), (9, middle), (9, 2)), ring((2, middle), (2, 20), (9, 20), (9, middle))
    both = fill_polygons([[left]], BOX).astype(int) + fill_polygons([[right]], BOX)
    assert both[2:9, 2:20].tolist() == np.ones((7, 18), int).tolist()
    assert both.sum() == 7 * 18


def test_polygons_may_have_holes_and_parts() -> None:
    outer, hole = ring((1, 1), (1, 9), (9, 9), (9, 1)), ring((3, 3), (6, 3), (6, 6), (3, 6))
    result = fill_polygons([[outer, hole], [ring((20, 20), (20, 22), (21, 22), (21, 20))]], BOX)
    expected = np.zeros(BOX[2:], bool)
    expected[1:9, 1:9], expected[3:6, 3:6], expected[20, 20:22] = True, False, True
    np.testing.assert_array_equal(result, expected)


def square(number: int, y: float, x: float, side: float, plane: int = 0) -> PolygonObject:
    return PolygonObject(
        number, ((ring((y, x), (y, x + side), (y + side, x + side), (y + side, x)),),), np.empty((0, 2)), plane
    )


def rasterize_all(shapes: list[PolygonObject], shape: tuple[int, ...]) -> tuple[np.ndarray, PolygonMask]:
    drawing = PolygonMask(shapes, shape)
    mask = np.zeros(shape, drawing.dtype)
    for part, pixels in drawing.draw_tiles():
        mask[part] = pixels
    return mask, drawing


@pytest.mark.parametrize("tile", [5, 2048])
def test_the_smaller_of_overlapping_polygons_is_on_top_and_overlaps_are_reported(monkeypatch, tile: int) -> None:
    monkeypatch.setattr(polygons_module, "TILE_SIDE", tile)
    shapes = [
        square(3, 4, 4, 4),
        square(7, 2, 2, 8),
        square(9, 50, 50, 3),
        square(4, 12.6, 3, 0.3),
        square(5, 14, 14, 9),
    ]
    mask, drawing = rasterize_all(shapes, (20, 20))
    assert (mask[4:8, 4:8] == 3).all()
    assert (mask == 7).sum() == 64 - 16
    assert (mask == 5).sum() == 36
    assert drawing.overlapping_labels == {3, 7}
    assert drawing.overlap_pixels == 16
    assert drawing.missing_labels == [4, 9]


def test_polygons_of_one_label_are_one_object_across_planes() -> None:
    mask, _ = rasterize_all(
        [square(2, 1, 1, 3, plane=1), square(2, 1, 1, 5, plane=2), square(8, 0, 0, 2, plane=9)], (4, 9, 9)
    )
    assert [(plane == 2).sum() for plane in mask] == [0, 9, 25, 0]
    assert mask.max() == 2


@pytest.mark.parametrize("shape", [(30, 40), (4, 30, 40)])
def test_parts_of_a_lazy_mask_are_drawn_when_they_are_read(shape: tuple[int, ...]) -> None:
    shapes = [square(n, 4.2 * n, 5.7 * n, 7.5, plane=n % 4 if len(shape) == 3 else 0) for n in range(1, 7)]
    whole, _ = rasterize_all(shapes, shape)
    source = PolygonMask(shapes, shape)
    mask = to_dask(source)
    for part in (np.s_[..., 3:17, 9:30], np.s_[..., 5:, 11], np.s_[..., 20:2:-3, ::5], np.s_[-1, ..., 30]):
        np.testing.assert_array_equal(mask[part], whole[part])
    whole_mask = tuple(slice(None) for _ in shape)
    assert source[whole_mask].dtype == mask.dtype == np.uint16
    np.testing.assert_array_equal(source[(*whole_mask[:-2], slice(9, 2, -2), 12)], whole[..., 9:2:-2, 12])


def feature(geometry: dict, **properties: object) -> dict:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


SQUARE = {"type": "Polygon", "coordinates": [[[1, 2], [5, 2], [5, 6], [1, 6], [1, 2]]]}


def write_geojson(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), "utf-8")
    return path


def test_all_formats_of_qupath_classes_are_read(tmp_path: Path) -> None:
    forms = [
        {"name": "Tumor", "color": [200, 0, 10]},
        {"name": "Stroma", "colorRGB": -3670016},
        {"names": ["Tumor", "Positive"], "color": [1, 2, 3]},
        "plain",
        None,
    ]
    features = [feature(SQUARE, objectType="detection", classification=form) for form in forms]
    result = read_geojson(write_geojson(tmp_path / "a.geojson", features)).shapes
    assert [(shape.class_name, shape.color) for shape in result] == [
        ("Tumor", "#c8000a"),
        ("Stroma", "#c80000"),
        ("Tumor: Positive", "#010203"),
        ("plain", ""),
        ("", ""),
    ]
    assert [shape.label for shape in result] == [1, 2, 3, 4, 5]
    assert result[0].bbox == (2, 1, 6, 5)
    packed = tmp_path / "a.geojson.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.geojson").read_bytes()))
    assert len(read_geojson(packed).shapes) == 5


def test_cells_are_read_and_annotations_are_reported_as_skipped(tmp_path: Path) -> None:
    features = [feature(SQUARE, objectType="annotation"), feature(SQUARE, objectType="cell", name="12")]
    result = read_geojson(write_geojson(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": features}))
    assert [shape.label for shape in result.shapes] == [12]
    assert result.note == "Not read: 1 annotations."
    only = read_geojson(write_geojson(tmp_path / "b.geojson", features[0]))
    assert len(only.shapes) == 1
    assert only.note == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as GeoJSON"),
        ('{"a": 1}', "contains no GeoJSON features"),
        ('{"type": "FeatureCollection", "features": []}', "holds no outline"),
        (json.dumps(feature({"type": "LineString", "coordinates": [[1, 2], [3, 4]]})), "holds no outline"),
        (json.dumps(feature({"type": "Polygon", "coordinates": [[["a", 2], [3, 4]]]})), "invalid outline"),
        (json.dumps(feature({"type": "Polygon", "coordinates": [[[1], [3, 4]]]})), "invalid outline"),
        (json.dumps(feature({"type": "Polygon", "coordinates": 5})), "invalid outline"),
        (json.dumps(feature({"type": "Polygon", "coordinates": [[[1e300, 2], [3, 4]]]})), "not a position in an image"),
    ],
)
def test_invalid_geojson_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "a.geojson"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_geojson(file)


def geometry(result):
    return shapely.MultiPolygon([(outer[:, ::-1], [hole[:, ::-1] for hole in holes]) for outer, *holes in result])


def filled(shape, outlines):
    """Fill outlines with GEOS: a pixel belongs to the polygon that contains its center."""
    mask = np.zeros(shape, np.int64)
    y, x = np.indices(shape[-2:]) + 0.5
    for outline in outlines:
        plane = mask[outline.plane] if mask.ndim == 3 else mask
        inside = shapely.contains_xy(geometry(outline.polygons), x, y)
        assert not plane[inside].any()
        plane[inside] = outline.label
    return mask


@settings(deadline=None, max_examples=300)
@given(arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 8)), fill=st.booleans()))
def test_valid_polygons_enclose_any_mask_exactly(own):
    result = outline_polygons(own)
    shape = geometry(result)
    y, x = np.indices(own.shape) + 0.5
    assert shape.is_valid, shapely.is_valid_reason(shape)
    np.testing.assert_array_equal(shapely.contains_xy(shape, x, y), own)
    assert shape.area == own.sum()
    assert all(part.exterior.is_ccw for part in shape.geoms)
    assert not any(hole.is_ccw for part in shape.geoms for hole in part.interiors)
    for ring in (ring for polygon in result for ring in polygon):
        sides = np.diff(ring, axis=0) != 0
        assert (sides.sum(axis=1) == 1).all()
        assert (sides[1:] != sides[:-1]).all(), "only necessary corners"


def test_a_ring_touching_itself_becomes_a_hole_and_an_island_a_part():
    ring = np.ones((7, 7), bool)
    ring[1:6, 1:6] = ring[6, 6] = False
    ring[5, 5] = ring[3, 3] = True
    result = outline_polygons(ring)
    assert [len(polygon) for polygon in result] == [2, 1]
    assert geometry(result).is_valid
    assert geometry(result).area == ring.sum()


@pytest.mark.parametrize("chunks", [-1, 7, (2, 16, 30)])
def test_objects_of_any_size_are_outlined_in_any_chunks(chunks):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 4, (3, 40, 50)).astype(np.uint64) * 2**33  # three objects that span the whole mask
    pixels[:, 20:30, 20:40] = 7
    mask = DataArray(da.from_array(pixels, chunks=chunks), dims=("z", "y", "x"))
    np.testing.assert_array_equal(filled(pixels.shape, iter_object_outlines(mask, index_objects(mask))), pixels)


def test_an_object_wider_than_a_block_is_read_alone(monkeypatch):
    monkeypatch.setitem(MIN_BLOCK_SHAPE, 2, (8, 8))
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 30] = 9
    pixels[::4, ::4] = np.arange(1, 257).reshape(16, 16) % 8 + 1
    for number, corner in enumerate(np.argwhere(pixels[:, :28] > 0), 10):
        pixels[tuple(corner)] = number
    mask = DataArray(da.from_array(pixels, chunks=8), dims=("y", "x"))
    np.testing.assert_array_equal(filled(pixels.shape, iter_object_outlines(mask, index_objects(mask))), pixels)


LEGACY = ("PathAnnotationObject", "PathCellObject", "TMACoreObject", "PathRootObject", "PathTileObject")


@pytest.mark.parametrize(
    ("key", "kinds"),
    [
        ("id", LEGACY),  # QuPath 0.2
        ("object_type", ("annotation", "cell", "tma_core", "root", "tile")),  # QuPath 0.3
        ("objectType", ("annotation", "cell", "tma_core", "root", "tile")),  # since QuPath 0.4
    ],
)
@pytest.mark.parametrize("is_nested", [False, True])
def test_cells_are_told_from_other_objects_in_every_version_of_qupath(tmp_path: Path, key, kinds, is_nested) -> None:
    features = [feature(SQUARE, name=str(n)) for n in range(5)]
    for one, kind in zip(features, kinds):
        (one if key == "id" else one["properties"])[key] = kind
    if is_nested:
        features[0]["properties"]["childObjects"] = features[1:2]
        features[3]["properties"]["childObjects"] = [features[0], *features[2:3], features[4]]
        features = features[3:4]
    result = read_geojson(write_geojson(tmp_path / "a.geojson", features))
    assert [shape.label for shape in result.shapes] == [1]
    assert result.note.startswith("Not read: 1 ")
    assert result.note.count("1 ") == 4
    only_cores = [{**feature(SQUARE), "id": "TMACoreObject"}]
    with pytest.raises(InputError, match=r"holds no outline of an object\. Not read: 1 tma_cores"):
        read_geojson(write_geojson(tmp_path / "b.geojson", only_cores))


def test_collections_nuclei_and_single_time_points_are_read(tmp_path: Path) -> None:
    nucleus = {"type": "Polygon", "coordinates": [[[2, 3], [4, 3], [4, 5], [2, 5], [2, 3]]]}
    line = {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}
    collection = {
        "type": "GeometryCollection",
        "geometries": [SQUARE, line, nucleus],
        "plane": {"c": -1, "z": 3, "t": 2},
    }
    cell = {**feature(collection, objectType="cell"), "nucleusGeometry": nucleus}
    found = read_geojson(write_geojson(tmp_path / "a.json", [cell]))
    (shape,) = found.shapes
    assert len(shape.polygons) == 2
    assert shape.nucleus[0][0].max() == 5
    assert (shape.plane, shape.time) == (3, 2)
    assert found.note == "All objects are of time point 2."
    other = feature({**SQUARE, "plane": {"c": -1, "z": 3, "t": 0}}, objectType="cell")
    with pytest.raises(InputError, match=r"objects of 2 time points \(0, 2\)"):
        read_geojson(write_geojson(tmp_path / "a.json", [cell, other]))
    with pytest.raises(InputError, match=r"The outlines are in 2 z planes \(0, 1\), but the image has only one"):
        PolygonMask([square(1, 1, 1, 3), square(2, 1, 1, 3, plane=1)], (9, 9))
    broken = feature({**SQUARE, "plane": {"z": "a"}})
    with pytest.raises(InputError, match="the plane z='a', which is no integer"):
        read_geojson(write_geojson(tmp_path / "a.json", [broken]))
