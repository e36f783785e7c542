"""Storage of a project as a folder and as a zip file.

A zip file restores the whole project, never writes outside of its folder, and files are replaced atomically.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project import zip_archive as archive
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.storage import ProjectFolder, atomic_write, file_name
from tests.project.conftest import squares
from tests.project.test_project import bytes_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def used_project(project: Project) -> Project:
    """Project with a stored image, annotations, a replaced mask, a merged class and predictions."""
    project.add("inside", *squares(seed=9))
    project.annotate("inside", range(1, 7, 2), "dim")
    project.annotate("inside", range(2, 8, 2), "bright")
    project.replace_mask("inside", squares()[1].astype(np.int32) * 10)
    project.classes.add("dull")
    project.annotate("P1_A1", 3, "dull")
    project.classes.merge("dull", "dim")
    project.train(architecture="forest")
    project.predict(["inside"])
    return project


def test_a_zip_file_restores_everything(used_project: Project, tmp_path: Path) -> None:
    file = used_project.save_zip()
    assert file == used_project.path.with_name("cells.svetlana.zip")
    assert not (used_project.path / "cells.svetlana.zip").exists()
    restored = Project.from_zip(file, tmp_path / "elsewhere" / "deep" / "copy.svetlana", annotator="ann")
    assert restored.trouble == ""
    pd.testing.assert_frame_equal(restored.labels(), used_project.labels())
    pd.testing.assert_frame_equal(restored.annotations.table(), used_project.annotations.table())
    pd.testing.assert_frame_equal(restored.predictions(["inside"]), used_project.predictions(["inside"]))
    assert restored.classes == used_project.classes
    assert restored.settings == used_project.settings
    assert list(restored.runs) == list(used_project.runs)
    assert restored.undo()
    assert used_project.labels().shape != restored.labels().shape
    np.testing.assert_array_equal(restored.pair("P1_A1").image, used_project.pair("P1_A1").image)
    np.testing.assert_array_equal(restored.pair("inside").mask, used_project.pair("inside").mask)


def test_locks_drafts_and_caches_are_not_zipped(used_project: Project) -> None:
    (used_project.path / "cache").mkdir(exist_ok=True)
    (used_project.path / "cache" / "large").write_bytes(b"1")
    (used_project.path / ".project.json.0123abcd").write_bytes(b"{")
    (used_project.path / "link").symlink_to("/etc/hostname")
    with zipfile.ZipFile(used_project.save_zip()) as packed:
        names = packed.namelist()
    assert not [name for name in names if "cache" in name or ".lock" in name or "0123abcd" in name or "link" in name]
    assert "cells.svetlana/annotations/ann.csv" in names
    assert "cells.svetlana/masks/inside.1.csv" in names


def test_arrays_can_be_omitted(used_project: Project, tmp_path: Path) -> None:
    file = used_project.save_zip(tmp_path / "small.zip", arrays=False)
    restored = Project.from_zip(file, tmp_path / "small")
    assert len(restored.labels()) == len(used_project.labels())
    assert "2 image files are missing" in restored.trouble


def test_a_zip_is_unpacked_next_to_the_file_and_overwrites_nothing(used_project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    file = used_project.save_zip(folder)
    assert Project.from_zip(file, annotator="bo").path == folder / "cells.svetlana"
    before = bytes_of(folder / "cells.svetlana")
    with pytest.raises(ProjectError, match=r"exists already\. Open it with"):
        Project.from_zip(file)
    assert bytes_of(folder / "cells.svetlana") == before


def test_a_manually_zipped_folder_can_be_opened(used_project: Project, tmp_path: Path) -> None:
    whole = shutil.make_archive(str(tmp_path / "flat"), "zip", used_project.path)
    assert len(Project.from_zip(whole, tmp_path / "flat", annotator="bo").labels()) == len(used_project.labels())


def write_zip(file: Path, name: str, mode: int = 0) -> Path:
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("p/project.json", '{"format": 3, "classes": [], "images": {}}')
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        packed.writestr(member, "/etc")
    return file


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../evil", 0),
        ("p/../../evil", 0),
        ("/evil", 0),
        ("p\\..\\..\\evil", 0),
        ("C:\\evil", 0),
        ("C:evil", 0),
        ("p/annotations", stat.S_IFLNK | 0o777),
    ],
)
def test_paths_that_escape_the_folder_are_refused(tmp_path: Path, name, mode) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    file = write_zip(inside / "evil.zip", name, mode)
    with pytest.raises(ProjectError, match="contains the unsafe path"):
        Project.from_zip(file)
    assert [path.name for path in tmp_path.rglob("*")] == ["inside", "evil.zip"]


@pytest.mark.parametrize("content", [b"no zip", b""])
def test_a_zip_without_a_project_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ProjectError, match="cannot be extracted"):
        Project.from_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as packed:
        packed.writestr("readme.txt", "hello")
    with pytest.raises(ProjectError, match="projects instead of one"):
        Project.from_zip(tmp_path / "b.zip")
    with pytest.raises(ProjectError, match=r"nowhere\.zip cannot be extracted"):
        Project.from_zip(tmp_path / "nowhere.zip")


def test_a_torn_zip_leaves_no_files(used_project: Project, tmp_path: Path) -> None:
    content = bytearray(used_project.save_zip().read_bytes())
    at = content.index(b"cells.svetlana/annotations/ann.csv") + 60
    content[at : at + 20] = bytes(20)
    (tmp_path / "torn.zip").write_bytes(content)
    with pytest.raises(ProjectError, match="cannot be extracted"):
        Project.from_zip(tmp_path / "torn.zip", tmp_path / "torn")
    assert not [path for path in tmp_path.iterdir() if "torn" in path.name and path.suffix != ".zip"]


def test_a_full_disk_keeps_the_earlier_zip(used_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    file = used_project.save_zip()
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.zipfile.ZipFile, "write", full)
    with pytest.raises(ProjectError, match="No space left on device"):
        used_project.save_zip()
    assert file.read_bytes() == before
    assert not [path for path in file.parent.iterdir() if path.name.startswith(".cells")]


def test_a_zip_larger_than_the_free_space_is_refused(
    used_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = used_project.save_zip()
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(ProjectError, match=r"more than 90% of the 0\.0 GB that is free in"):
        Project.from_zip(file, tmp_path / "copy")


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only for this process; root ignores file modes, so it runs as user `nobody` meanwhile."""
    folder.chmod(0o555)
    above = [
        parent
        for parent in folder.parents
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001
    ]
    for parent in above:
        parent.chmod(parent.stat().st_mode | 0o055)
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65534)
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_new_folder_becomes_a_project(tmp_path: Path) -> None:
    store = ProjectFolder(tmp_path / "new" / "cells.svetlana")
    assert json.loads(store.document_file.read_text()) == {"format": 3, "classes": [], "images": {}}


