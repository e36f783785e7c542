"""Notices that a file was changed by somebody else: an editor, another kernel, a person with a text field."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from svetlana_jupyter.widgets.pace import running_loop

EVERY = 1.0  # seconds


class FileWatcher:
    """Calls ``act`` on the loop that made it, within a second of a change. Without a loop, `look` is all there is.

    Parameters
    ----------
    file : Path
    act : callable
    """

    def __init__(self, file: Path, act: Callable[[], None]) -> None:
        self._file, self._act = file, act
        self._loop = running_loop()
        self._due: asyncio.TimerHandle | None = None
        self._seen = self._stamp()
        self._wait()

    def look(self) -> None:
        """Call ``act`` if the file is another than last time."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            self._act()

    def close(self) -> None:
        """Look no longer."""
        if self._due is not None:
            self._due.cancel()
        self._loop = None

    def _wait(self) -> None:
        if self._loop is not None:
            self._due = self._loop.call_later(EVERY, self._look_again)

    def _look_again(self) -> None:
        try:
            self.look()
        finally:
            self._wait()

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size
