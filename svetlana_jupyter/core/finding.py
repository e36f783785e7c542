"""Which image belongs to which mask, by their names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from svetlana_jupyter.core.patterns import FilePattern, natural_sort_key
from svetlana_jupyter.errors import InputError

CHANNEL = "channel"
COLUMNS = ("name", "image", "mask", "channels", "problem")

Files = Mapping[Path, Mapping[str, str]]  # what each placeholder stands for in each file


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
            or _mask_problem(found, mask_pattern.filled(said))
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
        problem = f"No image was found for this mask, expected {image_pattern.filled(said)}."
        rows.append({"name": "_".join(key), "mask": masks_by_key[key][0], "problem": problem, **said})
    return _table(rows, [field for field in fields if field in image_pattern.placeholders])


def _shared_fields(fields: Sequence[str], images: FilePattern, masks: FilePattern) -> list[str]:
    if clash := {*images.placeholders} & {*COLUMNS}:
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


def _shared_out(images: FilePattern, masks: FilePattern) -> tuple[Files, Files]:
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


def _grouped(files: Files, fields: Sequence[str]) -> dict[tuple[str, ...], dict[Path, Mapping[str, str]]]:
    groups: dict[tuple[str, ...], dict[Path, Mapping[str, str]]] = defaultdict(dict)
    for path in sorted(files):
        groups[tuple(files[path][field] for field in fields)][path] = files[path]
    return groups


def _files_problem(files: Files, channels: Sequence[str], all_channels: set[str]) -> str:
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
