"""Classes of a project: deleting unused ones, names in two Unicode forms, and names that look misspelled."""

from __future__ import annotations

import json
import shutil
import unicodedata
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.project import Project

if TYPE_CHECKING:
    from pathlib import Path

NAIVE = unicodedata.normalize("NFD", "naïve")


def test_an_unused_class_is_deleted_and_its_id_is_not_used_again(project: Project) -> None:
    project.classes.add("brigth")
    project.classes.delete("brigth")
    assert project.status == "Deleted the class brigth, which no label needs."
    project.classes.add("round")
    again = Project(project.path)
    assert again.classes.names == ("dim", "bright", "round")
    assert again.classes.ids == (1, 2, 4)
    assert again.classes.by_name("round").key == "3", "the key is free again"


def test_a_class_that_labels_or_runs_need_is_not_deleted(project: Project) -> None:
    project.annotate("P1_A1", [1, 3, 5], "dim")
    project.annotate("P1_A1", [2, 4, 6], "bright")
    merge = r"Merge it into another class instead: project.classes.merge\('dim', into=...\)."
    with pytest.raises(InputError, match=f"3 objects are labeled 'dim', so it cannot be deleted. {merge}"):
        project.classes.delete("dim")
    project.train(architecture="forest")
    project.erase("P1_A1", range(1, 7))
    with pytest.raises(InputError, match="Undo can bring back labels of 'dim'"):
        project.classes.delete("dim")
    copy = shutil.copytree(project.path, project.path.with_name("copy"), ignore=shutil.ignore_patterns("annotations"))
    again = Project(copy, annotator="ann")
    with pytest.raises(InputError, match=f"The runs 0001 were trained with this class, so it cannot be .* {merge}"):
        again.classes.delete("dim")
    assert again.classes.names == ("dim", "bright")


def test_labels_of_other_annotators_keep_a_class(project: Project) -> None:
    project.classes.add("round")
    Project(project.path, annotator="bob").annotate("P1_A1", 1, "round")
    with pytest.raises(InputError, match="cannot be deleted"):
        project.classes.delete("round")


def test_a_class_that_others_were_merged_into_is_not_deleted(project: Project) -> None:
    project.classes.merge("dim", "bright")
    with pytest.raises(InputError, match=r"'dim' counts as 'bright', .* project.classes.split\('dim'\)"):
        project.classes.delete("bright")
    with pytest.raises(InputError, match="'dim' was merged into 'bright'"):
        project.classes.delete("dim")
    with pytest.raises(InputError, match="There is a class 'dim' already"):
        project.classes.rename("bright", "dim")


def test_names_in_both_unicode_forms_are_one_class(project: Project) -> None:
    project.classes.add(NAIVE)
    project.classes.add(f" {unicodedata.normalize('NFC', NAIVE)} ")
    assert project.classes.names == ("dim", "bright", "naïve")
    project.annotate("P1_A1", 1, NAIVE)
    assert project.class_counts()["naïve"] == 1


def test_a_project_with_decomposed_names_opens_and_reads_both_forms(project: Project) -> None:
    document = json.loads(project._folder.document_file.read_text("utf-8"))
    document["classes"][0]["name"] = NAIVE
    document["images"] = {NAIVE: document["images"]["P1_A1"]}
    project._folder.document_file.write_text(json.dumps(document), "utf-8")
    again = Project(project.path, classes=["naïve"], annotator="ann")
    assert len(again.classes) == 2
    again.annotate(NAIVE, 1, "naïve")
    again.import_annotations(pd.DataFrame({"image": ["naïve"], "object": [2], "class": ["naïve"]}))
    assert again.labels()["class_id"].tolist() == [1, 1]


def test_classes_added_to_a_project_are_reported_and_misspelled_ones_refused(project: Project) -> None:
    again = Project(project.path, classes=["dim", "round"])
    assert again.status.startswith("Added 'round' to the classes 'dim', 'bright'.")
    for wrong in ("Bright", "brigth", "brght", "brightt"):
        with pytest.raises(InputError, match=f"The project has a class 'bright', of which '{wrong}' may be"):
            Project(project.path, classes=["dim", wrong])
    assert Project(project.path).classes.names == ("dim", "bright", "round")
    Project(project.path, classes=["CD8+", "type A"])
    assert Project(project.path, classes=["CD8-", "type B", "rounder"]).classes.names[-3:] == (
        "CD8-",
        "type B",
        "rounder",
    )


@pytest.mark.parametrize("classes", ["RBC", ["RBC", 1], ["RBC", "\u200b"], ["a", " a"]])
def test_wrong_class_lists_create_no_project(tmp_path: Path, classes: object) -> None:
    with pytest.raises(InputError, match=r"Pass \['RBC'\]|Class name|given more than once"):
        Project(tmp_path / "new.svetlana", classes=classes)
    assert not (tmp_path / "new.svetlana").exists()
