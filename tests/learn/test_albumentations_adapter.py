"""Serialized Albumentations pipelines in training."""

from __future__ import annotations

import os

import albumentations
import numpy as np
import pytest
import torch

from svetlana_jupyter.core.settings import AugmentSettings, TrainingSettings
from svetlana_jupyter.errors import SettingsError
from svetlana_jupyter.learn.albumentations_adapter import build_pipeline
from svetlana_jupyter.learn.augmentation import Augmenter
from svetlana_jupyter.learn.dataset import collect_for_each
from svetlana_jupyter.learn.training import fit
from tests.learn.calls import collect_training_data

A = albumentations
QUICK = TrainingSettings(epochs=2, steps=3, depth=2, width=4, patches={"sampling": 12})
SHAPES = {2: (8, 8), 3: (6, 8, 8)}


def described(*transforms, **values) -> dict:
    return albumentations.to_dict(albumentations.Compose(list(transforms), **values))


def settings_of(*transforms, ndim: int = 2, **patches) -> TrainingSettings:
    shape = SHAPES[ndim]
    cut = {"size": tuple(map(float, shape)), "sampling": shape, "normalize": "percentile", **patches}
    return TrainingSettings(patches=cut, augmentation={"pipeline": described(*transforms)})


def applied(patches: torch.Tensor, *transforms, seed: int = 0, **patch_settings) -> torch.Tensor:
    """Apply a pipeline to patches with settings that match their shape and mask."""
    settings = settings_of(*transforms, ndim=patches.ndim - 2, **patch_settings)
    copies = 2 if settings.patches.normalize == "both" else 1
    colors = (patches.shape[1] - settings.patches.mask_channel) // copies
    pipeline = build_pipeline(settings, patches.ndim - 2, colors)
    assert pipeline is not None
    return pipeline(patches, torch.Generator().manual_seed(seed))


