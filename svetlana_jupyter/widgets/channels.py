"""How the channels of an image are shown: on or off, their colour, their contrast by hand or by percentile, gamma."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ipywidgets import ColorPicker, Dropdown, FloatLogSlider, FloatRangeSlider, HBox, Label, ToggleButton, Widget

from svetlana_jupyter.core.contrast import LEFT_OUT, auto_contrast_limits

if TYPE_CHECKING:
    from svetlana_jupyter.core.contrast import DisplaySettings, Window
    from svetlana_jupyter.widgets.opened import OpenImage

_STEPS = 500
_BY_HAND, _TRUE = "by hand", "as stored"
_SHARES = {"all values": 0.0, "0.02 %": 0.02, f"{LEFT_OUT:g} %": LEFT_OUT, "1 %": 1.0, "5 %": 5.0}


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
        low = min(0.0, *(window[0] for window in (*self._windows.values(), channel.window)))
        high = max(window[1] for window in (*self._windows.values(), channel.window))
        self._step = (high - low) / _STEPS
        self.window = FloatRangeSlider(
            value=channel.window,
            min=low,
            max=high,
            step=self._step,
            readout_format=".0f" if high - low > 20 else ".3g",
            tooltip="The values shown black and at full brightness",
            layout={"width": "250px"},
        )
        self.left_out = Dropdown(
            options=[*self._windows, _BY_HAND],
            value=self._name_of(channel.window),
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
        self.gamma.observe(lambda change: self._show(opened.palette.bent(position, change["new"])), "value")

    def _offered(self) -> dict[str, Window]:
        """Return the windows by their names."""
        pixels = self._opened.pixels[self._position]
        windows = {name: auto_contrast_limits(pixels, share) for name, share in _SHARES.items()}
        auto_palette = self._opened.auto_palette.channels[self._position].window
        return windows if auto_palette in windows.values() else {_TRUE: auto_palette, **windows}

    def _name_of(self, window: Window) -> str:
        return next((name for name, offered in self._windows.items() if self._same(offered, window)), _BY_HAND)

    def _same(self, one: Window, other: Window) -> bool:
        """Whether two windows are the same to the slider, which the browser sets to whole steps."""
        return max(abs(a - b) for a, b in zip(one, other)) <= self._step

    def _set_window(self, window: Window) -> None:
        low, high = window
        self.left_out.value = self._name_of(window)
        if high > low and not self._same(self._opened.palette.channels[self._position].window, window):
            self._show(self._opened.palette.windowed(self._position, (low, high)))

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
            self._show(self._opened.palette.shown(self._position, change["new"]))
            self._done()

        switch.observe(switched, "value")
        color.observe(lambda change: self._show(self._opened.palette.colored(self._position, change["new"])), "value")
        return [color, switch]
