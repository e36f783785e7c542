"""Links inside a project or export folder, which a stranger may have put there, are not followed."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from svetlana_jupyter.errors import InputError, ProjectError, SvetlanaError
from svetlana_jupyter.project.project import Project
from tests.project.conftest import CLASSES, squares

CONTENT = b"years of work"


@pytest.fixture(scope="module")
def used_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a project that has every kind of file."""
    folder = tmp_path_factory.mktemp("links") / "cells.svetlana"
    project = Project(folder, classes=CLASSES, annotator="ann")
    project.add("inside", *squares())
    project.annotate("inside", [1, 3, 5], "dim")
    project.annotate("inside", [2, 4, 6], "bright")
    project.train(architecture="forest", trees=3, preset="default")
    project.predict()
    project.measure()
    project.replace_mask("inside", squares()[1].astype("int32") * 10)
    project.annotations.file.close()
    return folder


@pytest.fixture
def folder(used_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(used_folder, tmp_path / "cells.svetlana"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Folder of the user, outside the project, with a file that must stay as it is."""
    (tmp_path / "home" / "inside").mkdir(parents=True)
    for file in ("thesis.csv", "inside/thesis.parquet", ".profile"):
        (tmp_path / "home" / file).write_bytes(CONTENT)
    return tmp_path / "home"


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def replace_by_link(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "name",
    [
        *("project.json", "training.json", "annotations", "annotations/ann.csv", "annotations/bea.csv", "runs"),
        *("annotations/.ann.lock", "annotations/ann.torn", "sweep.jsonl", "test_set.csv"),
    ],
)
def test_a_project_whose_essential_file_is_a_link_does_not_open(folder: Path, home: Path, name: str) -> None:
    if name == "project.json":
        shutil.copy(folder / name, home / "project.json")
    target = home / Path(name).name if (home / Path(name).name).exists() else home
    replace_by_link(folder / name, target if not Path(name).suffix else home / "thesis.csv")
    before = content_of(home)
    with pytest.raises(ProjectError, match=rf"{name} is a link\. Links inside a project folder are not followed"):
        Project(folder, annotator="ann")
    assert content_of(home) == before


@pytest.mark.parametrize(
    "names",
    [
        ("objects", "predictions", "measurements", "cache", "runs/0001", "arrays/inside/image.zarr", "arrays/new"),
        (
            "objects/inside.parquet",
            "measurements/inside",
            "runs/0001/predictions",
            "runs/0001/classifier.json",
            "arrays",
        ),
        (".project.lock", "runs/0001/weights.safetensors", "arrays/inside/mask.1.zarr/c", "runs/.run.01234567"),
        ("measurements/inside/.measurements.lock", "runs/0001/run.json", "runs/0001/predictions/inside.parquet"),
    ],
)
def test_other_links_are_named_and_nothing_outside_changes(folder: Path, home: Path, names: tuple[str, ...]) -> None:
    for name in names:
        replace_by_link(folder / name, home / "thesis.csv" if Path(name).suffix else home)
    before = content_of(home)
    project = Project(folder, annotator="ann")
    assert f"not followed and count as missing ({len(names)}): " in project.trouble
    image, mask = squares(seed=2)
    for use in (
        lambda: project.add("new", image, mask),
        lambda: project.replace_mask("inside", mask * 3),
        lambda: project.annotate("inside", 10, "dim"),
        lambda: project.train(architecture="forest", trees=3, preset="default"),
        project.predict,
        project.measure,
        lambda: project.classes.add("third"),
        project.evaluate,
        project.save_zip,
    ):
        with suppress(SvetlanaError):
            use()
    assert content_of(home) == before


def test_a_link_in_stored_pixels_counts_as_a_missing_image(folder: Path, home: Path) -> None:
    stored = folder / "arrays" / "inside" / "image.zarr"
    shutil.copytree(stored, home / "secret.zarr")
    replace_by_link(stored, home / "secret.zarr")
    project = Project(folder, annotator="ann")
    assert project.images.missing() == [stored]
    with pytest.raises(InputError, match=r"image\.zarr is a link, and links inside a project folder are not followed"):
        project.pair("inside")


def test_links_in_place_of_caches_count_as_missing(folder: Path, home: Path) -> None:
    project = Project(folder, annotator="ann")
    expected = project.objects("inside")
    project.annotations.file.close()
    shutil.copy(folder / "objects" / "inside.parquet", home / "objects.parquet")
    replace_by_link(folder / "objects" / "inside.parquet", home / "objects.parquet")
    project = Project(folder, annotator="ann")
    assert not project.images.is_indexed("inside")
    assert project.objects("inside").equals(expected)


def test_the_project_folder_itself_may_be_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shortcut").symlink_to(folder)
    project = Project(tmp_path / "shortcut", annotator="ann")
    assert project.path == tmp_path / "shortcut"
    assert project.trouble == ""
    project.add("new", *squares(seed=2))
    project.annotate("new", 1, "dim")
    project.annotations.file.close()
    again = Project(folder, annotator="ann")
    assert again.labels().loc[("new", 1), "class"] == "dim"
    assert (again.pair("new").image == squares(seed=2)[0]).all()


@pytest.mark.parametrize(("name", "formats"), [("class_masks", ["masks"]), ("objects.csv", ["csv"])])
def test_links_in_an_export_folder_are_refused(folder: Path, home: Path, name: str, formats: list[str]) -> None:
    project = Project(folder, annotator="ann")
    results = folder.parent / "results"
    files = project.export(results, formats)
    place = next(path for path in (files[0], *files[0].parents) if path.parent == results)
    replace_by_link(place, home / "thesis.csv" if place.suffix else home)
    before = content_of(home)
    with pytest.raises(ProjectError, match=f"{place.name} is a link, so nothing was written"):
        project.export(results, formats)
    assert content_of(home) == before


def test_a_named_pipe_in_place_of_a_file_is_refused_at_once(folder: Path) -> None:
    (folder / "annotations" / "ann.csv").unlink()
    os.mkfifo(folder / "annotations" / "ann.csv")
    with pytest.raises(ProjectError, match="a named pipe or device, not a file"):
        Project(folder, annotator="ann")
