"""The same image at several resolutions, read directly: a piece of one plane, however large the image is.

Work on objects goes through dask, in blocks. A screen needs a small piece at once, at the resolution it can show, so
it asks the file itself: four times faster for a piece of a few chunks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from xarray import DataArray

from svetlana_jupyter.core.io.sources import ArraySource, OpenedFile


@dataclass(frozen=True, eq=False)
class PyramidLevel:
    """One resolution of an image or mask.

    Attributes
    ----------
    source : Readable
        The pixels as they are stored.
    axes : str
        One letter a dimension as stored; samples of a colour pixel are ``c`` here too.
    dims : str
        Those of the opened image, ``(c)(z)yx``, that are stored; of any other axis the first entry counts.
    channels : int
        How many entries along ``c`` count: transparency does not.
    """

    source: ArraySource
    axes: str
    dims: str
    channels: int = 1

    @classmethod
    def from_array(cls, array: DataArray) -> Self:
        """Return the only level of an array in memory or of dask."""
        dims = "".join(map(str, array.dims))
        return cls(array.data, dims, dims, array.sizes.get("c", 1))

    @property
    def sizes(self) -> dict[str, int]:
        """The length of each dimension."""
        sizes = dict(zip(self.axes, self.source.shape)) | {"c": self.channels}
        return {dim: sizes[dim] for dim in self.dims}

    def read(self, rows: slice, columns: slice, plane: int = 0) -> NDArray[Any]:
        """Return a part of one plane, shape (C, h, w), or (h, w) where there are no channels."""
        wanted: dict[str, Any] = {"y": rows, "x": columns, "c": slice(self.channels), "z": plane}
        part = self.source[tuple(wanted[axis] if axis in self.dims else 0 for axis in self.axes)]
        # Threads, also where a cluster is the default: a screenful is needed here and now.
        values = np.asarray(part.compute(scheduler="threads") if hasattr(part, "compute") else part)
        kept = [axis for axis in self.axes if axis in self.dims and axis != "z"]
        return values.transpose([kept.index(axis) for axis in self.dims if axis != "z"]).astype(
            values.dtype.newbyteorder("="), copy=False
        )


def pyramid_levels(stored: OpenedFile, letters: str, opened: DataArray) -> tuple[PyramidLevel, ...]:
    """Return the levels of an image that was opened, the finest first; without any in its file, those of its array.

    Parameters
    ----------
    stored : Stored
    letters : str
        The meaning of its dimensions, one letter each.
    opened : DataArray
        The same pixels as ``(c)(z)yx``.
    """
    axes = letters.replace("s", "c")
    dims = "".join(str(dim) for dim in opened.dims if str(dim) in axes)  # a channel may have been named, not stored
    channels = opened.sizes.get("c", 1)
    return tuple(PyramidLevel(source, axes, dims, channels) for source in stored.levels) or (
        PyramidLevel.from_array(opened),
    )


def downsampling_factor(fine: PyramidLevel, coarse: PyramidLevel) -> int:
    """Return how many rows and columns of the finer level one of the coarser stands for; 0 if that is no whole number.

    Writers round the size of a level up, down, or each time they halve it, hence the pixel of tolerance. Of the factors
    that this allows a small level, a power of two is the likely one.
    """
    ratio = max(1.0, fine.sizes["x"] / coarse.sizes["x"])
    for factor in (1 << round(math.log2(ratio)), round(ratio)):
        if all(abs(coarse.sizes[axis] - fine.sizes[axis] / factor) <= 1 for axis in "yx") and coarse.dims == fine.dims:
            return factor
    return 0


def pyramid(levels: Sequence[PyramidLevel]) -> list[tuple[int, PyramidLevel]]:
    """Return the levels that can stand for the first one, with their factors, ascending."""
    found = {downsampling_factor(levels[0], level): level for level in reversed(levels)}
    return sorted((factor, level) for factor, level in found.items() if factor)
