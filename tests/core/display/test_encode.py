"""Encoded images, decoded by another library."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from svetlana_jupyter.core.display.encode import indexed_png, jpeg, png

TABLE = np.random.default_rng(0).integers(0, 256, (7, 4), np.uint8)


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 6)))
def test_a_palette_png_decodes_to_the_colors_of_its_table(codes):
    picture = iio.imread(indexed_png(codes, TABLE), extension=".png", mode="RGBA")
    np.testing.assert_array_equal(picture, TABLE[codes])


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_a_png_keeps_every_pixel(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(iio.imread(png(pixels), extension=".png"), pixels)


def test_a_jpeg_keeps_the_colors():
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16] = 200, 30, 60
    picture = iio.imread(jpeg(pixels), extension=".jpg").astype(int)
    assert np.abs(picture - pixels)[:, [2, 12, 20, 30]].max() < 8


def test_pixels_other_than_uint8_are_refused():
    with pytest.raises(TypeError, match="uint8"):
        png(np.zeros((3, 3)))
