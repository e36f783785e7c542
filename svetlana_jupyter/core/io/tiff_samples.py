"""Meaning of the samples of a TIFF pixel.

They are gray values, channels, colors, alpha, inks or palette indices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from tifffile import COMPRESSION, PHOTOMETRIC

from svetlana_jupyter.core.io.colors import SampleConversion, cmyk_to_rgb, invert, look_up, take_samples
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tifffile import TiffPage, TiffPageSeries

ALPHA = (1, 2)  # values of the tag ExtraSamples: associated and unassociated alpha
CMYK = 1  # value of the tag InkSet
COLOR_NAMES = ("red", "green", "blue")
DECODED_TO_RGB = {COMPRESSION.OJPEG, COMPRESSION.JPEG}  # from YCbCr, by tifffile
YCBCR_JPEG2000 = 33003  # of Aperio, which tifffile does not convert to RGB


@dataclass(frozen=True)
class StoredSamples:
    """What the samples of a pixel are, and how they are converted.

    Attributes
    ----------
    axes : str
        One letter per dimension after the conversion; ``s`` for red, green and blue, ``c`` for other samples.
    conversion : SampleConversion, optional
    names : sequence of str
        Names of the channels, if their kind is known.
    notes : sequence of str
    """

    axes: str
    conversion: SampleConversion | None = None
    names: Sequence[str] = ()
    notes: Sequence[str] = ()


def interpret_samples(series: TiffPageSeries, path: Path, labels: bool) -> StoredSamples:
    """Return what the samples of an image or, with ``labels``, of a mask are.

    Extra samples are dropped where the file states that they are alpha, and kept otherwise.

    Raises
    ------
    InputError
        If the values are neither gray values nor colors that can be converted to red, green and blue.
    """
    page, axes = series.keyframe, series.axes.lower()
    photometric = page.photometric if page.photometric or "PhotometricInterpretation" in page.tags else None
    if series.transform is not None:
        raise InputError(f"{path} stores values that need a conversion ({series.kind}). Save it as plain TIFF.")
    if photometric in (None, PHOTOMETRIC.MINISBLACK) or (photometric == PHOTOMETRIC.MINISWHITE and labels):
        samples = _without_alpha(page, axes)
    elif photometric == PHOTOMETRIC.MINISWHITE:
        samples = _inverted(page, axes, path)
    elif photometric == PHOTOMETRIC.PALETTE and "s" not in axes and page.colormap is not None:
        samples = StoredSamples(axes) if labels else _from_palette(page, axes)
    elif photometric == PHOTOMETRIC.SEPARATED and _is_cmyk(page, axes):
        conversion = SampleConversion(cmyk_to_rgb, 3, axes.index("s"))
        note = "The inks (CMYK) are converted to red, green and blue, without a color profile."
        samples = StoredSamples(axes, conversion, notes=[note])
    elif _is_rgb(page):
        samples = _without_alpha(page, axes, COLOR_NAMES)
    else:
        name = "YCBCR" if page.compression == YCBCR_JPEG2000 else getattr(photometric, "name", photometric)
        raise InputError(
            f"{path} stores its colors as {name}, which is not supported. Save it as RGB, for example with Fiji "
            "(Image > Type > RGB Color)."
        )
    if (orientation := page.tags.valueof("Orientation", 1)) in range(2, 9):
        note = f"It states that it is displayed rotated or mirrored (orientation {orientation}); it is read as stored."
        samples = replace(samples, notes=[*samples.notes, note])
    return samples


def _is_rgb(page: TiffPage) -> bool:
    if page.compression == YCBCR_JPEG2000:
        return False
    decoded = page.photometric == PHOTOMETRIC.YCBCR and page.compression in DECODED_TO_RGB
    return bool(page.photometric == PHOTOMETRIC.RGB or (decoded and page.samplesperpixel == 3))


def _without_alpha(page: TiffPage, axes: str, names: Sequence[str] = ()) -> StoredSamples:
    """Keep all samples but alpha; ``names`` are those of the first samples."""
    if "s" not in axes:
        return StoredSamples(axes)
    kept, count = _opaque_samples(page), page.samplesperpixel
    all_names = [*names, *(f"channel {number + 1}" for number in range(len(names), len(kept)))] if names else []
    is_channel = len(kept) > 1 and len(kept) != len(names) and "c" not in axes
    conversion = (
        SampleConversion(partial(take_samples, kept), len(kept), axes.index("s")) if len(kept) < count else None
    )
    return StoredSamples(axes.replace("s", "c") if is_channel else axes, conversion, all_names)


def _opaque_samples(page: TiffPage) -> list[int]:
    """Return the numbers of the samples that the file does not state to be alpha."""
    first_extra = page.samplesperpixel - len(page.extrasamples)
    return [
        i for i in range(page.samplesperpixel) if i < first_extra or page.extrasamples[i - first_extra] not in ALPHA
    ]


def _inverted(page: TiffPage, axes: str, path: Path) -> StoredSamples:
    """Invert gray values whose 0 is white, so that brighter is larger."""
    if page.is_imagej:
        return StoredSamples(axes, notes=["It has an inverting lookup table, which is not used: values are as stored."])
    if "s" in axes or page.dtype is None or page.dtype.kind not in "bu":
        raise InputError(
            f"{path} states that 0 is white, which has no certain meaning for {page.samplesperpixel} samples of type "
            f"{page.dtype} per pixel. Save it with 0 as black (`photometric='minisblack'` in tifffile)."
        )
    note = "In the file 0 is white; the values are inverted, so that brighter is larger."
    return StoredSamples(axes, SampleConversion(partial(invert, 2**page.bitspersample - 1)), notes=[note])


def _from_palette(page: TiffPage, axes: str) -> StoredSamples:
    """Look up the colors of a palette.

    In the formats of microscopes, a palette only displays intensities, which are kept.
    """
    if page.is_imagej or page.is_ome:
        return StoredSamples(axes, notes=["It has a lookup table of colors, which is not used: values are as stored."])
    palette = np.asarray(page.colormap).T
    if page.dtype == np.uint8 or palette.max() < 256:
        palette = (palette >> 8 if palette.max() > 255 else palette).astype(np.uint8)
    if (palette == palette[:, :1]).all():
        return StoredSamples(axes, SampleConversion(partial(look_up, palette[:, 0]), dtype=palette.dtype))
    function = partial(look_up, palette)
    return StoredSamples(f"{axes}s", SampleConversion(function, 3, len(axes), adds_axis=True, dtype=palette.dtype))


def _is_cmyk(page: TiffPage, axes: str) -> bool:
    inks = page.tags.valueof("InkSet", CMYK) == CMYK and _opaque_samples(page) == [0, 1, 2, 3]
    return bool(inks and "s" in axes and page.dtype is not None and page.dtype.kind == "u")
