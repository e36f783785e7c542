"""Objects cropped from their patches, in stacks of similar size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.io.chunks import index_last_axes

if TYPE_CHECKING:
    from collections.abc import Iterator

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

# Objects whose bounding boxes are equally long up to this many pixels are computed together.
BOX_STEP = {2: 8, 3: 4}
ROUNDING = 1e-5  # standard deviation up to which an object counts as uniform


def iter_boxes(patches: Floats, masks: Bools, max_pixels: int) -> Iterator[tuple[Integers, Floats, Bools]]:
    """Yield the objects of patches in squares or cubes of equal side.

    Objects with NaN or infinite pixels, and empty masks, are left out.

    Parameters
    ----------
    patches : float32 of shape (n, c, [side,] side, side)
    masks : bool of shape (n, [side,] side, side)
    max_pixels : int
        Maximum number of pixels per channel in a stack, unless it holds a single object.

    Yields
    ------
    rows : int64 of shape (m,)
        Positions in ``patches``.
    pixels : float32 of shape (c, m, [box,] box, box)
        0 outside the object.
    own : bool of shape (m, [box,] box, box)
    """
    ndim, axes = masks.ndim - 1, tuple(range(1, masks.ndim))
    sizes = np.count_nonzero(masks, axis=axes)
    finite = np.all(np.isfinite(patches) | ~masks[:, None], axis=(1, *(axis + 1 for axis in axes)))
    usable = np.flatnonzero(finite & (sizes > 0))
    if not len(usable):
        return
    low, sides = _bounding_boxes(masks[usable])
    order = np.lexsort((sizes[usable], sides))
    for some in np.split(order, np.flatnonzero(np.diff(sides[order])) + 1):
        side = int(sides[some[0]])
        count = max(1, max_pixels // side**ndim)
        for part in np.split(some, range(count, len(some), count)):
            yield usable[part], *_crop_boxes(patches, masks, usable[part], low[part], side)


def subtract_mean(pixels: Floats, own: Bools) -> tuple[Floats, Floats]:
    """Subtract the mean of each object from its pixels, in place.

    Uniform objects become exactly 0, since rounding errors would reveal their outlines.

    Returns
    -------
    mean, sd : float32 of shape (c, m)
    """
    axes = tuple(range(2, pixels.ndim))
    counts = np.count_nonzero(own, axis=tuple(axis - 1 for axis in axes)).astype(np.float32)
    mean = pixels.sum(axis=axes) / counts
    pixels -= np.expand_dims(mean, axes)
    pixels *= own
    sd = np.sqrt(np.square(pixels).sum(axis=axes) / counts)
    pixels[sd <= ROUNDING * (1 + np.abs(mean))] = 0
    return mean, sd


def _bounding_boxes(masks: Bools) -> tuple[Integers, Integers]:
    """Return first pixel (n, ndim) and side (n,) of a square around each mask."""
    low, high, axes = [], [], range(1, masks.ndim)
    for axis in axes:
        seen: Bools = np.any(masks, axis=tuple(set(axes) - {axis}))
        low.append(seen.argmax(axis=1))
        high.append(seen.shape[1] - seen[:, ::-1].argmax(axis=1))
    sides, step = np.max(np.subtract(high, low), axis=0), BOX_STEP[masks.ndim - 1]
    return np.stack(low, axis=1), -(-sides // step) * step


def _crop_boxes(patches: Floats, masks: Bools, rows: Integers, low: Integers, side: int) -> tuple[Floats, Bools]:
    """Return squares or cubes around the objects, and their masks.

    Pixels have shape (c, n, [side,] side, side) and are 0 outside the object; masks have shape (n, [side,] side, side).
    """
    box = (side,) * low.shape[1]
    pixels, own = np.zeros((patches.shape[1], len(rows), *box), np.float32), np.zeros((len(rows), *box), bool)
    for number, (row, start) in enumerate(zip(rows, low, strict=True)):
        source = index_last_axes(slice(first, first + side) for first in start)
        part = masks[row][source]
        target = index_last_axes(map(slice, part.shape))
        own[number][target] = part
        np.copyto(pixels[:, number][target], patches[row][source], where=part)
    return pixels, own
