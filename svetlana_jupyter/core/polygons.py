"""Outlines as pixels: which pixels a shape encloses, and a mask of many shapes, tile by tile.

The outlines of objects as polygons along the edges of their pixels: what they enclose is the mask, exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from xarray import DataArray

from svetlana_jupyter.core.io.chunks import ArrayRegion, group_by_block, processing_block_shape, read_regions
from svetlana_jupyter.core.io.geojson import PolygonObject, Ring
from svetlana_jupyter.core.objects import bbox_columns, centroid_columns

TILE = 2048  # rows and columns of a mask that are drawn at a time


def fill_polygons(polygons: Sequence[Sequence[Ring]], box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Return which pixels of a box have their middle inside some polygons.

    A pixel is inside a polygon when a line from its middle to the left crosses its rings an odd number of times, so
    that holes are holes; of two polygons with a common side, each pixel belongs to one. Outlines along pixel edges give
    exactly their pixels.

    Parameters
    ----------
    polygons : sequence of sequence of float arrays of shape (n, 2)
        As of `core.io.geojson.PolygonObject`.
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
        return sorted({shape.label for shape in shapes} - self.seen)


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
    """A mask of shapes that draws each part when it is asked for; as `core.io.sources.ArraySource`.

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
    highest = max(one.label for one in shapes)
    return np.dtype(np.min_scalar_type(highest) if highest > 255 else np.uint16)


def _ordered(shapes: Sequence[PolygonObject]) -> tuple[list[PolygonObject], NDArray[np.int64], NDArray[np.int64]]:
    """Return shapes in the order in which they are drawn, the largest first, with their boxes and planes."""
    sizes = [sum(map(_area, one.polygons)) for one in shapes]
    ordered = [shapes[place] for place in np.argsort(sizes, kind="stable")[::-1] if shapes[place].polygons]
    boxes = np.array([one.bbox for one in ordered], np.int64).reshape(-1, 4)
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
        y0, x0, y1, x1 = shape.bbox
        box = (max(y0, top), max(x0, left), min(y1, bottom), min(x1, right))
        own = fill_polygons(shape.polygons, box)
        window = pixels[box[0] - top : box[2] - top, box[1] - left : box[3] - left]
        under = window[own]
        other = (under != 0) & (under != shape.label)
        if other.any():
            drawn.overlap += int(other.sum())
            drawn.overlapping_labels |= {shape.label, *np.unique(under[other]).tolist()}
        window[own] = shape.label
    drawn.seen |= set(np.unique(pixels).tolist()) - {0}
    return pixels


def _area(rings: Sequence[Ring]) -> float:
    """Return the area of a polygon without its holes."""
    areas = [
        abs(float(np.dot(ring[:, 0], np.roll(ring[:, 1], 1)) - np.dot(ring[:, 1], np.roll(ring[:, 0], 1)))) / 2
        for ring in rings
    ]
    return areas[0] - sum(areas[1:])


OutlinesRing = NDArray[np.int64]
Polygon = list[OutlinesRing]


@dataclass(frozen=True, eq=False)
class Outline:
    """What an object covers of one plane.

    Attributes
    ----------
    label : int
    plane : int
        0 in 2D.
    polygons : list
        As `polygons` gives them, in corners of the whole mask.
    """

    label: int
    plane: int
    polygons: list[Polygon]


def iter_object_outlines(mask: DataArray, objects: pd.DataFrame) -> Iterator[Outline]:
    """Outline every object of a mask, plane by plane, block after block.

    Parameters
    ----------
    mask : DataArray of shape ([Z,] Y, X), integer
        Each of its chunks is read once; what is held is the pixels under a block's objects.
    objects : DataFrame
        Rows of `core.objects.index_objects`.

    Yields
    ------
    Outline
        One an object and plane, in the order of the blocks.
    """
    ndim = mask.ndim
    labels = objects.index.to_numpy(np.int64)
    first, last = np.split(objects[bbox_columns(ndim)].to_numpy(np.int64), 2, axis=1)
    together = list(_together(mask, objects[centroid_columns(ndim)].to_numpy(float), first, last))
    windows = [ArrayRegion(tuple(first[some].min(axis=0)), tuple(last[some].max(axis=0))) for some in together]
    for some, window, pixels in zip(together, windows, read_regions(mask, windows), strict=True):
        low = np.array(window.low)
        for one in some:
            own = pixels[tuple(map(slice, first[one] - low, last[one] - low))] == labels[one]
            planes, top = (own, int(first[one][0])) if ndim == 3 else (own[None], 0)
            for plane, inside in enumerate(planes, top):
                if inside.any():
                    yield Outline(int(labels[one]), plane, polygons(inside, first[one][-2:]))


