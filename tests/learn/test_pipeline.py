"""An Albumentations pipeline, written as that library serialises it, takes part in training."""

from __future__ import annotations

import os

import albumentations
import numpy as np
import pytest
import torch

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import SettingsError
from svetlana_jupyter.learn.fit import fit
from svetlana_jupyter.learn.pipeline import Pipeline
from svetlana_jupyter.learn.samples import gather_samples

QUICK = TrainingSettings(epochs=2, steps=3, depth=2, width=4, patches={"sampling": 12})


def described(*transforms) -> dict:
    return albumentations.to_dict(albumentations.Compose(list(transforms)))


def pipeline(*transforms, **changes) -> Pipeline:
    made = Pipeline.from_settings(QUICK.changed(augmentation={"pipeline": described(*transforms)}, **changes), 2)
    assert made is not None
    return made


def test_a_certain_flip_moves_every_channel_and_the_mask():
    patches = torch.rand(3, 4, 8, 8)
    assert torch.equal(pipeline(albumentations.HorizontalFlip(p=1.0))(patches), patches.flip(3))


def test_brightness_changes_the_image_and_leaves_the_mask():
    patches = torch.rand(3, 3, 8, 8)
    out = pipeline(albumentations.RandomBrightnessContrast(0.4, 0.4, p=1.0))(patches)
    assert torch.equal(out[:, -1], patches[:, -1])
    assert not torch.allclose(out[:, :-1], patches[:, :-1])


def test_without_a_mask_channel_every_channel_is_image():
    patches = torch.rand(2, 1, 8, 8)
    out = pipeline(albumentations.VerticalFlip(p=1.0), patches={"mask_channel": False})(patches)
    assert torch.equal(out, patches.flip(2))


def test_training_with_a_pipeline_survives_json_and_repeats_itself(discs):
    asked = described(albumentations.Affine(rotate=(-30, 30), p=0.9), albumentations.GaussNoise(p=0.5))
    settings = TrainingSettings.from_json(QUICK.changed(augmentation={"pipeline": asked}).to_json())
    first, second = (list(fit(gather_samples([discs], settings)))[-1].classifier.tensors() for _ in range(2))
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_what_albumentations_cannot_read_and_volumes_are_refused(discs, balls):
    wrong = QUICK.changed(augmentation={"pipeline": {"transform": {"__class_fullname__": "NoSuchThing"}}})
    with pytest.raises(SettingsError, match=r"to_dict\(pipeline\)"):
        fit(gather_samples([discs], wrong))
    right = QUICK.changed(augmentation={"pipeline": described(albumentations.HorizontalFlip())})
    with pytest.raises(SettingsError, match="2D patches only"):
        fit(gather_samples([balls], right))


def test_albumentations_is_kept_from_asking_the_network():
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
