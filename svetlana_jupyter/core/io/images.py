"""Images and masks as lazy DataArrays with dims ``(c)(z)yx``.

A source is a file or an array. All checks happen when a source is opened, which reads only its headers. Pixels are
read block by block when they are needed, and sources are never written to. Axes are inferred if the shape allows a
single interpretation. Pixel sizes are stored as coordinates in micrometers.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
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
from svetlana_jupyter.core.io.pixel_size import (
    Spacing,
    combine_spacings,
    describe_partial_spacing,
    parse_spacing,
    read_spacing,
    to_micrometers,
)
from svetlana_jupyter.core.io.pyramid import PyramidLevel, pyramid_levels
from svetlana_jupyter.core.io.readers import file_digest, open_array_source
from svetlana_jupyter.core.io.sources import OpenedFile, ReadRequest, to_dask
from svetlana_jupyter.errors import InputError

Array: TypeAlias = npt.NDArray[Any] | da.Array | DataArray
Source: TypeAlias = str | PathLike[str] | Array
ImageSource: TypeAlias = Source | Sequence[Source]

RGB = ("red", "green", "blue")
IMAGE_AXIS_ORDERS = {2: ("yx",), 3: ("zyx", "cyx", "yxc"), 4: ("czyx", "zcyx", "zyxc")}
MASK_AXIS_ORDERS = {2: ("yx",), 3: ("zyx",)}
OTHER = "o"  # letter of an axis of length 1 that is left out


@dataclass(frozen=True)
class OpenOptions:
    """Arguments of `open_image`.

    With ``allow_more_channels``, the image may have more channels than ``channels`` names.
    """

    axes: str | None = None
    spacing: Spacing | None = None
    channels: Sequence[str] | None = None
    cache: Path | None = None
    mask_shape: Sequence[int] | None = None
    allow_more_channels: bool = False


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
        return _checked_axes(stated, shape, source_name, from_user is None)
    kept = _without_singletons(shape, IMAGE_AXIS_ORDERS)
    lengths = [shape[i] for i in kept]
    if stored.pixels.dtype == np.uint8 and len(lengths) in (3, 4) and lengths[-1] in (3, 4) and min(lengths[-3:-1]) > 4:
        samples = "s" if lengths[-1] == 3 else "c"  # the fourth may be transparency or a channel, so it is kept
        return _with_singletons(f"zyx{samples}"[-len(kept) :], kept, shape)
    possible = _possible_orders(lengths, IMAGE_AXIS_ORDERS, source_name)
    if lengths[-1] >= min(lengths[:-1]):  # an image has fewer channels than pixels along any axis
        possible = tuple(axes for axes in possible if axes[-1] == "x")
    if mask_shape is not None:
        fitting = [axes for axes in possible if _spatial_shape(axes, lengths) == [*mask_shape]]
        possible = tuple(fitting) or possible
    if len(possible) == 1:
        return _with_singletons(possible[0], kept, shape)
    shown = " or ".join(f'`axes="{_with_singletons(axes, kept, shape)}"`' for axes in possible)
    raise InputError(
        f"{_capitalize(source_name)} has shape {tuple(shape)} and does not state what its dimensions are. "
        f"Name them: {shown} (c channels, z planes, y rows, x columns)."
    )


def _spatial_shape(axes: str, lengths: Sequence[int]) -> list[int]:
    """Return the lengths along z, y and x; a single plane does not count."""
    return [length for axis, length in zip(axes, lengths) if axis in "yx" or (axis == "z" and length > 1)]


def _without_singletons(shape: Sequence[int], orders: Mapping[int, tuple[str, ...]]) -> list[int]:
    """Return the dimensions that need a letter.

    Those of length 1 at the ends, and further ones if there are too many dimensions, need none.
    """
    kept = list(range(len(shape)))
    while len(kept) > 2 and 1 in (shape[kept[0]], shape[kept[-1]]):
        kept.pop(0 if shape[kept[0]] == 1 else -1)
    if len(kept) not in orders:
        kept = [i for i in kept if shape[i] > 1]
    return kept


def _with_singletons(axes: str, kept: Sequence[int], shape: Sequence[int]) -> str:
    """Return one letter per dimension, from the letters of the kept ones."""
    letters = dict(zip(kept, axes))
    return "".join(letters.get(i, OTHER) for i in range(len(shape)))


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
        kept = _without_singletons(shape, MASK_AXIS_ORDERS)
        (order,) = _possible_orders([shape[i] for i in kept], MASK_AXIS_ORDERS, source_name)
        return _with_singletons(order, kept, shape)
    axes = _checked_axes(axes, shape, source_name, from_user is None, is_mask=True)
    for axis, length in zip(axes, shape):
        if axis in "cs" and length > 1:
            kind = "channels" if axis == "c" else "color samples per pixel"
            hint = "Pass the label image itself, not a colored display of it."
            if axis == "c":
                planes = axes.replace("c", "z") if "z" not in axes else "zyx"
                opened = "mask" if source_name == "the mask" else repr(source_name)
                hint = (
                    "Save the channel with the labels as a separate file or, if these are planes, pass the mask as "
                    f'`sv.open_mask({opened}, axes="{planes}")`.'
                )
            raise InputError(
                f"{_capitalize(source_name)} has {length} {kind} (axes {axes}, shape {tuple(shape)}), but a mask has "
                f"one integer per pixel. {hint}"
            )
    return axes


def _possible_orders(shape: Sequence[int], orders: Mapping[int, tuple[str, ...]], source_name: str) -> tuple[str, ...]:
    if len(shape) in orders:
        return orders[len(shape)]
    raise InputError(
        f"{_capitalize(source_name)} has {len(shape)} dimensions (shape {tuple(shape)}), expected "
        f"{' or '.join(map(str, orders))}. Save each image of it, such as one time point, to its own file."
    )


def _checked_axes(axes: str, shape: Sequence[int], source_name: str, from_file: bool, is_mask: bool = False) -> str:
    """Return valid axes in lower case, or raise an error.

    A single channel of color samples, or a single color sample of channels, gets the letter `OTHER`.
    """
    axes = axes.lower()
    letters = set(axes)
    if len(letters) < len(axes) or not {"y", "x"} <= letters <= set("tczyxs"):
        raise InputError(
            f'`axes="{axes}"` must name each dimension of {source_name} once, including y and x. '
            'Pass "yx", "zyx", "cyx", "czyx" or another order, "yxs" for color samples.'
        )
    if len(axes) != len(shape):
        raise InputError(
            f'`axes="{axes}"` names {len(axes)} dimensions, but {source_name} has {len(shape)} (shape {tuple(shape)}). '
            f"Pass one letter per dimension{'' if is_mask else ' of the image; those of its mask are not needed'}."
        )
    lengths = dict(zip(axes, shape))
    described = f"(axes {axes}, shape {tuple(shape)})"
    if {"c", "s"} <= letters:
        if min(lengths["c"], lengths["s"]) > 1:
            raise InputError(
                f"{_capitalize(source_name)} {'has' if from_file else 'would have'} {lengths['c']} channels of "
                f"{lengths['s']} color samples each {described}, but an image has either. Save each channel as a "
                "separate color image."
            )
        axes = axes.replace("c" if lengths["c"] == 1 else "s", OTHER)
    if (times := lengths.get("t", 1)) > 1:
        taken = letters | ({"c"} if is_mask or "s" in letters else set())
        free = [letter for letter in "zc" if letter not in taken]
        choice = f' or, if these are planes or channels, pass `axes="{axes.replace("t", free[0])}"`' if free else ""
        raise InputError(
            f"{_capitalize(source_name)} is a series of {times} time points {described}. Save each time point to its "
            f"own file and add it as a separate image{choice}."
        )
    return axes


def to_standard_order(pixels: da.Array, axes: str) -> tuple[da.Array, str]:
    """Return pixels and axes in the order ``(c)(z)yx``.

    The alpha channel of color samples and the axis of a single time point or plane are dropped. The axis ``s`` of color
    samples becomes ``c``.
    """
    single = f"tz{OTHER}"
    if "s" in axes:
        at = axes.index("s")
        opaque = {2: 1, 4: 3}.get(pixels.shape[at], pixels.shape[at])  # gray or color with an alpha channel
        pixels = pixels[(slice(None),) * at + (slice(opaque),)]
        single += "s" if opaque == 1 else ""
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
    return to_micrometers(*_stated_size(array, axis)) if axis in array.coords else None


def _stated_size(array: DataArray, axis: str) -> tuple[str | None, object]:
    """Return the step of the coordinates along an axis, if any, and its unit."""
    coordinate = array[axis]
    unit = coordinate.attrs.get("units")
    if coordinate.size == 1:
        return coordinate.attrs.get("spacing"), unit
    if coordinate.dtype.kind not in "iuf":
        return None, unit
    steps = np.diff(coordinate.values.astype(float))
    even = np.allclose(steps, steps[0], rtol=1e-3, atol=0)
    return (f"{steps[0]:.10g}" if even else None), unit  # ten digits, to remove rounding errors


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
        A path (TIFF, OME-TIFF, PNG, JPEG, BMP, GIF, WebP, ``.npy``, HDF5 ``"file.h5"`` or ``"file.h5/dataset"``, Zarr,
        OME-Zarr at full resolution), a NumPy or dask array, or a DataArray. The sources in a tuple or list are stacked,
        one per channel.
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
        plane becomes a two-dimensional image; a channel that the file states to be alpha is left out.
        ``attrs["notes"]``, if present, are sentences about what was converted or not used; they are also warnings.

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
    return _with_warnings(open_image_levels(source, OpenOptions(axes, spacing, channels, cache, mask_shape))[0])


def open_image_levels(source: ImageSource, options: OpenOptions) -> tuple[DataArray, tuple[PyramidLevel, ...]]:
    """Open an image and its resolution levels, the finest first."""
    if isinstance(source, (tuple, list)):
        stack = _open_stack(source, options)
        return stack, (PyramidLevel.from_array(stack),)
    source_name = describe_source(source, "image")
    mask_shape = None if options.mask_shape is None else tuple(options.mask_shape)
    stored = _open_source(source, ReadRequest(options.cache, mask_shape=mask_shape))
    if stored.pixels.dtype.kind not in "buif":
        raise InputError(
            f"{_capitalize(source_name)} must contain real numbers, got {stored.pixels.dtype}. Save its magnitude or "
            "its real and imaginary parts."
        )
    letters = resolve_image_axes(stored, options.axes, mask_shape, source_name)
    pixels, dims = to_standard_order(stored.pixels, letters)
    if options.channels is not None and "c" not in dims:
        pixels, dims = pixels[None], f"c{dims}"
    opened = _to_dataarray(pixels, dims, stored, options.spacing, source_name).rename("image")
    if "c" in dims:
        named = RGB if "s" in letters and len(pixels) == 3 else stored.channels
        given = options.channels
        if given is not None and options.allow_more_channels:
            given = [*given, *(f"channel {number}" for number in range(len(given) + 1, len(pixels) + 1))]
        opened = opened.assign_coords(c=_channel_names(len(pixels), named, given, source_name))
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
    return _with_warnings(open_mask_levels(source, axes, spacing, cache)[0])


def open_mask_levels(
    source: Source, axes: str | None = None, spacing: Spacing | None = None, cache: Path | None = None
) -> tuple[DataArray, tuple[PyramidLevel, ...]]:
    """Open a mask and its resolution levels, the finest first."""
    source_name = describe_source(source, "mask")
    stored = _open_source(source, ReadRequest(cache, labels=True))
    letters = resolve_mask_axes(stored, axes, source_name)
    pixels, dims = to_standard_order(stored.pixels, letters)
    if dims.startswith("c"):
        pixels, dims = pixels[0], dims[1:]
    check_integer(pixels, source_name)
    opened = _to_dataarray(pixels, dims, stored, spacing, source_name).rename("mask")
    return opened, pyramid_levels(stored, letters, opened)


def spacing_of(array: DataArray) -> tuple[float, ...] | None:
    """Return the pixel size ``([z,] y, x)`` in micrometers, None if unknown."""
    known = known_spacing(array)
    return tuple(known.values()) if len(known) == array.ndim - ("c" in array.dims) else None


def known_spacing(array: DataArray) -> dict[str, float]:
    """Return the known pixel sizes in micrometers, in the order of the axes."""
    sizes = {str(dim): pixel_size_along(array, str(dim)) for dim in array.dims if dim != "c"}
    return {axis: size for axis, size in sizes.items() if size is not None}


def notes_of(array: DataArray) -> list[str]:
    """Return the sentences about what was converted or not used."""
    return list(array.attrs.get("notes", ()))


def partial_spacing_note(array: DataArray) -> str:
    """Return a sentence if only some axes have a pixel size, otherwise ""."""
    return describe_partial_spacing(known_spacing(array), "".join(str(dim) for dim in array.dims if dim != "c"))


def with_spacing(array: DataArray, spacing: Mapping[str, float]) -> DataArray:
    """Return an image or mask with the given pixel sizes in micrometers by axis."""
    axes = "".join(str(dim) for dim in array.dims)
    return array.assign_coords(spacing_coordinates(axes, array.shape, spacing))


def _with_warnings(array: DataArray) -> DataArray:
    """Warn the caller of `open_image` or `open_mask` of the notes."""
    for note in filter(None, (*notes_of(array), partial_spacing_note(array))):
        warnings.warn(note, stacklevel=3)
    return array


def with_channel_axis(image: DataArray) -> DataArray:
    """Return the image with a channel axis; a gray image gets the channel "gray"."""
    return image if "c" in image.dims else image.expand_dims(c=["gray"])


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


def _open_source(source: Source, request: ReadRequest) -> OpenedFile:
    if isinstance(source, (str, PathLike)):
        stored = open_array_source(Path(source).expanduser(), request)
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
    axes = stored.axes
    if axes is not None and "s" in axes and "c" not in axes and stored.pixels.shape[axes.index("s")] not in (1, 3):
        axes = axes.replace("s", "c")  # readers leave out what is alpha for certain
    native = stored.pixels.dtype.newbyteorder("=")
    return replace(stored, axes=axes, pixels=stored.pixels.astype(native))  # copies only if the byte order differs


def _to_dask(pixels: Any) -> da.Array:
    return pixels if isinstance(pixels, da.Array) else to_dask(np.asarray(pixels))


def _from_dataarray(array: DataArray) -> OpenedFile:
    axes = axes_from_dims(array)
    if axes is None:
        return OpenedFile(_to_dask(array.data))
    array = array.rename(dict(zip(array.dims, axes)))
    spacing, notes = read_spacing({axis: _stated_size(array, axis) for axis in "zyx" if axis in array.coords})
    names = array["c"].values.tolist() if "c" in array.coords and array["c"].ndim == 1 else []
    return OpenedFile(
        _to_dask(array.data), axes, spacing, tuple(map(str, names)), notes=notes_of(array), spacing_notes=notes
    )


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
    spacing: dict[str, float] = {}
    notes: list[str] = []
    opened = [with_channel_axis(open_image_levels(source, unnamed)[0]) for source in sources]
    for source, image in zip(sources, opened):
        if image.sizes["c"] > 1 or image.shape != opened[0].shape:
            raise InputError(
                f"{_capitalize(describe_source(source, 'image'))} has shape {format_shape(image.shape, image.dims)}, "
                f"but stacked files must have one channel each and the same shape, "
                f"{format_shape(opened[0].shape, opened[0].dims)}. Pass one such file per channel."
            )
        described = (describe_source(sources[0], "first channel"), describe_source(source, "channel"))
        spacing = combine_spacings(spacing, known_spacing(image), described)
        notes += [note for note in notes_of(image) if note not in notes]
    stack = concat(opened, dim="c", join="override", combine_attrs="drop")
    stack = stack.assign_coords(c=[str(name) for name in names])
    return with_spacing(stack.assign_attrs({"notes": notes} if notes else {}), spacing)


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
    pixels: da.Array, dims: str, stored: OpenedFile, from_user: Spacing | None, source_name: str
) -> DataArray:
    axes = dims.lstrip("c")
    spacing = stored.spacing if from_user is None else parse_spacing(from_user, axes, source_name)
    notes = [*stored.notes, *(stored.spacing_notes if from_user is None else ())]
    attrs = {"notes": [note if note.startswith(f"{source_name}: ") else f"{source_name}: {note}" for note in notes]}
    coordinates = spacing_coordinates(axes, pixels.shape[-len(axes) :], spacing)
    return DataArray(pixels, coordinates, tuple(dims), attrs=attrs if notes else None)
