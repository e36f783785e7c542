"""Map of objects: dots in a plane, in the colors of their classes.

Geometry (`DotRaster`), which changes with the zoom, is separate from colors (`PointStyles`), which change with labels:
recoloring 100,000 dots takes one table lookup. All layers are images of palette indices, as in the viewer, because an
RGBA image of the screen would take a hundred times as long to encode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.core.classes import PALETTE
from svetlana_jupyter.core.display.channels import rgb_of
from svetlana_jupyter.core.display.overlay import Frame, halo
from svetlana_jupyter.core.display.scene import Hint, IndexedLayer, choose_frame, frame_offset
from svetlana_jupyter.core.display.selection import Point, points_in_polygon

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.core.display.viewport import Viewport

EXTENT = 1000  # longest side of a map, in its own units
NEUTRAL = "#8c8c8c"  # dots without a class, visible on a bright and on a dark page
MAX_COLORS = 84  # three opacities of each color, and a transparent one, in one byte
PROBABILITY_COLORS = ("#6a51a3", "#3a78b5", "#2a9d8f", "#7fbf4d", "#e9d032")  # unlikely to certain
_STEPS = 40  # colors of the probability scale
_DOT_SHARE = 0.18  # radius of a dot, relative to the mean distance of evenly spread points
_MIN_RADIUS, _MAX_RADIUS = 1.8, 4.5  # CSS pixels
_LABELED_RADIUS, _RING, _OUTLINE = 5.0, 2.0, 1.0  # CSS pixels: dot of a labeled object, its white ring, a dark line
_ALPHAS = (225, 150, 75)  # inside a dot, and on its edge, where it covers a part of a pixel
_STAMPED = 1 << 18  # pixels that are drawn at a time; larger parts leave the processor's cache
_SELECTION = np.array([[0, 0, 0, 0], [255, 255, 255, 255], [0, 0, 0, 255]], np.uint8)


@dataclass(frozen=True, eq=False)
class PointMap:
    """Points of a map, in units in which the longest side is `EXTENT`.

    Attributes
    ----------
    points : array of float32, shape (n, 2)
        ``(y, x)`` of each object; y points down. NaN for objects that have no place.
    shape : tuple of int
        Height and width of the map.
    """

    points: NDArray[np.float32]
    shape: tuple[int, int]

    @classmethod
    def from_coordinates(cls, coordinates: NDArray[np.floating]) -> PointMap:
        """Return a map of objects with the given coordinates.

        Parameters
        ----------
        coordinates : array of float, shape (n, 2)
            Along the first axis, which points right, and along the second axis, which points up. Both have the same
            scale on the map. NaN for objects without a place.
        """
        has_place = np.isfinite(coordinates).all(axis=1)
        points = np.full((len(coordinates), 2), np.nan, np.float32)
        if not has_place.any():
            return cls(points, (EXTENT, EXTENT))
        placed = coordinates[has_place]
        low, high = placed.min(axis=0), placed.max(axis=0)
        unit = float((high - low).max()) / EXTENT or 1.0
        width, height = (max(1, math.ceil(extent)) for extent in (high - low) / unit)
        points[has_place] = np.stack([high[1] - placed[:, 1], placed[:, 0] - low[0]], axis=1) / unit
        return cls(points, (height, width))

    @cached_property
    def placed(self) -> NDArray[np.int64]:
        """Positions of the objects that have a place, in the order of drawing.

        The order is random, so that the last image or class does not cover all others.
        """
        rows = np.flatnonzero(np.isfinite(self.points).all(axis=1))
        return np.random.default_rng(0).permutation(rows)

    def nearest(self, y: float, x: float, reach: float, candidates: NDArray[np.bool_]) -> int:
        """Return the position of the nearest point within ``reach``, or -1.

        All points are compared: 100,000 of them take less than a millisecond.

        Parameters
        ----------
        y, x, reach : float
            In units of the map.
        candidates : array of bool, shape (n,)
        """
        if not len(self.points):
            return -1
        distances = np.square(self.points[:, 0] - y) + np.square(self.points[:, 1] - x)
        distances[~(candidates & (distances <= reach**2))] = np.inf  # also where it is NaN
        best = int(distances.argmin())
        return best if np.isfinite(distances[best]) else -1

    def inside(self, corners: Sequence[Point], candidates: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the positions of the points inside a closed polygon, ascending.

        Parameters
        ----------
        corners : sequence of (y, x)
        candidates : array of bool, shape (n,)
        """
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        near = candidates & ((self.points >= low) & (self.points <= high)).all(axis=1)
        rows = np.flatnonzero(near)
        return rows[points_in_polygon(self.points[rows], corners)]


