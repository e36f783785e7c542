"""What every reader hands over: lazy pixels, and what their file says about axes, spacing and channels.

A reader gives its pixels as an object with ``shape``, ``dtype`` and ``__getitem__`` that opens the file, reads the part
asked for and closes it again. So nothing is held open however many images a project has, blocks can be read on any
thread or worker, and slicing a block reads no more than the slice.

Reading that fails in words: a file that is gone, or a piece of it that does not decode.

Files that cannot be read in parts: decoded whole, and unpacked once into a Zarr where there is a place for it.

Lengths as files write them, in micrometres.
"""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from dask.base import tokenize

from svetlana_jupyter.errors import DamagedError, InputError

BLOCK_PIXELS = 1 << 21  # blocks grow to between half of this and all of it
Z_BLOCK_WEIGHT = 4  # blocks of a volume are four times longer along rows and columns than along planes


class ArraySource(Protocol):
    """Pixels that are read when indexed."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, part: Any) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class OpenedFile:
    """Pixels as they lie in their file.

    ``axes`` has one letter a dimension (``t``, ``c``, ``z``, ``y``, ``x``, and ``s`` for the samples of a colour
    pixel), or is None where the file does not say. ``spacing`` is in micrometres by axis letter, ``channels`` names
    them; both are empty where unknown. ``levels`` are the same pixels to be read directly, at the resolutions that the
    file holds, the finest first; they are left empty where that is no faster than ``pixels``.
    """

    pixels: da.Array
    axes: str | None = None
    spacing: Mapping[str, float] = field(default_factory=dict)
    channels: Sequence[str] = ()
    levels: Sequence[ArraySource] = ()


def to_dask(source: ArraySource, piece: Sequence[int] | None = None) -> da.Array:
    """Dask array over ``source`` whose blocks are whole multiples of ``piece``, the unit that its storage decodes."""
    chunks = block_shape(source.shape, piece)
    # Arrays in memory are named at random: hashing gigabytes for a name would cost more than reading them.
    name: Any = False if isinstance(source, np.ndarray) else f"open-{tokenize(source, chunks)}"
    return da.from_array(source, chunks=chunks, name=name, meta=np.empty((0,) * len(source.shape), source.dtype))


def block_shape(shape: Sequence[int], piece: Sequence[int] | None = None) -> tuple[int, ...]:
    """Block of about ``BLOCK_PIXELS`` pixels, made of whole storage pieces.

    Examples
    --------
    >>> block_shape((8000, 8000))
    (1024, 2048)
    >>> block_shape((8000, 8000, 3), piece=(1, 8000, 3))
    (64, 8000, 3)
    >>> block_shape((500, 2000, 2000))
    (32, 256, 256)
    """
    ndim = len(shape)
    colour = ndim > 2 and shape[-1] <= 4
    block = [min(size, length) for size, length in zip(piece or (1,) * ndim, shape)]
    if colour:
        block[-1] = shape[-1]
    planar = range(ndim - 3, ndim - 1) if colour else range(ndim - 2, ndim)
    spatial = range(max(0, planar.start - 1), planar.stop)
    while growing := [axis for axis in spatial if block[axis] < shape[axis]]:
        axis = min(growing, key=lambda axis: (block[axis] * (1 if axis in planar else Z_BLOCK_WEIGHT), -axis))
        grown = [*block]
        grown[axis] = min(2 * block[axis], shape[axis])
        if np.prod(grown, dtype=np.int64) > BLOCK_PIXELS:
            break
        block = grown
    return tuple(block)


@dataclass(frozen=True)
class ReadGuard:
    """The pixels of ``source``, which lie in the file or folder ``path``.

    Whether it is still there is seen before each reading: Zarr takes a chunk that is missing for an empty one, so a
    folder that was deleted would be read as background.
    """

    source: ArraySource
    path: Path

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        if not self.path.exists():
            raise InputError(
                f"{self.path} is gone; it was there when it was opened. Bring it back, and go on where you were."
            )
        try:
            return np.asarray(self.source[part])
        except (InputError, MemoryError):
            raise
        except Exception as error:  # each codec and storage has errors of its own
            raise DamagedError(
                f"a piece of {self.path} cannot be read ({error}). It may be damaged or was changed: copy it again, "
                "and go on where you were."
            ) from error


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
                unpack_to_zarr(self.whole, self.folder)
        return np.asarray(zarr.open_array(self.folder, mode="r")[part])


def undivided_to_dask(whole: UndividedFile, cache: Path | None) -> da.Array:
    """Dask array over a file that is decoded whole: in one block, or in several through a Zarr in ``cache``.

    An image no larger than a block gains nothing from the Zarr and does without.
    """
    if cache is None or np.prod(whole.shape, dtype=np.int64) <= BLOCK_PIXELS:
        return to_dask(ReadGuard(whole, whole.path), whole.shape)
    unpacked = UnpackedFile(whole, cache / f"{whole.path.stem}-{tokenize(whole.path, whole.stamp)}.zarr")
    return to_dask(ReadGuard(unpacked, whole.path))


def unpack_to_zarr(whole: UndividedFile, folder: Path) -> None:
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


UM_PER_UNIT = {
    **dict.fromkeys(
        ["um", "µm", "μm", "micron", "microns", "micrometer", "micrometre", "micrometers", "micrometres"], 1.0
    ),
    **dict.fromkeys(["nm", "nanometer", "nanometre"], 1e-3),
    **dict.fromkeys(["mm", "millimeter", "millimetre"], 1e3),
    **dict.fromkeys(["cm", "centimeter", "centimetre"], 1e4),
    **dict.fromkeys(["m", "meter", "metre"], 1e6),
}


def to_micrometers(length: object, unit: object) -> float | None:
    """Length in micrometres, or None where it or its unit is missing, is not a length or is not positive."""
    factor = UM_PER_UNIT.get(str(unit).strip().lower())
    try:
        size = float(str(length))
    except ValueError:
        return None
    return size * factor if factor and math.isfinite(size) and size > 0 else None
