"""Status lines: each panel names its current object, its own results and the state of its own jobs."""

from __future__ import annotations

import pytest

import svetlana_jupyter as sv
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.jobs import Progress
from svetlana_jupyter.project.run_scoring import BEING_SCORED, NOT_SCORED
from svetlana_jupyter.project.training_job import TrainingAbandoned
from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from svetlana_jupyter.widgets.app import App
from svetlana_jupyter.widgets.gallery.gallery_panel import GalleryPanel
from svetlana_jupyter.widgets.images_panel import ImagesPanel
from svetlana_jupyter.widgets.prediction_panel import PredictionPanel
from svetlana_jupyter.widgets.training_panel import TrainingPanel
from tests.widgets.test_annotation_panel import press


def send(panel, event, **content):
    screen = panel.page.screen if hasattr(panel, "page") else panel.viewer.screen
    screen.pointer._handle_custom_msg({"event": event, **content}, [])


def chord(panel, key, shift=False):
    """Press a key with Ctrl."""
    send(panel, "key_pressed", key=key, control=True, shift=shift, shown=list(panel.shown or []))


def test_the_status_names_the_object_that_follows_a_labeled_or_flagged_one(project):
    panel = AnnotationPanel(project)
    press(panel, "n")
    for key, done in (
        ("1", "Labeled bright."),
        ("a", "Flagged as ambiguous."),
        ("s", "Skipped."),
        ("2", "Labeled dark."),
    ):
        press(panel, key)
        image, label = panel.shown
        assert panel.status.text == f"{done} Now object {label} in {image}, drawn at random."


def test_the_last_object_of_a_queue_keeps_its_name(project):
    panel = AnnotationPanel(project)
    for name in ("left", "right"):
        for label in project.objects(name).index[: 23 if name == "left" else 24]:
            project.annotate(name, int(label), "bright")
    press(panel, "n")
    press(panel, "2")
    assert panel.shown == ("left", 24)
    assert panel.status.text == "Labeled dark. No object is left in the queue."


def test_the_hover_label_describes_the_object_that_moved_under_the_pointer(project):
    panel = AnnotationPanel(project)
    panel.viewer.show("left", 9)
    row, column = panel.viewer.model.view.to_screen(24.5, 40.5)  # the center of the object
    send(panel, "moved", row=row, column=column)
    assert panel.viewer.model.scene.hint.text == "object 9"
    panel.viewer.model.set_view(panel.viewer.model.view.panned(0, -16 * panel.viewer.model.view.scale))
    assert panel.viewer.model.scene.hint.text == "object 10", "the next one in its row"
    panel.viewer.selector.select_at(row, column)
    press(panel, "1")
    assert panel.viewer.model.scene.hint.text == "object 10 · bright"
    panel.viewer.model.set_view(panel.viewer.model.view.panned(0, -8 * panel.viewer.model.view.scale))
    assert panel.viewer.model.scene.hint is None, "between two objects"


def test_the_hover_label_of_the_gallery_follows_a_key(project):
    panel = GalleryPanel(project)
    panel.filter_bar.order.value = "position"
    at = {"row": 20.0, "column": 20.0}
    send(panel, "pressed", **at, button=0)
    send(panel, "released", **at, time=1.0)
    send(panel, "moved", **at)
    image, label = panel.page.objects[0]
    assert panel.page.scene.hint.text == f"object {label} in {image}"
    panel.controls.handle_key("1", panel.shown)
    assert panel.page.scene.hint.text == f"object {label} in {image} · bright"


@pytest.mark.parametrize("kind", [AnnotationPanel, PredictionPanel, GalleryPanel])
def test_undo_and_redo_by_the_usual_shortcuts(project, kind):
    panel = kind(project)
    project.annotate("left", 5, "dark")
    chord(panel, "z")
    assert project.annotations.class_counts().sum() == 0
    for key, shift in (("Z", True), ("z", True), ("y", False)):  # browsers differ in the case of a letter with Shift
        chord(panel, key, shift)
        assert project.annotations.label_of("left", 5).class_id == 2
        chord(panel, "Z")  # with Caps Lock
        assert project.annotations.class_counts().sum() == 0
    chord(panel, "z")
    assert panel.status.text == "Nothing to undo."


@pytest.mark.parametrize("kind", [AnnotationPanel, GalleryPanel])
def test_keys_without_an_effect_say_so(project, kind):
    panel = kind(project)
    handle_key = panel.controls.handle_key if kind is GalleryPanel else panel.handle_key
    handle_key("7", None)
    assert panel.status.text == "No class has the key 7. Press ? for all keys."
    handle_key("Ctrl+q", None)
    assert panel.status.text == "The key Ctrl+Q has no effect here. Press ? for all keys."
    assert len(project.annotations.table()) == 0


def test_keys_that_cannot_move_the_view_say_so_until_one_can(project):
    panel = AnnotationPanel(project)
    panel.viewer.show("left", 5)
    for key, text in (("[", "single plane"), ("]", "single plane")):
        press(panel, key)
        assert text in panel.status.text
    for key, text in (("ArrowLeft", "cannot move any further"), ("+", "cannot be zoomed any further")):
        for _ in range(60):
            press(panel, key)
        assert text in panel.status.text
    press(panel, "ArrowRight")
    assert panel.status.text == "Object 5 in left."
    press(panel, "f")
    press(panel, "f")
    assert panel.status.text == "The whole image is visible."


