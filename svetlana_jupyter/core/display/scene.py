"""Scene: an immutable description of the viewer's screen.

`compose` has no side effects; the canvas paints only the difference between two scenes. The ``key`` of a layer
identifies the data that it was made from; a layer whose key has not changed is reused. So a new label only changes the
color of an object, without reading pixels again. Layers are larger than the view: a short drag computes nothing.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from svetlana_jupyter.core.display.channels import DisplaySettings, render_pixels
from svetlana_jupyter.core.display.overlay import (
    Frame,
    LabelMark,
    ObjectRaster,
    ObjectStyles,
    halos,
    overlay_codes,
    overlay_color_table,
    rasterize_objects,
)
from svetlana_jupyter.core.display.tiles import PlaneRegion, TileGroup, TileReader, stride_for
from svetlana_jupyter.core.display.viewport import PixelBox, Viewport

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray

    from svetlana_jupyter.core.display.selection import Point

MARGIN = 0.25  # fraction of the screen that is drawn in addition on each side while the view is dragged
DARK_INK, BRIGHT_INK = "#202020", "#f4f4f4"
_BRIGHT = 140  # median gray level above which the ink is dark
_SELECTION_COLORS = np.array([[0, 0, 0, 0], [255, 255, 255, 255], [0, 0, 0, 255], [255, 255, 255, 36]], np.uint8)


@dataclass(frozen=True, eq=False)
class ImageLayer:
    """Image pixels (h, w) or (h, w, 3), uint8, stretched over ``box``."""

    key: Hashable
    pixels: NDArray[np.uint8]
    box: PixelBox

    @property
    def bright(self) -> bool:
        """Whether the image is bright, so that lines and text over it should be dark."""
        return bool(np.median(self.pixels[::8, ::8]) > _BRIGHT) if self.pixels.size else False


@dataclass(frozen=True, eq=False)
class IndexedLayer:
    """Layer with a color table.

    ``codes``, shape (h, w), are row numbers of the RGBA ``table``; their top left corner is at ``offset`` in the frame.
    Layers with equal ``source`` are equal, and so are those with equal ``key``, which needs more time to find out.
    """

    source: Hashable
    key: Hashable
    codes: NDArray[np.uint8]
    table: NDArray[np.uint8]
    offset: tuple[int, int]


_Layer = TypeVar("_Layer", ImageLayer, ObjectRaster)


@dataclass(frozen=True)
class ScaleBar:
    """Length of the scale bar in CSS pixels, and its caption."""

    length: float
    text: str


@dataclass(frozen=True)
class Hint:
    """Text next to the pointer; ``at`` is its position (row, column) in CSS pixels."""

    text: str
    at: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Scene:
    """Content of the viewer's screen at one time.

    Attributes
    ----------
    view : Viewport
    frame : Frame
        Raster that the layers fill. It covers the view, possibly with a margin.
    raster : ObjectRaster
        Object under each device pixel of the frame.
    image, overlay, selection : layer or None
    scale_bar : ScaleBar
    ink : str
        Color of text over the image.
    missing : tuple of TileGroup
        Tiles left out because reading them takes long. Load them and compose the scene again to show them.
    hint : Hint or None
    lasso : tuple of (y, x)
        Corners of the box or lasso that the user is drawing, as image points.
    field : tuple of float or None
        Field of view of the displayed patch, around which a frame is drawn: its top, left, bottom and right edge on the
        image plane.
    marks : tuple of LabelMark
        Dots on labeled objects.
    """

    view: Viewport
    frame: Frame
    raster: ObjectRaster
    image: ImageLayer
    overlay: IndexedLayer | None
    selection: IndexedLayer | None
    scale_bar: ScaleBar
    ink: str
    missing: tuple[TileGroup, ...]
    hint: Hint | None = None
    lasso: tuple[Point, ...] = ()
    field: tuple[float, float, float, float] | None = None
    marks: tuple[LabelMark, ...] = ()

    @property
    def offset(self) -> tuple[int, int]:
        """Row and column of the frame's corner on the screen, in device pixels."""
        return frame_offset(self.frame, self.view)

    def object_at(self, row: float, column: float, reach: float = 3.0) -> int:
        """Return the object at a screen point, else the nearest within ``reach``, else 0."""
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
    spacing: float | None = None,
    previous: Scene | None = None,
    allow_missing: bool = False,
    moving: bool = False,
) -> Scene:
    """Compose the content of the screen, except hint, lasso and field of view.

    Parameters
    ----------
    image, mask : TileReader
    view : Viewport
    display_settings : DisplaySettings
        Contrast and colors of the channels.
    object_styles : ObjectStyles, optional
        Colors of the objects; None for no overlay.
    opacity : float
        Opacity of the objects' fill, 0 to 1.
    outlines : bool
        Draw the outlines of the objects.
    selected : int or tuple of int
        Selected objects; 0 or () for none.
    spacing : float, optional
        Micrometers per pixel along a row, for the scale bar.
    previous : Scene, optional
        Last scene; unchanged layers are reused.
    allow_missing : bool
        Do not read tiles that take long: show cached values instead and list these tiles in ``missing``.
    moving : bool
        Whether the user is dragging the image; then a margin is drawn, too, in which the next view may lie.
    """
    frame = choose_frame(view, (previous.view, previous.frame) if previous else None, moving)
    old_image, old_raster = (previous.image, previous.raster) if previous else (None, None)
    where = frame, view.plane, allow_missing

    def render(key: Hashable, region: PlaneRegion) -> ImageLayer:
        return ImageLayer(key, render_pixels(region.values, display_settings), region.box)

    def rasterize(key: Hashable, region: PlaneRegion) -> ObjectRaster:
        return rasterize_objects(region, frame, max(1, round(view.dpr)), max(2, round(3 * view.dpr)), key)

    layer, image_missing = _refresh(old_image, image, display_settings, render, *where)
    raster, mask_missing = _refresh(old_raster, mask, (frame, view.dpr), rasterize, *where)
    ink = DARK_INK if layer.bright else BRIGHT_INK
    look = opacity, outlines, ink
    overlay = _compose_overlay(raster, object_styles, look, view.dpr, previous) if object_styles else None
    selection = _compose_selection(raster, selected, view.dpr, previous) if selected else None
    missing = (*image_missing, *mask_missing)
    return Scene(view, frame, raster, layer, overlay, selection, scale_bar(view.scale, spacing), ink, missing)


