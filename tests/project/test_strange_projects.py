"""Projects of strangers and damaged projects: what is read is checked, and the rest stays usable."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from svetlana_jupyter.errors import ProjectError, SettingsError, SvetlanaError
from svetlana_jupyter.project import zip_archive
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.project_document import check_document
from tests.project.conftest import CLASSES, squares

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def used_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strange") / "cells.svetlana"
    project = Project(folder, classes=CLASSES, annotator="bea")
    project.add("one", *squares())
    project.annotate("one", [1, 2], "dim")
    project.annotations.file.close()
    project = Project(folder, annotator="ann")
    project.annotate("one", [1, 3, 5], "dim")
    project.annotate("one", [2, 4, 6], "bright")
    project.settings = project.settings.changed(preset="default", trees=3)
    project.train(architecture="forest")
    project.predict()
    project.measure(groups=("shape",))
    project.annotations.file.close()
    return folder


@pytest.fixture
def folder(used_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(used_folder, tmp_path / "cells.svetlana"))


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    *above, key, value = path

    def change(document: dict[str, Any]) -> None:
        for step in above:
            document = document[step]
        document[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("classes", 0, "color", "<img src=x onerror=alert(1)>"), r"classes\.0\.color is '<img"),
        (_set("classes", 0, "color", "red"), r"classes\.0\.color is 'red'"),
        (_set("classes", 0, "name", 7), r"classes\.0\.name is 7"),
        (_set("classes", 0, "name", "x" * 1001), r"classes\.0\.name is 'xxx"),
        (_set("classes", 1, "name", "dim"), "2 classes have the name 'dim'"),
        (_set("classes", 1, "id", 1), "2 classes have the id 1"),
        (_set("classes", 0, "id", True), r"classes\.0\.id is True"),
        (_set("classes", 0, "into", 1), "class 1 was merged into class 1"),
        (_set("classes", 0, "into", 9), "class 1 was merged into class 9"),
        (_set("classes", {}), "classes is {}"),
        (_set("images", "one", "shape", [0, 5]), r"images\.one\.shape\.0 is 0"),
        (_set("images", "one", "spacing", [1e300, 1.0]), r"images\.one\.spacing\.0 is 1e\+300"),
        (_set("images", "one", "mask", None), r"images\.one\.mask is None"),
        (_set("images", "one", "image", ["a", 5]), r"images\.one\.image"),
        (_set("images", "a\nb", {"image": "a"}), r"images\.a"),
        (_set("images", []), r"images is \[\]"),
        (_set("format", "1"), "it states the format '1', not a number"),
        (_set("current_run", 4), "current_run is 4"),
    ],
)
def test_an_invalid_text_or_number_in_the_document_is_named(folder: Path, change: Any, message: str) -> None:
    file = folder / "project.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises(ProjectError, match=rf"project\.json .*{message}"):
        Project(folder, annotator="ann")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"format": 1' + b"0" * 5000 + b"}", "digits"),
        (b'{"format": NaN}', "NaN is not a number"),
        (b'{"format": 1, "format": 2}', "two values for 'format'"),
        (b'{"format": \xff}', "line 1 is not UTF-8 text"),
        (b"", "cannot be read"),
        (b"\0" * 50, "cannot be read"),
    ],
)
def test_a_document_that_is_no_json_is_refused(folder: Path, content: bytes, reason: str) -> None:
    (folder / "project.json").write_bytes(content)
    with pytest.raises(ProjectError, match=rf"project\.json cannot be read .*{reason}|project\.json {reason}"):
        Project(folder, annotator="ann")
    (folder / "project.json").write_bytes(b'{"format": 3, "classes": [], "images": {}}')
    (folder / "training.json").write_bytes(content)
    project = Project(folder, annotator="ann")
    with pytest.raises(SettingsError, match=r"training\.json"):
        _ = project.settings


def test_documents_of_earlier_versions_and_with_new_fields_are_accepted() -> None:
    check_document({"format": 1, "classes": [], "images": {}, "later": {"a": [1]}})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2026-99-01,label,9,one,1,1,,1,1,,script,", r"Line 3 of .*bea\.csv is not an annotation"),
        ("2026-01-01,label,9,one,1,1,,nan,1,,script,", "nan is not a finite number"),
        ("2026-01-01,label,9,one,-4,1,,1,1,,script,", "-4 is out of range"),
        ("2026-01-01,label,9,one,1,0,,1,1,,script,", "0 is out of range"),
        ("2026-01-01,label,9,one,1,7,,1,1,,script,", r"Line 3 of .*bea\.csv is about class 7"),
        (f"2026-01-01,label,9,{'x' * 200_000},1,1,,1,1,,script,", "line 3 is not CSV .field larger"),
    ],
)
def test_a_bad_line_of_another_log_is_named_before_training_and_the_rest_is_usable(folder, row, message):
    file = folder / "annotations" / "bea.csv"
    header, *_ = file.read_text().splitlines()
    file.write_text(f"{header}\n2026-01-01,label,1,one,1,1,,1,1,,script,\n{row}\n")
    project = Project(folder, annotator="ann")
    assert pd.Series([project.trouble]).str.contains(message)[0], project.trouble
    with pytest.raises(ProjectError, match=message):
        project.train(architecture="forest")
    project.annotate("one", 7, "dim")
    assert project.labels().loc[("one", 7), "class"] == "dim"
    assert len(project.predictions()) == 12


def test_an_annotation_of_an_unknown_image_is_named_and_ignored(folder: Path) -> None:
    with (folder / "annotations" / "bea.csv").open("a") as file:
        file.write("2026-01-01,label,9,gone,1,1,,1,1,,script,\n")
    project = Project(folder, annotator="ann")
    assert "bea.csv is about image 'gone', which the project does not have" in project.trouble
    assert project.train(architecture="forest", exclude_border=True).labels == {"dim": 3, "bright": 2}


def test_an_own_log_that_is_no_text_is_refused(folder: Path) -> None:
    with (folder / "annotations" / "ann.csv").open("ab") as file:
        file.write(b"\xff\xfe\n")
    with pytest.raises(ProjectError, match=r"ann\.csv cannot be read as annotations: line 8 is not UTF-8 text"):
        Project(folder, annotator="ann")
    assert Project(folder, annotator="cleo").labels().loc[("one", 1), "class"] == "dim"


@pytest.mark.parametrize(
    "name", ["objects/one.parquet", "measurements/one/shape.parquet", "runs/0001/predictions/one.parquet"]
)
@pytest.mark.parametrize("content", [b"", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_damaged_cache_is_computed_again(folder: Path, name: str, content: bytes) -> None:
    expected = Project(folder, annotator="cleo").predictions()
    (folder / name).write_bytes(content)
    project = Project(folder, annotator="ann")
    if "predictions" in name:
        assert project.predictions()["predicted"].isna().all()
    project.predict()
    project.measure(groups=("shape",))
    pd.testing.assert_frame_equal(project.predictions(), expected)
    assert len(pd.read_parquet(folder / name)) == 12


def test_an_object_table_of_impossible_boxes_is_computed_again(folder: Path) -> None:
    file = folder / "objects" / "one.parquet"
    table = pd.read_parquet(file)
    table.assign(y1=10**6).to_parquet(file)
    pd.testing.assert_frame_equal(Project(folder, annotator="ann").objects("one"), table)


def test_a_damaged_run_is_named_and_left_out(folder: Path) -> None:
    file = folder / "runs" / "0001" / "run.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "seconds": "<b>"}))
    project = Project(folder, annotator="ann")
    assert "0001 cannot be read (seconds is '<b>'" in project.trouble
    assert len(project.runs) == 0
    assert project.train(architecture="forest").name == "0002"


def test_a_project_that_vanished_is_not_created_again_and_its_backup_is_kept(folder: Path) -> None:
    project = Project(folder, annotator="ann")
    backup = project.save_zip()
    before = backup.read_bytes()
    folder.rename(folder.with_name("moved"))
    image, mask = squares(seed=2)
    for use in (
        project.save_zip,
        lambda: project.add("new", image, mask),
        lambda: project.replace_mask("one", mask),
        lambda: project.annotate("one", 7, "dim"),
        lambda: project.train(architecture="forest"),
        project.predict,
    ):
        with pytest.raises(SvetlanaError, match=r"missing|does not exist"):
            use()
    with pytest.raises(SvetlanaError):
        project.measure(groups=("intensity",))
    assert not folder.exists()
    assert backup.read_bytes() == before


def test_a_backup_that_reads_back_damaged_does_not_replace_a_good_one(folder: Path, monkeypatch) -> None:
    project = Project(folder, annotator="ann")
    before = project.save_zip().read_bytes()
    monkeypatch.setattr(zip_archive.zipfile.ZipFile, "testzip", lambda self: "cells.svetlana/project.json")
    with pytest.raises(ProjectError, match=r"project\.json was not written correctly"):
        project.save_zip()
    assert folder.with_name("cells.svetlana.zip").read_bytes() == before


def test_a_zip_file_with_too_many_files_or_too_long_files_is_refused(folder: Path, tmp_path: Path, monkeypatch) -> None:
    file = Project(folder, annotator="ann").save_zip()
    monkeypatch.setattr(zip_archive, "MAX_MEMBERS", 3)
    with pytest.raises(ProjectError, match="files, more than 3"):
        Project.from_zip(file, tmp_path / "copy")
    with pytest.raises(ProjectError, match="but a zip file may have 3"):
        Project(folder, annotator="ann").save_zip()
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644], ids=["link", "pipe", "device"])
def test_a_zip_file_with_a_link_or_device_is_refused(folder: Path, tmp_path: Path, mode: int) -> None:
    file = Project(folder, annotator="ann").save_zip()
    with zipfile.ZipFile(file, "a") as archive:
        entry = zipfile.ZipInfo("cells.svetlana/objects")
        entry.external_attr = mode << 16
        archive.writestr(entry, "/etc")
    with pytest.raises(ProjectError, match=r"unsafe path 'cells\.svetlana/objects', so nothing was extracted"):
        Project.from_zip(file, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
