"""Queues of a project: they resume, never repeat an object, and follow mask changes."""

from __future__ import annotations

import numpy as np
import pytest

from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.project import Project
from tests.project.conftest import squares

KINDS = [{"kind": "random", "seed": 3}, {"kind": "image"}, {"kind": "near", "near": ("P1_A1", 6)}]


def ids(queue, count: int = 100) -> list[tuple[str, int]]:
    candidates = iter(lambda: queue.next(), None)
    return [candidate.id for candidate, _ in zip(candidates, range(count))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_resumes_and_never_repeats_an_object(project: Project, kind) -> None:
    complete = ids(project.queue(**kind))
    first = ids(project.queue(**kind), 5)
    for image, label in first:
        project.annotate(image, label, "dim")
    project.annotations.file.close()
    again = Project(project.path, annotator="ann")
    assert first + ids(again.queue(**kind)) == complete
    assert len(set(complete)) == len(complete)
    assert len(complete) == (11 if "near" in kind else 36)


def test_near_objects_are_ordered_by_distance_with_the_reason(project: Project) -> None:
    first = project.queue("near", near=("P1_A1", 6)).next()
    assert first.image == "P1_A1"
    assert first.label in (2, 5, 7, 10)
    assert first.reason == "24 px from object 6"


def test_images_alternate_in_the_queue(project: Project) -> None:
    queue = project.queue("image", images=["P2_A1", "P1_A1"])
    assert [image for image, _ in ids(queue)] == ["P2_A1"] * 12 + ["P1_A1"] * 12


def test_a_queue_of_near_objects_needs_a_reference_object(project: Project) -> None:
    with pytest.raises(InputError, match="belong together"):
        project.queue("near")
    with pytest.raises(InputError, match="belong together"):
        project.queue("random", near=("P1_A1", 6))


def test_a_queue_continues_with_the_objects_of_a_new_mask(project: Project) -> None:
    queue = project.queue("image", images=["P1_A1"])
    ids(queue, 3)
    mask = squares()[1].astype(np.int32)
    project.replace_mask("P1_A1", np.where(mask > 4, mask + 100, 0))
    assert queue.previous() is None
    assert ids(queue) == [("P1_A1", label) for label in range(105, 113)]


def test_peeking_keeps_the_order_and_skips_objects_labeled_meanwhile(project):
    complete = ids(project.queue())
    queue = project.queue()
    assert [candidate.id for candidate in queue.peek(3)] == complete[:3]
    assert queue.next().id == complete[0]
    assert [candidate.id for candidate in queue.peek(3)] == complete[1:4]
    project.annotate(*complete[1], project.classes.names[0])
    assert queue.next().id == complete[2]
    queue.previous()
    assert queue.peek(2)[0].id == complete[2]
    assert ids(queue)[1:] == complete[3:]
    assert queue.peek(2) == []
