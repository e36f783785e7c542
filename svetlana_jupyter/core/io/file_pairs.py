"""Pairs of image and mask files, found by patterns with placeholders.

An example of a pattern is ``wells/{plate}_{well}.tif``, with the placeholders ``plate`` and ``well``.
"""

from __future__ import annotations

import glob
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import pandas as pd
from natsort import natsorted

from svetlana_jupyter.core.io.readers import HDF5_SUFFIXES
from svetlana_jupyter.core.io.typed_paths import NAME, clean_path, complete_folders
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from os import PathLike

PATTERN_TOKENS = re.compile(r"(\{[^{}]*\}|\*\*/|\*)")
WILDCARD_FIELD = "star"  # the fields of stars are "star 0", "star 1", …; placeholders cannot contain a space
CHANNEL = "channel"
PAIR_COLUMNS = (NAME, "image", "mask", "channels", "problem")
_NO_COLUMNS = (NAME, "image")  # placeholders that name the images, but are no grouping columns

MatchedFiles = Mapping[Path, Mapping[str, str]]  # for each file, the text that each field matches


class FilePattern:
    """Path pattern with placeholders ``{field}`` and wildcards ``*`` and ``**/``.

    A placeholder matches one or more characters of a file or folder name. A ``*`` matches any number of characters, or
    none; ``**/`` matches any number of folders, or none. A placeholder that occurs twice matches the same text both
    times. Slashes and backslashes separate folders. The path of an HDF5 file may be followed by the name of a dataset
    in the file.

    Attributes
    ----------
    text : str
        The path with forward slashes.
    placeholders : tuple of str
        The different words in braces, in order.
    fields : tuple of str
        The placeholders or, in a pattern without placeholders, the stars ``*``.
    literal_length : int
        Number of fixed characters. A file that two patterns match belongs to the pattern with more fixed characters.
    """

    def __init__(self, pattern: str | PathLike[str]) -> None:
        self.text = clean_path(pattern)
        tokens = PATTERN_TOKENS.findall(self.text)
        self.placeholders = tuple(dict.fromkeys(token[1:-1] for token in tokens if token.startswith("{")))
        if wrong := [f"{{{word}}}" for word in self.placeholders if not word.isidentifier()]:
            raise InputError(
                f"{wrong[0]} in '{self.text}' is not a placeholder. Use a word in braces, such as {{well}}."
            )
        self.fields = self.placeholders or tuple(f"{WILDCARD_FIELD} {i}" for i in range(tokens.count("*")))
        self.literal_length = len(PATTERN_TOKENS.sub("", self.text))

    @cached_property
    def stem(self) -> str:
        """Name of the file without suffix, placeholders and wildcards."""
        return PATTERN_TOKENS.sub("", Path(self._file_and_dataset[0]).stem).strip(" _-.") or "image"

    def find(self) -> dict[Path, dict[str, str]]:
        """Return the matching files, each with the text that every field matches."""
        file, dataset = self._file_and_dataset
        search = "".join(_as_glob(token) for token in PATTERN_TOKENS.split(file))
        paths = (Path(name, dataset) for name in glob.iglob(search, recursive=True))
        return {path: fields for path in paths if (fields := self.match(path)) is not None}

    def match(self, path: Path) -> dict[str, str] | None:
        """Return the text that every field matches in a path, None without a match.

        Texts are in Unicode NFC, since macOS decomposes the characters of file names.
        """
        match = self._regex.fullmatch(path.as_posix())
        return dict(zip(self.fields, (normalize("NFC", text) for text in match.groups()))) if match else None

    def fill_placeholders(self, values: Mapping[str, str]) -> str:
        """Return the pattern with the fields in ``values`` replaced by their values."""
        stars = itertools.count()

        def fill(token: re.Match[str]) -> str:
            field = f"{WILDCARD_FIELD} {next(stars)}" if token[0] == "*" else token[0].strip("{}")
            return values.get(field, token[0])

        return PATTERN_TOKENS.sub(fill, self.text)

    @cached_property
    def _file_and_dataset(self) -> tuple[str, str]:
        parts = self.text.split("/")
        for i, part in enumerate(parts, 1):
            if part.lower().endswith(HDF5_SUFFIXES):
                return "/".join(parts[:i]), "/".join(parts[i:])
        return self.text, ""

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        wildcards = {"**/": "(?:.*/)?", "*": "[^/]*" if self.placeholders else "([^/]*)"}
        regex, words = "", set()
        for token in PATTERN_TOKENS.split(self.text):
            word = token[1:-1]
            if not token.startswith("{"):
                regex += wildcards.get(token) or re.escape(token)
            else:
                regex += f"(?P={word})" if word in words else f"(?P<{word}>[^/]+?)"
                words.add(word)
        return re.compile(regex)


