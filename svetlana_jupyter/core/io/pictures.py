"""PNG, JPEG, BMP, GIF and WebP files.

They are decoded as a whole. What they hold besides gray values or colors is converted or refused: palettes, inks,
alpha, rotation in the EXIF data, and several frames.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from svetlana_jupyter.core.io.colors import cmyk_to_rgb
from svetlana_jupyter.core.io.sources import OpenedFile, ReadRequest, undivided_to_dask
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")  # by content, whatever the suffix
ORIENTATION = 274  # EXIF tag; 1 is upright, from 5 on rows and columns are exchanged
DTYPES = {"1": np.dtype(bool), "I": np.dtype(np.int32), "F": np.dtype(np.float32)}  # of the modes of Pillow
GRAY_MODES = {*DTYPES, "L", "LA", "La"}  # and those that begin with "I;", of 16 bits
COLOR_MODES = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}


def read_picture(path: Path, request: ReadRequest) -> OpenedFile:
    """Open a PNG, JPEG, BMP, GIF or WebP file lazily, reading only its header."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            frames, mode, (width, height) = int(getattr(picture, "n_frames", 1)), picture.mode, picture.size
            orientation = _orientation(path, picture)
            indexed_gray = mode == "P" and (request.labels or _has_gray_palette(picture))
            deep_samples = _deep_samples(path) if picture.format == "PNG" else 0
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large for PNG or JPEG. Save it as tiled TIFF or as Zarr.") from error
    except Exception as error:  # each decoder fails in its own way on a damaged file
        raise InputError(
            f"{path} cannot be read as PNG or JPEG ({error}). Check that the file is complete and opens in other "
            "programs."
        ) from error
    if frames > 1:
        raise InputError(
            f"{path} holds {frames} pictures, expected one. Save the one to use as its own file, for example "
            f"`picture = PIL.Image.open({path.name!r}); picture.seek(0); picture.save('first.png')`."
        )
    if not (is_gray := mode in GRAY_MODES or mode.startswith("I;") or indexed_gray) and mode not in COLOR_MODES:
        raise InputError(f"{path} stores its colors as {mode}, which is not supported. Save it as RGB.")
    upright = _must_be_rotated(path, orientation, (height, width), request.mask_shape)
    shape: tuple[int, ...] = (width, height) if upright and orientation >= 5 else (height, width)
    dtype = DTYPES.get(mode, np.dtype(np.uint16 if mode.startswith("I;") or deep_samples else np.uint8))
    if not is_gray and deep_samples != 1:
        shape = (*shape, 3)
    decode = partial(_decode_picture, request.labels, upright, bool(deep_samples))
    notes = ["The inks (CMYK) are converted to red, green and blue, without a color profile."] if mode == "CMYK" else []
    return OpenedFile(undivided_to_dask(path, shape, dtype, decode, request.cache), "yxs"[: len(shape)], notes=notes)


def _orientation(path: Path, picture: Image.Image) -> int:
    """Return the EXIF orientation, without decoding the picture."""
    if picture.format == "PNG" and "exif" not in picture.info and (exif := _exif_of_png(path)):
        picture.info["exif"] = exif  # Pillow would decode the whole picture to find it
    orientation = Image.Image.getexif(picture).get(ORIENTATION, 1)
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _exif_of_png(path: Path) -> bytes:
    """Return the EXIF data of a PNG, which may follow the pixels."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return file.read(length)
            file.seek(length + 4, 1)  # the data and their checksum
    return b""


def _has_gray_palette(picture: Image.Image) -> bool:
    colors = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    return bool((colors == colors[:, :1]).all())


def _deep_samples(path: Path) -> int:
    """Return the samples per pixel of a PNG that Pillow would reduce to 8 bits.

    Alpha does not count. For other files, return 0.
    """
    with path.open("rb") as file:
        header = file.read(26)  # the 25th byte is the bit depth, the 26th the kind of samples
    return {2: 3, 4: 1, 6: 3}.get(header[25], 0) if header[24] == 16 else 0


def _must_be_rotated(path: Path, orientation: int, shape: tuple[int, int], mask_shape: tuple[int, ...] | None) -> bool:
    """Return whether the picture must be turned upright, as its EXIF data say.

    Some programs turn pictures when they read them, others do not. So the shape of the mask decides, if it can.
    """
    if orientation == 1:
        return False
    if orientation >= 5 and mask_shape is not None and shape[0] != shape[1]:
        return mask_shape[-2:] == shape[::-1]
    raise InputError(
        f"{path} is to be rotated or mirrored when it is displayed (EXIF orientation {orientation}), which only some "
        "programs do. Save the upright picture, segment it, and add both: "
        f"`PIL.ImageOps.exif_transpose(PIL.Image.open({path.name!r})).save('upright.png')`."
    )


def _decode_picture(labels: bool, upright: bool, deep: bool, path: Path) -> npt.NDArray[Any]:
    """Decode a picture to gray values or labels (h, w), or to colors (h, w, 3)."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if deep:
                pixels = np.asarray(imagecodecs.png_decode(path.read_bytes()))
                pixels = pixels[..., 0] if pixels.shape[-1] == 2 else pixels[..., :3]
            else:
                pixels = _to_pixels(picture, labels)
            return _turn(pixels, _orientation(path, picture)) if upright else pixels
    except Exception as error:  # each decoder fails in its own way on a damaged file
        raise InputError(f"{path} cannot be decoded ({error}). It may be incomplete: copy it again.") from error


def _to_pixels(picture: Image.Image, labels: bool) -> npt.NDArray[Any]:
    mode = picture.mode
    if mode in ("LA", "La"):
        return np.asarray(picture)[..., 0]
    if mode == "CMYK":
        return cmyk_to_rgb(np.asarray(picture))
    if mode == "P" and not labels and _has_gray_palette(picture):
        return np.asarray(picture.convert("L"))
    if mode == "PA" or (mode == "P" and not labels):
        return np.asarray(picture.convert("RGBA"))[..., :3]
    pixels = np.asarray(picture if mode == "P" or mode not in COLOR_MODES else picture.convert("RGB"))
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _turn(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn a picture of EXIF orientation 5 to 8 upright.

    In these orientations, rows and columns are exchanged.
    """
    if orientation in (6, 8):
        return np.rot90(pixels, -1 if orientation == 6 else 1)
    transposed = np.swapaxes(pixels, 0, 1)
    return transposed if orientation == 5 else np.rot90(transposed, 2)
