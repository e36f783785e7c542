"""How pixel values become screen colours: contrast windows by percentile, gamma, channel colours, and their blend."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.display.tiles import PlaneRegion, TileReader
from svetlana_jupyter.core.display.viewport import PixelBox

ContrastLimits = tuple[float, float]

# Told apart when blended additively; magenta and green also with red-green blindness.
DEFAULT_CHANNEL_COLORS = ("#00ff00", "#ff00ff", "#00a0ff", "#ffff00", "#ff4000", "#ffffff")
CLIPPED_PERCENT = 0.2  # per cent
_SAMPLED = 1024
_SPOT, _SPOTS = 256, 3
_BRIGHT = (0.98, 0.9995)  # share of the values that are darker


@dataclass(frozen=True)
class ChannelDisplay:
    """How one channel is shown.

    Attributes
    ----------
    name : str
    color : str
        ``"#rrggbb"`` of the brightest value.
    window : tuple of float
        The values shown black and at full colour.
    gamma : float
        Above 1 brightens what is dark, below 1 darkens it.
    visible : bool
    """

    name: str
    color: str
    contrast_limits: ContrastLimits
    visible: bool = True
    gamma: float = 1.0


@dataclass(frozen=True)
class DisplaySettings:
    """How all channels of an image are shown.

    Attributes
    ----------
    channels : tuple of Channel
    rgb : bool
        The channels are red, green and blue of one colour image and share the first one's window and gamma.
    """

    channels: tuple[ChannelDisplay, ...]
    rgb: bool = False

    @property
    def display_key(self) -> tuple[bool, tuple[str, ...]]:
        """Equal for images that can be shown alike."""
        return self.rgb, tuple(channel.name for channel in self.channels)

    def with_contrast_limits(self, position: int, contrast_limits: ContrastLimits) -> DisplaySettings:
        """Return this display_settings with one channel's contrast changed (of every channel for a colour image)."""
        return self._changed(position, "contrast_limits", contrast_limits)

    def with_gamma(self, position: int, gamma: float) -> DisplaySettings:
        """Return this display_settings with one channel's gamma changed (of every channel for a colour image)."""
        return self._changed(position, "gamma", gamma)

    def with_color(self, position: int, color: str) -> DisplaySettings:
        """Return this display_settings with one channel in another colour, ``"#rrggbb"``."""
        return self._changed(position, "color", color)

    def with_visibility(self, position: int, visible: bool) -> DisplaySettings:
        """Return this display_settings with one channel switched on or off."""
        return self._changed(position, "visible", visible)

    def _changed(self, position: int, name: str, value: object) -> DisplaySettings:
        channels = [
            replace(channel, **{name: value}) if i == position or (self.rgb and name != "visible") else channel  # type: ignore[arg-type]
            for i, channel in enumerate(self.channels)
        ]
        return replace(self, channels=tuple(channels))


