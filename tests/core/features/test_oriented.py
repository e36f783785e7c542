"""Oriented features: agreement with the Gabor filters of scikit-image, and special objects."""

from __future__ import annotations

import numpy as np
from scipy.signal import fftconvolve
from skimage.filters import gabor_kernel

from svetlana_jupyter.core.features.oriented import oriented_features
from svetlana_jupyter.core.features.patch_catalog import ORIENTED_FEATURES
from tests.core.features.test_blob import objects


def test_features_agree_with_scikit_image():
    patches, masks = objects()
    features = oriented_features(patches, masks)
    assert features.shape == (12, 2, len(ORIENTED_FEATURES))
    for patch, mask, row in zip(patches, masks, features, strict=True):
        for channel, values in zip(patch, row, strict=True):
            centered = np.where(mask, channel - channel[mask].mean(), 0)
            kernels = [
                gabor_kernel(frequency, theta=np.pi * angle / 8, bandwidth=1, n_stds=2.5)
                for frequency in (0.08, 0.13, 0.2, 0.3)
                for angle in range(8)
            ]
            means = [np.abs(fftconvolve(centered, kernel - kernel.mean(), "same"))[mask].mean() for kernel in kernels]
            np.testing.assert_allclose(values, np.log(np.array(means) + 1e-3), atol=1e-3)


def test_a_wave_has_its_highest_response_at_its_frequency_and_angle():
    rows, columns = np.mgrid[:56, :56] - 27.5
    masks = (rows**2 + columns**2 <= 20**2)[None]
    for number, name in enumerate(ORIENTED_FEATURES):
        frequency, angle = name.split("_")
        theta = np.radians(float(angle))
        wave = np.cos(2 * np.pi * float(frequency) * (columns * np.cos(theta) + rows * np.sin(theta)))
        features = oriented_features(wave.astype(np.float32)[None, None], masks)[0, 0]
        assert features.argmax() == number, name


def test_brightness_does_not_matter_and_uniform_objects_have_no_response():
    patches, masks = objects()
    features = oriented_features(patches, masks)
    np.testing.assert_allclose(oriented_features(patches + 3, masks), features, atol=1e-3)
    uniform = oriented_features(np.full_like(patches, 0.7), masks)
    np.testing.assert_array_equal(uniform, uniform[:1].repeat(len(uniform), axis=0))
    assert (uniform < features.min()).all()


def test_an_object_with_nan_pixels_has_no_features():
    patches, masks = objects()
    expected = oriented_features(patches, masks)
    patches[3, 1][masks[3]], masks[5] = np.nan, False
    features = oriented_features(patches, masks)
    assert np.isnan(features[[3, 5]]).all()
    others = np.setdiff1d(np.arange(len(patches)), [3, 5])
    np.testing.assert_allclose(features[others], expected[others], rtol=1e-4, atol=1e-5)
