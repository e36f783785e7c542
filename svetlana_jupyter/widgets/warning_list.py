"""Warnings about images at the top of every panel."""

from __future__ import annotations

import html
from functools import partial
from typing import TYPE_CHECKING

from ipywidgets import HTML, HBox, VBox, Widget

from svetlana_jupyter.project.image_warnings import MAX_IMAGES_NAMED
from svetlana_jupyter.widgets.components import button, muted

if TYPE_CHECKING:
    from collections.abc import Callable

    from svetlana_jupyter.project.project import Project


class WarningList(VBox):
    """List of warnings about images, each with buttons that resolve it.

    Takes no space while there is no warning.

    Parameters
    ----------
    project : Project
    run : callable
        Runs an action and displays its error (`Panel.run_action`).

    Attributes
    ----------
    warnings : dict of str to str
        The warnings by image.
    """

    def __init__(self, project: Project, run: Callable[..., None]) -> None:
        super().__init__(layout={"width": "100%", "display": "none"})
        self._project, self._run = project, run
        self.warnings: dict[str, str] = {}
        self._rows: list[Widget] = []
        self.refresh()

    def refresh(self) -> None:
        """Show the current warnings."""
        images = self._project.images
        found = images.warnings.of_images(images)
        if found == self.warnings:
            return
        self.warnings = found
        for row in self._rows:
            row.close()
        more = len(found) - MAX_IMAGES_NAMED
        rest = [HTML(muted(f"{more:,} more images have a warning"))] if more > 0 else []
        self._rows = [*map(self._row, list(found)[:MAX_IMAGES_NAMED]), *rest]
        self.children = tuple(self._rows)
        self.layout.display = None if found else "none"

    def _row(self, name: str) -> VBox:
        text = f"<b>{html.escape(name)}</b>: {html.escape(self.warnings[name])}"
        line = HTML(f'<div class="sv-status sv-trouble" role="alert">{text}</div>', layout={"width": "100%"})
        accept = partial(self._run, self._project.images.accept_warning, name)
        tooltip = "Hide this warning; the mask stays as it is"
        buttons = [button(accept, "Accept the mask", "check", tooltip, width="auto")]
        return VBox([line, HBox(buttons)], layout={"width": "100%"})