@dataclass(frozen=True, eq=False)
class PointStyles:
    """Appearance of the points of a map.

    Attributes
    ----------
    key : hashable
        Equal for equal styles, so that an unchanged layer is not sent again.
    colors : tuple of str
        ``"#rrggbb"``, at most `MAX_COLORS`.
    codes : array of uint8, shape (n,)
        Position of each point's color in ``colors``.
    labeled : array of int, shape (m,)
        Positions of the labeled objects, which are drawn larger, with a white ring, above all others.
    others : array of int, shape (m,), optional
        For each labeled object, the position of the color of its predicted class if that differs from its label, else
        -1. The ring has this color.
    hidden : array of bool, shape (n,)
        Objects of the test set that are not annotated yet. Their place between points of a class would give away their
        own, so that they are drawn in the neutral color and cannot be identified, selected or marked.
    faded : array of bool, shape (n,), optional
        Objects that a filter leaves out: they are drawn in the neutral color, and cannot be selected on the map.
    """

    key: Hashable
    colors: tuple[str, ...]
    codes: NDArray[np.uint8]
    labeled: NDArray[np.int64]
    hidden: NDArray[np.bool_]
    others: NDArray[np.int64] | None = None
    faded: NDArray[np.bool_] | None = None

    @property
    def candidates(self) -> NDArray[np.bool_]:
        """Which objects (n,) can be pointed at and selected."""
        return ~self.hidden if self.faded is None else ~(self.hidden | self.faded)


def class_codes(class_ids: NDArray[np.integer], classes: ClassScheme) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Return the colors of classes, and the code (n,) of each class id.

    Objects without a class (id 0) are neutral, and so are classes beyond `MAX_COLORS` different colors.
    """
    colors = tuple(dict.fromkeys([NEUTRAL, *(info.color for info in classes)]))[:MAX_COLORS]
    table = np.zeros(1 + max([int(class_ids.max(initial=0)), *classes.ids]), np.uint8)
    for info in classes:
        table[info.id] = colors.index(info.color) if info.color in colors else 0
    return colors, table[class_ids]


def probability_codes(probabilities: NDArray[np.floating], classes: int) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Return a color scale, and the code (n,) of the probability of each prediction.

    The scale begins at the lowest probability that a predicted class can have, one divided by the number of classes.
    Objects without a prediction (NaN) are neutral.
    """
    steps = np.linspace(0, len(PROBABILITY_COLORS) - 1, _STEPS)
    rgb = np.array([rgb_of(color) for color in PROBABILITY_COLORS], float)
    ramp = np.stack([np.interp(steps, range(len(rgb)), rgb[:, channel]) for channel in range(3)], axis=1)
    colors = (NEUTRAL, *(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in ramp.round().astype(int).tolist()))
    lowest = 1 / max(2, classes)
    places = np.clip((np.nan_to_num(probabilities) - lowest) / (1 - lowest), 0, 1) * (_STEPS - 1)
    return colors, np.where(np.isfinite(probabilities), 1 + np.rint(places), 0).astype(np.uint8)


