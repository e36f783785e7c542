"""Settings go to JSON and back, and refuse what they do not know in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from svetlana_jupyter.core.settings import (
    PRESET_DESCRIPTIONS,
    PRESET_NAMES,
    PRESETS,
    AugmentSettings,
    PatchSettings,
    TrainingSettings,
)
from svetlana_jupyter.errors import SettingsError


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
def test_what_is_not_counted_survives_json_and_another_preset(size):
    settings = TrainingSettings(size=size, exclude_border=True)
    assert TrainingSettings.from_json(settings.to_json()) == settings
    other = settings.changed(preset="paper")
    assert (other.size, other.exclude_border) == (size, True) and other.optimizer == "adam"


@pytest.mark.parametrize("size", [(9, 3), (-1, None), (None, -2)])
def test_a_size_range_that_is_none_is_refused(size):
    with pytest.raises(SettingsError, match="the least and the most pixels"):
        TrainingSettings(size=size)


def test_the_json_names_every_setting_with_its_default():
    written = json.loads(TrainingSettings().to_json())
    assert set(written) == set(TrainingSettings.model_fields)
    assert set(written["patches"]) == set(PatchSettings.model_fields)
    assert set(written["augmentation"]) == set(AugmentSettings.model_fields)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 3}, ["'epoch'", "did you mean 'epochs'"]),
        ({"patches": {"normalise": "max"}}, ["'normalise'", "did you mean 'normalize'"]),
        ({"zzz": 3}, ["'zzz'", "known are preset, may_use"]),
        ({"width": 0}, ["'width'", "0", "greater than or equal to 1"]),
        ({"architecture": "resnet9000"}, ["'resnet9000'", "did you mean 'resnet"]),
        ({"architecture": "no such"}, ["known are small_cnn, resnet18, "]),
        ({"architecture": "os.path:"}, ["'os.path:'"]),
        ({"patches": {"size": (1, 2, 3, 4)}}, ["size must be one number or one for each"]),
        ({"patches": {"sampling": 2}}, ["sampling must be at least 4, got 2"]),
        ({"betas": (0.9, 1.5)}, ["betas must be at least 0 and below 1"]),
        ({"learning_rate": float("nan")}, ["'learning_rate'"]),
        ({"class_weights": {1: 0.0}}, ["class_weights must be more than 0"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(values, words):
    with pytest.raises(SettingsError) as caught:
        TrainingSettings(**values)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "word"), [("{", "line 1"), ("[1]", "JSON object"), ('{"epohcs": 3}', "'epochs'")])
def test_json_edited_by_hand_is_refused_with_what_is_wrong(text, word):
    with pytest.raises(SettingsError, match=word):
        TrainingSettings.from_json(text)


def test_an_unknown_preset_is_refused_with_the_nearest_one():
    with pytest.raises(SettingsError, match="did you mean 'default'"):
        TrainingSettings.from_preset("defualt")


def test_a_preset_gives_what_is_not_given_and_another_one_begins_anew():
    assert TrainingSettings(preset="texture", seed=3) == TrainingSettings.from_preset("texture", seed=3)
    mixed = TrainingSettings(preset="object", patches={"dilation": 5})
    assert (mixed.patches.context, mixed.patches.dilation) == ("hide", 5)
    assert mixed.changed(preset="oriented") == TrainingSettings.from_preset("oriented")
    assert mixed.changed(may_use=["size"]).changed(preset="oriented").may_use == {"size"}
    assert mixed.changed(preset="object", epochs=3).patches.dilation == 5


def test_every_preset_says_what_it_is():
    assert set(PRESET_DESCRIPTIONS) == set(PRESETS)


def test_by_default_the_preset_is_searched_for_and_begins_with_the_values_of_the_default_one():
    assert TrainingSettings().preset == "auto"
    found, usual = TrainingSettings().model_dump(), TrainingSettings(preset="default").model_dump()
    assert {name for name in found if found[name] != usual[name]} == {"preset"}


def test_changes_to_patches_keep_the_other_patch_settings():
    settings = TrainingSettings(patches=PatchSettings(margin=2.0)).changed(patches={"context": "hide"}, epochs=3)
    assert (settings.patches.margin, settings.patches.context, settings.epochs) == (2.0, "hide", 3)


def test_settings_are_read_without_torch():
    code = "import svetlana_jupyter.core.settings, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
