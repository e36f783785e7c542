"""Viewport geometry: conversion between image and screen coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace

MAX_SCALE = 64.0
_MIN_SCALE = 1e-4
_FIT_MARGIN = 0.96  # share of the screen that a fitted image fills
_MAX_EMPTY = 0.15  # share of the screen that a framed view leaves empty at an image border


@dataclass(frozen=True)
class PixelBox:
    """Half-open rectangle of pixels: rows ``y0`` to ``y1``, columns ``x0`` to ``x1``."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return max(0, self.y1 - self.y0)

    @property
    def width(self) -> int:
        """Number of columns."""
        return max(0, self.x1 - self.x0)

    def in_cells(self, side: int) -> PixelBox:
        """Return the rows and columns of the cells that the box touches.

        The cells are squares of ``side`` pixels, counted from the corner of the image.
        """
        return PixelBox(self.y0 // side, self.x0 // side, -(-self.y1 // side), -(-self.x1 // side))

    def clipped(self, shape: tuple[int, int]) -> PixelBox:
        """Return the part of the box inside an image of shape (Y, X)."""
        y0, x0 = max(0, self.y0), max(0, self.x0)
        return PixelBox(y0, x0, max(y0, min(self.y1, shape[0])), max(x0, min(self.x1, shape[1])))


@dataclass(frozen=True)
class Viewport:
    """Screen rectangle over one plane of an image.

    The image plane is continuous: pixel (row, column) covers ``[row, row + 1) x [column, column + 1)``, so the center
    of the first pixel is at (0.5, 0.5).

    Attributes
    ----------
    center : tuple of float
        Image point (y, x), in pixels, at the center of the screen.
    scale : float
        Screen pixels (CSS) per image pixel.
    size : tuple of int
        Height and width of the screen, in CSS pixels.
    dpr : float
        Device pixels per CSS pixel.
    plane : int
        Displayed plane of a volume; 0 in 2D.
    """

    center: tuple[float, float]
    scale: float
    size: tuple[int, int]
    dpr: float = 1.0
    plane: int = 0

    @classmethod
    def fitted(cls, shape: tuple[int, int], size: tuple[int, int], dpr: float = 1.0, plane: int = 0) -> Viewport:
        """Return the viewport that shows a whole image of shape (Y, X)."""
        scale = min(size[0] / shape[0], size[1] / shape[1]) * _FIT_MARGIN
        return cls((shape[0] / 2, shape[1] / 2), min(scale, MAX_SCALE), size, dpr, plane)

    @property
    def device_scale(self) -> float:
        """Device pixels per image pixel."""
        return self.scale * self.dpr

    @property
    def device_size(self) -> tuple[int, int]:
        """Height and width of the screen, in device pixels."""
        return round(self.size[0] * self.dpr), round(self.size[1] * self.dpr)

    def to_screen(self, y: float, x: float) -> tuple[float, float]:
        """Return the screen point (row, column) of an image point, in CSS pixels."""
        height, width = self.size
        return height / 2 + (y - self.center[0]) * self.scale, width / 2 + (x - self.center[1]) * self.scale

    def to_image(self, row: float, column: float) -> tuple[float, float]:
        """Return the image point (y, x) under a screen point in CSS pixels."""
        (y, x), (height, width) = self.center, self.size
        return y + (row - height / 2) / self.scale, x + (column - width / 2) / self.scale

    def panned(self, rows: float, columns: float) -> Viewport:
        """Return the viewport after the image was dragged by this many CSS pixels."""
        y, x = self.center
        return replace(self, center=(y - rows / self.scale, x - columns / self.scale))

    def zoomed(self, factor: float, about: tuple[float, float] | None = None) -> Viewport:
        """Return the viewport magnified about a screen point, or about the center.

        At the point ``about``, (row, column), the image stays in place.
        """
        row, column = about or (self.size[0] / 2, self.size[1] / 2)
        scale = min(max(self.scale * factor, _MIN_SCALE), MAX_SCALE)
        y, x = self.to_image(row, column)
        center = (y - (row - self.size[0] / 2) / scale, x - (column - self.size[1] / 2) / scale)
        return replace(self, center=center, scale=scale)

    def clamped(self, shape: tuple[int, int]) -> Viewport:
        """Return the nearest viewport that still shows part of an image of shape (Y, X).

        The center of the result lies on the image, and its scale is at least an eighth of the fitted viewport's scale.
        """
        y, x = (min(max(center, 0.0), float(extent)) for center, extent in zip(self.center, shape))
        min_scale = Viewport.fitted(shape, self.size).scale / 8
        return replace(self, center=(y, x), scale=max(self.scale, min_scale))

    def framed(self, shape: tuple[int, int]) -> Viewport:
        """Return the viewport moved so that little of the screen is outside the image."""
        centers = []
        for center, extent, screen in zip(self.center, shape, self.size):
            margin = screen * (0.5 - _MAX_EMPTY) / self.scale
            centers.append(min(max(center, margin), extent - margin) if 2 * margin < extent else extent / 2)
        return replace(self, center=(centers[0], centers[1]))