def _as_glob(token: str) -> str:
    if token.startswith("{"):
        return "*"
    return token if PATTERN_TOKENS.fullmatch(token) else glob.escape(token)


def find_pairs(images: str | PathLike[str], masks: str | PathLike[str]) -> pd.DataFrame:
    """Pair images with masks by the placeholders in their paths.

    ``wells/{plate}_{well}.tif`` and ``masks/{plate}_{well}_cp_masks.tif`` belong together if plate and well are the
    same. Placeholders may also stand for folders. Files that differ only in ``{channel}`` are the channels of one
    image. In patterns without placeholders, the texts that the stars ``*`` match are compared; patterns without stars
    are the paths of a single pair. A file that both patterns match belongs to the pattern with more fixed characters.
    No file is opened.

    Parameters
    ----------
    images, masks : str or path
        Patterns, absolute or relative to the working directory. They may be quoted or begin with ``file://``. A folder
        stands for the files in it, whose names are matched (`core.io.typed_paths.complete_folders`).

    Returns
    -------
    DataFrame
        One row per image, in natural order, then one row per mask without an image. Columns are ``name`` (values of the
        placeholders joined by ``_``, or the stem of the file), ``image`` (a path, a tuple of paths for an image with
        one file per channel, or None), ``mask`` (a path or None), one column per placeholder of the images,
        ``channels`` (channel names in natural order for an image with one file per channel, or None) and ``problem``
        (the reason why the row is not a valid pair, or an empty text).

    Raises
    ------
    InputError
        If nothing matches a pattern, or the patterns have no placeholder in common.
    """
    completed = complete_folders(clean_path(images), clean_path(masks), lambda text: FilePattern(text).find())
    image_pattern, mask_pattern = map(FilePattern, completed)
    fields = [field for field in image_pattern.fields if field != CHANNEL]
    shared = _shared_fields(fields, image_pattern, mask_pattern)
    image_files, mask_files = _find_files(image_pattern, mask_pattern)
    masks_by_key = {key: list(files) for key, files in _group_files(mask_files, shared).items()}
    stacks = _group_files(image_files, fields)
    keys = {values: tuple(values[fields.index(field)] for field in shared) for values in stacks}
    users = Counter(keys.values())
    all_channels = {values[CHANNEL] for values in image_files.values() if CHANNEL in values}

    rows: list[dict[str, Any]] = []
    for values in natsorted(stacks):
        texts, files, candidates = dict(zip(fields, values)), stacks[values], masks_by_key.get(keys[values], [])
        channels = natsorted({of[CHANNEL] for of in files.values() if CHANNEL in of})
        paths = natsorted(files, key=lambda path: files[path].get(CHANNEL, ""))
        problem = (
            _files_problem(files, channels, all_channels)
            or _mask_problem(candidates, mask_pattern.fill_placeholders(texts))
            or _sharing_problem(users[keys[values]], [field for field in fields if field not in shared])
        )
        rows.append(
            {
                "name": "_".join(values).replace("/", "_") or image_pattern.stem,
                "image": tuple(paths) if channels else paths[0],
                "mask": candidates[0] if candidates else None,
                "channels": tuple(channels) or None,
                "problem": problem,
                **_columns(texts),
            }
        )
    for key in natsorted(masks_by_key.keys() - users.keys()):
        texts = dict(zip(shared, key))
        problem = f"No image was found for this mask, expected {image_pattern.fill_placeholders(texts)}."
        rows.append({"name": "_".join(key), "mask": masks_by_key[key][0], "problem": problem, **_columns(texts)})
    return _to_table(rows, [field for field in _columns(fields) if field in image_pattern.placeholders])


def describe_skipped(added: pd.DataFrame) -> str:
    """Return a text on skipped pairs, with a reason, and the first note, if any.

    ``added`` is the result of `Project.add_images`.
    """
    problems, notes = added.loc[added["problem"] != ""], [note for note in added["note"] if note]
    note = (
        f"{notes[0]}{f' The same table has {len(notes) - 1:,} more notes.' if len(notes) > 1 else ''}" if notes else ""
    )
    if problems.empty:
        return note
    name, problem, _ = first_problem(problems)
    reason = problem.removeprefix(f"{name}: ")
    return f"{len(problems):,} of {len(added):,} pairs were skipped. {name}: {reason} {note}".strip()


