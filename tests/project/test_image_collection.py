"""Image collection of a project: a mapping that is replaced as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.image_collection import ImageCollection
from svetlana_jupyter.project.storage import Notify, ProjectFolder
from tests.project.conftest import squares

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def changed() -> list[str]:
    return []


@pytest.fixture
def images(tmp_path: Path, changed: list[str]) -> ImageCollection:
    return ImageCollection(ProjectFolder(tmp_path / "cells.svetlana"), Notify(changed=changed.append))


def test_adding_several_images_sends_one_change(images: ImageCollection, changed: list[str]) -> None:
    images.add_all({"first": squares(seed=1), "second": squares(seed=2)})
    assert list(images) == ["first", "second"]
    assert changed == ["images"]
    images.add("first", *squares(seed=1))
    assert changed == ["images"], "the same image again changes nothing"


def test_a_snapshot_and_an_iteration_ignore_later_changes(images: ImageCollection) -> None:
    images.add("first", *squares(seed=1))
    snapshot, names = images.snapshot(), iter(images)
    images.add("second", *squares(seed=2))
    assert list(snapshot) == ["first"] == list(names)
    assert len(images) == 2


def test_an_excluded_image_is_restored_on_reopening(images: ImageCollection, tmp_path: Path) -> None:
    images.add_all({"first": squares(seed=1), "second": squares(seed=2)})
    images.leave_out(["first"])
    assert list(images) == ["second"] == images.chosen(None)
    assert len(ImageCollection(ProjectFolder(tmp_path / "cells.svetlana"), Notify())) == 2


def test_an_unknown_image_is_refused_with_the_names_of_the_others(images: ImageCollection) -> None:
    images.add("first", *squares(seed=1))
    with pytest.raises(InputError, match=r"no image 'third'\. Choose one of its images: 'first'"):
        images.chosen(["first", "third"])
