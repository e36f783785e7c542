"""Object patches: what they show, and independence of chunks, surroundings and forbidden cues."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.features.object_patches import fit_patches, iter_patches
from svetlana_jupyter.core.io import chunks as blocks
from svetlana_jupyter.core.io.image_pair import ImagePair, open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.errors import PatchError
from tests.core.features.test_compute import blobs
from tests.core.io.test_chunks import CountingArray

if TYPE_CHECKING:
    import pandas as pd


def cut(pair: ImagePair, fitted=None, forbidden: tuple[str, ...] = (), objects: pd.DataFrame | None = None):
    """Return patches and masks, in the order of the objects."""
    objects = index_objects(pair.mask) if objects is None else objects
    may_use = set(CUES) - set(forbidden)
    fitted = fitted or fit_patches([(pair, objects)], may_use)
    labels, patches, masks = (np.concatenate(part) for part in zip(*iter_patches(pair, objects, fitted, may_use)))
    order = np.argsort(labels)
    np.testing.assert_array_equal(labels[order], objects.index)
    return patches[order], masks[order]


def disks(image: np.ndarray, radii: tuple[float, ...] = (6, 8, 10), **open_arguments) -> ImagePair:
    """Return an image with one disk or ball per radius, in a row."""
    shape = image.shape[1:]
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    mask = np.zeros(shape, np.uint16)
    for label, radius in enumerate(radii, 1):
        center = [*(side // 2 for side in shape[:-1]), round(shape[-1] * (label - 0.5) / len(radii))]
        mask[((grid - center) ** 2).sum(-1) <= radius**2] = label
    return open_pair("disks", image, mask, axes="c" + "zyx"[-len(shape) :], **open_arguments)


def test_patches_show_the_standardized_object_at_its_scale():
    image = gaussian_filter(np.random.default_rng(0).normal(500, 400, (1, 40, 90)), (0, 3, 3)).astype(np.float32)
    pair = disks(image)
    patches, masks = cut(pair)
    side = 1.5 * np.quantile([13, 17, 21], 0.9)
    values = image[0][np.asarray(pair.mask) > 0]
    for number, (radius, column) in enumerate(zip((6, 8, 10), (15, 45, 75))):
        at = (np.arange(56) - 27.5) * side / 56
        rows, columns = np.meshgrid(20 + at, column + at, indexing="ij")
        expected = map_coordinates(image[0], [rows, columns], order=1)
        inner = np.hypot(rows - 20, columns - column) < radius - 1
        assert masks[number][inner].all()
        assert not masks[number][np.hypot(rows - 20, columns - column) > radius + 1].any()
        scale, offset = np.polyfit(expected[inner], patches[number, 0][inner], 1)
        np.testing.assert_allclose(patches[number, 0][inner], scale * expected[inner] + offset, atol=0.02)
        assert scale == pytest.approx(1 / values.std(), rel=0.1)
        assert (patches[number][:, ~masks[number]] == 0).all()


def test_an_object_wider_than_the_patch_gets_a_larger_one():
    image = np.random.default_rng(0).normal(500, 40, (1, 140, 1800)).astype(np.float32)
    _, masks = cut(disks(image, (6,) * 11 + (60,)))
    widths = [mask.any(axis=0).sum() for mask in masks]
    assert widths[-1] == pytest.approx(56 / 1.15, abs=2)
    assert widths[0] == pytest.approx(56 / 1.5, abs=2)


def test_patches_of_anisotropic_voxels_are_isotropic():
    image = np.random.default_rng(0).normal(500, 40, (1, 21, 48, 120)).astype(np.float32)
    grid = np.stack(np.meshgrid(*map(np.arange, image.shape[1:]), indexing="ij"), -1)
    ball = (((grid - [10, 24, 60]) * [2, 1, 1]) ** 2).sum(-1) <= 15**2
    pair = open_pair("ball", image, ball.astype(np.uint8), axes="czyx", spacing=(2.0, 1.0, 1.0))
    _, (mask,) = cut(pair)
    sides = [mask.any(axis=tuple({0, 1, 2} - {axis})).sum() for axis in range(3)]
    np.testing.assert_allclose(sides, 28 / 1.3 * 30 / 31, atol=1)
    assert mask.sum() == pytest.approx(np.pi / 6 * (28 / 1.3 * 30 / 31) ** 3, rel=0.08)


def test_fine_patterns_are_averaged_in_reduced_patches():
    image = 500 + 100 * (np.indices((150, 150)).sum(0) % 2)[None].astype(np.float32)
    patches, masks = cut(disks(image, (70,)))
    assert np.abs(patches[0, 0][masks[0]]).max() < 0.5  # of 1 in the image


def test_the_channels_are_shown_on_their_three_principal_axes():
    rng = np.random.default_rng(0)
    hidden = gaussian_filter(rng.normal(0, 1, (2, 60, 90)), (0, 1, 1))
    mix = np.array([[1, 0], [0.9, 0.2], [0, 1], [0.5, 0.5], [0, 0]])
    image = (np.array([10, 1e4, 1, 50, 9]).reshape(-1, 1, 1) * (3 + np.tensordot(mix, hidden, 1))).astype(np.float32)
    pair = disks(image, (9, 9, 9))
    fitted = fit_patches([(pair, index_objects(pair.mask))])
    assert fitted["axes"].shape == (5, 3)
    assert (fitted["axes"][4] == 0).all(), "a constant channel shows nothing"
    values = image[:, np.asarray(pair.mask) > 0]
    shown = (values.T - fitted["mean"]) @ fitted["axes"]
    np.testing.assert_allclose(shown.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(np.cov(shown.T)[:2, :2], np.eye(2), atol=0.02)
    assert shown[:, 2].std() < 0.1, "there are only two components"


@pytest.mark.parametrize("forbidden", [(), ("surroundings",), ("size",)])
@pytest.mark.parametrize(("shape", "chunks"), [((60, 70), 17), ((16, 30, 32), 9)])
def test_patches_do_not_depend_on_chunks_and_each_chunk_is_decoded_once(shape, chunks, forbidden, monkeypatch):
    whole = blobs(shape)
    expected = cut(whole, forbidden=forbidden)
    monkeypatch.setitem(blocks.MIN_BLOCK_SHAPE, len(shape), (chunks,) * len(shape))
    sides = (chunks,) * len(shape)
    image, mask = CountingArray(np.asarray(whole.image)), CountingArray(np.asarray(whole.mask))
    dims = "c" + "zyx"[-len(shape) :]
    channels = image.to_lazy((2, *sides), dims).assign_coords(c=["red", "green"])
    lazy = ImagePair("x", channels, mask.to_lazy(sides, dims))
    objects = index_objects(whole.mask)
    fitted = fit_patches([(whole, objects)], set(CUES) - set(forbidden))
    for actual, wanted in zip(cut(lazy, fitted, forbidden, objects), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-4)
    for source in (image, mask):
        assert set(source.reads.values()) == {1}


def test_a_subset_of_objects_gets_the_same_patches():
    pair = blobs((60, 70))
    objects = index_objects(pair.mask)
    fitted = fit_patches([(pair, objects)])
    everything, few = cut(pair, fitted), cut(pair, fitted, objects=objects.iloc[[1, 4]])
    for part, whole in zip(few, everything, strict=True):
        np.testing.assert_allclose(part, whole[[1, 4]], atol=1e-5)


@pytest.mark.parametrize("shape", [(60, 70), (16, 30, 32)])
@pytest.mark.parametrize("forbidden", [(), ("surroundings",), ("brightness",), ("size",)])
def test_only_the_object_pixels_matter(shape, forbidden):
    pair = blobs(shape)
    image, mask = np.asarray(pair.image), np.asarray(pair.mask)
    fitted = fit_patches([(pair, index_objects(pair.mask))], set(CUES) - set(forbidden))
    kept = np.isin(mask, [2, 15])
    noise = np.random.default_rng(1).normal(0, 1e4, image.shape)
    other = open_pair("x", np.where(kept, image, noise), np.where(kept, mask, 0), axes="c" + "zyx"[-len(shape) :])
    labels = list(index_objects(pair.mask).index)
    places = [labels.index(label) for label in index_objects(other.mask).index]
    for after, before in zip(cut(other, fitted, forbidden), cut(pair, fitted, forbidden), strict=True):
        np.testing.assert_allclose(after, before[places], atol=1e-4)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 12])
def test_without_surroundings_light_mixed_in_along_the_edge_does_not_matter(width):
    """Blur mixes light into one pixel of objects up to 4 pixels wide, and into two pixels of wider ones."""
    mask = np.zeros((40, 60), np.uint8)
    mask[10 : 10 + width, 5 : 5 + width], mask[20:35, 30:50] = 1, 2
    image = np.random.default_rng(0).normal(500, 60, (1, 40, 60)).astype(np.float32)
    pair = open_pair("x", image, mask, axes="cyx")
    fitted = fit_patches([(pair, index_objects(pair.mask))], set(CUES) - {"surroundings"})
    inner = np.zeros_like(mask, bool)
    left = 2 if width > 4 else 1
    inner[10 + left : 10 + width - left, 5 + left : 5 + width - left], inner[22:33, 32:48] = True, True
    mixed = open_pair("x", np.where(inner, image, image + 300), mask, axes="cyx")
    before, after = cut(pair, fitted, ("surroundings",)), cut(mixed, fitted, ("surroundings",))
    np.testing.assert_array_equal(after[0], before[0])
    assert before[1].reshape(2, -1).any(axis=1).all()
    assert (before[0][0] == 0).all() == (width <= 2)
    assert not np.array_equal(cut(mixed, fitted)[0], cut(pair, fitted)[0])


def test_the_border_of_the_image_counts_as_no_surroundings():
    mask = np.zeros((30, 30), np.uint8)
    mask[0:3, 5:20] = 1
    pair = open_pair("x", np.random.default_rng(0).normal(500, 60, (1, 30, 30)), mask, axes="cyx")
    patches, _ = cut(pair, forbidden=("surroundings",))
    assert np.abs(patches).max() > 0.5
    single = open_pair("x", np.random.default_rng(0).normal(500, 60, (1, 1, 30, 30)), mask[None], axes="czyx")
    patches, _ = cut(single, forbidden=("surroundings",))
    assert np.abs(patches).max() > 0.5


@pytest.mark.parametrize("shape", [(60, 70), (16, 30, 32)])
@pytest.mark.parametrize("also", [(), ("surroundings",), ("size",)])
def test_without_brightness_gain_and_offset_do_not_matter(shape, also):
    pair = blobs(shape)
    image, mask = np.asarray(pair.image), np.asarray(pair.mask)
    gains = np.random.default_rng(2).uniform(0.5, 3, (2, mask.max() + 1))[:, mask]
    brighter = open_pair("x", gains * image + 40, mask, axes="c" + "zyx"[-len(shape) :])
    forbidden = ("brightness", *also)
    fitted = fit_patches([(pair, index_objects(pair.mask))], set(CUES) - set(forbidden))
    np.testing.assert_allclose(cut(brighter, fitted, forbidden)[0], cut(pair, fitted, forbidden)[0], atol=0.01)
    assert np.abs(cut(brighter, fitted)[0] - cut(pair, fitted)[0]).max() > 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_object_with_invalid_pixels_has_nan_patches_and_does_not_spoil_the_fit(value):
    pair = blobs((60, 70))
    expected, _ = cut(pair)
    image = np.asarray(pair.image).copy()
    labels = index_objects(pair.mask).index
    row, column = np.argwhere(np.asarray(pair.mask) == labels[2])[0]
    image[1, row, column] = value
    background = np.argwhere(np.asarray(pair.mask) == 0)[0]
    image[0, background[0], background[1]] = value
    spoiled = open_pair("x", image, np.asarray(pair.mask), axes="cyx")
    fitted = fit_patches([(spoiled, index_objects(pair.mask))])
    assert np.isfinite(fitted["mean"]).all()
    patches, _ = cut(spoiled, fit_patches([(pair, index_objects(pair.mask))]))
    assert np.isnan(patches[2]).all()
    others = np.delete(np.arange(len(labels)), 2)
    np.testing.assert_allclose(patches[others], expected[others], atol=1e-5)


def test_labels_can_be_huge_and_objects_huge(monkeypatch):
    from svetlana_jupyter.core.features import crops

    monkeypatch.setattr(crops, "MAX_BOX_VOXELS", 400)
    small, huge = blobs((60, 70)), blobs((60, 70), largest=2**40)
    np.testing.assert_allclose(cut(huge)[0], cut(small)[0], atol=1e-5)


def test_lazy_images_are_never_computed_whole():
    pair = blobs((60, 70), 20)
    assert isinstance(pair.image.data, da.Array)
    np.testing.assert_allclose(cut(pair)[0], cut(blobs((60, 70)))[0], atol=1e-5)


def test_a_sample_without_objects_or_of_different_images_is_refused():
    pair = blobs((60, 70))
    objects = index_objects(pair.mask)
    with pytest.raises(PatchError, match="got no objects"):
        fit_patches([(pair, objects.iloc[:0])])
    with pytest.raises(PatchError, match="2D images with 1 channels and 2D images with 2 channels"):
        fit_patches([(pair, objects), (blobs((60, 70), channels=1), objects)])
