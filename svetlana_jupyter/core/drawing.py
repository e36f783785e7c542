"""Outlines as pixels: which pixels a shape encloses, and a mask of many shapes, tile by tile."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.geojson import PolygonObject, Ring

TILE = 2048  # rows and columns of a mask that are drawn at a time


def fill_polygons(polygons: Sequence[Sequence[Ring]], box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Return which pixels of a box have their middle inside some polygons.

    A pixel is inside a polygon when a line from its middle to the left crosses its rings an odd number of times, so
    that holes are holes; of two polygons with a common side, each pixel belongs to one. Outlines along pixel edges give
    exactly their pixels.

    Parameters
    ----------
    polygons : sequence of sequence of float arrays of shape (n, 2)
        As of `core.geojson.PolygonObject`.
    box : tuple of int
        First row and column, and those behind the last.

    Returns
    -------
    bool array of shape (y1 - y0, x1 - x0)

    Examples
    --------
    >>> square = np.array([[0, 0], [0, 3], [3, 3], [3, 0.0]])
    >>> fill_polygons([[square, square / 3 + 1]], (0, 0, 3, 3)).astype(int).tolist()
    [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    """
    y0, x0, y1, x1 = box
    inside = np.zeros((max(y1 - y0, 0), max(x1 - x0, 0)), bool)
    for rings in polygons:
        crossed = np.zeros((inside.shape[0], inside.shape[1] + 1), np.uint8)
        for ring in rings:
            begin, end = ring, np.roll(ring, -1, axis=0)
            low, high = np.minimum(begin[:, 0], end[:, 0]), np.maximum(begin[:, 0], end[:, 0])
            first = np.clip(np.ceil(low - 0.5), y0, y1).astype(np.int64)  # rows whose middle lies between both ends
            count = np.clip(np.ceil(high - 0.5), y0, y1).astype(np.int64) - first
            side = np.repeat(np.arange(len(ring)), count)
            row = np.arange(len(side)) - np.repeat(np.cumsum(count) - count, count) + first[side]
            a, b = begin[side], end[side]
            x = a[:, 1] + (row + 0.5 - a[:, 0]) * ((b[:, 1] - a[:, 1]) / (b[:, 0] - a[:, 0]))
            column = np.clip(np.ceil(x - 0.5), x0, x1).astype(np.int64)
            np.add.at(crossed, (row - y0, column - x0), 1)  # where a count overflows, whether it is odd stays
        inside |= np.bitwise_and(np.cumsum(crossed[:, :-1], axis=1, dtype=np.uint8), 1).astype(bool)
    return inside


@dataclass
class Drawn:
    """What became of shapes when they were drawn, by the numbers of their objects.

    Attributes
    ----------
    overlapping : set of int
        Those that share pixels with another.
    overlap : int
        How many pixels they share.
    seen : set of int
        Those that have pixels in the mask.
    """

    overlapping_labels: set[int] = field(default_factory=set)
    overlap: int = 0
    seen: set[int] = field(default_factory=set)

    def missing(self, shapes: Sequence[PolygonObject]) -> list[int]:
        """Return the objects without a pixel: beyond the image, between pixels, or covered by others."""
        return sorted({shape.number for shape in shapes} - self.seen)


def draw(
    shapes: Sequence[PolygonObject], shape: Sequence[int], dtype: np.dtype[np.unsignedinteger], drawn: Drawn
) -> Iterator[tuple[tuple[slice, ...], NDArray[np.unsignedinteger]]]:
    """Draw shapes into a mask, tile by tile; where they overlap the smaller one lies above.

    Parameters
    ----------
    shapes : sequence of Shape
    shape : sequence of int
        Of the mask, ``([z,] y, x)``.
    dtype : dtype
        Large enough for their numbers.
    drawn : Drawn
        Filled while it is drawn.

    Yields
    ------
    part, pixels
        Where in the mask, and what it holds there; tiles without an object are left out.
    """
    ordered, boxes, planes = _ordered(shapes)
    for plane in np.unique(planes) if len(shape) == 3 else [0]:
        if not 0 <= plane < (shape[0] if len(shape) == 3 else 1):
            continue
        for top, left in itertools.product(range(0, shape[-2], TILE), range(0, shape[-1], TILE)):
            bottom, right = min(top + TILE, shape[-2]), min(left + TILE, shape[-1])
            here = np.flatnonzero(_meet(boxes, (top, left, bottom, right)) & ((planes == plane) | (len(shape) == 2)))
            if len(here):
                tile = _tile([ordered[place] for place in here], (top, left, bottom, right), dtype, drawn)
                part = (slice(top, bottom), slice(left, right))
                if len(shape) == 2:
                    yield part, tile
                else:
                    yield (slice(int(plane), int(plane) + 1), *part), tile[None]
    drawn.overlapping_labels.discard(0)


