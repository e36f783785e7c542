"""Lazy pixels of an opened file, with its axes, spacing and channels.

A reader wraps its file in an object with ``shape``, ``dtype`` and ``__getitem__``. Indexing this object opens the file,
reads the indexed part and closes the file again. So no file stays open, however many images a project has; blocks can
be read on any thread or worker; and slicing a block reads only the slice. `FileSource` raises helpful errors if reading
fails. If there is a cache folder, a file that can only be decoded as a whole is unpacked to a Zarr array once.
"""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from dask.base import tokenize
from zarr.storage import LocalStore

from svetlana_jupyter.errors import DamagedError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Decode = Callable[[Path], npt.NDArray[Any]]

BLOCK_PIXELS = 1 << 21  # maximum number of pixels per block; blocks of large images have at least half as many
MAX_PIXELS = 10**14  # the largest images have 10 ** 12
MAX_CHUNK_BYTES = 4 << 30  # a chunk is decoded as a whole
CODEC_PACKAGES = ("numcodecs", "imagecodecs", "zarr", "tifffile")
OBJECT_CODECS = ("pickle", "json", "msgpack", "vlen", "categorize")
Z_BLOCK_WEIGHT = 4  # blocks of a volume are at least this many times longer along y and x than along z


class ArraySource(Protocol):
    """Array whose pixels are read when it is indexed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of a pixel."""

    def __getitem__(self, part: Any) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class OpenedFile:
    """Lazy pixels as stored in a file, with the metadata of the file.

    Attributes
    ----------
    pixels : dask array
    axes : str, optional
        One letter per dimension (``t``, ``c``, ``z``, ``y``, ``x``, and ``s`` for the samples of a color pixel); None
        if the file does not state them.
    spacing : mapping of str to float
        Micrometers per pixel by axis letter; empty if unknown.
    channels : sequence of str
        Channel names; empty if unknown.
    levels : sequence of ArraySource
        The resolutions of the file, the finest first, for reading without dask; empty if this is no faster than reading
        ``pixels``.
    notes, spacing_notes : sequence of str
        Sentences about what the reader converted or did not use; ``spacing_notes`` matter only if the user does not
        pass a pixel size.
    """

    pixels: da.Array
    axes: str | None = None
    spacing: Mapping[str, float] = field(default_factory=dict)
    channels: Sequence[str] = ()
    levels: Sequence[ArraySource] = ()
    notes: Sequence[str] = ()
    spacing_notes: Sequence[str] = ()


@dataclass(frozen=True)
class ReadRequest:
    """What a reader needs to know besides the path.

    Attributes
    ----------
    cache : Path, optional
        Folder for the unpacked copy of a file that cannot be read in parts.
    labels : bool
        Whether to open a mask. The indices of a palette are its labels; from an OME-Zarr image, its label image is
        opened.
    mask_shape : tuple of int, optional
        Shape ``([z,] y, x)`` of the mask of the image, which tells apart several images in one file.
    """

    cache: Path | None = None
    labels: bool = False
    mask_shape: tuple[int, ...] | None = None


def to_dask(source: ArraySource, storage_chunk: Sequence[int] | None = None) -> da.Array:
    """Return a lazy dask array of the pixels of a source.

    Its blocks consist of whole chunks of shape ``storage_chunk``, the unit in which the file is decoded.

    Raises
    ------
    InputError
        If the source holds no numbers, states an impossible size, or is stored in chunks too large to be decoded.
    """
    _check_size(source, storage_chunk)
    chunks = block_shape(source.shape, storage_chunk)
    # Arrays in memory get random names: hashing gigabytes for a name would cost more than reading them.
    name: Any = False if isinstance(source, np.ndarray) else f"open-{tokenize(source, chunks)}"
    return da.from_array(source, chunks=chunks, name=name, meta=np.empty((0,) * len(source.shape), source.dtype))


def _check_size(source: ArraySource, storage_chunk: Sequence[int] | None) -> None:
    shape, dtype = tuple(source.shape), np.dtype(source.dtype)
    if dtype.kind not in "biufc":
        raise InputError(f"An array of the data type {dtype} holds no numbers. Save the pixels as numbers.")
    if math.prod(shape) > MAX_PIXELS:
        raise InputError(f"An array states the shape {shape}, more than {MAX_PIXELS:.0e} pixels. It may be damaged.")
    chunk = math.prod(min(size, length) for size, length in zip(storage_chunk or (), shape)) * dtype.itemsize
    if chunk > MAX_CHUNK_BYTES:
        raise InputError(
            f"An array is stored in chunks of {chunk / 1e9:.0f} GB, which do not fit in memory. Save it again in "
            "smaller chunks."
        )


class RegularStore(LocalStore):  # type: ignore[misc]
    """Folder of a Zarr array or group, in which named pipes and devices are refused.

    Reading them may never end.
    """

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        """Return the content of a file of the store, or None if it is missing."""
        path = self.root / key
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError(f"{path} is a named pipe or device, not a file")
        return await super().get(key, *args, **options)


