"""Annulus, orientation and dilation compared with naive computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from scipy.stats import skew
from skimage.measure import regionprops

from svetlana_jupyter.core.features.intensity import ObjectChannel, annulus_features
from svetlana_jupyter.core.features.region import ObjectStack
from svetlana_jupyter.core.features.texture import orientation_features, texture_orientation_features
from svetlana_jupyter.core.normalization import dilate_masks
from tests.core.features.stacks import channel, objects, solid


@pytest.mark.parametrize("reach", [(3.0, 3.0), (0.6, 4.0), (2.0, 5.0, 5.0), (1.0, 3.5, 2.2), (0.0, 2.0)])
def test_a_dilated_mask_contains_all_pixels_within_reach(reach):
    own = np.array([np.pad(own_mask, 6) for own_mask in objects((8, 9, 10)[-len(reach) :]).own])
    steps = [1 / radius if radius else 1e6 for radius in reach]
    expected = [distance_transform_edt(~own_mask, sampling=steps) <= 1 + 1e-6 for own_mask in own]
    np.testing.assert_array_equal(dilate_masks(own, reach), expected)


def test_the_annulus_is_measured_by_its_pixels_and_relative_to_the_object():
    region = objects((14, 15))
    inside = channel(region)
    outside = ObjectChannel(ObjectStack(~region.own, region.step), inside.pixels)
    features = annulus_features(inside, outside)
    for number, own in enumerate(region.own):
        values, around = (inside.pixels[number][part].astype(float) for part in (own, ~own))
        expected = {
            "ring_mean": around.mean(),
            "ring_sd": around.std(),
            "ring_median": np.median(around),
            "ring_contrast": values.mean() - around.mean(),
            "ring_ratio": values.mean() / around.mean(),
            "ring_step": (values.mean() - around.mean()) / values.std(),
            "ring_roughness": around.std() / values.std(),
            "ring_skewness": skew(around),
        }
        assert features.keys() == expected.keys()
        for name, value in expected.items():
            assert features[name][number] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_without_surroundings_the_annulus_is_undefined():
    region = solid(4, 4)
    features = annulus_features(
        channel(region), ObjectChannel(ObjectStack(~region.own, region.step), channel(region).pixels)
    )
    assert all(np.isnan(values[0]) for values in features.values())


@pytest.mark.parametrize("turned", [0, 20, 45, 90, 130, 175])
def test_the_angle_of_a_bar_is_measured(turned):
    rows, columns = np.mgrid[-40:41, -40:41]
    angle = math.radians(turned)
    along, across = (
        columns * math.cos(angle) + rows * math.sin(angle),
        columns * math.sin(angle) - rows * math.cos(angle),
    )
    region = ObjectStack(((np.abs(along) < 35) & (np.abs(across) < 6))[None], (1.0, 1.0))
    features = orientation_features(region)
    difference = (features["angle"][0] - turned + 90) % 180 - 90
    assert difference == pytest.approx(0, abs=1.5)
    assert features["shape_yy"][0] == pytest.approx(math.sin(angle) ** 2, abs=0.06)


def test_extent_agrees_with_scikit_image():
    for sides in ((14, 15), (6, 9, 10)):
        region = objects(sides)
        expected = [regionprops(own.astype(int))[0].extent for own in region.own]
        np.testing.assert_allclose(orientation_features(region)["extent"], expected)


def test_the_orientation_of_a_texture_is_that_of_its_gradients():
    rows, columns = np.mgrid[:40, :40]
    for turned in (0, 30, 90, 140):
        angle = math.radians(turned)
        wave = np.sin((rows * math.sin(angle) + columns * math.cos(angle)) / 2)
        features = texture_orientation_features(ObjectChannel(solid(40, 40), wave[None].astype(np.float32)))
        assert features["gradient_yy"][0] == pytest.approx(math.sin(angle) ** 2, abs=0.02)
        assert features["gradient_yx"][0] == pytest.approx(math.sin(angle) * math.cos(angle), abs=0.02)


def test_gradients_account_for_anisotropic_pixels():
    planes, rows = np.arange(20)[:, None, None] * 2.0, np.arange(40)[:, None]
    wave = np.sin((planes + rows) / 3) + np.zeros((20, 40, 40))
    features = texture_orientation_features(
        ObjectChannel(solid(20, 40, 40, step=(2.0, 1.0, 1.0)), wave[None].astype(np.float32))
    )
    assert features["gradient_zz"][0] == pytest.approx(0.5, abs=0.05) == features["gradient_zy"][0]


def test_a_bright_side_shifts_the_weighted_centroid():
    brighter = np.tile(np.arange(20, dtype=np.float32), (1, 20, 1))
    features = texture_orientation_features(ObjectChannel(solid(20, 20), brighter))
    assert features["shift_x"][0] > 0.3
    assert features["shift_y"][0] == pytest.approx(0, abs=1e-6)