def tiles_to_read(image: TileReader, mask: TileReader, view: Viewport) -> tuple[TileGroup, ...]:
    """Return the tiles that `compose` would read for this view."""
    frame = choose_frame(view, None, moving=False)
    stride = stride_for(frame.scale)
    missing = (reader.missing(_box_under(frame, reader.shape), stride, view.plane) for reader in (image, mask))
    return tuple(itertools.chain(*missing))


def scale_bar(scale: float, spacing: float | None, max_length: float = 120.0) -> ScaleBar:
    """Return the longest round scale bar of at most ``max_length`` CSS pixels.

    Round lengths are 1, 2 or 5 times a power of ten.

    >>> scale_bar(scale=2.0, spacing=0.5).text
    '20 µm'
    >>> scale_bar(scale=2.0, spacing=None).text
    '50 px'
    """
    unit = spacing or 1.0
    longest = max_length / scale * unit
    decade = 10.0 ** math.floor(math.log10(longest))
    length = next(step * decade for step in (5, 2, 1) if step * decade <= longest * (1 + 1e-9))
    if spacing is None and length < 1:
        length = 1.0
    text = f"{length / 1000:g} mm" if spacing and length >= 1000 else f"{length:g} {'µm' if spacing else 'px'}"
    return ScaleBar(length / unit * scale, text)


