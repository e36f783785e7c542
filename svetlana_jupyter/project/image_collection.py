"""Images of a project, each with a mask and a table of its objects."""

from __future__ import annotations

import shutil
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from svetlana_jupyter.core.io.file_pairs import PAIR_COLUMNS, find_pairs, first_problem
from svetlana_jupyter.core.io.geojson import is_geojson
from svetlana_jupyter.core.io.image_pair import ImagePair, open_pair
from svetlana_jupyter.core.io.images import OpenOptions, fingerprint, open_image_levels, open_mask_levels
from svetlana_jupyter.core.io.readers import SMALL_BYTES, hdf5_file
from svetlana_jupyter.core.mask_numbers import NumberingProblem, counts_pieces
from svetlana_jupyter.core.normalization import set_image_statistics
from svetlana_jupyter.core.objects import index_objects, object_difference
from svetlana_jupyter.core.predictions import OBJECT_COLUMNS
from svetlana_jupyter.errors import DamagedError, InputError, ProjectError, SvetlanaError
from svetlana_jupyter.project.features import with_feature_cache
from svetlana_jupyter.project.file_access import is_present, read_attributes
from svetlana_jupyter.project.image_entry import ImageEntry, as_tuple, entry_from_json, entry_to_json, for_each
from svetlana_jupyter.project.image_warnings import ImageWarnings, describe_channels, describe_numbering, summarize
from svetlana_jupyter.project.known_files import FileState, KnownFiles
from svetlana_jupyter.project.object_tables import NumberingChecks, read_objects, to_zarr, write_repaired_mask
from svetlana_jupyter.project.outline_masks import write_outline_mask
from svetlana_jupyter.project.storage import Notify, ProjectFolder, atomic_folder, write_parquet

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.core.io.pixel_size import Spacing
LOCK_WAIT_SECONDS = 5.0  # to wait for an object table that another thread is computing

Progress = Callable[[int, int], None]
Source = Any  # a path, several paths (one per channel), or an array


class ImageOptions(TypedDict, total=False):
    """Optional arguments of `Project.add`."""

    axes: str | None
    spacing: Spacing | None
    channels: Sequence[str] | None
    groups: Mapping[str, str] | None


# An entry, a note if its mask was rasterized from outlines, and what was converted or not used of the files.
Prepared = tuple[ImageEntry, str, tuple[str, ...]]


