"""Annotation file: every acknowledged edit is on disk, whatever fails afterwards."""

from __future__ import annotations

import gc
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svetlana_jupyter.core.annotations import AnnotationEvent, Label, VersionedObjectId
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.annotation_file import AnnotationFile, open_annotation_file, read_entries, read_other_logs

if TYPE_CHECKING:
    from pathlib import Path

TIME = "2026-01-01T09:00:00.000Z"


def label_entry(label: int, edit: int = 1, class_id: int = 1, image: str = "well") -> AnnotationEvent:
    return AnnotationEvent(TIME, "label", edit, image, label, class_id, (1.5, 2.25), (0, 1, 4, 5), "panel", 0.5)


def raise_disk_full(handle: int) -> None:
    raise OSError(28, "No space left on device")


def test_written_entries_are_read_back_unchanged(tmp_path: Path) -> None:
    annotation_file = open_annotation_file(tmp_path, "ann")
    rows = [label_entry(1), label_entry(2), AnnotationEvent(TIME, "undo", 1)]
    annotation_file.append(rows)
    assert read_entries(annotation_file.file) == rows


@given(image=st.text(st.characters(exclude_categories=("C",)), min_size=1))
def test_any_printable_image_name_is_read_back_unchanged(tmp_path_factory: pytest.TempPathFactory, image: str) -> None:
    annotation_file = AnnotationFile(tmp_path_factory.mktemp("names") / "ann.csv", writable=True)
    annotation_file.append([label_entry(1, image=image)])
    annotation_file.close()
    assert read_entries(annotation_file.file) == [label_entry(1, image=image)]


def test_every_append_is_on_disk_at_once(tmp_path: Path) -> None:
    annotation_file = open_annotation_file(tmp_path, "ann")
    for number in range(1, 6):
        annotation_file.append([label_entry(number, edit=number)])
        assert len(read_entries(annotation_file.file)) == number


def test_a_kernel_shares_one_annotation_file(tmp_path: Path) -> None:
    assert open_annotation_file(tmp_path, "ann") is open_annotation_file(tmp_path, "ann")


def test_an_unreferenced_file_is_closed_and_can_be_opened_again(tmp_path: Path) -> None:
    open_annotation_file(tmp_path, "ann").append([label_entry(1)])
    gc.collect()
    reopened = AnnotationFile(tmp_path / "ann.csv", writable=True)
    assert reopened.has_open_file()
    assert len(reopened.log.events) == 1


def test_a_second_kernel_is_read_only_and_reports_why(tmp_path: Path) -> None:
    annotation_file = open_annotation_file(tmp_path, "ann")
    annotation_file.append([label_entry(1)])
    other = AnnotationFile(annotation_file.file, writable=True)
    assert not other.has_open_file()
    assert "Another notebook is annotating as 'ann'" in other.trouble
    assert other.log.label_of(VersionedObjectId("well", 1)) == Label("label", 1)
    with pytest.raises(ProjectError, match="Another notebook"):
        other.append([label_entry(2)])
    assert len(read_entries(annotation_file.file)) == 1


def test_a_torn_last_line_is_moved_and_reported(tmp_path: Path) -> None:
    annotation_file = AnnotationFile(tmp_path / "ann.csv", writable=True)
    annotation_file.append([label_entry(1), label_entry(2)])
    annotation_file.close()
    os.truncate(annotation_file.file, annotation_file.file.stat().st_size - 7)
    reopened = AnnotationFile(annotation_file.file, writable=True)
    assert [entry.label for entry in reopened.log.events] == [1]
    assert "was incomplete" in reopened.trouble
    assert b"label" in (tmp_path / "ann.torn").read_bytes()
    reopened.append([label_entry(3, edit=2)])
    assert [entry.label for entry in read_entries(annotation_file.file)] == [1, 3]


def test_annotating_a_deleted_file_raises_an_error(tmp_path: Path) -> None:
    annotation_file = open_annotation_file(tmp_path, "ann")
    annotation_file.file.unlink()
    with pytest.raises(ProjectError, match="the file is missing"):
        annotation_file.append([label_entry(1)])
    assert not annotation_file.log.events
    assert open_annotation_file(tmp_path, "ann").has_open_file()


def test_a_lost_file_is_restored_with_all_annotations(tmp_path: Path) -> None:
    annotation_file = open_annotation_file(tmp_path, "ann")
    annotation_file.append([label_entry(1)])
    before = annotation_file.file.read_bytes()
    annotation_file.file.unlink()
    annotation_file.ensure_writable()
    assert annotation_file.file.read_bytes() == before
    annotation_file.append([label_entry(2, edit=2)])
    assert [entry.label for entry in read_entries(annotation_file.file)] == [1, 2]


