"""Reading of whole files with limits on size, memory and depth.

Files may come from other people, and may be damaged. Named pipes and devices are refused, because reading them may
never end; compressed files and JSON are refused if their content would take far more memory than the file suggests.
"""

from __future__ import annotations

import gzip
import io
import json
import stat
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

MAX_JSON_BYTES = 2 << 30
MAX_JSON_VALUES = 200_000_000  # numbers, texts, lists and objects; each takes about 60 bytes of memory
MAX_GZIP_RATIO = 100  # outlines compress to a tenth, and the longest runs of equal bytes to a thousandth
MIN_GZIP_LIMIT = 16 << 20  # bytes that any compressed file may expand to


def check_regular_file(path: Path) -> None:
    """Raise an `OSError` if a path is missing, or is a folder, named pipe or device."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a named pipe or device"
        raise OSError(f"it is {kind}, not a file")


def read_bounded(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """Return the content of a file.

    Raises
    ------
    OSError
        If the file is missing or unreadable, is not a regular file, or has more than ``limit`` bytes.
    """
    check_regular_file(path)
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"it has more than {limit:,} bytes")
    return content


def decompress_gzip(content: bytes) -> bytes:
    """Return the decompressed content of a gzip file.

    Raises
    ------
    OSError, EOFError, zlib.error
        If the content is not complete gzip, or expands to more than `MAX_GZIP_RATIO` times its size.
    """
    limit = min(MAX_JSON_BYTES, max(MIN_GZIP_LIMIT, MAX_GZIP_RATIO * len(content)))
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        expanded = file.read(limit + 1)
    if len(expanded) > limit:
        raise OSError(f"{len(content):,} compressed bytes expand to more than {limit:,}; decompress the file first")
    return expanded


def parse_json(content: bytes | str, strict: bool = False) -> Any:
    """Return the value of a JSON text.

    Parameters
    ----------
    content : bytes or str
    strict : bool
        Whether to refuse NaN, infinity, and objects with two values of the same name.

    Raises
    ------
    ValueError
        If the text is no JSON, is nested too deeply, or has too many values or too long numbers.

    Examples
    --------
    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    separators: Any = (b",", b"[", b"{") if isinstance(content, bytes) else (",", "[", "{")
    if (values := sum(map(content.count, separators))) > MAX_JSON_VALUES:
        raise ValueError(f"it has about {values:,} values, more than {MAX_JSON_VALUES:,}; split the file")
    hooks: dict[str, Any] = {"parse_constant": _refuse_constant, "object_pairs_hook": _unique} if strict else {}
    try:
        return json.loads(content, **hooks)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has two values for {next(name for name in names if names.count(name) > 1)!r:.80}")
    return result
