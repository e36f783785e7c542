"""Connected pieces of the objects of a mask, counted block by block.

Pixels of one label belong to the same piece if they touch, also diagonally. Nearly all objects are a single piece, and
a cheap test proves this: an object has one piece if only one of its runs (neighboring pixels of one row) lacks a
neighbor in the row above. Runs of the other objects are joined as a graph.

Pieces that reach a seam between blocks get a number that they pass on to the pieces they touch in later blocks. Where
two numbers meet, they are recorded as equal. So only the runs along the seams of the last blocks are in memory. Across
a seam, one pixel of each piece, in the middle of its longest run, is compared first. If the same label is on the other
side, and each side has one piece with that label, the two are joined. Runs are compared for the other labels only.
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
    """Runs of pixels with the same label, in the order of their positions.

    A run occupies the positions ``[begin, end)``, which count through all lines. ``node`` is the number of the piece
    that it belongs to.
    """

    begin: Integers
    end: Integers
    label: Integers
    node: Integers

    def __getitem__(self, chosen: npt.NDArray[np.generic] | slice) -> Runs:
        return Runs(*(values[chosen] for values in vars(self).values()))

    def __len__(self) -> int:
        return len(self.begin)


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
        of the mask (`_seam_line`); ``node`` is an index in ``labels``.
    """

    closed: Integers
    specks: int
    labels: Integers
    faces: Mapping[tuple[int, int], Runs]


def touching_runs(before: Runs, after: Runs, offset: int) -> tuple[Integers, Integers]:
    """Return pairs of touching runs with the same label, as arrays of indices.

    Parameters
    ----------
    before, after : Runs
    offset : int
        Subtracted from the positions of ``after``: the distance of the lines that are compared.
    """
    first = np.searchsorted(before.end, after.begin - offset, "left")
    count = np.searchsorted(before.begin, after.end - offset, "right") - first
    j = np.repeat(np.arange(len(after)), count)
    i = np.arange(len(j)) + np.repeat(first - (np.cumsum(count) - count), count)
    same = before.label[i] == after.label[j]
    return i[same], j[same]


def find_block_pieces(runs: Runs, labels: Integers, is_single: npt.NDArray[np.bool_], place: BlockPlace) -> BlockPieces:
    """Find the pieces of the objects of one block.

    Parameters
    ----------
    runs : Runs
        All runs of the block; positions count through all its pixels.
    labels : int64 array
        Labels in the block, ascending.
    is_single : bool array
        Whether each object is known to be a single piece.
    place : BlockPlace
    """
    node = _find(labels, runs.label)
    owner = np.arange(len(labels))  # of each piece; the first ones are objects of a single piece
    pieces, specks = is_single.astype(np.int64), 0
    if not is_single.all():
        chosen = np.flatnonzero(~is_single[node])
        part = runs[chosen]
        joined = _join_runs(part, place.shape)
        sizes = np.bincount(joined, part.end - part.begin)
        specks = int((sizes <= SPECK_PIXELS).sum())
        owner_of_joined = np.empty(len(sizes), np.int64)
        owner_of_joined[joined] = node[chosen]
        node[chosen] = len(labels) + joined
        owner = np.concatenate([owner, owner_of_joined])
        pieces += np.bincount(owner_of_joined, minlength=len(labels))
    faces = dict(_faces(replace(runs, node=node), place))
    reaches = np.zeros(len(owner), bool)
    for face in faces.values():
        reaches[face.node] = True
    reaching = np.flatnonzero(reaches)
    if len(owner) > len(labels):
        reaching = reaching[np.argsort(owner[reaching], kind="stable")]
    pieces -= np.bincount(owner[reaching], minlength=len(labels))
    number = np.empty(len(owner), np.int64)
    number[reaching] = np.arange(len(reaching))
    numbered = {side: replace(face, node=number[face.node]) for side, face in faces.items()}
    return BlockPieces(pieces, specks, labels[owner[reaching]], numbered)


