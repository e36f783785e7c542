"""Cells of CSV and Excel files: text encoding, delimiter, header lines and units.

Many programs write lines above the header (Imaris, Excel's ``sep=;``) or below it (TrackMate, CellProfiler), which must
not be taken for rows. Cells of text files stay text, so that names and long numbers keep every character.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DELIMITERS = ",;\t|"
SAMPLED_ROWS = 100
SUBHEADERS = 4  # lines below the header that may belong to it; TrackMate writes three
_LENGTH_UNIT = r"px|pixels?|[uµμ]m|microns?|micromet(er|re)s?|nm|nanomet(er|re)s?|mm|millimet(er|re)s?|cm|inch"
_UNIT = rf"\(.*\D.*\)|\[.*\D.*\]|{_LENGTH_UNIT}|s|sec|ms|min|frames?|-"


class Cells(NamedTuple):
    """Table of a file, its decimal mark, and a note on what was left out, or ""."""

    table: pd.DataFrame
    decimal_comma: bool = False
    note: str = ""


def read_delimited(path: Path) -> Cells:
    """Read a text file with one row per line.

    All cells are text, or NaN if they are empty.

    Raises
    ------
    ValueError
        If the file is empty, its encoding is unknown, or a row has more cells than the header.
    """
    text = _decode(path.read_bytes())
    declared = re.match(r"\"?sep=(.)\"?[ \t]*\r?\n", text, re.IGNORECASE)
    text = text[declared.end() :] if declared else text
    samples = {delimiter: _sample(text, delimiter) for delimiter in (declared[1] if declared else DELIMITERS)}
    headers = {delimiter: _header_row(rows) for delimiter, (rows, _) in samples.items()}
    if not any(rows for rows, _ in samples.values()):
        raise ValueError("it is empty")
    # The right delimiter splits the earliest line into names of all columns.
    splits = [delimiter for delimiter, (rows, _) in samples.items() if len(rows[headers[delimiter]]) > 1]
    delimiter = min(
        splits or [next(iter(samples))], key=lambda one: (headers[one], -len(samples[one][0][headers[one]]))
    )
    rows, lines = samples[delimiter]
    first = headers[delimiter]
    width = len(rows[first])
    stream = io.StringIO(text, newline="")
    for _ in range(lines[first]):
        stream.readline()
    cells = pd.read_csv(
        stream,
        sep=delimiter,
        header=None,
        names=list(range(max(map(len, rows[first:])))),
        dtype=str,
        skipinitialspace=True,
        keep_default_na=False,
        na_values=[""],
    )
    if cells.iloc[:, width:].notna().any(axis=None):
        raise ValueError(f"its header names {width} columns, but a row has {cells.shape[1]} cells")
    table, note = _with_header(cells)
    return Cells(table, delimiter != ",", note)


def read_sheet(path: Path) -> Cells:
    """Read the first sheet of an Excel file that has content."""
    with pd.ExcelFile(path, engine="openpyxl") as book:
        for name in book.sheet_names:
            cells = book.parse(name, header=None, dtype=object, keep_default_na=False, na_values=[""])
            cells = cells.dropna(how="all")
            if len(cells):
                rows = [
                    ["" if pd.isna(cell) else str(cell) for cell in row] for row in cells.head(SAMPLED_ROWS).to_numpy()
                ]
                table, note = _with_header(cells.iloc[_header_row(rows) :])
                if len(book.sheet_names) > 1:
                    note = f"Read from the sheet {name!r} of {len(book.sheet_names)}. {note}".strip()
                return Cells(table, note=note)
    raise ValueError("it is empty")


def _decode(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    if b"\0" in content[:1000]:
        raise ValueError("it holds zero bytes, as binary files do")
    return content.decode("utf-8-sig")


def _sample(text: str, delimiter: str) -> tuple[list[list[str]], list[int]]:
    """Return the first rows that are not blank, and the number of lines above each."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows, lines, above = [], [], 0
    try:
        for row in islice(reader, 2 * SAMPLED_ROWS):
            if any(map(str.strip, row)):
                rows.append([cell.strip() for cell in row])
                lines.append(above)
            above = reader.line_num
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return rows[:SAMPLED_ROWS], lines


def _header_row(rows: Sequence[Sequence[str]]) -> int:
    """Return the first row that names each column with content.

    A column of row numbers may have no name.
    """
    content = {place for row in rows[len(rows) // 2 :] for place, cell in enumerate(row) if cell} - {0}
    complete = [i for i, row in enumerate(rows) if all(place < len(row) and row[place] for place in content)]
    return complete[0] if complete and not any(map(_is_number, rows[complete[0]])) else 0


def _with_header(cells: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows below a header, and a note on repeated headers."""
    texts = cells.head(SUBHEADERS + 1).map(lambda cell: "" if pd.isna(cell) else str(cell).strip())
    header, *below = texts.to_numpy().tolist()
    header[0] = header[0].removeprefix("#").strip()
    names, skipped = _subheaders(header, below)
    body = cells.iloc[1 + skipped :]
    first = np.array([str(cell).strip() for cell in body[body.columns[0]]], object)
    similar = body[first == header[0]].map(lambda cell: "" if pd.isna(cell) else str(cell).strip())
    repeated = similar.index[(similar == header).all(axis=1)]
    possible = body[np.array([cell.startswith("#") for cell in first], bool)]
    comments = possible.index[possible[possible.columns[1:]].isna().all(axis=1)]
    body = body.drop(index=repeated.union(comments)).dropna(how="all")
    kept: dict[str, int] = {}
    twins = []
    for place, name in zip(body.columns, names):
        if name in kept and not body[place].equals(body[kept[name]]):
            twins.append(name)
        elif name or body[place].notna().any():
            kept.setdefault(name or f"Unnamed: {place}", place)
    if twins:
        raise ValueError(f"it has two columns {twins[0]!r} that differ")
    note = f"{len(repeated):,} repeated header lines were left out." if len(repeated) else ""
    return body[list(kept.values())].set_axis(list(kept), axis=1).reset_index(drop=True), note


def _subheaders(header: list[str], below: list[list[str]]) -> tuple[list[str], int]:
    """Return names from all header lines, and the number of lines below the first."""
    for number, row in enumerate(below):
        filled = [cell for cell in row if cell]
        has_length = any(re.fullmatch(rf"[(\[]?({_LENGTH_UNIT})[)\]]?", cell, re.IGNORECASE) for cell in filled)
        if has_length and all(re.fullmatch(_UNIT, cell, re.IGNORECASE) for cell in filled):
            return [f"{name} {unit}".strip() for name, unit in zip(header, row)], number + 1
        if any(map(_is_number, row)):
            break
    # CellProfiler writes the kind of object above the name of a measurement.
    has_kinds = len(below) > 1 and len(set(header)) < len(header) and any(map(_is_number, below[1]))
    if has_kinds and all(below[0]) and not any(map(_is_number, below[0])):
        names = [name if below[0].count(name) == 1 else f"{kind}_{name}" for kind, name in zip(header, below[0])]
        if len(set(names)) == len(names):
            return names, 1
    return header, 0


def _is_number(cell: str) -> bool:
    return bool(np.isfinite(pd.to_numeric(pd.Series([cell]), errors="coerce")).all())
