"""HDF5 as ilastik, ImageJ and others write it: ``file.h5``, or ``file.h5/dataset`` where it holds several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from svetlana_jupyter.core.io.sources import OpenedFile, ReadGuard, to_dask, to_micrometers
from svetlana_jupyter.errors import InputError


@dataclass(frozen=True)
class Hdf5Source:
    """Pixels of one HDF5 dataset. ``stamp`` changes when the file does."""

    path: Path
    stamp: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        with h5py.File(self.path, "r") as file:
            return np.asarray(file[self.name][part])


def read_hdf5(path: Path, stamp: str, inside: str = "") -> OpenedFile:
    """Describe the dataset ``inside`` an HDF5 file, or the only one there is."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read as HDF5 ({error}). Is it complete, and does it open elsewhere?"
        ) from error
    with file:
        dataset = _dataset(file, path, inside)
        axes = _axes(dataset)
        source = Hdf5Source(path, stamp, dataset.name, dataset.shape, dataset.dtype)
        return OpenedFile(to_dask(ReadGuard(source, path), dataset.chunks), axes, _spacing(dataset, axes))


def _dataset(file: h5py.File, path: Path, inside: str) -> h5py.Dataset:
    if inside and isinstance(file.get(inside), h5py.Dataset):
        return file[inside]
    found: list[str] = []

    def note(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 2:
            found.append(name)

    file.visititems(note)
    if not inside and len(found) == 1:
        return file[found[0]]
    listing = ", ".join(found) or "none"
    if inside:
        raise InputError(f"{path} holds no dataset {inside!r}. Images in it: {listing}.")
    if not found:
        raise InputError(f"{path} holds no dataset of two or more dimensions. Check that it is an image file.")
    raise InputError(f"{path} holds several images: {listing}. Name one of them, for example '{path}/{found[0]}'.")


def _axes(dataset: h5py.Dataset) -> str | None:
    """Axes from the ``axistags`` that ilastik and vigra write."""
    try:
        tags = json.loads(dataset.attrs["axistags"])
        axes = "".join(tag["key"] for tag in tags["axes"])
    except (KeyError, TypeError, ValueError):
        return None
    return axes if set(axes) <= set("tczyx") and len(axes) == dataset.ndim else None


def _spacing(dataset: h5py.Dataset, axes: str | None) -> Mapping[str, float]:
    """Spacing from ``element_size_um``, which the HDF5 plugins of ImageJ write for z, y and x."""
    sizes = np.ravel(dataset.attrs.get("element_size_um", ())).tolist()
    if len(sizes) != 3:
        return {}
    known = {axis: to_micrometers(size, "um") for axis, size in zip("zyx", sizes)}
    return {axis: size for axis, size in known.items() if size and (axes is None or axis in axes)}