def masked_patches(ndim: int, count: int = 4, channels: int = 2) -> torch.Tensor:
    patches = 10 * torch.rand(count, channels + 1, *SHAPES[ndim], generator=torch.Generator().manual_seed(1)) - 5
    patches[:, -1] = (patches[:, 0] > 0).float()
    return patches


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_a_certain_flip_moves_every_channel_and_the_mask(ndim, channels):
    patches = masked_patches(ndim, channels=channels)
    out = applied(patches, albumentations.HorizontalFlip(p=1.0))
    torch.testing.assert_close(out, patches.flip(-1), atol=1e-5, rtol=0)
    assert torch.equal(out[:, -1], patches[:, -1].flip(-1))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    "transform",
    [
        albumentations.RandomBrightnessContrast(0.4, 0.4, p=1.0),
        albumentations.GaussNoise(std_range=(0.1, 0.2), p=1.0),
        albumentations.GaussianBlur(sigma_limit=(1.0, 2.0), p=1.0),
        albumentations.RandomGamma((150, 200), p=1.0),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_intensity_transforms_change_the_image_but_not_the_mask(ndim, transform):
    patches = masked_patches(ndim)
    out = applied(patches, transform)
    assert torch.equal(out[:, -1], patches[:, -1])
    assert (out[:, :-1] - patches[:, :-1]).abs().mean() > 0.1


@pytest.mark.parametrize("ndim", [2, 3])
def test_values_are_scaled_to_the_expected_range_and_back(ndim):
    patches = masked_patches(ndim)
    out = applied(patches, albumentations.InvertImg(p=1.0))
    for before, after in zip(patches[:, :-1].flatten(0, 1), out[:, :-1].flatten(0, 1), strict=True):
        torch.testing.assert_close(after, before.max() + before.min() - before, atol=1e-4, rtol=0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_rotation_interpolates_the_mask_by_nearest_neighbor(ndim):
    patches = masked_patches(ndim, channels=1)
    patches[:, 0] = patches[:, 1]
    out = applied(patches, albumentations.Affine(rotate=(30, 30), p=1.0))
    assert set(out[:, 1].unique().tolist()) == {0.0, 1.0}
    assert len(out[:, 0].unique()) > 10
    assert ((out[:, 0] > 0.5) == (out[:, 1] > 0)).float().mean() > 0.9


@pytest.mark.parametrize("ndim", [2, 3])
def test_both_copies_of_a_channel_change_equally_and_hidden_pixels_stay_zero(ndim):
    patches = masked_patches(ndim, channels=4)
    patches[:, 2:4] = patches[:, 0:2] * patches[:, -1:]
    noise = albumentations.GaussNoise(std_range=(0.1, 0.1), p=1.0)
    out = applied(patches, noise, albumentations.VerticalFlip(p=1.0), normalize="both")
    hidden = patches[:, -1:].flip(-2) == 0
    assert (out[:, 2:4] == 0)[hidden.expand(-1, 2, *SHAPES[ndim])].all()
    shown = ~hidden.expand(-1, 2, *SHAPES[ndim])
    change = (out - patches.flip(-2))[:, :4] / (
        patches.amax(list(range(2, 2 + ndim))) - patches.amin(list(range(2, 2 + ndim)))
    )[:, :4].view(-1, 4, *(1 for _ in range(ndim)))
    inside = shown & (out[:, 0:2] > -4.9) & (out[:, 0:2] < 4.9) & (out[:, 2:4] > -4.9) & (out[:, 2:4] < 4.9)
    inside &= (change[:, 0:2] != 0) & (change[:, 2:4] != 0)
    assert float((change[:, 0:2] - change[:, 2:4])[inside].abs().median()) < 1e-3


def test_the_eroded_margin_stays_zero():
    patches = masked_patches(2, channels=2)
    patches[:, :2, 2:4] = 0
    out = applied(patches, A.RandomBrightnessContrast(0.4, 0.4, p=1.0), A.VerticalFlip(p=1.0), rim=2, normalize="apart")
    assert torch.equal(out[:, :2] == 0, patches[:, :2].flip(-2) == 0)


def test_transforms_are_independent_and_use_the_generator():
    patch = torch.arange(64.0).view(1, 1, 8, 8).expand(64, 1, 8, 8)
    flips = albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)
    out = applied(patch, *flips, mask_channel=False)
    assert len(out.flatten(1).round().unique(dim=0)) == 4
    assert torch.equal(out, applied(patch, *flips, mask_channel=False))
    assert not torch.equal(out, applied(patch, *flips, mask_channel=False, seed=1))


def test_the_generator_advances_between_batches():
    settings = settings_of(albumentations.Affine(rotate=(-90, 90), p=1.0))
    augment = Augmenter(settings, torch.zeros(2), torch.ones(2))
    patches, generator = masked_patches(2, channels=1), torch.Generator().manual_seed(0)
    first, second = augment(patches, generator), augment(patches, generator)
    assert not torch.equal(first, second)
    generator.manual_seed(0)
    assert torch.equal(augment(patches, generator), first)


@pytest.mark.parametrize("name", ["discs", "balls"])
def test_training_with_a_pipeline_survives_json_and_is_reproducible(request, name):
    annotated_image = request.getfixturevalue(name)
    pipeline = described(albumentations.Affine(rotate=(-30, 30), p=0.9), albumentations.GaussNoise(p=0.5))
    settings = QUICK.changed(augmentation={"pipeline": pipeline})
    assert TrainingSettings.from_json(settings.to_json()) == settings
    first, second = (
        list(fit(collect_training_data([annotated_image], settings)))[-1].classifier.tensors() for _ in range(2)
    )
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_single_transforms_and_fully_qualified_names_are_accepted():
    patches = masked_patches(2)
    for name in ("HorizontalFlip", "albumentations.augmentations.geometric.transforms.HorizontalFlip"):
        described_ = {"transform": {"__class_fullname__": name, "p": 1.0}}
        settings = settings_of().changed(augmentation={"pipeline": described_})
        out = build_pipeline(settings, 2, 2)(patches, torch.Generator())
        torch.testing.assert_close(out, patches.flip(-1), atol=1e-5, rtol=0)


REFUSED = [
    (2, 1, [A.RandomCrop(6, 6)], r"RandomCrop changes 8 × 8 pixels with 1 channel to 6 × 6 pixels with 1 channel"),
    (2, 3, [A.OneOf([A.NoOp(), A.RandomCrop(6, 6, p=0.01)], p=0.1)], "RandomCrop changes"),
    (3, 1, [A.RandomCrop3D((4, 6, 6))], "RandomCrop3D changes .* to 4 × 6 × 6 pixels"),
    (2, 1, [A.ToRGB()], "ToRGB changes .* to 8 × 8 pixels with 3 channels"),
    (2, 2, [A.ToGray(p=0.1)], "ToGray fails on 8 × 8 pixels with 2 channels of float32"),
    (2, 2, [A.HorizontalFlip(), A.CLAHE(p=0.1)], "CLAHE fails on 8 × 8 pixels with 2 channels"),
    (2, 1, [A.FromFloat()], "FromFloat returns values that are not finite float32 numbers"),
    (2, 1, [A.CubicSymmetry()], "CubicSymmetry fails on .*it asks for 'volume'"),
    (3, 1, [A.CubicSymmetry()], "CubicSymmetry changes"),
    (2, 1, [A.ToTensorV2()], "ToTensorV2 changes"),
]


@pytest.mark.parametrize(("ndim", "channels", "transforms", "message"), REFUSED)
def test_transforms_that_change_the_shape_or_fail_are_refused_by_name(ndim, channels, transforms, message):
    with pytest.raises(SettingsError, match=message) as caught:
        build_pipeline(settings_of(*transforms, ndim=ndim), ndim, channels)
    assert "\n" not in str(caught.value)


def test_nested_compositions_are_accepted():
    one_of = A.OneOf([A.HorizontalFlip(p=1.0), A.HorizontalFlip(p=1.0)], p=1.0)
    inner = A.Compose([A.SomeOf([A.VerticalFlip(p=1.0), A.VerticalFlip(p=1.0)], n=2, replace=False, p=1.0)])
    patches = masked_patches(2)
    out = applied(patches, A.Sequential([one_of], p=1.0), inner)
    torch.testing.assert_close(out, patches.flip(3), atol=1e-5, rtol=0)


def test_pipelines_that_restore_the_shape_are_accepted():
    transforms = A.RandomCrop(6, 6, p=1.0), A.Resize(8, 8, p=1.0), A.RandomResizedCrop((8, 8))
    assert applied(masked_patches(2), *transforms).shape == (4, 3, 8, 8)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            {"__class_fullname__": "HorizontalFlop", "p": 1},
            "no Albumentations transform 'HorizontalFlop'; did you mean 'Ho",
        ),
        ({"__class_fullname__": "Lambda", "__name__": "x"}, "no Albumentations transform 'Lambda'"),
        ({"__class_fullname__": "Compose", "transforms": [{"__class_fullname__": "Blurr"}]}, "did you mean 'Blur'"),
        ({"__class_fullname__": "GaussianBlur", "sigma": 3}, "GaussianBlur 'sigma'. Did you mean 'sigma_limit'"),
        ({"__class_fullname__": "GaussianBlur", "blur_limit": "x"}, "GaussianBlur does not accept its arguments"),
        ({"__class_fullname__": "BboxParams"}, "no Albumentations transform 'BboxParams'"),
        ({"__class_fullname__": "Compose", "transforms": [], "p": "often"}, "p of Compose must be from 0 to 1"),
    ],
)
def test_unknown_transforms_and_arguments_are_refused_before_patches_are_cut(discs, transform, message):
    settings = QUICK.changed(augmentation={"pipeline": {"transform": transform}})
    with pytest.raises(SettingsError, match=message) as caught:
        next(collect_for_each([discs], [settings]))
    assert "\n" not in str(caught.value)


