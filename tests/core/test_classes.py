"""Classes keep their ids whatever is renamed, and refuse what cannot be told apart."""

from __future__ import annotations

import pytest

from svetlana_jupyter.core.classes import KEYS, ClassScheme
from svetlana_jupyter.errors import InputError


def test_reopening_with_other_names_adds_them_and_drops_none() -> None:
    classes = ClassScheme().adding(["resting", "active"]).adding(["dead", "active"])
    assert classes.names == ("resting", "active", "dead") and classes.ids == (1, 2, 3)


def test_a_renamed_class_keeps_id_colour_and_key() -> None:
    before = ClassScheme().adding(["resting", "active"])
    after = before.with_renamed("active", "mitotic")
    assert after.by_name("mitotic").id == before.by_name("active").id
    assert after.by_id(2).color == before.by_id(2).color and after.by_shortcut("2") == after.by_name("mitotic")


def test_classes_have_keys_of_their_own_for_as_long_as_these_last() -> None:
    classes = ClassScheme().adding([f"class {i}" for i in range(1, 20)])
    keys = [info.key for info in classes if info.key]
    assert "".join(keys) == KEYS and len(set(keys)) == len(keys)
    assert not set(keys) & set("urnpseabxlf?+-=[] "), "these are the panels' commands"
    assert classes.by_name("class 9").key == "9" and classes.by_name("class 19").key == ""
    assert all(info.color.startswith("#") for info in classes) and classes.by_shortcut("") is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda c: c.adding(["a", "b", "a"]), "'a' was given more than once"),
        (lambda c: c.adding([" "]), "at least one visible character"),
        (lambda c: c.by_name("activ"), "the classes are 'resting', 'active'"),
        (lambda c: c.with_renamed("active", "resting"), "already"),
        (lambda c: c.with_recolored("active", "red"), "#e69f00"),
        (lambda c: c.by_id(7), "id 7"),
        (lambda c: c.with_merged("active", "active"), "count as one class already"),
        (
            lambda c: c.with_merged("active", "resting").with_renamed("active", "x"),
            "'active' was merged into 'resting'",
        ),
        (lambda c: c.with_unmerged("active"), "was not merged into another class; those that were are none"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(wrong, said: str) -> None:
    with pytest.raises(InputError, match=said):
        wrong(ClassScheme().adding(["resting", "active"]))


def test_a_merged_class_is_found_as_the_one_it_counts_as_and_its_id_is_never_used_again() -> None:
    before = ClassScheme().adding(["resting", "active", "dead"])
    classes = before.with_merged("dead", "active").with_merged("active", "resting")
    assert classes.names == ("resting",) and classes.merged == {2: 1, 3: 1}
    assert classes.by_name("dead").name == classes.by_id(3).name == "resting"
    assert classes.adding(["dead", "new"]).by_name("new").id == 4
    assert classes.with_unmerged("active").with_unmerged("dead").names == before.names


def test_a_key_that_a_merged_class_had_is_free_again() -> None:
    classes = ClassScheme().adding(["a", "b", "c"]).with_merged("b", "a").adding(["d"])
    assert classes.by_shortcut("2") == classes.by_name("d") and classes.with_unmerged("b").by_shortcut("4").name == "b"
