"""Crops of objects: regions to read, and the pixels of each bounding box.

Objects of one block are read together, and objects of similar size are cropped to the same shape, as a stack. Both
bound the memory that a measurement needs, whatever the size of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.io.chunks import ArrayRegion, group_by_block, index_last_axes, processing_block_shape
from svetlana_jupyter.core.normalization import to_finite_float32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from svetlana_jupyter.core.io.image_pair import ImagePair

Integers = NDArray[np.int64]
Crops = tuple[NDArray[np.bool_], Integers, list[NDArray[np.float32]], NDArray[np.bool_]]  # see `crop_objects`

# Larger bounding boxes are read on every second, third, ... pixel along each axis.
MAX_BOX_VOXELS = 1 << 22
STACK_VOXELS = 1 << 18  # in all bounding boxes of a stack, so that the stack fits into the processor's cache
OUTSIDE = -1  # mask value beyond the image


class ObjectBoxes:
    """Bounding boxes of the objects of one image.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of `core.objects.index_objects`.

    Attributes
    ----------
    labels : int64 of shape (n,)
    centers : float64 of shape (n, ndim)
        Centroids in pixels.
    first, last : int64 of shape (n, ndim)
        Bounding boxes; ``last`` is the first pixel behind the box.
    shape : int64 of shape (ndim,)
        Shape of the image.
    step : float64 of shape (ndim,)
        Lengths of a pixel along each axis; the shortest is 1.
    """

    def __init__(self, pair: ImagePair, objects: pd.DataFrame) -> None:
        axes = "zyx"[-pair.ndim :]
        self.labels = objects.index.to_numpy(np.int64)
        self.centers = objects[list(axes)].to_numpy(float)
        self.first = objects[[f"{axis}0" for axis in axes]].to_numpy(np.int64)
        self.last = objects[[f"{axis}1" for axis in axes]].to_numpy(np.int64)
        self.shape = np.array(pair.mask.shape)
        spacing = np.array(pair.spacing or (1.0,) * pair.ndim)
        self.step = spacing / spacing.min()
        self._block = np.array(processing_block_shape(pair.image, pair.mask))
        self._strides = _choose_strides(self.last - self.first)

    def batches(self, reach: Callable[[int], Integers]) -> Iterator[tuple[Integers, ArrayRegion]]:
        """Yield row numbers of objects to read together, and the region to read.

        Parameters
        ----------
        reach : callable
            Returns how many read pixels are needed around a bounding box, per axis, if every ``stride``-th is read.
        """
        large = ((self.last - self.first) > self._block).any(axis=1) | (self._strides > 1)
        ordinary = np.flatnonzero(~large)
        batches = [ordinary[members] for members in group_by_block(self.centers[ordinary], tuple(self._block))]
        batches += [np.array([number]) for number in np.flatnonzero(large)]
        # Chunks are then read in order.
        batches.sort(key=lambda members: tuple(self.centers[members[0]] // self._block))
        for members in batches:
            stride = int(self._strides[members[0]])
            margin = reach(stride) * stride
            low = np.maximum(self.first[members].min(axis=0) - margin, 0)
            high = np.minimum(self.last[members].max(axis=0) + margin, self.shape)
            yield members, ArrayRegion(tuple(low.tolist()), tuple(high.tolist()), stride)

    def stacks(self, members: Integers, region: ArrayRegion) -> Iterator[tuple[Integers, Integers, Integers]]:
        """Yield the objects of a batch by similar size.

        Yields
        ------
        members : int64 of shape (n,)
            Row numbers.
        first, last : int64 of shape (n, ndim)
            Bounding boxes in the read pixels of the region.
        """
        low, stride = np.array(region.low), region.stride
        first = -((low - self.first[members]) // stride)  # the first pixel read within the bounding box
        last = -((low - self.last[members]) // stride)
        for some in _group_by_size(last - first):
            yield members[some], first[some], last[some]


def _choose_strides(sides: Integers) -> Integers:
    """Return the smallest strides that leave at most `MAX_BOX_VOXELS` voxels per box."""
    strides = np.ones(len(sides), np.int64)
    while (large := np.prod(-(-sides // strides[:, None]), axis=1) > MAX_BOX_VOXELS).any():
        strides[large] += 1
    return strides


def _group_by_size(sides: Integers) -> Iterator[Integers]:
    """Yield the row numbers of boxes with similar sides (n, ndim), stack by stack.

    Sides are similar between two powers of 2. Narrower limits would save pixels, but the fixed cost of many small
    stacks takes a quarter more time.
    """
    rounded = 2 ** np.ceil(np.log2(np.maximum(sides, 2))).astype(np.int64)
    for members in group_by_block(rounded, (1,) * rounded.shape[1]):
        count = max(1, STACK_VOXELS // int(rounded[members[0]].prod()))
        yield from np.split(members, range(count, len(members), count))


def crop_objects(image: NDArray[Any], mask: NDArray[Any], labels: Integers, first: Integers, box: Integers) -> Crops:
    """Crop bounding boxes of equal shape from image and mask.

    Returns
    -------
    own : bool array of shape (n, *box)
        Masks of the objects.
    mask : integer array of shape (n, *box)
        Labels of all objects; `OUTSIDE` beyond the image.
    planes : list of float32 array of shape (n, *box)
        Channels of the image; 0 beyond the image and where a value is NaN or infinite.
    invalid : bool array of shape (C, n)
        Whether a channel has NaN or infinite values in the object.
    """
    masks = np.full((len(labels), *box), OUTSIDE, np.int64)
    pixels = np.zeros((len(image), len(labels), *box), np.float32)
    low, high = np.maximum(first, 0), np.minimum(first + box, mask.shape)
    for number, (origin, start, stop) in enumerate(zip(first, low, high, strict=True)):
        source = index_last_axes(map(slice, start, stop))
        target = index_last_axes(map(slice, start - origin, stop - origin))
        masks[number][target] = mask[source]
        pixels[:, number][target] = image[source]
    own = np.equal(masks, labels.reshape(-1, *(1 for _ in box)))
    invalid: NDArray[np.bool_] = np.zeros((len(image), len(labels)), bool)
    if image.dtype.kind == "f" and not np.isfinite(pixels).all():
        invalid |= np.any(~np.isfinite(pixels) & own, axis=tuple(range(2, pixels.ndim)))
    return own, masks, list(to_finite_float32(pixels)), invalid
