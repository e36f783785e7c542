"""The page of a gallery as a picture: where its cells lie on the screen, and thumbnails drawn into them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.contrast import DisplaySettings, rgb_of, to_screen
from svetlana_jupyter.core.scene import BRIGHT_INK, DARK_INK, Hint
from svetlana_jupyter.core.thumbnails import Thumbnail

GAP_COLORS = {DARK_INK: "#e4e4e4", BRIGHT_INK: "#1b1b1b"}  # between the cells, quiet against what is in them
_BRIGHT = 140
_STRENGTH, _SOFT = 0.9, 0.7  # of outlines: how strong, and over how many pixels they fade
_SHARP = 3.0  # screen pixels a sample: from here on magnified samples stay squares, as in the viewer


@dataclass(frozen=True)
class GridLayout:
    """Cells of one size, row by row, in CSS pixels: a square picture with a line of words below it.

    Attributes
    ----------
    size : tuple of int
        Height and width of the screen.
    columns : int
    gap : int
        Between the cells, and around them.
    line : int
        Height of the words.

    >>> grid = GridLayout((484, 648), columns=10)
    >>> grid.side, grid.rows, grid.count, grid.cell_at(*grid.corner(11)) == 11
    (57, 6, 60, True)
    """

    size: tuple[int, int]
    columns: int
    gap: int = 7
    line: int = 15

    @property
    def side(self) -> int:
        """Side of the pictures."""
        return (self.size[1] - self.gap) // self.columns - self.gap

    @property
    def pitch(self) -> tuple[int, int]:
        """Rows and columns from one cell to the next."""
        return self.side + self.line + self.gap, self.side + self.gap

    @property
    def rows(self) -> int:
        return max(1, (self.size[0] - self.gap) // self.pitch[0])

    @property
    def count(self) -> int:
        """Cells of a page."""
        return self.rows * self.columns

    def corner(self, cell: int) -> tuple[int, int]:
        """Return the row and column of the top left corner of a cell's picture."""
        beside = self.size[1] - self.gap - self.columns * self.pitch[1]  # what does not divide, on both sides
        row, column = divmod(cell, self.columns)
        return self.gap + row * self.pitch[0], self.gap + beside // 2 + column * self.pitch[1]

    def cell_at(self, row: float, column: float) -> int:
        """Return the cell at a point of the screen, half of the gaps included; -1 beside all cells."""
        top, left = self.corner(0)
        down = math.floor((row - top + self.gap / 2) / self.pitch[0])
        right = math.floor((column - left + self.gap / 2) / self.pitch[1])
        return down * self.columns + right if 0 <= down < self.rows and 0 <= right < self.columns else -1


@dataclass(frozen=True)
class CellCaption:
    """What a cell says of its object.

    Attributes
    ----------
    color : str
        ``"#rrggbb"`` of the frame; empty where nothing is known.
    firm : bool
        A person said so: a thick frame. Else a classifier: a thin one.
    name, share : str
        The words on the left and on the right below the picture.
    """

    color: str = ""
    is_annotated: bool = False
    name: str = ""
    share: str = ""


@dataclass(frozen=True, eq=False)
class Sheet:
    """One state of the gallery's screen.

    Attributes
    ----------
    grid : Grid
    dpr : float
        Device pixels a CSS pixel.
    key : hashable
        What the picture was made from: equal keys, equal pixels.
    pixels : array of uint8, shape (h, w, 3)
        The thumbnails, in device pixels.
    ink : str
        The colour of words over the picture's ground.
    tiles : tuple of Tile
    chosen : frozenset of int
        The cells that are selected.
    cursor : int
        The cell that keys move from; -1 for none.
    hint : Hint or None
    words : str
        A sentence in the middle, where there are no cells.
    """

    grid: GridLayout
    dpr: float
    key: Hashable
    pixels: NDArray[np.uint8]
    ink: str
    tiles: tuple[CellCaption, ...]
    chosen: frozenset[int] = frozenset()
    cursor: int = -1
    hint: Hint | None = None
    words: str = ""


def draw_thumbnail_grid(
    pictures: Sequence[tuple[Thumbnail, DisplaySettings] | None],
    grid: GridLayout,
    dpr: float = 1.0,
    outlines: bool = True,
) -> tuple[NDArray[np.uint8], str]:
    """Draw thumbnails into the cells of a page.

    Parameters
    ----------
    pictures : sequence of (Thumbnail, Palette) or None
        Each with its contrast and colours; None where a thumbnail is not there yet, or cannot be read.
    grid : Grid
    dpr : float
    outlines : bool
        Draw a line around each object.

    Returns
    -------
    pixels : array of uint8, shape (h, w, 3)
    ink : str
        The colour for words between the pictures.
    """
    shown = {cell: (one[0], _colored(*one)) for cell, one in enumerate(pictures) if one is not None}
    seen = [np.median(picture[thumbnail.inside]) for thumbnail, picture in shown.values()]
    ink = DARK_INK if seen and np.median(seen) > _BRIGHT else BRIGHT_INK
    ground = rgb_of(GAP_COLORS[ink])
    sheet = np.full((*(round(extent * dpr) for extent in grid.size), 3), ground, np.uint8)
    side = round(grid.side * dpr)
    for cell, (thumbnail, picture) in shown.items():
        beyond = np.ones(picture.shape[:2], bool)
        beyond[thumbnail.inside] = False
        picture[beyond] = ground
        scaled = _resized(picture, side)
        if outlines:
            _outline(scaled, thumbnail.own, max(1, round(dpr)), ink)
        top, left = (round(at * dpr) for at in grid.corner(cell))
        sheet[top : top + side, left : left + side] = scaled
    return sheet, ink


def _colored(thumbnail: Thumbnail, palette: DisplaySettings) -> NDArray[np.uint8]:
    picture = to_screen(thumbnail.values, palette)
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else np.ascontiguousarray(picture)


def _resized(picture: NDArray[Any], side: int) -> NDArray[Any]:
    count = len(picture)
    how = cv2.INTER_AREA if count > side else cv2.INTER_NEAREST if side > _SHARP * count else cv2.INTER_LINEAR
    return np.ascontiguousarray(cv2.resize(picture, (side, side), interpolation=how))


def _outline(picture: NDArray[np.uint8], own: NDArray[np.bool_], width: int, ink: str) -> None:
    """Draw a soft line along the border of an object, smooth where the samples are magnified."""
    side = len(picture)
    share = cv2.resize(own.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    share = cv2.GaussianBlur(share, (0, 0), max(_SOFT, _SOFT * side / len(own)), borderType=cv2.BORDER_REPLICATE)
    down, right = np.gradient(share)
    slope = np.maximum(np.hypot(down, right), 1e-3)
    far = np.abs(share - 0.5) / slope  # pixels from the border, near it
    strength = np.clip(width / 2 + _SOFT - far, 0, 1)[..., None] * _STRENGTH
    picture[:] = np.rint(picture * (1 - strength) + np.array(rgb_of(ink)) * strength)
