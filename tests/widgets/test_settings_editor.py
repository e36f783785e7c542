"""Tests of the settings editor: controls and JSON agree with each other, with the file and with a second panel."""

from __future__ import annotations

import asyncio
import json

import pytest
from ipywidgets import Checkbox, Combobox, Dropdown, FloatText, IntText, Text

from svetlana_jupyter.core.settings import NESTED_SETTINGS, TrainingSettings
from svetlana_jupyter.widgets import scheduling
from svetlana_jupyter.widgets.components import StatusLine
from svetlana_jupyter.widgets.settings_editor import CONTROLS, JSON, SettingsEditor, explanation, setting_fields


@pytest.fixture
def editor(project):
    made = SettingsEditor(project, StatusLine())
    yield made
    made.close()


def flatten(values: dict, prefix: str = "") -> dict:
    """Return nested settings by path."""
    result = {}
    for key, value in values.items():
        result |= flatten(value, f"{key}.") if key in NESTED_SETTINGS else {f"{prefix}{key}": value}
    return result


def nest(path: str, value: object) -> dict:
    first, _, second = path.partition(".")
    return {first: {second: value} if second else value}


def test_every_listed_setting_has_a_control(editor):
    assert list(editor.form.fields) == [path for paths in CONTROLS.values() for path in paths]
    assert set(editor.form.fields) <= set(setting_fields())


def test_every_setting_is_explained_below_the_json(editor):
    assert list(setting_fields()) == list(flatten(TrainingSettings().model_dump()))
    for path in setting_fields():
        assert explanation(path), f"{path} has no description"
        assert f"<td>{path}</td>" in editor.json.help.value
    assert editor.json.help.value.startswith("<details>"), "it is folded"


def test_each_control_fits_the_type_and_shows_the_default(editor):
    fields = editor.form.fields
    kinds = {
        "epochs": IntText,
        "learning_rate": FloatText,
        "exclude_border": Checkbox,
        "patches.context": Dropdown,
        "architecture": Combobox,
        "patches.size": Text,
        "class_weights": Text,
    }
    assert {path: type(fields[path].control) for path in kinds} == kinds
    for path, field in fields.items():
        assert TrainingSettings().changed(**nest(path, field.value)) == TrainingSettings(), path


@pytest.mark.parametrize(
    ("path", "value", "kept"),
    [
        ("epochs", 7, 7),
        ("learning_rate", 0.01, 0.01),
        ("patches.context", "hide", "hide"),
        ("augmentation.flips", False, False),
        ("exclude_border", True, True),
        ("patches.size", "64", 64.0),
        ("patches.size", "32, 48", (32.0, 48.0)),
        ("class_weights", "balanced", "balanced"),
        ("class_weights", '{"1": 2.5}', {1: 2.5}),
        ("architecture", "forest", "forest"),
        ("augmentation.rotation", "free", "free"),
        ("seed", 3, 3),
    ],
)
def test_a_control_changes_the_settings_of_the_project(editor, project, path, value, kept):
    editor.form.fields[path].control.value = value
    assert flatten(project.settings.model_dump())[path] == kept
    assert flatten(json.loads(editor.json.text.value))[path] == json.loads(json.dumps(kept))
    assert "sv-own" in editor.form.fields[path].label.value, "values that differ from the preset are marked"
    assert editor.form.message.layout.display == "none"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("epochs", 0, "epochs"),
        ("architecture", "fores", "forest"),
        ("preset", "textur", "Did you mean 'texture'?"),
        ("patches.size", "wide", "size"),
        ("patches.size", "1, 2, 3, 4", "must be one number"),
        ("class_weights", '{"1": -1}', "must be more than 0"),
    ],
)
def test_a_refused_value_is_explained_and_changes_nothing(editor, project, path, value, message):
    editor.form.fields[path].control.value = value
    assert message in editor.form.message.value.replace("&#x27;", "'")
    assert editor.form.message.layout.display is None
    assert "sv-wrong" in editor.form.fields[path]._dom_classes
    assert project.settings == TrainingSettings()
    editor.form.fields["seed"].control.value = 5
    assert editor.form.message.layout.display == "none"
    assert "sv-wrong" not in editor.form.fields[path]._dom_classes
    assert project.settings == TrainingSettings(seed=5), "the refused value is gone"


def test_another_preset_replaces_all_values(editor, project):
    editor.form.fields["epochs"].control.value = 7
    editor.form.fields["preset"].control.value = "paper"
    assert project.settings == TrainingSettings.from_preset("paper")
    assert editor.form.fields["epochs"].value == 200
    assert "sv-own" not in editor.form.fields["epochs"].label.value


def test_changed_settings_without_a_control_are_listed(editor, project):
    assert editor.form.others.layout.display == "none"
    project.settings = project.settings.changed(width=8, patches={"mask_channel": False}, may_use=["size"])
    editor.show()
    assert "Also changed: patches.mask_channel, width." in editor.form.others.value
    editor.form.fields["preset"].control.value = "paper"
    assert editor.form.others.layout.display == "none"


