"""Reading beside the kernel's loop: first what the screen waits for, then what it will probably show next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from svetlana_jupyter.widgets.pace import running_loop

_THREADS = 2
_AHEAD = 64  # pieces: what is expected and older than these is forgotten

logger = logging.getLogger(__name__)


class Loadable(Hashable, Protocol):
    """Something to be read, such as `core.regions.Piece`; equal ones are read once."""

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
