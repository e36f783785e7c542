"""Intensity features compared with NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, generate_binary_structure
from scipy.stats import kurtosis, pearsonr, skew

from svetlana_jupyter.core.features.intensity import ObjectChannel, intensity_features
from svetlana_jupyter.core.features.region import ObjectStack
from tests.core.features.stacks import channel, objects, solid


@pytest.mark.parametrize("step", [(1.0, 1.0), (2.0, 1.0, 1.0)])
def test_intensity_agrees_with_numpy_and_scipy(step):
    region = objects((9, 17, 19)[-len(step) :], step=step)
    pixels = channel(region)
    features = intensity_features(pixels)
    cross = generate_binary_structure(len(step), 1)
    for number, (own, plane) in enumerate(zip(region.own, pixels.pixels, strict=True)):
        values = plane[own].astype(float)
        positions = np.argwhere(own) * np.array(step)
        radius = np.linalg.norm(positions - positions.mean(axis=0), axis=1)
        above = values - values.min()
        moved = (positions * above[:, None]).sum(axis=0) / above.sum() - positions.mean(axis=0)
        rim = own & ~binary_erosion(own, cross)
        expected = {
            "mean": values.mean(),
            "sd": values.std(),
            "min": values.min(),
            "max": values.max(),
            "p5": np.percentile(values, 5),
            "p25": np.percentile(values, 25),
            "median": np.median(values),
            "p75": np.percentile(values, 75),
            "p95": np.percentile(values, 95),
            "total": values.sum(),
            "skewness": skew(values),
            "kurtosis": kurtosis(values),
            "peak": (values.max() - values.mean()) / values.std(),
            "rim": (plane[rim].mean(dtype=float) - values.mean()) / values.std(),
            "radial_trend": pearsonr(values, radius)[0],
            "concentration": (above * radius).sum() / above.sum() / radius.mean(),
            "center_shift": np.linalg.norm(moved) / radius.mean(),
        }
        assert expected.keys() == features.keys()
        for name, value in expected.items():
            assert features[name][number] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_a_constant_object_has_only_brightness():
    features = intensity_features(ObjectChannel(solid(4, 5), np.full((1, 4, 5), 7e4, np.float32)))
    assert {name for name, values in features.items() if np.isnan(values[0])} == {
        *("skewness", "kurtosis", "peak", "rim", "radial_trend", "concentration", "center_shift")
    }
    assert features["mean"][0] == features["p5"][0] == features["max"][0] == 7e4
    assert features["sd"][0] == 0


def test_an_object_without_pixels_has_undefined_intensity():
    empty = ObjectStack(np.zeros((1, 3, 3), bool), (1.0, 1.0))
    features = intensity_features(ObjectChannel(empty, np.ones((1, 3, 3), np.float32)))
    assert features.pop("total")[0] == 0
    assert all(np.isnan(values[0]) for values in features.values())


def test_large_values_keep_their_small_differences():
    values = np.array([[[60000, 60001], [60002, 60003]]], np.float32)
    features = intensity_features(ObjectChannel(solid(2, 2), values))
    assert features["sd"][0] == pytest.approx(np.std([0, 1, 2, 3]))
