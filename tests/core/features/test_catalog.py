"""The table of measurements says what there is, and leaves out what may not count."""

from __future__ import annotations

import numpy as np
import pytest

from svetlana_jupyter.core.features.catalog import CUES, GROUPS, MEASUREMENTS, columns, describe_measurements
from svetlana_jupyter.core.features.compute import allowed_feature_columns
from svetlana_jupyter.core.settings import MeasureSettings, TrainingSettings
from svetlana_jupyter.errors import SettingsError


def test_every_measurement_has_a_meaning_and_a_name_of_its_own():
    table = describe_measurements()
    assert table.index.is_unique and len(table) == len(MEASUREMENTS)
    assert (table["meaning"].str.len() > 5).all() and set(table["group"]) == set(GROUPS)
    assert not table.index.str.contains(":").any()


@pytest.mark.parametrize("ndim", [2, 3])
def test_columns_are_named_for_people_with_channel_and_unit(ndim):
    found = columns(ndim, 2)
    names = [column.name(("dna", "actin"), in_um=True) for column in found]
    assert len(set(names)) == len(names) == len({column.key for column in found})
    assert ("area_um2" if ndim == 2 else "volume_um3") in names and "equivalent_diameter_um" in names
    assert {"dna_mean", "actin_mean", "actin_ring_contrast", "solidity", "position_y_um"} <= set(names)
    assert "area" not in names


def test_a_forest_does_not_see_orientation_and_position_unless_it_is_asked_to():
    keys = {column.key for column in allowed_feature_columns(2, 1, MeasureSettings())}
    assert not {"angle", "extent", "position_y", "gradient_yy:0"} & keys
    asked = {
        column.key for column in allowed_feature_columns(2, 1, MeasureSettings(groups=("orientation", "position")))
    }
    assert {"angle", "extent", "position_y", "gradient_yy:0"} <= asked and "area" not in asked


@pytest.mark.parametrize("evidence", CUES)
def test_what_uses_evidence_that_may_not_count_is_left_out(evidence):
    allowed = tuple(set(CUES) - {evidence})
    kept = allowed_feature_columns(3, 1, MeasureSettings(groups=GROUPS, may_use=allowed))
    every = allowed_feature_columns(3, 1, MeasureSettings(groups=GROUPS))
    assert [column for column in every if evidence not in column.measurement.uses] == list(kept)
    assert 0 < len(kept) < len(every)


def test_settings_name_the_groups_there_are():
    with pytest.raises(SettingsError, match="'groups' cannot be 'shapes'"):
        TrainingSettings(measurements={"groups": ["shapes"]})
    with pytest.raises(SettingsError, match="Did you mean 'groups'"):
        TrainingSettings(measurements={"group": ["shape"]})
    changed = TrainingSettings().changed(measurements={"ring": 8})
    assert changed.measurements.ring == 8 and changed.measurements.groups == MeasureSettings().groups
    assert TrainingSettings.from_json(changed.to_json()) == changed


def test_the_keys_of_two_channels_differ_by_their_number():
    keys = np.array([column.key for column in columns(2, 2, ("intensity",))])
    assert keys[0] == "mean:0" and keys[len(keys) // 2] == "mean:1"
