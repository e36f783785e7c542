"""Objects as pixels of the screen: where each object and its outline lie, and their colours through a lookup table.

An outline is computed in device pixels, so that it is equally thin at every zoom. What depends on the zoom
(`ObjectRaster`) is
apart from what depends on a click (`overlay_codes`): recolouring is one lookup.

How objects are marked on the screen: a few styles, and which of them each object has.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from svetlana_jupyter.core.annotations import Label
from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.display.channels import rgb_of
from svetlana_jupyter.core.display.tiles import PlaneRegion

# One byte a pixel addresses the colour table: 0 is transparent, each style takes a fill and a line.
MAX_STYLES = 127


@dataclass(frozen=True)
class ObjectStyle:
    """The look of an object.

    Attributes
    ----------
    color : str
        ``"#rrggbb"``; empty for the neutral ink, dark on bright images and bright on dark ones.
    bold : bool
        A thick outline: a person said so. A thin one: nobody did, or a classifier.
    fill : float
        How strongly the inside is tinted, 0 to 1, relative to the overlay's opacity.
    """

    color: str = ""
    bold: bool = False
    fill: float = 0.0


PLAIN = ObjectStyle()
EXCLUDED_STYLE = ObjectStyle(bold=True)


@dataclass(frozen=True, eq=False)
class ObjectStyles:
    """The style of every object of one image.

    Later layers win: predictions first, then what ``said`` knows. It is asked for the objects that are seen, however
    many the image has.

    Attributes
    ----------
    key : hashable
        Equal for equal object_styles, so that nothing is painted twice; for example version numbers.
    styles : tuple of Style
        The first is that of every object that no layer names.
    said : callable, optional
        Takes objects, shape (n,), and returns the position in ``styles`` of those that it knows, and perhaps of
        others. It may change its mind: then these object_styles are `with_key`.
    """

    key: Hashable = None
    styles: tuple[ObjectStyle, ...] = (PLAIN,)
    lookup: Callable[[NDArray[np.int64]], Mapping[int, int]] | None = None
    _layers: tuple[tuple[NDArray[np.int64], NDArray[np.uint8]], ...] = field(default=())

    def with_layer(self, objects: ArrayLike, styles: ArrayLike) -> ObjectStyles:
        """Return object_styles that give ``objects``, shape (n,), the styles at these positions, shape (n,)."""
        return replace(self, _layers=(*self._layers, _sorted(objects, styles)))

    def with_key(self, key: Hashable) -> ObjectStyles:
        """Return the same object_styles with another key: ``said`` has changed."""
        return replace(self, key=key)

    def style_indices(self, objects: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the position in ``styles`` of each object; the cost follows ``objects``, not the image."""
        layers = self._layers
        if self.lookup is not None:
            said = self.lookup(objects)
            layers = (*layers, _sorted(list(said), list(said.values())))
        found = np.zeros(len(objects), np.uint8)
        for labels, styles in layers:
            if len(labels):
                at = np.minimum(np.searchsorted(labels, objects), len(labels) - 1)
                found = np.where(labels[at] == objects, styles[at], found)
        return found


