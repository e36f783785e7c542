"""Paths with placeholders, ``wells/{plate}_{well}.tif``, and the files that match them.

Which image belongs to which mask, by their names.
"""

from __future__ import annotations

import glob
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from svetlana_jupyter.core.io.readers import HDF5_SUFFIXES
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

    def fill_placeholders(self, values: Mapping[str, str]) -> str:
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


CHANNEL = "channel"
PAIR_COLUMNS = ("name", "image", "mask", "channels", "problem")

MatchedFiles = Mapping[Path, Mapping[str, str]]  # what each placeholder stands for in each file


def find_pairs(images: str | PathLike[str], masks: str | PathLike[str]) -> pd.DataFrame:
    """Pair images with masks by the placeholders in their paths.

    ``wells/{plate}_{well}.tif`` and ``masks/{plate}_{well}_cp_masks.tif`` belong together where plate and well are the
    same. Folders may be placeholders too. Files that differ in ``{channel}`` alone are the channels of one image.
    Without placeholders, what each ``*`` stands for is compared; without those, the two files are the pair. A file that
    both patterns match belongs to the pattern with more fixed characters. No file is opened.

    Parameters
    ----------
    images, masks : str or path
        Patterns, absolute or relative to the working directory.

    Returns
    -------
    DataFrame
        One row an image, in natural order, then one a mask without image. ``name``: the placeholders' values joined by
        ``_``, or the stem; ``image``: a path, a tuple of paths where ``{channel}`` stacks them, or None; ``mask``: a
        path or None; one column a placeholder of the images; ``channels``: their names where ``{channel}`` stacks them,
        in natural order, or None; ``problem``: empty, or a sentence that says why this is no pair.

    Raises
    ------
    InputError
        If nothing matches a pattern, or the patterns have no placeholder in common.
    """
    image_pattern, mask_pattern = FilePattern.of(images), FilePattern.of(masks)
    fields = [field for field in image_pattern.fields if field != CHANNEL]
    shared = _shared_fields(fields, image_pattern, mask_pattern)
    image_files, mask_files = _shared_out(image_pattern, mask_pattern)
    masks_by_key = {key: list(paths) for key, paths in _grouped(mask_files, shared).items()}
    stacks = _grouped(image_files, fields)
    keys = {values: tuple(values[fields.index(field)] for field in shared) for values in stacks}
    users = Counter(keys.values())
    all_channels = {said[CHANNEL] for said in image_files.values() if CHANNEL in said}

    rows: list[dict[str, Any]] = []
    for values in sorted(stacks, key=_natural_key):
        said, files, key = dict(zip(fields, values)), stacks[values], keys[values]
        found = masks_by_key.get(key, [])
        channels = sorted({of[CHANNEL] for of in files.values() if CHANNEL in of}, key=natural_sort_key)
        problem = (
            _files_problem(files, channels, all_channels)
            or _mask_problem(found, mask_pattern.fill_placeholders(said))
            or _sharing_problem(users[key], [field for field in fields if field not in shared])
        )
        paths = sorted(files, key=lambda path: natural_sort_key(files[path].get(CHANNEL, "")))
        rows.append(
            {
                "name": "_".join(values).replace("/", "_") or image_pattern.stem,
                "image": tuple(paths) if channels else paths[0],
                "mask": found[0] if found else None,
                "channels": tuple(channels) or None,
                "problem": problem,
                **said,
            }
        )
    for key in sorted(masks_by_key.keys() - users.keys(), key=_natural_key):
        said = dict(zip(shared, key))
        problem = f"No image was found for this mask, expected {image_pattern.fill_placeholders(said)}."
        rows.append({"name": "_".join(key), "mask": masks_by_key[key][0], "problem": problem, **said})
    return _table(rows, [field for field in fields if field in image_pattern.placeholders])


def _shared_fields(fields: Sequence[str], images: FilePattern, masks: FilePattern) -> list[str]:
    if clash := {*images.placeholders} & {*PAIR_COLUMNS}:
        raise InputError(
            f"{{{clash.pop()}}} is the name of a column of the result. Call the placeholder something else."
        )
    shared = [field for field in fields if field in masks.fields]
    if not shared and (fields or set(masks.fields) - {CHANNEL}):
        raise InputError(
            f"'{images.text}' and '{masks.text}' have no placeholder in common. "
            "Name what tells the images apart in both, for example {well}."
        )
    return shared


def _shared_out(images: FilePattern, masks: FilePattern) -> tuple[MatchedFiles, MatchedFiles]:
    """Files of each pattern; those that match both go to the one that says more."""
    image_files, mask_files = images.find(), masks.find()
    for pattern, found, what in ((images, image_files, "image"), (masks, mask_files, "mask")):
        if not found:
            raise InputError(f"no {what} matches '{pattern.text}'. Relative patterns start at {Path.cwd()}.")
    less = image_files if images.literal_length <= masks.literal_length else mask_files
    for path in image_files.keys() & mask_files.keys():
        del less[path]
    if not less:
        raise InputError(f"'{images.text}' and '{masks.text}' match the same files. Images and masks need their own.")
    return image_files, mask_files


def _grouped(files: MatchedFiles, fields: Sequence[str]) -> dict[tuple[str, ...], dict[Path, Mapping[str, str]]]:
    groups: dict[tuple[str, ...], dict[Path, Mapping[str, str]]] = defaultdict(dict)
    for path in sorted(files):
        groups[tuple(files[path][field] for field in fields)][path] = files[path]
    return groups


def _files_problem(files: MatchedFiles, channels: Sequence[str], all_channels: set[str]) -> str:
    if len(files) > max(1, len(channels)):
        return f"{len(files)} files match where {max(1, len(channels))} was expected: {_listed(files)}. Keep one."
    if channels and (missing := all_channels.difference(channels)):
        return f"It has the channels {_listed(channels)}; other images also have {_listed(missing)}."
    return ""


def _mask_problem(found: Sequence[Path], expected: str) -> str:
    if not found:
        return f"No mask was found, expected {expected}."
    return f"{len(found)} masks match: {_listed(found)}. Keep one." if len(found) > 1 else ""


def _sharing_problem(users: int, fields: Sequence[str]) -> str:
    if users == 1:
        return ""
    missing = " and ".join(f"{{{field}}}" for field in fields)
    return f"{users} images share its mask: they differ in {missing}, which the pattern of the masks does not have."


def _table(rows: list[dict[str, Any]], placeholders: Sequence[str]) -> pd.DataFrame:
    counts = Counter(row["name"] for row in rows if not row["problem"])
    for row in rows:
        if counts[row["name"]] > 1 and not row["problem"]:
            row["problem"] = f"{counts[row['name']]} images would be called {row['name']}. Rename their files."
    columns = ["name", "image", "mask", *placeholders, "channels", "problem"]
    blank = dict.fromkeys(placeholders, "")
    return pd.DataFrame({c: pd.Series([{**blank, **row}.get(c) for row in rows], dtype=object) for c in columns})


def _natural_key(values: Sequence[str]) -> list[list[tuple[int, int, str]]]:
    return [natural_sort_key(value) for value in values]


def _listed(things: Any) -> str:
    return ", ".join(sorted(map(str, things)))
