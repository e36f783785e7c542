"""Patch previews: the displayed patch is the one that the classifier receives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from svetlana_jupyter.core.patches import cut_patches
from svetlana_jupyter.core.settings import AugmentSettings, TrainingSettings
from svetlana_jupyter.errors import InputError, SettingsError
from svetlana_jupyter.learn.augmentation import Augmenter
from svetlana_jupyter.learn.training import fit
from svetlana_jupyter.project.patch_previews import classifier_patch
from svetlana_jupyter.project.patch_previews import patch_settings as resolve_settings
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.samples import bright_foci_3d, gray_cells
from tests.learn.calls import collect_training_data


def patch_settings(project, image, settings=None):
    """Return the patch settings that training the project now would use."""
    labels = project.labels().query("action == 'label'")["class_id"]
    return resolve_settings(project.images, labels, image, settings or project.settings)


@pytest.fixture(params=["plane", "volume"])
def cells(request, tmp_path):
    """Project with one image and no annotations."""
    sample = gray_cells(0, size=300, count=30) if request.param == "plane" else bright_foci_3d(0)
    project = Project(tmp_path / "cells.svetlana", classes=["a", "b"])
    project.add("cells", sample.image, sample.mask, axes="yx" if request.param == "plane" else "zyx")
    return project


def test_the_patch_before_training_is_the_one_that_training_would_cut(cells):
    settings = patch_settings(cells, "cells")
    objects = cells.objects("cells")
    assert settings.is_frozen
    cut = {
        label: pixels
        for labels, patches in cut_patches(cells.pair("cells"), objects, settings)
        for label, pixels in zip(labels, patches)
    }
    for label in objects.index[:5]:
        patch = classifier_patch(cells.images, "cells", int(label), settings)
        np.testing.assert_allclose(patch.to_numpy(), cut[label], rtol=1e-5, atol=1e-5)
        assert patch["c"].values[-1] == "mask"
        assert patch.sizes["c"] == len(cut[label])
        middle = objects.loc[label, ["y", "x"]].to_numpy(float)
        seen = [float((patch[axis][0] + patch[axis][-1]) / 2) for axis in "yx"]
        assert np.abs(np.subtract(seen, middle)).max() <= 1


def test_with_annotations_the_preview_uses_the_settings_that_training_freezes(cells):
    objects = cells.objects("cells").index
    for label in objects[:8]:
        cells.annotate("cells", int(label), "a" if label % 2 else "b")
    run = cells.train(architecture="forest", trees=10)
    frozen = patch_settings(cells, "cells")
    assert list(frozen.size) == list(run.settings["patches"]["size"])
    assert list(frozen.sampling) == list(run.settings["patches"]["sampling"])


def test_a_network_with_finer_patches_is_previewed_with_them(cells):
    deep = TrainingSettings(depth=6)
    assert max(patch_settings(cells, "cells").sampling) < 64
    assert max(patch_settings(cells, "cells", deep).sampling) == 64


@pytest.mark.parametrize(
    "values",
    [
        {"augmentation": {"color": 0.2, "blur": 0.5, "shift": 0.1}},
        {"augmentation": {"rotation": "free", "gamma": 0.3}},
        {"may_use": []},
        {"may_use": ["surroundings"]},
        {"augmentation": {"pipeline": {"transform": {"__class_fullname__": "Affine", "rotate": (-40, 40), "p": 0.8}}}},
    ],
    ids=str,
)
def test_previewed_patches_match_those_of_training(cells, values):
    objects = cells.objects("cells")
    for label in objects.index[:8]:
        cells.annotate("cells", int(label), "a" if label % 2 else "b")
    settings = TrainingSettings(**values, seed=3)
    labels = cells.labels()["class_id"].droplevel("image")
    samples = collect_training_data([(cells.pair("cells"), objects, labels)], settings)
    *_, fitted = fit(replace(samples, settings=samples.settings.changed(epochs=1, steps=1)))
    standardize = fitted.classifier.module.standardize
    patches = torch.from_numpy(samples.inputs[[2]]).expand(8, *samples.inputs.shape[1:])
    augment = Augmenter(samples.settings, standardize.mean, standardize.deviation)
    expected = augment(patches, torch.Generator().manual_seed(3))
    preview = cells.preview_augmentation("cells", int(samples.objects[2]), settings)
    np.testing.assert_allclose(preview.to_numpy(), expected.numpy(), atol=2e-4)
    assert preview.dims == ("n", "c", *"zyx"[-cells.pair("cells").ndim :])
    assert (preview["c"].values[-1] == "mask") == samples.settings.patches.mask_channel
    assert TrainingSettings.from_json(preview.attrs["settings"]) == samples.settings


def test_without_augmentation_the_preview_is_the_patch_itself(cells):
    label = int(cells.objects("cells").index[0])
    cells.settings = TrainingSettings(augmentation=AugmentSettings.none())
    preview = cells.preview_augmentation("cells", label, n=3)
    expected = classifier_patch(cells.images, "cells", label, patch_settings(cells, "cells"))
    assert preview.sizes["n"] == 3
    for patch in preview.to_numpy():
        np.testing.assert_allclose(patch, expected.to_numpy(), rtol=1e-5, atol=1e-5)


def test_a_pipeline_is_checked_when_set_and_a_failing_one_is_discarded(cells):
    before = cells.settings
    crop = {"transform": {"__class_fullname__": "RandomCrop", "height": 6, "width": 6, "p": 0.1}}
    with pytest.raises(SettingsError, match="RandomCrop changes"):
        cells.settings = before.changed(augmentation={"pipeline": crop})
    assert cells.settings == before
    flip = {"transform": {"__class_fullname__": "HorizontalFlip", "p": 1.0}}
    cells.settings = before.changed(augmentation={"pipeline": flip})
    assert cells.settings.augmentation.pipeline == flip
    assert cells.preview_augmentation("cells", int(cells.objects("cells").index[0])).sizes["n"] == 8


def test_a_pipeline_that_requires_the_patch_shape_is_accepted(cells):
    settings = cells.settings
    cells.objects("cells")
    height, width = patch_settings(cells, "cells").sampling[-2:]
    resize = {"transform": {"__class_fullname__": "Resize", "height": height, "width": width, "p": 1.0}}
    cells.settings = settings.changed(augmentation={"pipeline": resize})
    resize["transform"]["height"] += 1
    with pytest.raises(SettingsError, match="Resize changes"):
        cells.settings = settings.changed(augmentation={"pipeline": resize})


def test_a_pipeline_that_requires_a_shape_needs_a_sampling_without_objects(tmp_path):
    project = Project(tmp_path / "new.svetlana", classes=["a", "b"])
    resize = {"transform": {"__class_fullname__": "Resize", "height": 30, "width": 30, "p": 1.0}}
    settings = TrainingSettings(augmentation={"pipeline": resize})
    with pytest.raises(SettingsError, match="tested with 24 pixels per side"):
        project.settings = settings
    project.settings = settings.changed(patches={"sampling": 30})


def test_an_unknown_object_is_refused(cells):
    with pytest.raises(InputError, match="'cells' has no object 9999"):
        classifier_patch(cells.images, "cells", 9999, patch_settings(cells, "cells"))
    with pytest.raises(InputError, match="'cells' has no object 9999"):
        cells.preview_augmentation("cells", 9999)
