"""Counts corrected by the test set: annotated objects as they are, the others by its confusion matrix.

Counts by condition against a naive loop, and beside those of a person against closed forms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress

from svetlana_jupyter.core.stats.agreement import agreement
from svetlana_jupyter.core.stats.metrics import EXCLUSION_REASONS
from svetlana_jupyter.errors import InputError, ProjectError
from tests.project.conftest import squares
from tests.project.test_test_set import N, answered, predicted

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project


@pytest.fixture
def more(project: Project) -> Project:
    """Four more images, so that most objects are predicted alone."""
    for i in range(4):
        project.add(f"more{i}", *squares(seed=10 + i), axes="yx", groups={"plate": "P3", "well": f"B{i}"})
    project.test_set.draw(N, seed=2)
    return project


@pytest.mark.parametrize("by", [(), ("plate",)])
def test_counts_are_those_of_the_closed_form(more: Project, by: tuple[str, ...]) -> None:
    predicted(more, wrong=5)
    answered(more)
    table = more.predictions()
    test = table.loc[more.test_set.objects]
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
        assert (rows["corrected_low"] <= rows["corrected"]).all()
        assert (rows["corrected"] <= rows["corrected_high"]).all()
        assert (rows["corrected_low"] < rows["corrected_high"]).all()
    plain = more.counts(list(by))
    assert "corrected" not in plain
    assert counts[plain.columns].equals(plain), "the others stay as they are"


def test_without_a_test_set_a_sentence_says_how_to_get_one(project: Project) -> None:
    predicted(project)
    with pytest.raises(ProjectError, match=r"without a test set\. Draw one with project\.test_set\.draw"):
        project.counts(corrected=True)


def test_what_the_test_set_does_not_say_yet_is_said(more: Project) -> None:
    predicted(more)
    answered(more, 7)
    with pytest.raises(ProjectError, match=r"cannot be corrected yet\. .* of its 24 objects are annotated; 7 are"):
        more.counts(corrected=True)


def test_only_what_is_counted_tells_and_too_little_of_it_is_said(more: Project) -> None:
    predicted(more, wrong=2)
    answered(more)
    with pytest.raises(
        ProjectError, match=r"only 0 objects of the test set are among those counted\. Count at least 20"
    ):
        more.counts(corrected=True, size=(1000, None))


def test_a_run_that_guesses_cannot_be_corrected(more: Project) -> None:
    predicted(more, wrong=12)
    answered(more)
    with pytest.raises(ProjectError, match="confuses two classes too often"):
        more.counts(corrected=True)


def test_a_class_that_the_test_set_lacks_is_named(more: Project) -> None:
    more.classes.add("torn")
    predicted(more)
    answered(more)
    counts = more.counts(corrected=True).set_index("class")
    assert more.status == "The test set has no object of torn: assumed to be always recognized."
    assert counts.loc["torn", "corrected"] == 0


NAMES = ("P1_A1", "P1_A2", "P2_A1")


def said(project: Project) -> Project:
    """Annotate without a training: bright and dim, two set aside, and one left without a class."""
    for i, name in enumerate(NAMES):
        project.annotate(name, range(1, 5 + i), "bright")
        project.annotate(name, range(5 + i, 11), "dim")
    project.flag("P1_A1", 1, "ambiguous")
    project.flag("P2_A1", [2, 3], "bad_segmentation")
    return project


@pytest.fixture
def doses() -> pd.DataFrame:
    return pd.DataFrame(
        {"Plate": ["p1", "P1", "P2"], "Well ID": ["A01", "a2", "A1"], "dose": [0, 10, 10], "drug": ["x", "x", "y"]}
    )


def naive(project: Project, by: list[str], extra: dict[str, dict[str, object]], border: bool, low: float) -> dict:
    """Count in a loop over the objects, without pandas' groups."""
    found: dict = {}
    for (image, _), row in project.predictions().iterrows():
        known = {**project.images[image].groups, **extra[image], "image": image}
        key = tuple(known[column] for column in by)
        group = found.setdefault(key, dict.fromkeys(["bright", "dim", *EXCLUSION_REASONS], 0))
        if row["annotation"] in ("ambiguous", "bad_segmentation"):
            group[row["annotation"]] += 1
        elif border and row["on_border"]:
            group["border"] += 1
        elif row["size"] < low:
            group["size"] += 1
        elif row["class"] is None or pd.isna(row["class"]):
            group["not_predicted"] += 1
        else:
            group[row["class"]] += 1
    return found


