"""What part of an image the screen shows: the one place where image pixels and screen pixels are converted."""

from __future__ import annotations

from dataclasses import dataclass, replace

MAX_SCALE = 64.0
_FIT_BORDER = 0.96
_BESIDE = 0.15  # of the screen


@dataclass(frozen=True)
class PixelBox:
    """A half-open rectangle of image pixels.

    Attributes
    ----------
    y0, x0, y1, x1 : int
    """

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def height(self) -> int:
        return max(0, self.y1 - self.y0)

    @property
    def width(self) -> int:
        return max(0, self.x1 - self.x0)

    def contains(self, other: PixelBox) -> bool:
        return self.y0 <= other.y0 and self.x0 <= other.x0 and self.y1 >= other.y1 and self.x1 >= other.x1


@dataclass(frozen=True)
class Viewport:
    """A rectangle of screen over one plane of an image.

    The image plane is continuous: pixel (row, column) covers ``[row, row + 1) x [column, column + 1)``, so the middle
    of the first pixel is at (0.5, 0.5).

    Attributes
    ----------
    center : tuple of float
        The image point (y, x), in pixels, in the middle of the screen.
    scale : float
        Screen pixels (CSS) an image pixel.
    size : tuple of int
        Height and width of the screen, in CSS pixels.
    dpr : float
        Device pixels a CSS pixel.
    plane : int
        The plane shown of a volume; 0 in 2D.
    """

    center: tuple[float, float]
    scale: float
    size: tuple[int, int]
    dpr: float = 1.0
    plane: int = 0

    @classmethod
    def fitted(cls, shape: tuple[int, int], size: tuple[int, int], dpr: float = 1.0, plane: int = 0) -> Viewport:
        """Return the view that shows all of an image of this shape (Y, X)."""
        scale = min(size[0] / shape[0], size[1] / shape[1]) * _FIT_BORDER
        return cls((shape[0] / 2, shape[1] / 2), min(scale, MAX_SCALE), size, dpr, plane)

    @property
    def device_scale(self) -> float:
        """Device pixels an image pixel."""
        return self.scale * self.dpr

    @property
    def device_size(self) -> tuple[int, int]:
        """Height and width of the screen, in device pixels."""
        return round(self.size[0] * self.dpr), round(self.size[1] * self.dpr)

    def to_screen(self, y: float, x: float) -> tuple[float, float]:
        """Return where an image point is on the screen: (row, column) in CSS pixels from its top left corner."""
        return (
            self.size[0] / 2 + (y - self.center[0]) * self.scale,
            self.size[1] / 2 + (x - self.center[1]) * self.scale,
        )

    def to_image(self, row: float, column: float) -> tuple[float, float]:
        """Return the image point (y, x) under a screen point."""
        return (
            self.center[0] + (row - self.size[0] / 2) / self.scale,
            self.center[1] + (column - self.size[1] / 2) / self.scale,
        )

    def panned(self, rows: float, columns: float) -> Viewport:
        """Return the view after the image was dragged by so many CSS pixels."""
        y, x = self.center
        return replace(self, center=(y - rows / self.scale, x - columns / self.scale))

    def zoomed(self, factor: float, about: tuple[float, float] | None = None) -> Viewport:
        """Return the view magnified by ``factor``; the image point under ``about`` (row, column) stays where it is."""
        row, column = about or (self.size[0] / 2, self.size[1] / 2)
        y, x = self.to_image(row, column)
        scale = min(max(self.scale * factor, 1e-4), MAX_SCALE)
        center = (y - (row - self.size[0] / 2) / scale, x - (column - self.size[1] / 2) / scale)
        return replace(self, center=center, scale=scale)

    def clamped(self, shape: tuple[int, int]) -> Viewport:
        """Return the nearest view that still shows some of an image of this shape (Y, X): its centre is on the image,
        and the image is not smaller than an eighth of what fits."""
        y, x = (min(max(middle, 0.0), float(extent)) for middle, extent in zip(self.center, shape))
        least = Viewport.fitted(shape, self.size).scale / 8
        return replace(self, center=(y, x), scale=max(self.scale, least))

    def framed(self, shape: tuple[int, int]) -> Viewport:
        """Return the view moved so that little of the screen lies beside an image of this shape (Y, X)."""
        middles = []
        for middle, extent, screen in zip(self.center, shape, self.size):
            least = screen * (0.5 - _BESIDE) / self.scale
            middles.append(min(max(middle, least), extent - least) if 2 * least < extent else extent / 2)
        return replace(self, center=(middles[0], middles[1]))
