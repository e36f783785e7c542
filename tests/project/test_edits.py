"""Edits of objects in several images: written and undone together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from svetlana_jupyter.errors import InputError
from tests.project.conftest import squares

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

ACROSS = {("P1_A1", 1): "dim", ("P2_A1", 4): "bright", ("P1_A1", 2): "bright"}


def labels_of(project: Project) -> dict[tuple[str, int], str]:
    return {
        class_id: label["class"] or label["action"] for class_id, label in project.labels().to_dict("index").items()
    }


def test_objects_of_several_images_are_annotated_and_undone_in_one_edit(project: Project) -> None:
    project.annotate("P1_A1", 2, "dim")
    version = project.annotations_version
    project.annotations.annotate_each(ACROSS, source="gallery", seconds=1.5)
    assert labels_of(project) == ACROSS
    log = project.annotations.table().query("source == 'gallery'")
    assert len(log) == 3
    assert log["edit"].nunique() == 1
    assert log["seconds"].eq(1.5).all()
    assert project.annotations_version == version + 1, "one change, however many images"
    assert project.status == "3 objects are labeled bright, dim; 1 of them had another label."
    project.undo()
    assert labels_of(project) == {("P1_A1", 2): "dim"}
    project.redo()
    assert labels_of(project) == ACROSS


def test_labels_that_an_edit_of_several_objects_replaces_are_counted(project: Project) -> None:
    project.annotate("P1_A1", 1, "dim")
    project.annotate("P1_A1", 2, "bright")
    project.annotations.flag_each([("P1_A1", 4)], "skip")
    project.annotations.annotate_each({("P1_A1", label): "dim" for label in (1, 2, 3, 4)})
    assert project.status == "4 objects are labeled dim; 1 of them had another label."
    project.annotations.annotate_each({("P1_A1", label): "dim" for label in (1, 2, 3, 4)})
    assert project.status == "4 objects are labeled dim."


def test_objects_of_several_images_are_flagged_and_erased_together(project: Project) -> None:
    project.annotations.flag_each(ACROSS, "ambiguous")
    assert labels_of(project) == dict.fromkeys(ACROSS, "ambiguous")
    assert project.status == "3 objects are flagged as ambiguous."
    project.annotations.erase_each(ACROSS)
    assert labels_of(project) == {}
    project.undo()
    assert labels_of(project) == dict.fromkeys(ACROSS, "ambiguous")


def test_the_project_reports_the_objects_of_the_last_edit(project: Project) -> None:
    assert project.annotations.last_edited == []
    project.annotations.annotate_each(ACROSS)
    assert sorted(project.annotations.last_edited) == sorted(ACROSS)
    project.annotate("P1_A2", 7, "dim")
    project.undo()
    assert project.annotations.last_edited == [("P1_A2", 7)]
    project.undo()
    assert sorted(project.annotations.last_edited) == sorted(ACROSS)
    project.redo()
    assert sorted(project.annotations.last_edited) == sorted(ACROSS)


@pytest.mark.parametrize(
    "objects", [{("P1_A1", 1): "dim", ("P1_A2", 99): "dim"}, {("P1_A1", 1): "dim", ("nowhere", 1): "dim"}]
)
def test_an_unknown_object_leaves_the_log_unchanged(project: Project, objects: dict[tuple[str, int], str]) -> None:
    with pytest.raises(InputError):
        project.annotations.annotate_each(objects)
    with pytest.raises(InputError, match="'nonsense'"):
        project.annotations.annotate_each({("P1_A1", 1): "nonsense"})
    with pytest.raises(InputError, match="'nonsense'"):
        project.annotations.flag_each([("P1_A1", 1)], "nonsense")
    assert len(project.annotations.table()) == 0


def test_objects_annotated_together_share_an_edit_group(project: Project) -> None:
    project.annotations.annotate_each(ACROSS)
    project.annotate("P1_A2", 7, "dim")
    project.annotate("P1_A2", [8, 9], "bright")
    project.annotate("P1_A1", 2, "dim")
    groups = project.annotations.edit_groups()
    assert groups["P1_A1", 1] == groups["P2_A1", 4] != ""
    assert groups["P1_A2", 8] == groups["P1_A2", 9] != groups["P1_A1", 1]
    assert groups["P1_A2", 7] == groups["P1_A1", 2] == "", "the last word is alone"
    project.replace_mask("P1_A1", squares()[1].astype(np.int32) + 100)
    assert project.annotations.edit_groups()["P1_A1", 101] == groups["P2_A1", 4]


def test_objects_annotated_together_share_a_fold(project: Project) -> None:
    for first in range(1, 9, 2):
        project.annotations.annotate_each(
            {("P1_A1", first): "dim", ("P1_A1", first + 1): "bright", ("P1_A1", first + 2): "dim"}
        )
    project.annotate("P1_A1", 9, "dim")
    project.annotate("P1_A1", [10, 12], "bright")
    project.train(architecture="forest", trees=5)
    project.evaluate()
    table = project.runs.current.held_out().set_index("object")["fold"]
    assert table[10] == table[12]
    assert table[1] == table[2]