def test_the_gallery_says_where_its_page_and_its_pages_end(project):
    panel = GalleryPanel(project)
    send(panel, "key_pressed", key="ArrowDown", control=False, shown=[])
    assert len(panel.page.selected) == 1, "the first arrow selects the first object"
    send(panel, "key_pressed", key="ArrowUp", control=False, shown=[])
    assert "no object further" in panel.status.text
    send(panel, "key_pressed", key="ArrowRight", control=False, shown=[])
    assert panel.status.text == "1 object selected."
    panel.controls.handle_key("p", None)
    assert panel.status.text == "This is the first page."
    panel.controls.handle_key("End", None)
    panel.controls.handle_key("n", None)
    assert panel.status.text == "This is the last page."


def test_each_panel_shows_its_own_news(trained):
    trained.evaluate()  # its score would be news
    panels = [kind(trained) for kind in (ImagesPanel, AnnotationPanel, GalleryPanel, TrainingPanel, PredictionPanel)]
    before = [panel.status.text for panel in panels]
    trained.annotate("left", 20, "bright")
    trained.counts(by="image")
    assert [panel.status.text for panel in panels] == before
    trained.predict(resume=False)
    before[2] = "New predictions. Press g to arrange the gallery by them."
    assert [panel.status.text for panel in panels[:4]] == before[:4]
    assert panels[4].status.text == trained.status != before[4]
    press(panels[1], "n")
    assert panels[1].status.text.startswith("Object ")
    assert panels[4].status.text == trained.status


def test_a_training_started_in_the_prediction_panel_is_its_news_too(trained, finish, monkeypatch):
    panel, training = PredictionPanel(trained), TrainingPanel(trained)
    trained.settings = trained.settings.changed(preset="default", epochs=1, trees=5, folds=2)
    panel.retrain.click()
    finish(trained)
    assert panel.status.text == training.status.text == trained.status


def test_the_result_of_an_earlier_training_is_not_shown_while_the_next_one_runs(annotated):
    panel, texts = TrainingPanel(annotated), []

    def work(stop):
        texts.append(panel.status.text)
        yield Progress(0, 1, "starting")
        texts.append(panel.status.text)
        yield TrainingAbandoned()

    for _ in range(2):  # the same result twice
        annotated._jobs.run("training", work)
        texts.append(panel.status.text)
    assert texts == 2 * ["Training started.", "Training started.", "Stopped before anything was trained."]


def test_a_run_is_being_scored_until_it_has_its_score_or_the_training_ends(trained):
    panel, run, seen = TrainingPanel(trained), trained.runs.current, []
    unscored = run.with_score(NOT_SCORED, {})
    for file in run.path.glob("held_out_*"):
        file.unlink()

    def work(stop):
        yield unscored, None, False
        seen.append((trained.evaluate().text, panel.result.cards.value))
        raise ProjectError("The disk is full.")

    with pytest.raises(ProjectError):
        trained._jobs.run("training", work)
    ((text, cards),) = seen
    assert BEING_SCORED in text
    assert "is being scored" in cards
    assert NOT_SCORED in trained.evaluate().text
    assert "was not scored" in panel.result.cards.value


def test_a_problem_of_a_job_stays_visible_at_its_end(trained):
    panel = PredictionPanel(trained)

    def work(stop):
        yield Progress(0, 1, "predicting")
        trained.trouble = "smear_3 is unlike the annotated images."

    trained._jobs.run("prediction", work)
    assert panel.status.text == "smear_3 is unlike the annotated images."


@pytest.mark.parametrize("kind", [AnnotationPanel, GalleryPanel, ImagesPanel, PredictionPanel, TrainingPanel, App])
def test_a_panel_opens_a_project_by_its_path(project, kind):
    opened = kind(str(project.path)).project
    assert opened is not project
    assert list(opened.images) == ["left", "right"]
    assert list(kind(project.path).project.images) == ["left", "right"]


def test_a_panel_opens_a_zip_file(project, tmp_path):
    file = project.save_zip(tmp_path / "moved.zip")
    project.path.rename(tmp_path / "away")
    assert list(App(file).project.images) == ["left", "right"]


@pytest.mark.parametrize("kind", [AnnotationPanel, App])
def test_a_wrong_argument_is_explained_and_creates_nothing(tmp_path, kind):
    with pytest.raises(ProjectError, match=r"no project at '.*nothing'.*sv\.Project\('.*nothing'\) to create one"):
        kind(str(tmp_path / "nothing"))
    with pytest.raises(ProjectError, match="got list"):
        kind(["left.tif"])
    assert not list(tmp_path.iterdir())


def test_a_new_panel_does_not_take_the_focus_and_offers_the_keys(project, monkeypatch):
    focused = []
    monkeypatch.setattr("ipycanvas.MultiCanvas.focus", lambda self: focused.append(self))
    for kind in (sv.AnnotationPanel, sv.GalleryPanel, sv.PredictionPanel):
        panel = kind(project)
        screen = panel.page.screen if kind is sv.GalleryPanel else panel.viewer.screen
        assert "Click here to use the keys" in [getattr(child, "value", "") for child in screen.stage.children]
    assert focused == []
