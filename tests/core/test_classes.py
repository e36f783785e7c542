"""Class scheme: stable ids, shortcut keys, merging and errors."""

from __future__ import annotations

import pytest

from svetlana_jupyter.core.classes import SHORTCUT_KEYS, ClassScheme
from svetlana_jupyter.errors import InputError


def test_new_names_are_added_and_no_class_is_dropped() -> None:
    classes = ClassScheme().with_added(["resting", "active"]).with_added(["dead", "active"])
    assert classes.names == ("resting", "active", "dead")
    assert classes.ids == (1, 2, 3)


def test_a_renamed_class_keeps_id_color_and_key() -> None:
    before = ClassScheme().with_added(["resting", "active"])
    after = before.with_renamed("active", "mitotic")
    assert after.by_name("mitotic").id == before.by_name("active").id
    assert after.by_id(2).color == before.by_id(2).color
    assert after.by_shortcut("2") == after.by_name("mitotic")


def test_classes_have_shortcut_keys_until_these_are_used_up() -> None:
    classes = ClassScheme().with_added([f"class {i}" for i in range(1, 20)])
    keys = [info.key for info in classes if info.key]
    assert "".join(keys) == SHORTCUT_KEYS
    assert len(set(keys)) == len(keys)
    assert not set(keys) & set("urnpseabxlf?+-=[] "), "these keys are commands of the panels"
    assert classes.by_name("class 9").key == "9"
    assert classes.by_name("class 19").key == ""
    assert all(info.color.startswith("#") for info in classes)
    assert classes.by_shortcut("") is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda c: c.with_added(["a", "b", "a"]), "'a' was given more than once"),
        (lambda c: c.with_added([" "]), "at least one visible character"),
        (lambda c: c.with_added(["a\nb"]), "without line breaks"),
        (lambda c: c.by_name("activ"), "The classes are 'resting', 'active'"),
        (lambda c: c.with_renamed("active", "resting"), "already"),
        (lambda c: c.with_recolored("active", "red"), "#e69f00"),
        (lambda c: c.by_id(7), "id 7"),
        (lambda c: c.with_merged("active", "active"), "count as one class already"),
        (
            lambda c: c.with_merged("active", "resting").with_renamed("active", "x"),
            "'active' was merged into 'resting'",
        ),
        (lambda c: c.with_unmerged("active"), "was not merged into another class. Merged classes: none"),
    ],
)
def test_invalid_changes_are_refused(wrong, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrong(ClassScheme().with_added(["resting", "active"]))


def test_a_merged_class_leads_to_its_target_and_its_id_is_never_reused() -> None:
    before = ClassScheme().with_added(["resting", "active", "dead"])
    classes = before.with_merged("dead", "active").with_merged("active", "resting")
    assert classes.names == ("resting",)
    assert classes.merged == {2: 1, 3: 1}
    assert classes.by_name("dead").name == classes.by_id(3).name == "resting"
    assert classes.with_added(["dead", "new"]).by_name("new").id == 4
    assert classes.with_unmerged("active").with_unmerged("dead").names == before.names


def test_the_key_of_a_merged_class_is_free() -> None:
    classes = ClassScheme().with_added(["a", "b", "c"]).with_merged("b", "a").with_added(["d"])
    assert classes.by_shortcut("2") == classes.by_name("d")
    assert classes.with_unmerged("b").by_shortcut("4").name == "b"
