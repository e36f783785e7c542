"""What every panel is: a column over one project, whose callbacks lose no exception and give the keys back."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ipywidgets import Button, VBox

from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.parts import StatusLine
from svetlana_jupyter.widgets.style import PANEL_WIDTH, style

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

logger = logging.getLogger(__name__)


def guarded(act: Callable[..., object], status: StatusLine) -> Callable[..., None]:
    """Return ``act`` as a callback whose exceptions are shown in ``status`` and logged.

    Without this they would be lost: a notebook shows nothing of an exception in a widget callback. An error of ours is
    a sentence already; of any other the log has the traceback.
    """

    @functools.wraps(act)
    def call(*args: Any, **kwargs: Any) -> None:
        try:
            act(*args, **kwargs)
        except SvetlanaError as error:
            logger.info("refused: %s", error)
            status.warn(str(error))
        except Exception as error:
            logger.exception("exception in a panel's callback")
            status.warn(f"Something went wrong: {type(error).__name__}: {error}")

    return call


class Panel(VBox):
    """Base of the panels.

    Parameters
    ----------
    project : Project
        Shared with other panels and with scripts; a panel observes it and calls its verbs, and keeps nothing of its own
        that the project should know.
    """

    def __init__(self, project: Project) -> None:
        super().__init__(layout={"width": "100%", "max_width": PANEL_WIDTH})
        self.add_class("svetlana")
        self.project = project
        self.status = StatusLine()
        self._style = style()
        self._watching: list[tuple[Callable[[Any], None], list[str]]] = []
        self.watch(lambda: self.status.say(project.status), "status")
        self.watch(self._warn, "trouble")

    def watch(self, act: Callable[[], object], *names: str) -> None:
        """Call ``act`` whenever one of these traits of the project changes, until the panel is closed."""
        safe = guarded(act, self.status)

        def changed(change: Any) -> None:
            safe()

        self.project.observe(changed, list(names))
        self._watching.append((changed, list(names)))

    def button(self, act: Callable[[], object], description: str = "", *, tooltip: str, **options: Any) -> Button:
        """Return a button that calls ``act`` and then gives the keyboard back to the viewer."""
        made = Button(description=description, tooltip=tooltip, **options)
        made.on_click(lambda _: self.do(act))
        return made

    def do(self, act: Callable[..., object], *args: Any) -> None:
        """Do what a button asks for: exceptions go to the status line, and the keys go back to the viewer.

        A button keeps the keyboard after a click, where JupyterLab's own shortcuts would take the next key (``m`` would
        destroy the output of the cell).
        """
        guarded(act, self.status)(*args)
        self.focus()

    def show_hint(self, hint: str) -> None:
        """Begin with what to do here, or with a problem that the project has already."""
        self.status.say(hint)
        self._warn()

    def focus(self) -> None:
        """Give the keyboard to the viewer, in a panel that has one."""

    def close(self) -> None:
        """Stop following the project, and remove the panel."""
        for changed, names in self._watching:
            self.project.unobserve(changed, names)
        self._watching.clear()
        super().close()

    def _warn(self) -> None:
        if self.project.trouble:
            self.status.warn(self.project.trouble)
