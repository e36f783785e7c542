"""Conversion of inks and palette indices to gray values or RGB."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from svetlana_jupyter.core.io.sources import ArraySource, Decode, FileSource

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class SampleConversion:
    """Conversion of the samples of each pixel.

    Attributes
    ----------
    function : callable
        Converts an array whose last axis holds the samples of a pixel. If ``samples`` is None, or if ``adds_axis``, it
        gets an array without this axis.
    samples : int, optional
        Number of samples per pixel after the conversion; None if each value is converted for itself.
    axis : int
        Axis of the samples after the conversion.
    adds_axis : bool
        Whether there is no such axis before the conversion.
    dtype : dtype, optional
        Data type after the conversion, if it changes.
    """

    function: Callable[[Pixels], Pixels]
    samples: int | None = None
    axis: int = 0
    adds_axis: bool = False
    dtype: np.dtype[Any] | None = None

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape after the conversion."""
        if self.samples is None:
            return stored
        return (*stored[: self.axis], self.samples, *stored[self.axis + (not self.adds_axis) :])

    def apply(self, pixels: Pixels, axis: int) -> Pixels:
        """Convert an array whose samples are along ``axis`` after the conversion."""
        if self.samples is None:
            return self.function(pixels)
        return np.moveaxis(self.function(pixels if self.adds_axis else np.moveaxis(pixels, axis, -1)), -1, axis)

    def convert_source(self, source: FileSource) -> FileSource:
        """Return a source that converts what it reads."""
        read = partial(_read_converted, source, self)
        return replace(source, shape=self.shape(source.shape), dtype=self.dtype or source.dtype, read=read)

    def convert_decoder(self, decode: Decode) -> Decode:
        """Return a function that decodes and converts a whole file."""
        return partial(_decode_converted, decode, self)


def _decode_converted(decode: Decode, conversion: SampleConversion, path: Path) -> Pixels:
    return conversion.apply(decode(path), conversion.axis)


def _read_converted(source: ArraySource, conversion: SampleConversion, part: Any) -> Pixels:
    if conversion.samples is None:
        return conversion.function(source[part])
    given = part if isinstance(part, tuple) else (part,)
    index = [*given, *[slice(None)] * (len(source.shape) + conversion.adds_axis - len(given))]
    samples, before = index[conversion.axis], index[: conversion.axis]
    index[conversion.axis : conversion.axis + 1] = [] if conversion.adds_axis else [slice(None)]
    axis = sum(isinstance(step, slice) for step in before)  # integers remove their axes
    return conversion.apply(source[tuple(index)], axis)[(slice(None),) * axis + (samples,)]


def take_samples(samples: Sequence[int], pixels: Pixels) -> Pixels:
    """Return some samples of each pixel, for example those that are not alpha."""
    return pixels[..., list(samples)]


def cmyk_to_rgb(pixels: Pixels) -> Pixels:
    """Convert cyan, magenta, yellow and black (..., 4) to RGB (..., 3).

    The inks are unsigned integers.

    The conversion is that of Pillow, without a color profile.

    >>> cmyk_to_rgb(np.array([[55, 195, 225, 0], [0, 0, 0, 255]], np.uint8)).tolist()
    [[200, 60, 30], [0, 0, 0]]
    """
    top = np.iinfo(pixels.dtype).max
    paper = top - pixels[..., :4].astype(np.uint64)
    return ((paper[..., :3] * paper[..., 3:] + top // 2) // top).astype(pixels.dtype)


def look_up(palette: Pixels, indices: Pixels) -> Pixels:
    """Return the gray values (...) or colors (..., 3) of palette indices (...)."""
    return np.take(palette, indices, axis=0)


def invert(top: int, pixels: Pixels) -> Pixels:
    """Invert gray values between 0 and ``top``."""
    return ~pixels if pixels.dtype == bool else (top - pixels).astype(pixels.dtype)
