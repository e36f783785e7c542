"""Class maps as TIFF files, with one class code per pixel.

A map is written in bands of rows, so that it is never in memory as a whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.exporters.output_folder import unique_file_names

if TYPE_CHECKING:
    from pathlib import Path

    from xarray import DataArray

    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.project.exporters.output_folder import OutputFolder
    from svetlana_jupyter.project.exporters.snapshot import ResultsSnapshot

BAND_BYTES = 1 << 25  # bytes of a map in memory at a time
STRIP_ROWS = 64
TILE = 512
MAX_SMALLEST_LEVEL = 1024  # longest side of the coarsest level of an OME-TIFF
REDUCED = 1  # TIFF's code for a coarser level
MAX_IMAGEJ_PIXELS = 2**31 - 1  # per plane
UNKNOWN = (128, 128, 128)  # color of objects without a class

Convert = Callable[[NDArray[Any]], NDArray[Any]]


def check_imagej(snapshot: ResultsSnapshot) -> None:
    """Raise an error if a plane has more pixels than ImageJ opens."""
    for name in snapshot.images:
        rows, columns = snapshot.pair(name).mask.shape[-2:]
        if rows * columns > MAX_IMAGEJ_PIXELS:
            raise ProjectError(
                f"Image {name!r} has {rows:,} × {columns:,} pixels per plane, but ImageJ opens at most "
                f'{MAX_IMAGEJ_PIXELS:,}. Export "ome-tiff" or "ome-zarr" instead.'
            )


def write_imagej(output: OutputFolder, snapshot: ResultsSnapshot) -> Iterator[Path]:
    """Write one class map per image in ImageJ's format, with class colors.

    The pixel values are the class codes of `Project.class_map`.
    """
    for image, stem in output.names.items():
        codes, spacing = snapshot.class_map(image), snapshot.pair(image).spacing
        with output.write_file(f"{stem}_classes.tif") as draft:
            _write_imagej(output, draft, codes, spacing, _palette(snapshot.classes, codes))
        yield output.folder / f"{stem}_classes.tif"


def write_masks(output: OutputFolder, snapshot: ResultsSnapshot) -> Iterator[Path]:
    """Write one mask per image and class: 255 in objects of the class, elsewhere 0.

    The files are ``class_masks/<image>/<class>.tif``.
    """
    files = unique_file_names(snapshot.classes.names)
    for image, stem in output.names.items():
        codes, spacing = snapshot.class_map(image), snapshot.pair(image).spacing
        for info in snapshot.classes:
            name = f"class_masks/{stem}/{files[info.name]}.tif"
            with output.write_file(name) as draft:
                _write_imagej(output, draft, codes, spacing, convert=partial(_binary_mask, info.id))
            yield output.folder / name


def write_ome_tiff(output: OutputFolder, snapshot: ResultsSnapshot) -> Iterator[Path]:
    """Write one tiled, multi-resolution class map per image.

    An OME map annotation in the file contains the class name of each code.
    """
    names = {str(info.id): info.name for info in snapshot.classes}
    for image, stem in output.names.items():
        codes, spacing = snapshot.class_map(image), snapshot.pair(image).spacing
        axes = "".join(map(str, codes.dims)).upper()
        sizes = dict(zip(axes, spacing or ()))
        metadata = {
            "axes": axes,
            "Name": f"{image} classes",
            "MapAnnotation": {**names, str(_unknown_code(codes)): "not predicted"},
            **{f"PhysicalSize{axis}": size for axis, size in sizes.items()},
            **{f"PhysicalSize{axis}Unit": "µm" for axis in sizes},
        }
        first, *others = _levels(codes)
        with (
            output.write_file(f"{stem}_classes.ome.tif") as draft,
            tifffile.TiffWriter(draft, bigtiff=codes.nbytes > 1 << 31, ome=True) as tiff,
        ):
            _write_level(tiff, output, first, subifds=len(others), metadata=metadata)
            for level in others:
                _write_level(tiff, output, level, subfiletype=REDUCED)
        yield output.folder / f"{stem}_classes.ome.tif"


def _unknown_code(codes: DataArray) -> int:
    return int(codes.attrs["flag_values"][-1])


def _levels(codes: DataArray) -> list[DataArray]:
    """Return a class map, followed by its coarser levels.

    Each level keeps every second row and column of the previous level, so that codes are never averaged.
    """
    levels = [codes]
    while max(levels[-1].shape[-2:]) > MAX_SMALLEST_LEVEL:
        levels.append(levels[-1][..., ::2, ::2])
    return levels


def _write_level(tiff: tifffile.TiffWriter, output: OutputFolder, codes: DataArray, **options: Any) -> None:
    # TIFF requires tiles whose sides are multiples of 16.
    rows, columns = (min(TILE, -(-codes.sizes[axis] // 16) * 16) for axis in "yx")
    tiff.write(
        _tiles(output.until_stopped(iter_bands(codes, rows)), rows, columns),
        shape=codes.shape,
        dtype=codes.dtype,
        tile=(rows, columns),
        photometric="minisblack",
        compression="zlib",
        **options,
    )


def iter_bands(array: DataArray, rows: int) -> Iterator[NDArray[Any]]:
    """Yield the pixels of a lazy image in bands of rows, plane by plane.

    Parameters
    ----------
    array : DataArray of shape ([Z,] Y, X), backed by dask
    rows : int
        The height of a band is a multiple of this number, except for the last band of a plane.
    """
    data = array.data if array.ndim == 3 else array.data[None]
    planes, height, width = data.shape
    size = height * width * data.dtype.itemsize
    depth = max(1, min(max(data.chunks[0]), BAND_BYTES // size))
    band_rows = -(-height // rows) * rows
    if size > BAND_BYTES:
        band_rows = max(rows, max(max(data.chunks[1]), BAND_BYTES // (size // height)) // rows * rows)
    for first in range(0, planes, depth):
        for top in range(0, height, band_rows):
            yield from np.asarray(data[first : first + depth, top : top + band_rows].compute())


def _write_imagej(
    output: OutputFolder,
    file: Path,
    codes: DataArray,
    spacing: tuple[float, ...] | None,
    palette: NDArray[np.uint16] | None = None,
    convert: Convert = lambda codes: codes,
) -> None:
    sizes = dict(zip(map(str, codes.dims), spacing or ()))
    metadata: dict[str, Any] = {"axes": "".join(map(str, codes.dims)).upper()}
    if sizes:
        metadata |= {"unit": "um"} | ({"spacing": sizes["z"]} if "z" in sizes else {})
    tifffile.imwrite(
        file,
        _strips(output.until_stopped(iter_bands(codes, STRIP_ROWS)), convert),
        shape=codes.shape,
        dtype=convert(np.zeros(0, codes.dtype)).dtype,
        imagej=True,
        byteorder=">",
        photometric="minisblack" if palette is None else "palette",
        colormap=palette,
        rowsperstrip=STRIP_ROWS,
        compression="zlib",
        resolution=(1 / sizes["x"], 1 / sizes["y"]) if sizes else None,
        metadata=metadata,
    )


def _strips(bands: Iterator[NDArray[Any]], convert: Convert) -> Iterator[bytes]:
    for band in bands:
        for top in range(0, len(band), STRIP_ROWS):
            strip = convert(band[top : top + STRIP_ROWS])
            yield zlib.compress(strip.astype(strip.dtype.newbyteorder(">"), copy=False).tobytes())


def _tiles(bands: Iterator[NDArray[Any]], rows: int, columns: int) -> Iterator[NDArray[Any]]:
    for band in bands:
        for top in range(0, len(band), rows):
            for left in range(0, band.shape[1], columns):
                yield band[top : top + rows, left : left + columns]


def _binary_mask(code: int, codes: NDArray[Any]) -> NDArray[Any]:
    return np.where(codes == code, np.uint8(255), np.uint8(0))


def _palette(classes: ClassScheme, codes: DataArray) -> NDArray[np.uint16] | None:
    """Return the 16-bit RGB color of each code, shape (3, 256).

    Return None if there are more codes than the 256 colors of a palette.
    """
    if codes.dtype != np.uint8:
        return None
    colors = np.zeros((3, 256), np.uint16)
    for info in classes:
        colors[:, info.id] = list(bytes.fromhex(info.color[1:]))
    colors[:, _unknown_code(codes)] = UNKNOWN
    return colors * np.uint16(257)
