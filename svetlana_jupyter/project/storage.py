"""Project folder: paths, checks, and atomic writes.

Every file is either replaced as a whole (written to a draft, synced, renamed) or appended to, so that saved data
survive a power failure. All files are readable without this package.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote
from uuid import uuid4

from filelock import FileLock

from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ProjectError, SettingsError
from svetlana_jupyter.project.file_access import (
    DOCUMENT,
    find_link,
    is_present,
    links_below,
    make_folder,
    read_json,
    read_text,
    refuse_link,
)
from svetlana_jupyter.project.project_document import check_document, format_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd

FORMAT_VERSION = 3  # of what this version writes; versions 1 and 2 have other names in settings and annotations
ESSENTIAL = ("training.json", "sweep.jsonl", "test_set.csv", "annotations", "runs")  # no link may stand for these

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
        If the folder cannot be created, is not a project, has a newer format version, or if its document, settings,
        logs or test set are links.

    Attributes
    ----------
    path : Path
        The folder as the user named it.
    root : Path
        The folder itself, which ``path`` may reach through links. Links inside it are not followed.
    link_warning : str
        A sentence about links inside the folder; "" if there are none.
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
    features_folder : Path
        The features of all objects, which are computed again if they were deleted.
    cache_folder : Path or None
        Caches, which are rebuilt if they were deleted; None if there are links in their place.
    writable : bool
    lock : threading.RLock
        Lock for changes of images, classes, annotations or test set, and for reading several of these in a consistent
        state. Acquire it before the indexing locks of `ImageCollection`.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, path.resolve()
        self.lock = threading.RLock()
        self.link_warning = ""
        root = self.root
        self.document_file, self.settings_file = root / DOCUMENT, root / "training.json"
        self.sweep_file, self.test_set_file = root / "sweep.jsonl", root / "test_set.csv"
        self.annotations_folder = root / "annotations"
        self.runs_folder = root / "runs"
        self.features_folder = root / "features"
        self.cache_folder: Path | None = root / "cache"
        if os.path.lexists(self.document_file):
            self._check_links()
            self.read_document()
            self.writable = _can_write(root)
            return
        if is_taken(path):
            raise ProjectError(
                f"{path} exists and is not a project folder: it contains no project.json. "
                f"Choose another folder, for example {path.with_suffix('.svetlana').name!r}."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_json(self.document_file, {"format": FORMAT_VERSION, "classes": [], "images": {}})
        except OSError as error:
            raise ProjectError(
                f"Project folder {path} cannot be created ({error.strerror}). Choose a folder that you can write to."
            ) from error
        self.writable = True

    def _check_links(self) -> None:
        """Refuse links in place of essential files, and describe other links."""
        links = [link.relative_to(self.root) for link in links_below(self.root)]
        for link in links:
            if link.parts[0] == DOCUMENT or (link.parts[0] in ESSENTIAL and (len(link.parts) == 1 or _is_log(link))):
                raise ProjectError(
                    f"{self.root / link} is a link. Links inside a project folder are not followed, because they may "
                    "lead to files of other people. Put the file or folder itself there, and open the project again."
                )
        if any(link.parts[0] == "cache" for link in links):
            self.cache_folder = None
        if links:
            self.link_warning = (
                f"Links inside the project folder are not followed and count as missing ({len(links):,}): "
                f"{format_list(map(Path.as_posix, links), 3)}. Put the files themselves there."
            )

    def objects_file(self, image: str) -> Path:
        """Return the file of an image's object table."""
        return self.root / "objects" / f"{file_name(image)}.parquet"

    def measurements_folder(self, image: str) -> Path:
        """Return the folder of an image's measurements."""
        return self.root / "measurements" / file_name(image)

    def links_file(self, image: str, mask: int) -> Path:
        """Return the file of the links between two successive masks.

        The links connect the objects of mask number ``mask`` with the objects of the previous mask.
        """
        return self.root / "masks" / f"{file_name(image)}.{mask}.csv"

    def arrays_folder(self, image: str) -> Path:
        """Return the folder of the arrays of an image."""
        return self.root / "arrays" / file_name(image)

    def read_document(self) -> dict[str, Any]:
        """Read ``project.json``.

        Raise a `ProjectError` if the file is missing or damaged, or if a newer version of this package wrote it.
        """
        try:
            document = read_json(self.document_file, strict=True)
            version = format_of(document)
        except FileNotFoundError as error:
            raise ProjectError(
                f"Project folder {self.path} is missing or incomplete, so nothing was changed. Restore it and "
                "try again. Saved annotations are not lost."
            ) from error
        except (OSError, ValueError) as error:
            raise ProjectError(f"{self.document_file} cannot be read ({error}). Restore it from a backup.") from error
        if version > FORMAT_VERSION:
            raise ProjectError(
                f"{self.path} was written by a newer version of svetlana_jupyter (format {version}; this version reads "
                f"up to {FORMAT_VERSION}). Update it with: pip install -U svetlana-jupyter"
            )
        try:
            return check_document(document)
        except ValueError as error:
            raise ProjectError(
                f"{self.document_file} cannot be used: {error}. Correct it, or restore it from a backup."
            ) from error

    @contextmanager
    def edit_document(self) -> Iterator[dict[str, Any]]:
        """Read ``project.json``, let the caller change it, and write it back.

        A file lock ensures that only one kernel at a time edits the file.
        """
        self.check_writable()
        lock = self.root / ".project.lock"
        refuse_link(lock)
        with self.writing(self.document_file), FileLock(lock):
            document = self.read_document()
            yield document
            document["format"] = FORMAT_VERSION
            write_json(self.document_file, document)

    def read_settings(self) -> TrainingSettings:
        """Read the training settings from ``training.json``.

        Users may edit this file. The default settings are returned if it does not exist.
        """
        try:
            return TrainingSettings.from_json(read_text(self.settings_file))
        except FileNotFoundError:
            return TrainingSettings()
        except (OSError, ValueError) as error:  # a SettingsError is a ValueError
            advice = "" if isinstance(error, SettingsError) else " Correct or remove the file."
            raise SettingsError(f"{self.settings_file}: {str(error).removesuffix('.')}.{advice}") from error

    def write_text(self, file: Path, text: str) -> None:
        """Write a text file atomically."""
        self.check_writable()
        with self.writing(file):
            _write_text(file, text)

    @contextmanager
    def writing(self, file: Path) -> Iterator[None]:
        """Raise a `ProjectError` if the file or folder cannot be written."""
        try:
            if not self.root.is_dir():  # FileLock would create the folder, and then the user could not restore it
                raise OSError(errno.ENOENT, "the project folder is missing")
            yield
        except OSError as error:
            raise ProjectError(
                f"{file} could not be written ({error.strerror or error}), so nothing was changed. "
                "Free disk space or restore the folder, then try again."
            ) from error

    def check_writable(self) -> None:
        """Raise a `ProjectError` if the folder is read-only or missing."""
        if not is_present(self.document_file):
            self.read_document()  # raises the error that names the problem
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
        for folder in (self.path, self.root):
            if path.is_relative_to(folder.parent):
                return Path(os.path.relpath(path, folder)).as_posix()
        return str(path)

    def absolute(self, text: str) -> Path:
        """Return the absolute path of a path written by `relative`."""
        path = Path(os.path.normpath(self.path / text))
        return self.root / path.relative_to(self.path) if path.is_relative_to(self.path) else path

    def own_link(self, path: Path) -> Path | None:
        """Return the first link inside the project on the way to a path or below it.

        The result is None without such a link, and for paths outside the project, which may contain links.
        """
        if not path.is_relative_to(self.root):
            return None
        link = find_link(path)
        return link or (next(links_below(path), None) if path.is_dir() else None)


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Yield a draft path to write to, which replaces ``file`` if no error occurs.

    A link in place of the file is refused with a `ProjectError`.
    """
    refuse_link(file)
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
    refuse_link(path)
    draft = draft_path(path)
    if not draft.parent.is_dir():
        make_folder(draft.parent)
    draft.mkdir()
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
    """Write an indented JSON file atomically, with null instead of NaN."""
    _write_text(file, json.dumps(_without_nan(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_parquet(file: Path, table: pd.DataFrame) -> None:
    """Write a table to a Parquet file atomically; create its folder if needed."""
    refuse_link(file)
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


def _is_log(link: Path) -> bool:
    return link.parts[0] == "annotations"


def is_taken(path: Path) -> bool:
    """Return whether a path is a file, or a folder with content."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))
