"""The gate: any image or mask a user has, as a lazy DataArray with dims ``(c)(z)yx``, checked once.

Opening reads headers only. Pixels are read block by block when they are asked for, and inputs are never written to.
"""

from __future__ import annotations

import hashlib
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

from svetlana_jupyter.core.axes import (
    axes_from_dims,
    format_shape,
    resolve_image_axes,
    resolve_mask_axes,
    to_standard_order,
)
from svetlana_jupyter.core.formats.stored import OpenedFile, lazy
from svetlana_jupyter.core.labels import check_integer
from svetlana_jupyter.core.levels import PyramidLevel, pyramid_levels
from svetlana_jupyter.core.readers import file_digest, read
from svetlana_jupyter.core.spacing import Spacing, coordinates, parse_spacing, pixel_size_along
from svetlana_jupyter.errors import InputError

Array: TypeAlias = npt.NDArray[Any] | da.Array | DataArray
Source: TypeAlias = str | PathLike[str] | Array

RGB = ("red", "green", "blue")


def open_image(
    source: Source | Sequence[Source],
    axes: str | None = None,
    spacing: Spacing | None = None,
    channels: Sequence[str] | None = None,
    cache: Path | None = None,
    like: Sequence[int] | None = None,
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
    like : tuple of int, optional
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
    return open_image_levels(source, axes, spacing, channels, cache, like)[0]


def open_image_levels(
    source: Source | Sequence[Source],
    axes: str | None = None,
    spacing: Spacing | None = None,
    channels: Sequence[str] | None = None,
    cache: Path | None = None,
    like: Sequence[int] | None = None,
) -> tuple[DataArray, tuple[PyramidLevel, ...]]:
    """Open an image as `open_image` does, with the resolutions that its file holds, the finest first."""
    if isinstance(source, (tuple, list)):
        stack = _stacked(source, axes, spacing, channels, cache, like)
        return stack, (PyramidLevel.of(stack),)
    where = called(source, "image")
    stored = _stored(source, cache)
    if stored.pixels.dtype.kind not in "buif":
        raise InputError(
            f"{where} should hold real numbers, got {stored.pixels.dtype}. Save its magnitude or its parts."
        )
    letters = resolve_image_axes(stored.pixels.shape, stored.pixels.dtype, stored.axes, axes, like, where)
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
    where = called(source, "mask")
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
    """The same image with ``c`` as its first dimension; a grey one gets a single channel called grey."""
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


def called(source: Source, what: str) -> str:
    """How errors call a source: by its path, or as what it is."""
    return str(source) if isinstance(source, (str, PathLike)) else f"the {what}"


def _stored(source: Source, cache: Path | None, labels: bool = False) -> OpenedFile:
    if isinstance(source, (str, PathLike)):
        stored = read(Path(source).expanduser(), cache, labels)
    elif isinstance(source, DataArray):
        stored = _from_dataarray(source)
    elif isinstance(source, da.Array):
        stored = OpenedFile(source)
    elif isinstance(source, np.ndarray):
        stored = OpenedFile(lazy(source))
    else:
        raise InputError(f"expected a path, a NumPy or dask array or a DataArray, got {type(source).__name__}.")
    if stored.pixels.ndim < 2 or 0 in stored.pixels.shape:
        raise InputError(
            f"{called(source, 'input')} has shape {stored.pixels.shape}, expected rows and columns of pixels."
        )
    native = stored.pixels.dtype.newbyteorder("=")
    return replace(stored, pixels=stored.pixels.astype(native))  # a copy only where the byte order is another


def _from_dataarray(array: DataArray) -> OpenedFile:
    pixels = array.data if isinstance(array.data, da.Array) else lazy(np.asarray(array.data))
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
    like: Sequence[int] | None,
) -> DataArray:
    """One file a channel, as one image."""
    if not sources:
        raise InputError("expected one source a channel, got none.")
    names = channels or [f"channel {i}" for i in range(1, len(sources) + 1)]
    if len(names) != len(sources):
        raise InputError(f"{len(names)} channel names were given for {len(sources)} files: {', '.join(names)}.")
    opened = [with_channel_axis(open_image(source, axes, spacing, None, cache, like)) for source in sources]
    for source, image in zip(sources, opened):
        if image.sizes["c"] > 1 or image.shape != opened[0].shape:
            raise InputError(
                f"{called(source, 'image')} is {format_shape(image.shape, image.dims)}; files that are stacked should "
                f"have one channel each and the same shape, {format_shape(opened[0].shape, opened[0].dims)}."
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
