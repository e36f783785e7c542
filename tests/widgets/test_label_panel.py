"""Label panel: one selection in image and gallery, labeled with the same keys; the sections beside them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.project.live import LiveState
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.run_store import LIVE
from svetlana_jupyter.widgets.label_panel import LabelPanel
from svetlana_jupyter.widgets.object_filter import ObjectFilter, matching_objects
from svetlana_jupyter.widgets.results_panel import ResultsPanel

CONTROLS = ("views", "overlay", "tool", "more")


@pytest.fixture
def panel(project):
    return LabelPanel(project)


@pytest.fixture
def live(annotated):
    """Label panel of a project whose live classifier has predicted everything."""
    panel = LabelPanel(annotated)
    annotated.live.update()
    return panel


def press(panel, key):
    panel.viewer.screen.handle_key(key, panel.shown)


def press_in(panel, grid, key, shown=...):
    grid.screen.handle_key(key, grid.selection_id if shown is ... else shown)


def select(panel, *labels, image="left"):
    panel.shared.selection = tuple((image, label) for label in labels)


def test_the_queue_advances_with_each_label_while_predictions_follow(panel, project):
    press(panel, " ")
    for count in range(1, 9):
        shown = panel.shown
        press(panel, "1" if shown.label % 2 else "2")
        assert project.annotations.class_counts().sum() == count
        assert panel.shown != shown
        if count == 4:
            project.live.update()
    assert project.current_run == LIVE
    assert set(project.annotations.table().query("action == 'label'")["source"]) == {"useful queue"}


@pytest.mark.parametrize("key", ["1", "Enter", "a", "s", "e"])
def test_keys_mean_the_same_in_image_and_gallery(squares_folder, tmp_path, key):
    logs = []
    for place in ("image", "gallery"):
        project = Project(shutil.copytree(squares_folder, tmp_path / f"{place}.svetlana"))
        for label in range(1, 7):
            project.annotate("right", label, "bright" if label % 2 else "dark")
        panel = LabelPanel(project)
        project.live.update()
        panel.views.value = "both"
        panel.gallery.filter_bar.order.value = "position"
        project.annotate("left", 2, "bright")
        select(panel, 2, 5)
        assert panel.gallery.page.selected == [("left", 2), ("left", 5)]
        press(panel, key) if place == "image" else press_in(panel, panel.gallery.page, key)
        logs.append(labels_in_left(project))
        press(panel, "u") if place == "image" else press_in(panel, panel.gallery.page, "u")
        assert list(labels_in_left(project)) == [2]
    assert logs[0] == logs[1]


def labels_in_left(project):
    labels = project.labels().reset_index()
    return labels[labels["image"] == "left"].set_index("object")["action"].to_dict()


def test_a_key_for_a_selection_that_is_gone_labels_nothing(panel, project):
    panel.views.value = "gallery"
    grid = panel.gallery.page
    grid.select(grid.selection.only(3))
    stale = grid.selection_id
    grid.select(grid.selection.only(4))
    press_in(panel, grid, "1", stale)
    assert project.annotations.class_counts().sum() == 0
    assert "ignored" in panel.status.text


def test_next_and_previous_belong_to_the_view(panel):
    panel.views.value = "both"
    panel.gallery.page.columns = 5
    assert panel.gallery.pages.count > 1
    press_in(panel, panel.gallery.page, "n", None)
    assert panel.gallery.page_number == 1
    assert panel.shown is None
    press(panel, "n")
    assert panel.shown is not None


def test_accepting_keeps_every_prediction_of_the_selection_in_one_edit(live, annotated):
    select(live, 13, 14)
    press(live, "Enter")
    labels = annotated.labels()["class"]
    assert (labels["left", 13], labels["left", 14]) == ("bright", "dark")
    press(live, "u")
    assert len(annotated.labels()) == 12


def test_an_object_without_prediction_cannot_be_accepted(panel, project):
    select(panel, 3)
    press(panel, "Enter")
    assert "predicted yet" in panel.status.text
    assert project.labels().empty


def test_the_selected_object_shows_probabilities_label_and_conflict(live, annotated):
    select(live, 13)
    assert "Not labeled. Predicted <b>bright</b>." in live.object.bars.value
    assert live.object.bars.value.count("sv-probability") == 2
    assert "sv-conflict" not in live.object.bars.value
    assert "left · 13" in live.object.name.value
    press(live, "2")
    select(live, 13)
    assert "Labeled <b>dark</b>." in live.object.bars.value
    annotated.annotate("left", range(14, 25, 2), "dark")
    annotated.annotate("left", range(15, 25, 2), "bright")
    annotated.live.update()
    assert "Labeled <b>dark</b>. The other labels suggest <b>bright</b>." in live.object.bars.value
    bright, dark = (info.color for info in annotated.classes)
    assert f"linear-gradient(to right, {dark} 50%, {bright} 50%)" in live.object.bars.value, "as in the image"
    assert matching_objects(annotated, "left", ObjectFilter("corrected")).tolist() == [13]
    select(live, 13, 14)
    assert "2 objects" in live.object.bars.value
    select(live)
    assert "Click an object" in live.object.bars.value


def test_classes_show_labels_given_and_the_same_objects_as_the_results(live, annotated):
    assert "<span>6</span>" in live.class_buttons.row(1).children[3].value
    annotated.annotate("left", 13, "dark")  # predicted as bright
    annotated.flag("left", 14, "ambiguous")
    annotated.flag("left", 15, "skip")
    results = ResultsPanel(annotated).counts.value
    for name, tally in zip(("bright", "dark"), tallies(live)):
        count = int(annotated.predictions()["class"].value_counts()[name])
        assert f"<span>{count:,}<br>" in tally
        assert f'{name}</td><td class="sv-number">{count:,}</td>' in results


def test_a_test_object_shows_neither_prediction_nor_similar_objects_until_it_is_labeled(live, annotated):
    test_object = annotated.test_set.draw(20).index[0]
    live.show()
    live.shared.selection = (test_object,)
    assert "hidden until it is labeled" in live.object.bars.value
    assert "sv-probability" not in live.object.bars.value
    assert live.similar.strip.grid.objects == ()
    assert "Hidden" in live.similar.text.value
    assert live.viewer.model.selected == test_object[1]
    total = sum(int(part.split("<br>")[0].rsplit(">", 1)[1]) for part in tallies(live))
    assert total == 48 - 20
    live.show_similar(ObjectId(*test_object))
    assert "Hidden" in live.status.text
    assert live.shared.listed == ("", ())


def test_objects_of_the_test_set_are_not_similar_to_others_until_they_are_labeled(live, annotated):
    nearest = annotated.features.similar("left", 1, 48).index
    annotated.test_set.draw(20)
    hidden = [each for each in nearest if each in annotated.test_set]
    assert set(hidden) & set(nearest[:15])
    select(live, 1)
    expected = [each for each in nearest if each not in hidden]
    similar = live.similar.strip.grid.objects
    assert list(similar) == expected[: len(similar)]
    live.show_similar(ObjectId("left", 1))
    assert not set(hidden) & set(live.shared.listed[1])
    annotated.annotate(*hidden[0], "dark")
    select(live, 1)
    live.show_similar(ObjectId("left", 1))
    assert hidden[0] in live.shared.listed[1]


def tallies(panel):
    return [panel.class_buttons.row(i).children[3].value for i in (1, 2)]


def test_the_queue_shows_what_follows_and_its_reason(panel):
    press(panel, " ")
    shown = panel.next_objects.strip.grid.objects
    assert shown[0] == panel.shown
    assert len(shown) == 5
    assert panel.next_objects.reason.value.count("Drawn at random.") == 1
    press(panel, "1")
    assert panel.shown == shown[1]


def test_the_queue_does_not_show_objects_that_were_labeled_elsewhere(panel, project):
    press(panel, " ")
    current, second, third, *_ = panel.next_objects.strip.grid.objects
    project.annotate(*second, "bright")
    shown = panel.next_objects.strip.grid.objects
    assert shown[:2] == (current, third)
    assert second not in shown
    press(panel, "1")
    assert panel.shown == third


def test_the_chosen_queue_is_followed(live):
    live.next_objects.kind.value = "uncertain"
    assert "probability" in live.next_objects.reason.value
    assert live.shown is not None


def test_a_queue_of_chosen_classes_is_followed_and_its_errors_are_shown_in_its_place(live, annotated):
    queue = live.next_objects
    queue.kind.value = "predicted"
    assert queue.second.layout.display == "none"
    queue.first.value = "dark"
    assert "predicted as dark" in live.status.text
    assert annotated.predictions()["predicted"][live.shown] == "dark"
    queue.kind.value = "confused"
    assert queue.second.layout.display == ""
    assert {queue.first.value, queue.second.value} == {"bright", "dark"}
    queue.first.value = "bright"
    assert queue.second.value == "dark"
    assert "dark" in live.status.text
    assert live.next_objects.strip.grid.objects
    queue.kind.value = "test"
    assert live.next_objects.strip.grid.objects == ()
    assert "no test set" in queue.reason.value
    queue.kind.value = "suspect"
    assert live.next_objects.strip.grid.objects == ()
    assert "The queue is empty." in queue.reason.value


def test_a_queue_that_waits_for_features_says_so(panel, project, monkeypatch):
    reason = panel.next_objects.reason
    monkeypatch.setattr(panel, "_queue", None)
    monkeypatch.setattr(type(project.images), "is_indexed", lambda images, name: False)
    monkeypatch.setattr(type(project.live), "is_following", True)
    panel.show()
    assert "features of the objects are being computed" in reason.value
    monkeypatch.undo()
    project.live_state = LiveState(features_done=48, features_total=48)
    assert "computed" not in reason.value


def test_only_drawn_objects_of_the_most_useful_ones_count_as_drawn(panel, project):
    press(panel, " ")
    labeled, drawn = [], []
    while (shown := panel.shown) is not None and len(labeled) < 12:
        labeled.append(shown)
        drawn += [shown] * ("random" in panel._candidate.reason)
        press(panel, "1" if shown.label % 2 else "2")
        if len(labeled) == 8:
            project.live.update()
            panel.reset_queue()
            press(panel, " ")
    labels = project.annotations.table().query("action == 'label'")
    assert set(labels["source"]) == {"useful queue"}
    assert project.annotations.drawn_objects() == set(drawn)
    assert 8 <= len(drawn) < len(labeled)


def test_similar_objects_fill_the_gallery_and_are_labeled_at_once(live, annotated):
    select(live, 13)
    similar = live.similar.strip.grid.objects
    assert similar
    assert ("left", 13) not in similar
    assert list(similar) == annotated.features.similar("left", 13).index.tolist()[: len(similar)]
    press(live, "k")
    assert live.views.value == "gallery"
    assert live.gallery.listed[0] == ("left", 13)
    assert live.gallery.listed[1 : 1 + len(similar)] == list(similar)
    bar = live.gallery.filter_bar
    assert (bar.order.label, bar.order.disabled) == ("As in the list", True)
    bar.which.value = "all"
    assert (bar.order.label, bar.order.disabled) == ("Random", False)
    bar.order.value = "largest"
    press(live, "k")
    assert (bar.which.label, bar.order.label) == ("Like object 13", "As in the list")
    bar.which.value = "unlabeled"
    assert bar.order.value == bar.query.order == "largest"
    live.similar.classes.value = "bright"
    assert live.similar.classes.value == ""
    assert (annotated.labels()["class"][list(similar)] == "bright").all()
    annotated.undo()
    assert len(annotated.labels()) == 12


def test_the_selection_stays_among_similar_objects_after_a_label(live, annotated):
    press(live, " ")
    shown = live.shown
    press(live, "k")
    press_in(live, live.gallery.page, "1")
    assert annotated.annotations.label_of(*shown).class_id == 1
    assert live.shown == shown
    assert live.gallery.page.selected == [shown]
    press(live, " ")
    assert live.shown != shown


def test_a_filter_says_that_the_queue_ignores_it(live):
    press(live, " ")
    assert "filter" not in live.next_objects.reason.value
    live.shared.filter = ObjectFilter("unlabeled")
    assert "The filter does not apply here." in live.next_objects.reason.value
    live.shared.filter = ObjectFilter()
    assert "filter" not in live.next_objects.reason.value


def test_a_hidden_view_draws_nothing_and_follows_when_it_is_shown(panel):
    panel.views.value = "both"
    panel.views.value = "gallery"
    frame = panel.viewer.screen.canvas.frame
    select(panel, 5, image="right")
    assert panel.viewer.screen.canvas.frame == frame
    panel.views.value = "image"
    assert panel.viewer.model.image == "right"
    assert panel.viewer.screen.canvas.frame > frame
    frame = panel.gallery.page.screen.canvas.frame
    select(panel, 6, image="right")
    assert panel.gallery.page.screen.canvas.frame == frame


def test_the_gallery_follows_labels_without_the_mouse(live, annotated):
    live.views.value = "gallery"
    before = live.gallery.page.scene
    annotated.annotate(*live.gallery.listed[0], "bright")
    after = live.gallery.page.scene
    annotated.annotate(*live.gallery.listed[0], "dark")
    assert before != after != live.gallery.page.scene


def test_flags_of_the_list_apply_to_the_selection(panel, project):
    select(panel, 4)
    flag = panel.object.children[1].children[2]
    flag.value = "Ambiguous"
    assert project.annotations.label_of("left", 4).action == "ambiguous"
    assert flag.value == ""


def test_overlay_and_tools_follow_the_model(panel):
    panel.overlay.value = "uncertainty"
    assert panel.viewer.model.overlay == "uncertainty"
    panel.viewer.model.tool = "lasso"
    assert panel.tool.value == "lasso"
    panel.tool.value = "move"
    assert panel.viewer.model.tool == "move"


def test_every_control_has_a_name_for_screen_readers(panel):
    for name in CONTROLS[:3]:
        control = getattr(panel, name)
        assert all(control.tooltips)
        assert len(control.tooltips) == len(control.options) == len(control.icons)
    assert panel.more.tooltip
    for dropdown in (panel.next_objects.kind, panel.similar.classes, panel.viewer.toolbar.images):
        assert dropdown.tooltip


def test_without_images_a_sentence_says_what_to_do(empty):
    panel = LabelPanel(empty)
    assert panel.body.layout.display == "none"
    assert "add_images" in panel.hint.value


def test_an_explanation_that_is_not_possible_says_why(live):
    select(live, 13)
    press(live, "w")
    assert live.object.why.layout.display == ""
    assert "Train one in the Train tab" in live.object.why.value
    press(live, "w")
    assert live.object.why.layout.display == "none"


def test_the_newest_network_explains_what_the_live_classifier_predicts_and_is_named(trained):
    panel = LabelPanel(trained)
    trained.live.update()
    trained.runs.choose(LIVE)
    select(panel, 13)
    press(panel, "w")
    assert panel.object.why.value.count("<img") == 2
    assert "Run 0001, the newest network, looks here for" in panel.object.why.value


def test_tools_and_colors_apply_to_the_map_and_the_gallery_too(live):
    live.views.value = "map"
    shown = [control.layout.display for control, _ in live._tools_of]
    assert shown == ["none", "none", ""], "image and zoom belong to the image"
    live.tool.value = "lasso"
    assert live.map.tool == "lasso"
    for overlay, coloring in (("uncertainty", "probability"), ("annotations", "label"), ("off", "off")):
        live.overlay.value = overlay
        assert live.map.coloring == coloring
    live.map.coloring = "prediction"
    assert live.overlay.value == "predictions"
    by_image = live._map_box.children[0].by_image
    by_image.value = True
    assert (live.map.coloring, live.overlay.value) == ("image", "predictions")
    by_image.value = False
    assert live.map.coloring == "prediction"
    live.views.value = "gallery"
    assert live.tool.layout.display == "none"
    assert any(caption.share for caption in live.gallery.page.scene.cell_captions)
    live.overlay.value = "annotations"
    assert not any(caption.share for caption in live.gallery.page.scene.cell_captions)
    assert any(caption.color for caption in live.gallery.page.scene.cell_captions)
    live.overlay.value = "off"
    assert not any(caption.color for caption in live.gallery.page.scene.cell_captions)


def test_a_conflict_of_label_and_prediction_is_marked_in_gallery_and_map(live, annotated):
    live.views.value = "map"
    live.views.value = "gallery"
    colors = {info.name: info.color for info in annotated.classes}
    annotated.annotate("left", 13, "dark")  # predicted as bright
    (conflict,) = [caption for caption in live.gallery.page.scene.cell_captions if caption.other]
    assert (conflict.color, conflict.other, conflict.name) == (colors["dark"], colors["bright"], "dark")
    styles, number = live.map.styles, int(live.map.objects.find([("left", 13)])[0])
    others = dict(zip(styles.labeled.tolist(), styles.others.tolist()))
    assert styles.colors[others.pop(number)] == colors["bright"]
    assert set(others.values()) == {-1}
    annotated.annotate("left", 13, "bright")
    assert not any(caption.other for caption in live.gallery.page.scene.cell_captions)


def test_labels_are_marked_in_the_image_and_conflicts_in_two_colors(live, annotated):
    colors = {info.name: info.color for info in annotated.classes}
    live.viewer.show("left", 13)
    marks = {mark[2:] for mark in live.viewer.model.scene.marks}
    assert marks == {(colors["bright"], ""), (colors["dark"], "")}
    press(live, "2")
    assert (colors["dark"], colors["bright"]) in {mark[2:] for mark in live.viewer.model.scene.marks}
    live.overlay.value = "off"
    assert live.viewer.model.scene.marks == ()


def test_one_filter_applies_to_image_gallery_and_map(live, annotated):
    live.viewer.show("left", 13)
    everything = dots(live)
    live.views.value = "map"
    live.views.value = "both"
    live.filter.status.value = "unlabeled"
    assert live.shared.filter == ObjectFilter("unlabeled")
    styles = live.viewer._opened.styles("predictions", live.shared.filter)
    colored = styles.style_indices(np.arange(1, 25)) > 0
    assert colored.tolist() == [label > 12 for label in range(1, 25)]
    assert live.viewer.model.scene.marks == () != everything
    labeled = live.map.objects.find(annotated.labels().index)
    assert not live.map.candidates[labeled].any()
    assert live.map.candidates.sum() == 48 - 12
    live.views.value = "gallery"
    assert live.gallery.filter_bar.which.value == "unlabeled"
    assert len(live.gallery.listed) == 48 - 12
    live.gallery.filter_bar.class_id.value = 1
    assert live.filter.class_id.value == 1
    bright = annotated.predictions().query("predicted == 'bright'").index
    assert set(live.gallery.listed) == set(bright) - set(annotated.labels().index)
    live.views.value = "image"
    live.viewer.model.image = "left"
    live.viewer.selector.select_visible()
    assert set(live.viewer.model.selection) == {label for image, label in live.gallery.listed if image == "left"}
    live.gallery.filter_bar.which.value = "all"
    live.filter.class_id.value = 0
    assert not live.shared.filter.is_active
    assert live.map.candidates.all()


def dots(panel):
    return panel.viewer.model.scene.marks


def test_every_canvas_has_a_name_for_screen_readers(panel):
    panel.views.value = "gallery"
    panel.views.value = "map"
    grids = panel.gallery.page, panel.next_objects.strip.grid, panel.similar.strip.grid
    names = [view.screen.pointer.name for view in (panel.viewer, panel.map, *grids)]
    assert len(set(filter(None, names))) == 5


def test_a_list_or_filter_that_is_chosen_before_the_gallery_opens_is_shown_in_it(live, annotated):
    chosen = (ObjectId("left", 2), ObjectId("right", 5))
    live.shared.listed = "Inside: 2", chosen
    live.views.value = "gallery"
    assert live.gallery.listed == list(chosen)
    assert live.gallery.filter_bar.which.label == "Inside: 2"
    second = LabelPanel(annotated)
    second.shared.listed = "", ()
    second.filter.status.value = "annotated"
    second.views.value = "gallery"
    assert set(second.gallery.listed) == set(annotated.labels().index)
    second.close()
