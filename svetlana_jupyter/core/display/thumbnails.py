"""Object thumbnails, orthogonal views of objects in volumes, and gallery pages.

However many objects are requested, each block of image and mask is visited once, and only the bounding box of the
samples in it is read. Only the thumbnails and a few blocks are held in memory.
"""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.display.channels import DisplaySettings, as_rgb, render_pixels, rgb_of
from svetlana_jupyter.core.display.scene import BRIGHT_INK, DARK_INK, Hint
from svetlana_jupyter.core.io.chunks import compute_array, index_last_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import pandas as pd
    from xarray import DataArray

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.io.pyramid import PyramidLevel

DepthMode = Literal["plane", "maximum"]
Integers = NDArray[np.int64]

THREADS = 4  # may exceed the number of cores, since reading waits as long as it computes
SIDES = ("xy", "xz", "zy", "maximum")

_OVERSAMPLING = 2  # maximum samples per screen pixel; averaging them avoids aliasing
_ORTHOVIEW_CONTEXT = 2.0  # side of an orthogonal view, relative to the object's longest side
_ORTHOVIEW_MIN_SIDE = 24.0  # pixels, so that the surroundings of an object of a few voxels are visible, too
_ORTHOVIEW_MAX_SAMPLES = 128  # per side
_BRIGHT = 140  # median gray level above which the ink is dark
_BACKGROUND = 128  # gray level of what is not shown
_OUTLINE_OPACITY, _OUTLINE_BLUR = 0.9, 0.7  # blur in pixels
_NEAREST_FROM = 3.0  # screen pixels per sample above which samples are drawn as squares, as in the viewer


@dataclass(frozen=True)
class ThumbnailSampling:
    """Sampling grid of a thumbnail.

    Attributes
    ----------
    step : int
        Image pixels between neighboring samples.
    count : int
        Samples per side.
    depth : {"plane", "maximum"}
        For volumes: the plane through the object's centroid, or the maximum projection over the object's planes.
    """

    step: int
    count: int
    depth: DepthMode = "plane"

    @classmethod
    def of(cls, side: float, pixels: int, depth: DepthMode = "plane") -> ThumbnailSampling:
        """Return the sampling of ``side`` image pixels for ``pixels`` screen pixels.

        >>> ThumbnailSampling.of(50, 60), ThumbnailSampling.of(600, 60)  # doctest: +NORMALIZE_WHITESPACE
        (ThumbnailSampling(step=1, count=50, depth='plane'),
         ThumbnailSampling(step=5, count=120, depth='plane'))
        """
        step = max(1, int(side / (_OVERSAMPLING * pixels)))
        return cls(step, max(1, round(side / step)), depth)


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """Pixels of one object and its surroundings.

    Attributes
    ----------
    values : array of shape (C, n, n)
        0 beyond the image border.
    own : array of bool, shape (n, n)
        Mask of the object; for a maximum projection, the union of its planes.
    inside : tuple of slice
        Rows and columns that lie on the image.
    """

    values: NDArray[Any]
    own: NDArray[np.bool_]
    inside: tuple[slice, slice]

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.values.nbytes + self.own.nbytes


def take_thumbnails(pair: ImagePair, objects: pd.DataFrame, sampling: ThumbnailSampling) -> list[Thumbnail]:
    """Cut one thumbnail per object, centered on it.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    sampling : ThumbnailSampling

    Returns
    -------
    list of Thumbnail
        In the order of ``objects``.
    """
    samples = [_sample_positions(row, pair.mask.shape, sampling) for row in objects.to_dict("records")]
    extents, labels = pair.mask.shape[-2:], objects.index.to_numpy(np.int64)
    insides = [(_slice_within(axes[-2], extents[0]), _slice_within(axes[-1], extents[1])) for axes in samples]
    count, shape = len(objects), (sampling.count, sampling.count)
    dtype = np.result_type(pair.image.dtype, np.uint8)  # boolean values become integers
    values = np.zeros((count, pair.image.shape[0], *shape), dtype)
    own = np.zeros((count, *shape), bool)
    for inside, pixels in zip(insides, values):
        pixels[:, *inside] = np.iinfo(dtype).min if dtype.kind in "iu" else np.finfo(dtype).min
    _read_samples(values, np.fmax, pair.image, pair.levels, samples, lambda pixels, _: pixels)
    _read_samples(own, np.logical_or, pair.mask, pair.mask_levels, samples, lambda pixels, i: pixels == labels[i])
    # Copies, since a cached view of an array would keep all thumbnails in memory.
    return [Thumbnail(values[i].copy(), own[i].copy(), inside) for i, inside in enumerate(insides)]


