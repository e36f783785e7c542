"""TIFF, OME-TIFF and ImageJ TIFF: in place where the pixels lie bare, by strip or tile where they are compressed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from tifffile import TiffFile, TiffFileError, TiffPageSeries, imread, xml2dict

from svetlana_jupyter.core.io.sources import (
    BLOCK_PIXELS,
    OpenedFile,
    ReadGuard,
    UndividedFile,
    to_dask,
    to_micrometers,
    undivided_to_dask,
)
from svetlana_jupyter.errors import InputError

MAX_PARSED_HEADERS = (
    32  # how many files keep their parsed headers; a stack of a thousand planes takes long to parse again
)


@dataclass(frozen=True)
class UncompressedTiff:
    """Uncompressed pixels that lie in one piece from ``offset`` on. ``stamp`` changes when the file does."""

    path: Path
    stamp: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        return np.array(np.memmap(self.path, self.dtype, "r", self.offset, self.shape)[part])


@dataclass(frozen=True)
class TiledTiff:
    """Pixels of one level in strips or tiles, each decoded on its own. ``stamp`` changes when the file does."""

    path: Path
    stamp: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    level: int = 0

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        store = _parsed(self.path, self.stamp, self.level)
        try:
            return np.asarray(zarr.open_array(store, mode="r")[part], self.dtype)
        finally:
            store.close()  # closes the file; the store opens it again when it is next read


@lru_cache(maxsize=MAX_PARSED_HEADERS)
def _parsed(path: Path, stamp: str, level: int) -> Any:
    with TiffFile(path) as tiff:
        return tiff.series[0].aszarr(level=level)


def read_tiff(path: Path, stamp: str, cache: Path | None = None) -> OpenedFile:
    """Describe the first image of a TIFF; only its headers are read."""
    try:
        with TiffFile(path) as tiff:
            series = _only_series(tiff, path)
            _refuse_truncated(series, path)
            axes = _axes(series)
            spacing, channels = _described(tiff)
            return OpenedFile(
                _pixels(series, path, stamp, cache), axes, spacing, channels, _levels(series, path, stamp)
            )
    except (TiffFileError, OSError, ValueError, IndexError, KeyError, SyntaxError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} cannot be read as TIFF ({error}). Is it complete, and does it open elsewhere?"
        ) from error


def _only_series(tiff: TiffFile, path: Path) -> TiffPageSeries:
    if not tiff.series:
        raise InputError(f"{path} is a TIFF without an image in it. Check that it was written to the end.")
    first, *others = tiff.series
    alike = sum(series.shape == first.shape for series in others)
    if alike:
        raise InputError(f"{path} holds {alike + 1} images of the same shape, expected one. Save each to its own file.")
    return first


def _refuse_truncated(series: TiffPageSeries, path: Path) -> None:
    bare_end = 0 if series.dataoffset is None else series.dataoffset + series.nbytes
    for page in (series.pages[0], series.pages[-1]):
        if page is None:
            continue
        size = page.parent.filehandle.size  # of an OME-TIFF in several files, the one with this page
        ends = [*map(int.__add__, page.dataoffsets, page.databytecounts)]
        needed = max([bare_end, *ends]) if ends else size + 1
        if needed > size:
            raise InputError(f"{path} is cut short: it should be at least {needed} bytes and is {size}. Copy it again.")


def _axes(series: TiffPageSeries) -> str | None:
    """Axes as the file names them; letters that are only tifffile's placeholders count as not named."""
    axes = series.axes.lower()
    return axes if set(axes) <= set("tczyxs") else None


def _pixels(series: TiffPageSeries, path: Path, stamp: str, cache: Path | None) -> da.Array:
    dtype = np.dtype(series.dtype)
    if series.dataoffset is not None:
        stored = np.dtype(series.keyframe.parent.byteorder + dtype.char)
        return to_dask(ReadGuard(UncompressedTiff(path, stamp, series.shape, stored, series.dataoffset), path))
    source = TiledTiff(path, stamp, series.shape, dtype)
    piece = zarr.open_array(_parsed(path, stamp, 0), mode="r").chunks
    if _undivided(piece):
        return undivided_to_dask(UndividedFile(path, stamp, series.shape, dtype, _decode), cache)
    return to_dask(ReadGuard(source, path), piece)


def _levels(series: TiffPageSeries, path: Path, stamp: str) -> list[ReadGuard]:
    """The resolutions of a file that is stored in strips or tiles."""
    if series.dataoffset is not None or _undivided(zarr.open_array(_parsed(path, stamp, 0), mode="r").chunks):
        return []
    levels = enumerate(series.levels)
    return [ReadGuard(TiledTiff(path, stamp, part.shape, np.dtype(part.dtype), i), path) for i, part in levels]


def _undivided(piece: tuple[int, ...]) -> bool:
    """Whether what must be decoded at once is so large that the file had better be unpacked."""
    return bool(np.prod(piece, dtype=np.int64) > 4 * BLOCK_PIXELS)


def _decode(path: Path) -> npt.NDArray[Any]:
    return np.asarray(imread(path, series=0, level=0))


def _described(tiff: TiffFile) -> tuple[Mapping[str, float], list[str]]:
    """Spacing and channel names, where OME or ImageJ metadata have them."""
    if tiff.is_ome and tiff.ome_metadata:
        return _from_ome(tiff.ome_metadata)
    if tiff.is_imagej and tiff.imagej_metadata:
        return _from_imagej(tiff), []
    return {}, []


def _from_ome(text: str) -> tuple[Mapping[str, float], list[str]]:
    image = xml2dict(text)["OME"]["Image"]
    pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
    spacing = {}
    for axis in "zyx":
        size = to_micrometers(
            pixels.get(f"PhysicalSize{axis.upper()}"), pixels.get(f"PhysicalSize{axis.upper()}Unit", "µm")
        )
        if size:
            spacing[axis] = size
    channels = pixels.get("Channel", [])
    channels = channels if isinstance(channels, list) else [channels]
    names = [str(channel["Name"]) for channel in channels if channel.get("Name") is not None]
    return spacing, names if len(names) == len(channels) else []


def _from_imagej(tiff: TiffFile) -> Mapping[str, float]:
    metadata = tiff.imagej_metadata or {}
    unit = str(metadata.get("unit", ""))
    unit = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), unit)  # ImageJ escapes the micro sign
    spacing = {}
    for axis, tag in (("y", "YResolution"), ("x", "XResolution")):
        pixels, per = tiff.pages[0].tags[tag].value if tag in tiff.pages[0].tags else (0, 1)
        size = to_micrometers(per / pixels if pixels else None, unit)
        if size:
            spacing[axis] = size
    depth = to_micrometers(metadata.get("spacing"), unit)
    return spacing | ({"z": depth} if depth else {})
