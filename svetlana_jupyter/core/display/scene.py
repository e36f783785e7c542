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

from svetlana_jupyter.core.display.channels import DisplaySettings, render_pixels
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
from svetlana_jupyter.core.display.tiles import TileGroup, TileReader, stride_for
from svetlana_jupyter.core.display.viewport import PixelBox, Viewport

MARGIN = 0.25
DARK_INK, BRIGHT_INK = "#202020", "#f4f4f4"
_SELECTION = np.array([[0, 0, 0, 0], [255, 255, 255, 255], [0, 0, 0, 255], [255, 255, 255, 36]], np.uint8)


@dataclass(frozen=True, eq=False)
class ImageLayer:
    """The image: ``pixels`` of shape (h, w) or (h, w, 3), uint8, that stand for ``box`` of the image plane."""

    key: Hashable
    pixels: NDArray[np.uint8]
    box: PixelBox

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

    view: Viewport
    frame: Frame
    raster_key: Hashable
    raster: ObjectRaster
    image: ImageLayer
    overlay: IndexedLayer | None
    selection: IndexedLayer | None
    scale_bar: ScaleBar
    hint: Hint | None
    lasso: tuple[Point, ...]
    field: tuple[float, float, float, float] | None
    ink: str
    missing: tuple[TileGroup, ...] = ()

    @property
    def offset(self) -> tuple[int, int]:
        """Row and column of the frame's corner on the screen, in device pixels; negative inside the margin."""
        return _offset(self.frame, self.view)

    def object_at(self, row: float, column: float, reach: float = 3.0) -> int:
        """Return the object under a point of the screen, or the nearest within ``reach``, in CSS pixels; 0 for none."""
        dpr = self.view.dpr
        top, left = self.offset
        return self.raster.at(math.floor(row * dpr) - top, math.floor(column * dpr) - left, round(reach * dpr))


def compose(
    image: TileReader,
    mask: TileReader,
    view: Viewport,
    display_settings: DisplaySettings,
    object_styles: ObjectStyles | None = None,
    *,
    opacity: float = 0.25,
    outlines: bool = True,
    selected: int | tuple[int, ...] = (),
    hint: Hint | None = None,
    lasso: tuple[Point, ...] = (),
    field: tuple[float, float, float, float] | None = None,
    spacing: float | None = None,
    previous: Scene | None = None,
    allow_missing: bool = False,
    moving: bool = False,
) -> Scene:
    """Compose what the screen shows.

    Parameters
    ----------
    image : Reader of shape (C, [Z,] Y, X)
    mask : Reader of shape ([Z,] Y, X)
    view : View
    display_settings : Palette
        Contrast and colours of the channels.
    object_styles : Marks, optional
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
    frame = _frame(view, previous, moving)
    image_layer, image_missing = _image(image, frame, view.plane, display_settings, previous, allow_missing)
    raster_key, raster, mask_missing = _cells(mask, frame, view, previous, allow_missing)
    ink = DARK_INK if image_layer.bright else BRIGHT_INK
    overlay = None
    if object_styles is not None:
        key = (raster_key, object_styles.key, opacity, outlines, ink)
        overlay = previous.overlay if previous is not None else None
        if overlay is None or overlay.key != key:
            table = overlay_color_table(object_styles, opacity, ink, raster.side / view.dpr)
            overlay = IndexedLayer(key, overlay_codes(raster, object_styles, outlines), table, raster.offset)
    return Scene(
        view=view,
        frame=frame,
        raster_key=raster_key,
        raster=raster,
        image=image_layer,
        overlay=overlay,
        selection=_selection(raster, raster_key, selected, view.dpr, previous),
        scale_bar=scale_bar(view.scale, spacing),
        hint=hint,
        lasso=lasso,
        field=field,
        ink=ink,
        missing=(*image_missing, *mask_missing),
    )


def tiles_to_read(image: TileReader, mask: TileReader, view: Viewport) -> tuple[TileGroup, ...]:
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


def _frame(view: Viewport, previous: Scene | None, moving: bool) -> Frame:
    """Keep the frame while it covers the view, else lay a new one that shares the view's raster.

    Without a margin it is there twice as soon, and most places are left before anybody drags them.
    """
    height, width = view.device_size
    scale = view.device_scale
    if previous is not None and previous.view.dpr == view.dpr and previous.frame.scale == scale:
        top, left = _offset(previous.frame, view)
        bottom, right = top + previous.frame.size[0], left + previous.frame.size[1]
        if top <= 0 and left <= 0 and bottom >= height and right >= width:
            return previous.frame
    size = size_with_margin(view.device_size) if moving else view.device_size
    origin = view.center[0] - size[0] / 2 / scale, view.center[1] - size[1] / 2 / scale
    return Frame(origin, scale, size)


def size_with_margin(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the largest frame for a screen of this size."""
    return size[0] + 2 * round(size[0] * MARGIN), size[1] + 2 * round(size[1] * MARGIN)


