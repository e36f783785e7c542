"""Normalization: residual texture, mask dilation and selection by name."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter

from svetlana_jupyter.core import normalization
from svetlana_jupyter.core.normalization import BLUR_SIGMAS, dilate_masks, erode_masks, normalize, residual_texture
from svetlana_jupyter.core.settings import PatchSettings

SIDE = {2: 21, 3: 15}


def ball(ndim: int) -> np.ndarray:
    """Return an off-center ellipsoid of shape (1, [z,] y, x)."""
    positions = np.meshgrid(*[np.arange(SIDE[ndim]) - SIDE[ndim] // 2 + 0.4] * ndim, indexing="ij")
    return (sum((place / (4 + axis)) ** 2 for axis, place in enumerate(positions)) <= 1)[None]


def whole_view(ndim: int) -> tuple[slice, ...]:
    return (slice(0, SIDE[ndim]),) * ndim


def blurred_image(masks: np.ndarray, inside: float | np.ndarray, outside: float, blur: float) -> np.ndarray:
    """Return a blurred image of an object and its surroundings: float32 of shape (1, 1, [z,] y, x)."""
    light = np.where(masks, inside, outside)[0]
    return gaussian_filter(light.astype(np.float64), blur, mode="nearest")[None, None].astype(np.float32)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("blur", [0.5, 0.8, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("outside", [10, 60, 300])
def test_a_uniform_object_has_no_residual_texture_in_any_optics_and_surroundings(ndim, blur, outside):
    masks = ball(ndim)
    result = residual_texture(blurred_image(masks, 100, outside, blur), masks, whole_view(ndim))[0, 0]
    edge = np.ptp(blurred_image(masks, 100, outside, blur)[0, 0][masks[0]]) / 100
    assert edge > 0.05  # the removed gradient exists
    assert np.abs(result).max() < 0.1 * edge
    assert (result[~masks[0]] == 0).all()


@pytest.mark.parametrize("ndim", [2, 3])
def test_texture_remains_and_hardly_depends_on_the_surroundings(ndim):
    masks, rng = ball(ndim), np.random.default_rng(0)
    texture = 10 * rng.standard_normal(masks.shape)
    dark, light = (
        residual_texture(blurred_image(masks, 100 + texture, outside, 0.8), masks, whole_view(ndim))[0, 0][masks[0]]
        for outside in (0, 80)
    )
    plain = blurred_image(masks, texture, 0, 0.8)[0, 0][masks[0]]
    assert np.corrcoef(dark, plain)[0, 1] > 0.85
    assert np.corrcoef(dark, light)[0, 1] > 0.98


@pytest.mark.parametrize("ndim", [2, 3])
def test_residual_texture_is_a_least_squares_residual_relative_to_the_middle(ndim):
    rng = np.random.default_rng(1)
    masks = np.concatenate([ball(ndim), np.roll(ball(ndim), 1, axis=1)])
    pixels = rng.normal(500, 40, (2, 3, *masks.shape[1:])).astype(np.float32)
    result = residual_texture(pixels, masks, whole_view(ndim))
    for label, mask in enumerate(masks):
        blurred = [gaussian_filter(mask.astype(float), blur, mode="nearest", truncate=3)[mask] for blur in BLUR_SIGMAS]
        design = np.stack([np.ones(mask.sum()), *blurred], axis=1)
        middle = blurred[-1] ** 4
        for channel, values in enumerate(pixels[label]):
            coefficients = np.linalg.lstsq(design, values[mask].astype(float), rcond=None)[0]
            level = np.average(values[mask], weights=middle)
            np.testing.assert_allclose(
                result[label, channel][mask], (values[mask] - design @ coefficients) / level, atol=1e-6
            )


def test_neither_gain_nor_surroundings_change_the_residual_texture():
    masks, rng = ball(2), np.random.default_rng(2)
    pixels = rng.normal(500, 40, (1, 1, *masks.shape[1:])).astype(np.float32)
    result = residual_texture(pixels, masks, whole_view(2))
    np.testing.assert_allclose(residual_texture(7 * pixels, masks, whole_view(2)), result, atol=1e-6)
    other = np.where(masks[:, None], pixels, rng.normal(9e4, 1e4, pixels.shape)).astype(np.float32)
    np.testing.assert_array_equal(residual_texture(other, masks, whole_view(2)), result)


def test_a_margin_around_the_field_of_view_changes_nothing_even_for_larger_objects():
    pixels = np.random.default_rng(3).normal(500, 40, (1, 1, SIDE[2] + 10, SIDE[2] + 6)).astype(np.float32)
    masks = np.zeros((1, *pixels.shape[2:]), bool)
    masks[0, :16, 2:12] = True
    view = slice(5, 5 + SIDE[2]), slice(3, 3 + SIDE[2])
    result = residual_texture(pixels, masks, view)
    assert result[0, 0, 0, 5] != 0
    np.testing.assert_allclose(
        result[..., *view], residual_texture(pixels[..., *view], masks[..., *view], whole_view(2)), atol=1e-6
    )


@pytest.mark.parametrize("count", [0, 1, 2, 4])
@pytest.mark.parametrize("level", [0.0, -3.0, 1e-6, 6e4])
def test_tiny_dark_and_negative_objects_give_finite_numbers(count, level):
    masks = np.zeros((1, 9, 9), bool)
    masks[0, 4, 3 : 3 + count] = True
    pixels = (level + np.random.default_rng(4).normal(0, 1, (1, 1, 9, 9))).astype(np.float32)
    result = residual_texture(pixels, masks, (slice(0, 9),) * 2)
    assert np.isfinite(result).all()
    assert np.abs(result).max() < 5


def dilate_by_distance(masks: np.ndarray, reach: tuple[float, ...]) -> np.ndarray:
    """Dilate each mask by distance in units of the ellipsoid; an axis without reach has infinite steps."""
    step = [1 / radius if radius >= 1 else 1e6 for radius in reach]
    result = [distance_transform_edt(~mask, sampling=step) <= 1 + 1e-5 if mask.any() else mask for mask in masks]
    return np.stack(result)


@pytest.mark.parametrize("max_rows", [normalization.MAX_SHIFTED_ROWS, 0], ids=["by shifts", "by distance"])
@pytest.mark.parametrize(
    "reach", [(2, 2), (1, 1), (5, 5), (0, 3), (3, 0), (2.5, 4.0), (2, 2, 2), (1, 3, 3), (0, 2, 2), (2.0, 0, 1.5)]
)
def test_a_mask_is_dilated_by_an_ellipsoid(reach, max_rows, monkeypatch):
    monkeypatch.setattr(normalization, "MAX_SHIFTED_ROWS", max_rows)
    rng = np.random.default_rng(0)
    masks = rng.random((6, *(11, 14, 12)[: len(reach)])) < 0.02
    masks[0] = False
    before = masks.copy()
    np.testing.assert_array_equal(dilate_masks(masks, reach), dilate_by_distance(masks, reach))
    np.testing.assert_array_equal(masks, before)


def test_erosion_dilates_the_surroundings_but_never_removes_an_object():
    masks = np.zeros((2, 12, 12), bool)
    masks[0, 2:10, 2:10] = True
    masks[1, 5, 5] = True
    narrow = erode_masks(masks, (2, 2))
    assert narrow[0].sum() == 16
    assert narrow[0, 4:8, 4:8].all()
    np.testing.assert_array_equal(narrow[1], masks[1])
    np.testing.assert_array_equal(erode_masks(masks, (0, 0)), masks)


def test_a_normalization_without_implementation_is_refused():
    """`model_construct` skips validation, which simulates a normalization without an implementation."""
    settings = PatchSettings.model_construct(**{**PatchSettings().model_dump(), "normalize": "median"})
    pixels, masks = np.ones((1, 1, 9, 9), np.float32), np.ones((1, 9, 9), bool)
    with pytest.raises(ValueError, match="'median' is not implemented"):
        normalize(pixels, masks, (slice(0, 9),) * 2, settings, None, np.empty_like(pixels))


@pytest.mark.parametrize("kind", ["minmax", "max", "object", "both_raw", "apart", "grain"])
def test_a_patch_is_normalized_independently_of_the_others_in_its_batch(kind):
    """One mask is empty, which happens where an object lies outside the field of view."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(100, 20, (3, 2, 15, 15)).astype(np.float32)
    masks = np.zeros((3, 15, 15), bool)
    masks[0, 3:8, 4:9] = masks[2, 6:11, 6:11] = True
    settings, field_of_view = PatchSettings(normalize=kind, rim=1), (slice(0, 15),) * 2
    channels = 4 if kind == "both_raw" else 2
    together, alone = np.empty((2, 3, channels, 15, 15), np.float32)
    normalize(pixels, masks, field_of_view, settings, None, together)
    for i in range(3):
        normalize(pixels[[i]], masks[[i]], field_of_view, settings, None, alone[i : i + 1])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
