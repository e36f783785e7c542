"""The project folder: which file lies where, and how it is written so that a power cut costs nothing.

Every file is either replaced whole (written beside, synced, renamed) or appended to. Readable without this package.

A project folder as one zip file, and back: for machines that forget, such as Binder, and to pass a project on.

The images and masks that lie outside the project are not in it; they are found again by the paths that it lists.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal
from urllib.parse import quote
from uuid import uuid4

from filelock import FileLock

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ProjectError, SettingsError

DOCUMENT = "project.json"
FORMAT_VERSION = 2  # what this package reads; a project is of version 1 until it has a merged class or a replaced mask

Aspect = Literal["classes", "images", "annotations", "predictions", "runs"]


@dataclass(frozen=True)
class Notify:
    """Callbacks through which a part of a project reports to the project; by default nothing happens.

    Attributes
    ----------
    changed : callable
        Called after one aspect of the project has changed.
    status : callable
        Called with a sentence about what was done.
    trouble : callable
        Called with a problem that no call could raise and, optionally, the previous problem: the new one then replaces
        only that one.
    """

    changed: Callable[[Aspect], None] = lambda aspect: None
    status: Callable[[str], None] = lambda text: None
    trouble: Callable[[str, str | None], None] = lambda text, was: None


SILENT = Notify()


class ProjectFolder:
    """Paths and whole-file reads and writes of one project folder.

    Parameters
    ----------
    path : Path
        The folder; made, with an empty ``project.json``, when it does not exist yet.

    Raises
    ------
    ProjectError
        If the folder cannot be made, is not a project, or was written by a newer format version.

    Attributes
    ----------
    writable : bool
    lock : threading.RLock
        Guards everything that changes images, classes, annotations or the test set together, and every read that needs
        several of them to be consistent. Acquire it before the indexing locks of `ImageCollection`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        if self.document_file.exists():
            self.read_document()
            self.writable = _can_write(path)
            return
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ProjectError(
                f"expected a project folder or a new name, but {path} is there and holds no project.json; "
                f"choose another folder, for example {path.with_suffix('.svetlana').name!r}."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._replace(self.document_file, _to_json({"format": 1, "classes": [], "images": {}}))
        except OSError as error:
            raise ProjectError(
                f"the project folder {path} cannot be written to ({error.strerror}); choose a folder of your own."
            ) from error
        self.writable = True

    @property
    def document_file(self) -> Path:
        return self.path / DOCUMENT

    @property
    def settings_file(self) -> Path:
        return self.path / "training.json"

    @property
    def annotations_folder(self) -> Path:
        return self.path / "annotations"

    @property
    def cache_folder(self) -> Path:
        return self.path / "cache"

    @property
    def runs_folder(self) -> Path:
        return self.path / "runs"

    @property
    def sweep_file(self) -> Path:
        return self.path / "sweep.jsonl"

    @property
    def test_set_file(self) -> Path:
        return self.path / "test_set.csv"

    def objects_file(self, image: str) -> Path:
        return self.path / "objects" / f"{file_name(image)}.parquet"

    def measurements_folder(self, image: str) -> Path:
        return self.path / "measurements" / file_name(image)

    def links_file(self, image: str, mask: int) -> Path:
        """Where it stands how the objects of the mask before became those of mask number ``mask``."""
        return self.path / "masks" / f"{file_name(image)}.{mask}.csv"

    def arrays_folder(self, image: str) -> Path:
        return self.path / "arrays" / file_name(image)

    def read_document(self) -> dict[str, Any]:
        """Read ``project.json``; a `ProjectError` if it is broken or newer than this package."""
        try:
            document = json.loads(self.document_file.read_text("utf-8"))
            version = int(document["format"])
        except FileNotFoundError as error:
            raise ProjectError(
                f"the project folder {self.path} is not there any more, or not whole; bring it back and try again. "
                "Nothing that was annotated before is lost."
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProjectError(
                f"{self.document_file} is no readable project.json ({error}); restore it from a backup."
            ) from error
        if version > FORMAT_VERSION:
            raise ProjectError(
                f"{self.path} was written by a newer version of svetlana_jupyter (format {version}, this one reads up "
                f"to {FORMAT_VERSION}); update with: pip install -U svetlana-jupyter"
            )
        return dict(document)

    @contextmanager
    def edit_document(self, min_version: int = 1) -> Iterator[dict[str, Any]]:
        """Read ``project.json``, let the caller change it, write it back; one kernel at a time.

        Parameters
        ----------
        min_version : int
            The oldest format version that can tell what is written.
        """
        self.check_writable()
        with self._writing(self.document_file), FileLock(self.path / ".project.lock"):
            document = self.read_document()
            yield document
            document["format"] = max(int(document["format"]), min_version)
            self._replace(self.document_file, _to_json(document))

    def read_settings(self) -> TrainingSettings:
        """Read ``training.json``, which may be edited by hand; the default settings if it does not exist."""
        if not self.settings_file.exists():
            return TrainingSettings()
        try:
            return TrainingSettings.from_json(self.settings_file.read_text("utf-8"))
        except SettingsError as error:
            raise SettingsError(f"{self.settings_file}: {error}") from error

    def write_settings(self, settings: TrainingSettings) -> None:
        """Write ``training.json``."""
        self.write_text(self.settings_file, settings.to_json() + "\n")

    def write_text(self, file: Path, text: str) -> None:
        """Write a text file whole."""
        self.check_writable()
        with self._writing(file):
            file.parent.mkdir(exist_ok=True)
            self._replace(file, text)

    @contextmanager
    def _writing(self, file: Path) -> Iterator[None]:
        try:
            if not self.path.is_dir():  # a lock would make it anew, in the way of the one that comes back
                raise OSError(errno.ENOENT, "the project folder is gone")
            yield
        except OSError as error:
            raise ProjectError(
                f"{file} could not be written ({error.strerror or error}), so nothing has changed; "
                "make room or bring the folder back, then try again."
            ) from error

    def check_writable(self) -> None:
        if not self.writable:
            raise ProjectError(
                f"the project folder {self.path} is read-only, so nothing can be kept there; "
                "copy it to a folder of your own and open that."
            )

    def relative(self, path: Path) -> str:
        """Return how ``path`` is written in the project: relative where it lies beside or below the project."""
        path = path.absolute()
        if path.is_relative_to(self.path.parent):
            return Path(os.path.relpath(path, self.path)).as_posix()
        return str(path)

    def absolute(self, text: str) -> Path:
        """Turn what `relative` wrote into a path."""
        return Path(os.path.normpath(self.path / text))

    def _replace(self, file: Path, text: str) -> None:
        with atomic_write(file) as beside:
            beside.write_text(text, "utf-8")


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Give a path beside ``file`` to write to; it takes the place of ``file`` only when the block ends well."""
    beside = draft_path(file)
    try:
        yield beside
        sync(beside)
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)


def file_name(name: str) -> str:
    """Return ``name`` as a file name that any system takes; different names stay different."""
    written = quote(name, safe=" ()+,-=@_")
    return f"%2E{written[1:]}" if written.startswith(".") else written


def draft_path(path: Path) -> Path:
    """Return a hidden name beside ``path``, free to write to until the draft takes its place."""
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}")


def sync(file: Path) -> None:
    """Wait until a file is on the disk."""
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _to_json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


_PASSING = re.compile(r"\..+\.([0-9a-f]{8}|lock)")  # drafts and locks


def pack(store: ProjectFolder, path: str | Path | None, arrays: bool) -> Path:
    """Write the project to a zip file, whole or not at all, and return where it is."""
    name = f"{store.path.name}.zip"
    target = store.path.with_name(name) if path is None else Path(path).absolute()
    target = target / name if target.is_dir() else target
    try:
        with atomic_write(target) as beside, zipfile.ZipFile(beside, "w", strict_timestamps=False) as archive:
            archive.comment = str(store.path).encode()
            for file in _members(store, arrays):
                if file not in (target, beside):
                    inside = file.relative_to(store.path)
                    packed = inside.parts[0] == "arrays"  # their chunks are compressed already
                    archive.write(
                        file,
                        str(PurePosixPath(store.path.name, inside.as_posix())),
                        zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED,
                    )
    except OSError as error:
        raise ProjectError(
            f"the project could not be saved to {target} ({error.strerror or error}); make room, or give another path."
        ) from error
    return target


def unpack(file: Path, folder: str | Path | None) -> Path:
    """Write the project in a zip file to a folder of its own, whole or not at all, and return that folder.

    Raises
    ------
    ProjectError
        If it is no such file, if it names places outside the folder, or if there is something in the folder already.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members, top = _checked(archive, file)
            target = Path(folder).absolute() if folder is not None else file.absolute().with_name(top or file.stem)
            if target.exists() and (not target.is_dir() or any(target.iterdir())):
                raise ProjectError(
                    f"{target} is there already; open it with sv.Project({str(target)!r}), or give another folder to "
                    "unpack to."
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            needed = sum(member.file_size for member in members)
            if needed > shutil.disk_usage(target.parent).free:
                raise ProjectError(
                    f"{file} needs {needed / 1e9:.1f} GB, more than there is room for in {target.parent}."
                )
            draft = draft_path(target)
            try:
                for member in members:
                    _extract(archive, member, draft / PurePosixPath(member.filename).relative_to(top))
                _find_images_again(draft, target, Path(archive.comment.decode(errors="replace")))
                os.replace(draft, target)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise ProjectError(f"{file} cannot be unpacked ({error}); is it complete, and is there room?") from error
    return target


def _members(store: ProjectFolder, arrays: bool) -> Iterator[Path]:
    for folder, folders, files in os.walk(store.path):
        here = Path(folder)
        if here == store.path:
            folders[:] = [name for name in folders if name != "cache" and (arrays or name != "arrays")]
        folders[:] = sorted(name for name in folders if not _PASSING.fullmatch(name))
        for name in sorted(files):
            if not _PASSING.fullmatch(name) and not (here / name).is_symlink():
                yield here / name


def _checked(archive: zipfile.ZipFile, file: Path) -> tuple[list[zipfile.ZipInfo], str]:
    """Return the project's files in a zip and the folder in it that they lie in; refuse what could do harm."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    for member in members:
        # As Windows reads it, which takes both slashes for separators and knows drives.
        path = PureWindowsPath(member.filename)
        if path.anchor or ".." in path.parts or stat.S_ISLNK(member.external_attr >> 16):
            raise ProjectError(
                f"{file} names {member.filename!r}, which leads out of its folder; nothing was unpacked. "
                "Ask whoever made it for one that project.save_zip() wrote."
            )
    tops = [PurePosixPath(member.filename).parent for member in members]
    found = [
        top
        for member, top in zip(members, tops)
        if PurePosixPath(member.filename).name == DOCUMENT and len(top.parts) < 2
    ]
    if len(found) != 1:
        raise ProjectError(f"expected one project in {file}, found {len(found)}; choose a file of project.save_zip().")
    inside = [member for member in members if PurePosixPath(member.filename).is_relative_to(found[0])]
    return inside, found[0].name


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as handle:
        shutil.copyfileobj(source, handle)


def _find_images_again(draft: Path, target: Path, origin: Path) -> None:
    """Where a path is relative to where the project lay, and leads to a file from there alone, write it in full."""
    store = ProjectFolder(draft)

    def found(path: str) -> str:
        here, there = (Path(os.path.normpath(folder / path)) for folder in (target, origin))
        if not path.startswith("..") or here.exists() or not there.exists():
            return path
        return str(there)

    with store.edit_document() as document:
        for entry in document["images"].values():
            _change_paths(entry, found)
    (draft / ".project.lock").unlink(missing_ok=True)


def _change_paths(entry: dict[str, Any], change: Callable[[str], str]) -> None:
    image = entry["image"]
    entry["image"] = change(image) if isinstance(image, str) else [change(path) for path in image]
    entry["mask"] = change(entry["mask"])
    for former in entry.get("replaced", ()):
        former["mask"] = change(former["mask"])
