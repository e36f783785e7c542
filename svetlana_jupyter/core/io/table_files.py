"""Tables as people bring them: a CSV of any delimiter, Excel or a DataFrame, with headers in usual spellings.

What a person knows of images or wells beyond the pixels: dose, treatment, replicate; joined on by their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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


def normalize_header(name: object) -> str:
    """Return a header without case, blanks and signs.

    >>> normalize_header("Label Image_OID"), normalize_header("Class (name)")
    ('labelimageoid', 'classname')
    """
    return "".join(c for c in str(name).casefold() if c.isalnum())


def find_column(table: pd.DataFrame, names: Iterable[str]) -> str | None:
    """Return the column called by one of ``names`` in any spelling, the first of them first; None if there is none.

    >>> find_column(pd.DataFrame({"Cell_ID": [1], "Class": ["a"]}), ["object", "cell id"])
    'Cell_ID'
    """
    known = {normalize_header(column): str(column) for column in reversed(table.columns.tolist())}
    return next((known[normalize_header(name)] for name in names if normalize_header(name) in known), None)


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


def comparison_keys(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series[str]:
    """Return one text for each row that is equal for rows whose values in ``columns`` are the same."""
    parts = [table[column].map(normalize_value) for column in columns]
    return pd.Series(["\x1f".join(row) for row in zip(*parts)], table.index, "object")


IMAGE_COLUMN_NAMES = ("image", "file", "filename", "imagename", "name")
_SUFFIXES = ("", "id", "name", "no", "number", "s")


def find_key_columns(table: pd.DataFrame, groups: Sequence[str]) -> dict[str, str]:
    """Return which column of a table stands for which grouping column: ``{"well": "Well ID"}``.

    ``groups`` are the grouping columns of the project, "image" among them.
    """
    found: dict[str, str] = {}
    for group in groups:
        spellings = IMAGE_COLUMN_NAMES if group == "image" else [f"{group}{suffix}" for suffix in _SUFFIXES]
        column = find_column(table, spellings)
        if column is not None and column not in found.values():
            found[group] = column
    return found


def choose_key_columns(table: pd.DataFrame, known: pd.DataFrame) -> tuple[dict[str, str], pd.DataFrame]:
    """Return which columns say what a row is of, and the table without others that would say it again.

    The name of an image says all, where it is one; else plate and well do, and a "name" is that of something else.

    Parameters
    ----------
    table : DataFrame
    known : DataFrame
        The images with their grouping columns, and "image".
    """
    keys = find_key_columns(table, list(known.columns))
    if "image" not in keys or len(keys) == 1:
        return keys, table
    named = _without_suffix(table[keys["image"]], known["image"]).isin(known["image"])
    if not named.any():
        return {group: column for group, column in keys.items() if group != "image"}, table
    return {"image": keys["image"]}, table.drop(columns=[keys[group] for group in keys if group != "image"])


def join_conditions(images: pd.DataFrame, conditions: TableSource) -> tuple[pd.DataFrame, str]:
    """Put the conditions of a table beside the images that they are of.

    Parameters
    ----------
    images : DataFrame
        One row an image, indexed by its name: its grouping columns.
    conditions : path or DataFrame
        One row a well, a patient, an image: columns that are called like grouping columns (or "image") say which,
        whatever their case; all other columns are conditions. Wells match whether they are called A1 or A01.

    Returns
    -------
    table : DataFrame
        Index of ``images``, the condition columns; missing for images without a row.
    said : str
        A sentence about rows that no image has and images that no row has; "" where all match.

    Raises
    ------
    InputError
        If no column or no row fits, a row is there twice with other values, or a condition is called like a column
        that is there already.

    Examples
    --------
    >>> images = pd.DataFrame({"well": ["A1", "A2"]}, pd.Index(["P1_A1", "P1_A2"], name="image"))
    >>> join_conditions(images, pd.DataFrame({"Well": ["A01", "A02"], "dose": [0, 10]}))[0]["dose"].tolist()
    [0, 10]
    """
    table = read_table(conditions, "a table of conditions")
    known = images.reset_index(names="image")
    keys, table = choose_key_columns(table, known)
    if not keys:
        raise InputError(
            f"the table of conditions needs a column called like {format_list(known.columns)}, to say "
            f"which images each row "
            f"is of; its columns are {format_list(table.columns, 8)}."
        )
    names = [column for column in table if column not in keys.values()]
    taken = [name for name in names if name in known.columns]
    if taken:
        raise InputError(f"the conditions have a column {taken[0]!r}, which the images have too; rename one.")
    table = table.drop_duplicates(ignore_index=True)
    partner, said = match_rows(known, table, keys, "the table of conditions")
    found = table[names].reindex(partner).set_axis(images.index)
    return found.astype({name: table[name].dtype for name in names if (partner >= 0).all()}), said


def match_rows(
    known: pd.DataFrame, table: pd.DataFrame, keys: Mapping[str, str], what: str
) -> tuple[NDArray[np.int64], str]:
    """Find the row of a table that is of each row of what is known.

    Parameters
    ----------
    known : DataFrame
        With the columns that ``keys`` maps from.
    table : DataFrame
        With the columns that ``keys`` maps to.
    keys : mapping of str to str
    what : str
        How errors call the table.

    Returns
    -------
    rows : int64 array of shape (len(known),)
        Positions in ``table``, -1 where there is none.
    said : str
        As of `join_conditions`.
    """
    mine, theirs = known[list(keys)], table[list(keys.values())].set_axis(list(keys), axis=1)
    if "image" in keys:
        theirs["image"] = _without_suffix(theirs["image"], known["image"])
    wanted, given = comparison_keys(mine, list(keys)), comparison_keys(theirs, list(keys))
    if given.duplicated().any():
        row = theirs[given.duplicated()].iloc[0]
        raise InputError(f"{what} has two rows for {_called(row)}; keep one of them.")
    places = pd.Series(np.arange(len(given)), pd.Index(given))
    absent, unused = ~wanted.isin(given), ~given.isin(wanted)
    if absent.all():
        raise InputError(
            f"no row of {what} fits an image: it names "
            f"{format_list(dict.fromkeys(map(_called, _rows(theirs))), 2)}, and "
            f"the images are of {format_list(dict.fromkeys(map(_called, _rows(mine))), 2)}."
        )
    rows = places.reindex(wanted, fill_value=-1).to_numpy(np.int64)
    return rows, _said(mine[absent], theirs[unused])


def _without_suffix(values: pd.Series[str], names: pd.Series[str]) -> pd.Series[str]:
    """Return image names without a file's ending, where that makes them known."""
    texts, known = values.astype(str), set(names)
    stems = texts.str.replace(r"(\.ome)?\.\w+$", "", regex=True)
    return texts.where(texts.isin(known) | ~stems.isin(known), stems)


def _said(absent: pd.DataFrame, unused: pd.DataFrame) -> str:
    parts = []
    if len(absent):
        parts.append(f"no row is of {format_list(dict.fromkeys(map(_called, _rows(absent))))}")
    if len(unused):
        parts.append(f"no image is of {format_list(dict.fromkeys(map(_called, _rows(unused))))}, which have a row")
    return "; ".join(parts)[:1].upper() + "; ".join(parts)[1:] + "." if parts else ""


def _rows(table: pd.DataFrame) -> list[pd.Series]:
    return [row for _, row in table.iterrows()]


def _called(row: pd.Series) -> str:
    return " ".join(f"{column} {value}" for column, value in row.items())
