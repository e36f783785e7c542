"""What counts leave out by place or size, training leaves out too, and says so."""

from __future__ import annotations

import numpy as np
import pytest

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.examples import select_training_objects
from svetlana_jupyter.project.project import Project
from tests.project.conftest import squares
from tests.project.test_loop import QUICK, truth


@pytest.fixture
def uneven(project: Project) -> Project:
    """Two more images: in each, objects of several sizes, one of them at the border, and all of them annotated."""
    for name, seed in (("odd", 5), ("even", 6)):
        image, mask = squares(seed=seed)
        for label, erode_masks in ((3, 6), (4, 9), (7, 8)):
            mask[mask == label] = 0
            row, column = divmod(label - 1, 4)
            mask[row * 24 + 6 : row * 24 + 6 + erode_masks, column * 24 + 6 : column * 24 + 18] = label
        mask[:18, 6:18] = 1
        project.add(name, image, mask, axes="yx")
        for object in range(1, 13):
            project.annotate(name, object, truth(object))
    return project


def naive(project: Project, border: bool, low: float, high: float) -> tuple[set, int, int]:
    """Look at the pixels of each mask: who is left, how many are at the border, and how many of another size."""
    left, at_border, other = set(), 0, 0
    for image, object in project.training_labels().index:
        pixels = np.asarray(project.pair(image).mask) == object
        edge = np.ones_like(pixels)
        edge[1:-1, 1:-1] = False
        if border and (pixels & edge).any():
            at_border += 1
        elif not low <= pixels.sum() <= high:
            other += 1
        else:
            left.add((image, object))
    return left, at_border, other


@pytest.mark.parametrize(
    ("border", "size"),
    [(True, None), (False, (100, None)), (True, (100, 144)), (True, (None, 108)), (False, (96, 96))],
)
def test_what_is_left_is_that_of_a_look_at_the_pixels(uneven: Project, border: bool, size) -> None:
    low, high = size or (None, None)
    left, at_border, other = naive(uneven, border, low or 0, high or np.inf)
    labels, says = select_training_objects(uneven, border, size)
    assert set(labels.index) == left and len(labels) == len(left) and at_border + other
    assert (f"{at_border} at the border" in says) == (at_border > 0)
    assert (f"{other} by their size" in says) == (other > 0)
    counted = uneven.counts(exclude_border=border, size=(low, high))
    assert counted["total"][0] == len(left), "counts leave out the same"


def test_without_a_limit_all_are_examples(uneven: Project) -> None:
    for size in (None, (None, None)):
        labels, says = select_training_objects(uneven, False, size)
        assert len(labels) == 24 and says == ""


def test_a_training_learns_from_these_alone_and_predicts_all(uneven: Project) -> None:
    uneven.settings = uneven.settings.changed(exclude_border=True, size=(100, None))
    left, _, _ = naive(uneven, True, 100, np.inf)
    run = uneven.train(predict=True, **QUICK)
    assert sum(run.labels.values()) == len(left) == 24 - 2 * 3
    assert "left out of training: 2 at the border of their image and 4 by their size." in " ".join(run.remarks)
    held = run.held_out()
    assert held is not None and set(zip(held["image"], held["object"])) <= left
    assert uneven.predictions()["predicted"].notna().all()
    assert not uneven.evaluate().outdated
    uneven.settings = uneven.settings.changed(exclude_border=False)
    assert not uneven.evaluate().outdated, "the run is asked, not what comes next"
    uneven.annotate("odd", 5, "bright")
    assert uneven.evaluate().outdated


def test_what_one_call_leaves_out_counts_before_it_starts(uneven: Project) -> None:
    assert uneven.readiness() == ""
    with pytest.raises(ProjectError, match=r"none has any\. Annotated objects left out of training: 24 by their size"):
        uneven.train(size=(1000, None), **QUICK)
    uneven.settings = uneven.settings.changed(size=(None, 80))
    assert "only dim has some. Annotated objects left out" in uneven.readiness(), "object 3 alone is that small"
    uneven.train(size=None, **QUICK)
