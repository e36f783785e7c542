"""The controls above and below the viewer's picture.

How the channels of an image are shown: on or off, their colour, their contrast by hand or by percentile, gamma.

The small menu over the picture: what can be said of the object, or of the objects, it was opened for.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ipywidgets import (
    HTML,
    Box,
    Button,
    ColorPicker,
    Dropdown,
    FloatLogSlider,
    FloatRangeSlider,
    FloatSlider,
    HBox,
    IntSlider,
    Label,
    ToggleButton,
    VBox,
    Widget,
)
from traitlets import link

from svetlana_jupyter.core.display.channels import CLIPPED_PERCENT, auto_contrast_limits
from svetlana_jupyter.widgets.components import keycap
from svetlana_jupyter.widgets.viewer.interaction import ICON_LAYOUT, SelectionTools, icon_button

if TYPE_CHECKING:
    from svetlana_jupyter.core.display.channels import ContrastLimits, DisplaySettings
    from svetlana_jupyter.widgets.viewer.viewer import OpenImage, Viewer

_STEPS = 500
_BY_HAND, _TRUE = "by hand", "as stored"
_SHARES = {"all values": 0.0, "0.02 %": 0.02, f"{CLIPPED_PERCENT:g} %": CLIPPED_PERCENT, "1 %": 1.0, "5 %": 5.0}


class ChannelControls(HBox):
    """The controls of one channel, or of all three of a colour image.

    Parameters
    ----------
    opened : OpenImage
    position : int
        Of the channel.
    show : callable
        Called with the changed palette.
    done : callable
        Called after a click, to give the keyboard back; sliders keep it.

    Attributes
    ----------
    window : FloatRangeSlider
        The values shown black and at full colour.
    left_out : Dropdown
        The window by percentile: how much of the darkest and of the brightest pixels is left out.
    gamma : FloatLogSlider
    """

    def __init__(
        self, opened: OpenImage, position: int, show: Callable[[DisplaySettings], None], done: Callable[[], None]
    ) -> None:
        self._opened, self._position, self._show, self._done = opened, position, show, done
        self._windows = self._offered()
        channel = opened.palette.channels[position]
        low = min(0.0, *(window[0] for window in (*self._windows.values(), channel.contrast_limits)))
        high = max(window[1] for window in (*self._windows.values(), channel.contrast_limits))
        self._step = (high - low) / _STEPS
        self.window = FloatRangeSlider(
            value=channel.contrast_limits,
            min=low,
            max=high,
            step=self._step,
            readout_format=".0f" if high - low > 20 else ".3g",
            tooltip="The values shown black and at full brightness",
            layout={"width": "250px"},
        )
        self.left_out = Dropdown(
            options=[*self._windows, _BY_HAND],
            value=self._name_of(channel.contrast_limits),
            tooltip="Contrast by percentile: how much of the darkest and of the brightest pixels is left out",
            layout={"width": "92px"},
        )
        self.gamma = FloatLogSlider(
            value=channel.gamma,
            base=10,
            min=-0.7,
            max=0.7,
            step=0.02,
            description="γ",
            readout_format=".2f",
            tooltip="Gamma: to the right, what is dark gets brighter",
            style={"description_width": "14px"},
            layout={"width": "168px"},
        )
        super().__init__([*self._name(), self.window, self.left_out, self.gamma], layout={"align_items": "center"})
        self.window.observe(lambda change: self._set_window(change["new"]), "value")
        self.left_out.observe(lambda change: self._choose(change["new"]), "value")
        self.gamma.observe(lambda change: self._show(opened.palette.with_gamma(position, change["new"])), "value")

    def _offered(self) -> dict[str, ContrastLimits]:
        """Return the windows by their names."""
        pixels = self._opened.pixels[self._position]
        windows = {name: auto_contrast_limits(pixels, share) for name, share in _SHARES.items()}
        auto_palette = self._opened.auto_palette.channels[self._position].contrast_limits
        return windows if auto_palette in windows.values() else {_TRUE: auto_palette, **windows}

    def _name_of(self, window: ContrastLimits) -> str:
        return next((name for name, offered in self._windows.items() if self._same(offered, window)), _BY_HAND)

    def _same(self, one: ContrastLimits, other: ContrastLimits) -> bool:
        """Whether two windows are the same to the slider, which the browser sets to whole steps."""
        return max(abs(a - b) for a, b in zip(one, other)) <= self._step

    def _set_window(self, window: ContrastLimits) -> None:
        low, high = window
        self.left_out.value = self._name_of(window)
        if high > low and not self._same(self._opened.palette.channels[self._position].contrast_limits, window):
            self._show(self._opened.palette.with_contrast_limits(self._position, (low, high)))

    def _choose(self, name: str) -> None:
        if name != _BY_HAND and not self._same(self._windows[name], self.window.value):
            self.window.value = self._windows[name]
        self._done()

    def _name(self) -> list[Widget]:
        palette = self._opened.palette
        if palette.rgb or len(palette.channels) == 1:
            return [Label("Contrast", layout={"width": "64px"})]
        channel = palette.channels[self._position]
        color = ColorPicker(concise=True, value=channel.color, layout={"width": "28px"})
        color.tooltip = f"Colour of {channel.name}"
        switch = ToggleButton(
            channel.visible, description=channel.name, tooltip=f"Show {channel.name}", layout={"width": "84px"}
        )

        def switched(change: dict[str, bool]) -> None:
            self._show(self._opened.palette.with_visibility(self._position, change["new"]))
            self._done()

        switch.observe(switched, "value")
        color.observe(
            lambda change: self._show(self._opened.palette.with_color(self._position, change["new"])), "value"
        )
        return [color, switch]


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


_WIDTH, _ROW, _TITLE, _EDGE = 216, 26, 36, 6  # CSS pixels; the title with the border and padding of the menu


@dataclass(frozen=True)
class Item:
    """One line of the menu: ``act`` is what it does; ``color`` is a class's, or empty."""

    text: str
    key: str
    act: Callable[[], object]
    color: str = ""


