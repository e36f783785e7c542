"""TIFF, OME-TIFF and ImageJ TIFF files.

Uncompressed pixels are memory-mapped; compressed pixels are decoded by strip or tile. Which of several images in a file
is opened is decided by `tiff_series`, and what the samples of a pixel are by `tiff_samples`.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import zarr
from tifffile import TiffFile, TiffPageSeries, imread, xml2dict

from svetlana_jupyter.core.io.pixel_size import (
    MAX_PRINT_FREE_UM,
    StatedSizes,
    micrometers_per,
    read_spacing,
    to_micrometers,
)
from svetlana_jupyter.core.io.sources import (
    BLOCK_PIXELS,
    Decode,
    FileSource,
    OpenedFile,
    ReadRequest,
    file_version,
    to_dask,
    undivided_to_dask,
)
from svetlana_jupyter.core.io.tiff_samples import StoredSamples, interpret_samples
from svetlana_jupyter.core.io.tiff_series import ChosenSeries, choose_series
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import dask.array as da

Pixels: TypeAlias = npt.NDArray[Any]

MAX_PARSED_HEADERS = 32  # files whose parsed headers are cached; parsing the headers of a thousand planes takes long


def read_tiff(path: Path, request: ReadRequest) -> OpenedFile:
    """Open the image of a TIFF file lazily, reading only its headers."""
    try:
        with TiffFile(path) as tiff:
            chosen = choose_series(tiff, path, request.mask_shape)
            series = chosen.series
            _refuse_incomplete(chosen, path)
            samples = interpret_samples(series, path, request.labels)
            spacing, spacing_notes, names = _metadata(tiff, chosen)
            pixels, levels = _pixels_and_levels(chosen, path, samples, request.cache)
            axes = samples.axes if set(samples.axes) <= set("tczyxs") else None  # others are placeholders of tifffile
            notes = [*chosen.notes, *samples.notes]
            if tiff.is_imagej and "c0" in (tiff.imagej_metadata or {}):  # ImageJ stores signed values so, too
                notes.append("Its calibration of gray values is not used: values are as stored.")
            return OpenedFile(pixels, axes, spacing, samples.names or names, levels, notes, spacing_notes)
    except InputError:
        raise
    except Exception as error:  # tifffile raises other errors for each kind of damage
        raise InputError(
            f"{path} cannot be read as TIFF ({error}). Check that the file is complete and opens in other programs."
        ) from error


def _refuse_incomplete(chosen: ChosenSeries, path: Path) -> None:
    """Raise an error for planes that are missing, unlike or truncated.

    tifffile would fill missing planes with zeros.
    """
    series = chosen.series
    planes = [] if series.dataoffset is not None else list(series.pages)
    if missing := sum(page is None for page in planes):
        raise InputError(
            f"{missing} of {len(planes)} planes of {path} are missing. They are in other files, or the file was not "
            "written completely. Copy all files of the image into one folder, with their original names."
        )
    if len(planes) > 1 and not series.is_multifile:
        shapes = _plane_shapes(path, file_version(path), chosen.index)
        if len(shapes) > 1:
            raise InputError(
                f"The planes of {path} differ in shape: {', '.join(map(str, shapes))}. Save each image to its own file."
            )
    contiguous_end = 0 if series.dataoffset is None else series.dataoffset + series.nbytes
    for page in filter(None, (series.pages[0], series.pages[-1])):
        size = page.parent.filehandle.size  # for an OME-TIFF in several files, size of the file with this page
        ends = [*map(int.__add__, page.dataoffsets, page.databytecounts)]
        needed = max([contiguous_end, *ends]) if ends else size + 1
        if needed > size:
            raise InputError(f"{path} is truncated: it should have at least {needed} bytes, got {size}. Copy it again.")


@lru_cache(maxsize=1024)
def _plane_shapes(path: Path, file_version: str, series: int) -> tuple[tuple[int, ...], ...]:
    """Return the different shapes of the planes.

    Of many planes, tifffile compares the headers of a few, and takes the others to be alike.
    """
    with TiffFile(path) as tiff:
        return tuple(dict.fromkeys(tuple(page.aspage().shape) for page in tiff.series[series].pages))


def _pixels_and_levels(
    chosen: ChosenSeries, path: Path, samples: StoredSamples, cache: Path | None
) -> tuple[da.Array, list[FileSource]]:
    """Return the lazy pixels, and the resolution levels of files in strips or tiles."""
    series, version = chosen.series, file_version(path)
    dtype, convert = np.dtype(series.dtype), samples.conversion

    def converted(source: FileSource) -> FileSource:
        return source if convert is None else convert.convert_source(source)

    if series.dataoffset is not None:
        stored = np.dtype(series.keyframe.parent.byteorder + dtype.char)
        read = partial(_read_uncompressed, path, stored, series.dataoffset, series.shape)
        return to_dask(converted(FileSource(path, version, series.shape, stored, read))), []
    chunk = zarr.open_array(_parsed(path, version, chosen.index, chosen.level), mode="r").chunks
    if math.prod(chunk) > 4 * BLOCK_PIXELS:  # too large to be decoded for each block
        decode: Decode = partial(_decode_level, chosen.index, chosen.level)
        if convert is None:
            return undivided_to_dask(path, series.shape, dtype, decode, cache), []
        shape, decode = convert.shape(series.shape), convert.convert_decoder(decode)
        return undivided_to_dask(path, shape, convert.dtype or dtype, decode, cache), []
    levels = []
    for number, level in enumerate(chosen.levels, chosen.level):
        read = partial(_read_tiles, path, version, chosen.index, number)
        levels.append(converted(FileSource(path, version, level.shape, np.dtype(level.dtype), read)))
    return to_dask(levels[0], chunk if convert is None else convert.shape(chunk)), levels


def _read_uncompressed(path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...], part: Any) -> Pixels:
    """Read a part of uncompressed, contiguous pixels that start at ``offset``.

    The file is memory-mapped, because `tifffile` would read a whole plane for each part, which takes 94 ms instead of
    1 ms for a block of 1024 x 2048 pixels in a plane of 8000 x 8000.
    """
    return np.array(np.memmap(path, dtype, "r", offset, shape)[part])


def _read_tiles(path: Path, version: str, series: int, level: int, part: Any) -> Pixels:
    store = _parsed(path, version, series, level)
    try:
        array = zarr.open_array(store, mode="r")
        return np.asarray(array[part], array.dtype.newbyteorder("="))
    finally:
        store.close()  # closes the file; the store opens it again when it is next read


@lru_cache(maxsize=MAX_PARSED_HEADERS)
def _parsed(path: Path, file_version: str, series: int, level: int) -> Any:
    with TiffFile(path) as tiff:
        return tiff.series[series].aszarr(level=level)


def _decode_level(series: int, level: int, path: Path) -> Pixels:
    return np.asarray(imread(path, series=series, level=level))


def _metadata(tiff: TiffFile, chosen: ChosenSeries) -> tuple[dict[str, float], tuple[str, ...], list[str]]:
    """Return the spacing, its notes, and the channel names."""
    if tiff.is_ome and tiff.ome_metadata:
        image = _ome_image(tiff.ome_metadata, chosen)
        if image is not None:
            return (*read_spacing(_ome_sizes(image)), _ome_channels(image))
        note = "The OME metadata of this image are in another file and are not used. Pass `spacing=` in micrometers."
        return {}, (note,), []
    if tiff.is_imagej and (tiff.imagej_metadata or {}).get("unit"):
        return (*read_spacing(_imagej_sizes(tiff, chosen.series)), [])
    if tiff.is_svs and (found := re.search(r"\bMPP\s*=\s*([\d.]+)", chosen.series.keyframe.description)):
        return (*read_spacing(dict.fromkeys("yx", (found[1], "µm"))), [])
    return (*_spacing_of_tags(chosen.series), [])


def _ome_image(text: str, chosen: ChosenSeries) -> dict[str, Any] | None:
    """Return the element Pixels of the image in the OME metadata, if any."""
    images = xml2dict(text)["OME"].get("Image", [])
    images = images if isinstance(images, list) else [images]
    named = [image for image in images if image.get("Name") == chosen.series.name]
    if chosen.series.kind == "ome" and len(images) == chosen.count:
        named = [images[chosen.index]]
    elif len(images) == 1:
        named = images
    pixels: dict[str, Any] | None = named[0].get("Pixels") if len(named) == 1 else None
    return pixels


def _ome_sizes(pixels: dict[str, Any]) -> StatedSizes:
    return {
        axis: (pixels.get(f"PhysicalSize{axis.upper()}"), pixels.get(f"PhysicalSize{axis.upper()}Unit", "µm"))
        for axis in "zyx"
    }


def _ome_channels(pixels: dict[str, Any]) -> list[str]:
    channels = pixels.get("Channel", [])
    channels = channels if isinstance(channels, list) else [channels]
    names = [str(channel["Name"]) for channel in channels if channel.get("Name") is not None]
    return names if len(names) == len(channels) else []


def _imagej_sizes(tiff: TiffFile, series: TiffPageSeries) -> StatedSizes:
    """Return the sizes that ImageJ writes.

    It writes the units along y and z only if they differ from that along x.
    """
    metadata = tiff.imagej_metadata or {}
    units = {axis: _unescape(metadata.get(f"{axis}unit") or metadata["unit"]) for axis in "zyx"}
    sizes: dict[str, Any] = {"z": metadata.get("spacing"), **_sizes_of_tags(series)}
    return {axis: (sizes.get(axis), units[axis]) for axis in "zyx"}


def _unescape(unit: object) -> str:
    r"""Return a unit without escapes, such as ``\u00B5`` for the micro sign."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), str(unit))