def size_with_margin(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the largest frame for a screen of this size."""
    return size[0] + 2 * round(size[0] * MARGIN), size[1] + 2 * round(size[1] * MARGIN)


def choose_frame(view: Viewport, previous: tuple[Viewport, Frame] | None, moving: bool) -> Frame:
    """Return the previous frame if it covers the view, else a new one.

    A new frame has a margin only while the user drags the view: drawing a frame without a margin takes half the time,
    and most views are never dragged.

    Parameters
    ----------
    view : Viewport
    previous : (Viewport, Frame), optional
        View and frame of the last scene.
    moving : bool
        Whether the user is dragging the view.
    """
    if previous is not None and previous[0].dpr == view.dpr and previous[1].scale == view.device_scale:
        frame = previous[1]
        edges = zip(frame_offset(frame, view), frame.size, view.device_size)
        if all(start <= 0 and start + length >= screen for start, length, screen in edges):
            return frame
    scale, size = view.device_scale, size_with_margin(view.device_size) if moving else view.device_size
    origin = view.center[0] - size[0] / 2 / scale, view.center[1] - size[1] / 2 / scale
    return Frame(origin, scale, size)


def frame_offset(frame: Frame, view: Viewport) -> tuple[int, int]:
    """Return row and column of a frame's corner on the screen, in device pixels."""
    axes = zip(frame.origin, view.center, view.device_size)
    top, left = (round((start - center) * frame.scale + screen / 2) for start, center, screen in axes)
    return top, left


def _box_under(frame: Frame, shape: tuple[int, int]) -> PixelBox:
    """Return the pixels of an image of shape (Y, X) under a frame."""
    ends = (math.ceil(start + extent / frame.scale) for start, extent in zip(frame.origin, frame.size))
    return PixelBox(*map(math.floor, frame.origin), *ends).clipped(shape)


def _refresh(
    layer: _Layer | None,
    reader: TileReader,
    settings: Hashable,
    make: Callable[[Hashable, PlaneRegion], _Layer],
    frame: Frame,
    plane: int,
    allow_missing: bool,
) -> tuple[_Layer, tuple[TileGroup, ...]]:
    """Return a layer and its missing tiles; reuse the given layer if still valid."""
    box, stride = _box_under(frame, reader.shape), stride_for(frame.scale)
    source: tuple[Hashable, ...] = (reader, plane, box, stride, settings)
    if layer is not None and layer.key == (*source, ()):
        return layer, ()
    region = reader.read(box, stride, plane, allow_missing)
    key = (*source, region.missing)
    return layer if layer is not None and layer.key == key else make(key, region), region.missing


def _compose_overlay(
    raster: ObjectRaster, styles: ObjectStyles, look: tuple[float, bool, str], dpr: float, previous: Scene | None
) -> IndexedLayer:
    source, (opacity, outlines, ink) = (raster.key, styles.key, look), look
    before = previous.overlay if previous is not None else None
    if before is not None and before.source == source:
        return before
    # A new label changes the source, but only few labels belong to a visible object.
    key = raster.key, styles.styles, look, styles.style_indices(raster.objects).tobytes()
    if before is not None and before.key == key:
        return replace(before, source=source)
    table = overlay_color_table(styles, opacity, ink, raster.side / dpr)
    return IndexedLayer(source, key, overlay_codes(raster, styles, outlines), table, raster.offset)


def _compose_selection(
    raster: ObjectRaster, selected: int | tuple[int, ...], dpr: float, previous: Scene | None
) -> IndexedLayer | None:
    key = (raster.key, selected)
    if previous is not None and previous.selection is not None and previous.selection.key == key:
        return previous.selection
    lines = halos(raster, selected, inner=max(1, round(2 * dpr)), outer=max(1, round(dpr)))
    return IndexedLayer(key, key, lines[0], _SELECTION_COLORS, lines[1]) if lines else None
