"""Which objects of a new mask are those of the old one: by the pixels they share, or by their boxes.

Both masks are read block by block; what is held is a block of each and the table of pairs that meet.

How the objects of one mask follow those of the mask before it, and which annotation a new object takes over.

A mask that replaces another is linked to it once (`core.relabeling`); the links are kept, the log is not touched. So
undo reaches behind the replacement, and what other people said, or say later, is carried over by the same links.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from xarray import DataArray

from svetlana_jupyter.core.io.chunks import processing_block_shape, read_padded
from svetlana_jupyter.core.io.mask_checks import check_not_negative
from svetlana_jupyter.core.objects import bbox_columns

LINK_COLUMNS = ["old", "new", "pixels"]


class LabelMapping:
    """The links from one mask to the next.

    Parameters
    ----------
    links : DataFrame
        Columns ``old`` and ``new`` (object numbers) and ``pixels`` (how many they share), as `core.relabeling.link`
        gives them.

    >>> step = LabelMapping(pd.DataFrame([(7, 12, 90), (8, 12, 30), (8, 13, 40)], columns=LINK_COLUMNS))
    >>> step.successors(8), step.predecessors(12)
    ([12, 13], [(7, 90), (8, 30)])
    """

    def __init__(self, links: pd.DataFrame) -> None:
        self.links = links[LINK_COLUMNS].astype(np.int64)

    def successors(self, old: int) -> list[int]:
        """Return the objects of the new mask that an object of the old one became."""
        return self._successors.get(old, [])

    def predecessors(self, new: int) -> list[tuple[int, int]]:
        """Return the objects of the old mask that became an object of the new one, each with the pixels shared."""
        return self._predecessors.get(new, [])

    @cached_property
    def _successors(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for old, new in zip(self.links["old"].tolist(), self.links["new"].tolist()):
            found.setdefault(old, []).append(new)
        return found

    @cached_property
    def _predecessors(self) -> dict[int, list[tuple[int, int]]]:
        found: dict[int, list[tuple[int, int]]] = {}
        for old, new, pixels in self.links.to_numpy().tolist():
            found.setdefault(new, []).append((old, pixels))
        return found


def follow(label: int, steps: Sequence[LabelMapping]) -> set[int]:
    """Return what an object became over several masks."""
    numbers = {label}
    for step in steps:
        numbers = {new for old in numbers for new in step.successors(old)}
    return numbers


ObjectStatus = Literal["kept", "moved", "split", "merged", "lost"]
MIN_PART_FRACTION = 0.1  # of an old object; what is less is a crumb, not a part
MAX_PENDING_ROWS = 1 << 18  # tables of pairs are merged once so many rows have piled up


def overlap(old: DataArray, new: DataArray) -> pd.DataFrame:
    """Count the pixels that each object of one mask shares with each object of another.

    Parameters
    ----------
    old, new : DataArray of shape ([Z,] Y, X), integer
        Masks of the same shape; they may be larger than memory.

    Returns
    -------
    DataFrame
        Columns ``old``, ``new`` and ``pixels``, one row a pair that meets. 0 is the background: what an object shares
        with it is listed too, so that the pixels of its rows add up to its size.

    Examples
    --------
    >>> old, new = DataArray([[1, 1, 1, 0]], dims=("y", "x")), DataArray([[0, 5, 5, 5]], dims=("y", "x"))
    >>> overlap(old, new).to_numpy().tolist()
    [[0, 5, 1], [1, 0, 1], [1, 5, 2]]
    """
    waiting, rows, merged = [_NO_PAIRS], 0, 0
    for start, stop in _windows(new.shape, processing_block_shape(old, new)):
        pairs = _pairs(read_padded(old, start, stop, "zeros"), read_padded(new, start, stop, "zeros"))
        waiting.append(pairs)
        rows += len(pairs)
        if rows >= max(MAX_PENDING_ROWS, 2 * merged):
            waiting = [_merge(waiting)]
            rows = merged = len(waiting[0])
    return _merge(waiting)


def link(pairs: pd.DataFrame) -> pd.DataFrame:
    """Keep the pairs that are the same object, or one a part of the other.

    Two objects are the same when they share more than half of what they cover together: no object can have two such
    partners. One without a partner is linked to everything of which it holds more than half, or that holds more than
    half of it, if that is at least a tenth of it.

    Parameters
    ----------
    pairs : DataFrame
        As `overlap` returns it.

    Returns
    -------
    DataFrame
        Columns ``old``, ``new`` and ``pixels``.
    """
    old_sizes, new_size = (pairs.groupby(side)["pixels"].sum() for side in ("old", "new"))
    met = pairs[(pairs["old"] > 0) & (pairs["new"] > 0)]
    here, there = met["old"].map(old_sizes), met["new"].map(new_size)
    same = 2 * met["pixels"] > here + there - met["pixels"]
    part = (2 * met["pixels"] > np.minimum(here, there)) & (met["pixels"] >= MIN_PART_FRACTION * here)
    alone = ~met["old"].isin(met.loc[same, "old"])
    return met[same | (part & alone)].reset_index(drop=True)


def match_bounding_boxes(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Link objects whose boxes share more than half of what they cover together, each to the best of them.

    This is what is left where the old mask can no longer be read: it finds objects that stayed in place, not their
    parts.

    Parameters
    ----------
    old, new : DataFrame
        Indexed by object, with the box columns of `core.objects.index_objects`.
    """
    columns = [column for column in bbox_columns(3) if column in new]
    ndim = len(columns) // 2
    if old.empty or new.empty:
        return _NO_PAIRS
    before, after = (table[columns].to_numpy(np.int64).reshape(-1, 2, ndim) for table in (old, new))
    # Boxes that share so much have the centre of one inside the other.
    reach = (before[:, 1] - before[:, 0]).max(axis=1) / 2
    near = cKDTree(after.mean(axis=1)).query_ball_point(before.mean(axis=1), reach, p=np.inf)
    i = np.repeat(np.arange(len(before)), [len(some) for some in near])
    j = np.fromiter(itertools.chain.from_iterable(near), np.int64, len(i))
    sides = np.minimum(before[i, 1], after[j, 1]) - np.maximum(before[i, 0], after[j, 0])
    shared = sides.clip(0).prod(axis=1)
    volume = [(boxes[:, 1] - boxes[:, 0]).prod(axis=1) for boxes in (before, after)]
    share = shared / (volume[0][i] + volume[1][j] - shared)
    found = pd.DataFrame({"old": old.index[i], "new": new.index[j], "pixels": shared, "share": share})
    found = found[found["share"] > 0.5].sort_values("share", ascending=False, kind="stable")
    return found.drop_duplicates("old").sort_values("old", ignore_index=True)[LINK_COLUMNS]


