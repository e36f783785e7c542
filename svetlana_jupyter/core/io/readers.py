"""Which reader opens which file, and when a file has changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from svetlana_jupyter.core.io.geojson import is_geojson
from svetlana_jupyter.core.io.hdf5 import read_hdf5
from svetlana_jupyter.core.io.numpy_files import read_npy, read_png_or_jpeg
from svetlana_jupyter.core.io.ome_zarr import read_zarr
from svetlana_jupyter.core.io.sources import OpenedFile
from svetlana_jupyter.core.io.tiff import read_tiff
from svetlana_jupyter.errors import InputError

SMALL_BYTES = 16 << 20
HDF5_SUFFIXES = (".h5", ".hdf5")
READERS = {
    **dict.fromkeys([".tif", ".tiff"], read_tiff),
    **dict.fromkeys([".png", ".jpg", ".jpeg"], read_png_or_jpeg),
    ".npy": read_npy,
}


def open_array_source(path: Path, cache: Path | None = None, labels: bool = False) -> OpenedFile:
    """Describe the image at ``path`` from its headers.

    Parameters
    ----------
    path : Path
        TIFF, PNG, JPEG, ``.npy``, HDF5 (``file.h5`` or ``file.h5/dataset``), Zarr or OME-Zarr.
    cache : Path, optional
        Folder for the unpacked copy of a file that cannot be read in parts.
    labels : bool
        Whether a mask is wanted, which an OME-Zarr image keeps among its labels.
    """
    if (file := hdf5_file(path)) is not None:
        _refuse_missing(file)
        return read_hdf5(file, file_version(file), path.relative_to(file).as_posix().strip("."))
    _refuse_missing(path)
    if path.is_dir():
        return read_zarr(path, labels)
    if is_geojson(path):
        raise InputError(
            f"{path} holds outlines, not pixels, and does not say how large the image is: add it with its image, "
            "project.add(name, image, mask), and they are drawn."
        )
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path} is of an unknown format. TIFF, PNG, JPEG, .npy, HDF5 and Zarr can be read; "
            "bioio can convert other microscope formats to OME-TIFF or OME-Zarr."
        )
    return reader(path, file_version(path), cache)


def hdf5_file(path: Path) -> Path | None:
    """The HDF5 file that ``path`` names or reaches into, by its suffix; None for other formats."""
    for place in (path, *path.parents):
        if place.suffix.lower() in HDF5_SUFFIXES and not place.is_dir():
            return place
    return None


def file_version(file: Path) -> str:
    """Text that changes when a file is written again: its size and time of change."""
    status = file.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def file_digest(path: Path) -> bytes:
    """Digest that changes when a file, or one in a folder, changes.

    Small ones go by their content, so that a copied project knows its images again; large ones by size and time of
    change, so that nobody waits for a look at gigabytes.
    """
    path = hdf5_file(path) or path
    _refuse_missing(path)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    small = sum(file.stat().st_size for file in files) <= SMALL_BYTES
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(f"{file.relative_to(path.parent).as_posix()} {file.stat().st_size}".encode())
        digest.update(file.read_bytes() if small else file_version(file).encode())
    return digest.digest()


def _refuse_missing(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path} does not exist. Relative paths start at {Path.cwd()}.")
