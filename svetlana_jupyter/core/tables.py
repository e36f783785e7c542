"""Tables as people bring them: a CSV of any delimiter, Excel or a DataFrame, with headers in usual spellings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import pandas as pd

from svetlana_jupyter.errors import InputError

TableSource: TypeAlias = str | PathLike[str] | pd.DataFrame
DELIMITERS = ",;\t|"
EXCEL_SUFFIXES = (".xlsx", ".xlsm")
_DECIMAL_COMMA = r"-?\d*,?\d+"


def read_table(source: TableSource, what: str) -> pd.DataFrame:
    """Return a table as a DataFrame with text headers; the index of a DataFrame becomes columns where it has names.

    Parameters
    ----------
    source : path or DataFrame
        A CSV with commas, semicolons, tabs or bars between its columns (then its numbers may have decimal commas), or
        the first sheet of an Excel file.
    what : str
        How errors call it: "a table of conditions".

    Raises
    ------
    InputError
        If it cannot be read, or has no rows.
    """
    if isinstance(source, pd.DataFrame):
        table, name = source.reset_index(level=[one for one in source.index.names if one is not None]), f"{what}"
    elif isinstance(source, str | PathLike):
        name = str(source)
        table = _read_file(Path(source).expanduser(), what)
    else:
        raise InputError(f"{what} should be a CSV file or a DataFrame, got {type(source).__name__}.")
    table.columns = pd.Index([str(column).strip() for column in table.columns])
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise InputError(f"{name} has two columns {twice[0]!r}; give each its own name.")
    if table.empty:
        raise InputError(f"{name} has no rows; expected {what} with one row each.")
    return table.reset_index(drop=True)


def _read_file(path: Path, what: str) -> pd.DataFrame:
    try:
        if path.suffix.casefold() in EXCEL_SUFFIXES:
            return pd.read_excel(path, engine="openpyxl")
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        delimiter = max(DELIMITERS, key=header.count)
        table = pd.read_csv(path, sep=delimiter, encoding="utf-8-sig", skipinitialspace=True)
        for column in table.select_dtypes(exclude=["number", "bool"]) if delimiter != "," else ():
            if (values := table[column].dropna().astype(str)).str.fullmatch(_DECIMAL_COMMA).all() and len(values):
                table[column] = table[column].astype(str).str.replace(",", ".").astype(float)
        return table
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there; expected {what} as a CSV file.") from error
    except (OSError, ValueError, KeyError, BadZipFile) as error:  # pandas' own errors are ValueErrors
        raise InputError(
            f"{path} cannot be read as {what} ({error}). Save it as CSV in UTF-8, with one header line."
        ) from error


def plain(name: object) -> str:
    """Return a header without case, blanks and signs.

    >>> plain("Label Image_OID"), plain("Class (name)")
    ('labelimageoid', 'classname')
    """
    return "".join(c for c in str(name).casefold() if c.isalnum())


def find_column(table: pd.DataFrame, names: Iterable[str]) -> str | None:
    """Return the column called by one of ``names`` in any spelling, the first of them first; None if there is none.

    >>> find_column(pd.DataFrame({"Cell_ID": [1], "Class": ["a"]}), ["object", "cell id"])
    'Cell_ID'
    """
    known = {plain(column): str(column) for column in reversed(table.columns.tolist())}
    return next((known[plain(name)] for name in names if plain(name) in known), None)


def normalize_value(value: object) -> str:
    """Return a value as it is compared: without case, outer blanks, and zeros before a number.

    >>> normalize_value("A01"), normalize_value(" a1 "), normalize_value(1.0), normalize_value("1")
    ('a1', 'a1', '1', '1')
    """
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return re.sub(r"\d+", lambda digits: digits[0].lstrip("0") or "0", text.strip().casefold())


def format_list(values: Iterable[object], most: int = 5) -> str:
    """Return values as text, the first few of many.

    >>> format_list("abc", most=2)
    'a, b and 1 more'
    """
    texts = [str(value) for value in values]
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def keys_of(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series[str]:
    """Return one text for each row that is equal for rows whose values in ``columns`` are the same."""
    parts = [table[column].map(normalize_value) for column in columns]
    return pd.Series(["\x1f".join(row) for row in zip(*parts)], table.index, "object")
