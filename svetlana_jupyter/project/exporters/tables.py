"""The tables: one row an object, the counts by image, and what was measured. As CSV, Parquet or Excel.

A sheet of Excel has room for about a million objects, and 16 digits of a number. Text stays text there, also where it
begins like a formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.errors import ProjectError

if TYPE_CHECKING:
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.worksheet._write_only import WriteOnlyWorksheet

    from svetlana_jupyter.project.exporters.snapshot import OutputFolder, ResultsSnapshot

EXCEL_ROWS = 1_048_576
EXCEL_TEXT = 32_767  # characters of a cell


def write_csv(place: OutputFolder, found: ResultsSnapshot) -> Iterator[Path]:
    """Write ``objects.csv``, ``counts.csv`` and, once something was measured, ``measurements.csv``."""
    for name, table in _tables(found):
        with place.write_file(f"{name}.csv") as beside:
            table.to_csv(beside, encoding="utf-8")
        yield place.folder / f"{name}.csv"


def write_parquet(place: OutputFolder, found: ResultsSnapshot) -> Iterator[Path]:
    """Write the same tables as Parquet."""
    for name, table in _tables(found):
        with place.write_file(f"{name}.parquet") as beside:
            table.to_parquet(beside)
        yield place.folder / f"{name}.parquet"


def check_excel(found: ResultsSnapshot) -> None:
    """Refuse more objects than a sheet of Excel has rows for."""
    count = len(found.table)
    if count >= EXCEL_ROWS:
        raise ProjectError(
            f"a sheet of Excel has room for {EXCEL_ROWS - 1:,} objects, and the project has {count:,}: "
            'export "csv" or "parquet" instead.'
        )


def write_excel(place: OutputFolder, found: ResultsSnapshot) -> Iterator[Path]:
    """Write ``results.xlsx`` with the same tables as sheets, row by row."""
    from openpyxl import Workbook

    with place.write_file("results.xlsx") as beside:
        book = Workbook(write_only=True)
        for name, table in _tables(found):
            _write_sheet(place, book.create_sheet(name), table.reset_index())
        book.save(beside)
    yield place.folder / "results.xlsx"


def _write_sheet(place: OutputFolder, sheet: WriteOnlyWorksheet, table: pd.DataFrame) -> None:
    sheet.freeze_panes = "A2"
    columns = [_plain(table.iloc[:, number]) for number in range(table.shape[1])]
    try:
        sheet.append([_cell(sheet, str(name)) for name in table])
        for row in place.watched(zip(*columns, strict=True)):
            sheet.append([_cell(sheet, value) for value in row])
    finally:
        sheet.close()


def _plain(column: pd.Series) -> list[object]:
    """Return values that Excel knows: None for what is missing, and a float32 without the digits that it never had."""
    if column.dtype == np.float32:
        return [float(f"{value:.9g}") if np.isfinite(value) else None for value in column.tolist()]
    return column.astype("object").where(column.notna(), None).tolist()


def _cell(sheet: WriteOnlyWorksheet, value: object) -> WriteOnlyCell | object:
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    if not isinstance(value, str):
        return value
    cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("\ufffd", value)[:EXCEL_TEXT])
    cell.data_type = "s"  # never a formula
    return cell


def _tables(found: ResultsSnapshot) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "objects", found.table
    yield "counts", found.counts().set_index(["image", "class"])
    measured = {image: found.measured(image) for image in found.images}
    measured = {image: table for image, table in measured.items() if len(table.columns)}
    if measured:
        yield "measurements", pd.concat(measured, names=["image"])