def _offset(frame: Frame, view: Viewport) -> tuple[int, int]:
    height, width = view.device_size
    return (
        round((frame.origin[0] - view.center[0]) * frame.scale + height / 2),
        round((frame.origin[1] - view.center[1]) * frame.scale + width / 2),
    )


def _image(
    reader: TileReader,
    frame: Frame,
    plane: int,
    display_settings: DisplaySettings,
    previous: Scene | None,
    allow_missing: bool,
) -> tuple[ImageLayer, tuple[TileGroup, ...]]:
    """Return the layer and what is missing in it."""
    wanted = _under(frame, reader.shape)
    stride = stride_for(frame.scale)
    if previous is not None and previous.image.key == (reader, plane, wanted, stride, display_settings, ()):
        return previous.image, ()
    region = reader.read(wanted, stride, plane, allow_missing)
    key = (reader, plane, wanted, stride, display_settings, region.missing)
    if previous is not None and previous.image.key == key:
        return previous.image, region.missing
    rows, columns = region.values.shape[1:]
    box = PixelBox(
        region.box.y0, region.box.x0, region.box.y0 + rows * region.stride, region.box.x0 + columns * region.stride
    )
    return ImageLayer(key, render_pixels(region.values, display_settings), box), region.missing


def _cells(
    reader: TileReader, frame: Frame, view: Viewport, previous: Scene | None, allow_missing: bool
) -> tuple[Hashable, ObjectRaster, tuple[TileGroup, ...]]:
    """Return the key, the cells and what is missing in them."""
    stride = stride_for(frame.scale)
    if previous is not None and previous.raster_key == (reader, frame, view.plane, view.dpr, ()):
        return previous.raster_key, previous.raster, ()
    region = reader.read(_under(frame, reader.shape), stride, view.plane, allow_missing)
    key = (reader, frame, view.plane, view.dpr, region.missing)
    if previous is not None and previous.raster_key == key:
        return key, previous.raster, region.missing
    raster = rasterize_objects(region, frame, thin=max(1, round(view.dpr)), bold=max(2, round(3 * view.dpr)))
    return key, raster, region.missing


def _selection(
    raster: ObjectRaster, raster_key: Hashable, selected: int | tuple[int, ...], dpr: float, previous: Scene | None
) -> IndexedLayer | None:
    if not selected:
        return None
    key = (raster_key, selected)
    if previous is not None and previous.selection is not None and previous.selection.key == key:
        return previous.selection
    found = halos(raster, selected, inner=max(1, round(2 * dpr)), outer=max(1, round(dpr)))
    return IndexedLayer(key, found[0], _SELECTION, found[1]) if found else None


def _under(frame: Frame, shape: tuple[int, int]) -> PixelBox:
    """Return the pixels of an image of this shape (Y, X) that lie under a frame."""
    low = [max(0, math.floor(start)) for start in frame.origin]
    high = [
        min(n, math.ceil(start + extent / frame.scale)) for start, extent, n in zip(frame.origin, frame.size, shape)
    ]
    return PixelBox(low[0], low[1], max(low[0], high[0]), max(low[1], high[1]))