def first_problem(problems: pd.DataFrame) -> tuple[str, str, str]:
    """Return name, problem and remedy of a pair, if possible one with a remedy."""
    remedies = problems.attrs.get("remedies", {})
    row = problems.iloc[int(problems["name"].isin([*remedies]).argmax())]
    return row["name"], row["problem"], remedies.get(row["name"], "")


def _columns(texts: Iterable[str]) -> dict[str, str]:
    """Return the texts of the placeholders that become grouping columns."""
    values = texts if isinstance(texts, Mapping) else dict.fromkeys(texts, "")
    return {field: text for field, text in values.items() if field not in _NO_COLUMNS}


def _shared_fields(fields: Sequence[str], images: FilePattern, masks: FilePattern) -> list[str]:
    if clash := {*images.placeholders} & {*PAIR_COLUMNS} - {*_NO_COLUMNS}:
        raise InputError(f"{{{clash.pop()}}} is the name of a column of the result. Rename this placeholder.")
    shared = [field for field in fields if field in masks.fields]
    if not shared and (fields or set(masks.fields) - {CHANNEL}):
        raise InputError(
            f"'{images.text}' and '{masks.text}' have no placeholder in common. "
            "Put the part of the names that identifies an image in braces in both, for example {well}."
        )
    return shared


def _find_files(images: FilePattern, masks: FilePattern) -> tuple[MatchedFiles, MatchedFiles]:
    """Return the files that match each pattern.

    A file that both patterns match belongs to the pattern with more fixed characters.
    """
    image_files, mask_files = images.find(), masks.find()
    for pattern, files, role in ((images, image_files, "image"), (masks, mask_files, "mask")):
        if not files:
            raise InputError(
                f"No {role} matches '{pattern.text}'. Check the pattern; if relative, it starts at {Path.cwd()}."
            )
    weaker = image_files if images.literal_length <= masks.literal_length else mask_files
    for path in image_files.keys() & mask_files.keys():
        del weaker[path]
    if not weaker:
        raise InputError(f"'{images.text}' and '{masks.text}' match the same files. Use one that matches masks only.")
    return image_files, mask_files


def _group_files(files: MatchedFiles, fields: Sequence[str]) -> dict[tuple[str, ...], dict[Path, Mapping[str, str]]]:
    groups: dict[tuple[str, ...], dict[Path, Mapping[str, str]]] = defaultdict(dict)
    for path in sorted(files):
        groups[tuple(files[path][field] for field in fields)][path] = files[path]
    return groups


def _files_problem(files: MatchedFiles, channels: Sequence[str], all_channels: set[str]) -> str:
    expected = max(1, len(channels))
    if len(files) > expected:
        return f"{len(files)} files match, expected {expected}: {_join(files)}. Remove or rename the other files."
    if channels and (missing := all_channels.difference(channels)):
        return f"The image has the channels {_join(channels)}; other images also have {_join(missing)}."
    return ""


def _mask_problem(candidates: Sequence[Path], expected: str) -> str:
    if not candidates:
        return f"No mask was found, expected {expected}."
    return f"{len(candidates)} masks match: {_join(candidates)}. Keep one." if len(candidates) > 1 else ""


def _sharing_problem(users: int, fields: Sequence[str]) -> str:
    if users == 1:
        return ""
    missing = " and ".join(f"{{{field}}}" for field in fields)
    return f"{users} images share this mask: they differ in {missing}, which the pattern of the masks does not contain."


def _to_table(rows: list[dict[str, Any]], placeholders: Sequence[str]) -> pd.DataFrame:
    counts = Counter(row["name"] for row in rows if not row["problem"])
    for row in rows:
        if counts[row["name"]] > 1 and not row["problem"]:
            row["problem"] = f"{counts[row['name']]} images would be named {row['name']}. Rename their files."
    columns = ["name", "image", "mask", *placeholders, "channels", "problem"]
    blank = dict.fromkeys(placeholders, "")
    table = pd.DataFrame({c: pd.Series([{**blank, **row}.get(c) for row in rows], dtype=object) for c in columns})
    table.attrs["remedies"] = {}  # by the names of pairs: what makes a pair with a problem usable
    return table


def _join(items: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, items)))
