"""Connected pieces of the objects of a mask, counted block by block.

Pixels of one label belong to the same piece if they touch, also diagonally. Nearly all objects are a single piece, and
a cheap test proves this: an object has one piece if only one of its runs (neighboring pixels of one row) lacks a
neighbor in the row above. Runs of the other objects are joined as a graph.

Pieces that reach a seam between blocks get a number that they pass on to the pieces they touch in later blocks. Where
two numbers meet, they are recorded as equal. So only the runs along the seams of the last blocks are in memory.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SPECK_PIXELS = 4  # pieces of at most this size are counted as specks
MAX_TABLE = 1 << 22  # range of labels up to which a table is used to find them

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """Runs of pixels with the same label, sorted by ``line`` and ``begin``.

    A run occupies ``[begin, end)`` of its line. ``node`` is the number of the piece that it belongs to.
    """

    line: Integers
    begin: Integers
    end: Integers
    label: Integers
    node: Integers

    def __getitem__(self, chosen: npt.NDArray[np.generic]) -> Runs:
        return Runs(*(values[chosen] for values in vars(self).values()))

    def __len__(self) -> int:
        return len(self.line)


@dataclass(frozen=True)
class BlockPlace:
    """Position and shape of a block, and shape of its mask, ``([z,] y, x)``."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    mask_shape: tuple[int, ...]


@dataclass(frozen=True)
class BlockPieces:
    """Pieces of the objects of one block.

    Attributes
    ----------
    closed : int64 array
        Number of pieces of each object that do not reach another block.
    specks : int
        Number of tiny pieces of objects with several pieces.
    labels : int64 array
        Label of each piece that reaches another block.
    faces : mapping of (int, int) to Runs
        Runs along the seams of an axis with the earlier (0) and the later (1) block, by ``(axis, side)``, in positions
        of the mask; ``node`` is an index in ``labels``.
    """

    closed: Integers
    specks: int
    labels: Integers
    faces: Mapping[tuple[int, int], Runs]


def touching_runs(before: Runs, after: Runs, shift: int) -> tuple[Integers, Integers]:
    """Return pairs of touching runs with the same label, as arrays of indices.

    Parameters
    ----------
    before, after : Runs
        Runs of ``after`` in line ``n + shift`` are compared with runs of ``before`` in line ``n``.
    shift : int
    """
    if not (len(before) and len(after)):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    width = int(max(before.end.max(), after.end.max())) + 1
    line = (after.line - shift) * width
    first = np.searchsorted(before.line * width + before.end, line + after.begin, "left")
    count = np.searchsorted(before.line * width + before.begin, line + after.end, "right") - first
    j = np.repeat(np.arange(len(after)), count)
    i = np.arange(len(j)) + np.repeat(first - (np.cumsum(count) - count), count)
    same = before.label[i] == after.label[j]
    return i[same], j[same]


def find_block_pieces(runs: Runs, labels: Integers, is_single: npt.NDArray[np.bool_], place: BlockPlace) -> BlockPieces:
    """Find the pieces of the objects of one block.

    Parameters
    ----------
    runs : Runs
        All runs of the block; ``line`` counts rows through all planes, without gaps.
    labels : int64 array
        Labels in the block, ascending.
    is_single : bool array
        Whether each object is known to be a single piece.
    place : BlockPlace
    """
    pieces, specks = np.ones(len(labels), np.int64), 0
    rank = np.zeros(len(runs), np.int64)  # of the run's piece among the pieces of its object
    if not is_single.all():
        chosen = np.flatnonzero(~is_single[_find(labels, runs.label)])
        part = runs[chosen]
        piece = _join_runs(part, place.shape[-2])
        sizes = np.bincount(piece, part.end - part.begin)
        owner = np.empty(len(sizes), np.int64)
        owner[piece] = _find(labels, part.label)
        pieces[~is_single] = 0
        np.add.at(pieces, owner, 1)
        specks = int((sizes <= SPECK_PIXELS).sum())
        order = np.argsort(owner, kind="stable")
        ranks = np.empty(len(owner), np.int64)
        heads = np.flatnonzero(np.diff(owner[order], prepend=-1))
        ranks[order] = np.arange(len(owner)) - np.repeat(heads, np.diff(heads, append=len(owner)))
        rank[chosen] = ranks[piece]
    faces = dict(_faces(replace(runs, node=rank), place))
    if not faces:
        return BlockPieces(pieces, specks, labels[:0], {})
    ranks_per_object = int(rank.max(initial=0)) + 1
    keys = {side: _find(labels, face.label) * ranks_per_object + face.node for side, face in faces.items()}
    reaches = np.zeros(len(labels) * ranks_per_object, bool)
    for key in keys.values():
        reaches[key] = True
    owner, node = np.flatnonzero(reaches) // ranks_per_object, np.cumsum(reaches) - 1
    np.subtract.at(pieces, owner, 1)
    numbered = {side: replace(face, node=node[keys[side]]) for side, face in faces.items()}
    return BlockPieces(pieces, specks, labels[owner], numbered)


def _find(labels: Integers, values: Integers) -> Integers:
    """Return the position of each value among ascending labels that contain it."""
    if not len(labels) or labels[-1] - labels[0] > MAX_TABLE:
        return np.searchsorted(labels, values)
    table = np.empty(labels[-1] - labels[0] + 1, np.int64)  # ten times as fast as a search
    table[labels - labels[0]] = np.arange(len(labels))
    positions: Integers = table[values - labels[0]]
    return positions


