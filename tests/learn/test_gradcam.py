"""Grad-CAM in 2D and 3D."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ClassifierError, InputError
from svetlana_jupyter.learn import networks as torchvision_loader
from svetlana_jupyter.learn.gradcam import CAM_METHODS, explain
from svetlana_jupyter.learn.training import fit
from tests.learn.calls import collect_training_data

QUICK = TrainingSettings(epochs=3, steps=5, depth=2, width=4, trees=10, patches={"sampling": 12})


def classifier_of(annotated_image, **changes):
    *_, fitted = fit(collect_training_data([annotated_image], QUICK.changed(**changes)))
    return fitted.classifier


@pytest.mark.parametrize("method", CAM_METHODS)
def test_the_map_has_the_image_coordinates_of_the_object_patch(annotated_image, method):
    pair, objects, classes = annotated_image
    classifier = classifier_of(annotated_image, patches={"size": 14, "sampling": 14})
    label = int(classes.index[5])
    explanation = explain(pair, objects, label, classifier, method=method)
    axes = tuple("zyx"[-pair.ndim :])
    assert explanation["cam"].dims == explanation["mask"].dims == axes
    assert explanation["image"].dims == ("c", *axes)
    assert explanation["cam"].shape == (14,) * pair.ndim
    assert 0 <= float(explanation["cam"].min()) <= float(explanation["cam"].max()) <= 1
    for axis in axes:
        assert float(explanation["cam"][axis].mean()) == pytest.approx(objects.loc[label, axis], abs=0.5)
    # Inside the image, pixels and mask of the patch equal those of the image at the same coordinates.
    inside = {
        axis: explanation[axis][(explanation[axis] >= 0) & (explanation[axis] < pair.mask.sizes[axis])].to_numpy()
        for axis in axes
    }
    whole = {axis: coordinates.astype(int) for axis, coordinates in inside.items()}
    np.testing.assert_array_equal(explanation["image"].sel(inside), pair.image.isel(whole))
    np.testing.assert_array_equal(explanation["mask"].sel(inside), pair.mask.isel(whole) == label)


def test_the_predicted_or_the_requested_class_is_explained(discs):
    pair, objects, classes = discs
    classifier = classifier_of(discs)
    label = int(classes.index[0])
    predicted = explain(pair, objects, label, classifier).attrs
    other = explain(pair, objects, label, classifier, class_id=11 - predicted["class_id"]).attrs
    assert predicted["probability"] + other["probability"] == pytest.approx(1.0, abs=1e-5)
    assert predicted["probability"] >= 0.5
    assert {predicted["class_id"], other["class_id"]} == {4, 7}


def test_explaining_leaves_neither_hooks_nor_changed_weights(discs):
    pair, objects, classes = discs
    classifier = classifier_of(discs)
    before = {name: values.copy() for name, values in classifier.tensors().items()}
    explain(pair, objects, int(classes.index[0]), classifier)
    assert not any(module._forward_hooks or module._backward_hooks for module in classifier.module.modules())
    for name, values in classifier.tensors().items():
        np.testing.assert_array_equal(values, before[name])


def test_forests_and_unknown_objects_classes_or_methods_are_refused(discs):
    pair, objects, classes = discs
    label = int(classes.index[0])
    with pytest.raises(ClassifierError, match="Grad-CAM needs a network"):
        explain(pair, objects, label, classifier_of(discs, architecture="forest"))
    classifier = classifier_of(discs)
    with pytest.raises(InputError, match="no object 999"):
        explain(pair, objects, 999, classifier)
    with pytest.raises(InputError, match="class ids"):
        explain(pair, objects, label, classifier, class_id=99)
    with pytest.raises(InputError, match="gradcam, "):
        explain(pair, objects, label, classifier, method="tea leaves")


def test_torchvision_is_imported_once_and_shared():
    module = torchvision_loader.load_torchvision()
    assert torchvision_loader.load_torchvision() is module is sys.modules["torchvision"]
    assert importlib.import_module("pytorch_grad_cam").GradCAM
