"""Object overlay: the pixels and outline of each object, and their colors.

Outlines are computed in device pixels, so that they are equally thin at every zoom. Geometry, which changes with the
zoom (`ObjectRaster`), is separate from colors, which change with labels (`overlay_codes`), so that recoloring takes
only one table lookup.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from svetlana_jupyter.core.display.channels import rgb_of
from svetlana_jupyter.core.display.tiles import PlaneRegion, number_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from svetlana_jupyter.core.annotations import Label
    from svetlana_jupyter.core.classes import ClassScheme

# Each pixel is one byte, the row of the color table: row 0 is transparent, and each style has one row for its fill and
# one for its outline.
MAX_STYLES = 127
_UNCERTAINTY_LEVELS = 12


@dataclass(frozen=True)
class ObjectStyle:
    """Appearance of an object.

    Attributes
    ----------
    color : str
        ``"#rrggbb"``; empty for the neutral ink, which is dark on bright images and bright on dark ones.
    bold : bool
        Whether the outline is thick, as for annotations, or thin, as for predictions.
    fill : float
        Strength of the tint, 0 or more, relative to the opacity of the overlay.
    """

    color: str = ""
    bold: bool = False
    fill: float = 0.0


PLAIN = ObjectStyle()
EXCLUDED_STYLE = ObjectStyle(bold=True)


@dataclass(frozen=True, eq=False)
class ObjectStyles:
    """Styles of all objects of one image.

    Later layers override earlier layers, and ``lookup`` overrides all layers. Only visible objects are looked up,
    however many objects the image has.

    Attributes
    ----------
    key : hashable
        Value, such as a version number, that is equal for equal styles, so that unchanged styles are not painted again.
    styles : tuple of ObjectStyle
        The first style is for objects that have no other style.
    lookup : callable, optional
        Takes labels, shape (n,), and returns a mapping from label to position in ``styles``; the mapping may lack some
        of the labels and contain others. Change ``key`` whenever its results change.
    only : array of int, optional
        The only objects that have another style than the first one, ascending; by default all.
    """

    key: Hashable = None
    styles: tuple[ObjectStyle, ...] = (PLAIN,)
    lookup: Callable[[NDArray[np.int64]], Mapping[int, int]] | None = None
    only: NDArray[np.int64] | None = None
    _layers: tuple[tuple[NDArray[np.int64], NDArray[np.uint8]], ...] = ()

    def with_layer(self, labels: ArrayLike, styles: ArrayLike) -> ObjectStyles:
        """Return a copy with one more layer of styles.

        ``labels`` and ``styles`` have shape (n,); each value of ``styles`` is a position in the attribute ``styles``.
        """
        return replace(self, _layers=(*self._layers, _sorted_layer(labels, styles)))

    def style_indices(self, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the position in ``styles`` of each label.

        The time depends on the number of labels, not on the size of the image.
        """
        layers = self._layers
        if self.lookup is not None:
            looked_up = self.lookup(labels)
            layers = (*layers, _sorted_layer(list(looked_up), list(looked_up.values())))
        indices = np.zeros(len(labels), np.uint8)
        for layer_labels, styles in layers:
            if len(layer_labels):
                at = np.minimum(np.searchsorted(layer_labels, labels), len(layer_labels) - 1)
                indices = np.where(layer_labels[at] == labels, styles[at], indices)
        return indices if self.only is None else np.where(np.isin(labels, self.only), indices, 0).astype(np.uint8)


