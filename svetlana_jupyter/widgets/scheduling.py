"""When to draw: not more often than the browser can follow, and once more when everything has come to rest.

Without a running loop (a script, a test) everything happens at once.

Answers that take a while, looked for off the kernel's thread; only the last question's is shown.

Reading beside the kernel's loop: first what the screen waits for, then what it will probably show next.

Notices that a file was changed by somebody else: an editor, another kernel, a person with a text field.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar


class Pace:
    """Merges requests into one draw at a time; the next begins at a distance from the END of the last.

    A mouse sends more moves than can be drawn. Counted from the start of a draw, a timer of a slow one would always be
    due, and the kernel would draw between any two messages and never catch up.

    Parameters
    ----------
    draw : callable
    rest : float
        The longest distance, in seconds. What was quickly drawn here is quickly drawn in the browser too: after it
        twice its own time is enough.
    """

    def __init__(self, draw: Callable[[], None], rest: float = 0.05) -> None:
        self._draw = draw
        self._rest = rest
        self._free_at = 0.0
        self._due: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def request(self) -> None:
        """Draw as soon as it is time."""
        loop = running_loop()
        if loop is None:
            self._draw()
        elif self._due is None or loop is not self._loop:
            free_at = self._free_at if loop is self._loop else 0.0
            self._loop = loop
            self._due = loop.call_at(max(free_at, loop.time()), self._run)

    def _run(self) -> None:
        self._due = None
        assert self._loop is not None
        began = self._loop.time()
        try:
            self._draw()
        finally:
            ended = self._loop.time()
            self._free_at = ended + min(self._rest, 2 * (ended - began))


class Debounce:
    """Calls ``act`` once nothing has happened for ``delay`` seconds."""

    def __init__(self, act: Callable[[], None], delay: float = 0.11) -> None:
        self._act = act
        self._delay = delay
        self._due: asyncio.TimerHandle | None = None

    def restart(self) -> None:
        """Something happened: wait anew."""
        loop = running_loop()
        if loop is None:
            self._act()
            return
        if self._due is not None:
            self._due.cancel()
        self._due = loop.call_later(self._delay, self._act)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop of this thread, None outside of one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


Question = TypeVar("Question")


class LatestQuestion(Generic[Question]):
    """Asks once a person has stopped typing, one question at a time, and drops answers that nobody waits for any more.

    Without a running loop (a script, a test) the answer is there at once.

    Parameters
    ----------
    answer : callable
        Takes the question; runs on a thread of its own.
    show : callable
        Takes the answer; runs on the thread and loop of whoever asked.
    delay : float
        Seconds without another question before one is looked into.
    """

    def __init__(self, answer: Callable[[Question], Any], show: Callable[[Any], None], delay: float = 0.3) -> None:
        self._answer, self._show = answer, show
        self._rest = Debounce(self._begin, delay)
        self._asked: Question | None = None
        self._busy = False

    def ask(self, question: Question) -> None:
        """Look into this question instead of those before."""
        self._asked = question
        self._rest.restart()

    def drop(self) -> None:
        """Nothing is asked any more."""
        self._asked = None

    def _begin(self) -> None:
        question = self._asked
        if question is None or self._busy:
            return  # what is under way begins the next one when it ends
        loop = running_loop()
        if loop is None:
            self._asked = None
            self._show(self._answer(question))
            return
        self._busy = True
        threading.Thread(target=self._look, args=(question, loop), daemon=True).start()

    def _look(self, question: Question, loop: asyncio.AbstractEventLoop) -> None:
        found = self._answer(question)
        with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits any more
            loop.call_soon_threadsafe(self._end, question, found)

    def _end(self, question: Question, found: Any) -> None:
        self._busy = False
        if question is self._asked:
            self._asked = None
            self._show(found)
        else:
            self._begin()


_THREADS = 2
_AHEAD = 64  # pieces: what is expected and older than these is forgotten

logger = logging.getLogger(__name__)


class Loadable(Hashable, Protocol):
    """Something to be read, such as `core.display.tiles.TileGroup`; equal ones are read once."""

    def load(self) -> object:
        """Read it; called on a thread of its own."""


class BackgroundLoader:
    """Loads pieces on a few threads; everything else happens on the loop that asks.

    Parameters
    ----------
    arrived : callable
        Called after each piece that was wanted.
    failed : callable
        Called with the exception of a piece that could not be read. It is not tried again before `retry_failed`.
    """

    def __init__(self, on_loaded: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        self._arrived, self._failed = on_loaded, failed
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="viewer")
        self._wanted: dict[Loadable, None] = {}
        self._expected: dict[Loadable, None] = {}
        self._running: set[Loadable] = set()
        self._broken: set[Loadable] = set()

    @property
    def busy(self) -> bool:
        """Whether something that is wanted is still to come."""
        return any(piece not in self._broken for piece in self._wanted)

    def load_visible(self, pieces: Iterable[Loadable]) -> None:
        """Load what the screen shows; what was wanted before no longer is, unless it is under way."""
        self._wanted = dict.fromkeys(pieces)
        self._begin()

    def expect(self, pieces: Iterable[Loadable]) -> None:
        """Load what may be shown next, when nothing is wanted."""
        for piece in pieces:
            self._expected.pop(piece, None)
            self._expected[piece] = None
        while len(self._expected) > _AHEAD:
            del self._expected[next(iter(self._expected))]
        self._begin()

    def retry_failed(self) -> None:
        """Try again what could not be read."""
        self._broken.clear()

    def close(self) -> None:
        """Load nothing more."""
        self._wanted, self._expected = {}, {}
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        loop = running_loop()
        while loop is not None and len(self._running) < _THREADS and (piece := self._next()) is not None:
            self._running.add(piece)
            loop.run_in_executor(self._pool, piece.load).add_done_callback(partial(self._loaded, piece))

    def _next(self) -> Loadable | None:
        for waiting in (self._wanted, self._expected):
            for piece in waiting:
                if piece not in self._running and piece not in self._broken:
                    if waiting is self._expected:
                        del self._expected[piece]
                    return piece
        return None

    def _loaded(self, piece: Loadable, done: asyncio.Future[object]) -> None:
        self._running.discard(piece)
        wanted = piece in self._wanted
        error = None if done.cancelled() else done.exception()
        if isinstance(error, Exception):
            self._broken.add(piece)
            logger.error("a part of an image cannot be read", exc_info=error)
            self._failed(error)
        elif wanted:
            del self._wanted[piece]
        self._begin()
        if wanted:
            self._arrived()


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
