"""Conversion between polygons and label images, exact along the edges of pixels.

`PolygonMask` draws polygons into a mask; `iter_object_outlines` traces the objects of a mask. Pixel (0, 0) extends from
corner (0, 0) to corner (1, 1).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from svetlana_jupyter.core.io.chunks import ArrayRegion, group_by_block, processing_block_shape, read_regions
from svetlana_jupyter.core.io.geojson import check_planes
from svetlana_jupyter.core.objects import bbox_columns, centroid_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from xarray import DataArray

    from svetlana_jupyter.core.io.geojson import PolygonObject, Ring

TILE_SIDE = 2048  # rows and columns of a mask that are drawn at a time

Bbox = tuple[int, int, int, int]
Labels = NDArray[np.unsignedinteger]
Integers = NDArray[np.int64]
Polygon = list[Integers]


def fill_polygons(polygons: Sequence[Sequence[Ring]], bbox: Bbox) -> NDArray[np.bool_]:
    """Return which pixels of a bounding box have their center inside polygons.

    A pixel is inside a polygon if a line from its center to the left crosses the polygon's rings an odd number of
    times, so that holes stay empty. A pixel center on the common side of two polygons belongs to only one of them. A
    polygon along pixel edges covers exactly the pixels that it encloses. (`skimage.draw.polygon` assigns pixels on a
    common side to both polygons, and compares every pixel with every corner, which takes 10 ms instead of 0.15 ms for
    200 corners around 5,000 pixels.)

    Parameters
    ----------
    polygons : sequence of sequence of float arrays of shape (n, 2)
        Rings of each polygon, as in `core.io.geojson.PolygonObject`.
    bbox : tuple of int
        Half-open bounding box ``(y0, x0, y1, x1)``.

    Returns
    -------
    bool array of shape (y1 - y0, x1 - x0)

    Examples
    --------
    >>> square = np.array([[0, 0], [0, 3], [3, 3], [3, 0.0]])
    >>> fill_polygons([[square, square / 3 + 1]], (0, 0, 3, 3)).astype(int).tolist()
    [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    """
    y0, x0, y1, x1 = bbox
    inside = np.zeros((max(y1 - y0, 0), max(x1 - x0, 0)), bool)
    for rings in polygons:
        crossings = np.zeros((inside.shape[0], inside.shape[1] + 1), np.uint8)
        for ring in rings:
            begin, end = ring, np.roll(ring, -1, axis=0)
            low, high = np.minimum(begin[:, 0], end[:, 0]), np.maximum(begin[:, 0], end[:, 0])
            first = np.clip(np.ceil(low - 0.5), y0, y1).astype(np.int64)  # rows whose center lies between both ends
            count = np.clip(np.ceil(high - 0.5), y0, y1).astype(np.int64) - first
            side = np.repeat(np.arange(len(ring)), count)
            row = np.arange(len(side)) - np.repeat(np.cumsum(count) - count, count) + first[side]
            a, b = begin[side], end[side]
            x = a[:, 1] + (row + 0.5 - a[:, 0]) * ((b[:, 1] - a[:, 1]) / (b[:, 0] - a[:, 0]))
            column = np.clip(np.ceil(x - 0.5), x0, x1).astype(np.int64)
            np.add.at(crossings, (row - y0, column - x0), 1)  # an overflow keeps the parity
        inside |= np.bitwise_and(np.cumsum(crossings[:, :-1], axis=1, dtype=np.uint8), 1).astype(bool)
    return inside


class PolygonMask:
    """Mask that draws its polygons when a region is read.

    Where polygons overlap, the smallest one is on top. The class implements `core.io.sources.ArraySource`.

    Parameters
    ----------
    shapes : sequence of PolygonObject
    shape : tuple of int
        ``([z,] y, x)``.

    Raises
    ------
    InputError
        If the polygons of a 2D mask are in several planes.

    Attributes
    ----------
    dtype : dtype
        Smallest data type that holds all labels, at least 16 bits.
    drawn_labels : set of int
        Objects with pixels in the regions drawn so far.
    overlapping_labels : set of int
        Objects that share pixels with another object in these regions.
    overlap_pixels : int
        Number of shared pixels in these regions.
    """

    def __init__(self, shapes: Sequence[PolygonObject], shape: tuple[int, ...]) -> None:
        check_planes(shapes, len(shape))
        self.shape = shape
        self.labels = {polygon.label for polygon in shapes}
        self.dtype: np.dtype[np.unsignedinteger] = np.promote_types(np.uint16, np.min_scalar_type(max(self.labels)))
        self.drawn_labels: set[int] = set()
        self.overlapping_labels: set[int] = set()
        self.overlap_pixels = 0
        areas = [sum(map(_area, polygon.polygons)) for polygon in shapes]
        order = np.argsort(areas, kind="stable")[::-1]  # the largest is drawn first
        self._shapes = [shapes[position] for position in order if shapes[position].polygons]
        self._bboxes = np.array([polygon.bbox for polygon in self._shapes], np.int64).reshape(-1, 4)
        self._planes = np.array([polygon.plane for polygon in self._shapes], np.int64)

    @property
    def missing_labels(self) -> list[int]:
        """Objects without a drawn pixel: outside the mask, too small, or covered."""
        return sorted(self.labels - self.drawn_labels)

    def draw_tiles(self) -> Iterator[tuple[tuple[slice, ...], Labels]]:
        """Draw the whole mask, tile by tile.

        Yields
        ------
        part, pixels
            Index of the tile in the mask, and the labels of the tile; tiles without an object are skipped.
        """
        planes = [plane for plane in np.unique(self._planes).tolist() if 0 <= plane < self.shape[0]]
        corners = (range(0, side, TILE_SIDE) for side in self.shape[-2:])
        for plane, top, left in itertools.product(planes if len(self.shape) == 3 else [None], *corners):
            tile = (top, left, min(top + TILE_SIDE, self.shape[-2]), min(left + TILE_SIDE, self.shape[-1]))
            if here := self._select(tile, plane):
                pixels = self._draw(here, tile)
                part = (slice(tile[0], tile[2]), slice(tile[1], tile[3]))
                yield (part, pixels) if plane is None else ((slice(plane, plane + 1), *part), pixels[None])

    def __getitem__(self, part: Any) -> Labels:
        ranges = [
            range(side)[index if isinstance(index, slice) else slice(index, index + 1 or None)]
            for index, side in zip(part, self.shape)
        ]
        *depth, rows, columns = [(min(indices, default=0), max(indices, default=-1) + 1) for indices in ranges]
        bbox = (rows[0], columns[0], rows[1], columns[1])
        drawn = [self._draw(self._select(bbox, plane), bbox) for plane in (range(*depth[0]) if depth else [None])]
        pixels = np.stack(drawn) if depth else drawn[0]
        steps = (slice(None, None, indices.step) for indices in ranges)
        return pixels[tuple(step if isinstance(index, slice) else 0 for index, step in zip(part, steps))]

    def _select(self, bbox: Bbox, plane: int | None) -> list[PolygonObject]:
        """Return the polygons that intersect a bounding box, in one plane or in all."""
        meets = (self._bboxes[:, :2] < bbox[2:]).all(axis=1) & (self._bboxes[:, 2:] > bbox[:2]).all(axis=1)
        if plane is not None:
            meets &= self._planes == plane
        return [self._shapes[position] for position in np.flatnonzero(meets)]

    def _draw(self, shapes: Sequence[PolygonObject], tile: Bbox) -> Labels:
        top, left, bottom, right = tile
        pixels = np.zeros((bottom - top, right - left), self.dtype)
        for shape in shapes:
            y0, x0, y1, x1 = shape.bbox
            bbox = (max(y0, top), max(x0, left), min(y1, bottom), min(x1, right))
            inside = fill_polygons(shape.polygons, bbox)
            window = pixels[bbox[0] - top : bbox[2] - top, bbox[1] - left : bbox[3] - left]
            covered = window[inside]
            shared = (covered != 0) & (covered != shape.label)
            if shared.any():
                self.overlap_pixels += int(shared.sum())
                self.overlapping_labels |= {shape.label, *np.unique(covered[shared]).tolist()}
            window[inside] = shape.label
        self.drawn_labels |= set(np.unique(pixels).tolist()) - {0}
        return pixels


def _area(rings: Sequence[Ring]) -> float:
    """Return the area of a polygon, minus the area of its holes (shoelace formula)."""
    areas = [
        abs(float(np.dot(ring[:, 0], np.roll(ring[:, 1], 1)) - np.dot(ring[:, 1], np.roll(ring[:, 0], 1)))) / 2
        for ring in rings
    ]
    return areas[0] - sum(areas[1:])


class Outline(NamedTuple):
    """Outline of an object in one plane.

    Attributes
    ----------
    label : int
    plane : int
        0 in 2D.
    polygons : list
        Result of `outline_polygons`, in coordinates of the whole mask.
    """

    label: int
    plane: int
    polygons: list[Polygon]


def iter_object_outlines(mask: DataArray, objects: pd.DataFrame) -> Iterator[Outline]:
    """Yield the outlines of all objects of a mask, plane by plane, block by block.

    Parameters
    ----------
    mask : DataArray of shape ([Z,] Y, X), integer
        Each chunk is read once; only the pixels around the objects of one block are in memory.
    objects : DataFrame
        Rows of `core.objects.index_objects`.

    Yields
    ------
    Outline
        One outline per object and plane, in the order of the blocks.
    """
    ndim = mask.ndim
    labels = objects.index.to_numpy(np.int64)
    first, last = np.split(objects[bbox_columns(ndim)].to_numpy(np.int64), 2, axis=1)
    groups = _group_objects(mask, objects[centroid_columns(ndim)].to_numpy(float), first, last)
    regions = [ArrayRegion(tuple(first[some].min(axis=0)), tuple(last[some].max(axis=0))) for some in groups]
    for some, region, pixels in zip(groups, regions, read_regions(mask, regions), strict=True):
        low = np.array(region.low)
        for position in some:
            bbox = tuple(map(slice, first[position] - low, last[position] - low))
            own = pixels[bbox] == labels[position]
            planes, top = (own, int(first[position][0])) if ndim == 3 else (own[None], 0)
            for plane, inside in enumerate(planes, top):
                if inside.any():
                    yield Outline(int(labels[position]), plane, outline_polygons(inside, first[position][-2:]))


def _group_objects(mask: DataArray, centers: NDArray[np.float64], first: Integers, last: Integers) -> list[Integers]:
    """Group the objects to read together; return their positions in ``centers``.

    Objects wider than a block are read alone.
    """
    block_shape = processing_block_shape(mask, mask)
    is_wide = ((last - first) > block_shape).any(axis=1)
    narrow = np.flatnonzero(~is_wide)
    groups = [narrow[some] for some in group_by_block(centers[narrow], block_shape)]
    groups += [np.array([position]) for position in np.flatnonzero(is_wide)]
    return sorted(groups, key=lambda some: tuple(centers[some[0]] // block_shape))


def outline_polygons(mask: NDArray[np.bool_], start: Integers | tuple[int, int] = (0, 0)) -> list[Polygon]:
    """Return the polygons that enclose the pixels of a mask.

    Parameters
    ----------
    mask : bool of shape (Y, X)
    start : (y, x)
        Coordinates of the first pixel.

    Returns
    -------
    list of list of int64 arrays of shape (n, 2)
        One polygon per 4-connected component: its outer ring, then its holes. A ring is a list of corners ``(y, x)``
        that ends with its first corner. No ring touches itself, and polygons touch each other only at corners, as the
        OGC standard Simple Features requires. With corners read as ``(x, y)``, outer rings are counterclockwise and
        holes clockwise, as RFC 7946 requires.

    Examples
    --------
    >>> [[ring.tolist() for ring in rings] for rings in outline_polygons(np.array([[True, True]]))]
    [[[[0, 0], [0, 2], [1, 2], [1, 0], [0, 0]]]]
    """
    parts, _ = ndimage.label(mask)
    found = []
    for number, bbox in enumerate(ndimage.find_objects(parts), 1):
        corner = np.array([side.start for side in bbox], np.int64) + start
        outer, *holes = [ring + corner for ring in _trace_rings(parts[bbox] == number)]
        found.append([outer, *(hole[::-1] for hole in holes)])
    return found


def _trace_rings(mask: NDArray[np.bool_]) -> list[Integers]:
    """Return the closed rings around 4-connected pixels, the outer ring first.

    Horizontal and vertical sides alternate along a ring. On each grid line, the sorted corners are pairs: the start and
    the end of a side. Where two pixels touch only at a corner, four sides meet. This corner is stored twice, and the
    sides that border the same background pixel are connected. Since all pixels are 4-connected, no ring then passes
    through a corner twice.
    """
    around = np.pad(mask, 1)
    nw, ne, sw, se = around[:-1, :-1], around[:-1, 1:], around[1:, :-1], around[1:, 1:]
    is_double = (nw == se) & (ne == sw) & (nw != ne)
    places = np.argwhere((nw ^ ne ^ sw ^ se) | is_double)
    # Sorted by row; of two corners at the same point, the first is the end of the left side.
    corners = np.repeat(places, 1 + is_double[tuple(places.T)], axis=0)
    is_second = np.zeros(len(corners), np.int64)
    is_second[1:] = (corners[1:] == corners[:-1]).all(axis=1)
    ends_lower_side = is_second ^ nw[tuple(corners.T)]
    by_column = np.lexsort((ends_lower_side, corners[:, 0], corners[:, 1]))
    vertical_partner = np.empty(len(corners), np.int64)
    vertical_partner[by_column[::2]], vertical_partner[by_column[1::2]] = by_column[1::2], by_column[::2]
    partners, rings, visited = vertical_partner.tolist(), [], bytearray(len(corners))
    for begin in range(0, len(corners), 2):
        ring, at = [], begin
        while not visited[at]:
            visited[at] = visited[at ^ 1] = 1  # at ^ 1 is the other end of the horizontal side
            ring += [at, at ^ 1]
            at = partners[at ^ 1]
        if ring:
            rings.append(corners[[*ring, begin]])
    return rings
