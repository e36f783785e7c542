"""Exports go to a separate folder, never to the inputs; foreign files are not replaced, and every file is complete."""

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


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("place", ["data/in 0", "data/cells.svetlana", "data/cells.svetlana/runs/new", "link"])
def test_folders_of_inputs_and_project_are_refused_before_any_work(
    predicted: Project, tmp_path: Path, place: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data/in 1", target_is_directory=True)
    before = all_files(tmp_path)
    with pytest.raises(ProjectError, match="different folder"):
        predicted.export(tmp_path / place, list(FORMATS))
    assert all_files(tmp_path) == before


def test_an_export_into_a_zarr_folder_is_refused(volume: Project, tmp_path: Path) -> None:
    inside = tmp_path / "other.zarr" / "results"
    inside.mkdir(parents=True)
    (tmp_path / "other.zarr" / "zarr.json").touch()
    with pytest.raises(ProjectError, match="different folder"):
        volume.export(inside)
    assert not any(inside.iterdir())


def test_a_foreign_file_is_not_replaced(predicted: Project, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "objects.csv").write_text("mine")
    with pytest.raises(ProjectError, match=r"objects\.csv exists already"):
        predicted.export(tmp_path / "results", ["csv"])
    assert all_files(tmp_path / "results") == {"objects.csv": b"mine"}


def test_an_export_replaces_an_earlier_one_and_records_its_source(predicted: Project, tmp_path: Path) -> None:
    predicted.export(tmp_path / "results", list(FORMATS))
    before = set(all_files(tmp_path / "results"))
    predicted.annotate(NAMES[0], 1, "=bright <b>")
    predicted.export(tmp_path / "results", list(FORMATS))
    after = set(all_files(tmp_path / "results"))
    assert {name for name in after ^ before if not name.startswith("patches/")} == set()
    moved = sorted(name.split("/")[1] for name in after ^ before)
    assert moved == ["%3Dbright %3Cb%3E", "dim"], "the patch is in the folder of its new class alone"
    about = json.loads((tmp_path / "results" / "export.json").read_text("utf-8"))
    assert about["project"] == "cells.svetlana"
    assert {entry["run"] for entry in about["files"].values()} == {predicted.current_run}
    assert [(entry["code"], entry["name"]) for entry in about["classes"]] == [(1, "dim"), (2, "=bright <b>")]
    assert set(about["images"]) == set(NAMES)
    assert "objects.csv" in about["files"]


def test_an_unchanged_file_keeps_its_recorded_run(predicted: Project, tmp_path: Path) -> None:
    predicted.export(tmp_path / "results", ["csv", "parquet"])
    first = predicted.current_run
    predicted.train(architecture="forest", trees=5)
    predicted.export(tmp_path / "results", ["csv"])
    about = json.loads((tmp_path / "results" / "export.json").read_text("utf-8"))["files"]
    assert about["objects.parquet"]["run"] == first != about["objects.csv"]["run"] == predicted.current_run


def test_an_unknown_format_is_refused_before_any_work(predicted: Project, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Unknown export format 'docx'\. Choose among csv, "):
        predicted.export(tmp_path / "results", ["csv", "docx"])
    with pytest.raises(InputError, match="none given"):
        predicted.export(tmp_path / "results", [])
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_full_disk_leaves_no_partial_files(
    predicted: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def raise_disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", raise_disk_full)
        with pytest.raises(ProjectError, match=r"No space left on device.*Free some space"):
            predicted.export(tmp_path / "results", [name])
    assert not (tmp_path / "results").exists()
    assert predicted.export(tmp_path / "results", [name])


def test_an_error_code_in_a_library_message_is_recognized() -> None:
    hidden = OSError(
        "Unable to write (file write failed: errno = 28, error message = 'No space left on device',\nbuf = 0)"
    )
    assert _reason(hidden) == os.strerror(28)
    assert _reason(OSError(13, "Permission denied")) == "Permission denied"
    assert _reason(OSError("odd\nand long")) == "odd"


def test_file_names_are_safe_and_unique() -> None:
    names = ["a", "A", "e\u0301", "\u00e9", "x/../y", "CON", "aux.tif", "..", "ä" * 200, "ä" * 201]
    file_names = unique_file_names(names)
    assert len({name.casefold() for name in file_names.values()}) == len(names)
    assert all(len(name.encode()) < 200 and not set(name) & set('/\\:*?"<>|') for name in file_names.values())
    assert not {name.split(".")[0].casefold() for name in file_names.values()} & {"con", "aux", ""}
