"""Reading of lazy images for the screen: the visible region only, thinned to the screen's resolution, and kept.

Contract: what is read and kept is bounded by a few screens, never by the image. An image without a pyramid is thinned
while it is read; as its blocks must be decoded whole, somewhat more is kept than the screen can show at the moment, and
coarser views are taken from that.
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
_KEPT = 3
_READ = 1 << 22  # values of one channel that are read and kept at once
_SLOW = 1 << 22  # pixels: a larger area takes long enough to read that a coarse view is welcome meanwhile


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels of one plane, every ``stride``-th in each direction.

    Attributes
    ----------
    values : array of shape (C, h, w) for an image, (h, w) for a mask
        Each is the first pixel of a cell of ``stride`` x ``stride`` pixels and stands for it.
    box : Box
        The image pixels that the cells cover; the last ones may be cut off by the image's border.
    stride : int
    """

    values: NDArray[Any]
    box: Box
    stride: int

    def thinned(self, stride: int) -> Region:
        """Return the same region with a larger stride, a multiple of this one."""
        step = stride // self.stride
        return self if step == 1 else Region(self.values[..., ::step, ::step], self.box, stride)

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

    def read(self, box: Box, stride: int = 1, plane: int = 0, quick: bool = False) -> Region:
        """Return a region that contains ``box``, read now or kept from before.

        Parameters
        ----------
        box : Box
        stride : int
            A power of two.
        plane : int
        quick : bool
            A coarser region will do if it is there and the right one would take long to read.
        """
        fitting = [(key, kept) for key, kept in self._kept.items() if key[0] == plane and kept.box.contains(box)]
        finer = max((entry for entry in fitting if entry[0][1] <= stride), key=lambda entry: entry[0][1], default=None)
        if finer is not None:
            self._kept.move_to_end(finer[0])
            return finer[1].thinned(stride)
        coarser = min((entry for entry in fitting if entry[0][1] > stride), key=lambda entry: entry[0][1], default=None)
        if quick and coarser is not None and box.height * box.width > _SLOW:
            return coarser[1]
        finest = stride
        while (
            finest > max(1, stride // _TILE) and _values(_snapped(box, finest // 2, self.shape), finest // 2) <= _READ
        ):
            finest //= 2
        whole = _snapped(box, finest, self.shape)
        self._kept[plane, finest, whole] = region = self._compute(whole, finest, plane)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return region.thinned(stride)

    def _compute(self, box: Box, stride: int, plane: int) -> Region:
        at: dict[str, Any] = {"y": slice(box.y0, box.y1, stride), "x": slice(box.x0, box.x1, stride)}
        if "z" in self.array.dims:
            at["z"] = plane
        data = self.array.isel(at).data
        # Threads, also where a cluster is the default: a screenful is needed here and now.
        values = np.asarray(data.compute(scheduler="threads") if hasattr(data, "compute") else data)
        return Region(values, box, stride)


def _snapped(box: Box, stride: int, shape: tuple[int, int]) -> Box:
    """Widen a box to whole tiles, so that a small move needs no reading."""
    step = _TILE * stride
    return Box(
        box.y0 // step * step,
        box.x0 // step * step,
        min(shape[0], -(-box.y1 // step) * step),
        min(shape[1], -(-box.x1 // step) * step),
    )


def _values(box: Box, stride: int) -> int:
    return -(-box.height // stride) * -(-box.width // stride)