def sample_pixels(image: TileReader) -> NDArray[np.float32]:
    """Return some pixels of every channel, to choose a contrast by.

    An image of which everything is soon read (`is_sampled_whole`) is sampled as a whole; of any other a few places
    are read,
    so that the cost does not grow with the image. The pixels of a coarse level are means, which hide how bright small
    things are, so a few places that look bright in it are read as well.

    Returns
    -------
    array of shape (C, n), float32, finite, each channel ascending
    """
    whole, stride, planes = _overview(image)
    parts = []
    for plane in planes:
        if not is_sampled_whole(image):
            rows, columns = ([(2 * i + 1) * n // (2 * _SPOTS) for i in range(_SPOTS)] for n in image.shape)
            spots = list(itertools.product(rows, columns))
        else:
            seen = image.read(whole, stride, plane)
            parts.append(seen.values)
            spots = _bright_spots(seen) if image.factor(stride) > 1 else []
        parts += [image.read(_around(spot, image.shape), 1, plane).values for spot in spots]
    pixels = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1).astype(np.float32)
    pixels[~np.isfinite(pixels)] = 0
    return np.sort(pixels, axis=1)


def is_sampled_whole(image: TileReader) -> bool:
    """Return whether `sample_pixels` would read the whole image."""
    whole, stride, planes = _overview(image)
    return all(image.is_fast(whole, stride, plane) for plane in planes)


def _overview(image: TileReader) -> tuple[PixelBox, int, list[int]]:
    """Return the box of an image, the stride at which it fits a small screen, and a few of its planes."""
    depth = image.array.sizes.get("z", 1)
    stride = 1 << max(0, math.ceil(math.log2(max(image.shape) / _SAMPLED)))
    return PixelBox(0, 0, *image.shape), stride, sorted({depth // 4, depth // 2, 3 * depth // 4})


def _bright_spots(seen: PlaneRegion) -> list[tuple[int, int]]:
    """Return pixels (y, x) where a channel is rather bright, and where it is very bright."""
    spots = []
    for values in seen.values[:_SPOTS]:
        order = np.argsort(values, axis=None)
        for share in _BRIGHT:
            row, column = divmod(int(order[int(share * (len(order) - 1))]), values.shape[1])
            spots.append((seen.box.y0 + row * seen.stride, seen.box.x0 + column * seen.stride))
    return spots


def _around(spot: tuple[int, int], shape: tuple[int, int]) -> PixelBox:
    """Return a small box round a pixel, as far as it is on the image."""
    half = _SPOT // 2
    (y0, y1), (x0, x1) = ((max(0, at - half), min(n, at + half)) for at, n in zip(spot, shape))
    return PixelBox(y0, x0, y1, x1)


def auto_contrast_limits(pixels: NDArray[np.float32], clipped_percent: float = CLIPPED_PERCENT) -> ContrastLimits:
    """Return the window that leaves out the darkest and the brightest per cent of some pixels; never an empty one.

    Where nearly all is background, that would leave out everything there is to see: then the window is that of all.
    """
    low, high = (float(value) for value in np.percentile(pixels, (clipped_percent, 100 - clipped_percent)))
    if high <= low:
        low, high = float(pixels.min()), float(pixels.max())
    return (low, high) if high > low else (low, low + 1.0)


def initial_display_settings(names: list[str], rgb: bool, dtype: Any, pixels: NDArray[np.float32]) -> DisplaySettings:
    """Return how an image is shown at first.

    8-bit colour images keep their true colours; everything else is stretched, as `auto_contrast_limits` does.

    Parameters
    ----------
    names : list of str
        The channels.
    rgb : bool
    dtype : dtype of the image
    pixels : array of shape (C, n)
        From `sample_pixels`.
    """
    if rgb:
        window = (0.0, 255.0) if np.dtype(dtype) == np.uint8 else (0.0, auto_contrast_limits(pixels)[1])
        return DisplaySettings(tuple(ChannelDisplay(name, "#ffffff", window) for name in names), rgb=True)
    colors = (
        ["#ffffff"]
        if len(names) == 1
        else [DEFAULT_CHANNEL_COLORS[i % len(DEFAULT_CHANNEL_COLORS)] for i in range(len(names))]
    )
    return DisplaySettings(
        tuple(ChannelDisplay(n, c, auto_contrast_limits(p)) for n, c, p in zip(names, colors, pixels))
    )


def render_pixels(values: NDArray[Any], display_settings: DisplaySettings) -> NDArray[np.uint8]:
    """Turn pixel values into what the screen shows.

    Parameters
    ----------
    values : array of shape (C, h, w)
    display_settings : Palette

    Returns
    -------
    array of uint8, of shape (h, w) when all is grey, else (h, w, 3)
    """
    if display_settings.rgb:
        planes = [
            stretch_to_uint8(v, c.contrast_limits, c.gamma) if c.visible else np.zeros(v.shape, np.uint8)
            for v, c in zip(values, display_settings.channels)
        ]
        return np.stack(planes, axis=-1)
    shown = [(v, channel) for v, channel in zip(values, display_settings.channels) if channel.visible]
    if not shown or not values.size:
        return np.zeros(values.shape[-2:], np.uint8)
    if len(shown) == 1 and shown[0][1].color == "#ffffff":
        return stretch_to_uint8(shown[0][0], shown[0][1].contrast_limits, shown[0][1].gamma)
    total = np.zeros((*values.shape[-2:], 3), np.uint8)
    for v, channel in shown:
        # One table a channel: 256 brightnesses of its colour, instead of three multiplications a pixel.
        ramp = ((np.arange(256)[:, None] * np.array(rgb_of(channel.color)) + 127) // 255).astype(np.uint8)
        cv2.add(
            total,
            cv2.applyColorMap(stretch_to_uint8(v, channel.contrast_limits, channel.gamma), ramp[:, None]),
            dst=total,
        )
    return total


def stretch_to_uint8(values: NDArray[Any], window: ContrastLimits, gamma: float = 1.0) -> NDArray[np.uint8]:
    """Stretch values so that the window goes to 0 to 255; what lies outside is clipped, NaN is black.

    With ``gamma`` 1 that is linear; else the share of the window is raised to ``1 / gamma``.
    """
    low, high = window
    if values.dtype in (np.uint8, np.uint16):
        table = _table(np.iinfo(values.dtype).max, low, high, gamma)
        if values.dtype == np.uint8:
            return np.asarray(cv2.LUT(np.ascontiguousarray(values), table))  # ten times as fast as take
        return np.asarray(np.take(table, values))
    return _stretched(values.astype(np.float32), low, high, gamma)


def rgb_of(color: str) -> tuple[int, int, int]:
    """Return red, green and blue of ``"#rrggbb"``.

    >>> rgb_of("#ff8000")
    (255, 128, 0)
    """
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


@lru_cache(maxsize=32)
def _table(most: int, low: float, high: float, gamma: float) -> NDArray[np.uint8]:
    return _stretched(np.arange(most + 1), low, high, gamma)


def _stretched(values: NDArray[Any], low: float, high: float, gamma: float) -> NDArray[np.uint8]:
    share = np.clip((np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low), 0.0, 1.0)
    bytes_: NDArray[np.uint8] = np.rint(share ** (1 / gamma) * 255 if gamma != 1 else share * 255).astype(np.uint8)
    return bytes_
