"""Replacement of a mask: annotations are carried over to the matching objects, and no event is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from svetlana_jupyter.core.annotations import Label
from svetlana_jupyter.core.io.images import open_mask
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project import mask_replacement as replacement
from svetlana_jupyter.project.jobs import JobState
from svetlana_jupyter.project.project import Project
from tests.project.conftest import reopen, squares
from tests.project.test_project import bytes_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def resegmented() -> np.ndarray:
    """Return a mask of the twelve squares: 1 kept, 2 relabeled, 3 split, 4 and 8 merged, 5 lost."""
    old, new = squares(seed=1)[1], squares(seed=1)[1].astype(np.int32)
    rows, columns = np.indices(old.shape)
    new[old == 2] = 102
    new[(old == 3) & (columns < 60)] = 30
    new[(old == 3) & (columns >= 60)] = 31
    new[(columns >= 78) & (columns < 90) & (rows >= 6) & (rows < 42)] = 40
    new[old == 5] = 0
    return new


def annotated(project: Project) -> Project:
    project.annotate("P1_A1", [1, 3, 5], "dim")
    project.annotate("P1_A1", [2, 4, 8], "bright")
    return project


def current_labels(project: Project) -> dict[int, str]:
    return {label: name for (_, label), name in project.labels()["class"].items()}


@pytest.mark.parametrize("overwritten", [False, True])
def test_annotations_are_carried_over_and_the_report_gives_the_status(
    project: Project, wells: Path, overwritten: bool
) -> None:
    log = annotated(project).annotations.file.file
    before = log.read_bytes()
    file = wells / "masks" / ("P1_A1.tif" if overwritten else "P1_A1_v2.tif")
    tifffile.imwrite(file, resegmented())
    report = project.replace_mask("P1_A1", file)
    assert report["status"].to_dict() == {
        1: "kept",
        2: "relabeled",
        3: "lost" if overwritten else "split",
        4: "lost" if overwritten else "merged",
        5: "lost",
        8: "lost" if overwritten else "merged",
    }
    assert report.attrs["matched_by"] == ("boxes" if overwritten else "pixels")
    assert report.loc[2, "new"] == (102,)
    assert report.loc[2, "share"] == 1
    assert report.loc[2, "carried"] == (102,)
    expected = {1: "dim", 102: "bright"} | ({} if overwritten else {30: "dim", 31: "dim", 40: "bright"})
    assert current_labels(project) == current_labels(reopen(project)) == expected
    assert log.read_bytes() == before, "the log is not touched"
    assert "1 kept, 1 relabeled" in project.status


def test_check_mask_predicts_the_report_and_changes_nothing(
    project: Project, wells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotated(project)
    project.objects("P1_A1")
    file = wells / "masks" / "P1_A1_v2.tif"
    tifffile.imwrite(file, squares(seed=1)[1])
    assert project.check_mask("P1_A1", file)["status"].eq("kept").all()
    tifffile.imwrite(file, resegmented())
    before = bytes_of(wells)
    checked = project.check_mask("P1_A1", file)
    assert bytes_of(wells) == before
    assert current_labels(project)[2] == "bright"

    def fail(*_: object) -> None:
        raise AssertionError("it was read already")

    with monkeypatch.context() as context:
        context.setattr(replacement, "index_objects", fail)
        report = project.replace_mask("P1_A1", file)
    assert report.drop(columns="carried").equals(checked)
    assert report.loc[3, "carried"] == (30, 31)


def test_undo_works_across_a_mask_replacement(project: Project) -> None:
    annotated(project).replace_mask("P1_A1", resegmented())
    project.annotate("P1_A1", 102, "dim")
    project.annotate("P1_A1", 6, "bright")
    again = reopen(project)
    assert current_labels(again) == {1: "dim", 102: "dim", 30: "dim", 31: "dim", 40: "bright", 6: "bright"}
    for _ in range(3):
        again.undo()
    assert current_labels(again) == {1: "dim", 30: "dim", 31: "dim"}, (
        "the edit that said bright of 2, 4 and 8 is undone"
    )
    assert set(again.annotations.last_edited) == {("P1_A1", 102), ("P1_A1", 40)}
    again.redo()
    assert current_labels(again)[102] == "bright"


def test_a_carried_annotation_can_be_erased(project: Project) -> None:
    annotated(project).replace_mask("P1_A1", resegmented())
    project.erase("P1_A1", 102)
    assert project.annotations.label_of("P1_A1", 102) == Label()
    assert 102 not in current_labels(reopen(project))


@pytest.fixture
def other_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `Project` objects of one folder not follow each other, as if they were in different kernels."""
    monkeypatch.setattr("svetlana_jupyter.project.open_folders.OpenFolder.announce", lambda *_: None)


