"""Where an export is written to: a folder of its own, in which every file appears whole or not at all.

``export.json`` lists what was written there, by which project, when, and from which run. Whatever else lies in the
folder is somebody's, and is not replaced.
"""

from __future__ import annotations

import json
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.store import atomic_write, draft_path, file_name, sync

if TYPE_CHECKING:
    from svetlana_jupyter.project.exports.findings import ResultsSnapshot
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
        self._inputs = {path.resolve() for path in project.input_files()}
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