def test_labels_and_controls_show_the_explanation_as_a_tooltip(editor):
    field = editor.form.fields["patches.context"]
    assert 'title="Use of the surroundings. &quot;keep&quot; shows them' in field.label.value
    assert field.control.tooltip == explanation("patches.context")


def test_a_size_range_is_a_pair_and_empty_text_means_no_limit(editor, project):
    field = editor.form.fields["size"]
    for text, size in (("50, none", (50, None)), ("None,9.5", (None, 9.5)), ("", None)):
        field.control.value = text
        assert project.settings.size == size
        assert editor.form.message.layout.display == "none"
    field.control.value = "9, 3"
    assert "the minimum and maximum pixels" in editor.form.message.value
    assert project.settings.size is None
    editor.form.fields["exclude_border"].control.value = True
    assert project.settings.exclude_border


def test_json_is_validated_while_typing_and_used_by_apply(editor, project):
    assert editor.json.apply.disabled
    assert "in use" in editor.json.message.value
    changed = json.loads(editor.json.text.value) | {"epochs": 11, "width": 8}
    editor.json.text.value = json.dumps(changed)
    assert "Valid" in editor.json.message.value
    assert project.settings == TrainingSettings()
    editor.json.apply.click()
    assert project.settings == TrainingSettings(epochs=11, width=8)
    assert editor.form.fields["epochs"].value == 11
    assert editor.json.apply.disabled
    assert editor.json.text.value == project.settings.to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"epocs": 11}', "Did you mean 'epochs'?"),
        ('{"patches": {"contxt": "hide"}}', "Did you mean 'context'?"),
        ("{", "valid JSON at line 1"),
        ("[]", "JSON object in braces"),
        ('{"epochs": 0}', "epochs"),
        ('{"betas": [0.8]}', "betas"),
        ('{"augmentation": {"pipeline": {"transform": 1}}}', "albumentations.to_dict"),
    ],
)
def test_invalid_json_is_explained_and_cannot_be_applied(editor, project, text, message):
    editor.json.text.value = text
    assert message in editor.json.message.value.replace("&#x27;", "'")
    assert editor.json.apply.disabled
    assert not editor.json.revert.disabled
    assert project.settings == TrainingSettings()
    editor.json.revert.click()
    assert editor.json.text.value == TrainingSettings().to_json()
    assert editor.json.revert.disabled


def test_a_draft_survives_a_change_of_the_settings(editor, project):
    draft = editor.json.text.value.replace('"seed": 0', '"seed": 9')
    editor.json.text.value = draft
    editor.form.fields["epochs"].control.value = 7
    assert editor.json.text.value == draft
    assert "have changed" in editor.json.message.value
    editor.json.revert.click()
    assert json.loads(editor.json.text.value)["epochs"] == 7


def test_changes_of_the_settings_file_are_shown(editor, project):
    file = project.path / "training.json"
    file.write_text(file.read_text().replace('"epochs": 40', '"epochs": 12'))
    editor.file_watcher.check()
    assert editor.form.fields["epochs"].value == 12
    assert '"epochs": 12' in editor.json.text.value
    changes = []
    editor.observe(lambda change: changes.append(change["new"]), "used")
    file.write_text(file.read_text().replace('"epochs"', '"epocs"'))
    editor.file_watcher.check()
    assert editor.view.value == JSON
    assert "Did you mean &#x27;epochs&#x27;?" in editor.json.message.value
    assert "training.json" in editor._status.text
    assert changes == [None]
    editor.json.text.value = editor.json.text.value.replace("epocs", "epochs")
    editor.json.apply.click()
    assert project.settings.epochs == 12
    assert changes[-1].epochs == 12


def test_a_second_panel_shows_the_change(project, monkeypatch):
    monkeypatch.setattr(scheduling, "POLL_SECONDS", 0.01)

    async def change():
        first, second = SettingsEditor(project, StatusLine()), SettingsEditor(project, StatusLine())
        changed = asyncio.Event()
        second.observe(lambda _: changed.set(), "used")
        first.form.fields["epochs"].control.value = 7
        await asyncio.wait_for(changed.wait(), 30)
        assert second.form.fields["epochs"].value == 7
        first.close()
        second.close()

    asyncio.run(change())


def test_a_full_disk_is_reported_and_nothing_changes(project, monkeypatch):
    editor = SettingsEditor(project, StatusLine())

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("svetlana_jupyter.project.storage.os.replace", no_room)
    editor.form.fields["epochs"].control.value = 7
    assert "No space left" in editor.form.message.value
    editor.json.text.value = editor.json.text.value.replace('"seed": 0', '"seed": 9')
    editor.json.apply.click()
    assert "No space left" in editor.json.message.value
    assert project.settings == TrainingSettings()
