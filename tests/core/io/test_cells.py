"""Cells of CSV and Excel files: header lines, units, encodings and delimiters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from svetlana_jupyter.core.io.table_files import read_table
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

TRACKMATE = """LABEL,ID,POSITION_X,POSITION_Y,FRAME,CLASS
Label,Spot ID,X,Y,Frame,Class
Label,Spot ID,X,Y,Frame,Class
,,(micron),(micron),,
ID1,11,37.84,35.2,0,a
"""
IMARIS = "\nPosition\n ==================== \nPosition X,Position Y,Unit,Time,ID,\n1.5,2,um,1,0,\n3,4,um,1,1,\n"
CELLPROFILER = """Image,Image,Nuclei,Nuclei,Cells
ImageNumber,ObjectNumber,Location_Center_X,Location_Center_Y,Location_Center_X
1,1,3.5,2.25,4
1,2,5.5,2.25,6
"""


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        (TRACKMATE, ["LABEL", "ID", "POSITION_X (micron)", "POSITION_Y (micron)", "FRAME", "CLASS"], 1),
        (IMARIS, ["Position X", "Position Y", "Unit", "Time", "ID"], 2),
        (IMARIS.replace("Position\n", ",,,,,\n"), ["Position X", "Position Y", "Unit", "Time", "ID"], 2),
        (
            CELLPROFILER,
            [
                *("ImageNumber", "ObjectNumber", "Nuclei_Location_Center_X", "Location_Center_Y"),
                "Cells_Location_Center_X",
            ],
            2,
        ),
        ("sep=;\r\nx;y;class\r\n1,5;2,5;a\r\n", ["x", "y", "class"], 1),
        ("x;y;class\n1,5;2,5;a\n2,5;2,5;b\n", ["x", "y", "class"], 2),
        (" ,Label,Area,X\n1,a.tif:1,5,1\n2,a.tif:2,5,2\n", ["Unnamed: 0", "Label", "Area", "X"], 2),
        ("# made by a script\n# in 2020\nobject,class\n1,a\n# end\n2,b\n", ["object", "class"], 2),
        ("#object,class\n1,a\n", ["object", "class"], 1),
        ("Date,2020\n\nobject,class,note\n1,a,x\n2,b,y\n3,c,\n", ["object", "class", "note"], 3),
        ("object,class,\n1,a,\n,,\n2,b,\n", ["object", "class"], 2),
        ("object,class,class\n1,a,a\n", ["object", "class"], 1),
        ("x (px),y [µm]\n1,2\n", ["x (px)", "y [µm]"], 1),
        ("object|class\n1|a;b,c\n", ["object", "class"], 1),
        ("class\na\nb\n", ["class"], 2),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_header_is_found_among_other_lines(tmp_path: Path, text: str, columns, rows, encoding: str) -> None:
    (tmp_path / "table.csv").write_bytes(text.encode(encoding))
    table = read_table(tmp_path / "table.csv", "a table")
    assert table.columns.tolist() == columns
    assert len(table) == rows


def test_numbers_with_decimal_commas_are_read_where_commas_do_not_separate(tmp_path: Path) -> None:
    for text, expected in (
        ("x;n\n1,5;2\n", [1.5, 2]),
        ("x\tn\n1,5\t2\n", [1.5, 2]),
        ('x,n\n"1,500",2\n', ["1,500", 2]),
    ):
        (tmp_path / "table.csv").write_text(text)
        assert read_table(tmp_path / "table.csv", "a table").iloc[0].tolist() == expected


def test_a_repeated_header_is_left_out_and_reported(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("object,class\n1,a\nobject,class\n2,b\n")
    table = read_table(tmp_path / "table.csv", "a table")
    assert table["object"].tolist() == [1, 2]
    assert table.attrs["note"] == "1 repeated header lines were left out."


def test_identifiers_keep_every_digit_also_with_gaps(tmp_path: Path) -> None:
    numbers = ["9007199254740993", "", "9007199254740995"]
    table = pd.DataFrame(
        {"id": numbers, "code": ["007", "8", "9"], "all": ["9007199254740993", "18446744073709551615", "1"]}
    )
    table.to_csv(tmp_path / "table.csv", index=False)
    read = read_table(tmp_path / "table.csv", "a table")
    assert read["id"].dropna().tolist() == ["9007199254740993", "9007199254740995"]
    assert read["code"].tolist() == ["007", "8", "9"]
    assert read["all"].tolist() == [9007199254740993, 18446744073709551615, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (b"object,class\n", "has no rows"),
        (b"object,class\n1,a,lost\n", "its header names 2 columns, but a row has 3 cells"),
        (b"object,class\n" + b"1,a\n" * 300 + b"1,a,lost\n", "Expected 2 fields in line 302, saw 3"),
        (b"object,class,class\n1,a,b\n", "it has two columns 'class' that differ"),
        ("x,µ\n1,2\n".encode("cp1252"), "Save it as CSV in UTF-8"),
        ("object,class\n1,a\n".encode("utf-16-le"), "zero bytes"),
        (b'object,class\n1,"a\n', "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "table.csv", "a table")


def test_the_first_sheet_with_content_is_read_and_named(tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "book.xlsx") as book:
        pd.DataFrame().to_excel(book, sheet_name="empty", index=False)
        cells = [["Report", None, None], [None, None, None], ["object", "class", "x (µm)"], [1, "a", 1.5], [2, "b", 2]]
        pd.DataFrame(cells).to_excel(book, sheet_name="cells", index=False, header=False)
        pd.DataFrame({"other": [1]}).to_excel(book, sheet_name="other", index=False)
    table = read_table(tmp_path / "book.xlsx", "a table")
    assert table.to_dict("list") == {"object": [1, 2], "class": ["a", "b"], "x (µm)": [1.5, 2]}
    assert table.attrs["note"] == "Read from the sheet 'cells' of 3."
    with pd.ExcelWriter(tmp_path / "none.xlsx") as book:
        pd.DataFrame().to_excel(book, index=False)
    with pytest.raises(InputError, match="it is empty"):
        read_table(tmp_path / "none.xlsx", "a table")
