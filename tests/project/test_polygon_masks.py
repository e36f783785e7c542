"""Masks and annotations from QuPath outlines, compared pixel by pixel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr

from svetlana_jupyter.core.io.images import open_mask
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.project import Project
from tests.project.conftest import squares
from tests.project.test_importers import classes_of

if TYPE_CHECKING:
    from pathlib import Path


def rectangle(y0: float, x0: float, y1: float, x1: float) -> list[list[float]]:
    """Return the closed coordinates of a rectangle in GeoJSON order, x before y."""
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def detection(
    coordinates: list, name: str = "", color: tuple[int, ...] = (0, 0, 0), kind: str = "Polygon", **more
) -> dict:
    properties = {"objectType": "detection", **more}
    if name:
        properties["classification"] = {"name": name, "color": list(color)}
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


FEATURES = [
    detection([rectangle(2, 2, 12, 14), rectangle(5, 5, 8, 9)], "Tumor", (200, 0, 0)),
    detection([[rectangle(20, 3, 24, 6)], [rectangle(26, 3, 28, 9)]], "Stroma", (0, 160, 0), "MultiPolygon"),
    detection([rectangle(3, 20, 13, 30)], "Tumor", (200, 0, 0)),
    detection([rectangle(9, 26, 16, 33)]),
    {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [rectangle(0, 0, 30, 40)]},
        "properties": {"objectType": "annotation"},
    },
]


def expected() -> np.ndarray:
    mask = np.zeros((30, 40), np.uint16)
    mask[3:13, 20:30] = 3
    mask[9:16, 26:33] = 4
    mask[2:12, 2:14] = 1
    mask[5:8, 5:9] = 0
    mask[20:24, 3:6] = mask[26:28, 3:9] = 2
    return mask


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "slide.tif", np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8))
    content = {"type": "FeatureCollection", "features": FEATURES}
    (tmp_path / "slide.geojson").write_text(json.dumps(content), "utf-8")
    return tmp_path


def test_outlines_are_converted_to_mask_and_annotations(slide: Path) -> None:
    project = Project(slide / "new.svetlana")
    project.add("slide", slide / "slide.tif", slide / "slide.geojson")
    np.testing.assert_array_equal(project.pair("slide").mask, expected())
    assert project.status == (
        "slide: 4 of 4 outlines are objects; 2 of them overlap, in 16 pixels, where the smaller one is on top. "
        "Not read: 1 annotations."
    )
    report = project.import_annotations(slide / "slide.geojson")
    assert classes_of(project) == {("slide", 1): "Tumor", ("slide", 2): "Stroma", ("slide", 3): "Tumor"}
    assert report["outcome"].tolist() == ["taken", "taken", "taken", "no class"]
    assert {info.name: info.color for info in project.classes} == {"Tumor": "#c80000", "Stroma": "#00a000"}
    assert "from QuPath slide.geojson" in project.status
    reopened = Project(slide / "new.svetlana")
    reopened.add("slide", slide / "slide.tif", slide / "slide.geojson")
    assert len(reopened.images) == 1
    assert reopened.status == ""
    np.testing.assert_array_equal(reopened.pair("slide").mask, expected())


def test_outlines_are_paired_with_images_by_pattern(slide: Path) -> None:
    project = Project(slide / "new.svetlana")
    table = project.add_images(slide / "{slide}.tif", masks=slide / "{slide}.geojson")
    assert table["problem"].tolist() == [""]
    assert project.status.startswith("slide: 4 of 4 outlines are objects")


def test_classes_are_assigned_to_objects_of_another_mask_by_overlap(slide: Path) -> None:
    mask = np.zeros((30, 40), np.int32)
    mask[2:12, 2:14] = 50  # of the first outline, without its hole
    mask[20:24, 3:6] = 60  # 12 of 24 pixels of the second: not more than half
    mask[3:13, 22:32] = 70
    project = Project(slide / "new.svetlana", classes=["tumor"])
    project.add("slide", slide / "slide.tif", mask, axes="yx")
    report = project.import_annotations(slide / "slide.geojson")
    assert classes_of(project) == {("slide", 50): "tumor", ("slide", 70): "tumor"}, "spelled as here"
    assert report["why"].tolist()[1] == "no object overlaps with outline 2 by more than half"


@pytest.mark.parametrize("chunk", [8, 2048])
def test_replacing_a_mask_by_outlines_carries_annotations_over(slide: Path, chunk: int, monkeypatch) -> None:
    from svetlana_jupyter.core.io import sources as stored

    monkeypatch.setattr(stored, "BLOCK_PIXELS", chunk)
    mask = np.zeros((30, 40), np.int32)
    mask[2:12, 2:14], mask[3:13, 22:32] = 50, 70
    project = Project(slide / "new.svetlana", classes=["a", "b"])
    project.add("slide", slide / "slide.tif", mask, axes="yx")
    project.annotate("slide", 50, "a")
    project.annotate("slide", 70, "b")
    assert project.check_mask("slide", slide / "slide.geojson")["new"].tolist() == [(1,), (3,)]
    report = project.replace_mask("slide", slide / "slide.geojson")
    assert report["status"].tolist() == ["relabeled", "relabeled"]
    np.testing.assert_array_equal(project.pair("slide").mask, expected())
    assert classes_of(Project(slide / "new.svetlana")) == {("slide", 1): "a", ("slide", 3): "b"}


def test_points_are_matched_to_the_object_under_them(slide: Path) -> None:
    project = Project(slide / "new.svetlana")
    project.add("slide", slide / "slide.tif", expected(), axes="yx")
    points = detection([[3.5, 2.5], [39, 29]], "clicked", (1, 2, 3), "MultiPoint")
    (slide / "points.json").write_text(json.dumps([points, detection([20.0, 3.0], "clicked", kind="Point")]), "utf-8")
    report = project.import_annotations(slide / "points.json")
    assert classes_of(project) == {("slide", 1): "clicked", ("slide", 3): "clicked"}
    assert report["why"].tolist() == ["", "no object lies under a point", ""]


def test_object_numbers_in_the_file_are_kept(slide: Path) -> None:
    features = [
        {**feature, "properties": {**feature["properties"], "name": name}}
        for feature, name in zip(FEATURES, ["70000", "5", "9", "2"])
    ]
    (slide / "slide.geojson").write_text(json.dumps(features), "utf-8")
    project = Project(slide / "new.svetlana")
    project.add("slide", slide / "slide.tif", slide / "slide.geojson")
    assert project.objects("slide").index.tolist() == [2, 5, 9, 70000]


def test_invalid_outlines_are_refused_and_leave_no_files(slide: Path) -> None:
    project = Project(slide / "new.svetlana")
    far = [detection([rectangle(100, 100, 110, 110)])]
    (slide / "far.geojson").write_text(json.dumps(far), "utf-8")
    with pytest.raises(
        InputError, match=r"None of 1 outlines in .*far\.geojson covers a pixel of the image, which is 30 × 40"
    ):
        project.add("slide", slide / "slide.tif", slide / "far.geojson")
    with pytest.raises(InputError, match="does not exist"):
        project.add("slide", slide / "slide.tif", slide / "nowhere.geojson")
    with pytest.raises(InputError, match=r"holds outlines instead of pixels"):
        open_mask(slide / "slide.geojson")
    assert not list((slide / "new.svetlana").rglob("*.zarr"))
    assert not project.images


def test_a_large_mask_is_rasterized_tile_by_tile(slide: Path, monkeypatch) -> None:
    image, mask = squares()
    tifffile.imwrite(slide / "slide.tif", image)
    boxes = [(row * 24 + 6, column * 24 + 6) for row in range(3) for column in range(4)]
    features = [detection([rectangle(y, x, y + 12, x + 12)]) for y, x in boxes]
    (slide / "slide.geojson").write_text(json.dumps(features), "utf-8")
    from svetlana_jupyter.core import polygons as drawing
    from svetlana_jupyter.project import outline_masks as outlined

    monkeypatch.setattr(drawing, "TILE_SIDE", 16)
    monkeypatch.setattr(outlined, "CHUNK", 8)
    project = Project(slide / "new.svetlana")
    project.add("slide", slide / "slide.tif", slide / "slide.geojson")
    np.testing.assert_array_equal(project.pair("slide").mask, mask)
    (stored,) = (slide / "new.svetlana").rglob("mask.zarr")
    assert zarr.open_array(stored).chunks == (8, 8)


def test_predictions_in_an_exported_file_are_imported_only_on_request(slide: Path) -> None:
    metadata = [{"predicted": "Tumor", "annotation": "Stroma"}, {"predicted": "Stroma"}]
    features = [
        {**feature, "properties": {**feature["properties"], "metadata": m}} for feature, m in zip(FEATURES, metadata)
    ]
    (slide / "slide.geojson").write_text(json.dumps(features), "utf-8")
    project = Project(slide / "new.svetlana")
    project.add("slide", slide / "slide.tif", slide / "slide.geojson")
    project.import_annotations(slide / "slide.geojson")
    assert classes_of(project) == {("slide", 1): "Stroma"}
    project.import_annotations(slide / "slide.geojson", column="classification", overwrite=True)
    assert classes_of(project) == {("slide", 1): "Tumor", ("slide", 2): "Stroma"}


def test_nuclei_are_matched_where_cells_are_not(slide: Path) -> None:
    mask = np.zeros((30, 40), np.uint16)
    mask[4:8, 4:8], mask[20:26, 20:26] = 1, 2
    nucleus = {"type": "Polygon", "coordinates": [rectangle(4, 4, 8, 8)]}
    cells = [
        {**detection([rectangle(1, 1, 12, 12)], "Tumor"), "nucleusGeometry": nucleus},
        detection([rectangle(20, 20, 26, 26)], "Stroma"),
        detection([rectangle(1, 20, 6, 26)], "Stroma"),
    ]
    (slide / "cells.geojson").write_text(json.dumps(cells), "utf-8")
    project = Project(slide / "new.svetlana")
    project.add("slide", slide / "slide.tif", mask, axes="yx")
    project.import_annotations(slide / "cells.geojson")
    assert classes_of(project) == {("slide", 1): "Tumor", ("slide", 2): "Stroma"}
    assert "1 cells were matched by their nucleus." in project.status


def test_outlines_of_several_images_go_to_their_image(slide: Path) -> None:
    mask = np.zeros((30, 40), np.uint16)
    mask[4:8, 4:8] = 1
    project = Project(slide / "new.svetlana")
    for name in ("slide", "other"):
        project.add(name, np.zeros(mask.shape, np.uint8), mask, axes="yx")
    names = {"slide": "Tumor", "other": "Stroma", "third": "Fat"}
    shapes = [detection([rectangle(4, 4, 8, 8)], kind, metadata={"image": name}) for name, kind in names.items()]
    (slide / "both.geojson").write_text(json.dumps(shapes), "utf-8")
    report = project.import_annotations(slide / "both.geojson")
    assert classes_of(project) == {("slide", 1): "Tumor", ("other", 1): "Stroma"}
    assert report["why"].tolist()[0] == "the project has no image 'third'"
    project.undo()
    report = project.import_annotations(slide / "both.geojson", "other")
    assert classes_of(project) == {("other", 1): "Stroma"}
    assert report["outcome"].value_counts().to_dict() == {"set aside": 2, "taken": 1}
    with pytest.raises(InputError, match=r"The rows are of slide, not of 'other'"):
        (slide / "one.geojson").write_text(json.dumps(shapes[:1]), "utf-8")
        project.import_annotations(slide / "one.geojson", "other")


def test_what_was_compared_is_said_where_outlines_match_nothing(slide: Path) -> None:
    project = Project(slide / "new.svetlana")
    project.add("slide", slide / "slide.tif", expected(), axes="yx")
    (slide / "far.geojson").write_text(json.dumps([detection([rectangle(100, 200, 110, 210)], "Tumor")]), "utf-8")
    project.import_annotations(slide / "far.geojson")
    assert "Compared: outlines y 100 to 110, x 200 to 210 px with 'slide' of 30 × 40 px." in project.status


def test_unclassified_is_no_class_and_alike_reasons_are_counted_together(slide: Path) -> None:
    project = Project(slide / "new.svetlana")
    project.add("slide", slide / "slide.tif", expected(), axes="yx")
    names = ["Tumor", "Unclassified", "None", "Fat", "Fat"]
    boxes = [rectangle(3, 20, 13, 30), rectangle(2, 2, 12, 14), rectangle(9, 26, 16, 33), *[rectangle(0, 0, 1, 1)] * 2]
    shapes = [detection([box], name, ("x", 0, 0)) for box, name in zip(boxes, names)]
    (slide / "cells.geojson").write_text(json.dumps(shapes), "utf-8")
    project.import_annotations(slide / "cells.geojson")
    assert classes_of(project) == {("slide", 3): "Tumor"}
    assert (
        "2 without a class; 2 without a matching object (such as: no object overlaps with outline 4" in project.status
    )
    (slide / "deep.geojson").write_text("[" * 3000 + "]" * 3000, "utf-8")
    with pytest.raises(InputError, match="cannot be read as GeoJSON"):
        project.import_annotations(slide / "deep.geojson")
