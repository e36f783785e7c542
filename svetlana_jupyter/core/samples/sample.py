"""What a sample is: an image, its mask and the true class of every object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Sample:
    """Arrays of a small sample.

    Attributes
    ----------
    image : ndarray of shape ([Z,] Y, X)
    mask : ndarray of uint16, same shape
        Objects are numbered from 1 without gaps, 0 is background.
    classes : ndarray of int, shape (n,)
        ``classes[label - 1]`` is the class of an object, an index into ``names``.
    names : tuple of str
    """

    image: NDArray[Any]
    mask: NDArray[np.uint16]
    classes: NDArray[np.int64]
    names: tuple[str, ...]

    def class_names(self) -> dict[int, str]:
        """Return the class name of every label."""
        return {label: self.names[number] for label, number in enumerate(self.classes, 1)}


@dataclass(frozen=True, eq=False)
class StoredSample:
    """A sample too large for memory: like `Sample`, with Zarr arrays on disk.

    Attributes
    ----------
    image, mask : Path
        Zarr arrays; their dimension names are in their metadata.
    classes : ndarray of int, shape (n,)
    names : tuple of str
    """

    image: Path
    mask: Path
    classes: NDArray[np.int64]
    names: tuple[str, ...]