def check_codecs(array: zarr.Array, path: Path) -> None:
    """Raise an `InputError` for a Zarr array whose codecs may run code.

    A chunk may be a pickle, which runs any code when it is decoded. Only codecs of numbers are allowed; nothing is
    decoded here.
    """
    metadata = array.metadata
    codecs = [*(getattr(metadata, "filters", None) or ()), getattr(metadata, "compressor", None)]
    waiting = [*(codec for codec in codecs if codec is not None), *getattr(metadata, "codecs", ())]
    while waiting:
        codec = waiting.pop()
        waiting += [*getattr(codec, "codecs", ()), *getattr(codec, "index_codecs", ())]  # of shards
        name = str(getattr(codec, "codec_id", "") or getattr(codec, "codec_name", "") or type(codec).__name__)
        known = type(codec).__module__.split(".")[0] in CODEC_PACKAGES
        if not known or any(word in name.lower() for word in OBJECT_CODECS):
            raise InputError(
                f"The Zarr array {path} uses the codec {name!r}, which is not a codec of numbers and may run code. "
                "Save it again with a standard codec, such as zstd."
            )
    if array.dtype.kind not in "biufc":
        raise InputError(
            f"The Zarr array {path} has the data type {array.dtype}, which is not a number. Save the pixels as numbers."
        )


def block_shape(shape: Sequence[int], storage_chunk: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return the shape of blocks of about `BLOCK_PIXELS` pixels.

    A block consists of whole chunks of shape ``storage_chunk``, the unit in which the file is decoded.

    Examples
    --------
    >>> block_shape((8000, 8000))
    (1024, 2048)
    >>> block_shape((8000, 8000, 3), storage_chunk=(1, 8000, 3))
    (64, 8000, 3)
    >>> block_shape((500, 2000, 2000))
    (32, 256, 256)
    """
    ndim = len(shape)
    color = ndim > 2 and shape[-1] <= 4
    block = [min(size, length) for size, length in zip(storage_chunk or (1,) * ndim, shape)]
    if color:
        block[-1] = shape[-1]
    planar = range(ndim - 3, ndim - 1) if color else range(ndim - 2, ndim)
    spatial = range(max(0, planar.start - 1), planar.stop)
    while growing := [axis for axis in spatial if block[axis] < shape[axis]]:
        axis = min(growing, key=lambda axis: (block[axis] * (1 if axis in planar else Z_BLOCK_WEIGHT), -axis))
        grown = [*block]
        grown[axis] = min(2 * block[axis], shape[axis])
        if math.prod(grown) > BLOCK_PIXELS:
            break
        block = grown
    return tuple(block)


def file_version(file: Path) -> str:
    """Return a text that changes when a file is written: size and modification time."""
    status = file.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


@dataclass(frozen=True)
class FileSource:
    """Pixels of a file or folder, with helpful errors if reading fails.

    Before each reading, the existence of the path is checked: for Zarr, missing chunks are empty, so a deleted folder
    would be read as background.

    Attributes
    ----------
    path : Path
    version : str
        Text that changes when the file is written (`file_version`); empty for a Zarr folder.
    shape, dtype
        Shape and data type of the stored pixels.
    read : callable
        ``read(part)`` opens the file and returns the pixels at the index ``part``.
    """

    path: Path
    version: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Any], npt.NDArray[Any]]

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        if not self.path.exists():
            raise InputError(f"{self.path} was moved or deleted after it was opened. Restore it and try again.")
        try:
            return np.asarray(self.read(part))
        except (InputError, MemoryError):
            raise
        except Exception as error:  # each codec and kind of storage raises its own errors
            raise DamagedError(
                f"A part of {self.path} cannot be read ({error}). The file may be damaged or have been changed: copy "
                "it again, then repeat the last step."
            ) from error


def undivided_to_dask(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], decode: Decode, cache: Path | None
) -> da.Array:
    """Return a lazy dask array of a file that ``decode`` can only read as a whole.

    Without a ``cache`` folder, the array has a single block. With a ``cache`` folder, the first reading unpacks the
    file to a Zarr array in the folder, and the dask array has several blocks. Images that fit into one block are not
    cached.
    """
    version = file_version(path)
    if cache is None or math.prod(shape) <= BLOCK_PIXELS:
        return to_dask(FileSource(path, version, shape, dtype, partial(_read_whole, path, decode)), shape)
    folder = cache / f"{path.stem}-{tokenize(path, version, shape, dtype, decode)}.zarr"
    return to_dask(FileSource(path, version, shape, dtype, partial(_read_unpacked, path, decode, folder)))


def _read_whole(path: Path, decode: Decode, part: Any) -> npt.NDArray[Any]:
    pixels: npt.NDArray[Any] = decode(path)[part]
    return pixels


_unpacking = threading.Lock()  # threads that read different blocks must not decode the same file twice


def _read_unpacked(path: Path, decode: Decode, folder: Path, part: Any) -> npt.NDArray[Any]:
    """Read a part of an image from its Zarr copy, which the first call creates."""
    with _unpacking:
        if not folder.exists():
            unpack_to_zarr(path, decode, folder)
    array = zarr.open_array(RegularStore(folder, read_only=True), mode="r")
    check_codecs(array, folder)
    return np.asarray(array[part])


def unpack_to_zarr(path: Path, decode: Decode, folder: Path) -> None:
    """Decode a file and write its pixels to a Zarr array.

    The array is written under a temporary name next to ``folder`` and renamed when it is complete.
    """
    folder.parent.mkdir(exist_ok=True)  # not its parents: a project folder that is gone must not reappear
    unfinished = folder.with_name(f"{folder.name}.{uuid4().hex}.part")
    try:
        pixels = decode(path)
        zarr.create_array(unfinished, data=pixels, chunks=block_shape(pixels.shape), zarr_format=3)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not folder.exists():  # otherwise another process was faster, and its copy is as good
            raise
