"""Small pictures of objects, all at one scale: what of the image lies around each, and where the object is.

Contract: however many objects are asked for, each block of the image and of the mask is visited once, and of a block no
more is read than what lies between the objects in it. What is held is the thumbnails and a few blocks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import dask.array as da
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from xarray import DataArray

from svetlana_jupyter.core.blocks import index_last_axes
from svetlana_jupyter.core.levels import PyramidLevel

if TYPE_CHECKING:
    from svetlana_jupyter.core.pairing import ImagePair

DepthMode = Literal["plane", "maximum"]

_FINER = (
    2  # samples a screen pixel, at most: averaged on the way to the screen, they show no patterns that are not there
)
THREADS = 4  # reading waits as much as it computes

Integers = NDArray[np.int64]
Block = tuple[int, ...]
Piece = tuple[int, slice, slice, NDArray[Any]]


@dataclass(frozen=True)
class Cut:
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
    def of(cls, side: float, pixels: int, depth: DepthMode = "plane") -> Cut:
        """Return the cut for a square of ``side`` image pixels that is shown on ``pixels`` screen pixels.

        >>> Cut.of(50, 60), Cut.of(600, 60)
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


def take_thumbnails(pair: ImagePair, objects: pd.DataFrame, cut: Cut) -> list[Thumbnail]:
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


def _samples(row: dict[Any, Any], shape: tuple[int, ...], cut: Cut) -> list[Integers]:
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
