"""Images and masks as lazy DataArrays with dims ``(c)(z)yx``.

A source is a file or an array. All checks happen when a source is opened, which reads only its headers. Pixels are
read block by block when they are needed, and sources are never written to. Axes are inferred if the shape allows a
single interpretation. Pixel sizes are stored as coordinates in micrometers.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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

Array: TypeAlias = npt.NDArray[Any] | da.Array | DataArray
Source: TypeAlias = str | PathLike[str] | Array
ImageSource: TypeAlias = Source | Sequence[Source]
Spacing: TypeAlias = float | Sequence[float]

RGB = ("red", "green", "blue")
IMAGE_AXIS_ORDERS = {2: ("yx",), 3: ("zyx", "cyx", "yxc"), 4: ("czyx", "zcyx", "zyxc")}
MASK_AXIS_ORDERS = {2: ("yx",), 3: ("zyx",)}


@dataclass(frozen=True)
class OpenOptions:
    """Arguments of `open_image`."""

    axes: str | None = None
    spacing: Spacing | None = None
    channels: Sequence[str] | None = None
    cache: Path | None = None
    mask_shape: Sequence[int] | None = None


def resolve_image_axes(
    stored: OpenedFile, from_user: str | None, mask_shape: Sequence[int] | None, source_name: str
) -> str:
    """Return the axes of an image, one letter per dimension.

    Parameters
    ----------
    stored : OpenedFile
    from_user : str, optional
        Axes given by the user, which take precedence.
    mask_shape : tuple of int, optional
        Shape ``([z,] y, x)`` of the mask of the image, which resolves ambiguous axes.
    source_name : str
        Name of the image in error messages.

    Raises
    ------
    InputError
        If the axes are unknown and the shape allows several interpretations, or if the axes do not describe an image.
    """
    shape = stored.pixels.shape
    if (stated := stored.axes if from_user is None else from_user) is not None:
        return _checked_axes(stated, shape, source_name)
    if stored.pixels.dtype == np.uint8 and len(shape) in (3, 4) and shape[-1] in (3, 4) and min(shape[-3:-1]) > 4:
        return "zyxs"[-len(shape) :]
    possible = _possible_orders(shape, IMAGE_AXIS_ORDERS, source_name)
    if shape[-1] >= min(shape[:-1]):  # an image has fewer channels than pixels along any axis
        possible = tuple(axes for axes in possible if axes[-1] == "x")
    if mask_shape is not None:
        lengths = {axes: dict(zip(axes, shape)) for axes in possible}
        fitting = [axes for axes in possible if [lengths[axes][axis] for axis in axes if axis != "c"] == [*mask_shape]]
        possible = tuple(fitting) or possible
    if len(possible) == 1:
        return possible[0]
    shown = " or ".join(f'`axes="{axes}"`' for axes in possible)
    raise InputError(
        f"{_capitalize(source_name)} has shape {tuple(shape)} and does not state what its dimensions are. "
        f"Name them: {shown} (c channels, z planes, y rows, x columns)."
    )


def resolve_mask_axes(stored: OpenedFile, from_user: str | None, source_name: str) -> str:
    """Return the axes of a mask, one letter per dimension.

    Three dimensions are ``zyx`` by default. A time series is read as a volume; the later comparison with the shape of
    the image detects a real time series.
    """
    shape, axes = stored.pixels.shape, from_user
    if axes is None and (axes := stored.axes) is not None:
        is_series = "z" not in axes and "t" in axes and shape[axes.index("t")] > 1
        axes = axes.replace("t", "z") if is_series else axes
    if axes is None:
        axes = _possible_orders(shape, MASK_AXIS_ORDERS, source_name)[0]
    else:
        axes = _checked_axes(axes, shape, source_name)
    for axis, length in zip(axes, shape):
        if axis in "cs" and length > 1:
            raise InputError(
                f"{_capitalize(source_name)} has {length} channels (axes {axes}, shape {tuple(shape)}), but a mask has "
                "one integer per pixel. Save the channel with the labels as a separate file or, if these are planes, "
                'open the mask with `open_mask(..., axes="zyx")`.'
            )
    return axes


def _possible_orders(shape: Sequence[int], orders: Mapping[int, tuple[str, ...]], source_name: str) -> tuple[str, ...]:
    if len(shape) in orders:
        return orders[len(shape)]
    raise InputError(
        f"{_capitalize(source_name)} has {len(shape)} dimensions (shape {tuple(shape)}), expected "
        f'{" or ".join(map(str, orders))}. Name additional dimensions of length 1, for example `axes="tczyx"`.'
    )


def _checked_axes(axes: str, shape: Sequence[int], source_name: str) -> str:
    axes = axes.lower()
    letters = set(axes)
    if len(letters) < len(axes) or not {"y", "x"} <= letters <= set("tczyxs") or {"c", "s"} <= letters:
        raise InputError(
            f'`axes="{axes}"` must name each dimension of {source_name} once, including y and x. '
            'Pass "yx", "zyx", "cyx", "czyx" or another order, "yxs" for color samples.'
        )
    if len(axes) != len(shape):
        raise InputError(
            f'`axes="{axes}"` names {len(axes)} dimensions, but {source_name} has {len(shape)} (shape {tuple(shape)}). '
            "Pass one letter per dimension."
        )
    if "t" in axes and (times := shape[axes.index("t")]) > 1:
        other = axes.replace("t", "c" if "z" in axes else "z")
        raise InputError(
            f"{_capitalize(source_name)} is a series of {times} time points (axes {axes}, shape {tuple(shape)}). Add "
            f'each time point as a separate image or, if these are planes or channels, pass `axes="{other}"`.'
        )
    return axes


def to_standard_order(pixels: da.Array, axes: str) -> tuple[da.Array, str]:
    """Return pixels and axes in the order ``(c)(z)yx``.

    The alpha channel and the axis of a single time point or plane are dropped. The axis ``s`` of color samples becomes
    ``c``.
    """
    single = "tz"
    if "s" in axes:
        at = axes.index("s")
        opaque = {2: 1, 4: 3}.get(pixels.shape[at], pixels.shape[at])  # gray or color with an alpha channel
        pixels = pixels[(slice(None),) * at + (slice(opaque),)]
        single = "tzs" if opaque == 1 else "tz"
    keep = [axis not in single or length > 1 for axis, length in zip(axes, pixels.shape)]
    pixels = pixels[tuple(slice(None) if kept else 0 for kept in keep)]
    axes = "".join(itertools.compress(axes, keep)).replace("s", "c")
    order = sorted(range(len(axes)), key=lambda i: "czyx".index(axes[i]))
    return pixels.transpose(*order), "".join(axes[i] for i in order)


def axes_from_dims(array: DataArray) -> str | None:
    """Return the axes of a DataArray, None if a dimension has an unknown name.

    Known names are the letters t, c, z, y, x and s, and "channel" or "channels".
    """
    names = ["c" if str(dim).lower() in ("channel", "channels") else str(dim).lower() for dim in array.dims]
    axes = "".join(names)
    return axes if len(axes) == array.ndim and set(axes) <= set("tczyxs") else None


def format_shape(shape: Sequence[int], axes: Sequence[object]) -> str:
    """Return a shape with its axes for error messages: ``(48, 240, 240) zyx``."""
    return f"{tuple(shape)} {''.join(map(str, axes))}"


def pixel_size_along(array: DataArray, axis: str) -> float | None:
    """Return the pixel size along an axis in micrometers, None if unknown.

    The size is known if the coordinates are evenly spaced and have a unit of length.
    """
    if axis not in array.coords:
        return None
    coordinate = array[axis]
    unit = coordinate.attrs.get("units")
    if coordinate.size == 1:
        return to_micrometers(coordinate.attrs.get("spacing"), unit)
    steps = np.diff(coordinate.values.astype(float))
    if not np.allclose(steps, steps[0], rtol=1e-3, atol=0):
        return None
    return to_micrometers(f"{steps[0]:.10g}", unit)  # ten digits, to remove rounding errors


def spacing_coordinates(axes: str, shape: Sequence[int], spacing: Mapping[str, float]) -> dict[str, Any]:
    """Return coordinates in micrometers for the axes whose spacing is known.

    Each coordinate also has the attribute ``spacing``, because the spacing of a single pixel cannot be computed from
    its coordinate.
    """
    return {
        axis: (axis, np.arange(length) * spacing[axis], {"units": "micrometer", "spacing": spacing[axis]})
        for axis, length in zip(axes, shape)
        if axis in spacing
    }


def parse_spacing(spacing: Spacing, axes: str, source_name: str) -> dict[str, float]:
    """Return the pixel size by axis, from one number for all axes or one per axis."""
    sizes = [float(spacing)] * len(axes) if isinstance(spacing, (int, float)) else [float(size) for size in spacing]
    if len(sizes) != len(axes) or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise InputError(
            f"The spacing of {source_name} must be {len(axes)} positive numbers in micrometers, ({', '.join(axes)}), "
            f"got {spacing}. Pass one number for all axes or one per axis."
        )
    return dict(zip(axes, sizes))


def open_image(
    source: ImageSource,
    axes: str | None = None,
    spacing: Spacing | None = None,
    channels: Sequence[str] | None = None,
    cache: Path | None = None,
    mask_shape: Sequence[int] | None = None,
) -> DataArray:
    """Open an image lazily.

    Parameters
    ----------
    source : path, array, or sequence of paths or arrays
        A path (TIFF, OME-TIFF, PNG, JPEG, ``.npy``, HDF5 ``"file.h5"`` or ``"file.h5/dataset"``, Zarr, OME-Zarr at full
        resolution), a NumPy or dask array, or a DataArray. The sources in a tuple or list are stacked, one per channel.
    axes : str, optional
        One letter per dimension as stored (``c`` channels, ``z`` planes, ``y`` rows, ``x`` columns, ``s`` samples of a
        color pixel, ``t`` a single time point); needed if the file does not state its axes and the shape allows several
        interpretations.
    spacing : float or sequence of float, optional
        Pixel size in micrometers, ``([z,] y, x)`` or one number for all axes; by default the pixel size in the file.
    channels : sequence of str, optional
        Channel names; by default the names in the file.
    cache : Path, optional
        Folder for the unpacked copy of a large file that cannot be read in parts. The copy is written when the file is
        first read.
    mask_shape : tuple of int, optional
        Shape ``([z,] y, x)`` of the mask of the image, which resolves ambiguous axes.

    Returns
    -------
    DataArray
        Dims ``([c,] [z,] y, x)``, backed by dask. Coordinate ``c`` holds channel names (red, green, blue for color
        images); ``z``, ``y`` and ``x`` are in micrometers and exist only if the spacing is known. A volume of a single
        plane becomes a two-dimensional image; the alpha channel is left out.

    Raises
    ------
    InputError
        If the source cannot be read or is not an image, or if the axes, spacing or channels do not fit the image.

    Examples
    --------
    >>> image = open_image(np.zeros((2, 30, 40)), axes="cyx", spacing=0.5, channels=["dna", "actin"])
    >>> image.dims, spacing_of(image), image.c.values.tolist()
    (('c', 'y', 'x'), (0.5, 0.5), ['dna', 'actin'])
    """
    return open_image_levels(source, OpenOptions(axes, spacing, channels, cache, mask_shape))[0]


def open_image_levels(source: ImageSource, options: OpenOptions) -> tuple[DataArray, tuple[PyramidLevel, ...]]:
    """Open an image and its resolution levels, the finest first."""
    if isinstance(source, (tuple, list)):
        stack = _open_stack(source, options)
        return stack, (PyramidLevel.from_array(stack),)
    source_name = describe_source(source, "image")
    stored = _open_source(source, options.cache)
    if stored.pixels.dtype.kind not in "buif":
        raise InputError(
            f"{_capitalize(source_name)} must contain real numbers, got {stored.pixels.dtype}. Save its magnitude or "
            "its real and imaginary parts."
        )
    letters = resolve_image_axes(stored, options.axes, options.mask_shape, source_name)
    pixels, dims = to_standard_order(stored.pixels, letters)
    if options.channels is not None and "c" not in dims:
        pixels, dims = pixels[None], f"c{dims}"
    opened = _to_dataarray(pixels, dims, stored.spacing, options.spacing, source_name).rename("image")
    if "c" in dims:
        named = RGB if "s" in letters and len(pixels) == 3 else stored.channels
        opened = opened.assign_coords(c=_channel_names(len(pixels), named, options.channels, source_name))
    return opened, pyramid_levels(stored, letters, opened)


def open_mask(
    source: Source, axes: str | None = None, spacing: Spacing | None = None, cache: Path | None = None
) -> DataArray:
    """Open a mask lazily: integers, 0 for background, one label per object.

    Parameters and errors are those of `open_image`; three dimensions are ``zyx`` by default. For an OME-Zarr image with
    a ``labels`` group, the label image in this group is opened; for a ``*_seg.npy`` file of Cellpose, its masks are
    opened.

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
    """Open a mask and its resolution levels, the finest first."""
    source_name = describe_source(source, "mask")
    stored = _open_source(source, cache, labels=True)
    letters = resolve_mask_axes(stored, axes, source_name)
    pixels, dims = to_standard_order(stored.pixels, letters)
    if dims.startswith("c"):
        pixels, dims = pixels[0], dims[1:]
    check_integer(pixels, source_name)
    opened = _to_dataarray(pixels, dims, stored.spacing, spacing, source_name).rename("mask")
    return opened, pyramid_levels(stored, letters, opened)


