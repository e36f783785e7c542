"""A run says when its augmentation destroyed what tells the classes apart, and only then."""

from __future__ import annotations

import pytest

from svetlana_jupyter.core.samples import stripes
from svetlana_jupyter.project.project import Project

QUICK = {"epochs": 15, "steps": 8, "depth": 2, "width": 8, "trees": 10, "folds": 2, "patches": {"sampling": 20}}


@pytest.fixture
def striped(tmp_path):
    """A project whose classes differ by the direction of their stripes, all annotated."""
    sample = stripes(0, size=360, count=60)
    made = Project(tmp_path / "stripes.svetlana", classes=sample.names)
    made.add("stripes", sample.image, sample.mask, axes="yx")
    for object, name in sample.class_names().items():
        made.annotate("stripes", object, name)
    return made


def test_free_rotations_of_stripes_are_warned_of_with_the_score_without_them(striped):
    striped.train(**QUICK, augmentation={"rotation": "free"})
    assert "Augmentation destroys the classes: without it" in striped.evaluate().text
    assert "how objects are turned" in striped.evaluate().text


def test_half_turns_of_stripes_are_not_warned_of(striped):
    striped.train(**QUICK, augmentation={"rotation": "half_turns"})
    assert "ugmentation" not in striped.evaluate().text


def test_what_may_not_count_is_not_warned_of(striped):
    striped.train(**QUICK, may_use=["surroundings", "brightness", "size"], augmentation={"brightness": 0, "noise": 0})
    assert "ugmentation" not in striped.evaluate().text
