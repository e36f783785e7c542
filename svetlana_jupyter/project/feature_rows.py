"""Files of standardized features: one per source, and one row per object.

``features/<source>.json`` holds what a source has learned from a sample of the objects: channel axes, means, standard
deviations. ``features/<image>/<source>-<key>.rows`` has one row of 16-bit integers per object (features in steps of
`STEP`), and ``….state`` one byte per object; the key is a hash of image, mask, source and sample. Files of another key
are removed. The files may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.file_access import check_readable, make_folder, refuse_link
from svetlana_jupyter.project.storage import atomic_write, file_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from svetlana_jupyter.core.features.feature_sources import FeatureSource, Fitted

MISSING, PRESENT, IMPOSSIBLE = 0, 1, 2  # states of the features of an object
MAX_DEVIATIONS = 5.0  # standardized values are clipped
STEP = MAX_DEVIATIONS / 32767  # integers convert to 32-bit floats several times as fast as 16-bit floats
MAX_MEMORY = 2**29  # bytes of the features of an image that cannot be written to disk
_ZEROS = bytes(2**20)


@dataclass(frozen=True, eq=False)
class FittedSource:
    """Source of features with what it has learned from a sample.

    Attributes
    ----------
    source : FeatureSource
    fitted : dict of str to array
        What the source itself has learned.
    center, scale : float64 of shape (d,)
        A feature is standardized as ``(value - center) * scale``; the scale of a constant feature is 0.
    sizes : tuple of int
        Number of columns of each block of the source.
    """

    source: FeatureSource
    fitted: Fitted
    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    sizes: tuple[int, ...]

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """Factors (d,) of stored features, for blocks with a mean squared row norm of 1."""
        blocks = np.split(self.scale > 0, np.cumsum(self.sizes)[:-1])
        return np.concatenate([STEP * used * max(used.sum(), 1) ** -0.5 for used in blocks]).astype(np.float32)

    @cached_property
    def digest(self) -> str:
        """Hash of the source and of what it has learned."""
        text = hashlib.sha256(f"{self.source.name} {self.source.version} {self.sizes}".encode())
        for name in sorted(self.fitted):
            text.update(name.encode() + np.ascontiguousarray(self.fitted[name], np.float64).tobytes())
        text.update(self.center.tobytes() + self.scale.tobytes())
        return text.hexdigest()

    def standardize(self, values: NDArray[np.float32]) -> NDArray[np.int16]:
        """Return features (n, d) to store; an undefined value becomes the mean, 0."""
        standard = np.clip((values - self.center) * self.scale, -MAX_DEVIATIONS, MAX_DEVIATIONS)
        return np.where(np.isfinite(standard), np.rint(standard / STEP), 0).astype(np.int16)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document that `from_json` reads."""
        fitted = {name: np.asarray(values, np.float64).tolist() for name, values in self.fitted.items()}
        numbers = {"center": self.center.tolist(), "scale": self.scale.tolist(), "sizes": list(self.sizes)}
        return {"version": self.source.version, "learned": fitted, **numbers}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], source: FeatureSource) -> FittedSource:
        """Return a source with what it has learned.

        Raises
        ------
        ValueError, KeyError, TypeError
            If the document is damaged or of another version of the source.
        """
        if document["version"] != source.version:
            raise ValueError("another version of the features")
        fitted = {str(name): np.array(values, np.float64) for name, values in document["learned"].items()}
        center, scale = (np.array(document[name], np.float64) for name in ("center", "scale"))
        sizes = tuple(map(int, document["sizes"]))
        is_finite = all(np.isfinite(values).all() for values in (center, scale, *fitted.values()))
        fits = center.shape == scale.shape == (sum(sizes),) and len(sizes) == len(source.blocks) and min(sizes) >= 0
        if not is_finite or not fits:
            raise ValueError("its arrays do not fit together")
        return cls(source, fitted, center, scale, sizes)


def fit_standardization(source: FeatureSource, fitted: Fitted, blocks: Sequence[Mapping[str, Any]]) -> FittedSource:
    """Return a source with means and standard deviations of the features of a sample.

    Parameters
    ----------
    source : FeatureSource
    fitted : dict of str to array
    blocks : sequence of mapping
        Features of the sample, as `FeatureSource.compute` yields them.
    """
    values = np.concatenate([joined(each, source) for each in blocks]).astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    center = np.nansum(values, axis=0) / count
    deviation = np.sqrt(np.nansum((values - center) ** 2, axis=0) / count)
    varies = deviation > 1e-9 * (1 + np.abs(np.where(known, values, 0)).max(axis=0))
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    return FittedSource(source, fitted, center, scale, tuple(blocks[0][block].shape[1] for block in source.blocks))


def joined(blocks: Mapping[str, NDArray[np.float32]], source: FeatureSource) -> NDArray[np.float32]:
    """Return the blocks of a source as one array (n, d)."""
    return np.concatenate([blocks[block] for block in source.blocks], axis=1)


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Features of one source for the objects of an image, on disk or in memory.

    Attributes
    ----------
    key : str
        Hash of everything that determines the features.
    rows : int16 of shape (n, d)
        Standardized features, in steps of `STEP`.
    state : uint8 of shape (n,)
        `MISSING`, `PRESENT` or `IMPOSSIBLE`.
    """

    key: str
    rows: NDArray[np.int16]
    state: NDArray[np.uint8]

    def put(self, positions: NDArray[np.int64], values: NDArray[np.float32], fitted: FittedSource) -> None:
        """Store features (m, d) of some objects; rows without any number are impossible.

        Features reach the disk before their states, so that no state is wrong after a power failure.
        """
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
        return FeatureRows(key, *(np.memmap(file, dtype, mode, 0, dims) for file, dtype, dims in layout))
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