def spacing_of(array: DataArray) -> tuple[float, ...] | None:
    """Return the pixel size ``([z,] y, x)`` in micrometers, None if unknown."""
    sizes = [pixel_size_along(array, str(dim)) for dim in array.dims if dim != "c"]
    known = tuple(size for size in sizes if size is not None)
    return known if len(known) == len(sizes) else None


def with_channel_axis(image: DataArray) -> DataArray:
    """Return the image with a channel axis; a gray image gets the channel "grey"."""
    return image if "c" in image.dims else image.expand_dims(c=["grey"])


def is_rgb(image: DataArray) -> bool:
    """Return whether the channels are the red, green and blue of a color image."""
    return "c" in image.coords and tuple(np.atleast_1d(image["c"].values).tolist()) == RGB


def fingerprint(source: ImageSource) -> str:
    """Return a short text that changes when the content of an image or mask changes.

    Small files and NumPy arrays are identified by their content, files and folders of more than 16 MiB by size and
    modification time, and dask arrays by their name, which dask derives from the computation.

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


def _capitalize(text: str) -> str:
    """Return the name of a source as the start of a sentence; paths keep their case."""
    return f"T{text[1:]}" if text.startswith("the ") else text


def describe_source(source: Source, role: str) -> str:
    """Return the name of a source in error messages: its path or its role."""
    return str(source) if isinstance(source, (str, PathLike)) else f"the {role}"


def _open_source(source: Source, cache: Path | None, labels: bool = False) -> OpenedFile:
    if isinstance(source, (str, PathLike)):
        stored = open_array_source(Path(source).expanduser(), cache, labels)
    elif isinstance(source, DataArray):
        stored = _from_dataarray(source)
    elif isinstance(source, da.Array | np.ndarray):
        stored = OpenedFile(_to_dask(source))
    else:
        raise InputError(
            f"Expected a path, a NumPy or dask array or a DataArray, got {type(source).__name__}. Pass a path or an "
            "array."
        )
    if stored.pixels.ndim < 2 or 0 in stored.pixels.shape:
        raise InputError(
            f"{_capitalize(describe_source(source, 'input'))} has shape {stored.pixels.shape}, expected rows and "
            "columns of pixels. Pass an image or a mask."
        )
    native = stored.pixels.dtype.newbyteorder("=")
    return replace(stored, pixels=stored.pixels.astype(native))  # copies only if the byte order differs


def _to_dask(pixels: Any) -> da.Array:
    return pixels if isinstance(pixels, da.Array) else to_dask(np.asarray(pixels))


def _from_dataarray(array: DataArray) -> OpenedFile:
    axes = axes_from_dims(array)
    if axes is None:
        return OpenedFile(_to_dask(array.data))
    array = array.rename(dict(zip(array.dims, axes)))
    spacing = {axis: step for axis in "zyx" if (step := pixel_size_along(array, axis)) is not None}
    names = array["c"].values.tolist() if "c" in array.coords and array["c"].ndim == 1 else []
    return OpenedFile(_to_dask(array.data), axes, spacing, tuple(map(str, names)))


def _open_stack(sources: Sequence[Source], options: OpenOptions) -> DataArray:
    """Open several sources as the channels of one image."""
    if not sources:
        raise InputError("Expected one source per channel, got none. Pass at least one.")
    names = options.channels or [f"channel {i}" for i in range(1, len(sources) + 1)]
    if len(names) != len(sources):
        raise InputError(
            f"Got {len(names)} channel names for {len(sources)} files: {', '.join(names)}. Pass one name per file."
        )
    unnamed = replace(options, channels=None)
    opened = [with_channel_axis(open_image_levels(source, unnamed)[0]) for source in sources]
    for source, image in zip(sources, opened):
        if image.sizes["c"] > 1 or image.shape != opened[0].shape:
            raise InputError(
                f"{_capitalize(describe_source(source, 'image'))} has shape {format_shape(image.shape, image.dims)}, "
                f"but stacked files must have one channel each and the same shape, "
                f"{format_shape(opened[0].shape, opened[0].dims)}. Pass one such file per channel."
            )
    stack = concat(opened, dim="c", join="override", combine_attrs="override")
    return stack.assign_coords(c=[str(name) for name in names])


def _channel_names(
    count: int, named: Sequence[str], from_user: Sequence[str] | None, source_name: str
) -> Sequence[str]:
    if from_user is not None and (len(from_user) != count or len(set(from_user)) < count):
        raise InputError(
            f"{_capitalize(source_name)} has {count} channels, but the given names are {list(from_user)}. Pass {count} "
            "different names."
        )
    names = named if from_user is None else from_user
    return [*map(str, names)] if len(set(names)) == len(names) == count else [f"channel {i + 1}" for i in range(count)]


def _to_dataarray(
    pixels: da.Array, dims: str, file_spacing: Mapping[str, float], from_user: Spacing | None, source_name: str
) -> DataArray:
    axes = dims.lstrip("c")
    spacing = file_spacing if from_user is None else parse_spacing(from_user, axes, source_name)
    return DataArray(pixels, spacing_coordinates(axes, pixels.shape[-len(axes) :], spacing), tuple(dims))
