"""Append-only annotation files, one per annotator.

Every edit is synced to disk before it is acknowledged. Only one kernel at a time can write the file of an annotator. If
one kernel opens a project twice, both `Project` objects share the open file.

A row with the action "mask" contains the number of a mask of the image: 0 for the first mask, 1 for its replacement. In
the following rows, object labels refer to that mask. A new mask therefore changes no existing row.
"""

from __future__ import annotations

import csv
import errno
import io
import math
import os
import re
import threading
import weakref
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from svetlana_jupyter.core.annotations import ACTIONS, AnnotationEvent, AnnotationLog
from svetlana_jupyter.core.io.bounded_files import check_regular_file
from svetlana_jupyter.core.io.table_files import escape_formula, unescape_formula
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.file_access import read_csv_rows, refuse_link
from svetlana_jupyter.project.project_document import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

MASK = "mask"  # action of a row with the mask number of an image for the following rows
CSV_COLUMNS = ["time", "action", "edit", "image", "object", "class_id", "z", "y", "x", "box", "source", "seconds"]

_READ_ONLY = "The project is read-only. Copy it to a folder that you can write to, and open the copy."
_RENAMED = {"gesture": "edit", "bad": "bad_segmentation"}  # a column and an action of version 0.1.0

_open_files: weakref.WeakValueDictionary[Path, AnnotationFile] = weakref.WeakValueDictionary()
_opening = threading.Lock()