def object_statuses(step: LabelMapping, old_sizes: Mapping[int, int], objects: Collection[int]) -> pd.DataFrame:
    """Tell what became of objects when their mask was replaced.

    Parameters
    ----------
    step : Succession
    old_size : mapping of int to int
        Pixels of each old object, or of its box where the links are of boxes.
    objects : collection of int
        Numbers in the old mask.

    Returns
    -------
    DataFrame
        Indexed by ``old``: ``fate`` ("kept": the same number; "moved": another number; "split": several objects took
        its place; "merged": it shares its new object with others; "lost"), ``new`` (tuple of numbers in the new mask),
        ``share`` (of its pixels, how many lie in them).
    """
    rows = []
    for old in objects:
        new = step.successors(old)
        pixels = sum(shared for one in new for before, shared in step.predecessors(one) if before == old)
        rows.append((_fate(step, old, new), tuple(new), pixels / old_sizes[old] if new else 0.0))
    index = pd.Index(list(objects), name="old", dtype="int64")
    return pd.DataFrame(rows, index, ["fate", "new", "share"]).astype({"share": float})


def _fate(step: LabelMapping, old: int, new: list[int]) -> ObjectStatus:
    if not new:
        return "lost"
    if len(new) > 1:
        return "split"
    if len(step.predecessors(new[0])) > 1:
        return "merged"
    return "kept" if new[0] == old else "moved"


def _windows(shape: tuple[int, ...], sides: tuple[int, ...]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    for corner in itertools.product(*(range(0, length, side) for length, side in zip(shape, sides, strict=True))):
        start = np.array(corner, np.int64)
        yield start, np.minimum(start + sides, shape)


def _pairs(old: NDArray[np.integer], new: NDArray[np.integer]) -> pd.DataFrame:
    """Count the pairs of one block, by runs of neighbouring pixels that are alike."""
    check_not_negative(new)
    before, after = old.reshape(-1), new.reshape(-1)
    edge = np.concatenate([[True], (before[1:] != before[:-1]) | (after[1:] != after[:-1])])
    begin = np.flatnonzero(edge[: before.size])
    runs = {"old": before[begin], "new": after[begin], "pixels": np.diff(begin, append=before.size)}
    table = pd.DataFrame(runs).astype(np.int64)
    return _merge([table[(table["old"] > 0) | (table["new"] > 0)]])


def _merge(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables).groupby(["old", "new"])["pixels"].sum().reset_index()


_NO_PAIRS = pd.DataFrame({column: pd.Series(dtype="int64") for column in LINK_COLUMNS})
