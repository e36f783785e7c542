"""What the dimensions of an image or mask mean, and its form ``(c)(z)yx`` once that is settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
from xarray import DataArray

from svetlana_jupyter.errors import InputError

IMAGE_AXIS_ORDERS = {2: ("yx",), 3: ("zyx", "cyx", "yxc"), 4: ("czyx", "zcyx", "zyxc")}
MASK_AXIS_ORDERS = {2: ("yx",), 3: ("zyx",)}


def resolve_image_axes(
    shape: Sequence[int],
    dtype: np.dtype[Any],
    said: str | None,
    asked: str | None,
    like: Sequence[int] | None,
    where: str,
) -> str:
    """One letter a dimension for an image.

    Parameters
    ----------
    shape, dtype
        Of the pixels as they are stored.
    said : str, optional
        What the file says.
    asked : str, optional
        What the user says, which goes before.
    like : tuple of int, optional
        Shape ``([z,] y, x)`` of the mask that belongs to the image, which settles what else would be ambiguous.
    where : str
        How errors call the image.

    Raises
    ------
    InputError
        If neither says it and the shape allows several readings, or if what was said is no image.
    """
    if asked is not None:
        return _checked(asked, shape, where)
    if said is not None:
        return _checked(said, shape, where)
    if dtype == np.uint8 and len(shape) in (3, 4) and shape[-1] in (3, 4) and min(shape[-3:-1]) > 4:
        return "zyxs"[-len(shape) :]
    possible = _possible(shape, IMAGE_AXIS_ORDERS, where)
    if shape[-1] >= min(shape[:-1]):  # channels are never more than pixels are
        possible = tuple(axes for axes in possible if axes[-1] == "x")
    if like is not None:
        fitting = tuple(axes for axes in possible if _spatial_shape(shape, axes) == tuple(like))
        possible = fitting or possible
    if len(possible) == 1:
        return possible[0]
    shown = " or ".join(f'`axes="{axes}"`' for axes in possible)
    raise InputError(
        f"{where} has shape {tuple(shape)} and does not say what its dimensions are. "
        f"Name them: {shown} (c channels, z planes, y rows, x columns)."
    )


def resolve_mask_axes(shape: Sequence[int], said: str | None, asked: str | None, where: str) -> str:
    """One letter a dimension for a mask, whose three dimensions are always ``zyx`` where nothing says otherwise.

    A mask that is a series of times by its file counts as a volume: whether it is one shows beside its image.
    """
    if asked is not None:
        axes = _checked(asked, shape, where)
    elif said is not None:
        planes = "z" not in said and "t" in said and shape[said.index("t")] > 1
        axes = _checked(said.replace("t", "z") if planes else said, shape, where)
    else:
        axes = _possible(shape, MASK_AXIS_ORDERS, where)[0]
    for axis, length in zip(axes, shape):
        if axis in "cs" and length > 1:
            raise InputError(
                f"{where} has {length} channels (axes {axes}, shape {tuple(shape)}), a mask has one integer a pixel. "
                "Save the channel with the labels by itself (colours are no labels), or, if these are planes, say so: "
                '`open_mask(..., axes="zyx")`.'
            )
    return axes


def _possible(shape: Sequence[int], readings: Mapping[int, tuple[str, ...]], where: str) -> tuple[str, ...]:
    if len(shape) in readings:
        return readings[len(shape)]
    raise InputError(
        f"{where} has {len(shape)} dimensions, shape {tuple(shape)}; expected {' or '.join(map(str, readings))}. "
        'Name them where more are needed, for example `axes="tczyx"` with a single time.'
    )


def _spatial_shape(shape: Sequence[int], axes: str) -> tuple[int, ...]:
    return tuple(length for axis, length in zip(axes, shape) if axis in "zyx")


def _checked(axes: str, shape: Sequence[int], where: str) -> str:
    axes = axes.lower()
    if (
        set(axes) - set("tczyxs")
        or len(set(axes)) < len(axes)
        or not {"y", "x"} <= set(axes)
        or {"c", "s"} <= set(axes)
    ):
        raise InputError(
            f'`axes="{axes}"` should name each dimension of {where} once, with y and x among them: '
            '"yx", "zyx", "cyx", "czyx" or another order, "yxs" for colour samples.'
        )
    if len(axes) != len(shape):
        raise InputError(
            f'`axes="{axes}"` names {len(axes)} dimensions, {where} has {len(shape)}: shape {tuple(shape)}.'
        )
    if "t" in axes and (times := shape[axes.index("t")]) > 1:
        other = axes.replace("t", "c" if "z" in axes else "z")
        raise InputError(
            f"{where} is a series of {times} times (axes {axes}, shape {tuple(shape)}). Add each time as an image of "
            f'its own; or, if these are planes or channels, say so: `axes="{other}"`.'
        )
    return axes


def to_standard_order(pixels: da.Array, axes: str) -> tuple[da.Array, str]:
    """Pixels and axes in the order ``(c)(z)yx``: a single time or plane is dropped, and so is transparency.

    The colour letter ``s`` becomes ``c``.
    """
    if "s" in axes:
        at = axes.index("s")
        opaque = {2: 1, 4: 3}.get(pixels.shape[at], pixels.shape[at])  # grey or colour with an alpha channel behind
        pixels = pixels[(slice(None),) * at + (slice(opaque),)]
        single = "tzs" if opaque == 1 else "tz"
    else:
        single = "tz"
    keep = [i for i, axis in enumerate(axes) if axis not in single or pixels.shape[i] > 1]
    pixels = pixels[tuple(slice(None) if i in keep else 0 for i in range(len(axes)))]
    axes = "".join(axes[i] for i in keep).replace("s", "c")
    order = sorted(range(len(axes)), key=lambda i: "czyx".index(axes[i]))
    if order != sorted(order):
        pixels = pixels.transpose(order)
    return pixels, "".join(axes[i] for i in order)


def axes_from_dims(array: DataArray) -> str | None:
    """Axes of a DataArray, where its dimensions carry the usual letters or are called ``channel``."""
    names = ["c" if str(dim).lower() in ("channel", "channels") else str(dim).lower() for dim in array.dims]
    axes = "".join(names)
    return axes if len(axes) == array.ndim and set(axes) <= set("tczyxs") else None


def format_shape(shape: Sequence[int], axes: Sequence[object]) -> str:
    """Shape with its axes for an error: ``(48, 240, 240) zyx``."""
    return f"{tuple(shape)} {''.join(map(str, axes))}"