def _find(labels: Integers, values: Integers) -> Integers:
    """Return the position of each value among ascending labels.

    The position of a value that is not among them is arbitrary.
    """
    if not len(labels) or labels[-1] - labels[0] > MAX_TABLE:
        return np.minimum(np.searchsorted(labels, values), len(labels) - 1)
    table = np.zeros(labels[-1] - labels[0] + 1, np.int64)  # ten times as fast as a search
    table[labels - labels[0]] = np.arange(len(labels))
    positions: Integers = table.take(values - labels[0], mode="clip")
    return positions


def _join_runs(runs: Runs, shape: tuple[int, ...]) -> Integers:
    """Return the number of the connected piece of each run of a block."""
    height, width = shape[-2:]
    line = runs.begin // width
    z = line // height
    # Padded, so that no run touches one of the next row, and no row one of the next plane.
    begin = runs.begin + line + z * 2 * (width + 1)
    padded = replace(runs, begin=begin, end=begin + (runs.end - runs.begin))
    shifts = (1,) if z[-1] == z[0] else (1, height + 1, height + 2, height + 3)
    i, j = (np.concatenate(ends) for ends in zip(*(touching_runs(padded, padded, n * (width + 1)) for n in shifts)))
    graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(len(runs), len(runs)))
    piece: Integers = connected_components(graph, directed=False)[1].astype(np.int64)
    return piece


def _seam_line(mask_shape: Sequence[int]) -> int:
    """Return the number of positions per line of a seam, the same for all axes.

    There is one more than there are pixels, so that the end of a line does not touch the begin of the next one.
    """
    return max(mask_shape) + 1


def _faces(runs: Runs, place: BlockPlace) -> Iterator[tuple[tuple[int, int], Runs]]:
    """Yield the runs along each seam with another block, in positions of the mask.

    Positions count through the lines of the seams of all axes, so that runs of several axes can be compared at once.
    """
    start, shape = place.start, place.shape
    line_length = _seam_line(place.mask_shape)
    line = runs.begin // shape[-1]
    x, length = runs.begin - line * shape[-1], runs.end - runs.begin
    first = [line, x]
    if len(shape) == 3:
        z = line // shape[-2]
        first = [z, line - z * shape[-2], x]
    for axis, side in itertools.product(range(len(shape)), (0, 1)):
        last = shape[axis] - 1
        if start[axis] + side * last == side * (place.mask_shape[axis] - 1):
            continue  # the border of the mask
        is_x = axis == len(shape) - 1
        chosen = np.flatnonzero((x + length - 1 if is_x and side else first[axis]) == side * last)
        *lines, along = (other for other in range(len(shape)) if other != axis)
        begin = first[along][chosen] + (start[along] + axis * (line_length + 1) * line_length)
        for other in lines:
            begin += (first[other][chosen] + start[other]) * line_length
        end = begin + (1 if is_x else length[chosen])
        yield (axis, side), Runs(begin, end, runs.label[chosen], runs.node[chosen])


def _join_faces(before: Runs, after: Runs, shifts: Sequence[int]) -> tuple[Integers, Integers]:
    """Return the numbers of touching pieces with the same label, in pairs.

    Parameters
    ----------
    before, after : Runs
        Runs on both sides of seams. In ``after``, labels do not decrease with the numbers of pieces.
    shifts : sequence of int
        Distances between the positions of lines that touch.

    Returns
    -------
    first, second : int64 arrays
        Numbers of pieces of ``before`` and of ``after``.
    """
    if not (len(before) and len(after)):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # The longest run of each piece: its length and, in the lower bits, its index.
    longest = np.zeros(after.node.max() + 1, np.int64)
    np.maximum.at(longest, after.node, (after.end - after.begin << 32) + np.arange(len(after)))
    tested = after[longest[longest > 0] & 0xFFFFFFFF]
    middle, labels = (tested.begin + tested.end) // 2, tested.label
    i = np.minimum(np.searchsorted(before.end, middle, "right"), len(before) - 1)
    touches = (before.begin[i] <= middle) & (middle < before.end[i]) & (before.label[i] == labels)
    pairs = [(before.node[i[touches]], tested.node[touches])]
    only = np.where(touches, before.node[i], -1)  # the piece that a label has on the other side, if it needs no test
    repeated = labels[1:] == labels[:-1]
    only[1:][repeated] = only[:-1][repeated] = -1
    place = _find(labels, before.label)
    is_shared = labels[place] == before.label
    untested = place[is_shared & (only[place] != before.node)]
    if untested.size:
        is_untested = np.zeros(len(labels), bool)
        is_untested[untested] = True
        before, after = before[is_shared & is_untested[place]], after[is_untested[_find(labels, after.label)]]
        for shift in shifts:
            i, j = touching_runs(before, after, shift)
            pairs.append((before.node[i], after.node[j]))
    first, second = (np.concatenate(parts) for parts in zip(*pairs))
    return first, second


