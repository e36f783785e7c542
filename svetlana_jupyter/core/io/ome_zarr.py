"""Zarr arrays (versions 2 and 3) and OME-Zarr images.

The Pydantic models in this module parse the metadata that this package needs, in versions 0.1 to 0.5. The models of
yaozarrs are not used for reading, because they reject many existing files: images with a channel axis after ``z``, axes
without a type, channels without contrast limits, and all versions before 0.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import zarr
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from zarr.errors import BaseZarrError

from svetlana_jupyter.core.io.sources import FileSource, OpenedFile, check_codecs, to_dask, to_micrometers
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


class _Axis(BaseModel):
    name: Annotated[str, BeforeValidator(lambda name: str(name).lower())]
    unit: str | None = None


class _Transformation(BaseModel):
    type: str = ""
    scale: list[float] | None = None


class _Dataset(BaseModel):
    path: str
    coordinateTransformations: list[_Transformation] | None = None


class _Multiscale(BaseModel):
    # In version 0.3, an axis is only a name.
    axes: list[Annotated[_Axis, BeforeValidator(lambda axis: {"name": axis} if isinstance(axis, str) else axis)]] = []
    datasets: Annotated[list[_Dataset], Field(min_length=1)]
    coordinateTransformations: list[_Transformation] | None = None


class _Omero(BaseModel):
    channels: list[dict[str, Any]] = []


class _Image(BaseModel):
    multiscales: list[_Multiscale] = []
    omero: _Omero | None = None
    labels: list[str] | None = None


def read_zarr(path: Path, labels: bool = False) -> OpenedFile:
    """Open a Zarr array or an OME-Zarr image lazily.

    Parameters
    ----------
    path : Path
        Folder of an array, of an OME-Zarr image, or of a group with a single array.
    labels : bool
        Whether to open a mask: the only label image in the ``labels`` group of an image that has such a group.
    """
    try:
        node = zarr.open(path, mode="r")
    except (BaseZarrError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} cannot be read as Zarr ({error}). Pass the folder of an array or an image."
        ) from error
    if labels and isinstance(node, zarr.Group) and isinstance(group := node.get("labels"), zarr.Group):
        name = _only_label(group, path)
        node, path = _member(group, name, path / "labels"), path / "labels" / name
    return _from_array(node, path) if isinstance(node, zarr.Array) else _from_group(node, path)


def _only_label(group: zarr.Group, path: Path) -> str:
    names = _metadata(group, path / "labels").labels or sorted(group.keys())
    if len(names) != 1:
        raise InputError(
            f"{path} has {len(names)} label images ({', '.join(names) or 'none'}), expected one. "
            f"Name the one to open: '{path}/labels/...'."
        )
    return names[0]


def _metadata(group: zarr.Group, path: Path) -> _Image:
    """Return the OME metadata of a group, which are under ``ome`` since version 0.5."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome")
    try:
        return _Image.model_validate(ome if isinstance(ome, Mapping) else attributes)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(
            f"The OME-Zarr metadata of {path} are invalid at {place}: {first['msg']}. "
            "Write the image again, or pass the path of one of its arrays."
        ) from error


def _member(group: zarr.Group, name: str, path: Path) -> zarr.Array | zarr.Group:
    node = group.get(name)
    if node is None:
        raise InputError(f"The metadata of {path} refer to '{name}', which is missing. Copy the whole image again.")
    return node


def _from_group(group: zarr.Group, path: Path) -> OpenedFile:
    metadata = _metadata(group, path)
    if not metadata.multiscales:
        names = sorted(name for name, _ in group.arrays())
        if len(names) == 1:
            return _from_array(group[names[0]], path)
        content = ", ".join(sorted(group.keys())) or "nothing"
        raise InputError(
            f"{path} is a Zarr group but not an image; it holds {content}. Pass the path of an image or array in it."
        )
    image = metadata.multiscales[0]
    array = _member(group, image.datasets[0].path, path)
    if not isinstance(array, zarr.Array):
        raise InputError(f"'{image.datasets[0].path}' in {path} is a group, expected the array of the image.")
    axes = "".join(axis.name for axis in image.axes)
    channels = metadata.omero.channels if metadata.omero else []
    names = [str(channel["label"]) for channel in channels if channel.get("label")]
    stored = [group.get(dataset.path) for dataset in image.datasets]
    return OpenedFile(
        to_dask(_source(array, path), array.chunks),
        axes if set(axes) <= set("tczyx") and len(axes) == array.ndim else None,
        _spacing(image),
        names if len(names) == len(channels) else (),
        [_source(level, path) for level in stored if isinstance(level, zarr.Array)],
    )


def _spacing(image: _Multiscale) -> Mapping[str, float]:
    """Return the micrometers per pixel of the axes whose unit is stated."""
    scale = [1.0] * len(image.axes)
    for transformations in (image.datasets[0].coordinateTransformations, image.coordinateTransformations):
        for transformation in transformations or ():
            if transformation.type == "scale" and transformation.scale:
                if len(transformation.scale) != len(scale):
                    return {}  # it is unclear which axes the factors belong to
                scale = [size * factor for size, factor in zip(scale, transformation.scale)]
    sizes = {axis.name: to_micrometers(size, axis.unit) for axis, size in zip(image.axes, scale)}
    return {axis: size for axis, size in sizes.items() if size and axis in "zyx"}


def _from_array(array: zarr.Array, path: Path) -> OpenedFile:
    """Open an array lazily, with axes from the dimension names of Zarr 3 or xarray."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    axes = "".join(str(name).lower() for name in names)
    known = len(axes) == array.ndim == len(names) and set(axes) <= set("tczyxs")
    source = _source(array, path)
    return OpenedFile(to_dask(source, array.chunks), axes if known else None, levels=[source])


def _source(array: zarr.Array, path: Path) -> FileSource:
    check_codecs(array, path)
    return FileSource(path, "", array.shape, array.dtype, array.__getitem__)
