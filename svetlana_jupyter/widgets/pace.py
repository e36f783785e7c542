"""When to draw: not more often than the browser can follow, and once more when everything has come to rest.

Without a running loop (a script, a test) everything happens at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


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
