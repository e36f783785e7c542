"""Display of channels: contrast limits, gamma, colors and additive blending."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from svetlana_jupyter.core.display.tiles import TileReader
from svetlana_jupyter.core.display.viewport import PixelBox
from svetlana_jupyter.core.io.images import is_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from svetlana_jupyter.core.display.tiles import PlaneRegion
    from svetlana_jupyter.core.io.image_pair import ImagePair

ContrastLimits = tuple[float, float]

# Distinguishable when blended additively; magenta and green also with red-green color blindness.
DEFAULT_CHANNEL_COLORS = ("#00ff00", "#ff00ff", "#00a0ff", "#ffff00", "#ff4000", "#ffffff")
CLIPPED_PERCENT = 0.2  # of the pixels, clipped at either end by the automatic contrast
_OVERVIEW_SIDE = 1024
_CROP_REACH, _CROPS_PER_AXIS = 128, 3  # half the side in pixels; also the number of channels with crops of bright spots
_BRIGHT_QUANTILES = (0.98, 0.9995)


@dataclass(frozen=True)
class ChannelDisplay:
    """Display settings of one channel.

    Attributes
    ----------
    name : str
    color : str
        ``"#rrggbb"`` of the brightest value.
    contrast_limits : tuple of float
        Values displayed as black and as the full color.
    visible : bool
    gamma : float
        Above 1 brightens dark values, below 1 darkens them.
    """

    name: str
    color: str
    contrast_limits: ContrastLimits
    visible: bool = True
    gamma: float = 1.0


@dataclass(frozen=True)
class DisplaySettings:
    """Display settings of all channels of an image.

    Attributes
    ----------
    channels : tuple of ChannelDisplay
    rgb : bool
        Whether the channels are red, green and blue of a color image; then they share contrast limits and gamma.
    """

    channels: tuple[ChannelDisplay, ...]
    rgb: bool = False

    @property
    def display_key(self) -> tuple[bool, tuple[str, ...]]:
        """Key that is equal for images that can share display settings."""
        return self.rgb, tuple(channel.name for channel in self.channels)

    def with_contrast_limits(self, position: int, contrast_limits: ContrastLimits) -> DisplaySettings:
        """Return a copy with other contrast limits for one channel.

        In an RGB image, they apply to all channels.
        """
        return self._changed(position, contrast_limits=contrast_limits)

    def with_gamma(self, position: int, gamma: float) -> DisplaySettings:
        """Return a copy with another gamma for one channel; in an RGB image, for all."""
        return self._changed(position, gamma=gamma)

    def with_color(self, position: int, color: str) -> DisplaySettings:
        """Return a copy with one channel in another color, ``"#rrggbb"``."""
        return self._changed(position, color=color)

    def with_visibility(self, position: int, visible: bool) -> DisplaySettings:
        """Return a copy with one channel shown or hidden."""
        return self._changed(position, visible=visible)

    def _changed(self, position: int, **change: Any) -> DisplaySettings:
        all_channels = self.rgb and "visible" not in change
        changed = (
            replace(channel, **change) if all_channels or i == position else channel
            for i, channel in enumerate(self.channels)
        )
        return replace(self, channels=tuple(changed))


def sample_pixels(image: TileReader) -> NDArray[np.float32]:
    """Sample pixels of every channel, from which contrast limits are computed.

    A small image, or an image with a small pyramid level, is sampled as a whole (`is_sampled_whole`). Of any other
    image, only a few crops are read, so that the time does not grow with the image. Pixels of a coarse pyramid level
    are means, in which small bright objects are too dark, so a few crops around the brightest pixels are also read at
    full resolution.

    Returns
    -------
    array of shape (C, n), float32, finite, each channel ascending
    """
    whole, stride, planes = _overview(image)
    parts = []
    for plane in planes:
        if is_sampled_whole(image):
            overview = image.read(whole, stride, plane)
            parts.append(overview.values)
            centers = _bright_points(overview) if image.factor(stride) > 1 else []
        else:
            steps = [2 * i + 1 for i in range(_CROPS_PER_AXIS)]
            rows, columns = ([step * n // (2 * _CROPS_PER_AXIS) for step in steps] for n in image.shape)
            centers = list(itertools.product(rows, columns))
        for y, x in centers:
            crop = PixelBox(y - _CROP_REACH, x - _CROP_REACH, y + _CROP_REACH, x + _CROP_REACH).clipped(image.shape)
            parts.append(image.read(crop, 1, plane).values)
    pixels = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1).astype(np.float32)
    pixels[~np.isfinite(pixels)] = 0
    return np.sort(pixels, axis=1)


def is_sampled_whole(image: TileReader) -> bool:
    """Return whether `sample_pixels` reads the whole image.

    This is so if the image is small, has a small pyramid level, or was displayed before.
    """
    whole, stride, planes = _overview(image)
    return all(image.is_fast(whole, stride, plane) for plane in planes)


def _overview(image: TileReader) -> tuple[PixelBox, int, list[int]]:
    """Return the extent of an image, the stride for an overview, and some planes."""
    depth = image.array.sizes.get("z", 1)
    stride = 1 << max(0, math.ceil(math.log2(max(image.shape) / _OVERVIEW_SIDE)))
    return PixelBox(0, 0, *image.shape), stride, sorted({depth // 4, depth // 2, 3 * depth // 4})


def _bright_points(region: PlaneRegion) -> list[tuple[int, int]]:
    """Return pixels (y, x) at high quantiles of each of the first channels."""
    points = []
    for values in region.values[:_CROPS_PER_AXIS]:
        order = np.argsort(values, axis=None)
        for quantile in _BRIGHT_QUANTILES:
            row, column = divmod(int(order[int(quantile * (len(order) - 1))]), values.shape[1])
            points.append((region.box.y0 + row * region.stride, region.box.x0 + column * region.stride))
    return points


def auto_contrast_limits(pixels: NDArray[np.float32], clipped_percent: float = CLIPPED_PERCENT) -> ContrastLimits:
    """Return contrast limits that clip this percentage of pixels at either end.

    If both percentiles are equal, as in an image that is nearly all background, the limits are the minimum and maximum.
    The lower limit is always below the upper limit.
    """
    low, high = (float(value) for value in np.percentile(pixels, (clipped_percent, 100 - clipped_percent)))
    if high <= low:
        low, high = float(pixels.min()), float(pixels.max())
    return (low, high) if high > low else (low, low + 1.0)


def initial_display_settings(names: list[str], rgb: bool, dtype: Any, pixels: NDArray[np.float32]) -> DisplaySettings:
    """Return the initial display settings of an image.

    8-bit color images keep their true colors; the contrast of all other images comes from `auto_contrast_limits`.

    Parameters
    ----------
    names : list of str
        Channel names.
    rgb : bool
    dtype : dtype of the image
    pixels : array of shape (C, n)
        From `sample_pixels`.
    """
    if rgb:
        limits = (0.0, 255.0) if np.dtype(dtype) == np.uint8 else (0.0, auto_contrast_limits(pixels)[1])
        return DisplaySettings(tuple(ChannelDisplay(name, "#ffffff", limits) for name in names), rgb=True)
    colors = itertools.cycle(DEFAULT_CHANNEL_COLORS) if len(names) > 1 else ["#ffffff"]
    channels = (ChannelDisplay(n, c, auto_contrast_limits(p)) for n, c, p in zip(names, colors, pixels))
    return DisplaySettings(tuple(channels))


def default_display_settings(pair: ImagePair) -> DisplaySettings:
    """Sample the pixels of an image and return its initial display settings."""
    pixels = sample_pixels(TileReader(pair.image, pair.levels))
    return initial_display_settings(list(pair.channels), is_rgb(pair.image), pair.image.dtype, pixels)


def render_pixels(values: NDArray[Any], display_settings: DisplaySettings) -> NDArray[np.uint8]:
    """Convert pixel values to screen colors.

    Parameters
    ----------
    values : array of shape (C, h, w)
    display_settings : DisplaySettings

    Returns
    -------
    array of uint8, shape (h, w) if the result is gray, else (h, w, 3)
    """

    def render(plane: NDArray[Any], channel: ChannelDisplay) -> NDArray[np.uint8]:
        return stretch_to_uint8(plane, channel.contrast_limits, channel.gamma)

    channels = list(zip(values, display_settings.channels))
    if display_settings.rgb:
        return np.stack([render(v, c) if c.visible else np.zeros(v.shape, np.uint8) for v, c in channels], axis=-1)
    visible = [(plane, channel) for plane, channel in channels if channel.visible]
    if not visible or not values.size:
        return np.zeros(values.shape[-2:], np.uint8)
    if len(visible) == 1 and visible[0][1].color == "#ffffff":
        return render(*visible[0])
    total = np.zeros((*values.shape[-2:], 3), np.uint8)
    for plane, channel in visible:
        # One table per channel (256 brightnesses of its color) replaces three multiplications per pixel.
        ramp = ((np.arange(256)[:, None] * np.array(rgb_of(channel.color)) + 127) // 255).astype(np.uint8)
        cv2.add(total, cv2.applyColorMap(render(plane, channel), ramp[:, None]), dst=total)
    return total


def as_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a copy of gray or RGB pixels as RGB, shape (h, w, 3)."""
    return np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else np.array(pixels, order="C")


