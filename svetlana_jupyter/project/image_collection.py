"""Images of a project, each with a mask and a table of its objects."""

from __future__ import annotations

import shutil
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import numpy as np
import xarray as xr
import zarr
from xarray import DataArray

from svetlana_jupyter.core.io.file_pairs import PAIR_COLUMNS, find_pairs
from svetlana_jupyter.core.io.geojson import is_geojson, read_geojson
from svetlana_jupyter.core.io.image_pair import ImagePair, open_pair
from svetlana_jupyter.core.io.images import OpenOptions, fingerprint, open_image_levels, open_mask_levels
from svetlana_jupyter.core.io.readers import hdf5_file
from svetlana_jupyter.core.io.sources import to_dask
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.objects import bbox_columns, centroid_columns, index_objects
from svetlana_jupyter.core.polygons import PolygonMask
from svetlana_jupyter.errors import InputError, ProjectError, SvetlanaError
from svetlana_jupyter.project.features import with_feature_cache
from svetlana_jupyter.project.file_access import is_present, read_parquet
from svetlana_jupyter.project.image_warnings import ImageWarnings
from svetlana_jupyter.project.storage import Notify, ProjectFolder, atomic_folder, write_parquet

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.core.io.pixel_size import Spacing

CHUNK = 512  # pixels per side; a multiple of the side of the tiles in which outlines are rasterized
LOCK_WAIT_SECONDS = 5.0  # to wait for an object table that another thread is computing

Item = TypeVar("Item")
Progress = Callable[[int, int], None]
Source = Any  # a path, several paths (one per channel), or an array


class ImageOptions(TypedDict, total=False):
    """Optional arguments of `Project.add`."""

    axes: str | None
    spacing: Spacing | None
    channels: Sequence[str] | None
    groups: Mapping[str, str] | None


