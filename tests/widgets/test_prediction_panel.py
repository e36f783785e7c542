"""Prediction panel: predictions, corrections and export."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from svetlana_jupyter.project.exporters import FORMATS
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.prediction_panel import PredictionPanel

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def panel(trained):
    return PredictionPanel(trained)


def press(panel, key):
    panel.viewer.screen.pointer._handle_custom_msg(
        {"event": "key_pressed", "key": key, "control": False, "shown": list(panel.shown or [])}, []
    )


def test_without_a_trained_classifier_nothing_can_be_predicted(project):
    panel = PredictionPanel(project)
    assert panel.predict_all.disabled
    assert panel.predict_image.disabled
    assert panel.retrain.disabled
    assert "after the first prediction" in panel.counts.value


def test_the_selected_object_shows_its_prediction_its_patch_and_its_grad_cam(panel, trained):
    panel.viewer.show("right", 3)
    predicted = trained.probabilities("right").loc[3]
    name = trained.classes.by_id(int(predicted["predicted"])).name
    assert f"{name}, predicted with {predicted['probability']:.0%}" in panel.inspector.title.value
    assert f"{predicted['p_1']:.0%}".replace("%", " %") in panel.class_buttons.row(1).children[3].value
    assert panel.inspector.pictures.value.count("data:image/png;base64,") == 2


def test_the_queue_shows_the_least_certain_object_first(panel, trained):
    press(panel, "n")
    assert panel.shown == trained.queue("uncertain").peek(1)[0].id


def test_a_digit_corrects_and_shows_the_next_object(panel, trained):
    press(panel, "n")
    object_id = panel.shown
    press(panel, "2")
    assert trained.annotations.label_of(*object_id).class_id == 2
    assert trained.annotations.table()["source"].iloc[-1] == "correction"
    assert panel.shown != object_id


def test_enter_keeps_the_prediction_as_an_annotation(panel, trained):
    panel.viewer.show("right", 3)
    press(panel, "Enter")
    assert trained.annotations.label_of("right", 3).class_id == trained.probabilities("right").loc[3, "predicted"]
    panel.command_bar.buttons["Undo"].click()
    panel.command_bar.buttons["Accept"].click()
    assert trained.annotations.label_of("right", 3).action == "label"


def test_counts_per_class_and_image_follow_a_correction(panel, trained):
    before = panel.counts.value
    predicted = trained.probabilities("right").loc[3, "predicted"]
    trained.annotate("right", 3, "dark" if predicted == 1 else "bright")
    assert panel.counts.value != before
    assert "right" in panel.counts.value
    counts = trained.counts()
    assert all(f">{count}</td>" in panel.counts.value for count in counts["count"])


def test_class_names_are_escaped(panel, trained):
    trained.classes.add("<script>alert('x')</script> 🧬")
    panel.viewer.show("right", 3)
    press(panel, "3")
    shown = panel.counts.value + panel.inspector.title.value + panel.status.value
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 4


def test_in_a_notebook_the_explanation_is_computed_in_the_background(trained_folder):
    async def review():
        panel = PredictionPanel(Project(trained_folder))
        panel.viewer.show("right", 2)
        panel.viewer.show("right", 3)
        begun = panel.inspector.pictures.value
        come = asyncio.Event()
        panel.inspector.pictures.observe(lambda _: come.set(), "value")
        await asyncio.wait_for(come.wait(), 60)
        return begun, panel.inspector.pictures.value, panel.status.text

    begun, ended, text = asyncio.run(review())
    assert "data:image/png" not in begun
    assert ended.count("data:image/png") == 2
    assert "wrong" not in text


def test_predicting_one_image_and_all(annotated, finish):
    annotated.train(preset="default", epochs=2, folds=2, trees=20)
    panel = PredictionPanel(annotated)
    panel.viewer.show("right")
    panel.predict_image.click()
    finish(annotated)
    assert (len(annotated.probabilities("left")), len(annotated.probabilities("right"))) == (0, 24)
    panel.predict_all.click()
    finish(annotated)
    assert len(annotated.probabilities("left")) == 24
    assert annotated.trouble == ""


def test_retraining_includes_the_correction(panel, trained, finish):
    before = sum(trained.runs.current.labels.values())
    trained.settings = trained.settings.changed(preset="default", epochs=2, folds=2, trees=20)
    panel.viewer.show("right", 3)
    press(panel, "1")
    panel.retrain.click()
    finish(trained)
    assert sum(trained.runs.current.labels.values()) == before + 1


def test_every_format_has_a_described_checkbox(panel):
    assert list(panel.export_form.formats) == list(FORMATS)
    assert all(box.description == FORMATS[name].title for name, box in panel.export_form.formats.items())
    assert [name for name, box in panel.export_form.formats.items() if box.value] == ["csv"]


def test_the_ticked_formats_are_written_and_their_folder_is_displayed(panel, trained, finish, tmp_path: Path):
    panel.export_form.folder.value = str(tmp_path / "results <b>")
    panel.export_form.formats["tiff"].value = panel.export_form.formats["geojson"].value = True
    panel.export_form.export.click()
    finish(trained)
    names = {file.name for file in (tmp_path / "results <b>").iterdir()}
    assert names >= {"objects.csv", "left_classes.tif", "right.geojson", "export.json"}
    result = panel.export_form.result
    assert result.text == trained.last_export.text
    assert "Written" not in panel.status.text, "not twice"
    assert result.text.startswith(f"Written to {tmp_path / 'results <b>'}: objects.csv, counts.csv, ")
    assert "<b>" not in result.value
    assert "sv-trouble" not in result.value
    assert not panel.export_form.export.disabled


def test_exporting_no_format_is_refused_with_a_message(panel):
    panel.export_form.formats["csv"].value = False
    panel.export_form.export.click()
    assert panel.export_form.result.text == "No format is selected. Tick at least one."
    assert panel.project.job is None
    assert "sv-trouble" in panel.export_form.result.value


def test_the_project_folder_is_refused_next_to_the_button(panel, trained):
    panel.export_form.folder.value = str(trained.path)
    panel.export_form.export.click()
    assert "Export to a different folder" in panel.export_form.result.text
    assert trained.job is None


def test_a_failed_export_is_explained_and_the_next_one_works(panel, trained, finish, tmp_path: Path, monkeypatch):
    def no_room(*_):
        raise OSError(28, "No space left on device")

    panel.export_form.folder.value = str(tmp_path / "results")
    with monkeypatch.context() as full:
        full.setattr("os.fsync", no_room)
        panel.export_form.export.click()
        trained._jobs.wait(60)
    assert "objects.csv could not be written (No space left on device)" in panel.export_form.result.text
    assert "sv-trouble" in panel.export_form.result.value
    assert not (tmp_path / "results").exists()
    panel.export_form.export.click()
    finish(trained)
    assert panel.export_form.result.text.startswith("Written to")


def test_the_annotation_panel_shows_a_correction(panel, trained):
    from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel

    other = AnnotationPanel(trained)
    other.viewer.show("right", 3)
    panel.viewer.show("right", 3)
    press(panel, "2")
    assert "sv-chosen" in other.class_buttons.row(2).button._dom_classes
