"""The annotation file: what was acknowledged is on disk, whatever happens next."""

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
from svetlana_jupyter.project.annotation_file import (
    AnnotationFile,
    open_annotation_file,
    read_entries,
    read_other_logs,
)

if TYPE_CHECKING:
    from pathlib import Path

TIME = "2026-01-01T09:00:00.000Z"


def labelled(label: int, edit: int = 1, class_id: int = 1, image: str = "well") -> AnnotationEvent:
    return AnnotationEvent(TIME, "label", edit, image, label, class_id, (1.5, 2.25), (0, 1, 4, 5), "panel", 0.5)


def no_room(handle: int) -> None:
    raise OSError(28, "No space left on device")


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    book = open_annotation_file(tmp_path, "ann")
    rows = [labelled(1), labelled(2), AnnotationEvent(TIME, "undo", 1)]
    book.append(rows)
    assert read_entries(book.file) == rows


@given(image=st.text(st.characters(exclude_categories=("C",)), min_size=1))
def test_any_printable_image_name_reads_back_the_same(tmp_path_factory: pytest.TempPathFactory, image: str) -> None:
    book = AnnotationFile(tmp_path_factory.mktemp("names") / "ann.csv", writable=True)
    book.append([labelled(1, image=image)])
    book.close()
    assert read_entries(book.file) == [labelled(1, image=image)]


def test_rows_that_hold_in_memory_hold_on_disk_at_once(tmp_path: Path) -> None:
    book = open_annotation_file(tmp_path, "ann")
    for number in range(1, 6):
        book.append([labelled(number, edit=number)])
        assert len(read_entries(book.file)) == number


def test_one_kernel_shares_one_book(tmp_path: Path) -> None:
    assert open_annotation_file(tmp_path, "ann") is open_annotation_file(tmp_path, "ann")


def test_a_book_that_nobody_holds_is_closed_and_may_be_opened_again(tmp_path: Path) -> None:
    open_annotation_file(tmp_path, "ann").append([labelled(1)])
    gc.collect()
    again = AnnotationFile(tmp_path / "ann.csv", writable=True)
    assert again.writable
    assert len(again.log.events) == 1


def test_a_second_kernel_only_reads_and_says_why(tmp_path: Path) -> None:
    book = open_annotation_file(tmp_path, "ann")
    book.append([labelled(1)])
    other = AnnotationFile(book.file, writable=True)
    assert not other.writable
    assert "Another notebook is annotating as 'ann'" in other.trouble
    assert other.log.label_of(VersionedObjectId("well", 1)) == Label("label", 1)
    with pytest.raises(ProjectError, match="Another notebook"):
        other.append([labelled(2)])
    assert len(read_entries(book.file)) == 1


def test_a_torn_last_line_is_set_aside_with_a_sentence(tmp_path: Path) -> None:
    book = AnnotationFile(tmp_path / "ann.csv", writable=True)
    book.append([labelled(1), labelled(2)])
    book.close()
    os.truncate(book.file, book.file.stat().st_size - 7)
    again = AnnotationFile(book.file, writable=True)
    assert [entry.label for entry in again.log.events] == [1]
    assert "was incomplete" in again.trouble
    assert b"label" in (tmp_path / "ann.torn").read_bytes()
    again.append([labelled(3, edit=2)])
    assert [entry.label for entry in read_entries(book.file)] == [1, 3]


def test_a_deleted_file_refuses_annotations_with_a_sentence(tmp_path: Path) -> None:
    book = open_annotation_file(tmp_path, "ann")
    book.file.unlink()
    with pytest.raises(ProjectError, match="the file is missing"):
        book.append([labelled(1)])
    assert not book.log.events
    assert open_annotation_file(tmp_path, "ann").writable


def test_a_file_that_was_lost_is_written_again_with_all_that_was_said(tmp_path: Path) -> None:
    book = open_annotation_file(tmp_path, "ann")
    book.append([labelled(1)])
    before = book.file.read_bytes()
    book.file.unlink()
    book.ensure_writable()
    assert book.file.read_bytes() == before
    book.append([labelled(2, edit=2)])
    assert [entry.label for entry in read_entries(book.file)] == [1, 2]


