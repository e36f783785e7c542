"""Files of standardized features: one per source, and one row per object.

``features/<source>.json`` holds what a source has learned from a sample of the objects: channel axes, means, standard
deviations. ``features/<image>/<source>-<key>.rows`` has one row of 16-bit integers per object (features in steps of
`core.features.fitted_sources.STEP`), and ``….state`` one byte per object; the key is a hash of image, mask, source and
sample. Files of another key are removed. The files may be deleted at any time.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from svetlana_jupyter.errors import ClassifierError, ProjectError
from svetlana_jupyter.project.file_access import check_readable, make_folder, refuse_link
from svetlana_jupyter.project.storage import atomic_write, file_name

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from svetlana_jupyter.core.features.fitted_sources import FittedSource

MISSING, PRESENT, IMPOSSIBLE = 0, 1, 2  # states of the features of an object
MAX_MEMORY = 2**29  # bytes of the features of an image that cannot be written to disk
_ZEROS = bytes(2**20)


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Features of one source for the objects of an image, on disk or in memory.

    Attributes
    ----------
    key : str
        Hash of everything that determines the features.
    rows : int16 of shape (n, d)
        Standardized features, in steps of `core.features.fitted_sources.STEP`.
    state : uint8 of shape (n,)
        `MISSING`, `PRESENT` or `IMPOSSIBLE`.
    """

    key: str
    rows: NDArray[np.int16]
    state: NDArray[np.uint8]

    def put(self, positions: NDArray[np.int64], values: NDArray[np.float32], fitted: FittedSource) -> None:
        """Store features (m, d) of some objects; rows without any number are impossible.

        Features reach the disk before their states, so that no state is wrong after a power failure.

        Raises
        ------
        ClassifierError
            If there are more or fewer features than the source has learned from.
        """
        if values.shape[1] != self.rows.shape[1]:
            raise ClassifierError(
                f"{fitted.source.name} has {values.shape[1]} features, but learned from {self.rows.shape[1]}. Call "
                "project.features.refresh() to compute all features again."
            )
        self.rows[positions] = fitted.standardize(values)
        if isinstance(self.rows, np.memmap):
            self.rows.flush()
        self.state[positions] = np.where(np.isfinite(values).any(axis=1), PRESENT, IMPOSSIBLE)


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
    name = f"{file_name(source)}-{key}"
    layout = ((folder / f"{name}.rows", np.dtype("<i2"), shape), (folder / f"{name}.state", np.dtype("u1"), shape[:1]))
    with suppress(OSError, ProjectError):
        sizes = {file: math.prod(dims) * dtype.itemsize for file, dtype, dims in layout}
        if not all(_has_size(file, size) for file, size in sizes.items()):
            if not writable:
                raise OSError
            make_folder(folder)
            _remove_others(folder, f"{file_name(source)}-", name)
            for file, size in reversed(sizes.items()):  # states first: features without a state are computed
                _write_zeros(file, size)
        mode: Any = "r+" if writable else "c"
        found = FeatureRows(key, *(np.memmap(file, dtype, mode, 0, dims) for file, dtype, dims in layout))
        if (unknown := found.state > IMPOSSIBLE).any():  # a damaged file
            found.state[unknown] = MISSING
        return found
    if math.prod(shape) * 2 > MAX_MEMORY:
        raise ProjectError(
            f"The features of {shape[0]:,} objects take {math.prod(shape) * 2 / 2**30:.1f} GB, and {folder} cannot be "
            "written. Free disk space, or copy the project to a folder that you can write to."
        )
    return FeatureRows(key, np.zeros(shape, np.int16), np.zeros(shape[0], np.uint8))


def _has_size(file: Path, size: int) -> bool:
    try:
        check_readable(file)
        return file.stat().st_size == size
    except OSError:
        return False


def _remove_others(folder: Path, start: str, name: str) -> None:
    """Remove the files of a source that belong to other pixels or other versions."""
    for file in folder.iterdir():
        if file.name.startswith(start) and file.suffix in (".rows", ".state") and file.stem != name:
            file.unlink(missing_ok=True)


def _write_zeros(file: Path, size: int) -> None:
    """Write a file of zeros, so that a full disk is noticed now.

    Writing to a mapped file without disk space would kill the kernel.
    """
    refuse_link(file)
    with atomic_write(file) as draft, draft.open("wb") as handle:
        for start in range(0, size, len(_ZEROS)):
            handle.write(_ZEROS[: size - start])
