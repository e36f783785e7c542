"""Checks that a mask is a label image.

The checks read only as many blocks of the mask as they need.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.local import get_sync  # its name would make dask import distributed
from scipy import ndimage

from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from xarray import DataArray

MAX_CHECKED_BLOCKS = 256
NO_OBJECTS_MESSAGE = (
    "The mask has no object, only 0 (background). Check that this is the segmentation and that it found objects."
)


def check_is_label_image(mask: DataArray) -> None:
    """Raise an error for a mask that is binary or has no objects.

    Blocks are read from the center outward until two different labels are found; in a real segmentation, one or two
    blocks are enough. A mask with a single label is accepted as a mask of one object, unless the label is 255 or has
    several connected components. If the first `MAX_CHECKED_BLOCKS` blocks of a sparse mask are empty, the check is left
    to `core.objects.index_objects`.

    Raises
    ------
    InputError
        If the mask has no object or negative values, or if it seems to be binary.
    """
    pixels = da.asarray(mask.data)
    seen: set[int] = set()
    for block in _blocks_from_center(pixels)[:MAX_CHECKED_BLOCKS]:
        part = pixels.blocks[block].compute(scheduler=get_sync)
        check_not_negative(part)
        seen |= {int(part.max()), int(part[part > 0].min(initial=part.max()))} - {0}
        if len(seen) > 1:
            return
        if seen and ndimage.label(part, np.ones((3,) * part.ndim))[1] > 1:
            raise_binary_mask(seen.pop())
    if not seen and pixels.npartitions <= MAX_CHECKED_BLOCKS:
        raise InputError(NO_OBJECTS_MESSAGE)
    if seen == {255}:
        raise_binary_mask(255)


def check_integer(pixels: da.Array, source_name: str) -> None:
    """Raise an `InputError` if the pixels of a mask are not integers.

    For floats, one block is read, so that the error can suggest the right fix: conversion of labels to integers, or a
    threshold for probabilities.
    """
    kind = pixels.dtype.kind
    if kind in "ui":
        return
    got, values, hint = f"got {pixels.dtype}", "", "Pass the label image of the segmentation."
    if kind == "b":
        got, hint = (
            "one per object, got booleans",
            "Label its objects first, for example `skimage.measure.label(mask)`.",
        )
    elif kind == "f":
        block = pixels.blocks[tuple(count // 2 for count in pixels.numblocks)].compute(scheduler=get_sync)
        finite = np.isfinite(block)
        top = float(np.nanmax(block)) if finite.any() else math.nan
        if finite.all() and np.array_equal(block, np.round(block)):
            values = f" with values up to {top:g}"
            hint = "If these are labels, save them as integers: `mask.astype('int32')`."
        else:
            values = f" with values up to {top:.3g}"
            hint = (
                "This looks like a probability map: threshold and label it first, for example "
                "`skimage.measure.label(prob > 0.5)`."
            )
    raise InputError(f"Mask must contain integers, {got} in {source_name}{values}. {hint}")


def check_not_negative(pixels: npt.NDArray[np.integer]) -> None:
    """Raise an `InputError` if labels are negative."""
    if pixels.dtype.kind == "i" and pixels.size and (least := pixels.min()) < 0:
        remedy = "unsigned" if len(np.unique(pixels[pixels < 0])) > 1 else ""
        if remedy:
            size = min(pixels.dtype.itemsize, 2 if least >= -(2**15) else 8)
            call = f"mask.{'view' if size == pixels.dtype.itemsize else 'astype'}('uint{8 * size}')"
            hint = f'Unsigned numbers were probably read as signed: pass repair="unsigned", or convert it: `{call}`.'
        else:
            hint = f"{least} may mark pixels to ignore: set them to 0 first, for example `mask.clip(0)`."
        problem = f"Mask must contain 0 for background and positive integers for objects, got {least}."
        raise InputError(f"{problem} {hint}", remedy)


def raise_binary_mask(label: int) -> None:
    """Raise the `InputError` for a mask that marks all objects with one label."""
    raise InputError(
        f"Mask must contain one integer per object, but its only label is {label}. This looks like a binary mask: pass "
        'repair="components", or label its objects first, for example `skimage.measure.label(mask > 0)`.',
        remedy="components",
    )


def _blocks_from_center(pixels: da.Array) -> list[tuple[int, ...]]:
    middle = [(count - 1) / 2 for count in pixels.numblocks]
    blocks = itertools.product(*map(range, pixels.numblocks))
    return sorted(blocks, key=lambda block: sum((position - center) ** 2 for position, center in zip(block, middle)))