class ObjectMenu(VBox):
    """A menu that opens beside a point of a picture and stays inside it.

    Parameters
    ----------
    size : tuple of int
        Height and width of the picture, in CSS pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(layout={"display": "none", "width": f"{_WIDTH}px", "overflow": "hidden auto"})
        self.add_class("sv-menu")
        self._size = size
        self.items: tuple[Item, ...] = ()

    def show_at(self, at: tuple[float, float], title: str, items: Sequence[Item]) -> None:
        """Show these items beside a point (row, column) of the picture, and give the first the keyboard."""
        self._drop()
        self.items = tuple(items)
        height, width = self._size
        most = height - 2 * _EDGE
        tall = min(_TITLE + _ROW * len(items), most)
        self.layout.max_height = f"{most}px"
        self.layout.top = f"{_inside(at[0], tall, height):.0f}px"
        beside = at[1] + 8 if at[1] + 8 + _WIDTH <= width else at[1] - 8 - _WIDTH
        self.layout.left = f"{_inside(beside, _WIDTH, width):.0f}px"
        head = HTML(f'<div class="sv-menu-title">{html.escape(title)}</div>', layout={"margin": "0"})
        lines = [_line(item) for item in items]
        self.children = (head, *lines)
        self.layout.display = ""
        lines[0].children[0].focus()

    def hide(self) -> None:
        """Show nothing."""
        self.layout.display = "none"
        self._drop()

    @property
    def is_open(self) -> bool:
        return self.layout.display != "none"

    def buttons(self) -> list[Button]:
        """Return the buttons of the items."""
        return [line.children[0] for line in self.children[1:]]

    def _drop(self) -> None:
        """Let go of the widgets of the time before."""
        before, self.children = self.children, ()
        for line in before:
            for part in getattr(line, "children", ()):
                part.close()
            line.close()


def _line(item: Item) -> Box:
    button = Button(description=item.text, tooltip=f"{item.text} (key {item.key})" if item.key else item.text)
    button.on_click(lambda _: item.act())
    button.layout.border_left = f"8px solid {item.color}" if item.color else "8px solid transparent"
    key = HTML(keycap(item.key) if item.key else "", layout={"margin": "0"})
    key.add_class("sv-menu-key")
    line = Box([button, key], layout={"flex": "0 0 auto", "overflow": "visible"})
    line.add_class("sv-menu-item")
    return line


def _inside(start: float, extent: float, whole: float) -> float:
    """Return where something of this extent begins, as near to ``start`` as it fits."""
    return max(_EDGE, min(start, whole - extent - _EDGE))
