"""Paths as users type or paste them, and folders in the place of patterns."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from natsort import natsorted

from svetlana_jupyter.core.io.geojson import is_geojson
from svetlana_jupyter.core.io.readers import HDF5_SUFFIXES, READERS
from svetlana_jupyter.errors import InputError

NAME = "name"  # the placeholder that a folder is completed with
_TOKEN = re.compile(r"\{[^{}]*\}|\*")
_QUOTES = {("'", "'"), ("“", "”"), ("„", "“"), ("‘", "’"), ("«", "»"), ("`", "`")}
_DOUBLE = (".ome.tif", ".ome.tiff", ".ome.zarr")  # suffixes of two parts
_INVISIBLE = "\u200e\u200f\u202a\u202c\ufeff"  # marks that Windows puts before copied paths

Find = Callable[[str], Mapping[Path, Mapping[str, str]]]  # from a pattern to its files, with the text of each field


def clean_path(text: str | os.PathLike[str]) -> str:
    r"""Return a typed or pasted path without quotes, blanks and ``file://``.

    ``~`` is replaced by the home directory. An existing path stays as it is.

    >>> clean_path('"C:\\my images\\{well}.tif" '), clean_path("file:///data/my%20images")
    ('C:/my images/{well}.tif', '/data/my images')
    """
    path = os.fspath(text)
    if not os.path.exists(path):
        path = path.strip().strip(_INVISIBLE).strip().strip('"').strip()
        while len(path) > 1 and (path[0], path[-1]) in _QUOTES:
            path = path[1:-1].strip()
        if path.lower().startswith("file:"):
            path = _from_url(path[len("file:") :])
        if not re.match(r"[A-Za-z]:|\\\\", path):
            path = path.replace("\\ ", " ")  # as a terminal escapes a blank
        path = os.path.expanduser(path.replace("\\", "/"))
    return Path(path.replace("\\", "/")).as_posix()


def _from_url(rest: str) -> str:
    """Return the path of a file URL without its scheme."""
    host, path = "", rest
    if rest.startswith("//"):
        host, _, path = rest[2:].partition("/")
        path = f"/{path}"
    path = unquote(path)
    if host not in ("", "localhost"):
        return f"//{host}{path}"
    return path[1:] if re.match(r"/[A-Za-z]:", path) else path


def complete_folders(images: str, masks: str, find: Find) -> tuple[str, str]:
    """Return patterns in place of folders, and files in place of single paths.

    In a folder, the names of the masks must contain those of the images, with the same text before or after them, such
    as ``A1.tif`` and ``A1_mask.tif``. A single image takes the one mask with its name.

    Parameters
    ----------
    images, masks : str
        Patterns, folders or files (`clean_path`).
    find : callable
        Returns the files that match a pattern, each with the texts of its placeholders.

    Raises
    ------
    InputError
        If a folder contains files of several types, or names that do not fit.
    """
    folders = _is_folder(images), _is_folder(masks)
    if any(folders) and not _has_fields(images) and not _has_fields(masks):
        return _complete_both(images, masks, *folders)
    if folders[0] and _has_fields(masks):
        return _complete_one(images, find(masks), masks), masks
    if folders[1] and _has_fields(images):
        return images, _complete_one(masks, find(images), images)
    if not _has_fields(images) and _has_fields(masks) and Path(images).exists():
        return images, _choose(images, [path.as_posix() for path in find(masks)], masks)
    return images, masks


def _complete_both(images: str, masks: str, image_folder: bool, mask_folder: bool) -> tuple[str, str]:
    """Return the patterns or files if there is a folder and no placeholder."""
    if not image_folder:
        return images, _choose(images, [path.as_posix() for path in _files(masks, is_mask=True)], masks)
    if not mask_folder:
        return _choose(masks, [path.as_posix() for path in _files(images)], images), masks
    image_files, mask_files = _files(images), _files(masks, is_mask=True)
    same = os.path.realpath(images) == os.path.realpath(masks)
    stems, suffix = _stems(images, image_files)
    mask_stems, mask_suffix = _stems(masks, mask_files)
    before, after = _affix(stems, mask_stems, masks, allow_equal=not same)
    own = "{" + NAME + "}"
    return f"{images}/{own}{suffix}", f"{masks}/{before}{own}{after}{mask_suffix}"


def _complete_one(folder: str, files: Mapping[Path, Mapping[str, str]], other: str) -> str:
    """Return the pattern for a folder next to another pattern."""
    fields = {field for texts in files.values() for field in texts}
    token = _TOKEN.findall(other)
    if len(fields) != 1 or len(set(token)) != 1:
        raise InputError(
            f"'{folder}' is a folder, and '{other}' has no or several placeholders. Enter a pattern with the same "
            "placeholders in place of the folder."
        )
    stems, suffix = _stems(folder, _files(folder, is_mask=True))
    texts = [text for found in files.values() for text in found.values()]
    before, after = _affix(texts, stems, folder, allow_equal=True)
    return f"{folder}/{before}{token[0]}{after}{suffix}"


def _choose(single: str, candidates: Collection[str], source: str) -> str:
    """Return the only file whose name fits that of a single file."""
    stem = _stem(Path(single))[0]
    others = {path: _stem(Path(path))[0] for path in candidates if os.path.realpath(path) != os.path.realpath(single)}
    found = [path for path, other in others.items() if other == stem] or [
        path for path, other in others.items() if _around(stem, other) or _around(other, stem)
    ]
    if len(found) != 1:
        listed = ", ".join(Path(path).name for path in natsorted(found)[:4]) or "no file"
        raise InputError(f"'{single}' fits {listed} in '{source}', expected one file. Enter the path of that file.")
    return found[0]


def _affix(stems: Iterable[str], others: Collection[str], folder: str, allow_equal: bool) -> tuple[str, str]:
    """Return the text before and after ``stems`` in most of the ``others``."""
    known = set(stems)
    votes: Counter[tuple[str, str]] = Counter()
    for other in others:
        parts = {other[start:end] for start, end in _bounds(other)} & known
        fits = {affix for stem in parts if (affix := _around(stem, other)) and (allow_equal or any(affix))}
        if fits:
            votes[min(fits, key=lambda affix: len("".join(affix)))] += 1
    ranked = votes.most_common(2)
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        why = "also " + " and ".join(f"'{b}…{a}'" for (b, a), _ in ranked) if ranked else "no name of an image"
        raise InputError(
            f"The names in '{folder}' contain {why}. Enter patterns that pair images with masks, for example "
            "images/{name}.tif and masks/{name}_mask.tif."
        )
    return ranked[0][0]


def _bounds(text: str) -> list[tuple[int, int]]:
    """Return the ranges of a name that begin and end at a separator."""
    cuts = [0, len(text), *(m.end() for m in re.finditer(r"[^0-9A-Za-z]+", text))]
    ends = [len(text), *(m.start() for m in re.finditer(r"[^0-9A-Za-z]+", text))]
    return [(start, end) for start in cuts for end in ends if start < end]


def _around(stem: str, other: str) -> tuple[str, str] | None:
    """Return the text before and after a part of a name between separators."""
    for start, end in sorted(_bounds(other), key=lambda bounds: bounds[0]):
        if other[start:end] == stem:
            return other[:start], other[end:]
    return None


def _files(folder: str, is_mask: bool = False) -> list[Path]:
    """Return the images in a folder, in natural order."""
    known = {*READERS, *HDF5_SUFFIXES, ".zarr"}
    shown = (path for path in Path(folder).iterdir() if not path.name.startswith("."))
    found = [path for path in shown if path.suffix.lower() in known or (is_mask and is_geojson(path))]
    if not found:
        raise InputError(f"The folder '{folder}' contains no image. Enter the folder with the files themselves.")
    return natsorted(found)


def _stems(folder: str, files: Collection[Path]) -> tuple[list[str], str]:
    """Return the names of files without their suffix, which must be the same."""
    parts = [_stem(path) for path in files]
    suffixes = Counter(suffix for _, suffix in parts)
    if len(suffixes) > 1:
        types = ", ".join(f"{suffix} ({count})" for suffix, count in suffixes.most_common())
        raise InputError(
            f"The folder '{folder}' contains files of several types: {types}. Enter a pattern, for example "
            f"{folder}/{{name}}{suffixes.most_common(1)[0][0]}."
        )
    return [stem for stem, _ in parts], next(iter(suffixes))


def _stem(path: Path) -> tuple[str, str]:
    suffix = next((path.name[-len(end) :] for end in _DOUBLE if path.name.lower().endswith(end)), path.suffix)
    return path.name[: len(path.name) - len(suffix)], suffix


def _has_fields(pattern: str) -> bool:
    return _TOKEN.search(pattern) is not None


def _is_folder(path: str) -> bool:
    """Return whether a path is a folder of images, not a Zarr array."""
    marks = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
    folder = Path(path)
    return folder.is_dir() and folder.suffix.lower() != ".zarr" and not any((folder / mark).exists() for mark in marks)