@pytest.mark.usefixtures("other_kernels")
def test_annotations_of_others_are_carried_over_at_any_time(project: Project) -> None:
    other = Project(project.path, annotator="bo")
    project.replace_mask("P1_A1", resegmented())
    other.annotate("P1_A1", 2, "bright")  # bo's notebook still shows the old mask
    assert current_labels(reopen(project)) == {102: "bright"}
    other = reopen(other, "bo")
    other.annotate("P1_A1", 102, "dim")
    assert current_labels(reopen(project)) == {102: "dim"}


@pytest.mark.usefixtures("other_kernels")
def test_a_second_project_with_the_old_mask_cannot_annotate(project: Project) -> None:
    second = Project(project.path, annotator="ann")
    project.replace_mask("P1_A1", resegmented())
    project.annotate("P1_A1", 102, "dim")
    version = second.images_version
    with pytest.raises(ProjectError, match="mask of 'P1_A1' was replaced"):
        second.annotate("P1_A1", 2, "bright")
    assert second.images_version == version + 1
    assert current_labels(second) == {102: "dim"}
    second.annotate("P1_A1", 30, "bright")
    assert current_labels(project) == {102: "dim", 30: "bright"}


def test_the_same_mask_again_changes_nothing(project: Project, wells: Path) -> None:
    annotated(project).objects("P1_A1")
    before = bytes_of(project.path)
    report = project.replace_mask("P1_A1", wells / "masks" / "P1_A1.tif")
    assert set(report["status"]) == {"kept"}
    assert len(report) == 6
    assert bytes_of(project.path) == before


def test_running_a_notebook_again_changes_nothing(project: Project, wells: Path) -> None:
    annotated(project).replace_mask("P1_A1", resegmented())
    project.replace_mask("P1_A1", resegmented())
    before = current_labels(project), project.images
    project.add_images(wells / "wells/{plate}_{well}.tif", masks=wells / "masks/{plate}_{well}.tif")
    project.replace_mask("P1_A1", resegmented())
    assert (current_labels(project), project.images) == before


