"""Every setting as a control and as JSON: the same on both sides, in the file, and in a second panel."""

from __future__ import annotations

import asyncio
import json

import pytest
from ipywidgets import Checkbox, Combobox, Dropdown, FloatText, IntText, Text, Textarea

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.widgets import scheduling as file_watch
from svetlana_jupyter.widgets.components import StatusLine
from svetlana_jupyter.widgets.settings_editor import (
    GROUPS,
    HIDDEN_SETTINGS,
    JSON,
    OTHER_GROUP,
    SettingsEditor,
    grouped,
    leaves,
)


@pytest.fixture
def view(project):
    made = SettingsEditor(project, StatusLine())
    yield made
    made.close()


def flat(values: dict, prefix: str = "") -> dict:
    """Return nested settings by path."""
    result = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and f"{prefix}{key}" in ("patches", "augmentation", "measurements")
        result |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return result


def test_every_setting_of_the_model_has_a_control_and_stands_in_a_group(view):
    paths = set(flat(TrainingSettings().model_dump()))
    assert set(view.form.fields) == paths - set(HIDDEN_SETTINGS)
    groups = grouped([leaf for leaf in leaves(TrainingSettings) if leaf.path not in HIDDEN_SETTINGS])
    assert sum(map(len, groups.values())) == len(view.form.fields)
    assert OTHER_GROUP not in groups, f"settings without a group: {groups.get(OTHER_GROUP)}"
    assert list(groups) == list(GROUPS)


def test_each_control_fits_the_type_and_shows_the_default(view):
    fields = view.form.fields
    kinds = {
        "epochs": IntText,
        "learning_rate": FloatText,
        "patches.mask_channel": Checkbox,
        "patches.context": Dropdown,
        "architecture": Combobox,
        "patches.size": Text,
        "augmentation.pipeline": Textarea,
    }
    assert {path: type(fields[path].control) for path in kinds} == kinds
    values = flat(TrainingSettings().model_dump(mode="json"))
    shown = {path: field.value for path, field in fields.items()}
    for path, value in shown.items():
        assert TrainingSettings().changed(**nested(path, value)) == TrainingSettings(), (path, value, values[path])


def nested(path: str, value: object) -> dict:
    first, _, second = path.partition(".")
    return {first: {second: value} if second else value}


@pytest.mark.parametrize(
    ("path", "value", "kept"),
    [
        ("epochs", 7, 7),
        ("learning_rate", 0.01, 0.01),
        ("patches.context", "hide", "hide"),
        ("patches.mask_channel", False, False),
        ("patches.size", "64", 64.0),
        ("patches.size", "32, 48", (32.0, 48.0)),
        ("patches.sampling", "24", 24),
        ("steps", "none", None),
        ("betas", "0.8, 0.99", (0.8, 0.99)),
        ("class_weights", "balanced", "balanced"),
        ("class_weights", '{"1": 2.5}', {1: 2.5}),
        ("architecture", "forest", "forest"),
        ("augmentation.rotation", "free", "free"),
        ("seed", 3, 3),
    ],
)
def test_a_control_changes_the_settings_of_the_project(view, project, path, value, kept):
    view.form.fields[path].control.value = value
    found = project.settings
    for name in path.split("."):
        found = getattr(found, name)
    assert found == kept
    assert flat(json.loads(view.json.text.value))[path] == json.loads(json.dumps(kept))
    assert "sv-own" in view.form.fields[path].label.value, "it differs from the preset, and is marked"
    assert view.form.says.layout.display == "none"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("epochs", 0, "epochs"),
        ("architecture", "fores", "forest"),
        ("preset", "textur", "Did you mean 'texture'?"),
        ("patches.size", "wide", "size"),
        ("patches.size", "1, 2, 3, 4", "must be one number"),
        ("betas", "0.8", "betas"),
        ("class_weights", '{"1": -1}', "must be more than 0"),
        ("augmentation.pipeline", '{"transform": 1}', "albumentations.to_dict"),
    ],
)
def test_what_cannot_be_is_said_below_the_controls_and_changes_nothing(view, project, path, value, said):
    view.form.fields[path].control.value = value
    assert said in view.form.says.value.replace("&#x27;", "'")
    assert view.form.says.layout.display is None
    assert "sv-wrong" in view.form.fields[path]._dom_classes
    assert project.settings == TrainingSettings()
    view.form.fields["seed"].control.value = 5
    assert view.form.says.layout.display == "none" and "sv-wrong" not in view.form.fields[path]._dom_classes
    assert project.settings == TrainingSettings(seed=5), "what was refused is gone"


