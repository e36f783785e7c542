"""The annotated patches as a folder a class, as other tools take them to train on, with a table of where each is from.

A patch holds the pixels of the image as they are, in the image's own type, in the field of view of the patches that a
classifier sees; beyond the image's border they are padded as there. One or three channels of whole numbers in 2D are a
PNG, everything else is a TIFF.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray

from svetlana_jupyter.core.io.chunks import group_by_block, index_last_axes, processing_block_shape, read_padded
from svetlana_jupyter.core.objects import bbox_columns, centroid_columns
from svetlana_jupyter.core.patch_geometry import units_per_pixel, view_size_per_object
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.exporters.snapshot import unique_file_names
from svetlana_jupyter.project.patch_previews import patch_settings

if TYPE_CHECKING:
    from svetlana_jupyter.project.exporters.snapshot import OutputFolder, ResultsSnapshot

FOLDER = "patches"
TABLE = "patches.csv"
IMAGEJ_TYPES = (np.uint8, np.uint16, np.float32)


def check_patches(found: ResultsSnapshot) -> None:
    """Refuse where nothing is annotated."""
    if found.annotated.empty:
        raise ProjectError("there are no annotated patches yet; annotate some objects, then export them.")


def write_patches(place: OutputFolder, found: ResultsSnapshot) -> Iterator[Path]:
    """Write ``patches/<class>/<image>_<object>.png`` (or .tif), and ``patches/patches.csv``.

    The table has a row a patch: ``file``, ``class``, ``image``, ``object``, the patch's box in pixels of the image
    ``[z0,] y0, x0, [z1,] y1, x1`` (which may reach beyond it), ``test_set`` (whether the object is for scoring alone),
    and the grouping columns.
    """
    folders = unique_file_names([TABLE, *found.classes.names])
    rows: list[dict[str, Any]] = []
    with place.write_folder(FOLDER) as draft:
        for name in found.classes.names:
            (draft / folders[name]).mkdir()
        for image in found.images:
            labels = found.annotated.loc[found.annotated.index.get_level_values("image") == image].droplevel("image")
            said = {int(annotation): (str(name), bool(apart)) for annotation, name, apart in labels.itertuples()}
            for label, pixels, box in place.watched(_cut(found, image, labels.index)):
                name, test_set = said[label]
                file = _write(draft, f"{folders[name]}/{place.names[image]}_{label}", pixels)
                row = {"file": file, "class": name, "image": image, "object": label}
                rows.append({**row, **box, "test_set": test_set, **found.groups[image]})
        table = pd.DataFrame(rows).sort_values(["image", "object"])
        table.to_csv(draft / TABLE, index=False, encoding="utf-8")
    yield place.folder / FOLDER


def _cut(found: ResultsSnapshot, image: str, labels: pd.Index) -> Iterator[tuple[int, NDArray[Any], dict[str, int]]]:
    """Yield object, pixels (C, [z,] y, x) and box of each patch, block after block."""
    pair, settings = found.pair(image), patch_settings(found.project, image)
    objects = found.objects(image)
    objects = objects[objects.index.isin(labels)]
    sides = view_size_per_object(settings, objects, pair.spacing) / units_per_pixel(settings, pair.ndim, pair.spacing)
    shapes = np.maximum(1, np.floor(sides + 0.5)).astype(np.int64)
    centers = objects[centroid_columns(pair.ndim)].to_numpy(float)
    starts = np.floor(centers - (shapes - 1) / 2 + 0.5).astype(np.int64)
    stops = starts + shapes
    for some in group_by_block(centers, processing_block_shape(pair.image, pair.mask)):
        low = starts[some].min(axis=0)
        block = read_padded(pair.image, low, stops[some].max(axis=0), settings.padding)
        for one in some:
            pixels = block[index_last_axes(map(slice, starts[one] - low, stops[one] - low))]
            box = dict(zip(bbox_columns(pair.ndim), map(int, (*starts[one], *stops[one])), strict=True))
            yield int(objects.index[one]), pixels, box


def _write(folder: Path, file: str, pixels: NDArray[Any]) -> str:
    """Write one patch (C, [z,] y, x) and return the name of its file."""
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 3 and len(pixels) in (1, 3) and pixels.dtype in (np.uint8, np.uint16):
        done, encoded = cv2.imencode(".png", np.moveaxis(pixels[::-1], 0, -1))  # OpenCV has blue first
        assert done
        (folder / f"{file}.png").write_bytes(encoded.tobytes())
        return f"{file}.png"
    stack, axes = (np.moveaxis(pixels, 0, 1), "ZCYX") if pixels.ndim == 4 else (pixels, "CYX")
    imagej = pixels.dtype in IMAGEJ_TYPES
    tifffile.imwrite(
        folder / f"{file}.tif",
        stack,
        imagej=imagej,
        photometric="minisblack",
        metadata={"axes": axes},
        compression="zlib",
    )
    return f"{file}.tif"