def image_codes(images: NDArray[np.integer]) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Return a palette, and the code (n,) of the number of each object's image.

    More images than the palette has colors share them in turn.
    """
    return (NEUTRAL, *PALETTE), (1 + images % len(PALETTE)).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class MapScene:
    """Content of the screen of a map at one time.

    Attributes
    ----------
    view : Viewport
    frame : Frame
        Raster that the layers fill. It covers the view, possibly with a margin.
    dots : IndexedLayer
    labeled, selection : IndexedLayer or None
    raster : DotRaster
        Geometry of ``dots``, reused by the next scene.
    ink : str
        Color of text on the map.
    lasso : tuple of (y, x)
        Corners of the box or lasso that the user is drawing, in units of the map.
    hint : Hint or None
    picture : array of uint8 or None
        Thumbnail (h, w, 3) of the object under the pointer, in device pixels, above the hint.
    caption : str
        Text in the lower left corner.
    message : str
        Text in the middle of a map without points.
    """

    view: Viewport
    frame: Frame
    raster: DotRaster
    dots: IndexedLayer
    labeled: IndexedLayer | None
    selection: IndexedLayer | None
    ink: str
    lasso: tuple[Point, ...] = ()
    hint: Hint | None = None
    picture: NDArray[np.uint8] | None = None
    caption: str = ""
    message: str = ""

    @property
    def offset(self) -> tuple[int, int]:
        """Row and column of the frame's corner on the screen, in device pixels."""
        return frame_offset(self.frame, self.view)


def compose_map(
    point_map: PointMap,
    styles: PointStyles,
    view: Viewport,
    ink: str,
    *,
    selected: NDArray[np.int64],
    selection_key: Hashable = None,
    previous: MapScene | None = None,
    moving: bool = False,
) -> MapScene:
    """Compose the content of the screen: the layers of dots, without any text.

    Parameters
    ----------
    point_map : PointMap
    styles : PointStyles
    view : Viewport
        In units of the map.
    ink : str
    selected : array of int, shape (m,)
        Positions of the selected objects; hidden ones are not marked.
    selection_key : hashable
        Equal for equal selections.
    previous : MapScene, optional
        Last scene; unchanged layers are reused.
    moving : bool
        Whether the user is dragging the map; then a margin is drawn, too.
    """
    last = (previous.dots, previous.labeled, previous.selection) if previous else (None, None, None)
    frame = choose_frame(view, (previous.view, previous.frame) if previous else None, moving)
    radius = dot_radius(view.scale, len(point_map.placed)) * view.dpr
    large = max(_LABELED_RADIUS * view.dpr, radius), _RING * view.dpr, _OUTLINE * view.dpr
    geometry: tuple[Hashable, ...] = (point_map, frame, radius)
    raster = previous.raster if previous else None
    if raster is None or raster.key != geometry:
        raster = DotRaster(geometry, stamp(point_map.points[point_map.placed], frame, disk_sprite((radius,))))
    key = (*geometry, styles.key)
    dots = _unchanged(last[0], key) or _color_dots(raster, point_map, styles, key)
    labeled = _unchanged(last[1], key) or _color_labeled(point_map, styles, frame, large, key)
    key = (*key, selection_key)
    line = max(1, round((2 if len(selected) == 1 else 1) * view.dpr))  # thin lines between many selected dots
    radii, widths = (radius, sum(large)), (line, line)
    marked = _unchanged(last[2], key) or _mark_selected(point_map, styles, selected, frame, radii, widths, key)
    return MapScene(view, frame, raster, dots, labeled, marked, ink)


def _unchanged(layer: IndexedLayer | None, key: Hashable) -> IndexedLayer | None:
    return layer if layer is not None and layer.key == key else None


def dot_radius(scale: float, count: int) -> float:
    """Return the radius of a dot in CSS pixels.

    Dots are smaller where points are dense, and grow when the user zooms in.

    Parameters
    ----------
    scale : float
        CSS pixels per unit of the map.
    count : int
        Number of points on the map.
    """
    distance = EXTENT / math.sqrt(max(count, 1)) * scale
    return round(min(max(_DOT_SHARE * distance, _MIN_RADIUS), _MAX_RADIUS), 1)


