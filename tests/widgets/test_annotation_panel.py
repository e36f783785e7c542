"""Annotation panel, tested through its keys and buttons."""

from __future__ import annotations

import pytest

from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from tests.widgets.conftest import squares


@pytest.fixture
def panel(project):
    return AnnotationPanel(project)


def press(panel, key, shown=None):
    """Type a key while an object is on the screen: the current one unless a slow page shows another."""
    panel.viewer.screen.pointer._handle_custom_msg(
        {"event": "key_pressed", "key": key, "control": False, "shown": list(shown or panel.shown or [])}, []
    )


def class_of(project, label, image="left"):
    annotation = project.annotations.label_of(image, label)
    return project.classes.by_id(annotation.class_id).name if annotation.class_id else annotation.action


def test_a_digit_labels_the_displayed_object(panel, project):
    panel.viewer.show("left", 5)
    press(panel, "2")
    assert class_of(project, 5) == "dark"
    assert panel.shown == ("left", 5)  # selected by the user, not by the queue
    assert panel.status.text == project.status != ""


def test_a_click_on_a_class_button_does_the_same(panel, project):
    panel.viewer.show("left", 5)
    panel.class_buttons.row(1).button.click()
    assert class_of(project, 5) == "bright"


def test_labeling_an_object_of_the_queue_shows_the_next_one(panel, project):
    panel.command_bar.buttons["Next"].click()
    first = panel.shown
    press(panel, "1")
    second = panel.shown
    press(panel, "a")
    assert class_of(project, first.label, first.image) == "bright"
    assert class_of(project, second.label, second.image) == "ambiguous"
    assert len({first, second, panel.shown}) == 3
    assert list(project.annotations.table()["source"]) == ["random queue", "random queue"]
    assert project.annotations.table()["seconds"].notna().all()


def test_typing_ahead_is_refused_and_labels_no_object(panel, project):
    press(panel, "n")
    first = panel.shown
    press(panel, "1", shown=first)
    second = panel.shown
    press(panel, "2", shown=first)  # the page had not shown the second yet
    assert class_of(project, first.label, first.image) == "bright"
    assert class_of(project, second.label, second.image) == ""
    assert panel.shown == second
    assert "the next object was not displayed yet" in panel.status.text


def test_previous_goes_back_and_next_returns(panel):
    for _ in range(3):
        press(panel, " ")
    third = panel.shown
    panel.command_bar.buttons["Previous"].click()
    assert panel.shown != third
    press(panel, "n")
    assert panel.shown == third


def test_undo_and_redo_by_key_and_by_button(panel, project):
    panel.viewer.show("left", 5)
    assert panel.command_bar.buttons["Undo"].disabled
    press(panel, "1")
    press(panel, "2")
    press(panel, "u")
    assert class_of(project, 5) == "bright"
    panel.command_bar.buttons["Undo"].click()
    assert class_of(project, 5) == ""
    assert panel.command_bar.buttons["Undo"].disabled
    panel.command_bar.buttons["Redo"].click()
    press(panel, "r")
    assert class_of(project, 5) == "dark"
    press(panel, "r")
    assert panel.status.text == "Nothing to redo."


def test_undo_shows_the_object_again_and_its_new_label_resumes_the_queue(panel, project):
    press(panel, "n")
    first = panel.shown
    press(panel, "1")
    second = panel.shown
    press(panel, "u")
    assert panel.shown == first
    assert class_of(project, first.label, first.image) == ""
    press(panel, "2")
    assert class_of(project, first.label, first.image) == "dark"
    assert panel.shown == second


def test_undo_of_a_clicked_object_leaves_the_queue_where_it_is(panel):
    panel.viewer.show("left", 5)
    press(panel, "1")
    press(panel, "n")
    press(panel, "n")
    before = panel.shown
    press(panel, "u")
    assert panel.shown == ("left", 5)
    press(panel, "p")
    press(panel, "n")
    assert panel.shown == before


@pytest.mark.parametrize(("key", "action"), [("s", "skip"), ("a", "ambiguous"), ("b", "bad_segmentation")])
def test_flags_are_saved_with_the_object(panel, project, key, action):
    panel.viewer.show("right", 3)
    press(panel, key)
    assert project.annotations.label_of("right", 3).action == action


@pytest.mark.parametrize("key", ["e", "Delete"])
def test_erasing_removes_the_annotation(panel, project, key):
    panel.viewer.show("left", 5)
    press(panel, "1")
    press(panel, key)
    assert class_of(project, 5) == ""


def test_a_key_without_a_selection_shows_what_to_do(panel, project):
    press(panel, "1")
    assert len(project.annotations.table()) == 0
    assert "Click an object" in panel.status.text


def test_every_command_has_a_button_with_a_tooltip_and_a_line_in_the_help(panel):
    for command in panel.command_bar.commands:
        assert command.tooltip in panel.command_bar.buttons[command.text].tooltip
        assert command.tooltip in panel.command_bar.help.value
    press(panel, "?")
    assert panel.command_bar.help.layout.display == "block"
    panel.command_bar.help_button.click()
    assert panel.command_bar.help.layout.display == "none"
    press(panel, "?")
    press(panel, "Escape")
    assert panel.command_bar.help.layout.display == "none"


