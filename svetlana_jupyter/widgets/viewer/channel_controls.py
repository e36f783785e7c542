"""Controls of the contrast and color of a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipywidgets import ColorPicker, Dropdown, FloatLogSlider, FloatRangeSlider, HBox, Label, ToggleButton, Widget

from svetlana_jupyter.core.display.channels import CLIPPED_PERCENT, auto_contrast_limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from svetlana_jupyter.core.display.channels import ContrastLimits, DisplaySettings
    from svetlana_jupyter.widgets.viewer.open_images import OpenImage

    SetPalette = Callable[[DisplaySettings], None]

_SLIDER_STEPS = 500
_MANUAL, _AS_STORED = "manual", "as stored"
_CLIPPING = {"all values": 0.0, "0.02 %": 0.02, f"{CLIPPED_PERCENT:g} %": CLIPPED_PERCENT, "1 %": 1.0, "5 %": 5.0}


def label_options(tooltip: str, width: str, description: str = "", description_width: str = "") -> dict[str, Any]:
    """Return arguments of a control: tooltip, width, and a description if given."""
    labels: dict[str, Any] = {"tooltip": tooltip, "layout": {"width": width}}
    described = {"description": description, "style": {"description_width": description_width}}
    return labels | described if description else labels


_WINDOW = label_options("Contrast limits: values displayed black and at full brightness", "250px")
_CLIPPED = label_options("Percentage of the darkest and brightest pixels that is clipped", "92px")
_GAMMA = label_options("Gamma; larger values brighten dark pixels", "168px", "γ", "14px")


class ChannelControls(HBox):
    """Controls of one channel, or of all three channels of an RGB image.

    Parameters
    ----------
    image : OpenImage
    position : int
        Position of the channel.
    set_palette : callable
        Called with the changed display settings.
    focus : callable
        Called after a click, to give the keyboard focus back to the canvas; sliders keep the focus.

    Attributes
    ----------
    window : FloatRangeSlider
        Contrast limits: the values displayed black and at full brightness.
    clipping : Dropdown
        Contrast limits by percentile: percentage of the darkest and of the brightest pixels that is clipped.
    gamma : FloatLogSlider
    """

    def __init__(self, image: OpenImage, position: int, set_palette: SetPalette, focus: Callable[[], None]) -> None:
        self._image, self._position, self._set_palette, self._focus = image, position, set_palette, focus
        self._limits = self._offered_limits()
        channel = image.palette.channels[position]
        limits = *self._limits.values(), channel.contrast_limits
        low, high = min(0.0, *(low for low, _ in limits)), max(high for _, high in limits)
        self._step = (high - low) / _SLIDER_STEPS
        digits = ".0f" if high - low > 20 else ".3g"
        self.window = FloatRangeSlider(
            value=channel.contrast_limits, min=low, max=high, step=self._step, readout_format=digits, **_WINDOW
        )
        options = [*self._limits, _MANUAL]
        self.clipping = Dropdown(options=options, value=self._name_of(channel.contrast_limits), **_CLIPPED)
        self.gamma = FloatLogSlider(channel.gamma, min=-0.7, max=0.7, step=0.02, readout_format=".2f", **_GAMMA)
        super().__init__([*self._name(), self.window, self.clipping, self.gamma], layout={"align_items": "center"})
        self.window.observe(lambda change: self._set_limits(change["new"]), "value")
        self.clipping.observe(lambda change: self._choose_clipping(change["new"]), "value")
        self.gamma.observe(lambda change: set_palette(image.palette.with_gamma(position, change["new"])), "value")

    def _offered_limits(self) -> dict[str, ContrastLimits]:
        """Return the contrast limits that the dropdown offers, by name."""
        pixels = self._image.pixels[self._position]
        offered = {name: auto_contrast_limits(pixels, percent) for name, percent in _CLIPPING.items()}
        automatic = self._image.auto_palette.channels[self._position].contrast_limits
        return offered if automatic in offered.values() else {_AS_STORED: automatic, **offered}

    def _name_of(self, limits: ContrastLimits) -> str:
        return next((name for name, offered in self._limits.items() if self._are_same(offered, limits)), _MANUAL)

    def _are_same(self, first: ContrastLimits, second: ContrastLimits) -> bool:
        # The browser rounds the values of a slider to whole steps.
        return max(abs(a - b) for a, b in zip(first, second)) <= self._step

    def _set_limits(self, limits: ContrastLimits) -> None:
        low, high = limits
        self.clipping.value = self._name_of(limits)
        if high > low and not self._are_same(self._image.palette.channels[self._position].contrast_limits, limits):
            self._set_palette(self._image.palette.with_contrast_limits(self._position, (low, high)))

    def _choose_clipping(self, name: str) -> None:
        if name != _MANUAL and not self._are_same(self._limits[name], self.window.value):
            self.window.value = self._limits[name]
        self._focus()

    def _name(self) -> list[Widget]:
        image, position = self._image, self._position
        if image.palette.rgb or len(image.palette.channels) == 1:
            return [Label("Contrast", layout={"width": "64px"})]
        channel = image.palette.channels[position]
        color = ColorPicker(concise=True, value=channel.color, layout={"width": "28px"})
        color.tooltip = f"Color of {channel.name}"
        shown = ToggleButton(
            channel.visible, description=channel.name, tooltip=f"Show {channel.name}", layout={"width": "84px"}
        )
        color.observe(lambda change: self._set_palette(image.palette.with_color(position, change["new"])), "value")
        shown.observe(lambda change: self._set_palette(image.palette.with_visibility(position, change["new"])), "value")
        shown.observe(lambda _: self._focus(), "value")
        return [color, shown]
