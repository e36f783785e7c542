"""What a viewer shows, as a value: `compose` is pure, and whoever paints only compares one scene with the one before.

Each layer says in its ``key`` what it was made from. A layer with the key of the scene before is taken over from it, so
that a click recolours without reading pixels again, and dragging computes nothing until the margin is used up.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.display.channels import DisplaySettings, to_screen
from svetlana_jupyter.core.display.overlay import (
    Frame,
    ObjectRaster,
    ObjectStyles,
    halos,
    overlay_codes,
    overlay_color_table,
    rasterize_objects,
)
from svetlana_jupyter.core.display.selection import Point
from svetlana_jupyter.core.display.tiles import Piece, Reader, stride_for
from svetlana_jupyter.core.display.viewport import Box, View

MARGIN = 0.25
DARK_INK, BRIGHT_INK = "#202020", "#f4f4f4"
_SELECTION = np.array([[0, 0, 0, 0], [255, 255, 255, 255], [0, 0, 0, 255], [255, 255, 255, 36]], np.uint8)


@dataclass(frozen=True, eq=False)
class ImageLayer:
    """The image: ``pixels`` of shape (h, w) or (h, w, 3), uint8, that stand for ``box`` of the image plane."""

    key: Hashable
    pixels: NDArray[np.uint8]
    box: Box

    @property
    def bright(self) -> bool:
        """Whether what is drawn over it should be dark."""
        return bool(np.median(self.pixels[::8, ::8]) > 140) if self.pixels.size else False


@dataclass(frozen=True, eq=False)
class IndexedLayer:
    """A layer of few colours: ``codes`` of shape (h, w), rows of the RGBA ``table``, at ``offset`` in the frame."""

    key: Hashable
    codes: NDArray[np.uint8]
    table: NDArray[np.uint8]
    offset: tuple[int, int]


@dataclass(frozen=True)
class ScaleBar:
    """``length`` in CSS pixels, and what that is in the image."""

    length: float
    text: str


@dataclass(frozen=True)
class Hint:
    """Words beside the pointer, which is at (row, column) in CSS pixels."""

    text: str
    at: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Scene:
    """One state of the screen.

    Attributes
    ----------
    view : View
    frame : Frame
        The raster that the layers fill: the view when it was made, and a margin around.
    cells : Cells
        Which object each device pixel of the frame shows.
    image, overlay, selection : layer or None
    scale_bar, hint : or None
    lasso : tuple of (y, x)
        Corners of the box or lasso that is being drawn, as points of the image.
    field : tuple of float or None
        Top, left, bottom and right edge, in points of the image, of what is framed.
    ink : str
        The colour of what is written over the image.
    missing : tuple of Piece
        What was left out as it takes long to read: when it is there, the same shows more.
    """

    view: View
    frame: Frame
    raster_key: Hashable
    cells: ObjectRaster
    image: ImageLayer
    overlay: IndexedLayer | None
    selection: IndexedLayer | None
    scale_bar: ScaleBar
    hint: Hint | None
    lasso: tuple[Point, ...]
    field: tuple[float, float, float, float] | None
    ink: str
    missing: tuple[Piece, ...] = ()

    @property
    def offset(self) -> tuple[int, int]:
        """Row and column of the frame's corner on the screen, in device pixels; negative inside the margin."""
        return _offset(self.frame, self.view)

    def object_at(self, row: float, column: float, reach: float = 3.0) -> int:
        """Return the object under a point of the screen, or the nearest within ``reach``, in CSS pixels; 0 for none."""
        dpr = self.view.dpr
        top, left = self.offset
        return self.cells.at(math.floor(row * dpr) - top, math.floor(column * dpr) - left, round(reach * dpr))


def compose(
    image: Reader,
    mask: Reader,
    view: View,
    palette: DisplaySettings,
    marks: ObjectStyles | None = None,
    *,
    opacity: float = 0.25,
    outlines: bool = True,
    selected: int | tuple[int, ...] = (),
    hint: Hint | None = None,
    lasso: tuple[Point, ...] = (),
    field: tuple[float, float, float, float] | None = None,
    spacing: float | None = None,
    before: Scene | None = None,
    quick: bool = False,
    moving: bool = False,
) -> Scene:
    """Compose what the screen shows.

    Parameters
    ----------
    image : Reader of shape (C, [Z,] Y, X)
    mask : Reader of shape ([Z,] Y, X)
    view : View
    palette : Palette
        Contrast and colours of the channels.
    marks : Marks, optional
        How the objects are coloured; without any, no overlay.
    opacity : float
        Of the objects' fill, 0 to 1.
    outlines : bool
    selected : int or tuple of int
        The selected object or objects, 0 or () for none.
    hint : Hint, optional
    lasso : tuple of (y, x)
        What is being drawn round objects, in points of the image.
    field : tuple of float, optional
        Top, left, bottom and right edge of a part of the image that is framed.
    spacing : float, optional
        Micrometres a pixel in a row, for the scale bar.
    before : Scene, optional
        The last scene; what has not changed is taken over.
    quick : bool
        Rather than read what takes long, show what is there already and say in ``missing`` what is not.
    moving : bool
        The image is being dragged: lay out a margin too, so that what comes next is there already.

    Returns
    -------
    Scene
    """
    frame = _frame(view, before, moving)
    image_layer, image_missing = _image(image, frame, view.plane, palette, before, quick)
    raster_key, cells, mask_missing = _cells(mask, frame, view, before, quick)
    ink = DARK_INK if image_layer.bright else BRIGHT_INK
    overlay = None
    if marks is not None:
        key = (raster_key, marks.key, opacity, outlines, ink)
        overlay = before.overlay if before is not None else None
        if overlay is None or overlay.key != key:
            table = overlay_color_table(marks, opacity, ink, cells.side / view.dpr)
            overlay = IndexedLayer(key, overlay_codes(cells, marks, outlines), table, cells.offset)
    return Scene(
        view=view,
        frame=frame,
        raster_key=raster_key,
        cells=cells,
        image=image_layer,
        overlay=overlay,
        selection=_selection(cells, raster_key, selected, view.dpr, before),
        scale_bar=scale_bar(view.scale, spacing),
        hint=hint,
        lasso=lasso,
        field=field,
        ink=ink,
        missing=(*image_missing, *mask_missing),
    )


