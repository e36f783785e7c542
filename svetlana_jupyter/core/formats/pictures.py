"""PNG and JPEG, which are decoded whole, and NumPy's own ``.npy``, which is read in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
from PIL import Image

from svetlana_jupyter.core.formats.cellpose import holds_objects, read_seg
from svetlana_jupyter.core.formats.guarded import Guarded
from svetlana_jupyter.core.formats.stored import Stored, lazy
from svetlana_jupyter.core.formats.unpacked import Whole, lazy_whole
from svetlana_jupyter.errors import InputError


def read_picture(path: Path, stamp: str, cache: Path | None = None) -> Stored:
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
    whole = Whole(path, stamp, tuple(header.shape), np.dtype(header.dtype), _decode)
    return Stored(lazy_whole(whole, cache), "yxs" if len(header.shape) == 3 else "yx")


def _decode(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(iio.imread(path, plugin="pillow"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} cannot be decoded ({error}). It may be cut short: copy it again.") from error


@dataclass(frozen=True)
class Npy:
    """Pixels of an ``.npy`` file. ``stamp`` changes when the file does."""

    path: Path
    stamp: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        return np.array(np.load(self.path, mmap_mode="r")[part])


def read_npy(path: Path, stamp: str, cache: Path | None = None) -> Stored:
    """Describe an ``.npy`` file from its header, or the masks that Cellpose keeps in one."""
    if holds_objects(path):
        return read_seg(path, stamp, cache)
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array ({error}). Save it again with `np.save`.") from error
    return Stored(lazy(Guarded(Npy(path, stamp, array.shape, array.dtype), path)))
