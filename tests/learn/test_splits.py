"""Cross-validation folds and validation splits that keep groups and edits together."""

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
from svetlana_jupyter.learn.dataset import TrainingData
from svetlana_jupyter.learn.splits import split_folds, validation_mask
from tests.learn.calls import collect_training_data

EDITS = np.repeat([f"ann {number}" for number in range(10)], 4)


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
        channels=("gray",),
        settings=TrainingSettings(**settings),
        edit_groups=np.full(n, "") if edit_groups is None else np.asarray(edit_groups, str),
    )


def units_in_several_folds(units, folds) -> set[str]:
    """Return the units that occur in more than one fold."""
    folds_of_unit = {
        unit: {number for number, fold in enumerate(folds) if unit in units[fold]} for unit in set(units) - {""}
    }
    return {unit for unit, numbers in folds_of_unit.items() if len(numbers) > 1}


labels = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 7), st.integers(0, 30)), min_size=12, max_size=60).filter(
    lambda rows: all([row[0] for row in rows].count(class_id) > 1 for class_id in {row[0] for row in rows})
)


@given(labels, st.integers(2, 6), st.integers(0, 3))
def test_every_sample_is_in_one_fold_and_every_class_in_every_training_set(rows, count, seed):
    targets, groups, edit_groups = zip(*rows)
    data = samples(targets, groups, ["" if number > 9 else f"ann {number}" for number in edit_groups], seed=seed)
    folds, unit_kept_together = split_folds(data, count)
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(data)))
    assert min(map(len, folds)) > 0
    for fold in folds:
        assert set(np.delete(data.targets, fold)) == set(data.targets)
    if unit_kept_together == "whole groups":
        assert not units_in_several_folds(data.groups, folds)
    if unit_kept_together == "whole edits":
        assert not units_in_several_folds(data.edit_groups, folds)
    repeated = split_folds(data, count)
    assert all(np.array_equal(fold, same) for fold, same in zip(folds, repeated.parts, strict=True))


def test_groups_are_never_divided_if_there_are_enough():
    data = samples(np.tile([1, 2], 20), np.repeat(np.arange(10), 4))
    folds, unit_kept_together = split_folds(data, 5)
    assert unit_kept_together == "whole groups"
    assert len(folds) == 5
    assert not units_in_several_folds(data.groups, folds)
    assert all(set(data.targets[fold]) == {1, 2} for fold in folds)


def test_three_wells_give_three_folds_instead_of_divided_wells():
    folds, unit_kept_together = split_folds(samples(np.tile([1, 2], 15), np.repeat(["A1", "A2", "A3"], 10)), 4)
    assert unit_kept_together == "whole groups"
    assert [len(fold) for fold in folds] == [10, 10, 10]


def test_objects_of_one_edit_stay_together_within_a_single_group():
    data = samples(np.repeat(np.tile([1, 2], 5), 4), np.full(40, "all"), EDITS)
    folds, unit_kept_together = split_folds(data, 5)
    assert unit_kept_together == "whole edits"
    assert len(folds) == 5
    assert not units_in_several_folds(data.edit_groups, folds)


@pytest.mark.parametrize("other", ["A1", "A3", "A6"])
def test_an_edit_across_two_wells_keeps_them_together(other):
    wells = np.repeat([f"A{number}" for number in range(8)], 5)
    edit_groups = np.where(np.isin(wells, ["A0", other]), "ann 1", "")
    folds, unit_kept_together = split_folds(samples(np.tile([1, 2], 20), wells, edit_groups), 4)
    assert unit_kept_together == "whole groups"
    assert not units_in_several_folds(wells, folds)
    assert any({"A0", other} <= set(wells[fold]) for fold in folds)


def test_an_edit_across_all_wells_is_split_by_wells():
    wells = np.repeat([f"A{number}" for number in range(8)], 5)
    folds, unit_kept_together = split_folds(samples(np.tile([1, 2], 20), wells, np.full(40, "ann 1")), 4)
    assert unit_kept_together == "whole groups"
    assert len(folds) == 4
    assert not units_in_several_folds(wells, folds)


