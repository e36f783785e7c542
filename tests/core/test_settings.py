"""Settings: JSON, presets, documentation and error messages."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

from svetlana_jupyter.core import settings as settings_module
from svetlana_jupyter.core.settings import (
    PRESET_DESCRIPTIONS,
    PRESET_NAMES,
    PRESETS,
    AugmentSettings,
    MeasureSettings,
    PatchSettings,
    TrainingSettings,
    parse_allowed_cues,
)
from svetlana_jupyter.errors import SettingsError

MODELS = (TrainingSettings, PatchSettings, AugmentSettings, MeasureSettings)


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_every_preset_survives_json(name):
    settings = TrainingSettings.from_preset(name)
    assert TrainingSettings.from_json(settings.to_json()) == settings
    assert settings.preset == name


def test_settings_with_tuples_and_class_weights_survive_json():
    settings = TrainingSettings(
        patches=PatchSettings(size=(20.0, 30.0), sampling=(10, 15)), class_weights={3: 2.0}, seed=7
    )
    assert TrainingSettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize("size", [(50, None), (None, 9.5), (0, 0), None])
def test_the_object_selection_survives_json_and_another_preset(size):
    settings = TrainingSettings(size=size, exclude_border=True)
    assert TrainingSettings.from_json(settings.to_json()) == settings
    other = settings.changed(preset="paper")
    assert (other.size, other.exclude_border) == (size, True)
    assert other.optimizer == "adam"


@pytest.mark.parametrize("size", [(9, 3), (-1, None), (None, -2)])
def test_an_impossible_size_range_is_refused(size):
    with pytest.raises(SettingsError, match="the minimum and maximum pixels"):
        TrainingSettings(size=size)


def test_the_json_names_every_setting_with_its_default():
    written = json.loads(TrainingSettings().to_json())
    assert set(written) == set(TrainingSettings.model_fields)
    assert set(written["patches"]) == set(PatchSettings.model_fields)
    assert set(written["augmentation"]) == set(AugmentSettings.model_fields)


@pytest.mark.parametrize("model", MODELS)
def test_every_setting_has_a_description_that_help_shows(model):
    fields = model.model_fields
    assert all(field.description for field in fields.values())
    documentation = inspect.getdoc(model)
    assert all(f"\n{name}\n    {field.description[:30]}" in documentation for name, field in fields.items())


@pytest.mark.parametrize(
    ("values", "expected_words"),
    [
        ({"epoch": 3}, ["'epoch'", "Did you mean 'epochs'"]),
        ({"patches": {"normalise": "max"}}, ["'normalise'", "Did you mean 'normalize'"]),
        ({"zzz": 3}, ["'zzz'", "Choose among preset, may_use"]),
        ({"width": 0}, ["'width'", "0", "greater than or equal to 1"]),
        ({"architecture": "resnet9000"}, ["'resnet9000'", "Did you mean 'resnet"]),
        ({"architecture": "no such"}, ["Choose among small_cnn, resnet18, "]),
        ({"architecture": "os.path:"}, ["'os.path:'"]),
        ({"patches": {"size": (1, 2, 3, 4)}}, ["'patches.size' must be one number or one per axis"]),
        ({"patches": {"size": 0}}, ["'patches.size' must be more than 0, got 0"]),
        ({"patches": {"sampling": 2}}, ["'patches.sampling' must be at least 4, got 2"]),
        ({"betas": (0.9, 1.5)}, ["'betas' must be at least 0 and below 1"]),
        ({"learning_rate": float("nan")}, ["'learning_rate'"]),
        ({"class_weights": {1: 0.0}}, ["'class_weights' must be more than 0"]),
        ({"may_use": {"sizes": False}}, ["'may_use'", "'sizes'", "'size'"]),
    ],
)
def test_an_impossible_value_is_refused_in_one_line(values, expected_words):
    with pytest.raises(SettingsError) as caught:
        TrainingSettings(**values)
    message = str(caught.value)
    assert all(expected in message for expected in expected_words), message
    assert "\n" not in message


@pytest.mark.parametrize(("text", "expected"), [("{", "line 1"), ("[1]", "JSON object"), ('{"epohcs": 3}', "'epochs'")])
def test_invalid_json_is_refused_with_its_problem(text, expected):
    with pytest.raises(SettingsError, match=expected):
        TrainingSettings.from_json(text)


def test_an_unknown_preset_is_refused_with_the_most_similar_one():
    with pytest.raises(SettingsError, match="Did you mean 'default'"):
        TrainingSettings.from_preset("defualt")


def test_given_values_override_a_preset_and_another_preset_resets_them():
    assert TrainingSettings(preset="texture", seed=3) == TrainingSettings.from_preset("texture", seed=3)
    mixed = TrainingSettings(preset="object", patches={"dilation": 5})
    assert (mixed.patches.context, mixed.patches.dilation) == ("hide", 5)
    assert mixed.changed(preset="oriented") == TrainingSettings.from_preset("oriented")
    assert mixed.changed(may_use=["size"]).changed(preset="oriented").may_use == {"size"}
    assert mixed.changed(preset="object", epochs=3).patches.dilation == 5


def test_every_preset_has_a_description():
    assert set(PRESET_DESCRIPTIONS) == set(PRESETS)


def test_the_automatic_preset_starts_from_the_values_of_the_default_preset():
    assert TrainingSettings().preset == "auto"
    automatic, default = TrainingSettings().model_dump(), TrainingSettings(preset="default").model_dump()
    assert {name for name in automatic if automatic[name] != default[name]} == {"preset"}


def test_changes_to_patches_keep_the_other_patch_settings():
    settings = TrainingSettings(patches=PatchSettings(margin=2.0)).changed(patches={"context": "hide"}, epochs=3)
    assert (settings.patches.margin, settings.patches.context, settings.epochs) == (2.0, "hide", 3)


@pytest.mark.parametrize("model", [TrainingSettings, MeasureSettings])
def test_a_cue_added_in_a_later_version_counts_as_allowed_in_older_settings(model, monkeypatch):
    stored = model(may_use=["size", "orientation"]).to_json()

    monkeypatch.setattr(settings_module, "CUES", (*settings_module.CUES, "texture"))
    assert parse_allowed_cues(json.loads(stored)["may_use"]) == {"size", "orientation", "texture"}


def test_settings_of_version_0_1_0_list_the_allowed_cues():
    settings = TrainingSettings.from_json('{"may_use": ["size"], "measurements": {"may_use": ["orientation"]}}')
    assert settings.may_use == {"size"}
    assert settings.measurements.may_use == {"orientation"}


def test_an_unlisted_cue_is_refused_in_a_call():
    with pytest.raises(SettingsError, match="'may_use' cannot be 'texture'"):
        TrainingSettings(may_use=["texture"])


def test_settings_are_read_without_torch():
    code = "import svetlana_jupyter.core.settings, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