def _tag(series: TiffPageSeries, name: str) -> Any:
    tag = series.keyframe.tags.get(name)
    return None if tag is None else tag.value


def _sizes_of_tags(series: TiffPageSeries) -> dict[str, float]:
    """Return the units per pixel from the resolution tags."""
    sizes = {}
    for axis in "yx":
        value = _tag(series, f"{axis.upper()}Resolution")
        if isinstance(value, tuple) and len(value) == 2:
            pixels, units = value
            sizes[axis] = units / pixels if pixels else 0.0
    return sizes


def _spacing_of_tags(series: TiffPageSeries) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the spacing from the resolution tags and, if unused, a note."""
    unit = {2: "inch", 3: "cm"}.get(_tag(series, "ResolutionUnit"))
    sizes = _sizes_of_tags(series)
    if unit is None or not all(sizes.values()):  # 0 pixels per unit state nothing
        return {}, ()
    if any(size * (micrometers_per(unit) or 1) > MAX_PRINT_FREE_UM for size in sizes.values()):
        um = ", ".join(f"{to_micrometers(size, unit) or size:.6g}" for size in sizes.values())
        pixels = 1 / sizes["x"] if "x" in sizes else 0
        note = (
            f"The resolution of {pixels:.6g} pixels per {unit} may be that of a printer and is not used. If it is that "
            f"of the microscope, pass `spacing=({um})`."
        )
        return {}, (note,) if pixels not in (72, 96) else ()
    return read_spacing({axis: (size, unit) for axis, size in sizes.items()})
