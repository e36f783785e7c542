"""Class maps as TIFF: every pixel has the class of its object. Written in bands of rows, never whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from xarray import DataArray

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.exporters.snapshot import unique_file_names

if TYPE_CHECKING:
    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.project.exporters.snapshot import OutputFolder, ResultsSnapshot

BAND_BYTES = 1 << 25  # of a map that are held at once
STRIP_ROWS = 64
TILE = 512
SMALL = 1024  # a level of OME-TIFF whose rows and columns are no longer than this is the last
REDUCED = 1  # what TIFF calls a coarser level
MOST_IN_IMAGEJ = 2**31 - 1  # pixels of a plane
UNKNOWN = (128, 128, 128)  # the colour of objects without a class


def check_imagej(found: ResultsSnapshot) -> None:
    """Refuse planes that ImageJ cannot open."""
    for name in found.images:
        rows, columns = found.pair(name).mask.shape[-2:]
        if rows * columns > MOST_IN_IMAGEJ:
            raise ProjectError(
                f"ImageJ opens planes of up to {MOST_IN_IMAGEJ:,} pixels, and {name!r} has {rows:,} × {columns:,}: "
                'export "ome-tiff" or "ome-zarr" instead.'
            )


def write_imagej(place: OutputFolder, found: ResultsSnapshot) -> Iterator[Path]:
    """Write one class map an image, with the codes of `Project.class_map`, in ImageJ's form and in colours."""
    for image, stem in place.names.items():
        codes, spacing = found.class_map(image), found.pair(image).spacing
        with place.write_file(f"{stem}_classes.tif") as beside:
            _write_imagej(place, beside, codes, spacing, _palette(found.classes, codes))
        yield place.folder / f"{stem}_classes.tif"


def write_masks(place: OutputFolder, found: ResultsSnapshot) -> Iterator[Path]:
    """Write one mask an image and class, 255 where the class is, else 0: ``class_masks/<image>/<class>.tif``."""
    files = unique_file_names(found.classes.names)
    for image, stem in place.names.items():
        codes, spacing = found.class_map(image), found.pair(image).spacing
        for info in found.classes:
            name = f"class_masks/{stem}/{files[info.name]}.tif"
            with place.write_file(name) as beside:
                _write_imagej(place, beside, codes, spacing, edit=_only(info.id))
            yield place.folder / name


def write_ome(place: OutputFolder, found: ResultsSnapshot) -> Iterator[Path]:
    """Write one class map an image as OME-TIFF, tiles and coarser levels; the image's annotation names the codes."""
    meanings = {str(info.id): info.name for info in found.classes}
    for image, stem in place.names.items():
        codes, spacing = found.class_map(image), found.pair(image).spacing
        axes = "".join(map(str, codes.dims)).upper()
        sizes = dict(zip(axes, spacing or ()))
        metadata = {
            "axes": axes,
            "Name": f"{image} classes",
            "MapAnnotation": {**meanings, str(int(codes.attrs["flag_values"][-1])): "not predicted"},
            **{f"PhysicalSize{axis}": size for axis, size in sizes.items()},
            **{f"PhysicalSize{axis}Unit": "µm" for axis in sizes},
        }
        first, *others = _levels(codes)
        with (
            place.write_file(f"{stem}_classes.ome.tif") as beside,
            tifffile.TiffWriter(beside, bigtiff=codes.nbytes > 1 << 31, ome=True) as tiff,
        ):
            _write_level(tiff, place, first, subifds=len(others), metadata=metadata)
            for level in others:
                _write_level(tiff, place, level, subfiletype=REDUCED)
        yield place.folder / f"{stem}_classes.ome.tif"


def _levels(codes: DataArray) -> list[DataArray]:
    """Return a map with its coarser levels: every second pixel of the level before, so that classes stay classes."""
    levels = [codes]
    while max(levels[-1].shape[-2:]) > SMALL:
        levels.append(levels[-1][..., ::2, ::2])
    return levels


