"""Parts keep groups and edit_groups whole, and every class among what trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svetlana_jupyter.core.groups import name_groups
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.learn.dataset import TrainingData, collect_training_data
from svetlana_jupyter.learn.splits import split_folds, validation_mask

GESTURES = np.repeat([f"ann {number}" for number in range(10)], 4)


def samples(targets, groups, edit_groups=None, **settings) -> TrainingData:
    n = len(targets)
    return TrainingData(
        inputs=np.zeros((n, 1), np.float32),
        targets=np.asarray(targets, np.int64),
        groups=np.asarray(groups, str),
        images=np.full(n, "image"),
        objects=np.arange(n),
        names={},
        ndim=2,
        channels=("grey",),
        settings=TrainingSettings(**settings),
        edit_groups=np.full(n, "") if edit_groups is None else np.asarray(edit_groups, str),
    )


def divided(units, parts) -> set[str]:
    """Return the units that lie in more than one part."""
    where = {unit: {number for number, part in enumerate(parts) if unit in units[part]} for unit in set(units) - {""}}
    return {unit for unit, numbers in where.items() if len(numbers) > 1}


labels = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 7), st.integers(0, 30)), min_size=12, max_size=60).filter(
    lambda rows: all([row[0] for row in rows].count(class_id) > 1 for class_id in {row[0] for row in rows})
)


@given(labels, st.integers(2, 6), st.integers(0, 3))
def test_every_sample_is_in_one_part_and_every_class_among_the_rest(rows, count, seed):
    targets, groups, edit_groups = zip(*rows)
    found = samples(targets, groups, ["" if number > 9 else f"ann {number}" for number in edit_groups], seed=seed)
    parts, apart = split_folds(found, count)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(found)))
    assert min(map(len, parts)) > 0
    for part in parts:
        assert set(np.delete(found.targets, part)) == set(found.targets)
    if apart == "whole groups":
        assert not divided(found.groups, parts)
    if apart == "whole edits":
        assert not divided(found.edit_groups, parts)
    again = split_folds(found, count)
    assert all(np.array_equal(part, same) for part, same in zip(parts, again.parts, strict=True))


def test_groups_are_never_divided_where_there_are_enough():
    found = samples(np.tile([1, 2], 20), np.repeat(np.arange(10), 4))
    parts, apart = split_folds(found, 5)
    assert apart == "whole groups"
    assert len(parts) == 5
    assert not divided(found.groups, parts)
    assert all(set(found.targets[part]) == {1, 2} for part in parts)


def test_three_wells_make_three_parts_rather_than_divided_wells():
    parts, apart = split_folds(samples(np.tile([1, 2], 15), np.repeat(["A1", "A2", "A3"], 10)), 4)
    assert apart == "whole groups"
    assert [len(part) for part in parts] == [10, 10, 10]


def test_objects_of_one_gesture_stay_together_where_there_is_one_group():
    found = samples(np.repeat(np.tile([1, 2], 5), 4), np.full(40, "all"), GESTURES)
    parts, apart = split_folds(found, 5)
    assert apart == "whole edits"
    assert len(parts) == 5
    assert not divided(found.edit_groups, parts)


@pytest.mark.parametrize("other", ["A1", "A3", "A6"])
def test_a_gesture_over_two_wells_keeps_them_together(other):
    wells = np.repeat([f"A{number}" for number in range(8)], 5)
    edit_groups = np.where(np.isin(wells, ["A0", other]), "ann 1", "")
    parts, apart = split_folds(samples(np.tile([1, 2], 20), wells, edit_groups), 4)
    assert apart == "whole groups"
    assert not divided(wells, parts)
    assert any({"A0", other} <= set(wells[part]) for part in parts)


def test_a_gesture_over_all_wells_leaves_the_wells_to_be_held_out():
    wells = np.repeat([f"A{number}" for number in range(8)], 5)
    parts, apart = split_folds(samples(np.tile([1, 2], 20), wells, np.full(40, "ann 1")), 4)
    assert apart == "whole groups"
    assert len(parts) == 4
    assert not divided(wells, parts)


def test_single_objects_are_dealt_out_where_nothing_else_leaves_every_class_to_train_on():
    parts, apart = split_folds(samples(np.repeat([1, 2], 10), np.repeat(["A", "B"], 10)), 4)
    assert apart == "single objects"
    assert len(parts) == 4


@pytest.mark.parametrize("only", [slice(0, 4), slice(0, 8)])
def test_a_class_of_few_wells_is_never_missing_from_training(only):
    targets = np.tile([1, 2], 20)
    targets[only] = 3
    found = samples(targets, np.repeat(np.arange(10), 4))
    parts, _ = split_folds(found, 4)
    assert all(set(np.delete(targets, part)) == {1, 2, 3} for part in parts)


def test_nothing_is_held_out_where_a_class_would_be_missing_from_training():
    groups = np.repeat(np.arange(10), 4)
    found = samples(np.tile([1, 2], 20), groups, held_out_from=20)
    out = validation_mask(found)
    assert 0 < out.sum() < 20
    assert not set(groups[out]) & set(groups[~out])
    alone = samples(np.where(np.arange(40) == np.flatnonzero(out)[0], 99, found.targets), groups, held_out_from=20)
    assert set(alone.targets[~validation_mask(alone)]) >= {1, 2}
    assert not validation_mask(samples(np.tile([1, 2], 20), groups)).any(), "there are too few"


def test_the_only_object_of_a_class_is_never_held_out():
    targets = np.tile([1, 2], 20)
    targets[0] = 3
    lonely = samples(targets, np.repeat(np.arange(10), 4), held_out_from=20)
    assert 0 in split_folds(lonely, 5, min_parts=5).parts[0], "the part that would be held out has it"
    assert not validation_mask(lonely).any()


def test_what_is_held_out_while_training_is_never_half_of_it():
    found = samples(np.tile([1, 2], 20), np.repeat(["A", "B"], 20), held_out_from=20)
    assert validation_mask(found).sum() == 8


def test_groups_may_be_made_by_some_columns_alone():
    objects = pd.DataFrame({"y": [5.0, 95.0], "x": [5.0, 55.0]}, index=[3, 8])
    columns = {"patient": "7", "well": "A1"}

    def named(**options) -> list[str]:
        return name_groups("P7_A1", columns, objects, (100, 100), **options).tolist()

    assert named(is_only_image=False) == ["patient=7 well=A1"] * 2
    assert named(is_only_image=False, by=["patient"]) == ["patient=7"] * 2
    assert named(is_only_image=False, by=["image"]) == ["P7_A1"] * 2
    assert named(is_only_image=True) == ["patient=7 well=A1 0,0", "patient=7 well=A1 3,2"]
    with pytest.raises(InputError, match=r"no column 'plate' to group by\. Choose among patient, well, image"):
        named(is_only_image=False, by=["plate"])


def test_the_settings_say_which_columns_are_held_out_by(discs):
    pair, objects, classes = discs
    wells = [
        replace(pair, name=f"{patient}_{well}", groups={"patient": patient, "well": well})
        for patient in ("Ann", "Bob")
        for well in ("A1", "A2")
    ]
    settings = TrainingSettings(architecture="forest", hold_out_by=["patient"])
    found = collect_training_data([(well, objects, classes) for well in wells], settings)
    assert set(found.groups) == {"patient=Ann", "patient=Bob"}
    with pytest.raises(InputError, match="'plate'"):
        collect_training_data([(well, objects, classes) for well in wells], settings.changed(hold_out_by=["plate"]))
