"""The annotation files: one a person, only ever appended to, synced before anything is acknowledged.

One kernel writes an annotator's file at a time; projects opened twice in one kernel share the same book.

A row with the action "mask" says that the rows below it number the image's objects as its mask of that number does (0
is the first, 1 the one that replaced it): so a new segmentation changes no row.

Who said what of which object: the annotator's own book, the books of others, and what they agree on.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from svetlana_jupyter.core.annotations import ACTIONS, AnnotationEvent, AnnotationLog
from svetlana_jupyter.errors import ProjectError

MASK = "mask"  # the action of a row that says which mask of an image the rows below it speak of
COLUMNS = ["time", "action", "edit", "image", "object", "class_id", "z", "y", "x", "box", "source", "seconds"]

_RENAMED = {"gesture": "edit", "bad": "bad_segmentation"}  # a column and an action, as version 0.1.0 wrote them

_open_files: weakref.WeakValueDictionary[Path, AnnotationFile] = weakref.WeakValueDictionary()
_opening = threading.Lock()


class AnnotationFile:
    """One annotator's file and the log it holds.

    Attributes
    ----------
    log : AnnotationLog
    trouble : str
        A sentence when something about the file deserves one: read-only here, or a torn line that was set aside.
    """

    def __init__(self, file: Path, writable: bool) -> None:
        self.file = file
        self.trouble = ""
        self._listeners: list[weakref.WeakMethod[Callable[[], None]]] = []
        self._lock = FileLock(file.with_name(f".{file.stem}.lock"), thread_local=False)
        self._handle: io.FileIO | None = None
        self._may_write = writable
        if writable:
            self._open_for_writing()
        self.log = AnnotationLog(read_entries(file))

    @property
    def writable(self) -> bool:
        return self._handle is not None

    def add_listener(self, changed: Callable[[], None]) -> None:
        """Call the bound method ``changed`` after every append, for as long as its owner lives."""
        self._listeners.append(weakref.WeakMethod(changed))

    def ensure_writable(self) -> None:
        """Make sure that the file can be written: again after it was gone, or after another kernel let go of it.

        Rows that another kernel wrote meanwhile are followed; rows that the file lost are written again.

        Raises
        ------
        ProjectError
            If that cannot be; what was said before is still in the log.
        """
        if self.has_open_file():
            return
        if not self._may_write:
            raise ProjectError("the project is read-only, so annotations cannot be kept.")
        self.close()
        self._open_for_writing()
        if self._handle is None:
            raise ProjectError(self.trouble)
        try:
            written, known = read_entries(self.file), self.log.events
            ours, theirs = _to_csv(known), _to_csv(written)
            if theirs.startswith(ours):
                self._follow(written[len(known) :])
            elif ours.startswith(theirs):
                self._write(ours[len(theirs) :])
            else:
                raise ProjectError(
                    f"{self.file} holds other annotations than were seen here; open the project again to use them."
                )
        except ProjectError:
            self.close()
            raise

    def append(self, entries: Iterable[AnnotationEvent]) -> None:
        """Write rows of one edit with one sync, then follow them.

        Raises
        ------
        ProjectError
            If the file is read-only here or the disk refuses; then nothing has changed.
        """
        entries = list(entries)
        if self._handle is None:
            raise ProjectError(self.trouble or "the project is read-only, so annotations cannot be kept.")
        self._write(_to_csv(entries, self.log.masks))
        self._follow(entries)

    def _write(self, content: bytes) -> None:
        assert self._handle is not None
        end = self._handle.seek(0, os.SEEK_END)
        try:
            if not self.has_open_file():
                raise OSError(errno.ENOENT, "the file is gone")
            if self._handle.write(content) != len(content):
                raise OSError(errno.ENOSPC, "no space left on the disk")
            os.fsync(self._handle.fileno())
        except OSError as error:
            with suppress(OSError):
                self._handle.truncate(end)
            raise ProjectError(
                f"the annotation could not be written to {self.file} ({error.strerror}); "
                "make room or restore the folder, then annotate again."
            ) from error

    def _follow(self, entries: list[AnnotationEvent]) -> None:
        self.log.append(entries)
        for listener in list(self._listeners):
            changed = listener()
            if changed is None:
                self._listeners.remove(listener)
            else:
                changed()

    def has_open_file(self) -> bool:
        """Whether what is open for writing is still the file of that name, not one deleted meanwhile."""
        try:
            return self._handle is not None and os.path.samestat(os.fstat(self._handle.fileno()), self.file.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Let go of the file, so that another kernel may write it."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
        self._lock.release()

    def _open_for_writing(self) -> None:
        try:
            self.file.parent.mkdir(exist_ok=True)
            self._lock.acquire(timeout=0)
            self.trouble = _set_torn_line_aside(self.file)
            self._handle = self.file.open("ab", buffering=0)
            if self._handle.tell() == 0:
                self._handle.write((",".join(COLUMNS) + "\n").encode())
                os.fsync(self._handle.fileno())
        except Timeout:
            self.trouble = (
                f"another notebook is annotating as {self.file.stem!r}, so this one only reads; shut its kernel down "
                'and annotate again, or open the project under another name with annotator="...".'
            )
        except OSError as error:
            self.close()
            self.trouble = (
                f"annotations cannot be written to {self.file} ({error.strerror}), so nothing new is kept; "
                "make room or bring the folder back, then annotate again. Nothing that was annotated before is lost."
            )

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:  # the constructor may have failed
            self.close()


def open_annotation_file(folder: Path, annotator: str, writable: bool = True) -> AnnotationFile:
    """Open an annotator's file in ``folder``, or return the book that this kernel has open already."""
    if not re.fullmatch(r"[\w][\w .@-]*", annotator):
        raise ProjectError(
            f"an annotator's name may hold letters, digits, blanks and . @ - _, got {annotator!r}; choose another."
        )
    file = folder / f"{annotator}.csv"
    with _opening:
        book = _open_files.get(file)
        if book is not None and book.has_open_file():
            return book
        if book is not None:
            book.close()
        book = AnnotationFile(file, writable)
        _open_files[file] = book
        return book