@dataclass(frozen=True, eq=False)
class Sprite:
    """Pixels of a dot around its center.

    Attributes
    ----------
    offsets : array of int, shape (k, 2)
        Row and column of each pixel, relative to the center.
    zones : array of int, shape (k,)
        From the center out. Disk number i of the sprite has the zones 3 i (fully covered), 3 i + 1 and 3 i + 2 (edge).
    count : int
        Number of zones; a small disk may lack some.
    """

    offsets: NDArray[np.int64]
    zones: NDArray[np.int64]
    count: int

    @property
    def reach(self) -> int:
        """Largest distance of a pixel from the center, along a row or a column."""
        return int(np.abs(self.offsets).max(initial=0))


@dataclass(frozen=True, eq=False)
class DotRaster:
    """Topmost dot of each device pixel; ``codes`` as returned by `stamp`."""

    key: tuple[Hashable, ...]
    codes: NDArray[np.int32]


def disk_sprite(radii: Sequence[float]) -> Sprite:
    """Return the pixels of concentric disks.

    Parameters
    ----------
    radii : sequence of float
        Ascending, in device pixels. A pixel belongs to the smallest disk that covers a part of it.
    """
    reach = math.ceil(radii[-1])
    rows, columns = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    distance = np.hypot(rows, columns)
    zones = np.full(len(rows), -1)
    for disk in reversed(range(len(radii))):
        coverage = np.clip(radii[disk] + 0.5 - distance, 0, 1)
        edge = np.clip(np.floor((1 - coverage) * 3 + 0.5), 0, 3)  # 0 complete, 3 nothing
        zones = np.where(edge < 3, 3 * disk + edge, zones).astype(int)
    drawn = zones >= 0
    return Sprite(np.stack([rows[drawn], columns[drawn]], axis=1), zones[drawn], 3 * len(radii))


