"""Classes beside the viewer: renamed, merged, and found by name where there are more of them than keys."""

from __future__ import annotations

import pytest

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from svetlana_jupyter.widgets.components import ClassButtons
from svetlana_jupyter.widgets.labeling import KEY_IGNORED

STAGES = [f"stage {number}" for number in range(1, 17)]


@pytest.fixture
def panel(project):
    made = AnnotationPanel(project)
    yield made
    made.close()


@pytest.fixture
def many(project):
    """A panel with more classes than keys."""
    for name in STAGES:
        project.classes.add(name)
    made = AnnotationPanel(project)
    yield made
    made.close()


def enter(field, text: str) -> None:
    field.value = text
    field._handle_custom_msg({"event": "submit"}, [])


def visible(panel) -> list[str]:
    return [row.info.name for row in panel.rows.lines.children if row.layout.display != "none"]


def test_the_pencil_renames_a_class(panel, project):
    project.annotate("left", 1, "bright")
    panel.rows.row(1).edit.click()
    assert panel.editor.layout.display != "none"
    enter(panel.editor.name, "very bright")
    assert project.classes.names == ("very bright", "dark")
    assert project.annotations.label_of("left", 1).class_id == 1
    assert "bright is called very bright now" in panel.status.text
    assert panel.editor.layout.display == "none"


def test_a_class_is_merged_into_another_and_its_annotations_count_there(panel, project):
    project.annotate("left", 1, "bright")
    panel.rows.row(1).edit.click()
    assert panel.editor.merge.disabled
    panel.editor.into.value = 2
    assert "1 annotated as bright will count as dark" in panel.editor.note.value
    panel.editor.merge.click()
    assert project.classes.names == ("dark",)
    assert project.annotations.class_counts()["dark"] == 1
    assert [row.info.name for row in panel.rows.lines.children] == ["dark"]
    assert panel.editor.layout.display == "none"
    panel.rows.row(2).edit.click()
    said, split = panel.editor.merged.children[0].children
    assert "bright" in said.value
    split.click()
    assert project.annotations.class_counts().to_dict() == {"bright": 1, "dark": 0}
    assert not panel.editor.merged.children


def test_a_name_that_is_taken_is_refused_in_the_editor(panel, project):
    panel.rows.row(1).edit.click()
    enter(panel.editor.name, "dark")
    assert "there is a class 'dark' already" in panel.status.text
    assert panel.editor.layout.display != "none"
    assert project.classes.names == ("bright", "dark")


def test_the_pencil_pressed_again_closes_the_editor(panel):
    panel.rows.row(1).edit.click()
    panel.rows.row(2).edit.click()
    assert panel.editor.name.value == "dark"
    panel.rows.row(2).edit.click()
    assert panel.editor.layout.display == "none"


def test_keys_reach_a_few_classes_and_no_field_is_needed(panel):
    assert panel.rows.find.layout.display == "none"


def test_a_class_without_a_key_is_found_by_its_name(many, project):
    assert many.rows.find.layout.display is None
    many.viewer.show("left", 3)
    many.press("/", ("left", 3))
    many.rows.find.value = "16"
    assert visible(many) == ["stage 16"]
    enter(many.rows.find, "16")
    assert project.classes.by_id(project.annotations.label_of("left", 3).class_id).name == "stage 16"
    assert len(visible(many)) == 18
    assert many.rows.find.value == ""


def test_enter_takes_the_class_that_begins_with_what_was_typed():
    found = []
    rows = ClassButtons(act=found.append, recolor=lambda *_: None, on_found=found.append)
    rows.show(ClassScheme().with_added(["un-dead", "dead", *STAGES]), {})
    rows.find.value = "Dea"
    assert "⏎" in rows.row(2).children[2].value
    assert "⏎" not in rows.row(1).children[2].value
    enter(rows.find, "dea")
    assert found == ["dead"]


def test_a_name_that_no_class_has_labels_nothing(many, project):
    many.viewer.show("left", 3)
    enter(many.rows.find, "nothing like it")
    enter(many.rows.find, "  ")
    assert not project.labels().size


def test_a_class_looked_for_while_another_object_was_on_the_screen_labels_nothing(many, project):
    many.viewer.show("left", 4)
    many.press("/", ("left", 3))
    enter(many.rows.find, "stage 16")
    assert not project.labels().size
    assert many.status.text == KEY_IGNORED
    enter(many.rows.find, "stage 16")
    assert project.annotations.label_of("left", 4).class_id


def test_the_help_lists_the_keys_that_stand_for_classes(panel, project):
    assert panel.help.value.startswith('<div class="sv-keys"><span><kbd>1</kbd> … <kbd>2</kbd></span>')
    for name in STAGES[:9]:
        project.classes.add(name)
    assert "<kbd>1</kbd> … <kbd>9</kbd> <kbd>0</kbd> <kbd>q</kbd></span>" in panel.help.value
    assert "Find a class" not in panel.help.value
    for name in STAGES[9:]:
        project.classes.add(name)
    assert "<kbd>k</kbd></span><span>the class of the object" in panel.help.value
    assert "<kbd>/</kbd> <kbd>⏎</kbd></span><span>Find a class by its name" in panel.help.value
