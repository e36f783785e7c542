"""Controls around the image: toolbar, selection tools and context menu."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ipywidgets import HTML, Box, Button, Dropdown, FloatSlider, HBox, IntRangeSlider, IntSlider, VBox
from traitlets import link

from svetlana_jupyter.widgets.components import keycap
from svetlana_jupyter.widgets.viewer.channel_controls import ChannelControls, label_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from svetlana_jupyter.widgets.viewer.channel_controls import SetPalette
    from svetlana_jupyter.widgets.viewer.interaction import ObjectSelector, Screen
    from svetlana_jupyter.widgets.viewer.open_images import OpenImage
    from svetlana_jupyter.widgets.viewer.viewer_model import ViewerModel

_OVERLAYS = (
    ("Annotations", "annotations"),
    ("Predictions", "predictions"),
    ("Uncertainty", "uncertainty"),
    ("No overlay", "off"),
)
_PLANE_SCOPES = (("on this plane", "plane"), ("on the planes", "range"), ("on all planes", "all"))
_MENU_WIDTH, _MENU_ROW, _MENU_TITLE, _MENU_MARGIN = 216, 26, 36, 6  # CSS pixels; the title includes border and padding


class Toolbar(VBox):
    """Toolbar in one row, with contrast and opacity controls that unfold below.

    Parameters
    ----------
    model : ViewerModel
        Its traits are linked to the controls.
    selector : ObjectSelector
    screen : Screen
    set_palette : callable
        Called with changed display settings.
    """

    def __init__(self, model: ViewerModel, selector: ObjectSelector, screen: Screen, set_palette: SetPalette) -> None:
        self._model, self._focus, self._set_palette = model, screen.focus, set_palette
        self.images = Dropdown(tooltip="Displayed image", layout={"width": "150px", "margin": "0 8px 0 0"})
        self.images.observe(lambda change: self._show_image(change["new"]), "value")
        self.overlay = Dropdown(options=_OVERLAYS, tooltip="Source of the object colors")
        self.overlay.layout = {"width": "116px", "margin": "0 4px 0 6px"}
        self.outlines = screen.toggle("circle-o", "Outlines", True)
        self.more = screen.toggle("sliders", "Contrast, channels and opacity")
        self.more.observe(self._unfold, "value")
        self.opacity = FloatSlider(
            max=1, step=0.05, readout=False, **label_options("Opacity of the object colors", "240px", "Opacity", "64px")
        )
        self.plane = IntSlider(description="Plane", tooltip="Plane of the volume ([ and ])", layout={"width": "100%"})
        self.tools = SelectionTools(model, selector, screen)
        self.channels = VBox()
        self._display = HBox([self.channels, self.opacity])
        self._display.layout = {"display": "none", "flex_flow": "row wrap", "align_items": "center"}
        self.zooming = [
            screen.button("expand", "Show the whole image (f)", model.fit),
            screen.button("search-minus", "Zoom out (-)", lambda: selector.zoom_on_selection(1 / 1.5)),
            screen.button("search-plus", "Zoom in (+)", lambda: selector.zoom_on_selection(1.5)),
            screen.button("", "Show one image pixel per screen pixel", model.zoom_to_pixels, "1:1"),
        ]
        row = HBox([self.images, *self.zooming, self.overlay, self.outlines, self.more, self.tools])
        row.layout = {"align_items": "center", "flex_flow": "row wrap"}
        super().__init__([row, self.tools.planes, self._display], layout={"margin": "0 0 4px 0"})
        for name in ("overlay", "outlines", "opacity", "plane"):
            link((model, name), (getattr(self, name), "value"))

    def list_images(self, names: list[str], shown: str) -> None:
        """Set the images in the dropdown; hide the dropdown if there is only one image."""
        with self.images.hold_trait_notifications():
            self.images.options = names
            self.images.value = shown if shown in names else None
        self.images.layout.display = "" if len(names) > 1 else "none"

    def refresh(self, image: OpenImage) -> None:
        """Show the controls that apply to an image."""
        self.images.value = image.name if image.name in self.images.options else None
        rows = range(1 if image.palette.rgb else len(image.palette.channels))
        self.channels.children = [ChannelControls(image, row, self._set_palette, self._focus) for row in rows]
        self.plane.max = image.planes - 1
        self.plane.layout.display = "" if image.planes > 1 else "none"

    def _show_image(self, name: str | None) -> None:
        if name is not None and name != self._model.image:
            self._model.image = name
            self._focus()

    def _unfold(self, change: dict[str, bool]) -> None:
        self._display.layout.display = "flex" if change["new"] else "none"


class SelectionTools(HBox):
    """Buttons of the selection tools.

    Parameters
    ----------
    model : ViewerModel
    selector : ObjectSelector
    screen : Screen

    Attributes
    ----------
    planes : HBox
        Planes in which the box or lasso selects objects; displayed for a volume while the box or lasso is active.
    """

    def __init__(self, model: ViewerModel, selector: ObjectSelector, screen: Screen) -> None:
        self._model = model
        self.box = screen.toggle("object-group", "Box: drag around objects to select them (x)")
        self.lasso = screen.toggle("pencil", "Lasso: draw a line around objects to select them (l)")
        self.adding = screen.toggle("plus", "Add to the selection, or remove from it (Shift)")
        self.all = screen.button("th-large", "Select all visible objects (Ctrl+A)", selector.select_visible)
        self.none = screen.button("times", "Clear the selection (Escape)", selector.clear_selection)
        menu = "Label the selection (right click, Shift+F10)"
        self.menu = screen.button("bars", menu, selector.open_menu_for_selection, keeps_focus=True)
        super().__init__(
            [self.box, self.lasso, self.adding, self.all, self.none, self.menu],
            layout={"margin": "2px 0", "flex": "0 0 auto", "overflow": "visible"},
        )
        labels = label_options("Planes in which the box or lasso selects objects", "200px", "Select", "48px")
        self.plane_scope = Dropdown(options=_PLANE_SCOPES, **labels)
        self.plane_range = IntRangeSlider(tooltip="First and last plane", layout={"width": "260px"})
        self.planes = HBox([self.plane_scope, self.plane_range], layout={"display": "none"})
        link((model, "add_to_selection"), (self.adding, "value"))
        link((model, "plane_scope"), (self.plane_scope, "value"))
        self.plane_range.observe(lambda change: model.set_trait("plane_range", change["new"]), "value")
        for tool, button in (("box", self.box), ("lasso", self.lasso)):
            button.observe(partial(self._choose_tool, tool), "value")
        model.observe(lambda _: self._refresh(), ["tool", "planes", "plane_scope", "selection"])
        self._refresh()

    def _refresh(self) -> None:
        """Show the controls that apply to the image, the tool and the selection."""
        model, last = self._model, self._model.planes - 1
        if self.plane_range.max != last:
            self.plane_range.max, self.plane_range.value = last, (0, last)
        self.box.value, self.lasso.value = model.tool == "box", model.tool == "lasso"
        self.none.disabled = self.menu.disabled = not model.selection
        self.planes.layout.display = "flex" if self.plane_range.max > 0 and model.tool != "move" else "none"
        self.plane_range.layout.display = "" if model.plane_scope == "range" else "none"

    def _choose_tool(self, tool: str, change: dict[str, bool]) -> None:
        if change["new"]:
            self._model.tool = tool
        elif self._model.tool == tool:
            self._model.tool = "move"


@dataclass(frozen=True)
class MenuItem:
    """One line of the context menu.

    Attributes
    ----------
    text : str
    key : str
        Key with the same effect, or empty.
    act : callable
    color : str
        Color of a class, or empty.
    """

    text: str
    key: str
    act: Callable[[], object]
    color: str = ""


class ObjectMenu(VBox):
    """Context menu that opens next to a point of the image area and stays inside it.

    Attributes
    ----------
    items : tuple of MenuItem
    """

    def __init__(self) -> None:
        super().__init__(layout={"display": "none", "width": f"{_MENU_WIDTH}px", "overflow": "hidden auto"})
        self.add_class("sv-menu")
        self.items: tuple[MenuItem, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether the menu is displayed."""
        return bool(self.layout.display != "none")

    def show_at(self, at: tuple[float, float], size: tuple[int, int], title: str, items: Sequence[MenuItem]) -> None:
        """Show items next to a point (row, column), and focus the first item.

        ``size`` is the height and width of the image area; all lengths are in CSS pixels.
        """
        self._close_lines()
        self.items = tuple(items)
        height, width = size
        max_height = height - 2 * _MENU_MARGIN
        own_height = min(_MENU_TITLE + _MENU_ROW * len(items), max_height)
        self.layout.max_height = f"{max_height}px"
        self.layout.top = f"{_shift_inside(at[0], own_height, height):.0f}px"
        left = at[1] + 8 if at[1] + 8 + _MENU_WIDTH <= width else at[1] - 8 - _MENU_WIDTH
        self.layout.left = f"{_shift_inside(left, _MENU_WIDTH, width):.0f}px"
        head = HTML(f'<div class="sv-menu-title">{html.escape(title)}</div>', layout={"margin": "0"})
        self.children = (head, *map(_menu_line, items))
        self.layout.display = ""
        self.buttons()[0].focus()

    def hide(self) -> None:
        """Close the menu."""
        self.layout.display = "none"
        self._close_lines()

    def buttons(self) -> list[Button]:
        """Return the buttons of the items."""
        return [line.children[0] for line in self.children[1:]]

    def _close_lines(self) -> None:
        """Close the widgets of the previous items, which the kernel would keep forever."""
        lines, self.children = self.children, ()
        for line in lines:
            for part in getattr(line, "children", ()):
                part.close()
            line.close()


def _menu_line(item: MenuItem) -> Box:
    button = Button(description=item.text, tooltip=f"{item.text} (key {item.key})" if item.key else item.text)
    button.on_click(lambda _: item.act())
    button.layout.border_left = f"8px solid {item.color or 'transparent'}"
    key = HTML(keycap(item.key) if item.key else "", layout={"margin": "0"})
    key.add_class("sv-menu-key")
    line = Box([button, key], layout={"flex": "0 0 auto", "overflow": "visible"})
    line.add_class("sv-menu-item")
    return line


def _shift_inside(start: float, extent: float, size: float) -> float:
    """Return the position nearest to ``start`` at which the extent fits inside."""
    return max(_MENU_MARGIN, min(start, size - extent - _MENU_MARGIN))
