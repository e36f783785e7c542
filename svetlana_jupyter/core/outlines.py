"""The outlines of objects as polygons along the edges of their pixels: what they enclose is the mask, exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from xarray import DataArray

from svetlana_jupyter.core.blocks import group_by_block, processing_block_shape
from svetlana_jupyter.core.objects import bbox_columns, centroid_columns
from svetlana_jupyter.core.windows import Window, read_regions

Ring = NDArray[np.int64]
Polygon = list[Ring]


@dataclass(frozen=True, eq=False)
class Outline:
    """What an object covers of one plane.

    Attributes
    ----------
    object : int
    plane : int
        0 in 2D.
    polygons : list
        As `polygons` gives them, in corners of the whole mask.
    """

    object: int
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
    windows = [Window(tuple(first[some].min(axis=0)), tuple(last[some].max(axis=0))) for some in together]
    for some, window, pixels in zip(together, windows, read_regions(mask, windows), strict=True):
        low = np.array(window.low)
        for one in some:
            own = pixels[tuple(map(slice, first[one] - low, last[one] - low))] == labels[one]
            planes, top = (own, int(first[one][0])) if ndim == 3 else (own[None], 0)
            for plane, inside in enumerate(planes, top):
                if inside.any():
                    yield Outline(int(labels[one]), plane, polygons(inside, first[one][-2:]))


def polygons(own: NDArray[np.bool_], start: Ring | tuple[int, int] = (0, 0)) -> list[Polygon]:
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


def _rings(own: NDArray[np.bool_]) -> list[Ring]:
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


def _together(mask: DataArray, centers: NDArray[np.float64], first: Ring, last: Ring) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of objects to read together; one that is wider than a block is read alone."""
    sides = processing_block_shape(mask, mask)
    wide = ((last - first) > sides).any(axis=1)
    ordinary = np.flatnonzero(~wide)
    found = [ordinary[some] for some in group_by_block(centers[ordinary], sides)]
    found += [np.array([one]) for one in np.flatnonzero(wide)]
    yield from sorted(found, key=lambda some: tuple(centers[some[0]] // sides))
