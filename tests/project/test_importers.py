"""Import of labels: a single edit that overwrites annotations only on request."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from skimage.measure import regionprops

from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.project import Project
from tests.project.conftest import CLASSES, squares

NAMES = ("P1_A1", "P1_A2", "P2_A1")


def classes_of(project: Project) -> dict[tuple[str, int], str]:
    table = project.labels()
    return table["class"].where(table["action"] == "label", table["action"]).to_dict()


@pytest.fixture
def label_table() -> pd.DataFrame:
    return pd.DataFrame({"image": NAMES, "object": [1, 2, 3], "class": ["dim", "bright", "dim"]})


@pytest.mark.parametrize(
    "headers",
    [
        ("image", "object", "class"),
        ("Image Name", "Label", "Phenotype"),
        ("FILE", "cell_ID", "label"),
        ("filename", "labelimage_oid", "User Label"),
    ],
)
def test_a_table_with_common_headers_is_imported(
    project: Project, label_table: pd.DataFrame, headers, tmp_path
) -> None:
    table = label_table.set_axis(list(headers), axis=1)
    table[headers[0]] = [f"C:\\data\\{name}.tif" for name in NAMES]
    table[headers[2]] = ["Dim", " bright", "Dim"]
    file = tmp_path / "known.csv"
    table.to_csv(file, sep="\t", index=False)
    report = project.import_annotations(file)
    assert classes_of(project) == {(NAMES[0], 1): "dim", (NAMES[1], 2): "bright", (NAMES[2], 3): "dim"}
    assert report["outcome"].tolist() == ["taken"] * 3
    assert project.status == report.attrs["summary"]
    assert project.status.startswith("Imported 3 annotations from ")
    assert project.status.endswith("Names in another spelling: “Dim” as “dim”.")
    assert project.undo()
    assert not classes_of(project), "it was one edit"


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (["CD8+", "CD8-", "NA"], []),
        (["Ki67+", "Ki67-"], ["Ki67-"]),
        (["grade 1.5", "grade 15", "-1", "1"], []),
        (["WT", "wt"], ["Wt"]),
    ],
)
def test_classes_that_differ_are_never_merged(tmp_path: Path, names, known) -> None:
    image, mask = squares()
    first, second = (Project(tmp_path / f"{name}.svetlana", classes=known, annotator="ann") for name in "ab")
    for project in (first, second):
        project.add("i", image, mask)
    first.import_annotations(pd.DataFrame({"object": range(1, len(names) + 1), "class": names}))
    first.labels().reset_index().to_csv(tmp_path / "labels.csv", columns=["image", "object", "class"], index=False)
    second.import_annotations(tmp_path / "labels.csv")
    for project in (first, second):
        assert project.labels()["class"].tolist() == names
        assert project.class_counts()[names].tolist() == [1] * len(names)


def test_images_that_differ_are_never_confused(tmp_path: Path) -> None:
    names = ["drug_0.05uM", "drug_0.5uM", "cell1", "cell01", "WT", "wt"]
    project = Project(tmp_path / "p.svetlana", classes=CLASSES, annotator="ann")
    image, mask = squares()
    for name in names:
        project.add(name, image, mask)
    table = pd.DataFrame({"image": [f"{name}.tif" for name in names], "object": range(1, 7), "class": "dim"})
    report = project.import_annotations(table)
    assert report["image"].tolist() == names
    assert "spelling" not in report.attrs["summary"]
    other = project.import_annotations(table.assign(image="DRUG_0.5um.tif").iloc[:1])
    assert other["image"].tolist() == ["drug_0.5uM"]
    assert "Names in another spelling: “DRUG_0.5um” as “drug_0.5uM”." in other.attrs["summary"]
    for name in names:
        tifffile.imwrite(tmp_path / f"{name}_classes.tif", (mask == 12).astype(np.uint8))
        assert set(project.import_annotations(tmp_path / f"{name}_classes.tif", names=["dim"])["image"]) == {name}


def test_an_import_is_one_edit_with_its_source_and_one_sync(project: Project, label_table, monkeypatch) -> None:
    from svetlana_jupyter.project import annotation_file as book

    for name in NAMES:
        project.objects(name)
    synced, fsync = [], book.os.fsync
    monkeypatch.setattr(book.os, "fsync", lambda handle: (synced.append(handle), fsync(handle)))
    project.import_annotations(label_table)
    log = project.annotations.table()
    assert len(synced) == 1
    assert log["edit"].nunique() == 1
    assert set(log["source"]) == {"import: DataFrame, column class"}
    assert (project.annotations.edit_groups() == "").all(), "they are held out one by one"


def test_existing_annotations_are_not_overwritten_by_default(project: Project, label_table: pd.DataFrame) -> None:
    project.annotate("P1_A1", 1, "bright")
    project.annotate("P1_A2", 2, "bright")
    project.flag("P2_A1", 3, "bad_segmentation")
    report = project.import_annotations(label_table)
    assert report["outcome"].tolist() == ["differs", "known", "differs"]
    assert report["why"].tolist() == [
        "labeled bright in this project",
        "",
        "flagged as bad_segmentation in this project",
    ]
    assert "Imported 0 annotations" in project.status
    assert "2 not imported, as the project has another label" in project.status
    assert classes_of(project)["P1_A1", 1] == "bright"
    assert len(project.annotations.table()) == 3
    report = project.import_annotations(label_table, overwrite=True)
    assert report["outcome"].tolist() == ["taken", "known", "taken"]
    assert "2 replaced" in project.status
    assert classes_of(project) == {(NAMES[0], 1): "dim", (NAMES[1], 2): "bright", (NAMES[2], 3): "dim"}
    project.undo()
    assert classes_of(project)["P2_A1", 3] == "bad_segmentation"


def test_rejected_rows_are_reported_one_by_one(project: Project) -> None:
    rows = [
        ("P1_A1", 1, "dim"),
        ("P1_A1", 99, "dim"),
        ("P9_X9", 1, "dim"),
        ("P1_A1", 2, None),
        ("P1_A1", 3, "dim"),
        ("P1_A1", 3, "bright"),
        ("P1_A1", 4, "new one"),
        ("P1_A1", 5, "ambiguous"),
        ("P1_A1", 1, "dim"),
    ]
    report = project.import_annotations(pd.DataFrame(rows, columns=["image", "object", "class"]))
    assert report["outcome"].tolist() == [
        *("taken", "not found", "not found", "no class", "contradicts", "contradicts", "taken", "taken", "taken")
    ]
    assert report["why"][1] == "the mask has no object 99"
    assert report["why"][2] == "the project has no image 'P9_X9'"
    assert classes_of(project) == {("P1_A1", 1): "dim", ("P1_A1", 4): "new one", ("P1_A1", 5): "ambiguous"}
    assert project.labels().loc[("P1_A1", 5), "action"] == "label", "a class with the name of a flag"
    assert project.status.endswith("New classes: “new one”, “ambiguous”.")
    assert project.classes.names == ("dim", "bright", "new one", "ambiguous")
    assert project.annotations.table()["edit"].nunique() == 1
    assert "Imported 3 annotations" in project.status
    assert "1 skipped because of two classes" in project.status


def test_positions_are_matched_to_the_object_under_them(project: Project, wells: Path) -> None:
    image, mask = squares(seed=4)
    project.add("scaled", image, mask, axes="yx", spacing=(0.5, 0.25))
    props = regionprops(mask)
    centers = np.array([region.centroid for region in props])
    truth = {("scaled", region.label): "bright" if region.label % 2 == 0 else "dim" for region in props}
    words = list(truth.values())
    forms = [
        pd.DataFrame({"y": centers[:, 0], "X": centers[:, 1]}),
        pd.DataFrame({"centroid-0": centers[:, 0], "centroid-1": centers[:, 1]}),
        pd.DataFrame({"Center of the object_0": centers[:, 1], "Center of the object_1": centers[:, 0]}),
        pd.DataFrame({"y_um": centers[:, 0] * 0.5, "x_um": centers[:, 1] * 0.25}),
        pd.DataFrame({"Centroid X µm": (centers[:, 1] + 0.5) * 0.25, "Centroid Y µm": (centers[:, 0] + 0.5) * 0.5}),
        pd.DataFrame({"Centroid X px": centers[:, 1] + 0.5, "Centroid Y px": centers[:, 0] + 0.5}),
    ]
    for form in forms:
        project.import_annotations(form.assign(Class=words), "scaled")
        assert classes_of(project) == truth
        project.undo()
    single = np.arange(1, 21, dtype=np.uint16).reshape(4, 5)  # each pixel is an object
    project.add("dense", np.zeros((4, 5), np.uint8), single, axes="yx", spacing=(0.5, 0.25))
    y, x = np.divmod(np.arange(20.0), 5)
    for form in (
        pd.DataFrame({"y": y, "x": x}),
        pd.DataFrame({"y um": y * 0.5, "x um": x * 0.25}),
        pd.DataFrame({"Centroid X µm": (x + 0.5) * 0.25, "Centroid Y µm": (y + 0.5) * 0.5}),
        pd.DataFrame({"Centroid X px": x, "Centroid Y px": y + 0.9}),
    ):
        assert project.import_annotations(form.assign(Class="dim"), "dense")["object"].tolist() == list(range(1, 21))
        project.undo()
    outside = pd.DataFrame({"x": [0, 9, -5, 9e9, None], "y": [0, 9, 3, 3, 3], "class": "dim"})
    report = project.import_annotations(outside, "P1_A1")
    assert report["outcome"].tolist() == ["not found", "taken", "not found", "not found", "not found"]
    assert report["object"][1] == 1
    assert report["why"][0] == "no object at this position"
    with pytest.raises(InputError, match="the pixel size of 'P1_A1' is unknown"):
        project.import_annotations(forms[3].assign(Class=words), "P1_A1")


def ilastik_table(tmp_path: Path) -> Path:
    """Return an object table in the format of ilastik."""
    table = pd.DataFrame(
        {
            "object_id": range(12),
            "timestep": 0,
            "labelimage_oid": range(1, 13),
            "User Label": ["dim", "bright", *[""] * 10],
            "Predicted Class": ["dim", "bright"] * 6,
            "Probability of dim": 0.5,
            "Center of the object_0": [24.0 * (n % 4) + 11.5 for n in range(12)],
            "Center of the object_1": [24.0 * (n // 4) + 11.5 for n in range(12)],
        }
    )
    file = tmp_path / "P1_A2_table.csv"
    table.to_csv(file, index=False)
    return file


def test_user_labels_of_ilastik_are_imported_and_predictions_on_request(project: Project, tmp_path) -> None:
    file = ilastik_table(tmp_path)
    project.import_annotations(file)
    assert classes_of(project) == {("P1_A2", 1): "dim", ("P1_A2", 2): "bright"}, "the file's name says the image"
    assert "ilastik table P1_A2_table.csv, column User Label" in project.status
    project.import_annotations(file, column="predicted class")
    assert classes_of(project) == {("P1_A2", n): "bright" if n % 2 == 0 else "dim" for n in range(1, 13)}
    table = pd.read_csv(file).assign(timestep=[0, 1] * 6)
    with pytest.raises(InputError, match="2 time points"):
        project.import_annotations(table, "P1_A2")
    unlabeled = pd.read_csv(file).assign(**{"User Label": np.nan})
    report = project.import_annotations(unlabeled, "P2_A1")
    assert (report["outcome"] == "taken").all()
    assert "column Predicted Class" in project.status


def test_a_class_map_gives_each_object_its_majority_class(project: Project, wells: Path) -> None:
    mask = tifffile.imread(wells / "masks/P1_A1.tif")
    codes = np.where(mask == 0, 0, np.where(mask % 2 == 0, 2, 1)).astype(np.uint8)
    codes[mask == 3] = 0
    codes[6:8, 6:18] = 2
    file = wells / "P1_A1_Object Predictions.h5"
    with h5py.File(file, "w") as stored:
        stored["exported_data"] = codes[None, ..., None]
        axes = [{"key": axis, "typeFlags": 2, "resolution": 0, "description": ""} for axis in "tyxc"]
        stored["exported_data"].attrs["axistags"] = json.dumps({"axes": axes})
    report = project.import_annotations(file)
    expected = {("P1_A1", n): "bright" if n % 2 == 0 else "dim" for n in range(1, 13) if n != 3}
    assert classes_of(project) == expected
    assert report.set_index("object").loc[3, "outcome"] == "no class"
    project.undo()
    project.import_annotations(file, names=["active", "resting"])
    assert set(classes_of(project).values()) == {"active", "resting"}
    with pytest.raises(InputError, match=r'the codes 2, .*names=\{2: "…"\}'):
        project.import_annotations(file, names={1: "active"})
    tifffile.imwrite(wells / "P1_A1_small.tif", codes[:5])
    with pytest.raises(InputError, match="Pass a class image of the same shape"):
        project.import_annotations(wells / "P1_A1_small.tif")


def test_an_exported_class_map_and_table_are_imported_again(project: Project, wells: Path, tmp_path: Path) -> None:
    project.annotate("P1_A1", range(1, 5), "bright")
    project.annotate("P1_A1", range(5, 9), "dim")
    project.flag("P1_A1", 9, "ambiguous")
    labels = classes_of(project)
    files = project.export(tmp_path / "out", ["csv", "tiff"])
    other = Project(tmp_path / "other.svetlana", classes=["dim", "bright"])
    other.add_images(wells / "wells/{plate}_{well}.tif", masks=wells / "masks/{plate}_{well}.tif")
    other.import_annotations(next(file for file in files if file.name == "objects.csv"))
    assert classes_of(other) == labels
    other.undo()
    assert not classes_of(other)
    other.import_annotations(next(file for file in files if file.name.startswith("P1_A1")))
    assert classes_of(other) == {
        class_id: class_name for class_id, class_name in labels.items() if class_name != "ambiguous"
    }


def test_object_tables_are_read_only_for_the_requested_images(project: Project) -> None:
    with pytest.raises(InputError, match="does not name its image"):
        project.import_annotations(pd.DataFrame({"object": [1], "class": ["dim"]}))
    assert len(project.import_annotations(pd.DataFrame({"object": [1], "class": ["dim"]}), "P1_A2")) == 1


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"object": [1]}, "has no column of classes"),
        ({"class": ["dim"]}, "neither object labels nor positions"),
        ({"object": ["x"], "class": ["dim"]}, "neither object labels nor positions"),
        (
            {"image": ["elsewhere"], "object": [1], "class": ["a"]},
            "No image of the table \\(elsewhere\\) is in the project",
        ),
        ({"object": [], "class": []}, "has no rows"),
    ],
)
def test_an_invalid_table_is_refused_and_changes_nothing(project: Project, table: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        project.import_annotations(pd.DataFrame(table), None if "image" in table else "P1_A1")
    assert project.annotations.table().empty
    assert project.classes.names == ("dim", "bright")


def test_other_invalid_sources_are_refused(project: Project, tmp_path: Path) -> None:
    table = pd.DataFrame({"object": [1], "class": ["dim"]})
    for source, sentence in (
        (3, "from int"),
        (tmp_path / "no.csv", "does not exist"),
        (tmp_path / "no.geojson", "does not exist"),
    ):
        with pytest.raises(InputError, match=sentence):
            project.import_annotations(source, "P1_A1")
    with pytest.raises(InputError, match="no image 'Z'"):
        project.import_annotations(table, "Z")
    with pytest.raises(InputError, match="no column 'kind'"):
        project.import_annotations(table, "P1_A1", column="kind")
    project._folder.writable = False
    with pytest.raises(ProjectError, match="read-only"):
        project.import_annotations(table, "P1_A1")


def napari_svetlana_file(folder: Path, absolute: bool = False) -> Path:
    """Write a project in the format of napari-svetlana, with labels saved by torch."""
    content: dict[str, list] = {"image_path": [], "labels_path": [], "regionprops": [], "labels_list": []}
    for kind in ("Images", "Masks", "Svetlana"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for name, seed in (("one", 1), ("two", 2)):
        image, mask = squares(seed=seed)
        tifffile.imwrite(folder / f"Images/{name}.tif", image)
        tifffile.imwrite(folder / f"Masks/{name}.tif", mask)
        gone = Path("/somewhere/else") if absolute else Path()
        content["image_path"].append(str(gone / f"Images/{name}.tif"))
        content["labels_path"].append(str(gone / f"Masks/{name}.tif"))
        props = [region for region in regionprops(mask) if region.label in (2, 5, 7)]
        props.append(props[0])
        entries = [{"centroid": region.centroid, "coords": region.coords, "label": region.label} for region in props]
        content["regionprops"].append(entries)
        content["labels_list"].append([np.int64(1), 0, 1, 0] if seed == 1 else [0, 0, 0, 1])
    torch.save({**content, "patch_size": "24"}, folder / "Svetlana/labels")
    return folder


@pytest.mark.parametrize("absolute", [False, True])
def test_a_napari_svetlana_project_is_imported_with_images_and_labels(tmp_path: Path, absolute: bool) -> None:
    folder = napari_svetlana_file(tmp_path / "old", absolute)
    project = Project(tmp_path / "new.svetlana")
    report = project.import_annotations(folder, names=["resting", "active"])
    assert list(project.images) == ["one", "two"]
    assert classes_of(project) == {
        **{("one", 2): "resting", ("one", 5): "resting", ("one", 7): "active"},
        **{("two", 2): "active", ("two", 5): "resting", ("two", 7): "resting"},
    }, "of an object that is there twice, the last word stands"
    assert report["outcome"].tolist() == [*["earlier", "taken", "taken", "taken"] * 2]
    assert (
        project.import_annotations(folder / "Svetlana/labels", names=["resting", "active"])["outcome"] != "taken"
    ).all()
    assert len(project.images) == 2
    project.undo()
    project.import_annotations(folder)
    assert {"class 1", "class 2"} <= set(project.classes.names)


def test_a_broken_napari_svetlana_project_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    folder = napari_svetlana_file(tmp_path / "old")
    project = Project(tmp_path / "new.svetlana")
    with pytest.raises(InputError, match="The class numbers 1 have no name"):
        project.import_annotations(folder, names=["resting"])
    (folder / "Masks/two.tif").rename(folder / "hidden.tif")
    with pytest.raises(InputError, match=r"two\.tif is neither at"):
        project.import_annotations(folder)
    assert not project.images
    assert not project.classes
    torch.save({"labels_list": [1]}, folder / "Svetlana/labels")
    with pytest.raises(InputError, match="the list image_path, labels_path, regionprops"):
        project.import_annotations(folder)


def test_pickled_code_in_a_label_file_is_not_executed(tmp_path: Path) -> None:
    import os

    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = napari_svetlana_file(tmp_path / "old")
    content = torch.load(folder / "Svetlana/labels", weights_only=False)
    torch.save({"first": Runs(), **content}, folder / "Svetlana/labels")
    project = Project(tmp_path / "new.svetlana")
    project.import_annotations(folder)
    assert len(classes_of(project)) == 6
    assert not (tmp_path / "ran").exists()
