"""The four questions: ticked boxes, cards with pictures, and settings that follow.

The training panel: a training on a thread, its curves and scores, the runs, and what each state shows.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest

from svetlana_jupyter.core import allowed_cues as candidates
from svetlana_jupyter.core.settings import PRESET_DESCRIPTIONS, TrainingSettings
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.training_panel import (
    CUE_TEXTS,
    ExampleObject,
    TrainingPanel,
    builtin_example,
    find_example,
    pictures,
)
from tests.widgets.conftest import squares

ALL = frozenset({"surroundings", "brightness", "orientation", "size"})


@pytest.fixture
def example():
    """A ramp of grey on a ground of another one, in the middle of the picture."""
    pixels = np.full((84, 84, 3), 40, np.uint8)
    own = np.zeros((84, 84), bool)
    own[30:50, 36:60] = True
    pixels[own] = np.tile(np.arange(100, 220, 5, dtype=np.uint8)[:, None], (20, 3))
    return ExampleObject(pixels, own)


def decoded(data: bytes) -> np.ndarray:
    return iio.imread(data, mode="RGB").astype(int)


def test_the_four_are_the_evidence_of_the_settings_and_ticked_at_first(project):
    panel = TrainingPanel(project)
    assert {question[0] for question in CUE_TEXTS} == ALL == TrainingSettings().may_use
    assert panel.questions.checked == ALL


@pytest.mark.parametrize("name", sorted(ALL))
def test_unticking_one_takes_it_out_of_the_settings_and_ticking_brings_it_back(project, name):
    panel = TrainingPanel(project)
    panel.questions.questions[name].checkbox.value = False
    assert project.settings.may_use == ALL - {name}
    assert f"Because {name} may not count" in panel.settings.because.value
    panel.questions.questions[name].checkbox.value = True
    assert project.settings == TrainingSettings() and panel.settings.because.value == panel.settings.because.value
    assert panel.settings.because.layout.display == "none"


def test_the_boxes_follow_json_another_panel_and_the_file(project):
    panel, other = TrainingPanel(project), TrainingPanel(project)
    panel.settings.json.text.value = TrainingSettings(may_use=["size", "orientation"]).to_json()
    panel.settings.json.apply.click()
    assert panel.questions.checked == {"size", "orientation"}
    other.settings.watch.look()
    assert other.questions.checked == {"size", "orientation"}


def test_a_box_that_cannot_be_kept_is_as_it_was(project, monkeypatch):
    panel = TrainingPanel(project)

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("svetlana_jupyter.project.storage.os.replace", no_room)
    panel.questions.questions["size"].checkbox.value = False
    assert "No space left" in panel.status.text
    assert panel.questions.checked == ALL


def test_each_card_explains_with_pictures_of_an_object_of_the_project(annotated):
    panel = TrainingPanel(annotated)
    for name, question in panel.questions.questions.items():
        card = question.card.value
        assert card.count("<img") == {"surroundings": 2}.get(name, 4)
        data = [base64.b64decode(found) for found in re.findall(r"base64,([^\"]+)", card)]
        assert data[0] == pictures(find_example(annotated), name)[0]
        assert "<b>Unticked</b>" in card and question.checkbox.tooltip in card


def test_without_surroundings_only_the_object_is_left(example):
    before, (after,) = map_pictures(example, "surroundings")
    assert (after[30:50, 36:60] == before[30:50, 36:60]).all()
    outside = np.ones((84, 84), bool)
    outside[30:50, 36:60] = False
    assert (after[outside] == 128).all()


def test_without_brightness_dark_and_bright_are_the_same(example):
    _, after = map_pictures(example, "brightness")
    means = [picture[30:50, 36:60].mean() for picture in after]
    assert means[0] < means[1] - 20 < means[2] - 40
    assert all((picture == picture[..., :1]).all() for picture in after), "colour is brightness too"


def test_without_orientation_turned_and_mirrored_are_the_same(example):
    before, after = map_pictures(example, "orientation")
    assert (after[-1] == before[:, ::-1]).all()
    assert not any((picture == before).all() for picture in after)


def test_without_size_small_and_large_are_the_same(example):
    before, after = map_pictures(example, "size")
    sizes = [(picture[..., 0] > 90).sum() for picture in after]
    assert (after[1] == before).all() and sizes[0] < 0.5 * sizes[1] and sizes[2] > 2 * sizes[1]


def map_pictures(example: ExampleObject, name: str) -> tuple[np.ndarray, list[np.ndarray]]:
    before, after = pictures(example, name)
    return decoded(before), [decoded(one) for one in after]


def test_an_object_that_comes_with_the_package_stands_in_where_there_is_none(empty, project):
    stands_in = builtin_example().pixels
    assert (find_example(empty).pixels == stands_in).all()
    assert (find_example(project).pixels == stands_in).all(), "nothing is looked for only for a card"
    project.objects("left")
    assert find_example(project).pixels.shape != stands_in.shape or (find_example(project).pixels != stands_in).any()


def test_a_card_draws_all_the_same_when_an_image_is_gone(tmp_path, empty):
    import tifffile

    image, mask = squares(0)
    tifffile.imwrite(tmp_path / "a.tif", image)
    tifffile.imwrite(tmp_path / "m.tif", mask)
    empty.add("a", tmp_path / "a.tif", tmp_path / "m.tif")
    empty.classes.add("one")
    empty.annotate("a", 1, "one")
    (tmp_path / "a.tif").unlink()
    again = type(empty)(empty.path)
    panel = TrainingPanel(again)
    assert "<img" in panel.questions.questions["size"].card.value


@pytest.fixture
def quick(annotated):
    """A project with annotations and settings that train in no time."""
    annotated.settings = annotated.settings.changed(preset="default", epochs=3, trees=20)
    return annotated


def test_what_is_missing_is_said_and_train_waits_for_it(project):
    panel = TrainingPanel(project)
    assert panel.train.disabled
    assert project.readiness() in panel.readiness.value
    project.annotate("left", 1, "bright")
    assert "only bright has some" in panel.readiness.value
    project.annotate("left", 2, "dark")
    assert not panel.train.disabled and panel.readiness.layout.display == "none"
    assert project.readiness() == ""


def test_before_the_first_training_it_says_so_and_shows_no_empty_curves(annotated):
    panel = TrainingPanel(annotated)
    assert "Nothing is trained yet" in panel.result.cards.value
    assert panel.curves.layout.display == "none" and panel.result.tables.value == ""
    assert "There are none yet" in panel.runs.children[0].value


def test_train_runs_on_a_thread_and_ends_with_curve_scores_and_a_run(quick, finish):
    panel = TrainingPanel(quick)
    panel.train.click()
    assert panel.train.disabled
    finish(quick)
    assert panel.status.text == quick.status != ""
    assert quick.trouble == ""
    assert "polyline" in panel.curves.value and panel.curves.layout.display is None
    report = quick.evaluate()
    for scores in (report.network, report.forest):
        assert f"<b>{100 * scores.accuracy.value:.0f} %</b>" in panel.result.cards.value
    assert "Random forest on measurements" in panel.result.cards.value
    assert not panel.train.disabled
    assert panel.runs.button("0001").icon == "dot-circle-o"
    assert panel.job.layout.visibility == "hidden"


def test_the_confusion_matrix_tells_what_was_taken_for_what(trained):
    panel = TrainingPanel(trained)
    confusion = trained.evaluate().network.confusion
    tables = panel.result.tables.value
    for truth in confusion.index:
        for predicted in confusion.columns:
            count, total = confusion.loc[truth, predicted], confusion.loc[truth].sum()
            assert f'title="{count} of {total} {truth} taken for {predicted}">' in tables
    assert "Found (recall)" in tables


def test_another_run_is_put_to_use_by_its_button(trained):
    trained.train(preset="default", epochs=2, trees=20)
    panel = TrainingPanel(trained)
    assert trained.current_run == "0002"
    panel.runs.button("0001").click()
    assert trained.current_run == "0001"
    assert panel.runs.button("0001").icon == "dot-circle-o"
    assert panel.runs.button("0002").icon == "circle-o"


def test_a_training_that_cannot_start_says_why(project):
    panel = TrainingPanel(project)
    panel.train.disabled = False  # a click that was on its way already
    panel.train.click()
    assert panel.status.text == project.readiness()
    assert project.job is None


def test_a_second_panel_and_a_script_see_the_same_run(quick):
    panel, other = TrainingPanel(quick), TrainingPanel(quick)
    quick.train(epochs=2)
    assert panel.result.cards.value == other.result.cards.value
    assert panel.runs.button("0001").icon == "dot-circle-o"


def test_train_uses_what_the_controls_say(quick, finish):
    panel = TrainingPanel(quick)
    panel.settings.form.fields["epochs"].control.value = 2
    panel.settings.form.fields["width"].control.value = 4
    panel.train.click()
    finish(quick)
    assert (quick.runs.current.settings["epochs"], quick.runs.current.settings["width"]) == (2, 4)
    assert len(quick.runs.current.history) == 2


def test_settings_that_are_wrong_in_the_file_are_shown_and_can_be_mended_on_the_panel(quick):
    file = quick.path / "training.json"
    file.write_text('{"epocs": 3}')
    panel = TrainingPanel(quick)
    assert "did you mean &#x27;epochs&#x27;?" in panel.settings.json.says.value
    panel.train.click()
    assert "did you mean 'epochs'?" in panel.status.text and quick.job is None
    panel.settings.json.text.value = '{"epochs": 3}'
    panel.settings.json.apply.click()
    assert quick.settings == TrainingSettings(epochs=3)
    assert json.loads(file.read_text())["epochs"] == 3


def test_eight_patches_of_the_object_annotated_last_are_shown_while_one_looks(quick):
    panel = TrainingPanel(quick)
    assert panel.preview.pictures.value == "", "nobody looks yet"
    panel.open_section("Eight augmented patches")
    assert panel.preview.pictures.value.count("<img") == 8
    assert "Object 12 in left. To the classifier all of these are the same." in panel.preview.said.value
    before = panel.preview.pictures.value
    panel.settings.form.fields["augmentation.rotation"].control.value = "free"
    assert panel.preview.pictures.value != before, "they follow the settings"
    panel.preview.another.click()
    assert "Object 1 in left" in panel.preview.said.value
    quick.annotate("right", 5, "bright")
    assert "Object 5 in right" in panel.preview.said.value or "Object" in panel.preview.said.value
    panel.settings.json.text.value = TrainingSettings(
        augmentation={"flips": False, "rotation": "none", "brightness": 0, "noise": 0}
    ).to_json()
    panel.settings.json.apply.click()
    assert "Nothing is varied" in panel.preview.said.value


def test_without_any_object_the_preview_says_what_to_do(empty):
    panel = TrainingPanel(empty)
    panel.open_section("Eight augmented patches")
    assert "Annotate an object" in panel.preview.said.value and panel.preview.another.disabled


def test_a_run_that_is_not_scored_says_so(quick, finish):
    panel = TrainingPanel(quick)
    panel.train.click()
    panel.job.stop.click()
    finish(quick)
    if quick.current_run:
        assert quick.evaluate().source == "not known yet"
        assert "Not known yet" in panel.result.cards.value or "stopped" in panel.result.cards.value
        assert panel.result.tables.value == ""


@pytest.fixture
def searched(annotated, monkeypatch):
    """A project whose preset was searched for."""
    monkeypatch.setattr(candidates, "CANDIDATE_PRESETS", ("default", "plain", "forest"))
    annotated.settings = TrainingSettings(epochs=2, steps=2, width=4, depth=1, folds=2, trees=10)
    annotated.train()
    return annotated


def test_what_was_tried_stands_under_the_scores_and_the_chosen_one_is_marked(searched):
    panel, run = TrainingPanel(searched), searched.runs.current
    shown, tried = panel.result.tried.value, run.tried()
    assert run.choice in shown and "the score above is that of choosing" in shown
    rows = re.findall(
        r"<tr( class=\"sv-current\")?><td>(\w+)</td><td>.*?</td><td>([^<]*)</td>.*?<td>(\w*)</td></tr>", shown
    )
    assert [row[1] for row in rows] == list(tried.index)
    assert [row[2] for row in rows] == [f"{100 * value:.0f} %" for value in tried["accuracy"]]
    assert [row[3] for row in rows if row[0]] == ["chosen"] and rows[0][1] == run.settings["preset"]
    assert all(PRESET_DESCRIPTIONS[name] in shown for name in tried.index)
    assert "2 epochs" in shown and "<td>–</td>" in shown
    assert panel.result.warning.value == ""


def test_presets_are_tried_anew_by_a_button(searched, finish):
    panel = TrainingPanel(searched)
    assert panel.search.layout.display is None
    panel.train.click()
    finish(searched)
    assert "was chosen in run 0001" in panel.result.tried.value and "<table" not in panel.result.tried.value
    panel.search.click()
    assert panel.search.disabled
    finish(searched)
    assert not searched.runs["0003"].tried().empty and searched.current_run == "0003"
    panel.settings.form.fields["preset"].control.value = "plain"
    assert panel.search.layout.display == "none"


def test_the_preview_says_whose_augmentation_it_shows(searched):
    panel, chosen = TrainingPanel(searched), searched.runs.current.settings["preset"]
    panel.open_section("Eight augmented patches")
    assert f"So it is with {chosen}, the preset that was chosen last." in panel.preview.said.value
    searched.settings = searched.settings.changed(width=6)
    panel.settings.show()
    assert "So it is with the default preset; training tries others too." in panel.preview.said.value


def test_before_a_search_there_is_nothing_to_try_anew(annotated, trained):
    assert TrainingPanel(annotated).search.layout.display == "none"
    assert TrainingPanel(trained).result.tried.value == "", "its settings name the preset"


def test_why_no_preset_was_tried_a_warning_and_remarks_are_said_as_text(trained):
    texts = {"choice": "<script> default", "warning": "<b>Augmentation</b> destroys", "remarks": ["<i>Memory ran out"]}
    run = replace(trained.runs.current, **texts)
    trained.runs.add(run)
    result = TrainingPanel(trained).result
    assert "&lt;script&gt; default" in result.tried.value and "<script" not in result.tried.value
    assert "&lt;b&gt;Augmentation" in result.warning.value and 'role="alert"' in result.warning.value
    assert "&lt;i&gt;Memory ran out" in result.notes.value and "Cross-validation" in result.notes.value


def test_remarks_stay_where_there_is_no_score(trained, monkeypatch):
    trained.runs.update(replace(trained.runs.current, remarks=["Memory ran out."]))
    unscored = replace(trained.evaluate(), network=None)
    monkeypatch.setattr(trained, "evaluate", lambda run: unscored)
    assert "Memory ran out" in TrainingPanel(trained).result.notes.value


def test_names_in_a_file_of_what_was_tried_stay_text(searched):
    file = searched.runs.current.path / "tried.json"
    document = json.loads(file.read_text())
    document["tried"][1]["preset"] = "<script>x</script>"
    file.write_text(json.dumps(document))
    shown = TrainingPanel(searched).result.tried.value
    assert "<script" not in shown and "&lt;script&gt;x" in shown
    file.write_text("[")
    assert "remove that file" in TrainingPanel(searched).result.cards.value


def test_class_names_stay_text(tmp_path):
    from tests.widgets.conftest import squares

    names = ["<script>x</script>", '"quoted" & <b>']
    project = Project(tmp_path / "names.svetlana", classes=names)
    project.add("left", *squares(0), axes="yx")
    for label in range(1, 13):
        project.annotate("left", label, names[label % 2])
    project.train(preset="default", epochs=1, trees=20)
    shown = TrainingPanel(project).result.tables.value
    assert "<script>" not in shown and "<b>" not in shown
    assert "&lt;script&gt;x&lt;/script&gt;" in shown and 'title="&lt;script&gt;' in shown
