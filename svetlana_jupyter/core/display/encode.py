"""Image encoding for the browser.

Images are encoded as JPEG while the view moves and as PNG when it is at rest; object overlays are PNG with a palette.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Run-length compression (zlib.Z_RLE), since overlays are long runs of equal codes. An overlay of 800 x 600 pixels takes
# 2.6 ms and 23 kB. Pillow's default level would take 6.4 ms and 22 kB; zlib level 1 without Pillow would take 1.5 ms
# and 38 kB, and the additional 15 kB take more than a millisecond on any connection slower than 100 Mbit/s.
_RUN_LENGTHS = {"compress_level": 1, "compress_type": 3}


def jpeg(pixels: NDArray[np.uint8], quality: int = 88) -> bytes:
    """Encode gray (h, w) or RGB (h, w, 3) pixels as JPEG, lossy but fast.

    Colors are stored at full resolution (4:4:4), since subsampling would blur the borders of small objects.
    """
    full_color = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality, *full_color])


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode gray (h, w) or RGB (h, w, 3) pixels as PNG at the fastest level."""
    return _encode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def indexed_png(codes: NDArray[np.uint8], table: NDArray[np.uint8]) -> bytes:
    """Encode an image of palette indices as a PNG.

    This is ten times as fast as encoding the same pixels as RGBA, and the result is a tenth of the size. Pillow writes
    it, because OpenCV cannot write palettes.

    Parameters
    ----------
    codes : array of uint8, shape (h, w)
        Row of the color table for each pixel.
    table : array of uint8, shape (n, 4)
        Red, green, blue and alpha of each code; at most 256 rows.
    """
    image = Image.fromarray(codes)
    image.putpalette(table[:, :3].tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", transparency=table[:, 3].tobytes(), **_RUN_LENGTHS)
    return file.getvalue()


def _encode(extension: str, pixels: NDArray[np.uint8], options: list[Any]) -> bytes:
    if pixels.dtype != np.uint8:
        raise TypeError(f"Pixels must be uint8, got {pixels.dtype}.")
    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    encoded, data = cv2.imencode(extension, ordered, options)
    if not encoded:
        raise ValueError(f"Pixels of shape {pixels.shape} cannot be encoded as {extension}.")
    return bytes(data)
