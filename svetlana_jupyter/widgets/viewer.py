"""The viewer: one image of a project with its objects, to look at, pick from and press keys on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import traitlets
from ipywidgets import HTML, VBox

from svetlana_jupyter.widgets.parts import Status

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

Shown = tuple[str, int] | None


class Viewer(VBox):
    """Shows one image of a project, its segmentation, annotations and predictions.

    Parameters
    ----------
    project : Project
    size : tuple of int
        Height and width of the picture, in screen pixels.

    Attributes
    ----------
    image : str
        Name of the image shown; empty when the project has none.
    selected : int
        The selected object, 0 for none.
    overlay : {"annotations", "predictions", "off"}
    opacity : float
    outlines : bool
    plane : int
    """

    image = traitlets.Unicode()
    selected = traitlets.Int(0)
    overlay = traitlets.Enum(["annotations", "predictions", "off"], "annotations")
    opacity = traitlets.Float(0.35)
    outlines = traitlets.Bool(True)
    plane = traitlets.Int(0)

    def __init__(self, project: Project, size: tuple[int, int] = (520, 740)) -> None:
        self.project = project
        self.status = Status()
        self._key_callbacks: list[Callable[[str, Shown], Any]] = []
        self._pick_callbacks: list[Callable[[str, int], Any]] = []
        self._picture = HTML(layout={"width": f"{size[1]}px", "height": f"{size[0]}px"})
        super().__init__([self._picture, self.status])
        self.add_class("sv-viewer")
        self.scene = None

    def show(self, image: str, object: int = 0, zoom: bool = True) -> None:
        """Show an image and select an object of it, centred and, unless ``zoom`` is false, zoomed."""
        self.image, self.selected = image, object

    def on_key(self, act: Callable[[str, Shown], Any]) -> None:
        """Call ``act(key, shown)`` for each key that does not move the view; ``shown`` is the ``(image, object)`` that was
        on the screen when it was pressed."""
        self._key_callbacks.append(act)

    def on_pick(self, act: Callable[[str, int], Any]) -> None:
        """Call ``act(image, object)`` after a click; ``object`` is 0 on the background."""
        self._pick_callbacks.append(act)

    def focus(self) -> None:
        """Give the keyboard to the picture."""
