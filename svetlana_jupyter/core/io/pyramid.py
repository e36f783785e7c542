"""Resolution levels of an image, for reading a region of one plane directly.

Objects are processed with dask, in blocks. The viewer needs a small region at once, at the resolution of the screen,
and reads it from the file without dask, which is four times faster for a region of a few chunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from dask import threaded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from xarray import DataArray

    from svetlana_jupyter.core.io.sources import ArraySource, OpenedFile


@dataclass(frozen=True, eq=False)
class PyramidLevel:
    """One resolution of an image or mask.

    Attributes
    ----------
    source : ArraySource
        Pixels as stored.
    axes : str
        One letter per dimension as stored; the samples of a color pixel have the letter ``c``, too.
    dims : str
        Dimensions of the opened image, ``(c)(z)yx``, that the stored array has. Along all other stored axes, only the
        first entry is read.
    channels : int
        Number of channels to read, without the alpha channel.
    """

    source: ArraySource
    axes: str
    dims: str
    channels: int = 1

    @classmethod
    def from_array(cls, array: DataArray) -> Self:
        """Create the only level of an image that is a NumPy or dask array."""
        dims = "".join(map(str, array.dims))
        return cls(array.data, dims, dims, array.sizes.get("c", 1))

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each dimension."""
        sizes = dict(zip(self.axes, self.source.shape)) | {"c": self.channels}
        return {dim: sizes[dim] for dim in self.dims}

    def read(self, rows: slice, columns: slice, plane: int = 0) -> NDArray[Any]:
        """Read a region of one plane, of shape (C, h, w), or (h, w) without channels."""
        wanted: dict[str, Any] = {"y": rows, "x": columns, "c": slice(self.channels), "z": plane}
        part = self.source[tuple(wanted[axis] if axis in self.dims else 0 for axis in self.axes)]
        # Even if a cluster is the default scheduler, threads are used: the viewer needs the region here, at once.
        # The name "threads" would make dask import distributed, which takes 0.4 s.
        values = np.asarray(part.compute(scheduler=threaded.get) if hasattr(part, "compute") else part)
        kept = [axis for axis in self.axes if axis in self.dims and axis != "z"]
        return values.transpose([kept.index(axis) for axis in self.dims if axis != "z"]).astype(
            values.dtype.newbyteorder("="), copy=False
        )


def pyramid_levels(stored: OpenedFile, letters: str, opened: DataArray) -> tuple[PyramidLevel, ...]:
    """Return the resolution levels of an opened image, the finest first.

    If the file has no levels, the image itself is the only level.

    Parameters
    ----------
    stored : OpenedFile
    letters : str
        One letter per dimension as stored.
    opened : DataArray
        The same pixels as ``(c)(z)yx``.
    """
    axes = letters.replace("s", "c")
    dims = "".join(str(dim) for dim in opened.dims if str(dim) in axes)  # the channel axis may have been added
    channels = opened.sizes.get("c", 1)
    return tuple(PyramidLevel(source, axes, dims, channels) for source in stored.levels) or (
        PyramidLevel.from_array(opened),
    )


def downsampling_factor(fine: PyramidLevel, coarse: PyramidLevel) -> int:
    """Return the integer downsampling factor between two levels, 0 if there is none.

    Some programs round the size of a level up, others down or at each halving; so a difference of one pixel along y or
    x is accepted. If several factors fit, a power of two is preferred.
    """
    ratio = max(1.0, fine.sizes["x"] / coarse.sizes["x"])
    for factor in (1 << round(math.log2(ratio)), round(ratio)):
        if all(abs(coarse.sizes[axis] - fine.sizes[axis] / factor) <= 1 for axis in "yx") and coarse.dims == fine.dims:
            return factor
    return 0


def pyramid(levels: Sequence[PyramidLevel]) -> list[tuple[int, PyramidLevel]]:
    """Return downsampling factors in ascending order, each with its level.

    Levels whose factor is not an integer are left out.
    """
    by_factor = {downsampling_factor(levels[0], level): level for level in reversed(levels)}
    return sorted((factor, level) for factor, level in by_factor.items() if factor)
