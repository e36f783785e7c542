"""The objects of a huge image are found beside the kernel's loop, while one looks around; a sentence says how far."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.pace import running_loop

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.opened import OpenImage
    from svetlana_jupyter.widgets.parts import Status

_LARGE = 1 << 26  # pixels: the objects of anything smaller are found in a second or two, when they are first needed


class Indexing:
    """Finds the objects of large images ahead of the first that is selected by its number.

    Parameters
    ----------
    project : Project
    status : Status
    """

    def __init__(self, project: Project, status: Status) -> None:
        self._project, self._status = project, status
        self._begun: set[str] = set()

    def begin(self, opened: OpenImage) -> None:
        """Find the objects of an image, if that takes long and was not done yet; without a loop nothing happens."""
        loop, name = running_loop(), opened.name
        if loop is None or name in self._begun or opened.pair.mask.size < _LARGE or self._project.is_indexed(name):
            return
        self._begun.add(name)
        threading.Thread(target=self._find, args=(name, loop), daemon=True, name="index").start()

    def _find(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        said = -1

        def progress(done: int, total: int) -> None:
            nonlocal said
            if (share := 100 * done // total) != said:
                said = share
                self._tell(loop, f"Finding the objects of {name}: {share} %. You can look around meanwhile.")

        try:
            self._project.objects(name, progress)
            self._tell(loop, "")
        except SvetlanaError as error:
            self._tell(loop, str(error))
        except OSError as error:
            self._tell(loop, f"The objects of {name} cannot be found ({error}). Check that its mask is whole.")

    def _tell(self, loop: asyncio.AbstractEventLoop, text: str) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._status.say, text)
