"""Project folder: paths, atomic writes, and the project as a zip file.

Every file is either replaced as a whole (written to a draft, synced, renamed) or appended to, so that saved data
survive a power failure. All files are readable without this package.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import tempfile
import threading
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote
from uuid import uuid4

from filelock import FileLock

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ProjectError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd

DOCUMENT = "project.json"
# The latest readable version. 2 is written after a class was merged or a mask replaced, 3 after a warning was accepted.
FORMAT_VERSION = 3

Aspect = Literal["classes", "images", "annotations", "predictions", "runs"]


@dataclass(frozen=True)
class Notify:
    """Callbacks through which the components of a project report to the project.

    Components are its images, classes, annotations, test set and runs. The default callbacks do nothing.

    Attributes
    ----------
    changed : callable
        Called with the aspect of the project that has changed.
    status : callable
        Called with a sentence about what was done.
    trouble : callable
        Called with a problem that could not be raised as an exception, and None or an earlier problem. With an earlier
        problem, the new problem is shown only in place of that earlier problem.
    """

    changed: Callable[[Aspect], None] = lambda aspect: None
    status: Callable[[str], None] = lambda text: None
    trouble: Callable[[str, str | None], None] = lambda text, was: None


class ProjectFolder:
    """Paths, reads and atomic writes of one project folder.

    Parameters
    ----------
    path : Path
        The folder; created with an empty ``project.json`` if it does not exist.

    Raises
    ------
    ProjectError
        If the folder cannot be created, is not a project, or has a newer format version.

    Attributes
    ----------
    document_file : Path
        Images and classes: ``project.json``.
    settings_file : Path
        The training settings.
    sweep_file : Path
        The results of `Project.sweep`.
    test_set_file : Path
        The test set, once it is drawn.
    annotations_folder : Path
        The annotation files.
    runs_folder : Path
        The finished runs.
    cache_folder : Path
        Caches, which are rebuilt if they were deleted.
    writable : bool
    lock : threading.RLock
        Lock for changes of images, classes, annotations or test set, and for reading several of these in a consistent
        state. Acquire it before the indexing locks of `ImageCollection`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.document_file, self.settings_file = path / DOCUMENT, path / "training.json"
        self.sweep_file, self.test_set_file = path / "sweep.jsonl", path / "test_set.csv"
        self.annotations_folder = path / "annotations"
        self.runs_folder, self.cache_folder = path / "runs", path / "cache"
        if self.document_file.exists():
            self.read_document()
            self.writable = _can_write(path)
            return
        if _is_taken(path):
            raise ProjectError(
                f"{path} exists and is not a project folder: it contains no project.json. "
                f"Choose another folder, for example {path.with_suffix('.svetlana').name!r}."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_json(self.document_file, {"format": 1, "classes": [], "images": {}})
        except OSError as error:
            raise ProjectError(
                f"Project folder {path} cannot be created ({error.strerror}). Choose a folder that you can write to."
            ) from error
        self.writable = True

    def objects_file(self, image: str) -> Path:
        """Return the file of an image's object table."""
        return self.path / "objects" / f"{file_name(image)}.parquet"

    def measurements_folder(self, image: str) -> Path:
        """Return the folder of an image's measurements."""
        return self.path / "measurements" / file_name(image)

    def links_file(self, image: str, mask: int) -> Path:
        """Return the file of the links between two successive masks.

        The links connect the objects of mask number ``mask`` with the objects of the previous mask.
        """
        return self.path / "masks" / f"{file_name(image)}.{mask}.csv"

    def arrays_folder(self, image: str) -> Path:
        """Return the folder of the arrays of an image."""
        return self.path / "arrays" / file_name(image)

    def read_document(self) -> dict[str, Any]:
        """Read ``project.json``.

        Raise a `ProjectError` if the file is missing or damaged, or if a newer version of this package wrote it.
        """
        try:
            document = json.loads(self.document_file.read_text("utf-8"))
            version = int(document["format"])
        except FileNotFoundError as error:
            raise ProjectError(
                f"Project folder {self.path} is missing or incomplete. Restore it and try again. "
                "Saved annotations are not lost."
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProjectError(f"{self.document_file} cannot be read ({error}). Restore it from a backup.") from error
        if version > FORMAT_VERSION:
            raise ProjectError(
                f"{self.path} was written by a newer version of svetlana_jupyter (format {version}; this version reads "
                f"up to {FORMAT_VERSION}). Update it with: pip install -U svetlana-jupyter"
            )
        return dict(document)

    @contextmanager
    def edit_document(self, min_version: int = 1) -> Iterator[dict[str, Any]]:
        """Read ``project.json``, let the caller change it, and write it back.

        A file lock ensures that only one kernel at a time edits the file.

        Parameters
        ----------
        min_version : int
            The oldest format version that can represent the change.
        """
        self.check_writable()
        with self._writing(self.document_file), FileLock(self.path / ".project.lock"):
            document = self.read_document()
            yield document
            document["format"] = max(int(document["format"]), min_version)
            write_json(self.document_file, document)

    def read_settings(self) -> TrainingSettings:
        """Read the training settings from ``training.json``.

        Users may edit this file. The default settings are returned if it does not exist.
        """
        if not self.settings_file.exists():
            return TrainingSettings()
        try:
            return TrainingSettings.from_json(self.settings_file.read_text("utf-8"))
        except SettingsError as error:
            raise SettingsError(f"{self.settings_file}: {error}") from error

    def write_text(self, file: Path, text: str) -> None:
        """Write a text file atomically."""
        self.check_writable()
        with self._writing(file):
            _write_text(file, text)

    @contextmanager
    def _writing(self, file: Path) -> Iterator[None]:
        try:
            if not self.path.is_dir():  # FileLock would create the folder, and then the user could not restore it
                raise OSError(errno.ENOENT, "the project folder is missing")
            yield
        except OSError as error:
            raise ProjectError(
                f"{file} could not be written ({error.strerror or error}), so nothing was changed. "
                "Free disk space or restore the folder, then try again."
            ) from error

    def check_writable(self) -> None:
        """Raise a `ProjectError` if the folder is read-only."""
        if not self.writable:
            raise ProjectError(
                f"Project folder {self.path} is read-only. Copy it to a folder that you can write to, and open "
                "the copy."
            )

    def relative(self, path: str | Path) -> str:
        """Return a path as written in ``project.json``.

        The path is relative to the project if the file is in the parent folder of the project or below it.
        """
        path = Path(path).absolute()
        if path.is_relative_to(self.path.parent):
            return Path(os.path.relpath(path, self.path)).as_posix()
        return str(path)

    def absolute(self, text: str) -> Path:
        """Return the absolute path of a path written by `relative`."""
        return Path(os.path.normpath(self.path / text))


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Yield a draft path to write to, which replaces ``file`` if no error occurs."""
    draft = draft_path(file)
    try:
        yield draft
        sync(draft)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """Yield a new hidden folder next to ``path``.

    The new folder is removed afterwards unless it was renamed.
    """
    draft = draft_path(path)
    draft.mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a draft folder to write to, which replaces ``folder`` if no error occurs."""
    with draft_folder(folder) as draft:
        yield draft
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)


def write_json(file: Path, document: Mapping[str, Any]) -> None:
    """Write an indented JSON file atomically."""
    _write_text(file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def write_parquet(file: Path, table: pd.DataFrame) -> None:
    """Write a table to a Parquet file atomically; create its folder if needed."""
    file.parent.mkdir(exist_ok=True)
    with atomic_write(file) as draft:
        table.to_parquet(draft)


def _write_text(file: Path, text: str) -> None:
    with atomic_write(file) as draft:
        draft.write_text(text, "utf-8")


def file_name(name: str) -> str:
    """Return ``name`` as a file name that is valid on every system.

    Different names map to different file names.
    """
    quoted = quote(name, safe=" ()+,-=@_")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def draft_path(path: Path) -> Path:
    """Return an unused hidden path next to ``path``, for a draft."""
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}")


def sync(file: Path) -> None:
    """Flush a file to the disk."""
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _is_taken(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8}|lock)")  # drafts and locks


