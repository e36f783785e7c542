"""Indexing of objects in the background, and actions that wait for it.

Waiting actions run in the order in which they were requested. The status line reports the progress, and the panel stays
usable. Without a running event loop (in a script), all actions run immediately.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.panel import catch_errors
from svetlana_jupyter.widgets.scheduling import run_on_thread, running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.components import StatusLine

_LARGE = 1 << 24  # pixels; smaller images are indexed in less than a second, when their objects are first needed
_MEANWHILE = "You can keep browsing."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PendingAction:
    """An action that waits until the objects of some images are indexed.

    Attributes
    ----------
    images : tuple of str
    act : callable
    message : str
        Displayed until the action runs.
    needs_all : bool
        Whether to drop the action if one of the images cannot be indexed; otherwise it runs without that image.
    """

    images: tuple[str, ...]
    act: Callable[[], object]
    message: str
    needs_all: bool


class ObjectIndexer:
    """Indexer of objects, which works in the background on one image after the other.

    Parameters
    ----------
    project : Project
    status : StatusLine
        Displays the progress and the images that cannot be indexed.
    """

    def __init__(self, project: Project, status: StatusLine) -> None:
        self._project, self._status = project, status
        self._tried: set[str] = set()
        self._queue: deque[str] = deque()
        self._pending: deque[PendingAction] = deque()
        self._image = ""  # the image being indexed

    @property
    def is_waiting(self) -> bool:
        """Whether an action waits for objects."""
        return bool(self._pending)

    def index_ahead(self, image: str, pixels: int) -> None:
        """Index a large image before its objects are needed, but only once."""
        if running_loop() is not None and pixels >= _LARGE and image not in self._tried:
            self._index([image])

    def objects(self, images: Iterable[str]) -> dict[str, pd.DataFrame]:
        """Return the object tables of images.

        Images that cannot be indexed are left out, and their error is displayed.
        """
        tables = {}
        for name in images:
            try:
                tables[name] = self._project.objects(name)
            except (SvetlanaError, OSError) as error:
                self._status.warn(_error_message(name, error))
        return tables

    def run_when_indexed(
        self, images: Iterable[str], act: Callable[[], object], message: str = _MEANWHILE, needs_all: bool = True
    ) -> None:
        """Run an action after the images that it needs have been indexed.

        Parameters
        ----------
        images : iterable of str
        act : callable
            Runs after all actions that were requested earlier.
        message : str
            Displayed while the action waits.
        needs_all : bool
            Whether to drop the action, with an error message, if one of the images cannot be indexed; otherwise it runs
            without that image.
        """
        names = tuple(images)
        missing = [name for name in names if not self._project.images.is_indexed(name)]
        if running_loop() is None or not (missing or self._pending):
            act()
            return
        self._pending.append(PendingAction(names, act, message, needs_all))
        self._index(missing)
        self._report()

    def _index(self, images: Iterable[str]) -> None:
        for name in images:
            if name != self._image and name not in self._queue and not self._project.images.is_indexed(name):
                self._queue.append(name)
        self._next()

    def _next(self) -> None:
        if self._image or not self._queue or (loop := running_loop()) is None:
            return
        name = self._image = self._queue.popleft()
        self._tried.add(name)
        report, reported = catch_errors(self._report, self._status), set[int]()

        def progress(done: int, total: int) -> None:  # called on the indexing thread
            if (percent := 100 * done // total) not in reported:
                reported.add(percent)
                with suppress(RuntimeError):  # the loop was closed in the meantime
                    loop.call_soon_threadsafe(report, f": {percent} %.")

        finish = catch_errors(partial(self._finish, name), self._status)
        run_on_thread(partial(self._project.objects, name, progress, wait=True), finish)

    def _report(self, progress: str = " …") -> None:
        name = self._image or next(iter(self._queue), "")
        message = self._pending[-1].message if self._pending else _MEANWHILE
        self._status.say(f"Finding the objects of {name}{progress} {message}" if name else "")

    def _finish(self, name: str, _: object, error: Exception | None) -> None:
        """Run the actions that waited for an image."""
        self._image = ""
        self._status.say("")
        if error is not None:
            left = [pending for pending in self._pending if not (pending.needs_all and name in pending.images)]
            self._pending = deque(replace(p, images=tuple(i for i in p.images if i != name)) for p in left)
            self._status.warn(_error_message(name, error))
        while self._pending and all(map(self._project.images.is_indexed, self._pending[0].images)):
            catch_errors(self._pending.popleft().act, self._status)()
        self._index(self._pending[0].images if self._pending else ())


def _error_message(name: str, error: Exception) -> str:
    if isinstance(error, SvetlanaError):
        return str(error)
    logger.error("the objects of %s cannot be found", name, exc_info=error)
    return f"The objects of {name} cannot be found ({error}). Check that the mask file is complete."
