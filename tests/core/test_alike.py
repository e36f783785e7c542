"""Small and large objects are shown alike: of as many pixels, as sharp, and with outlines as round."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from svetlana_jupyter.core.alike import alike
from svetlana_jupyter.core.geometry import patch_geometry
from svetlana_jupyter.core.patch_settings import PatchSettings
from svetlana_jupyter.core.resampling import picked
from svetlana_jupyter.core.unmixing import BLUR_SIGMAS, blur_masks, fit, unmixing_residual

COUNT = 14  # patch pixels a side


def geometry(radius: float, ndim: int, margin: float = 1.0):
    size = (3 * radius,) * ndim
    return patch_geometry(PatchSettings(size=size, sampling=(COUNT,) * ndim, view="object"), None, margin)


def balls(radius: float, ndim: int, count: int = 1, margin: float = 1.0) -> np.ndarray:
    """Balls (count, *window) whose middles lie anywhere in the middle pixel."""
    rng, side = np.random.default_rng(0), geometry(radius, ndim, margin).window[0]
    middles = rng.uniform(-0.5, 0.5, (count, ndim)) + (side - 1) / 2
    places = np.stack(np.meshgrid(*[np.arange(side)] * ndim, indexing="ij"))
    distances = [((places - middle.reshape(-1, *[1] * ndim)) ** 2).sum(0) for middle in middles]
    return np.array(distances) <= radius**2


def light(own: np.ndarray, inside: float = 100.0, outside: float = 20.0, blur: float = 0.8) -> np.ndarray:
    """What a microscope shows of even objects on even ground."""
    shown = [gaussian_filter(np.where(one, inside, outside), blur, mode="nearest") for one in own]
    return np.array(shown, np.float32)[:, None]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("radius", [5.0, 8.0, 20.0])
@pytest.mark.parametrize("blur", [0.5, 0.8, 1.3])
def test_an_even_object_is_even_up_to_its_edge_whatever_its_size_and_the_optics(ndim, radius, blur):
    own = balls(radius, ndim, 3)
    pixels, fills = alike(light(own, blur=blur), own, geometry(radius, ndim))
    shown = pixels[:, 0][fills]
    assert np.ptp(shown) < 2.5 and 88 < shown.mean() < 101
    assert np.ptp(light(own, blur=blur)[:, 0][own]) > 15, "there is something to take away"


@pytest.mark.parametrize("ndim", [2, 3])
def test_small_and_large_objects_fill_as_many_pixels(ndim):
    shares = [alike(light(own), own, geometry(radius, ndim))[1].mean() for radius, own in pairs(ndim)]
    assert shares[0] == pytest.approx(shares[1], rel=0.06)


def pairs(ndim: int) -> list[tuple[float, np.ndarray]]:
    return [(radius, balls(radius, ndim, 40)) for radius in (5.0, 15.0)]


def test_corners_are_rounded_but_sides_stay():
    how = geometry(5.0, 3)
    own = np.zeros((1, *how.window), bool)
    own[0, *(slice(side // 2 - 5, side // 2 + 6) for side in how.window)] = True
    fills, as_it_is = alike(light(own), own, how)[1][0], picked(own, how.step, how.shape)[0]
    first, middle = np.argwhere(as_it_is)[0], COUNT // 2
    assert as_it_is[*first] and not fills[*first]
    np.testing.assert_array_equal(fills[middle, middle], as_it_is[middle, middle])


def test_what_is_beside_the_object_is_picked_as_it_is():
    own, how = balls(8.0, 2, 2), geometry(8.0, 2)
    pixels = np.random.default_rng(1).normal(100, 10, (2, 3, *own.shape[1:])).astype(np.float32)
    found, fills = alike(pixels, own, how)
    beside = np.repeat((~fills & ~picked(own, how.step, how.shape))[:, None], 3, axis=1)
    np.testing.assert_array_equal(found[beside], picked(pixels, how.step, how.shape)[beside])


@pytest.mark.parametrize("radius", [7.0, 40.0])
def test_a_margin_changes_nothing(radius):
    narrow, wide = (balls(radius, 2, 2, margin) for margin in (1.0, 1.4))
    more = (wide.shape[1] - narrow.shape[1]) // 2
    noise = np.random.default_rng(2).normal(0, 5, (2, 1, *wide.shape[1:])).astype(np.float32)
    pixels = light(wide) + noise
    inner = (..., *[slice(more, more + narrow.shape[1])] * 2)
    found, fills = alike(pixels[inner], wide[inner], geometry(radius, 2))
    wider, more_fills = alike(pixels, wide, geometry(radius, 2, 1.4))
    seen = (..., *[slice((wider.shape[-1] - COUNT) // 2, (wider.shape[-1] + COUNT) // 2)] * 2)
    np.testing.assert_array_equal(more_fills[seen], fills)
    np.testing.assert_allclose(wider[seen], found, atol=1e-3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_noise_and_texture_stay(ndim):
    own = balls(9.0, ndim)
    noise = np.random.default_rng(3).normal(0, 5, own.shape)[:, None].astype(np.float32)
    how = geometry(9.0, ndim)
    found, fills = alike(light(own) + noise, own, how)
    there = fills & picked(own, how.step, how.shape)
    assert np.corrcoef(found[:, 0][there], picked(noise, how.step, how.shape)[:, 0][there])[0, 1] > 0.95


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_fit_is_that_of_least_squares(ndim):
    own, view = balls(6.0, ndim, 2), tuple(slice(0, side) for side in geometry(6.0, ndim).window)
    pixels = np.random.default_rng(4).normal(500, 40, (2, 2, *own.shape[1:])).astype(np.float32)
    soft = blur_masks(own, view)
    coefficients, level = fit(pixels, own, soft)
    left = unmixing_residual(pixels, own, soft, coefficients)
    for object, mask in enumerate(own):
        blurred = [gaussian_filter(mask.astype(float), blur, mode="nearest", truncate=3)[mask] for blur in BLUR_SIGMAS]
        explains = np.stack([np.ones(mask.sum()), *blurred], axis=1)
        for channel, values in enumerate(pixels[object].astype(float)):
            expected = values[mask] - explains @ np.linalg.lstsq(explains, values[mask], rcond=None)[0]
            np.testing.assert_allclose(left[object, channel][mask], expected, atol=1e-2)
            assert level[object, channel] == pytest.approx(np.average(values[mask], weights=blurred[-1] ** 4), rel=1e-5)
        assert (left[object][:, ~mask] == 0).all()


def test_an_object_that_is_out_of_the_window_gives_what_was_picked():
    how = geometry(6.0, 2)
    own, pixels = np.zeros((1, *how.window), bool), np.ones((1, 1, *how.window), np.float32)
    found, fills = alike(pixels, own, how)
    assert not fills.any() and (found == 1).all()
