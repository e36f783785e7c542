"""Round trips: data from QuPath and ilastik is exported without loss and imported again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.measure import label

from svetlana_jupyter.core.io.images import open_mask
from svetlana_jupyter.project.project import Project
from tests.project.conftest import squares
from tests.project.test_importers import classes_of

if TYPE_CHECKING:
    from pathlib import Path


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return a mask of ragged objects with holes, parts that touch at corners, and gaps in the labels."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.random([-(-side // 6) for side in shape]), np.ones((6,) * len(shape)))
    noisy = coarse[tuple(map(slice, shape))] + rng.normal(0, 0.12, shape)
    mask = label(noisy > 0.55, connectivity=len(shape)).astype(np.uint32)
    mask[rng.random(shape) < 0.03] = 0
    return mask * 3


@pytest.mark.parametrize("shape", [(60, 80), (4, 40, 50)])
def test_masks_classes_and_colors_survive_a_geojson_round_trip(tmp_path: Path, shape: tuple[int, ...]) -> None:
    mask = blobs(shape, seed=len(shape))
    image = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    tifffile.imwrite(tmp_path / "slide.tif", image, metadata={"axes": "ZYX"[-len(shape) :]}, imagej=True)
    first = Project(tmp_path / "first.svetlana", classes=["Tumor", "Stroma"])
    first.classes.recolor("Stroma", "#123456")
    first.add("slide", tmp_path / "slide.tif", mask, axes="zyx"[-len(shape) :])
    objects = first.objects("slide").index
    first.annotate("slide", objects[::2], "Tumor")
    first.annotate("slide", objects[1::3], "Stroma")
    first.flag("slide", int(objects[4]), "bad_segmentation")
    (file,) = [one for one in first.export(tmp_path / "out", ["geojson"]) if one.suffix == ".geojson"]

    second = Project(tmp_path / "second.svetlana")
    second.add("slide", tmp_path / "slide.tif", file)
    np.testing.assert_array_equal(second.pair("slide").mask, mask)
    report = second.import_annotations(file)
    assert classes_of(second) == classes_of(first)
    assert not (report["outcome"] == "not found").any()
    colors = {info.name: info.color for info in first.classes}
    assert {info.name: info.color for info in second.classes} == colors

    (again,) = [one for one in second.export(tmp_path / "again", ["geojson"]) if one.suffix == ".geojson"]
    features = [json.loads(one.read_text("utf-8"))["features"] for one in (file, again)]
    assert len(features[0]) == len(features[1]) > len(objects) / 2
    for one, other in zip(*features):
        assert one["geometry"] == other["geometry"]
        assert one["id"] == other["id"]
        assert one["properties"].get("classification") == other["properties"].get("classification")


def test_an_ilastik_label_image_is_exported_with_the_same_objects(tmp_path: Path) -> None:
    mask = blobs((60, 80), seed=5)
    tifffile.imwrite(tmp_path / "slide.tif", (mask % 251).astype(np.uint8))
    with h5py.File(tmp_path / "slide_Object Identities.h5", "w") as file:
        file.create_dataset(
            "exported_data", data=mask[None, None, ..., None], chunks=(1, 1, 20, 20, 1), compression="gzip"
        )
        tags = [{"key": axis, "typeFlags": 2, "resolution": 0, "description": ""} for axis in "tzyxc"]
        file["exported_data"].attrs["axistags"] = json.dumps({"axes": tags})
    project = Project(tmp_path / "new.svetlana", classes=["a", "b"])
    project.add("slide", tmp_path / "slide.tif", tmp_path / "slide_Object Identities.h5")
    np.testing.assert_array_equal(project.pair("slide").mask, mask)
    assert project.objects("slide").index.tolist() == np.unique(mask)[1:].tolist()
    project.annotate("slide", project.objects("slide").index[::2], "a")
    project.annotate("slide", project.objects("slide").index[1::2], "b")
    (file,) = project.export(tmp_path / "out", ["tiff"])
    codes = open_mask(file).to_numpy()
    classes = {label: {"a": 1, "b": 2}[name] for (_, label), name in classes_of(project).items()}
    np.testing.assert_array_equal(codes, np.vectorize(lambda label: classes.get(label, 0))(mask))
    labels = classes_of(project)
    project.undo()
    project.undo()
    project.import_annotations(file)
    assert classes_of(project) == labels


# Names that other programs read as numbers, formulas, missing values or flags.
ODD_NAMES = [
    *(
        "bad",
        "ambiguous",
        "bad_segmentation",
        "skip",
        "label",
        "NA",
        "nan",
        "None",
        "null",
        "True",
        "true",
        "-",
        "none",
    ),
    *("1", "1.0", "-1", "+", "CD8+", "CD8-", "=1+1", "@x", "'s", "'-1", "''=1"),
]


@pytest.mark.parametrize("form", ["csv", "excel", "parquet", "geojson", "table", "labels"])
def test_every_class_name_and_flag_survives_a_round_trip(tmp_path: Path, form: str) -> None:
    image, mask = squares(len(ODD_NAMES) + 4)
    tifffile.imwrite(tmp_path / "-1.tif", image)
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    first = Project(tmp_path / "first.svetlana", classes=ODD_NAMES)
    second = Project(tmp_path / "second.svetlana")
    for project in (first, second):
        project.add("-1", tmp_path / "-1.tif", tmp_path / "mask.tif")
    for number, name in enumerate(ODD_NAMES, 1):
        first.annotate("-1", number, name)
    for number, flag in enumerate(("ambiguous", "bad_segmentation", "skip"), len(ODD_NAMES) + 1):
        first.flag("-1", number, flag)
    table = first.predictions().droplevel("image")
    assert table["annotation"].dropna().tolist() == ODD_NAMES
    assert table["flag"].dropna().tolist() == ["ambiguous", "bad_segmentation", "skip"]
    assert first.counts().set_index("class")["count"].to_dict() == dict.fromkeys(ODD_NAMES, 1)
    if form in ("table", "labels"):
        source = first.predictions() if form == "table" else first.labels()
    else:
        source = first.export(tmp_path / "out", [form])[0]
        source = pd.read_parquet(source) if form == "parquet" else source
    report = second.import_annotations(source)
    assert (report["outcome"].isin(["taken", "no class"])).all()
    pd.testing.assert_frame_equal(
        second.labels().sort_index()[["action", "class"]], first.labels().sort_index()[["action", "class"]]
    )


def test_flags_of_earlier_exports_are_read_as_flags(tmp_path: Path) -> None:
    image, mask = squares(4)
    project = Project(tmp_path / "p.svetlana", classes=["bad"])
    project.add("i", image, mask)
    earlier = {"class": ["bad", None, None], "predicted": [None] * 3, "annotation": ["bad", "bad", "ambiguous"]}
    project.import_annotations(pd.DataFrame({"image": "i", "object": [1, 2, 3], **earlier, "run": ""}))
    assert project.labels()["action"].tolist() == ["label", "bad_segmentation", "ambiguous"]


def test_a_row_with_a_class_and_a_flag_keeps_its_class_and_is_reported(tmp_path: Path) -> None:
    project = Project(tmp_path / "p.svetlana", classes=["a"])
    project.add("i", *squares(4))
    table = pd.DataFrame({"object": [1, 2], "class": ["a", None], "flag": ["ambiguous", "ambiguous"]})
    project.import_annotations(table)
    assert project.labels()["action"].tolist() == ["label", "ambiguous"]
    assert "1 rows have a class and a flag; their class was read." in project.status
