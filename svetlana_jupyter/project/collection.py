"""The images and the classes of a project folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from traitlets import HasTraits, Int, Unicode

from svetlana_jupyter.core.classes import ClassInfo, ClassScheme
from svetlana_jupyter.core.finding import COLUMNS, find_pairs
from svetlana_jupyter.core.pairing import ImagePair
from svetlana_jupyter.errors import InputError, SvetlanaError
from svetlana_jupyter.project.archive import pack
from svetlana_jupyter.project.catalog import ImageCollection, ImageEntry, Source
from svetlana_jupyter.project.store import ProjectFolder


class Collection(HasTraits):
    """Images with their objects, and classes to tell them apart by.

    Parameters
    ----------
    path : str or Path
        The project folder; made if it is new, else reopened where it was left.

    Attributes
    ----------
    classes_version, images_version : int
        Count up with every change, for panels to observe.
    status, trouble : str
        What was done last, and the last problem that no call could raise.

    Raises
    ------
    ProjectError
        If the folder cannot be made or is no project.
    """

    classes_version = Int()
    images_version = Int()
    status = Unicode()
    trouble = Unicode()

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path).absolute()
        self._lock = threading.RLock()
        self._store = ProjectFolder(self.path)
        self._classes = _from_json(self._store.read_document()["classes"])
        self._catalog = ImageCollection(self._store)

    @property
    def images(self) -> Mapping[str, ImageEntry]:
        """The images by name, in the order in which they were added."""
        return dict(self._catalog.entries)

    def add(
        self,
        name: str,
        image: Source,
        mask: Source,
        axes: str | None = None,
        spacing: tuple[float, ...] | None = None,
        channels: Sequence[str] | None = None,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        """Add one image with its mask; adding the same again changes nothing.

        Parameters
        ----------
        name : str
        image, mask : path or array
            Files are read lazily where they lie and never written to; arrays are copied into the project.
            Several paths for the image are its channels. Outlines as QuPath exports them (GeoJSON) are drawn as a mask
            that is kept in the project; where they overlap the smaller one lies above, and `status` says so.
        axes : str, optional
            For images that do not say, for example ``"zyx"`` or ``"cyx"``.
        spacing : tuple of float, optional
            Micrometres a pixel, ``([z,] y, x)``.
        channels : sequence of str, optional
        groups : mapping of str to str, optional
            What to group by: plate, well, patient, ...
        """
        entry = self._catalog.prepare(name, image, mask, axes, spacing, channels, groups)
        self._keep_images([entry])

    def add_each(self, pairs: Mapping[str, tuple[Source, Source]]) -> None:
        """Add images with their masks by name, all of them or none."""
        self._keep_images([self._catalog.prepare(name, image, mask) for name, (image, mask) in pairs.items()])

    def add_images(
        self,
        images: str | Path,
        masks: str | Path,
        axes: str | None = None,
        spacing: tuple[float, ...] | None = None,
    ) -> pd.DataFrame:
        """Add all images that match a pattern, each with the mask of the same name; only headers are read.

        Parameters
        ----------
        images, masks : str
            Patterns like ``"wells/{plate}_{well}.tif"``. Placeholders pair images with masks, name the images and
            become grouping columns; ``{channel}`` stacks files that hold one channel each.

        Returns
        -------
        DataFrame
            One row a pair, as `core.pairing.find_pairs` gives it, with ``problem`` (a sentence, or empty).
            Rows with a problem were left out.

        Raises
        ------
        InputError
            If no pair can be used.
        """
        table = find_pairs(images, masks)
        groups = [column for column in table if column not in COLUMNS]
        entries = []
        for row in table.index[table["problem"] == ""]:
            found = table.loc[row]
            given: dict[str, str] = found[groups].to_dict()
            try:
                entries.append(
                    self._catalog.prepare(
                        found["name"], found["image"], found["mask"], axes, spacing, found["channels"], given
                    )
                )
            except SvetlanaError as error:
                table.loc[row, "problem"] = str(error)
        if not entries:
            problem = next(iter(table["problem"]), f"no file matches {images}")
            raise InputError(f"none of {len(table)} images could be added: {problem}")
        self._keep_images(entries)
        return table

    def pair(self, name: str) -> ImagePair:
        """Open an image with its mask, lazily."""
        return self._catalog.pair(name)

    def objects(
        self, name: str, progress: Callable[[int, int], None] | None = None, wait: bool = False
    ) -> pd.DataFrame:
        """Return the object index of an image (`core.objects.index_objects`), built on first use and kept.

        Parameters
        ----------
        name : str
        progress : callable, optional
            Called with how many of how many steps are done.
        wait : bool
            Where another thread is finding the objects already, wait however long that takes, instead of an error
            after some seconds.
        """
        return self._catalog.objects(name, progress, wait)

    @property
    def classes(self) -> ClassScheme:
        """The classes, with stable ids, names, colours and keys."""
        return self._classes

    def add_class(self, name: str, color: str | None = None) -> None:
        """Add a class; one of that name stays as it is."""
        if name in {info.name for info in self.classes.infos if info.into}:
            raise InputError(
                f"{name!r} was merged into {self.classes.by_name(name).name!r}; take that back with "
                f"project.split_class({name!r}), or choose another name."
            )
        self._edit_classes(lambda classes: classes.adding([name], color))

    def rename_class(self, old: str, new: str) -> None:
        """Rename a class; its annotations and predictions follow."""
        self._edit_classes(lambda classes: classes.with_renamed(old, new))

    def recolor_class(self, name: str, color: str) -> None:
        """Give a class another colour, ``"#rrggbb"``."""
        self._edit_classes(lambda classes: classes.with_recolored(name, color))

    def merge_classes(self, name: str, into: str) -> None:
        """Count one class as another from now on: its annotations, predictions, and those still to come.

        Nothing that was said is rewritten: the class keeps its place in ``project.json`` with what it counts as, and
        `split_class` brings it back. Undo and redo, which are about objects, leave it alone.
        """
        self._edit_classes(lambda classes: classes.with_merged(name, into), needs=2)
        self.status = f"{name} counts as {self.classes.by_name(into).name}"

    def split_class(self, name: str) -> None:
        """Take back that a class was merged into another: what was said with it is its own again."""
        self._edit_classes(lambda classes: classes.with_unmerged(name))
        self.status = f"{name} is a class of its own again"

    def is_indexed(self, name: str) -> bool:
        """Whether `objects` would return at once."""
        return self._catalog.has_index(name)

    def input_files(self) -> list[Path]:
        """Return the files, or folders of Zarr, that images and masks are read from; nothing is written there."""
        return self._catalog.files()

    def mask_file(self, name: str) -> Path:
        """Return where the mask of an image lies."""
        return self._store.absolute(self._catalog.entry(name).mask)

    def image_files(self, name: str) -> list[Path]:
        """Return where the files of an image lie: one, or one a channel."""
        image = self._catalog.entry(name).image
        return [self._store.absolute(path) for path in (image if isinstance(image, tuple) else (image,))]

    def save_zip(self, path: str | Path | None = None, *, arrays: bool = True) -> Path:
        """Write the project to one zip file, from which `from_zip` opens it again.

        Everything in the project folder is in it: classes, annotations, settings, runs and their predictions. Images
        and masks that lie outside are referenced, not copied: keep them too, best beside the project.

        Parameters
        ----------
        path : str or Path, optional
            The file, or a folder for it; by default it is written beside the project.
        arrays : bool
            Whether to include images that were given as arrays and are kept in the project. Without them, the project
            opens, but these cannot be shown.

        Returns
        -------
        Path
            The file, written whole or not at all.
        """
        with self._lock:
            file = pack(self._store, path, arrays)
        self.status = f"Saved to {file}"
        return file

    def _keep_images(self, entries: list[ImageEntry]) -> None:
        with self._lock:
            if self._catalog.keep(entries):
                self.images_version += 1
            drawn = [self._catalog.notes.pop(entry.name) for entry in entries if entry.name in self._catalog.notes]
            if drawn:
                self.status = " ".join(drawn)

    def _edit_classes(self, edit: Callable[[ClassScheme], ClassScheme], needs: int = 1) -> None:
        with self._lock:
            with self._store.edit_document(needs) as document:
                classes = edit(_from_json(document["classes"]))
                document["classes"] = [_to_json(info) for info in classes.infos]
            self._classes = classes
            self._follow()
        self.classes_version += 1

    def _follow(self) -> None:
        """Bring what depends on classes and masks up to them."""


def _from_json(infos: list[dict[str, Any]]) -> ClassScheme:
    return ClassScheme(ClassInfo(**info) for info in infos)


def _to_json(info: ClassInfo) -> dict[str, Any]:
    """Return a class as ``project.json`` keeps it; ``into`` stands there only for a class that was merged."""
    return {key: value for key, value in vars(info).items() if key != "into" or value}