def class_styles(
    classes: ClassScheme,
    labels_of: Callable[[NDArray[np.int64]], Mapping[int, Label]],
    predicted: pd.Series | None = None,
    key: Hashable = None,
) -> ObjectStyles:
    """Return object_styles in the colours of the classes: bold and full for annotations, thin and pale for predictions.

    Parameters
    ----------
    classes : Classes
    labels_of : callable
        Takes objects, shape (n,), and returns what is annotated of them, and perhaps of others.
    predicted : Series, optional
        Class id by object.
    key : hashable
        Equal for equal arguments and annotations.
    """
    colors = list(dict.fromkeys(info.color for info in classes))[: (MAX_STYLES - 2) // 2]
    styles = [PLAIN, EXCLUDED_STYLE]
    styles += [
        style for color in colors for style in (ObjectStyle(color, bold=True, fill=1.0), ObjectStyle(color, fill=0.5))
    ]
    position = {info.id: 2 + 2 * colors.index(info.color) for info in classes if info.color in colors}

    def said(objects: NDArray[np.int64]) -> dict[int, int]:
        return {
            label: position.get(annotation.class_id, 1) if annotation.action == "label" else 1
            for label, annotation in labels_of(objects).items()
            if annotation.action in ("label", "ambiguous", "bad_segmentation")
        }

    object_styles = ObjectStyles(key, tuple(styles), said)
    if predicted is not None:
        object_styles = object_styles.with_layer(
            predicted.index, predicted.map({i: p + 1 for i, p in position.items()}).fillna(0)
        )
    return object_styles


def _sorted(objects: ArrayLike, styles: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    labels = np.asarray(objects, np.int64)
    order = np.argsort(labels, kind="stable")
    return labels[order], np.asarray(styles, np.uint8)[order]


_INSIDE, _BOLD, _THIN = 0, 1, 2


@dataclass(frozen=True)
class Frame:
    """A raster of device pixels laid over an image plane: the screen and a margin, or a part of it.

    Attributes
    ----------
    origin : tuple of float
        The image point (y, x) at the top left corner.
    scale : float
        Device pixels an image pixel.
    size : tuple of int
        Height and width in device pixels.
    """

    origin: tuple[float, float]
    scale: float
    size: tuple[int, int]

    def locate_cells(self, axis: int, start: int, stride: int, count: int) -> tuple[slice, NDArray[np.intp]]:
        """Return which device pixels along one axis lie on ``count`` cells of ``stride`` pixels from ``start``, and on
        which cell each lies."""
        middles = self.origin[axis] + (np.arange(self.size[axis]) + 0.5) / self.scale
        cell = np.floor((middles - start) / stride).astype(np.intp)
        first, last = np.searchsorted(cell, [0, count])
        return slice(int(first), int(last)), cell[first:last]


@dataclass(frozen=True, eq=False)
class ObjectRaster:
    """Which object each device pixel shows, and whether it lies on the object's outline.

    Attributes
    ----------
    codes : array of int32, shape (h, w)
        ``3 * index + zone``: index 0 is the background, else 1 + the position in ``objects``; zone 0 inside, 2 on a
        thin outline, 1 on the rest of a bold one.
    objects : array of int64, shape (n,)
        Ascending.
    offset : tuple of int
        Row and column of the array's corner in its frame.
    """

    codes: NDArray[np.int32]
    objects: NDArray[np.int64]
    offset: tuple[int, int]

    @property
    def side(self) -> float:
        """Return the side of a square as large as a usual object, in device pixels."""
        return float(np.sqrt(np.count_nonzero(self.codes > 2) / max(1, len(self.objects))))

    def at(self, row: int, column: int, reach: int = 0) -> int:
        """Return the object at a device pixel of the frame, else the nearest within ``reach`` pixels, else 0."""
        row, column = row - self.offset[0], column - self.offset[1]
        top, left = max(row - reach, 0), max(column - reach, 0)
        near = self.codes[top : max(row + reach + 1, 0), left : max(column + reach + 1, 0)] // 3
        rows, columns = np.nonzero(near)
        if len(rows) == 0:
            return 0
        nearest = np.argmin((rows + top - row) ** 2 + (columns + left - column) ** 2)
        return int(self.objects[near[rows[nearest], columns[nearest]] - 1])

    def where(self, label: int) -> NDArray[np.bool_]:
        """Return which pixels show an object, shape (h, w)."""
        position = int(np.searchsorted(self.objects, label))
        if position == len(self.objects) or self.objects[position] != label:
            return np.zeros(self.codes.shape, bool)
        first = 3 * (position + 1)
        return (self.codes >= first) & (self.codes <= first + 2)


def rasterize_objects(region: PlaneRegion, frame: Frame, thin: int, bold: int) -> ObjectRaster:
    """Lay a region of a mask over a frame, by nearest neighbour, and find the outlines.

    Parameters
    ----------
    region : Region of a mask
    frame : Frame
    thin, bold : int
        Widths of the outlines in device pixels; they lie inside the objects.
    """
    rows, row_cells = frame.locate_cells(0, region.box.y0, region.stride, region.values.shape[0])  # noqa: PD011
    columns, column_cells = frame.locate_cells(1, region.box.x0, region.stride, region.values.shape[1])  # noqa: PD011
    codes = np.take(np.take(3 * region.index, row_cells, axis=0), column_cells, axis=1)
    near = edges(codes, range(1, thin + 1))
    wide = near | edges(codes, range(thin + 1, bold + 1))
    codes += near.view(np.uint8)
    codes += wide.view(np.uint8)
    return ObjectRaster(codes, region.objects, (rows.start, columns.start))


def edges(index: NDArray[np.int32], steps: range) -> NDArray[np.bool_]:
    """Return the pixels that differ from one that is so many steps away along its row or its column, shape (h, w)."""
    edge = np.zeros(index.shape, bool)
    for step in steps:
        across = index[:, step:] != index[:, :-step]
        down = index[step:] != index[:-step]
        edge[:, step:] |= across
        edge[:, :-step] |= across
        edge[step:] |= down
        edge[:-step] |= down
    return edge


def overlay_codes(cells: ObjectRaster, object_styles: ObjectStyles, outlines: bool = True) -> NDArray[np.uint8]:
    """Return for each device pixel its row of the colour table: 0 transparent, ``2 s + 1`` the fill of style ``s``,
    ``2 s + 2`` its line."""
    style = object_styles.style_indices(cells.objects).astype(np.uint8)
    bold = np.array([s.bold for s in object_styles.styles])[style]
    table = np.zeros((len(cells.objects) + 1, 3), np.uint8)
    fill, line = 2 * style + 1, 2 * style + 2
    table[1:, _INSIDE] = fill
    table[1:, _THIN] = line if outlines else fill
    table[1:, _BOLD] = np.where(bold, line, fill) if outlines else fill
    return np.take(table.ravel(), cells.codes)  # type: ignore[no-any-return]


def overlay_color_table(
    object_styles: ObjectStyles, opacity: float, ink: str, side: float = np.inf
) -> NDArray[np.uint8]:
    """Return red, green, blue and alpha of every code of `overlay_codes`, shape (1 + 2 * styles, 4).

    Parameters
    ----------
    object_styles : Marks
    opacity : float
        Of fills, 0 to 1.
    ink : str
        The neutral colour.
    side : float
        Of a usual object, in CSS pixels. The outlines of objects that nothing is known of fade when they get so small
        that these would hide them.
    """
    faint = round(230 * min(max((side - 4) / 8, 0.0), 1.0))
    table = np.zeros((1 + 2 * len(object_styles.styles), 4), np.uint8)
    for position, style in enumerate(object_styles.styles):
        table[2 * position + 1] = (*rgb_of(style.color or ink), round(255 * opacity * style.fill))
        table[2 * position + 2] = (*rgb_of(style.color or ink), 255 if style.color or style.bold else faint)
    return table


def halo(shape: NDArray[np.bool_], inner: int, outer: int) -> NDArray[np.uint8]:
    """Return a double line around a shape: 1 on the line next to it, 2 on the one around that, 0 elsewhere.

    Parameters
    ----------
    shape : array of bool, shape (h, w)
    inner, outer : int
        Widths of the two lines in pixels.
    """
    near, far = (cv2.dilate(shape.view(np.uint8), _disc(radius)) for radius in (inner, inner + outer))
    lines: NDArray[np.uint8] = far * np.uint8(2) - near
    lines[shape] = 0
    return lines


def halos(
    cells: ObjectRaster, objects: ArrayLike, inner: int, outer: int
) -> tuple[NDArray[np.uint8], tuple[int, int]] | None:
    """Return a `halo` round objects, and the row and column of its corner in the frame; None if none is there.

    Where two of them touch, their thin outlines are 1, so that each keeps a line of its own; of several, the inside is
    3, up to the outlines. The cost follows the pixels, not the number of objects.
    """
    chosen = np.isin(cells.objects, objects)
    zones = np.zeros((len(chosen) + 1, 3), np.uint8)
    zones[1:][chosen] = (3, 1, 2)  # inside, on the rest of a bold outline, on a thin one
    shape = np.take(zones.ravel(), cells.codes)
    rows, columns = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
    if len(rows) == 0:
        return None
    border = inner + outer
    shape = np.pad(shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], border)
    lines = halo(shape > 0, inner, outer)
    if np.size(objects) > 1:
        deep = cv2.erode((shape > 0).view(np.uint8), _disc(outer)) > 0
        lines[shape == 3] = 3
        lines[deep & (shape == 2)] = 1
    return lines, (cells.offset[0] + int(rows[0]) - border, cells.offset[1] + int(columns[0]) - border)


def _disc(radius: int) -> NDArray[np.uint8]:
    """Return the pixels that are at most ``radius`` away from the one in the middle."""
    steps = np.arange(-radius, radius + 1)
    return (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.uint8)
