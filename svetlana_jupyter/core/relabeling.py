"""Matching of objects between a new mask and the mask that it replaces.

Objects are matched by shared pixels, or by bounding boxes if the old mask can no longer be read.

Both masks are read block by block; only one block of each and the table of overlapping pairs are in memory. When a mask
is replaced, its objects are matched once and the links are stored; the annotation log stays unchanged. So undo works
across replacements, and the same links carry over the labels of all annotators, including labels added later.
"""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from svetlana_jupyter.core.io.chunks import processing_block_shape, read_padded
from svetlana_jupyter.core.io.mask_checks import check_not_negative
from svetlana_jupyter.core.objects import bbox_columns, merge_in_batches

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray
    from xarray import DataArray

ObjectStatus = Literal["kept", "relabeled", "split", "merged", "lost"]
LINK_COLUMNS = ["old", "new", "pixels"]
MIN_PART_FRACTION = 0.1  # of an old object; smaller overlaps do not count as parts


class LabelMapping:
    """Links from the objects of one mask to the objects of the mask that replaced it.

    Parameters
    ----------
    links : DataFrame
        Columns ``old`` and ``new`` (labels) and ``pixels`` (number of shared pixels), as `match_overlaps` returns them.

    >>> mapping = LabelMapping(pd.DataFrame([(7, 12, 90), (8, 12, 30), (8, 13, 40)], columns=LINK_COLUMNS))
    >>> mapping.successors(8), mapping.predecessors(12)
    ([12, 13], [(7, 90), (8, 30)])
    """

    def __init__(self, links: pd.DataFrame) -> None:
        self.links = links[LINK_COLUMNS].astype(np.int64)

    def successors(self, old: int) -> list[int]:
        """Return the objects of the new mask that replaced an old object."""
        return self._partners[0].get(old, [])

    def predecessors(self, new: int) -> list[tuple[int, int]]:
        """Return the old objects that a new object replaced, each with its shared pixels."""
        return self._partners[1].get(new, [])

    @cached_property
    def _partners(self) -> tuple[dict[int, list[int]], dict[int, list[tuple[int, int]]]]:
        successors: dict[int, list[int]] = {}
        predecessors: dict[int, list[tuple[int, int]]] = {}
        for old, new, pixels in self.links.to_numpy().tolist():
            successors.setdefault(old, []).append(new)
            predecessors.setdefault(new, []).append((old, pixels))
        return successors, predecessors


def follow_label(label: int, mappings: Sequence[LabelMapping]) -> set[int]:
    """Return the objects that replaced an object after several mask replacements."""
    labels = {label}
    for mapping in mappings:
        labels = {new for old in labels for new in mapping.successors(old)}
    return labels


def overlap_table(old: DataArray, new: DataArray) -> pd.DataFrame:
    """Count the pixels that the objects of one mask share with those of another.

    Parameters
    ----------
    old, new : DataArray of shape ([Z,] Y, X), integer
        Masks of the same shape; they may be larger than memory.

    Returns
    -------
    DataFrame
        Columns ``old``, ``new`` and ``pixels``, one row per overlapping pair. Overlaps with the background (0) are
        included, so that the pixels in all rows of an object add up to its size.

    Examples
    --------
    >>> from xarray import DataArray
    >>> old, new = DataArray([[1, 1, 1, 0]], dims=("y", "x")), DataArray([[0, 5, 5, 5]], dims=("y", "x"))
    >>> overlap_table(old, new).to_numpy().tolist()
    [[0, 5, 1], [1, 0, 1], [1, 5, 2]]
    """
    sides = processing_block_shape(old, new)
    starts = np.array(list(itertools.product(*map(range, itertools.repeat(0), new.shape, sides))))
    tables = (
        _pairs(*(read_padded(mask, start, stop, "zeros") for mask in (old, new)))
        for start, stop in zip(starts, np.minimum(starts + sides, new.shape))
    )
    return merge_in_batches(tables, _merge)


def match_overlaps(pairs: pd.DataFrame) -> pd.DataFrame:
    """Select pairs in which the objects are the same, or one is part of the other.

    Two objects are the same if they share more than half of their union; an object can have only one such partner. An
    old object without a partner is linked to every new object with which it shares more than half of the smaller of
    the two objects and at least a tenth of the old object.

    Parameters
    ----------
    pairs : DataFrame
        Result of `overlap_table`.

    Returns
    -------
    DataFrame
        Columns ``old``, ``new`` and ``pixels``.
    """
    old_sizes, new_sizes = (pairs.groupby(side)["pixels"].sum() for side in ("old", "new"))
    overlaps = pairs[(pairs["old"] > 0) & (pairs["new"] > 0)]
    old_size, new_size, shared = overlaps["old"].map(old_sizes), overlaps["new"].map(new_sizes), overlaps["pixels"]
    is_same = 2 * shared > old_size + new_size - shared
    is_part = (2 * shared > np.minimum(old_size, new_size)) & (shared >= MIN_PART_FRACTION * old_size)
    has_no_partner = ~overlaps["old"].isin(overlaps.loc[is_same, "old"])
    return overlaps[is_same | (is_part & has_no_partner)].reset_index(drop=True)