def test_single_objects_are_split_if_groups_would_miss_a_class():
    folds, unit_kept_together = split_folds(samples(np.repeat([1, 2], 10), np.repeat(["A", "B"], 10)), 4)
    assert unit_kept_together == "single objects"
    assert len(folds) == 4


def test_classes_of_one_object_each_are_split_too():
    folds = split_folds(samples(range(5), ["A1"] * 5), 3).parts
    assert sorted(np.concatenate(folds)) == list(range(5))
    assert len(folds) == 2


@pytest.mark.parametrize("only", [slice(0, 4), slice(0, 8)])
def test_a_class_of_few_wells_is_never_missing_from_training(only):
    targets = np.tile([1, 2], 20)
    targets[only] = 3
    data = samples(targets, np.repeat(np.arange(10), 4))
    folds, _ = split_folds(data, 4)
    assert all(set(np.delete(targets, fold)) == {1, 2, 3} for fold in folds)


def test_validation_never_removes_a_class_from_training():
    groups = np.repeat(np.arange(10), 4)
    data = samples(np.tile([1, 2], 20), groups, held_out_from=20)
    validation = validation_mask(data)
    assert 0 < validation.sum() < 20
    assert not set(groups[validation]) & set(groups[~validation])
    rare_class_data = samples(
        np.where(np.arange(40) == np.flatnonzero(validation)[0], 99, data.targets), groups, held_out_from=20
    )
    assert set(rare_class_data.targets[~validation_mask(rare_class_data)]) >= {1, 2}
    assert not validation_mask(samples(np.tile([1, 2], 20), groups)).any(), "there are too few"


def test_the_only_object_of_a_class_is_never_held_out():
    targets = np.tile([1, 2], 20)
    targets[0] = 3
    data = samples(targets, np.repeat(np.arange(10), 4), held_out_from=20)
    assert 0 in split_folds(data, 5, min_parts=5).parts[0], "the part that would be held out has it"
    assert not validation_mask(data).any()


def test_the_validation_split_is_smaller_than_half():
    data = samples(np.tile([1, 2], 20), np.repeat(["A", "B"], 20), held_out_from=20)
    assert validation_mask(data).sum() == 8


def test_groups_can_be_formed_by_selected_columns():
    objects = pd.DataFrame({"y": [5.0, 95.0], "x": [5.0, 55.0]}, index=[3, 8])
    columns = {"patient": "7", "well": "A1"}

    def group_names(**options) -> list[str]:
        return name_groups("P7_A1", columns, objects, (100, 100), **options).tolist()

    assert group_names(is_only_image=False) == ["patient=7 well=A1"] * 2
    assert group_names(is_only_image=False, by=["patient"]) == ["patient=7"] * 2
    assert group_names(is_only_image=False, by=["image"]) == ["P7_A1"] * 2
    assert group_names(is_only_image=True) == ["patient=7 well=A1 0,0", "patient=7 well=A1 3,2"]
    with pytest.raises(InputError, match=r"no column 'plate' to group by\. Choose among patient, well, image"):
        group_names(is_only_image=False, by=["plate"])


def test_hold_out_by_selects_the_grouping_columns(discs):
    pair, objects, classes = discs
    wells = [
        replace(pair, name=f"{patient}_{well}", groups={"patient": patient, "well": well})
        for patient in ("Ann", "Bob")
        for well in ("A1", "A2")
    ]
    settings = TrainingSettings(architecture="forest", hold_out_by=["patient"])
    data = collect_training_data([(well, objects, classes) for well in wells], settings)
    assert set(data.groups) == {"patient=Ann", "patient=Bob"}
    with pytest.raises(InputError, match="'plate'"):
        collect_training_data([(well, objects, classes) for well in wells], settings.changed(hold_out_by=["plate"]))
