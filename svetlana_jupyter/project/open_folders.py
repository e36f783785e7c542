"""State that all `Project` objects of one folder share within a kernel.

A notebook cell that opens a project may run again while panels show the first `Project` object. Both objects edit the
same files, so a change of one object is read by the others, and they run one job at a time.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from svetlana_jupyter.project.jobs import JobSlot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from svetlana_jupyter.project.run_scoring import Scoring
    from svetlana_jupyter.project.storage import Aspect

_folders: weakref.WeakValueDictionary[Path, OpenFolder] = weakref.WeakValueDictionary()
_opening = threading.Lock()


class OpenFolder:
    """Lock, job and followers of a project folder.

    Attributes
    ----------
    lock : threading.RLock
    slot : JobSlot
    scorings : dict of str to Scoring
        Runs whose scores are still to be computed, by name.
    """

    def __init__(self) -> None:
        self.lock, self.slot = threading.RLock(), JobSlot()
        self.scorings: dict[str, Scoring] = {}
        self._followers: list[weakref.WeakMethod[Callable[[Aspect], None]]] = []
        self._announcing = threading.local()

    def add_follower(self, follow: Callable[[Aspect], None]) -> None:
        """Call a bound method after each change of another `Project` object."""
        self._followers.append(weakref.WeakMethod(follow, self._followers.remove))

    def announce(self, aspect: Aspect, origin: Callable[[Aspect], None] | None = None) -> None:
        """Call all followers but ``origin``, whose own changes are not announced."""
        if getattr(self._announcing, "now", False):
            return
        self._announcing.now = True
        try:
            for follower in list(self._followers):
                if (follow := follower()) is not None and follow != origin:
                    follow(aspect)
        finally:
            self._announcing.now = False


def open_folder(path: Path) -> OpenFolder:
    """Return the shared state of a project folder, whatever the spelling of its path."""
    with _opening:
        return _folders.setdefault(path.resolve(), OpenFolder())
