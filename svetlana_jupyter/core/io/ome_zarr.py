"""Zarr arrays (version 2 and 3) and OME-Zarr images (0.4 and 0.5): resolutions, axes, spacing, channels, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr
from zarr.errors import BaseZarrError

from svetlana_jupyter.core.io.sources import OpenedFile, ReadGuard, to_dask, to_micrometers
from svetlana_jupyter.errors import InputError


def read_zarr(path: Path, labels: bool = False) -> OpenedFile:
    """Describe a Zarr array or an OME-Zarr image.

    Parameters
    ----------
    path : Path
        Folder of an array, an OME-Zarr image, or a group that holds nothing but one array.
    labels : bool
        Whether a mask is wanted: where an image has a ``labels`` group with one label image, that one is taken.
    """
    try:
        node = zarr.open(path, mode="r")
    except (BaseZarrError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} cannot be read as Zarr ({error}). Give the folder of an array or an image."
        ) from error
    if isinstance(node, zarr.Array):
        return _from_array(node, path)
    if labels and isinstance(group := node.get("labels"), zarr.Group):
        node = group[_only_label(group, path)]
        if isinstance(node, zarr.Array):
            return _from_array(node, path)
    return _from_group(node, path)


def _only_label(group: zarr.Group, path: Path) -> str:
    format_list = _ome(group).get("labels") or sorted(group.keys())
    if len(format_list) != 1:
        names = ", ".join(format_list) or "none"
        raise InputError(f"{path} should hold one label image, its labels are: {names}. Name one: '{path}/labels/...'.")
    return str(format_list[0])


def _ome(group: zarr.Group) -> Mapping[str, Any]:
    """OME metadata: under ``ome`` from version 0.5 on, at the top before."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome")
    return ome if isinstance(ome, Mapping) else attributes


def _from_group(group: zarr.Group, path: Path) -> OpenedFile:
    ome = _ome(group)
    if not ome.get("multiscales"):
        names = sorted(name for name, _ in group.arrays())
        if len(names) == 1:
            return _from_array(group[names[0]], path)
        inside = ", ".join(sorted(group.keys())) or "nothing"
        raise InputError(
            f"{path} is a Zarr group but no image; it holds {inside}. Give the path of one array or image."
        )
    image = ome["multiscales"][0]
    level = image["datasets"][0]
    array = group[level["path"]]
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image.get("axes", ())]
    letters = "".join(str(axis["name"]).lower() for axis in axes)
    scale = [1.0] * array.ndim
    for transformations in (level.get("coordinateTransformations", ()), image.get("coordinateTransformations", ())):
        for transformation in transformations:
            if transformation.get("type") == "scale":
                scale = [size * factor for size, factor in zip(scale, transformation["scale"])]
    sizes = {axis["name"].lower(): to_micrometers(size, axis.get("unit")) for axis, size in zip(axes, scale)}
    return OpenedFile(
        to_dask(ReadGuard(array, path), array.chunks),
        letters if set(letters) <= set("tczyx") and len(letters) == array.ndim else None,
        {axis: size for axis, size in sizes.items() if size and axis in "zyx"},
        _channels(ome),
        [
            ReadGuard(level, path)
            for part in image["datasets"]
            if isinstance(level := group.get(part["path"]), zarr.Array)
        ],
    )


def _channels(ome: Mapping[str, Any]) -> Sequence[str]:
    channels = ome.get("omero", {}).get("channels", ())
    names = [str(channel["label"]) for channel in channels if channel.get("label")]
    return names if len(names) == len(channels) else ()


def _from_array(array: zarr.Array, path: Path) -> OpenedFile:
    """A bare array, whose axes are known where Zarr 3 or xarray named its dimensions."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    axes = "".join(str(name).lower() for name in names)
    known = len(axes) == array.ndim == len(names) and set(axes) <= set("tczyxs")
    source = ReadGuard(array, path)
    return OpenedFile(to_dask(source, array.chunks), axes if known else None, levels=[source])
