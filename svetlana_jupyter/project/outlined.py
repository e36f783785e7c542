"""Outlines that become the mask of an image, kept in the project."""

from __future__ import annotations

import shutil
from pathlib import Path

import zarr
from xarray import DataArray

from svetlana_jupyter.core.drawing import Drawn, LazyPolygonMask, draw, fitting
from svetlana_jupyter.core.formats.stored import lazy
from svetlana_jupyter.core.geojson import read_geojson
from svetlana_jupyter.core.tables import format_list
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.store import draft_path

CHUNK = 512  # of which the tiles that are drawn are whole multiples


def write_outline_mask(folder: Path, file: Path, image: DataArray) -> tuple[Path, str]:
    """Draw the outlines of a file as a Zarr in a folder, whole or not at all.

    Parameters
    ----------
    folder : Path
        Replaced where it is there already.
    file : Path
        GeoJSON (`core.geojson.read_geojson`).
    image : DataArray
        The image that they are of.

    Returns
    -------
    mask : Path
    said : str
        How many there are, which overlap, and which are not to be seen.
    """
    found = read_geojson(file.expanduser())
    shape = tuple(image.sizes[dim] for dim in image.dims if dim != "c")
    dtype = fitting(found.shapes)
    drawn, draft = Drawn(), draft_path(folder)
    draft.mkdir(parents=True)
    try:
        chunks = tuple(min(CHUNK, side) for side in shape[-2:])
        chunks = (1, *chunks) if len(shape) == 3 else chunks
        mask = zarr.create_array(draft / "mask.zarr", shape=shape, dtype=dtype, chunks=chunks, zarr_format=3)
        for part, pixels in draw(found.shapes, shape, dtype, drawn):
            mask[part] = pixels
        if not drawn.seen:
            raise InputError(
                f"none of {len(found.shapes)} outlines in {file} covers a pixel of the image, which is "
                f"{' × '.join(map(str, shape))}. Check that they belong together and are in pixels."
            )
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    count = len({one.number for one in found.shapes})
    return folder / "mask.zarr", _said(count, drawn, found.note, drawn.missing(found.shapes))


def lazy_outline_mask(file: Path, shape: tuple[int, ...]) -> DataArray:
    """Return the outlines of a file as a mask of shape ``([z,] y, x)`` that is drawn when it is read."""
    pixels = lazy(LazyPolygonMask(read_geojson(file.expanduser()).shapes, shape))
    return DataArray(pixels, dims=tuple("zyx"[-len(shape) :]))


def _said(count: int, drawn: Drawn, note: str, missing: list[int]) -> str:
    parts = [f"{len(drawn.seen):,} of {count:,} outlines are objects"]
    if drawn.overlapping_labels:
        parts.append(
            f"{len(drawn.overlapping_labels):,} of them overlap, in {drawn.overlap:,} pixels, where the smaller one lies above"
        )
    if missing:
        parts.append(f"beyond the image, covered or smaller than a pixel: {format_list(missing)}")
    return "; ".join(parts) + "." + (f" {note}" if note else "")
