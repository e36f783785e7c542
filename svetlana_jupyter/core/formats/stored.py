"""What every reader hands over: lazy pixels, and what their file says about axes, spacing and channels.

A reader gives its pixels as an object with ``shape``, ``dtype`` and ``__getitem__`` that opens the file, reads the part
asked for and closes it again. So nothing is held open however many images a project has, blocks can be read on any
thread or worker, and slicing a block reads no more than the slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.base import tokenize

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


def lazy(source: ArraySource, piece: Sequence[int] | None = None) -> da.Array:
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