def test_a_folder_that_is_gone_is_a_sentence_and_usable_again_when_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "project" / "annotations"
    folder.mkdir(parents=True)
    book = open_annotation_file(folder, "ann")
    book.append([labelled(1)])
    shutil.copytree(tmp_path / "project", tmp_path / "backup")
    shutil.rmtree(tmp_path / "project")
    with pytest.raises(ProjectError, match="restore the folder"):
        book.ensure_writable()
    shutil.move(tmp_path / "backup", tmp_path / "project")
    book.ensure_writable()
    book.append([labelled(2, edit=2)])
    assert [entry.label for entry in read_entries(book.file)] == [1, 2]


def test_a_file_that_came_back_with_other_annotations_is_left_alone(tmp_path: Path) -> None:
    book = open_annotation_file(tmp_path, "ann")
    book.append([labelled(1)])
    text = book.file.read_text()
    book.file.unlink()
    book.file.write_text(text.replace("well,1,", "well,5,"))
    with pytest.raises(ProjectError, match="was changed by another program"):
        book.ensure_writable()
    assert [entry.label for entry in read_entries(book.file)] == [5]
    assert len(book.log.events) == 1


def test_what_the_other_kernel_wrote_is_followed_when_it_lets_go(tmp_path: Path) -> None:
    book = open_annotation_file(tmp_path, "ann")
    other = AnnotationFile(book.file, writable=True)
    book.append([labelled(1)])
    with pytest.raises(ProjectError, match="Another notebook"):
        other.ensure_writable()
    book.close()
    other.ensure_writable()
    other.append([labelled(2, edit=other.log.next_edit)])
    assert [(entry.edit, entry.label) for entry in read_entries(book.file)] == [(1, 1), (2, 2)]
    assert other.trouble == ""


def test_rows_say_which_mask_they_speak_of(tmp_path: Path) -> None:
    book = open_annotation_file(tmp_path, "ann")
    rows = [labelled(1), replace(labelled(2, 2), mask=1), replace(labelled(3, 2), mask=1), labelled(1, 3, image="b")]
    book.append(rows[:2])
    book.append(rows[2:])
    assert read_entries(book.file) == rows
    assert sum(",mask,0,well,1," in line for line in book.file.read_text().splitlines()) == 1


def test_a_disk_that_was_full_at_opening_takes_annotations_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_room)
        book = AnnotationFile(tmp_path / "ann.csv", writable=True)
        assert "No space left on device" in book.trouble
        assert not book.writable
    book.ensure_writable()
    book.append([labelled(1)])
    assert book.trouble == ""
    assert read_entries(book.file) == [labelled(1)]


def test_a_full_disk_leaves_the_file_and_the_log_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = open_annotation_file(tmp_path, "ann")
    book.append([labelled(1)])
    before = book.file.read_bytes()

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(ProjectError, match="No space left on device"):
        book.append([labelled(2, edit=2)])
    monkeypatch.undo()
    assert book.file.read_bytes() == before
    assert len(book.log.events) == 1
    book.append([labelled(3, edit=2)])
    assert [entry.label for entry in read_entries(book.file)] == [1, 3]


def test_a_line_that_is_no_annotation_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ann.csv"
    open_annotation_file(tmp_path, "ann").append([labelled(1)])
    file.write_text(file.read_text() + "2026,dance,1,well,2,1,,,,,,\n")
    with pytest.raises(ProjectError, match=r"Line 3 of .*'dance'"):
        read_entries(file)


@pytest.mark.parametrize("name", ["", "../ann", "a/b", ".hidden"])
def test_an_annotators_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProjectError, match="Annotator name"):
        open_annotation_file(tmp_path, name)


def test_everybody_elses_log_is_read(tmp_path: Path) -> None:
    open_annotation_file(tmp_path, "bo").append([labelled(1)])
    ann = open_annotation_file(tmp_path, "ann")
    assert {who: len(log.events) for who, log in read_other_logs(tmp_path, excluding_file=ann.file).items()} == {
        "bo": 1
    }
