"""Patch descriptors and out-of-distribution detection."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter, zoom

from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.core.stats.outliers import flag_unfamiliar_images
from svetlana_jupyter.learn.novelty import ReferenceDistribution, describe_patches, fit_reference
from svetlana_jupyter.learn.training import fit
from tests.learn.calls import collect_training_data, predict
from tests.learn.conftest import AnnotatedImage, two_classes

if TYPE_CHECKING:
    from svetlana_jupyter.learn.dataset import TrainingData

SETTINGS = TrainingSettings(epochs=1, steps=1, width=2, depth=1, trees=5, patches={"size": 16, "sampling": 16})


def wells(count: int = 4, **settings) -> TrainingData:
    return collect_training_data(
        [two_classes(2, seed, name=f"well {seed}") for seed in range(count)], SETTINGS.changed(**settings)
    )


def altered(annotated_image: AnnotatedImage, kind: str) -> AnnotatedImage:
    pair, _, classes = annotated_image
    image, mask = pair.image.to_numpy(), pair.mask.to_numpy()
    if kind == "blurred":
        image = gaussian_filter(image, (0, 2, 2))
    if kind == "noisier":
        image = image + np.random.default_rng(0).normal(0, 60, image.shape)
    if kind == "magnified":
        image, mask = zoom(image, (1, 2, 2), order=1), zoom(mask, 2, order=0)
    if kind == "darker":
        image = image * 0.4
    other = open_pair("new", image.astype(np.float32), mask, axes="cyx", channels=["channel 1"])
    return other, index_objects(other.mask), classes


def outlier_row(
    reference: ReferenceDistribution, settings: TrainingSettings, annotated_image: AnnotatedImage
) -> pd.DataFrame:
    """Return the table row of an image without annotations."""
    *_, fitted = fit(wells(**{"architecture": settings.architecture}))
    events = list(predict(annotated_image[0], annotated_image[1], fitted.classifier, reference=reference))
    novelty = np.concatenate([event.novelty for event in events])
    assert novelty.shape == (len(annotated_image[1]),)
    assert novelty.dtype == np.float32
    row = pd.DataFrame({"asked": [len(novelty)], "unlike": [(novelty > 1).mean()]}, pd.Index(["new"], name="image"))
    return flag_unfamiliar_images(row, {}, reference.left_out)


@pytest.mark.parametrize("architecture", ["small_cnn", "forest"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [("same", False), ("blurred", True), ("noisier", True), ("magnified", True), ("darker", False)],
)
def test_an_out_of_distribution_image_is_flagged(architecture: str, kind: str, expected: bool) -> None:
    samples = wells(architecture=architecture)
    reference = fit_reference(samples)
    if architecture == "forest" and kind == "darker":
        expected = True  # forest features are not normalized
    row = outlier_row(reference, samples.settings, altered(two_classes(2, 77), kind)).loc["new"]
    assert row["warn"] == expected, row.to_dict()


def test_about_five_percent_of_a_left_out_group_are_outliers() -> None:
    left_out = fit_reference(wells(6)).left_out
    assert np.average(left_out.shares, weights=left_out.counts) == pytest.approx(0.05, abs=0.01)
    assert len(left_out.shares) == 6
    assert sum(left_out.counts) == 6 * 49


def test_patch_descriptors_equal_those_of_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    patch = rng.normal(size=(1, 3, 6, 7)).astype(np.float32)
    patch[0, 2] = 0
    patch[0, 2, 2:5, 1:4] = 1
    inside = patch[0, 2] > 0.5
    expected = []
    for region in (inside, ~inside):
        expected += [[channel[region].mean() for channel in patch[0, :2]]]
        expected += [[np.log(channel[region].std()) for channel in patch[0, :2]]]
    for order in (1, 2):
        steps = [[np.diff(channel, order, axis) for axis in (0, 1)] for channel in patch[0, :2]]
        expected += [[0.5 * np.log(sum((step**2).mean() for step in differences)) for differences in steps]]
    edge = [np.abs(np.diff(inside.astype(int), axis=axis)).mean() for axis in (0, 1)]
    expected += [[np.log(9 / 42)], [sum(edge)]]
    np.testing.assert_allclose(describe_patches(patch, True)[0], np.concatenate(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 3, 12, 12), (5, 2, 8, 8, 8)])
def test_patch_descriptors_are_invariant_to_rotation_and_mirroring(shape) -> None:
    patches = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    patches[:, -1] = patches[:, -1] > 0
    before = describe_patches(patches, True)
    rotated = np.ascontiguousarray(np.rot90(patches, axes=(-2, -1))[..., ::-1])
    np.testing.assert_allclose(describe_patches(rotated, True), before, rtol=1e-4, atol=1e-5)


def test_a_reference_distribution_is_saved_without_pickle_and_loaded(tmp_path) -> None:
    reference = fit_reference(wells())
    reference.save(tmp_path)
    loaded = ReferenceDistribution.load(tmp_path)
    patches = np.random.default_rng(0).normal(size=(9, 3, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(loaded.novelty(patches, True), reference.novelty(patches, True))
    assert loaded.left_out == reference.left_out
    (tmp_path / "familiar.safetensors").write_bytes(b"torn")
    assert ReferenceDistribution.load(tmp_path) is None


def test_flat_patches_and_few_annotations_give_no_reference() -> None:
    samples = wells(1)
    assert fit_reference(replace(samples, inputs=np.zeros_like(samples.inputs))) is None
    assert fit_reference(samples.subset(np.arange(19))) is None


def test_volumes_and_patches_without_a_mask_have_a_novelty() -> None:
    samples = collect_training_data([two_classes(3)], SETTINGS.changed(patches={"mask_channel": False, "sampling": 8}))
    reference = fit_reference(samples)
    assert reference is not None
    assert reference.novelty(samples.inputs[:3, :, :8, :8, :8], False).shape == (3,)


def test_many_objects_of_an_image_are_sampled_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svetlana_jupyter.learn.inference.MAX_COMPARED", 10)
    *_, fitted = fit(wells(architecture="forest"))
    pair, objects, _ = two_classes(2, 5)
    reference = fit_reference(wells(architecture="forest"))
    runs = [
        np.concatenate([event.novelty for event in predict(pair, objects, fitted.classifier, size, reference)])
        for size in (7, 64)
    ]
    assert len(runs[0]) == len(runs[1]) == 10
    assert sorted(runs[0]) == sorted(runs[1])
    assert all(not len(event.novelty) for event in predict(pair, objects, fitted.classifier))
