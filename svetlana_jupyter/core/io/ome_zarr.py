"""Zarr arrays (versions 2 and 3) and OME-Zarr images.

The Pydantic models in this module parse the metadata that this package needs, in versions 0.1 to 0.5. The models of
yaozarrs are not used for reading, because they reject many existing files: images with a channel axis after ``z``, axes
without a type, channels without contrast limits, and all versions before 0.4.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import zarr
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from svetlana_jupyter.core.io.pixel_size import read_spacing
from svetlana_jupyter.core.io.sources import FileSource, OpenedFile, RegularStore, check_codecs, to_dask
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

METADATA_FILES = {".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json"}
AXIS_LETTERS = {"channel": "c", "time": "t"}  # by type of axis
OLD_VERSIONS = ("0.1", "0.2")  # whose axes are always tczyx
LISTED_NAMES = 8
MAX_NAME = 1000  # characters of a path in the metadata


class _Axis(BaseModel):
    name: Annotated[str, BeforeValidator(lambda name: str(name).lower())]
    type: Any = None
    unit: str | None = None

    @property
    def letter(self) -> str:
        """The letter of the axis; more than one letter if it is unknown."""
        return AXIS_LETTERS.get(str(self.type), self.name)


class _Transformation(BaseModel):
    type: str = ""
    scale: list[float] | None = None
    path: str | None = None


class _Dataset(BaseModel):
    path: str
    coordinateTransformations: list[_Transformation] | None = None


class _Multiscale(BaseModel):
    # In version 0.3, an axis is only a name.
    axes: list[Annotated[_Axis, BeforeValidator(lambda axis: {"name": axis} if isinstance(axis, str) else axis)]] = []
    datasets: Annotated[list[_Dataset], Field(min_length=1)]
    coordinateTransformations: list[_Transformation] | None = None
    version: Any = None


class _Omero(BaseModel):
    channels: list[dict[str, Any]] = []


class _Image(BaseModel):
    multiscales: list[_Multiscale] = []
    omero: _Omero | None = None
    labels: list[str] | None = None
    plate: Any = None


def read_zarr(path: Path, labels: bool = False) -> OpenedFile:
    """Open a Zarr array or an OME-Zarr image lazily.

    Parameters
    ----------
    path : Path
        Folder of an array, of an OME-Zarr image, or of a group with a single array or image.
    labels : bool
        Whether to open a mask: the only label image in the ``labels`` group of an image that has such a group.
    """
    try:
        node = zarr.open(RegularStore(path, read_only=True), mode="r")
    except Exception as error:  # each kind of wrong metadata raises its own error
        raise InputError(
            f"{path} cannot be read as Zarr ({_short(error)}). Pass the folder of an array or an image."
        ) from error
    if isinstance(node, zarr.Group):
        node, path = _only_image(node, path)
    if labels and isinstance(node, zarr.Group) and (path / "labels").is_dir():
        group = _member(node, "labels", path)
        if isinstance(group, zarr.Group):
            name = _only_label(group, path / "labels")
            node, path = _member(group, name, path / "labels"), path / "labels" / name
    return _from_array(node, path) if isinstance(node, zarr.Array) else _from_group(node, path)


def _only_image(group: zarr.Group, path: Path) -> tuple[zarr.Group, Path]:
    """Return the only image in a group, or the group itself.

    bioformats2raw writes each image to a group in a root group.
    """
    metadata = _metadata(group, path)
    if metadata.multiscales or metadata.plate or metadata.labels:
        return group, path
    names = sorted(folder.name for folder in path.iterdir() if folder.name.isdigit() and folder.is_dir())
    members = {name: _member(group, name, path) for name in names[: LISTED_NAMES + 1]}
    images = {name: node for name, node in members.items() if isinstance(node, zarr.Group)}
    if len(images) > 1:
        listing = ", ".join(f"'{path / name}'" for name in list(images)[:LISTED_NAMES])
        raise InputError(f"{path} holds several images. Pass the path of one of them: {listing}.")
    return (next(iter(images.values())), path / next(iter(images))) if images else (group, path)


def _only_label(group: zarr.Group, path: Path) -> str:
    names = _metadata(group, path).labels or _child_names(path)
    if len(names) != 1:
        hint = f"Name the one to open: '{path}/{names[0]}'." if names else "Pass the path of the mask."
        raise InputError(f"{path} has {len(names)} label images ({', '.join(names) or 'none'}), expected one. {hint}")
    return names[0]


def _child_names(path: Path) -> list[str]:
    return sorted(child.name for child in path.iterdir() if child.is_dir())


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
    """Return an array or group that the metadata name; it must be inside the group."""
    steps = [step for step in name.split("/") if step not in ("", ".")]
    if ".." in steps or ":" in name or "\\" in name or name.startswith("/") or not steps or len(name) > MAX_NAME:
        raise InputError(
            f"The metadata of {path} refer to {name[:100]!r}, which is not a folder in it. Copy the array into the "
            "image, or pass the path of the array itself."
        )
    name = "/".join(steps)
    try:
        node = group.get(name) if (path / name).is_dir() else None
    except Exception as error:  # each kind of wrong metadata raises its own error
        raise InputError(f"'{name}' in {path} cannot be read ({_short(error)}). Copy the whole image again.") from error
    if node is None:
        raise InputError(f"The metadata of {path} refer to '{name}', which is missing. Copy the whole image again.")
    return node


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _from_group(group: zarr.Group, path: Path) -> OpenedFile:
    metadata = _metadata(group, path)
    if not metadata.multiscales:
        names = _child_names(path)
        if len(names) == 1 and isinstance(array := _member(group, names[0], path), zarr.Array):
            return _from_array(array, path / names[0])
        raise InputError(_describe_group(metadata, path, names))
    image = metadata.multiscales[0]
    if len({other.datasets[0].path for other in metadata.multiscales}) > 1:
        paths = ", ".join(f"'{path / other.datasets[0].path}'" for other in metadata.multiscales)
        raise InputError(
            f"{path} holds {len(metadata.multiscales)} images. Pass the path of the array to use: {paths}."
        )
    array = _level(group, image.datasets[0].path, path)
    axes, notes = _axes(image, array, path)
    spacing, spacing_notes = _spacing(image, group, path)
    channels = metadata.omero.channels if metadata.omero else []
    names = [str(channel["label"]) for channel in channels if channel.get("label")]
    levels = [array, *_lower_levels(group, image, path)]
    return OpenedFile(
        to_dask(_source(array, path / image.datasets[0].path), array.chunks),
        axes,
        spacing,
        names if len(names) == len(channels) else (),
        [_source(level, path / level.path.removeprefix(group.path).strip("/")) for level in levels],
        notes,
        spacing_notes,
    )


def _level(group: zarr.Group, name: str, path: Path) -> zarr.Array:
    array = _member(group, name, path)
    if not isinstance(array, zarr.Array):
        raise InputError(f"'{name}' in {path} is a group, expected the array of the image.")
    if not _has_chunks(array, path / name):
        raise InputError(
            f"The array {path / name} has shape {array.shape}, but none of its chunks exists, so it has no pixels. "
            "Copy the whole image again."
        )
    return array


def _lower_levels(group: zarr.Group, image: _Multiscale, path: Path) -> list[zarr.Array]:
    """Return the arrays of lower resolution that can be read."""
    levels = []
    for dataset in image.datasets[1:]:
        try:
            levels.append(_level(group, dataset.path, path))
        except InputError:
            continue
    return levels


def _has_chunks(array: zarr.Array, path: Path) -> bool:
    """Return whether any chunk of an array exists.

    Zarr reads missing chunks as background.
    """
    with os.scandir(path) as entries:
        return not math.prod(array.shape) or any(entry.name not in METADATA_FILES for entry in entries)


def _describe_group(metadata: _Image, path: Path, names: list[str]) -> str:
    """Return a sentence about a group that is not an image."""
    if isinstance(metadata.plate, Mapping):
        wells = [str(well.get("path")) for well in metadata.plate.get("wells") or () if isinstance(well, Mapping)]
        example = f", for example '{path}/{wells[0]}/0'" if wells else ""
        return f"{path} is a plate of {len(wells)} wells, expected one image. Pass the path of each image{example}."
    if metadata.labels:
        return f"{path} is a group of label images. Pass the path of one of them: '{path}/{metadata.labels[0]}'."
    content = ", ".join(names[:LISTED_NAMES]) or "nothing"
    return f"{path} is a Zarr group but not an image; it holds {content}. Pass the path of an image or array in it."


def _axes(image: _Multiscale, array: zarr.Array, path: Path) -> tuple[str | None, list[str]]:
    """Return the axes, None if they are unknown, and notes."""
    if not image.axes:
        return ("tczyx", []) if str(image.version) in OLD_VERSIONS and array.ndim == 5 else (None, [])
    names = ", ".join(axis.name for axis in image.axes)
    if len(image.axes) != array.ndim:
        raise InputError(
            f"The metadata of {path} name {len(image.axes)} axes ({names}), but the array '{image.datasets[0].path}' "
            f"has {array.ndim} dimensions, {array.shape}. Pass the path of the array, "
            f"'{path / image.datasets[0].path}', with `axes=`."
        )
    letters = [axis.letter for axis in image.axes]
    if set(letters) <= set("tczyx") and len(set(letters)) == len(letters):
        return "".join(letters), []
    return None, [f"The axes {names} are not t, c, z, y and x, so they are inferred from the shape."]


def _spacing(image: _Multiscale, group: zarr.Group, path: Path) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the micrometers per pixel by axis, and sentences on unused sizes."""
    scale, is_stated = [1.0] * len(image.axes), False
    for transformations in (image.datasets[0].coordinateTransformations, image.coordinateTransformations):
        for transformation in transformations or ():
            if transformation.type in ("identity", "translation", ""):
                continue
            if transformation.type != "scale":
                return {}, (
                    f"The {transformation.type!r} of its coordinates is not used. Pass `spacing=` in micrometers.",
                )
            is_stated = True
            factors = transformation.scale
            if factors is None and transformation.path is not None:
                factors = _stored_factors(group, transformation.path, path)
            if factors is None or len(factors) != len(scale):
                found = f"{len(factors)} numbers" if factors is not None else "no numbers"
                note = f"The scale in the metadata has {found} for {len(scale)} axes, so the pixel size is not used."
                return {}, (note,)
            scale = [size * factor for size, factor in zip(scale, factors)]
    if not is_stated:
        return {}, ()
    stated = {axis.letter: (size, axis.unit) for axis, size in zip(image.axes, scale)}
    return read_spacing({axis: size for axis, size in stated.items() if axis in "zyx"})


def _stored_factors(group: zarr.Group, name: str, path: Path) -> list[float] | None:
    """Return the factors of a scale in an array, None if they cannot be read."""
    try:
        array = _member(group, name, path)
        return [float(factor) for factor in np.ravel(array[...])] if isinstance(array, zarr.Array) else None
    except Exception:  # whatever is wrong with it, the pixel size is reported as unknown
        return None


def _from_array(array: zarr.Array, path: Path) -> OpenedFile:
    """Open an array lazily, with axes from the dimension names of Zarr 3 or xarray."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    names = names if isinstance(names, (list, tuple)) else ()
    axes = "".join(str(name).lower() for name in names)
    known = len(axes) == array.ndim == len(names) and set(axes) <= set("tczyxs")
    source = _source(array, path)
    notes = [] if _has_chunks(array, path) else ["None of its chunks exists, so all pixels have the same value."]
    return OpenedFile(to_dask(source, array.chunks), axes if known else None, levels=[source], notes=notes)


def _source(array: zarr.Array, path: Path) -> FileSource:
    check_codecs(array, path)
    return FileSource(path, "", array.shape, array.dtype, array.__getitem__)
