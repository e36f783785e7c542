"""Write failures: a clear message, no lost annotation, and a usable project once they are over."""

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


def raise_disk_full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("back", ["moved back", "from a backup"])
def test_a_project_folder_that_is_removed_and_restored(project: Project, tmp_path: Path, back: str) -> None:
    project.annotate("P1_A1", 1, "dim")
    project.objects("P1_A1")
    backup = tmp_path / "away"
    shutil.copytree(project.path, backup)
    project.annotate("P1_A1", 2, "bright")  # newer than the backup
    if back == "moved back":
        shutil.rmtree(backup)
        project.path.rename(backup)
    else:
        shutil.rmtree(project.path)
    with pytest.raises(ProjectError, match="estore the folder"):
        project.annotate("P1_A1", 3, "dim")
    with pytest.raises(ProjectError, match="estore the folder"):
        project.undo()
    with pytest.raises(ProjectError, match="nothing was changed"):
        project.classes.rename("dim", "dark")
    assert project.annotations.class_counts().to_dict() == {"dim": 1, "bright": 1}
    backup.rename(project.path)
    project.annotate("P1_A1", 3, "dim")
    project.classes.rename("dim", "dark")
    project.annotations.file.close()
    assert Project(project.path, annotator="ann").annotations.class_counts().to_dict() == {"dark": 2, "bright": 1}


def test_a_disk_that_fills_up_during_annotation(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.annotate("P1_A1", [1, 2], "dim")
    before, labels = bytes_of(project.path), project.labels()
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", raise_disk_full)
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


def test_object_tables_are_built_on_a_full_disk(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svetlana_jupyter.project.storage.os.replace", raise_disk_full)
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
    """Process that annotates the project as the same annotator."""
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


def test_two_kernels_of_one_annotator(project: Project, other_kernel: subprocess.Popen) -> None:
    project_here = Project(project.path, annotator="ann")
    assert "Another notebook is annotating as 'ann'" in project_here.trouble
    with pytest.raises(ProjectError, match="Another notebook is annotating"):
        project_here.annotate("P1_A1", 1, "dim")
    with pytest.raises(ProjectError, match="Another notebook is annotating"):
        project_here.undo()
    assert project_here.annotations.class_counts().to_dict() == {"dim": 0, "bright": 2}, "it reads"
    other_kernel.kill()
    other_kernel.wait()
    project_here.annotate("P1_A1", 1, "dim")
    assert project_here.trouble == ""
    assert project_here.annotations.class_counts().to_dict() == {"dim": 1, "bright": 2}
    assert project_here.undo()
    assert project_here.undo(), "also what the other kernel said last"
    assert project_here.annotations.class_counts().sum() == 0


def test_an_image_deleted_after_opening(project: Project, wells: Path) -> None:
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


def test_a_mask_deleted_before_first_use(project: Project, wells: Path) -> None:
    file = wells / "masks" / "P2_A1.tif"
    project.pair("P2_A1")
    file.rename(wells / "away.tif")
    with pytest.raises(InputError, match=r"P2_A1\.tif"):
        project.objects("P2_A1")
    (wells / "away.tif").rename(file)
    project.annotate("P2_A1", 1, "dim")


def test_a_background_job_names_the_missing_file(project: Project, wells: Path) -> None:
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
