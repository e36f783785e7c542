"""The page of a gallery: its cells, and the pixels in them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svetlana_jupyter.core.contact import GAP_COLORS, GridLayout, draw_thumbnail_grid
from svetlana_jupyter.core.contrast import Channel, DisplaySettings, rgb_of
from svetlana_jupyter.core.scene import BRIGHT_INK, DARK_INK
from svetlana_jupyter.core.thumbnails import Thumbnail

GREY = DisplaySettings((Channel("grey", "#ffffff", (0, 255)),))
GRID = GridLayout((200, 240), columns=3)
GRIDS = st.builds(
    GridLayout, st.tuples(st.integers(120, 900), st.integers(200, 1200)), st.integers(1, 15), st.integers(0, 9)
)


def thumbnail(value, side=20, own=None, inside=None):
    inside = inside or (slice(0, side), slice(0, side))
    values = np.zeros((1, side, side), np.uint8)
    values[0][inside] = value
    return Thumbnail(values, np.zeros((side, side), bool) if own is None else own, inside)


def grey(*thumbnails):
    return [(one, GREY) for one in thumbnails]


def cell(pixels, grid, number, dpr=1.0):
    top, left = (round(at * dpr) for at in grid.corner(number))
    side = round(grid.side * dpr)
    return pixels[top : top + side, left : left + side]


@given(GRIDS)
def test_cells_lie_on_the_screen_side_by_side_without_touching(grid):
    corners = [grid.corner(number) for number in range(grid.columns)]
    assert corners[0][1] >= grid.gap
    assert all(b[1] - a[1] == grid.side + grid.gap for a, b in itertools.pairwise(corners))
    assert corners[-1][1] + grid.side + grid.gap <= grid.size[1]
    bottom = grid.corner(grid.count - 1)[0] + grid.side + grid.line
    assert bottom <= grid.size[0] or grid.rows == 1


@given(GRIDS, st.data())
def test_every_point_of_a_picture_belongs_to_its_cell(grid, data):
    number = data.draw(st.integers(0, grid.count - 1))
    top, left = grid.corner(number)
    down, right = (data.draw(st.floats(0, grid.side, exclude_max=True)) for _ in "yx")
    assert grid.cell_at(top + down, left + right) == number


def test_beside_the_cells_there_is_none():
    assert GRID.cell_at(-5, 20) == GRID.cell_at(20, -5) == GRID.cell_at(20, 239.9) == GRID.cell_at(199, 20) == -1


@pytest.mark.parametrize("dpr", [1.0, 1.5, 2.0])
def test_each_thumbnail_fills_its_cell_in_device_pixels(dpr):
    pixels, _ = draw_thumbnail_grid(grey(thumbnail(10), thumbnail(90), thumbnail(50)), GRID, dpr)
    assert pixels.shape == (round(200 * dpr), round(240 * dpr), 3)
    for number, value in enumerate((10, 90, 50)):
        assert (cell(pixels, GRID, number, dpr) == value).all()
    assert (cell(pixels, GRID, 3, dpr) == rgb_of(GAP_COLORS[BRIGHT_INK])).all()


def test_the_ground_is_bright_around_bright_pictures_and_beyond_the_border_of_the_image():
    beside = thumbnail(250, inside=(slice(10, 20), slice(0, 20)))
    pixels, ink = draw_thumbnail_grid(grey(beside), GRID)
    assert ink == DARK_INK
    picture = cell(pixels, GRID, 0)
    assert (picture[:20] == rgb_of(GAP_COLORS[DARK_INK])).all() and (picture[-20:] == 250).all()


def test_the_contrast_is_that_of_the_palette_of_each():
    narrow = DisplaySettings((Channel("grey", "#ffffff", (0, 100)),))
    pixels, _ = draw_thumbnail_grid([(thumbnail(60), GREY), (thumbnail(60), narrow)], GRID)
    assert cell(pixels, GRID, 0)[5, 5, 0] == 60
    assert cell(pixels, GRID, 1)[5, 5, 0] == 153


def test_the_outline_lies_on_the_border_of_the_object_alone():
    own = np.zeros((20, 20), bool)
    own[5:15, 5:15] = True
    plain, _ = draw_thumbnail_grid(grey(thumbnail(30, own=own)), GRID, outlines=False)
    drawn, ink = draw_thumbnail_grid(grey(thumbnail(30, own=own)), GRID)
    changed = (cell(drawn, GRID, 0) != cell(plain, GRID, 0)).any(axis=2)
    rows = np.flatnonzero(changed.any(axis=1))
    quarter = GRID.side / 4
    assert (rows[0], rows[-1]) == (pytest.approx(quarter, abs=1.5), pytest.approx(3 * quarter, abs=1.5))
    assert not changed[GRID.side // 2 - 3 : GRID.side // 2 + 3, GRID.side // 2 - 3 : GRID.side // 2 + 3].any()
    assert (cell(drawn, GRID, 0)[changed] > 30).all() and ink == BRIGHT_INK


def test_what_is_not_there_yet_leaves_its_place_empty():
    pixels, ink = draw_thumbnail_grid([None, (thumbnail(50), GREY)], GRID)
    assert (cell(pixels, GRID, 0) == rgb_of(GAP_COLORS[ink])).all()
    assert (cell(pixels, GRID, 1) == 50).all()


def test_a_page_without_objects_is_empty():
    pixels, ink = draw_thumbnail_grid([], GRID)
    assert (pixels == rgb_of(GAP_COLORS[ink])).all()
