"""Tests of the training panel: cue checkboxes, training in the background, curves, scores, runs and preview."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile

from svetlana_jupyter.core import allowed_cues
from svetlana_jupyter.core.settings import PRESET_DESCRIPTIONS, TrainingSettings
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.training_panel import (
    CUE_TEXTS,
    ExampleObject,
    TrainingPanel,
    builtin_example,
    cue_images,
    find_example,
)
from svetlana_jupyter.widgets.training_results import score_cards
from tests.widgets.conftest import squares

ALL = frozenset({"surroundings", "brightness", "orientation", "size"})


@pytest.fixture
def example():
    """A gray ramp on a uniform background, in the middle of the picture."""
    pixels = np.full((84, 84, 3), 40, np.uint8)
    own = np.zeros((84, 84), bool)
    own[30:50, 36:60] = True
    pixels[own] = np.tile(np.arange(100, 220, 5, dtype=np.uint8)[:, None], (20, 3))
    return ExampleObject(pixels, own)


def decode(data: bytes) -> np.ndarray:
    return iio.imread(data, mode="RGB").astype(int)


def test_all_cues_are_allowed_at_first(project):
    panel = TrainingPanel(project)
    assert {name for name, *_ in CUE_TEXTS} == ALL == TrainingSettings().may_use
    assert panel.cues.checked == ALL


@pytest.mark.parametrize("name", sorted(ALL))
def test_clearing_a_box_excludes_the_cue_and_checking_allows_it_again(project, name):
    panel = TrainingPanel(project)
    panel.cues.boxes[name].checkbox.value = False
    assert project.settings.may_use == ALL - {name}
    assert f"The classifier must not use {name}." in panel.settings.cue_note.value
    panel.cues.boxes[name].checkbox.value = True
    assert project.settings == TrainingSettings()
    assert panel.settings.cue_note.layout.display == "none"


def test_boxes_follow_the_json_editor_and_another_panel(project):
    panel, other = TrainingPanel(project), TrainingPanel(project)
    panel.settings.json.text.value = TrainingSettings(may_use=["size", "orientation"]).to_json()
    panel.settings.json.apply.click()
    assert panel.cues.checked == {"size", "orientation"}
    other.settings.file_watcher.check()
    assert other.cues.checked == {"size", "orientation"}


def test_a_box_is_restored_if_the_settings_cannot_be_saved(project, monkeypatch):
    panel = TrainingPanel(project)

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("svetlana_jupyter.project.storage.os.replace", no_room)
    panel.cues.boxes["size"].checkbox.value = False
    assert "No space left" in panel.status.text
    assert panel.cues.checked == ALL


def test_each_card_shows_pictures_of_an_object_of_the_project(annotated):
    panel = TrainingPanel(annotated)
    for name, box in panel.cues.boxes.items():
        card = box.card.value
        assert card.count("<img") == {"surroundings": 2}.get(name, 4)
        data = [base64.b64decode(text) for text in re.findall(r"base64,([^\"]+)", card)]
        assert data[0] == cue_images(find_example(annotated), name)[0]
        assert "<b>If cleared</b>" in card
        assert box.checkbox.tooltip in card


def test_surroundings_card_shows_the_object_alone(example):
    before, (after,) = decode_images(example, "surroundings")
    assert (after[30:50, 36:60] == before[30:50, 36:60]).all()
    outside = np.ones((84, 84), bool)
    outside[30:50, 36:60] = False
    assert (after[outside] == 128).all()


def test_brightness_card_shows_dark_and_bright_gray_images(example):
    _, after = decode_images(example, "brightness")
    means = [picture[30:50, 36:60].mean() for picture in after]
    assert means[0] < means[1] - 20 < means[2] - 40
    assert all((picture == picture[..., :1]).all() for picture in after), "color is brightness per channel"


def test_orientation_card_shows_rotated_and_mirrored_images(example):
    before, after = decode_images(example, "orientation")
    assert (after[-1] == before[:, ::-1]).all()
    assert not any((picture == before).all() for picture in after)


def test_size_card_shows_small_and_large_images(example):
    before, after = decode_images(example, "size")
    sizes = [(picture[..., 0] > 90).sum() for picture in after]
    assert (after[1] == before).all()
    assert sizes[0] < 0.5 * sizes[1]
    assert sizes[2] > 2 * sizes[1]


def decode_images(example: ExampleObject, name: str) -> tuple[np.ndarray, list[np.ndarray]]:
    before, after = cue_images(example, name)
    return decode(before), [decode(image) for image in after]


def test_a_sample_object_is_shown_while_the_project_has_none(empty, project):
    sample = builtin_example().pixels
    assert (find_example(empty).pixels == sample).all()
    assert (find_example(project).pixels == sample).all(), "an explanation does not index images"
    project.objects("left")
    assert find_example(project).pixels.shape != sample.shape or (find_example(project).pixels != sample).any()


def test_cards_are_drawn_although_an_image_is_missing(tmp_path, empty):
    image, mask = squares(0)
    tifffile.imwrite(tmp_path / "a.tif", image)
    tifffile.imwrite(tmp_path / "m.tif", mask)
    empty.add("a", tmp_path / "a.tif", tmp_path / "m.tif")
    empty.classes.add("one")
    empty.annotate("a", 1, "one")
    (tmp_path / "a.tif").unlink()
    again = type(empty)(empty.path)
    panel = TrainingPanel(again)
    assert "<img" in panel.cues.boxes["size"].card.value


@pytest.fixture
def quick(annotated):
    """A project with annotations and settings that train fast."""
    annotated.settings = annotated.settings.changed(preset="default", epochs=3, steps=2, width=4, folds=2, trees=10)
    return annotated


def test_train_is_disabled_until_two_classes_are_annotated(project):
    panel = TrainingPanel(project)
    assert panel.train.disabled
    assert project.readiness() in panel.readiness.value
    project.annotate("left", 1, "bright")
    assert "only bright has some" in panel.readiness.value
    project.annotate("left", 2, "dark")
    assert not panel.train.disabled
    assert panel.readiness.layout.display == "none"
    assert project.readiness() == ""


def test_no_curves_are_shown_before_the_first_training(annotated):
    panel = TrainingPanel(annotated)
    assert "No classifier yet" in panel.result.cards.value
    assert panel.curves.layout.display == "none"
    assert panel.result.tables.value == ""
    assert "No runs yet" in panel.runs.children[0].value


def test_train_runs_on_a_thread_and_adds_curves_scores_and_a_run(quick, finish):
    panel = TrainingPanel(quick)
    panel.train.click()
    assert panel.train.disabled
    finish(quick)
    assert panel.status.text == quick.status != ""
    assert quick.trouble == ""
    assert "polyline" in panel.curves.value
    assert panel.curves.layout.display is None
    report = quick.evaluate()
    for scores in (report.network, report.forest):
        assert f"<b>{100 * scores.accuracy.value:.0f} %</b>" in panel.result.cards.value
    assert "Random forest on measured features" in panel.result.cards.value
    assert not panel.train.disabled
    assert panel.runs.button("0001").icon == "dot-circle-o"
    assert panel.job.layout.visibility == "hidden"


def test_the_confusion_matrix_has_a_tooltip_per_cell(trained):
    panel = TrainingPanel(trained)
    confusion = trained.evaluate().network.confusion
    tables = panel.result.tables.value
    for truth in confusion.index:
        for predicted in confusion.columns:
            count, total = confusion.loc[truth, predicted], confusion.loc[truth].sum()
            assert f'title="{count} of {total} {truth} predicted as {predicted}">' in tables
    assert "<th>Recall</th><th>Precision</th>" in tables


def test_the_button_of_a_run_selects_it(trained):
    trained.train(preset="default", epochs=2, folds=2, trees=20)
    panel = TrainingPanel(trained)
    assert trained.current_run == "0002"
    panel.runs.button("0001").click()
    assert trained.current_run == "0001"
    assert panel.runs.button("0001").icon == "dot-circle-o"
    assert panel.runs.button("0002").icon == "circle-o"


def test_a_training_that_cannot_start_shows_the_reason(project):
    panel = TrainingPanel(project)
    panel.train.disabled = False  # as for a click that was sent before the button was disabled
    panel.train.click()
    assert panel.status.text == project.readiness()
    assert project.job is None


def test_two_panels_show_a_run_trained_by_a_script(quick):
    panel, other = TrainingPanel(quick), TrainingPanel(quick)
    quick.train(epochs=2)
    assert panel.result.cards.value == other.result.cards.value
    assert panel.runs.button("0001").icon == "dot-circle-o"


def test_training_uses_the_values_of_the_controls(quick, finish):
    panel = TrainingPanel(quick)
    panel.settings.form.fields["epochs"].control.value = 2
    panel.settings.form.fields["seed"].control.value = 4
    panel.train.click()
    finish(quick)
    assert (quick.runs.current.settings["epochs"], quick.runs.current.settings["seed"]) == (2, 4)
    assert len(quick.runs.current.history) == 2


def test_an_invalid_settings_file_can_be_repaired_in_the_panel(quick):
    file = quick.path / "training.json"
    file.write_text('{"epocs": 3}')
    panel = TrainingPanel(quick)
    assert "Did you mean &#x27;epochs&#x27;?" in panel.settings.json.message.value
    panel.train.click()
    assert "Did you mean 'epochs'?" in panel.status.text
    assert quick.job is None
    panel.settings.json.text.value = '{"epochs": 3}'
    panel.settings.json.apply.click()
    assert quick.settings == TrainingSettings(epochs=3)
    assert json.loads(file.read_text())["epochs"] == 3


def test_the_preview_shows_eight_patches_of_the_object_annotated_last(quick):
    panel = TrainingPanel(quick)
    assert panel.preview.pictures.value == "", "the section is closed"
    panel.open_section("Augmentation preview")
    assert panel.preview.pictures.value.count("<img") == 8
    assert "Object 12 in left. Training treats all of these patches as the same object." in panel.preview.message.value
    before = panel.preview.pictures.value
    panel.settings.form.fields["augmentation.rotation"].control.value = "free"
    assert panel.preview.pictures.value != before, "they follow the settings"
    panel.preview.another.click()
    assert "Object 1 in left" in panel.preview.message.value
    quick.annotate("right", 5, "bright")
    assert "Object 1 in left" in panel.preview.message.value, "the second of the list: 5 in right comes first now"
    panel.settings.json.text.value = TrainingSettings(
        augmentation={"flips": False, "rotation": "none", "brightness": 0, "noise": 0}
    ).to_json()
    panel.settings.json.apply.click()
    assert "Augmentation is off" in panel.preview.message.value


def test_without_objects_the_preview_asks_for_an_annotation(empty):
    panel = TrainingPanel(empty)
    panel.open_section("Augmentation preview")
    assert "Annotate an object" in panel.preview.message.value
    assert panel.preview.another.disabled


def test_a_stopped_run_without_scores_shows_no_tables(quick, finish):
    panel = TrainingPanel(quick)
    panel.train.click()
    panel.job.stop.click()
    finish(quick)
    if quick.current_run:
        assert quick.evaluate().source == "no estimate yet"
        assert "Not known yet" in panel.result.cards.value or "stopped" in panel.result.cards.value
        assert panel.result.tables.value == ""


def test_a_live_classifier_is_not_called_a_network(annotated):
    annotated.train(preset="live", folds=2)
    assert annotated.evaluate().network is not None  # which waits for the score
    panel = TrainingPanel(annotated)
    assert "Live classifier" in panel.result.cards.value
    assert "Random forest on measured features" in panel.result.cards.value
    assert "This network" not in panel.result.cards.value
    assert not annotated.runs.current.has_network
    assert panel.curves.value == ""


def test_a_forest_without_a_score_says_why_or_is_not_shown(trained):
    report = replace(trained.evaluate(), forest=None)
    assert "Random forest" not in score_cards(report), "as for a score on the test set"
    run = replace(trained.runs.current, missing_scores=["forest"])
    panel = TrainingPanel(trained)
    panel.result._show_evaluation((run, report, ""))
    assert panel.result.compute.layout.display == ""
    assert "not computed yet: press Compute the missing scores" in panel.result.cards.value


@pytest.fixture
def searched(annotated, monkeypatch):
    """A project whose preset was chosen by a search."""
    monkeypatch.setattr(allowed_cues, "CANDIDATE_PRESETS", ("default", "plain", "forest"))
    annotated.settings = TrainingSettings(epochs=2, steps=2, width=4, depth=1, folds=2, trees=10)
    annotated.train()
    return annotated


def test_search_results_are_listed_and_the_chosen_preset_is_marked(searched):
    panel, run = TrainingPanel(searched), searched.runs.current
    shown, tried = panel.result.search_results.value, run.search_results()
    assert run.choice in shown
    assert "(nested cross-validation)" in shown
    rows = re.findall(
        r"<tr( class=\"sv-current\")?><td>(\w+)</td><td>.*?</td><td>([^<]*)</td>.*?<td>(\w*)</td></tr>", shown
    )
    assert [row[1] for row in rows] == list(tried.index)
    assert [row[2] for row in rows] == [f"{100 * value:.0f} %" for value in tried["accuracy"]]
    assert [row[3] for row in rows if row[0]] == ["chosen"]
    assert rows[0][1] == run.settings["preset"]
    assert all(PRESET_DESCRIPTIONS[name] in shown for name in tried.index)
    assert "2 epochs" in shown
    assert "<td>–</td>" in shown
    assert panel.result.warning.value == ""


def test_search_again_searches_for_a_preset(searched, finish):
    panel = TrainingPanel(searched)
    assert panel.search.layout.display is None
    panel.train.click()
    finish(searched)
    assert "was selected in run 0001" in panel.result.search_results.value
    assert "<table" not in panel.result.search_results.value
    panel.search.click()
    assert panel.search.disabled
    finish(searched)
    assert not searched.runs["0003"].search_results().empty
    assert searched.current_run == "0003"
    panel.settings.form.fields["preset"].control.value = "plain"
    assert panel.search.layout.display == "none"


def test_the_preview_names_the_preset_it_shows(searched):
    panel, chosen = TrainingPanel(searched), searched.runs.current.settings["preset"]
    panel.open_section("Augmentation preview")
    assert f"Shown for {chosen}, the preset chosen last." in panel.preview.message.value
    searched.settings = searched.settings.changed(width=6)
    panel.settings.show()
    assert "Shown for the default preset; the search also compares other presets." in panel.preview.message.value


def test_search_again_is_hidden_before_the_first_search(annotated, trained):
    assert TrainingPanel(annotated).search.layout.display == "none"
    assert TrainingPanel(trained).result.search_results.value == "", "its settings name the preset"


def test_search_notes_warnings_and_remarks_are_escaped(trained):
    texts = {"choice": "<script> default", "warning": "<b>Augmentation</b> destroys", "remarks": ["<i>Memory ran out"]}
    run = replace(trained.runs.current, **texts)
    trained.runs.add(run)
    result = TrainingPanel(trained).result
    assert "&lt;script&gt; default" in result.search_results.value
    assert "<script" not in result.search_results.value
    assert "&lt;b&gt;Augmentation" in result.warning.value
    assert 'role="alert"' in result.warning.value
    assert "&lt;i&gt;Memory ran out" in result.notes.value
    assert "Cross-validation" in result.notes.value


def test_remarks_are_shown_without_scores(trained, monkeypatch):
    trained.runs.update(replace(trained.runs.current, remarks=["Memory ran out."]))
    unscored = replace(trained.evaluate(), network=None)
    monkeypatch.setattr(trained, "evaluate", lambda run: unscored)
    assert "Memory ran out" in TrainingPanel(trained).result.notes.value


def test_preset_names_in_a_search_file_are_escaped(searched):
    file = searched.runs.current.path / "tried.json"
    document = json.loads(file.read_text())
    document["tried"][1]["preset"] = "<script>x</script>"
    file.write_text(json.dumps(document))
    shown = TrainingPanel(searched).result.search_results.value
    assert "<script" not in shown
    assert "&lt;script&gt;x" in shown
    file.write_text("[")
    assert "Remove it; the run itself" in TrainingPanel(searched).result.cards.value


def test_class_names_are_escaped(tmp_path):
    names = ["<script>x</script>", '"quoted" & <b>']
    project = Project(tmp_path / "names.svetlana", classes=names)
    project.add("left", *squares(0), axes="yx")
    for label in range(1, 13):
        project.annotate("left", label, names[label % 2])
    project.train(preset="default", epochs=1, folds=2, trees=20)
    project.evaluate()
    shown = TrainingPanel(project).result.tables.value
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "&lt;script&gt;x&lt;/script&gt;" in shown
    assert 'title="&lt;script&gt;' in shown


def test_a_score_follows_the_training_with_its_progress(quick, monkeypatch):
    quick._jobs.lane.begin_hold()
    panel = TrainingPanel(quick)
    run = quick.train()
    assert "is being scored" in panel.result.cards.value
    assert panel.result.compute.layout.display == "none"
    panel.open_section("Earlier runs")
    assert "scoring …" in panel.runs.children[1].children[1].value
    seen = []
    panel.job.text.observe(lambda change: seen.append(change["new"]), "value")
    quick._jobs.lane.end_hold()
    assert quick._jobs.lane.wait(60)
    assert any("scoring on held-out annotations: " in text and "of 2 folds" in text for text in seen)
    assert panel.job.layout.visibility == "hidden"
    report = quick.evaluate()
    assert f"<b>{100 * report.forest.accuracy.value:.0f} %</b>" in panel.result.cards.value
    assert "scoring" not in panel.runs.children[1].children[1].value
    assert quick.runs[run.name].missing_scores == []


def test_stop_ends_the_scoring_and_a_button_continues_it(quick):
    quick._jobs.lane.begin_hold()
    panel = TrainingPanel(quick)
    quick.train()
    panel.job.stop.click()
    assert "was not scored" in panel.result.cards.value
    assert panel.result.compute.layout.display == ""
    panel.result.compute.click()
    assert "is being scored" in panel.result.cards.value
    quick._jobs.lane.end_hold()
    assert quick._jobs.lane.wait(60)
    assert "<b>" in panel.result.cards.value
    assert panel.result.compute.layout.display == "none"


def test_the_checkbox_switches_training_in_the_background(quick):
    panel = TrainingPanel(quick)
    assert panel.trains.value
    panel.trains.value = False
    assert not quick.live.trains
    quick.live.trains = True
    assert TrainingPanel(quick).trains.value