def _sample_positions(row: dict[Any, Any], shape: tuple[int, ...], sampling: ThumbnailSampling) -> list[Integers]:
    """Return the planes, rows and columns of an object's samples.

    Rows and columns may lie beyond the image.
    """
    reach = (sampling.count - 1) / 2 * sampling.step
    steps = sampling.step * np.arange(sampling.count)
    axes = [np.floor(row[axis] - reach + 0.5).astype(int) + steps for axis in "yx"]
    if len(shape) == 2:
        return axes
    if sampling.depth == "maximum":
        return [np.arange(int(row["z0"]), int(row["z1"])), *axes]
    return [np.array([min(max(round(row["z"]), 0), shape[0] - 1)]), *axes]


def _read_samples(
    thumbnails: NDArray[Any],
    merge: np.ufunc,
    array: DataArray,
    levels: Sequence[PyramidLevel],
    samples: Sequence[list[Integers]],
    convert: Callable[[NDArray[Any], int], NDArray[Any]],
) -> None:
    """Read sampled pixels by blocks and combine them into thumbnails (n, ..., h, w).

    Pixels of several planes are combined by ``merge``, for example by their maximum.
    """
    data, ndim = da.asarray(array.data), len(samples[0]) if samples else 0
    edges = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in data.chunks[-ndim:]]
    by_block: dict[tuple[int, ...], list[tuple[int, tuple[slice, ...]]]] = {}
    for i, axes in enumerate(samples):
        for spans in itertools.product(*map(_split_at, axes, edges)):
            by_block.setdefault(tuple(block for block, _ in spans), []).append((i, tuple(part for _, part in spans)))

    def read(block: tuple[int, ...]) -> list[tuple[int, tuple[slice, ...], NDArray[Any]]]:
        parts = [(i, part, [axis[span] for axis, span in zip(samples[i], part)]) for i, part in by_block[block]]
        low = [min(int(positions[axis][0]) for _, _, positions in parts) for axis in range(ndim)]
        high = [max(int(positions[axis][-1]) for _, _, positions in parts) + 1 for axis in range(ndim)]
        window = tuple(map(slice, low, high))
        if levels and ndim == 2:  # reading the file directly takes half the time of reading through dask
            pixels = levels[0].read(window[0], window[1])
        else:
            pixels = compute_array(data[index_last_axes(window)])
        crops = [convert(pixels[index_last_axes(map(_as_slice, positions, low))], i) for i, _, positions in parts]
        flat = [merge.reduce(crop, axis=-3) if ndim == 3 else crop for crop in crops]
        return [(i, part[-2:], pixels) for (i, part, _), pixels in zip(parts, flat)]

    with ThreadPoolExecutor(THREADS, thread_name_prefix="thumbnails") as pool:
        blocks = sorted(by_block)
        for first in range(0, len(blocks), 2 * THREADS):  # a few at a time, which bounds the memory
            for i, part, pixels in itertools.chain(*pool.map(read, blocks[first : first + 2 * THREADS])):
                target = thumbnails[i][index_last_axes(part)]
                merge(target, pixels, out=target)


def _split_at(samples: Integers, edges: Integers) -> list[tuple[int, slice]]:
    """Return the blocks along an axis, each with the slice of the samples in it."""
    bounds = np.searchsorted(samples, edges)
    return [(i, slice(int(a), int(b))) for i, (a, b) in enumerate(itertools.pairwise(bounds)) if b > a]


def _as_slice(samples: Integers, start: int = 0) -> slice:
    """Convert evenly spaced samples to a slice of an array that begins at ``start``."""
    step = int(samples[1] - samples[0]) if len(samples) > 1 else 1
    return slice(int(samples[0]) - start, int(samples[-1]) - start + 1, step)


def _slice_within(samples: Integers, extent: int) -> slice:
    """Return the slice of the ascending samples that lie in ``range(extent)``."""
    return slice(*(int(i) for i in np.searchsorted(samples, [0, extent])))


@dataclass(frozen=True, eq=False)
class OrthoView:
    """Section through a volume, or projection of a volume.

    Attributes
    ----------
    values : array of shape (C, h, w)
        0 beyond the volume.
    own : array of bool, shape (h, w)
        Mask of the object.
    size : tuple of float
        Height and width of the displayed part of the volume, in units of the pixel width; voxels may be anisotropic.
    """

    values: NDArray[Any]
    own: NDArray[np.bool_]
    size: tuple[float, float]