def read_other_logs(folder: Path, excluding_file: Path) -> dict[str, AnnotationLog]:
    """Read the logs of all other annotators of a project."""
    return {
        file.stem: AnnotationLog(read_entries(file)) for file in sorted(folder.glob("*.csv")) if file != excluding_file
    }


def read_entries(file: Path) -> list[AnnotationEvent]:
    """Read an annotation file; a last line without its end is left out, a missing file is empty."""
    if not file.exists():
        return []
    whole, _, _ = file.read_text("utf-8").rpartition("\n")
    entries, masks = [], dict[str, int]()
    header, *rows = csv.reader(io.StringIO(whole, newline="")) if whole else ([],)
    for number, cells in enumerate(rows, 2):
        row = {_RENAMED.get(name, name): cell for name, cell in zip(header, cells)}
        row["action"] = _RENAMED.get(row.get("action", ""), row.get("action", ""))
        try:
            if row["action"] == MASK:
                masks[row["image"]] = int(row["object"])
            else:
                entries.append(_to_entry(row, masks.get(row["image"], 0)))
        except (KeyError, ValueError, TypeError) as error:
            raise ProjectError(
                f"line {number} of {file} is no annotation ({error}); correct it or remove that line."
            ) from error
    return entries


def _to_entry(row: dict[str, str], mask: int) -> AnnotationEvent:
    if row["action"] not in ACTIONS:
        raise ValueError(f"unknown action {row['action']!r}")
    return AnnotationEvent(
        time=row["time"],
        action=row["action"],  # type: ignore[arg-type]
        edit=int(row["edit"]),
        image=row["image"],
        label=int(row["object"]),
        class_id=int(row["class_id"]),
        center=tuple(float(row[axis]) for axis in "zyx" if row[axis]),
        box=tuple(map(int, row["box"].split())),
        source=row["source"],
        seconds=float(row["seconds"]) if row["seconds"] else None,
        mask=mask,
    )


def _to_csv(entries: Iterable[AnnotationEvent], masks: Mapping[str, int] | None = None) -> bytes:
    """Return rows to be written behind others; ``masks`` are those of the images that the rows before speak of."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    known = dict(masks or {})
    for e in entries:
        if e.mask != known.get(e.image, 0):
            known[e.image] = e.mask
            writer.writerow([e.time, MASK, 0, e.image, e.mask, *[""] * (len(COLUMNS) - 5)])
        center = ["", "", "", *(f"{value:.2f}" for value in e.center)][-3:]
        seconds = "" if e.seconds is None else f"{e.seconds:.2f}"
        box = " ".join(map(str, e.box))
        writer.writerow([e.time, e.action, e.edit, e.image, e.label, e.class_id, *center, box, e.source, seconds])
    return text.getvalue().encode()


def _set_torn_line_aside(file: Path) -> str:
    if not file.exists():
        return ""
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) == len(content):
        return ""
    aside = file.with_suffix(".torn")
    with aside.open("ab") as handle:
        handle.write(content[len(whole) :] + b"\n")
    os.truncate(file, len(whole))
    return (
        f"the last line of {file.name} was torn (a power cut?) and was set aside in {aside.name}; nothing else is lost."
    )
