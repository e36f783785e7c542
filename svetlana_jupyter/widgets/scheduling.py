"""Scheduling of drawing, background work and file checks on the event loop.

Without a running loop (in a script or a test), drawing and computing happen immediately.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from svetlana_jupyter.project.jobs import panel_call
from svetlana_jupyter.project.known_files import checked_live

if TYPE_CHECKING:
    from pathlib import Path

POLL_SECONDS = 1.0
_LOADER_THREADS = 2
_MAX_EXPECTED = 64  # pieces of data that wait to be read ahead; older pieces are dropped

logger = logging.getLogger(__name__)

QuestionT = TypeVar("QuestionT")


class Throttle:
    """Throttle that merges all requests during a pause into one draw.

    The pause begins at the END of each draw. A mouse sends more moves than can be drawn. If the pause began at the
    start of a draw, the timer of a slow draw would always be due: the kernel would draw between any two messages and
    never catch up.

    Parameters
    ----------
    draw : callable
    interval : float
        Longest pause in seconds. After a quick draw, the pause is only twice as long as the draw, because the browser
        displays such a draw quickly too.
    """

    def __init__(self, draw: Callable[[], None], interval: float = 0.05) -> None:
        self._draw, self._interval = draw, interval
        self._free_at = 0.0
        self._due: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def request(self) -> None:
        """Draw once the minimum interval since the last draw has passed."""
        loop = running_loop()
        if loop is None:
            self._draw()
        elif self._due is None or loop is not self._loop:  # the timer of an ended loop never runs
            free_at = self._free_at if loop is self._loop else 0.0
            self._loop = loop
            self._due = loop.call_at(max(free_at, loop.time()), self._run, loop)

    def draw_requested(self) -> None:
        """Draw at once, without a pause, if a draw has been requested.

        Call it only for what a user does once per picture, such as labeling an object.
        """
        if self._due is not None and (loop := running_loop()) is self._loop and loop is not None:
            self._due.cancel()
            self._run(loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = None
        began = loop.time()
        try:
            self._draw()
        finally:
            ended = loop.time()
            self._free_at = ended + min(self._interval, 2 * (ended - began))


class Debounce:
    """Call of ``act`` after ``delay`` seconds without another call of `restart`."""

    def __init__(self, act: Callable[[], None], delay: float = 0.11) -> None:
        self._act, self._delay = act, delay
        self._due: asyncio.TimerHandle | None = None

    def restart(self, delay: float = 0.0) -> None:
        """Start the delay again; with a longer ``delay``, wait that long this time."""
        loop = running_loop()
        if loop is None:
            self._act()
            return
        at = loop.time() + max(self._delay, delay)
        if self._due is not None:
            at = max(at, self._due.when())  # already passed, if it was called
            self._due.cancel()
        self._due = loop.call_at(at, self._act)


class KeyPause:
    """Call of ``act`` in a pause of typing, for texts that may follow the picture.

    Each message to the browser takes it a millisecond or more, during which the picture of the next key would wait.

    Parameters
    ----------
    act : callable
    delay : float
        Seconds since the last call of `restart`.
    longest : float
        Seconds since the first call of `restart`, for users who type without a pause.
    """

    def __init__(self, act: Callable[[], None], delay: float = 0.12, longest: float = 0.6) -> None:
        self._act, self._delay, self._longest = act, delay, longest
        self._due: asyncio.TimerHandle | None = None
        self._latest = math.inf

    def restart(self) -> None:
        """Start the delay again."""
        loop = running_loop()
        if loop is None:
            self._act()
            return
        latest = self._latest if self._due is not None else loop.time() + self._longest
        self.cancel()
        self._latest = latest
        self._due = loop.call_at(min(loop.time() + self._delay, latest), self._run)

    def cancel(self) -> None:
        """Drop the call, if it is still to come."""
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _run(self) -> None:
        self._due = None
        self._act()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def run_on_thread(call: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
    """Run ``call`` on a daemon thread, then ``done`` on the loop of the caller.

    Without a running loop, both run immediately.

    Parameters
    ----------
    call : callable
    done : callable
        Called with the result (or None) and the exception (or None).
    """
    loop = running_loop()

    def run() -> None:
        try:
            with checked_live(), panel_call():
                outcome: tuple[Any, Exception | None] = call(), None
        except Exception as error:
            outcome = None, error
        if loop is None:
            done(*outcome)
        else:
            with suppress(RuntimeError):  # the loop was closed in the meantime
                loop.call_soon_threadsafe(done, *outcome)

    if loop is None:
        run()
    else:
        threading.Thread(target=run, daemon=True).start()


class LatestQuestion(Generic[QuestionT]):
    """Slow computation on a thread, of which only the latest result is shown.

    A question is the input of the computation, for example an object to explain; the answer is its result. Answers to
    superseded questions are dropped. One question is answered at a time, and only if no other question follows within
    ``delay`` seconds. Without a running loop, the answer is shown immediately.

    Parameters
    ----------
    answer : callable
        Computes the answer to a question; called on a separate thread.
    show : callable
        Called with the answer, on the thread and event loop that called `ask`.
    delay : float
        Seconds to wait for another question before a question is answered.
    show_error : callable, optional
        Called instead of ``show`` with the question and the exception that ``answer`` raised.
    """

    def __init__(
        self,
        answer: Callable[[QuestionT], Any],
        show: Callable[[Any], None],
        delay: float = 0.3,
        show_error: Callable[[QuestionT, Exception], None] | None = None,
    ) -> None:
        self._answer, self._show, self._show_error = answer, show, show_error
        self._debounce = Debounce(self._begin, delay)
        self._latest: QuestionT | None = None
        self._busy = False

    def ask(self, question: QuestionT | None) -> None:
        """Answer a question and drop earlier questions; None only drops questions."""
        self._latest = question
        self._debounce.restart()

    def _begin(self) -> None:
        if self._latest is not None and not self._busy:  # otherwise `_end` begins the next question
            self._busy = True
            run_on_thread(partial(self._answer, self._latest), partial(self._end, self._latest))

    def _end(self, question: QuestionT, answer: Any, error: Exception | None) -> None:
        self._busy = False
        if question is not self._latest:
            self._begin()
            return
        self._latest = None
        if error is None:
            self._show(answer)
        elif self._show_error is not None:
            self._show_error(question, error)
        else:
            raise error


class Loadable(Hashable, Protocol):
    """Piece of data to be read, such as a `TileGroup`; equal pieces are read once."""

    def load(self) -> object:
        """Read the data; called on a worker thread."""


class BackgroundLoader:
    """Background reading of what the screen shows now, then of what it may show next.

    Pieces (see `Loadable`) are read on a few threads. Callbacks run on the event loop that requested the pieces.

    Parameters
    ----------
    on_loaded : callable
        Called after each visible piece was read, even if the read failed.
    on_error : callable
        Called with the exception of a piece that could not be read. The piece is not read again before a call of
        `retry_failed`.
    """

    def __init__(self, on_loaded: Callable[[], None], on_error: Callable[[Exception], None]) -> None:
        self._on_loaded, self._on_error = on_loaded, on_error
        self._pool = ThreadPoolExecutor(_LOADER_THREADS, thread_name_prefix="viewer")
        self._visible: dict[Loadable, None] = {}  # dictionaries serve as ordered sets
        self._expected: dict[Loadable, None] = {}
        self._running: set[Loadable] = set()
        self._failed: set[Loadable] = set()
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a visible piece is still to be read."""
        return any(piece not in self._failed for piece in self._visible)

    def load_visible(self, pieces: Iterable[Loadable]) -> None:
        """Read the pieces of data on the screen; cancel earlier waiting requests."""
        self._visible = dict.fromkeys(pieces)
        self._begin()

    def load_ahead(self, pieces: Iterable[Loadable]) -> None:
        """Read the pieces that may be shown next, once all visible pieces are read."""
        new = dict.fromkeys(pieces)
        older = [piece for piece in self._expected if piece not in new]
        self._expected = dict.fromkeys([*older, *new][-_MAX_EXPECTED:])
        self._begin()

    def retry_failed(self) -> None:
        """Forget read errors, so that failed pieces are read again when on the screen."""
        self._failed.clear()

    def close(self) -> None:
        """Stop loading in the background."""
        self._visible, self._expected, self._closed = {}, {}, True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        loop = None if self._closed else running_loop()  # a timer may draw once more after closing
        while loop is not None and len(self._running) < _LOADER_THREADS and (piece := self._next()) is not None:
            self._running.add(piece)
            loop.run_in_executor(self._pool, _load, piece).add_done_callback(partial(self._end, piece))

    def _next(self) -> Loadable | None:
        taken = self._running | self._failed
        piece = next((piece for piece in (*self._visible, *self._expected) if piece not in taken), None)
        if piece is not None and piece not in self._visible:
            del self._expected[piece]
        return piece

    def _end(self, piece: Loadable, done: asyncio.Future[object]) -> None:
        self._running.discard(piece)
        visible = piece in self._visible
        error = None if done.cancelled() else done.exception()
        if isinstance(error, Exception):
            self._failed.add(piece)
            logger.error("a part of an image cannot be read", exc_info=error)
            self._on_error(error)
        elif visible:
            del self._visible[piece]
        self._begin()
        if visible:
            self._on_loaded()


def _load(piece: Loadable) -> object:
    with checked_live(), panel_call():
        return piece.load()


class FileWatcher:
    """Watcher that calls ``act`` when a file changes, for example by another kernel.

    The file is checked once per second on the event loop in which the watcher was created. Without a running loop, call
    `check`.

    Parameters
    ----------
    file : Path
    act : callable
    """

    def __init__(self, file: Path, act: Callable[[], None]) -> None:
        self._file, self._act = file, act
        self._last_stamp = self._stamp()
        self._due: asyncio.TimerHandle | None = None
        if (loop := running_loop()) is not None:
            self._due = loop.call_later(POLL_SECONDS, self._poll, loop)

    def check(self) -> None:
        """Call ``act`` if the file has changed since the last check."""
        stamp = self._stamp()
        if stamp != self._last_stamp:
            self._last_stamp = stamp
            self._act()

    def close(self) -> None:
        """Stop watching the file."""
        if self._due is not None:
            self._due.cancel()

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.call_later(POLL_SECONDS, self._poll, loop)
        self.check()

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
