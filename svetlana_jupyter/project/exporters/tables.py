"""Tables of objects, counts and measurements, as CSV, Parquet or Excel.

An Excel sheet holds about a million rows, and 16 digits per number. Text in Excel cells is never read as a formula.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.io.table_files import write_csv as write_table
from svetlana_jupyter.errors import ProjectError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from openpyxl.cell import WriteOnlyCell
    from openpyxl.worksheet._write_only import WriteOnlyWorksheet

    from svetlana_jupyter.project.exporters.output_folder import OutputFolder
    from svetlana_jupyter.project.exporters.snapshot import ResultsSnapshot

TABLES = ("objects", "counts", "measurements", "warnings")
EXCEL_ROWS = 1_048_576
EXCEL_TEXT = 32_767  # characters per cell


def write_csv(output: OutputFolder, snapshot: ResultsSnapshot) -> Iterator[Path]:
    """Write objects, counts, measurements and warnings, one CSV file each.

    ``measurements.csv`` is only written if features are cached, and ``warnings.csv`` if images have warnings. Otherwise
    those of an earlier export are removed.
    """
    yield from _write_files(output, snapshot, "csv", write_table)


def write_parquet(output: OutputFolder, snapshot: ResultsSnapshot) -> Iterator[Path]:
    """Write the tables of `write_csv` as Parquet files."""
    yield from _write_files(output, snapshot, "parquet", pd.DataFrame.to_parquet)


def _write_files(
    output: OutputFolder, snapshot: ResultsSnapshot, suffix: str, write: Callable[[pd.DataFrame, Path], object]
) -> Iterator[Path]:
    tables = dict(_tables(snapshot))
    for name in TABLES:
        if name not in tables:
            output.remove_file(f"{name}.{suffix}")
            continue
        with output.write_file(f"{name}.{suffix}") as draft:
            write(tables[name], draft)
        yield output.folder / f"{name}.{suffix}"


def check_excel(snapshot: ResultsSnapshot) -> None:
    """Raise an error if there are more objects than an Excel sheet has rows."""
    count = len(snapshot.table)
    if count >= EXCEL_ROWS:
        raise ProjectError(
            f"The project has {count:,} objects, but a sheet of Excel has room for {EXCEL_ROWS - 1:,}. "
            'Export "csv" or "parquet" instead.'
        )


def write_excel(output: OutputFolder, snapshot: ResultsSnapshot) -> Iterator[Path]:
    """Write ``results.xlsx``, with the tables of `write_csv` as sheets."""
    from openpyxl import Workbook

    with output.write_file("results.xlsx") as draft:
        workbook = Workbook(write_only=True)
        for name, table in _tables(snapshot):
            _write_sheet(output, workbook.create_sheet(name), table.reset_index())
        workbook.save(draft)
    yield output.folder / "results.xlsx"


def _write_sheet(output: OutputFolder, sheet: WriteOnlyWorksheet, table: pd.DataFrame) -> None:
    sheet.freeze_panes = "A2"
    columns = [_excel_values(table.iloc[:, number]) for number in range(table.shape[1])]
    try:
        sheet.append([_excel_cell(sheet, str(name)) for name in table])
        for row in output.until_stopped(zip(*columns, strict=True)):
            sheet.append([_excel_cell(sheet, value) for value in row])
    finally:
        sheet.close()


def _excel_values(column: pd.Series) -> list[object]:
    """Return the values of a column for Excel, with None for missing values.

    float32 values are rounded to 9 digits, because conversion to float64 adds digits without meaning.
    """
    if column.dtype == np.float32:
        return [float(f"{value:.9g}") if np.isfinite(value) else None for value in column.tolist()]
    return column.astype("object").where(column.notna(), None).tolist()


def _excel_cell(sheet: WriteOnlyWorksheet, value: object) -> WriteOnlyCell | object:
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    if not isinstance(value, str):
        return value
    cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("\ufffd", value)[:EXCEL_TEXT])
    cell.data_type = "s"  # never a formula
    return cell


def _tables(snapshot: ResultsSnapshot) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "objects", snapshot.table
    yield "counts", snapshot.counts().set_index(["image", "class"])
    if (measurements := snapshot.all_measurements()) is not None:
        yield "measurements", measurements
    if snapshot.warnings:
        yield "warnings", pd.DataFrame({"warning": snapshot.warnings}, index=pd.Index(snapshot.warnings, name="image"))
