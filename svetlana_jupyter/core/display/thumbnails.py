"""Small thumbnails of objects, all at one scale: what of the image lies around each, and where the object is.

Contract: however many objects are asked for, each block of the image and of the mask is visited once, and of a block no
more is read than what lies between the objects in it. What is held is the thumbnails and a few blocks.

An object of a volume from three sides, and the brightest of what lies around it: small enough to show beside it.

The page of a gallery as a picture: where its cells lie on the screen, and thumbnails drawn into them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import cv2
import dask.array as da
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from xarray import DataArray

from svetlana_jupyter.core.display.channels import DisplaySettings, render_pixels, rgb_of
from svetlana_jupyter.core.display.scene import BRIGHT_INK, DARK_INK, Hint
from svetlana_jupyter.core.io.chunks import index_last_axes
from svetlana_jupyter.core.io.pyramid import PyramidLevel

if TYPE_CHECKING:
    from svetlana_jupyter.core.io.image_pair import ImagePair

DepthMode = Literal["plane", "maximum"]

_FINER = (
    2  # samples a screen pixel, at most: averaged on the way to the screen, they show no patterns that are not there
)
THREADS = 4  # reading waits as much as it computes

Integers = NDArray[np.int64]
Block = tuple[int, ...]
Piece = tuple[int, slice, slice, NDArray[Any]]


@dataclass(frozen=True)
class ThumbnailSampling:
    """What a thumbnail holds.

    Attributes
    ----------
    step : int
        Image pixels between neighbouring samples.
    count : int
        Samples along a side.
    depth : {"plane", "maximum"}
        Of a volume: the plane through the object's centre, or the brightest value over the object's planes.
    """

    step: int
    count: int
    depth: DepthMode = "plane"

    @classmethod
    def of(cls, side: float, pixels: int, depth: DepthMode = "plane") -> ThumbnailSampling:
        """Return the cut for a square of ``side`` image pixels that is shown on ``pixels`` screen pixels.

        >>> ThumbnailSampling.of(50, 60), ThumbnailSampling.of(600, 60)
        (Cut(step=1, count=50, depth='plane'), Cut(step=5, count=120, depth='plane'))
        """
        step = max(1, int(side / (_FINER * pixels)))
        return cls(step, max(1, round(side / step)), depth)


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """One object and what lies around it.

    Attributes
    ----------
    values : array of shape (C, n, n)
        0 beyond the image's border.
    own : array of bool, shape (n, n)
        Where the object is; with a maximum projection, where any of its planes is.
    inside : tuple of slice
        The rows and columns that lie on the image.
    """

    values: NDArray[Any]
    own: NDArray[np.bool_]
    inside: tuple[slice, slice]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.own.nbytes


def take_thumbnails(pair: ImagePair, objects: pd.DataFrame, cut: ThumbnailSampling) -> list[Thumbnail]:
    """Cut one thumbnail for each object, the object in its middle.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    cut : Cut

    Returns
    -------
    list of Thumbnail
        In the order of ``objects``.
    """
    image, mask = _Source.of(pair.image, pair.levels, pair.ndim), _Source.of(pair.mask, pair.mask_levels, pair.ndim)
    places = [_samples(row, pair.mask.shape, cut) for row in objects.to_dict("records")]
    labels = objects.index.to_numpy(np.int64)
    flat = (len(objects), cut.count, cut.count)
    dtype = np.result_type(pair.image.dtype, np.uint8)  # booleans have no brightness
    values = np.full((len(objects), pair.image.shape[0], *flat[1:]), _least(dtype), dtype)
    own = np.zeros(flat, bool)
    for k, rows, columns, piece in _pieces(image, places, lambda pixels, k: pixels, np.fmax):
        here = values[k, :, rows, columns]
        np.fmax(here, piece, out=here)
    for k, rows, columns, piece in _pieces(mask, places, lambda pixels, k: pixels == labels[k], np.logical_or):
        own[k, rows, columns] |= piece
    height, width = pair.mask.shape[-2:]
    inside = [(_on_image(place[-2], height), _on_image(place[-1], width)) for place in places]
    for k, (rows, columns) in enumerate(inside):
        beyond = np.ones(flat[1:], bool)
        beyond[rows, columns] = False
        values[k][:, beyond] = 0
    # Copies: one that is kept must not hold the memory of all.
    return [Thumbnail(v.copy(), o.copy(), i) for v, o, i in zip(values, own, inside)]


@dataclass(frozen=True)
class _Source:
    """Pixels to be read in parts: ``edges`` are those of its blocks along ``([z,] y, x)``."""

    data: da.Array
    level: PyramidLevel | None
    edges: tuple[Integers, ...]

    @classmethod
    def of(cls, array: DataArray, levels: Sequence[PyramidLevel], ndim: int) -> Self:
        data = da.asarray(array.data)
        edges = tuple(np.concatenate([[0], np.cumsum(sizes)]) for sizes in data.chunks[-ndim:])
        return cls(data, levels[0] if levels and ndim == 2 else None, edges)

    def read(self, low: Sequence[int], high: Sequence[int]) -> NDArray[Any]:
        """Read a part, of shape (..., *high - low)."""
        window = tuple(slice(start, stop) for start, stop in zip(low, high))
        if self.level is not None:  # asked directly, the file answers in half the time that dask takes
            return self.level.read(window[0], window[1])
        part: NDArray[Any] = self.data[index_last_axes(window)].compute(scheduler="synchronous")
        return part


def _samples(row: dict[Any, Any], shape: tuple[int, ...], cut: ThumbnailSampling) -> list[Integers]:
    """Return the planes, rows and columns of an object's samples; rows and columns may lie beyond the image."""
    reach = (cut.count - 1) / 2 * cut.step
    axes = [np.floor(row[axis] - reach + 0.5).astype(int) + cut.step * np.arange(cut.count) for axis in "yx"]
    if len(shape) == 2:
        return axes
    if cut.depth == "maximum":
        return [np.arange(int(row["z0"]), int(row["z1"])), *axes]
    return [np.array([min(max(round(row["z"]), 0), shape[0] - 1)]), *axes]


