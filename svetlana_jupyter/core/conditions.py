"""What a person knows of images or wells beyond the pixels: dose, treatment, replicate; joined on by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from svetlana_jupyter.core.tables import TableSource, find_column, format_list, keys_of, read_table
from svetlana_jupyter.errors import InputError

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
            f"the table of conditions needs a column called like {format_list(known.columns)}, to say which images each row "
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
    wanted, given = keys_of(mine, list(keys)), keys_of(theirs, list(keys))
    if given.duplicated().any():
        row = theirs[given.duplicated()].iloc[0]
        raise InputError(f"{what} has two rows for {_called(row)}; keep one of them.")
    places = pd.Series(np.arange(len(given)), pd.Index(given))
    absent, unused = ~wanted.isin(given), ~given.isin(wanted)
    if absent.all():
        raise InputError(
            f"no row of {what} fits an image: it names {format_list(dict.fromkeys(map(_called, _rows(theirs))), 2)}, and "
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
