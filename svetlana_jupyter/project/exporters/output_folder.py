"""Output folder of an export, in which every file appears complete or not at all.

``export.json`` lists the exported files with project, time and run. Files that it does not list are never replaced.
"""

from __future__ import annotations

import itertools
import shutil
import time
import unicodedata
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.file_access import read_json, refuse_link
from svetlana_jupyter.project.storage import atomic_write, draft_path, file_name, sync, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from svetlana_jupyter.core.classes import ClassScheme

MANIFEST = "export.json"
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")  # every group or array of a Zarr store contains one of these
MAX_NAME_BYTES = 120  # most file systems allow 255, including prefix and suffix
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}  # on Windows

Item = TypeVar("Item")


class ExportStopped(Exception):
    """Error raised when the user stops the export while a file is being written."""


class OutputFolder:
    """Output folder of one export, with its list of exported files.

    Parameters
    ----------
    folder : Path
        Created when the first file is written.
    project_folder : Path
    images : iterable of str
        Names of the exported images.
    inputs : iterable of Path
        Files and Zarr folders of images and masks. Nothing is written into them or into the folders that contain them.

    Attributes
    ----------
    names : mapping of str to str
        File name (without suffix) of each image, by image name.
    current_file : str
        The file that is being written, or the file that was written last.
    stop : callable
        Returns whether the user has stopped the export. A file that is incomplete at that time is discarded.

    Raises
    ------
    ProjectError
        If the folder is part of the project, contains its images or masks, or is a file.
    """

    def __init__(self, folder: Path, project_folder: Path, images: Iterable[str], inputs: Iterable[Path]) -> None:
        self.folder, self._project_folder = folder.resolve(), project_folder.resolve()
        self.names = unique_file_names(images)
        self.current_file = str(self.folder)
        self.stop: Callable[[], bool] = lambda: False
        self._inputs = {path.resolve() for path in inputs}
        self._check(self.folder)
        self._manifest = self._read_manifest()
        self._run = ""

    def record_contents(self, project: str, classes: ClassScheme, run: str, warnings: Mapping[str, str]) -> None:
        """Set the contents of ``export.json``; ``warnings`` are given per image."""
        self._run = run
        self._manifest |= {
            "project": project,
            "classes": [{"code": info.id, "name": info.name, "color": info.color} for info in classes],
            "images": dict(self.names),
            "warnings": dict(warnings),
        }

    def raise_if_stopped(self) -> None:
        """Raise `ExportStopped` once the user has stopped the export."""
        if self.stop():
            raise ExportStopped

    def until_stopped(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items; raise `ExportStopped` once the user has stopped the export."""
        for item in items:
            self.raise_if_stopped()
            yield item

    @contextmanager
    def write_file(self, name: str) -> Iterator[Path]:
        """Yield a temporary path; rename the file to ``name`` if the block succeeds."""
        with self._writing(name) as file, atomic_write(file) as draft:
            yield draft

    @contextmanager
    def write_folder(self, name: str) -> Iterator[Path]:
        """Yield a temporary folder, which replaces ``name`` if the block succeeds."""
        with self._writing(name) as folder:
            draft, old = draft_path(folder), draft_path(folder)
            try:
                draft.mkdir()
                yield draft
                for file in filter(Path.is_file, draft.rglob("*")):
                    sync(file)
                if folder.exists():
                    folder.replace(old)
                draft.replace(folder)
            finally:
                _remove(draft)
                _remove(old)

    def remove_file(self, name: str) -> None:
        """Remove a file of an earlier export; files that it did not write are kept."""
        if name not in self._manifest["files"]:
            return
        self._check(self.folder)
        file = self.folder / name
        self.current_file = str(file)
        file.unlink(missing_ok=True)
        del self._manifest["files"][name]
        write_json(self.folder / MANIFEST, self._manifest)

    @contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        """Yield the path of a file, and list it in the manifest if the block succeeds.

        If the block fails, the folders above the file are removed as far as they are empty.
        """
        file = self.folder / name
        self.current_file = str(file)
        self._check(file.parent)
        refuse_link(file)
        if file.exists() and name not in self._manifest["files"]:
            raise ProjectError(f"{file} exists already and does not come from an export. Export to a different folder.")
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield file
        except BaseException:
            with suppress(OSError):  # the folder is not empty
                for folder in itertools.takewhile(lambda parent: parent.is_relative_to(self.folder), file.parents):
                    folder.rmdir()
            raise
        written = {"run": self._run, "written": datetime.now(UTC).isoformat(timespec="seconds")}
        self._manifest["files"] = dict(sorted({**self._manifest["files"], name: written}.items()))
        write_json(self.folder / MANIFEST, self._manifest)

    def _check(self, folder: Path) -> None:
        folder, project = folder.resolve(), self._project_folder
        if folder.is_relative_to(project):
            raise ProjectError(
                f"{folder} is part of the project {project.name}. Export to a different folder, for example "
                f"{project.with_name(f'{project.stem}_results')}."
            )
        in_zarr = any((part / name).exists() for part in (folder, *folder.parents) for name in ZARR_FILES)
        if in_zarr or folder in {path.parent for path in self._inputs} or any(map(folder.is_relative_to, self._inputs)):
            raise ProjectError(f"{folder} contains images or masks of the project. Export to a different folder.")
        if folder.exists() and not folder.is_dir():
            raise ProjectError(f"{folder} is a file. Export to a different folder.")

    def _read_manifest(self) -> dict[str, Any]:
        try:
            document = read_json(self.folder / MANIFEST)
            return {**document, "files": dict(document["files"])}
        except (OSError, ValueError, KeyError, TypeError):  # missing, or written by another program
            return {"files": {}}


def unique_file_names(names: Iterable[str]) -> Mapping[str, str]:
    """Return file names for arbitrary names, distinct on every file system.

    >>> dict(unique_file_names(["A 1", "a 1", "x/y", "nul"]))
    {'A 1': 'A 1', 'a 1': 'a 1 (2)', 'x/y': 'x%2Fy', 'nul': '_nul'}
    """
    result: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        stem = file_name(name)
        if len(stem) > MAX_NAME_BYTES:
            stem = f"{stem[: MAX_NAME_BYTES - 9]}-{blake2b(stem.encode(), digest_size=4).hexdigest()}"
        if stem.split(".")[0].casefold().rstrip() in RESERVED:
            stem = f"_{stem}"
        numbered = (f"{stem} ({number})" for number in itertools.count(2))
        result[name] = next(free for free in itertools.chain([stem], numbered) if _fold(free) not in taken)
        taken.add(_fold(result[name]))
    return result


def _fold(name: str) -> str:
    """Return a name in the form in which case-insensitive file systems compare it."""
    return unicodedata.normalize("NFC", name).casefold().rstrip(" .")


def _remove(folder: Path) -> None:
    """Remove a folder, and try again if it reappears.

    Threads of zarr that are still writing files may create the folder again.
    """
    for _ in range(20):
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.1)