def polygons(own: NDArray[np.bool_], start: OutlinesRing | tuple[int, int] = (0, 0)) -> list[Polygon]:
    """Return the polygons that enclose the pixels of a mask.

    Parameters
    ----------
    own : bool of shape (Y, X)
    start : (y, x)
        Of the first pixel.

    Returns
    -------
    list of list of int64 arrays of shape (n, 2)
        One polygon for each part of pixels that share edges: its outer ring, then its holes. A ring is a list of
        corners ``(y, x)``, the last one the first again; pixel (0, 0) reaches from corner (0, 0) to corner (1, 1). No
        ring meets itself, and polygons meet in corners only, as OGC's Simple Features ask for. Taken as points
        ``(x, y)``, outer rings turn counterclockwise and holes clockwise, as RFC 7946 asks for.

    Examples
    --------
    >>> [[ring.tolist() for ring in rings] for rings in polygons(np.array([[True, True]]))]
    [[[[0, 0], [0, 2], [1, 2], [1, 0], [0, 0]]]]
    """
    parts, _ = ndimage.label(own)
    found = []
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        corner = np.array([side.start for side in box], np.int64) + start
        outer, *holes = [ring + corner for ring in _rings(parts[box] == number)]
        found.append([outer, *(hole[::-1] for hole in holes)])
    return found


def _rings(own: NDArray[np.bool_]) -> list[OutlinesRing]:
    """Return the closed rings of corners around pixels that hang together by edges, the outer one first.

    Every second side of a ring is horizontal, the others are vertical. On any line of the grid, the corners in their
    order are the ends of one side after the other. Where two pixels touch by a corner, two rings, or one twice, would
    pass it: that corner counts twice, and the two sides along the same background pixel belong together. Since all
    pixels hang together, no ring comes back there.
    """
    around = np.pad(own, 1)
    nw, ne, sw, se = around[:-1, :-1], around[:-1, 1:], around[1:, :-1], around[1:, 1:]
    twice = (nw == se) & (ne == sw) & (nw != ne)
    place = np.argwhere((nw ^ ne ^ sw ^ se) | twice)
    doubled = twice[tuple(place.T)]
    corners = np.repeat(
        place, 1 + doubled, axis=0
    )  # by row, and of the two at one place the end of the left side first
    second = np.zeros(len(corners), np.int64)
    second[1:] = (corners[1:] == corners[:-1]).all(axis=1)
    lower = second ^ nw[tuple(corners.T)]  # which of the two is the end of the side below
    by_column = np.lexsort((lower, corners[:, 0], corners[:, 1]))
    below = np.empty(len(corners), np.int64)
    below[by_column[::2]], below[by_column[1::2]] = by_column[1::2], by_column[::2]
    other_end, rings = below.tolist(), []
    seen = bytearray(len(corners))
    for begin in range(0, len(corners), 2):
        if seen[begin]:
            continue
        ring, at = [], begin
        while not seen[at]:
            seen[at] = seen[at ^ 1] = 1
            ring += [at, at ^ 1]
            at = other_end[at ^ 1]
        rings.append(corners[[*ring, begin]])
    return rings


def _together(
    mask: DataArray, centers: NDArray[np.float64], first: OutlinesRing, last: OutlinesRing
) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of objects to read together; one that is wider than a block is read alone."""
    sides = processing_block_shape(mask, mask)
    wide = ((last - first) > sides).any(axis=1)
    ordinary = np.flatnonzero(~wide)
    found = [ordinary[some] for some in group_by_block(centers[ordinary], sides)]
    found += [np.array([one]) for one in np.flatnonzero(wide)]
    yield from sorted(found, key=lambda some: tuple(centers[some[0]] // sides))
