"""Access to the files in a project folder or an export folder.

A folder may come from a stranger. Its files are read and written only through these functions, which do not follow
links inside the folder: a link counts as a missing file when reading and is refused when writing. The path of the
folder itself must be resolved, so that every link on the way to a file is inside the folder.
"""

from __future__ import annotations

import csv
import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pandas as pd
from pyarrow.parquet import ParquetFile

from svetlana_jupyter.core.io.bounded_files import check_regular_file, parse_json, read_bounded
from svetlana_jupyter.errors import ProjectError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path
    from typing import Any

    from pyarrow import Schema

DOCUMENT = "project.json"
MAX_TABLE_RATIO = 1000  # bytes in memory per byte of a Parquet file
MIN_TABLE_LIMIT = 64 << 20  # bytes in memory that any Parquet file may take
_is_junction = getattr(os.path, "isjunction", lambda path: False)  # a link to a folder on Windows; since Python 3.12


def find_link(path: Path) -> Path | None:
    """Return the first link on the way to a file, or None."""
    return next((part for part in (*reversed(path.parents), path) if is_link(part)), None)


def is_link(path: Path | str) -> bool:
    """Return whether a path is a link itself."""
    return os.path.islink(path) or bool(_is_junction(path))


def links_below(folder: Path) -> Iterator[Path]:
    """Yield all links in a folder and its subfolders."""
    folders = [folder]
    while folders:
        folder = folders.pop()
        with suppress(PermissionError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() or _is_junction(entry.path):
                    yield folder / entry.name
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(folder / entry.name)


def refuse_link(path: Path) -> None:
    """Raise a `ProjectError` if a file to be written is reached through a link."""
    if (link := find_link(path)) is not None:
        raise ProjectError(
            f"{link} is a link, so nothing was written to {path.name}. Links inside a project or export folder are not "
            "followed: put the file or folder itself there, or remove the link."
        )


def is_present(path: Path) -> bool:
    """Return whether a file or folder exists; a link counts as missing."""
    return path.exists() and find_link(path) is None


def check_readable(file: Path) -> None:
    """Raise an `OSError` if a file is missing, a link or no regular file."""
    if (link := find_link(file)) is not None:
        raise OSError(f"{link} is a link, which is not followed")
    check_regular_file(file)


def read_text(file: Path) -> str:
    """Return the text of a file.

    Raises
    ------
    OSError
        If the file is missing, is a link or no regular file, or is too large.
    ValueError
        If the file is not UTF-8; the error names the line.
    """
    check_readable(file)
    content = read_bounded(file)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 text") from error


def read_csv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Return the complete rows of a CSV file with their line numbers.

    Raises
    ------
    OSError, ValueError
        As for `read_text`, or if a row cannot be read.
    """
    whole, _, _ = read_text(file).rpartition("\n")
    reader = csv.reader(io.StringIO(whole, newline=""))
    try:
        return iter([(reader.line_num, cells) for cells in reader])
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not CSV ({error})") from error


def read_json(file: Path, strict: bool = False) -> Any:
    """Return the value in a JSON file; see `core.io.bounded_files.parse_json`."""
    return parse_json(read_text(file), strict)


def read_parquet(file: Path, columns: Collection[str] = ()) -> pd.DataFrame:
    """Return the table in a Parquet file that this package has written.

    Parameters
    ----------
    file : Path
    columns : collection of str
        Numeric columns that the table must have.

    Raises
    ------
    OSError
        If the file is missing or a link.
    ValueError
        If the file cannot be read, has other columns, or its index is not made of distinct integers.
    """
    check_readable(file)
    try:
        with ParquetFile(file) as parquet:  # half of the time of `pd.read_parquet`, for small files
            _check_size(parquet, file)
            rows = parquet.read(use_threads=False)
        table: pd.DataFrame = rows.to_pandas()
        table.attrs = _attributes(rows.schema)
    except OSError:
        raise
    except Exception as error:  # a damaged file fails in any part of pyarrow and pandas
        raise ValueError(f"{file} is damaged: {error!s:.200}") from error
    is_number = {str(name): pd.api.types.is_numeric_dtype(dtype) for name, dtype in table.dtypes.items()}
    if missing := [name for name in columns if not is_number.get(name)]:
        raise ValueError(f"{file} is damaged: it has no numbers {missing[0]!r}")
    if not pd.api.types.is_integer_dtype(table.index.dtype) or table.index.has_duplicates:
        raise ValueError(f"{file} is damaged: its rows are not numbered")
    return table


def read_attributes(file: Path) -> dict[str, Any]:
    """Return the attributes of the table in a Parquet file.

    Raises
    ------
    OSError, ValueError
        As for `read_parquet`.
    """
    check_readable(file)
    try:
        with ParquetFile(file) as parquet:
            return _attributes(parquet.schema_arrow)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{file} is damaged: {error!s:.200}") from error


def _attributes(schema: Schema) -> dict[Any, Any]:
    return dict(parse_json((schema.metadata or {}).get(b"PANDAS_ATTRS", b"{}")))


def _check_size(parquet: ParquetFile, file: Path) -> None:
    """Raise an error if a Parquet file would take far more memory than disk space."""
    metadata, limit = parquet.metadata, max(MIN_TABLE_LIMIT, MAX_TABLE_RATIO * file.stat().st_size)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    needed = max(sum(group.total_byte_size for group in groups), 8 * metadata.num_rows * metadata.num_columns)
    if metadata.num_rows < 0 or needed > limit:
        raise ValueError(f"it states {metadata.num_rows:,} rows of {metadata.num_columns} columns")


def make_folder(folder: Path) -> None:
    """Create a folder inside a project, and the folders above it.

    Raises
    ------
    OSError
        If the project folder is missing: it is not created again, so that it can be restored.
    ProjectError
        If the path leads through a link.
    """
    refuse_link(folder)
    if not any((above / DOCUMENT).is_file() for above in folder.parents):
        raise OSError("the project folder is missing")
    folder.mkdir(parents=True, exist_ok=True)


def remove_file(file: Path) -> None:
    """Remove a file if it exists.

    Raises
    ------
    ProjectError
        If the path leads through a link.
    """
    refuse_link(file)
    file.unlink(missing_ok=True)
