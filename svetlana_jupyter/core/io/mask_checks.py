"""Whether a mask tells objects apart, from as few blocks as it takes to see."""

from __future__ import annotations

import itertools
import math

import dask.array as da
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from xarray import DataArray

from svetlana_jupyter.errors import InputError

MAX_CHECKED_BLOCKS = 256
NO_OBJECTS_MESSAGE = (
    "a mask needs at least one object, got only 0 (background). "
    "Check that this is the segmentation and that it found something."
)


def check_is_label_image(mask: DataArray) -> None:
    """Refuse a mask without objects, or one that is only object or background.

    Blocks are read from the middle outwards until two different objects are seen, which in a real segmentation is the
    first block or the next. A number that stands alone in the whole mask is one object, unless it is 255 or in pieces.
    Where the first few hundred blocks of a sparse mask show nothing, the object index will tell.

    Raises
    ------
    InputError
        If the mask holds no object, negative numbers, or a single number in several pieces.
    """
    pixels = da.asarray(mask.data)
    seen: set[int] = set()
    for block in _from_the_middle(pixels)[:MAX_CHECKED_BLOCKS]:
        part = pixels.blocks[block].compute(scheduler="synchronous")
        check_not_negative(part)
        seen |= {int(part.max()), int(part[part > 0].min(initial=part.max()))} - {0}
        if len(seen) > 1:
            return
        if seen and ndimage.label(part, np.ones((3,) * part.ndim))[1] > 1:
            raise_binary_mask(seen.pop(), "in several pieces")
    if not seen and pixels.npartitions <= MAX_CHECKED_BLOCKS:
        raise InputError(NO_OBJECTS_MESSAGE)
    if seen == {255}:
        raise_binary_mask(255, "alone")


def check_integer(pixels: da.Array, where: str) -> None:
    """Refuse pixels that cannot name objects; of floats one block is read, to say what they may be."""
    if pixels.dtype.kind in "ui":
        return
    if pixels.dtype.kind == "b":
        raise InputError(
            f"masks must be integers, one number an object; {where} is boolean. Number its pieces first, for example "
            "`skimage.measure.label(mask)`."
        )
    message = f"masks must be integers, got {pixels.dtype} in {where}"
    if pixels.dtype.kind != "f":
        raise InputError(f"{message}.")
    block = pixels.blocks[tuple(count // 2 for count in pixels.numblocks)].compute(scheduler="synchronous")
    top = float(np.nanmax(block)) if np.isfinite(block).any() else math.nan
    if np.isfinite(block).all() and np.array_equal(block, np.round(block)):
        raise InputError(
            f"{message} with values up to {top:g}. If these are object numbers, save them as integers: "
            "`mask.astype('int32')`."
        )
    raise InputError(
        f"{message} with values up to {top:.3g}. This looks like a probability map: threshold and label it first, for "
        "example `skimage.measure.label(prob > 0.5)`."
    )


def check_not_negative(pixels: npt.NDArray[np.integer]) -> None:
    """Refuse numbers below 0."""
    if pixels.dtype.kind == "i" and pixels.size and (least := pixels.min()) < 0:
        raise InputError(
            f"masks must hold 0 for background and positive integers for objects, got {least}. "
            "Set negative values to 0 first, for example `mask.clip(0)`."
        )


def raise_binary_mask(number: int, how: str) -> None:
    """Refuse a mask whose only number stands for object, not for one of them."""
    raise InputError(
        f"a mask needs one number an object, got only {number}, {how}. This looks like a binary mask: number its "
        "pieces first, for example `skimage.measure.label(mask > 0)`."
    )


def _from_the_middle(pixels: da.Array) -> list[tuple[int, ...]]:
    middle = [(count - 1) / 2 for count in pixels.numblocks]
    blocks = itertools.product(*map(range, pixels.numblocks))
    return sorted(blocks, key=lambda block: sum((at - center) ** 2 for at, center in zip(block, middle)))
