"""Masks that are rasterized from outlines (GeoJSON)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import zarr
from xarray import DataArray

from svetlana_jupyter.core.io.geojson import read_geojson
from svetlana_jupyter.core.io.sources import to_dask
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.polygons import PolygonMask
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.storage import atomic_folder

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 512  # pixels per side; a multiple of the side of the tiles in which outlines are rasterized


def write_outline_mask(folder: Path, file: Path, image: DataArray) -> tuple[Path, str]:
    """Rasterize the outlines of a file to a Zarr mask, atomically.

    Parameters
    ----------
    folder : Path
        Folder for the mask; replaced if it exists.
    file : Path
        GeoJSON (`core.io.geojson.read_geojson`).
    image : DataArray
        The image that the outlines belong to.

    Returns
    -------
    mask : Path
    summary : str
        A sentence about the number of outlines, overlapping outlines, and outlines that are not visible.
    """
    outlines = read_geojson(file.expanduser())
    shape = tuple(image.sizes[dim] for dim in image.dims if dim != "c")
    drawing = PolygonMask(outlines.shapes, shape)
    chunks = (1,) * (len(shape) - 2) + tuple(min(CHUNK, side) for side in shape[-2:])
    with atomic_folder(folder) as draft:
        mask = zarr.create_array(draft / "mask.zarr", shape=shape, dtype=drawing.dtype, chunks=chunks, zarr_format=3)
        for part, pixels in drawing.draw_tiles():
            mask[part] = pixels
        if not drawing.drawn_labels:
            raise InputError(
                f"None of {len(outlines.shapes)} outlines in {file} covers a pixel of the image, which is "
                f"{' × '.join(map(str, shape))}. Check that they belong to this image and are in pixels."
            )
    parts = [f"{len(drawing.drawn_labels):,} of {len(drawing.labels):,} outlines are objects"]
    if drawing.overlapping_labels:
        parts.append(
            f"{len(drawing.overlapping_labels):,} of them overlap, in {drawing.overlap_pixels:,} pixels, where the "
            "smaller one is on top"
        )
    if missing := drawing.missing_labels:
        parts.append(f"outside the image, covered or smaller than a pixel: {format_list(missing)}")
    return folder / "mask.zarr", "; ".join(parts) + "." + (f" {outlines.note}" if outlines.note else "")


def lazy_outline_mask(file: Path, shape: tuple[int, ...]) -> DataArray:
    """Return the outlines of a file as a lazy mask.

    The mask has the shape ``([z,] y, x)`` and is rasterized block by block when it is read.
    """
    pixels = to_dask(PolygonMask(read_geojson(file.expanduser()).shapes, shape))
    return DataArray(pixels, dims=tuple("zyx"[-len(shape) :]))