def _pieces(
    source: _Source,
    places: Sequence[list[Integers]],
    look: Callable[[NDArray[Any], int], NDArray[Any]],
    over_planes: np.ufunc,
) -> Iterator[Piece]:
    """Yield the parts of all thumbnails, block by block: number, rows and columns in the thumbnail, what is there."""
    ndim = len(source.edges)
    wanted: dict[Block, list[tuple[int, tuple[slice, ...]]]] = {}
    for k, axes in enumerate(places):
        for spans in itertools.product(*(_spans(samples, edge) for samples, edge in zip(axes, source.edges))):
            wanted.setdefault(tuple(block for block, _ in spans), []).append((k, tuple(part for _, part in spans)))

    def read(block: Block) -> list[Piece]:
        parts = [(k, part, [axis[one] for axis, one in zip(places[k], part)]) for k, part in wanted[block]]
        low = [min(int(at[axis][0]) for _, _, at in parts) for axis in range(ndim)]
        high = [max(int(at[axis][-1]) for _, _, at in parts) + 1 for axis in range(ndim)]
        pixels = source.read(low, high)
        found = []
        for k, part, at in parts:
            piece = look(pixels[index_last_axes(map(_within, at, low))], k)
            found.append((k, part[-2], part[-1], over_planes.reduce(piece, axis=-3) if ndim == 3 else piece))
        return found

    with ThreadPoolExecutor(THREADS, thread_name_prefix="thumbnails") as pool:
        blocks = sorted(wanted)
        for first in range(0, len(blocks), 2 * THREADS):
            for found in pool.map(read, blocks[first : first + 2 * THREADS]):
                yield from found


def _spans(samples: Integers, edges: Integers) -> list[tuple[int, slice]]:
    """Return which blocks along an axis ascending samples lie in, and which samples those are."""
    bounds = np.searchsorted(samples, edges)
    return [(i, slice(int(a), int(b))) for i, (a, b) in enumerate(itertools.pairwise(bounds)) if b > a]


def _within(samples: Integers, start: int) -> slice:
    """Return evenly spaced samples as a slice of what was read from ``start`` on."""
    step = int(samples[1] - samples[0]) if len(samples) > 1 else 1
    return slice(int(samples[0]) - start, int(samples[-1]) - start + 1, step)


def _on_image(samples: Integers, extent: int) -> slice:
    return slice(*(int(i) for i in np.searchsorted(samples, [0, extent])))


def _least(dtype: np.dtype[Any]) -> Any:
    return np.iinfo(dtype).min if dtype.kind in "iu" else np.finfo(dtype).min


SIDES = ("xy", "xz", "zy", "maximum")

_AROUND = 2.0  # how much wider than the object
_LEAST = 24.0  # rows: an object of a few voxels is not magnified to nothing but itself
_MOST = 128  # samples a side


@dataclass(frozen=True, eq=False)
class OrthoView:
    """A cut through a volume, or its projection.

    Attributes
    ----------
    values : array of shape (C, h, w)
        0 beyond the volume.
    own : array of bool, shape (h, w)
        Where the object is.
    size : tuple of float
        Height and width of the part of the volume it shows, in widths of a pixel: samples need not be squares.
    """

    values: NDArray[Any]
    own: NDArray[np.bool_]
    size: tuple[float, float]


