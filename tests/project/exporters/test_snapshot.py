"""Exports go to a folder of their own, never to the inputs; nothing foreign is replaced, every file is whole."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.exporters import FORMATS, _reason
from svetlana_jupyter.project.exporters.output_folder import unique_file_names
from tests.project.exporters.conftest import NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("place", ["data/in 0", "data/cells.svetlana", "data/cells.svetlana/runs/new", "link"])
def test_folders_of_inputs_and_project_are_refused_before_anything_is_written(
    predicted: Project, tmp_path: Path, place: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data/in 1", target_is_directory=True)
    before = everything(tmp_path)
    with pytest.raises(ProjectError, match="folder of its own"):
        predicted.export(tmp_path / place, list(FORMATS))
    assert everything(tmp_path) == before


def test_a_zarr_is_no_place_for_an_export(volume: Project, tmp_path: Path) -> None:
    inside = tmp_path / "other.zarr" / "results"
    inside.mkdir(parents=True)
    (tmp_path / "other.zarr" / "zarr.json").touch()
    with pytest.raises(ProjectError, match="folder of its own"):
        volume.export(inside)
    assert not any(inside.iterdir())


def test_a_file_of_somebody_else_stays(predicted: Project, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "objects.csv").write_text("mine")
    with pytest.raises(ProjectError, match=r"objects\.csv exists already"):
        predicted.export(tmp_path / "results", ["csv"])
    assert everything(tmp_path / "results") == {"objects.csv": b"mine"}


def test_an_export_replaces_an_earlier_one_and_says_what_it_is_of(predicted: Project, tmp_path: Path) -> None:
    predicted.export(tmp_path / "results", list(FORMATS))
    before = set(everything(tmp_path / "results"))
    predicted.annotate(NAMES[0], 1, "=bright <b>")
    predicted.export(tmp_path / "results", list(FORMATS))
    after = set(everything(tmp_path / "results"))
    assert {name for name in after ^ before if not name.startswith("patches/")} == set()
    moved = sorted(name.split("/")[1] for name in after ^ before)
    assert moved == ["=bright %3Cb%3E", "dim"], "the patch is in the folder of its new class alone"
    about = json.loads((tmp_path / "results" / "export.json").read_text("utf-8"))
    assert about["project"] == "cells.svetlana"
    assert {one["run"] for one in about["files"].values()} == {predicted.current_run}
    assert [(one["code"], one["name"]) for one in about["classes"]] == [(1, "dim"), (2, "=bright <b>")]
    assert set(about["images"]) == set(NAMES)
    assert "objects.csv" in about["files"]


def test_a_file_that_an_export_leaves_as_it_was_keeps_its_run(predicted: Project, tmp_path: Path) -> None:
    predicted.export(tmp_path / "results", ["csv", "parquet"])
    first = predicted.current_run
    predicted.train(architecture="forest", trees=5)
    predicted.export(tmp_path / "results", ["csv"])
    about = json.loads((tmp_path / "results" / "export.json").read_text("utf-8"))["files"]
    assert about["objects.parquet"]["run"] == first != about["objects.csv"]["run"] == predicted.current_run


def test_a_format_that_is_not_known_is_refused_before_any_work(predicted: Project, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Unknown export format 'docx'\. Choose among csv, "):
        predicted.export(tmp_path / "results", ["csv", "docx"])
    with pytest.raises(InputError, match="none given"):
        predicted.export(tmp_path / "results", [])
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_full_disk_leaves_nothing_half_written(
    predicted: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_room)
        with pytest.raises(ProjectError, match=r"No space left on device.*Free some space"):
            predicted.export(tmp_path / "results", [name])
    assert not (tmp_path / "results").exists()
    assert predicted.export(tmp_path / "results", [name])


def test_a_reason_that_a_library_hides_in_its_words_is_found() -> None:
    hidden = OSError(
        "Unable to write (file write failed: errno = 28, error message = 'No space left on device',\nbuf = 0)"
    )
    assert _reason(hidden) == os.strerror(28)
    assert _reason(OSError(13, "Permission denied")) == "Permission denied"
    assert _reason(OSError("odd\nand long")) == "odd"


def test_names_of_files_are_safe_and_differ_where_letters_alone_would_not() -> None:
    names = ["a", "A", "e\u0301", "\u00e9", "x/../y", "CON", "aux.tif", "..", "ä" * 200, "ä" * 201]
    found = unique_file_names(names)
    assert len({name.casefold() for name in found.values()}) == len(names)
    assert all(len(name.encode()) < 200 and not set(name) & set('/\\:*?"<>|') for name in found.values())
    assert not {name.split(".")[0].casefold() for name in found.values()} & {"con", "aux", ""}
