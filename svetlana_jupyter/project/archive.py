"""A project folder as one zip file, and back: for machines that forget, such as Binder, and to pass a project on.

The images and masks that lie outside the project are not in it; they are found again by the paths that it lists.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.store import DOCUMENT, ProjectFolder, atomic_write, draft_path

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
