"""Blob features: agreement with a plain computation, one object at a time, and special objects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from svetlana_jupyter.core.features.blob import blob_features
from svetlana_jupyter.core.features.patch_catalog import blob_names


def objects(ndim: int = 2, count: int = 12, channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return patches of smooth noise, and ellipsoids as masks, some of them narrow or cut by the border."""
    rng = np.random.default_rng(0)
    side = 56 if ndim == 2 else 28
    grid = np.stack(np.meshgrid(*[np.arange(side) - (side - 1) / 2] * ndim, indexing="ij"), -1)
    patches, masks = [], []
    for _ in range(count):
        center, radii = rng.uniform(-side / 9, side / 9, ndim), rng.uniform(2, side / 2.2, ndim)
        masks.append((((grid - center) / radii) ** 2).sum(-1) <= 1)
        scale = rng.uniform(0.7, 3)
        noise = ndimage.gaussian_filter(rng.standard_normal((channels, *(side,) * ndim)), (0, *(scale,) * ndim))
        patches.append(scale ** (ndim / 2) * noise)
    return np.array(patches, np.float32), np.array(masks)


def statistics(values: np.ndarray, ndim: int) -> list[float]:
    ordered = np.sort(values)[::-1]
    ranks = [round((len(values) - 1) * share) for share in ((0, 0.02, 0.98, 1) if ndim == 2 else (0, 1))]
    sd = max(values.std(), 1e-6)
    skewness = ((values - values.mean()) ** 3).mean() / (sd**3 + 1e-6)
    return [values.mean(), sd, np.clip(skewness, -8, 8), *ordered[ranks]]


def extremes(image: np.ndarray, where: np.ndarray) -> list[float]:
    hidden = np.where(where, image, -np.inf)
    peaks = np.sort(image[where & (hidden == ndimage.maximum_filter(hidden, 5))])[::-1]
    return [max(peaks[rank], image[where].mean()) if rank < len(peaks) else image[where].mean() for rank in (1, 2, 4)]


def plain_features(patch: np.ndarray, mask: np.ndarray) -> list[float]:
    """Compute the features of one channel of one object with scipy."""
    ndim = mask.ndim
    patch, mask = np.pad(patch.astype(float), 3), np.pad(mask, 3)
    mean, sd = patch[mask].mean(), patch[mask].std()
    values = np.where(mask, patch - mean, 0)
    inner = ndimage.binary_erosion(mask, np.ones((3,) * ndim))
    inner = inner if inner.sum() >= 0.4 * mask.sum() else mask
    core = ndimage.binary_erosion(mask, np.ones((5,) * ndim))
    core = core if core.sum() >= 0.3 * mask.sum() else inner
    features, finer = [mean, np.log(max(sd, 0.01))], values
    for scale in (0.8, 1.6, 3.2, 6.4)[: 4 if ndim == 2 else 3]:
        blurred, coverage = (
            ndimage.gaussian_filter(array, scale, mode="constant", radius=round(3 * scale))
            for array in (values, mask.astype(float))
        )
        coarser = np.where(mask, blurred / np.maximum(coverage, 0.05), 0)
        detail = finer - coarser
        features += [*statistics(detail[inner], ndim), *extremes(detail, inner), *extremes(-detail, inner)]
        finer = coarser
        slopes = np.gradient(coarser)
        tensors = np.array([np.gradient(slope) for slope in slopes])
        if ndim == 2:
            low, high = np.linalg.eigvalsh(np.moveaxis(tensors, (0, 1), (-2, -1))[core]).T
            curvatures = [high, low]
        else:
            curvatures = [np.trace(tensors)[core]]
        for quantity in (*curvatures, np.linalg.norm(slopes, axis=0)[core]):
            features += statistics(scale * quantity, ndim)
    return features


@pytest.mark.parametrize("ndim", [2, 3])
def test_features_agree_with_a_plain_computation(ndim):
    patches, masks = objects(ndim)
    features = blob_features(patches, masks)
    expected = np.array([[plain_features(channel, mask) for channel in patch] for patch, mask in zip(patches, masks)])
    assert features.shape == (12, 2, len(blob_names(ndim)))
    assert features.dtype == np.float32
    spread = expected.std(axis=(0, 1))
    for number, name in enumerate(blob_names(ndim)):
        np.testing.assert_allclose(
            features[..., number], expected[..., number], rtol=1e-3, atol=2e-3 * max(spread[number], 1e-3), err_msg=name
        )


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_object_has_the_same_features_alone_and_among_others(ndim):
    patches, masks = objects(ndim)
    together = blob_features(patches, masks)
    alone = np.concatenate([blob_features(patches[[i]], masks[[i]]) for i in range(len(patches))])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_pixels_outside_the_object_do_not_matter(ndim):
    patches, masks = objects(ndim)
    changed = np.where(masks[:, None], patches, np.nan)
    np.testing.assert_array_equal(blob_features(changed, masks), blob_features(patches, masks))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    "turn",
    [
        lambda a, ndim: np.rot90(a, axes=(-2, -1)),
        lambda a, ndim: np.flip(a, -1),
        lambda a, ndim: np.swapaxes(a, -1, -ndim),
    ],
)
def test_quarter_turns_and_mirroring_change_nothing(turn, ndim):
    patches, masks = objects(ndim)
    turned = blob_features(turn(patches, ndim).copy(), turn(masks, ndim).copy())
    np.testing.assert_allclose(turned, blob_features(patches, masks), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_object_with_nan_pixels_has_no_features_and_the_others_keep_theirs(ndim):
    patches, masks = objects(ndim)
    expected = blob_features(patches, masks)
    patches[3, 1][masks[3]] = np.nan
    masks[5] = False
    features = blob_features(patches, masks)
    assert np.isnan(features[[3, 5]]).all()
    others = np.setdiff1d(np.arange(len(patches)), [3, 5])
    np.testing.assert_allclose(features[others], expected[others], rtol=1e-4, atol=1e-5)


def test_uniform_objects_and_single_pixels_have_their_brightness_and_no_detail():
    masks = np.zeros((4, 56, 56), bool)
    masks[0, 10:40, 5:50], masks[1, 3, 4], masks[2, 20:23, 20:23], masks[3] = True, True, True, True
    features = blob_features(np.full((4, 1, 56, 56), 0.7, np.float32), masks)[:, 0]
    np.testing.assert_allclose(features[:, 0], 0.7, rtol=1e-5)
    np.testing.assert_allclose(features[:, 1], np.log(0.01), rtol=1e-5)
    assert (np.abs(features[:, 2:]) < 1e-4).all()
    np.testing.assert_array_equal(features[:, 1:], features[:1, 1:].repeat(4, axis=0))
