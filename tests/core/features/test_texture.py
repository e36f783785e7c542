"""Texture features compared with scikit-image and naive loops over pixel pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

from svetlana_jupyter.core.features.intensity import ObjectChannel
from svetlana_jupyter.core.features.region import ObjectStack
from svetlana_jupyter.core.features.shape import directions
from svetlana_jupyter.core.features.texture import (
    PaddedStack,
    blur_within_objects,
    detail_features,
    haralick_features,
    lbp_features,
    offsets,
    quantize_gray_levels,
    semivariance_features,
)
from tests.core.features.stacks import channel, objects, solid, textures


def gray(pixels: np.ndarray) -> ObjectChannel:
    """Return a gray-level object that fills its bounding box."""
    return ObjectChannel(solid(*pixels.shape), pixels.astype(np.float32)[None])


def test_gray_level_co_occurrence_agrees_with_scikit_image():
    pixels = channel(solid(20, 23))
    features = haralick_features(pixels, PaddedStack(pixels.region))
    levels = quantize_gray_levels(pixels.standardized).reshape(20, 23)
    angles = [0, math.pi / 4, math.pi / 2, 3 * math.pi / 4]
    counts = graycomatrix(levels, (1, 2, 4), angles, levels=8, symmetric=True).sum(axis=3, keepdims=True)
    matrix = counts / counts.sum(axis=(0, 1), keepdims=True)
    for name in ("contrast", "correlation", "homogeneity"):
        expected = graycoprops(matrix, name)[:, 0]
        np.testing.assert_allclose([features[f"{name}_{d}"][0] for d in (1, 2, 4)], expected, rtol=1e-6)
    bits = -(matrix * np.log2(np.where(matrix > 0, matrix, 1))).sum(axis=(0, 1))[:, 0]
    np.testing.assert_allclose([features[f"entropy_{d}"][0] for d in (1, 2, 4)], bits, rtol=1e-6)


def shuffled(*sides: int) -> np.ndarray:
    """Return distinct pixel values in random order."""
    return np.random.default_rng(0).permutation(math.prod(sides)).reshape(sides)


def pairs_of(own: np.ndarray, apart) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    positions = set(map(tuple, np.argwhere(own).tolist()))
    pairs = []
    for place, offset in itertools.product(positions, apart):
        partner = tuple(p + o for p, o in zip(place, offset))
        if partner in positions:
            pairs.append((place, partner))
    return pairs


def semivariance_by_pairs(own: np.ndarray, z: np.ndarray, step: tuple[float, ...], distance: float) -> float:
    """Return the semivariance averaged over directions, interpolated between integer lags."""
    by_direction = []
    for direction in directions(len(step)):
        steps = distance / math.hypot(*(d * s for d, s in zip(direction, step)))
        at = []
        for count in (math.floor(steps), math.floor(steps) + 1):
            together = pairs_of(own, [tuple(count * d for d in direction)])
            at.append(np.mean([(z[a] - z[b]) ** 2 / 2 for a, b in together]) if together else np.nan)
        by_direction.append(at[0] + (steps - math.floor(steps)) * (at[1] - at[0]))
    return float(np.nanmean(by_direction))


@pytest.mark.parametrize("step", [(1.0, 1.0), (1.0, 1.0, 1.0), (3.0, 1.0, 1.0)])
def test_only_pairs_within_the_object_are_used(step):
    pixels = channel(objects((6, 13, 14)[-len(step) :], step=step))
    near = PaddedStack(pixels.region)
    features, semivariances = haralick_features(pixels, near), semivariance_features(pixels, near)
    for number, own in enumerate(pixels.region.own):
        z = pixels.standardized_stack[number]
        levels = np.clip(np.floor(2 * z) + 4, 0, 7)
        together = pairs_of(own, offsets(step, 2))
        expected = np.mean([(levels[a] - levels[b]) ** 2 for a, b in together])
        assert features["contrast_2"][number] == pytest.approx(expected)
        expected = semivariance_by_pairs(own, z, step, float(pixels.region.diameter[number]) / 4)
        assert semivariances["grain_4"][number] == pytest.approx(expected, rel=1e-4)


def test_offsets_cover_all_directions_and_account_for_anisotropic_pixels():
    assert offsets((1.0, 1.0), 1) == directions(2)
    assert len(offsets((1.0, 1.0, 1.0), 1)) == 13
    assert set(offsets((1.0, 1.0), 4)) == {(0, 4), (3, -3), (4, 0), (3, 3)}
    assert all(z == 0 for z, *_ in offsets((5.0, 1.0, 1.0), 2))
    assert max(z for z, *_ in offsets((5.0, 1.0, 1.0), 4)) == 1


def test_local_binary_patterns_agree_with_scikit_image():
    pixels = shuffled(17, 19)
    reference = local_binary_pattern(pixels, 8, 1, method="uniform")[1:-1, 1:-1]
    expected = np.bincount(reference.ravel().astype(int), minlength=10) / reference.size
    features = lbp_features(gray(pixels))
    np.testing.assert_allclose([features[f"lbp_{kind}"][0] for kind in range(10)], expected, atol=1e-9)


def test_local_binary_patterns_of_a_volume_use_all_planes_of_equal_step():
    volume = shuffled(7, 8, 9)
    for step, axes in (((1.0, 1.0, 1.0), (0, 1, 2)), ((2.0, 1.0, 1.0), (0,))):
        counts = np.zeros(10)
        for axis in axes:
            for plane in np.moveaxis(volume, axis, 0):
                reference = local_binary_pattern(plane, 8, 1, method="uniform")[1:-1, 1:-1]
                counts += np.bincount(reference.ravel().astype(int), minlength=10)
        features = lbp_features(ObjectChannel(solid(7, 8, 9, step=step), volume[None].astype(np.float32)))
        np.testing.assert_allclose([features[f"lbp_{k}"][0] for k in range(10)], counts / counts.sum(), atol=1e-9)


@pytest.mark.parametrize("step", [(1.0, 1.0), (2.0, 1.0, 1.0)])
def test_a_blur_is_the_weighted_mean_of_the_object_pixels(step):
    pixels = channel(objects((6, 13, 14)[-len(step) :], count=2, step=step))
    features = blur_within_objects(pixels.region, pixels.standardized_stack, 2)
    for number, own in enumerate(pixels.region.own):
        positions = np.argwhere(own)
        for place in positions[:: max(1, len(positions) // 7)]:
            squared_distance = ((positions - place) * np.array(step)) ** 2
            weights = np.exp(-squared_distance.sum(axis=1) / 8)
            expected = (weights * pixels.standardized_stack[number][own]).sum() / weights.sum()
            assert features[number][tuple(place)] == pytest.approx(expected, abs=1e-4)


def test_detail_is_the_difference_of_successive_blurs():
    pixels = channel(objects((23, 24)))
    features = detail_features(pixels)
    finer = pixels.standardized_stack
    for scale in (1, 2, 4):
        coarser = blur_within_objects(pixels.region, pixels.standardized_stack, scale)
        for number, own in enumerate(pixels.region.own):
            band = (finer - coarser)[number][own].astype(float)
            band -= band.mean()
            assert features[f"detail_{scale}"][number] == pytest.approx(band.std(), rel=1e-3)
            assert features[f"detail_skewness_{scale}"][number] == pytest.approx(
                (band**3).mean() / band.std() ** 3, abs=1e-3
            )
            assert features[f"detail_peak_{scale}"][number] == pytest.approx(band.max() / band.std(), rel=1e-3)
        finer = coarser


def test_a_finer_texture_has_its_detail_at_a_finer_scale():
    fine, coarse = textures(channel(solid(40, 40), blur=0)), textures(channel(solid(40, 40), blur=4))
    assert fine["detail_1"][0] > 5 * coarse["detail_1"][0]
    assert fine["grain_8"][0] == pytest.approx(1, abs=0.1)
    assert coarse["grain_8"][0] < 0.6
    assert fine["correlation_1"][0] == pytest.approx(0, abs=0.1)
    assert coarse["correlation_1"][0] > 0.8


@pytest.mark.parametrize("sides", [(1, 1), (1, 2), (2, 2), (1, 1, 3), (2, 2, 2)])
def test_features_that_need_larger_objects_are_undefined(sides):
    pixels = gray(np.arange(math.prod(sides)).reshape(sides))
    features = textures(pixels)
    assert np.isnan(features["lbp_0"][0])
    assert np.isnan(features["contrast_4"][0])
    assert np.isfinite(features["contrast_1"][0]) == (math.prod(sides) > 1)
    assert not any(np.isinf(values[0]) for values in features.values())


def test_a_constant_object_has_no_texture():
    features = textures(gray(np.full((6, 6), 50)))
    assert all(np.isnan(values[0]) for values in features.values())


def test_texture_does_not_depend_on_other_objects_of_the_stack():
    pixels = channel(objects((23, 24)))
    whole = textures(pixels)
    for number in range(len(pixels.region)):
        single = slice(number, number + 1)
        alone = textures(
            ObjectChannel(ObjectStack(pixels.region.own[single], pixels.region.step), pixels.pixels[single])
        )
        for name, values in alone.items():
            assert whole[name][number] == pytest.approx(values[0], rel=1e-5, abs=1e-5), name
