"""Names in tables: equal names match, and different names are never taken for one."""

from __future__ import annotations

import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svetlana_jupyter.core.io.table_files import join_conditions, match_names, read_table

SIMILAR = ["CD8+", "CD8-", "cd8+", "cd8-", "grade 1.5", "grade 15", "1", "-1", "01", "WT", "wt", "Wt", "cell1"]


@given(st.lists(st.sampled_from(SIMILAR), unique=True), st.lists(st.sampled_from(SIMILAR), unique=True))
def test_two_names_never_match_one(names, known):
    matches = match_names(names, known)
    assert len(set(matches.values())) == len(matches)
    for name in names:
        if name in known:
            assert matches[name] == name
    assert all(name.casefold() == other.casefold() for name, other in matches.items())


def test_unicode_forms_and_outer_blanks_are_the_same_name():
    composed, decomposed = (unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD"))
    names = [composed, f" {decomposed}"]
    assert match_names(names, [decomposed]) == dict.fromkeys(names, decomposed)


@pytest.mark.parametrize(
    ("ours", "theirs", "rows"),
    [
        (["0.5", "0.05"], ["0.05", "0.5"], [1, 0]),
        (["0.1", "0.5"], [0.50, 0.10], [1, 0]),
        (["0.10"], ["0.1", "0.5"], [0]),
        (["-1", "1"], ["1", "-1"], [1, 0]),
        (["WT", "wt"], ["wt", "WT"], [1, 0]),
        (["WT", "wt"], ["wt", "Wt"], [-1, 0]),  # "Wt" may be "WT" or an image of its own
        (["cell1", "cell2"], ["cell01", "cell2"], [-1, 1]),
        (["A1", "B2"], ["b02", "A01"], [1, 0]),
        (["A1", "A01"], ["A01", "a1"], [1, 0]),
    ],
)
def test_numbers_are_compared_as_numbers_and_texts_by_case_only(ours, theirs, rows):
    images = pd.DataFrame({"well": ours}, pd.Index([f"image {i}" for i in range(len(ours))], name="image"))
    table, note = join_conditions(images, pd.DataFrame({"well": theirs, "row": range(len(theirs))}))
    np.testing.assert_array_equal(table["row"].fillna(-1), rows)
    assert ("No row for well" in note) == (-1 in rows)


def test_names_in_another_spelling_are_listed():
    images = pd.DataFrame({"well": ["A1", "B2"], "dose": ["0.5", "1"]}, pd.Index(["a", "b"], name="image"))
    table = pd.DataFrame({"well": ["a01", "B2"], "dose": ["0.50", "1.0"], "drug": ["x", "y"]})
    assert join_conditions(images, table)[1] == "Names in another spelling: “a01 0.50” as “A1 0.5”."


def test_na_is_a_text_among_texts_and_missing_among_numbers(tmp_path):
    table = pd.DataFrame({"class": ["NA", "a", "NA"], "dose": ["0,5", "NA", "2"], "n": ["1", "", "3"]})
    table.to_csv(tmp_path / "table.csv", sep=";", index=False)
    table.replace({"0,5": "0.5"}).to_excel(tmp_path / "table.xlsx", index=False)
    for file in ("table.csv", "table.xlsx"):
        read = read_table(tmp_path / file, "a table")
        assert read["class"].tolist() == ["NA", "a", "NA"]
        np.testing.assert_array_equal(read["dose"], [0.5, np.nan, 2])
        np.testing.assert_array_equal(read["n"], [1, np.nan, 3])
