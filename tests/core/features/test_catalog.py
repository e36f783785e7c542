"""Feature catalog: descriptions and selection by allowed cues."""

from __future__ import annotations

import numpy as np
import pytest

from svetlana_jupyter.core.features.catalog import CUES, GROUPS, MEASUREMENTS, columns, describe_measurements
from svetlana_jupyter.core.settings import MeasureSettings, TrainingSettings
from svetlana_jupyter.errors import SettingsError


def allowed_feature_columns(ndim, channels, settings):
    return columns(ndim, channels, settings.groups, settings.may_use)


def test_every_measurement_has_a_meaning_and_a_unique_name():
    table = describe_measurements()
    assert table.index.is_unique
    assert len(table) == len(MEASUREMENTS)
    assert (table["meaning"].str.len() > 5).all()
    assert set(table["group"]) == set(GROUPS)
    assert not table.index.str.contains(":").any()


@pytest.mark.parametrize("ndim", [2, 3])
def test_column_names_contain_channel_and_unit(ndim):
    chosen_columns = columns(ndim, 2)
    names = [column.name(("dna", "actin"), in_um=True) for column in chosen_columns]
    assert len(set(names)) == len(names) == len({column.key for column in chosen_columns})
    assert ("area_um2" if ndim == 2 else "volume_um3") in names
    assert "equivalent_diameter_um" in names
    assert {"dna_mean", "actin_mean", "actin_ring_contrast", "solidity", "position_y_um"} <= set(names)
    assert "area" not in names


def test_orientation_and_position_are_left_out_of_a_forest_by_default():
    keys = {column.key for column in allowed_feature_columns(2, 1, MeasureSettings())}
    assert not {"angle", "extent", "position_y", "gradient_yy:0"} & keys
    chosen = {
        column.key for column in allowed_feature_columns(2, 1, MeasureSettings(groups=("orientation", "position")))
    }
    assert {"angle", "extent", "position_y", "gradient_yy:0"} <= chosen
    assert "area" not in chosen


@pytest.mark.parametrize("cue", CUES)
def test_measurements_that_use_a_forbidden_cue_are_left_out(cue):
    allowed = tuple(set(CUES) - {cue})
    allowed_columns = allowed_feature_columns(3, 1, MeasureSettings(groups=GROUPS, may_use=allowed))
    every = allowed_feature_columns(3, 1, MeasureSettings(groups=GROUPS))
    assert [column for column in every if cue not in column.measurement.uses] == list(allowed_columns)
    assert 0 < len(allowed_columns) < len(every)


def test_settings_list_the_available_groups():
    with pytest.raises(SettingsError, match="'groups' cannot be 'shapes'"):
        TrainingSettings(measurements={"groups": ["shapes"]})
    with pytest.raises(SettingsError, match="Did you mean 'groups'"):
        TrainingSettings(measurements={"group": ["shape"]})
    changed = TrainingSettings().changed(measurements={"ring": 8})
    assert changed.measurements.ring == 8
    assert changed.measurements.groups == MeasureSettings().groups
    assert TrainingSettings.from_json(changed.to_json()) == changed


def test_the_keys_of_two_channels_differ_by_their_number():
    keys = np.array([column.key for column in columns(2, 2, ("intensity",))])
    assert keys[0] == "mean:0"
    assert keys[len(keys) // 2] == "mean:1"