class AnnotationFile:
    """Annotation file of one annotator, with the log that it contains.

    Attributes
    ----------
    log : AnnotationLog
    trouble : str
        A sentence about a problem with the file, such as an incomplete line or a lock of another kernel; "" without a
        problem.
    """

    def __init__(self, file: Path, writable: bool) -> None:
        self.file = file
        self.trouble = ""
        self._listeners: list[weakref.WeakMethod[Callable[[], None]]] = []
        self._lock_file = file.with_name(f".{file.stem}.lock")
        self._lock = FileLock(self._lock_file, thread_local=False)
        self._handle: io.FileIO | None = None
        self._may_write = writable
        if writable:
            self._open_for_writing()
        self.log = AnnotationLog(read_entries(file))

    @property
    def is_writable(self) -> bool:
        """Whether annotations can be written.

        They cannot if the project is read-only, or if another kernel has opened the file.
        """
        return self._handle is not None

    def add_listener(self, changed: Callable[[], None]) -> None:
        """Call a bound method after every append, until its object is deleted."""
        self._listeners.append(weakref.WeakMethod(changed, self._listeners.remove))

    def ensure_writable(self) -> None:
        """Reopen the file for writing if it was deleted, or locked by another kernel.

        Rows that another kernel has added are read, and rows that are missing from the file are written again.

        Raises
        ------
        ProjectError
            If the file cannot be written, for example because it is still locked; the log is unchanged then.
        """
        if self.has_open_file():
            return
        if not self._may_write:
            raise ProjectError(_READ_ONLY)
        self.close()
        self._open_for_writing()
        if self._handle is None:
            raise ProjectError(self.trouble)
        try:
            in_file, in_log = read_entries(self.file), self.log.events
            ours, theirs = _to_csv(in_log), _to_csv(in_file)
            if theirs.startswith(ours):
                self._follow(in_file[len(in_log) :])
            elif ours.startswith(theirs):
                self._write(ours[len(theirs) :])
            else:
                raise ProjectError(
                    f"{self.file} was changed by another program. Open the project again to use its annotations."
                )
        except ProjectError:
            self.close()
            raise

    def append(self, entries: Iterable[AnnotationEvent]) -> None:
        """Write the events of one edit with a single disk sync, and add them to the log.

        Raises
        ------
        ProjectError
            If the file cannot be written; nothing is changed then.
        """
        entries = list(entries)
        if self._handle is None:
            raise ProjectError(self.trouble or _READ_ONLY)
        self._write(_to_csv(entries, self.log.masks))
        self._follow(entries)

    def _write(self, content: bytes) -> None:
        assert self._handle is not None
        end = self._handle.seek(0, os.SEEK_END)
        try:
            if not self.has_open_file():
                raise OSError(errno.ENOENT, "the file is missing")
            if self._handle.write(content) != len(content):
                raise OSError(errno.ENOSPC, "no space left on the disk")
            os.fsync(self._handle.fileno())
        except OSError as error:
            with suppress(OSError):
                self._handle.truncate(end)
            raise ProjectError(
                f"The annotation could not be written to {self.file} ({error.strerror}). "
                "Free disk space or restore the folder, then annotate again."
            ) from error

    def _follow(self, entries: list[AnnotationEvent]) -> None:
        self.log.append(entries)
        for listener in list(self._listeners):
            if (changed := listener()) is not None:
                changed()

    def has_open_file(self) -> bool:
        """Return whether the open file still exists under its name.

        The file may have been deleted or replaced by another program.
        """
        try:
            return self._handle is not None and os.path.samestat(os.fstat(self._handle.fileno()), self.file.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Close the file and release its lock, so that another kernel can write it."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
        self._lock.release()

    def _open_for_writing(self) -> None:
        try:
            for path in (self.file, self._lock_file, self.file.with_suffix(".torn")):
                refuse_link(path)
            self.file.parent.mkdir(exist_ok=True)
            if self.file.exists():
                check_regular_file(self.file)
            self._lock.acquire(timeout=0)
            self.trouble = _move_incomplete_line(self.file)
            self._handle = self.file.open("ab", buffering=0)
            if self._handle.tell() == 0:
                self._handle.write((",".join(CSV_COLUMNS) + "\n").encode())
                os.fsync(self._handle.fileno())
        except Timeout:
            self.trouble = (
                f"Another notebook is annotating as {self.file.stem!r}, so annotations cannot be saved here. Shut down "
                'its kernel and annotate again, or open the project with another name: annotator="...".'
            )
        except OSError as error:
            self.close()
            self.trouble = (
                f"Annotations cannot be written to {self.file} ({error.strerror or error}). Free disk space or "
                "restore the folder, then annotate again. Saved annotations are not lost."
            )

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:  # the constructor may have failed
            self.close()


def open_annotation_file(folder: Path, annotator: str, writable: bool = True) -> AnnotationFile:
    """Open the annotation file of an annotator.

    If this kernel has opened the file already, the same `AnnotationFile` is returned.
    """
    if not re.fullmatch(r"[\w][\w .@-]*", annotator):
        raise ProjectError(f"Annotator name {annotator!r} is not valid. Use letters, digits, spaces and . @ - _ only.")
    file = folder / f"{annotator}.csv"
    with _opening:
        opened = _open_files.get(key := folder.resolve() / file.name)
        if opened is not None and writable:
            with suppress(ProjectError):
                opened.ensure_writable()
        if opened is None or not opened.has_open_file():
            if opened is not None:
                opened.close()
            _open_files[key] = opened = AnnotationFile(file, writable)
        return opened


def read_other_logs(
    folder: Path, excluding_file: Path, known: Mapping[str, AnnotationLog] | None = None
) -> tuple[dict[str, AnnotationLog], str]:
    """Return the logs of all other annotators of a project.

    A log that this kernel writes is followed; of the others, those in ``known`` are not read again.

    Returns
    -------
    logs : dict of str to AnnotationLog
    problem : str
        A sentence about the first log that cannot be read, which is left out; "" if all can be read.
    """
    logs, problem = dict(known or {}), ""
    for file in sorted(folder.glob("*.csv")):
        opened = _open_files.get(folder.resolve() / file.name)
        if file.name == excluding_file.name or (file.stem in logs and opened is None):
            continue
        try:
            followed = opened is not None and opened.has_open_file()
            logs[file.stem] = opened.log if opened is not None and followed else AnnotationLog(read_entries(file))
        except ProjectError as error:
            problem = problem or str(error)
    return logs, problem


def read_entries(file: Path) -> list[AnnotationEvent]:
    """Read the events in an annotation file.

    A missing file has no events. An incomplete last line is ignored.

    Raises
    ------
    ProjectError
        If the file cannot be read; the error names the line.
    """
    return [entry for _, entry in numbered_entries(file)]


def numbered_entries(file: Path) -> list[tuple[int, AnnotationEvent]]:
    """Read the events in an annotation file with their line numbers."""
    if not os.path.lexists(file):
        return []
    try:
        rows = read_csv_rows(file)
    except (OSError, ValueError) as error:
        raise ProjectError(
            f"{file} cannot be read as annotations: {error}. Correct it or restore it from a backup. To use the "
            'rest of the project meanwhile, open it with another name: annotator="…".'
        ) from error
    entries, masks = list[tuple[int, AnnotationEvent]](), dict[str, int]()
    header = next(rows, (0, []))[1]
    for number, cells in rows:
        row = {_RENAMED.get(name, name): cell for name, cell in zip(header, cells)}
        row["action"] = _RENAMED.get(row.get("action", ""), row.get("action", ""))
        try:
            row |= {name: unescape_formula(row[name]) for name in ("image", "source")}
            if row["action"] == MASK:
                masks[row["image"]] = _integer(row["object"])
            else:
                entries.append((number, _to_entry(row, masks.get(row["image"], 0))))
        except (KeyError, ValueError, TypeError) as error:
            raise ProjectError(
                f"Line {number} of {file} is not an annotation ({error}). Correct or remove that line."
            ) from error
    return entries


def _to_entry(row: dict[str, str], mask: int) -> AnnotationEvent:
    if row["action"] not in ACTIONS:
        raise ValueError(f"unknown action {row['action']!r:.80}")
    if not 1970 <= datetime.fromisoformat(row["time"]).year < 2262:  # the years that pandas can represent
        raise ValueError(f"time {row['time']!r} is out of range")
    if len(row["image"]) > MAX_NAME or len(row["source"]) > MAX_NAME:
        raise ValueError(f"a text has more than {MAX_NAME} characters")
    return AnnotationEvent(
        time=row["time"],
        action=row["action"],  # type: ignore[arg-type]
        edit=_integer(row["edit"]),
        image=row["image"],
        label=_integer(row["object"]),
        class_id=_integer(row["class_id"], least=row["action"] == "label"),
        center=tuple(_finite(row[axis]) for axis in "zyx" if row[axis]),
        box=tuple(map(_integer, row["box"].split())),
        source=row["source"],
        seconds=_finite(row["seconds"]) if row["seconds"] else None,
        mask=mask,
    )


def _integer(text: str, least: int = 0) -> int:
    number = int(text)
    if not least <= number < 2**62:
        raise ValueError(f"{text} is out of range")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _to_csv(entries: Iterable[AnnotationEvent], masks: Mapping[str, int] | None = None) -> bytes:
    """Return events as CSV rows.

    ``masks`` contains the mask number of each image at the end of the rows written before.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    known = dict(masks or {})
    for e in entries:
        image, source = map(escape_formula, (e.image, e.source))
        if e.mask != known.get(e.image, 0):
            known[e.image] = e.mask
            writer.writerow([e.time, MASK, 0, image, e.mask, *[""] * (len(CSV_COLUMNS) - 5)])
        center = ["", "", "", *(f"{value:.2f}" for value in e.center)][-3:]
        seconds = "" if e.seconds is None else f"{e.seconds:.2f}"
        box = " ".join(map(str, e.box))
        writer.writerow([e.time, e.action, e.edit, image, e.label, e.class_id, *center, box, source, seconds])
    return text.getvalue().encode()


def _move_incomplete_line(file: Path) -> str:
    if not file.exists():
        return ""
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) == len(content):
        return ""
    rest = file.with_suffix(".torn")
    with rest.open("ab") as handle:
        handle.write(content[len(whole) :] + b"\n")
    os.truncate(file, len(whole))
    return (
        f"The last line of {file.name} was incomplete, probably after a power failure, and was moved to {rest.name}. "
        "All other annotations are intact."
    )
