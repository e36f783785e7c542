"""Files that cannot be read in parts: decoded whole, and unpacked once into a Zarr where there is a place for it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from dask.base import tokenize

from svetlana_jupyter.core.formats.guarded import ReadGuard
from svetlana_jupyter.core.formats.stored import BLOCK_PIXELS, block_shape, lazy

_unpacking = threading.Lock()  # two blocks that miss the cache together must not decode the file twice


@dataclass(frozen=True)
class UndividedFile:
    """Pixels that ``decode(path)`` reads all at once. ``stamp`` changes when the file does."""

    path: Path
    stamp: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    decode: Callable[[Path], npt.NDArray[Any]]

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        pixels: npt.NDArray[Any] = self.decode(self.path)[part]
        return pixels


@dataclass(frozen=True)
class UnpackedFile:
    """The same pixels through a Zarr in ``folder``, which the first reading writes."""

    whole: UndividedFile
    folder: Path

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.whole.dtype

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        with _unpacking:
            if not self.folder.exists():
                unpack(self.whole, self.folder)
        return np.asarray(zarr.open_array(self.folder, mode="r")[part])


def lazy_undivided(whole: UndividedFile, cache: Path | None) -> da.Array:
    """Dask array over a file that is decoded whole: in one block, or in several through a Zarr in ``cache``.

    An image no larger than a block gains nothing from the Zarr and does without.
    """
    if cache is None or np.prod(whole.shape, dtype=np.int64) <= BLOCK_PIXELS:
        return lazy(ReadGuard(whole, whole.path), whole.shape)
    unpacked = UnpackedFile(whole, cache / f"{whole.path.stem}-{tokenize(whole.path, whole.stamp)}.zarr")
    return lazy(ReadGuard(unpacked, whole.path))


def unpack(whole: UndividedFile, folder: Path) -> None:
    """Write the decoded pixels to a Zarr beside ``folder`` and move it there when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f"{folder.name}.{uuid4().hex}.part")
    try:
        array = zarr.create_array(
            unfinished, shape=whole.shape, dtype=whole.dtype, chunks=block_shape(whole.shape), zarr_format=3
        )
        array[...] = whole[...]
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not folder.exists():  # else another process was faster, and its copy serves as well
            raise
