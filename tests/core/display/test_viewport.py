"""Conversion between image and screen points at any zoom, position and pixel ratio."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from svetlana_jupyter.core.display.viewport import MAX_SCALE, Viewport

coordinates = st.floats(-1e4, 1e4)
sizes = st.tuples(st.integers(50, 2000), st.integers(50, 2000))
shapes = st.tuples(st.integers(1, 20000), st.integers(1, 20000))
views = st.builds(
    Viewport,
    center=st.tuples(coordinates, coordinates),
    scale=st.floats(0.01, MAX_SCALE),
    size=sizes,
    dpr=st.sampled_from([1.0, 1.25, 2.0]),
)


@given(views, coordinates, coordinates)
def test_a_screen_point_survives_conversion_to_the_image_and_back(view, row, column):
    assert view.to_screen(*view.to_image(row, column)) == pytest.approx((row, column), abs=1e-3)


@given(views, coordinates, coordinates)
def test_an_image_point_survives_conversion_to_the_screen_and_back(view, y, x):
    assert view.to_image(*view.to_screen(y, x)) == pytest.approx((y, x), abs=1e-6)


@given(views, st.floats(0.1, 10), st.floats(0, 500), st.floats(0, 500))
def test_zooming_keeps_the_point_under_the_pointer(view, factor, row, column):
    assert view.zoomed(factor, (row, column)).to_image(row, column) == pytest.approx(
        view.to_image(row, column), rel=1e-6, abs=1e-6
    )


@given(views, st.floats(-500, 500), st.floats(-500, 500))
def test_dragging_moves_the_image_with_the_pointer(view, rows, columns):
    y, x = view.to_image(10, 20)
    assert view.panned(rows, columns).to_screen(y, x) == pytest.approx((10 + rows, 20 + columns), abs=1e-3)


@given(shapes, sizes)
def test_fitting_shows_the_whole_image(shape, size):
    view = Viewport.fitted(shape, size)
    assume(view.scale < MAX_SCALE)
    top, left = view.to_screen(0, 0)
    bottom, right = view.to_screen(*shape)
    assert 0 <= top < bottom <= size[0]
    assert 0 <= left < right <= size[1]
    assert max((bottom - top) / size[0], (right - left) / size[1]) == pytest.approx(0.96)


@given(views, shapes)
def test_the_image_never_leaves_the_screen(view, shape):
    clamped = view.clamped(shape)
    assert 0 <= clamped.center[0] <= shape[0]
    assert 0 <= clamped.center[1] <= shape[1]
    assert clamped.scale >= Viewport.fitted(shape, view.size).scale / 8
    assert clamped.clamped(shape) == clamped


@given(views, shapes)
def test_a_framed_view_shows_little_beyond_the_image(view, shape):
    framed = view.framed(shape)
    for middle, extent, screen in zip(framed.center, shape, view.size):
        half, beside = screen / 2 / view.scale, 0.15 * screen / view.scale
        is_centered = middle == extent / 2
        assert is_centered or (-beside - 1e-6 <= middle - half and middle + half <= extent + beside + 1e-6)


def test_framing_does_not_change_a_view_inside_the_image():
    view = Viewport((500.0, 500.0), 2.0, (400, 600))
    assert view.framed((1000, 1000)) == view
    assert replace(view, center=(990.0, 500.0)).framed((1000, 1000)).center == (930.0, 500.0)


def test_the_center_of_the_first_pixel_is_half_a_pixel_from_the_corner():
    view = Viewport((2.0, 3.0), 10.0, (40, 60))  # an image of 4 x 6 pixels, ten screen pixels each
    assert view.to_screen(0.5, 0.5) == (5.0, 5.0)


def test_device_pixels_follow_the_pixel_ratio():
    view = Viewport((0.0, 0.0), 3.0, (100, 201), dpr=1.5)
    assert view.device_scale == 4.5
    assert view.device_size == (150, 302)