@pytest.mark.parametrize("by", [["dose"], ["plate", "drug"], ["image"], ["well", "dose"]])
@pytest.mark.parametrize("low", [0, 100])
def test_counts_are_those_of_a_loop(project: Project, doses: pd.DataFrame, by: list[str], low: int) -> None:
    image, mask = squares(seed=5)
    mask[mask == 4] = 0
    mask[:8, -8:] = 4  # small, and on the border
    mask[40:, 90:] = 12
    project.add("P2_A2", image, mask, axes="yx", groups={"plate": "P2", "well": "A2"})
    said(project)
    project.annotate("P2_A2", range(1, 10), "dim")
    doses.loc[3] = ["P2", "A2", 0, "y"]
    extra = dict(zip([*NAMES, "P2_A2"], doses[["dose", "drug"]].to_dict("records")))
    counts = project.counts(by, doses, exclude_border=True, size=(low or None, None))
    expected = naive(project, by, extra, True, low)
    assert len(counts) == 2 * len(expected)
    for _, row in counts.iterrows():
        group = expected[tuple(row[column] for column in by)]
        assert row["count"] == group[row["class"]]
        assert {why: row[why] for why in EXCLUSION_REASONS} == {why: group[why] for why in EXCLUSION_REASONS}
        assert row["total"] == group["bright"] + group["dim"]
        assert row["left_out"] == sum(group[why] for why in EXCLUSION_REASONS)
        assert row["fraction"] == group[row["class"]] / row["total"]
    assert counts["border"].sum()
    assert counts["bad_segmentation"].sum()
    assert counts["not_predicted"].sum()
    assert counts[["total", "left_out"]].sum(axis=1)[::2].sum() == 4 * 12


def test_conditions_stand_beside_the_group_that_they_are_of(project: Project, doses: pd.DataFrame, tmp_path) -> None:
    said(project)
    file = tmp_path / "doses.csv"
    doses.to_csv(file, index=False, sep=";", encoding="utf-8-sig")
    counts = project.counts(["plate", "well"], conditions=file)
    assert counts.columns[:5].tolist() == ["plate", "well", "dose", "drug", "class"]
    assert counts.groupby(["plate", "well"])["dose"].first().tolist() == [0, 10, 10]
    assert "drug" in project.counts("dose", doses[["Plate", "Well ID", "dose", "drug"]].assign(drug="x"))
    assert "drug" not in project.counts("dose", doses), "it differs within a dose"


