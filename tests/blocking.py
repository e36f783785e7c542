"""Functions that wait until a test lets them go on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def block(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, first: Callable[..., object] = lambda *_: None
) -> tuple[threading.Event, threading.Event]:
    """Let a function call ``first`` and wait; return the events that it has begun and may go on."""
    begun, go_on, original = threading.Event(), threading.Event(), getattr(owner, name)

    def blocked(*arguments):
        first(*arguments)
        begun.set()
        assert go_on.wait(60)
        return original(*arguments)

    monkeypatch.setattr(owner, name, blocked)
    return begun, go_on
