"""Counts per class and condition, and their comparison with manual counts.

Counts per condition are compared with a naive loop, and the agreement with manual counts with closed forms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress, t

from svetlana_jupyter.core.stats.agreement import agreement
from svetlana_jupyter.core.stats.metrics import EXCLUSION_REASONS
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.count_table import CountTable
from tests.project.conftest import squares

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project


def test_a_notebook_shows_rounded_counts_with_their_intervals_and_every_note_in_full() -> None:
    notes = ["Fewer than 20 labels were drawn here: errors are assumed as elsewhere <1>.", ""]
    reasons = {reason: [0, 0] for reason in EXCLUSION_REASONS} | {"border": [0, 3], "left_out": [0, 3]}
    table = CountTable(
        {"well": ["A1", "A<2"], "class": ["dim"] * 2, "count": [12, 1000], "total": [19, 2000]}
        | {"estimate": [11.904, 1001.25], "fraction": [0.62657, 0.5], "low": [0.42105, np.nan], "high": [0.789, np.nan]}
        | {"method": ["corrected", "predicted"], **reasons, "note": notes}
    )
    text = table._repr_html_()
    for part in ("<td>11.9</td>", "<td>62.7%</td>", "<td>42.1%</td>", "<td>78.9%</td>", "<td></td>", "<td>A&lt;2</td>"):
        assert part in text
    assert "errors are assumed as elsewhere &lt;1&gt;." in text
    assert "<th>border</th>" in text
    assert "<th>ambiguous</th>" not in text, "no object was left out as ambiguous"
    assert table["estimate"].tolist() == [11.904, 1001.25], "the values are not rounded"
    assert "more rows" in pd.concat([table] * 40)._repr_html_()
    assert "<td>corrected</td>" in text
    assert "Method: corrected." in table.head(1)._repr_html_(), "the only method is not repeated in each row"
    assert "11.904" in table[["well", "estimate"]]._repr_html_(), "part of the columns is displayed by pandas"


def test_a_table_of_counts_that_was_changed_is_displayed_by_pandas() -> None:
    values = {"class": "bright", "count": 1, "total": 2, "estimate": 1.0, "fraction": 0.5, "low": 0.1, "high": 0.9}
    row = {"well": "A1", **values, "method": "corrected", "left_out": 0}
    table = CountTable(pd.DataFrame([{**row, "note": "first"}, {**row, "note": "second"}]))
    assert "1. first" in table._repr_html_()
    assert "half" in table.assign(fraction="half")._repr_html_(), "formatted by the user"
    assert "NaN" in pd.concat([table, table.drop(columns="note")])._repr_html_()
    assert "second" in pd.concat([table, table], axis=1)._repr_html_(), "no column is unique"
    assert "Method" not in table.assign(method="")._repr_html_(), "nothing is counted"


NAMES = ("P1_A1", "P1_A2", "P2_A1")


def annotate_three_wells(project: Project) -> Project:
    """Annotate bright and dim objects, flag three objects, and leave some without a class; nothing is trained."""
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


def naive_counts(
    project: Project, by: list[str], extra: dict[str, dict[str, object]], border: bool, low: float
) -> dict:
    """Count in a loop over the objects, without the groupby of pandas."""
    result: dict = {}
    for (image, _), row in project.predictions().iterrows():
        conditions = {**project.images[image].groups, **extra[image], "image": image}
        key = tuple(conditions[column] for column in by)
        group = result.setdefault(key, dict.fromkeys(["bright", "dim", *EXCLUSION_REASONS], 0))
        if row["flag"] in ("ambiguous", "bad_segmentation"):
            group[row["flag"]] += 1
        elif border and row["on_border"]:
            group["border"] += 1
        elif row["size"] < low:
            group["size"] += 1
        elif row["class"] is None or pd.isna(row["class"]):
            group["not_predicted"] += 1
        else:
            group[row["class"]] += 1
    return result


@pytest.mark.parametrize("by", [["dose"], ["plate", "drug"], ["image"], ["well", "dose"]])
@pytest.mark.parametrize("low", [0, 100])
def test_counts_match_a_naive_loop(project: Project, doses: pd.DataFrame, by: list[str], low: int) -> None:
    image, mask = squares(seed=5)
    mask[mask == 4] = 0
    mask[:8, -8:] = 4  # small and at the border
    mask[40:, 90:] = 12
    project.add("P2_A2", image, mask, axes="yx", groups={"plate": "P2", "well": "A2"})
    annotate_three_wells(project)
    project.annotate("P2_A2", range(1, 10), "dim")
    doses.loc[3] = ["P2", "A2", 0, "y"]
    extra = dict(zip([*NAMES, "P2_A2"], doses[["dose", "drug"]].to_dict("records")))
    counts = project.counts(by, doses, exclude_border=True, size=(low or None, None))
    expected = naive_counts(project, by, extra, True, low)
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


def test_conditions_are_joined_to_their_group(project: Project, doses: pd.DataFrame, tmp_path) -> None:
    annotate_three_wells(project)
    file = tmp_path / "doses.csv"
    doses.to_csv(file, index=False, sep=";", encoding="utf-8-sig")
    counts = project.counts(["plate", "well"], conditions=file)
    assert counts.columns[:5].tolist() == ["plate", "well", "dose", "drug", "class"]
    assert counts.groupby(["plate", "well"])["dose"].first().tolist() == [0, 10, 10]
    assert "drug" in project.counts("dose", doses[["Plate", "Well ID", "dose", "drug"]].assign(drug="x"))
    assert "drug" not in project.counts("dose", doses), "it differs within a dose"


def test_unmatched_rows_are_named_and_no_object_is_lost(project: Project, doses: pd.DataFrame) -> None:
    annotate_three_wells(project)
    part = pd.concat([doses.iloc[:2], pd.DataFrame({"Plate": ["P9"], "Well ID": ["H12"], "dose": [7], "drug": ["z"]})])
    counts = project.counts("dose", part)
    assert project.status == (
        "No row for plate P2 well A1; no image for plate P9 well H12. "
        "Names in another spelling: “p1 A01” as “P1 A1”, “P1 a2” as “P1 A2”."
    )
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
        (pd.DataFrame({"well": ["A1", "A1"], "dose": [1, 2]}), "two rows for well A1"),
        (pd.DataFrame({"well": ["A1"], "count": [1]}), "The condition 'count' has the name"),
        (pd.DataFrame({"well": []}), "has no rows"),
        ("nowhere.csv", "nowhere.csv does not exist"),
        (3, "got int. Pass the path of a CSV file or a DataFrame"),
    ],
)
def test_an_invalid_condition_table_is_refused(project: Project, table, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        project.counts("well", table)


def test_conditions_are_read_from_excel_and_with_decimal_commas(project: Project, doses, tmp_path: Path) -> None:
    annotate_three_wells(project)
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


def test_images_are_matched_by_file_name(project: Project) -> None:
    table = pd.DataFrame({"File name": [f"{name}.tif" for name in NAMES], "dose": ["low", "low", "high"]})
    counts = annotate_three_wells(project).counts("dose", table)
    assert counts.groupby("dose")["total"].first().to_dict() == {"low": 19, "high": 8}


def test_decimals_of_a_name_are_no_suffix_of_a_file(project: Project) -> None:
    table = pd.DataFrame({"image": [*(f"{name}.5" for name in NAMES[:2]), NAMES[2]], "dose": ["low", "low", "high"]})
    counts = annotate_three_wells(project).counts("dose", table)
    assert counts.groupby("dose")["total"].first().to_dict() == {"high": 8}
    assert f"No row for image {NAMES[0]}, image {NAMES[1]}; no image for image {NAMES[0]}.5" in project.status


def test_an_image_column_takes_precedence_and_a_drug_name_is_no_key(project: Project, doses: pd.DataFrame) -> None:
    annotate_three_wells(project)
    expected = project.counts("dose", doses)[["dose", "class", "count"]]
    named = doses.assign(image=NAMES).drop(columns="Plate")  # the wells alone would be ambiguous
    pd.testing.assert_frame_equal(project.counts("dose", named)[["dose", "class", "count"]], expected)
    drugs = doses.assign(name=["none", "PDGF", "IL-1"])
    result = project.counts("name", drugs)
    assert result["name"].tolist() == ["IL-1", "IL-1", "PDGF", "PDGF", "none", "none"]


def test_an_inverted_size_range_is_refused(project: Project) -> None:
    with pytest.raises(InputError, match="the smallest and the largest size"):
        project.counts(size=(9, 3))


def test_agreement_matches_numpy_and_bland_altman() -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(0, 300, 40)
    y = 1.1 * x - 4 + rng.normal(0, 12, 40)
    result = agreement(x, y)
    slope, intercept = np.linalg.lstsq(np.c_[x, np.ones(40)], y, rcond=None)[0]
    residual = ((y - slope * x - intercept) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert (result.slope, result.intercept) == pytest.approx((slope, intercept))
    assert result.r2 == pytest.approx(1 - residual) == pytest.approx(linregress(x, y).rvalue ** 2)
    d = y - x
    deviation = np.sqrt(((d - d.sum() / 40) ** 2).sum() / 39)
    assert result.bias == pytest.approx(d.sum() / 40)
    assert result.deviation == pytest.approx(deviation)
    half = t.ppf(0.975, 39) * deviation * np.sqrt(1 + 1 / 40)
    assert result.limits == pytest.approx((result.bias - half, result.bias + half))


def test_limits_of_agreement_of_three_pairs_contain_95_percent_of_new_differences() -> None:
    pairs = np.random.default_rng(0).normal(0, 5, (500, 4))
    limits = [agreement(np.arange(3), np.arange(3) + three).limits for three in pairs[:, :3]]
    held = [low <= new <= high for (low, high), new in zip(limits, pairs[:, 3])]
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


def test_equal_references_have_a_bias_but_no_regression_line() -> None:
    result = agreement([5, 5, 5], [4, 5, 7])
    assert np.isnan(result.slope)
    assert np.isnan(result.r2)
    assert result.bias == pytest.approx(1 / 3)


def test_manual_counts_are_compared_per_well(project: Project) -> None:
    annotate_three_wells(project)
    manual = pd.DataFrame({"Image": [f"{name}.tif" for name in NAMES], "Bright": [3, 6, 4], "drug": ["x", "y", "y"]})
    result = project.compare_counts(manual)
    assert result.class_name == "bright"
    assert result.n == 3
    assert result.table["counted"].tolist() == [3, 5, 4]
    assert result.table["manual"].tolist() == [3, 6, 4]
    assert result.table["drug"].tolist() == ["x", "y", "y"]
    assert result.table["left_out"].tolist() == [3, 2, 4]
    assert result.bias == pytest.approx(-1 / 3)
    assert result.slope == pytest.approx(np.polyfit([3, 6, 4], [3, 5, 4], 1)[0])
    assert str(result).startswith("bright: R²")
    assert project.status == str(result)
    by_name = project.compare_counts(dict(zip(NAMES, [3, 6, 4])), "bright")
    assert by_name.agreement == result.agreement
    long = manual.melt(["Image", "drug"], ["Bright"], "class", "n")
    long = pd.concat([long, long.assign(**{"class": "dim", "n": 1})])
    assert project.compare_counts(long, "bright").agreement == result.agreement
    long["class"] = ["Bright", "bright ", "BRIGHT", *["dim"] * 3]
    with pytest.raises(InputError, match="differ from a class in upper and lower case only, such as 'Bright'"):
        project.compare_counts(long, "bright")


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
def test_invalid_manual_counts_are_refused(project: Project, table: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        annotate_three_wells(project).compare_counts(pd.DataFrame(table))


def test_images_without_manual_counts_are_reported(project: Project, tmp_path: Path) -> None:
    image, mask = squares(seed=9)
    project.add("extra", image, mask, axes="yx")
    result = annotate_three_wells(project).compare_counts(dict(zip([*NAMES, "gone"], [1, 2, 3, 4])), "bright")
    assert result.n == 3
    assert "No row for image extra" in result.unmatched
    assert "image gone" in result.unmatched


def test_plots_without_results_raise_an_error(project: Project) -> None:
    for plot in (project.plot.counts, project.plot.gallery, project.plot.confusion):
        with pytest.raises(ProjectError):
            plot()
