"""The four questions: ticked boxes, cards with pictures, and settings that follow."""

from __future__ import annotations

import base64
import re

import imageio.v3 as iio
import numpy as np
import pytest

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.widgets.evidence import CUE_TEXTS
from svetlana_jupyter.widgets.evidence_pictures import ExampleObject, builtin_example, find_example, pictures
from svetlana_jupyter.widgets.training import TrainingPanel
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

    monkeypatch.setattr("svetlana_jupyter.project.store.os.replace", no_room)
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
    empty.add_class("one")
    empty.annotate("a", 1, "one")
    (tmp_path / "a.tif").unlink()
    again = type(empty)(empty.path)
    panel = TrainingPanel(again)
    assert "<img" in panel.questions.questions["size"].card.value
