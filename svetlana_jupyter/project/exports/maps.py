"""Class maps: label images in which every pixel has the class of its object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import tifffile

if TYPE_CHECKING:
    from svetlana_jupyter.project.exports.place import Place


def write_imagej(place: Place) -> Iterator[Path]:
    """Write one class map an image, with the codes of `Results.class_map`, in ImageJ's form."""
    for image, stem in place.names.items():
        codes = place.project.class_map(image)
        axes = "".join(map(str, codes.dims)).upper()
        with place.writing(f"{stem}_classes.tif") as beside:
            tifffile.imwrite(beside, codes.to_numpy(), imagej=True, metadata={"axes": axes}, compression="zlib")
        yield place.folder / f"{stem}_classes.tif"
