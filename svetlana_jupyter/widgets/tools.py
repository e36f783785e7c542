"""The buttons that select: box, lasso, adding, all that is seen, none, the menu; and which planes are meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ipywidgets import Button, Dropdown, HBox, IntRangeSlider, ToggleButton
from traitlets import link

from svetlana_jupyter.widgets.panel import guarded

if TYPE_CHECKING:
    from svetlana_jupyter.widgets.viewer import Viewer

ICON_LAYOUT = {"width": "28px", "padding": "0", "margin": "0 2px 0 0"}
_REACHES = (("on this plane", "plane"), ("on the planes", "range"), ("on all planes", "all"))


class SelectionTools(HBox):
    """What the mouse and the keys select with, as buttons.

    Parameters
    ----------
    viewer : Viewer

    Attributes
    ----------
    planes : HBox
        Which planes a box or a lasso takes objects from; shown for a volume while one of them is in use.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.box = self._toggle("object-group", "Box: drag round objects to select them (x)")
        self.lasso = self._toggle("pencil", "Lasso: drag a line round objects to select them (l)")
        self.adding = self._toggle("plus", "Add to the selection, or take one away (Shift)")
        self.seen = icon_button(viewer, "th-large", "Select all objects on the screen (Ctrl+A)", viewer.select_visible)
        self.none = icon_button(viewer, "times", "Select nothing (Escape)", viewer.clear_selection)
        # The menu has the keyboard when it is open.
        self.menu = icon_button(
            viewer,
            "bars",
            "What can be said of the selection (right click, Shift+F10)",
            viewer.open_menu_for_selection,
            refocus=False,
        )
        super().__init__(
            [self.box, self.lasso, self.adding, self.seen, self.none, self.menu],
            layout={"margin": "2px 0", "flex": "0 0 auto", "overflow": "visible"},
        )
        self.reach = Dropdown(
            options=_REACHES, description="Select", tooltip="The planes whose objects a box or a lasso selects"
        )
        self.reach.layout, self.reach.style = {"width": "200px"}, {"description_width": "48px"}
        self.span = IntRangeSlider(tooltip="The first and the last plane", layout={"width": "260px"})
        self.planes = HBox([self.reach, self.span], layout={"display": "none"})
        link((viewer, "adding"), (self.adding, "value"))
        link((viewer, "reach"), (self.reach, "value"))
        self.span.observe(lambda change: viewer.set_trait("span", change["new"]), "value")
        for tool, button in (("box", self.box), ("lasso", self.lasso)):
            button.observe(self._chooser(tool), "value")
        viewer.observe(lambda _: self.follow(), ["tool", "reach", "selection"])
        self.follow()

    def follow(self, planes: int | None = None) -> None:
        """Show what fits the tool and, if that is given, an image of so many planes."""
        viewer = self._viewer
        if planes is not None:
            self.span.max = planes - 1
            self.span.value = (0, planes - 1)
        self.box.value, self.lasso.value = viewer.tool == "box", viewer.tool == "lasso"
        self.none.disabled = self.menu.disabled = not viewer.selection
        self.planes.layout.display = "flex" if self.span.max > 0 and viewer.tool != "move" else "none"
        self.span.layout.display = "" if viewer.reach == "range" else "none"

    def _chooser(self, tool: str) -> Callable[[dict[str, bool]], None]:
        def changed(change: dict[str, bool]) -> None:
            if change["new"]:
                self._viewer.tool = tool
            elif self._viewer.tool == tool:
                self._viewer.tool = "move"

        return changed

    def _toggle(self, icon: str, tooltip: str) -> ToggleButton:
        button = ToggleButton(icon=icon, tooltip=tooltip, layout=ICON_LAYOUT)
        button.observe(lambda _: self._viewer.focus(), "value")
        return button


def icon_button(
    viewer: Viewer, icon: str, tooltip: str, act: Callable[[], None], text: str = "", refocus: bool = True
) -> Button:
    """Return a small button; after a click it gives the keyboard back to the picture, as JupyterLab's shortcuts would
    take the next key."""
    button = Button(icon=icon, description=text, tooltip=tooltip, layout=ICON_LAYOUT)
    safe = guarded(act, viewer.status)

    def clicked(_: Button) -> None:
        safe()
        if refocus:
            viewer.focus()

    button.on_click(clicked)
    return button
