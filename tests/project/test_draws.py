"""Random draws are recorded in the annotation log, so that counts know which labels are a random sample."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from svetlana_jupyter.core.annotations import AnnotationEvent, AnnotationLog, ObjectId, VersionedObjectId
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project import storage
from svetlana_jupyter.project.project import Project
from tests.project.conftest import reopen, squares


def order(project: Project, seed: int = 0) -> list[ObjectId]:
    """Return all objects in the order of the random queue, without drawing any."""
    return [candidate.id for candidate in project.queue(seed=seed).coming(1000)]


def test_an_object_that_the_queue_handed_out_counts_as_drawn_once_a_script_labels_it(project: Project) -> None:
    queue = project.queue()
    first, second, third = (queue.next().id for _ in range(3))
    assert project.annotations.drawn_objects() == set(), "nothing is labeled yet"
    project.annotate(*second, "dim")
    project.flag(*third, "skip")
    assert project.annotations.drawn_objects() == {second, third}
    project.undo()
    project.undo()
    project.annotate(*second, "bright", source="panel")
    again = reopen(project)
    assert again.annotations.drawn_objects() == {second, third}, "undo does not take a draw back"
    assert again.annotations.label_of(*second).class_id == 2
    assert first not in again.annotations.drawn_objects()
    rows = [event for event in again.annotations.file.log.events if event.action == "draw"]
    assert [(event.image, event.label) for event in rows] == [second, third], "each draw is recorded once"
    assert again.annotations.table()["drawn"].tolist() == [True, True, False, False, True]


def test_objects_that_a_script_takes_from_the_queue_in_advance_count_as_drawn(project: Project) -> None:
    peeked = project.queue().peek(5)
    for image, label, _ in peeked[:4]:
        project.annotate(image, label, "dim")
    assert project.annotations.drawn_objects() == {candidate.id for candidate in peeked[:4]}


def test_a_labeled_object_that_the_draw_hits_is_marked_and_the_next_is_drawn(project: Project) -> None:
    first, second, third, fourth, *_, last = order(project)
    for object_id in (first, third, last):
        project.annotate(*object_id, "dim", source="lasso")
    assert project.annotations.drawn_objects() == set()
    queue = project.queue()
    assert queue.next().id == second
    assert queue.next().id == fourth
    project.annotate(*second, "dim")
    assert project.annotations.drawn_objects() == {first, second}
    project.annotate(*fourth, "dim")
    assert reopen(project).annotations.drawn_objects() == {first, second, third, fourth}


def test_an_object_labeled_after_the_queue_looked_ahead_is_marked_too(project: Project) -> None:
    first, second, third = order(project)[:3]
    queue = project.queue()
    queue.coming(3)
    project.annotate(*first, "dim", source="lasso")
    assert project.annotations.drawn_objects() == set(), "looking ahead is no draw"
    assert queue.next().id == second
    project.annotate(*second, "dim")
    assert project.annotations.drawn_objects() == {first, second}
    assert queue.next().id == third


def test_objects_chosen_in_another_way_do_not_count(project: Project) -> None:
    project.annotate("P1_A1", [1, 2, 3], "dim", source="lasso")
    project.annotate("P1_A1", 4, "dim", source="import: table.csv")
    for queue in (project.queue(images=["P1_A2"]), project.queue("image"), project.queue("near", near=("P1_A1", 5))):
        project.annotate(*queue.next().id, "bright")
    assert project.annotations.drawn_objects() == set()
    assert not project.annotations.table()["drawn"].any()
    assert "draw" not in {event.action for event in project.annotations.file.log.events}


@pytest.mark.parametrize("source", ["queue", "random"])
def test_the_source_of_a_label_states_that_it_was_drawn(project: Project, source: str) -> None:
    project.annotate("P1_A1", [1, 2], "dim", source=source)
    project.annotate("P1_A1", 2, "bright")
    assert project.annotations.drawn_objects() == {ObjectId("P1_A1", 1), ObjectId("P1_A1", 2)}
    project.undo()
    project.undo()
    assert project.annotations.drawn_objects() == set(), "an undone edit states nothing"
    project.redo()
    assert reopen(project).annotations.drawn_objects() == {ObjectId("P1_A1", 1), ObjectId("P1_A1", 2)}


def test_test_set_objects_are_no_part_of_the_draw(project: Project) -> None:
    queue = project.queue()
    queue.coming(3)
    project.test_set.draw(24)
    drawn = [queue.next().id for _ in range(12)]
    assert queue.next() is None
    assert not set(drawn) & set(project.test_set.objects)
    for object_id in drawn:
        project.annotate(*object_id, "dim")
    assert project.annotations.drawn_objects() == set(drawn)


def test_a_draw_is_carried_over_to_a_new_mask(project: Project) -> None:
    drawn = project.queue().next().id
    project.annotate(*drawn, "dim")
    mask = squares()[1].astype(np.int32)
    project.replace_mask(drawn.image, np.where(mask > 0, mask + 100, 0))
    moved = ObjectId(drawn.image, drawn.label + 100)
    assert project.annotations.drawn_objects() == {moved}
    project.annotate(*moved, "bright")
    assert reopen(project).annotations.drawn_objects() == {moved}


def test_an_object_of_a_replaced_mask_that_was_handed_out_is_not_recorded(project: Project) -> None:
    queue = project.queue()
    drawn = queue.next().id
    project.replace_mask(drawn.image, squares()[1].astype(np.int32))
    project.annotate(*drawn, "dim")
    assert project.annotations.drawn_objects() == set()


def test_a_draw_whose_label_was_cut_off_by_a_kill_leaves_an_unlabeled_object(project: Project) -> None:
    drawn = project.queue().next().id
    project.annotate(*drawn, "dim")
    copy = project.path.with_name("killed.svetlana")  # opened like a project that no other object knows
    shutil.copytree(project.path, copy)
    file = copy / "annotations" / "ann.csv"
    content = file.read_bytes()
    *_, draw, label = content.splitlines(keepends=True)
    assert b",draw,0," in draw
    os.truncate(file, len(content) - len(label) + 5)
    again = Project(copy, annotator="ann")
    assert "incomplete" in again.trouble
    assert again.labels().empty
    queue = again.queue()
    assert queue.next().id == drawn
    again.annotate(*drawn, "bright")
    assert reopen(again).annotations.drawn_objects() == {drawn}
    assert file.read_bytes().count(b",draw,0,") == 1


def test_a_failed_write_keeps_the_draw_for_the_next_try(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = project.queue().next().id

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(Exception, match="No space left"):
        patch.setattr(os, "fsync", fail)
        project.annotate(*drawn, "dim")
    assert project.annotations.drawn_objects() == set()
    project.annotate(*drawn, "dim")
    assert project.annotations.drawn_objects() == {drawn}


def test_draw_and_label_are_written_with_one_disk_sync(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = project.queue().next().id
    sync, synced = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), sync(descriptor)))
    project.annotate(*drawn, "dim")
    assert len(synced) == 1


def test_the_draws_of_all_annotators_count(project: Project) -> None:
    drawn = project.queue().next().id
    project.annotate(*drawn, "dim")
    other = Project(project.path, annotator="bea")
    assert other.annotations.drawn_objects() == {drawn}


def test_a_read_only_project_runs_a_random_queue(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.annotate(*order(project)[0], "dim")
    project.annotations.file.close()
    before = {file: file.read_bytes() for file in project.path.rglob("*.csv")}
    monkeypatch.setattr(storage, "_can_write", lambda folder: False)
    again = Project(project.path, annotator="ann")
    with pytest.raises(ProjectError, match="read-only"):
        again.annotate("P1_A1", 1, "dim")
    queue = again.queue()
    assert len(list(iter(queue.next, None))) == 35
    assert {file: file.read_bytes() for file in before} == before


def test_draws_belong_to_no_edit() -> None:
    log = AnnotationLog([AnnotationEvent("2026-01-01T09:00:00.000Z", "draw", 0, "well", 17, mask=1)])
    assert log.draws == {VersionedObjectId("well", 17, 1)}
    assert (log.edit_to_undo, log.next_edit, log.labels) == (0, 1, {})
    assert log.masks == {"well": 1}
