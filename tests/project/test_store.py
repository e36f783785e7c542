"""The project folder: refused in a sentence where it cannot be used, and never half written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.store import ProjectFolder, atomic_write, file_name


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the right to write from this process; the superuser, whom no mode stops, becomes nobody meanwhile."""
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
    assert json.loads(store.document_file.read_text()) == {"format": 1, "classes": [], "images": {}}


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ProjectError, match=r"holds no project\.json; choose another folder"):
        ProjectFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    document = '{"format": 99, "news": true}'
    (tmp_path / "project.json").write_text(document)
    with pytest.raises(ProjectError, match=r"newer version .* pip install -U"):
        ProjectFolder(tmp_path)
    assert (tmp_path / "project.json").read_text() == document


def test_a_broken_document_is_named(tmp_path: Path) -> None:
    (tmp_path / "project.json").write_text('{"format": 1, ')
    with pytest.raises(ProjectError, match=r"project\.json"):
        ProjectFolder(tmp_path)


def test_a_read_only_folder_takes_no_new_project(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    with read_only(folder), pytest.raises(ProjectError, match="cannot be written to"):
        ProjectFolder(folder / "cells.svetlana")
    assert list(folder.iterdir()) == []


def test_a_read_only_project_opens_and_says_so_when_something_is_to_be_kept(tmp_path: Path) -> None:
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


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(file) as beside:
        beside.write_text("half of the n")
        raise RuntimeError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_paths_beside_the_project_are_relative_and_others_absolute(tmp_path: Path) -> None:
    store = ProjectFolder(tmp_path / "lab" / "p.svetlana")
    beside, far = tmp_path / "lab" / "wells" / "a.tif", tmp_path / "elsewhere" / "a.tif"
    assert store.relative(beside) == "../wells/a.tif" and store.absolute("../wells/a.tif") == beside
    assert store.absolute(store.relative(far)) == far and Path(store.relative(far)).is_absolute()


@pytest.mark.parametrize("name", ["a/b", "..", "P1_B2", "Zelle 7 µm", "a%2Fb", "con?", "."])
def test_any_image_name_becomes_a_file_name_of_its_own(name: str) -> None:
    written = file_name(name)
    assert "/" not in written and written not in (".", "..") and "?" not in written
    assert file_name(name + "x") != written