def test_another_preset_begins_anew_with_its_own_values(view, project):
    view.form.fields["epochs"].control.value = 7
    view.form.fields["preset"].control.value = "paper"
    assert project.settings == TrainingSettings.from_preset("paper")
    assert view.form.fields["width"].value == 32
    assert "sv-own" not in view.form.fields["width"].label.value


def test_the_name_of_a_setting_says_what_its_documentation_says(view):
    assert (
        'title="Give the object&#x27;s own mask as the last channel'
        in view.form.fields["patches.mask_channel"].label.value
    )
    assert "Blocks of" in view.form.fields["depth"].control.tooltip
    assert all(leaf.text for leaf in leaves(TrainingSettings)), "every setting is explained"


def test_a_size_range_is_written_as_a_pair_and_nothing_is_no_bound(view, project):
    field = view.form.fields["size"]
    for text, size in (("50, none", (50, None)), ("None,9.5", (None, 9.5)), ("", None)):
        field.control.value = text
        assert project.settings.size == size and view.form.says.layout.display == "none"
    field.control.value = "9, 3"
    assert "the minimum and maximum pixels" in view.form.says.value and project.settings.size is None
    view.form.fields["exclude_border"].control.value = True
    assert project.settings.exclude_border


def test_json_is_checked_while_one_types_and_used_by_apply(view, project):
    assert view.json.apply.disabled and "in use" in view.json.says.value
    changed = json.loads(view.json.text.value) | {"epochs": 11, "width": 8}
    view.json.text.value = json.dumps(changed)
    assert "Valid" in view.json.says.value and project.settings == TrainingSettings()
    view.json.apply.click()
    assert project.settings == TrainingSettings(epochs=11, width=8)
    assert view.form.fields["epochs"].value == 11
    assert view.json.apply.disabled and view.json.text.value == project.settings.to_json()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"epocs": 11}', "Did you mean 'epochs'?"),
        ('{"patches": {"contxt": "hide"}}', "Did you mean 'context'?"),
        ("{", "valid JSON at line 1"),
        ("[]", "JSON object in braces"),
        ('{"epochs": 0}', "epochs"),
    ],
)
def test_a_wrong_text_is_named_below_it_and_cannot_be_applied(view, project, text, said):
    view.json.text.value = text
    assert said in view.json.says.value.replace("&#x27;", "'")
    assert view.json.apply.disabled and not view.json.revert.disabled
    assert project.settings == TrainingSettings()
    view.json.revert.click()
    assert view.json.text.value == TrainingSettings().to_json() and view.json.revert.disabled


def test_a_text_that_is_not_applied_survives_a_change_elsewhere(view, project):
    draft = view.json.text.value.replace('"seed": 0', '"seed": 9')
    view.json.text.value = draft
    view.form.fields["epochs"].control.value = 7
    assert view.json.text.value == draft
    assert "have changed meanwhile" in view.json.says.value
    view.json.revert.click()
    assert json.loads(view.json.text.value)["epochs"] == 7


def test_a_file_edited_by_hand_is_followed(view, project):
    file = project.path / "training.json"
    file.write_text(file.read_text().replace('"epochs": 40', '"epochs": 12'))
    view.watch.look()
    assert view.form.fields["epochs"].value == 12 and '"epochs": 12' in view.json.text.value
    changes = []
    view.on_change(lambda: changes.append(view.used))
    file.write_text(file.read_text().replace('"epochs"', '"epocs"'))
    view.watch.look()
    assert view.view.value == JSON and "Did you mean &#x27;epochs&#x27;?" in view.json.says.value
    assert "training.json" in view._status.text and changes == [None]
    view.json.text.value = view.json.text.value.replace("epocs", "epochs")
    view.json.apply.click()
    assert project.settings.epochs == 12 and changes[-1].epochs == 12


def test_a_second_panel_follows_within_a_moment(project, monkeypatch):
    monkeypatch.setattr(file_watch, "EVERY", 0.01)

    async def change():
        first, second = SettingsEditor(project, StatusLine()), SettingsEditor(project, StatusLine())
        followed = asyncio.Event()
        second.on_change(followed.set)
        first.form.fields["epochs"].control.value = 7
        await asyncio.wait_for(followed.wait(), 30)
        assert second.form.fields["epochs"].value == 7
        first.close()
        second.close()

    asyncio.run(change())


def test_a_disk_that_is_full_is_said_and_nothing_changes(project, monkeypatch):
    view = SettingsEditor(project, StatusLine())

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("svetlana_jupyter.project.storage.os.replace", no_room)
    view.form.fields["epochs"].control.value = 7
    assert "No space left" in view.form.says.value
    view.json.text.value = view.json.text.value.replace('"seed": 0', '"seed": 9')
    view.json.apply.click()
    assert "No space left" in view.json.says.value
    assert project.settings == TrainingSettings()