def test_another_folder_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ProjectError, match=r"contains no project\.json. Choose another folder"):
        ProjectFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_newer_format_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    document = '{"format": 99, "news": true}'
    (tmp_path / "project.json").write_text(document)
    with pytest.raises(ProjectError, match=r"newer version .* pip install -U"):
        ProjectFolder(tmp_path)
    assert (tmp_path / "project.json").read_text() == document


def test_the_error_names_a_broken_document(tmp_path: Path) -> None:
    (tmp_path / "project.json").write_text('{"format": 1, ')
    with pytest.raises(ProjectError, match=r"project\.json"):
        ProjectFolder(tmp_path)


def test_a_new_project_in_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    with read_only(folder), pytest.raises(ProjectError, match="cannot be created"):
        ProjectFolder(folder / "cells.svetlana")
    assert list(folder.iterdir()) == []


def test_a_read_only_project_opens_and_refuses_to_save(tmp_path: Path) -> None:
    folder = tmp_path / "cells.svetlana"
    ProjectFolder(folder)
    with read_only(folder):
        store = ProjectFolder(folder)
        assert not store.writable
        with pytest.raises(ProjectError, match="read-only"), store.edit_document():
            pass
        with pytest.raises(ProjectError, match="read-only"):
            store.write_text(store.settings_file, "{}")


def test_an_error_while_editing_changes_nothing(tmp_path: Path) -> None:
    store = ProjectFolder(tmp_path / "p.svetlana")
    before = store.document_file.read_bytes()
    with pytest.raises(RuntimeError), store.edit_document() as document:
        document["classes"] = ["half"]
        raise RuntimeError
    assert store.document_file.read_bytes() == before


def test_a_file_is_replaced_atomically(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(file) as beside:
        beside.write_text("half of the n")
        raise RuntimeError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_paths_near_the_project_are_relative_and_others_absolute(tmp_path: Path) -> None:
    store = ProjectFolder(tmp_path / "lab" / "p.svetlana")
    beside, far = tmp_path / "lab" / "wells" / "a.tif", tmp_path / "elsewhere" / "a.tif"
    assert store.relative(beside) == "../wells/a.tif"
    assert store.absolute("../wells/a.tif") == beside
    assert store.absolute(store.relative(far)) == far
    assert Path(store.relative(far)).is_absolute()


@pytest.mark.parametrize("name", ["a/b", "..", "P1_B2", "Zelle 7 µm", "a%2Fb", "con?", "."])
def test_any_image_name_gets_a_unique_file_name(name: str) -> None:
    written = file_name(name)
    assert "/" not in written
    assert written not in (".", "..")
    assert "?" not in written
    assert file_name(name + "x") != written
