"""The images of a project: where they lie, opened lazily, with an index of their objects.

Outlines that become the mask of an image, kept in the project.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
import zarr
from xarray import DataArray

from svetlana_jupyter.core.io.geojson import is_geojson, read_geojson
from svetlana_jupyter.core.io.image_pair import ImagePair, open_checked_pair, open_pair
from svetlana_jupyter.core.io.images import fingerprint, open_image, open_mask
from svetlana_jupyter.core.io.readers import hdf5_file
from svetlana_jupyter.core.io.sources import to_dask
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.polygons import Drawn, LazyPolygonMask, draw, fitting
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.features import with_feature_cache
from svetlana_jupyter.project.storage import ProjectFolder, atomic_write, draft_path

CHUNK = 512  # of which the tiles that are drawn are whole multiples


def write_outline_mask(folder: Path, file: Path, image: DataArray) -> tuple[Path, str]:
    """Draw the outlines of a file as a Zarr in a folder, whole or not at all.

    Parameters
    ----------
    folder : Path
        Replaced where it is there already.
    file : Path
        GeoJSON (`core.io.geojson.read_geojson`).
    image : DataArray
        The image that they are of.

    Returns
    -------
    mask : Path
    said : str
        How many there are, which overlap, and which are not to be seen.
    """
    found = read_geojson(file.expanduser())
    shape = tuple(image.sizes[dim] for dim in image.dims if dim != "c")
    dtype = fitting(found.shapes)
    drawn, draft = Drawn(), draft_path(folder)
    draft.mkdir(parents=True)
    try:
        chunks = tuple(min(CHUNK, side) for side in shape[-2:])
        chunks = (1, *chunks) if len(shape) == 3 else chunks
        mask = zarr.create_array(draft / "mask.zarr", shape=shape, dtype=dtype, chunks=chunks, zarr_format=3)
        for part, pixels in draw(found.shapes, shape, dtype, drawn):
            mask[part] = pixels
        if not drawn.seen:
            raise InputError(
                f"none of {len(found.shapes)} outlines in {file} covers a pixel of the image, which is "
                f"{' × '.join(map(str, shape))}. Check that they belong together and are in pixels."
            )
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    count = len({one.label for one in found.shapes})
    return folder / "mask.zarr", _said(count, drawn, found.note, drawn.missing(found.shapes))


def lazy_outline_mask(file: Path, shape: tuple[int, ...]) -> DataArray:
    """Return the outlines of a file as a mask of shape ``([z,] y, x)`` that is drawn when it is read."""
    pixels = to_dask(LazyPolygonMask(read_geojson(file.expanduser()).shapes, shape))
    return DataArray(pixels, dims=tuple("zyx"[-len(shape) :]))


def _said(count: int, drawn: Drawn, note: str, missing: list[int]) -> str:
    parts = [f"{len(drawn.seen):,} of {count:,} outlines are objects"]
    if drawn.overlapping_labels:
        parts.append(
            f"{len(drawn.overlapping_labels):,} of them overlap, in {drawn.overlap:,} pixels, where "
            f"the smaller one lies above"
        )
    if missing:
        parts.append(f"beyond the image, covered or smaller than a pixel: {format_list(missing)}")
    return "; ".join(parts) + "." + (f" {note}" if note else "")


PATIENCE = 5.0  # seconds to wait for objects that another thread is finding

Progress = Callable[[int, int], None]
Source = Any  # a path, several paths (one a channel), or an array


@dataclass(frozen=True)
class FormerMask:
    """A mask that was replaced: where it lay, and the fingerprint of the image with it."""

    mask: str
    fingerprint: str


@dataclass(frozen=True)
class ImageEntry:
    """One image and its mask, as ``project.json`` keeps them.

    Attributes
    ----------
    name : str
    image : str or tuple of str
        Path, relative to the project where it can be; several where each channel has its own file.
    mask : str
    axes : str or None
        The axes that were given because the file does not say.
    spacing : tuple of float or None
        Micrometres a pixel, ``([z,] y, x)``.
    channels : tuple of str
    groups : dict of str to str
        What the placeholders stood for: plate, well, ...
    shape : tuple of int
        Of the mask, ``([z,] y, x)``.
    dtype : str
    fingerprint : str
        Of image and mask; a mask that changed is indexed again.
    replaced : tuple of FormerMask
        The masks that it had before, the first one first. How their objects became those of the next mask stands in
        ``masks/<image>.<n>.csv``: pairs of old and new object with the pixels they share.
    """

    name: str
    image: str | tuple[str, ...]
    mask: str
    axes: str | None
    spacing: tuple[float, ...] | None
    channels: tuple[str, ...]
    groups: Mapping[str, str]
    shape: tuple[int, ...]
    dtype: str
    fingerprint: str
    replaced: tuple[FormerMask, ...] = ()

    @property
    def mask_number(self) -> int:
        """Which of its masks the image has now: 0 is the first."""
        return len(self.replaced)


class ImageCollection:
    """Adds, opens and indexes the images of the project in ``store``.

    Attributes
    ----------
    overwritten : set of str
        Images whose mask was found to hold other objects than when it was indexed first.
    notes : dict of str to str
        What is to be said of images whose mask was drawn from outlines.
    """

    def __init__(self, store: ProjectFolder) -> None:
        self._store = store
        self.entries: dict[str, ImageEntry] = {}
        self._pairs: dict[str, ImagePair] = {}
        self._tables: dict[str, pd.DataFrame] = {}
        self._finding: dict[str, threading.Lock] = {}
        self.overwritten: set[str] = set()
        self.notes: dict[str, str] = {}
        self.reload()

    def reload(self) -> None:
        """Read the entries again from ``project.json``."""
        images = self._store.read_document()["images"]
        before, self.entries = self.entries, {name: _from_json(name, entry) for name, entry in images.items()}
        for name, entry in before.items():
            if self.entries.get(name) != entry:
                self._pairs.pop(name, None)
                self._tables.pop(name, None)
                self.overwritten.discard(name)

    def prepare(
        self,
        name: str,
        image: Source,
        mask: Source,
        axes: str | None = None,
        spacing: tuple[float, ...] | None = None,
        channels: Sequence[str] | None = None,
        groups: Mapping[str, str] | None = None,
    ) -> ImageEntry:
        """Check one pair and return its entry; arrays are copied into the project, files only looked at.

        Raises
        ------
        InputError
            If image and mask cannot be read or do not fit each other.
        ProjectError
            If the name stands for another image already.
        """
        if not name or not name.isprintable():
            raise InputError(f"an image's name must be printable text, got {name!r}; give it another name.")
        self._store.check_writable()
        given = f"{fingerprint(image)} {fingerprint(mask)}"
        known = self.entries.get(name)
        if known is not None:
            if given in (known.fingerprint, *(former.fingerprint for former in known.replaced)):
                return known
            raise ProjectError(
                f"the project has another image named {name!r} already (or its file has changed since); "
                "add this one under another name."
            )
        outlines = mask if is_geojson(mask) else None
        if outlines is not None:
            opened_image = open_image(image, axes, spacing, channels, self._store.cache_folder)
            mask, said = write_outline_mask(self._store.arrays_folder(name), Path(outlines), opened_image)
            self.notes[name] = f"{name}: {said}"
        try:
            opened = open_checked_pair(
                name, image, mask, axes, spacing, channels, groups, cache=self._store.cache_folder
            )
        except InputError:
            if outlines is not None:
                shutil.rmtree(self._store.arrays_folder(name), ignore_errors=True)
            raise
        if not (_is_file(image) and _is_file(mask)):
            image, mask = self._keep_arrays(opened)
            axes = "".join(map(str, opened.image.dims))
        return ImageEntry(
            name=name,
            image=self._written(image),
            mask=self._store.relative(Path(mask)),
            axes=axes,
            spacing=opened.spacing,
            channels=tuple(opened.channels),
            groups=dict(opened.groups),
            shape=tuple(opened.mask.shape),
            dtype=str(opened.image.dtype),
            fingerprint=given,
        )

    def keep(self, entries: list[ImageEntry]) -> bool:
        """Write entries to ``project.json``; False if all of them stood there already."""
        new = [entry for entry in entries if entry.name not in self.entries]
        if new:
            with self._store.edit_document() as document:
                document["images"].update({entry.name: _to_json(entry) for entry in new})
            self.reload()
        return bool(new)

    def change(self, entry: ImageEntry, objects: pd.DataFrame) -> None:
        """Write another mask of an image to ``project.json``, with the index of its objects."""
        self._keep_index(entry.name, objects, fingerprint(self._store.absolute(entry.mask)))
        with self._store.edit_document(needs=2) as document:
            document["images"][entry.name] = _to_json(entry)
        self.reload()

    def leave_out(self, names: Collection[str]) -> None:
        """Know nothing of some images, in this process alone and until the entries are read again."""
        self.entries = {name: entry for name, entry in self.entries.items() if name not in names}

    def entry(self, name: str) -> ImageEntry:
        if name not in self.entries:
            names = ", ".join(map(repr, list(self.entries)[:8])) or "none yet"
            raise InputError(f"the project has no image {name!r}; its images are {names}.")
        return self.entries[name]

    def pair(self, name: str) -> ImagePair:
        """Open an image with its mask, lazily; what is measured of its objects is kept in the project."""
        entry = self.entry(name)
        if name not in self._pairs:
            mask = self._store.absolute(entry.mask)
            folder, files = self._store.measurements_folder(name), (self._paths(entry.image), mask)
            self._pairs[name] = with_feature_cache(
                self.open(entry, mask, known=True), folder, self._store.writable, files
            )
        return self._pairs[name]

    def image_fingerprint(self, name: str) -> str:
        """Return what changes when the pixels of an image do; an `InputError` where its file is gone."""
        paths = [self._store.absolute(path) for path in _as_tuple(self.entry(name).image)]
        if gone := [path for path in paths if not (hdf5_file(path) or path).exists()]:
            raise InputError(f"{gone[0]} is gone. Bring it back, and go on where you were.")
        return fingerprint(self._paths(self.entry(name).image))

    def objects(self, name: str, progress: Progress | None = None, wait: bool = False) -> pd.DataFrame:
        """Return the object index of an image: kept in the project, built again if the mask is another next time.

        Any thread may ask; of two that ask for the same image one finds the objects, and the other waits: for a while,
        or with ``wait`` however long it takes.
        """
        entry = self.entry(name)
        if name not in self._tables:
            finding = self._finding.setdefault(name, threading.Lock())
            if not finding.acquire(timeout=-1 if wait else PATIENCE):
                raise ProjectError(f"the objects of {name!r} are still being found; try again when that is done.")
            try:
                if name not in self._tables:
                    mask = fingerprint(self._store.absolute(entry.mask))
                    self._tables[name] = self._read_index(name, mask, progress)
            finally:
                finding.release()
        return self._tables[name]

    def files(self) -> list[Path]:
        """Return the files, or folders of Zarr, that images and masks are read from."""
        paths = [path for entry in self.entries.values() for path in (*_as_tuple(entry.image), entry.mask)]
        return [hdf5_file(path) or path for path in map(self._store.absolute, paths)]

    def missing(self) -> list[Path]:
        """Return the files of images and masks that are not where the project says."""
        return [path for path in self.files() if not path.exists()]

    def has_index(self, name: str) -> bool:
        """Whether `objects` would return at once."""
        return name in self._tables or self._store.objects_file(name).exists()

    def open(self, entry: ImageEntry, mask: Source, known: bool = False) -> ImagePair:
        """Open an image with a mask, which may be another than its own; one that is known is not looked at again."""
        return (open_pair if known else open_checked_pair)(
            entry.name,
            self._paths(entry.image),
            mask,
            entry.axes,
            entry.spacing,
            entry.channels or None,
            entry.groups,
            cache=self._store.cache_folder,
        )

    def _read_index(self, name: str, mask: str, progress: Progress | None) -> pd.DataFrame:
        file = self._store.objects_file(name)
        known = pd.read_parquet(file) if file.exists() else None
        if known is not None and known.attrs.get("mask") == mask:
            return known
        entry = self.entry(name)  # the mask alone: its image may be gone
        opened = open_mask(self._store.absolute(entry.mask), spacing=entry.spacing, cache=self._store.cache_folder)
        table = index_objects(opened, progress)
        if known is None or known.equals(table):
            self._keep_index(name, table, mask)
        else:  # the index of the mask that was annotated stays, as the witness that this is another one
            self.overwritten.add(name)
        return table

    def _keep_index(self, name: str, table: pd.DataFrame, mask: str) -> None:
        table.attrs["mask"] = mask
        if self._store.writable:
            file = self._store.objects_file(name)
            with suppress(OSError):  # it is a cache: a full disk does not keep anybody from looking
                file.parent.mkdir(exist_ok=True)
                with atomic_write(file) as beside:
                    table.to_parquet(beside)

    def _keep_arrays(self, opened: ImagePair) -> tuple[Path, Path]:
        """Copy image and mask block by block into the project, whole or not at all."""
        folder = self._store.arrays_folder(opened.name)
        draft = draft_path(folder)
        draft.mkdir(parents=True)
        try:
            for name, array in (("image.zarr", opened.image), ("mask.zarr", opened.mask)):
                to_zarr(array, draft / name)
            shutil.rmtree(folder, ignore_errors=True)  # left by a kill before project.json knew of it
            draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder / "image.zarr", folder / "mask.zarr"

    def _written(self, image: Source) -> str | tuple[str, ...]:
        if isinstance(image, tuple | list):
            return tuple(self._store.relative(Path(path)) for path in image)
        return self._store.relative(Path(image))

    def _paths(self, image: str | tuple[str, ...]) -> Path | tuple[Path, ...]:
        if isinstance(image, tuple):
            return tuple(self._store.absolute(path) for path in image)
        return self._store.absolute(image)


def _as_tuple(image: str | tuple[str, ...]) -> tuple[str, ...]:
    return image if isinstance(image, tuple) else (image,)


def _is_file(source: Source) -> bool:
    if isinstance(source, tuple | list):
        return all(isinstance(path, str | Path) for path in source)
    return isinstance(source, str | Path)


def to_zarr(array: xr.DataArray, path: Path) -> None:
    regular = array.data.rechunk(tuple(max(sizes) for sizes in array.data.chunks))
    regular.to_zarr(str(path))


def _to_json(entry: ImageEntry) -> dict[str, Any]:
    document = dict(vars(entry))
    del document["name"], document["replaced"]
    if entry.replaced:
        document["replaced"] = [vars(former) for former in entry.replaced]
    return document


def _from_json(name: str, document: dict[str, Any]) -> ImageEntry:
    entry = ImageEntry(name=name, **document)
    return replace(
        entry,
        image=tuple(entry.image) if isinstance(entry.image, list) else entry.image,
        spacing=tuple(entry.spacing) if entry.spacing else None,
        channels=tuple(entry.channels),
        shape=tuple(entry.shape),
        replaced=tuple(FormerMask(**former) for former in document.get("replaced", ())),
    )
