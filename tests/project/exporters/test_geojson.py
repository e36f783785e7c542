"""Outlines for QuPath: GeoJSON format, classes and measurements of the table, and exact masks."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
from shapely.geometry import shape

from tests.project.exporters.conftest import LARGEST, NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project


def read_strict_json(text: str) -> dict:
    def raise_invalid_json(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=raise_invalid_json)


def features(file: Path) -> list[dict]:
    collection = read_strict_json(file.read_text("utf-8"))
    assert set(collection) == {"type", "features"}
    assert collection["type"] == "FeatureCollection"
    return collection["features"]


def test_filled_outlines_reproduce_the_mask(predicted: Project, tmp_path: Path) -> None:
    files = predicted.export(tmp_path / "results", ["geojson"])
    assert len({file.name.casefold() for file in files}) == len(NAMES)
    for name, file in zip(NAMES, files):
        mask = predicted.pair(name).mask.to_numpy()
        y, x = np.indices(mask.shape) + 0.5
        filled = np.zeros_like(mask)
        for feature in features(file):
            geometry = shape(feature["geometry"])
            assert geometry.is_valid
            filled[shapely.contains_xy(geometry, x, y)] = int(feature["properties"]["name"])
        np.testing.assert_array_equal(filled, mask)
    kinds = {feature["properties"]["name"]: feature["geometry"]["type"] for feature in features(files[0])}
    assert kinds["1"] == kinds["2"] == "MultiPolygon"
    assert kinds[str(LARGEST)] == "Polygon"


def test_features_have_the_classes_and_measurements_of_the_table(predicted: Project, tmp_path: Path) -> None:
    predicted.measure(groups=["shape"])
    file = predicted.export(tmp_path / "results", ["geojson"])[0]
    table = predicted.predictions([NAMES[0]]).droplevel("image")
    measured = predicted.measure([NAMES[0]], groups=["shape"]).droplevel("image")
    by_name = {int(feature["properties"]["name"]): feature for feature in features(file)}
    assert sorted(by_name) == table.index.tolist()
    colors = {info.name: info.color for info in predicted.classes}
    for label, row in table.iterrows():
        properties = by_name[label]["properties"]
        assert properties["objectType"] == "detection"
        assert uuid.UUID(by_name[label]["id"])
        if row["flag"] == "ambiguous":
            assert "classification" not in properties
            assert properties["metadata"]["flag"] == "ambiguous"
            assert "annotation" not in properties["metadata"]
        else:
            assert properties["classification"]["name"] == row["class"]
            assert bytes(properties["classification"]["color"]).hex() == colors[row["class"]][1:]
        assert properties["metadata"]["predicted"] == row["predicted"]
        assert properties["metadata"]["image"] == NAMES[0]
        assert properties["metadata"]["plate"] == "P0"
        for name in ("probability", "p_dim", "p_=bright <b>", "size"):
            assert np.float32(properties["measurements"][name]) == np.float32(row[name])
        assert np.float32(properties["measurements"]["area_um2"]) == measured.loc[label, "area_um2"]
        assert properties["measurements"]["area_um2"] == pytest.approx(row["size"] * 0.125)
    assert len({feature["id"] for feature in by_name.values()}) == len(by_name)


def test_missing_values_of_an_object_are_omitted(volume: Project, tmp_path: Path) -> None:
    (file,) = volume.export(tmp_path / "results", ["geojson"])
    properties = {feature["properties"]["name"]: feature["properties"] for feature in features(file)}
    assert properties["2"]["classification"]["name"] == "bright"
    assert "predicted" not in properties["2"]["metadata"]
    assert "classification" not in properties["3"]
    assert set(properties["3"]["measurements"]) == {"size"}


def test_a_volume_is_outlined_plane_by_plane(volume: Project, tmp_path: Path) -> None:
    (file,) = volume.export(tmp_path / "results", ["geojson"])
    mask = volume.pair("vol").mask.to_numpy()
    y, x = np.indices(mask.shape[1:]) + 0.5
    filled = np.zeros_like(mask)
    for feature in features(file):
        assert set(feature["geometry"]["plane"]) == {"c", "z", "t"}
        inside = shapely.contains_xy(shape(feature["geometry"]), x, y)
        filled[feature["geometry"]["plane"]["z"]][inside] = int(feature["properties"]["name"])
    np.testing.assert_array_equal(filled, mask)