def take_orthoviews(
    image: DataArray, mask: DataArray, label: int, row: pd.Series, spacing: Sequence[float] | None
) -> dict[str, OrthoView]:
    """Cut orthogonal views through the centroid of an object in a volume.

    Parameters
    ----------
    image : DataArray of shape (C, Z, Y, X)
    mask : DataArray of shape (Z, Y, X), integer
    label : int
    row : Series
        Row of the object in `core.objects.index_objects`.
    spacing : sequence of float, optional
        Voxel size ``(z, y, x)``; voxels are cubes if it is None.

    Returns
    -------
    dict of str to OrthoView
        One view for each of `SIDES`: from above ("xy"), from the front ("xz", z points down), from the side ("zy", z
        points right), and the maximum projection along z around the object ("maximum"). All views show the same cube,
        centered on the object.
    """
    sizes = np.array(spacing or (1.0, 1.0, 1.0)) / (spacing or (1.0,))[-1]
    object_sides = [(row[f"{axis}1"] - row[f"{axis}0"]) * size for axis, size in zip("zyx", sizes)]
    side = _ORTHOVIEW_CONTEXT * max(_ORTHOVIEW_MIN_SIDE, *object_sides)
    counts = np.maximum(3, np.round(side / sizes)).astype(int) | 1  # odd, so that the centroid is a sample
    steps = -(-counts // _ORTHOVIEW_MAX_SAMPLES)
    halves = counts // steps // 2
    center = np.clip([round(row[axis]) for axis in "zyx"], 0, np.array(mask.shape) - 1)
    positions = [middle + step * np.arange(-half, half + 1) for middle, step, half in zip(center, steps, halves)]
    values, own = _read_voxels(image, positions), _read_voxels(mask, positions) == label
    z, y, x = halves
    depth, height, width = ((2 * halves + 1) * steps * sizes).tolist()
    return {
        "xy": OrthoView(values[:, z], own[z], (height, width)),
        "xz": OrthoView(values[:, :, y], own[:, y], (depth, width)),
        "zy": OrthoView(values[..., x].swapaxes(1, 2), own[..., x].T, (height, depth)),
        "maximum": OrthoView(values.max(axis=1), own.any(axis=0), (height, width)),
    }


def _read_voxels(array: DataArray, positions: list[Integers]) -> NDArray[Any]:
    """Return the voxels at evenly spaced positions, 0 beyond the volume."""
    inside = [_slice_within(axis, extent) for axis, extent in zip(positions, array.shape[-3:])]
    part = array.data[index_last_axes(_as_slice(axis[span]) for axis, span in zip(positions, inside))]
    part = compute_array(part) if isinstance(part, da.Array) else np.asarray(part)
    voxels = np.zeros((*array.shape[:-3], *map(len, positions)), part.dtype)
    voxels[index_last_axes(inside)] = part
    return voxels


@dataclass(frozen=True)
class GridLayout:
    """Layout of equal cells in CSS pixels: a square thumbnail above a line of text.

    Attributes
    ----------
    size : tuple of int
        Height and width of the screen.
    columns : int
    gap : int
        Space between and around the cells.
    line : int
        Height of the text.

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
        """Side of the thumbnails."""
        return (self.size[1] - self.gap) // self.columns - self.gap

    @property
    def pitch(self) -> tuple[int, int]:
        """Vertical and horizontal distance from one cell to the next, in CSS pixels."""
        return self.side + self.line + self.gap, self.side + self.gap

    @property
    def rows(self) -> int:
        """Rows of cells."""
        return max(1, (self.size[0] - self.gap) // self.pitch[0])

    @property
    def count(self) -> int:
        """Cells per page."""
        return self.rows * self.columns

    def corner(self, cell: int) -> tuple[int, int]:
        """Return row and column of the top left corner of a thumbnail."""
        remainder = self.size[1] - self.gap - self.columns * self.pitch[1]  # unused width, half on each side
        row, column = divmod(cell, self.columns)
        return self.gap + row * self.pitch[0], self.gap + remainder // 2 + column * self.pitch[1]

    def cell_at(self, row: float, column: float) -> int:
        """Return the cell at a screen point, or -1; cells include half of each gap."""
        top, left = self.corner(0)
        down = math.floor((row - top + self.gap / 2) / self.pitch[0])
        right = math.floor((column - left + self.gap / 2) / self.pitch[1])
        return down * self.columns + right if 0 <= down < self.rows and 0 <= right < self.columns else -1


@dataclass(frozen=True)
class CellCaption:
    """Frame and text of a gallery cell.

    Attributes
    ----------
    color : str
        ``"#rrggbb"`` of the frame; empty for an object without annotation and prediction.
    is_annotated : bool
        Whether the frame is thick, for an annotation, or thin, for a prediction.
    name, share : str
        Text on the left and on the right below the thumbnail.
    is_dashed : bool
        Whether the frame is dashed, for an object that was drawn at random.
    other : str
        ``"#rrggbb"`` of the predicted class if it differs from the annotated one, else empty.
    """

    color: str = ""
    is_annotated: bool = False
    name: str = ""
    share: str = ""
    is_dashed: bool = False
    other: str = ""


@dataclass(frozen=True, eq=False)
class GridScene:
    """Content of the gallery's screen at one time.

    Attributes
    ----------
    grid : GridLayout
    dpr : float
        Device pixels per CSS pixel.
    key : hashable
        Equal keys mean equal pixels.
    pixels : array of uint8, shape (h, w, 3)
        The thumbnails, in device pixels.
    boxes : array of int, shape (n, 4)
        Parts of ``pixels`` to show: top, left, height and width. Elsewhere the background of the page is visible.
    ink : str
        Color of text between the thumbnails.
    cell_captions : tuple of CellCaption
    chosen : frozenset of int
        Selected cells.
    cursor : int
        Cell from which the arrow keys move; -1 for none.
    hint : Hint or None
    message : str
        Text at the center of a page without cells.
    """

    grid: GridLayout
    dpr: float
    key: Hashable
    pixels: NDArray[np.uint8]
    boxes: Integers
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
) -> tuple[NDArray[np.uint8], Integers]:
    """Draw thumbnails into the cells of a page.

    Parameters
    ----------
    thumbnails_with_display : sequence of (Thumbnail, DisplaySettings) or None
        None for a thumbnail that is not loaded yet or cannot be read.
    grid : GridLayout
    dpr : float
    outlines : bool
        Draw a line around each object.

    Returns
    -------
    pixels : array of uint8, shape (h, w, 3)
    boxes : array of int, shape (n, 4)
        Top, left, height and width of the part of each thumbnail that lies on its image.
    """
    entries = [(cell, *entry) for cell, entry in enumerate(thumbnails_with_display) if entry is not None]
    rendered = [(cell, thumbnail, as_rgb(render_pixels(thumbnail.values, shown))) for cell, thumbnail, shown in entries]
    brightness = [np.median(pixels[thumbnail.inside]) for _, thumbnail, pixels in rendered]
    ink = DARK_INK if brightness and np.median(brightness) > _BRIGHT else BRIGHT_INK
    page = np.full((*(round(extent * dpr) for extent in grid.size), 3), _BACKGROUND, np.uint8)
    side, boxes = round(grid.side * dpr), []
    for cell, thumbnail, pixels in rendered:
        resized = _resize(_repeat_border(pixels, thumbnail.inside), side)
        if outlines:
            _draw_outline(resized, thumbnail.own, max(1, round(dpr)), ink)
        top, left = (round(at * dpr) for at in grid.corner(cell))
        page[top : top + side, left : left + side] = resized
        (y0, y1), (x0, x1) = (
            (round(part.start * side / len(pixels)), round(part.stop * side / len(pixels))) for part in thumbnail.inside
        )
        boxes.append((top + y0, left + x0, y1 - y0, x1 - x0))
    return page, np.array(boxes, np.int64).reshape(-1, 4)


def _repeat_border(pixels: NDArray[np.uint8], inside: tuple[slice, slice]) -> NDArray[np.uint8]:
    """Replace the pixels beyond the border of the image by the nearest ones inside.

    Interpolation at the border of the image then does not mix in another color.
    """
    around = [(part.start, len(pixels) - part.stop) for part in inside]
    return np.pad(pixels[inside], [*around, (0, 0)], mode="edge")


def _resize(pixels: NDArray[Any], side: int) -> NDArray[Any]:
    interpolation = cv2.INTER_NEAREST if side > _NEAREST_FROM * len(pixels) else cv2.INTER_LINEAR
    if side < len(pixels):
        interpolation = cv2.INTER_AREA
    return np.ascontiguousarray(cv2.resize(pixels, (side, side), interpolation=interpolation))


def _draw_outline(pixels: NDArray[np.uint8], own: NDArray[np.bool_], width: int, ink: str) -> None:
    """Draw an anti-aliased line along the border of an object.

    The border is the 0.5 level set of the blurred mask; dividing by the gradient gives the distance to it.
    """
    side = len(pixels)
    coverage = cv2.resize(own.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    sigma = max(_OUTLINE_BLUR, _OUTLINE_BLUR * side / len(own))
    coverage = cv2.GaussianBlur(coverage, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    slope = np.maximum(np.hypot(*np.gradient(coverage)), 1e-3)
    distance = np.abs(coverage - 0.5) / slope
    opacity = np.clip(width / 2 + _OUTLINE_BLUR - distance, 0, 1)[..., None] * _OUTLINE_OPACITY
    pixels[:] = np.rint(pixels * (1 - opacity) + np.array(rgb_of(ink)) * opacity)
