"""Where an export is written to: a folder of its own, in which every file appears whole or not at all.

``export.json`` lists what was written there, by which project, when, and from which run. Whatever else lies in the
folder is somebody's, and is not replaced.

What a project holds at one moment, so that all files of an export agree while somebody annotates on.

The table of objects, with what was measured of them, as a Dataset.
"""

from __future__ import annotations

import json
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import xarray as xr

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.predictions import class_map, object_dataset, probability_map
from svetlana_jupyter.core.stats.metrics import count_classes
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.features import cached_measurements
from svetlana_jupyter.project.storage import atomic_write, draft_path, file_name, sync

if TYPE_CHECKING:
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.project.project import Project

MANIFEST = "export.json"
ZARR = ("zarr.json", ".zgroup", ".zarray")  # one of these lies in every folder of a Zarr
MAX_NAME_BYTES = 120  # bytes; most file systems take 255, with what is put before and behind
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}  # by Windows


Item = TypeVar("Item")


class ExportStopped(Exception):
    """A stop was asked for while a file was being written."""


class OutputFolder:
    """The folder of one export.

    Parameters
    ----------
    project : Project
    folder : Path
        Made with the first file.
    stop : callable
        Tells whether to stop; a file that is not whole by then is left out.

    Attributes
    ----------
    names : dict of str to str
        What each image is called in names of files.
    now : str
        The file that is being written, or was last.

    Raises
    ------
    ProjectError
        If the folder belongs to the project or to its images.
    """

    def __init__(self, project: Project, folder: Path, stop: Callable[[], bool] = lambda: False) -> None:
        self._project, self._stop = project, stop
        self.folder = folder.absolute()
        self.names = unique_file_names(project.images)
        self.now = str(self.folder)
        self._inputs = {path.resolve() for path in project.images.files()}
        self._check(self.folder)
        self._manifest = self._read_manifest()
        self._run = ""

    def describe(self, found: ResultsSnapshot) -> None:
        """Have ``export.json`` say what the files are of."""
        self._run = found.run
        self._manifest |= {
            "project": self._project.path.name,
            "classes": [{"code": info.id, "name": info.name, "color": info.color} for info in found.classes],
            "images": dict(self.names),
        }

    def raise_if_stopped(self) -> None:
        """Raise `ExportStopped` once a stop is asked for."""
        if self._stop():
            raise ExportStopped

    def watched(self, items: Iterable[Item]) -> Iterator[Item]:
        """Pass items on until a stop is asked for, which raises `ExportStopped`."""
        for item in items:
            self.raise_if_stopped()
            yield item

    @contextmanager
    def write_file(self, name: str) -> Iterator[Path]:
        """Give a path to write a file to, which gets its ``name`` in the folder when the block ends well."""
        file = self._begin(name)
        with self._tidy(file), atomic_write(file) as beside:
            yield beside
        self._keep(name)

    @contextmanager
    def write_folder(self, name: str) -> Iterator[Path]:
        """Give a new folder to write to, which takes the place of the one called ``name`` when the block ends well."""
        folder = self._begin(name)
        draft, old = draft_path(folder), draft_path(folder)
        with self._tidy(folder):
            try:
                draft.mkdir()
                yield draft
                for file in draft.rglob("*"):
                    if file.is_file():
                        sync(file)
                if folder.exists():
                    folder.replace(old)
                draft.replace(folder)
            finally:
                _remove(draft)
                _remove(old)
        self._keep(name)

    @contextmanager
    def _tidy(self, file: Path) -> Iterator[None]:
        """Remove the folders above a file that stay empty because it failed."""
        try:
            yield
        except BaseException:
            with suppress(OSError):
                for folder in file.parents:
                    if not folder.is_relative_to(self.folder):
                        break
                    folder.rmdir()  # unless something is in it
            raise

    def _begin(self, name: str) -> Path:
        file = self.folder / name
        self.now = str(file)
        self._check(file.parent)
        if file.exists() and name not in self._manifest["files"]:
            raise ProjectError(
                f"{file} is there already and is not of an export, so it stays as it is; export to a folder of its own."
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def _keep(self, name: str) -> None:
        written = {"run": self._run, "written": datetime.now(UTC).isoformat(timespec="seconds")}
        self._manifest["files"] = dict(sorted({**self._manifest["files"], name: written}.items()))
        with atomic_write(self.folder / MANIFEST) as beside:
            beside.write_text(json.dumps(self._manifest, indent=2, ensure_ascii=False) + "\n", "utf-8")

    def _check(self, folder: Path) -> None:
        folder, project = folder.resolve(), self._project.path.resolve()
        if folder.is_relative_to(project):
            raise ProjectError(
                f"{folder} is part of the project {project.name}; export to a folder of its own, for example "
                f"{project.with_name(f'{project.stem}_results')}."
            )
        within = any((part / mark).exists() for part in (folder, *folder.parents) for mark in ZARR)
        if within or folder in {path.parent for path in self._inputs} or any(map(folder.is_relative_to, self._inputs)):
            raise ProjectError(f"{folder} holds images or masks of the project; export to a folder of its own.")
        if folder.exists() and not folder.is_dir():
            raise ProjectError(f"{folder} is a file; export to a folder of its own.")

    def _read_manifest(self) -> dict[str, Any]:
        try:
            known = json.loads((self.folder / MANIFEST).read_text("utf-8"))
            return {**known, "files": dict(known["files"])}
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or of something else
            return {"files": {}}


def unique_file_names(names: Iterable[str]) -> Mapping[str, str]:
    """Return names of files for names of any kind, which no file system takes for the same.

    >>> dict(unique_file_names(["A 1", "a 1", "x/y", "nul"]))
    {'A 1': 'A 1', 'a 1': 'a 1 (2)', 'x/y': 'x%2Fy', 'nul': '_nul'}
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        stem = _short(file_name(name))
        if stem.split(".")[0].casefold().rstrip() in RESERVED:
            stem = f"_{stem}"
        free, number = stem, 1
        while _folded(free) in taken:
            number += 1
            free = f"{stem} ({number})"
        taken.add(_folded(free))
        found[name] = free
    return found


def _remove(folder: Path) -> None:
    """Remove a folder for good: threads of zarr may still be at their last files, and would make it again."""
    for _ in range(20):
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.1)


def _short(stem: str) -> str:
    if len(stem) <= MAX_NAME_BYTES:
        return stem
    return f"{stem[: MAX_NAME_BYTES - 9]}-{blake2b(stem.encode(), digest_size=4).hexdigest()}"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().rstrip(" .")


@dataclass(frozen=True, eq=False)
class ResultsSnapshot:
    """The results of a project.

    Attributes
    ----------
    project : Project
        For what stays as it is: images, masks and objects.
    table : DataFrame
        `Project.predictions`.
    annotated : DataFrame
        Indexed by ``(image, object)``: ``class`` of each annotated object, and whether it is of the ``test_set``.
    classes : Classes
    run : str
    groups : mapping of str to sequence of str
        The grouping columns of each image.
    """

    project: Project
    table: pd.DataFrame
    annotated: pd.DataFrame
    classes: ClassScheme
    run: str
    groups: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, project: Project) -> ResultsSnapshot:
        """Take down what stands now; any thread may call this, and annotating goes on."""
        images = project.images
        for image in images:
            project.objects(image, wait=True)
        with project._folder.lock:
            annotated = project.labels().query("action == 'label'")[["class"]]
            annotated = annotated[annotated.index.get_level_values("image").isin(list(images))]
            apart = [(str(image), int(one)) in project.test_set for image, one in annotated.index]
            return cls(
                project,
                project.predictions(list(images)),
                annotated.assign(test_set=apart),
                project.classes.scheme,
                project.current_run,
                {name: entry.groups for name, entry in images.items()},
            )

    @property
    def images(self) -> list[str]:
        """The images, in the order of the project."""
        return list(self.groups)

    def pair(self, image: str) -> ImagePair:
        return self.project.pair(image)

    def objects(self, image: str) -> pd.DataFrame:
        """Return the object index of an image."""
        return self.project.objects(image)

    def of_image(self, image: str) -> pd.DataFrame:
        """Return the rows of the table that are of one image, indexed by object."""
        rows = self.table[self.table.index.get_level_values("image") == image]
        return rows.droplevel("image")

    def counts(self) -> pd.DataFrame:
        """Return `Project.counts` by image."""
        return count_classes(self.table.reset_index(), self.classes.names, ["image"])

    def measured(self, image: str) -> pd.DataFrame:
        """Return what is measured of the objects of an image (`cached_measurements`)."""
        return cached_measurements(self.project, image)

    def class_map(self, image: str) -> xr.DataArray:
        """Return `Project.class_map`."""
        return class_map(self.pair(image).mask, self.of_image(image), self.classes)

    def probability_map(self, image: str) -> xr.DataArray:
        """Return `Project.probability_map`."""
        return probability_map(self.pair(image).mask, self.of_image(image))


def to_xarray(project: Project, images: Sequence[str]) -> xr.Dataset:
    """Return the objects of some images as `core.predictions` describes them."""
    measured = {name: table for name in images if len((table := cached_measurements(project, name)).columns)}
    found = object_dataset(
        project.predictions(images),
        project.classes.scheme,
        {name: project.pair(name).spacing for name in images},
        pd.concat(measured, names=["image"]) if measured else None,
    )
    return found.assign_attrs(project=project.path.name, run=project.current_run)
