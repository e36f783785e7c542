"""The objects of images are found beside the kernel's loop; what needs them is done when they are there, in its order.

A sentence says how far it is, and the panel is usable meanwhile. Without a running loop (a script) nothing waits.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.panel import catch_errors
from svetlana_jupyter.widgets.scheduling import running_loop

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.components import StatusLine

_LARGE = 1 << 24  # pixels: the objects of anything smaller are found in less than a second, when they are first needed
_MEANWHILE = "You can look around meanwhile."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PendingAction:
    """Something that needs the objects of these images, of all or else of those where they can be found, with what a
    person is told until it is done."""

    images: tuple[str, ...]
    act: Callable[[], object]
    words: str
    all: bool

    def without(self, image: str) -> PendingAction | None:
        """Return it without an image whose objects cannot be found, None where nothing can be done then."""
        if image not in self.images:
            return self
        return None if self.all else replace(self, images=tuple(name for name in self.images if name != image))


class ObjectIndexer:
    """Finds the objects of images, one image after the other, for whoever waits for them.

    Parameters
    ----------
    project : Project
    status : Status
        Says how far it is, and what cannot be found.
    """

    def __init__(self, project: Project, status: StatusLine) -> None:
        self._project, self._status = project, status
        self._tried: set[str] = set()
        self._coming: deque[str] = deque()
        self._waiting: deque[PendingAction] = deque()
        self._image = ""  # whose objects are being found

    @property
    def is_waiting(self) -> bool:
        """Whether something waits for objects."""
        return bool(self._waiting)

    def begin(self, image: str, pixels: int) -> None:
        """Find the objects of a large image ahead of the first need, unless that was tried before."""
        if running_loop() is not None and pixels >= _LARGE and image not in self._tried:
            self._find([image])

    def objects(self, images: Iterable[str]) -> dict[str, pd.DataFrame]:
        """Return the objects of these images, without those where they cannot be found; the status says of which."""
        found = {}
        for name in images:
            try:
                found[name] = self._project.objects(name)
            except (SvetlanaError, OSError) as error:
                self._status.warn(_in_words(name, error))
        return found

    def after(
        self, images: Iterable[str], act: Callable[[], object], words: str = _MEANWHILE, all: bool = True
    ) -> None:
        """Do something that needs the objects of these images, at once if they are known, else when they are found.

        Parameters
        ----------
        images : iterable of str
        act : callable
            Done behind all that waits already.
        words : str
            What to say of it meanwhile.
        all : bool
            Leave it out, with a sentence, if the objects of one of the images cannot be found; else do it all the same.
        """
        wanted = tuple(images)
        missing = [name for name in wanted if not self._project.images.is_indexed(name)]
        if running_loop() is None or not (missing or self._waiting):
            act()
            return
        self._waiting.append(PendingAction(wanted, act, words, all))
        self._find(missing)
        self._say()

    def _find(self, images: Iterable[str]) -> None:
        for name in images:
            if name != self._image and name not in self._coming and not self._project.images.is_indexed(name):
                self._coming.append(name)
        self._next()

    def _next(self) -> None:
        if self._image or not self._coming or (loop := running_loop()) is None:
            return
        self._image = self._coming.popleft()
        self._tried.add(self._image)
        threading.Thread(target=self._run, args=(self._image, loop), daemon=True, name="index").start()

    def _run(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        said = -1

        def progress(done: int, total: int) -> None:
            nonlocal said
            if (share := 100 * done // total) != said:
                said = share
                tell(self._say, f": {share} %.")

        def tell(call: Callable[..., object], *arguments: object) -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(catch_errors(call, self._status), *arguments)

        problem = ""
        try:
            self._project.objects(name, progress, wait=True)
        except Exception as error:
            problem = _in_words(name, error)
        tell(self._found, name, problem)

    def _say(self, share: str = "") -> None:
        name = self._image or next(iter(self._coming), "")
        words = self._waiting[-1].words if self._waiting else _MEANWHILE
        self._status.say(f"Finding the objects of {name}{share or ' …'} {words}" if name else "")

    def _found(self, name: str, problem: str) -> None:
        """Go on with what waited for an image; runs on the loop."""
        self._image = ""
        self._status.say("")
        if problem:
            left = (waiting.without(name) for waiting in self._waiting)
            self._waiting = deque(waiting for waiting in left if waiting is not None)
            self._status.warn(problem)
        while self._waiting and all(map(self._project.images.is_indexed, self._waiting[0].images)):
            catch_errors(self._waiting.popleft().act, self._status)()
        self._find(self._waiting[0].images if self._waiting else ())


def _in_words(name: str, error: Exception) -> str:
    if isinstance(error, SvetlanaError):
        return str(error)
    logger.error("the objects of %s cannot be found", name, exc_info=error)
    return f"The objects of {name} cannot be found ({error}). Check that its mask is whole."
