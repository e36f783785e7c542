"""Classes: renaming, merging, and finding by name if there are more classes than keys."""

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
    if "sv-once" in field._dom_classes:
        field.value = ""  # as the page does


def visible(panel) -> list[str]:
    return [row.info.name for row in panel.class_buttons.lines.children if row.layout.display != "none"]


def test_the_pencil_renames_a_class(panel, project):
    project.annotate("left", 1, "bright")
    panel.class_buttons.row(1).edit.click()
    assert panel.editor.layout.display != "none"
    enter(panel.editor.name, "very bright")
    assert project.classes.names == ("very bright", "dark")
    assert project.annotations.label_of("left", 1).class_id == 1
    assert "Renamed class bright to very bright" in panel.status.text
    assert panel.editor.layout.display == "none"


def test_a_class_is_merged_into_another_and_its_annotations_count_there(panel, project):
    project.annotate("left", 1, "bright")
    panel.class_buttons.row(1).edit.click()
    assert panel.editor.merge.disabled
    panel.editor.into.value = 2
    assert "1 annotated as bright will count as dark" in panel.editor.note.value
    panel.editor.merge.click()
    assert project.classes.names == ("dark",)
    assert project.annotations.class_counts()["dark"] == 1
    assert [row.info.name for row in panel.class_buttons.lines.children] == ["dark"]
    assert panel.editor.layout.display == "none"
    panel.class_buttons.row(2).edit.click()
    text, split = panel.editor.merged.children[0].children
    assert "bright" in text.value
    split.click()
    assert project.annotations.class_counts().to_dict() == {"bright": 1, "dark": 0}
    assert not panel.editor.merged.children


def test_a_mistyped_class_is_deleted_but_not_one_with_annotations(panel, project):
    project.annotate("left", 1, "bright")
    panel.class_buttons.row(1).edit.click()
    panel.editor.delete.click()
    assert "Merge it into another class instead" in panel.status.text
    project.classes.add("brihgt")
    panel.class_buttons.row(3).edit.click()
    panel.editor.delete.click()
    assert project.classes.names == ("bright", "dark")
    assert "Deleted class brihgt. To undo, add it again." in panel.status.text
    assert panel.editor.layout.display == "none"


def test_an_existing_class_name_is_refused_in_the_editor(panel, project):
    panel.class_buttons.row(1).edit.click()
    enter(panel.editor.name, "dark")
    assert "There is a class 'dark' already" in panel.status.text
    assert panel.editor.layout.display != "none"
    assert project.classes.names == ("bright", "dark")


def test_the_pencil_pressed_again_closes_the_editor(panel):
    panel.class_buttons.row(1).edit.click()
    panel.class_buttons.row(2).edit.click()
    assert panel.editor.name.value == "dark"
    panel.class_buttons.row(2).edit.click()
    assert panel.editor.layout.display == "none"


def test_with_few_classes_there_is_no_search_field(panel):
    assert panel.class_buttons.find.layout.display == "none"


def test_a_class_without_a_key_is_found_by_its_name(many, project):
    assert many.class_buttons.find.layout.display is None
    many.viewer.show("left", 3)
    many.handle_key("/", ("left", 3))
    many.class_buttons.find.value = "16"
    assert visible(many) == ["stage 16"]
    enter(many.class_buttons.find, "16")
    assert project.classes.by_id(project.annotations.label_of("left", 3).class_id).name == "stage 16"
    assert len(visible(many)) == 18
    assert many.class_buttons.find.value == ""


def test_enter_takes_the_class_whose_name_starts_with_the_typed_text():
    found = []
    rows = ClassButtons(act=found.append, recolor=lambda *_: None, on_found=found.append)
    rows.show(ClassScheme().with_added(["un-dead", "dead", *STAGES]), {})
    rows.find.value = "Dea"
    assert "⏎" in rows.row(2).children[2].value
    assert "⏎" not in rows.row(1).children[2].value
    enter(rows.find, "dea")
    assert found == ["dead"]


def test_an_unknown_class_name_labels_nothing(many, project):
    many.viewer.show("left", 3)
    enter(many.class_buttons.find, "nothing like it")
    assert "nothing like it" in many.status.text
    enter(many.class_buttons.find, "  ")
    assert not project.labels().size


def test_a_class_found_while_another_object_was_on_the_screen_labels_nothing(many, project):
    many.viewer.show("left", 4)
    many.handle_key("/", ("left", 3))
    enter(many.class_buttons.find, "stage 16")
    assert not project.labels().size
    assert many.status.text == KEY_IGNORED
    enter(many.class_buttons.find, "stage 16")
    assert project.annotations.label_of("left", 4).class_id


def test_the_help_lists_the_keys_of_the_classes(panel, project):
    assert panel.command_bar.help.value.startswith('<div class="sv-keys"><span><kbd>1</kbd> … <kbd>2</kbd></span>')
    for name in STAGES[:9]:
        project.classes.add(name)
    assert "<kbd>1</kbd> … <kbd>9</kbd> <kbd>0</kbd> <kbd>q</kbd></span>" in panel.command_bar.help.value
    assert "Find a class" not in panel.command_bar.help.value
    for name in STAGES[9:]:
        project.classes.add(name)
    assert "<kbd>k</kbd></span><span>Label the object with this class" in panel.command_bar.help.value
    assert "<kbd>/</kbd> <kbd>⏎</kbd></span><span>Find a class by name" in panel.command_bar.help.value