def _join_runs(runs: Runs, plane: int) -> Integers:
    """Return the number of the connected piece of each run of a block."""
    z, y = np.divmod(runs.line, plane)
    padded = replace(runs, line=z * (plane + 2) + y)  # so that no row touches a row of the neighboring plane
    shifts = (1,) if z[-1] == z[0] else (1, plane + 1, plane + 2, plane + 3)
    i, j = (np.concatenate(ends) for ends in zip(*(touching_runs(padded, padded, shift) for shift in shifts)))
    graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(len(runs), len(runs)))
    piece: Integers = connected_components(graph, directed=False)[1].astype(np.int64)
    return piece


def _faces(runs: Runs, place: BlockPlace) -> Iterator[tuple[tuple[int, int], Runs]]:
    """Yield the runs along each seam with another block, in positions of the mask."""
    start, shape = place.start, place.shape
    plane, row = np.divmod(runs.line, shape[-2]) if len(shape) == 3 else (np.zeros_like(runs.line), runs.line)
    first = start[0] if len(shape) == 3 else 0
    for axis, side in itertools.product(range(len(shape)), (0, 1)):
        last = shape[axis] - 1
        if start[axis] + side * last == side * (place.mask_shape[axis] - 1):
            continue  # the border of the mask
        name = "zyx"[-len(shape) :][axis]
        values = {"z": plane, "y": row, "x": runs.end - 1 if side else runs.begin}[name]
        chosen = np.flatnonzero(values == side * last)
        part, z, y = runs[chosen], plane[chosen] + first, row[chosen] + start[-2]
        begin, end = part.begin + start[-1], part.end + start[-1]
        line, low, high = {"z": (y, begin, end), "y": (z, begin, end), "x": (z, y, y + 1)}[name]
        yield (axis, side), Runs(line, low, high, part.label, part.node)


class PieceJoiner:
    """Joins the pieces of neighboring blocks.

    Parameters
    ----------
    axes : sequence of int
        Axes of the mask in the order of the blocks: the last one varies fastest.

    Attributes
    ----------
    specks : int
        Number of tiny pieces in all blocks.
    """

    def __init__(self, axes: Sequence[int]) -> None:
        self._axes = tuple(axes)
        self._shifts = (0,) if len(axes) == 2 else (-1, 0, 1)
        self._place: list[tuple[int, ...]] = [(-1,)] * len(axes)
        self._before: list[Runs | None] = [None] * len(axes)  # runs along the seam of each axis, in earlier blocks
        self._here: list[list[Runs]] = [[] for _ in axes]
        self._labels: list[Integers] = []  # of the numbers given to pieces
        self._equal: list[Integers] = []  # pairs of numbers of the same piece
        self._count = 0
        self.specks = 0

    def ordered_blocks(self, counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Yield the blocks of a mask, given their number along each axis, in order."""
        for place in np.ndindex(*(counts[axis] for axis in self._axes)):
            yield tuple(place[self._axes.index(axis)] for axis in range(len(counts)))

    def add(self, block: tuple[int, ...], found: BlockPieces) -> None:
        """Give a number to each piece of the next block that reaches a seam."""
        self.specks += found.specks
        links = [np.empty((2, 0), np.int64)]
        for level, axis in enumerate(self._axes):
            self._move(level, block)
            before, after = self._before[level], found.faces.get((axis, 0))
            if before is None or after is None:
                continue
            for shift in self._shifts:
                i, j = touching_runs(before, after, shift)
                links.append(np.stack([after.node[j], before.node[i]]))
        node, number = np.concatenate(links, axis=1)
        numbers = np.full(len(found.labels), np.iinfo(np.int64).max)
        np.minimum.at(numbers, node, number)
        new = np.flatnonzero(numbers == np.iinfo(np.int64).max)
        numbers[new] = np.arange(self._count, self._count + len(new))
        self._count += len(new)
        self._labels.append(found.labels[new])
        differ = number != numbers[node]
        self._equal.append(np.unique(np.stack([numbers[node[differ]], number[differ]]), axis=1))
        for level, axis in enumerate(self._axes):
            if (last := found.faces.get((axis, 1))) is not None:
                self._here[level].append(replace(last, node=numbers[last.node]))

    def labels(self) -> Integers:
        """Return the label of each piece that reaches a seam."""
        if not self._count:
            return np.empty(0, np.int64)
        i, j = np.concatenate(self._equal, axis=1)
        graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(self._count, self._count))
        _, piece = connected_components(graph, directed=False)
        _, first = np.unique(piece, return_index=True)
        return np.concatenate(self._labels)[first]

    def _move(self, level: int, block: tuple[int, ...]) -> None:
        """Move to the place of a block along the axis of a level."""
        place = tuple(block[axis] for axis in self._axes[: level + 1])
        if place == self._place[level]:
            return
        follows = self._place[level] == (*place[:-1], place[-1] - 1)
        runs, self._here[level] = self._here[level], []
        self._before[level] = _concatenate(runs) if follows and runs else None
        self._place[level] = place


def _concatenate(parts: list[Runs]) -> Runs:
    if len(parts) == 1:
        return parts[0]
    runs = Runs(*map(np.concatenate, zip(*(vars(part).values() for part in parts))))
    return runs[np.lexsort((runs.begin, runs.line))]
