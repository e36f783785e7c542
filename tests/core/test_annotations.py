"""Annotation log: its state always equals the replay of its events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svetlana_jupyter.core.annotations import AnnotationEvent, AnnotationLog, Label, VersionedObjectId, events_table

TIME = "2026-01-01T09:00:00.000Z"
objects = st.integers(1, 4)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["label", "erase", "skip", "ambiguous", "bad_segmentation"]),
            st.lists(objects, min_size=1, max_size=3),
        ),
        st.just(("undo", [])),
        st.just(("redo", [])),
    ),
    max_size=30,
)


def append(log: AnnotationLog, action: str, on: list[int], class_id: int = 1) -> None:
    if action == "undo":
        edit = log.edit_to_undo
        log.append([AnnotationEvent(TIME, "undo", edit)] if edit else [])
    elif action == "redo":
        edit = log.edit_to_redo
        log.append([AnnotationEvent(TIME, "redo", edit)] if edit else [])
    else:
        edit = log.next_edit
        log.append([AnnotationEvent(TIME, action, edit, "well", label, class_id) for label in on])


class SlowModel:
    """Reference implementation with a stack of whole states."""

    def __init__(self) -> None:
        self.states: list[dict[int, Label]] = [{}]
        self.undone: list[dict[int, Label]] = []

    def follow(self, action: str, on: list[int], class_id: int = 1) -> None:
        if action == "undo":
            if len(self.states) > 1:
                self.undone.append(self.states.pop())
        elif action == "redo":
            if self.undone:
                self.states.append(self.undone.pop())
        else:
            state = dict(self.states[-1])
            for label in on:
                if action == "erase":
                    state.pop(label, None)
                elif action == "label":
                    state[label] = Label("label", class_id)
                elif action != "skip" or label not in state:
                    state[label] = Label(action)
            self.states.append(state)
            self.undone.clear()


@given(steps)
def test_labels_equal_those_of_a_stack_of_whole_states(run: list[tuple[str, list[int]]]) -> None:
    log, model = AnnotationLog(), SlowModel()
    for number, (action, on) in enumerate(run):
        append(log, action, on, class_id=number)
        model.follow(action, on, class_id=number)
        assert {versioned_id.label: label for versioned_id, label in log.labels.items()} == model.states[-1]
    assert bool(log.edit_to_undo) == (len(model.states) > 1)
    assert bool(log.edit_to_redo) == bool(model.undone)


@given(steps)
def test_replaying_the_events_gives_the_same_state(run: list[tuple[str, list[int]]]) -> None:
    log = AnnotationLog()
    for action, on in run:
        append(log, action, on)
    again = AnnotationLog(log.events)
    assert again.labels == log.labels
    assert (again.edit_to_undo, again.edit_to_redo, again.next_edit) == (
        log.edit_to_undo,
        log.edit_to_redo,
        log.next_edit,
    )


def test_the_table_lists_all_events_by_time() -> None:
    early = AnnotationEvent(
        "2026-01-01T09:00:00.000Z", "label", 1, "well", 7, 2, (3.0, 4.5), (1, 2, 6, 8), "panel", 1.25
    )
    late = AnnotationEvent("2026-01-01T09:00:09.000Z", "undo", 1)
    table = events_table({"bo": AnnotationLog([late]), "ann": AnnotationLog([early])})
    assert list(table["who"]) == ["ann", "bo"]
    first = table.iloc[0]
    assert (first["y"], first["x"], first["box"], first["seconds"]) == (3.0, 4.5, "1 2 6 8", 1.25)
    assert first["z"] != first["z"]  # NaN in 2D
    assert str(table["time"].dtype).startswith("datetime64")
    assert len(events_table({})) == 0


@pytest.mark.parametrize("flag", ["ambiguous", "bad_segmentation"])
def test_a_flag_replaces_a_class(flag: str) -> None:
    log = AnnotationLog()
    append(log, "label", [1])
    append(log, flag, [1])
    assert log.label_of(VersionedObjectId("well", 1)) == Label(flag)