def _sorted_layer(labels: ArrayLike, styles: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    labels = np.asarray(labels, np.int64)
    order = np.argsort(labels, kind="stable")
    return labels[order], np.asarray(styles, np.uint8)[order]


def class_styles(
    classes: ClassScheme,
    labels_of: Callable[[NDArray[np.int64]], Mapping[int, Label]],
    predicted: pd.Series | None = None,
    key: Hashable = None,
    max_styles: int = MAX_STYLES,
) -> ObjectStyles:
    """Return styles in class colors, bold for annotations and thin for predictions.

    Parameters
    ----------
    classes : ClassScheme
    labels_of : callable
        Takes object labels, shape (n,), and returns a mapping from label to annotation, without unannotated objects; it
        may contain other objects.
    predicted : Series, optional
        Predicted class id, indexed by object label.
    key : hashable
        Key of the result; equal for equal arguments and annotations.
    max_styles : int
        Maximum number of styles; classes beyond it have the neutral color.
    """
    colors = list(dict.fromkeys(info.color for info in classes))[: (max_styles - 2) // 2]
    styles = [PLAIN, EXCLUDED_STYLE]
    for color in colors:
        styles += [ObjectStyle(color, bold=True, fill=1.0), ObjectStyle(color, fill=0.5)]
    position = {info.id: 2 + 2 * colors.index(info.color) for info in classes if info.color in colors}

    def lookup(labels: NDArray[np.int64]) -> dict[int, int]:
        return {
            label: position.get(annotation.class_id, 1) if annotation.action == "label" else 1
            for label, annotation in labels_of(labels).items()
            if annotation.action in ("label", "ambiguous", "bad_segmentation")
        }

    object_styles = ObjectStyles(key, tuple(styles), lookup)
    if predicted is None:
        return object_styles
    thin = {class_id: bold + 1 for class_id, bold in position.items()}
    return object_styles.with_layer(predicted.index, predicted.map(thin).fillna(0))


def uncertainty_styles(
    classes: ClassScheme,
    labels_of: Callable[[NDArray[np.int64]], Mapping[int, Label]],
    probability: pd.Series,
    key: Hashable = None,
) -> ObjectStyles:
    """Return styles by uncertainty, from dark and faint to bright and strong.

    The uncertainty is 0 at probability 1, and 1 where all classes are equally probable. Annotated objects have bold
    outlines in the colors of their classes, as in `class_styles`.

    Parameters
    ----------
    classes, labels_of, key
        As for `class_styles`.
    probability : Series
        Probability of the predicted class, indexed by object label.
    """
    base = class_styles(classes, labels_of, key=key, max_styles=MAX_STYLES - _UNCERTAINTY_LEVELS)
    shares = np.linspace(0, 1, _UNCERTAINTY_LEVELS)
    ramp = tuple(
        ObjectStyle(color, fill=0.3 + 1.2 * float(share)) for color, share in zip(_uncertainty_colors(), shares)
    )
    values = probability.to_numpy(float)
    levels = _uncertainty_levels(np.nan_to_num(values, nan=1.0), len(classes.infos))
    styles = replace(base, styles=(*base.styles, *ramp))
    return styles.with_layer(probability.index, np.where(np.isnan(values), 0, len(base.styles) + levels))


def uncertainty_color(probability: float, classes: int) -> str:
    """Return the color of an object in `uncertainty_styles`.

    >>> uncertainty_color(1.0, 2), uncertainty_color(0.5, 2)
    ('#420a68', '#f6d746')
    """
    return _uncertainty_colors()[int(_uncertainty_levels(np.array([probability]), classes)[0])]


@cache
def _uncertainty_colors() -> tuple[str, ...]:
    grays = np.rint(255 * np.linspace(0.2, 0.9, _UNCERTAINTY_LEVELS)).astype(np.uint8).reshape(-1, 1)
    shades = cv2.applyColorMap(grays, cv2.COLORMAP_INFERNO)[:, 0, ::-1]  # OpenCV orders channels as BGR
    return tuple("#" + bytes(shade).hex() for shade in shades)


def _uncertainty_levels(probability: NDArray[np.float64], classes: int) -> NDArray[np.int64]:
    """Return the position of each object's color: 0 if certain, the last if guessed."""
    certainty_of_guess = 1 / max(2, classes)
    uncertainty = np.clip((1 - probability) / (1 - certainty_of_guess), 0, 1)
    return np.rint(uncertainty * (_UNCERTAINTY_LEVELS - 1)).astype(np.int64)


class LabelMark(NamedTuple):
    """Dot on a labeled object.

    Attributes
    ----------
    y, x : float
        Center of the object on the continuous image plane.
    color : str
        Color of the annotated class.
    other : str
        Color of the predicted class if it differs from the annotated one, else "".
    """

    y: float
    x: float
    color: str
    other: str = ""


@dataclass(frozen=True)
class Frame:
    """Raster of device pixels over an image plane.

    It covers the screen, possibly with a margin.

    Attributes
    ----------
    origin : tuple of float
        Image point (y, x) at the top left corner.
    scale : float
        Device pixels per image pixel.
    size : tuple of int
        Height and width in device pixels.
    """

    origin: tuple[float, float]
    scale: float
    size: tuple[int, int]

    def locate_cells(self, axis: int, start: int, stride: int, count: int) -> tuple[slice, NDArray[np.intp]]:
        """Find the cells under the device pixels along one axis.

        A cell is a square of ``stride`` x ``stride`` image pixels.

        Parameters
        ----------
        axis : int
            0 for rows, 1 for columns.
        start, stride, count : int
            First image pixel of the first cell, width of a cell in image pixels, and number of cells.

        Returns
        -------
        pixels : slice
            Device pixels that lie on a cell.
        cells : array of int
            Position of the cell under each of these device pixels.
        """
        centers = self.origin[axis] + (np.arange(self.size[axis]) + 0.5) / self.scale
        cell = np.floor((centers - start) / stride).astype(np.intp)
        first, last = np.searchsorted(cell, [0, count])
        return slice(int(first), int(last)), cell[first:last]


@dataclass(frozen=True, eq=False)
class ObjectRaster:
    """Object and zone (inside, outline) of each device pixel.

    Attributes
    ----------
    codes : array of int32, shape (h, w)
        ``3 * index + zone``: index 0 is the background, else 1 + the position in ``objects``; zone 0 is inside, 2 the
        thin outline, 1 the rest of the bold outline.
    objects : array of int64, shape (n,)
        Labels, ascending.
    offset : tuple of int
        Row and column of the top left corner of ``codes`` in its frame.
    key : hashable
        Equal for equal rasters.
    """

    codes: NDArray[np.int32]
    objects: NDArray[np.int64]
    offset: tuple[int, int]
    key: Hashable = None

    @property
    def side(self) -> float:
        """Side length of a square with the mean visible object area, in device pixels."""
        return float(np.sqrt(np.count_nonzero(self.codes > 2) / max(1, len(self.objects))))

    def at(self, row: int, column: int, reach: int = 0) -> int:
        """Return the object at a device pixel, else the nearest within ``reach``, else 0."""
        row, column = row - self.offset[0], column - self.offset[1]
        top, left = max(row - reach, 0), max(column - reach, 0)
        near = self.codes[top : max(row + reach + 1, 0), left : max(column + reach + 1, 0)] // 3
        rows, columns = np.nonzero(near)
        if len(rows) == 0:
            return 0
        nearest = np.argmin((rows + top - row) ** 2 + (columns + left - column) ** 2)
        return int(self.objects[near[rows[nearest], columns[nearest]] - 1])


def rasterize_objects(region: PlaneRegion, frame: Frame, thin: int, bold: int, key: Hashable = None) -> ObjectRaster:
    """Resample a mask region to a frame by nearest neighbor, and draw the outlines.

    Parameters
    ----------
    region : PlaneRegion of a mask
    frame : Frame
    thin, bold : int
        Widths of the outlines in device pixels; they lie inside the objects.
    key : hashable
        Key of the result.
    """
    objects, index = number_objects(region.values)
    height, width = index.shape
    rows, row_cells = frame.locate_cells(0, region.box.y0, region.stride, height)
    columns, column_cells = frame.locate_cells(1, region.box.x0, region.stride, width)
    codes = np.take(np.take(3 * index, row_cells, axis=0), column_cells, axis=1)
    near = find_edges(codes, range(1, thin + 1))
    wide = near | find_edges(codes, range(thin + 1, bold + 1))
    codes += near.view(np.uint8)
    codes += wide.view(np.uint8)
    return ObjectRaster(codes, objects, (rows.start, columns.start), key)


def find_edges(index: NDArray[np.int32], distances: range) -> NDArray[np.bool_]:
    """Return which pixels differ from a pixel in the same row or column.

    Each pixel is compared with the pixels at all ``distances``, in both directions.
    """
    edges = np.zeros(index.shape, bool)
    for distance in distances:
        for here, there in (np.s_[:, distance:], np.s_[:, :-distance]), (np.s_[distance:], np.s_[:-distance]):
            differs = index[here] != index[there]
            edges[here] |= differs
            edges[there] |= differs
    return edges


def overlay_codes(raster: ObjectRaster, object_styles: ObjectStyles, outlines: bool = True) -> NDArray[np.uint8]:
    """Return the row of the color table for each device pixel.

    Row 0 is transparent; row ``2 s + 1`` is the fill of style ``s``, and row ``2 s + 2`` its outline.
    """
    style = object_styles.style_indices(raster.objects)
    bold = np.array([s.bold for s in object_styles.styles])[style]
    fill, line = 2 * style + 1, 2 * style + 1 + outlines
    table = np.zeros((len(raster.objects) + 1, 3), np.uint8)
    table[1:] = np.column_stack([fill, np.where(bold, line, fill), line])  # inside, bold outline, thin outline
    return np.take(table.ravel(), raster.codes)  # type: ignore[no-any-return]


def overlay_color_table(
    object_styles: ObjectStyles, opacity: float, ink: str, side: float = np.inf
) -> NDArray[np.uint8]:
    """Return the RGBA color of every code of `overlay_codes`, shape (n, 4).

    Parameters
    ----------
    object_styles : ObjectStyles
    opacity : float
        Opacity of fills, 0 to 1.
    ink : str
        The neutral color, ``"#rrggbb"``.
    side : float
        Side of an average object, in CSS pixels. The neutral outlines of objects without a class fade below 12 pixels,
        where they would hide the objects.
    """
    faint = round(230 * min(max((side - 4) / 8, 0.0), 1.0))
    table = np.zeros((1 + 2 * len(object_styles.styles), 4), np.uint8)
    for position, style in enumerate(object_styles.styles):
        color = rgb_of(style.color or ink)
        table[2 * position + 1] = (*color, round(255 * min(1.0, opacity * style.fill)))
        table[2 * position + 2] = (*color, 255 if style.color or style.bold else faint)
    return table


def halo(shape: NDArray[np.bool_], inner: int, outer: int) -> NDArray[np.uint8]:
    """Return a double outline of a shape.

    The result is 1 on the inner line, 2 on the outer line and 0 elsewhere. Both lines lie outside the shape.

    Parameters
    ----------
    shape : array of bool, shape (h, w)
    inner, outer : int
        Widths of the two lines in pixels.
    """
    near, far = (cv2.dilate(shape.view(np.uint8), _disk(radius)) for radius in (inner, inner + outer))
    lines: NDArray[np.uint8] = far * np.uint8(2) - near
    lines[shape] = 0
    return lines


def halos(
    raster: ObjectRaster, objects: ArrayLike, inner: int, outer: int
) -> tuple[NDArray[np.uint8], tuple[int, int]] | None:
    """Return a `halo` around objects and its corner (row, column) in the frame.

    The result is None if none of the objects is visible.

    If there are several objects, pixels inside their outlines are 3; where two of them touch, their thin outlines are
    1, so that the objects stay distinguishable. The time depends on the number of pixels, not on the number of objects.
    """
    chosen = np.isin(raster.objects, objects)
    zones = np.zeros((len(chosen) + 1, 3), np.uint8)
    zones[1:][chosen] = (3, 1, 2)  # inside, bold outline, thin outline
    shape = np.take(zones.ravel(), raster.codes)
    rows, columns = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
    if len(rows) == 0:
        return None
    border = inner + outer
    shape = np.pad(shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], border)
    lines = halo(shape > 0, inner, outer)
    if np.size(objects) > 1:
        deep = cv2.erode((shape > 0).view(np.uint8), _disk(outer)) > 0
        lines[shape == 3] = 3
        lines[deep & (shape == 2)] = 1
    return lines, (raster.offset[0] + int(rows[0]) - border, raster.offset[1] + int(columns[0]) - border)


def _disk(radius: int) -> NDArray[np.uint8]:
    """Return the footprint of a disk, shape (2 * radius + 1, 2 * radius + 1)."""
    steps = np.arange(-radius, radius + 1)
    return (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.uint8)