def _write_level(tiff: tifffile.TiffWriter, place: OutputFolder, codes: DataArray, **options: Any) -> None:
    rows, columns = (min(TILE, -(-codes.sizes[axis] // 16) * 16) for axis in "yx")
    tiff.write(
        _tiles(place.watched(bands(codes, rows)), rows, columns),
        shape=codes.shape,
        dtype=codes.dtype,
        tile=(rows, columns),
        photometric="minisblack",
        compression="zlib",
        **options,
    )


def bands(array: DataArray, rows: int) -> Iterator[NDArray[Any]]:
    """Yield the pixels of a lazy image in bands of some multiple of ``rows``, plane after plane.

    Parameters
    ----------
    array : DataArray of shape ([Z,] Y, X), backed by dask
    rows : int
        The last band of a plane may have any number of them.
    """
    data = array.data if array.ndim == 3 else array.data[None]
    planes, height, width = data.shape
    size = height * width * data.dtype.itemsize
    depth = max(1, min(max(data.chunks[0]), BAND_BYTES // size))
    many = -(-height // rows) * rows
    if size > BAND_BYTES:
        many = max(rows, max(max(data.chunks[1]), BAND_BYTES // (size // height)) // rows * rows)
    for first in range(0, planes, depth):
        for top in range(0, height, many):
            yield from np.asarray(data[first : first + depth, top : top + many].compute())


def _write_imagej(
    place: OutputFolder,
    file: Path,
    codes: DataArray,
    spacing: tuple[float, ...] | None,
    palette: NDArray[np.uint16] | None = None,
    edit: Callable[[NDArray[Any]], NDArray[Any]] = lambda codes: codes,
) -> None:
    dtype = edit(np.zeros(0, codes.dtype)).dtype
    sizes = dict(zip(map(str, codes.dims), spacing or ()))
    metadata: dict[str, Any] = {"axes": "".join(map(str, codes.dims)).upper()}
    if sizes:
        metadata |= {"unit": "um"} | ({"spacing": sizes["z"]} if "z" in sizes else {})
    tifffile.imwrite(
        file,
        _strips(place.watched(bands(codes, STRIP_ROWS)), edit),
        shape=codes.shape,
        dtype=dtype,
        imagej=True,
        byteorder=">",
        photometric="minisblack" if palette is None else "palette",
        colormap=palette,
        rowsperstrip=STRIP_ROWS,
        compression="zlib",
        resolution=(1 / sizes["x"], 1 / sizes["y"]) if sizes else None,
        metadata=metadata,
    )


def _strips(rows: Iterator[NDArray[Any]], edit: Callable[[NDArray[Any]], NDArray[Any]]) -> Iterator[bytes]:
    for band in rows:
        for top in range(0, len(band), STRIP_ROWS):
            strip = edit(band[top : top + STRIP_ROWS])
            yield zlib.compress(strip.astype(strip.dtype.newbyteorder(">"), copy=False).tobytes())


def _tiles(read: Iterator[NDArray[Any]], rows: int, columns: int) -> Iterator[NDArray[Any]]:
    for band in read:
        for top in range(0, len(band), rows):
            for left in range(0, band.shape[1], columns):
                yield band[top : top + rows, left : left + columns]


def _only(code: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    return lambda codes: (codes == code).astype(np.uint8) * np.uint8(255)


def _palette(classes: ClassScheme, codes: DataArray) -> NDArray[np.uint16] | None:
    """Return the colour of each code (3, 256), None where there are more codes than a palette has."""
    if codes.dtype != np.uint8:
        return None
    colors = np.zeros((3, 256), np.uint16)
    for info in classes:
        colors[:, info.id] = list(bytes.fromhex(info.color[1:]))
    colors[:, int(codes.attrs["flag_values"][-1])] = UNKNOWN
    return colors * np.uint16(257)