def stamp(points: NDArray[np.floating], frame: Frame, sprite: Sprite) -> NDArray[np.int32]:
    """Draw a sprite at each point; later points cover earlier ones.

    Of the points that share a pixel, only the last is drawn, so that the time is limited by the size of the frame.

    Parameters
    ----------
    points : array of float, shape (n, 2)
        ``(y, x)`` in units of the map.
    frame : Frame
    sprite : Sprite

    Returns
    -------
    array of int32, shape (h, w)
        0 where there is no point, else ``1 + i * sprite.count + zone``, with the position i of the topmost point.
    """
    reach = sprite.reach
    height, width = (extent + 2 * reach for extent in frame.size)
    pixels = np.floor((points - np.array(frame.origin)) * frame.scale).astype(np.int64) + reach
    visible = np.flatnonzero(((pixels >= 0) & (pixels < (height, width))).all(axis=1))
    last = np.full(height * width, -1, np.int32)
    last[pixels[visible, 0] * width + pixels[visible, 1]] = visible
    places = np.flatnonzero(last >= 0)
    order = np.argsort(last[places])
    places, numbers = places[order], last[places][order]
    # A border as wide as the sprite on each side, so that no pixel of a dot at the edge lies outside of the array.
    canvas = np.zeros((height + 2 * reach) * (width + 2 * reach), np.int32)
    rows, columns = np.divmod(places, width)
    centers = (rows + reach) * (width + 2 * reach) + columns + reach
    offsets = sprite.offsets[:, 0] * (width + 2 * reach) + sprite.offsets[:, 1]
    step = max(1, _STAMPED // len(offsets))
    for start in range(0, len(centers), step):
        part = slice(start, start + step)
        # Of equal indices, NumPy assigns the value of the last.
        canvas[centers[part, None] + offsets] = 1 + numbers[part, None] * sprite.count + sprite.zones.astype(np.int32)
    raster = canvas.reshape(height + 2 * reach, width + 2 * reach)
    inner = slice(2 * reach, 2 * reach + frame.size[0]), slice(2 * reach, 2 * reach + frame.size[1])
    return np.ascontiguousarray(raster[inner])


def _color_dots(raster: DotRaster, point_map: PointMap, styles: PointStyles, key: Hashable) -> IndexedLayer:
    """Look up the color of each dot; color i has the palette rows 3 i + 1 to 3 i + 3."""
    codes = np.where(styles.candidates, styles.codes, 0)[point_map.placed] if len(styles.codes) else styles.codes
    table = np.zeros(1 + 3 * len(codes), np.uint8)
    table[1:] = (1 + 3 * codes.astype(np.int64)[:, None] + np.arange(3)).ravel()
    palette = np.zeros((1 + 3 * len(styles.colors), 4), np.uint8)
    for i, color in enumerate(styles.colors):
        for step, alpha in enumerate(_ALPHAS):
            palette[1 + 3 * i + step] = (*rgb_of(color), alpha)
    return IndexedLayer(key, key, np.take(table, raster.codes), palette, (0, 0))


def _color_labeled(
    point_map: PointMap, styles: PointStyles, frame: Frame, large: Sequence[float], key: Hashable
) -> IndexedLayer | None:
    """Draw labeled objects: a dot, a ring and a dark line around it.

    The ring is white or, where the prediction differs from the label, in the color of the prediction. Palette rows:
    nothing, the white ring, two opacities of the line, then two rows per color, the second mixed with white.
    """
    has_place = np.isfinite(point_map.points[styles.labeled]).all(axis=1) & styles.candidates[styles.labeled]
    rows = styles.labeled[has_place]
    if not len(rows):
        return None
    others = np.full(len(rows), -1) if styles.others is None else styles.others[has_place]
    sprite = disk_sprite(np.cumsum(large).tolist())
    raster = stamp(point_map.points[rows], frame, sprite)
    colors = 4 + 2 * styles.codes[rows].astype(np.int64)[:, None]
    ring = np.where(others < 0, 1, 4 + 2 * others)[:, None]
    line = np.broadcast_to(np.array([2, 2, 3, 3]), (len(rows), 4))
    table = np.concatenate([colors, colors + 1, ring, ring, ring, line], axis=1)
    palette = np.zeros((4 + 2 * len(styles.colors), 4), np.uint8)
    palette[1:4] = (255, 255, 255, 255), (40, 40, 40, 190), (40, 40, 40, 80)
    for i, color in enumerate(styles.colors):
        rgb = np.array(rgb_of(color))
        palette[4 + 2 * i], palette[5 + 2 * i] = (*rgb, 255), (*((rgb + 255) // 2), 255)
    lookup = np.concatenate([[0], table.ravel()]).astype(np.uint8)
    return IndexedLayer(key, key, np.take(lookup, raster), palette, (0, 0))


def _mark_selected(
    point_map: PointMap,
    styles: PointStyles,
    selected: NDArray[np.int64],
    frame: Frame,
    radii: tuple[float, float],
    widths: tuple[int, int],
    key: Hashable,
) -> IndexedLayer | None:
    """Draw a double line around selected dots; where they touch, around all of them.

    All lengths are in device pixels: ``radii`` of a dot and of a labeled object, ``widths`` of the two lines.
    """
    shown = selected[np.isfinite(point_map.points[selected]).all(axis=1) & ~styles.hidden[selected]]
    if not len(shown):
        return None
    is_labeled = np.isin(shown, styles.labeled)
    shape = np.zeros(frame.size, bool)
    for rows, radius in ((shown[~is_labeled], radii[0]), (shown[is_labeled], radii[1])):
        if len(rows):
            shape |= stamp(point_map.points[rows], frame, disk_sprite((radius + widths[0],))) > 0
    return IndexedLayer(key, key, halo(shape, *widths), _SELECTION, (0, 0))
