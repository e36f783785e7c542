"""TIFF, OME-TIFF and ImageJ TIFF files.

Uncompressed pixels are memory-mapped; compressed pixels are decoded by strip or tile.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import zarr
from tifffile import TiffFile, TiffFileError, TiffPageSeries, imread, xml2dict

from svetlana_jupyter.core.io.sources import (
    BLOCK_PIXELS,
    FileSource,
    OpenedFile,
    file_version,
    to_dask,
    to_micrometers,
    undivided_to_dask,
)
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import dask.array as da

Pixels: TypeAlias = npt.NDArray[Any]

MAX_PARSED_HEADERS = 32  # files whose parsed headers are cached; parsing the headers of a thousand planes takes long


def read_tiff(path: Path, cache: Path | None = None) -> OpenedFile:
    """Open the first image of a TIFF file lazily, reading only its headers."""
    try:
        with TiffFile(path) as tiff:
            series = _only_series(tiff, path)
            _refuse_truncated(series, path)
            axes = series.axes.lower()  # letters other than tczyxs are placeholders of tifffile
            spacing, channels = _spacing_and_channels(tiff)
            pixels, levels = _pixels_and_levels(series, path, cache)
            return OpenedFile(pixels, axes if set(axes) <= set("tczyxs") else None, spacing, channels, levels)
    except (TiffFileError, OSError, ValueError, IndexError, KeyError, SyntaxError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} cannot be read as TIFF ({error}). Check that the file is complete and opens in other programs."
        ) from error


def _only_series(tiff: TiffFile, path: Path) -> TiffPageSeries:
    if not tiff.series:
        raise InputError(f"{path} is a TIFF without an image. Check that it was written completely.")
    first, *others = tiff.series
    if count := sum(series.shape == first.shape for series in others):
        raise InputError(f"{path} holds {count + 1} images of the same shape, expected one. Save each to its own file.")
    return first


def _refuse_truncated(series: TiffPageSeries, path: Path) -> None:
    contiguous_end = 0 if series.dataoffset is None else series.dataoffset + series.nbytes
    for page in filter(None, (series.pages[0], series.pages[-1])):
        size = page.parent.filehandle.size  # for an OME-TIFF in several files, size of the file with this page
        ends = [*map(int.__add__, page.dataoffsets, page.databytecounts)]
        needed = max([contiguous_end, *ends]) if ends else size + 1
        if needed > size:
            raise InputError(f"{path} is truncated: it should have at least {needed} bytes, got {size}. Copy it again.")


def _pixels_and_levels(series: TiffPageSeries, path: Path, cache: Path | None) -> tuple[da.Array, list[FileSource]]:
    """Return the lazy pixels, and the resolution levels of files in strips or tiles."""
    version, dtype = file_version(path), np.dtype(series.dtype)
    if series.dataoffset is not None:
        stored = np.dtype(series.keyframe.parent.byteorder + dtype.char)
        read = partial(_read_uncompressed, path, stored, series.dataoffset, series.shape)
        return to_dask(FileSource(path, version, series.shape, stored, read)), []
    chunk = zarr.open_array(_parsed(path, version, 0), mode="r").chunks
    if math.prod(chunk) > 4 * BLOCK_PIXELS:  # too large to be decoded for each block
        return undivided_to_dask(path, series.shape, dtype, _decode_level, cache), []
    levels = [
        FileSource(path, version, level.shape, np.dtype(level.dtype), partial(_read_tiles, path, version, number))
        for number, level in enumerate(series.levels)
    ]
    return to_dask(levels[0], chunk), levels


def _read_uncompressed(path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...], part: Any) -> Pixels:
    """Read a part of uncompressed, contiguous pixels that start at ``offset``.

    The file is memory-mapped, because `tifffile` would read a whole plane for each part, which takes 94 ms instead of
    1 ms for a block of 1024 x 2048 pixels in a plane of 8000 x 8000.
    """
    return np.array(np.memmap(path, dtype, "r", offset, shape)[part])


def _read_tiles(path: Path, version: str, level: int, part: Any) -> Pixels:
    store = _parsed(path, version, level)
    try:
        array = zarr.open_array(store, mode="r")
        return np.asarray(array[part], array.dtype.newbyteorder("="))
    finally:
        store.close()  # closes the file; the store opens it again when it is next read


@lru_cache(maxsize=MAX_PARSED_HEADERS)
def _parsed(path: Path, file_version: str, level: int) -> Any:
    with TiffFile(path) as tiff:
        return tiff.series[0].aszarr(level=level)


def _decode_level(path: Path) -> Pixels:
    return np.asarray(imread(path, series=0, level=0))


def _spacing_and_channels(tiff: TiffFile) -> tuple[Mapping[str, float], list[str]]:
    """Return the spacing and the channel names from the OME or ImageJ metadata."""
    if tiff.is_ome and tiff.ome_metadata:
        return _from_ome(tiff.ome_metadata)
    return (_from_imagej(tiff) if tiff.is_imagej and tiff.imagej_metadata else {}), []


def _from_ome(text: str) -> tuple[Mapping[str, float], list[str]]:
    image = xml2dict(text)["OME"]["Image"]
    pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
    sizes = {
        axis: to_micrometers(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "ZYX"
    }
    channels = pixels.get("Channel", [])
    channels = channels if isinstance(channels, list) else [channels]
    names = [str(channel["Name"]) for channel in channels if channel.get("Name") is not None]
    return {axis.lower(): size for axis, size in sizes.items() if size}, names if len(names) == len(channels) else []


def _from_imagej(tiff: TiffFile) -> Mapping[str, float]:
    metadata, tags = tiff.imagej_metadata or {}, tiff.pages[0].tags
    unit = str(metadata.get("unit", ""))
    unit = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), unit)  # ImageJ escapes the micro sign
    sizes = {"z": to_micrometers(metadata.get("spacing"), unit)}
    for axis in "yx":
        tag = tags.get(f"{axis.upper()}Resolution")
        pixels, units = tag.value if tag else (0, 1)
        sizes[axis] = to_micrometers(units / pixels if pixels else None, unit)
    return {axis: size for axis, size in sizes.items() if size}