def take_orthoviews(
    image: DataArray, mask: DataArray, label: int, row: pd.Series, spacing: Sequence[float] | None
) -> dict[str, OrthoView]:
    """Cut a volume through the middle of an object.

    Parameters
    ----------
    image : DataArray of shape (C, Z, Y, X)
    mask : DataArray of shape (Z, Y, X), integer
    label : int
    row : Series
        Its row of `core.objects.index_objects`.
    spacing : sequence of float, optional
        Voxel size ``(z, y, x)``; cubes where it is not known.

    Returns
    -------
    dict of str to Section
        By `SIDES`: the plane seen from above ("xy"), from the front ("xz": planes downwards) and from the side ("zy":
        planes to the right), and the brightest value along z around the object ("maximum"). All show a cube of the same
        size with the object's centroid in its middle.
    """
    sizes = np.array(spacing or (1.0, 1.0, 1.0)) / (spacing or (1.0,))[-1]
    longest = max(_LEAST, *((row[f"{axis}1"] - row[f"{axis}0"]) * size for axis, size in zip("zyx", sizes)))
    side = _AROUND * longest
    counts = np.maximum(3, np.round(side / sizes)).astype(int) | 1  # odd, so that the centroid is a sample
    steps = -(-counts // _MOST)
    halves = counts // steps // 2
    middle = np.clip([round(row[axis]) for axis in "zyx"], 0, np.array(mask.shape) - 1)
    places = [center + step * np.arange(-half, half + 1) for center, step, half in zip(middle, steps, halves)]
    values, own = _at(image, places), _at(mask, places) == label
    z, y, x = halves
    deep, high, wide = (float((2 * half + 1) * step * size) for half, step, size in zip(halves, steps, sizes))
    return {
        "xy": OrthoView(values[:, z], own[z], (high, wide)),
        "xz": OrthoView(values[:, :, y], own[:, y], (deep, wide)),
        "zy": OrthoView(values[..., x].swapaxes(1, 2), own[..., x].T, (high, deep)),
        "maximum": OrthoView(values.max(axis=1), own.any(axis=0), (high, wide)),
    }


def _at(array: DataArray, places: list[NDArray[np.int64]]) -> NDArray[Any]:
    """Return the voxels at evenly spaced places along the last axes, 0 beyond the volume."""
    inside = [np.flatnonzero((at >= 0) & (at < n)) for at, n in zip(places, array.shape[-3:])]
    window = tuple(slice(int(at[k[0]]), int(at[k[-1]]) + 1, int(at[1] - at[0])) for at, k in zip(places, inside))
    part = array.data[(..., *window)]
    part = np.asarray(part.compute(scheduler="synchronous") if hasattr(part, "compute") else part)
    voxels = np.zeros((*array.shape[:-3], *map(len, places)), part.dtype)
    z, y, x = (slice(int(k[0]), int(k[-1]) + 1) for k in inside)
    voxels[..., z, y, x] = part
    return voxels


GAP_COLORS = {DARK_INK: "#e4e4e4", BRIGHT_INK: "#1b1b1b"}  # between the cells, quiet against what is in them
_BRIGHT = 140
_STRENGTH, _SOFT = 0.9, 0.7  # of outlines: how strong, and over how many pixels they fade
_SHARP = 3.0  # screen pixels a sample: from here on magnified samples stay squares, as in the viewer


@dataclass(frozen=True)
class GridLayout:
    """Cells of one size, row by row, in CSS pixels: a square picture with a line of words below it.

    Attributes
    ----------
    size : tuple of int
        Height and width of the screen.
    columns : int
    gap : int
        Between the cells, and around them.
    line : int
        Height of the words.

    >>> grid = GridLayout((484, 648), columns=10)
    >>> grid.side, grid.rows, grid.count, grid.cell_at(*grid.corner(11)) == 11
    (57, 6, 60, True)
    """

    size: tuple[int, int]
    columns: int
    gap: int = 7
    line: int = 15

    @property
    def side(self) -> int:
        """Side of the thumbnails_with_display."""
        return (self.size[1] - self.gap) // self.columns - self.gap

    @property
    def pitch(self) -> tuple[int, int]:
        """Rows and columns from one cell to the next."""
        return self.side + self.line + self.gap, self.side + self.gap

    @property
    def rows(self) -> int:
        return max(1, (self.size[0] - self.gap) // self.pitch[0])

    @property
    def count(self) -> int:
        """Cells of a page."""
        return self.rows * self.columns

    def corner(self, cell: int) -> tuple[int, int]:
        """Return the row and column of the top left corner of a cell's picture."""
        beside = self.size[1] - self.gap - self.columns * self.pitch[1]  # what does not divide, on both sides
        row, column = divmod(cell, self.columns)
        return self.gap + row * self.pitch[0], self.gap + beside // 2 + column * self.pitch[1]

    def cell_at(self, row: float, column: float) -> int:
        """Return the cell at a point of the screen, half of the gaps included; -1 beside all cells."""
        top, left = self.corner(0)
        down = math.floor((row - top + self.gap / 2) / self.pitch[0])
        right = math.floor((column - left + self.gap / 2) / self.pitch[1])
        return down * self.columns + right if 0 <= down < self.rows and 0 <= right < self.columns else -1


@dataclass(frozen=True)
class CellCaption:
    """What a cell says of its object.

    Attributes
    ----------
    color : str
        ``"#rrggbb"`` of the frame; empty where nothing is known.
    firm : bool
        A person said so: a thick frame. Else a classifier: a thin one.
    name, share : str
        The words on the left and on the right below the picture.
    """

    color: str = ""
    is_annotated: bool = False
    name: str = ""
    share: str = ""


@dataclass(frozen=True, eq=False)
class GridScene:
    """One state of the gallery's screen.

    Attributes
    ----------
    grid : Grid
    dpr : float
        Device pixels a CSS pixel.
    key : hashable
        What the picture was made from: equal keys, equal pixels.
    pixels : array of uint8, shape (h, w, 3)
        The thumbnails, in device pixels.
    ink : str
        The colour of words over the picture's ground.
    tiles : tuple of Tile
    chosen : frozenset of int
        The cells that are selected.
    cursor : int
        The cell that keys move from; -1 for none.
    hint : Hint or None
    words : str
        A sentence in the middle, where there are no cells.
    """

    grid: GridLayout
    dpr: float
    key: Hashable
    pixels: NDArray[np.uint8]
    ink: str
    cell_captions: tuple[CellCaption, ...]
    chosen: frozenset[int] = frozenset()
    cursor: int = -1
    hint: Hint | None = None
    message: str = ""


def draw_thumbnail_grid(
    thumbnails_with_display: Sequence[tuple[Thumbnail, DisplaySettings] | None],
    grid: GridLayout,
    dpr: float = 1.0,
    outlines: bool = True,
) -> tuple[NDArray[np.uint8], str]:
    """Draw thumbnails into the cells of a page.

    Parameters
    ----------
    thumbnails_with_display : sequence of (Thumbnail, Palette) or None
        Each with its contrast and colours; None where a thumbnail is not there yet, or cannot be read.
    grid : Grid
    dpr : float
    outlines : bool
        Draw a line around each object.

    Returns
    -------
    pixels : array of uint8, shape (h, w, 3)
    ink : str
        The colour for words between the thumbnails_with_display.
    """
    shown = {cell: (one[0], _colored(*one)) for cell, one in enumerate(thumbnails_with_display) if one is not None}
    seen = [np.median(picture[thumbnail.inside]) for thumbnail, picture in shown.values()]
    ink = DARK_INK if seen and np.median(seen) > _BRIGHT else BRIGHT_INK
    ground = rgb_of(GAP_COLORS[ink])
    sheet = np.full((*(round(extent * dpr) for extent in grid.size), 3), ground, np.uint8)
    side = round(grid.side * dpr)
    for cell, (thumbnail, picture) in shown.items():
        beyond = np.ones(picture.shape[:2], bool)
        beyond[thumbnail.inside] = False
        picture[beyond] = ground
        scaled = _resized(picture, side)
        if outlines:
            _outline(scaled, thumbnail.own, max(1, round(dpr)), ink)
        top, left = (round(at * dpr) for at in grid.corner(cell))
        sheet[top : top + side, left : left + side] = scaled
    return sheet, ink


def _colored(thumbnail: Thumbnail, display_settings: DisplaySettings) -> NDArray[np.uint8]:
    picture = render_pixels(thumbnail.values, display_settings)
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else np.ascontiguousarray(picture)


def _resized(picture: NDArray[Any], side: int) -> NDArray[Any]:
    count = len(picture)
    how = cv2.INTER_AREA if count > side else cv2.INTER_NEAREST if side > _SHARP * count else cv2.INTER_LINEAR
    return np.ascontiguousarray(cv2.resize(picture, (side, side), interpolation=how))


def _outline(picture: NDArray[np.uint8], own: NDArray[np.bool_], width: int, ink: str) -> None:
    """Draw a soft line along the border of an object, smooth where the samples are magnified."""
    side = len(picture)
    share = cv2.resize(own.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    share = cv2.GaussianBlur(share, (0, 0), max(_SOFT, _SOFT * side / len(own)), borderType=cv2.BORDER_REPLICATE)
    down, right = np.gradient(share)
    slope = np.maximum(np.hypot(down, right), 1e-3)
    far = np.abs(share - 0.5) / slope  # pixels from the border, near it
    strength = np.clip(width / 2 + _SOFT - far, 0, 1)[..., None] * _STRENGTH
    picture[:] = np.rint(picture * (1 - strength) + np.array(rgb_of(ink)) * strength)
