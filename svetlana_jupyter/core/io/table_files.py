"""User tables (CSV, Excel, DataFrame) and their join with the images.

A table contains additional data of images or wells, such as dose, treatment or manual counts. Headers and image names
match regardless of case, and headers also regardless of blanks and punctuation.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from zipfile import ZipFile

import numpy as np
import pandas as pd

from svetlana_jupyter.core.io.bounded_files import MAX_GZIP_RATIO, MIN_GZIP_LIMIT, check_regular_file
from svetlana_jupyter.core.io.cells import Cells, read_delimited, read_sheet
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

TableSource: TypeAlias = str | PathLike[str] | pd.DataFrame
EXCEL_SUFFIXES = (".xlsx", ".xlsm")
IMAGE_COLUMN_NAMES = ("image", "file", "filename", "imagename", "name")
_GROUP_SUFFIXES = ("", "id", "name", "no", "number", "s")
MISSING_NUMBERS = ("NA", "N/A", "#N/A", "n/a", "NaN", "nan", "null", "NULL", "None")
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)"
_FORMULA = r"'*[=+\-@\t\r]"  # apostrophes are counted, so that a text that begins with one stays the same
SAMPLED_CELLS = 100
_SEPARATOR = "\x1f"  # between the values of a row


def read_table(source: TableSource, table_name: str, keep_text: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table as a DataFrame with text headers.

    Named levels of a DataFrame's index become columns. In CSV files, the apostrophe that `escape_formula` wrote before
    a text is removed.

    Parameters
    ----------
    source : path or DataFrame
        A CSV file with columns separated by commas, semicolons, tabs or vertical bars (numbers may have decimal commas
        unless commas separate the columns), or an Excel file, of which the first sheet with content is read. Lines
        above the header are skipped, and lines of units below it become part of the names (`core.io.cells`).
    table_name : str
        Name of the table in error messages, such as "a table of conditions".
    keep_text : iterable of str
        Columns of a file whose cells are names, so that "1.0" and "1", or "true" and "True", stay different. Headers
        are compared as in `find_column`.

    Returns
    -------
    DataFrame
        ``attrs["note"]`` of a file is a sentence about what was not read, or "".

    Raises
    ------
    InputError
        If the table cannot be read, has no rows, or has two columns of the same name.
    """
    cells = None
    if isinstance(source, pd.DataFrame):
        table = source.reset_index(level=[level for level in source.index.names if level is not None])
        name = _capitalize(table_name)
    elif isinstance(source, str | PathLike):
        cells, name = _read_file(Path(source).expanduser(), table_name), str(source)
        table = cells.table
    else:
        raise InputError(
            f"Expected {table_name}, got {type(source).__name__}. Pass the path of a CSV file or a DataFrame."
        )
    table.columns = pd.Index([str(column).strip() for column in table.columns])
    if len(duplicates := table.columns[table.columns.duplicated()]):
        raise InputError(f"{name} has two columns {duplicates[0]!r}. Give each its own name.")
    if table.empty:
        raise InputError(f"{name} has no rows. Pass {table_name} with at least one row.")
    if cells is not None:
        table = _parse_cells(cells._replace(table=table), keep_text)
        table.attrs.update(note=cells.note, decimal_comma=cells.decimal_comma)
    return table.reset_index(drop=True)


def escape_formula(text: str) -> str:
    """Return a text for a CSV file, which no spreadsheet program runs as a formula.

    Text that begins with ``= + - @``, a tab or a return gets an apostrophe in front.

    >>> [escape_formula(text) for text in ("=1+1", "CD8-", "'-1")]
    ["'=1+1", 'CD8-', "''-1"]
    """
    return f"'{text}" if re.match(_FORMULA, text) else text


