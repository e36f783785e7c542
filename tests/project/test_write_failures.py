"""Faults under a project's feet: a sentence, nothing lost, and everything usable once they are over."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.project import Project
from tests.project.test_project import bytes_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("back", ["moved back", "from a backup"])
def test_a_project_folder_that_is_gone_and_comes_back(project: Project, tmp_path: Path, back: str) -> None:
    project.annotate("P1_A1", 1, "dim")
    project.objects("P1_A1")
    away = tmp_path / "away"
    shutil.copytree(project.path, away)
    project.annotate("P1_A1", 2, "bright")  # younger than the backup
    if back == "moved back":
        shutil.rmtree(away)
        project.path.rename(away)
    else:
        shutil.rmtree(project.path)
    with pytest.raises(ProjectError, match="estore the folder"):
        project.annotate("P1_A1", 3, "dim")
    with pytest.raises(ProjectError, match="estore the folder"):
        project.undo()
    with pytest.raises(ProjectError, match="nothing was changed"):
        project.classes.rename("dim", "dark")
    assert project.annotations.class_counts().to_dict() == {"dim": 1, "bright": 1}
    away.rename(project.path)
    project.annotate("P1_A1", 3, "dim")
    project.classes.rename("dim", "dark")
    project.annotations.file.close()
    assert Project(project.path, annotator="ann").annotations.class_counts().to_dict() == {"dark": 2, "bright": 1}


def test_a_disk_that_fills_up_while_labelling(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.annotate("P1_A1", [1, 2], "dim")
    before, labels = bytes_of(project.path), project.labels()
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_room)
        for change in (
            lambda: project.annotate("P1_A1", [3, 4], "bright"),
            lambda: project.flag("P1_A1", 1, "bad_segmentation"),
            project.undo,
            lambda: project.classes.merge("dim", "bright"),
            lambda: project.classes.add("new"),
            lambda: project.save_zip(),
        ):
            with pytest.raises(ProjectError, match="No space left on device"):
                change()
        assert project.labels().equals(labels)
        assert project.classes.names == ("dim", "bright")
    assert bytes_of(project.path) == before
    project.annotate("P1_A1", [3, 4], "bright")
    assert project.undo()
    assert project.labels().equals(labels)


def test_objects_are_found_on_a_full_disk_too(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svetlana_jupyter.project.storage.os.replace", no_room)
    assert len(project.objects("P1_A1")) == 12
    assert project.images.is_indexed("P1_A1")
    assert not Project(project.path).images.is_indexed("P1_A1")


OTHER = """
import sys
from svetlana_jupyter.project.project import Project
project = Project(sys.argv[1], annotator="ann")
project.annotate("P1_A1", [7, 8], "bright")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_kernel(project: Project) -> Iterator[subprocess.Popen]:
    """Another kernel that annotates as the same person."""
    project.annotations.file.close()
    command = [sys.executable, "-c", OTHER, str(project.path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    process.stdout.close()


def test_two_kernels_with_one_annotator(project: Project, other_kernel: subprocess.Popen) -> None:
    here = Project(project.path, annotator="ann")
    assert "Another notebook is annotating as 'ann'" in here.trouble
    with pytest.raises(ProjectError, match="Another notebook is annotating"):
        here.annotate("P1_A1", 1, "dim")
    with pytest.raises(ProjectError, match="Another notebook is annotating"):
        here.undo()
    assert here.annotations.class_counts().to_dict() == {"dim": 0, "bright": 2}, "it reads"
    other_kernel.kill()
    other_kernel.wait()
    here.annotate("P1_A1", 1, "dim")
    assert here.trouble == ""
    assert here.annotations.class_counts().to_dict() == {"dim": 1, "bright": 2}
    assert here.undo()
    assert here.undo(), "also what the other kernel said last"
    assert here.annotations.class_counts().sum() == 0


def test_an_image_that_is_deleted_after_opening(project: Project, wells: Path) -> None:
    project.annotate("P1_A1", [1, 3], "dim")
    project.annotate("P1_A1", [2, 4], "bright")
    project.train(architecture="forest")
    file = wells / "wells" / "P1_A2.tif"
    project.pair("P1_A2")
    file.rename(wells / "away.tif")
    with pytest.raises(InputError, match=r"P1_A2\.tif is missing"):
        project.predict()
    assert project.job is None
    assert len(project.probabilities("P1_A1")) == 12, "what was done before stays"
    project.annotate("P1_A2", 1, "dim")
    (wells / "away.tif").rename(file)
    project.predict()
    assert len(project.probabilities("P1_A2")) == 12
    assert len(project.labels()) == 5


def test_a_mask_that_is_deleted_before_it_was_looked_at(project: Project, wells: Path) -> None:
    file = wells / "masks" / "P2_A1.tif"
    project.pair("P2_A1")
    file.rename(wells / "away.tif")
    with pytest.raises(InputError, match=r"P2_A1\.tif"):
        project.objects("P2_A1")
    (wells / "away.tif").rename(file)
    project.annotate("P2_A1", 1, "dim")


def test_a_job_on_a_thread_says_what_file_is_gone(project: Project, wells: Path) -> None:
    project.annotate("P1_A1", [1, 3], "dim")
    project.annotate("P1_A1", [2, 4], "bright")
    project.train(architecture="forest")
    project.pair("P1_A2")
    (wells / "wells" / "P1_A2.tif").unlink()
    project.background.predict()
    project._jobs.wait(60)
    assert "P1_A2.tif is missing" in project.trouble
    assert project.job is None
    project.annotate("P1_A1", 5, "dim")
