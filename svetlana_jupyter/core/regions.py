"""Reading of lazy images for the screen: the visible region only, thinned to the screen's resolution, and kept.

Contract: what is read is bounded by the screen and one tile around it, never by the image.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.view import Box

_TILE = 128
_KEPT = 4


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels of one plane, every ``stride``-th in each direction.

    Attributes
    ----------
    values : array of shape (C, h, w) for an image, (h, w) for a mask
    box : Box
        The image pixels that the values stand for; each value stands for ``stride`` x ``stride`` of them.
    stride : int
    """

    values: NDArray[Any]
    box: Box
    stride: int

    @cached_property
    def objects(self) -> NDArray[np.int64]:
        """The labels in a region of a mask, ascending, shape (n,); the background is not among them."""
        return self._numbered[0]

    @cached_property
    def index(self) -> NDArray[np.int32]:
        """For each pixel of a mask, shape (h, w): 0 on the background, else 1 + the position in ``objects``."""
        return self._numbered[1]

    @cached_property
    def _numbered(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        # Labels hardly change along a row, so only the first pixel of each run is sorted: 20 times less work.
        flat = self.values.ravel()
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]])) if flat.size else np.empty(0, np.intp)
        labels, number = np.unique(flat[starts], return_inverse=True)
        background = int(np.searchsorted(labels, 0))
        if background < len(labels) and labels[background] == 0:
            labels = np.delete(labels, background)
            number = np.where(number == background, 0, number + (number < background))
        else:
            number = number + 1
        index = np.repeat(number.astype(np.int32), np.diff(np.append(starts, flat.size)))
        return labels.astype(np.int64), index.reshape(self.values.shape)


def stride_for(device_scale: float) -> int:
    """Return the largest power of two that still leaves at least one value a device pixel.

    >>> [stride_for(scale) for scale in (3.0, 1.0, 0.4, 0.25, 0.01)]
    [1, 1, 2, 4, 64]
    """
    return 1 << max(0, math.floor(math.log2(1 / device_scale)))


class Reader:
    """Reads regions of one image or mask and keeps the last few.

    Parameters
    ----------
    array : DataArray of shape ((C), (Z), Y, X)
        Lazy is fine.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape: tuple[int, int] = (array.sizes["y"], array.sizes["x"])
        self._kept: OrderedDict[tuple[int, int, Box], Region] = OrderedDict()

    def read(self, box: Box, stride: int = 1, plane: int = 0) -> Region:
        """Return a region that contains ``box``, read now or kept from before."""
        for key, region in self._kept.items():
            if key[:2] == (plane, stride) and key[2].contains(box):
                self._kept.move_to_end(key)
                return region
        whole = self._snapped(box, stride)
        region = self._compute(whole, stride, plane)
        self._kept[plane, stride, whole] = region
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return region

    def _snapped(self, box: Box, stride: int) -> Box:
        step = _TILE * stride
        height, width = self.shape
        return Box(
            box.y0 // step * step,
            box.x0 // step * step,
            min(height, -(-box.y1 // step) * step),
            min(width, -(-box.x1 // step) * step),
        )

    def _compute(self, box: Box, stride: int, plane: int) -> Region:
        # The middle pixel stands for each stride x stride cell, so that nothing is shifted on the screen. A cell cut by
        # the border may have no middle; it is less than a device pixel wide and is left out.
        first_y, first_x = (min(stride // 2, (extent - 1) // 2) for extent in (box.height, box.width))
        at: dict[str, Any] = {
            "y": slice(box.y0 + first_y, box.y1, stride),
            "x": slice(box.x0 + first_x, box.x1, stride),
        }
        if "z" in self.array.dims:
            at["z"] = plane
        data = self.array.isel(at).data
        # Threads, also where a cluster is the default: a screenful is needed here and now.
        values = np.asarray(data.compute(scheduler="threads") if hasattr(data, "compute") else data)
        height, width = values.shape[-2:]
        covered = Box(box.y0, box.x0, box.y0 + height * stride, box.x0 + width * stride)
        return Region(values, covered, stride)
