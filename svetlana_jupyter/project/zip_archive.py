"""Project as a zip file: saving, checking and extracting."""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from svetlana_jupyter.core.io.bounded_files import check_regular_file
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.file_access import DOCUMENT, is_link, is_present
from svetlana_jupyter.project.storage import ProjectFolder, atomic_write, draft_folder, is_taken

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MEMBERS = 100_000  # files in a zip file
MAX_FREE_FRACTION = 0.9  # of the free disk space that an extracted project may take

_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8}|lock)")  # drafts and locks


def pack(project: ProjectFolder, path: str | Path | None, arrays: bool) -> Path:
    """Write the project to a zip file, and return its path.

    The file is written next to the target and read back before it replaces an earlier file.

    Raises
    ------
    ProjectError
        If the project is missing, incomplete or has too many files, or if the file cannot be written.
    """
    project.read_document()
    name = f"{project.path.name}.zip"
    target = project.path.with_name(name) if path is None else Path(path).absolute()
    target = target / name if target.is_dir() else target
    target = target.parent.resolve() / target.name
    try:
        with atomic_write(target) as draft:
            members = [file for file in _members(project, arrays) if file not in (target, draft)]
            if len(members) > MAX_MEMBERS:
                raise ProjectError(
                    f"The project has {len(members):,} files, but a zip file may have {MAX_MEMBERS:,}. Leave out the "
                    "stored arrays with project.save_zip(arrays=False), or copy the folder."
                )
            _write_members(project, members, draft)
            _read_back(project, members, draft)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ProjectError(
            f"The project could not be saved to {target} ({reason}). Free disk space, or pass another path."
        ) from error
    return target


def _write_members(project: ProjectFolder, members: list[Path], draft: Path) -> None:
    with zipfile.ZipFile(draft, "w", strict_timestamps=False) as archive:
        archive.comment = str(project.path).encode()
        for file in members:
            check_regular_file(file)
            inside = file.relative_to(project.root)
            packed = inside.parts[0] == "arrays"  # the chunks of arrays are already compressed
            method = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            archive.write(file, (project.path.name / inside).as_posix(), method)


def _read_back(project: ProjectFolder, members: list[Path], draft: Path) -> None:
    """Raise an error if a zip file is damaged or the project has vanished."""
    with zipfile.ZipFile(draft) as archive:
        if (damaged := archive.testzip()) is not None:
            raise OSError(f"{damaged} was not written correctly")
        names = {PurePosixPath(name).relative_to(project.path.name) for name in archive.namelist()}
    if not is_present(project.document_file) or PurePosixPath(DOCUMENT) not in names or len(names) < len(members):
        raise OSError("the project folder vanished meanwhile")


def unpack(file: Path, folder: str | Path | None) -> Path:
    """Extract the project in a zip file atomically, and return its folder.

    Raises
    ------
    ProjectError
        If the file is not a zipped project or contains paths outside its folder, or if the folder is not empty.
    """
    try:
        check_regular_file(file)
        with zipfile.ZipFile(file) as archive:
            members, top = _checked(archive, file)
            target = Path(folder).absolute() if folder is not None else file.absolute().with_name(top or file.stem)
            if is_taken(target):
                raise ProjectError(
                    f"{target} exists already. Open it with sv.Project({str(target)!r}), or pass another folder to "
                    "extract to."
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            target = target.parent.resolve() / target.name
            _check_space(members, file, target.parent)
            with draft_folder(target) as draft:
                for member in members:
                    _extract(archive, member, draft / PurePosixPath(member.filename).relative_to(top))
                _resolve_paths(draft, target, Path(archive.comment.decode(errors="replace")))
                os.replace(draft, target)
    except ProjectError:
        raise
    except Exception as error:  # a damaged archive fails in any part of zipfile
        raise ProjectError(
            f"{file} cannot be extracted ({error}). Check that it is complete and that there is enough disk space."
        ) from error
    return target


def _check_space(members: list[zipfile.ZipInfo], file: Path, folder: Path) -> None:
    needed, free = sum(member.file_size for member in members), shutil.disk_usage(folder).free
    if needed > MAX_FREE_FRACTION * free:
        raise ProjectError(
            f"{file} needs {needed / 1e9:.1f} GB, more than {MAX_FREE_FRACTION:.0%} of the {free / 1e9:.1f} GB that "
            f"is free in {folder}. Free disk space first."
        )


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Extract one file; raise an error if it is longer than the zip file states."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as handle:
        remaining = member.file_size + 1
        while block := source.read(min(remaining, 1 << 20)):
            handle.write(block)
            if (remaining := remaining - len(block)) <= 0:
                raise OSError(f"{member.filename} is longer than the zip file states")


def _members(project: ProjectFolder, arrays: bool) -> Iterator[Path]:
    for folder, folders, files in os.walk(project.root):
        here = Path(folder)
        if here == project.root:
            folders[:] = [
                name for name in folders if name not in ("cache", "features") and (arrays or name != "arrays")
            ]
        folders[:] = sorted(name for name in folders if not _TEMPORARY.fullmatch(name) and not is_link(here / name))
        for name in sorted(files):
            if not _TEMPORARY.fullmatch(name) and not is_link(here / name):
                yield here / name


def _checked(archive: zipfile.ZipFile, file: Path) -> tuple[list[zipfile.ZipInfo], str]:
    """Return the files of the project in a zip file, and their top folder.

    Raise a `ProjectError` if the zip file contains an unsafe path.
    """
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(archive.infolist()) > MAX_MEMBERS:
        raise ProjectError(
            f"{file} contains {len(archive.infolist()):,} files, more than {MAX_MEMBERS:,}. Use a file written by "
            "project.save_zip()."
        )
    for member in members:
        # A Windows path, since Windows accepts both slashes as separators and has drives.
        path = PureWindowsPath(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if path.anchor or ".." in path.parts or kind not in (0, stat.S_IFREG):
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
