"""Detection of image and mask files that another program has changed.

The version of a file (size and times) costs one call of ``stat``. Only if it differs from the version that the project
knows, the content is compared: by a hash of files up to 16 MiB, by size and modification time of larger files, and by a
hash of the pixels for images that were predicted. The hashes are kept in ``objects/<image>.json``, next to the object
table; this file may be deleted at any time.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from svetlana_jupyter.core.io.file_versions import SourceVersion, pixel_hash, source_version
from svetlana_jupyter.core.io.images import fingerprint
from svetlana_jupyter.core.io.readers import hdf5_file
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.file_access import read_json, refuse_link
from svetlana_jupyter.project.storage import draft_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from xarray import DataArray

    from svetlana_jupyter.project.image_entry import ImageEntry
    from svetlana_jupyter.project.storage import ProjectFolder

Role = Literal["image", "mask"]
ROLES: tuple[Role, ...] = ("image", "mask")
LIVE_SECONDS = 1.0
DRAWING_SECONDS = 10.0


class _Window(threading.local):
    # Not a context variable: timers that are started within a block would inherit it.
    valid_since = math.inf


_window = _Window()


@contextmanager
def checked_once(max_age: float = 0.0) -> Iterator[None]:
    """Look at each file at most once until the end of the block.

    Parameters
    ----------
    max_age : float
        Seconds; files that were looked at that short a time before the block are not looked at again.
    """
    before = _window.valid_since
    _window.valid_since = min(before, time.monotonic() - max_age)
    try:
        yield
    finally:
        _window.valid_since = before


def checked_live() -> AbstractContextManager[None]:
    """Look at each file at most once per second, for work that follows the mouse."""
    return checked_once(LIVE_SECONDS)


def checked_lately() -> AbstractContextManager[None]:
    """Look at each file at most once per ten seconds, for drawing.

    An image of many chunks has thousands of files. Writing a label looks at them again.
    """
    return checked_once(DRAWING_SECONDS)


@dataclass(frozen=True)
class FileState:
    """An image of the project, and the versions of its files.

    Attributes
    ----------
    entry : ImageEntry
    image, mask : SourceVersion
    """

    entry: ImageEntry
    image: SourceVersion
    mask: SourceVersion

    def has_same_mask(self, other: FileState | None) -> bool:
        """Return whether the mask has the same number and version in another state."""
        return other is not None and (self.entry.replaced, self.mask) == (other.entry.replaced, other.mask)


@dataclass(frozen=True)
class _Content:
    """Hashes of the content of a source.

    Attributes
    ----------
    version : SourceVersion
    read : float
        Time at which the content was read, in seconds since 1970.
    file, pixels : str
        Fingerprint of the files, and hash of the pixels; "" if the latter was not needed yet.
    """

    version: SourceVersion
    read: float
    file: str
    pixels: str = ""


class KnownFiles:
    """Versions and hashes of the files of all images of a project.

    Parameters
    ----------
    folder : ProjectFolder
    paths : callable
        Returns the absolute path, or paths, of an image or mask as written in ``project.json``.
    """

    def __init__(self, folder: ProjectFolder, paths: Callable[[Any], Path | tuple[Path, ...]]) -> None:
        self._folder, self._paths = folder, paths
        self._states: dict[str, tuple[float, FileState]] = {}
        self._stat_paths: dict[str, tuple[ImageEntry, list[str], list[str]]] = {}
        self._contents: dict[tuple[str, Role], _Content] = {}

    def state(self, entry: ImageEntry) -> FileState:
        """Return the versions of the files of an image, with one ``stat`` per file.

        A missing file has the version that it had before: reading it reports that it is missing.
        """
        checked, known = self._states.get(entry.name, (-math.inf, None))
        if known is not None and known.entry != entry:
            known = None
        if known is not None and checked >= _window.valid_since:
            return known
        now, versions = time.monotonic(), [source_version(files) for files in self._files_of(entry)]
        if known is not None:
            before = known.image, known.mask
            versions = [new if new.text else replace(old, changed=-math.inf) for new, old in zip(versions, before)]
        state = FileState(entry, *versions)
        self._states[entry.name] = now, state
        return state

    def content_hash(self, state: FileState, role: Role) -> str:
        """Return the fingerprint of an image or mask; "" if a file is missing."""
        return self._content(state, role).file

    def pixel_hash(self, state: FileState, image: Callable[[], DataArray]) -> str:
        """Return a hash of the pixels of an image (`core.io.file_versions.pixel_hash`)."""
        known = self._content(state, "image")
        if not known.pixels and known.file:
            known = replace(known, pixels=pixel_hash(image()))
            self._keep(state.entry.name, "image", known)
        return known.pixels

    def _files_of(self, entry: ImageEntry) -> tuple[list[str], list[str]]:
        known = self._stat_paths.get(entry.name)
        if known is None or known[0] != entry:
            image, mask = (_files(self._paths(source)) for source in (entry.image, entry.mask))
            self._stat_paths[entry.name] = known = entry, image, mask
        return known[1:]

    def _content(self, state: FileState, role: Role) -> _Content:
        name, version = state.entry.name, state.image if role == "image" else state.mask
        if (name, role) not in self._contents:  # one file holds both
            for kept, content in self._read(name).items():
                self._contents.setdefault((name, kept), content)
        known = self._contents.get((name, role))
        if not version.text:
            return _Content(version, 0.0, "")
        if known is not None and known.version == version and version.identifies_content_read_at(known.read):
            self._contents[name, role] = known
            return known
        now = time.time()
        file = fingerprint(self._paths(state.entry.image if role == "image" else state.entry.mask))
        pixels = known.pixels if known is not None and known.file == file else ""
        content = _Content(version, now, file, pixels)
        if known is not None and (known.version, known.file) == (version, file):
            self._contents[name, role] = content
        else:
            self._keep(name, role, content)
        return content

    def _keep(self, name: str, role: Role, content: _Content) -> None:
        """Keep hashes in memory, and next to the object table if there is one."""
        self._contents[name, role] = content
        file = self._file(name)
        if self._folder.writable and file.parent.is_dir():
            kept = self._read(name) | {role: content}
            document = {
                role: {"version": one.version.text, "read": one.read, "file": one.file, "pixels": one.pixels}
                for role, one in kept.items()
            }
            draft = draft_path(file)
            with suppress(OSError, ProjectError):  # only a cache: reading must work on a full disk, or with a link
                refuse_link(file)
                draft.write_text(json.dumps(document), "utf-8")
                os.replace(draft, file)

    def _read(self, name: str) -> dict[Role, _Content]:
        kept: dict[Role, _Content] = {}
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # damaged: the content is read again
            document = read_json(self._file(name))
            for role in ROLES:
                if role in document:
                    one = document[role]
                    version, file, pixels = (str(one[key]) for key in ("version", "file", "pixels"))
                    kept[role] = _Content(SourceVersion(version), float(one["read"]), file, pixels)
        return kept

    def _file(self, name: str) -> Path:
        return self._folder.objects_file(name).with_suffix(".json")


def _files(paths: Path | tuple[Path, ...]) -> list[str]:
    """Return the files of a source; for the dataset of an HDF5 file, the file."""
    return [str(hdf5_file(path) or path) for path in (paths if isinstance(paths, tuple) else (paths,))]
