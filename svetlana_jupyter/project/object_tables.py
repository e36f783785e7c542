"""Stored object tables, masks in Zarr, and the check of the numbers in masks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

from svetlana_jupyter.core.mask_numbers import NumberingProblem, counts_pieces, find_numbering_problem
from svetlana_jupyter.core.mask_repair import repair_mask
from svetlana_jupyter.core.objects import bbox_columns, centroid_columns, for_threads
from svetlana_jupyter.project.file_access import read_parquet
from svetlana_jupyter.project.storage import atomic_folder

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from xarray import DataArray

    from svetlana_jupyter.project.image_entry import ImageEntry


class NumberingChecks:
    """Reasons to doubt that numbers in masks name objects, by image."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[pd.DataFrame, NumberingProblem | None]] = {}

    def problem(self, entry: ImageEntry, table: pd.DataFrame | None) -> NumberingProblem | None:
        """Return the reason to doubt that the numbers in a mask name objects.

        None if there is no doubt, the objects have not been indexed, or the user accepted the mask.
        """
        if table is None or not counts_pieces(table) or (entry.accepted and entry.accepted == table.attrs.get("mask")):
            return None
        if entry.name not in self._found or self._found[entry.name][0] is not table:
            suffix = f".{entry.mask.rpartition('.')[2]}"
            self._found[entry.name] = table, find_numbering_problem(table, math.prod(entry.shape), suffix)
        return self._found[entry.name][1]


def read_objects(file: Path, shape: tuple[int, ...]) -> pd.DataFrame | None:
    """Read a stored object table; return None if it is missing or damaged."""
    low, high = bbox_columns(len(shape))[: len(shape)], bbox_columns(len(shape))[len(shape) :]
    try:
        table = read_parquet(file, ["size", *centroid_columns(len(shape)), *low, *high, "on_border"])
    except (OSError, ValueError):
        return None
    starts, ends = table[low].to_numpy(float), table[high].to_numpy(float)
    is_inside = (starts >= 0).all() and (starts < ends).all() and (ends <= np.array(shape)).all()
    is_sound = is_inside and len(table) and table.index.min() > 0 and table.index.name == "object"
    return for_threads(table) if is_sound else None


def write_repaired_mask(folder: Path, mask: DataArray, repair: str) -> tuple[Path, DataArray, str]:
    """Write a repaired copy of a mask to a folder, atomically (`core.mask_repair`).

    Returns
    -------
    file : Path
    mask : DataArray
    note : str
        A sentence about the background if it was not 0.
    """
    with atomic_folder(folder) as draft:
        repaired, note = repair_mask(mask, repair, draft / "mask.zarr")
    file = folder / "mask.zarr"
    return file, repaired.copy(data=da.from_zarr(file)), note


def to_zarr(array: DataArray, path: Path) -> None:
    """Write a lazy array to Zarr block by block, in chunks of equal size."""
    regular = array.data.rechunk(tuple(max(sizes) for sizes in array.data.chunks))
    regular.to_zarr(str(path))
