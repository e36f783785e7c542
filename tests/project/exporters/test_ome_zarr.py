"""OME-Zarr files, read by ome-zarr-py and validated by ome-zarr-models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Label, Multiscales, Node, Reader
from ome_zarr_models.v04 import Image, ImageLabel

from svetlana_jupyter.core.io.images import open_mask, spacing_of
from svetlana_jupyter.project.exporters import ome_zarr
from tests.project.exporters.conftest import LARGEST, NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project


def nodes(file: Path) -> dict[str, Node]:
    result = Reader(parse_url(file))()
    return {node.zarr.basename(): node for node in result if any(isinstance(spec, Multiscales) for spec in node.specs)}


@pytest.fixture(params=["2D", "3D"])
def case(request: pytest.FixtureRequest) -> tuple[Project, str]:
    if request.param == "2D":
        return request.getfixturevalue("predicted"), NAMES[0]
    return request.getfixturevalue("volume"), "vol"


def test_image_and_labels_have_scale_and_levels(
    case: tuple[Project, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ome_zarr, "MAX_SMALLEST_LEVEL", 20)
    project, image = case
    file = project.export(tmp_path / "results", ["ome-zarr"])[0]
    result = nodes(file)
    assert set(result) == {file.name, "classes", "objects"}
    pair = project.pair(image)
    expected = {file.name: project.probability_map(image), "classes": project.class_map(image), "objects": pair.mask}
    for name, array in expected.items():
        node = result[name]
        assert any(isinstance(spec, Label) for spec in node.specs) == (name != file.name)
        assert [axis["name"] for axis in node.metadata["axes"]] == list(array.dims)
        assert all(axis["unit"] == "micrometer" for axis in node.metadata["axes"])
        assert len(node.data) == 3
        for level, data in enumerate(node.data):
            step = 2**level
            np.testing.assert_array_equal(data, array[..., ::step, ::step])
            (scale,) = node.metadata["coordinateTransformations"][level]
            assert scale == {
                "type": "scale",
                "scale": [*pair.spacing[:-2], *(step * size for size in pair.spacing[-2:])],
            }


def test_labels_have_class_colors_and_object_properties(predicted: Project, tmp_path: Path) -> None:
    file = predicted.export(tmp_path / "results", ["ome-zarr"])[0]
    result = nodes(file)
    colors = {info.name: info.color for info in predicted.classes}
    classes, objects = result["classes"].metadata, result["objects"].metadata
    for info in predicted.classes:
        assert classes["properties"][info.id] == {"class": info.name}
        assert bytes(round(255 * part) for part in classes["color"][info.id][:3]).hex() == info.color[1:]
    assert classes["properties"][255] == {"class": "not predicted"}
    table = predicted.predictions([NAMES[0]]).droplevel("image")
    assert sorted(objects["properties"]) == table.index.tolist()
    assert LARGEST in table.index
    for label, row in table.iterrows():
        properties = objects["properties"][label]
        assert properties["predicted"] == row["predicted"]
        assert np.float32(properties["probability"]) == row["probability"]
        shown = bytes(round(255 * part) for part in objects["color"][label][:3]).hex()
        if row["flag"] == "ambiguous":
            assert "class" not in properties
            assert shown == "808080"
        else:
            assert properties["class"] == row["class"]
            assert shown == colors[row["class"]][1:]


def test_the_metadata_follows_version_0_4(case: tuple[Project, str], tmp_path: Path) -> None:
    file = case[0].export(tmp_path / "results", ["ome-zarr"])[0]
    image = Image.from_zarr(zarr.open_group(file, mode="r"))
    assert image.labels is not None
    assert set(image.labels.attributes.labels) == {"classes", "objects"}
    for name in ("classes", "objects"):
        label = ImageLabel.from_zarr(zarr.open_group(file / "labels" / name, mode="r"))
        assert label.attributes.image_label.source.image == "../../"


def test_an_exported_label_image_opens_as_a_mask(case: tuple[Project, str], tmp_path: Path) -> None:
    project, image = case
    file = project.export(tmp_path / "results", ["ome-zarr"])[0]
    reopened = open_mask(file / "labels" / "objects")
    np.testing.assert_array_equal(reopened, project.pair(image).mask)
    assert spacing_of(reopened) == project.pair(image).spacing


def test_a_failed_export_keeps_the_earlier_one(
    predicted: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = predicted.export(tmp_path / "results", ["ome-zarr"])[0]
    before = {part: part.read_bytes() for part in file.rglob("*") if part.is_file()}
    monkeypatch.setattr(ome_zarr, "_object_attributes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predicted.export(tmp_path / "results", ["ome-zarr"])
    assert {part: part.read_bytes() for part in file.rglob("*") if part.is_file()} == before
    assert {part.name for part in file.parent.glob(".*")} == set()
