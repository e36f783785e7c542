"""Versions and content hashes of image files, to detect changed files.

A version is cheap: it needs the size and the times of a file, but not its content. If it differs from an earlier
version, the file may have been copied, unzipped or touched; then the content decides.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from dask.local import get_sync  # its name would make dask import distributed

from svetlana_jupyter.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xarray import DataArray

MAX_LISTED = 10_000  # files of a folder whose sizes and times are compared; listing them takes about 30 ms
MAX_HASHED_BYTES = 1 << 30  # of pixels; hashing them takes about a second
SETTLE_SECONDS = 2.0  # the coarsest step of the times of a file system (FAT)


@dataclass(frozen=True)
class SourceVersion:
    """Version of the files of an image or mask.

    Attributes
    ----------
    text : str
        Text that changes when a file is written, replaced or touched; "" if a file is missing.
    size : int
        Bytes of the files.
    changed : float
        Time of the last change, in seconds since 1970.
    """

    text: str
    size: int = field(default=0, compare=False)
    changed: float = field(default=0.0, compare=False)

    def identifies_content_read_at(self, seconds: float) -> bool:
        """Return whether the content read at a time is still that of the files.

        Files that were read just after they were written may have been written again within the same step of the clock
        of their file system, which leaves the version as it is.
        """
        return abs(seconds - self.changed) > SETTLE_SECONDS


def source_version(files: Sequence[str]) -> SourceVersion:
    """Return the version of the files of an image or mask.

    Of a folder (Zarr), the metadata and the first `MAX_LISTED` files are compared.

    Parameters
    ----------
    files : sequence of str
        Files or folders; a path of Python's `pathlib` takes four times as long.
    """
    digest, size, latest = hashlib.blake2b(digest_size=16), 0, 0.0
    try:
        for file in files:
            for status in _statuses(file):
                digest.update(b"%d %d %d;" % (status.st_size, status.st_mtime_ns, status.st_ctime_ns))
                size, latest = size + status.st_size, max(latest, status.st_mtime, status.st_ctime)
    except OSError:
        return SourceVersion("")
    return SourceVersion(digest.hexdigest(), size, latest)


def _statuses(file: str) -> Iterator[os.stat_result]:
    yield (status := os.stat(file))
    if stat.S_ISDIR(status.st_mode):
        yield from (entry.stat() for entry in islice(_entries(file), MAX_LISTED))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield the files and folders in a folder, those of the upper levels first."""
    pending = deque([folder])
    while pending:
        with os.scandir(pending.popleft()) as entries:
            for entry in entries:
                if entry.is_dir():
                    pending.append(entry.path)
                yield entry


def pixel_hash(image: DataArray) -> str:
    """Return a hash of the pixels of a lazy image.

    The result is "" for more than `MAX_HASHED_BYTES` of pixels, and if a part of the image cannot be read.
    """
    data = image.data
    if data.nbytes > MAX_HASHED_BYTES:
        return ""
    digest = hashlib.blake2b(f"{data.dtype.name} {data.shape} {data.chunks}".encode(), digest_size=16)
    try:
        for number in np.ndindex(data.numblocks):
            digest.update(np.ascontiguousarray(data.blocks[number].compute(scheduler=get_sync)).data)
    except DamagedError:
        return ""
    return digest.hexdigest()
