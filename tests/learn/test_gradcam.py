"""Grad-CAM shows where in the image the network looked, in 2D and 3D."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ClassifierError, InputError
from svetlana_jupyter.learn import networks as torchvision_loader
from svetlana_jupyter.learn.dataset import collect_training_data
from svetlana_jupyter.learn.gradcam import CAM_METHODS, explain
from svetlana_jupyter.learn.training import fit

QUICK = TrainingSettings(epochs=3, steps=5, depth=2, width=4, trees=10, patches={"sampling": 12})


def classifier_of(part, **changes):
    *_, fitted = fit(collect_training_data([part], QUICK.changed(**changes)))
    return fitted.classifier


@pytest.mark.parametrize("method", CAM_METHODS)
def test_the_map_lies_on_the_objects_patch_in_coordinates_of_the_image(part, method):
    found, objects, classes = part
    classifier = classifier_of(part, patches={"size": 14, "sampling": 14})
    label = int(classes.index[5])
    seen = explain(found, objects, label, classifier, method=method)
    axes = tuple("zyx"[-found.ndim :])
    assert seen["cam"].dims == seen["mask"].dims == axes
    assert seen["image"].dims == ("c", *axes)
    assert seen["cam"].shape == (14,) * found.ndim
    assert 0 <= float(seen["cam"].min()) <= float(seen["cam"].max()) <= 1
    for axis in axes:
        assert float(seen["cam"][axis].mean()) == pytest.approx(objects.loc[label, axis], abs=0.5)
    # Away from the border, the patch's pixels and mask are the image's at these coordinates.
    inside = {axis: seen[axis][(seen[axis] >= 0) & (seen[axis] < found.mask.sizes[axis])].to_numpy() for axis in axes}
    whole = {axis: places.astype(int) for axis, places in inside.items()}
    np.testing.assert_array_equal(seen["image"].sel(inside), found.image.isel(whole))
    np.testing.assert_array_equal(seen["mask"].sel(inside), found.mask.isel(whole) == label)


def test_it_explains_the_predicted_class_or_the_one_asked_for(discs):
    found, objects, classes = discs
    classifier = classifier_of(discs)
    label = int(classes.index[0])
    predicted = explain(found, objects, label, classifier).attrs
    other = explain(found, objects, label, classifier, class_id=11 - predicted["class_id"]).attrs
    assert predicted["probability"] + other["probability"] == pytest.approx(1.0, abs=1e-5)
    assert predicted["probability"] >= 0.5
    assert {predicted["class_id"], other["class_id"]} == {4, 7}


def test_explaining_leaves_no_hooks_and_no_other_weights_behind(discs):
    found, objects, classes = discs
    classifier = classifier_of(discs)
    before = {name: values.copy() for name, values in classifier.tensors().items()}
    explain(found, objects, int(classes.index[0]), classifier)
    assert not any(module._forward_hooks or module._backward_hooks for module in classifier.module.modules())
    for name, values in classifier.tensors().items():
        np.testing.assert_array_equal(values, before[name])


def test_a_forest_an_unknown_object_class_or_method_are_refused_in_words(discs):
    found, objects, classes = discs
    label = int(classes.index[0])
    with pytest.raises(ClassifierError, match="Grad-CAM needs a network"):
        explain(found, objects, label, classifier_of(discs, architecture="forest"))
    classifier = classifier_of(discs)
    with pytest.raises(InputError, match="no object 999"):
        explain(found, objects, 999, classifier)
    with pytest.raises(InputError, match="class ids"):
        explain(found, objects, label, classifier, class_id=99)
    with pytest.raises(InputError, match="gradcam, "):
        explain(found, objects, label, classifier, method="tea leaves")


def test_torchvision_is_imported_once_and_is_the_one_that_others_import():
    module = torchvision_loader.load_torchvision()
    assert torchvision_loader.load_torchvision() is module is sys.modules["torchvision"]
    assert torchvision_loader.load_grad_cam().GradCAM
