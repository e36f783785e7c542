"""The controls above and below the viewer's picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ipywidgets import (
    Button,
    Dropdown,
    FloatSlider,
    HBox,
    IntSlider,
    ToggleButton,
    VBox,
)
from traitlets import link

from svetlana_jupyter.widgets.channels import ChannelControls
from svetlana_jupyter.widgets.tools import ICON_LAYOUT, SelectionTools, icon_button

if TYPE_CHECKING:
    from svetlana_jupyter.widgets.opened import OpenImage
    from svetlana_jupyter.widgets.viewer import Viewer

OVERLAYS = (("Annotations", "annotations"), ("Predictions", "predictions"), ("No overlay", "off"))


class Toolbar(VBox):
    """The image, the zoom, the overlay and the tools in one row; contrast, channels and opacity open below it.

    Parameters
    ----------
    viewer : Viewer
        Whose traits the controls are linked to and whose methods the buttons call.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.images = Dropdown(tooltip="The image shown", layout={"width": "150px", "margin": "0 8px 0 0"})
        self.images.observe(lambda change: self._chosen(change["new"]), "value")
        self.overlay = Dropdown(
            options=OVERLAYS,
            tooltip="What the objects are coloured by",
            layout={"width": "116px", "margin": "0 4px 0 6px"},
        )
        self.outlines = ToggleButton(True, icon="circle-o", tooltip="Outlines", layout=ICON_LAYOUT)
        self.more = ToggleButton(icon="sliders", tooltip="Contrast, channels and opacity", layout=ICON_LAYOUT)
        self.opacity = FloatSlider(
            min=0,
            max=1,
            step=0.05,
            description="Opacity",
            readout=False,
            tooltip="How strongly objects are tinted",
            style={"description_width": "64px"},
            layout={"width": "240px"},
        )
        self.plane = IntSlider(description="Plane", tooltip="Plane of the volume ([ and ])", layout={"width": "100%"})
        self.tools = SelectionTools(viewer)
        self.channels = VBox()
        self._display = HBox([self.channels, self.opacity])
        self._display.layout = {"display": "none", "flex_flow": "row wrap", "align_items": "center"}
        self._first = HBox(
            [
                self.images,
                self._icon("expand", "The whole image (f)", viewer.fit),
                self._icon("search-minus", "Smaller (-)", lambda: viewer.zoom_on_selection(1 / 1.5)),
                self._icon("search-plus", "Larger (+)", lambda: viewer.zoom_on_selection(1.5)),
                self._icon("", "One image pixel on one screen pixel", viewer.zoom_to_pixels, "1:1"),
                self.overlay,
                self.outlines,
                self.more,
                self.tools,
            ],
            layout={"align_items": "center", "flex_flow": "row wrap"},
        )
        super().__init__([self._first, self.tools.planes, self._display], layout={"margin": "0 0 4px 0"})
        for name in ("overlay", "outlines", "opacity", "plane"):
            link((viewer, name), (getattr(self, name), "value"))
        self.outlines.observe(lambda _: viewer.focus(), "value")
        self.more.observe(self._open, "value")

    def list_images(self, names: list[str], shown: str) -> None:
        """Offer these images; the choice is hidden when there is only one."""
        with self.images.hold_trait_notifications():
            self.images.options = names
            self.images.value = shown if shown in names else None
        self.images.layout.display = "" if len(names) > 1 else "none"

    def follow(self, opened: OpenImage) -> None:
        """Show the controls that fit an image."""
        self.images.value = opened.name if opened.name in self.images.options else None
        viewer = self._viewer
        rows = 1 if opened.palette.rgb else len(opened.palette.channels)
        self.channels.children = [
            ChannelControls(opened, position, viewer.set_palette, viewer.focus) for position in range(rows)
        ]
        self.plane.max = opened.planes - 1
        self.tools.follow(opened.planes)
        self.plane.layout.display = "" if opened.planes > 1 else "none"

    def _icon(self, icon: str, tooltip: str, act: Callable[[], None], text: str = "") -> Button:
        return icon_button(self._viewer, icon, tooltip, act, text)

    def _chosen(self, name: str | None) -> None:
        if name is not None and name != self._viewer.image:
            self._viewer.show(name)
            self._viewer.focus()

    def _open(self, change: dict[str, bool]) -> None:
        self._display.layout.display = "flex" if change["new"] else "none"
        self._viewer.focus()