def test_a_missing_folder_raises_an_error_until_it_is_restored(tmp_path: Path) -> None:
    folder = tmp_path / "project" / "annotations"
    folder.mkdir(parents=True)
    annotation_file = open_annotation_file(folder, "ann")
    annotation_file.append([label_entry(1)])
    shutil.copytree(tmp_path / "project", tmp_path / "backup")
    shutil.rmtree(tmp_path / "project")
    with pytest.raises(ProjectError, match="restore the folder"):
        annotation_file.ensure_writable()
    shutil.move(tmp_path / "backup", tmp_path / "project")
    annotation_file.ensure_writable()
    annotation_file.append([label_entry(2, edit=2)])
    assert [entry.label for entry in read_entries(annotation_file.file)] == [1, 2]


def test_a_file_restored_with_other_annotations_is_not_overwritten(tmp_path: Path) -> None:
    annotation_file = open_annotation_file(tmp_path, "ann")
    annotation_file.append([label_entry(1)])
    text = annotation_file.file.read_text()
    annotation_file.file.unlink()
    annotation_file.file.write_text(text.replace("well,1,", "well,5,"))
    with pytest.raises(ProjectError, match="was changed by another program"):
        annotation_file.ensure_writable()
    assert [entry.label for entry in read_entries(annotation_file.file)] == [5]
    assert len(annotation_file.log.events) == 1


def test_entries_of_another_kernel_are_read_after_it_closes_the_file(tmp_path: Path) -> None:
    annotation_file = open_annotation_file(tmp_path, "ann")
    other = AnnotationFile(annotation_file.file, writable=True)
    annotation_file.append([label_entry(1)])
    with pytest.raises(ProjectError, match="Another notebook"):
        other.ensure_writable()
    annotation_file.close()
    other.ensure_writable()
    other.append([label_entry(2, edit=other.log.next_edit)])
    assert [(entry.edit, entry.label) for entry in read_entries(annotation_file.file)] == [(1, 1), (2, 2)]
    assert other.trouble == ""


def test_rows_contain_the_mask_version(tmp_path: Path) -> None:
    annotation_file = open_annotation_file(tmp_path, "ann")
    rows = [
        label_entry(1),
        replace(label_entry(2, 2), mask=1),
        replace(label_entry(3, 2), mask=1),
        label_entry(1, 3, image="b"),
    ]
    annotation_file.append(rows[:2])
    annotation_file.append(rows[2:])
    assert read_entries(annotation_file.file) == rows
    assert sum(",mask,0,well,1," in line for line in annotation_file.file.read_text().splitlines()) == 1


def test_a_disk_full_at_opening_accepts_annotations_once_space_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", raise_disk_full)
        annotation_file = AnnotationFile(tmp_path / "ann.csv", writable=True)
        assert "No space left on device" in annotation_file.trouble
        assert not annotation_file.has_open_file()
    annotation_file.ensure_writable()
    annotation_file.append([label_entry(1)])
    assert annotation_file.trouble == ""
    assert read_entries(annotation_file.file) == [label_entry(1)]


def test_a_full_disk_leaves_file_and_log_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotation_file = open_annotation_file(tmp_path, "ann")
    annotation_file.append([label_entry(1)])
    before = annotation_file.file.read_bytes()

    monkeypatch.setattr(os, "fsync", raise_disk_full)
    with pytest.raises(ProjectError, match="No space left on device"):
        annotation_file.append([label_entry(2, edit=2)])
    monkeypatch.undo()
    assert annotation_file.file.read_bytes() == before
    assert len(annotation_file.log.events) == 1
    annotation_file.append([label_entry(3, edit=2)])
    assert [entry.label for entry in read_entries(annotation_file.file)] == [1, 3]


def test_the_error_names_an_invalid_line(tmp_path: Path) -> None:
    file = tmp_path / "ann.csv"
    open_annotation_file(tmp_path, "ann").append([label_entry(1)])
    file.write_text(file.read_text() + "2026,dance,1,well,2,1,,,,,,\n")
    with pytest.raises(ProjectError, match=r"Line 3 of .*'dance'"):
        read_entries(file)


@pytest.mark.parametrize("name", ["", "../ann", "a/b", ".hidden"])
def test_an_annotator_name_cannot_escape_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProjectError, match="Annotator name"):
        open_annotation_file(tmp_path, name)


def test_logs_of_all_other_annotators_are_read(tmp_path: Path) -> None:
    open_annotation_file(tmp_path, "bo").append([label_entry(1)])
    ann = open_annotation_file(tmp_path, "ann")
    logs, problem = read_other_logs(tmp_path, excluding_file=ann.file)
    assert {annotator: len(log.events) for annotator, log in logs.items()} == {"bo": 1}
    assert problem == ""
