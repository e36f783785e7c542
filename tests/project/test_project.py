"""Images, classes and annotations of a project: storage, reopening, undo and refused calls."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.measure import regionprops_table

from svetlana_jupyter.core.annotations import Label
from svetlana_jupyter.errors import InputError, ProjectError, SvetlanaError
from svetlana_jupyter.project.project import Project
from tests.project.conftest import CLASSES, reopen, squares

if TYPE_CHECKING:
    from pathlib import Path


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_images_are_added_by_pattern_with_their_groups(project: Project) -> None:
    assert list(project.images) == ["P1_A1", "P1_A2", "P2_A1"]
    entry = project.images["P2_A1"]
    assert entry.groups == {"plate": "P2", "well": "A1"}
    assert entry.shape == (72, 96)
    assert entry.dtype == "uint8"


def test_adding_the_same_again_changes_nothing(project: Project, wells: Path) -> None:
    before, version = bytes_of(project.path), project.images_version
    project.add_images(wells / "wells/{plate}_{well}.tif", masks=wells / "masks/{plate}_{well}.tif")
    project.add("P1_A1", wells / "wells/P1_A1.tif", wells / "masks/P1_A1.tif")
    assert bytes_of(project.path) == before
    assert project.images_version == version


def test_unpaired_files_are_listed_in_the_table(project: Project, wells: Path) -> None:
    tifffile.imwrite(wells / "wells" / "P9_A9.tif", squares()[0])
    table = project.add_images(wells / "wells/{plate}_{well}.tif", masks=wells / "masks/{plate}_{well}.tif")
    assert table.set_index("name")["problem"].ne("").to_dict()["P9_A9"]
    assert "P9_A9" not in project.images


def test_inputs_are_never_written_to(project: Project, wells: Path) -> None:
    before = {kind: bytes_of(wells / kind) for kind in ("wells", "masks")}
    project.objects("P1_A1")
    project.annotate("P1_A1", 3, "dim")
    assert {kind: bytes_of(wells / kind) for kind in ("wells", "masks")} == before


def test_arrays_are_stored_in_the_project(project: Project) -> None:
    image, mask = squares(seed=9)
    project.add("array", np.stack([image, image]), mask, axes="cyx", channels=["dna", "actin"], spacing=(0.5, 0.25))
    project.add("array", np.stack([image, image]), mask, axes="cyx", channels=["dna", "actin"], spacing=(0.5, 0.25))
    again = reopen(project).pair("array")
    assert again.channels == ("dna", "actin")
    assert again.spacing == (0.5, 0.25)
    np.testing.assert_array_equal(again.image.to_numpy(), np.stack([image, image]))
    np.testing.assert_array_equal(again.mask.to_numpy(), mask)


def test_a_used_image_name_is_refused_for_another_image(project: Project) -> None:
    with pytest.raises(ProjectError, match="another image named 'P1_A1'"):
        project.add("P1_A1", *squares(seed=5))


def test_the_object_table_matches_the_mask(project: Project, wells: Path) -> None:
    properties = regionprops_table(
        tifffile.imread(wells / "masks" / "P1_A1.tif"), properties=["label", "centroid", "area"]
    )
    table = project.objects("P1_A1")
    np.testing.assert_array_equal(table.index, properties["label"])
    np.testing.assert_allclose(table[["y", "x"]].to_numpy().T, [properties["centroid-0"], properties["centroid-1"]])
    np.testing.assert_array_equal(table["size"], properties["area"])


def test_the_object_table_is_rebuilt_when_the_mask_is_replaced_by_its_changed_file(
    project: Project, wells: Path
) -> None:
    assert len(project.objects("P1_A1")) == 12
    mask = tifffile.imread(wells / "masks" / "P1_A1.tif")
    mask[mask > 8] = 0
    tifffile.imwrite(wells / "masks" / "P1_A1.tif", mask)
    again = reopen(project)
    again.replace_mask("P1_A1")
    assert len(again.objects("P1_A1")) == 8


def test_annotations_survive_reopening(project: Project) -> None:
    project.annotate("P1_A1", 3, "dim")
    project.annotate("P2_A1", [4, 6], "bright", source="panel", seconds=1.5)
    project.flag("P1_A1", 5, "bad_segmentation")
    again = reopen(project)
    pd.testing.assert_frame_equal(again.labels(), project.labels())
    assert again.annotations.class_counts().to_dict() == {"dim": 1, "bright": 2}
    assert again.annotations.flag_counts() == {"ambiguous": 0, "bad_segmentation": 1, "skip": 0}
    assert again.annotations.label_of("P1_A1", 5) == Label("bad_segmentation")
    assert again.annotations.label_of("P1_A1", 1) == Label()


def test_undo_after_reopening_restores_the_previous_class(project: Project) -> None:
    project.annotate("P1_A1", 3, "dim")
    project.annotate("P1_A1", 3, "bright")
    again = reopen(project)
    assert again.annotations.can_undo
    assert again.undo()
    assert again.annotations.label_of("P1_A1", 3).class_id == again.classes.by_name("dim").id
    assert again.redo()
    assert again.annotations.label_of("P1_A1", 3).class_id == again.classes.by_name("bright").id
    assert not again.annotations.can_redo
    assert not again.redo()


def test_an_edit_of_many_objects_is_undone_at_once(project: Project) -> None:
    project.annotate("P1_A1", range(1, 11), "dim")
    project.undo()
    assert len(project.labels()) == 0
    assert len(project.annotations.table()) == 11


def test_the_log_stores_position_and_bounding_box(project: Project) -> None:
    project.annotate("P1_A1", 6, "bright", source="queue", seconds=0.75)
    row = project.annotations.table().iloc[0]
    assert (row["y"], row["x"], row["box"]) == (35.5, 35.5, "30 30 42 42")
    assert (row["who"], row["source"], row["seconds"]) == ("ann", "queue", 0.75)


def test_renaming_a_class_leaves_the_log_unchanged(project: Project) -> None:
    project.annotate("P1_A1", 3, "dim")
    before = (project.path / "annotations" / "ann.csv").read_bytes()
    project.classes.rename("dim", "resting")
    assert (project.path / "annotations" / "ann.csv").read_bytes() == before
    assert reopen(project).labels()["class"].tolist() == ["resting"]


def test_reopening_with_other_classes_adds_them(project: Project) -> None:
    project.annotations.file.close()
    assert Project(project.path, classes=["dead", "dim"]).classes.names == ("dim", "bright", "dead")


def test_opening_a_project_twice_shares_annotations(project: Project) -> None:
    second = Project(project.path, classes=CLASSES, annotator="ann")
    version = second.annotations_version
    project.annotate("P1_A1", 3, "dim")
    second.annotate("P1_A1", 4, "bright")
    assert project.annotations.class_counts().to_dict() == {"dim": 1, "bright": 1}
    assert second.annotations_version == version + 2
    del second
    gc.collect()
    project.annotate("P1_A1", 5, "dim")


def test_two_annotators_share_a_project(project: Project) -> None:
    project.annotate("P1_A1", [1, 2], "dim")
    other = Project(project.path, annotator="bo")
    other.annotate("P1_A1", 2, "bright")
    labels = Project(project.path, annotator="cy").labels()
    assert labels["class"].to_dict() == {("P1_A1", 1): "dim"}, "where two disagree, nobody is right"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda p: p.annotate("P1_A1", 99, "dim"), "has no object 99. Choose one of its 12 objects, numbered 1 to 12"),
        (lambda p: p.annotate("P1_A9", 1, "dim"), "no image 'P1_A9'. Choose one of its images: 'P1_A1'"),
        (lambda p: p.annotate("P1_A1", 1, "dimm"), "no class 'dimm'. The classes are 'dim', 'bright'"),
        (lambda p: p.annotate("P1_A1", 1, None), "None is not the name of a class. Pass one of 'dim', 'bright'"),
        (lambda p: p.annotate("P1_A1", None, "dim"), "None is not the number of an object in 'P1_A1'"),
        (lambda p: p.annotate("P1_A1", "12", "dim"), "'12' is not the number of an object"),
        (lambda p: p.annotate("P1_A1", [1, 2.5], "dim"), "2.5 is not the number of an object"),
        (lambda p: p.classes.recolor("dim", None), "Color None is not valid"),
        (lambda p: p.classes.recolor(None, "#e69f00"), "None is not the name of a class"),
        (lambda p: p.annotate("P1_A1", 1, "dim", seconds="soon"), "seconds a number, got 'script' and 'soon'"),
        (lambda p: p.predictions(5), "images must be a list of image names, got 5. Pass for example"),
        (lambda p: p.measure(groups=None), "groups must be a list of feature groups, got None"),
        (lambda p: p.train(5), "Settings must be TrainingSettings, got 5"),
        (lambda p: p.export(None), r"Expected a path, got None. Pass it as text: project.export\("),
        (lambda p: p.save_zip(5), "Expected a path, got 5"),
        (lambda p: p.test_set.draw(None), "A test set cannot have n=None objects"),
        (lambda p: Project(None), "Expected a path, got None"),
        (lambda p: Project(p.path, classes=5), "Expected a list of class names, got 5"),
        (lambda p: p.add("g", *squares(), groups={"class": "x"}), "'class' has the name of a result column"),
        (lambda p: p.counts(by=3), "Cannot count by 3. Pass the name of a column"),
        (lambda p: p.export("out", None), "formats must be a list of formats, got None. Choose among csv"),
        (lambda p: setattr(p, "settings", {}), "Settings must be TrainingSettings, got dict"),
        (lambda p: setattr(p.settings, "epochs", 3), r"Make a changed copy.*settings.changed\(epochs=3\)"),
        (lambda p: p.train(frobnicate=1), "Unknown setting 'frobnicate'. Choose among"),
        (lambda p: p.flag("P1_A1", 1, "ugly"), "Unknown flag 'ugly'. Use one of"),
        (lambda p: p.add("bad\nname", *squares()), "printable"),
        (lambda p: p.classes.rename("dim", "bright"), "already"),
    ],
)
def test_invalid_calls_are_refused_and_change_nothing(project: Project, wrong, message: str) -> None:
    project.objects("P1_A1")
    before = bytes_of(project.path)
    with pytest.raises(SvetlanaError, match=message):
        wrong(project)
    assert bytes_of(project.path) == before


def _with_gaps_and_many_labels() -> np.ndarray:
    mask = np.zeros((400, 400), np.uint32)
    mask[::1, ::2] = (np.arange(400 * 200).reshape(400, 200) * 3 + 5).astype(np.uint32)
    return mask


IMAGE = squares()[0]
MASK = squares()[1]


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (IMAGE, MASK[:-4], "same shape"),
        (IMAGE, MASK / 12, "Mask must contain integers"),
        (IMAGE, (MASK > 0).astype(np.uint8) * 255, "skimage.measure.label"),
        (IMAGE, MASK * 0, "The mask has no object"),
    ],
)
def test_a_mismatched_image_and_mask_are_refused_and_change_nothing(
    project: Project, image: np.ndarray, mask: np.ndarray, message: str
) -> None:
    before = bytes_of(project.path)
    with pytest.raises(InputError, match=message):
        project.add("new", image, mask)
    assert bytes_of(project.path) == before


@pytest.mark.parametrize("content", [b"this is no image", None])
def test_an_unreadable_file_is_refused_and_changes_nothing(
    project: Project, wells: Path, content: bytes | None
) -> None:
    file = wells / "wells" / "P1_A1.tif"
    broken = wells / "broken.tif"
    broken.write_bytes(file.read_bytes()[:2000] if content is None else content)
    before = bytes_of(project.path)
    with pytest.raises(InputError, match="broken"):
        project.add("new", broken, wells / "masks" / "P1_A1.tif")
    assert bytes_of(project.path) == before


def test_70000_labels_with_gaps_are_accepted(project: Project) -> None:
    mask = _with_gaps_and_many_labels()
    project.add("many", np.zeros(mask.shape, np.uint8), mask)
    assert len(project.objects("many")) == 80_000
    assert project.objects("many").index[-1] == 5 + 3 * 79_999
    project.annotate("many", 5 + 3 * 79_999, "dim")


def test_no_usable_pair_raises_an_error_with_the_reason(project: Project, wells: Path) -> None:
    with pytest.raises(InputError):
        project.add_images(wells / "wells/{plate}_{well}.tif", masks=wells / "nowhere/{plate}_{well}.tif")
    with pytest.raises(InputError):
        project.add_images(wells / "nowhere/{plate}.tif", masks=wells / "masks/{plate}.tif")


def test_a_duplicate_class_name_creates_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than once"):
        Project(tmp_path / "new.svetlana", classes=["a", "b", "a"])
    assert not (tmp_path / "new.svetlana").exists()
