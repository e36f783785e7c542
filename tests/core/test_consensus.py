"""What stands for each object: several people, several masks, merged classes, and always as if looked at anew."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svetlana_jupyter.core.annotations import AnnotationEvent, AnnotationLog, Label, ObjectId
from svetlana_jupyter.core.consensus import CurrentLabels
from svetlana_jupyter.core.relabeling import LINK_COLUMNS, LabelMapping

TIME = "2026-01-01T09:00:00.000Z"
A, B, NOTHING = Label("label", 1), Label("label", 2), None


def said(*rows: tuple[str, int, int, int]) -> AnnotationLog:
    """A log of edit_groups (action, object, class, mask)."""
    return AnnotationLog(
        AnnotationEvent(TIME, action, edit, "well", label, class_id, mask=mask)  # type: ignore[arg-type]
        for edit, (action, label, class_id, mask) in enumerate(rows, 1)
    )


def step(*links: tuple[int, int, int]) -> LabelMapping:
    return LabelMapping(pd.DataFrame(links, columns=LINK_COLUMNS))


def stands(current_labels: CurrentLabels) -> dict[int, Label]:
    return {id.label: label for id, label in current_labels.labels.items()}


def test_the_majority_stands_and_a_tie_is_left_out() -> None:
    ann, bo = said(("label", 1, 1, 0), ("label", 2, 1, 0)), said(("label", 1, 1, 0))
    cy = said(("label", 1, 2, 0), ("label", 2, 2, 0))
    assert stands(CurrentLabels([ann, bo, cy])) == {1: A}


def test_a_skip_outvotes_nobody() -> None:
    skip = said(("skip", 1, 0, 0))
    assert stands(CurrentLabels([skip, said(("label", 1, 2, 0))])) == {1: B}
    assert stands(CurrentLabels([skip])) == {1: Label("skip")}


def test_classes_that_count_as_one_do_not_outvote_each_other() -> None:
    logs = [said(("label", 1, 1, 0)), said(("label", 1, 2, 0))]
    assert stands(CurrentLabels(logs)) == {} and stands(CurrentLabels(logs, merged={2: 1})) == {1: A}


@pytest.mark.parametrize(
    ("rows", "links", "new", "expected"),
    [
        ([("label", 7, 1, 0)], [(7, 9, 100)], 9, A),
        ([("label", 7, 1, 0)], [(7, 9, 60), (7, 10, 40)], 10, A),
        ([("label", 7, 1, 0), ("label", 8, 1, 0)], [(7, 9, 50), (8, 9, 50)], 9, A),
        ([("label", 7, 1, 0), ("label", 8, 2, 0)], [(7, 9, 50), (8, 9, 50)], 9, NOTHING),
        ([("label", 7, 1, 0), ("label", 8, 2, 0)], [(7, 9, 90), (8, 9, 10)], 9, A),
        ([("label", 8, 2, 0)], [(7, 9, 90), (8, 9, 10)], 9, NOTHING),
        ([("label", 7, 1, 0)], [], 7, NOTHING),
        ([("label", 7, 1, 0), ("label", 9, 2, 1)], [(7, 9, 100)], 9, B),
        ([("label", 7, 1, 0), ("erase", 9, 0, 1)], [(7, 9, 100)], 9, NOTHING),
        ([("label", 7, 1, 0), ("skip", 9, 0, 1)], [(7, 9, 100)], 9, A),
        ([("skip", 9, 0, 1)], [(7, 9, 100)], 9, Label("skip")),
        ([("bad_segmentation", 7, 0, 0)], [(7, 9, 100)], 9, Label("bad_segmentation")),
    ],
)
def test_a_new_object_takes_over_what_more_than_half_of_it_was(rows, links, new, expected) -> None:
    current_labels = CurrentLabels([said(*rows)], {"well": [step(*links)]})
    assert current_labels.labels.get(ObjectId("well", new)) == expected


def test_what_is_said_twice_over_is_carried_twice_over() -> None:
    log = said(("label", 1, 1, 0), ("label", 12, 2, 1))
    steps = {"well": [step((1, 11, 9), (2, 12, 9)), step((11, 21, 9), (12, 22, 9))]}
    assert stands(CurrentLabels([log], steps)) == {21: A, 22: B}


def test_undo_reaches_behind_a_new_mask() -> None:
    log = said(("label", 7, 1, 0), ("label", 7, 2, 0), ("erase", 9, 0, 1))
    current_labels = CurrentLabels([log], {"well": [step((7, 9, 100))]})
    seen = [stands(current_labels)]
    for action in ("undo", "undo", "undo", "redo"):
        log.append([AnnotationEvent(TIME, action, log.edit_to_undo if action == "undo" else log.edit_to_redo)])  # type: ignore[arg-type]
        seen.append(stands(current_labels))
    assert seen == [{}, {9: B}, {9: A}, {}, {9: A}]


rows = st.tuples(
    st.integers(0, 1),
    st.sampled_from(["label", "erase", "skip", "bad_segmentation", "undo", "redo"]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 2),
)
links = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9)), max_size=8)


@given(st.lists(rows, max_size=25), links, links)
def test_what_is_kept_up_to_date_is_what_a_fresh_look_gives(run, first, second) -> None:
    logs = [AnnotationLog(), AnnotationLog()]
    known = ({"well": [step(*first), step(*second)]}, {3: 1})
    current_labels = CurrentLabels(logs, *known)
    for who, action, label, class_id, mask in run:
        log = logs[who]
        if action in ("undo", "redo"):
            edit = log.edit_to_undo if action == "undo" else log.edit_to_redo
            log.append([AnnotationEvent(TIME, action, edit)] if edit else [])  # type: ignore[arg-type]
        else:
            log.append([AnnotationEvent(TIME, action, log.next_edit, "well", label, class_id, mask=mask)])
        fresh = CurrentLabels(logs, *known)
        assert current_labels.labels == fresh.labels
        assert +current_labels.counts == +fresh.counts
        assert current_labels.counts.total() == len(current_labels.labels)
