"""What Cellpose saves beside an image: ``*_seg.npy``, a pickled dictionary of which the masks are read."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from svetlana_jupyter.core.formats.pickled import load_plain_pickle
from svetlana_jupyter.core.formats.stored import OpenedFile
from svetlana_jupyter.core.formats.unpacked import UndividedFile, lazy_undivided
from svetlana_jupyter.errors import InputError

HOW = "Save the masks as TIFF in Cellpose (File, Save masks as PNG/tif) and take that file."


def is_pickled_npy(path: Path) -> bool:
    """Whether an ``.npy`` file holds pickled objects instead of numbers."""
    try:
        with path.open("rb") as file:
            return _dtype(file).hasobject
    except (OSError, ValueError, EOFError):
        return False


def read_cellpose_seg(path: Path, stamp: str, cache: Path | None = None) -> OpenedFile:
    """Describe the masks of a ``*_seg.npy``; nothing in the file is executed (`core.formats.pickled`)."""
    masks = _masks(path, stamp)
    whole = UndividedFile(path, stamp, masks.shape, masks.dtype, _Decode(stamp))
    return OpenedFile(lazy_undivided(whole, cache), {2: "yx", 3: "zyx"}.get(masks.ndim))


class _Decode:
    """Reads the masks again, once they have been forgotten. ``stamp`` changes when the file does."""

    def __init__(self, stamp: str) -> None:
        self.stamp = stamp

    def __call__(self, path: Path) -> npt.NDArray[Any]:
        return _masks(path, self.stamp)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Decode) and self.stamp == other.stamp

    def __hash__(self) -> int:
        return hash(self.stamp)


@lru_cache(maxsize=1)
def _masks(path: Path, stamp: str) -> npt.NDArray[Any]:
    try:
        with path.open("rb") as file:
            _dtype(file)
            found = load_plain_pickle(file)
    except (OSError, ValueError) as error:  # an InputError is a ValueError
        raise InputError(f"{path} cannot be read: {error}. {HOW}") from error
    content = found.item() if isinstance(found, np.ndarray) and found.shape == () else found
    if not isinstance(content, dict) or "masks" not in content:
        holds = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{path} holds pickled objects ({holds}), and no “masks” of Cellpose among them. "
            "Save numbers alone with `np.save`, or the masks as TIFF."
        )
    masks = content["masks"]
    if not isinstance(masks, np.ndarray) or masks.dtype.kind not in "ui" or masks.ndim not in (2, 3):
        raise InputError(f"the masks in {path} are no array of integers in two or three dimensions. {HOW}")
    return masks


def _dtype(file: Any) -> np.dtype[Any]:
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return np.dtype(reader(file)[2])