def ahead(image: Reader, mask: Reader, view: View) -> tuple[Piece, ...]:
    """Return what would have to be read to compose this view."""
    frame = _frame(view, None, moving=False)
    stride = stride_for(frame.scale)
    return (
        *image.missing(_under(frame, image.shape), stride, view.plane),
        *mask.missing(_under(frame, mask.shape), stride, view.plane),
    )


def scale_bar(scale: float, spacing: float | None, longest: float = 120.0) -> ScaleBar:
    """Return the bar of a round length that is at most ``longest`` CSS pixels long.

    >>> scale_bar(scale=2.0, spacing=0.5).text
    '20 µm'
    >>> scale_bar(scale=2.0, spacing=None).text
    '50 px'
    """
    unit = spacing or 1.0
    most = longest / scale * unit
    decade = 10.0 ** math.floor(math.log10(most))
    length = next(step * decade for step in (5, 2, 1) if step * decade <= most * (1 + 1e-9))
    if spacing is None and length < 1:
        length = 1.0
    text = f"{length / 1000:g} mm" if spacing and length >= 1000 else f"{length:g} {'µm' if spacing else 'px'}"
    return ScaleBar(length / unit * scale, text)


def _frame(view: View, before: Scene | None, moving: bool) -> Frame:
    """Keep the frame while it covers the view, else lay a new one that shares the view's raster.

    Without a margin it is there twice as soon, and most places are left before anybody drags them.
    """
    height, width = view.device_size
    scale = view.device_scale
    if before is not None and before.view.dpr == view.dpr and before.frame.scale == scale:
        top, left = _offset(before.frame, view)
        bottom, right = top + before.frame.size[0], left + before.frame.size[1]
        if top <= 0 and left <= 0 and bottom >= height and right >= width:
            return before.frame
    size = size_with_margin(view.device_size) if moving else view.device_size
    origin = view.center[0] - size[0] / 2 / scale, view.center[1] - size[1] / 2 / scale
    return Frame(origin, scale, size)


def size_with_margin(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the largest frame for a screen of this size."""
    return size[0] + 2 * round(size[0] * MARGIN), size[1] + 2 * round(size[1] * MARGIN)


def _offset(frame: Frame, view: View) -> tuple[int, int]:
    height, width = view.device_size
    return (
        round((frame.origin[0] - view.center[0]) * frame.scale + height / 2),
        round((frame.origin[1] - view.center[1]) * frame.scale + width / 2),
    )


def _image(
    reader: Reader, frame: Frame, plane: int, palette: DisplaySettings, before: Scene | None, quick: bool
) -> tuple[ImageLayer, tuple[Piece, ...]]:
    """Return the layer and what is missing in it."""
    wanted = _under(frame, reader.shape)
    stride = stride_for(frame.scale)
    if before is not None and before.image.key == (reader, plane, wanted, stride, palette, ()):
        return before.image, ()
    region = reader.read(wanted, stride, plane, quick)
    key = (reader, plane, wanted, stride, palette, region.missing)
    if before is not None and before.image.key == key:
        return before.image, region.missing
    rows, columns = region.values.shape[1:]
    box = Box(
        region.box.y0, region.box.x0, region.box.y0 + rows * region.stride, region.box.x0 + columns * region.stride
    )
    return ImageLayer(key, to_screen(region.values, palette), box), region.missing


def _cells(
    reader: Reader, frame: Frame, view: View, before: Scene | None, quick: bool
) -> tuple[Hashable, ObjectRaster, tuple[Piece, ...]]:
    """Return the key, the cells and what is missing in them."""
    stride = stride_for(frame.scale)
    if before is not None and before.raster_key == (reader, frame, view.plane, view.dpr, ()):
        return before.raster_key, before.cells, ()
    region = reader.read(_under(frame, reader.shape), stride, view.plane, quick)
    key = (reader, frame, view.plane, view.dpr, region.missing)
    if before is not None and before.raster_key == key:
        return key, before.cells, region.missing
    cells = rasterize_objects(region, frame, thin=max(1, round(view.dpr)), bold=max(2, round(3 * view.dpr)))
    return key, cells, region.missing


def _selection(
    cells: ObjectRaster, raster_key: Hashable, selected: int | tuple[int, ...], dpr: float, before: Scene | None
) -> IndexedLayer | None:
    if not selected:
        return None
    key = (raster_key, selected)
    if before is not None and before.selection is not None and before.selection.key == key:
        return before.selection
    found = halos(cells, selected, inner=max(1, round(2 * dpr)), outer=max(1, round(dpr)))
    return IndexedLayer(key, found[0], _SELECTION, found[1]) if found else None


def _under(frame: Frame, shape: tuple[int, int]) -> Box:
    """Return the pixels of an image of this shape (Y, X) that lie under a frame."""
    low = [max(0, math.floor(start)) for start in frame.origin]
    high = [
        min(n, math.ceil(start + extent / frame.scale)) for start, extent, n in zip(frame.origin, frame.size, shape)
    ]
    return Box(low[0], low[1], max(low[0], high[0]), max(low[1], high[1]))