def pack(project: ProjectFolder, path: str | Path | None, arrays: bool) -> Path:
    """Write the project to a zip file atomically, and return its path."""
    name = f"{project.path.name}.zip"
    target = project.path.with_name(name) if path is None else Path(path).absolute()
    target = target / name if target.is_dir() else target
    try:
        with atomic_write(target) as draft, zipfile.ZipFile(draft, "w", strict_timestamps=False) as archive:
            archive.comment = str(project.path).encode()
            for file in _members(project, arrays):
                if file not in (target, draft):
                    inside = file.relative_to(project.path)
                    packed = inside.parts[0] == "arrays"  # the chunks of arrays are already compressed
                    method = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
                    archive.write(file, (project.path.name / inside).as_posix(), method)
    except OSError as error:
        raise ProjectError(
            f"The project could not be saved to {target} ({error.strerror or error}). Free disk space, or pass "
            "another path."
        ) from error
    return target


def unpack(file: Path, folder: str | Path | None) -> Path:
    """Extract the project in a zip file atomically, and return its folder.

    Raises
    ------
    ProjectError
        If the file is not a zipped project or contains paths outside its folder, or if the folder is not empty.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members, top = _checked(archive, file)
            target = Path(folder).absolute() if folder is not None else file.absolute().with_name(top or file.stem)
            if _is_taken(target):
                raise ProjectError(
                    f"{target} exists already. Open it with sv.Project({str(target)!r}), or pass another folder to "
                    "extract to."
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            needed = sum(member.file_size for member in members)
            if needed > shutil.disk_usage(target.parent).free:
                raise ProjectError(
                    f"{file} needs {needed / 1e9:.1f} GB, more than is free in {target.parent}. Free disk space first."
                )
            with draft_folder(target) as draft:
                for member in members:
                    extracted = draft / PurePosixPath(member.filename).relative_to(top)
                    extracted.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as source, extracted.open("xb") as handle:
                        shutil.copyfileobj(source, handle)
                _resolve_paths(draft, target, Path(archive.comment.decode(errors="replace")))
                os.replace(draft, target)
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise ProjectError(
            f"{file} cannot be extracted ({error}). Check that it is complete and that there is enough disk space."
        ) from error
    return target


def _members(project: ProjectFolder, arrays: bool) -> Iterator[Path]:
    for folder, folders, files in os.walk(project.path):
        here = Path(folder)
        if here == project.path:
            folders[:] = [name for name in folders if name != "cache" and (arrays or name != "arrays")]
        folders[:] = sorted(name for name in folders if not _TEMPORARY.fullmatch(name))
        for name in sorted(files):
            if not _TEMPORARY.fullmatch(name) and not (here / name).is_symlink():
                yield here / name


def _checked(archive: zipfile.ZipFile, file: Path) -> tuple[list[zipfile.ZipInfo], str]:
    """Return the files of the project in a zip file, and their top folder.

    Raise a `ProjectError` if the zip file contains an unsafe path.
    """
    members = [member for member in archive.infolist() if not member.is_dir()]
    for member in members:
        # A Windows path, since Windows accepts both slashes as separators and has drives.
        path = PureWindowsPath(member.filename)
        if path.anchor or ".." in path.parts or stat.S_ISLNK(member.external_attr >> 16):
            raise ProjectError(
                f"{file} contains the unsafe path {member.filename!r}, so nothing was extracted. "
                "Use a file written by project.save_zip()."
            )
    paths = [PurePosixPath(member.filename) for member in members]
    tops = [path.parent for path in paths if path.name == DOCUMENT and len(path.parts) < 3]
    if len(tops) != 1:
        raise ProjectError(
            f"{file} contains {len(tops)} projects instead of one. Choose a file written by project.save_zip()."
        )
    return [member for member, path in zip(members, paths) if path.is_relative_to(tops[0])], tops[0].name


def _resolve_paths(draft: Path, target: Path, origin: Path) -> None:
    """Make paths absolute that exist only relative to the original project."""

    def resolved(path: Any) -> Any:
        if isinstance(path, list):
            return [resolved(file) for file in path]
        here, there = (Path(os.path.normpath(folder / path)) for folder in (target, origin))
        return path if not path.startswith("..") or here.exists() or not there.exists() else str(there)

    with ProjectFolder(draft).edit_document() as document:
        for entry in document["images"].values():
            entry["image"] = resolved(entry["image"])
            for holder in (entry, *entry.get("replaced", ())):
                holder["mask"] = resolved(holder["mask"])
    (draft / ".project.lock").unlink(missing_ok=True)
