"""OME-Zarr 0.4 export of a probability map with two label images.

The label image ``classes`` is the class map. The label image ``objects`` is the mask; its attributes hold the class
color and the prediction of each object. Version 0.4 is used because every reader of the format supports it
(`yaozarrs.write` writes only 0.5). Coarser levels keep every second row and column, so that labels are not averaged.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import dask.array as da
import zarr
from numcodecs import Blosc

from svetlana_jupyter.core.io.chunks import MIN_BLOCK_SHAPE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    from xarray import DataArray

    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.project.exporters.output_folder import OutputFolder
    from svetlana_jupyter.project.exporters.snapshot import ResultsSnapshot

VERSION = "0.4"
THREADS = os.cpu_count() or 1
MAX_SMALLEST_LEVEL = 512  # longest side of the coarsest level
COMPRESSOR = Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE)  # decoded by every reader of version 0.4
UNKNOWN = (128, 128, 128, 255)  # color of objects without a class

Spacing = tuple[float, ...] | None


def write_ome_zarr(output: OutputFolder, snapshot: ResultsSnapshot) -> Iterator[Path]:
    """Write one ``<image>.ome.zarr`` per image."""
    for image, stem in output.names.items():
        pair, codes, classes = snapshot.pair(image), snapshot.class_map(image), snapshot.classes
        compact = zarr.config.set({"json_indent": None})  # indented attributes would take several lines per object
        with output.write_folder(f"{stem}.ome.zarr") as draft, compact:
            root = zarr.open_group(draft, mode="w", zarr_format=2)
            _write_levels(output, root, snapshot.probability_map(image), pair.spacing, f"{image}: probability")
            labels = root.create_group("labels", attributes={"labels": ["classes", "objects"]})
            for name, array, attributes in (
                ("classes", codes, _class_attributes(classes, int(codes.attrs["flag_values"][-1]))),
                ("objects", pair.mask, _object_attributes(classes, snapshot.rows_of_image(image))),
            ):
                group = labels.create_group(name, attributes={"image-label": attributes})
                _write_levels(output, group, array, pair.spacing, f"{image}: {name}")
        yield output.folder / f"{stem}.ome.zarr"


def _write_levels(output: OutputFolder, group: zarr.Group, array: DataArray, spacing: Spacing, name: str) -> None:
    """Write an array as the levels of a multiscale image.

    Each level is computed from the previous level.
    """
    scale, data = list(spacing or (1.0,) * array.ndim), array.data
    datasets: list[dict[str, Any]] = []
    while True:
        output.raise_if_stopped()
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
        # A separate thread pool: if one thread fails, the other threads end before the folder is removed.
        with ThreadPoolExecutor(THREADS) as pool:
            da.store(data.rechunk(chunks), level, lock=False, scheduler="threads", pool=pool)
        datasets.append({"path": path, "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]})
        if max(data.shape[-2:]) <= MAX_SMALLEST_LEVEL:
            break
        data = da.from_zarr(level)[..., ::2, ::2]
        scale[-2:] = [2 * step for step in scale[-2:]]
    unit = {"unit": "micrometer"} if spacing else {}
    axes = [{"name": str(axis), "type": "space", **unit} for axis in array.dims]
    group.attrs["multiscales"] = [
        {"version": VERSION, "name": name, "type": "nearest", "axes": axes, "datasets": datasets}
    ]


def _class_attributes(classes: ClassScheme, unknown: int) -> dict[str, Any]:
    infos = [(info.id, info.name, _rgba(info.color)) for info in classes] + [(unknown, "not predicted", UNKNOWN)]
    properties = [{"label-value": code, "class": name} for code, name, _ in infos]
    return _label_attributes({code: color for code, _, color in infos}, properties)


def _object_attributes(classes: ClassScheme, table: pd.DataFrame) -> dict[str, Any]:
    colors: dict[str, Sequence[int]] = {info.name: _rgba(info.color) for info in classes}
    cells = table[["class", "predicted", "annotation", "flag", "probability"]].astype("object")
    properties: list[dict[str, Any]] = []
    for label, record in zip(table.index, cells.where(cells.notna(), None).to_dict("records"), strict=True):
        properties.append({"label-value": int(label), **{str(k): v for k, v in record.items() if v is not None}})
        if "probability" in properties[-1]:
            properties[-1]["probability"] = float(f"{record['probability']:.9g}")
    shown = {item["label-value"]: colors.get(item.get("class", ""), UNKNOWN) for item in properties}
    return _label_attributes(shown, properties)


def _label_attributes(colors: dict[int, Sequence[int]], properties: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "version": VERSION,
        "source": {"image": "../../"},
        "colors": [{"label-value": label, "rgba": list(color)} for label, color in colors.items()],
        "properties": properties,
    }


def _rgba(color: str) -> list[int]:
    return [*bytes.fromhex(color[1:]), 255]