class PieceJoiner:
    """Joins the pieces of neighboring blocks.

    Parameters
    ----------
    axes : sequence of int
        Axes of the mask in the order of the blocks: the last one varies fastest.
    shape : sequence of int
        Shape of the mask.

    Attributes
    ----------
    specks : int
        Number of tiny pieces in all blocks.
    """

    def __init__(self, axes: Sequence[int], shape: Sequence[int]) -> None:
        self._axes = tuple(axes)
        line = _seam_line(shape)
        self._shifts = (0,) if len(axes) == 2 else (-line, 0, line)
        self._place: list[tuple[int, ...]] = [(-1,)] * len(axes)
        self._before: list[Runs | None] = [None] * len(axes)  # runs along the seam of each axis, in earlier blocks
        self._here: list[list[Runs]] = [[] for _ in axes]
        self._labels: list[Integers] = []  # of the numbers given to pieces
        self._equal = [np.empty((2, 0), np.int64)]  # pairs of numbers of the same piece
        self._count = 0
        self.specks = 0

    def ordered_blocks(self, counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Yield the blocks of a mask, given their number along each axis, in order."""
        for place in np.ndindex(*(counts[axis] for axis in self._axes)):
            yield tuple(place[self._axes.index(axis)] for axis in range(len(counts)))

    def add(self, block: tuple[int, ...], found: BlockPieces) -> None:
        """Give a number to each piece of the next block that reaches a seam."""
        self.specks += found.specks
        sides = list[tuple[Runs, Runs]]()
        for axis in range(len(block)):  # in the order of positions
            level = self._axes.index(axis)
            self._move(level, block)
            before, after = self._before[level], found.faces.get((axis, 0))
            if before is not None and after is not None and len(after):
                low, high = after.begin[0] + self._shifts[0], after.end[-1] + self._shifts[-1]
                near = slice(np.searchsorted(before.end, low), np.searchsorted(before.begin, high, "right"))
                sides.append((before[near], after))
        number, node = np.empty((2, 0), np.int64)
        if sides:
            earlier, later = zip(*sides)
            number, node = _join_faces(_concatenate(earlier), _concatenate(later), self._shifts)
        numbers = np.full(len(found.labels), np.iinfo(np.int64).max)
        np.minimum.at(numbers, node, number)
        new = np.flatnonzero(numbers == np.iinfo(np.int64).max)
        numbers[new] = np.arange(self._count, self._count + len(new))
        self._count += len(new)
        self._labels.append(found.labels[new])
        differ = np.flatnonzero(number != numbers[node])
        if differ.size:
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
        self._before[level] = _sort(runs) if follows and runs else None
        self._place[level] = place


def _concatenate(parts: Sequence[Runs]) -> Runs:
    return parts[0] if len(parts) == 1 else Runs(*map(np.concatenate, zip(*(vars(part).values() for part in parts))))


def _sort(parts: list[Runs]) -> Runs:
    runs = _concatenate(parts)
    return runs if len(parts) == 1 else runs[np.argsort(runs.begin)]