def test_counts_follow_each_annotation(panel):
    panel.viewer.show("left", 5)
    press(panel, "1")
    panel.viewer.show("left", 6)
    press(panel, "b")
    assert ">1<" in panel.class_buttons.row(1).children[3].value
    assert "1 annotated" in panel.progress_text.value
    assert "1 badly segmented" in panel.progress_text.value


def test_a_class_is_added_by_the_field_and_used_at_once(panel, project):
    panel.new_class.name.value = "broken"
    panel.new_class.color.value = "#ff0000"
    panel.new_class.name._handle_custom_msg({"event": "submit"}, [])
    assert panel.new_class.name.value == "broken", "the page empties it, since the next name may have begun"
    assert project.classes.by_name("broken").color == "#ff0000"
    panel.viewer.show("left", 5)
    press(panel, "3")
    assert class_of(project, 5) == "broken"
    panel.new_class.name.value = "broken"
    panel.new_class.add.click()
    assert "Class broken exists already." in panel.status.text
    assert panel.new_class.name.value == ""


def test_an_error_is_displayed_and_the_panel_goes_on(panel, project):
    panel.new_class.name.value = "   "
    panel.new_class.add.click()
    assert "visible character" in panel.status.text
    panel.viewer.show("left", 5)
    press(panel, "1")
    assert class_of(project, 5) == "bright"


def test_recoloring_reaches_the_project(panel, project):
    panel.class_buttons.row(1).picker.value = "#00ff00"
    assert project.classes.by_name("bright").color == "#00ff00"


def test_two_panels_and_a_script_show_the_same(panel, project):
    other = AnnotationPanel(project)
    panel.viewer.show("left", 5)
    other.viewer.show("left", 5)
    press(panel, "1")
    assert "sv-chosen" in other.class_buttons.row(1).button._dom_classes
    project.annotate("left", 5, "dark")
    assert "sv-chosen" in panel.class_buttons.row(2).button._dom_classes
    press(other, "u")
    assert "sv-chosen" in panel.class_buttons.row(1).button._dom_classes


def test_the_panel_and_a_script_write_the_same_log(panel, project, tmp_path):
    panel.viewer.show("left", 5)
    press(panel, "1")
    project.annotate("left", 5, "bright")
    log = project.annotations.table().drop(columns=["time", "edit", "source", "seconds"])
    assert log.iloc[0].equals(log.iloc[1])


def test_without_images_the_panel_explains_how_to_add_some(empty):
    panel = AnnotationPanel(empty)
    _, sentence, body, _ = panel.children
    assert "add_images" in sentence.value
    assert (sentence.layout.display, body.layout.display) == ("block", "none")
    empty.add("left", *squares(0), axes="yx")
    assert (sentence.layout.display, body.layout.display) == ("none", "flex")
    assert panel.viewer.model.image == "left"
    assert "Name the first class" in panel.progress_text.value


def test_a_project_problem_is_displayed_until_the_first_action(project):
    project.trouble = "the last line was torn"
    panel = AnnotationPanel(project)
    assert panel.status.text == "the last line was torn"
    panel.viewer.show("left", 5)
    press(panel, "1")
    assert panel.status.text == project.status


def test_a_closed_panel_no_longer_observes_the_project(panel, project):
    panel.close()
    project.classes.add("late")
    assert len(panel.class_buttons.lines.children) == 2


def test_the_test_set_is_offered_once_it_is_drawn(panel, project):
    assert panel.test_set.layout.display == "none"
    project.test_set.draw(20)
    assert panel.test_set.layout.display is None
    assert "Test set: 0 of 20" in panel.test_set_text.value
    press(panel, "n")
    assert panel.shown not in project.test_set, "random objects are used for training"


def test_next_shows_the_test_set_and_counts_it(panel, project):
    project.test_set.draw(20)
    panel.source.value = "test"
    assert "stay hidden" in panel.status.text
    press(panel, "n")
    seen = []
    for key in "12ab" + "1" * 16:
        seen.append(panel.shown)
        press(panel, key)
    assert seen == project.test_set.objects, "in the order in which they were drawn"
    assert "20 of 20 annotated" in panel.test_set_text.value
    assert len(project.test_set.training_labels()) == 0
    press(panel, "n")
    assert "No object is left" in panel.status.text
    press(panel, "u")
    assert "19 of 20 annotated" in panel.test_set_text.value
    assert panel.shown == seen[-1]
    panel.source.value = "random"
    press(panel, "n")
    assert panel.shown not in project.test_set
    assert "drawn at random" in panel.status.text


def test_a_skipped_object_of_the_test_set_is_not_annotated(panel, project):
    project.test_set.draw(20)
    panel.source.value = "test"
    press(panel, "n")
    press(panel, "s")
    assert "0 of 20 annotated" in panel.test_set_text.value
    assert panel.shown == project.test_set.objects[1]


def test_predictions_of_the_test_set_stay_hidden_until_annotated(trained):
    trained.test_set.draw(20)
    panel = AnnotationPanel(trained)
    assert panel.test_set.layout.display is None
    panel.source.value = "test"
    press(panel, "n")
    image, label = panel.shown
    assert label not in trained.probabilities(image).index
    press(panel, "1")
    assert label in trained.probabilities(image).index
    assert "1 of 20 annotated" in panel.test_set_text.value
    panel.close()
