"""Counts corrected by the test set: annotated objects as they are, the others by its confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.project import Project
from tests.project.conftest import squares
from tests.project.test_testset import N, answered, predicted


@pytest.fixture
def more(project: Project) -> Project:
    """Four more images, so that most objects are predicted alone."""
    for i in range(4):
        project.add(f"more{i}", *squares(seed=10 + i), axes="yx", groups={"plate": "P3", "well": f"B{i}"})
    project.draw_test_set(N, seed=2)
    return project


@pytest.mark.parametrize("by", [(), ("plate",)])
def test_counts_are_those_of_the_closed_form(more: Project, by: tuple[str, ...]) -> None:
    predicted(more, wrong=5)
    answered(more)
    table = more.predictions()
    test = table.loc[more.test_objects]
    sensitivity, specificity = (
        (test["predicted"][test["annotation"] == name] == name).mean() for name in ("bright", "dim")
    )
    assert (test["predicted"] != test["annotation"]).sum() == 5
    counts = more.counts(list(by), corrected=True)
    for key, group in table.groupby(list(by)) if by else [((), table)]:
        rest = group[group["annotation"].isna()]
        share = ((rest["predicted"] == "bright").mean() + specificity - 1) / (sensitivity + specificity - 1)
        bright = (group["annotation"] == "bright").sum() + len(rest) * np.clip(share, 0, 1)
        rows = (
            counts[(counts[list(by)] == list(key)).all(axis=1)].set_index("class") if by else counts.set_index("class")
        )
        assert rows.loc["bright", "corrected"] == pytest.approx(bright)
        assert rows.loc["dim", "corrected"] == pytest.approx(len(group) - bright)
        assert rows["corrected"].sum() == pytest.approx(rows["total"].iloc[0])
        assert (rows["corrected_low"] <= rows["corrected"]).all() and (
            rows["corrected"] <= rows["corrected_high"]
        ).all()
        assert (rows["corrected_low"] < rows["corrected_high"]).all()
    plain = more.counts(list(by))
    assert "corrected" not in plain and counts[plain.columns].equals(plain), "the others stay as they are"


def test_without_a_test_set_a_sentence_says_how_to_get_one(project: Project) -> None:
    predicted(project)
    with pytest.raises(ProjectError, match=r"there is none: draw one with project\.draw_test_set"):
        project.counts(corrected=True)


def test_what_the_test_set_does_not_say_yet_is_said(more: Project) -> None:
    predicted(more)
    answered(more, 7)
    with pytest.raises(ProjectError, match=r"cannot be corrected yet\. .* of its 24 objects are annotated; 7 are"):
        more.counts(corrected=True)


def test_only_what_is_counted_tells_and_too_little_of_it_is_said(more: Project) -> None:
    predicted(more, wrong=2)
    answered(more)
    with pytest.raises(ProjectError, match="only 0 objects of the test set are among those counted, 20 are needed"):
        more.counts(corrected=True, size=(1000, None))


def test_a_run_that_guesses_cannot_be_corrected(more: Project) -> None:
    predicted(more, wrong=12)
    answered(more)
    with pytest.raises(ProjectError, match="predicted alike too often"):
        more.counts(corrected=True)


def test_a_class_that_the_test_set_lacks_is_named(more: Project) -> None:
    more.add_class("torn")
    predicted(more)
    answered(more)
    counts = more.counts(corrected=True).set_index("class")
    assert more.status == "The test set has no object of torn: taken as always recognised."
    assert counts.loc["torn", "corrected"] == 0
