"""Registry of file formats: the reader for each suffix.

To add a format, write its reader in a new module and add the suffix to `READERS`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from svetlana_jupyter.core.io.geojson import is_geojson
from svetlana_jupyter.core.io.hdf5 import read_hdf5
from svetlana_jupyter.core.io.numpy_files import read_npy
from svetlana_jupyter.core.io.ome_zarr import read_zarr
from svetlana_jupyter.core.io.pictures import read_picture
from svetlana_jupyter.core.io.sources import OpenedFile, ReadRequest, file_version
from svetlana_jupyter.core.io.tiff import read_tiff
from svetlana_jupyter.errors import InputError, SvetlanaError

SMALL_BYTES = 16 << 20
HDF5_SUFFIXES = (".h5", ".hdf5")
READERS = {
    **dict.fromkeys([".tif", ".tiff"], read_tiff),
    **dict.fromkeys([".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"], read_picture),
    ".npy": read_npy,
}


def open_array_source(path: Path, request: ReadRequest) -> OpenedFile:
    """Open an image or mask lazily with the reader of its format.

    Parameters
    ----------
    path : Path
        TIFF, PNG, JPEG, BMP, GIF, WebP, ``.npy``, HDF5 (``file.h5`` or ``file.h5/dataset``), Zarr or OME-Zarr.
    request : ReadRequest

    Raises
    ------
    InputError
        If the file does not exist, is damaged or of an unknown format, or holds several images.
    """
    try:
        return _read(path, request)
    except (SvetlanaError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails in any part of the library that reads it
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error!s:.200}). Check that the file is complete and "
            "opens in other programs."
        ) from error


def _read(path: Path, request: ReadRequest) -> OpenedFile:
    if (file := hdf5_file(path)) is not None:
        _refuse_missing(file)
        return read_hdf5(file, path.relative_to(file).as_posix().strip("."))
    _refuse_missing(path)
    if path.is_dir():
        return read_zarr(path, request.labels)
    if is_geojson(path):
        raise InputError(
            f"{path} holds outlines instead of pixels and does not state the size of the image. Add it together with "
            "its image, project.add(name, image, mask), to rasterize the outlines."
        )
    if reader := READERS.get(path.suffix.lower()):
        return reader(path, request)
    raise InputError(
        f"{path} is of an unknown format. Supported are TIFF, PNG, JPEG, BMP, GIF, WebP, .npy, HDF5 and Zarr; convert "
        "other microscope formats to OME-TIFF or OME-Zarr, for example with bioio."
    )


def hdf5_file(path: Path) -> Path | None:
    """Return the HDF5 file in a path that may continue with the name of a dataset.

    Return None for paths of other formats.
    """
    files = (file for file in (path, *path.parents) if file.suffix.lower() in HDF5_SUFFIXES and not file.is_dir())
    return next(files, None)


def file_digest(path: Path) -> bytes:
    """Return a digest that changes when a file, or any file in a folder, changes.

    Small files are identified by their content, so that a copied project recognizes its images. Large files are
    identified by size and modification time, because reading gigabytes would keep the user waiting.
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
        raise InputError(f"{path} does not exist. Check the path; relative paths start at {Path.cwd()}.")
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is a named pipe or device. Pass a file or folder.")
