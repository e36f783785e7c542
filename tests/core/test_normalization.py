"""The grain of an object is what its outline does not explain, and nothing that is outside.

Widening by a ball is what a distance transform finds.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter

from svetlana_jupyter.core import normalization as widening
from svetlana_jupyter.core.normalization import BLUR_SIGMAS, erode_masks, grain, widened

SIDE = {2: 21, 3: 15}


def ball(ndim: int) -> np.ndarray:
    """An ellipsoid (1, [z,] y, x) off the middle."""
    places = np.meshgrid(*[np.arange(SIDE[ndim]) - SIDE[ndim] // 2 + 0.4] * ndim, indexing="ij")
    return (sum((place / (4 + axis)) ** 2 for axis, place in enumerate(places)) <= 1)[None]


def whole(ndim: int) -> tuple[slice, ...]:
    return (slice(0, SIDE[ndim]),) * ndim


def seen(own: np.ndarray, inside: float | np.ndarray, outside: float, blur: float) -> np.ndarray:
    """What a microscope shows of an object and what lies around it: float32 (1, 1, [z,] y, x)."""
    light = np.where(own, inside, outside)[0]
    return gaussian_filter(light.astype(np.float64), blur, mode="nearest")[None, None].astype(np.float32)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("blur", [0.5, 0.8, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("outside", [10, 60, 300])
def test_an_even_object_has_none_whatever_the_optics_and_the_surroundings(ndim, blur, outside):
    own = ball(ndim)
    found = grain(seen(own, 100, outside, blur), own, whole(ndim))[0, 0]
    edge = np.ptp(seen(own, 100, outside, blur)[0, 0][own[0]]) / 100
    assert edge > 0.05  # what is taken away is there
    assert np.abs(found).max() < 0.1 * edge
    assert (found[~own[0]] == 0).all()


@pytest.mark.parametrize("ndim", [2, 3])
def test_texture_stays_and_the_surroundings_hardly_change_it(ndim):
    own, rng = ball(ndim), np.random.default_rng(0)
    texture = 10 * rng.standard_normal(own.shape)
    dark, light = (grain(seen(own, 100 + texture, outside, 0.8), own, whole(ndim))[0, 0][own[0]] for outside in (0, 80))
    plain = seen(own, texture, 0, 0.8)[0, 0][own[0]]
    assert np.corrcoef(dark, plain)[0, 1] > 0.85
    assert np.corrcoef(dark, light)[0, 1] > 0.98


@pytest.mark.parametrize("ndim", [2, 3])
def test_it_is_the_least_squares_residual_in_units_of_the_level_of_the_middle(ndim):
    rng = np.random.default_rng(1)
    own = np.concatenate([ball(ndim), np.roll(ball(ndim), 1, axis=1)])
    pixels = rng.normal(500, 40, (2, 3, *own.shape[1:])).astype(np.float32)
    found = grain(pixels, own, whole(ndim))
    for label, mask in enumerate(own):
        blur_masks = [
            gaussian_filter(mask.astype(float), blur, mode="nearest", truncate=3)[mask] for blur in BLUR_SIGMAS
        ]
        explains = np.stack([np.ones(mask.sum()), *blur_masks], axis=1)
        middle = blur_masks[-1] ** 4
        for channel, values in enumerate(pixels[label]):
            coefficients = np.linalg.lstsq(explains, values[mask].astype(float), rcond=None)[0]
            level = np.average(values[mask], weights=middle)
            np.testing.assert_allclose(
                found[label, channel][mask], (values[mask] - explains @ coefficients) / level, atol=1e-6
            )


def test_gain_changes_nothing_nor_does_what_is_beside_the_object():
    own, rng = ball(2), np.random.default_rng(2)
    pixels = rng.normal(500, 40, (1, 1, *own.shape[1:])).astype(np.float32)
    found = grain(pixels, own, whole(2))
    np.testing.assert_allclose(grain(7 * pixels, own, whole(2)), found, atol=1e-6)
    other = np.where(own[:, None], pixels, rng.normal(9e4, 1e4, pixels.shape)).astype(np.float32)
    np.testing.assert_array_equal(grain(other, own, whole(2)), found)


def test_a_margin_around_the_field_of_view_changes_nothing_even_of_an_object_that_reaches_beyond_it():
    pixels = np.random.default_rng(3).normal(500, 40, (1, 1, SIDE[2] + 10, SIDE[2] + 6)).astype(np.float32)
    own = np.zeros((1, *pixels.shape[2:]), bool)
    own[0, :16, 2:12] = True
    view = slice(5, 5 + SIDE[2]), slice(3, 3 + SIDE[2])
    found = grain(pixels, own, view)
    assert found[0, 0, 0, 5] != 0
    np.testing.assert_allclose(found[..., *view], grain(pixels[..., *view], own[..., *view], whole(2)), atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 4])
@pytest.mark.parametrize("level", [0.0, -3.0, 1e-6, 6e4])
def test_tiny_dark_and_negative_objects_give_finite_numbers(count, level):
    own = np.zeros((1, 9, 9), bool)
    own[0, 4, 3 : 3 + count] = True
    pixels = (level + np.random.default_rng(4).normal(0, 1, (1, 1, 9, 9))).astype(np.float32)
    found = grain(pixels, own, (slice(0, 9),) * 2)
    assert np.isfinite(found).all() and np.abs(found).max() < 5


def by_distance(own: np.ndarray, reach: tuple[float, ...]) -> np.ndarray:
    """Widen each mask by the distance to it in units of the ball; an axis without reach is an infinite step long."""
    step = [1 / radius if radius >= 1 else 1e6 for radius in reach]
    found = [distance_transform_edt(~mask, sampling=step) <= 1 + 1e-5 if mask.any() else mask for mask in own]
    return np.stack(found)


@pytest.mark.parametrize("most_rows", [widening.MAX_JOINED_ROWS, 0], ids=["row by row", "axis by axis"])
@pytest.mark.parametrize(
    "reach", [(2, 2), (1, 1), (5, 5), (0, 3), (3, 0), (2.5, 4.0), (2, 2, 2), (1, 3, 3), (0, 2, 2), (2.0, 0, 1.5)]
)
def test_a_mask_is_widened_by_a_ball(reach, most_rows, monkeypatch):
    monkeypatch.setattr(widening, "MAX_JOINED_ROWS", most_rows)
    rng = np.random.default_rng(0)
    own = rng.random((6, *(11, 14, 12)[: len(reach)])) < 0.02
    own[0] = False
    before = own.copy()
    np.testing.assert_array_equal(widened(own, reach), by_distance(own, reach))
    np.testing.assert_array_equal(own, before)


def test_a_mask_is_narrowed_as_its_surroundings_are_widened_and_never_to_nothing():
    own = np.zeros((2, 12, 12), bool)
    own[0, 2:10, 2:10] = True
    own[1, 5, 5] = True
    narrow = erode_masks(own, (2, 2))
    assert narrow[0].sum() == 16 and narrow[0, 4:8, 4:8].all()
    np.testing.assert_array_equal(narrow[1], own[1])
    np.testing.assert_array_equal(erode_masks(own, (0, 0)), own)
