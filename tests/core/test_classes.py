"""Classes keep their ids whatever is renamed, and refuse what cannot be told apart."""

from __future__ import annotations

import pytest

from svetlana_jupyter.core.classes import Classes
from svetlana_jupyter.errors import InputError


def test_reopening_with_other_names_adds_them_and_drops_none() -> None:
    classes = Classes().adding(["resting", "active"]).adding(["dead", "active"])
    assert classes.names == ("resting", "active", "dead") and classes.ids == (1, 2, 3)


def test_a_renamed_class_keeps_id_colour_and_key() -> None:
    before = Classes().adding(["resting", "active"])
    after = before.renaming("active", "mitotic")
    assert after.by_name("mitotic").id == before.by_name("active").id
    assert after.by_id(2).color == before.by_id(2).color and after.by_key("2") == after.by_name("mitotic")


def test_the_tenth_class_has_no_key_but_a_colour() -> None:
    classes = Classes().adding([f"class {i}" for i in range(1, 15)])
    assert classes.by_name("class 9").key == "9" and classes.by_name("class 10").key == ""
    assert all(info.color.startswith("#") for info in classes) and classes.by_key("") is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda c: c.adding(["a", "b", "a"]), "'a' was given more than once"),
        (lambda c: c.adding([" "]), "at least one visible character"),
        (lambda c: c.by_name("activ"), "the classes are 'resting', 'active'"),
        (lambda c: c.renaming("active", "resting"), "already"),
        (lambda c: c.recoloring("active", "red"), "#e69f00"),
        (lambda c: c.by_id(7), "id 7"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(wrong, said: str) -> None:
    with pytest.raises(InputError, match=said):
        wrong(Classes().adding(["resting", "active"]))