def test_rows_without_a_partner_are_named_and_lose_no_object(project: Project, doses: pd.DataFrame) -> None:
    said(project)
    part = pd.concat([doses.iloc[:2], pd.DataFrame({"Plate": ["P9"], "Well ID": ["H12"], "dose": [7], "drug": ["z"]})])
    counts = project.counts("dose", part)
    assert project.status == "No row is for plate P2 well A1; no image is of plate P9 well H12, which the table has."
    assert counts["dose"].isna().sum() == 2
    assert counts["count"].sum() == project.counts()["count"].sum()


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (pd.DataFrame({"dose": [1]}), "has no column named like image, plate, well"),
        (
            pd.DataFrame({"well": ["B7"], "dose": [1]}),
            "No row of the table of conditions matches .*: its rows are for well B7",
        ),
        (pd.DataFrame({"well": ["A1", "A01"], "dose": [1, 2]}), "two rows for well A01"),
        (pd.DataFrame({"well": ["A1"], "count": [1]}), "The condition 'count' has the name"),
        (pd.DataFrame({"well": []}), "has no rows"),
        ("nowhere.csv", "nowhere.csv does not exist"),
        (3, "as a CSV file or a DataFrame, got int"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_a_sentence(project: Project, table, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        project.counts("well", table)


def test_conditions_may_be_an_excel_file_or_have_decimal_commas(project: Project, doses, tmp_path: Path) -> None:
    said(project)
    doses["dose"] = [0, 1.5, 1.5]
    doses.to_excel(tmp_path / "doses.xlsx", index=False)
    doses.to_csv(tmp_path / "doses.csv", index=False, sep=";", decimal=",")
    expected = project.counts("dose", doses)
    for file in ("doses.xlsx", "doses.csv"):
        pd.testing.assert_frame_equal(project.counts("dose", tmp_path / file), expected)
    (tmp_path / "torn.xlsx").write_bytes((tmp_path / "doses.xlsx").read_bytes()[:900])
    (tmp_path / "latin.csv").write_bytes("well;dosé\nA1;1\n".encode("latin1"))
    for file in ("torn.xlsx", "latin.csv"):
        with pytest.raises(InputError, match="Save it as CSV in UTF-8"):
            project.counts("dose", tmp_path / file)


def test_images_are_found_by_their_files_name(project: Project) -> None:
    table = pd.DataFrame({"File name": [f"{name}.tif" for name in NAMES], "dose": ["low", "low", "high"]})
    counts = said(project).counts("dose", table)
    assert counts.groupby("dose")["total"].first().to_dict() == {"low": 19, "high": 8}


def test_the_name_of_an_image_says_all_and_that_of_a_drug_nothing(project: Project, doses: pd.DataFrame) -> None:
    said(project)
    expected = project.counts("dose", doses)[["dose", "class", "count"]]
    named = doses.assign(image=NAMES).drop(columns="Plate")  # its wells alone would contradict each other
    pd.testing.assert_frame_equal(project.counts("dose", named)[["dose", "class", "count"]], expected)
    drugs = doses.assign(name=["none", "PDGF", "IL-1"])
    found = project.counts("name", drugs)
    assert found["name"].tolist() == ["IL-1", "IL-1", "PDGF", "PDGF", "none", "none"]


def test_a_size_range_that_is_none_is_refused(project: Project) -> None:
    with pytest.raises(InputError, match="the smallest and the largest size"):
        project.counts(size=(9, 3))


def test_agreement_is_that_of_numpy_and_of_bland_and_altman() -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(0, 300, 40)
    y = 1.1 * x - 4 + rng.normal(0, 12, 40)
    found = agreement(x, y)
    slope, intercept = np.linalg.lstsq(np.c_[x, np.ones(40)], y, rcond=None)[0]
    residual = ((y - slope * x - intercept) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept))
    assert found.r2 == pytest.approx(1 - residual) == pytest.approx(linregress(x, y).rvalue ** 2)
    d = y - x
    deviation = np.sqrt(((d - d.sum() / 40) ** 2).sum() / 39)
    assert found.bias == pytest.approx(d.sum() / 40)
    assert found.deviation == pytest.approx(deviation)
    assert found.limits == pytest.approx((found.bias - 1.96 * deviation, found.bias + 1.96 * deviation))


def test_equal_references_have_differences_but_no_line() -> None:
    found = agreement([5, 5, 5], [4, 5, 7])
    assert np.isnan(found.slope)
    assert np.isnan(found.r2)
    assert found.bias == pytest.approx(1 / 3)


def test_the_counts_of_a_person_are_compared_well_by_well(project: Project) -> None:
    said(project)
    manual = pd.DataFrame({"Image": [f"{name}.tif" for name in NAMES], "Bright": [3, 6, 4], "drug": ["x", "y", "y"]})
    found = project.compare_counts(manual)
    assert found.class_name == "bright"
    assert found.n == 3
    assert found.table["counted"].tolist() == [3, 5, 4]
    assert found.table["manual"].tolist() == [3, 6, 4]
    assert found.table["drug"].tolist() == ["x", "y", "y"]
    assert found.table["left_out"].tolist() == [3, 2, 4]
    assert found.bias == pytest.approx(-1 / 3)
    assert found.slope == pytest.approx(np.polyfit([3, 6, 4], [3, 5, 4], 1)[0])
    assert str(found).startswith("bright: R²")
    assert project.status == str(found)
    by_name = project.compare_counts(dict(zip(NAMES, [3, 6, 4])), "bright")
    assert by_name.agreement == found.agreement
    long = manual.melt(["Image", "drug"], ["Bright"], "class", "n")
    long = pd.concat([long, long.assign(**{"class": "dim", "n": 1})])
    assert project.compare_counts(long, "bright").agreement == found.agreement


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"image": [*NAMES], "count": [1, 2, 3]}, "one class at a time. Pass class_name="),
        ({"image": [*NAMES], "bright": [1, -2, 3]}, "The column 'bright' contains -2"),
        ({"image": [*NAMES[:2]], "bright": [1, 2]}, "at least three pairs of counts, got 2"),
        ({"bright": [1, 2]}, "has no column named like image, plate, well"),
        ({"image": [*NAMES], "class": ["bright"] * 3, "a": ["x"] * 3}, "has no column “count”"),
    ],
)
def test_counts_that_cannot_be_compared_are_refused_in_a_sentence(project: Project, table: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        said(project).compare_counts(pd.DataFrame(table))


def test_rows_that_nobody_counted_are_said(project: Project, tmp_path: Path) -> None:
    image, mask = squares(seed=9)
    project.add("extra", image, mask, axes="yx")
    found = said(project).compare_counts(dict(zip([*NAMES, "gone"], [1, 2, 3, 4])), "bright")
    assert found.n == 3
    assert "No row is for image extra" in found.unmatched
    assert "image gone" in found.unmatched


def test_before_anything_is_known_nothing_is_plotted(project: Project) -> None:
    for plot in (project.plot.counts, project.plot.gallery, project.plot.confusion):
        with pytest.raises(ProjectError):
            plot()
