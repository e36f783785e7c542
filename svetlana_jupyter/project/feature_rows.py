"""Files of standardized features per image and source, one row per object.

``features/<source>.json`` holds what a source has learned from a sample of the objects: channel axes, means, standard
deviations. ``features/<image>/<source>-<key>.rows`` has one row per object: 16-bit integers (features in steps of
`core.features.fitted_sources.STEP`), padded to whole words of 64 bits, and a checksum; rows of zeros are missing. The
key is a hash of image, mask, source and sample. Files of another key are removed. The files may be deleted at any time.

The checksum is the word for which all words of a row give 4 × row + state + key (exclusive or; the last two bits of the
key do not count), so that rows of another image are damaged, too. Checking it when a file is opened takes 25 ms for
100,000 objects × 640 features; CRC-32 of each row would take 100 to 300 ms.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from mmap import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

from svetlana_jupyter.errors import ClassifierError, DamagedError, ProjectError
from svetlana_jupyter.project.file_access import check_readable, make_folder, refuse_link
from svetlana_jupyter.project.storage import atomic_write, file_name

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from svetlana_jupyter.core.features.fitted_sources import FittedSource

MISSING, PRESENT, IMPOSSIBLE = 0, 1, 2  # states of the features of an object
LAYOUT = 3  # of the files; those of another layout are computed again
MAX_MEMORY = 2**29  # bytes of the features of an image that cannot be written to disk
_ZEROS = bytes(2**20)


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Features of one source for the objects of an image, on disk or in memory.

    Attributes
    ----------
    key : str
        Hash of everything that determines the features.
    words : uint64 of shape (n, w)
        Rows as they are stored; the last word is a checksum.
    width : int
        Number of features.
    state : uint8 of shape (n,)
        `MISSING`, `PRESENT` or `IMPOSSIBLE`.
    n_damaged : int
        Number of rows that were damaged when they were read, and are missing.
    """

    key: str
    words: NDArray[np.uint64]
    width: int
    state: NDArray[np.uint8]
    n_damaged: int = 0

    @property
    def rows(self) -> NDArray[np.int16]:
        """Standardized features (n, d), in steps of `core.features.fitted_sources.STEP`.

        Raises
        ------
        DamagedError
            If the file was cut off by another program.
        """
        self._check_complete()
        return self._features

    @property
    def is_complete(self) -> bool:
        """Whether the file still has its size.

        Touching rows that were cut off would kill the kernel (SIGBUS).
        """
        return not isinstance(self.words.base, mmap) or self.words.base.size() >= self.words.nbytes

    def put(self, positions: NDArray[np.int64], values: NDArray[np.float32], fitted: FittedSource) -> None:
        """Store features (m, d) of some objects; rows without any number are impossible.

        Raises
        ------
        ClassifierError
            If there are more or fewer features than the source has learned from.
        DamagedError
            If the file was cut off by another program.
        """
        self._check_complete()
        if values.shape[1] != self.width:
            raise ClassifierError(
                f"{fitted.source.name} has {values.shape[1]} features, but learned from {self.width}. Call "
                "project.features.refresh() to compute all features again."
            )
        states = np.where(np.isfinite(values).any(axis=1), PRESENT, IMPOSSIBLE)
        words = np.zeros((len(values), self.words.shape[1]), "<u8")
        words.view("<i2")[:, : self.width] = fitted.standardize(values)
        words[:, -1] = np.bitwise_xor.reduce(words, axis=1) ^ _tags(self.key, positions) ^ states.astype("<u8")
        self.words[positions] = words
        if isinstance(self.words, np.memmap):
            self.words.flush()
        self.state[positions] = states

    def find_others(self) -> None:
        """Find rows that another `Project` of the same folder has computed."""
        missing = self.state == MISSING
        if missing.any() and self.is_complete:
            self.state[missing] = _read_states(self.key, self.words)[0][missing]

    @cached_property
    def _features(self) -> NDArray[np.int16]:
        return self.words.view("<i2")[:, : self.width]

    def _check_complete(self) -> None:
        if not self.is_complete:
            raise DamagedError(
                "Features that were cached on disk were cut off by another program. Call project.live.update() to "
                "compute them again."
            )


def _read_states(key: str, words: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], int]:
    """Return the states of rows (n,), and how many are damaged."""
    sums = np.bitwise_xor.reduce(words, axis=1)
    states = sums ^ _tags(key, np.arange(len(sums)))
    is_valid = (states == PRESENT) | (states == IMPOSSIBLE)
    return np.where(is_valid, states, MISSING).astype(np.uint8), int(np.count_nonzero(sums[~is_valid]))


def _tags(key: str, positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return what the words of complete rows (n,) give with state 0."""
    return np.asarray(4 * positions, np.uint64) ^ np.uint64(int(key, 16) & ~3)


def open_rows(folder: Path, source: str, key: str, shape: tuple[int, int], writable: bool) -> FeatureRows:
    """Open the features of an image, or create them without any feature.

    Parameters
    ----------
    folder : Path
        Folder of the features of the image.
    source : str
    key : str
    shape : (int, int)
        Number of objects and of features.
    writable : bool
        If False, or if the disk is full, features that are not on disk yet are kept in memory.

    Raises
    ------
    ProjectError
        If features cannot be written and are too large for memory.
    """
    file, layout = folder / f"{file_name(source)}-{key}.rows", (shape[0], -(-shape[1] // 4) + 1)
    size = 8 * math.prod(layout)
    with suppress(OSError, ProjectError):
        n_damaged = 0
        if not _has_size(file, size):
            if not writable:
                raise OSError
            n_damaged = shape[0] if file.exists() else 0
            make_folder(folder)
            _remove_others(file)
            _write_zeros(file, size)
        mode: Any = "r+" if writable else "c"
        words = np.memmap(file, "<u8", mode, 0, layout)
        state, n_wrong = _read_states(key, words)
        return FeatureRows(key, words, shape[1], state, n_damaged or n_wrong)
    if size > MAX_MEMORY:
        raise ProjectError(
            f"The features of {shape[0]:,} objects take {size / 2**30:.1f} GB, and {folder} cannot be "
            "written. Free disk space, or copy the project to a folder that you can write to."
        )
    return FeatureRows(key, np.zeros(layout, "<u8"), shape[1], np.zeros(shape[0], np.uint8))


def _has_size(file: Path, size: int) -> bool:
    try:
        check_readable(file)
        return file.stat().st_size == size
    except OSError:
        return False


def _remove_others(file: Path) -> None:
    """Remove the files of a source that belong to other pixels or other versions."""
    source = file.stem.rpartition("-")[0]
    for other in file.parent.iterdir():
        if other.stem.rpartition("-")[0] == source and other.name != file.name:
            other.unlink(missing_ok=True)


def _write_zeros(file: Path, size: int) -> None:
    """Write a file of zeros, so that a full disk is noticed now.

    Writing to a mapped file without disk space would kill the kernel.
    """
    refuse_link(file)
    with atomic_write(file) as draft, draft.open("wb") as handle:
        for start in range(0, size, len(_ZEROS)):
            handle.write(_ZEROS[: size - start])
