"""Paths with placeholders, ``wells/{plate}_{well}.tif``, and the files that match them."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

from svetlana_jupyter.core.readers import HDF5_SUFFIXES
from svetlana_jupyter.errors import InputError

PATTERN_TOKENS = re.compile(r"(\{[^{}]*\}|\*\*/|\*)")
WILDCARD_FIELD = "star"  # what a `*` stands for is called "star 0", "star 1", …: no placeholder has a space in it


@dataclass(frozen=True)
class FilePattern:
    """A path whose placeholders ``{field}`` and wildcards ``*`` and ``**/`` stand for text in file names.

    A placeholder stands for one or more characters within one name, a ``*`` also for none; ``**/`` for any folders. A
    placeholder that comes twice stands for the same text both times. Both kinds of slashes separate folders. Behind an
    HDF5 file may follow the dataset in it.
    """

    text: str

    @classmethod
    def of(cls, pattern: str | PathLike[str]) -> FilePattern:
        """Pattern with forward slashes, its placeholders checked."""
        text = Path(str(pattern).replace("\\", "/")).expanduser().as_posix()
        for token in PATTERN_TOKENS.findall(text):
            if token.startswith("{") and not token[1:-1].isidentifier():
                raise InputError(f"{token} in '{text}' should be a word in braces, such as {{well}}.")
        return cls(text)

    @cached_property
    def placeholders(self) -> tuple[str, ...]:
        """Words in braces, each once, in order."""
        return tuple(dict.fromkeys(token[1:-1] for token in PATTERN_TOKENS.findall(self.text) if token.startswith("{")))

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The placeholders; in a pattern without any, its stars."""
        stars = PATTERN_TOKENS.findall(self.text).count("*")
        return self.placeholders or tuple(f"{WILDCARD_FIELD} {i}" for i in range(stars))

    @cached_property
    def literal_length(self) -> int:
        """How many characters are fixed: of two patterns that match one file, the one that says more is meant."""
        return len(PATTERN_TOKENS.sub("", self.text))

    @cached_property
    def stem(self) -> str:
        """Name of the file without its suffix, placeholders and wildcards left out."""
        return PATTERN_TOKENS.sub("", Path(self._file_and_inside()[0]).stem).strip(" _-.") or "image"

    def find(self) -> dict[Path, dict[str, str]]:
        """Files that match, with the text that each field stands for."""
        file, inside = self._file_and_inside()
        search = "".join(_as_glob(token) for token in PATTERN_TOKENS.split(file))
        paths = (Path(name, inside) for name in glob.iglob(search, recursive=True))
        return {path: said for path in paths if (said := self.match(path)) is not None}

    def match(self, path: Path) -> dict[str, str] | None:
        """The text that each field stands for in one path; None where it does not match."""
        match = self._regex.fullmatch(path.as_posix())
        return dict(zip(self.fields, match.groups())) if match else None

    def filled(self, values: Mapping[str, str]) -> str:
        """The path that these values make, with what they do not say left as it is."""
        stars = itertools.count()

        def fill(token: re.Match[str]) -> str:
            word = f"{WILDCARD_FIELD} {next(stars)}" if token[0] == "*" else token[0].strip("{}")
            return values.get(word, token[0])

        return PATTERN_TOKENS.sub(fill, self.text)

    def _file_and_inside(self) -> tuple[str, str]:
        parts = self.text.split("/")
        for i, part in enumerate(parts, 1):
            if part.lower().endswith(HDF5_SUFFIXES):
                return "/".join(parts[:i]), "/".join(parts[i:])
        return self.text, ""

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        seen: dict[str, int] = {}
        regex = ""
        for token in PATTERN_TOKENS.split(self.text):
            if token == "**/":
                regex += "(?:.*/)?"
            elif token == "*":
                regex += "[^/]*" if self.placeholders else "([^/]*)"
            elif token.startswith("{") and token in seen:
                regex += rf"(?:\{seen[token]})"
            elif token.startswith("{"):
                seen[token] = len(seen) + 1
                regex += "([^/]+?)"
            else:
                regex += re.escape(token)
        return re.compile(regex)


def _as_glob(token: str) -> str:
    if token.startswith("{"):
        return "*"
    return token if PATTERN_TOKENS.fullmatch(token) else glob.escape(token)


def natural_sort_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key that counts: ``w2`` before ``w10``."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]
