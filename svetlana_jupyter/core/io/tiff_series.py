"""Choice of the image among the images of a TIFF file.

Besides the image, a file may hold smaller copies of it, an overview, or a photograph of the slide and its label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tifffile import TiffFile, TiffPageSeries

SLIDE_FORMATS = {"svs", "ndpi", "scn", "qpi", "bif", "avs", "philips"}  # of tifffile, which names what is not the image
SLIDE_IMAGES = {"", "baseline"}
TRANSPARENCY_MASK = 4  # bit of the tag NewSubfileType
LISTED_IMAGES = 6


@dataclass(frozen=True)
class ChosenSeries:
    """The image of a TIFF file.

    Attributes
    ----------
    series : TiffPageSeries
    index, level : int
        Position in ``tiff.series`` and in the ``levels`` of that series; the level is 0 for all but files in which
        images of several sizes are stored without stating that they are the same.
    count : int
        Number of series in the file.
    levels : sequence of TiffPageSeries
        The image and its smaller copies, the finest first.
    notes : sequence of str
    """

    series: TiffPageSeries
    index: int
    level: int
    count: int
    levels: Sequence[TiffPageSeries]
    notes: Sequence[str] = ()


def choose_series(tiff: TiffFile, path: Path, mask_shape: Sequence[int] | None) -> ChosenSeries:
    """Return the image of a TIFF file.

    Smaller copies, masks of transparency, and the overviews and labels of slide scanners do not count. Among other
    images, the only one with the rows and columns of the mask is opened; without a mask, one that is at least twice as
    large as all others, with a note.

    Raises
    ------
    InputError
        If the file holds no image or several.
    """
    found = list(_images(tiff))
    if not found:
        raise InputError(f"{path} is a TIFF without an image. Check that it was written completely.")
    images = [image for image in found if not _is_secondary(image.series)] or found
    fitting = [image for image in images if mask_shape is not None and _rows_and_columns(image) == [*mask_shape[-2:]]]
    if len(images) == 1 or len(fitting) == 1:
        return images[0] if len(images) == 1 else fitting[0]
    listing = "; ".join(_describe(image, path) for image in images[:LISTED_IMAGES])
    listing += f" and {len(images) - LISTED_IMAGES} more" if len(images) > LISTED_IMAGES else ""
    hint = f"Save another one to its own file: `tifffile.imwrite('image.tif', {_call(images[0], path)})`."
    largest = max(images, key=_area)
    if mask_shape is None and all(_is_overview(image, largest) for image in images if image is not largest):
        note = f"It holds {len(images)} images, {listing}; the largest is opened. {hint}"
        return replace(largest, notes=[note])
    raise InputError(
        f"{path} holds {len(images)} images, expected one: {listing}. {hint.replace('another', 'the right')}"
    )


def _images(tiff: TiffFile) -> Iterator[ChosenSeries]:
    """Yield the images of a file.

    An image that is not flagged as a smaller copy of another is an image of its own.
    """
    count = len(tiff.series)
    for index, series in enumerate(tiff.series):
        levels = [*series.levels]
        if series.kind == "generic":
            levels = [level for level in levels if level is series or _is_copy(level)]
            for number, level in enumerate(series.levels):
                if number and not _is_copy(level):
                    yield ChosenSeries(level, index, number, count, [level])
        # a level that is left out would shift the numbers of those that follow
        same = [level for level, stored in zip(levels, series.levels) if level is stored]
        yield ChosenSeries(series, index, 0, count, same)


def _is_copy(series: TiffPageSeries) -> bool:
    return bool(series.keyframe.is_reduced or series.keyframe.is_subifd)


def _is_secondary(series: TiffPageSeries) -> bool:
    if series.kind in SLIDE_FORMATS:
        return series.name.lower() not in SLIDE_IMAGES
    return bool(series.keyframe.is_reduced or series.keyframe.subfiletype & TRANSPARENCY_MASK)


def _rows_and_columns(image: ChosenSeries) -> list[int]:
    return [length for axis, length in zip(image.series.axes, image.series.shape) if axis in "YX"]


def _area(image: ChosenSeries) -> int:
    return math.prod(_rows_and_columns(image))


def _is_overview(image: ChosenSeries, of: ChosenSeries) -> bool:
    return all(2 * small <= large for small, large in zip(_rows_and_columns(image), _rows_and_columns(of)))


def _describe(image: ChosenSeries, path: Path) -> str:
    name = f"{image.series.name!r}, " if image.series.name else ""
    return f"{_call(image, path)} ({name}shape {tuple(image.series.shape)})"


def _call(image: ChosenSeries, path: Path) -> str:
    level = f", level={image.level}" if image.level else ""
    return f"tifffile.imread({path.name!r}, series={image.index}{level})"