def unescape_formula(text: str) -> str:
    """Return a text without the apostrophe that `escape_formula` wrote.

    >>> [unescape_formula(text) for text in ("'=1+1", "'s", "''-1")]
    ['=1+1', "'s", "'-1"]
    """
    return text[1:] if re.match(f"'{_FORMULA}", text) else text


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write a table with its named index as CSV, without text that is a formula."""

    def escape(value: object) -> object:
        return escape_formula(value) if isinstance(value, str) else value

    table = table.reset_index(level=[level for level in table.index.names if level is not None])
    texts = table.select_dtypes(exclude=["number", "bool"])
    table = table.assign(**{str(column): texts[column].map(escape) for column in texts})
    table.rename(columns=escape).to_csv(file, index=False, encoding="utf-8")


def _read_file(path: Path, table_name: str) -> Cells:
    try:
        check_regular_file(path)
        if path.suffix.casefold() in EXCEL_SUFFIXES:
            _check_expansion(path)
            return read_sheet(path)
        cells = read_delimited(path)
        for column in cells.table if b"'" in path.read_bytes() else ():
            cells.table[column] = cells.table[column].map(unescape_formula, na_action="ignore")
        return cells._replace(table=cells.table.rename(columns=unescape_formula))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist. Pass the path of {table_name} as a CSV file.") from error
    except Exception as error:  # a damaged file fails in any part of pandas and openpyxl
        raise InputError(
            f"{path} cannot be read as {table_name} ({error!s:.300}). Save it as CSV in UTF-8, with one header line."
        ) from error


def _check_expansion(path: Path) -> None:
    """Raise an error if an Excel file, which is a zip archive, expands too much."""
    with ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > max(MIN_GZIP_LIMIT, MAX_GZIP_RATIO * path.stat().st_size):
        raise ValueError(f"it expands to {size:,} bytes")


def _parse_cells(cells: Cells, keep_text: Iterable[str]) -> pd.DataFrame:
    """Return a table with numeric columns, in which “NA” is a missing value.

    In a text column, “NA” remains text. Numbers that lose digits as a number, such as "007" or integers beyond 2**53
    in a column with gaps, remain text, too.
    """
    kept, table = set(map(normalize_header, keep_text)), cells.table
    for column in table.select_dtypes(exclude=["number", "bool"]):
        texts = table[column].dropna().astype(str)
        if normalize_header(column) in kept:
            table[column] = texts.reindex(table.index)
            continue
        if len(texts) == len(table) and texts.isin(["True", "False"]).all():
            table[column] = texts == "True"
            continue
        texts = texts[~texts.isin(MISSING_NUMBERS)]
        # A column of names is recognized by its first cells, because pandas converts names slowly.
        numbers = _to_numbers(texts.iloc[:SAMPLED_CELLS], cells.decimal_comma)
        if numbers.notna().all():
            numbers = _to_numbers(texts, cells.decimal_comma)
        if numbers.empty or numbers.isna().any():
            continue
        is_exact = len(texts) == len(table) and pd.api.types.is_integer_dtype(numbers)
        code = r"^[+-]?0\d" if is_exact else r"^[+-]?(0\d|\d{16,}(\.0*)?$)"
        if not re.search(code, "\n".join(texts), re.MULTILINE):  # one search is faster than one per cell
            table[column] = numbers.reindex(table.index)
    return table.infer_objects()


def _to_numbers(texts: pd.Series[str], decimal_comma: bool) -> pd.Series:
    return pd.to_numeric(texts.str.replace(",", ".") if decimal_comma else texts, errors="coerce")


def normalize_header(name: object) -> str:
    """Return a header in lower case, without blanks and punctuation.

    >>> normalize_header("Label Image_OID"), normalize_header("Class (name)")
    ('labelimageoid', 'classname')
    """
    return "".join(c for c in str(name).casefold() if c.isalnum())


def find_column(table: pd.DataFrame, names: Iterable[str]) -> str | None:
    """Return the column of a table that has one of the given names, or None.

    Case, blanks and punctuation are ignored. Earlier names are preferred.

    >>> find_column(pd.DataFrame({"Cell_ID": [1], "Class": ["a"]}), ["object", "cell id"])
    'Cell_ID'
    """
    columns = {normalize_header(column): str(column) for column in reversed(table.columns.tolist())}
    return next((columns[key] for key in map(normalize_header, names) if key in columns), None)


def same_name(name: str) -> str:
    """Return a name in Unicode NFC, without leading and trailing whitespace."""
    return unicodedata.normalize("NFC", name).strip()


def same_case(name: str) -> str:
    """Return a name in lower case, to find names that differ in case alone."""
    return same_name(name).casefold()


def _same_number(name: str) -> str:
    """Return a number in one notation.

    >>> [_same_number(text) for text in ("0.10", "1.0", "-1", "0.5uM")]
    ['0.1', '1', '-1', '0.5uM']
    """
    text = same_name(name)
    return f"{Decimal(text).normalize():f}" if re.fullmatch(_NUMBER, text) else text


def _same_well(name: str) -> str:
    """Return the name of a well without zeros before its column.

    >>> [_same_well(text) for text in ("A01", "b10", "cell01")]
    ['a1', 'b10', 'cell01']
    """
    return re.sub(r"^([a-z]{1,2})0+([1-9]\d*)$", r"\1\2", same_case(_same_number(name)))


def match_names(
    names: Iterable[str], known: Iterable[str], forms: Sequence[Callable[[str], str]] = (same_name, same_case)
) -> dict[str, str]:
    """Return the known name of each name that has one.

    A name first matches the same name, then the one that only differs in case. Two names are never matched to one:
    where several names, or several known names, are alike in a form, this form matches none of them.

    Parameters
    ----------
    names, known : iterable of str
    forms : sequence of callable
        Forms in which names are compared, the strictest first.

    >>> match_names(["CD8+", "cd8-", "wt", "WT"], ["CD8+", "CD8-", "Wt"])
    {'CD8+': 'CD8+', 'cd8-': 'CD8-'}
    """
    ours, theirs = {text: same_name(text) for text in names}, {same_name(text): text for text in known}
    matches: dict[str, str] = {}
    for form in forms:
        alike: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
        for side, texts in enumerate((ours.values(), theirs)):
            for text in texts:
                alike[form(text)][side].add(text)
        for mine, others in alike.values():
            if len(mine) == len(others) == 1:
                matches.setdefault(*mine, *others)
    return {text: theirs[matches[name]] for text, name in ours.items() if name in matches}


def describe_matches(matches: Mapping[str, str]) -> str:
    """Return a sentence that lists names in another spelling, "" without any."""
    form = _part_by_part(_same_number)
    others = [f"“{name}” as “{known}”" for name, known in matches.items() if form(name) != form(known)]
    return f"Names in another spelling: {format_list(others)}." if others else ""


def format_list(values: Iterable[object], limit: int = 5) -> str:
    """Return values as comma-separated text, shortened to the first ``limit`` values.

    >>> format_list("abc", limit=2)
    'a, b and 1 more'
    """
    texts = [str(value) for value in values]
    more = len(texts) - limit
    return ", ".join(texts[:limit]) + (f" and {more} more" if more > 0 else "")


def _row_names(table: pd.DataFrame) -> pd.Series[str]:
    """Return one text per row, of all its values."""
    return pd.Series([_SEPARATOR.join(map(str, row)) for row in table.itertuples(index=False)], table.index, "object")


def _part_by_part(form: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: _SEPARATOR.join(map(form, text.split(_SEPARATOR)))


def find_key_columns(table: pd.DataFrame, groups: Sequence[str]) -> dict[str, str]:
    """Return the column of a table that corresponds to each grouping column.

    The result is, for example, ``{"well": "Well ID"}``. ``groups`` are the grouping columns of the project and "image";
    grouping columns that the table lacks are left out.
    """
    keys: dict[str, str] = {}
    for group in groups:
        spellings = IMAGE_COLUMN_NAMES if group == "image" else [f"{group}{suffix}" for suffix in _GROUP_SUFFIXES]
        column = find_column(table, spellings)
        if column is not None and column not in keys.values():
            keys[group] = column
    return keys


def choose_key_columns(
    table: pd.DataFrame, image_table: pd.DataFrame, table_name: str
) -> tuple[dict[str, str], pd.DataFrame]:
    """Return the columns that identify the images of a row, and a reduced table.

    A column of image names is sufficient, and the other grouping columns are removed from the table. If no value in a
    column such as "name" is the name of an image, the other grouping columns, such as plate and well, identify the
    images.

    Parameters
    ----------
    table : DataFrame
    image_table : DataFrame
        One row per image: the name in the column "image", and the grouping columns.
    table_name : str
        Name of the table in error messages, such as "the table of conditions".

    Raises
    ------
    InputError
        If no column identifies the images.
    """
    keys = find_key_columns(table, list(image_table.columns))
    if "image" in keys and len(keys) > 1:
        if _without_suffix(table[keys["image"]], image_table["image"]).isin(image_table["image"]).any():
            return {"image": keys["image"]}, table.drop(columns=[keys[group] for group in keys if group != "image"])
        del keys["image"]
    if not keys:
        raise InputError(
            f"{_capitalize(table_name)} has no column named like {format_list(image_table.columns)}; its columns are "
            f"{format_list(table.columns, 8)}. Add such a column to identify the images of each row."
        )
    return keys, table


def join_conditions(images: pd.DataFrame, conditions: TableSource) -> tuple[pd.DataFrame, str]:
    """Return the experimental conditions of each image from a table.

    Parameters
    ----------
    images : DataFrame
        The grouping columns of the images, indexed by image name.
    conditions : path or DataFrame
        One row per well, patient or image. Columns with the name of a grouping column (or "image"), in any spelling,
        identify the images of a row; all other columns are conditions. Wells named A1 and A01 match.

    Returns
    -------
    table : DataFrame
        The condition columns with the index of ``images``; values are missing for images without a row.
    mismatch_note : str
        A sentence about rows without an image and images without a row; "" if there are none.

    Raises
    ------
    InputError
        If no column or no row matches, two rows differ for the same images, or a condition has the name of a grouping
        column.

    Examples
    --------
    >>> images = pd.DataFrame({"well": ["A1", "A2"]}, pd.Index(["P1_A1", "P1_A2"], name="image"))
    >>> join_conditions(images, pd.DataFrame({"Well": ["A01", "A02"], "dose": [0, 10]}))[0]["dose"].tolist()
    [0, 10]
    """
    image_table = images.reset_index(names="image")
    table = read_table(conditions, "a table of conditions")
    keys, table = choose_key_columns(table, image_table, "the table of conditions")
    names = [column for column in table if column not in keys.values()]
    if taken := [name for name in names if name in image_table.columns]:
        raise InputError(f"The conditions have a column {taken[0]!r}, which the images have too. Rename one of them.")
    table = table.drop_duplicates(ignore_index=True)
    rows, mismatch_note = match_rows(image_table, table, keys, "the table of conditions")
    joined = table[names].reindex(rows).set_axis(images.index)
    return joined.astype({name: table[name].dtype for name in names if (rows >= 0).all()}), mismatch_note


def match_rows(
    image_table: pd.DataFrame, table: pd.DataFrame, keys: Mapping[str, str], table_name: str
) -> tuple[NDArray[np.int64], str]:
    """Find the row of a table that belongs to each image.

    Parameters
    ----------
    image_table : DataFrame
        One row per image.
    table : DataFrame
    keys : mapping of str to str
        For each column of ``image_table`` to compare, the corresponding column of ``table``.
    table_name : str
        Name of the table in error messages.

    Returns
    -------
    rows : int64 array of shape (len(image_table),)
        For each image, the position of its row in ``table``; -1 without a row.
    mismatch_note : str
        See `join_conditions`.

    Raises
    ------
    InputError
        If no row belongs to an image, or several rows belong to the same images.
    """
    ours, theirs = image_table[list(keys)], table[list(keys.values())].set_axis(list(keys), axis=1)
    if "image" in keys:
        theirs["image"] = _without_suffix(theirs["image"], image_table["image"])
    wanted, given = _row_names(ours), _row_names(theirs)
    if given.duplicated().any():
        raise InputError(
            f"{_capitalize(table_name)} has two rows for {_describe_rows(theirs[given.duplicated()], 1)}. "
            "Keep one row for each."
        )
    forms = [_part_by_part(form) for form in (same_name, _same_number, same_case, _same_well)]
    matches = match_names(given, wanted, forms)
    absent, unused = ~wanted.isin(matches.values()), ~given.isin(matches)
    if absent.all():
        raise InputError(
            f"No row of {table_name} matches an image: its rows are for {_describe_rows(theirs, 2)}, and the images "
            f"are of {_describe_rows(ours, 2)}. Use the same names in both."
        )
    positions = {matches[name]: position for position, name in enumerate(given) if name in matches}
    rows = wanted.map(lambda name: positions.get(name, -1)).to_numpy(np.int64)
    notes = [f"no row for {_describe_rows(ours[absent])}"] if absent.any() else []
    notes += [f"no image for {_describe_rows(theirs[unused])}"] if unused.any() else []
    sentences = [f"{_capitalize('; '.join(notes))}." if notes else "", describe_matches(matches)]
    return rows, " ".join(filter(None, sentences)).replace(_SEPARATOR, " ")


def _without_suffix(values: pd.Series[str], names: pd.Series[str]) -> pd.Series[str]:
    """Return values without file suffixes where that makes them names of images."""
    texts, known = values.astype(str), set(names)
    stems = texts.str.replace(r"(\.ome)?\.\w+$", "", regex=True)
    return texts.where(texts.isin(known) | ~stems.isin(known), stems)


def _describe_rows(table: pd.DataFrame, limit: int = 5) -> str:
    """Return the distinct rows as text: ``plate P1 well A1, plate P1 well A2``."""
    texts = (" ".join(f"{column} {value}" for column, value in row.items()) for _, row in table.iterrows())
    return format_list(dict.fromkeys(texts), limit)


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]
