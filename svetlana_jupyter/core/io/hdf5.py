"""HDF5 files of ilastik, ImageJ and other programs.

The path is ``file.h5``, or ``file.h5/dataset`` if the file holds several datasets.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from svetlana_jupyter.core.io.pixel_size import read_spacing
from svetlana_jupyter.core.io.sources import FileSource, OpenedFile, file_version, to_dask
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def read_hdf5(path: Path, dataset_name: str = "") -> OpenedFile:
    """Open a dataset of an HDF5 file lazily, by default the only image in the file."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read as HDF5 ({error}). Check that the file is complete and opens in other programs."
        ) from error
    with file:
        dataset = _find_dataset(file, path, dataset_name)
        _refuse_missing_files(dataset, path)
        axes = _axes(dataset)
        read = partial(_read_part, path, dataset.name)
        source = FileSource(path, file_version(path), dataset.shape, dataset.dtype, read)
        spacing, notes = _spacing(dataset, axes)
        return OpenedFile(to_dask(source, dataset.chunks), axes, spacing, spacing_notes=notes)


def _read_part(path: Path, dataset_name: str, part: Any) -> npt.NDArray[Any]:
    with h5py.File(path, "r") as file:
        return np.asarray(file[dataset_name][part])


def _find_dataset(file: h5py.File, path: Path, dataset_name: str) -> h5py.Dataset:
    if dataset_name and isinstance(file.get(dataset_name), h5py.Dataset):
        return file[dataset_name]
    names: list[str] = []
    file.visit(names.append)
    images = [name for name in names if isinstance(file[name], h5py.Dataset) and file[name].ndim >= 2]
    if not dataset_name and len(images) == 1:
        return file[images[0]]
    listing = ", ".join(images) or "none"
    if dataset_name:
        raise InputError(f"{path} holds no dataset {dataset_name!r}. Name one of its images: {listing}.")
    if not images:
        raise InputError(f"{path} holds no dataset of two or more dimensions. Check that it is an image file.")
    raise InputError(f"{path} holds several images: {listing}. Name one of them, for example '{path}/{images[0]}'.")


def _refuse_missing_files(dataset: h5py.Dataset, path: Path) -> None:
    """Raise an error if a file with a part of the dataset is missing.

    HDF5 would fill the part with zeros.
    """
    names = [source.file_name for source in dataset.virtual_sources()] if dataset.is_virtual else []
    names += [name for name, *_ in dataset.external or ()]
    for name in names:
        if name != "." and not (path.parent / name).exists():
            raise InputError(f"A part of {path}{dataset.name} is in {name}, which is missing. Copy all files together.")


def _axes(dataset: h5py.Dataset) -> str | None:
    """Return the axes from the attribute ``axistags`` of ilastik and vigra."""
    try:
        axes = "".join(tag["key"] for tag in json.loads(dataset.attrs["axistags"])["axes"])
    except (KeyError, TypeError, ValueError):
        return None
    return axes if set(axes) <= set("tczyx") and len(axes) == dataset.ndim else None


def _spacing(dataset: h5py.Dataset, axes: str | None) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the spacing from ``element_size_um``, and sentences on unused sizes.

    The HDF5 plugins of ImageJ write the attribute, with the sizes along z, y and x.
    """
    sizes = np.ravel(dataset.attrs.get("element_size_um", ())).tolist()
    if len(sizes) not in (2, 3):
        note = f"Its attribute element_size_um, {sizes}, is not used: it must have the sizes along z, y and x."
        return {}, (note,) if sizes else ()
    stated = dict(zip("zyx"[-len(sizes) :], sizes))
    return read_spacing({axis: (size, "um") for axis, size in stated.items() if axes is None or axis in axes})
