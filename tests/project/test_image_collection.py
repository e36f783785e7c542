"""Image collection of a project: a mapping that is replaced as a whole."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile

from svetlana_jupyter.core.objects import for_threads
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.image_collection import ImageCollection
from svetlana_jupyter.project.project import Project
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


def test_what_is_not_used_of_the_files_is_reported_when_images_are_added(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30), np.uint8)
    mask = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3), np.ones((10, 10), np.uint8))
    note = "along y and x (0.5 'parsnip') is not used: the unit is unknown"
    for well in "ab":
        tifffile.imwrite(tmp_path / f"m_{well}.tif", mask)
        unit = "parsnip" if well == "a" else "um"
        tifffile.imwrite(tmp_path / f"i_{well}.tif", pixels, imagej=True, resolution=(2, 2), metadata={"unit": unit})
    project = Project(tmp_path / "p.svetlana", classes=["x", "y"])

    with pytest.warns(UserWarning, match="well 1: .*" + re.escape(note)):
        project.add("well 1", tmp_path / "i_a.tif", tmp_path / "m_a.tif")
    assert note in project.status
    table = project.add_images(tmp_path / "i_{well}.tif", tmp_path / "m_{well}.tif").set_index("name")

    assert note in table.loc["a", "note"]
    assert table.loc["b", "note"] == ""
    assert note in project.status
    assert project.pair("a").spacing is None
    assert project.pair("b").spacing == pytest.approx((0.5, 0.5))


def test_a_given_pixel_size_resolves_that_image_and_mask_differ(tmp_path):
    mask = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3), np.ones((10, 10), np.uint8))
    for name, resolution in (("i", 2), ("m", 4)):
        options = {"imagej": True, "metadata": {"unit": "um"}}
        tifffile.imwrite(tmp_path / f"{name}.tif", mask, resolution=(resolution, resolution), **options)
    project = Project(tmp_path / "p.svetlana", classes=["x", "y"])

    with pytest.raises(InputError, match=r"pixel sizes of image .* and mask .* differ") as error:
        project.add("a", tmp_path / "i.tif", tmp_path / "m.tif")
    assert list(project.images) == []
    assert "`spacing=(0.25, 0.25)`" in str(error.value)
    project.add("a", tmp_path / "i.tif", tmp_path / "m.tif", spacing=(0.25, 0.25))

    assert Project(tmp_path / "p.svetlana").pair("a").spacing == (0.25, 0.25)


def test_threads_look_up_the_rows_of_an_object_table_at_the_same_time(project):
    large = 300_000
    table = pd.DataFrame({"size": 1}, pd.Index(np.random.default_rng(0).permutation(large), name="object"))
    shared = for_threads(table)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda label: shared.reindex([label])["size"].item(), range(0, large, large // 8)))
    assert rows == [1] * len(rows)
    reopened = Project(project.path, annotator="ann")
    for opened in (project, reopened):
        assert opened.objects("P1_A1").index._engine.is_mapping_populated
