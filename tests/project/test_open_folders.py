"""Two `Project` objects of one folder in one kernel: they share annotations, classes, images, runs and the job."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.jobs import Progress
from svetlana_jupyter.project.project import Project
from tests.project.conftest import squares

if TYPE_CHECKING:
    from collections.abc import Iterator

    from svetlana_jupyter.project.jobs import Stop


@pytest.fixture
def again(project: Project) -> Project:
    """Second object of the same project, opened by another spelling of its path."""
    return Project(project.path.parent / "wells" / ".." / project.path.name, annotator="ann")


def test_edits_of_both_objects_are_numbered_and_undone_in_one_order(project: Project, again: Project) -> None:
    project.annotate("P1_A1", 1, "dim")
    again.annotate("P1_A1", 2, "bright")
    project.annotate("P1_A1", 3, "dim")
    assert project.labels().equals(again.labels())
    assert again.annotations.table()["edit"].tolist() == [1, 2, 3]
    assert again.undo()
    assert project.undo()
    assert project.class_counts().to_dict() == again.class_counts().to_dict() == {"dim": 1, "bright": 0}
    assert Project(project.path, annotator="ann").class_counts().to_dict() == {"dim": 1, "bright": 0}


def test_objects_of_two_annotators_see_the_labels_of_each_other(project: Project) -> None:
    bob = Project(project.path, annotator="bob")
    bob.annotate("P1_A1", 1, "bright")
    assert project.class_counts()["bright"] == 1
    bob.annotate("P1_A1", [1, 2], "dim")
    before = project.annotations_version
    bob.undo()
    assert project.annotations_version > before
    assert project.class_counts().to_dict() == {"dim": 0, "bright": 1}
    project.annotate("P1_A1", 3, "dim")
    assert bob.class_counts().to_dict() == {"dim": 1, "bright": 1}


def test_classes_images_and_masks_of_one_object_are_used_by_the_other(project: Project, again: Project) -> None:
    again.classes.add("round")
    project.annotate("P1_A1", 1, "round")
    again.classes.merge("dim", "bright")
    assert project.classes.names == ("bright", "round")
    image, mask = squares(8, seed=5)
    project.add("new", image, mask)
    again.annotate("new", 8, "round")
    project.replace_mask("new", mask[::-1].copy())
    assert len(again.objects("new")) == 8
    assert again.labels().equals(project.labels())
    assert not again.trouble


def test_runs_of_both_objects_have_one_numbering_and_one_current_run(project: Project, again: Project) -> None:
    project.annotate("P1_A1", [1, 3], "dim")
    project.annotate("P1_A1", [2, 4], "bright")
    assert project.train(architecture="forest", trees=5).name == "0001"
    assert again.current_run == "0001"
    assert again.train(architecture="forest", trees=5).name == "0002"
    assert [run.name for run in project.runs] == ["0001", "0002"]
    assert project.current_run == "0002"
    again.predict(["P1_A1"])
    assert project.predictions(["P1_A1"])["predicted"].notna().all()
    project.runs.choose("0001")
    assert again.current_run == "0001"


def test_there_is_one_job_which_both_objects_show_and_stop(project: Project, again: Project) -> None:
    running, may_end = threading.Event(), threading.Event()

    def work(stop: Stop) -> Iterator[object]:
        yield Progress(1, 2, "half")
        running.set()
        while not stop():
            may_end.wait(0.01)

    project._jobs.start("training", work)
    assert running.wait(30)
    assert again.job == project.job
    assert Project(project.path).job.text == "half"
    with pytest.raises(ProjectError, match="A training is running"):
        again.measure()
    again.stop()
    project._jobs.wait(30)
    assert project.job is None
    assert again.job is None
