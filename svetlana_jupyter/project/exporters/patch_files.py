"""Labeled patches in one folder per class, for training with other tools.

A table lists the image, object and bounding box of each patch. A patch holds the original pixels in the image's data
type, in the field of view that the classifier uses; it is padded beyond the image border. 2D patches of 8- or 16-bit
integers with one or three channels are PNG files, all other patches are TIFF files.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
import tifffile

from svetlana_jupyter.core.io.chunks import group_by_block, index_last_axes, processing_block_shape, read_padded
from svetlana_jupyter.core.io.table_files import write_csv
from svetlana_jupyter.core.objects import bbox_columns, centroid_columns
from svetlana_jupyter.core.patch_geometry import units_per_pixel, view_size_per_object
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.exporters.output_folder import unique_file_names
from svetlana_jupyter.project.patch_previews import patch_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from svetlana_jupyter.project.exporters.output_folder import OutputFolder
    from svetlana_jupyter.project.exporters.snapshot import ResultsSnapshot

FOLDER = "patches"
TABLE = "patches.csv"
IMAGEJ_TYPES = (np.uint8, np.uint16, np.float32)


def check_patches(snapshot: ResultsSnapshot) -> None:
    """Raise an error if no object is labeled."""
    if snapshot.annotated.empty:
        raise ProjectError("There are no annotated patches yet. Annotate some objects, then export them.")


def write_patches(output: OutputFolder, snapshot: ResultsSnapshot) -> Iterator[Path]:
    """Write the labeled patches, and the table ``patches/patches.csv``.

    Each patch is a file ``patches/<class>/<image>_<object>.png`` (or ``.tif``).

    The table has one row per patch, with the columns ``file``, ``class``, ``image``, ``object``, ``[z0,] y0, x0, [z1,]
    y1, x1`` (the bounding box of the patch in image pixels, which may exceed the image), ``test_set`` (whether the
    object belongs to the test set), and the grouping columns of the image.
    """
    # A path in the table must not begin like a formula, since `write_csv` would put an apostrophe before it.
    names = unique_file_names([TABLE, *snapshot.classes.names])
    folders = {name: re.sub(r"^[=+@-]", lambda sign: f"%{ord(sign[0]):X}", text) for name, text in names.items()}
    rows: list[dict[str, Any]] = []
    with output.write_folder(FOLDER) as draft:
        for name in snapshot.classes.names:
            (draft / folders[name]).mkdir()
        for image in snapshot.images:
            labels = snapshot.annotated[snapshot.annotated.index.get_level_values("image") == image].droplevel("image")
            for label, pixels, box in output.until_stopped(_cut(snapshot, image, labels.index)):
                name, test_set = str(labels.at[label, "class"]), bool(labels.at[label, "test_set"])
                file = _write(draft, f"{folders[name]}/{output.names[image]}_{label}", pixels)
                row = {"file": file, "class": name, "image": image, "object": label}
                rows.append({**row, **box, "test_set": test_set, **snapshot.groups[image]})
        table = pd.DataFrame(rows).sort_values(["image", "object"])
        write_csv(table, draft / TABLE)
    yield output.folder / FOLDER


def _cut(snapshot: ResultsSnapshot, image: str, labels: pd.Index) -> Iterator[tuple[int, NDArray[Any], dict[str, int]]]:
    """Yield the object label, pixels (C, [z,] y, x) and bounding box of each patch."""
    pair = snapshot.pair(image)
    settings = patch_settings(snapshot, snapshot.annotated["class_id"], image, snapshot.settings)
    objects = snapshot.objects(image)
    objects = objects[objects.index.isin(labels)]
    sides = view_size_per_object(settings, objects, pair.spacing) / units_per_pixel(settings, pair.ndim, pair.spacing)
    shapes = np.maximum(1, np.floor(sides + 0.5)).astype(np.int64)
    centers = objects[centroid_columns(pair.ndim)].to_numpy(float)
    starts = np.floor(centers - (shapes - 1) / 2 + 0.5).astype(np.int64)
    stops = starts + shapes
    for rows in group_by_block(centers, processing_block_shape(pair.image, pair.mask)):
        low = starts[rows].min(axis=0)
        block = read_padded(pair.image, low, stops[rows].max(axis=0), settings.padding)
        for row in rows:
            pixels = block[index_last_axes(map(slice, starts[row] - low, stops[row] - low))]
            box = dict(zip(bbox_columns(pair.ndim), map(int, (*starts[row], *stops[row])), strict=True))
            yield int(objects.index[row]), pixels, box


def _write(folder: Path, stem: str, pixels: NDArray[Any]) -> str:
    """Write one patch (C, [z,] y, x) and return the name of its file."""
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 3 and len(pixels) in (1, 3) and pixels.dtype in (np.uint8, np.uint16):
        encoded = cv2.imencode(".png", np.moveaxis(pixels[::-1], 0, -1))[1]  # OpenCV expects blue first
        (folder / f"{stem}.png").write_bytes(encoded.tobytes())
        return f"{stem}.png"
    stack, axes = (np.moveaxis(pixels, 0, 1), "ZCYX") if pixels.ndim == 4 else (pixels, "CYX")
    tifffile.imwrite(
        folder / f"{stem}.tif",
        stack,
        imagej=pixels.dtype in IMAGEJ_TYPES,
        photometric="minisblack",
        metadata={"axes": axes},
        compression="zlib",
    )
    return f"{stem}.tif"