def test_a_mask_can_be_replaced_again_and_by_the_old_one(project: Project, wells: Path) -> None:
    annotated(project).replace_mask("P1_A1", resegmented())
    report = project.replace_mask("P1_A1", wells / "masks" / "P1_A1.tif")
    assert report.loc[102, "new"] == (2,)
    assert report.loc[30, "status"] == "merged"
    assert current_labels(reopen(project)) == {1: "dim", 2: "bright", 3: "dim", 4: "bright", 8: "bright"}
    assert len(project.objects("P1_A1")) == 12


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (np.ones((5, 5), int), "same shape"),
        (np.zeros((72, 96)), "integers"),
        (np.zeros((72, 96), int), "The mask has no object"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_and_changes_nothing(project: Project, mask, problem: str) -> None:
    annotated(project)
    before = bytes_of(project.path)
    with pytest.raises(InputError, match=problem):
        project.replace_mask("P1_A1", mask)
    assert bytes_of(project.path) == before


@pytest.mark.parametrize("repair", [None, "components"])
def test_a_mask_of_another_pixel_size_is_refused_until_the_size_is_passed(tmp_path: Path, repair: str | None) -> None:
    project = Project(tmp_path / "sized.svetlana", annotator="ann")
    image, mask = squares(4)
    project.add("i", image, mask, axes="yx", spacing=(0.25, 0.25))
    file = tmp_path / "new.tif"
    tifffile.imwrite(file, mask * 2, imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    before = bytes_of(project.path)
    problem = (
        r"i: The pixel sizes of image \(0\.25 µm along y, 0\.25 µm along x\) and mask \(0\.5 µm along y, 0\.5 µm along "
        r"x\) differ\. .* `sv\.open_mask\(mask, spacing=\(0\.25, 0\.25\)\)`\."
    )
    for call in (project.check_mask, project.replace_mask):
        if call == project.replace_mask or repair is None:
            with pytest.raises(InputError, match=problem):
                call("i", file, **({} if repair is None else {"repair": repair}))
    assert bytes_of(project.path) == before
    project.replace_mask("i", open_mask(file, spacing=(0.25, 0.25)), repair=repair)
    assert project.objects("i").index.tolist() == ([2, 4, 6, 8] if repair is None else [1, 2, 3, 4])
    assert project.pair("i").spacing == (0.25, 0.25)


def test_predictions_of_the_old_mask_are_not_used_for_the_new_one(project: Project) -> None:
    annotated(project).train(architecture="forest")
    project.predict()
    assert len(project.probabilities("P1_A1")) == 12
    version = project.predictions_version
    project.replace_mask("P1_A1", resegmented())
    assert project.probabilities("P1_A1").empty
    assert len(project.probabilities("P1_A2")) == 12
    assert project.predictions_version > version
    project.predict(["P1_A1"])
    assert sorted(reopen(project).probabilities("P1_A1").index) == sorted(np.unique(resegmented())[1:])


def test_a_mask_is_not_replaced_during_a_job(project: Project) -> None:
    project._jobs.state = JobState("training")
    with pytest.raises(ProjectError, match="A training is reading these objects"):
        project.replace_mask("P1_A1", resegmented())


def test_missing_label_mappings_are_reported_on_opening(project: Project) -> None:
    annotated(project).replace_mask("P1_A1", resegmented())
    (project.path / "masks" / "P1_A1.1.csv").unlink()
    with pytest.raises(ProjectError, match="Restore it from a backup"):
        reopen(project)


def test_the_annotation_table_contains_the_mask_version(project: Project) -> None:
    annotated(project).replace_mask("P1_A1", resegmented())
    project.annotate("P1_A1", 102, "dim")
    table: pd.DataFrame = project.annotations.table()
    assert table["mask"].tolist() == [0] * 6 + [1]


def test_an_overwritten_mask_is_reported_before_annotating(project: Project, wells: Path) -> None:
    annotated(project).annotations.file.close()
    file = wells / "masks" / "P1_A1.tif"
    tifffile.imwrite(file, resegmented())
    for _ in range(2):
        again = Project(project.path, annotator="ann")
        with pytest.raises(ProjectError, match=r"has changed on disk.*Call project\.replace_mask"):
            again.annotate("P1_A1", 102, "dim")
        assert "has changed on disk" in again.readiness()
        again.annotate("P1_A2", 1, "dim")
        again.annotations.file.close()
    again = Project(project.path, annotator="ann")
    again.replace_mask("P1_A1", file)
    again.annotate("P1_A1", 40, "dim")
    assert current_labels(again) == {1: "dim", 102: "bright", 40: "dim"}


def test_a_mask_with_another_modification_time_is_the_same_mask(project: Project, wells: Path) -> None:
    annotated(project).annotations.file.close()
    file = wells / "masks" / "P1_A1.tif"
    tifffile.imwrite(file, tifffile.imread(file), compression="zlib")
    again = Project(project.path, annotator="ann")
    again.annotate("P1_A1", 12, "dim")
    assert again.readiness() == ""
