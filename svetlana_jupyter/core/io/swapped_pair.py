"""Check that image and mask are not swapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from dask.local import get_sync  # its name would make dask import distributed

if TYPE_CHECKING:
    from xarray import DataArray

SWAPPED = (
    "Image and mask seem to be swapped: the image consists of flat areas like a mask, while neighboring pixels of the "
    "mask differ like those of an image. Swap the two."
)
_SIDE = 256  # pixels of the square in the middle that is compared
_MIN_PAIRS = 200  # pairs of neighbors inside objects, below which nothing is concluded


def looks_swapped(image: DataArray, mask: DataArray) -> bool:
    """Return whether the image looks like a mask and the mask like an image.

    Only the middle of the image, and then of the mask, is read.

    Parameters
    ----------
    image : DataArray of shape ([C,] [Z,] Y, X)
    mask : DataArray of shape ([Z,] Y, X)
    """
    if image.dtype.kind not in "ui" or image.sizes.get("c", 1) > 1:
        return False
    same, pairs, values = _equal_neighbors(image)
    # Most neighbors inside an object of a mask have its number; of noise that a camera records, few are equal.
    if pairs < _MIN_PAIRS or same < 0.9 or values < 2:
        return False
    same, pairs, values = _equal_neighbors(mask)
    return pairs >= _MIN_PAIRS and same < 0.5


def _equal_neighbors(array: DataArray) -> tuple[float, int, int]:
    """Compare neighbors in a row, in the middle of an array.

    Returns
    -------
    same : float
        Share of equal pairs among the pairs without a 0.
    pairs, values : int
        Number of these pairs, and of different values.
    """
    middle = {
        dim: slice(max(0, (size - _SIDE) // 2), (size + _SIDE) // 2) if dim in ("y", "x") else size // 2
        for dim, size in array.sizes.items()
    }
    pixels = np.asarray(array.isel(middle).compute(scheduler=get_sync).data)
    left, right = pixels[:, :-1], pixels[:, 1:]
    inside = (left != 0) & (right != 0)
    pairs = int(inside.sum())
    return float((left == right)[inside].mean()) if pairs else 1.0, pairs, len(np.unique(pixels))