class LazyPolygonMask:
    """A mask of shapes that draws each part when it is asked for; as `core.formats.stored.ArraySource`.

    Parameters
    ----------
    shapes : sequence of Shape
    shape : tuple of int
        ``([z,] y, x)``.
    """

    def __init__(self, shapes: Sequence[PolygonObject], shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.dtype = fitting(shapes)
        self._ordered, self._boxes, self._planes = _ordered(shapes)

    def __getitem__(self, part: Any) -> NDArray[np.unsignedinteger]:
        wanted = [
            range(side)[one if isinstance(one, slice) else slice(one, one + 1 or None)]
            for one, side in zip(part, self.shape)
        ]
        drawn = self._window([(min(one, default=0), max(one, default=-1) + 1) for one in wanted])
        if any(one.step != 1 for one in wanted):
            drawn = drawn[np.ix_(*(np.asarray(one) - min(one) for one in wanted))]
        return drawn[tuple(slice(None) if isinstance(one, slice) else 0 for one in part)]

    def _window(self, spans: list[tuple[int, int]]) -> NDArray[np.unsignedinteger]:
        *first, rows, columns = spans
        box = (rows[0], columns[0], rows[1], columns[1])
        meets, planes = _meet(self._boxes, box), []
        for plane in range(*first[0]) if first else [-1]:
            here = np.flatnonzero(meets & (self._planes == plane) if first else meets)
            planes.append(_tile([self._ordered[place] for place in here], box, self.dtype, Drawn()))
        return np.stack(planes) if first else planes[0]


def fitting(shapes: Sequence[PolygonObject]) -> np.dtype[np.unsignedinteger]:
    """Return the smallest dtype for their numbers, at least of 16 bits."""
    highest = max(one.number for one in shapes)
    return np.dtype(np.min_scalar_type(highest) if highest > 255 else np.uint16)


def _ordered(shapes: Sequence[PolygonObject]) -> tuple[list[PolygonObject], NDArray[np.int64], NDArray[np.int64]]:
    """Return shapes in the order in which they are drawn, the largest first, with their boxes and planes."""
    sizes = [sum(map(_area, one.polygons)) for one in shapes]
    ordered = [shapes[place] for place in np.argsort(sizes, kind="stable")[::-1] if shapes[place].polygons]
    boxes = np.array([one.box for one in ordered], np.int64).reshape(-1, 4)
    return ordered, boxes, np.array([one.plane for one in ordered], np.int64)


def _meet(boxes: NDArray[np.int64], box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    top, left, bottom, right = box
    meets = (boxes[:, 0] < bottom) & (boxes[:, 2] > top) & (boxes[:, 1] < right) & (boxes[:, 3] > left)
    return np.asarray(meets, bool)


def _tile(
    shapes: Sequence[PolygonObject], tile: tuple[int, int, int, int], dtype: np.dtype[np.unsignedinteger], drawn: Drawn
) -> NDArray[np.unsignedinteger]:
    top, left, bottom, right = tile
    pixels = np.zeros((bottom - top, right - left), dtype)
    for shape in shapes:
        y0, x0, y1, x1 = shape.box
        box = (max(y0, top), max(x0, left), min(y1, bottom), min(x1, right))
        own = fill_polygons(shape.polygons, box)
        window = pixels[box[0] - top : box[2] - top, box[1] - left : box[3] - left]
        under = window[own]
        other = (under != 0) & (under != shape.number)
        if other.any():
            drawn.overlap += int(other.sum())
            drawn.overlapping_labels |= {shape.number, *np.unique(under[other]).tolist()}
        window[own] = shape.number
    drawn.seen |= set(np.unique(pixels).tolist()) - {0}
    return pixels


def _area(rings: Sequence[Ring]) -> float:
    """Return the area of a polygon without its holes."""
    areas = [
        abs(float(np.dot(ring[:, 0], np.roll(ring[:, 1], 1)) - np.dot(ring[:, 1], np.roll(ring[:, 0], 1)))) / 2
        for ring in rings
    ]
    return areas[0] - sum(areas[1:])
