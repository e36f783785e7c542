"""Warnings about images at the top of every panel."""

from __future__ import annotations

import html
from functools import partial
from typing import TYPE_CHECKING

from ipywidgets import HTML, HBox, VBox, Widget

from svetlana_jupyter.project.image_warnings import MAX_IMAGES_NAMED, summarize
from svetlana_jupyter.widgets.call_names import REPAIR_TEXTS
from svetlana_jupyter.widgets.components import button, muted, prose_html

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

    @property
    def texts(self) -> list[str]:
        """The warnings, each with the name of its image."""
        return [summarize({name: text}) for name, text in self.warnings.items()]

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
        rest = (
            [HTML(muted(f"{more:,} more images have a warning" if more > 1 else "1 more image has a warning"))]
            if more > 0
            else []
        )
        self._rows = [*map(self._row, list(found)[:MAX_IMAGES_NAMED]), *rest]
        self.children = tuple(self._rows)
        self.layout.display = None if found else "none"

    def _row(self, name: str) -> VBox:
        text = f"<b>{html.escape(name)}</b>: {prose_html(self.warnings[name])}"
        line = HTML(f'<div class="sv-status sv-trouble" role="alert">{text}</div>', layout={"width": "100%"})
        images, buttons = self._project.images, []
        # The numbers of a mask that has changed on disk are not known yet.
        problem = None if images.refusal(name) else images.numbering_problem(name)
        if problem is not None:
            accept = partial(self._run, images.accept_warning, name)
            tooltip = "Hide this warning; the mask stays as it is"
            buttons.append(button(accept, "Accept the mask", "check", tooltip, width="auto"))
        if problem is not None and problem.repair is not None:
            text, tooltip = REPAIR_TEXTS[problem.repair]
            repair = partial(self._run, partial(self._project.replace_mask, name, repair=problem.repair))
            buttons.insert(0, button(repair, text, "wrench", tooltip, width="auto"))
        return VBox([line, HBox(buttons)], layout={"width": "100%"})
