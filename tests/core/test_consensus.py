"""Current labels: several annotators, several masks, merged classes, and incremental updates."""

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


def log_of(*rows: tuple[str, int, int, int]) -> AnnotationLog:
    """Return a log of edits (action, object, class, mask)."""
    return AnnotationLog(
        AnnotationEvent(TIME, action, edit, "well", label, class_id, mask=mask)  # type: ignore[arg-type]
        for edit, (action, label, class_id, mask) in enumerate(rows, 1)
    )


def mapping(*links: tuple[int, int, int]) -> LabelMapping:
    return LabelMapping(pd.DataFrame(links, columns=LINK_COLUMNS))


def labels_of(current_labels: CurrentLabels) -> dict[int, Label]:
    return {object_id.label: label for object_id, label in current_labels.labels.items()}


def test_the_majority_decides_and_a_tie_gives_no_label() -> None:
    ann, bo = log_of(("label", 1, 1, 0), ("label", 2, 1, 0)), log_of(("label", 1, 1, 0))
    cy = log_of(("label", 1, 2, 0), ("label", 2, 2, 0))
    assert labels_of(CurrentLabels([ann, bo, cy])) == {1: A}


def test_skipping_is_not_a_vote() -> None:
    skip = log_of(("skip", 1, 0, 0))
    assert labels_of(CurrentLabels([skip, log_of(("label", 1, 2, 0))])) == {1: B}
    assert labels_of(CurrentLabels([skip])) == {1: Label("skip")}


def test_merged_classes_vote_together() -> None:
    logs = [log_of(("label", 1, 1, 0)), log_of(("label", 1, 2, 0))]
    assert labels_of(CurrentLabels(logs)) == {}
    assert labels_of(CurrentLabels(logs, merged_into={2: 1})) == {1: A}


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
def test_a_new_object_inherits_the_label_of_more_than_half_of_its_area(rows, links, new, expected) -> None:
    current_labels = CurrentLabels([log_of(*rows)], {"well": [mapping(*links)]})
    assert current_labels.labels.get(ObjectId("well", new)) == expected


def test_labels_are_carried_over_several_masks() -> None:
    log = log_of(("label", 1, 1, 0), ("label", 12, 2, 1))
    steps = {"well": [mapping((1, 11, 9), (2, 12, 9)), mapping((11, 21, 9), (12, 22, 9))]}
    assert labels_of(CurrentLabels([log], steps)) == {21: A, 22: B}


def test_undo_works_across_a_replaced_mask() -> None:
    log = log_of(("label", 7, 1, 0), ("label", 7, 2, 0), ("erase", 9, 0, 1))
    current_labels = CurrentLabels([log], {"well": [mapping((7, 9, 100))]})
    seen = [labels_of(current_labels)]
    for action in ("undo", "undo", "undo", "redo"):
        log.append([AnnotationEvent(TIME, action, log.edit_to_undo if action == "undo" else log.edit_to_redo)])  # type: ignore[arg-type]
        seen.append(labels_of(current_labels))
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
def test_incremental_updates_equal_a_fresh_computation(run, first, second) -> None:
    logs = [AnnotationLog(), AnnotationLog()]
    given_parts = ({"well": [mapping(*first), mapping(*second)]}, {3: 1})
    current_labels = CurrentLabels(logs, *given_parts)
    for annotator, action, label, class_id, mask in run:
        log = logs[annotator]
        if action in ("undo", "redo"):
            edit = log.edit_to_undo if action == "undo" else log.edit_to_redo
            log.append([AnnotationEvent(TIME, action, edit)] if edit else [])  # type: ignore[arg-type]
        else:
            log.append([AnnotationEvent(TIME, action, log.next_edit, "well", label, class_id, mask=mask)])
        fresh = CurrentLabels(logs, *given_parts)
        assert current_labels.labels == fresh.labels
        assert +current_labels.counts == +fresh.counts
        assert current_labels.counts.total() == len(current_labels.labels)