class Mine(albumentations.HorizontalFlip):
    """User-defined transform that Albumentations registers."""


@pytest.mark.parametrize("name", ["Mine", f"{__name__}.Mine", "os.system", "builtins.eval"])
def test_only_classes_of_albumentations_are_instantiated(name):
    def build() -> None:
        settings = settings_of().changed(augmentation={"pipeline": {"transform": {"__class_fullname__": name}}})
        build_pipeline(settings, 2, 1)

    with pytest.raises(SettingsError, match=r"no Albumentations transform|transforms of Albumentations itself"):
        build()


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ({}, r"to_dict\(pipeline\)"),
        ({"transform": "HorizontalFlip"}, r"to_dict\(pipeline\)"),
        ({"transform": {"__class_fullname__": "Compose", "transforms": [3]}}, r"to_dict\(pipeline\)"),
        ({"transform": {"__class_fullname__": "Compose", "transforms": 3}}, r"to_dict\(pipeline\)"),
        ({"transform": {"__class_fullname__": "Blur", "blur_limit": np.ones(2)}}, "cannot be stored as JSON"),
        (
            {"transform": {"__class_fullname__": "Compose", "transforms": [{"__class_fullname__": "os.system"}]}},
            "itself",
        ),
    ],
)
def test_an_invalid_serialized_pipeline_is_refused_when_it_is_set(pipeline, message):
    with pytest.raises(SettingsError, match=message):
        AugmentSettings(pipeline=pipeline)


def test_albumentations_makes_no_network_request():
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