def match_bounding_boxes(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Link objects whose bounding boxes share more than half of their union.

    Each old object is linked to its best match. This function is used if the old mask can no longer be read. It matches
    objects that stayed in place, but not parts of objects.

    Parameters
    ----------
    old, new : DataFrame
        Indexed by object, with the bounding box columns of `core.objects.index_objects`.
    """
    if old.empty or new.empty:
        return pd.DataFrame(columns=LINK_COLUMNS, dtype="int64")
    columns = [column for column in bbox_columns(3) if column in new]
    before, after = (table[columns].to_numpy(np.int64).reshape(-1, 2, len(columns) // 2) for table in (old, new))
    # If two boxes share more than half of their union, the center of each lies inside the other.
    reach = (before[:, 1] - before[:, 0]).max(axis=1) / 2
    nearby = cKDTree(after.mean(axis=1)).query_ball_point(before.mean(axis=1), reach, p=np.inf)
    i = np.repeat(np.arange(len(before)), [len(indices) for indices in nearby])
    j = np.fromiter(itertools.chain.from_iterable(nearby), np.int64, len(i))
    overlap = np.minimum(before[i, 1], after[j, 1]) - np.maximum(before[i, 0], after[j, 0])
    shared = overlap.clip(0).prod(axis=1)
    volumes = ((boxes[:, 1] - boxes[:, 0]).prod(axis=1) for boxes in (before[i], after[j]))
    share = shared / (sum(volumes) - shared)
    matches = pd.DataFrame({"old": old.index[i], "new": new.index[j], "pixels": shared, "share": share})
    matches = matches[matches["share"] > 0.5].sort_values("share", ascending=False, kind="stable")
    return matches.drop_duplicates("old").sort_values("old", ignore_index=True)[LINK_COLUMNS]


def object_statuses(mapping: LabelMapping, old_sizes: Mapping[int, int], objects: Collection[int]) -> pd.DataFrame:
    """Return the status of objects after their mask was replaced.

    Parameters
    ----------
    mapping : LabelMapping
    old_sizes : mapping of int to int
        Pixels of each old object, or of its bounding box if the links come from `match_bounding_boxes`.
    objects : collection of int
        Labels in the old mask.

    Returns
    -------
    DataFrame
        Indexed by ``old``: ``status`` ("kept": same label; "relabeled": another label; "split": several objects
        replaced it; "merged": it shares its new object with others; "lost": no object replaced it), ``new`` (tuple of
        labels in the new mask), ``share`` (fraction of the old object's pixels that lie in the new objects).
    """
    rows = []
    for old in objects:
        new = mapping.successors(old)
        pixels = sum(shared for label in new for before, shared in mapping.predecessors(label) if before == old)
        rows.append((_status(mapping, old, new), tuple(new), pixels / old_sizes[old] if new else 0.0))
    index = pd.Index(list(objects), name="old", dtype="int64")
    return pd.DataFrame(rows, index, ["status", "new", "share"]).astype({"share": float})


def _status(mapping: LabelMapping, old: int, new: list[int]) -> ObjectStatus:
    if len(new) != 1:
        return "split" if new else "lost"
    if len(mapping.predecessors(new[0])) > 1:
        return "merged"
    return "kept" if new == [old] else "relabeled"


def _pairs(old: NDArray[np.integer], new: NDArray[np.integer]) -> pd.DataFrame:
    """Count the shared pixels of one block, using runs of equal neighboring pixels."""
    check_not_negative(new)
    before, after = old.reshape(-1), new.reshape(-1)
    edge = np.concatenate([[True], (before[1:] != before[:-1]) | (after[1:] != after[:-1])])
    begin = np.flatnonzero(edge[: before.size])
    runs = {"old": before[begin], "new": after[begin], "pixels": np.diff(begin, append=before.size)}
    table = pd.DataFrame(runs).astype(np.int64)
    return _merge([table[(table["old"] > 0) | (table["new"] > 0)]])


def _merge(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables).groupby(["old", "new"])["pixels"].sum().reset_index()
