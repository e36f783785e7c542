"""OME-Zarr 0.4: the probability under each pixel as an image, with two label images, the classes and the objects.

The objects are the mask, each in the colour of its class and with what is known of it. Version 0.4 is what every
reader of the format takes. Coarser levels are every second pixel of the level before, so that labels stay labels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import pandas as pd
import zarr
from numcodecs import Blosc
from xarray import DataArray

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.io.chunks import MIN_BLOCK_SHAPE

if TYPE_CHECKING:
    from svetlana_jupyter.project.exporters.snapshot import OutputFolder, ResultsSnapshot

VERSION = "0.4"
THREADS = os.cpu_count() or 1
SMALL = 512  # a level whose rows and columns are no longer than this is the last
COMPRESSOR = Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE)  # what every reader of version 0.4 decodes
UNKNOWN = [128, 128, 128, 255]

Spacing = tuple[float, ...] | None


def write_ngff(place: OutputFolder, found: ResultsSnapshot) -> Iterator[Path]:
    """Write one ``<image>.ome.zarr`` an image."""
    for image, stem in place.names.items():
        spacing, codes = found.pair(image).spacing, found.class_map(image)
        table = found.of_image(image)
        compact = zarr.config.set({"json_indent": None})  # there may be a line or more for each object
        with place.write_folder(f"{stem}.ome.zarr") as draft, compact:
            root = zarr.open_group(draft, mode="w", zarr_format=2)
            _write(place, root, found.probability_map(image), spacing, f"{image}: probability")
            labels = root.create_group("labels", attributes={"labels": ["classes", "objects"]})
            classes = labels.create_group("classes")
            _write(place, classes, codes, spacing, f"{image}: classes")
            classes.attrs["image-label"] = _of_classes(found.classes, int(codes.attrs["flag_values"][-1]))
            objects = labels.create_group("objects")
            _write(place, objects, found.pair(image).mask, spacing, f"{image}: objects")
            objects.attrs["image-label"] = _of_objects(found.classes, table)
        yield place.folder / f"{stem}.ome.zarr"


def _write(place: OutputFolder, group: zarr.Group, array: DataArray, spacing: Spacing, name: str) -> None:
    """Write an array as the resolutions of a multiscale image, each computed from the one before."""
    axes = [str(dim) for dim in array.dims]
    steps, data = list(spacing or (1.0,) * array.ndim), array.data
    datasets: list[dict[str, Any]] = []
    while True:
        place.raise_if_stopped()
        path = str(len(datasets))
        chunks = tuple(min(side, length) for side, length in zip(MIN_BLOCK_SHAPE[array.ndim], data.shape))
        level = group.create_array(
            path,
            shape=data.shape,
            dtype=data.dtype,
            chunks=chunks,
            compressors=COMPRESSOR,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        with ThreadPoolExecutor(THREADS) as pool:  # where one fails, the others have ended before the folder is removed
            da.store(data.rechunk(chunks), level, lock=False, scheduler="threads", pool=pool)
        datasets.append({"path": path, "coordinateTransformations": [{"type": "scale", "scale": list(steps)}]})
        if max(data.shape[-2:]) <= SMALL:
            break
        data = da.from_zarr(level)[..., ::2, ::2]
        steps[-2:] = [2 * step for step in steps[-2:]]
    unit = {"unit": "micrometer"} if spacing else {}
    group.attrs["multiscales"] = [
        {
            "version": VERSION,
            "name": name,
            "type": "nearest",
            "axes": [{"name": axis, "type": "space", **unit} for axis in axes],
            "datasets": datasets,
        }
    ]


def _of_classes(classes: ClassScheme, unknown: int) -> Mapping[str, Any]:
    named = [(info.id, info.name, _rgba(info.color)) for info in classes] + [(unknown, "not predicted", UNKNOWN)]
    return {
        "version": VERSION,
        "source": {"image": "../../"},
        "colors": [{"label-value": code, "rgba": rgba} for code, _, rgba in named],
        "properties": [{"label-value": code, "class": name} for code, name, _ in named],
    }


def _of_objects(classes: ClassScheme, table: pd.DataFrame) -> Mapping[str, Any]:
    colors = {info.name: _rgba(info.color) for info in classes}
    words = ["class", "predicted", "annotation"]
    said = table[words].astype("object").where(table[words].notna(), None).to_numpy()
    probabilities = table["probability"].to_numpy(float)
    shown: list[Sequence[int]] = [colors.get(name, UNKNOWN) for name in said[:, 0]]
    labels = [int(label) for label in table.index]
    properties = []
    for label, known, p in zip(labels, said, probabilities, strict=True):
        property = {"label-value": label, **{word: text for word, text in zip(words, known) if text is not None}}
        properties.append(property | ({"probability": float(f"{p:.9g}")} if p == p else {}))
    return {
        "version": VERSION,
        "source": {"image": "../../"},
        "colors": [{"label-value": label, "rgba": rgba} for label, rgba in zip(labels, shown, strict=True)],
        "properties": properties,
    }


def _rgba(color: str) -> list[int]:
    return [*bytes.fromhex(color[1:]), 255]