class ImageCollection(Mapping[str, ImageEntry]):
    """Images of a project by name, with their masks and object tables.

    Images keep the order in which they were added. Every change replaces the dict of entries instead of modifying it,
    so a running iteration is not affected by changes. Code on another thread, and code that needs the same images for
    several calls, should use a `snapshot`.

    `pair` and `objects`, through which all pixels and objects are read, compare the files of an image with the versions
    that the project knows. They raise a `ProjectError` if the file of a mask now holds other objects, and open a
    changed image again. Within a block of `known_files.checked_once`, each file is looked at once.

    Attributes
    ----------
    on_replaced : callable
        Called when another `Project` has replaced a mask, on the thread that created this object; reads the images and
        their annotations again.
    warnings : ImageWarnings
        Warnings about images whose results may be wrong.
    """

    def __init__(self, folder: ProjectFolder, notify: Notify) -> None:
        self._folder, self._notify = folder, notify
        self._entries: dict[str, ImageEntry] = {}
        self._pairs: dict[str, tuple[FileState, ImagePair]] = {}
        self._tables: dict[str, tuple[ImageEntry, pd.DataFrame]] = {}
        self._indexing: dict[str, threading.Lock] = {}
        self._numbering = NumberingChecks()
        self._files = KnownFiles(folder, self._paths)
        self._accepted: dict[str, tuple[float, FileState]] = {}  # with the time at which the mask was compared
        self._refused: dict[str, tuple[FileState, str]] = {}
        self._owner = threading.get_ident()
        self.on_replaced: Callable[[], None] = self.reload
        self.warnings = ImageWarnings(self.refusal, self._mask_warning, self._channels_warning)
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
        if not isinstance(images, Iterable):
            raise InputError(
                f"images must be a list of image names, got {images!r}. Pass for example {list(self)[:1]}."
            )
        names = [images] if isinstance(images, str) else list(images)
        return [self.entry(name).name for name in names]

    def groups(self) -> dict[str, Mapping[str, str]]:
        """Return the values of the grouping columns of each image."""
        return {name: entry.groups for name, entry in self._entries.items()}

    def mask_numbers(self) -> dict[str, int]:
        """Return the number of the current mask of each image."""
        return {name: entry.mask_number for name, entry in self._entries.items()}

    def add(
        self, name: str, image: Source, mask: Source, repair: str | None = None, **options: Unpack[ImageOptions]
    ) -> None:
        """Add an image with its mask, as `Project.add` describes."""
        prepared = self._prepare(name, image, mask, repair, **options)
        self._save([prepared])
        for note in prepared[2]:
            warnings.warn(note, stacklevel=3)  # the caller of `Project.add`

    def add_all(self, pairs: Mapping[str, tuple[Source, Source]]) -> None:
        """Add images with their masks, by name; if one of them is invalid, add none."""
        self._save([self._prepare(name, image, mask) for name, (image, mask) in pairs.items()])

    def add_matching(
        self,
        images: str | Path,
        masks: str | Path,
        axes: str | None = None,
        spacing: Spacing | None = None,
        repair: str | None = None,
    ) -> pd.DataFrame:
        """Add all images that match a pattern, as `Project.add_images` describes."""
        table = find_pairs(images, masks)
        columns = [str(column) for column in table if column not in PAIR_COLUMNS]
        entries, table["note"] = list[Prepared](), ""
        for row in table.index[table["problem"] == ""]:
            name, image, mask, channels = table.loc[row, ["name", "image", "mask", "channels"]]
            groups = {column: str(table.at[row, column]) for column in columns}
            options = ImageOptions(axes=axes, spacing=spacing, channels=channels, groups=groups)
            try:
                entries.append(self._prepare(name, image, mask, repair, **options))
                table.loc[row, "note"] = " ".join(entries[-1][2])
            except SvetlanaError as error:
                table.loc[row, "problem"] = str(error)
                table.attrs["remedies"] |= {name: error.remedy} if error.remedy else {}
        if not entries:
            _, problem, remedy = first_problem(table)
            raise InputError(f"None of {len(table)} images could be added: {problem}", remedy)
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
        before, self._entries = self._entries, {name: entry_from_json(name, entry) for name, entry in images.items()}
        self._announced -= {name for name, entry in before.items() if self._entries.get(name) != entry}

    def replace_entry(self, entry: ImageEntry, objects: pd.DataFrame) -> None:
        """Save the entry of an image with a new mask, and the object table of that mask."""
        shown = self.warnings.of_images([entry.name])
        self._write_table(entry, objects, fingerprint(self._path(entry.mask)))
        with self._folder.edit_document() as document:
            document["images"][entry.name] = entry_to_json(entry)
        self.reload()
        self._withdraw(shown)

    def pair(self, name: str) -> ImagePair:
        """Open an image with its mask, lazily.

        Measurements of its objects are cached in the project.
        """
        state = self._checked(name)
        known = self._pairs.get(name)
        # Compared by what was opened: another thread may store a pair after the mask was replaced.
        if known is None or known[0] != state:
            entry, mask = state.entry, self._path(state.entry.mask)
            folder, files = self._folder.measurements_folder(name), (self._paths(entry.image), mask)
            opened = self.open(entry, mask, check_mask=False)
            if known is not None:
                set_image_statistics(opened.image, None)  # a changed Zarr array has the same name as before
            known = state, with_feature_cache(opened, folder, self._folder.writable, files)
            self._pairs[name] = known
            if self._channels_warning(name) and self.is_owned:
                self._notify.changed("images")  # panels show the warning
        return known[1]

    def open(self, entry: ImageEntry, mask: Source, check_mask: bool = True) -> ImagePair:
        """Open an image with the given mask (`core.io.image_pair.open_pair`)."""
        image, channels, cache = self._paths(entry.image), entry.channels or None, self._folder.cache_folder
        options = ImageOptions(axes=entry.axes, spacing=entry.spacing, channels=channels, groups=entry.groups)
        return open_pair(
            entry.name, image, mask, **options, cache=cache, check_mask=check_mask, allow_more_channels=True
        )

    def objects(self, name: str, progress: Progress | None = None, wait: bool = False) -> pd.DataFrame:
        """Return a table of the objects in the mask of an image.

        The table (`core.objects.index_objects`) is stored in the project. This method may be called from any thread. If
        another thread is computing the same table, this thread waits for it: a few seconds, or without a limit if
        ``wait`` is True.

        Raises
        ------
        ProjectError
            If the file of the mask now holds other objects.
        """
        state = self._checked(name, progress, wait)
        table = self._known_table(state.entry)
        if table is None:
            table = self._load_table(state, progress, wait)
        if name not in self._announced and self.is_owned:
            self._announced.add(name)
            if found := self.warnings.of_images([name]):
                self._notify.trouble(summarize(found), None)
                self._notify.changed("images")  # panels show the warning
        return table

    def check(self, names: Iterable[str]) -> None:
        """Raise a `ProjectError` if the file of a mask now holds other objects."""
        for name in names:
            self._checked(name)

    @property
    def is_owned(self) -> bool:
        """Whether the calling thread is the one that created this object."""
        return threading.get_ident() == self._owner

    def refusal(self, name: str) -> str:
        """Return the message about a mask that now holds other objects, else ""."""
        state, message = self._refused.get(name, (None, ""))
        return message if state is not None and state.entry == self._entries.get(name) else ""

    def kept_objects(self, name: str) -> pd.DataFrame | None:
        """Return the object table of the annotated mask, even if its file has changed.

        The result is None if that mask was never indexed.
        """
        entry = self.entry(name)
        table = self._known_table(entry)
        return self._read_kept(entry) if table is None else table

    def has_same_pixels(self, name: str, stored: Mapping[str, Any]) -> bool:
        """Return whether an image still has the pixels that were predicted.

        Parameters
        ----------
        name : str
        stored : mapping
            Attributes of the predictions: ``image`` (fingerprint of the files) and ``pixels`` (hash of the pixels). An
            image that is missing counts as the same.
        """
        state = self._files.state(self.entry(name))
        current = self._files.content_hash(state, "image")
        if not current or stored.get("image", current) == current:
            return True
        return bool(pixels := stored.get("pixels")) and pixels == self.pixel_hash(name)

    def pixel_hash(self, name: str) -> str:
        """Return a hash of the pixels of an image (`core.io.file_versions.pixel_hash`)."""
        return self._files.pixel_hash(self._files.state(self.entry(name)), lambda: self.pair(name).image)

    def warning(self, name: str) -> str:
        """Return the warnings about an image; "" if there are none.

        Warnings about a mask are known once its objects have been indexed.
        """
        if self.is_indexed(self.entry(name).name):
            self.objects(name)
        return self.warnings.of_image(name)

    def accept_warning(self, *names: str) -> None:
        """Accept the masks and channels of images, so that their warnings disappear.

        Without names, those of all images are accepted. A mask that replaces an accepted mask is checked again. A mask
        whose file now holds other objects is refused.
        """
        self.check(names or self._entries)
        accepted = {name: fingerprint(self.mask_file(name)) for name in names or self._entries}
        shown = self.warnings.of_images(accepted)
        with self._folder.lock:
            with self._folder.edit_document() as document:
                for name, mask in accepted.items():
                    document["images"][name]["accepted"] = mask
                    if name in self._pairs:
                        document["images"][name]["channels"] = list(self._pairs[name][1].channels)
            self.reload()
            self._notify.changed("images")
        self._withdraw(shown)

    def _withdraw(self, shown: Mapping[str, str]) -> None:
        """Remove a warning that the project still shows as trouble."""
        for name, text in shown.items():
            self._notify.trouble("", summarize({name: text}))

    def numbering_problem(self, name: str) -> NumberingProblem | None:
        """Return the reason to doubt that the numbers in an indexed mask name objects."""
        entry = self.entry(name)
        return self._numbering.problem(entry, self._known_table(entry))

    def is_indexed(self, name: str) -> bool:
        """Return whether the object table of an image has been computed already."""
        return name in self._tables or is_present(self._folder.objects_file(name))

    def image_fingerprint(self, name: str) -> str:
        """Return a fingerprint of the pixels of an image.

        If a file of the image is missing, raise an `InputError`.
        """
        if gone := [path for path in self.image_files(name) if not (hdf5_file(path) or path).exists()]:
            raise InputError(f"{gone[0]} is missing. Restore the file and try again; finished work is kept.")
        return self._files.content_hash(self._files.state(self.entry(name)), "image")

    def files(self) -> list[Path]:
        """Return the files, or Zarr folders, of all images and masks."""
        paths = [path for entry in self._entries.values() for path in (*as_tuple(entry.image), entry.mask)]
        return [hdf5_file(path) or path for path in map(self._folder.absolute, paths)]

    def missing(self) -> list[Path]:
        """Return the files of images and masks that do not exist."""
        return [path for path in self.files() if not path.exists() or self._folder.own_link(path) is not None]

    def mask_file(self, name: str) -> Path:
        """Return the path of the mask of an image."""
        return self._folder.absolute(self.entry(name).mask)

    def image_files(self, name: str) -> list[Path]:
        """Return the paths of an image: a single path, or one path per channel."""
        return [self._folder.absolute(path) for path in as_tuple(self.entry(name).image)]

    def _prepare(
        self, name: str, image: Source, mask: Source, repair: str | None = None, **options: Unpack[ImageOptions]
    ) -> Prepared:
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
        if reserved := [column for column in options.get("groups") or () if column in OBJECT_COLUMNS]:
            raise InputError(
                f"The grouping column {reserved[0]!r} has the name of a result column. Choose another name for it."
            )
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
            with self._folder.writing(folder):
                mask, summary = write_outline_mask(folder, Path(mask), opened_image)
            note = f"{name}: {summary}"
        source = mask
        if repair is not None:
            mask, source, note = write_repaired_mask(folder, open_mask_levels(mask, cache=cache)[0], repair)
        try:
            opened = open_pair(name, image, source, **options, cache=cache)
        except InputError:
            if has_outlines or repair is not None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        if not (_is_file(image) and _is_file(mask)):
            with self._folder.writing(folder), atomic_folder(folder) as draft:
                to_zarr(opened.image, draft / "image.zarr")
                to_zarr(opened.mask, draft / "mask.zarr")
            image, mask = folder / "image.zarr", folder / "mask.zarr"
            axes = "".join(map(str, opened.image.dims))
        entry = ImageEntry(
            name=name,
            image=for_each(self._folder.relative, image),
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
            new = {entry.name: entry_to_json(entry) for entry, *_ in prepared if entry.name not in self._entries}
            if new:
                with self._folder.edit_document() as document:
                    document["images"].update(new)
                self.reload()
                self._notify.changed("images")
            if notes := [note for _, outlines, others in prepared for note in (outlines, *others) if note]:
                self._notify.status(" ".join(notes))

    def _checked(self, name: str, progress: Progress | None = None, wait: bool = False) -> FileState:
        """Check that a mask has the objects that it had, and return the file versions.

        The content is compared once per version of the mask.
        """
        state = self._files.state(self.entry(name))
        checked, accepted = self._accepted.get(name, (0.0, None))
        if state.has_same_mask(accepted) and state.mask.identifies_content_read_at(checked):
            return state
        refused = self._refused.get(name)
        if refused is not None and state.has_same_mask(refused[0]):
            raise ProjectError(refused[1])
        now, content, kept = time.time(), self._files.content_hash(state, "mask"), self._kept_attributes(state.entry)
        number, own_number = kept.get("number", state.entry.mask_number), state.entry.mask_number
        is_added = content == state.entry.fingerprint.split()[-1]
        if content and number == own_number and "mask" in kept:
            if kept["mask"] != content:
                self._load_table(state, progress, wait)
        elif content and not is_added and number > own_number:
            self._follow(state.entry)
        elif difference := self._file_difference(state):
            self._refuse(state, difference)
        if self.entry(name) != state.entry:  # another `Project` has replaced the mask
            return self._checked(name, progress, wait)
        self._accepted[name] = now, state
        if self._refused.pop(name, None) is not None and self.is_owned:
            self._notify.changed("images")
        return state

    def _load_table(self, state: FileState, progress: Progress | None, wait: bool) -> pd.DataFrame:
        """Read or compute the object table of a mask; refuse other objects than before."""
        entry, difference = state.entry, ""
        indexing = self._indexing.setdefault(entry.name, threading.Lock())
        if not indexing.acquire(timeout=-1 if wait else LOCK_WAIT_SECONDS):
            raise ProjectError(f"The objects of {entry.name!r} are still being indexed. Try again when this is done.")
        try:
            content, kept = self._files.content_hash(state, "mask"), self.kept_objects(entry.name)
            if kept is None or not content or kept.attrs.get("mask") != content or not counts_pieces(kept):
                try:
                    table = self._index(entry, progress)
                except DamagedError:
                    if kept is None:
                        raise
                    table = kept  # reading the damaged part reports which objects are concerned
                else:
                    difference = self._file_difference(state) if kept is None else object_difference(kept, table)
                    if not difference:
                        self._write_table(entry, table, content)
            else:
                table = kept
            if not difference:
                self._tables[entry.name] = entry, table
        finally:
            indexing.release()
        if difference:
            self._refuse(state, difference)
            return self.objects(entry.name, progress, wait)
        return table

    def _refuse(self, state: FileState, difference: str) -> None:
        """Raise the error for a mask with other objects than before.

        If another `Project` has replaced the mask, the images are read again instead.
        """
        entry = state.entry
        if self._follow(entry):
            return
        message = (
            f"The mask of {entry.name!r} has changed on disk: {difference}. Annotations and predictions belong to the "
            f"objects before. Call project.replace_mask({entry.name!r}) to carry the annotations over to the new "
            f"objects, or restore {self.mask_file(entry.name)}."
        )
        self._refused[entry.name] = state, message
        if self.is_owned:
            self._notify.changed("images")  # panels show the message
        raise ProjectError(message)

    def _follow(self, entry: ImageEntry) -> bool:
        """Read the images again if another `Project` has replaced a mask.

        Return whether it has.
        """
        written = self._folder.read_document()["images"].get(entry.name)
        if written is None or entry_from_json(entry.name, written).mask_number <= entry.mask_number:
            return False
        if not self.is_owned:  # state changes only on the thread that created the project
            raise ProjectError(f"The mask of {entry.name!r} was replaced in the meantime. Repeat the last step.")
        self.on_replaced()
        return True

    def _file_difference(self, state: FileState) -> str:
        """Return how the file of a mask differs from the file that was added.

        Only the content of small files outside the project can be compared; otherwise the result is "".
        """
        mask, content = self._path(state.entry.mask), self._files.content_hash(state, "mask")
        is_own = mask.is_relative_to(self._folder.arrays_folder(state.entry.name))
        if is_own or not content or state.mask.size > SMALL_BYTES or not mask.is_file():
            return ""
        return "" if content == state.entry.fingerprint.split()[-1] else "it is not the mask that was added"

    def _known_table(self, entry: ImageEntry) -> pd.DataFrame | None:
        known = self._tables.get(entry.name)
        return known[1] if known is not None and known[0] == entry else None

    def _kept_attributes(self, entry: ImageEntry) -> dict[str, Any]:
        """Return fingerprint and number of the mask whose objects are known.

        The result is empty before the mask is indexed.
        """
        if (table := self._known_table(entry)) is not None:
            return {str(key): value for key, value in table.attrs.items()}
        with suppress(OSError, ValueError):  # a missing or damaged table is computed again
            return read_attributes(self._folder.objects_file(entry.name))
        return {}

    def _read_kept(self, entry: ImageEntry) -> pd.DataFrame | None:
        table = read_objects(self._folder.objects_file(entry.name), entry.shape)
        is_other = table is not None and table.attrs.get("number", entry.mask_number) != entry.mask_number
        return None if is_other else table

    def _index(self, entry: ImageEntry, progress: Progress | None) -> pd.DataFrame:
        """Compute the object table of a mask; the image file may be missing."""
        mask_file, cache = self._path(entry.mask), self._folder.cache_folder
        opened, _ = open_mask_levels(mask_file, spacing=entry.spacing, cache=cache)
        return index_objects(opened, progress)

    def _write_table(self, entry: ImageEntry, table: pd.DataFrame, mask: str) -> None:
        is_newest = self._kept_attributes(entry).get("number", 0) <= entry.mask_number
        table.attrs |= {"mask": mask, "number": entry.mask_number}
        if self._folder.writable and is_newest:  # another `Project` may have replaced the mask
            with suppress(OSError, ProjectError):  # only a cache: viewing must work on a full disk, or with a link
                write_parquet(self._folder.objects_file(entry.name), table)

    def _mask_warning(self, name: str) -> str:
        return describe_numbering(name, self.numbering_problem(name))

    def _channels_warning(self, name: str) -> str:
        entry, known = self._entries.get(name), self._pairs.get(name)
        found = () if entry is None or known is None else known[1].channels
        return describe_channels(name, entry.channels, found) if entry is not None else ""

    def _paths(self, image: str | tuple[str, ...]) -> Path | tuple[Path, ...]:
        return for_each(self._path, image)

    def _path(self, text: str) -> Path:
        """Return a path; raise an `InputError` if it is a link inside the project."""
        path = self._folder.absolute(text)
        if (link := self._folder.own_link(path)) is not None:
            raise InputError(
                f"{link} is a link, and links inside a project folder are not followed. Put the file itself there."
            )
        return path


def _is_file(source: Source) -> bool:
    sources = source if isinstance(source, tuple | list) else [source]
    return all(isinstance(path, str | Path) for path in sources)