@dataclass(frozen=True)
class ImageEntry:
    """One image and its mask, as written to ``project.json``.

    Attributes
    ----------
    name : str
    image : str or tuple of str
        Path, relative to the project if possible; several if each channel has its own file.
    mask : str
    axes : str or None
        Axes passed by the user because the file does not define them.
    spacing : tuple of float or None
        Micrometers per pixel, ``([z,] y, x)``.
    channels : tuple of str
    groups : dict of str to str
        Values of the grouping columns: plate, well, ...
    shape : tuple of int
        Shape of the mask, ``([z,] y, x)``.
    dtype : str
    fingerprint : str
        Hash that identifies the files or arrays of image and mask.
    replaced : tuple of dict
        Earlier masks, oldest first: path ("mask") and fingerprint of image and mask ("fingerprint"). The links between
        the objects of two successive masks are stored in ``masks/<image>.<n>.csv``: pairs of old and new object with
        the number of shared pixels.
    accepted : str
        Fingerprint of the mask whose warning the user has accepted.
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
    replaced: tuple[Mapping[str, str], ...] = ()
    accepted: str = ""

    @property
    def mask_number(self) -> int:
        """The number of the current mask; the first mask has the number 0."""
        return len(self.replaced)


# An entry, a note if its mask was rasterized from outlines, and what was converted or not used of the files.
Prepared = tuple[ImageEntry, str, tuple[str, ...]]


class ImageCollection(Mapping[str, ImageEntry]):
    """Images of a project by name, with their masks and object tables.

    Images keep the order in which they were added. Every change replaces the dict of entries instead of modifying it,
    so a running iteration is not affected by changes. Code on another thread, and code that needs the same images for
    several calls, should use a `snapshot`.

    Attributes
    ----------
    overwritten : set of str
        Images whose mask file was overwritten with different objects after it was first indexed.
    warnings : ImageWarnings
        Warnings about images whose results may be wrong.
    """

    def __init__(self, folder: ProjectFolder, notify: Notify) -> None:
        self._folder, self._notify = folder, notify
        self._entries: dict[str, ImageEntry] = {}
        self._pairs: dict[str, ImagePair] = {}
        self._tables: dict[str, pd.DataFrame] = {}
        self._indexing: dict[str, threading.Lock] = {}
        self.overwritten: set[str] = set()
        self.warnings = ImageWarnings(self._mask_warning)
        self._owner = threading.get_ident()
        self._announced: set[str] = set()  # indexed images whose warnings the panels have been told about
        self.reload()

    def __getitem__(self, name: str) -> ImageEntry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def snapshot(self) -> dict[str, ImageEntry]:
        """Return a copy of the current entries, by image name."""
        return dict(self._entries)

    def entry(self, name: str) -> ImageEntry:
        """Return the entry of an image.

        If there is no image of that name, raise an `InputError` that lists the images.
        """
        if name not in self._entries:
            names = ", ".join(map(repr, list(self._entries)[:8])) or "none yet"
            raise InputError(f"The project has no image {name!r}. Choose one of its images: {names}.")
        return self._entries[name]

    def chosen(self, images: Iterable[str] | str | None) -> list[str]:
        """Return the names of the given images as a list, by default all names.

        An unknown name raises an `InputError`.
        """
        if images is None:
            return list(self._entries)
        names = [images] if isinstance(images, str) else list(images)
        return [self.entry(name).name for name in names]

    def groups(self) -> dict[str, Mapping[str, str]]:
        """Return the values of the grouping columns of each image."""
        return {name: entry.groups for name, entry in self._entries.items()}

    def mask_numbers(self) -> dict[str, int]:
        """Return the number of the current mask of each image."""
        return {name: entry.mask_number for name, entry in self._entries.items()}

    def add(self, name: str, image: Source, mask: Source, **options: Unpack[ImageOptions]) -> None:
        """Add an image with its mask, as `Project.add` describes."""
        prepared = self._prepare(name, image, mask, **options)
        self._save([prepared])
        for note in prepared[2]:
            warnings.warn(note, stacklevel=3)  # the caller of `Project.add`

    def add_all(self, pairs: Mapping[str, tuple[Source, Source]]) -> None:
        """Add images with their masks, by name; if one of them is invalid, add none."""
        self._save([self._prepare(name, image, mask) for name, (image, mask) in pairs.items()])

    def add_matching(
        self, images: str | Path, masks: str | Path, axes: str | None = None, spacing: Spacing | None = None
    ) -> pd.DataFrame:
        """Add all images that match a pattern, as `Project.add_images` describes."""
        table = find_pairs(images, masks)
        columns = [str(column) for column in table if column not in PAIR_COLUMNS]
        entries = []
        table["note"] = ""
        for row in table.index[table["problem"] == ""]:
            name, image, mask, channels = table.loc[row, ["name", "image", "mask", "channels"]]
            groups = {column: str(table.at[row, column]) for column in columns}
            options = ImageOptions(axes=axes, spacing=spacing, channels=channels, groups=groups)
            try:
                entries.append(self._prepare(name, image, mask, **options))
                table.loc[row, "note"] = " ".join(entries[-1][2])
            except SvetlanaError as error:
                table.loc[row, "problem"] = str(error)
        if not entries:
            problem = next(iter(table["problem"]), f"no file matches {images}")
            raise InputError(f"None of {len(table)} images could be added: {problem}")
        self._save(entries)
        return table

    def leave_out(self, names: Collection[str]) -> None:
        """Ignore the given images until the project is opened again.

        The files of the project stay unchanged.
        """
        with self._folder.lock:
            self._entries = {name: entry for name, entry in self._entries.items() if name not in names}
            self._notify.changed("images")

    def reload(self) -> None:
        """Read the entries again from ``project.json``."""
        images = self._folder.read_document()["images"]
        before, self._entries = self._entries, {name: _from_json(name, entry) for name, entry in images.items()}
        for name, entry in before.items():
            if self._entries.get(name) != entry:
                self._pairs.pop(name, None)
                self._tables.pop(name, None)
                self.overwritten.discard(name)
                self._announced.discard(name)

    def replace_entry(self, entry: ImageEntry, objects: pd.DataFrame) -> None:
        """Save the entry of an image with a new mask, and the object table of that mask."""
        self._write_table(entry.name, objects, fingerprint(self._folder.absolute(entry.mask)))
        with self._folder.edit_document() as document:
            document["images"][entry.name] = _to_json(entry)
        self.reload()

    def pair(self, name: str) -> ImagePair:
        """Open an image with its mask, lazily.

        Measurements of its objects are cached in the project.
        """
        entry = self.entry(name)
        if name not in self._pairs:
            mask = self._path(entry.mask)
            folder, files = self._folder.measurements_folder(name), (self._paths(entry.image), mask)
            opened = self.open(entry, mask, check_mask=False)
            self._pairs[name] = with_feature_cache(opened, folder, self._folder.writable, files)
        return self._pairs[name]

    def open(self, entry: ImageEntry, mask: Source, check_mask: bool = True) -> ImagePair:
        """Open an image with the given mask (`core.io.image_pair.open_pair`)."""
        image, channels, cache = self._paths(entry.image), entry.channels or None, self._folder.cache_folder
        options = ImageOptions(axes=entry.axes, spacing=entry.spacing, channels=channels, groups=entry.groups)
        return open_pair(entry.name, image, mask, **options, cache=cache, check_mask=check_mask)

    def objects(self, name: str, progress: Progress | None = None, wait: bool = False) -> pd.DataFrame:
        """Return a table of the objects in the mask of an image.

        The table (`core.objects.index_objects`) is stored in the project. It is computed again if the mask file has
        changed when the project is next opened. This method may be called from any thread. If another thread is
        computing the same table, this thread waits for it: a few seconds, or without a limit if ``wait`` is True.
        """
        entry = self.entry(name)
        if name not in self._tables:
            indexing = self._indexing.setdefault(name, threading.Lock())
            if not indexing.acquire(timeout=-1 if wait else LOCK_WAIT_SECONDS):
                raise ProjectError(f"The objects of {name!r} are still being indexed. Try again when this is done.")
            try:
                if name not in self._tables:
                    mask = fingerprint(self._path(entry.mask))
                    self._tables[name] = self._read_table(name, mask, progress)
            finally:
                indexing.release()
        if name not in self._announced and threading.get_ident() == self._owner:
            self._announced.add(name)
            if self.warnings.of_image(name):
                self._notify.changed("images")  # panels show the warning
        return self._tables[name]

    def warning(self, name: str) -> str:
        """Return the warnings about an image; "" if there are none.

        Warnings about a mask are known once its objects have been indexed.
        """
        if self.is_indexed(self.entry(name).name):
            self.objects(name)
        return self.warnings.of_image(name)

    def accept_warning(self, *names: str) -> None:
        """Accept the masks of images as they are, so that their warnings disappear.

        Without names, the masks of all images are accepted. A mask that replaces an accepted mask is checked again.
        """
        accepted = {name: self.mask_fingerprint(name) for name in names or self._entries}
        with self._folder.lock:
            with self._folder.edit_document() as document:
                for name, mask in accepted.items():
                    document["images"][name]["accepted"] = mask
            self.reload()
            self._notify.changed("images")

    def mask_fingerprint(self, name: str) -> str:
        """Return a fingerprint of the content of the mask of an image."""
        return fingerprint(self.mask_file(name))

    def is_indexed(self, name: str) -> bool:
        """Return whether the object table of an image has been computed already."""
        return name in self._tables or is_present(self._folder.objects_file(name))

    def image_fingerprint(self, name: str) -> str:
        """Return a fingerprint of the pixels of an image.

        If a file of the image is missing, raise an `InputError`.
        """
        if gone := [path for path in self.image_files(name) if not (hdf5_file(path) or path).exists()]:
            raise InputError(f"{gone[0]} is missing. Restore the file and try again; finished work is kept.")
        return fingerprint(self._paths(self.entry(name).image))

    def files(self) -> list[Path]:
        """Return the files, or Zarr folders, of all images and masks."""
        paths = [path for entry in self._entries.values() for path in (*_as_tuple(entry.image), entry.mask)]
        return [hdf5_file(path) or path for path in map(self._folder.absolute, paths)]

    def missing(self) -> list[Path]:
        """Return the files of images and masks that do not exist."""
        return [path for path in self.files() if not path.exists() or self._folder.own_link(path) is not None]

    def mask_file(self, name: str) -> Path:
        """Return the path of the mask of an image."""
        return self._folder.absolute(self.entry(name).mask)

    def image_files(self, name: str) -> list[Path]:
        """Return the paths of an image: a single path, or one path per channel."""
        return [self._folder.absolute(path) for path in _as_tuple(self.entry(name).image)]

    def _prepare(self, name: str, image: Source, mask: Source, **options: Unpack[ImageOptions]) -> Prepared:
        """Check an image and its mask, and return their entry and notes.

        Arrays are copied into the project.

        Raises
        ------
        InputError
            If image and mask cannot be read or do not fit each other.
        ProjectError
            If another image has that name.
        """
        if not name or not name.isprintable():
            raise InputError(f"Image name {name!r} is empty or not printable. Choose another name.")
        self._folder.check_writable()
        new_fingerprint = f"{fingerprint(image)} {fingerprint(mask)}"
        if (known := self._entries.get(name)) is not None:
            if new_fingerprint in (known.fingerprint, *(former["fingerprint"] for former in known.replaced)):
                return known, "", ()
            raise ProjectError(
                f"The project has another image named {name!r}, or the file of that image has changed. "
                "Add the new file under another name."
            )
        cache, folder, has_outlines = self._folder.cache_folder, self._folder.arrays_folder(name), is_geojson(mask)
        axes, note = options.get("axes"), ""
        if has_outlines:
            choice = OpenOptions(axes, options.get("spacing"), options.get("channels"), cache)
            opened_image, _ = open_image_levels(image, choice)
            mask, summary = write_outline_mask(folder, Path(mask), opened_image)
            note = f"{name}: {summary}"
        try:
            opened = open_pair(name, image, mask, **options, cache=cache)
        except InputError:
            if has_outlines:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        if not (_is_file(image) and _is_file(mask)):
            with atomic_folder(folder) as draft:
                to_zarr(opened.image, draft / "image.zarr")
                to_zarr(opened.mask, draft / "mask.zarr")
            image, mask = folder / "image.zarr", folder / "mask.zarr"
            axes = "".join(map(str, opened.image.dims))
        entry = ImageEntry(
            name=name,
            image=_for_each(self._folder.relative, image),
            mask=self._folder.relative(mask),
            axes=axes,
            spacing=opened.spacing,
            channels=tuple(opened.channels),
            groups=dict(opened.groups),
            shape=tuple(opened.mask.shape),
            dtype=str(opened.image.dtype),
            fingerprint=new_fingerprint,
        )
        return entry, note, opened.notes

    def _save(self, prepared: list[Prepared]) -> None:
        """Write new entries to ``project.json``."""
        with self._folder.lock:
            new = {entry.name: _to_json(entry) for entry, *_ in prepared if entry.name not in self._entries}
            if new:
                with self._folder.edit_document() as document:
                    document["images"].update(new)
                self.reload()
                self._notify.changed("images")
            if notes := [note for _, outlines, others in prepared for note in (outlines, *others) if note]:
                self._notify.status(" ".join(notes))

    def _read_table(self, name: str, mask: str, progress: Progress | None) -> pd.DataFrame:
        file = self._folder.objects_file(name)
        known = _read_objects(file, self.entry(name).shape)
        if known is not None and known.attrs.get("mask") == mask:
            return known
        entry = self.entry(name)  # the mask alone, since the image file may be missing
        mask_file, cache = self._path(entry.mask), self._folder.cache_folder
        opened, _ = open_mask_levels(mask_file, spacing=entry.spacing, cache=cache)
        table = index_objects(opened, progress)
        if known is None or known.equals(table):
            self._write_table(name, table, mask)
        else:  # the stored table of the annotated mask is kept, to detect the overwritten file again
            self.overwritten.add(name)
        return table

    def _write_table(self, name: str, table: pd.DataFrame, mask: str) -> None:
        table.attrs["mask"] = mask
        if self._folder.writable:
            with suppress(OSError, ProjectError):  # only a cache: viewing must work on a full disk, or with a link
                write_parquet(self._folder.objects_file(name), table)

    def _mask_warning(self, name: str) -> str:
        """Return a warning if numbers in the mask do not name objects, else ""."""
        table = self._tables.get(name)
        if table is None or self._entries[name].accepted == table.attrs.get("mask"):
            return ""
        return ""

    def _paths(self, image: str | tuple[str, ...]) -> Path | tuple[Path, ...]:
        return _for_each(self._path, image)

    def _path(self, text: str) -> Path:
        """Return a path; raise an `InputError` if it is a link inside the project."""
        path = self._folder.absolute(text)
        if (link := self._folder.own_link(path)) is not None:
            raise InputError(
                f"{link} is a link, and links inside a project folder are not followed. Put the file itself there."
            )
        return path


def write_outline_mask(folder: Path, file: Path, image: DataArray) -> tuple[Path, str]:
    """Rasterize the outlines of a file to a Zarr mask, atomically.

    Parameters
    ----------
    folder : Path
        Folder for the mask; replaced if it exists.
    file : Path
        GeoJSON (`core.io.geojson.read_geojson`).
    image : DataArray
        The image that the outlines belong to.

    Returns
    -------
    mask : Path
    summary : str
        A sentence about the number of outlines, overlapping outlines, and outlines that are not visible.
    """
    outlines = read_geojson(file.expanduser())
    shape = tuple(image.sizes[dim] for dim in image.dims if dim != "c")
    drawing = PolygonMask(outlines.shapes, shape)
    chunks = (1,) * (len(shape) - 2) + tuple(min(CHUNK, side) for side in shape[-2:])
    with atomic_folder(folder) as draft:
        mask = zarr.create_array(draft / "mask.zarr", shape=shape, dtype=drawing.dtype, chunks=chunks, zarr_format=3)
        for part, pixels in drawing.draw_tiles():
            mask[part] = pixels
        if not drawing.drawn_labels:
            raise InputError(
                f"None of {len(outlines.shapes)} outlines in {file} covers a pixel of the image, which is "
                f"{' × '.join(map(str, shape))}. Check that they belong to this image and are in pixels."
            )
    parts = [f"{len(drawing.drawn_labels):,} of {len(drawing.labels):,} outlines are objects"]
    if drawing.overlapping_labels:
        parts.append(
            f"{len(drawing.overlapping_labels):,} of them overlap, in {drawing.overlap_pixels:,} pixels, where the "
            "smaller one is on top"
        )
    if missing := drawing.missing_labels:
        parts.append(f"outside the image, covered or smaller than a pixel: {format_list(missing)}")
    return folder / "mask.zarr", "; ".join(parts) + "." + (f" {outlines.note}" if outlines.note else "")


def lazy_outline_mask(file: Path, shape: tuple[int, ...]) -> DataArray:
    """Return the outlines of a file as a lazy mask.

    The mask has the shape ``([z,] y, x)`` and is rasterized block by block when it is read.
    """
    pixels = to_dask(PolygonMask(read_geojson(file.expanduser()).shapes, shape))
    return DataArray(pixels, dims=tuple("zyx"[-len(shape) :]))


def to_zarr(array: xr.DataArray, path: Path) -> None:
    """Write a lazy array to Zarr block by block, in chunks of equal size."""
    regular = array.data.rechunk(tuple(max(sizes) for sizes in array.data.chunks))
    regular.to_zarr(str(path))


def _as_tuple(image: str | tuple[str, ...]) -> tuple[str, ...]:
    return image if isinstance(image, tuple) else (image,)


def _for_each(convert: Callable[[Any], Item], image: Any) -> Item | tuple[Item, ...]:
    """Convert a path, or each path of a sequence."""
    return tuple(map(convert, image)) if isinstance(image, tuple | list) else convert(image)


def _is_file(source: Source) -> bool:
    sources = source if isinstance(source, tuple | list) else [source]
    return all(isinstance(path, str | Path) for path in sources)


def _to_json(entry: ImageEntry) -> dict[str, Any]:
    """Return an entry as written to ``project.json``, without empty optional fields."""
    left_out = {"name", *(key for key in ("replaced", "accepted") if not getattr(entry, key))}
    return {key: value for key, value in vars(entry).items() if key not in left_out}


def _from_json(name: str, document: dict[str, Any]) -> ImageEntry:
    plain: dict[str, Any] = {
        field.name: tuple(value) if isinstance(value := document[field.name], list) else value
        for field in fields(ImageEntry)
        if field.name in document
    }
    return ImageEntry(name, **plain)


def _read_objects(file: Path, shape: tuple[int, ...]) -> pd.DataFrame | None:
    """Read a stored object table; return None if it is missing or damaged."""
    low, high = bbox_columns(len(shape))[: len(shape)], bbox_columns(len(shape))[len(shape) :]
    try:
        table = read_parquet(file, ["size", *centroid_columns(len(shape)), *low, *high, "on_border"])
    except (OSError, ValueError):
        return None
    starts, ends = table[low].to_numpy(float), table[high].to_numpy(float)
    is_inside = (starts >= 0).all() and (starts < ends).all() and (ends <= np.array(shape)).all()
    return table if is_inside and len(table) and table.index.min() > 0 and table.index.name == "object" else None
