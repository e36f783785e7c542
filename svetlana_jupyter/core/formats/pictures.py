"""PNG and JPEG, which are decoded whole, and NumPy's own ``.npy``, which is read in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
from PIL import Image

from svetlana_jupyter.core.formats.cellpose import is_pickled_npy, read_cellpose_seg
from svetlana_jupyter.core.formats.guarded import ReadGuard
from svetlana_jupyter.core.formats.stored import OpenedFile, lazy
from svetlana_jupyter.core.formats.unpacked import UndividedFile, lazy_undivided
from svetlana_jupyter.errors import InputError


def read_png_or_jpeg(path: Path, stamp: str, cache: Path | None = None) -> OpenedFile:
    """Describe a PNG or JPEG from its header."""
    try:
        header = iio.improps(path, plugin="pillow")
    except (OSError, ValueError, SyntaxError) as error:
        reason = error.__cause__ or error
        if isinstance(reason, Image.DecompressionBombError):
            raise InputError(f"{path} is too large for a picture. Save it as TIFF with tiles, or as Zarr.") from error
        raise InputError(
            f"{path} cannot be read as a picture ({reason}). Is it complete, and does it open elsewhere?"
        ) from error
    whole = UndividedFile(path, stamp, tuple(header.shape), np.dtype(header.dtype), _decode)
    return OpenedFile(lazy_undivided(whole, cache), "yxs" if len(header.shape) == 3 else "yx")


def _decode(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(iio.imread(path, plugin="pillow"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} cannot be decoded ({error}). It may be cut short: copy it again.") from error


@dataclass(frozen=True)
class NpySource:
    """Pixels of an ``.npy`` file. ``stamp`` changes when the file does."""

    path: Path
    stamp: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        return np.array(np.load(self.path, mmap_mode="r")[part])


def read_npy(path: Path, stamp: str, cache: Path | None = None) -> OpenedFile:
    """Describe an ``.npy`` file from its header, or the masks that Cellpose keeps in one."""
    if is_pickled_npy(path):
        return read_cellpose_seg(path, stamp, cache)
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array ({error}). Save it again with `np.save`.") from error
    return OpenedFile(lazy(ReadGuard(NpySource(path, stamp, array.shape, array.dtype), path)))
