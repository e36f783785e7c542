"""Channel display: contrast limits, channel colors, true colors."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from svetlana_jupyter.core.display.channels import (
    ChannelDisplay,
    DisplaySettings,
    auto_contrast_limits,
    initial_display_settings,
    is_sampled_whole,
    render_pixels,
    sample_pixels,
    stretch_to_uint8,
)
from svetlana_jupyter.core.display.tiles import TileReader
from svetlana_jupyter.core.display.viewport import PixelBox
from svetlana_jupyter.core.io.pyramid import PyramidLevel


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_contrast_limits_map_to_black_and_white_and_clip_values_beyond(dtype):
    values = np.array([[0, 50, 90, 150, 200]], dtype)
    np.testing.assert_array_equal(stretch_to_uint8(values, (50, 150)), [[0, 0, 102, 255, 255]])


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_equal_integers_and_floats_render_alike(low, width):
    values = np.arange(256, dtype=np.uint8)
    same = stretch_to_uint8(values.astype(np.float64), (low, low + width))
    assert np.abs(stretch_to_uint8(values, (low, low + width)).astype(int) - same).max() <= 1


def test_nan_is_black():
    assert stretch_to_uint8(np.array([np.nan, 4.0]), (0, 10)).tolist() == [0, 102]


def test_auto_contrast_limits_clip_the_extremes_and_always_differ():
    assert auto_contrast_limits(np.arange(1001, dtype=np.float32)) == pytest.approx((2, 998))
    assert auto_contrast_limits(np.arange(1001, dtype=np.float32), 5) == pytest.approx((50, 950))
    assert auto_contrast_limits(np.arange(1001, dtype=np.float32), 0) == (0, 1000)
    low, high = auto_contrast_limits(np.full(10, 7, np.float32))
    assert low < high
    sparse = np.zeros(10_000, np.float32)
    sparse[-3:] = 500
    assert auto_contrast_limits(sparse) == (0, 500)


def test_an_8_bit_color_image_keeps_its_colors():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 7), np.uint8)
    display_settings = initial_display_settings(
        ["red", "green", "blue"], True, pixels.dtype, pixels.reshape(3, -1).astype(np.float32)
    )
    np.testing.assert_array_equal(render_pixels(pixels, display_settings), np.moveaxis(pixels, 0, -1))


def test_a_single_channel_is_gray():
    pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    display_settings = DisplaySettings((ChannelDisplay("dna", "#ffffff", (0, 255)),))
    np.testing.assert_array_equal(render_pixels(pixels, display_settings), pixels[0])


def test_channels_are_blended_in_their_colors_and_can_be_switched_off():
    pixels = np.array([[[255, 0, 255]], [[0, 255, 255]]], np.uint8)
    display_settings = DisplaySettings(
        (ChannelDisplay("a", "#00ff00", (0, 255)), ChannelDisplay("b", "#ff00ff", (0, 255)))
    )
    np.testing.assert_array_equal(
        render_pixels(pixels, display_settings), [[[0, 255, 0], [255, 0, 255], [255, 255, 255]]]
    )
    np.testing.assert_array_equal(
        render_pixels(pixels, display_settings.with_visibility(0, False)), [[[0, 0, 0], [255, 0, 255], [255, 0, 255]]]
    )
    assert not render_pixels(pixels, display_settings.with_visibility(0, False).with_visibility(1, False)).any()


def test_the_contrast_of_a_color_image_changes_all_channels():
    display_settings = DisplaySettings(tuple(ChannelDisplay(name, "#ffffff", (0, 255)) for name in "rgb"), rgb=True)
    assert {channel.contrast_limits for channel in display_settings.with_contrast_limits(0, (10, 20)).channels} == {
        (10, 20)
    }
    fluorescence = DisplaySettings(display_settings.channels)
    assert [channel.contrast_limits for channel in fluorescence.with_contrast_limits(1, (10, 20)).channels] == [
        (0, 255),
        (10, 20),
        (0, 255),
    ]


@pytest.mark.parametrize("shape", [(2, 3), (700, 900), (3000, 4000)])
def test_a_sample_contains_dark_and_bright_pixels(shape):
    values = np.broadcast_to(np.linspace(0, 1000, shape[1]).astype(np.uint16), (1, *shape))
    pixels = sample_pixels(TileReader(xr.DataArray(values, dims=("c", "y", "x"))))
    assert (np.diff(pixels) >= 0).all()
    assert pixels.shape[1] <= 2 * 1024**2
    assert pixels.min() <= 150
    assert pixels.max() >= 850


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_gamma_changes_values_between_black_and_white(dtype):
    values = np.array([[0, 50, 100, 150, 200]], dtype)
    np.testing.assert_array_equal(stretch_to_uint8(values, (50, 150), 2.0), [[0, 0, round(255 * 0.5**0.5), 255, 255]])
    np.testing.assert_array_equal(stretch_to_uint8(values, (50, 150), 0.5), [[0, 0, round(255 * 0.25), 255, 255]])


def test_gamma_and_color_are_set_per_channel():
    display_settings = DisplaySettings(
        (ChannelDisplay("a", "#00ff00", (0, 255)), ChannelDisplay("b", "#ff00ff", (0, 255)))
    )
    pixels = np.full((2, 1, 1), 64, np.uint8)
    changed = display_settings.with_gamma(0, 2.0).with_color(1, "#0000ff")
    assert render_pixels(pixels, changed).tolist() == [[[0, 128, 64]]]
    true_colors = replace(display_settings, rgb=True).with_gamma(1, 2.0)
    assert {channel.gamma for channel in true_colors.channels} == {2.0}


def test_infinite_values_are_white_and_black():
    assert stretch_to_uint8(np.array([np.inf, -np.inf, 5.0]), (0, 10)).tolist() == [255, 0, 128]


def test_the_contrast_of_a_pyramid_follows_full_resolution_not_the_means_of_coarse_levels():
    fine = np.full((1, 4096, 4096), 100, np.uint16)
    fine[:, 40::64, 40::64] = fine[:, 41::64, 41::64] = 5000
    levels = [fine]
    while levels[-1].shape[1] > 256:
        levels.append(levels[-1].reshape(1, len(levels[-1][0]) // 2, 2, -1, 2).mean((2, 4)).astype(np.uint16))
    arrays = [xr.DataArray(level, dims=("c", "y", "x")) for level in levels]
    reader = TileReader(arrays[0], [PyramidLevel.from_array(array) for array in arrays])
    assert sample_pixels(reader).max() == 5000


def test_a_huge_image_is_sampled_in_a_few_crops_until_all_of_it_was_displayed():
    values = da.zeros((1, 50_000, 50_000), np.uint16, chunks=4096) + da.from_array(np.uint16(7))
    image = TileReader(xr.DataArray(values, dims=("c", "y", "x")))
    assert not is_sampled_whole(image)
    assert sample_pixels(image).shape[1] < 2**20
    assert image._cache.total_weight < 20e6
    shown = TileReader(xr.DataArray(np.broadcast_to(np.uint8(7), (1, 20_000, 20_000)), dims=("c", "y", "x")))
    shown.read(PixelBox(0, 0, 20_000, 20_000), 32)
    assert is_sampled_whole(shown)
    assert set(sample_pixels(shown).ravel()) == {7}
