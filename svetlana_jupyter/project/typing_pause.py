"""Pause of background work while keys are typed."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class TypingPause:
    """Pause of background work after each key.

    Otherwise it would delay the answer to the next key. Background work calls `wait` between its parts, each of which
    should take less than 50 ms.

    Parameters
    ----------
    pause : float
        Seconds after a key.
    longest : float
        Seconds after which work continues although keys are still typed.
    """

    def __init__(self, pause: float = 0.1, longest: float = 1.0) -> None:
        self._pause, self._longest = pause, longest
        self._last_key = -math.inf

    def key_pressed(self) -> None:
        """Let background work pause."""
        self._last_key = time.monotonic()

    def wait(self, stop: Callable[[], bool]) -> bool:
        """Wait until no key was typed for a moment; return whether to stop."""
        latest = time.monotonic() + self._longest
        while not (stopped := stop()):
            left = min(self._last_key + self._pause, latest) - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, 0.02))
        return stopped