def stretch_to_uint8(values: NDArray[Any], limits: ContrastLimits, gamma: float = 1.0) -> NDArray[np.uint8]:
    """Map contrast limits to 0 and 255; clip other values, and show NaN as black.

    The mapping is linear for ``gamma`` 1; otherwise the relative value is raised to ``1 / gamma``.
    """
    low, high = limits
    if values.dtype not in (np.uint8, np.uint16):
        return _stretch(values.astype(np.float32), low, high, gamma)
    table = _stretch_table(np.iinfo(values.dtype).max, low, high, gamma)
    if values.dtype == np.uint8:
        return np.asarray(cv2.LUT(np.ascontiguousarray(values), table))  # ten times as fast as np.take
    return np.asarray(np.take(table, values))


@lru_cache(maxsize=32)
def _stretch_table(max_value: int, low: float, high: float, gamma: float) -> NDArray[np.uint8]:
    return _stretch(np.arange(max_value + 1), low, high, gamma)


def _stretch(values: NDArray[Any], low: float, high: float, gamma: float) -> NDArray[np.uint8]:
    relative = np.clip((np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low), 0.0, 1.0)
    return np.rint((relative ** (1 / gamma) if gamma != 1 else relative) * 255).astype(np.uint8)  # type: ignore[no-any-return]


def rgb_of(color: str) -> tuple[int, int, int]:
    """Return red, green and blue of ``"#rrggbb"``.

    >>> rgb_of("#ff8000")
    (255, 128, 0)
    """
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
