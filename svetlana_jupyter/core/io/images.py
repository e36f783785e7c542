"""The gate: any image or mask a user has, as a lazy DataArray with dims ``(c)(z)yx``, checked once.

Opening reads headers only. Pixels are read block by block when they are asked for, and inputs are never written to.

What the dimensions of an image or mask mean, and its form ``(c)(z)yx`` once that is settled.

Pixel sizes in micrometres, as the coordinates of an array.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.base import tokenize
from xarray import DataArray, concat

from svetlana_jupyter.core.io.mask_checks import check_integer
from svetlana_jupyter.core.io.pyramid import PyramidLevel, pyramid_levels
from svetlana_jupyter.core.io.readers import file_digest, open_array_source
from svetlana_jupyter.core.io.sources import OpenedFile, to_dask, to_micrometers
from svetlana_jupyter.errors import InputError

IMAGE_AXIS_ORDERS = {2: ("yx",), 3: ("zyx", "cyx", "yxc"), 4: ("czyx", "zcyx", "zyxc")}
MASK_AXIS_ORDERS = {2: ("yx",), 3: ("zyx",)}


def resolve_image_axes(
    shape: Sequence[int],
    dtype: np.dtype[Any],
    said: str | None,
    asked: str | None,
    mask_shape: Sequence[int] | None,
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
    mask_shape : tuple of int, optional
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
    if mask_shape is not None:
        fitting = tuple(axes for axes in possible if _spatial_shape(shape, axes) == tuple(mask_shape))
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


Spacing: TypeAlias = float | Sequence[float]


def pixel_size_along(array: DataArray, axis: str) -> float | None:
    """Pixel size along an axis whose coordinate is even and has a unit of length; None for others."""
    if axis not in array.coords:
        return None
    coordinate = array[axis]
    unit = coordinate.attrs.get("units")
    if coordinate.size == 1:
        return to_micrometers(coordinate.attrs.get("spacing"), unit)
    steps = np.diff(coordinate.values.astype(float))
    if not np.allclose(steps, steps[0], rtol=1e-3, atol=0):
        return None
    return to_micrometers(f"{steps[0]:.10g}", unit)  # without the rounding of the coordinates


def coordinates(axes: str, shape: Sequence[int], spacing: Mapping[str, float]) -> dict[str, Any]:
    """Coordinates in micrometres for the axes whose spacing is known.

    ``spacing`` is repeated as an attribute, for axes of a single pixel, whose coordinate does not show it.
    """
    return {
        axis: (axis, np.arange(length) * spacing[axis], {"units": "micrometer", "spacing": spacing[axis]})
        for axis, length in zip(axes, shape)
        if axis in spacing
    }


def parse_spacing(spacing: Spacing, axes: str, where: str) -> dict[str, float]:
    """Pixel size by axis, from one number for all axes or one for each."""
    sizes = [float(spacing)] * len(axes) if isinstance(spacing, (int, float)) else [float(size) for size in spacing]
    if len(sizes) != len(axes) or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise InputError(
            f"spacing should be {len(axes)} positive numbers in micrometres, ({', '.join(axes)}), for {where}; "
            f"got {spacing}."
        )
    return dict(zip(axes, sizes))


Array: TypeAlias = npt.NDArray[Any] | da.Array | DataArray
Source: TypeAlias = str | PathLike[str] | Array

RGB = ("red", "green", "blue")


def open_image(
    source: Source | Sequence[Source],
    axes: str | None = None,
    spacing: Spacing | None = None,
    channels: Sequence[str] | None = None,
    cache: Path | None = None,
    mask_shape: Sequence[int] | None = None,
) -> DataArray:
    """Open an image lazily.

    Parameters
    ----------
    source : path, array or sequence of them
        A path (TIFF, OME-TIFF, PNG, JPEG, ``.npy``, HDF5 ``"file.h5"`` or ``"file.h5/dataset"``, Zarr, OME-Zarr at full
        resolution), a NumPy or dask array, or a DataArray. Several in a tuple or list are stacked, one a channel.
    axes : str, optional
        One letter a dimension as stored (``c`` channels, ``z`` planes, ``y`` rows, ``x`` columns, ``s`` samples of a
        colour pixel, ``t`` a single time): needed where the file does not say and the shape allows several readings.
    spacing : float or sequence of float, optional
        Pixel size in micrometres, ``([z,] y, x)`` or one number for all; otherwise what the file says.
    channels : sequence of str, optional
        Channel names; otherwise what the file says.
    cache : Path, optional
        Folder for the unpacked copy of a large file that cannot be read in parts; made when it is first read.
    mask_shape : tuple of int, optional
        Shape ``([z,] y, x)`` of the mask that belongs to the image, which settles ambiguous axes.

    Returns
    -------
    DataArray
        Dims ``([c,] [z,] y, x)``, backed by dask. Coordinate ``c`` holds channel names (red, green, blue for colour
        pictures); ``z``, ``y`` and ``x`` are in micrometres and exist only where the spacing is known. A single plane
        is an image of two dimensions; the transparency of a picture is left out.

    Raises
    ------
    InputError
        If it cannot be read, is no image, or its axes, spacing or channels do not fit.

    Examples
    --------
    >>> image = open_image(np.zeros((2, 30, 40)), axes="cyx", spacing=0.5, channels=["dna", "actin"])
    >>> image.dims, spacing_of(image), image.c.values.tolist()
    (('c', 'y', 'x'), (0.5, 0.5), ['dna', 'actin'])
    """
    return open_image_levels(source, axes, spacing, channels, cache, mask_shape)[0]


def open_image_levels(
    source: Source | Sequence[Source],
    axes: str | None = None,
    spacing: Spacing | None = None,
    channels: Sequence[str] | None = None,
    cache: Path | None = None,
    mask_shape: Sequence[int] | None = None,
) -> tuple[DataArray, tuple[PyramidLevel, ...]]:
    """Open an image as `open_image` does, with the resolutions that its file holds, the finest first."""
    if isinstance(source, (tuple, list)):
        stack = _stacked(source, axes, spacing, channels, cache, mask_shape)
        return stack, (PyramidLevel.from_array(stack),)
    where = describe_source(source, "image")
    stored = _stored(source, cache)
    if stored.pixels.dtype.kind not in "buif":
        raise InputError(
            f"{where} should hold real numbers, got {stored.pixels.dtype}. Save its magnitude or its parts."
        )
    letters = resolve_image_axes(stored.pixels.shape, stored.pixels.dtype, stored.axes, axes, mask_shape, where)
    pixels, dims = to_standard_order(stored.pixels, letters)
    named = stored.channels if "s" not in letters or pixels.shape[0] != 3 else RGB
    if channels is not None and "c" not in dims:
        pixels, dims = pixels[None], f"c{dims}"
    names = _channel_names(pixels, dims, named, channels, where)
    opened = _described(pixels, dims, stored.spacing, spacing, where, names).rename("image")
    return opened, pyramid_levels(stored, letters, opened)


def open_mask(
    source: Source, axes: str | None = None, spacing: Spacing | None = None, cache: Path | None = None
) -> DataArray:
    """Open a mask lazily: integers, 0 for background, one number an object.

    Parameters and errors are those of `open_image`; three dimensions are always ``zyx``. Of an OME-Zarr image with a
    ``labels`` group its one label image is taken, of Cellpose's ``*_seg.npy`` its masks.

    Returns
    -------
    DataArray
        Dims ``([z,] y, x)``, integer, backed by dask.

    Examples
    --------
    >>> open_mask(np.eye(4, dtype=int)).dims
    ('y', 'x')
    """
    return open_mask_levels(source, axes, spacing, cache)[0]


def open_mask_levels(
    source: Source, axes: str | None = None, spacing: Spacing | None = None, cache: Path | None = None
) -> tuple[DataArray, tuple[PyramidLevel, ...]]:
    """Open a mask as `open_mask` does, with the resolutions that its file holds, the finest first."""
    where = describe_source(source, "mask")
    stored = _stored(source, cache, labels=True)
    letters = resolve_mask_axes(stored.pixels.shape, stored.axes, axes, where)
    pixels, dims = to_standard_order(stored.pixels, letters)
    if dims.startswith("c"):
        pixels, dims = pixels[0], dims[1:]
    check_integer(pixels, where)
    opened = _described(pixels, dims, stored.spacing, spacing, where).rename("mask")
    return opened, pyramid_levels(stored, letters, opened)


def spacing_of(array: DataArray) -> tuple[float, ...] | None:
    """Pixel size ``([z,] y, x)`` in micrometres, from the coordinates; None where they do not say."""
    sizes = [pixel_size_along(array, str(dim)) for dim in array.dims if dim != "c"]
    known = tuple(size for size in sizes if size is not None)
    return known if len(known) == len(sizes) else None


def with_channel_axis(image: DataArray) -> DataArray:
    """Return the image with ``c`` as its first dimension; a gray image gets a single channel named grey."""
    return image if "c" in image.dims else image.expand_dims(c=["grey"])


def is_rgb(image: DataArray) -> bool:
    """Whether the channels are the red, green and blue of a colour picture."""
    return "c" in image.coords and tuple(np.atleast_1d(image["c"].values).tolist()) == RGB


def fingerprint(source: Source | Sequence[Source]) -> str:
    """Short text that changes when an image or mask does.

    Small files and arrays in memory go by their content; files and folders of more than 16 MiB by size and time of
    change; dask arrays by their name, which stands for how they are computed.

    Examples
    --------
    >>> fingerprint(np.zeros(3)) == fingerprint(np.zeros(3)) != fingerprint(np.ones(3))
    True
    """
    if isinstance(source, (tuple, list)):
        text = " ".join(map(fingerprint, source)).encode()
    elif isinstance(source, (str, PathLike)):
        path = Path(source).expanduser()
        text = path.name.encode() + file_digest(path)
    else:
        data = source.data if isinstance(source, DataArray) else source
        text = (data.name if isinstance(data, da.Array) else tokenize(np.asarray(data))).encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def describe_source(source: Source, what: str) -> str:
    """How errors call a source: by its path, or as what it is."""
    return str(source) if isinstance(source, (str, PathLike)) else f"the {what}"


def _stored(source: Source, cache: Path | None, labels: bool = False) -> OpenedFile:
    if isinstance(source, (str, PathLike)):
        stored = open_array_source(Path(source).expanduser(), cache, labels)
    elif isinstance(source, DataArray):
        stored = _from_dataarray(source)
    elif isinstance(source, da.Array):
        stored = OpenedFile(source)
    elif isinstance(source, np.ndarray):
        stored = OpenedFile(to_dask(source))
    else:
        raise InputError(f"expected a path, a NumPy or dask array or a DataArray, got {type(source).__name__}.")
    if stored.pixels.ndim < 2 or 0 in stored.pixels.shape:
        raise InputError(
            f"{describe_source(source, 'input')} has shape {stored.pixels.shape}, expected rows and columns of pixels."
        )
    native = stored.pixels.dtype.newbyteorder("=")
    return replace(stored, pixels=stored.pixels.astype(native))  # a copy only where the byte order is another


def _from_dataarray(array: DataArray) -> OpenedFile:
    pixels = array.data if isinstance(array.data, da.Array) else to_dask(np.asarray(array.data))
    axes = axes_from_dims(array)
    if axes is None:
        return OpenedFile(pixels)
    array = array.rename(dict(zip(array.dims, axes)))
    steps = {axis: pixel_size_along(array, axis) for axis in "zyx" if axis in axes}
    names = array["c"].values.tolist() if "c" in array.coords and array["c"].ndim == 1 else []
    spacing = {axis: step for axis, step in steps.items() if step is not None}
    return OpenedFile(pixels, axes, spacing, tuple(map(str, names)))


def _stacked(
    sources: Sequence[Source],
    axes: str | None,
    spacing: Spacing | None,
    channels: Sequence[str] | None,
    cache: Path | None,
    mask_shape: Sequence[int] | None,
) -> DataArray:
    """One file a channel, as one image."""
    if not sources:
        raise InputError("expected one source a channel, got none.")
    names = channels or [f"channel {i}" for i in range(1, len(sources) + 1)]
    if len(names) != len(sources):
        raise InputError(f"{len(names)} channel names were given for {len(sources)} files: {', '.join(names)}.")
    opened = [with_channel_axis(open_image(source, axes, spacing, None, cache, mask_shape)) for source in sources]
    for source, image in zip(sources, opened):
        if image.sizes["c"] > 1 or image.shape != opened[0].shape:
            raise InputError(
                f"{describe_source(source, 'image')} is {format_shape(image.shape, image.dims)}; files that are "
                f"stacked should have one channel each and the same shape, "
                f"{format_shape(opened[0].shape, opened[0].dims)}."
            )
    stack = concat(opened, dim="c", join="override", combine_attrs="override")
    return stack.assign_coords(c=[str(name) for name in names])


def _channel_names(
    pixels: da.Array, dims: str, named: Sequence[str], asked: Sequence[str] | None, where: str
) -> list[str] | None:
    if "c" not in dims:
        return None
    count = pixels.shape[0]
    if asked is not None:
        if len(asked) != count or len(set(asked)) < count:
            raise InputError(
                f"{where} has {count} channels, got the names {list(asked)}. Give each channel its own name."
            )
        return [str(name) for name in asked]
    if len(named) == count and len(set(named)) == count:
        return [str(name) for name in named]
    return [f"channel {i}" for i in range(1, count + 1)]


def _described(
    pixels: da.Array,
    dims: str,
    said: Mapping[str, float],
    asked: Spacing | None,
    where: str,
    channels: Sequence[str] | None = None,
) -> DataArray:
    spatial = dims.lstrip("c")
    spacing = said if asked is None else parse_spacing(asked, spatial, where)
    coords = coordinates(spatial, pixels.shape[-len(spatial) :], spacing)
    if channels is not None:
        coords["c"] = list(channels)
    return DataArray(pixels, dims=tuple(dims), coords=coords)
