"""Tables of other tools: rows of something else are set aside, and numbers are checked against positions."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.measure import regionprops

from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.project import Project
from tests.project.test_importers import classes_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SPACING = (0.5, 0.25)


def scattered_disks(count: int = 20) -> np.ndarray:
    """Return a mask of disks at irregular places, which no exchange of axes maps to itself."""
    rng, mask, centers = np.random.default_rng(5), np.zeros((90, 140), np.uint16), []
    yy, xx = np.mgrid[:90, :140]
    while len(centers) < count:
        y, x = rng.integers([7, 7], [83, 133])
        if all((y - v) ** 2 + (x - u) ** 2 > 144 for v, u in centers):
            centers.append((y, x))
            mask[(yy - y) ** 2 + (xx - x) ** 2 <= 25] = len(centers)
    return mask


MASK = scattered_disks()
CENTERS = np.array([region.centroid for region in regionprops(MASK)])
TRUTH = {n: "even" if n % 2 == 0 else "odd" for n in range(1, 21)}
CLASSES = list(TRUTH.values())


def create_project(folder: Path, names: Sequence[str], spacing: tuple[float, ...] | None, mask: np.ndarray) -> Project:
    project = Project(folder, annotator="ann")
    for name in names:
        project.add(name, np.zeros(mask.shape, np.uint8), mask, axes="zyx"[-mask.ndim :], spacing=spacing)
        project.objects(name)
    return project


@pytest.fixture(scope="module")
def sized(tmp_path_factory) -> Project:
    """Project of one image with a pixel size, shared by tests that undo their import."""
    return create_project(tmp_path_factory.mktemp("sized") / "p.svetlana", ["i"], SPACING, MASK)


@pytest.fixture(scope="module")
def templates(tmp_path_factory) -> tuple[Path, dict[Any, Path]]:
    """Folder for projects without annotations, and those that exist already."""
    return tmp_path_factory.mktemp("templates"), {}


@pytest.fixture
def make_project(tmp_path: Path, templates):
    """Return a function that returns a new project, which is a copy of one with the same images."""
    folder, existing = templates

    def make(
        names: Sequence[str] = ("i",), spacing: tuple[float, ...] | None = None, mask: np.ndarray = MASK
    ) -> Project:
        key = tuple(names), spacing, mask.tobytes()
        if key not in existing:
            existing[key] = folder / f"{len(existing)}.svetlana"
            create_project(existing[key], names, spacing, mask).annotations.file.close()
        copy = tmp_path / f"{len(list(tmp_path.glob('*.svetlana')))}.svetlana"
        shutil.copytree(existing[key], copy)
        return Project(copy, annotator="ann")

    return make


def imported(project: Project, image: str = "i") -> dict[int, str]:
    return {label: name for (place, label), name in classes_of(project).items() if place == image}


def counts(report: pd.DataFrame) -> dict[str, int]:
    return report["outcome"].value_counts().to_dict()


def columns_of(tool: str, centers: np.ndarray = CENTERS) -> dict[str, Any]:
    """Return the columns of positions as a tool writes them."""
    (y, x), um = centers.T, centers.T * np.array(SPACING)[:, None]
    corner = (centers.T + 0.5) * np.array(SPACING)[:, None]
    return {
        "QuPath": {"Object type": "Cell", "Centroid X µm": corner[1], "Centroid Y µm": corner[0]},
        "QuPath px": {"Parent": "Image", "Centroid X px": x + 0.5, "Centroid Y px": y + 0.5},
        "ilastik": {"timestep": 0, "Center of the object_0": x, "Center of the object_1": y},
        "ilastik tracking": {"frame": 0, "Object_Center_0": x, "Object_Center_1": y},
        "CellProfiler": {"ImageNumber": 1, "Location_Center_X": x, "Location_Center_Y": y},
        "CellProfiler prefix": {"Nuclei_AreaShape_Center_X": x, "Nuclei_AreaShape_Center_Y": y},
        "TrackMate": {
            "ID": range(90, 110),
            "TRACK_ID": 0,
            "FRAME": 0,
            "POSITION_X (micron)": um[1],
            "POSITION_Y (micron)": um[0],
        },
        "Imaris": {"ID": range(20), "Category": "Spot", "Unit": "um", "Position X": corner[1], "Position Y": corner[0]},
        "regionprops": {"centroid-0": y, "centroid-1": x},
        "napari points": {"index": range(20), "axis-0": y, "axis-1": x},
        "MCMICRO": {"X_centroid": x, "Y_centroid": y},
        "nm": {"x [nm]": um[1] * 1000, "y [nm]": um[0] * 1000},
        "mm": {"CenterX (mm)": um[1] / 1000, "CenterY (mm)": um[0] / 1000},
    }[tool]


@pytest.mark.parametrize(
    "tool",
    [
        *("QuPath", "QuPath px", "ilastik", "ilastik tracking", "CellProfiler", "CellProfiler prefix", "TrackMate"),
        *("Imaris", "regionprops", "napari points", "MCMICRO", "nm", "mm"),
    ],
)
@pytest.mark.parametrize("is_file", [False, True])
def test_positions_of_every_tool_are_found_in_their_unit(sized, tmp_path: Path, tool: str, is_file: bool) -> None:
    table = pd.DataFrame(columns_of(tool)).assign(**{"class": CLASSES})
    if is_file:
        table.to_csv(tmp_path / "i.csv", sep="\t", index=False)
    sized.import_annotations(tmp_path / "i.csv" if is_file else table)
    assert imported(sized) == TRUTH
    sized.undo()
    assert not imported(sized)


def test_numbers_and_positions_that_disagree_are_resolved_by_position(make_project) -> None:
    project = make_project(mask=np.where(MASK > 0, 21 - MASK, 0).astype(np.uint16))
    table = pd.DataFrame({"labelimage_oid": range(1, 21), "User Label": CLASSES, **columns_of("ilastik")})
    table.loc[3, ["Center of the object_0", "Center of the object_1"]] = np.nan
    report = project.import_annotations(table)
    assert imported(project) == {21 - n: name for n, name in TRUTH.items() if n != 4}
    assert "Numbers and positions of 19 of 19 rows disagree; objects were found by position" in project.status
    assert report["why"][3] == "it has no position, and numbers name others"


def test_numbers_are_kept_where_positions_confirm_them(make_project) -> None:
    mask = MASK.copy()
    rows, columns = (slice(low, low + 3) for low in (CENTERS[6] - 1).astype(int))
    mask[rows, columns] = 0  # the center of object 7 lies in its hole
    project = make_project(mask=mask)
    table = pd.DataFrame({"label": range(1, 21), **columns_of("regionprops"), "class": CLASSES})
    table.loc[2, ["centroid-0", "centroid-1"]] = np.nan
    project.import_annotations(table)
    assert imported(project) == TRUTH
    assert "disagree" not in project.status
    table.loc[4, "label"] = 99
    project.undo()
    project.import_annotations(table)
    assert imported(project) == TRUTH
    assert "Numbers and positions of 1 of 19 rows disagree" in project.status


@pytest.mark.parametrize(
    ("y", "x", "reading"),
    [
        (CENTERS[:, 0] * 0.4, CENTERS[:, 1] * 0.4, "in another unit or from another origin (y × 0.4, x × 0.4)"),
        (CENTERS[:, 0] + 300, CENTERS[:, 1] + 70, "in another unit or from another origin (y × 1, x × 1)"),
        (CENTERS[:, 1], CENTERS[:, 0], "with x and y exchanged"),
    ],
)
def test_numbers_win_over_positions_in_another_unit_or_order(make_project, y, x, reading: str) -> None:
    project = make_project()
    project.import_annotations(pd.DataFrame({"label": range(1, 21), "y": y, "x": x, "class": CLASSES}))
    assert imported(project) == TRUTH
    assert reading in project.status
    assert "objects were found by number" in project.status


def test_positions_that_fit_only_in_another_unit_or_order_are_refused(make_project) -> None:
    project, (y, x) = make_project(spacing=(0.5, 0.5)), CENTERS.T
    for table, message in (
        ({"y": y * 0.5, "x": x * 0.5}, "fit the objects of 'i' only in micrometers: then 20 of 20"),
        ({"y": x, "x": y}, "fit the objects of 'i' only with x and y exchanged"),
    ):
        with pytest.raises(InputError, match=message):
            project.import_annotations(pd.DataFrame(table).assign(kind=CLASSES), column="kind")
    project.import_annotations(pd.DataFrame({"y µm": y * 0.5, "x µm": x * 0.5, "class": CLASSES}))
    assert imported(project) == TRUTH


def test_units_that_a_table_does_not_state_are_refused_or_reported(make_project) -> None:
    y, x = CENTERS.T
    track = pd.DataFrame({"TRACK_ID": 0, "FRAME": 0, "POSITION_X": x, "POSITION_Y": y, "class": CLASSES})
    with pytest.raises(
        InputError, match="TrackMate writes positions in the unit of its image, and this table does not"
    ):
        make_project(spacing=(0.5, 0.5)).import_annotations(track)
    project = make_project()
    project.import_annotations(track)
    assert imported(project) == TRUTH
    assert "Positions in POSITION_Y, POSITION_X were read as pixels." in project.status
    for columns in (columns_of("QuPath"), columns_of("Imaris")):
        with pytest.raises(InputError, match="in micrometers, but the pixel size of 'i' is unknown"):
            make_project().import_annotations(pd.DataFrame(columns).assign(**{"class": CLASSES}))
    project = make_project()  # with numbers, micrometers need no pixel size
    project.import_annotations(pd.DataFrame({"object": range(1, 21), **columns_of("QuPath"), "class": CLASSES}))
    assert imported(project) == TRUTH
    with pytest.raises(
        InputError, match=r"Numbers and positions of objects disagree\. The table contains positions in mic"
    ):
        project.import_annotations(pd.DataFrame({"object": range(20, 0, -1), **columns_of("QuPath"), "class": CLASSES}))
    mixed = pd.DataFrame(columns_of("Imaris")).assign(Unit=["um", "mm"] * 10, **{"class": CLASSES})
    with pytest.raises(InputError, match="The column 'Unit' contains 'um', 'mm'"):
        make_project(spacing=SPACING).import_annotations(mixed)


def test_what_was_compared_is_said_where_little_matches(make_project) -> None:
    project, (y, x) = make_project(), CENTERS.T
    project.import_annotations(pd.DataFrame({"object": range(101, 121), "class": CLASSES}))
    assert "Compared: numbers 101 to 120 with objects 1 to 20 of 'i'." in project.status
    report = project.import_annotations(pd.DataFrame({"x": x + 1000, "y": y, "class": CLASSES}))
    assert counts(report) == {"not found": 20}
    assert f"Compared: positions y {y.min():g} to {y.max():g}, x {x.min() + 1000:g} to" in project.status
    assert "with 'i' of 90 × 140 px" in project.status
    with pytest.raises(InputError, match=r"No image of the table \(a, b\) is in the project, which has i"):
        project.import_annotations(pd.DataFrame({"image": ["a", "b"], "object": [1, 2], "class": "odd"}))
    assert not imported(project)


def test_rows_of_other_images_are_set_aside_or_refused(make_project) -> None:
    project = make_project(("i", "j"))
    table = pd.DataFrame({"Image": ["i.tif", "j.tif"] * 10, "object": range(1, 21), "class": CLASSES})
    report = project.import_annotations(table, "i")
    assert imported(project) == dict.fromkeys(range(1, 21, 2), "odd")
    assert not imported(project, "j")
    assert counts(report) == {"taken": 10, "set aside": 10}
    assert "10 set aside (it is of image 'j.tif')" in project.status
    with pytest.raises(InputError, match=r"The rows are of a, b, not of 'i'"):
        project.import_annotations(table.assign(Image=["a", "b"] * 10), "i")
    with pytest.raises(InputError, match=r"The rows are of j, not of 'i'"):
        project.import_annotations(table.assign(Image="j"), "i")
    project.undo()
    project.import_annotations(table.assign(Image="export of 2020"), "i")
    assert imported(project) == TRUTH
    assert "It names the image 'export of 2020', and was read for 'i'." in project.status


@pytest.mark.parametrize("column", ["ImageNumber", "roi_id", "fov", "library_id", "imageid", "Well"])
def test_rows_of_several_samples_are_resolved_or_refused(make_project, column: str) -> None:
    table = pd.DataFrame({column: ["1", "2"] * 10, "ObjectNumber": np.repeat(range(1, 11), 2), "class": CLASSES})
    with pytest.raises(
        InputError, match=f"its column '{column}' has the values 1, 2, and the images of the project are i"
    ):
        make_project().import_annotations(table)
    with pytest.raises(InputError, match="rows of several images"):
        make_project(("i", "j")).import_annotations(table, "i")
    project = make_project(("1", "2"))
    project.import_annotations(table)
    assert imported(project, "1") == dict.fromkeys(range(1, 11), "odd")
    assert imported(project, "2") == dict.fromkeys(range(1, 11), "even")
    project = make_project()
    project.import_annotations(table.assign(**{column: 1}).iloc[::2])
    assert imported(project) == dict.fromkeys(range(1, 11), "odd")


def test_parts_of_one_image_are_no_other_images(make_project) -> None:
    project = make_project()
    project.import_annotations(pd.DataFrame({"region": ["a", "b"] * 10, "object": range(1, 21), "class": CLASSES}))
    assert imported(project) == TRUTH


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("FRAME", [0, 1] * 10, "2 time points in the column 'FRAME' (0, 1)"),
        ("timestep", [*[0] * 19, 7], "2 time points in the column 'timestep' (0, 7)"),
        ("Time", ["t1", "t2"] * 10, "2 time points in the column 'Time' (t1, t2)"),
        ("Slice", [1, 2] * 10, "2 z planes in the column 'Slice' (1, 2)"),
        ("z", [1, 2] * 10, "positions in 2 z planes (column 'z'), but 'i' has one"),
    ],
)
def test_rows_of_several_time_points_or_planes_are_refused(make_project, column: str, values, message: str) -> None:
    table = pd.DataFrame({"x": CENTERS[:, 1], "y": CENTERS[:, 0], column: values, "class": CLASSES})
    with pytest.raises(InputError) as caught:
        make_project().import_annotations(table)
    assert message in str(caught.value)
    project = make_project()
    project.import_annotations(table.assign(**{column: 5}))
    assert imported(project) == TRUTH
    assert (f"All rows have {column} 5." in project.status) == (column != "z")


def test_times_of_annotations_are_no_time_points(make_project) -> None:
    project = make_project()
    times = pd.date_range("2020-01-01", periods=20).strftime("%Y-%m-%dT%H:%M:%S")
    project.import_annotations(pd.DataFrame({"object": range(1, 21), "time": times, "class": CLASSES}))
    assert imported(project) == TRUTH


@pytest.mark.parametrize(
    ("column", "types"),
    [
        ("Object type", ["Annotation", "TMA core", "Image", "Cell"]),
        ("Object type", ["PathAnnotationObject", "TMACoreObject", "PathRootObject", "PathCellObject"]),
        ("Object type", ["Annotation", "Tile", "Root object", "Detection"]),
        ("Name", ["Tumor region", "TMACoreObject", "PathRootObject", "PathDetectionObject"]),
    ],
)
def test_regions_and_cores_of_qupath_are_set_aside(make_project, column: str, types: list[str]) -> None:
    project = make_project(spacing=SPACING)
    cells = (
        pd.DataFrame({**columns_of("QuPath"), "Class": CLASSES})
        .drop(columns="Object type")
        .assign(**{column: types[3]})
    )
    others = cells.iloc[:3].assign(**{column: types[:3], "Class": "Stroma"})
    report = project.import_annotations(pd.concat([others, cells], ignore_index=True))
    assert imported(project) == TRUTH
    assert counts(report) == {"taken": 20, "set aside": 3}
    assert "3 set aside (1 × it is of the type " in project.status
    assert "Stroma" not in project.classes.names
    project.undo()
    project.import_annotations(cells.assign(**{column: types[0]}))  # cells that were drawn as annotations
    assert imported(project) == TRUTH


def test_the_column_of_a_person_comes_before_the_others(make_project) -> None:
    words, project = ["a", "b"] * 10, make_project()
    for column in ("annotations", "User Label", "MANUAL_CLUSTER_ID", "manual_class", "Ground truth", "class (manual)"):
        table = pd.DataFrame({"label": range(1, 21), "prediction": "x", "Class": "y", column: words})
        project.import_annotations(table)
        assert list(imported(project).values()) == words
        assert f"column {column}" in project.status
        project.undo()
    table = pd.DataFrame({"label": range(1, 21), "MANUAL_SPOT_COLOR": "red", "prediction": words})
    project.import_annotations(table)
    assert list(imported(project).values()) == words
    project.undo()
    project.import_annotations(table.assign(annotation=None))
    assert "The column 'annotation' is empty, so that 'prediction' was imported." in project.status


@pytest.mark.parametrize("is_file", [False, True])
def test_words_for_no_class_are_no_classes(make_project, tmp_path: Path, is_file: bool) -> None:
    def outcome(table: pd.DataFrame) -> dict[int, str]:
        project = make_project()
        if is_file:
            table.to_csv(tmp_path / "i.csv", index=False)
        project.import_annotations(tmp_path / "i.csv" if is_file else table)
        status.append(project.status)
        return imported(project)

    status: list[str] = []
    numbers = pd.DataFrame({"label": range(1, 7)})
    words = ["a", "NaN", "None", "Unclassified", "deselected", ""]
    assert outcome(numbers.assign(**{"class": words})) == {1: "a"}
    codes = [1.0, 2.0, np.nan, -1.0, np.nan, 1.0]
    assert outcome(numbers.assign(annotations=codes, prediction=2)) == {1: "1", 2: "2", 6: "1"}
    assert outcome(numbers.assign(**{"class": codes})) == {1: "1", 2: "2", 4: "-1", 6: "1"}
    assert "“-1” was read as the name of a class." in status[-1]
    assert "“-1”" not in status[-2]
    ilastik = pd.DataFrame({"labelimage_oid": range(1, 5), "User Label": ["a", "0", "b", "0"], "Predicted Class": "c"})
    assert outcome(ilastik) == {1: "a", 3: "b"}


def test_numbers_of_objects_stay_exact_at_any_length_and_with_gaps(make_project, tmp_path: Path) -> None:
    mask, low = np.zeros((20, 40), np.int64), 2**53
    mask[2:8, 2:8], mask[2:8, 12:18], mask[12:18, 2:8] = low + 1, low, 3
    rows = f"{low + 1},odd\n,odd\n{low},even\n3.0,odd\n99999999999999999999999,odd\n"
    (tmp_path / "i.csv").write_text(f"object,class\n{rows}")
    project = make_project(mask=mask)
    report = project.import_annotations(tmp_path / "i.csv")
    assert imported(project) == {low + 1: "odd", low: "even", 3: "odd"}
    assert report["why"].tolist()[1::3] == ["it has no object number", "the mask has no object 99999999999999999999999"]
    project.undo()
    project.import_annotations(
        pd.DataFrame({"object": pd.array([low + 1, None, low], "Int64"), "class": ["a", "b", "c"]})
    )
    assert imported(project) == {low + 1: "a", low: "c"}
    with pytest.raises(InputError, match="may have lost digits as a floating-point number"):
        project.import_annotations(pd.DataFrame({"object": [float(low + 2), np.nan], "class": "odd"}))


def test_columns_that_are_there_twice_are_refused_unless_they_are_equal(make_project) -> None:
    table = pd.DataFrame({"object": range(1, 21), "Class": CLASSES, "class": CLASSES})
    project = make_project()
    project.import_annotations(table)
    assert imported(project) == TRUTH
    with pytest.raises(InputError, match="The columns 'Class', 'class' differ"):
        project.import_annotations(table.assign(Class="x"))
    project.import_annotations(table.assign(Class="x"), column="Class", overwrite=True)
    assert set(imported(project).values()) == {"x"}
    project = make_project()
    project.import_annotations(table.assign(label=range(20, 0, -1)))
    assert imported(project) == TRUTH
    assert "Objects were found by the column 'object', not label." in project.status


def test_names_of_objects_are_not_taken_for_classes(make_project) -> None:
    table = pd.DataFrame({"x": CENTERS[:, 1], "y": CENTERS[:, 0], "Label": [f"cells.tif:{n:04}" for n in range(20)]})
    with pytest.raises(InputError, match="'Label' contains 20 different values in 20 rows"):
        make_project().import_annotations(table)
    with pytest.raises(InputError, match="'class' contains 20 different values in 20 rows"):
        make_project().import_annotations(pd.DataFrame({"object": range(20), "class": np.linspace(0.01, 0.99, 20)}))
    results = table.assign(**{" ": range(1, 21), "Area": 80, "Class": CLASSES, "X": CENTERS[:, 1] + 0.5}).drop(
        columns="x"
    )
    results["Label"] = [f"{'ij'[n % 2]}.tif:{n:04}" for n in range(20)]
    project = make_project(("i", "j"))
    results = results.rename(columns={" ": "Unnamed: 0", "y": "Y"}).assign(Y=CENTERS[:, 0] + 0.5)
    project.import_annotations(results)  # of ImageJ, for two images
    assert imported(project) == dict.fromkeys(range(1, 21, 2), "odd")
    assert imported(project, "j") == dict.fromkeys(range(2, 21, 2), "even")


def test_positions_at_random_or_from_below_are_refused(make_project) -> None:
    rng, project = np.random.default_rng(1), make_project()
    random = pd.DataFrame({"y": rng.uniform(0, 89, 200), "x": rng.uniform(0, 139, 200), "class": "odd"})
    with pytest.raises(
        InputError, match=r"Only \d+ of 200 positions in 'i' lie in objects, as many as at random, because"
    ):
        project.import_annotations(random)
    flipped = pd.DataFrame({"y": 89 - CENTERS[:, 0], "x": CENTERS[:, 1], "class": CLASSES})
    with pytest.raises(InputError, match="fit the objects of 'i' only from bottom to top: then 20 of 20"):
        project.import_annotations(flipped)
    project.import_annotations(flipped.assign(object=range(1, 21)))
    assert imported(project) == TRUTH


def test_plate_and_well_name_the_image(tmp_path: Path) -> None:
    project = Project(tmp_path / "p.svetlana")
    (tmp_path / "masks").mkdir()
    for name in ("P1_A1", "P1_A2", "P2_A1"):
        for folder in (tmp_path, tmp_path / "masks"):
            tifffile.imwrite(folder / f"{name}.tif", MASK)
    project.add_images(tmp_path / "{plate}_{well}.tif", masks=tmp_path / "masks/{plate}_{well}.tif")
    rows = [("P1", "A1", 1, "a"), ("P1", "A2", 1, "b"), ("P2", "A1", 1, "c"), ("P3", "A1", 1, "d")]
    table = pd.DataFrame(rows, columns=["Plate", "Well", "object", "class"])
    report = project.import_annotations(table)
    assert classes_of(project) == {("P1_A1", 1): "a", ("P1_A2", 1): "b", ("P2_A1", 1): "c"}
    assert report["why"][3] == "the project has no image 'P3 A1'"
    with pytest.raises(InputError, match="rows of several images: its column 'Well' has the values A1, A2"):
        project.import_annotations(table.drop(columns="Plate"))


def test_a_column_of_numbers_with_a_text_is_refused_not_replaced(make_project) -> None:
    table = pd.DataFrame({"object": [*map(str, range(1, 20)), "20a"], "id": range(20, 0, -1), "class": CLASSES})
    with pytest.raises(InputError, match="The column 'object' contains numbers of objects, but also '20a'"):
        make_project().import_annotations(table)


def test_a_file_with_another_name_is_read_for_the_only_image_and_reported(make_project, tmp_path: Path) -> None:
    table = pd.DataFrame({"object": range(1, 21), "class": CLASSES})
    for name in ("i_table.csv", "other.csv"):
        table.to_csv(tmp_path / name, index=False)
        project = make_project()
        project.import_annotations(tmp_path / name)
        assert imported(project) == TRUTH
        assert ("The file names no image; it was read for the only one, 'i'." in project.status) == (
            name == "other.csv"
        )


def test_the_object_type_may_be_the_class(make_project) -> None:
    project, types = make_project(), ["Cell", "Debris"] * 10
    project.import_annotations(pd.DataFrame({"object": range(1, 21), "Object type": types}), column="Object type")
    assert list(imported(project).values()) == types
