"""Grad-CAM explanations of an object's class (section 3 of the Svetlana paper)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from xarray import Dataset

from svetlana_jupyter.core.objects import NONFINITE_PIXELS, find_nonfinite_objects
from svetlana_jupyter.core.patch_geometry import patch_geometry, patch_settings_for_object
from svetlana_jupyter.core.patches import take_patch
from svetlana_jupyter.errors import ClassifierError, InputError
from svetlana_jupyter.learn.classifier import Classifier, NetworkClassifier
from svetlana_jupyter.learn.networks import MEMORY_FORMATS, load_torchvision

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from svetlana_jupyter.core.io.image_pair import ImagePair

# Class of pytorch_grad_cam for each method. These methods work in 2D and 3D.
CAM_METHODS = {"gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "layercam": "LayerCAM"}


def explain(
    pair: ImagePair,
    objects: pd.DataFrame,
    label: int,
    classifier: Classifier,
    class_id: int | None = None,
    method: str = "gradcam",
) -> Dataset:
    """Compute a Grad-CAM map: the pixels of an object's patch that support a class.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of the object table (`core.objects.index_objects`).
    label : int
        Label of the object, which must be in the index of ``objects``.
    classifier : Classifier
    class_id : int, optional
        The class to explain; by default the predicted class.
    method : "gradcam", "gradcam++" or "layercam"

    Returns
    -------
    Dataset
        Variables: ``image`` (c, [z,] y, x), the raw pixels of the patch; ``mask`` ([z,] y, x) of the object; ``cam``
        ([z,] y, x), the Grad-CAM map from 0 to 1. Coordinates are in pixels of the image. ``attrs`` contains object,
        class_id, probability and method.

    Raises
    ------
    ClassifierError
        If the classifier has no network, or does not fit the image.
    InputError
        If there is no such object, class or method, or if the object has NaN or infinite pixels.
    """
    if not isinstance(classifier, NetworkClassifier):
        raise ClassifierError(
            f"Grad-CAM needs a network, but this is a {classifier.kind} classifier. "
            'Train with architecture="small_cnn".'
        )
    classifier.check(pair)
    _check_choices(pair, objects, label, classifier, class_id, method)
    if find_nonfinite_objects(pair.image, pair.mask, objects.loc[[label]]):
        raise InputError(f"Object {label} of {pair.name!r} has no prediction: {NONFINITE_PIXELS}.")
    axes = list("zyx"[-pair.ndim :])
    center = np.asarray(objects.loc[label, axes], dtype=float)
    settings = patch_settings_for_object(classifier.patches, objects, label, pair.spacing)
    patch = take_patch(pair.image, pair.mask, center, settings, label)
    probabilities = classifier.classify(patch[None])[0]
    position = int(probabilities.argmax()) if class_id is None else classifier.classes.index(class_id)
    raw_settings = settings.changed(normalize="none", context="keep", mask_channel=True)
    raw = take_patch(pair.image, pair.mask, center, raw_settings, label)
    coordinates = patch_geometry(settings, pair.spacing).coordinates(center)
    cam = _class_activation_map(classifier, patch, position, method)
    class_id, probability = classifier.classes[position], float(probabilities[position])
    return Dataset(
        {"image": (["c", *axes], raw[:-1]), "mask": (axes, raw[-1] > 0), "cam": (axes, cam)},
        coords={"c": list(pair.channels), **coordinates},
        attrs={"object": label, "class_id": class_id, "probability": probability, "method": method},
    )


def _check_choices(
    pair: ImagePair, objects: pd.DataFrame, label: int, classifier: Classifier, class_id: int | None, method: str
) -> None:
    if label not in objects.index:
        raise InputError(f"{pair.name!r} has no object {label}. Choose a label of its mask.")
    if class_id is not None and class_id not in classifier.classes:
        raise InputError(f"The classifier has no class {class_id}. Choose one of its class ids {classifier.classes}.")
    if method not in CAM_METHODS:
        raise InputError(f"{method!r} is not an explanation method. Choose one of {', '.join(CAM_METHODS)}.")


def _class_activation_map(
    classifier: NetworkClassifier, patch: NDArray[np.float32], position: int, method: str
) -> NDArray[np.float32]:
    layer = classifier.module.gradcam_layer
    if layer is None:
        raise ClassifierError(
            "Grad-CAM needs a convolutional network, but this network has no convolution. "
            'Train with architecture="small_cnn".'
        )
    inputs = torch.from_numpy(patch[None]).to(classifier.device, memory_format=MEMORY_FORMATS[classifier.ndim])
    inputs.requires_grad_()  # so that gradients flow through frozen layers
    load_torchvision()  # pytorch_grad_cam imports torchvision
    cam_class = getattr(importlib.import_module("pytorch_grad_cam"), CAM_METHODS[method])
    # The context manager removes the hooks from the network.
    with cam_class(model=classifier.module, target_layers=[layer]) as cam:
        result: NDArray[np.float32] = cam(input_tensor=inputs, targets=[lambda logits: logits[..., position]])[0]
    return np.nan_to_num(result)
